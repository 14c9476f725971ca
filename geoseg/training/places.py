"""Where a scene's validation labels lie, in coarse cells, and which places of them are worth a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoseg.data.scene import SceneArrays, windows_of
from geoseg.models.boundary_iou import NOTHING
from geoseg.tiling import Window
from geoseg.training.scene_source import validation_labels

CELL_PX = 64
PLACE_CELLS = 4
"""Cells along a side of a place."""

SHARES = (0.05, 0.5)
"""Of the labels that the fullest place has, what another has to have to be shown, and to be as good as full."""


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """Labelled validation pixels of a scene.

    Attributes:
        counts: int32 `(row, col, class)`, of each cell of CELL_PX pixels a side.
        shape: Rows and columns of the scene, pixels.
    """

    counts: NDArray[np.int32]
    shape: tuple[int, int]

    @classmethod
    def of(cls, scene: SceneArrays, *, classes: int) -> Survey:
        """What a scene holds; its labels are read once, window by window."""
        rows, cols = (-(-size // CELL_PX) for size in scene.shape)
        counts = np.zeros((rows * cols, classes), np.int32)
        for window in windows_of(scene.shape):
            labels = validation_labels(scene, window)
            row, col = np.nonzero(labels != NOTHING)
            cell = (row + window.row_off) // CELL_PX * cols + (col + window.col_off) // CELL_PX
            first = int(cell.min(initial=0))
            found = np.bincount((cell - first) * classes + labels[row, col])
            found = np.pad(found, (0, -len(found) % classes)).reshape(-1, classes)
            counts[first : first + len(found)] += found
        return cls(counts.reshape(rows, cols, classes), scene.shape)

    @property
    def window(self) -> Window | None:
        """A window outside which no validation pixel has a label; None where there is none at all."""
        told = self.counts.any(2)
        if not told.any():
            return None
        (top, below), (left, right) = ((axis.min(), axis.max() + 1) for axis in np.nonzero(told))
        return self._pixels(int(top), int(left), int(below - top), int(right - left))

    def place(self, row: int, col: int) -> Window:
        """The pixels of the place that begins with a cell."""
        return self._pixels(row, col, PLACE_CELLS, PLACE_CELLS)

    def places(self) -> NDArray[np.int64]:
        """Labelled pixels of every place, int64 `(row, col, class)` by the cell that it begins with."""
        sums = self.counts.astype(np.int64)
        for axis in (0, 1):
            size = sums.shape[axis]
            total = np.insert(np.cumsum(sums, axis), 0, 0, axis)
            start = np.arange(max(size - PLACE_CELLS, 0) + 1)
            sums = total.take(np.minimum(start + PLACE_CELLS, size), axis) - total.take(start, axis)
        return sums

    def holds(self, window: Window) -> bool:
        """Whether a cell that shares a pixel with the window has a label."""
        rows, cols = (slice(part.start // CELL_PX, -(-part.stop // CELL_PX)) for part in window.slices)
        return bool(self.counts[rows, cols].any())

    def _pixels(self, row: int, col: int, rows: int, cols: int) -> Window:
        whole = Window(0, 0, *self.shape)
        return Window(row * CELL_PX, col * CELL_PX, rows * CELL_PX, cols * CELL_PX).intersect(whole)


def choose_places(surveys: Sequence[Survey], *, count: int) -> list[tuple[int, Window]]:
    """At most `count` places, each with the number of its scene: full ones first, that together show most classes.

    Of places that show as many classes not seen before, the one with more labels comes first. None overlap.
    """
    found = [survey.places() for survey in surveys]
    places = np.concatenate([each.reshape(-1, each.shape[2]) for each in found])
    starts = np.cumsum([0, *(each[..., 0].size for each in found)])
    total = places.sum(1)
    rank = np.sum([total >= max(1.0, share * total.max()) for share in SHARES], axis=0)
    seen = np.zeros(places.shape[1], np.bool_)
    chosen: list[tuple[int, Window]] = []
    while len(chosen) < count and rank.any():
        gain = ((places > 0) & ~seen).sum(1)
        best = int(np.lexsort((total, gain, rank))[-1])
        seen |= places[best] > 0
        owner = int(np.searchsorted(starts, best, side="right")) - 1
        near = rank[starts[owner] : starts[owner + 1]].reshape(found[owner].shape[:2])  # a view
        row, col = divmod(best - int(starts[owner]), near.shape[1])
        near[max(0, row - PLACE_CELLS + 1) : row + PLACE_CELLS, max(0, col - PLACE_CELLS + 1) : col + PLACE_CELLS] = 0
        chosen.append((owner, surveys[owner].place(row, col)))
    return chosen
