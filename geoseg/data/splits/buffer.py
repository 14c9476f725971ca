"""The buffer: pixels that lie too close to a validation or test pixel belong to no part.

A scene is looked through in strips of whole rows, from the last to the first and back, and each strip hands on how far
away the next pixel to keep away from is in every column. So a buffer of any width is exact, and no more than a strip is
held. What other scenes hold is drawn onto the scene's grid first, with a ring of pixels around it, for the pixels of
two grids do not coincide.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from geoseg.data.grids import NOMINAL_TOLERANCE, ground_gsd_m
from geoseg.data.scene import BLOCK_PX, OUTSIDE, TEST, TRAINING, VALIDATION, SceneArrays
from geoseg.data.splits.foreign import ForeignBlock, draw_foreign, foreign_blocks
from geoseg.data.splits.ground import Balls
from geoseg.data.splits.nearby import PartBlocks, Parts, is_in
from geoseg.data.splits.reach import FAR, rows_below, widths_within, within_reach
from geoseg.errors import GridError
from geoseg.io.grids import crop
from geoseg.tiling import Window

DEFAULT_BUFFER_PX = 16
STRIP_PX = 1 << 22
KEPT_APART: tuple[tuple[Parts, Parts], ...] = (((VALIDATION,), (TEST,)), ((TRAINING,), (VALIDATION, TEST)))
"""What is cut near what, in this order."""
FLAT_M = 50_000.0  # on a scene of this height the size of pixels is the same, to 1 %, in any usual projection


def buffer_of(scene: SceneArrays, buffer_m: float | None) -> float:
    """The buffer in metres on a scene: as given, or 16 of its pixels."""
    return DEFAULT_BUFFER_PX * max(ground_gsd_m(scene.geobox)) if buffer_m is None else buffer_m


def cut_buffers(scenes: Sequence[SceneArrays], *, buffer_m: float | None) -> None:
    """Writes OUTSIDE over training pixels near validation and test ones, and over validation pixels near test ones.

    Distances are between pixel centres, in metres on the ground; scenes without a CRS are left as they are.

    Args:
        scenes: Scenes with their parts; on the ground they may overlap.
        buffer_m: The distance that is too near, itself included; None for 16 pixels of the scene that is cut.
    """
    placed = [scene for scene in scenes if scene.geobox.crs is not None]
    if not placed:
        return
    blocks = PartBlocks.of(placed)
    for cut, kept in KEPT_APART:
        if len(blocks.chosen(kept)):
            _cut_near(placed, blocks, cut, kept, buffer_m)


def _cut_near(
    scenes: Sequence[SceneArrays], blocks: PartBlocks, cut: Parts, kept: Parts, buffer_m: float | None
) -> None:
    chosen, cutting = blocks.chosen(kept), [k for k in range(len(scenes)) if len(blocks.chosen(cut, scene=k))]
    gsds = [ground_gsd_m(scene.geobox) for scene in scenes]
    reach = {k: DEFAULT_BUFFER_PX * max(gsds[k]) if buffer_m is None else buffer_m for k in cutting}
    own = Balls.around([(scenes[k].geobox, Window(0, 0, *scenes[k].shape)) for k in cutting])
    slack_m = 4 * max(max(gsd) for gsd in gsds)
    near = own.near(blocks.balls(scenes, chosen), max(reach.values(), default=0.0) * 1.02 + slack_m)
    for k, hits in zip(cutting, near, strict=True):
        if len(hits):
            _cut_scene(scenes, k, blocks, chosen[hits], Cut(scenes[k], gsds[k], cut, kept, reach[k]))


def _cut_scene(
    scenes: Sequence[SceneArrays], number: int, blocks: PartBlocks, hits: NDArray[np.int64], cut: Cut
) -> None:
    down, across = cut.least_gsd(Window(0, 0, *scenes[number].shape))
    margin = ceil(cut.reach_m / down) + 1, ceil(cut.reach_m / across) + 1
    foreign = foreign_blocks(scenes, number, blocks, hits, margin=margin)
    if foreign or (blocks.scene[hits] == number).any():
        cut.run(foreign)


@dataclass(frozen=True, slots=True)
class Cut:
    """What is cut from one scene.

    Attributes:
        scene: The scene.
        gsd_m: Its ground sampling distance (row, col), in the middle.
        cut: Parts that lose pixels.
        kept: Parts that are kept away from.
        reach_m: The buffer.
    """

    scene: SceneArrays
    gsd_m: tuple[float, float]
    cut: Parts
    kept: Parts
    reach_m: float

    def run(self, foreign: Sequence[ForeignBlock]) -> None:
        """Cuts the scene near its own pixels and those of other scenes."""
        extent = _hull([Window(0, 0, *self.scene.shape), *(block.bounds for block in foreign)])
        strips = _strips(extent)
        below, belows = np.full(extent.cols, FAR, np.int64), []
        for strip in reversed(strips):
            belows.append(below.copy())
            rows_below(self._marked(strip, foreign), below)
        above = np.full(extent.cols, FAR, np.int64)
        for strip, next_below in zip(strips, reversed(belows), strict=True):
            self._cut_strip(strip, self._marked(strip, foreign), above, next_below)

    def _marked(self, strip: Window, foreign: Sequence[ForeignBlock]) -> NDArray[np.bool_]:
        """Where a strip holds what is kept away from, in this scene and others."""
        marked = draw_foreign(foreign, self.kept, self.scene.geobox, strip)
        own = strip.intersect(Window(0, 0, *self.scene.shape))
        if own.rows:
            marked[_inside(own, strip)] |= is_in(self.scene.part[own.slices], self.kept)
        return marked

    def _cut_strip(
        self, strip: Window, marked: NDArray[np.bool_], above: NDArray[np.int64], below: NDArray[np.int64]
    ) -> None:
        """Cuts a strip and moves `above` on to the next one."""
        own = strip.intersect(Window(0, 0, *self.scene.shape))
        widths = widths_within(self.reach_m, self.least_gsd(strip))
        nothing = not marked.any() and min(above.min(), below.min()) >= len(widths)
        if nothing or not own.rows:
            _pass_by(marked, above)
            return
        near = within_reach(marked, above, below, widths)[_inside(own, strip)]
        part = np.array(self.scene.part[own.slices])
        lost = near & is_in(part, self.cut)
        if lost.any():
            part[lost] = OUTSIDE
            self.scene.part[own.slices] = part

    def least_gsd(self, strip: Window) -> tuple[float, float]:
        """The smallest ground sampling distance (row, col) on a strip and around it: no distance is taken too long."""
        rows, cols = self.scene.shape
        if max(rows * self.gsd_m[0], cols * self.gsd_m[1]) < FLAT_M:
            return self.gsd_m
        margin = self.reach_m / self.gsd_m[0]
        places = [strip.row_off - margin, strip.row_off + strip.rows / 2, strip.row_stop + margin]
        found = [self.gsd_m]
        for row in np.clip(places, 0, rows - 1).astype(int).tolist():
            for col in (0, cols // 2, cols - 1):
                with suppress(GridError):  # a corner that lies outside the CRS's area holds no pixel either
                    found.append(ground_gsd_m(crop(self.scene.geobox, Window(row, col, 1, 1))))
        return _least([size[0] for size in found]), _least([size[1] for size in found])


def _pass_by(marked: NDArray[np.bool_], above: NDArray[np.int64]) -> None:
    """Moves rows to the last mark, `(col,)`, over a strip that is not cut."""
    upside_down = np.ascontiguousarray(marked[::-1])
    rows_below(upside_down, above)


def _inside(window: Window, outer: Window) -> tuple[slice, slice]:
    moved = Window(window.row_off - outer.row_off, window.col_off - outer.col_off, window.rows, window.cols)
    return moved.slices


def _hull(windows: Sequence[Window]) -> Window:
    """The smallest window around all."""
    top, left = min(w.row_off for w in windows), min(w.col_off for w in windows)
    return Window(top, left, max(w.row_stop for w in windows) - top, max(w.col_stop for w in windows) - left)


def _strips(extent: Window) -> list[Window]:
    """Rows together, from the first to the last; they keep to the blocks of stored layers."""
    step = max(1, STRIP_PX // extent.cols // BLOCK_PX) * BLOCK_PX
    first = extent.row_off // step * step
    tops = [extent.row_off, *range(first + step, extent.row_stop, step)]
    stops = [*tops[1:], extent.row_stop]
    return [Window(top, extent.col_off, stop - top, extent.cols) for top, stop in zip(tops, stops, strict=True)]


def _least(sizes: Sequence[float]) -> float:
    """The smallest size, or the first where it is that to 1 %."""
    return sizes[0] if sizes[0] - min(sizes) <= NOMINAL_TOLERANCE * sizes[0] else min(sizes)
