"""Polygons burnt onto any grid.

What lies near a grid is transformed to the grid's pixels when it is burnt. A window of a burnt grid is the burnt
window: what is burnt at a pixel depends on the polygons and on that pixel's place alone. Polygons that have no place
in the grid's CRS, or are torn there, stay in their own, where it is asked which pixels' centres they hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, cast

import numpy as np
import rasterio.features
import shapely
from affine import Affine
from numpy.typing import DTypeLike, NDArray
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from geoseg.errors import GridError
from geoseg.io.grids import same_crs, transform, turn_of
from geoseg.io.handles import unplaced_is_fine
from geoseg.io.moving import Geometries, dense_length, moved, on_globe, world_of
from geoseg.io.polygons import Polygons

Place = tuple[float, float, float, float]
"""Left, bottom, right, top."""

# Transformed edges leave the straight line by less than this share of the length above.
BEND = 0.01
# Pixel coordinates are rounded to such steps, so that the rounding of a window's origin does not reach the pixels. The
# odd fraction keeps what polygons are drawn to, whole pixels and simple parts of them, away from where rounding flips.
STEPS_PER_PX = float(1 << 20)
ODD = 0.3819
# Shapes are burnt a hundred-thousandth of a pixel right and down, so that no edge runs exactly through a pixel's centre
# or corner, where GDAL's answer depends on where the raster starts. What GDAL decides for upright edges it still does.
NUDGE_COL, NUDGE_ROW = 7 / STEPS_PER_PX, 11 / STEPS_PER_PX
# Pixels whose centres are asked for at once.
STRIP_PX = 1 << 20


def burn(
    polygons: Polygons,
    values: NDArray[Any],
    geobox: GeoBox,
    *,
    fill: int,
    dtype: DTypeLike,
    all_touched: bool = False,
) -> NDArray[Any]:
    """The value of the last polygon in the file that holds each pixel's centre, `(row, col)`.

    Edges that pass a centre by less than a hundred-thousandth of a pixel may go either way, the same way in any window.

    Args:
        polygons: What to burn.
        values: One value a polygon.
        geobox: The grid.
        fill: Value outside all polygons.
        dtype: Of the result.
        all_touched: Whether a pixel counts that a polygon touches anywhere. Of polygons that have no place in the CRS
            of the grid it is asked of pixels that they hold the centre of, so smaller ones may be missed.

    Raises:
        GridError: The grid has no CRS and the polygons have one, or the other way round.
    """
    indexes, geometries = _placed(polygons, geobox, slack=1)
    if not len(indexes):
        return np.full(tuple(geobox.shape), fill, dtype)
    # In pixels, for rotated and south-up grids; upside down, for rasterio warns where there is no transform, and, where
    # threads are the first to use it, even where there is one.
    upright = shapely.transform(geometries, lambda col, row: (col + NUDGE_COL, -(row + NUDGE_ROW)), interleaved=False)
    with unplaced_is_fine():
        burnt = rasterio.features.rasterize(
            zip(_geojson(upright), values[indexes].tolist(), strict=True), out_shape=tuple(geobox.shape),
            transform=Affine.scale(1, -1), fill=fill, dtype=np.dtype(dtype).name, all_touched=all_touched,
        )  # fmt: skip
    return np.asarray(burnt)


def _geojson(shapes: Geometries) -> list[dict[str, Any]]:
    """Polygons as GeoJSON: what rasterio makes of shapes itself, a few times faster."""
    kind, coordinates, offsets = shapely.to_ragged_array(shapes)
    nested: list[Any] = coordinates.tolist()
    for ends in offsets:
        nested = [nested[start:stop] for start, stop in pairwise(ends.tolist())]
    name = "Polygon" if kind == shapely.GeometryType.POLYGON else "MultiPolygon"
    return [{"type": name, "coordinates": part} for part in nested]


def near(polygons: Polygons, geobox: GeoBox) -> tuple[NDArray[np.int64], Geometries]:
    """Positions, in order, and shapes in pixels `(col, row)` of the polygons whose bounds meet the grid.

    Raises:
        GridError: The grid has no CRS and the polygons have one, or the other way round.
    """
    return _placed(polygons, geobox, slack=0)


def _placed(polygons: Polygons, geobox: GeoBox, *, slack: int) -> tuple[NDArray[np.int64], Geometries]:
    """As `near`, on the grid with `slack` more pixels around it."""
    crs, target = polygons.crs, geobox.crs
    if (crs is None) != (target is None):
        raise GridError("the scene has no CRS, so polygons cannot be placed on it; give it one with crs: EPSG:...")
    found = [_placed_after(polygons, geobox, shift, slack=slack) for shift in _shifts(polygons, geobox)]
    hits, shapes = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.argsort(hits, kind="stable")  # as in the file, of which the last one holds
    return hits[order], shapes[order]


def _shifts(polygons: Polygons, geobox: GeoBox) -> list[float]:
    """What is added to longitudes: nothing, and a turn where the grid or the polygons count beyond half of one."""
    world, crs = None if geobox.crs is None else world_of(geobox.crs), polygons.crs
    if world is None:
        return [0.0]
    turn = world.turn
    rows, cols = geobox.shape
    corners = [(geobox.affine @ corner)[0] for corner in ((0, 0), (cols, 0), (0, rows), (cols, rows))]
    west, east = world.left, world.right
    if same_crs(crs, geobox.crs):
        west, _, east, _ = polygons.bounds
    elif (own := turn_of(crs)) and turn_of(geobox.crs):
        # Polygons on another datum may keep on counting beyond half a turn.
        west, east = min(west, polygons.bounds[0] * turn / own), max(east, polygons.bounds[2] * turn / own)
    return [0.0, *(by for by in (turn, -turn) if west + by < max(corners) and east + by > min(corners))]


def _placed_after(
    polygons: Polygons, geobox: GeoBox, shift: float, *, slack: int
) -> tuple[NDArray[np.int64], Geometries]:
    """As `_placed`, of polygons whose longitudes have `shift` added, in units of the grid's CRS."""
    crs, target = polygons.crs, geobox.crs
    back = GeoBox(geobox.shape, Affine.translation(-shift, 0) @ geobox.affine, target) if shift else geobox
    found, shapes = [], []
    for place in _places(polygons, back):
        hits = np.arange(len(polygons)) if place is None else np.sort(polygons.tree.query(shapely.box(*place)))
        if same_crs(crs, target):
            placed = _in_pixels(polygons.geometries[hits], back)
        else:
            placed = _moved(polygons, hits, place, back, slack=slack)
        meets = _meets(placed, geobox, slack)
        found.append(hits[meets].astype(np.int64))
        shapes.append(placed[meets])
    return np.concatenate(found), np.concatenate(shapes)


