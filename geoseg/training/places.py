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

CELL_PX = 256
"""Side of a cell, which is the side of a picture too."""

SHARES = (0.05, 0.5)
"""Of the labels that the fullest cell has, what another has to have to be shown, and to be as good as full."""


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """Labelled validation pixels of a scene.

    Attributes:
        counts: int64 `(row, col, class)`, of each cell of CELL_PX pixels a side.
        shape: Rows and columns of the scene, pixels.
    """

    counts: NDArray[np.int64]
    shape: tuple[int, int]

    @classmethod
    def of(cls, scene: SceneArrays, *, classes: int) -> Survey:
        """What a scene holds; its labels are read once, window by window."""
        rows, cols = (-(-size // CELL_PX) for size in scene.shape)
        counts = np.zeros((rows * cols, classes), np.int64)
        for window in windows_of(scene.shape, side_px=4 * CELL_PX):
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

    def cell(self, row: int, col: int) -> Window:
        """The pixels of a cell."""
        return self._pixels(row, col, 1, 1)

    def holds(self, window: Window) -> bool:
        """Whether a cell that shares a pixel with the window has a label."""
        rows, cols = (slice(part.start // CELL_PX, -(-part.stop // CELL_PX)) for part in window.slices)
        return bool(self.counts[rows, cols].any())

    def _pixels(self, row: int, col: int, rows: int, cols: int) -> Window:
        whole = Window(0, 0, *self.shape)
        return Window(row * CELL_PX, col * CELL_PX, rows * CELL_PX, cols * CELL_PX).intersect(whole)


def choose_places(surveys: Sequence[Survey], *, count: int) -> list[tuple[int, Window]]:
    """At most `count` cells, each with the number of its scene: full ones first, that together show most classes.

    Of cells that show as many classes not seen before, the one with more labels comes first.
    """
    owners = np.repeat(np.arange(len(surveys)), [survey.counts[..., 0].size for survey in surveys])
    cells = np.concatenate([survey.counts.reshape(-1, survey.counts.shape[2]) for survey in surveys])
    starts = np.searchsorted(owners, np.arange(len(surveys)))
    total = cells.sum(1)
    rank = np.sum([total >= max(1.0, share * total.max()) for share in SHARES], axis=0)
    seen, chosen = np.zeros(cells.shape[1], np.bool_), []
    for _ in range(min(count, int((rank > 0).sum()))):
        gain = ((cells > 0) & ~seen).sum(1)
        best = int(np.lexsort((total, gain, rank))[-1])
        seen |= cells[best] > 0
        rank[best] = 0
        owner = int(owners[best])
        row, col = divmod(best - int(starts[owner]), surveys[owner].counts.shape[1])
        chosen.append((owner, surveys[owner].cell(row, col)))
    return chosen
