"""Scenes without labels: what of them is shown, beside what, and how the two views of a patch belong together."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine

from geoseg.data import sampling, unlabelled
from geoseg.data.augment import AugmentOptions, ClassMixOptions, CutMixOptions, CutoutOptions, WarpOptions
from geoseg.data.datamodule import SceneDataModule
from geoseg.data.scene import IGNORE_INDEX, TRAINING, VALIDATION
from geoseg.data.splits import SplitOptions
from geoseg.data.store import StoreOptions
from geoseg.data.unlabelled import PairedBatches, two_views
from geoseg.errors import BandError, InputError, MissingInputError, ReadError

SIDE, BUFFER_M = 160, 40.0
NAMES = {1: "water", 2: "wood"}
PLAIN = AugmentOptions(turns=False, gain=0.0, band_gain=0.0, noise=0.0)
FIGURES = {"mean": torch.zeros(2), "std": torch.ones(2)}


@pytest.fixture
def write(tmp_path):
    """A function that writes a GeoTIFF and gives its path."""

    def make(
        name: str, pixels: np.ndarray, *, at=(500_000.0, 5_200_000.0), size=10.0, bands=(), crs="EPSG:32633"
    ) -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        with rasterio.open(
            path, "w", driver="GTiff", count=len(pixels), height=pixels.shape[1], width=pixels.shape[2], nodata=0,
            dtype=pixels.dtype, crs=crs, transform=Affine(size, 0, at[0], 0, -size, at[1]),
        ) as file:  # fmt: skip
            file.write(pixels)
            for number, band in enumerate(bands, 1):
                file.set_band_description(number, band)
        return str(path)

    return make


def positions(*, row: int = 1, col: int = 1, step: int = 1) -> np.ndarray:
    """Two bands that say at which row and column of the labelled scene a pixel lies, counted from 1; a hole in it."""
    image = (np.indices((SIDE, SIDE)) * step + np.array([row, col])[:, None, None]).astype(np.uint16)
    image[:, 5:9, 5:9] = 0
    return image


@pytest.fixture
def scene(write):
    """Two classes; a tenth of the pixels is labelled."""
    rng = np.random.default_rng(3)
    labels = np.kron(rng.integers(1, 3, (20, 20)), np.ones((8, 8))) * (rng.random((SIDE, SIDE)) < 0.1)
    return {
        "image": write("image.tif", positions(), bands=("red", "nir")),
        "labels": {"path": write("labels.tif", labels.astype(np.uint8)[None]), "legend": NAMES},
    }


def module(*scenes, **options) -> SceneDataModule:
    given = {"patch_px": 32, "batch": 4, "epoch_patches": 18, "split": SplitOptions(block_m=400.0, buffer_m=BUFFER_M)}
    data = SceneDataModule(scenes=list(scenes), **{**given, **options})
    data.setup("fit")
    return data


def shown(data: SceneDataModule, *, epochs: int) -> np.ndarray:
    """How often each pixel of the labelled scene was shown as an unlabelled one."""
    seen = np.zeros((SIDE, SIDE), int)
    loader = data.train_dataloader()
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            row, col = (batch["unlabelled_image"][:, k].long()[batch["unlabelled_valid"]].numpy() - 1 for k in (0, 1))
            np.add.at(seen, (row, col), 1)
    return seen


def far_from(judged: np.ndarray) -> np.ndarray:
    """Which pixels are farther than the buffer from each of those that are judged."""
    at = np.argwhere(judged) * 10.0
    row, col = np.indices((SIDE, SIDE)) * 10.0
    return np.array([[np.hypot(*(at - place).T).min() > BUFFER_M for place in line] for line in np.dstack([row, col])])


def test_of_the_training_scenes_no_pixel_that_validates_or_is_near_is_shown(scene):
    data = module(scene, unlabelled="same")
    part = np.asarray(data.scenes[0].part)
    assert (part == VALIDATION).any()
    far = far_from(part == VALIDATION)
    seen = shown(data, epochs=12)
    assert not seen[~far].any()
    assert not seen[5:9, 5:9].any()
    assert np.mean(seen[(part == TRAINING) & far] > 0) > 0.95  # labelled or not


@pytest.mark.parametrize(("step", "row", "col"), [(1, 31, 21), (2, 1, 1)])
def test_of_other_images_no_pixel_on_or_near_a_validation_pixel_is_shown(scene, write, step, row, col):
    # The same ground, 30 rows and 20 columns off or in pixels of twice the size; their values tell where they lie.
    place = (500_000.0 + 10 * (col - 1), 5_200_000.0 - 10 * (row - 1))
    image = positions(row=row, col=col, step=step)[:, : (SIDE - row) // step + 1, : (SIDE - col) // step + 1]
    data = module(scene, unlabelled=[write("other.tif", image, at=place, size=10.0 * step, bands=("red", "nir"))])
    (other,) = data.unlabelled
    seen = shown(data, epochs=12) > 0
    judged = np.asarray(data.scenes[0].part) == VALIDATION
    # The middle of a pixel of twice the size lies half a small pixel from the one that its values name.
    reach = BUFFER_M - 10.0 * (step - 1)
    at = np.argwhere(judged) * 10.0
    assert all(np.hypot(*(at - 10.0 * place).T).min() > reach for place in np.argwhere(seen))
    usable = np.asarray(other.part) == TRAINING
    assert 0.2 < usable.mean() < 0.95
    assert seen.sum() > 0.9 * usable.sum()


def test_labels_figures_and_labelled_patches_are_what_they_were(scene, write):
    far = write("far.tif", positions() * 7, at=(900_000.0, 5_200_000.0), bands=("NIR", "Red"))
    one, other = module(scene), module(scene, unlabelled=[{"image": far, "weight": 2.0}, "same"])
    assert [each.name for each in other.unlabelled] == [other.scenes[0].name, far]
    assert len(other.scenes) == 1
    assert other.legend == one.legend
    assert other.gsd_m == one.gsd_m
    assert other.stats.mean.tolist() == one.stats.mean.tolist()
    assert other.stats.count.tolist() == one.stats.count.tolist()
    for name in ("training_pixels", "validation_pixels", "test_pixels"):
        assert getattr(other, name).tolist() == getattr(one, name).tolist()
    np.testing.assert_array_equal(other.scenes[0].part, one.scenes[0].part)
    for plain, paired in zip(one.train_dataloader(), other.train_dataloader(), strict=True):
        assert all(torch.equal(plain[name], paired[name]) for name in plain)
    assert one.state_dict() == other.state_dict()
    np.testing.assert_array_equal(other.unlabelled[1].pixels[::-1, 20:], positions()[:, 20:] * 7)  # bands by name


def test_each_step_has_as_many_unlabelled_patches_of_its_own(scene):
    data = module(scene, unlabelled="same", unlabelled_batch=3)
    loader = data.train_dataloader()
    assert len(loader) == 5
    epochs = []
    for epoch in (0, 1, 0):
        loader.sampler.set_epoch(epoch)
        epochs.append([batch["unlabelled_window"] for batch in loader])
        assert [len(batch["label"]) for batch in loader] == [4, 4, 4, 4, 2]
    assert all(windows.shape == (3, 3) for windows in epochs[0])
    assert all(windows[:, 0].eq(1).all() for windows in epochs[0])  # counted on after the labelled scene
    first, second, again = (torch.cat(windows) for windows in epochs)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert len(first.unique(dim=0)) == 15
    threads = module(scene, unlabelled="same", unlabelled_batch=3, workers=2)
    for one, other in zip(loader, threads.train_dataloader(), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_processes_share_the_unlabelled_patches_of_an_epoch(scene, monkeypatch):
    world, found = 2, []
    monkeypatch.setattr(unlabelled.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(unlabelled.distributed, "get_world_size", lambda: world)
    loader = module(scene, unlabelled="same", unlabelled_batch=3).train_dataloader()
    for rank in range(world):
        monkeypatch.setattr(sampling, "_process", lambda rank=rank: (rank, world))
        windows = list(loader.sampler)
        assert len(windows) == len(loader) == 3
        found.append(np.concatenate([each[each[:, 0] == 1] for each in windows]))
    assert [len(each) for each in found] == [9, 9]
    assert len(np.unique(np.concatenate(found), axis=0)) == 18


def test_scenes_in_files_give_the_same_batches(scene, write):
    more = write("more.tif", positions(row=500), at=(700_000.0, 5_200_000.0), bands=("red", "nir"))
    inside = module(scene, unlabelled=[more])
    outside = module(scene, unlabelled=[more], store=StoreOptions(memory_gb=0.0))
    for one, other in zip(inside.train_dataloader(), outside.train_dataloader(), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    outside.close()
    assert outside.unlabelled == ()


def test_a_region_and_chips_are_taken_and_bands_that_lack_are_hidden(scene, write):
    for name in ("b", "a"):
        write(f"chips/{name}.tif", positions()[:1] + 3000, at=(900_000.0, 5_200_000.0), bands=("nir",))
    folder = str((scene["image"]).replace("image.tif", "chips"))
    given = [{"image": scene["image"], "region": {"rows": [0, 64], "cols": [0, 96]}}, {"chips": {"images": folder}}]
    with pytest.raises(BandError, match=r"chips/a of data\.unlabelled: needed bands are \[red, nir\]"):
        module(scene, unlabelled=given)
    data = module(scene, unlabelled=given, missing_bands="mask")
    assert [each.shape for each in data.unlabelled] == [(64, 96), (160, 160), (160, 160)]
    assert data.bands == ("red", "nir")
    (batch, *_) = data.train_dataloader()
    of_chip = batch["unlabelled_window"][:, 0] > 1
    assert torch.equal(batch["unlabelled_present"], torch.tensor([[True, True], [False, True]])[of_chip.long()])


def test_every_image_of_a_coco_json_is_taken_annotated_or_not(scene, write, tmp_path):
    for number in range(3):
        write(f"chips/{number}.tif", positions() + number, at=(900_000.0, 5_200_000.0), bands=("red", "nir"))
    listed = [{"id": number, "file_name": f"{number}.tif", "height": SIDE, "width": SIDE} for number in (2, 0)]
    (tmp_path / "set.json").write_text(json.dumps({"images": listed, "info": {}}))
    given = {"coco": {"json": str(tmp_path / "set.json"), "images": str(tmp_path / "chips")}, "weight": 2.0}
    data = module(scene, unlabelled=[given])
    assert [int(each.pixels[0].max()) for each in data.unlabelled] == [SIDE + 2, SIDE]
    assert {each.weight for each in data.unlabelled} == {2.0}
    with pytest.raises(InputError, match="mapping with json and images alone"):
        module(scene, unlabelled=[{"coco": {**given["coco"], "segments": "s"}}])
    (tmp_path / "set.json").write_text("{}")
    with pytest.raises(ReadError, match=r"has no images; needed is a JSON in any of COCO's formats"):
        module(scene, unlabelled=[given])
    (tmp_path / "set.json").write_text(json.dumps({"images": [*listed, {"id": 9, "file_name": "9.tif"}]}))
    with pytest.raises(MissingInputError, match=r"1 of 3 images are not in .*9\.tif"):
        module(scene, unlabelled=[given])


def test_images_of_a_torchgeo_dataset_without_masks_are_taken(scene, write):
    datasets = pytest.importorskip("torchgeo.datasets")
    path = write("far/a.tif", positions() + 7, at=(900_000.0, 5_200_000.0), bands=("red", "nir"))
    (data,) = module(scene, unlabelled=[{"torchgeo": datasets.RasterDataset(path), "image": {"bands": ["red", "nir"]}}]
                     ).unlabelled  # fmt: skip
    assert int(data.pixels[0].max()) == SIDE + 7
    with pytest.raises(InputError, match="chips and torchgeo"):
        module(scene, unlabelled=[{"torchgeo": {"dataset": "NAIP"}, "chips": {"images": "a"}}])


@pytest.mark.parametrize(("options", "warned"), [({"unlabelled_batch": 1}, True), ({"batch": 1}, True), ({}, False)])
def test_cutmix_with_one_patch_a_step_says_that_it_mixes_nothing(scene, caplog, options, warned):
    module(scene, unlabelled="same", **options)
    assert ("mixes patches of a step" in caplog.text) == warned


def test_without_a_crs_a_name_tells_what_validates(scene, write, caplog):
    ones = np.ones((1, SIDE, SIDE), np.uint8)
    plain = {
        name: {
            "image": write(f"{name}.tif", positions(), bands=("red", "nir"), crs=None), "part": part,
            "labels": {"path": write(f"{name}_labels.tif", ones, crs=None), "legend": NAMES},
        }
        for name, part in (("one", "training"), ("two", "validation"))
    }  # fmt: skip
    images = [spec["image"] for spec in plain.values()]
    with caplog.at_level(logging.WARNING, "geoseg"):
        data = module(*plain.values(), unlabelled=images, gsd_m=10.0)
    assert f"{images[1]} validates or tests, and is left out of data.unlabelled" in caplog.text
    assert [bool((np.asarray(each.part) == TRAINING).any()) for each in data.unlabelled] == [True, False]
    with pytest.raises(InputError, match="leaves no pixel to draw"):
        module(*plain.values(), unlabelled=images[1:], gsd_m=10.0)


@pytest.fixture
def chips(write, tmp_path):
    """Chips without a CRS, and a function that gives their labelled mapping; number 2 validates."""
    for number in range(4):
        write(f"im/{number}.tif", positions(row=number + 1), bands=("red", "nir"), crs=None)
        write(f"ma/{number}.tif", np.ones((1, SIDE, SIDE), np.uint8), crs=None)
    folders = {"images": str(tmp_path / "im"), "labels": {"path": str(tmp_path / "ma"), "legend": NAMES}}

    def listed(part, *numbers, **more):
        return {"chips": {**folders, "list": list(map(str, numbers)), "part": part}, **more}

    return listed


@pytest.mark.parametrize("how", ["paths", "absolute", "link", "mapping", "named", "folder"])
def test_without_a_crs_the_file_tells_whatever_it_is_called(chips, tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.tif").symlink_to(tmp_path / "im" / "2.tif")
    given = {
        "paths": [f"im/{k}.tif" for k in range(4)],
        "absolute": [str(tmp_path / "im" / f"{k}.tif") for k in range(4)],
        "link": ["im/0.tif", "im/1.tif", "link.tif", "im/3.tif"],
        "mapping": [{"image": {"path": f"im/{k}.tif", "nodata": 0}, "name": f"pool {k}"} for k in range(4)],
        "named": [{"chips": {"images": str(tmp_path / "im")}, "name": "pool"}],
        "folder": [{"chips": {"images": "./im"}}],
    }
    data = module(chips("training", 0, 1), chips("validation", 2), unlabelled=given[how], gsd_m=10.0)
    drawn = [bool((np.asarray(each.part) == TRAINING).any()) for each in data.unlabelled]
    assert drawn == [True, True, False, True]


@pytest.mark.parametrize("part", ["training", "split"])
def test_without_a_crs_a_labelled_file_that_validates_does_not_train_under_another_name(chips, part):
    scenes = chips(part, 0, 1, 2, name="train"), chips("validation", 2, name="val")
    with pytest.raises(InputError, match="training pixels of train/2 lie on validation pixels of val/2"):
        module(*scenes, gsd_m=10.0)
    data = module(*scenes, gsd_m=10.0, split=SplitOptions(leakage="drop"))
    assert [int(np.asarray(each.part).max()) for each in data.scenes] == [TRAINING, TRAINING, 0, VALIDATION]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"unlabelled": []}, "one scene at least, or 'same'"),
        ({"unlabelled": [{"image": "a.tif", "labels": "b.tif"}]}, "has labels; leave them out"),
        ({"unlabelled": [3]}, "needed are 'same', images, or mappings"),
        ({"unlabelled": "same", "unlabelled_batch": 0}, "needed is 1 or more patches a step"),
        ({"unlabelled_batch": 4}, "names no scene"),
        ({"unlabelled_augment": AugmentOptions(classmix=ClassMixOptions())}, "cutmix would work"),
        ({"unlabelled": [{"image": "a.tif", "part": "test"}]}, "unknown key part; its keys are image, region, name"),
        ({"unlabelled": [{"chips": {"images": "a", "labels": "b"}}]}, "a mapping with images alone"),
        ({"unlabelled": [{"image": "image.tif", "weight": -1}]}, "weight is -1"),
    ],
)
def test_options_that_make_no_sense_are_refused(scene, given, words):
    with pytest.raises(InputError, match=words) as caught:
        module(scene, **given)
    assert "\n" not in str(caught.value)


def test_an_image_that_is_not_there_is_told(scene):
    with pytest.raises(MissingInputError, match=r"sam\b"):
        module(scene, unlabelled="sam")


# -- two views ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def planes() -> dict[str, torch.Tensor]:
    """Six patches whose values are all different, with holes."""
    rng = torch.Generator().manual_seed(1)
    image = torch.arange(6 * 2 * 16 * 16, dtype=torch.int32).reshape(6, 2, 16, 16)
    valid = torch.rand(6, 16, 16, generator=rng) < 0.9
    return {"image": image, "valid": valid, "window": torch.arange(18).reshape(6, 3)}


def views_of(planes, **options) -> dict[str, torch.Tensor]:
    chosen = AugmentOptions(**{**vars(PLAIN), **options})
    return two_views(planes, options=chosen, generator=torch.Generator().manual_seed(5), **FIGURES)


def test_every_pixel_of_the_students_view_is_the_one_that_its_source_names(planes):
    views = views_of(planes, turns=True, cutmix=CutMixOptions(share=1.0), cutout=CutoutOptions(share=0.5))
    source = views["student_source"]
    own = torch.arange(6)[:, None, None].expand_as(source)
    assert (source[source >= 0] != own[source >= 0]).any()
    hidden = source == IGNORE_INDEX
    assert hidden.any()
    assert not views["student_valid"][hidden].any()
    patch, row, col = torch.where(~hidden)
    came = source[patch, row, col]
    assert torch.equal(views["student_image"][patch, :, row, col], views["unlabelled_image"][came, :, row, col])
    assert torch.equal(views["student_valid"][patch, row, col], views["unlabelled_valid"][came, row, col])
    # The teacher's patches are those that were drawn, turned.
    turned = views["unlabelled_image"].flatten(1).sort(1).values
    assert torch.equal(turned, planes["image"].float().flatten(1).sort(1).values)
    assert not torch.equal(views["unlabelled_image"], planes["image"].float())
    assert torch.equal(views["unlabelled_window"], planes["window"])


def test_places_are_alike_and_the_rest_is_the_students_alone(planes):
    views = views_of(planes, warp=WarpOptions(rotate_deg=30.0), noise=0.5, gain=0.3, band_dropout=0.5)
    assert "unlabelled_present" not in views
    assert not views["student_present"].all()
    still = views_of(planes, warp=WarpOptions(rotate_deg=30.0))
    assert torch.equal(views["unlabelled_image"], still["unlabelled_image"])
    assert torch.equal(still["student_image"], still["unlabelled_image"])
    assert not torch.equal(views["student_image"], views["unlabelled_image"])
    usable = views["student_valid"]
    own = torch.arange(6)[:, None, None].expand_as(usable)
    assert torch.equal(views["student_source"][usable], own[usable])


def test_a_batch_is_cut_in_its_two_halves():
    windows = np.array([[0, 0, 0], [1, 2, 2], [2, 4, 4], [1, 6, 6]])
    batches = PairedBatches([], [], patch_px=32)
    batches.first = 2
    batches.labelled = type("Cut", (), {"__getitem__": lambda _, own: {"label": torch.from_numpy(own)}})()
    batches.unlabelled = type("Cut", (), {"__getitem__": lambda _, own: {"image": torch.from_numpy(own), "soft": 1}})()
    found = batches[windows]
    assert found["label"].tolist() == windows[[0, 1, 3]].tolist()
    assert found["unlabelled_image"].tolist() == [[0, 4, 4]]
    assert found["unlabelled_window"].tolist() == [[2, 4, 4]]
    assert set(found) == {"label", "unlabelled_image", "unlabelled_window"}
