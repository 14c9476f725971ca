"""Lattices of windows show every training pixel and every validation label, the latter once."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.data.label_index import LabelIndex
from geoseg.data.sampling import PatchBatches
from geoseg.data.scene import IGNORE_INDEX, TEST, TRAINING, VALIDATION
from geoseg.data.windows import lattice_windows, place_windows, share_of, validation_windows
from geoseg.errors import InputError


def test_a_scene_smaller_than_a_patch_lies_in_its_middle():
    corners = place_windows(np.array([[5, 5], [-9, 99]]), np.array([[20, 64], [100, 64]]), 64)
    np.testing.assert_array_equal(corners, [[-22, 0], [0, 0]])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([16, 32, 48, 64, 100, 128, 256]), st.integers(0, 1000))
def test_the_lattice_shows_every_training_pixel_and_no_window_in_vain(decoded, rows, cols, patch_px, seed):
    rng = np.random.default_rng(seed)
    scene = decoded(np.full((rows, cols), 255, np.uint8))
    scene.part[rng.random((rows, cols)) < rng.choice([0.0, 0.5, 0.999])] = VALIDATION
    scene.part[: rng.integers(rows), : rng.integers(cols)] = VALIDATION
    unused = replace(scene, weight=0.0)
    training = scene.part == TRAINING
    index = LabelIndex.of([unused, scene], classes=3)
    windows = lattice_windows([unused, scene], index, patch_px=patch_px)
    shown, squares = np.zeros((rows, cols), bool), np.zeros((rows // patch_px + 1, cols // patch_px + 1), bool)
    squares[tuple(np.argwhere(training).T // patch_px)] = True
    for number, row, col in windows.tolist():
        assert number == 1
        inside = np.s_[max(row, 0) : row + patch_px, max(col, 0) : col + patch_px]
        assert training[inside].any()
        shown[inside] = True
    assert shown[training].all()
    assert len(windows) == squares.sum()


def test_the_lattice_of_a_large_scene_reads_no_full_cell(decoded):
    scene = decoded(np.zeros((1200, 900), np.uint8))
    scene.part[:100] = VALIDATION
    index = LabelIndex.of([scene], classes=1)
    read = []

    class Counting:
        shape, dtype = scene.part.shape, scene.part.dtype

        def __getitem__(self, key):
            read.append(key)
            return scene.part[key]

    windows = lattice_windows([replace(scene, part=Counting())], index, patch_px=96)
    assert len(windows) == 12 * 10  # the first row of windows has rows 0 to 95 alone
    assert len(read) == 15  # of 19 x 15 cells, those that the border of the part runs through
    assert len(lattice_windows([replace(scene, part=None)], index, patch_px=128)) == 10 * 8  # whole cells: none is read


@settings(max_examples=30, deadline=None)
@given(st.integers(10, 150), st.integers(10, 150), st.integers(0, 12), st.integers(0, 1000))
def test_the_validation_grid_shows_every_label_once(decoded, rows, cols, halo_px, seed):
    rng = np.random.default_rng(seed)
    scene = decoded(np.where(rng.random((rows, cols)) > 0.4, 1, 255).astype(np.uint8))
    scene.part[rng.random((rows, cols)) > 0.5] = VALIDATION
    windows = validation_windows([scene], patch_px=32, halo_px=halo_px)
    batches = PatchBatches([scene], patch_px=32, part=VALIDATION, halo_px=halo_px)
    seen = np.zeros((rows, cols), int)
    if len(windows):
        batch = batches[windows]
        told = batch["label"] != IGNORE_INDEX
        np.add.at(seen, (batch["image"][:, 0][told].numpy(), batch["image"][:, 1][told].numpy()), 1)
    np.testing.assert_array_equal(seen, (scene.part == VALIDATION) & (scene.labels != 255))


def test_the_grid_of_a_scene_of_many_windows_of_reading_is_that_of_its_labels(decoded):
    scenes = [decoded(np.full(shape, 255, np.uint8)) for shape in ((1500, 2300), (40, 40))]
    spots = np.random.default_rng(0).integers(0, [1500, 2300], (25, 2))
    scenes[0].labels[tuple(spots.T)] = 1
    scenes[0].part[tuple(spots.T)] = TEST
    scenes[1].labels[3, 3], scenes[1].part[3, 3] = 0, TEST
    windows = validation_windows(scenes, patch_px=256, halo_px=28, part=TEST)
    expected = {(0, *(spot // 200 * 200 - 28).tolist()) for spot in spots} | {(1, -28, -28)}
    assert {tuple(window) for window in windows.tolist()} == expected
    assert len(windows) == len(expected)
    assert len(validation_windows(scenes, patch_px=256, halo_px=28)) == 0


def test_a_halo_that_leaves_nothing_is_refused(decoded):
    with pytest.raises(InputError, match="halo of 16 px"):
        validation_windows([decoded(np.zeros((40, 40), np.uint8))], patch_px=32, halo_px=16)


@given(st.integers(0, 50), st.integers(1, 9))
def test_the_shares_of_processes_are_all_windows_in_order(count, world):
    windows = np.arange(3 * count).reshape(count, 3)
    shares = [share_of(windows, rank, world) for rank in range(world)]
    np.testing.assert_array_equal(np.concatenate(shares), windows)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
