"""Several networks as one give the mean of their probabilities, each of its own bands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from torch import nn

from geoseg.errors import InputError, LegendError
from geoseg.infer.canvas import HOST
from geoseg.infer.ensemble import Ensemble
from geoseg.infer.options import PredictOptions
from geoseg.infer.predictor import TorchModel, TorchPredictor
from geoseg.infer.scene import predict_scene
from geoseg.infer.torch_arrays import TorchArrays
from geoseg.io.sources import open_source
from geoseg.legend import Legend
from geoseg.models.card import BandInfo, ModelCard
from geoseg.models.spec import ModelSpec


def model_of(*bands: str, seed: int, gsd_m: float = 10.0, names: tuple[str, ...] = ("a", "b", "c")) -> TorchModel:
    torch.manual_seed(seed)
    card = ModelCard(
        name=f"net{seed}", spec=ModelSpec(bands=len(bands), classes=3), legend=Legend.from_names(names),
        bands=tuple(BandInfo(name=name, mean=50.0, std=30.0) for name in bands), gsd_m=(gsd_m, gsd_m), tile_px=64,
        overlap_px=16,
    )  # fmt: skip
    return TorchModel(nn.Conv2d(len(bands), 3, 3, padding=1), card)


def softmax(found: Any) -> Any:
    if not found.logits:
        return np.stack(list(found.values))
    scores = np.exp(found.values - found.values.max(axis=3, keepdims=True))
    return scores / scores.sum(axis=3, keepdims=True)


def test_the_mean_of_the_members_each_with_its_bands() -> None:
    rng = np.random.default_rng(0)
    tiles, valid = list(rng.integers(0, 99, (2, 3, 32, 48)).astype("u1")), [rng.random((32, 48)) > 0.1] * 2
    members = [model_of("x", "y", seed=1), model_of("z", "x", seed=2)]
    used = [model.predictor(PredictOptions(device="cpu")) for model in members]
    picks = ((0, 1), (2, 0))
    found = Ensemble(tuple(used), picks, 2).scores(tiles, valid, model_shape=(32, 48))
    wanted = [
        softmax(predictor.scores([tile[list(pick)] for tile in tiles], valid, model_shape=(32, 48)))
        for predictor, pick in zip(used, picks, strict=True)
    ]
    assert not found.logits
    np.testing.assert_allclose(softmax(found), np.mean(wanted, axis=0), atol=1e-6)


def test_batches_are_those_of_the_hungriest_member() -> None:
    members = [model_of("x", seed=seed).predictor(PredictOptions(device="cpu")) for seed in (1, 2)]
    both = Ensemble(tuple(members), ((0,), (0,)), 4)
    assert both.fit_batch(model_shape=(32, 32), tiles=10, memory_bytes=10**9, search=False) > 0
    assert [member.batch_tiles for member in members] == [4, 4]
    assert both.model_bytes == sum(member.model_bytes for member in members)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def make(rows: int = 90, cols: int = 110) -> Path:
        pixels = np.random.default_rng(0).integers(0, 99, (3, rows, cols)).astype("u1")
        profile = {"driver": "GTiff", "count": 3, "height": rows, "width": cols, "dtype": "uint8",
                   "crs": "EPSG:32633", "transform": Affine(10, 0, 500_000, 0, -10, 5_000_000)}  # fmt: skip
        with rasterio.open(tmp_path / "scene.tif", "w", **profile) as file:
            file.write(pixels)
            file.descriptions = ("X", "y", "z")
        return tmp_path / "scene.tif"

    return make


def test_a_scene_is_mapped_by_several_models(write: Callable[..., Path], tmp_path: Path) -> None:
    source, options = open_source(write()), PredictOptions(layers=("probabilities",))
    models, percent = [model_of("x", "y", seed=1), model_of("z", "x", seed=2)], []
    for number, chosen in enumerate(([models[0]], [models[1]], models)):
        result = predict_scene(source, models=chosen, out=tmp_path / f"{number}.tif", options=options)
        with rasterio.open(result.layers["probabilities"]) as file:
            assert file.descriptions == ("a", "b", "c")
            percent.append(file.read().astype(float))
            assert file.tags()["GEOSEG_MODEL_NAME"] == " + ".join(model.card.name for model in chosen)
    np.testing.assert_allclose(percent[2], (percent[0] + percent[1]) / 2, atol=1.01)


@pytest.mark.parametrize(
    ("other", "error", "said"),
    [
        (
            model_of("x", seed=2, names=("a", "b", "d")),
            LegendError,
            "has the classes 1 a, 2 b, 3 c, net2 has 1 a, 2 b, 3 d",
        ),
        (model_of("x", seed=2, gsd_m=30.0), InputError, "net1 was trained at 10 m, net2 at 30 m"),
    ],
)
def test_models_that_do_not_go_together_are_refused(
    write: Callable[..., Path], tmp_path: Path, *, other: TorchModel, error: Any, said: str
) -> None:
    with pytest.raises(error, match=said):
        predict_scene(open_source(write()), models=[model_of("x", seed=1), other], out=tmp_path / "map.tif")
    with pytest.raises(InputError, match="no model was given"):
        predict_scene(open_source(write()), models=[], out=tmp_path / "map.tif")


def test_predictors_of_an_ensemble_are_of_torch() -> None:
    assert isinstance(model_of("x", seed=1).predictor(PredictOptions(device="cpu")), TorchPredictor)


def test_models_that_work_in_different_memories_are_refused(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_gpu = property(lambda self: TorchArrays(self.device) if self._mean[0] else HOST)
    monkeypatch.setattr(TorchPredictor, "arrays", on_gpu)
    one, other = model_of("x", seed=1), model_of("x", seed=2)
    other = replace(other, card=replace(other.card, bands=(BandInfo(name="x", mean=0.0, std=1.0),)))
    with pytest.raises(InputError, match="models in ONNX work in the CPU's memory.*--device cpu"):
        predict_scene(open_source(write()), models=[one, other], out=tmp_path / "map.tif")


def test_a_member_without_memory_lowers_the_batch_of_all() -> None:
    class Small(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            if len(image) > 1:
                raise torch.OutOfMemoryError("too much")
            return torch.cat([image, image, image], dim=1)

    card = model_of("x", seed=1).card
    members = [TorchModel(Small(), card).predictor(PredictOptions(device="cpu", batch=4)) for _ in range(2)]
    both = Ensemble(tuple(members), ((0,), (0,)), 4)
    tile, usable = np.ones((1, 32, 32), np.uint8), np.ones((32, 32), np.bool_)
    both.scores([tile] * 4, [usable] * 4, model_shape=(32, 32))
    assert both.batch_tiles == 1
