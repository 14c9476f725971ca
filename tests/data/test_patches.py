"""The store holds what the source gives; patches are cut where they should be."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.data import patches
from geoseg.data.patches import decode_scene, gather_patches, kept_dtype
from geoseg.data.scene import IGNORE_INDEX, TRAINING, VALIDATION
from geoseg.errors import InputError, OutputError
from geoseg.io.grids import crop
from geoseg.tiling import Window


@pytest.fixture
def pair(memory_source, rng):
    """An image with holes and labels with gaps, 90 x 70."""
    pixels = rng.integers(0, 60000, (3, 90, 70)).astype(np.uint16)
    labels = rng.choice([1, 5, 9], (1, 90, 70)).astype(np.uint8)
    return (
        memory_source(pixels, valid=rng.random((90, 70)) > 0.2),
        memory_source(labels, valid=rng.random((90, 70)) > 0.3, bands=("label",)),
    )


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def test_the_store_is_the_source_bit_for_bit(pair, legend, monkeypatch):
    monkeypatch.setattr(patches, "BLOCK_BYTES", 7 * 70 * 3 * 2)  # 13 row blocks
    image, labels = pair
    scene = decode_scene(image, labels, legend=legend, grid=image.geobox, inside=np.ones((90, 70), bool), name="a")
    np.testing.assert_array_equal(scene.pixels, image.pixels)
    np.testing.assert_array_equal(scene.valid, image.valid)
    expected = np.where(image.valid & labels.valid, np.searchsorted([1, 5, 9], labels.pixels[0]), 255)
    np.testing.assert_array_equal(scene.labels, expected)
    assert scene.pixels.dtype == np.uint16


def test_a_region_cuts_the_store_to_its_box_and_hides_the_rest(pair, legend):
    image, labels = pair
    inside = np.zeros((90, 70), bool)
    inside[20:40, 10:30] = True
    inside[25:30, 10:20] = False
    scene = decode_scene(image, labels, legend=legend, grid=image.geobox, inside=inside, name="a")
    assert scene.geobox == crop(image.geobox, Window(20, 10, 20, 20))
    np.testing.assert_array_equal(scene.valid, (image.valid & inside)[20:40, 10:30])
    assert (scene.labels[~scene.valid] == 255).all()


def test_files_hold_the_same_as_memory(pair, legend, tmp_path):
    image, labels = pair
    every = {"legend": legend, "grid": image.geobox, "inside": np.ones((90, 70), bool), "name": "a"}
    inside, outside = decode_scene(image, labels, **every), decode_scene(image, labels, folder=tmp_path / "s", **every)
    assert isinstance(outside.pixels, np.memmap)
    for plane in ("pixels", "valid", "labels", "part"):
        np.testing.assert_array_equal(getattr(inside, plane), getattr(outside, plane))


def test_a_folder_that_cannot_be_made_is_an_output_error(pair, legend, tmp_path):
    image, labels = pair
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        decode_scene(
            image, labels, legend=legend, grid=image.geobox, inside=np.ones((90, 70), bool), name="a",
            folder=tmp_path / "file" / "s",
        )  # fmt: skip


def test_labels_elsewhere_and_empty_regions_are_refused(pair, legend, memory_source, grid):
    image, labels = pair
    far = memory_source(labels.pixels, geobox=grid(90, 70, west=900_000), bands=("label",))
    with pytest.raises(InputError, match="do not overlap"):
        decode_scene(image, far, legend=legend, grid=image.geobox, inside=np.ones((90, 70), bool), name="a")
    with pytest.raises(InputError, match="none of its pixels"):
        decode_scene(image, labels, legend=legend, grid=image.geobox, inside=np.zeros((90, 70), bool), name="a")


@pytest.mark.parametrize(
    ("dtype", "kept"), [("uint8", "uint8"), ("uint16", "uint16"), ("int8", "int16"), ("float64", "float32")]
)
def test_pixels_keep_the_dtype_that_torch_has(dtype, kept):
    assert kept_dtype(np.dtype(dtype)) == np.dtype(kept)


@settings(max_examples=60)
@given(st.integers(-40, 60), st.integers(-40, 50), st.sampled_from([32, 64]))
def test_a_patch_is_the_window_it_says(decoded, row_off, col_off, patch_px):
    labels = (np.indices((50, 40)).sum(0) % 3).astype(np.uint8)
    scene = decoded(labels)
    batch = gather_patches([scene], np.array([[0, row_off, col_off]]), patch_px=patch_px, part=TRAINING)
    row = torch.arange(row_off, row_off + patch_px)
    col = torch.arange(col_off, col_off + patch_px)
    inside = ((row >= 0) & (row < 50))[:, None] & ((col >= 0) & (col < 40))[None]
    image, valid, label = batch["image"][0], batch["valid"][0], batch["label"][0]
    assert torch.equal(valid, inside)
    assert torch.equal(image[0][inside], row[:, None].expand(-1, patch_px)[inside].int())
    assert torch.equal(image[1][inside], col[None].expand(patch_px, -1)[inside].int())
    expected = torch.where(inside, (row[:, None] + col[None]) % 3, IGNORE_INDEX)
    assert torch.equal(label, expected)


def test_training_sees_nothing_of_the_validation_part(decoded):
    scene = decoded(np.zeros((64, 64), np.uint8))
    scene.part[:, 32:] = VALIDATION
    scene.part[:, 28:32] = 0
    windows = np.array([[0, 0, 0]])
    training = gather_patches([scene], windows, patch_px=64, part=TRAINING)
    assert training["valid"][0].sum() == 64 * 28
    assert (training["label"][0] != IGNORE_INDEX).sum() == 64 * 28
    judged = gather_patches([scene], windows, patch_px=64, part=VALIDATION)
    assert judged["valid"].all()
    assert (judged["label"][0] != IGNORE_INDEX).sum() == 64 * 32


def test_a_halo_gives_context_and_no_labels(decoded):
    scene = decoded(np.zeros((64, 64), np.uint8))
    scene.part[:] = VALIDATION
    batch = gather_patches([scene], np.array([[0, 0, 0]]), patch_px=64, part=VALIDATION, halo_px=8)
    told = batch["label"][0] != IGNORE_INDEX
    assert told.sum() == 48 * 48
    assert told[8:56, 8:56].all()
    assert batch["valid"].all()


def test_scenes_of_two_dtypes_meet_in_one_that_holds_both(decoded):
    one, other = decoded(np.zeros((32, 32), np.uint8)), decoded(np.zeros((32, 32), np.uint8))
    object.__setattr__(one, "pixels", one.pixels.astype(np.uint8))
    object.__setattr__(other, "pixels", other.pixels.astype(np.uint16))
    batch = gather_patches([one, other], np.array([[0, 0, 0], [1, 0, 0]]), patch_px=32, part=TRAINING)
    assert batch["image"].dtype == torch.uint16
