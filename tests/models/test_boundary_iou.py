"""Boundary IoU against a brute-force oracle, and the same for every cut into blocks."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from geoseg.errors import InputError
from geoseg.models.boundary_iou import NOTHING, BoundaryCounter, near_border
from geoseg.tiling import Window


def oracle(labels, mapped, *, classes: int, distance_px: int):
    """Intersection and union by looking around each pixel, class by class."""
    mapped = np.where(labels == NOTHING, NOTHING, mapped)

    def near(plane, row, col) -> bool:
        part = plane[
            max(row - distance_px, 0) : row + distance_px + 1, max(col - distance_px, 0) : col + distance_px + 1
        ]
        return bool(((part != NOTHING) & (part != plane[row, col])).any())

    both, either = np.zeros(classes, int), np.zeros(classes, int)
    for row, col in np.argwhere(labels != NOTHING):
        for k in range(classes):
            label, found = (plane[row, col] == k and near(plane, row, col) for plane in (labels, mapped))
            both[k] += label and found
            either[k] += label or found
    return both, either


def counted(labels, mapped, *, classes: int, distance_px: int, cuts=((), ()), offset=(0, 0)):
    """Counts of a region cut at the given rows and columns, strip by strip."""
    rows, cols = labels.shape
    row_edges, col_edges = ([0, *cut, size] for cut, size in zip(cuts, (rows, cols), strict=True))
    region = Window(*offset, rows, cols)
    counter = BoundaryCounter(region, classes=classes, distance_px=distance_px)
    for left, right in pairwise(col_edges):
        for top, below in pairwise(row_edges):
            window = Window(offset[0] + top, offset[1] + left, below - top, right - left)
            counter.add(window, labels[top:below, left:right], mapped[top:below, left:right])
    return counter.counts


def planes(seed: int, shape, *, classes: int, gaps: float):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, classes, (shape[0] // 4 + 1, shape[1] // 4 + 1))
    labels = np.kron(coarse, np.ones((4, 4), int))[: shape[0], : shape[1]]
    mapped = np.where(rng.random(shape) < 0.1, rng.integers(0, classes, shape), np.roll(labels, 1, 1))
    return np.where(rng.random(shape) < gaps, NOTHING, labels), mapped


@given(
    seed=st.integers(0, 10**6), shape=st.tuples(st.integers(1, 24), st.integers(1, 24)), distance_px=st.integers(1, 4),
    gaps=st.sampled_from([0.0, 0.2, 0.9]), cuts=st.tuples(st.sets(st.integers(1, 23)), st.sets(st.integers(1, 23))),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_any_cut_gives_what_looking_around_each_pixel_gives(seed, shape, distance_px, gaps, cuts):
    labels, mapped = planes(seed, shape, classes=3, gaps=gaps)
    inside = [sorted(edge for edge in cut if edge < size) for cut, size in zip(cuts, shape, strict=True)]
    found = counted(labels, mapped, classes=3, distance_px=distance_px, cuts=inside, offset=(7, 100))
    both, either = oracle(labels, mapped, classes=3, distance_px=distance_px)
    np.testing.assert_array_equal(found.intersection, both)
    np.testing.assert_array_equal(found.union, either)


def test_a_perfect_map_scores_one_and_unlabelled_pixels_make_no_border():
    labels = np.full((20, 20), NOTHING)
    labels[4:16, 4:16] = 0
    found = counted(labels, np.zeros((20, 20), int), classes=2, distance_px=2)
    assert not found.union.any()
    assert np.isnan(found.mean)
    labels[4:16, 10:16] = 1
    found = counted(labels, np.where(np.arange(20) < 10, 0, 1) * np.ones((20, 1), int), classes=2, distance_px=2)
    np.testing.assert_array_equal(found.union, [24, 24])  # 12 rows, 2 pixels each side of the one border
    assert found.iou.tolist() == [1.0, 1.0]
    assert found.mean == 1.0


def test_a_border_that_is_off_by_more_than_the_distance_scores_nothing():
    labels = np.repeat([[0] * 10 + [1] * 10], 6, axis=0)
    mapped = np.repeat([[0] * 13 + [1] * 7], 6, axis=0)
    near = counted(labels, mapped, classes=2, distance_px=1)
    assert near.iou.tolist() == [0.0, 0.0]
    far = counted(labels, mapped, classes=2, distance_px=5)
    # class 0: columns 5 to 9 against 8 to 12; class 1: 10 to 14 against 13 to 17
    assert far.iou.tolist() == [2 / 8, 2 / 8]


def test_a_circle_against_the_erosion_that_the_paper_describes():
    row, col = np.indices((80, 90))
    masks = [(row - 40) ** 2 + (col - centre) ** 2 < 30**2 for centre in (44, 46)]
    rings = [mask & ~ndimage.binary_erosion(mask, np.ones((3, 3)), iterations=4) for mask in masks]
    found = counted(masks[0].astype(int), masks[1].astype(int), classes=2, distance_px=4, cuts=([33], [50, 60]))
    assert found.iou[1] == (rings[0] & rings[1]).sum() / (rings[0] | rings[1]).sum()


def test_sums_of_counts_are_the_counts_of_both():
    one, two = (counted(*planes(seed, (16, 16), classes=3, gaps=0.1), classes=3, distance_px=2) for seed in (1, 2))
    total = one + two
    np.testing.assert_array_equal(total.union, one.union + two.union)
    assert total.intersection.dtype == np.int64


def test_near_border_reaches_a_square_and_no_distance_is_refused():
    plane = np.zeros((9, 9), np.int32)
    plane[4, 4] = 1
    np.testing.assert_array_equal(near_border(plane, distance_px=2), np.pad(np.ones((5, 5), bool), 2))
    with pytest.raises(InputError, match="boundary_px is 0: needed is a distance of 1"):
        BoundaryCounter(Window(0, 0, 4, 4), classes=2, distance_px=0)
