"""What needs a GPU: the verbs on one, against the same on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine

import geoseg
from geoseg.legend import Legend
from geoseg.models.build import create_model
from geoseg.models.card import BandInfo, ModelCard
from geoseg.models.file import save_model
from geoseg.models.spec import ModelSpec
from geoseg.training.command import parsed
from geoseg.training.manners import quiet
from geoseg.training.search import find_batch

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

DEVICE, ACCELERATOR = "cuda", "gpu"
LAYERS = ["entropy", "margin", "second", "probabilities"]
LEGEND = {1: "water", 2: "wood", 3: "road"}


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Writes fields of three classes whose bands tell them apart, with a corner of nodata, and their labels."""
    monkeypatch.chdir(tmp_path)

    def write(dtype: str = "uint16") -> str:
        rng = np.random.default_rng(0)
        labels = np.kron(rng.integers(1, 4, (20, 28)), np.ones((16, 16))).astype(np.uint8)
        means = np.array([[25, 100, 45], [150, 50, 45], [100, 100, 200]])
        image = (means[labels - 1].transpose(2, 0, 1) + rng.normal(0, 5, (3, *labels.shape))).astype(dtype)
        image[:, :40, :70] = 0
        where = {"crs": "EPSG:32633", "transform": Affine(10, 0, 500_000, 0, -10, 5_200_000), "nodata": 0}
        for name, pixels in (("image.tif", image), ("labels.tif", labels[None])):
            sizes = {"count": len(pixels), "height": pixels.shape[1], "width": pixels.shape[2]}
            with rasterio.open(name, "w", driver="GTiff", dtype=pixels.dtype, **sizes, **where) as file:
                file.write(pixels)
        return "image.tif"

    return write


def model(folder: Path, *, encoder: str = "resnet18") -> Path:
    """A network at random whose scores are far apart, as those of trained ones are."""
    torch.manual_seed(0)
    spec = ModelSpec(encoder=encoder, bands=3, classes=3, options={"decoder_channels": [64, 32, 16, 16, 8]})
    network = create_model(spec)
    torch.nn.init.normal_(network.segmentation_head[0].weight, std=3.0)
    bands = tuple(BandInfo(name=f"band{number}", mean=90.0, std=50.0) for number in (1, 2, 3))
    legend, sizes = Legend.from_dict(LEGEND), {"tile_px": 128, "overlap_px": 32}
    card = ModelCard(name="net", spec=spec, bands=bands, legend=legend, gsd_m=(10.0, 10.0), **sizes)
    save_model(folder / f"{encoder}.safetensors", model=network, card=card)
    return folder / f"{encoder}.safetensors"


def mapped(scene: str, out: str, **options: Any) -> np.ndarray:
    geoseg.predict(scene, out=out, overwrite=True, **options)
    with rasterio.open(out) as file:
        return file.read(1)


@pytest.mark.parametrize("options", [{}, {"tta": "all"}, {"batch": 3}, {"precision": "fp16"}, {"compile": True}])
def test_a_map_by_a_gpu_is_that_of_the_cpu(scene, tmp_path, options):
    given, network = scene(), model(tmp_path)
    on_cpu = {name: value for name, value in options.items() if name == "tta"}
    wanted = mapped(given, "cpu.tif", model=network, device="cpu", layers=LAYERS, **on_cpu)
    found = mapped(given, "gpu.tif", model=network, device=DEVICE, layers=LAYERS, **options)
    assert (found[:40, :70] == 255).all()
    assert (found == wanted).mean() > 0.95  # arithmetic of fewer bits decides between neighbours
    for layer in LAYERS:
        with rasterio.open(f"cpu.{layer}.tif") as one, rasterio.open(f"gpu.{layer}.tif") as other:
            if layer != "second":
                assert np.abs(one.read().astype(int) - other.read().astype(int)).mean() < 4, layer


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32"])
def test_every_kind_of_number_reaches_the_gpu(scene, tmp_path, dtype):
    given, network = scene(dtype), model(tmp_path)
    wanted = mapped(given, "cpu.tif", model=network, device="cpu")
    assert (mapped(given, "gpu.tif", model=network, device=DEVICE, precision="fp32") == wanted).mean() > 0.99


def test_a_process_a_gpu_and_several_models_give_the_same_map(scene, tmp_path):
    given, networks = scene(), [model(tmp_path), model(tmp_path, encoder="mobilenet_v2")]
    wanted = mapped(given, "one.tif", model=networks, device=DEVICE)
    np.testing.assert_array_equal(mapped(given, "other.tif", model=networks, device=DEVICE, engine="processes"), wanted)


def configured(**trainer: Any) -> dict[str, Any]:
    return {
        "name": "tiny",
        "data": {
            "scenes": [{"image": "image.tif", "labels": {"path": "labels.tif", "legend": LEGEND}}], "patch_px": 64,
            "batch": 8, "epoch_patches": 32, "split": {"block_m": 640.0, "buffer_m": 20.0},
        },
        "model": {"options": {"encoder_depth": 3, "decoder_channels": [16, 16, 16]}, "swa": {"start": 0.5}},
        "trainer": {"max_epochs": 2, "accelerator": ACCELERATOR, **trainer},
        "validation": {"places": 0},
    }  # fmt: skip


def test_a_run_on_a_gpu_learns_and_repeats_to_the_last_bit(scene, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    scene()
    found = []
    for _ in range(2):
        given = configured(deterministic=True)
        given["model"]["loss"] = {"ce": 1.0, "dice": 0.5, "focal": 0.5}
        run = geoseg.fit({**given, "overwrite": True})
        found.append((run.scores["mean_iou"], run.model.read_bytes()[-4096:]))
    assert found[0] == found[1]
    assert found[0][0] > 0.5


def test_a_compiled_network_learns_on_a_gpu(scene):
    scene()
    given = configured()
    given["model"]["compile"] = True
    assert geoseg.fit(given).scores["mean_iou"] > 0.5


def test_one_gpu_and_ddp_train_a_network_cut_short(scene):
    scene()
    run = geoseg.fit(configured(devices=1, strategy="ddp", sync_batchnorm=True))
    assert run.scores["mean_iou"] > 0.3


def test_one_gpu_and_fsdp_train_and_go_on(scene):
    scene()
    given = configured(devices=1, strategy="fsdp", max_epochs=3)
    given["model"] = {**given["model"], "swa": None, "ema_decay": 0}
    assert geoseg.fit(given).scores["mean_iou"] > 0.3
    longer = {**given, "trainer": {**given["trainer"], "max_epochs": 4}}
    assert geoseg.fit({**longer, "resume": True}).scores["mean_iou"] > 0.3


def test_a_batch_is_found_on_a_gpu(scene):
    scene()
    with quiet():
        cli = parsed(configured(), (), {})
    data, task = cli.datamodule, cli.model
    try:
        data.setup("fit")
        task.prepare(
            mean=data.stats.mean, std=data.stats.std, class_names=data.legend.names, class_pixels=data.training_pixels
        )
        assert find_batch(task, data, device=torch.device(DEVICE)) == data.epoch_patches  # all of so few fit
    finally:
        data.close()
