"""Boundary IoU of a map: how well borders are met, from integer counts that are the same however the map is cut.

After Cheng et al. 2021, "Boundary IoU", eq. 2: the IoU of what each mask has within a distance `d` of its own border.
As in the authors' code the distance is that of a square (Chebyshev). Theirs is 2 % of the image's diagonal; a scene has
no natural diagonal, so here it is given in pixels. Pixels without a label are in no mask and make no border, so a
perfect map scores 1 whatever the shape of what is labelled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from geoseg.errors import InputError
from geoseg.tiling import Window

NOTHING = -1
"""What a plane holds where a pixel has no label."""


@dataclass(frozen=True, slots=True, eq=False)
class BoundaryCounts:
    """Pixels near borders, of each class; sums of two are the counts of both.

    Attributes:
        intersection: int64 `(class,)`: pixels near a border of the class both in the labels and in the map.
        union: int64 `(class,)`: those near one in the labels, in the map or in both.
    """

    intersection: NDArray[np.int64]
    union: NDArray[np.int64]

    @classmethod
    def none(cls, classes: int) -> BoundaryCounts:
        """No pixel yet."""
        return cls(np.zeros(classes, np.int64), np.zeros(classes, np.int64))

    def __add__(self, other: BoundaryCounts) -> BoundaryCounts:
        """The counts of both."""
        return BoundaryCounts(self.intersection + other.intersection, self.union + other.union)

    @property
    def iou(self) -> NDArray[np.float64]:
        """Boundary IoU of each class; NaN for one that has no border in the labels or in the map."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.union > 0, self.intersection / self.union, np.nan)

    @property
    def mean(self) -> float:
        """Mean boundary IoU of the classes that have a border; NaN without any."""
        return float(np.nanmean(self.iou)) if self.union.any() else float("nan")


def near_border(plane: NDArray[np.integer], *, distance_px: int) -> NDArray[np.bool_]:
    """Which pixels have a pixel of another class within a square of `distance_px` each way, `(row, col)`.

    Args:
        plane: Classes `(row, col)`, NOTHING where there is none; outside it there is none either.
        distance_px: Pixels; 1 is the pixels that touch one of another class by a side or a corner.
    """
    size, high = 2 * distance_px + 1, np.iinfo(plane.dtype).max
    known = plane != NOTHING
    most = ndimage.maximum_filter(plane, size, mode="constant", cval=NOTHING)
    least = ndimage.minimum_filter(np.where(known, plane, high), size, mode="constant", cval=high)
    return np.asarray(known & ((most != plane) | (least != plane)))


class BoundaryCounter:
    """Counts a region that arrives in blocks: strip by strip from the left, each from top to bottom.

    Of what came before it keeps two distances' width: the last rows of the block above and the last columns of the
    strip to the left. A pixel is counted as soon as all that lies within its distance is there.
    """

    def __init__(self, region: Window, *, classes: int, distance_px: int) -> None:
        if distance_px < 1:
            raise InputError(f"boundary_px is {distance_px}: needed is a distance of 1 pixel or more")
        self.counts = BoundaryCounts.none(classes)
        self._region, self._distance = region, distance_px
        self._beside = self._nothing(region.rows, 2 * distance_px)
        self._next_beside = self._beside.copy()
        self._above = self._nothing(0, 0)

    @staticmethod
    def _nothing(rows: int, cols: int) -> NDArray[np.int32]:
        return np.full((2, rows, cols), NOTHING, np.int32)

    def add(self, window: Window, labels: NDArray[np.integer], mapped: NDArray[np.integer]) -> None:
        """Counts what the next block completes.

        Args:
            window: The block, in the pixels of the region; the blocks of a region are a grid that covers it.
            labels: Classes `(row, col)`, NOTHING where there is no label.
            mapped: The same of the map; it counts where there is a label.
        """
        margin, region = 2 * self._distance, self._region
        rows = slice(window.row_off - region.row_off, window.row_stop - region.row_off)
        if window.row_off == region.row_off:
            self._beside, self._next_beside = self._next_beside, self._nothing(region.rows, margin)
            self._above = self._nothing(margin, margin + window.cols)
        block = np.stack([labels, np.where(labels == NOTHING, NOTHING, mapped)]).astype(np.int32)
        planes = np.concatenate([self._above, np.concatenate([self._beside[:, rows], block], 2)], 1)
        self._above = planes[:, -margin:]
        self._next_beside[:, rows] = planes[:, margin:, -margin:]
        inner = tuple(
            slice(self._distance, None if last else -self._distance)
            for last in (window.row_stop == region.row_stop, window.col_stop == region.col_stop)
        )
        self._count(planes, inner)

    def _count(self, planes: NDArray[np.int32], inner: tuple[slice, ...]) -> None:
        if (planes[0] == NOTHING).all():
            return
        labels, mapped = (
            np.where(near_border(plane, distance_px=self._distance), plane, NOTHING)[inner] for plane in planes
        )
        both, label, found = (
            np.bincount(part[part != NOTHING], minlength=len(self.counts.union)).astype(np.int64)
            for part in (np.where(labels == mapped, labels, NOTHING), labels, mapped)
        )
        self.counts += BoundaryCounts(both, label + found - both)
