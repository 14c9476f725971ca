"""Connected patches of labels as polygons, traced window by window."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio import features
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from geoseg.data.scene import SceneArrays, windows_of
from geoseg.errors import InputError
from geoseg.io.handles import unplaced_is_fine
from geoseg.tiling import Window

MOST_PATCHES = 100_000
TOUCHING = np.ones((3, 3))  # pixels that share a corner are of one patch


def label_patches(scene: SceneArrays) -> list[BaseGeometry]:
    """The connected patches of labelled pixels, polygons in pixels `(col, row)`, in order of their first windows.

    Raises:
        InputError: They are too many to be drawn one by one.
    """
    pieces: list[BaseGeometry] = []
    members: list[int] = []
    seams = _Seams(scene.shape)
    for window in windows_of(scene.shape):
        numbers = seams.numbered(scene.labels[window.slices] != scene.no_label, window)
        if seams.count > MOST_PATCHES:
            raise InputError(f"the labels of {scene.name} lie in over {MOST_PATCHES:,} patches; unit: block would work")
        for geometry, number in _traced(numbers, window):
            pieces.append(geometry)
            members.append(number)
    return _joined(pieces, seams.patches()[members])


def _traced(numbers: NDArray[np.int32], window: Window) -> Iterator[tuple[BaseGeometry, int]]:
    """Polygons around pixels of one number, where it is not 0, and that number less 1."""
    place = Affine.translation(window.col_off, window.row_off)
    with unplaced_is_fine():
        for geometry, number in features.shapes(numbers, mask=numbers > 0, connectivity=4, transform=place):
            yield shape(geometry), int(number) - 1


def _joined(pieces: list[BaseGeometry], patch: NDArray[Any]) -> list[BaseGeometry]:
    """The pieces of each patch as one shape."""
    order = np.argsort(patch, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(patch[order])) + 1) if len(order) else []
    return [shapely.union_all([pieces[k] for k in group.tolist()]) for group in groups]


class _Seams:
    """Numbers of patches, counted on from window to window, and which of them meet where windows do."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.count = 0
        self._above = np.zeros(shape[1] + 2, np.int64)  # the row above the windows at hand, with a column beside it
        self._last = np.zeros(shape[1] + 2, np.int64)  # their own last row
        self._left = np.zeros(0, np.int64)  # the last column of the window before
        self._pairs: list[NDArray[np.int64]] = []

    def numbered(self, told: NDArray[np.bool_], window: Window) -> NDArray[np.int32]:
        """The number of each pixel's patch in the window, counted from 1 over all windows; 0 where it has no label."""
        if window.col_off == 0:
            self._above, self._last = self._last, np.zeros_like(self._last)
            self._left = np.zeros(window.rows, np.int64)
        numbers = np.zeros(told.shape, np.int32)
        if told.any():
            count = ndimage.label(told, structure=TOUCHING, output=numbers)
            numbers[told] += self.count
            self.count += count
        above, beside = self._above[window.col_off : window.col_stop + 2], np.pad(self._left, 1)
        for shift in range(3):
            self._meet(numbers[0], above[shift : shift + window.cols])
            self._meet(numbers[:, 0], beside[shift : shift + window.rows])
        self._last[window.col_off + 1 : window.col_stop + 1] = numbers[-1]
        self._left = numbers[:, -1].astype(np.int64)
        return numbers

    def _meet(self, one: NDArray[Any], other: NDArray[Any]) -> None:
        both = (one > 0) & (other > 0)
        if both.any():
            self._pairs.append(np.unique(np.stack([one[both], other[both]]) - 1, axis=1))

    def patches(self) -> NDArray[np.int32]:
        """The patch of each number, from 0."""
        pairs = np.concatenate([np.zeros((2, 0), np.int64), *self._pairs], axis=1)
        joined = coo_array((np.ones(pairs.shape[1], np.bool_), (pairs[0], pairs[1])), shape=(self.count, self.count))
        return np.asarray(connected_components(joined, directed=False)[1])
