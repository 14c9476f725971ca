"""Weights add up to one at each pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg.errors import InputError
from geoseg.infer.blend import BLENDS, axis_weights, window
from geoseg.tiling import Axis


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
