"""From files to batches: bands by name, one legend, one split, honest counts."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine

from geoseg.data.datamodule import SceneDataModule, counts_by_name, rarity
from geoseg.data.sampling import SamplingOptions
from geoseg.data.scene import IGNORE_INDEX, TEST, TRAINING, VALIDATION
from geoseg.data.splits import SplitOptions
from geoseg.data.store import StoreOptions
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
        told = batch["label"].long()[batch["valid"]]
        expected = torch.where(truth[row, col] > 0, truth[row, col] - 1, IGNORE_INDEX)
        assert torch.equal(told, expected)
        assert (batch["label"][~batch["valid"]] == IGNORE_INDEX).all()


def test_the_validation_shows_what_was_counted(scene):
    data = module(scene)
    shown = torch.zeros(3, dtype=torch.int64)
    for batch in data.val_dataloader():
        shown += torch.bincount(batch["label"][batch["label"] != IGNORE_INDEX].long(), minlength=3)
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
        told = np.asarray(store.labels)[(np.asarray(store.part) == part) & (np.asarray(store.labels) != 255)]
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


def test_scenes_in_files_give_the_same_batches(scene, tmp_path):
    inside = module(scene)
    outside = module(scene, store=StoreOptions(memory_gb=0.0, folder=str(tmp_path / "store")))
    for one, other in zip(inside.train_dataloader(), outside.train_dataloader(), strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)
    outside.close()
    again = module(scene, store=StoreOptions(memory_gb=0.0, folder=str(tmp_path / "store")))
    assert again.training_pixels.tolist() == inside.training_pixels.tolist()
    again.close()


def test_workers_give_the_same_batches(scene):
    here, there = (module(scene, workers=workers).train_dataloader() for workers in (0, 2))
    for one, other in zip(here, there, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_band_that_an_image_lacks_is_hidden_there_and_only_there(scene, write):
    row, col = np.indices((160, 160)).astype(np.uint16) + 1
    other = {
        "image": write("green.tif", np.stack([col + 500, row]), west=600_000, bands=("green", "red")),
        "labels": {**scene["labels"], "path": write("far.tif", np.ones((1, 160, 160), np.uint8), west=600_000)},
    }
    with pytest.raises(BandError, match="NIR"):
        module(scene, other)
    data = module(scene, other, missing_bands="mask")
    assert data.bands == ("Red", "NIR", "green")
    for batch in data.train_dataloader():
        second = batch["window"][:, 0] == 1
        assert torch.equal(batch["present"], torch.tensor([[True, True, False], [True, False, True]])[second.long()])
        assert not batch["image"].long()[~batch["present"]].any()
    used = [scene.part[:, :] == TRAINING for scene in data.scenes]
    assert data.stats.count.tolist() == [sum(map(np.sum, used)), used[0].sum(), used[1].sum()]
    assert data.stats.mean[2] == pytest.approx((col + 500)[used[1]].mean())


def test_soft_labels_come_as_shares(scene, write):
    shares = np.zeros((3, 160, 160), np.uint8)
    shares[0], shares[2] = 100, 50
    shares[:, :10] = 0
    soft = {"soft": write("soft.tif", shares, bands=("water", "wood", "road"), nodata=255)}
    data = module({**scene, "labels": soft}, split=SplitOptions(block_m=320.0, buffer_m=20.0, validation_share=0.2))
    assert data.legend.names == ("water", "wood", "road")
    for batch in data.train_dataloader():
        known = batch["label"] != IGNORE_INDEX
        assert (batch["label"][known] == 0).all()
        assert torch.equal(batch["soft"].permute(0, 2, 3, 1)[known].unique(dim=0), torch.tensor([[170, 0, 85]]).byte())


def test_a_scene_may_be_kept_for_the_test(scene, write):
    image = write("far_image.tif", np.ones((2, 160, 160), np.uint16), west=600_000, bands=("red", "nir"))
    labels = write("far_labels.tif", np.full((1, 160, 160), 2, np.uint8), west=600_000)
    data = module(scene, {"image": image, "labels": {**scene["labels"], "path": labels}, "part": "test"})
    assert data.test_pixels.tolist() == [0, 160 * 160, 0]
    shown = sum(int((batch["label"] == 1).sum()) for batch in data.test_dataloader())
    assert shown == 160 * 160
    assert (data.scenes[1].part[:, :] == TEST).all()


def test_patches_come_from_the_area_and_from_scenes_with_weight(scene, write):
    other = {**scene, "image": write("copy.tif", np.ones((2, 160, 160), np.uint16), bands=("red", "nir"))}
    data = module(
        scene, {**other, "weight": 0},
        sampling=SamplingOptions(shares={"random": 1.0}, area={"rows": [0, 80]}, jitter_px=0),
    )  # fmt: skip
    windows = torch.cat([batch["window"] for batch in data.train_dataloader()])
    assert not windows[:, 0].any()
    assert (windows[:, 1] + 16 <= 80).all()


def test_an_area_in_pixels_holds_for_each_scene_and_one_on_the_ground_for_all(scene, write):
    def copied(name, side):
        image, labels = np.ones((2, side, side), np.uint16), np.ones((1, side, side), np.uint8)
        return {
            "image": write(f"{name}.tif", image, west=900_000.0, bands=("red", "nir")),
            "labels": {"path": write(f"{name}_labels.tif", labels, west=900_000.0), "legend": NAMES},
        }

    def drawn(other, area):
        sampling = SamplingOptions(shares={"random": 1.0}, area=area, jitter_px=0)
        data = module(scene, copied(*other), sampling=sampling, epoch_patches=64)
        return torch.cat([batch["window"] for batch in data.train_dataloader()])

    windows = drawn(("far", 160), {"rows": [40, 80]})
    assert set(windows[:, 0].tolist()) == {0, 1}
    assert ((windows[:, 1] + 16 >= 40) & (windows[:, 1] + 16 < 80)).all()
    assert not drawn(("small", 96), {"rows": [100, 140]})[:, 0].any()  # it has no such rows
    assert not drawn(("far", 160), {"bbox": [500_000, 5_199_000, 501_000, 5_200_000]})[:, 0].any()
    with pytest.raises(InputError, match="rows from 500 on, the scene has 160"):
        drawn(("far", 160), {"rows": [500, 600]})


def test_patches_with_a_high_loss_come_again(scene):
    data = module(scene, sampling=SamplingOptions(shares={"hard": 1.0}, jitter_px=0), epoch_patches=256)
    assert data.learns_from_losses
    loader = data.train_dataloader()
    windows = torch.cat([batch["window"] for batch in loader]).numpy()
    hard = windows[:, 1] >= 64
    data.note_losses(windows, np.where(hard, 5.0, 0.0))
    loader.sampler.set_epoch(1)
    again = torch.cat([batch["window"] for batch in loader]).numpy()
    assert (again[:, 1] >= 48).mean() > 0.95 > hard.mean() + 0.2
    resumed = module(scene, sampling=SamplingOptions(shares={"hard": 1.0}, jitter_px=0), epoch_patches=256)
    resumed.load_state_dict(data.state_dict())
    loader = resumed.train_dataloader()
    loader.sampler.set_epoch(1)
    np.testing.assert_array_equal(torch.cat([batch["window"] for batch in loader]).numpy(), again)


def test_rare_classes_are_told_from_common_ones():
    assert rarity(np.array([10, 0, 40])).tolist() == [1.0, 0.0, 0.25]


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
        ({"patch_px": 31}, "32 or more"),
        ({"epoch_patches": 2}, "epoch_patches"),
        ({"workers": -1}, "workers"),
        ({"seed": -1}, "seed is -1: needed is a whole number from 0 to 4,294,967,295"),
        ({"seed": 2**70}, "needed is a whole number from 0 to 4,294,967,295"),
        ({"gsd_m": float("nan")}, "gsd_m is nan"),
        ({"sampling": SamplingOptions(rates={"wader": 0.5})}, "wader"),
    ],
)
def test_options_that_make_no_sense_are_refused(scene, options, words):
    with pytest.raises(InputError, match=words):
        module(scene, **options).train_dataloader()


def test_scenes_that_are_no_scenes_are_refused(scene):
    with pytest.raises(InputError, match="empty"):
        SceneDataModule(scenes=[])
    with pytest.raises(InputError, match="'exam'; known are split"):
        module({**scene, "part": "exam"})
    with pytest.raises(InputError, match="weight is -1"):
        module({**scene, "weight": -1})
    with pytest.raises(InputError, match="unknown key labls; its keys are image"):
        module({"image": scene["image"], "labls": 1})
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
        patch_px=64, split=SplitOptions(buffer_m=20.0), sampling=SamplingOptions(shares={"balanced": 1.0}),
    )  # fmt: skip
    assert (data.training_pixels > 0).all()
    assert data.validation_pixels.sum() > 50
    assert all((batch["label"] != IGNORE_INDEX).flatten(1).any(1).all() for batch in data.train_dataloader())
    data.close()
