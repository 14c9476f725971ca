"""From files to batches: bands by name, one legend, one split, honest counts."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine

from geoseg.data.datamodule import SceneDataModule, counts_by_name
from geoseg.data.scene import IGNORE_INDEX, TRAINING, VALIDATION
from geoseg.data.splits import SplitOptions
from geoseg.errors import BandError, InputError, LegendError, MissingInputError

NAMES = {1: "water", 2: "wood", 3: "road"}


@pytest.fixture
def write(tmp_path):
    """A function that writes a GeoTIFF and gives its path."""

    def make(name: str, pixels: np.ndarray, *, west: float = 500_000.0, bands=(), nodata: int = 0) -> str:
        path = tmp_path / name
        with rasterio.open(
            path, "w", driver="GTiff", count=len(pixels), height=pixels.shape[1], width=pixels.shape[2],
            dtype=pixels.dtype, crs="EPSG:32633", transform=Affine(10, 0, west, 0, -10, 5_200_000), nodata=nodata,
        ) as file:  # fmt: skip
            file.write(pixels)
            for number, band in enumerate(bands, 1):
                file.set_band_description(number, band)
        return str(path)

    return make


@pytest.fixture
def scene(write):
    """Fields of three classes, unlabelled in places; band 1 is the row + 1, band 2 the column + 1."""
    rng = np.random.default_rng(3)
    labels = np.kron(rng.integers(0, 4, (20, 20)), np.ones((8, 8))).astype(np.uint8)
    image = np.indices((160, 160)).astype(np.uint16) + 1
    image[:, 5:9, 5:9] = 0
    return {
        "image": write("image.tif", image, bands=("Red", "NIR")),
        "labels": {"path": write("labels.tif", labels[None]), "legend": NAMES},
    }


def module(*scenes, **options) -> SceneDataModule:
    given = {"patch_px": 32, "batch": 4, "epoch_patches": 16, "split": SplitOptions(block_m=320.0, buffer_m=20.0)}
    data = SceneDataModule(scenes=list(scenes), **{**given, **options})
    data.setup("fit")
    return data


def test_every_training_batch_is_a_cut_of_the_scene(scene):
    data = module(scene)
    with rasterio.open(scene["labels"]["path"]) as file:
        truth = torch.from_numpy(file.read(1).astype(np.int64))
    batches = list(data.train_dataloader())
    assert len(batches) == 4
    for batch in batches:
        assert batch["image"].dtype == torch.uint16
        row, col = (batch["image"][:, k].long()[batch["valid"]] - 1 for k in (0, 1))
        told = batch["label"][batch["valid"]]
        expected = torch.where(truth[row, col] > 0, truth[row, col] - 1, IGNORE_INDEX)
        assert torch.equal(told, expected)
        assert (batch["label"][~batch["valid"]] == IGNORE_INDEX).all()


def test_the_validation_shows_what_was_counted(scene):
    data = module(scene)
    shown = torch.zeros(3, dtype=torch.int64)
    for batch in data.val_dataloader():
        shown += torch.bincount(batch["label"][batch["label"] != IGNORE_INDEX], minlength=3)
    assert shown.tolist() == data.validation_pixels.tolist()
    assert 0.1 < data.validation_pixels.sum() / (data.validation_pixels + data.training_pixels).sum() < 0.4


def test_an_epoch_has_its_own_patches(scene):
    loader = module(scene).train_dataloader()
    loader.sampler.set_epoch(0)
    first = next(iter(loader))["image"]
    loader.sampler.set_epoch(1)
    assert not torch.equal(next(iter(loader))["image"], first)
    loader.sampler.set_epoch(0)
    assert torch.equal(next(iter(loader))["image"], first)


def test_counts_and_statistics_are_of_the_parts(scene):
    data = module(scene)
    (store,) = data.scenes
    for part, counts in ((TRAINING, data.training_pixels), (VALIDATION, data.validation_pixels)):
        told = store.labels[(store.part == part) & (store.labels != 255)]
        assert counts.tolist() == np.bincount(told, minlength=3).tolist()
    values = store.pixels[:, store.part == TRAINING].astype(float)
    np.testing.assert_allclose(data.stats.mean, values.mean(1))
    assert counts_by_name(data.legend, data.training_pixels).keys() == set(NAMES.values())


def test_bands_are_taken_by_name(scene, write):
    swapped = np.indices((160, 160))[::-1].astype(np.uint16) + 1
    other = {**scene, "image": write("swapped.tif", swapped, bands=("nir", "red"))}
    data = module(scene, other)
    assert data.bands == ("Red", "NIR")
    valid = data.scenes[0].valid & data.scenes[1].valid
    np.testing.assert_array_equal(data.scenes[0].pixels[:, valid], data.scenes[1].pixels[:, valid])
    assert module(scene, bands=["nir"]).scenes[0].pixels.shape == (1, 160, 160)
    with pytest.raises(BandError, match="swir"):
        module(scene, bands=["swir"])


def test_memory_mapped_scenes_give_the_same_batches(scene, tmp_path):
    inside, outside = module(scene), module(scene, memory_cap_gb=0.0, cache=str(tmp_path))
    (folder,) = tmp_path.glob("geoseg-store-*")
    for one, other in zip(inside.train_dataloader(), outside.train_dataloader(), strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)
    outside.close()
    assert not folder.exists()


def test_scenes_with_their_own_legends_share_their_union(scene, write):
    first = {**scene, "labels": {**scene["labels"], "legend": {1: "water", 2: "wood", 3: "road"}}}
    labels = np.full((1, 160, 160), 4, np.uint8)
    second = {
        "image": write("far.tif", np.ones((2, 160, 160), np.uint16), west=600_000, bands=("red", "nir")),
        "labels": {"path": write("far_labels.tif", labels, west=600_000), "legend": {4: "ice"}},
    }
    data = module(first, second)
    assert data.legend.names == ("water", "wood", "road", "ice")
    assert set(np.unique(data.scenes[1].labels)) == {3}
    second["labels"]["legend"] = {1: "ice"}
    with pytest.raises(LegendError):
        module(first, second)


def test_one_legend_for_all_scenes(scene):
    data = module({**scene, "labels": scene["labels"]["path"]}, legend={1: "water", 2: "wood", 3: "road", 9: "ice"})
    assert data.legend.names[-1] == "ice"
    assert data.training_pixels[-1] == 0


def test_a_class_without_training_pixels_is_said(scene, caplog):
    with caplog.at_level(logging.WARNING, "geoseg"):
        module({**scene, "labels": scene["labels"]["path"]}, legend={**NAMES, 9: "ice"})
    assert "no training pixel of class ice" in caplog.text
    assert "no validation pixel of class ice" in caplog.text


def test_a_region_is_all_that_is_used(scene):
    data = module({**scene, "region": {"rows": [32, 96], "cols": [64, 160]}})
    assert data.scenes[0].shape == (64, 96)
    assert data.scenes[0].pixels[0].min() == 33
    outlines = data.outlines()
    assert outlines["training"] is not None
    assert outlines["validation"] is not None


def test_another_resolution_is_read_from_the_sources(scene):
    data = module(scene, gsd_m=20.0)
    assert data.gsd_m == (20.0, 20.0)
    assert data.scenes[0].shape == (80, 80)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"patch_px": 48}, "multiple of 32"),
        ({"epoch_patches": 2}, "epoch_patches"),
        ({"balance": 2.0}, "balance"),
    ],
)
def test_options_that_make_no_sense_are_refused(scene, options, words):
    with pytest.raises(InputError, match=words):
        module(scene, **options).train_dataloader()


def test_scenes_that_are_no_scenes_are_refused(scene):
    with pytest.raises(InputError, match="empty"):
        SceneDataModule(scenes=[])
    with pytest.raises(InputError, match="'test'; known are split"):
        SceneDataModule(scenes=[{**scene, "part": "test"}])
    with pytest.raises(MissingInputError):
        module({**scene, "image": "nowhere.tif"})


def test_sparse_polygons_in_degrees_train_every_class(shared_data):
    """Beaufort: 598 labelled pixels of six classes in 23 polygons, in another CRS."""
    folder = shared_data / "beaufort"
    data = module(
        {
            "image": {"path": str(folder / "beaufort_s2_b01_b08.tif"), "nodata": 255},
            "labels": {"path": str(folder / "rcr_landcover.shp"), "column": "Classname"},
        },
        patch_px=64, split=SplitOptions(buffer_m=20.0), balance=1.0,
    )  # fmt: skip
    assert (data.training_pixels > 0).all()
    assert data.validation_pixels.sum() > 50
    assert all((batch["label"] != IGNORE_INDEX).flatten(1).any(1).all() for batch in data.train_dataloader())
    data.close()
