"""Regions of a class map: 4-connected patches of one class, what is known about each, and merging of the small ones.

Region 0 is nodata and everything outside the map. Regions 1..n are numbered by their first pixel in row-major order, so
the numbers depend on the map alone.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.jit import jit

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """What another raster's valid pixels come to in each region, nodata first; all `(region,)`.

    Attributes:
        total: Sum of the values: int64 of integers, exact in any order; float64 of floats.
        count: Number of valid pixels, int64.
        low: Smallest value, of the type of `total`; its largest number where no pixel is valid.
    """

    total: NDArray[Any]
    count: Ints
    low: NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """What is known of each region, nodata (region 0) first; all `(region,)`.

    Attributes:
        classes: Value of its pixels in the map; 0 for nodata.
        pixels: Number of pixels, int64; for nodata 0.
        first: Its first pixel: `row * cols + col` in the map, int64; for nodata -1.
        values: Of each other raster on the map's grid, by name, what its pixels come to.
    """

    classes: NDArray[Any]
    pixels: Ints
    first: Ints
    values: Mapping[str, Sums] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Number of regions, nodata aside."""
        return len(self.classes) - 1


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """Which regions touch along an edge, and how long that border is.

    Attributes:
        first: Lower region of each pair, int32 `(pair,)`; pairs are unique and sorted, nodata takes part in none.
        second: Higher region of each pair, int32 `(pair,)`.
        border: Length of the shared border, int64 `(pair,)`, in the units of the weights it was summed with.
    """

    first: NDArray[np.int32]
    second: NDArray[np.int32]
    border: Ints


def label_regions(classes: NDArray[Any], valid: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[Any]]:
    """Regions int32 `(row, col)`, 0 where not valid, and the class of each region `(region,)`, 0 for region 0.

    Two passes with union-find, as Rosenfeld & Pfaltz, Sequential operations in digital picture processing, J. ACM 13
    (1966): the root of a set is its first pixel.

    Raises:
        InputError: The arrays differ in shape, or the classes are no integers.

    >>> label_regions(np.array([[7, 7, 2], [2, 7, 2]]), np.ones((2, 3), bool))
    (array([[1, 1, 2], [3, 1, 2]], dtype=int32), array([0, 7, 2, 2]))
    """
    if classes.ndim != 2 or classes.shape != valid.shape:
        raise InputError(f"classes {classes.shape} and valid {valid.shape} must be the same (row, col)")
    if classes.dtype.kind not in "iu":
        raise InputError(f"classes are {classes.dtype}, only integers can be traced; round or classify them first")
    classes = np.ascontiguousarray(classes, classes.dtype.newbyteorder("="))
    valid = np.ascontiguousarray(valid)
    parent = np.zeros(_count_starts(classes, valid) + 1, np.int32)
    regions = _scan(classes, valid, parent)
    count = _number_roots(parent)
    class_of_region = np.zeros(count + 1, classes.dtype)
    _renumber(regions, parent, classes, class_of_region)
    return regions, class_of_region


def count_pixels(regions: NDArray[np.int32], *, count: int) -> Ints:
    """Pixels of each region, int64 `(count + 1,)`, nodata first."""
    pixels = np.zeros(count + 1, np.int64)
    _count(regions, pixels)
    return pixels


def sum_over_regions(
    regions: NDArray[np.int32], values: NDArray[Any], valid: NDArray[np.bool_], *, count: int
) -> tuple[NDArray[Any], Ints]:
    """Sum of the values `(row, col)` over each region's valid pixels, and how many those are, both `(count + 1,)`.

    The sums of integers are int64, exact in any order; those of floats are float64.
    """
    sums = np.zeros(count + 1, np.int64 if values.dtype.kind in "iub" else np.float64)
    used = np.zeros(count + 1, np.int64)
    _sum(regions, np.ascontiguousarray(values, values.dtype.newbyteorder("=")), valid, sums, used)
    return sums, used


