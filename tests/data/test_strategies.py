"""Hard examples follow their losses, the grid its lattice, and shares are kept over epochs."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from geoseg.data.label_index import CELL_PX, LabelIndex
from geoseg.data.sampling import PatchSampler, SamplingOptions
from geoseg.data.strategies import FLOOR, HardExamples, apportion, class_rates
from geoseg.errors import InputError


def sampler(scenes, shares, *, epoch_patches: int, patch_px: int = 64) -> PatchSampler:
    return PatchSampler(
        scenes, LabelIndex.of(scenes, classes=1), options=SamplingOptions(shares=shares), class_names=["all"],
        patch_px=patch_px, batch=8, epoch_patches=epoch_patches, seed=3,
    )  # fmt: skip


@pytest.fixture
def plain(decoded):
    """Four cells in a row, all labelled."""
    return [decoded(np.zeros((CELL_PX, 4 * CELL_PX), np.uint8))]


def test_hard_draws_are_in_proportion_to_the_last_loss(plain):
    drawn = sampler(plain, {"hard": 1}, patch_px=1, epoch_patches=1000)
    middles = np.array([[0, 32, CELL_PX * k + 32] for k in range(4)])
    drawn.note(middles, np.array([9.0, 9.0, 9.0, 9.0]))
    drawn.note(middles[:3], np.array([1.0, 4.0, 2.0]))  # later ones count; the last cell keeps its 9
    drawn.set_epoch(1)
    counts = np.bincount(drawn.draw(1)[:, 2] // CELL_PX, minlength=4)
    assert stats.chisquare(counts, np.array([1, 4, 2, 9]) / 16 * 1000).pvalue > 0.001


def test_places_never_seen_have_the_mean_loss(plain):
    drawn = sampler(plain, {"hard": 1}, patch_px=1, epoch_patches=1000)
    drawn.note(np.array([[0, 5, 5], [0, 5, CELL_PX]]), np.array([1.0, 5.0]))
    drawn.set_epoch(1)
    counts = np.bincount(drawn.draw(1)[:, 2] // CELL_PX, minlength=4)
    assert stats.chisquare(counts, np.array([1, 5, 3, 3]) / 12 * 1000).pvalue > 0.001


def test_a_loss_counts_where_the_middle_of_its_patch_is(decoded):
    scene = decoded(np.zeros((6 * CELL_PX, 6 * CELL_PX), np.uint8))
    hard = HardExamples(LabelIndex.of([scene], classes=1), patch_px=4 * CELL_PX)
    hard.note(np.array([[0, CELL_PX, 0], [0, CELL_PX, CELL_PX]]), np.array([1.0, 3.0]))
    hard.settle()
    losses = hard.settled.reshape(6, 6)
    np.testing.assert_array_equal(losses[2:4, 1:4], [[1, 2, 3]] * 2)  # both touch the column between: their mean
    assert np.isnan(losses).sum() == 36 - 6


def test_the_order_of_patches_and_losses_of_none_do_not_matter(decoded):
    rng = np.random.default_rng(0)
    index = LabelIndex.of([decoded(np.zeros((300, 300), np.uint8))], classes=1)
    windows, losses = np.insert(rng.integers(0, 240, (80, 2)), 0, 0, axis=1), rng.random(80)
    one, other = HardExamples(index, patch_px=60), HardExamples(index, patch_px=60)
    one.note(windows, losses)
    order = rng.permutation(82)
    strange = np.concatenate([windows, windows[:2]]), np.concatenate([losses, [np.nan, np.inf]])
    other.note(strange[0][order], strange[1][order])
    np.testing.assert_array_equal(one.noted, other.noted)
    with pytest.raises(InputError, match="losses"):
        one.note(windows, losses[:5])
    one.note(windows[:0], losses[:0])


def test_what_is_mastered_is_still_looked_at(plain):
    hard = HardExamples(LabelIndex.of(plain, classes=1), patch_px=8)
    np.testing.assert_array_equal(hard.factors, np.ones(4))
    everywhere = np.array([[0, 10, CELL_PX * k + 10] for k in range(4)])
    hard.note(everywhere, np.zeros(4))
    hard.settle()
    np.testing.assert_array_equal(hard.factors, np.ones(4))
    hard.note(everywhere, np.array([0.0, 4.0, -1.0, 4.0]))
    hard.settle()
    np.testing.assert_allclose(hard.factors, [2 * FLOOR, 4, 2 * FLOOR, 4])


def test_the_grid_goes_on_from_epoch_to_epoch_until_all_are_seen(decoded):
    scenes = [decoded(np.zeros((260, 260), np.uint8)), decoded(np.zeros((50, 90), np.uint8))]
    drawn = sampler(scenes, {"grid": 1}, epoch_patches=10)
    lattice = {tuple(window) for window in drawn.ground.lattice.tolist()}
    assert len(lattice) == 25 + 2
    given_windows = np.concatenate([drawn.draw(epoch) for epoch in range(27)])  # ten rounds
    assert len(given_windows) == 270
    windows, counts = np.unique(given_windows, axis=0, return_counts=True)
    exact = {tuple(window): count for window, count in zip(windows.tolist(), counts.tolist(), strict=True)}
    moved = sum(count for window, count in exact.items() if window not in lattice)
    assert moved <= 10  # a round's end and the next one's beginning may meet in an epoch
    assert all(10 - moved <= exact[window] <= 10 for window in lattice)
    first_three = {tuple(window) for epoch in range(3) for window in drawn.draw(epoch).tolist()}
    assert len(first_three & lattice) == 27


def test_a_grid_longer_than_its_lattice_moves_what_was_given(plain):
    drawn = sampler(plain, {"grid": 1}, patch_px=32, epoch_patches=40)
    windows = drawn.draw(0)
    assert len(np.unique(windows, axis=0)) == 40
    assert {tuple(w) for w in drawn.ground.lattice.tolist()} <= {tuple(w) for w in windows.tolist()}


def test_the_grid_goes_faster_through_heavier_scenes(decoded):
    scenes = [replace(decoded(np.zeros((640, 640), np.uint8)), weight=weight) for weight in (1.0, 3.0, 0.0)]
    drawn = sampler(scenes, {"grid": 1}, epoch_patches=40)
    counts = np.bincount(np.concatenate([drawn.draw(epoch) for epoch in range(10)])[:, 0], minlength=3)
    np.testing.assert_array_equal(counts, [100, 300, 0])
    seen = np.concatenate([drawn.draw(epoch) for epoch in range(10)])
    assert len(np.unique(seen[seen[:, 0] == 0], axis=0)) == 100


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=6), st.integers(0, 10**9))
def test_turns_are_shared_by_speed_and_never_taken_back(speeds, total):
    speeds = np.array(speeds)
    if speeds.sum() < 1e-3:
        return
    counts, more = apportion(speeds, total), apportion(speeds, total + 1)
    assert counts.sum() == total
    assert sorted((more - counts).tolist()) == [0] * (len(speeds) - 1) + [1]
    assert (np.abs(counts - total * speeds / speeds.sum()) <= len(speeds) / 2 + 1).all()
    assert (counts[speeds == 0] == 0).all()


def test_small_shares_have_their_turn_in_the_long_run(decoded):
    scene = decoded(np.zeros((3000, 300), np.uint8))
    scene.labels[1500:] = 255
    drawn = sampler([scene], {"random": 0.02, "labelled": 0.98}, epoch_patches=5)
    unlabelled = sum(int((drawn.draw(epoch)[:, 1] > 1500).sum()) for epoch in range(100))
    assert stats.binomtest(unlabelled, 10, 0.5).pvalue > 0.001  # ten of five hundred, half of them lie there


@pytest.mark.parametrize(
    ("rates", "present", "expected"),
    [
        ({}, [1, 1, 1, 1], [0.25] * 4),
        ({}, [1, 0, 1, 0], [0.5, 0, 0.5, 0]),
        ({"a": 0.4}, [1, 1, 1, 1], [0.4, 0.2, 0.2, 0.2]),
        ({"a": 0.4, "b": 0.3}, [1, 0, 1, 1], [4 / 7, 0, 1.5 / 7, 1.5 / 7]),
        ({"a": 0.5, "b": 0.5}, [1, 1, 1, 0], [0.5, 0.5, 0, 0]),
        ({"a": 0.1, "b": 0.1}, [1, 1, 0, 0], [0.5, 0.5, 0, 0]),
        ({"a": 0.0}, [1, 1, 1, 0], [0, 0.5, 0.5, 0]),
    ],
)
def test_rates_of_classes(rates, present, expected):
    np.testing.assert_allclose(class_rates(rates, "abcd", np.array(present, bool)), expected)


def test_rates_that_cannot_be_are_refused():
    names, present = ("water", "forest", "road"), np.array([True, True, False])
    with pytest.raises(InputError, match="known are water, forest, road"):
        class_rates({"xyzzy": 0.1}, names, present)
    with pytest.raises(InputError, match=r"add up to 1\.2"):
        class_rates({"water": 0.6, "forest": 0.6}, names, present)
    with pytest.raises(InputError, match=r"\(water, forest\) needs a rate"):
        class_rates({"road": 1.0}, names, present)