def _places(polygons: Polygons, geobox: GeoBox) -> list[Place | None]:
    """Around the grid in the polygons' CRS; there a turn on too, where polygons count beyond the antimeridian."""
    crs, place = polygons.crs, _neighbourhood(geobox, polygons.crs)
    if crs is None or place is None or same_crs(crs, geobox.crs):
        return [place]
    world = world_of(crs)
    left, _, right, _ = polygons.bounds
    if world is None or place[2] - place[0] > world.turn or (left >= world.left and right <= world.right):
        return [place]
    laps = [by for by in (world.turn, -world.turn) if place[0] + by < right and place[2] + by > left]
    return [place, *((place[0] + by, place[1], place[2] + by, place[3]) for by in laps)]


def _cut(shapes: Geometries, place: Place | None, length: float) -> Geometries:
    """What of `shapes`, whose edges are no longer than `length`, may meet `place`; all where that is None.

    An edge cut in two bends otherwise than the whole one, so the cut runs where no edge that meets the place is cut.
    """
    if place is None:
        return shapes
    rect = place[0] - length, place[1] - length, place[2] + length, place[3] + length
    left, bottom, right, top = shapely.bounds(shapes).reshape(-1, 4).T
    beyond = (left < rect[0]) | (bottom < rect[1]) | (right > rect[2]) | (top > rect[3])
    found = shapes.copy()
    cut = shapely.clip_by_rect(shapes[beyond], *rect)
    short, long = sorted((rect[2] - rect[0], rect[3] - rect[1]))
    # Edges along a long cut get points too, or they would bend into the place; all others are shorter than that.
    found[beyond] = shapely.segmentize(cut, max(short / 16, 2 * length)) if long > 64 * length else cut
    return found


def _meets(shapes: Geometries, geobox: GeoBox, slack: int) -> NDArray[np.bool_]:
    """Which shapes in pixels have bounds within `slack` of the grid; shapes without a place there do not."""
    rows, cols = geobox.shape
    left, top, right, bottom = shapely.bounds(shapes).reshape(-1, 4).T
    with np.errstate(invalid="ignore"):
        meets = (left < cols + slack) & (right > -slack) & (top < rows + slack) & (bottom > -slack)
        return np.asarray(meets & np.isfinite(right + bottom))


def _in_pixels(shapes: Geometries, geobox: GeoBox) -> Geometries:
    """Shapes of the grid's CRS in pixels `(col, row)` of the grid."""
    return np.asarray(shapely.transform(shapes, _onto_pixels(geobox), interleaved=False))


