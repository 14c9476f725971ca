"""A run ends with the stitched scores: in its result, its metrics, its model card, and as pictures."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
from affine import Affine

import geoseg
from geoseg.errors import InputError
from geoseg.models.card import read_card
from geoseg.training import run as running
from geoseg.training.run import run_fit

PICTURES = ("confusion.png", "curves.png", "predictions.png", "reliability.png")


@pytest.fixture
def config(tmp_path, monkeypatch) -> dict:
    """Fields of three classes that overlap in two bands; the columns from 100 on validate."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    labels = np.kron(rng.integers(1, 4, (20, 20)), np.ones((8, 8))).astype(np.uint8)
    means = np.array([[500, 2000], [3000, 1000], [2000, 4000]])
    image = (means[labels - 1].transpose(2, 0, 1) + rng.normal(0, 900, (2, 160, 160))).clip(1).astype(np.uint16)
    for name, pixels in (("image.tif", image), ("labels.tif", labels[None])):
        with rasterio.open(
            name, "w", driver="GTiff", count=len(pixels), height=160, width=160, dtype=pixels.dtype, crs="EPSG:32633",
            transform=Affine(10, 0, 500_000, 0, -10, 5_200_000), nodata=0,
        ) as file:  # fmt: skip
            file.write(pixels)
    legend = {1: "water", 2: "wood", 3: "road"}
    return {
        "name": "judged",
        "data": {
            "scenes": [{"image": "image.tif", "labels": {"path": "labels.tif", "legend": legend}}],
            "patch_px": 32, "batch": 4, "epoch_patches": 32,
            "split": {"regions": {"cols": [100, 160]}, "buffer_m": 40.0},
        },
        "model": {
            "encoder": "resnet18", "options": {"encoder_depth": 3, "decoder_channels": [16, 8, 8]}, "bf16": "no",
        },
        "trainer": {"max_epochs": 1, "accelerator": "cpu"},
    }  # fmt: skip


def test_the_scores_are_those_of_the_map_that_predict_writes(config):
    result = run_fit(config)
    geoseg.predict("image.tif", model=result.model, out="map.tif", precision="fp32", device="cpu")
    with rasterio.open("map.tif") as mapped, rasterio.open("labels.tif") as labels:
        wanted = np.zeros((3, 3), int)
        np.add.at(wanted, (labels.read(1)[:, 100:] - 1, mapped.read(1)[:, 100:] - 1), 1)
    np.testing.assert_array_equal(result.scores["confusion"], wanted)


def test_result_metrics_and_card_tell_the_same_and_the_pictures_are_there(config):
    result = run_fit(config, validation={"boundary_px": 1, "places": 2})
    figures = json.loads((result.folder / "metrics.json").read_text())
    assert figures["scores"] == json.loads(json.dumps(result.scores)) == read_card(result.model).scores
    assert result.scores["boundary_px"] == 1
    assert 0 < result.scores["mean_boundary_iou"] < result.scores["overall_accuracy"]
    assert 0 < result.scores["calibration_error"] < 1
    assert all(item["boundary_iou"] is not None for item in result.scores["classes"].values())
    assert read_card(result.model).training["split"]
    for name in PICTURES:
        assert (result.folder / name).read_bytes().startswith(b"\x89PNG")


def test_other_processes_than_the_first_judge_nothing(config, monkeypatch):
    def never(*args, **options):
        raise AssertionError

    monkeypatch.setattr(running, "judge_scenes", never)
    monkeypatch.setattr("lightning.pytorch.Trainer.is_global_zero", property(lambda self: False))  # noqa: ARG005
    assert run_fit(config).scores["confusion"]  # those of the tiles


def test_pictures_of_an_earlier_run_do_not_stay(config):
    folder = run_fit(config).folder
    run_fit(config, validation={"places": 0}, overwrite=True)
    assert not (folder / "predictions.png").exists()


@pytest.mark.parametrize("wrong", [{"boundary_px": 0}, {"boundary": 3}, {"places": "many"}])
def test_options_that_do_not_fit_are_one_line(config, wrong):
    with pytest.raises(InputError, match="validation") as caught:
        run_fit(config, validation=wrong)
    assert "\n" not in str(caught.value)
