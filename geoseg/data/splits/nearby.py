"""Which blocks of which scenes hold pixels of a part, and lie near what is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from geoseg.data.scene import BLOCK_PX, PARTS, SceneArrays, windows_of
from geoseg.data.splits.ground import Balls
from geoseg.tiling import Window

Parts = tuple[int, ...]
"""Codes of parts."""


def is_in(plane: NDArray[np.uint8], parts: Parts) -> NDArray[np.bool_]:
    """Where a plane of parts is one of `parts`."""
    table = np.zeros(256, np.bool_)
    table[list(parts)] = True
    return table[plane]


def bits(parts: Parts) -> int:
    """Parts as bits of one integer."""
    return sum(1 << part for part in parts)


@dataclass(frozen=True, slots=True, eq=False)
class PartBlocks:
    """The parts that each block of each scene holds.

    Attributes:
        scene: The scene of each block, `(block,)`, ascending.
        window: First row and column, rows and columns of each, `(block, 4)`.
        parts: The parts in it, as bits of their codes.
        first: The first block of each scene, and one past the last, `(scene + 1,)`.
    """

    scene: NDArray[np.int64]
    window: NDArray[np.int64]
    parts: NDArray[np.uint8]
    first: NDArray[np.int64]

    @classmethod
    def of(cls, scenes: Sequence[SceneArrays]) -> PartBlocks:
        """The blocks of `scenes` that hold any part, in one pass over their parts."""
        windows, parts = zip(*map(_blocks, scenes), strict=True)
        sizes = np.array([len(found) for found in parts])
        first = np.concatenate([[0], np.cumsum(sizes)])
        return cls(np.repeat(np.arange(len(scenes)), sizes), np.concatenate(windows), np.concatenate(parts), first)

    def chosen(self, parts: Parts, *, scene: int | None = None) -> NDArray[np.int64]:
        """Positions of the blocks (of one scene) that hold one of `parts`."""
        start, stop = (0, len(self.parts)) if scene is None else self.first[[scene, scene + 1]].tolist()
        return start + np.flatnonzero(self.parts[start:stop] & bits(parts))

    def at(self, block: int) -> Window:
        """The pixels of a block."""
        return Window(*self.window[block].tolist())

    def balls(self, scenes: Sequence[SceneArrays], chosen: NDArray[np.int64]) -> Balls:
        """Spheres around blocks."""
        return Balls.around([(scenes[self.scene[k]].geobox, self.at(k)) for k in chosen.tolist()])


def _blocks(scene: SceneArrays) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    rows, cols = (ceil(size / BLOCK_PX) for size in scene.shape)
    flags = np.zeros((rows, cols), np.uint8)
    for window in windows_of(scene.shape):
        plane = np.left_shift(1, scene.part[window.slices], dtype=np.uint8)
        steps = [np.arange(0, size, BLOCK_PX) for size in plane.shape]
        found = np.bitwise_or.reduceat(np.bitwise_or.reduceat(plane, steps[0], axis=0), steps[1], axis=1)
        top, left = window.row_off // BLOCK_PX, window.col_off // BLOCK_PX
        flags[top : top + found.shape[0], left : left + found.shape[1]] = found
    row, col = np.nonzero(flags & bits(tuple(PARTS.values())))
    corner = np.stack([row, col], 1) * BLOCK_PX
    size = np.minimum(BLOCK_PX, np.array(scene.shape) - corner)
    return np.concatenate([corner, size], 1), flags[row, col]
