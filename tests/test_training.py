"""A run from configuration to model file: it learns, it resumes, it refuses."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import yaml
from affine import Affine

from geoseg.errors import InputError, MissingInputError, OutputExistsError
from geoseg.models.card import read_card
from geoseg.models.file import load_model
from geoseg.models.task import normalize
from geoseg.training.run import run_fit

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
TINY = {
    "data": {"patch_px": 32, "batch": 8, "epoch_patches": 64, "split": {"block_m": 320.0, "buffer_m": 20.0}},
    "model": {"decoder": "pixel", "options": {"hidden": [16]}, "lr": 0.02, "bf16": "no"},
    "trainer": {"max_epochs": 2, "accelerator": "cpu"},
}


def write(path: Path, pixels: np.ndarray, *, nodata: int = 0) -> None:
    affine = Affine(10, 0, 500_000, 0, -10, 5_200_000)
    with rasterio.open(
        path, "w", driver="GTiff", count=len(pixels), height=pixels.shape[1], width=pixels.shape[2],
        dtype=pixels.dtype, crs="EPSG:32633", transform=affine, nodata=nodata,
    ) as file:  # fmt: skip
        file.write(pixels)


@pytest.fixture
def scene(tmp_path, monkeypatch) -> dict:
    """Fields of three classes whose bands tell them apart, with a hole of nodata and unlabelled pixels; one scene."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    labels = np.kron(rng.integers(1, 4, (20, 16)), np.ones((8, 8))).astype(np.uint8)
    means = np.array([[500, 2000, 900], [3000, 1000, 900], [2000, 2000, 4000]])
    image = (means[labels - 1].transpose(2, 0, 1) + rng.normal(0, 100, (3, 160, 128))).astype(np.uint16)
    image[:, 40:50, 40:50] = 0
    labels[100:110, 60:70] = 0
    write(tmp_path / "image.tif", image)
    write(tmp_path / "labels.tif", labels[None])
    return {"image": "image.tif", "labels": {"path": "labels.tif", "legend": {1: "water", 2: "wood", 3: "road"}}}


def config(scene: dict, **changes) -> dict:
    merged = {key: dict(value) for key, value in TINY.items()}
    for key, value in changes.items():
        merged[key] = {**merged.get(key, {}), **value} if isinstance(value, dict) else value
    merged["data"]["scenes"] = [scene]
    return {"name": "tiny", **merged}


@pytest.mark.usefixtures("unrendered")
def test_it_learns_and_leaves_one_model_file(scene):
    result = run_fit(config(scene, trainer={"max_epochs": 6}))
    assert result.model == Path("runs/tiny/model.safetensors")
    assert result.scores["mean_iou"] > 0.95
    assert "mean IoU" in str(result)
    network, card = load_model(result.model)
    with rasterio.open("image.tif") as file:
        image = torch.from_numpy(file.read()[None].astype(np.int32))
    mean, std = (torch.tensor([getattr(band, name) for band in card.bands]) for name in ("mean", "std"))
    with torch.inference_mode():
        mapped = network(normalize(image, (image > 0).all(1), mean=mean, std=std)).argmax(1)[0].numpy()
    with rasterio.open("labels.tif") as file:
        truth = file.read(1)
    known = (truth > 0) & (image > 0).all(1)[0].numpy()
    assert (card.legend.ids[mapped] == truth)[known].mean() > 0.97
    assert card.legend.names == ("water", "wood", "road")
    assert card.gsd_m == (10.0, 10.0)
    assert card.train_region["type"].endswith("Polygon")
    assert card.training["config"]["data"]["patch_px"] == 32


def test_the_folder_tells_the_run(scene):
    result = run_fit(config(scene))
    figures = json.loads((result.folder / "metrics.json").read_text())
    assert [row["epoch"] for row in figures["history"]] == [0, 1]
    assert figures["scores"] == json.loads(json.dumps(result.scores))
    best = max(figures["history"], key=lambda row: row["val/score"])
    assert best["val/miou"] == pytest.approx(result.scores["mean_iou"], abs=1e-6)
    (table,) = result.folder.glob("csv/**/metrics.csv")
    assert "val/score" in table.read_text().splitlines()[0].split(",")
    assert list(result.folder.glob("tensorboard/**/events.*"))
    assert (result.folder / "curves.png").stat().st_size > 5000
    assert yaml.safe_load((result.folder / "config.yaml").read_text())["data"]["batch"] == 8


@pytest.mark.usefixtures("unrendered")
def test_statistics_are_those_of_the_valid_training_pixels(scene):
    result = run_fit(config(scene, data={"split": {"regions": {"rows": [0, 64]}, "buffer_m": 40.0}}))
    with rasterio.open("image.tif") as file:
        image = file.read()
    training_part = image[:, 68:]  # row 64 + 4 is the first that lies more than 40 m from row 63
    values = training_part[:, (training_part > 0).all(0)].astype(float)
    card = read_card(result.model)
    np.testing.assert_allclose([band.mean for band in card.bands], values.mean(1))
    np.testing.assert_allclose([band.std for band in card.bands], values.std(1))


@pytest.mark.usefixtures("unrendered")
def test_the_same_seed_gives_the_same_weights(scene):
    runs = [
        run_fit(config(scene, name=f"run{k}"), seed_everything=seed, data={"workers": workers})
        for k, (seed, workers) in enumerate([(3, 0), (3, 1), (4, 0)])
    ]
    weights = [torch.cat([v.flatten().float() for v in load_model(run.model)[0].state_dict().values()]) for run in runs]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.usefixtures("unrendered")
