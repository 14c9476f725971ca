"""Weights add up to one, and the running sum is the sum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geoseg.errors import InputError
from geoseg.infer.blend import BLENDS, NO_NUMBER, NUMPY, Accumulator, Arrays, axis_weights, weigh, window
from geoseg.infer.predictor import arrays_on
from geoseg.tiling import Axis

TORCH = arrays_on(torch.device("cpu"))


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize(("tile", "overlap"), [(32, 0), (32, 1), (64, 16), (64, 32), (512, 64), (1, 0)])
def test_windows_are_symmetric_and_nowhere_zero(blend: str, tile: int, overlap: int) -> None:
    found = window(tile, overlap, blend=blend)
    assert found.min() > 0
    assert found.max() <= 1
    np.testing.assert_allclose(found, found[::-1])


def test_hann_halves_of_neighbours_add_up_to_one() -> None:
    found = window(64, 16, blend="hann")
    np.testing.assert_allclose(found[:16] + found[-16:], 1)


def test_only_the_overlap_is_weighted_down() -> None:
    assert (window(64, 16, blend="triangle")[16:48] == 1).all()


@given(st.sampled_from(sorted(BLENDS)), st.integers(1, 900), st.integers(1, 4), st.data())
def test_weights_of_all_tiles_sum_to_one_at_each_pixel(blend: str, size: int, units: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, 16 * units))
    axis = Axis.fit(size, largest_tile=32 * units, overlap=overlap, multiple=32)
    weights = axis_weights(axis, blend=blend)
    total = np.zeros((axis.count - 1) * axis.stride + axis.tile)
    for index in range(axis.count):
        total[index * axis.stride :][: axis.tile] += weights[index]
    assert weights.min() > 0
    np.testing.assert_allclose(total, 1, rtol=1e-6)


def test_an_unknown_blend_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"'cosine' is unknown; known are hann, triangle, flat"):
        window(32, 8, blend="cosine")


@pytest.mark.parametrize("arrays", [NUMPY, TORCH], ids=["numpy", "torch"])
def test_the_best_class_and_its_percentage(arrays: Arrays) -> None:
    sums = Accumulator(arrays, classes=3, rows=1, cols=4)
    scores = np.array([[[0.2, 0.5, 0.0, 1.0]], [[0.7, 0.5, 0.0, 0.0]], [[0.1, 0.0, 0.0, 0.0]]], "f4")
    sums.add(arrays.to_device(scores), col_off=0)
    channel, percent = sums.finish(1)
    assert channel.tolist() == [[1, 0, 0, 0]]  # the lowest wins a tie
    assert percent.tolist() == [[70, 50, 0, 100]]
    assert (channel.dtype, percent.dtype) == (np.uint8, np.uint8)


@pytest.mark.parametrize("arrays", [NUMPY, TORCH], ids=["numpy", "torch"])
def test_the_lowest_class_wins_a_tie_wherever_it_lies(arrays: Arrays) -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 3, (12, 64, 64)).astype("f4") / 4
    sums = Accumulator(arrays, classes=12, rows=64, cols=64)
    sums.add(arrays.to_device(scores), col_off=0)
    np.testing.assert_array_equal(sums.finish(64)[0], scores.argmax(axis=0))


@pytest.mark.parametrize("arrays", [NUMPY, TORCH], ids=["numpy", "torch"])
@pytest.mark.parametrize("channel", [0, 1])
def test_nan_is_marked(arrays: Arrays, channel: int) -> None:
    scores = np.full((2, 1, 2), 0.5, np.float32)
    scores[channel, 0, 1] = np.nan
    sums = Accumulator(arrays, classes=2, rows=1, cols=2)
    sums.add(arrays.to_device(scores), col_off=0)
    assert sums.finish(1)[1].tolist() == [[50, NO_NUMBER]]


@pytest.mark.parametrize("arrays", [NUMPY, TORCH], ids=["numpy", "torch"])
def test_more_than_256_classes_have_wider_channels(arrays: Arrays) -> None:
    sums = Accumulator(arrays, classes=300, rows=1, cols=1)
    sums.add(arrays.to_device((np.arange(300) == 299).astype("f4")[:, None, None]), col_off=0)
    assert sums.finish(1)[0].tolist() == [[299]]


def test_what_lies_outside_the_strip_is_left_out() -> None:
    sums = Accumulator(NUMPY, classes=1, rows=1, cols=4)
    tile = np.array([[[0.1, 0.2, 0.3]]], np.float32)
    for col_off in (-2, 3, 9, -7):
        sums.add(tile, col_off=col_off)
    assert sums.finish(1)[1].tolist() == [[30, 0, 0, 10]]


@given(st.integers(0, 2**31), st.integers(1, 9))
def test_torch_and_numpy_sum_to_the_same_bits_and_roll_alike(seed: int, stride: int) -> None:
    rng, found = np.random.default_rng(seed), []
    tiles = rng.random((5, 4, 10, 12), dtype=np.float32)
    weights = rng.random((2, 12), dtype=np.float32)
    for arrays in (NUMPY, TORCH):
        sums, rows = Accumulator(arrays, classes=4, rows=10, cols=15), []
        for number, tile in enumerate(tiles):
            to_device = arrays.to_device
            weighted = weigh(to_device(tile.copy()), to_device(weights[0, :10]), to_device(weights[1]))
            sums.add(weighted, col_off=number - 1)
            rows.append(np.stack(sums.finish(stride)))
            sums.roll(stride)
        found.append(np.concatenate(rows, axis=1))
    np.testing.assert_array_equal(found[0], found[1])


def test_rolling_moves_rows_up_and_empties_the_rest() -> None:
    sums = Accumulator(NUMPY, classes=1, rows=4, cols=1)
    sums.add(np.array([[[0.1], [0.2], [0.3], [0.4]]], np.float32), col_off=0)
    sums.roll(1)
    assert sums.finish(4)[1].ravel().tolist() == [20, 30, 40, 0]
    sums.roll(3)
    assert sums.finish(4)[1].ravel().tolist() == [0, 0, 0, 0]