def merge_small(
    neighbours: Neighbours,
    *,
    class_of_region: NDArray[Any],
    pixels: Ints,
    areas: NDArray[np.floating[Any]],
    min_area: float,
) -> tuple[NDArray[np.int32], NDArray[Any]]:
    """New region of each old one, int32 `(region,)`, and the class of each new region, once no small one is left.

    A region is small while its area is below `min_area`. The smallest (fewest pixels, then lowest number) takes the
    class of the neighbour it shares the longest border with (then the lowest number) and joins it, and with it any
    neighbour that now has its own class. Regions that touch nothing but nodata stay. New numbers keep the old order.

    Args:
        neighbours: Pairs of regions that share a border.
        class_of_region: Class of each region `(region,)`.
        pixels: Pixels of each region `(region,)`.
        areas: Area of each region `(region,)`, in the unit of `min_area`.
        min_area: Regions below it are merged.
    """
    size = len(pixels)
    forest = _Forest(
        parent=np.arange(size, dtype=np.int32),
        following=np.full(size, -1, np.int32),
        last=np.arange(size, dtype=np.int32),
        classes=class_of_region.copy(),
        pixels=pixels.copy(),
        areas=areas.copy(),
    )
    _merge(forest, _by_region(neighbours, size), min_area)
    kept = forest.parent == np.arange(size)
    lut = (np.cumsum(kept, dtype=np.int32) - np.int32(1))[forest.parent]
    return lut, forest.classes[kept]


class _Lists(NamedTuple):
    """Region `r` borders on `others[starts[r]:starts[r + 1]]`, with `borders` beside them."""

    starts: Ints
    others: NDArray[np.int32]
    borders: Ints


class _Forest(NamedTuple):
    """Merged regions as sets; `classes`, `pixels` and `areas` hold for roots, which are their sets' lowest numbers.

    A set's members are a linked list: the root, then `following`, to the root's `last`.
    """

    parent: NDArray[np.int32]
    following: NDArray[np.int32]
    last: NDArray[np.int32]
    classes: NDArray[Any]
    pixels: Ints
    areas: NDArray[np.floating[Any]]


def _by_region(neighbours: Neighbours, size: int) -> _Lists:
    here = np.concatenate([neighbours.first, neighbours.second])
    there = np.concatenate([neighbours.second, neighbours.first])
    border = np.concatenate([neighbours.border, neighbours.border])
    order = np.argsort(here, kind="stable")
    starts = np.zeros(size + 1, np.int64)
    np.cumsum(np.bincount(here, minlength=size), out=starts[1:])
    return _Lists(starts, there[order], border[order])


@jit
def _count_starts(classes: NDArray[Any], valid: NDArray[np.bool_]) -> int:
    """Valid pixels that are like neither the one above nor the one to the left: labels the first pass can give."""
    count = 0
    for row in range(classes.shape[0]):
        for col in range(classes.shape[1]):
            if valid[row, col]:
                above = row > 0 and valid[row - 1, col] and classes[row - 1, col] == classes[row, col]
                left = col > 0 and valid[row, col - 1] and classes[row, col - 1] == classes[row, col]
                if not (above or left):
                    count += 1
    return count


@jit
def _root(parent: NDArray[np.int32], label: int) -> int:
    while parent[label] != label:
        parent[label] = parent[parent[label]]
        label = parent[label]
    return label


@jit
def _scan(classes: NDArray[Any], valid: NDArray[np.bool_], parent: NDArray[np.int32]) -> NDArray[np.int32]:
    """First pass: provisional labels, and in `parent` which of them belong together."""
    labels = np.zeros(classes.shape, np.int32)
    last = 0
    for row in range(classes.shape[0]):
        for col in range(classes.shape[1]):
            if not valid[row, col]:
                continue
            here = classes[row, col]
            above = labels[row - 1, col] if row > 0 and classes[row - 1, col] == here else 0
            left = labels[row, col - 1] if col > 0 and classes[row, col - 1] == here else 0
            if above == 0 and left == 0:
                last += 1
                parent[last] = last
                labels[row, col] = last
            elif above == 0 or left in (0, above):
                labels[row, col] = max(above, left)
            else:
                first, second = _root(parent, above), _root(parent, left)
                parent[max(first, second)] = min(first, second)
                labels[row, col] = min(first, second)
    return labels