def test_a_run_is_not_overwritten_unless_asked(scene):
    first = run_fit(config(scene))
    before = first.model.read_bytes()
    with pytest.raises(OutputExistsError, match="--overwrite"):
        run_fit(config(scene))
    assert first.model.read_bytes() == before
    first.model.unlink()
    with pytest.raises(OutputExistsError, match="--resume"):
        run_fit(config(scene))
    assert run_fit(config(scene), args=["--overwrite"], seed_everything=1).model.read_bytes() != before


def test_there_must_be_something_to_resume(scene):
    with pytest.raises(MissingInputError, match="nothing to resume"):
        run_fit(config(scene), resume=True)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": {"patch": 64}}, "'patch'; near it are .*patch_px"),
        ({"colour": "blue"}, "'colour' is not accepted"),
        ({"model": {"lr": "fast"}}, "model.lr"),
        ({"trainer": {"epochs": 3}}, "'epochs'; near it are .*max_epochs"),
        ({"model": {"decoder": "unett"}}, "known are unet"),
        ({"data": {"patch_px": 31}}, "32 or more"),
        ({"data": {"batch": 0}}, "needed is 1"),
        ({"data": {"bands": ["red"]}}, r"needed bands are \[red\]"),
        ({"data": {"split": {"block": 3}}}, "split"),
    ],
)
def test_what_does_not_fit_is_one_line_and_leaves_nothing(scene, changes, words):
    with pytest.raises(Exception, match=words) as caught:
        run_fit(config(scene, **changes))
    assert caught.type.__module__ == "geoseg.errors"
    assert "\n" not in str(caught.value)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("entry", "words"),
    [({"image": "image.tif"}, "no labels"), ({"image": "a", "labels": "b", "mask": "c"}, "unknown key mask")],
)
def test_a_scene_has_its_keys(scene, entry, words):
    with pytest.raises(InputError, match=words):
        run_fit(config(entry))


def test_a_loss_that_is_no_number_stops_the_run(scene):
    with pytest.raises(InputError, match=r"loss is nan at step \d+; lower model.lr"):
        run_fit(config(scene, model={"lr": 1e30}))


def test_a_missing_config_says_where_one_is():
    with pytest.raises(MissingInputError, match=r"landcover\.yaml"):
        run_fit("nowhere.yaml")


@pytest.mark.usefixtures("unrendered")
def test_an_interrupted_run_resumes_as_if_it_had_never_stopped(scene, stopped_after):
    whole = run_fit(config(scene, name="whole", trainer={"max_epochs": 3}))
    with stopped_after(2):
        run_fit(config(scene, trainer={"max_epochs": 3}))
    assert Path("runs/tiny/last.ckpt").is_file()
    assert not Path("runs/tiny/model.safetensors").exists()
    resumed = run_fit(config(scene, trainer={"max_epochs": 3}), resume=True)
    histories = [json.loads((run.folder / "metrics.json").read_text())["history"] for run in (whole, resumed)]
    assert [row["step"] for row in histories[1]] == [8, 16, 24]
    for one, other in zip(*histories, strict=True):
        assert one["train/loss"] == pytest.approx(other["train/loss"], rel=1e-6)
        assert one["val/score"] == pytest.approx(other["val/score"], rel=1e-6)
    for one, other in zip(*(load_model(run.model)[0].state_dict().values() for run in (whole, resumed)), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.usefixtures("unrendered")
def test_hard_examples_and_soft_labels_train(scene):
    with rasterio.open("labels.tif") as file:
        labels = file.read(1)
    shares = np.stack([np.where(labels == value, 200, 20 * (labels > 0)) for value in (1, 2, 3)]).astype(np.uint8)
    write(Path("soft.tif"), shares, nodata=255)
    soft = {"image": "image.tif", "labels": {"soft": "soft.tif", "classes": ["water", "wood", "road"]}}
    hard = {"sampling": {"shares": {"hard": 0.5, "labelled": 0.5}}}
    result = run_fit(config(soft, data=hard, trainer={"max_epochs": 6}))
    assert result.scores["mean_iou"] > 0.9


@pytest.mark.usefixtures("unrendered")
def test_a_saved_split_is_the_same_split(scene):
    first = run_fit(config(scene))
    again = run_fit(config(scene, name="again", data={"split": {"file": "runs/tiny/split.geojson", "buffer_m": 20.0}}))
    parts = [json.loads((run.folder / "metrics.json").read_text())["validation_pixels"] for run in (first, again)]
    assert parts[0] == parts[1]


@pytest.mark.usefixtures("unrendered")
def test_two_scenes_in_two_zones_at_one_resolution(scene, tmp_path, monkeypatch, caplog):
    with rasterio.open("image.tif") as image, rasterio.open("labels.tif") as labels:
        for name, source in (("image2.tif", image), ("labels2.tif", labels)):
            profile = {**source.profile, "crs": "EPSG:32632"}
            with rasterio.open(name, "w", **profile) as file:
                file.write(source.read())
    other = {"image": "image2.tif", "labels": {**scene["labels"], "path": "labels2.tif"}, "part": "validation"}
    both = config(scene, data={"gsd_m": 20.0, "store": {"memory_gb": 0.0, "folder": str(tmp_path / "store")}})
    both["data"]["scenes"].append(other)
    with caplog.at_level(logging.WARNING, "geoseg"):
        result = run_fit(both)
    card = read_card(result.model)
    assert card.gsd_m == (20.0, 20.0)
    assert sum(item["pixels"] for item in result.scores["classes"].values()) > 4500  # all of the second scene
    assert not list((tmp_path / "store").glob("*.part"))
    assert json.loads(Path("runs/tiny/split.geojson").read_text())["type"] == "FeatureCollection"
    assert Path("runs/tiny/split.png").read_bytes().startswith(b"\x89PNG")
