"""Which regions touch: along an edge, with the length of their border, or at a corner alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.jit import jit
from geoseg.vector.attributes import arc_measures
from geoseg.vector.coverage import Arcs, Coverage, junction_table
from geoseg.vector.metric import Metric
from geoseg.vector.regions import Ints

_SHORT = 32  # longer lists are sorted by numpy


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """Which regions touch along an edge, and how long that border is.

    Attributes:
        first: Lower region of each pair, int32 `(pair,)`; pairs are unique and sorted, nodata takes part in none.
        second: Higher region of each pair, int32 `(pair,)`.
        border: Length of the shared border `(pair,)`: int64 in the units of the weights it was summed with, or float64
            in the metric's unit.
    """

    first: NDArray[np.int32]
    second: NDArray[np.int32]
    border: NDArray[Any]


def find_neighbours(
    arcs: Arcs, *, weights: tuple[int, int] = (1, 1), groups: NDArray[np.int32] | None = None
) -> Neighbours:
    """Pairs of regions that share an edge, and the length of their border.

    Args:
        arcs: The boundaries.
        weights: Length of one pixel edge along x and along y, as integers so that the sums are exact in any order.
        groups: Group of each region `(region,)`; pairs then are of groups.
    """
    return _pairs(arcs, _weighted_lengths(arcs.coords, arcs.offsets, *weights), groups)


def find_borders(coverage: Coverage, metric: Metric, *, groups: NDArray[np.int32] | None = None) -> Neighbours:
    """Pairs of regions that share an edge, and the length of their border in the metric's unit.

    Args:
        coverage: The regions and their boundaries.
        metric: The ground under the map.
        groups: Group of each region `(region,)`; pairs then are of groups.
    """
    return _pairs(coverage.arcs, arc_measures(coverage.arcs, metric)[1], groups)


def corner_pairs(arcs: Arcs) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Regions on the diagonals of corners where four edges meet: the lower and the higher of each pair, nodata in none.

    Pixels that touch at any other corner are of one region, or their regions share an edge there too.
    """
    return _corner_pairs(arcs.left, arcs.right, junction_table(arcs))


def _pairs(arcs: Arcs, lengths: NDArray[Any], groups: NDArray[np.int32] | None) -> Neighbours:
    if groups is None:
        groups = np.arange(max(arcs.left.max(initial=0), arcs.right.max(initial=0)) + 1, dtype=np.int32)
    starts = _count_pairs(arcs.left, arcs.right, groups)
    second, border = np.empty(starts[-1], np.int32), np.empty(starts[-1], lengths.dtype)
    _fill_pairs((arcs.left, arcs.right), groups, lengths, starts, (second, border))
    sizes = _merge_lists(starts, second, border)
    first = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    return Neighbours(first, second[: len(first)].copy(), border[: len(first)].copy())


@jit
def _weighted_lengths(coords: NDArray[np.int32], offsets: Ints, weight_x: int, weight_y: int) -> Ints:
    lengths = np.zeros(offsets.shape[0] - 1, np.int64)
    for arc in range(lengths.shape[0]):
        for at in range(offsets[arc] + 1, offsets[arc + 1]):
            lengths[arc] += weight_x * abs(coords[at, 0] - coords[at - 1, 0])
            lengths[arc] += weight_y * abs(coords[at, 1] - coords[at - 1, 1])
    return lengths


@jit
def _ordered(left: np.int64, right: np.int64) -> tuple[int, int]:
    """Two groups, the lower first; nodata twice where there is no pair."""
    low, high = min(left, right), max(left, right)
    return (0, 0) if low in (0, high) else (int(low), int(high))


@jit
def _count_pairs(left: NDArray[np.int32], right: NDArray[np.int32], groups: NDArray[np.int32]) -> Ints:
    """Where the list of each group begins, of neighbours with higher numbers, one for each arc; and the end."""
    starts = np.zeros(groups.max() + 2, np.int64)
    for arc in range(left.shape[0]):
        low, _ = _ordered(np.int64(groups[left[arc]]), np.int64(groups[right[arc]]))
        if low > 0:
            starts[low + 1] += 1
    for group in range(1, starts.shape[0]):
        starts[group] += starts[group - 1]
    return starts


@jit
def _fill_pairs(
    sides: tuple[NDArray[np.int32], NDArray[np.int32]],
    groups: NDArray[np.int32],
    lengths: NDArray[Any],
    starts: Ints,
    out: tuple[NDArray[np.int32], NDArray[Any]],
) -> None:
    """Writes the lists, in the order of the arcs."""
    (left, right), (second, border) = sides, out
    following = starts.copy()
    for arc in range(left.shape[0]):
        low, high = _ordered(np.int64(groups[left[arc]]), np.int64(groups[right[arc]]))
        if low > 0:
            second[following[low]], border[following[low]] = high, lengths[arc]
            following[low] += 1


@jit
def _merge_lists(starts: Ints, second: NDArray[np.int32], border: NDArray[Any]) -> Ints:
    """Sorts each list and adds up what is of one pair, in place. Returns the size of each list; they follow closely."""
    sizes = np.zeros(starts.shape[0] - 1, np.int64)
    to = 0
    for group in range(sizes.shape[0]):
        _sort_list(second, border, starts[group], starts[group + 1])
        begin = to
        for at in range(starts[group], starts[group + 1]):
            if to > begin and second[to - 1] == second[at]:
                border[to - 1] += border[at]
            else:
                second[to], border[to] = second[at], border[at]
                to += 1
        sizes[group] = to - begin
    return sizes


@jit
def _sort_list(second: NDArray[np.int32], border: NDArray[Any], start: int, stop: int) -> None:
    """Sorts a part of both arrays by the first one; equal ones keep their order, so that sums of floats do."""
    if stop - start > _SHORT:
        order = np.argsort(second[start:stop], kind="mergesort")
        second[start:stop], border[start:stop] = second[start:stop][order], border[start:stop][order]
        return
    for at in range(start + 1, stop):
        key, amount = second[at], border[at]
        to = at
        while to > start and second[to - 1] > key:
            second[to], border[to] = second[to - 1], border[to - 1]
            to -= 1
        second[to], border[to] = key, amount


@jit
def _corner_pairs(
    left: NDArray[np.int32], right: NDArray[np.int32], table: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    crossings = 0
    for junction in range(table.shape[0]):
        crossings += table[junction].min() >= 0
    pairs = np.empty((2, 2 * crossings), np.int32)
    count = 0
    for junction in range(table.shape[0]):
        if table[junction].min() < 0:
            continue
        for heading in range(2):  # what is left of the edge that leaves east, and then south
            half, across = table[junction, heading], table[junction, heading + 2]
            here = left[half // 2] if half % 2 == 0 else right[half // 2]
            there = left[across // 2] if across % 2 == 0 else right[across // 2]
            low, high = _ordered(np.int64(here), np.int64(there))
            if low > 0:
                pairs[0, count], pairs[1, count] = low, high
                count += 1
    return pairs[0, :count].copy(), pairs[1, :count].copy()
