"""Regions of a class map: 4-connected patches of one class, and what is known about each.

Region 0 is nodata and everything outside the map. Regions 1..n are numbered by their first pixel in row-major order, so
the numbers depend on the map alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

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
