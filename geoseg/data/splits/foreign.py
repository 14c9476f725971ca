"""What other scenes hold, drawn onto the grid of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from scipy import ndimage

from geoseg.data.scene import SceneArrays
from geoseg.data.splits.nearby import PartBlocks, Parts, is_in
from geoseg.io.grids import aligned, crop, relative_size, to_pixels
from geoseg.io.pixel_maps import PixelMap
from geoseg.tiling import Window

NODES = 5
SAME_SIZE = 1.01


@dataclass(frozen=True, slots=True)
class ForeignBlock:
    """A block of another scene.

    Attributes:
        scene: The other scene.
        window: Its pixels there.
        bounds: The pixels of this scene's grid in which they lie; may reach beyond it.
    """

    scene: SceneArrays
    window: Window
    bounds: Window


def foreign_blocks(
    scenes: Sequence[SceneArrays],
    number: int,
    blocks: PartBlocks,
    chosen: NDArray[np.int64],
    *,
    margin: tuple[int, int],
) -> list[ForeignBlock]:
    """Blocks of other scenes that lie on the grid of scene `number`, or up to `margin` (row, col) pixels beyond it."""
    grid = scenes[number].geobox
    whole = Window(-margin[0], -margin[1], grid.shape[0] + 2 * margin[0], grid.shape[1] + 2 * margin[1])
    found = []
    for other in np.unique(blocks.scene[chosen]).tolist():
        if other == number:
            continue
        mine = chosen[blocks.scene[chosen] == other]
        for block, bounds in zip(mine.tolist(), _bounds(blocks.window[mine], scenes[other].geobox, grid), strict=True):
            inside = None if bounds is None else bounds.intersect(whole)
            if inside is not None and inside.rows and inside.cols:
                found.append(ForeignBlock(scenes[other], blocks.at(block), inside))
    return found


def _bounds(windows: NDArray[np.int64], geobox: GeoBox, grid: GeoBox) -> list[Window | None]:
    """The pixels of `grid` in which windows `(window, 4)` of `geobox` lie, a little widened; None where in none."""
    share = np.linspace(0, 1, NODES)
    down, across = (spread.ravel() for spread in np.meshgrid(share, share, indexing="ij"))
    rows = windows[:, :1] + windows[:, 2:3] * down
    cols = windows[:, 1:2] + windows[:, 3:] * across
    row, col = to_pixels(rows, cols, geobox, grid)
    return [_around(*at) for at in zip(row, _unwrapped(col, grid), strict=True)]


def _around(row: NDArray[Any], col: NDArray[Any]) -> Window | None:
    known = np.isfinite(row) & np.isfinite(col)
    if not known.any():
        return None
    spans = []
    for places in (row[known], col[known]):
        slack = 3 + np.ptp(places) / 20
        spans.append((floor(places.min() - slack), ceil(places.max() + slack)))
    (top, bottom), (left, right) = spans
    return Window(top, left, bottom - top, right - left)


def _unwrapped(col: NDArray[Any], grid: GeoBox) -> NDArray[Any]:
    """Columns on a grid in degrees, counted so that what lies just west of it has columns below 0."""
    if grid.crs is None or not grid.crs.geographic:
        return col
    turn = 2 * np.pi / grid.crs.proj.axis_info[0].unit_conversion_factor / max(abs(grid.affine.a), abs(grid.affine.d))
    middle = grid.shape[1] / 2
    return np.asarray(middle + (col - middle + turn / 2) % turn - turn / 2)


def draw_foreign(found: Sequence[ForeignBlock], parts: Parts, grid: GeoBox, window: Window) -> NDArray[np.bool_]:
    """Where on a window of `grid`, which may reach beyond it, other scenes hold one of `parts`, `(row, col)`.

    Pixels that are whole pixels of `grid` are drawn as they are; of others all that they may touch, and a ring of one
    pixel, so that no distance to them is found larger than it is.
    """
    drawn = np.zeros((window.rows, window.cols), np.bool_)
    for block in found:
        seen = block.bounds.intersect(window)
        if not seen.rows or not seen.cols:
            continue
        held = is_in(block.scene.part[block.window.slices], parts)
        if held.any():
            _draw(block, held, grid, window, drawn)
    return drawn


def _draw(block: ForeignBlock, held: NDArray[np.bool_], grid: GeoBox, window: Window, drawn: NDArray[np.bool_]) -> None:
    box = crop(block.scene.geobox, block.window)
    place = aligned(grid, box)
    if place is not None and place.factors == (1, 1):
        there = Window(place.row, place.col, *held.shape)
        both = there.intersect(window)
        if both.rows and both.cols:
            drawn[_within(both, window)] |= held[_within(both, there)]
        return
    row, col = PixelMap.between(box, grid).coordinates(Window(0, 0, *held.shape))
    at = np.stack([row[held], _unwrapped(col[held], grid)])
    at = np.floor(at[:, np.isfinite(at).all(0)]).astype(np.int64)
    if at.shape[1]:
        _draw_points(at, _ring_px(box, grid), window, drawn)


def _draw_points(at: NDArray[np.int64], ring: int, window: Window, drawn: NDArray[np.bool_]) -> None:
    """Draws pixels `(row and col, pixel)` with a ring around each."""
    low, high = at.min(1) - ring, at.max(1) + ring + 1
    piece = np.zeros(tuple((high - low).tolist()), np.bool_)
    piece[at[0] - low[0], at[1] - low[1]] = True
    piece = ndimage.maximum_filter(piece, size=2 * ring + 1, mode="constant")
    there = Window(int(low[0]), int(low[1]), *piece.shape)
    both = there.intersect(window)
    if both.rows and both.cols:
        drawn[_within(both, window)] |= piece[_within(both, there)]


def _ring_px(box: GeoBox, grid: GeoBox) -> int:
    """Pixels of `grid` around the one that holds a pixel's centre so that the pixel, however turned, lies in them."""
    size = max(relative_size(box, grid))
    return 1 if not size > SAME_SIZE else ceil(size * np.sqrt(0.5) + 0.5)


def _within(window: Window, outer: Window) -> tuple[slice, slice]:
    """`window` as an index into an array of `outer`."""
    moved = Window(window.row_off - outer.row_off, window.col_off - outer.col_off, window.rows, window.cols)
    return moved.slices
