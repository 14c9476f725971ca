"""Scenes and their parts painted on small maps in degrees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, cos, radians, sqrt
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from geoseg.data.grids import LONLAT, ground_gsd_m, in_cells, lonlat_mesh
from geoseg.data.scene import OUTSIDE, TEST, TRAINING, VALIDATION, SceneArrays, windows_of
from geoseg.data.splits.ground import Balls
from geoseg.io.grids import crop
from geoseg.io.pixel_maps import PixelMap
from geoseg.tiling import Window

SHOWN = ("unlabelled", "outside", "training", "validation", "test")  # of several in one cell the last is seen
UNLABELLED = 1
PAINTS = np.zeros(256, np.uint8)  # from a part's code to what is seen of its labelled pixels; 0 is nothing
PAINTS[[OUTSIDE, TRAINING, VALIDATION, TEST]] = (2, 3, 4, 5)
CANVAS_PX = 1000  # the longer side of all maps together
MOST_MAPS = 6
APART = 3.0  # places so many times their own size apart have maps of their own
DOT_PX = 3  # no scene is painted smaller
METRES_A_DEGREE = 111_195.0


@dataclass(frozen=True, slots=True, eq=False)
class Map:
    """A piece of the earth, painted.

    Attributes:
        paint: What is seen in each cell, uint8 `(row, col)`: 0 for nothing, else 1 + its place in `SHOWN`.
        box: West, south, east, north in degrees; east may exceed 180.
        aspect: Degrees of longitude that are as long as one of latitude.
        title: What is on it.
        placed: Whether it is a map; else scenes without a place, in rows.
    """

    paint: NDArray[np.uint8]
    box: tuple[float, float, float, float]
    aspect: float
    title: str
    placed: bool = True


def maps_of(scenes: Sequence[SceneArrays]) -> list[Map]:
    """Maps of the scenes' parts: one, or one for each of a few places that lie far apart."""
    placed = [scene for scene in scenes if scene.geobox.crs is not None]
    loose = [scene for scene in scenes if scene.geobox.crs is None]
    groups = _places(placed) if placed else []
    canvas_px = int(CANVAS_PX / sqrt(max(1, len(groups) + bool(loose))))
    maps = [_map([placed[k] for k in group], canvas_px) for group in groups]
    return [*maps, _rows(loose, canvas_px)] if loose else maps


def _places(scenes: Sequence[SceneArrays]) -> list[list[int]]:
    """Scenes that belong on one map; all on one where there would be too many maps."""
    balls = Balls.around([(scene.geobox, Window(0, 0, *scene.shape)) for scene in scenes])
    wide = Balls(balls.centre, balls.radius_m * APART)
    near = wide.near(wide, 0.0)
    pairs = np.repeat(np.arange(len(scenes)), [len(hits) for hits in near]), np.concatenate(near)
    joined = coo_array((np.ones(len(pairs[0]), np.bool_), pairs), shape=(len(scenes), len(scenes)))
    count, group = connected_components(joined, directed=False)
    if count > MOST_MAPS:
        return [list(range(len(scenes)))]
    return [np.flatnonzero(group == k).tolist() for k in range(count)]


def _map(scenes: Sequence[SceneArrays], canvas_px: int) -> Map:
    meshes = [lonlat_mesh(scene.geobox, nodes=9) for scene in scenes]
    lon = np.array([[mesh[0].min(), mesh[0].max()] for mesh in meshes])
    if np.ptp(lon) > 180:  # across the antimeridian
        meshes = [np.stack([mesh[0] % 360, mesh[1]]) for mesh in meshes]
    boxes = np.array([[*mesh.min((1, 2)), *mesh.max((1, 2))] for mesh in meshes])
    (west, south), (east, north) = boxes[:, :2].min(0), boxes[:, 2:].max(0)
    aspect = 1 / max(cos(radians((south + north) / 2)), 0.02)
    cell = max((east - west) / aspect, north - south) / canvas_px or 1e-5
    edge = 0.03 * canvas_px * cell
    shape = ceil((north - south + 2 * edge) / cell), ceil(((east - west) / aspect + 2 * edge) / cell)
    left, top = west - edge * aspect, north + edge
    grid = GeoBox(shape, Affine(cell * aspect, 0, left, 0, -cell, top), LONLAT)
    paint = np.zeros(shape, np.uint8)
    for scene, box in zip(scenes, boxes, strict=True):
        _paint(scene, box, grid, paint)
    box = (left, top - shape[0] * cell, left + shape[1] * cell * aspect, top)
    return Map(paint, box, aspect, scenes[0].name if len(scenes) == 1 else f"{len(scenes):,} scenes")