def _onto_pixels(geobox: GeoBox) -> Callable[[NDArray[Any], NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]]:
    inverse = ~geobox.affine

    def onto(x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        col, row = inverse @ cast("Any", (x, y))
        return _rounded(col), _rounded(row)

    return onto


def _moved(
    polygons: Polygons,
    hits: NDArray[np.intp],
    place: Place | None,
    geobox: GeoBox,
    *,
    slack: int,
) -> Geometries:
    """What of the polygons `hits` may meet `place`, in pixels `(col, row)` of a grid of another CRS."""
    crs, target = cast("CRS", polygons.crs), cast("CRS", geobox.crs)
    off = polygons.off_globe[hits]
    near_by = polygons.geometries[hits]
    near_by[~off] = _cut(polygons.dense[hits[~off]], place, dense_length(crs))
    found = near_by.copy()
    found[~off] = moved(near_by[~off], crs, target, _onto_pixels(geobox))
    torn = off | shapely.is_missing(found)
    if torn.any():
        found[torn] = _held(near_by[torn], crs, geobox, slack)
    return found


def _held(shapes: Geometries, crs: CRS, geobox: GeoBox, slack: int) -> Geometries:
    """The pixels, of the grid with `slack` more around it, whose centres shapes hold; as shapes in pixels."""
    rows, cols = geobox.shape
    shapely.prepare(shapes)
    parts: list[list[Any]] = [[] for _ in shapes]
    step = max(1, STRIP_PX // (cols + 2 * slack))
    for first in range(-slack, rows + slack, step):
        stop = min(first + step, rows + slack)
        x, y = _centres(geobox, crs, (first, stop), (-slack, cols + slack))
        for each, found in zip(shapes, parts, strict=True):
            found.extend(_outlined(_contains(each, x, y, crs), first, -slack))
    return np.array([shapely.union_all(part) if part else shapely.Polygon() for part in parts], dtype=object)


def _centres(
    geobox: GeoBox, crs: CRS, rows: tuple[int, int], cols: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres in `crs` of the pixels between two rows and two columns, `(row, col)`; NaN off the globe."""
    row, col = np.mgrid[slice(*rows), slice(*cols)] + 0.5
    affine, target = geobox.affine, cast("CRS", geobox.crs)
    x, y = cast("Any", affine) @ (col, row)
    # Rounded, so that the rounding of a window's origin does not reach the pixels.
    step = math.hypot(affine.a, affine.d)
    x, y = _rounded(x / step) * step, _rounded(y / step) * step
    there_x, there_y = transform(x, y, target, crs)
    known = on_globe(x.ravel(), y.ravel(), target).reshape(x.shape)
    return np.where(known, there_x, np.nan), np.where(known, there_y, np.nan)


def _contains(geometry: BaseGeometry, x: NDArray[Any], y: NDArray[Any], crs: CRS) -> NDArray[np.bool_]:
    """Which points of `crs` a geometry holds, however it counts longitudes."""
    world, found = world_of(crs), np.zeros(x.shape, np.bool_)
    left, bottom, right, top = shapely.bounds(geometry)
    for by in (0.0,) if world is None else (0.0, world.turn, -world.turn):
        with np.errstate(invalid="ignore"):
            at = (x + by >= left) & (x + by <= right) & (y >= bottom) & (y <= top)
        found[at] |= shapely.contains_xy(geometry, x[at] + by, y[at])
    return found


def _outlined(mask: NDArray[np.bool_], row: int, col: int) -> list[BaseGeometry]:
    """Polygons `(col, row)` around the pixels of a mask that starts at a pixel."""
    if not mask.any():
        return []
    with unplaced_is_fine():
        found = [shape(outline) for outline, _ in rasterio.features.shapes(mask.astype(np.uint8), mask=mask)]
    return [shapely.transform(each, lambda xy: xy + np.array([col, row])) for each in found]


def _rounded(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.floor(pixels * STEPS_PER_PX + ODD) / STEPS_PER_PX)


def _neighbourhood(geobox: GeoBox, crs: CRS | None) -> Place | None:
    """Left, bottom, right, top around the grid in `crs`; None where the grid has no simple place there."""
    rows, cols = geobox.shape
    col, row = np.meshgrid(np.linspace(-1, cols + 1, 17), np.linspace(-1, rows + 1, 17))
    x, y = map(np.ravel, cast("Any", geobox.affine) @ (col, row))
    if crs is not None and geobox.crs is not None:
        x, y = transform(x, y, geobox.crs, crs)
    wide, high = float(np.ptp(x)), float(np.ptp(y))
    if not math.isfinite(wide + high):
        return None
    world = None if crs is None else world_of(crs)
    if world is not None and wide > world.turn / 2:
        # Around a pole or across the antimeridian: all the way round, twice for those who count from 0 to 360.
        x, wide = np.array([world.left - world.turn / 2, world.right + world.turn / 2]), 0.0
    bend = 0.0 if same_crs(crs, geobox.crs) else dense_length(crs) * BEND
    across, along = wide / 10 + bend, high / 10 + bend
    return float(x.min()) - across, float(y.min()) - along, float(x.max()) + across, float(y.max()) + along
