"""The same patches for the same seed, classes at their rates, every validation label once."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from geoseg.data import sampling
from geoseg.data.sampling import ClassIndex, PatchBatches, PatchSampler, place_windows, validation_windows
from geoseg.data.scene import IGNORE_INDEX, TRAINING, VALIDATION
from geoseg.data.statistics import class_pixels
from geoseg.errors import InputError


@pytest.fixture
def scenes(decoded):
    """Class 0 nearly everywhere, class 1 in one corner, class 2 in the second scene alone."""
    first, second = np.zeros((300, 200), np.uint8), np.zeros((100, 120), np.uint8)
    first[:20, :20] = 1
    second[40:50, 60:70] = 2
    return [decoded(first), decoded(second)]


def sampler(scenes, **options) -> PatchSampler:
    counts = class_pixels(scenes, part=TRAINING, classes=3)
    index = ClassIndex.of(scenes, counts=counts, seed=0)
    given_options = {"patch_px": 32, "batch": 4, "batches": 8, "balance": 0.5, "jitter_px": 8, "seed": 0, **options}
    return PatchSampler([scene.shape for scene in scenes], index, **given_options)


def test_the_seed_and_the_epoch_say_which_patches(scenes):
    one, same, other = sampler(scenes), sampler(scenes), sampler(scenes, seed=1)
    np.testing.assert_array_equal(one.draw(3), same.draw(3))
    assert (one.draw(3) != one.draw(4)).any()
    assert (one.draw(3) != other.draw(3)).any()


def test_workers_cut_the_same_batches(scenes):
    batches = PatchBatches(scenes, patch_px=32, part=TRAINING)
    runs = []
    for workers in (0, 2):
        loader = DataLoader(
            batches, sampler=sampler(scenes), batch_size=None, num_workers=workers,
            multiprocessing_context="fork" if workers else None,
        )  # fmt: skip
        runs.append(list(loader))
    assert len(runs[0]) == len(runs[1]) == 8
    for one, other in zip(*runs, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("balance", "expected"), [(1.0, [1 / 3] * 3), (0.0, [71500 / 72000, 400 / 72000, 100 / 72000])]
)
def test_classes_are_drawn_at_their_rates(scenes, balance, expected):
    drawn = sampler(scenes, balance=balance, batch=1, batches=6000, jitter_px=0, patch_px=2).draw(0)
    corners = drawn[:, 1:] + 1  # with patches of two pixels the drawn pixel is the lower right one
    told = [scenes[s].labels[min(r, 299), min(c, 199)] for s, (r, c) in zip(drawn[:, 0], corners, strict=True)]
    rates = np.bincount(told, minlength=3)[:3] / 6000
    np.testing.assert_allclose(rates, expected, atol=0.03)


def test_a_patch_holds_the_pixel_it_was_drawn_for(scenes):
    drawn = sampler(scenes, balance=1.0, batches=64)
    windows = drawn.draw(0)
    batch = PatchBatches(scenes, patch_px=32, part=TRAINING)[windows]
    rare = [(batch["label"] == k).flatten(1).any(1).float().mean() for k in (1, 2)]
    assert min(rare) > 0.25  # a third of them were drawn for each


def test_windows_lie_in_their_scenes(scenes):
    windows = sampler(scenes, batches=100).draw(0)
    shapes = np.array([scene.shape for scene in scenes])[windows[:, 0]]
    assert (windows[:, 1:] >= 0).all()
    assert (windows[:, 1:] + 32 <= shapes).all()


def test_a_scene_smaller_than_a_patch_lies_in_its_middle():
    corners = place_windows(np.array([[5, 5], [-9, 99]]), np.array([[20, 64], [100, 64]]), 64)
    np.testing.assert_array_equal(corners, [[-22, 0], [0, 0]])


def test_only_training_pixels_are_drawn(scenes):
    scenes[0].part[:150] = VALIDATION
    index = ClassIndex.of(scenes, counts=class_pixels(scenes, part=TRAINING, classes=3), seed=0)
    assert len(index.positions[1]) == 0
    assert all(scenes[s].part[r, c] == TRAINING for at in index.positions for s, r, c in at[:200])


def test_the_index_of_a_common_class_is_thinned(scenes, monkeypatch):
    monkeypatch.setattr(sampling, "INDEX_CAP", 1000)
    index = ClassIndex.of(scenes, counts=class_pixels(scenes, part=TRAINING, classes=3), seed=0)
    assert 800 < len(index.positions[0]) < 1200
    assert len(index.positions[1]) == 400
    assert len(index.positions[2]) == 100


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


def test_shares_and_halos_that_make_no_sense_are_refused(scenes):
    with pytest.raises(InputError, match="balance"):
        sampler(scenes, balance=1.5)
    with pytest.raises(InputError, match="halo"):
        validation_windows(scenes, patch_px=32, halo_px=16)