def _paint(scene: SceneArrays, box: NDArray[np.float64], grid: GeoBox, paint: NDArray[np.uint8]) -> None:
    """Paints a scene whose pixels lie in `box` (west, south, east, north); it covers what was painted before."""
    window = _window(box, grid, paint.shape)
    down, across = ground_gsd_m(scene.geobox)
    step = max(1, int(abs(grid.affine.e) * METRES_A_DEGREE / max(down, across)))
    cells = _seen(scene, step)
    coarse = GeoBox(cells.shape, scene.geobox.affine @ Affine.scale(step), scene.geobox.crs)
    there = crop(grid, window)
    row, col = PixelMap.between(there, coarse).coordinates(Window(0, 0, window.rows, window.cols))
    with np.errstate(invalid="ignore"):
        inside = (row >= 0) & (row < cells.shape[0]) & (col >= 0) & (col < cells.shape[1])
    found = np.zeros(inside.shape, np.uint8)
    found[inside] = cells[row[inside].astype(np.int64), col[inside].astype(np.int64)]
    if max(inside.shape) <= DOT_PX:
        found[:] = cells.max()
    view = paint[window.slices]
    np.copyto(view, found, where=found > 0)


def _window(box: NDArray[np.float64], grid: GeoBox, shape: Sequence[int]) -> Window:
    """The cells of a map that a box in degrees covers, at least a dot."""
    a = grid.affine
    left, right = (box[[0, 2]] - a.c) / a.a
    top, bottom = (box[[3, 1]] - a.f) / a.e
    col, row = int((left + right - DOT_PX) / 2), int((top + bottom - DOT_PX) / 2)
    first_row, first_col = min(int(top) - 1, row), min(int(left) - 1, col)
    last_row, last_col = max(ceil(bottom) + 1, row + DOT_PX), max(ceil(right) + 1, col + DOT_PX)
    if max(right - left, bottom - top) < DOT_PX:
        first_row, first_col, last_row, last_col = row, col, row + DOT_PX, col + DOT_PX
    found = Window(first_row, first_col, last_row - first_row, last_col - first_col)
    return found.intersect(Window(0, 0, shape[0], shape[1]))


def _seen(scene: SceneArrays, step: int) -> NDArray[np.uint8]:
    """What is seen of square cells of a scene, uint8 `(row, col)`."""
    cells = np.zeros(tuple(-(-size // step) for size in scene.shape), np.uint8)
    for window in windows_of(scene.shape):
        told = scene.labels[window.slices] != scene.no_label
        seen = np.where(told, PAINTS[scene.part[window.slices]], np.uint8(UNLABELLED) * scene.valid[window.slices])
        here, found = in_cells(seen.astype(np.uint8), step, at=(window.row_off, window.col_off), how=np.maximum)
        cells[here] = np.maximum(cells[here], found)
    return cells


def _rows(scenes: Sequence[SceneArrays], canvas_px: int) -> Map:
    """Scenes without a place, each shrunk to a square, in rows."""
    across = ceil(sqrt(len(scenes)))
    side = max(DOT_PX, min(128, canvas_px // across))
    paint = np.zeros((-(-len(scenes) // across) * side, across * side), np.uint8)
    for k, scene in enumerate(scenes):
        cells = _seen(scene, max(1, -(-max(scene.shape) // (side - 1))))
        top, left = k // across * side, k % across * side
        share: Any = (np.arange(side - 1) + 0.5) / (side - 1) * max(cells.shape)
        at = share.astype(np.int64)
        rows, cols = (np.count_nonzero(at < size) for size in cells.shape)
        paint[top : top + rows, left : left + cols] = cells[np.ix_(at[:rows], at[:cols])]
    title = f"{len(scenes):,} scenes without a CRS"
    return Map(paint, (0.0, 0.0, float(paint.shape[1]), float(paint.shape[0])), 1.0, title, placed=False)