@jit
def _number_roots(parent: NDArray[np.int32]) -> int:
    """Makes of each label's parent its final region number. Returns the number of regions."""
    count = 0
    for label in range(1, parent.shape[0]):
        if parent[label] == label:
            count += 1
            parent[label] = count
        else:  # a parent is lower than its child, so it has its number already
            parent[label] = parent[parent[label]]
    return count


@jit
def _renumber(
    regions: NDArray[np.int32], number: NDArray[np.int32], classes: NDArray[Any], class_of_region: NDArray[Any]
) -> None:
    for row in range(regions.shape[0]):
        for col in range(regions.shape[1]):
            if regions[row, col] != 0:
                regions[row, col] = number[regions[row, col]]
                class_of_region[regions[row, col]] = classes[row, col]


@jit
def _count(regions: NDArray[np.int32], pixels: Ints) -> None:
    for row in range(regions.shape[0]):
        for col in range(regions.shape[1]):
            pixels[regions[row, col]] += 1


@jit
def _sum(
    regions: NDArray[np.int32], values: NDArray[Any], valid: NDArray[np.bool_], sums: NDArray[Any], used: Ints
) -> None:
    for row in range(regions.shape[0]):
        for col in range(regions.shape[1]):
            if valid[row, col]:
                sums[regions[row, col]] += values[row, col]
                used[regions[row, col]] += 1


@jit
def _merge(forest: _Forest, lists: _Lists, min_area: float) -> None:
    """Merges small regions until none has a neighbour.

    Only the lists of small regions are ever walked, so the time grows with the number of their neighbours. The queue
    holds a region again whenever it has grown; entries whose pixel count is out of date are passed over.
    """
    shared = np.zeros(forest.parent.shape[0], np.int64)  # border with each neighbour, zero between steps
    queue = [(forest.pixels[k], k) for k in range(1, forest.parent.shape[0]) if forest.areas[k] < min_area]
    heapq.heapify(queue)
    while len(queue) > 0:
        amount, region = heapq.heappop(queue)
        if forest.parent[region] != region or forest.pixels[region] != amount:
            continue
        touched = _gather(forest, lists, region, shared)
        best = _longest(touched, shared)
        for other in touched:
            shared[other] = 0
        if best == 0:
            continue
        new_class = forest.classes[best]
        for other in touched:
            if forest.classes[other] == new_class:
                region = _unite(forest, region, other)
        if forest.areas[region] < min_area:
            heapq.heappush(queue, (forest.pixels[region], region))
    for region in range(forest.parent.shape[0]):
        forest.parent[region] = _root(forest.parent, region)


@jit
def _gather(forest: _Forest, lists: _Lists, region: int, shared: Ints) -> list[int]:
    """Roots of the region's neighbours; the borders with them are summed into `shared`."""
    touched = [0 for _ in range(0)]
    member = region
    while member != -1:
        for at in range(lists.starts[member], lists.starts[member + 1]):
            other = _root(forest.parent, lists.others[at])
            if other != region:
                if shared[other] == 0:
                    touched.append(other)
                shared[other] += lists.borders[at]
        member = forest.following[member]
    return touched


@jit
def _longest(touched: list[int], shared: Ints) -> int:
    """The neighbour with the longest border, the lowest number at a tie; 0 when there is none."""
    best = 0
    for other in touched:
        if best == 0 or shared[other] > shared[best] or (shared[other] == shared[best] and other < best):
            best = other
    return best


@jit
def _unite(forest: _Forest, region: int, into: int) -> int:
    """Joins a root to another, whose class both have from now on. Returns the root of the two, the lower number."""
    low, high = min(region, into), max(region, into)
    forest.classes[low] = forest.classes[into]
    forest.parent[high] = low
    forest.following[forest.last[low]] = high
    forest.last[low] = forest.last[high]
    forest.pixels[low] += forest.pixels[high]
    forest.areas[low] += forest.areas[high]
    return low
