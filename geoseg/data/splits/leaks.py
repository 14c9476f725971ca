"""Finished parts looked at again: which pixels lie on, or too close to, pixels that they must not know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from geoseg.data.grids import ground_gsd_m
from geoseg.data.scene import BLOCK_PX, TEST, TRAINING, VALIDATION, SceneArrays
from geoseg.data.splits.buffer import buffer_of
from geoseg.data.splits.ground import pixels_in_space
from geoseg.data.splits.nearby import PartBlocks
from geoseg.data.splits.same_image import PAIRS, Shared, shared_pixels
from geoseg.io.grids import crop
from geoseg.io.pixel_maps import PixelMap
from geoseg.tiling import Window

WORDS = {TRAINING: "training", VALIDATION: "validation", TEST: "test"}
TOLERANCE = 0.01  # a map projection's scale is no leak
KEPT_BLOCKS = 512


@dataclass(frozen=True, slots=True)
class Leak:
    """Pixels of one scene that lie on pixels of another part, or closer to them than the buffer.

    Attributes:
        scene: Their scene.
        part: Their part: training or validation.
        other_scene: The scene that they are too close to; may be the same.
        other_part: The part there: validation or test.
        pixels: How many they are.
        nearest_m: The smallest distance between pixel centres, in metres; 0 where the scenes overlap there.
        buffer_m: The distance that is kept, in metres.
    """

    scene: str
    part: str
    other_scene: str
    other_part: str
    pixels: int
    nearest_m: float
    buffer_m: float

    def __str__(self) -> str:
        place = "itself" if self.scene == self.other_scene else self.other_scene
        how = "on" if self.nearest_m == 0 else f"within {self.buffer_m:,.0f} m (the nearest {self.nearest_m:,.1f} m) of"
        return f"{self.pixels:,} {self.part} pixels of {self.scene} lie {how} {self.other_part} pixels of {place}"


def find_leaks(scenes: Sequence[SceneArrays], *, buffer_m: float | None = None) -> list[Leak]:
    """Training pixels on or near validation and test pixels, and validation pixels on or near test pixels.

    Distances are straight lines between pixel centres on the ellipsoid, whatever the scenes' CRSs; pixels closer than
    99 % of the buffer count. Of scenes without a CRS, pixels of one image count that lie in two parts.

    Args:
        scenes: Scenes with their parts.
        buffer_m: The distance to be kept; None for 16 pixels of each scene.

    Returns:
        The leaks between each two scenes, the largest first.
    """
    placed = [scene for scene in scenes if scene.geobox.crs is not None]
    found = [_of_one_image(scenes, shared) for shared in shared_pixels(scenes, scenes)]
    if placed:
        blocks = PartBlocks.of(placed)
        for part, other in PAIRS:
            found += _Search(placed, blocks, part, other, buffer_m).leaks()
    return sorted(found, key=lambda leak: -leak.pixels)


def _of_one_image(scenes: Sequence[SceneArrays], shared: Shared) -> Leak:
    one, other = scenes[shared.scene].name, scenes[shared.other_scene].name
    return Leak(one, WORDS[shared.part], other, WORDS[shared.other_part], shared.pixels, 0.0, 0.0)


class _Search:
    """The search for pixels of `part` near pixels of `other`."""

    def __init__(
        self, scenes: Sequence[SceneArrays], blocks: PartBlocks, part: int, other: int, buffer_m: float | None
    ) -> None:
        self._scenes, self._blocks, self._part, self._other, self._buffer_m = scenes, blocks, part, other, buffer_m
        self._edge = lru_cache(KEPT_BLOCKS)(self._edge_of)
        self._found: dict[tuple[int, int], tuple[int, float]] = {}

    def leaks(self) -> list[Leak]:
        mine, theirs = self._blocks.chosen((self._part,)), self._blocks.chosen((self._other,))
        reaches = [buffer_of(scene, self._buffer_m) for scene in self._scenes]
        slack = 2 * max(max(ground_gsd_m(scene.geobox)) for scene in self._scenes)
        balls, targets = (self._blocks.balls(self._scenes, chosen) for chosen in (mine, theirs))
        outer = self._outer()
        for block, hits in zip(mine.tolist(), balls.near(targets, max(reaches) + slack), strict=True):
            reach_m = reaches[self._blocks.scene[block]] * (1 - TOLERANCE)
            self._look(block, theirs[hits], outer, reach_m)
        return [self._leak(pair, *counted, reaches[pair[0]]) for pair, counted in self._found.items()]

    def _leak(self, pair: tuple[int, int], pixels: int, nearest_m: float, buffer_m: float) -> Leak:
        names = [self._scenes[k].name for k in pair]
        return Leak(names[0], WORDS[self._part], names[1], WORDS[self._other], pixels, nearest_m, buffer_m)

    def _outer(self) -> NDArray[np.bool_]:
        """Which blocks are not wholly of the other part with such blocks all around: only these have an edge of it."""
        blocks = self._blocks
        full = np.flatnonzero(blocks.parts == 1 << self._other)
        places = {(int(blocks.scene[k]), *(blocks.window[k, :2] // BLOCK_PX).tolist()): int(k) for k in full}
        outer = np.ones(len(blocks.parts), np.bool_)
        for (scene, row, col), k in places.items():
            around = ((row - 1, col), (row + 1, col), (row, col - 1), (row, col + 1))
            outer[k] = not all((scene, *place) in places for place in around)
        return outer

    def _look(self, block: int, hits: NDArray[np.int64], outer: NDArray[np.bool_], reach_m: float) -> None:
        """Counts the pixels of a block that lie on or near those of each scene in the blocks `hits`."""
        own = int(self._blocks.scene[block])
        for other in np.unique(self._blocks.scene[hits]).tolist():
            theirs = hits[self._blocks.scene[hits] == other]
            edges = [self._edge(k, self._other) for k in theirs[outer[theirs]].tolist()]
            points = np.concatenate([np.zeros((0, 3)), *edges])
            tree = cKDTree(points) if len(points) and reach_m > 0 else None
            on = None if own == other else self._on(block, other)
            if (on is not None and on.any()) or (
                tree is not None and _nearest(tree, self._edge(block, self._part), reach_m) < np.inf
            ):
                self._count(block, other, tree, on, reach_m)

    def _count(
        self, block: int, other: int, tree: cKDTree | None, on: NDArray[np.bool_] | None, reach_m: float
    ) -> None:
        mask = self._mask(block, self._part)
        away = np.full(int(mask.sum()), np.inf)
        if tree is not None:
            away = tree.query(self._points(block, mask), distance_upper_bound=reach_m)[0]
        if on is not None:
            away[on[mask]] = 0.0
        pair = int(self._blocks.scene[block]), other
        pixels, nearest_m = self._found.get(pair, (0, np.inf))
        self._found[pair] = pixels + int(np.isfinite(away).sum()), min(nearest_m, float(away.min()))

    def _mask(self, block: int, part: int) -> NDArray[np.bool_]:
        scene = self._scenes[self._blocks.scene[block]]
        return np.asarray(scene.part[self._blocks.at(block).slices] == part)

    def _points(self, block: int, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        window = self._blocks.at(block)
        row, col = np.nonzero(mask)
        scene = self._scenes[self._blocks.scene[block]]
        return pixels_in_space(scene.geobox, row + window.row_off, col + window.col_off)

    def _edge_of(self, block: int, part: int) -> NDArray[np.float64]:
        """Places of the pixels of a part that touch another one, or the block's edge: no other can be the nearest."""
        mask = self._mask(block, part)
        return self._points(block, mask & ~ndimage.binary_erosion(mask))

    def _on(self, block: int, other: int) -> NDArray[np.bool_]:
        """Which pixels of a block have their centre in a pixel of the other part of another scene, `(row, col)`."""
        window, scene, there = self._blocks.at(block), self._scenes[self._blocks.scene[block]], self._scenes[other]
        box = crop(scene.geobox, window)
        row, col = PixelMap.between(box, there.geobox).coordinates(Window(0, 0, window.rows, window.cols))
        with np.errstate(invalid="ignore"):
            inside = (row >= 0) & (row < there.shape[0]) & (col >= 0) & (col < there.shape[1])
        inside &= self._mask(block, self._part)
        if inside.any():
            at_row, at_col = row[inside].astype(np.int64), col[inside].astype(np.int64)
            top, left = int(at_row.min()), int(at_col.min())
            plane = there.part[top : int(at_row.max()) + 1, left : int(at_col.max()) + 1]
            inside[inside] = plane[at_row - top, at_col - left] == self._other
        return inside


def _nearest(tree: cKDTree, points: NDArray[np.float64], reach_m: float) -> float:
    return float(tree.query(points, distance_upper_bound=reach_m)[0].min(initial=np.inf))
