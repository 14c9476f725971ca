"""Where a scene is trained: ground size of its pixels, its grid at another resolution, outlines of its parts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import hypot, inf, isfinite, sqrt
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from pyproj import Geod
from rasterio import features
from rasterio.transform import Affine
from shapely.geometry import shape

from geoseg.data.scene import SceneArrays, windows_of
from geoseg.errors import GridError, InputError
from geoseg.io.grids import apply, transform

WGS84 = Geod(ellps="WGS84")
LONLAT = CRS("EPSG:4326")
NOMINAL_TOLERANCE = 0.01  # a map projection's scale factor is no other resolution


def ground_gsd_m(geobox: GeoBox) -> tuple[float, float]:
    """Metres on the ground from one pixel to the next, `(row, col)`, at the centre of the grid.

    Geodesic on WGS 84, so degrees and Web Mercator are right too. Where a metric CRS's own pixel size is within 1 % of
    that (the scale factor of a UTM zone), it is returned instead: 10 m stay 10 m.

    Raises:
        GridError: The grid has no CRS, or its centre lies outside the CRS's area.
    """
    if geobox.crs is None:
        raise GridError("the scene has no CRS, so its pixels have no size on the ground; give crs: EPSG:... beside it")
    rows, cols = geobox.shape
    col, row = np.array(_steps(rows / 2, cols / 2)).T
    lon, lat = lonlat_at(geobox, row, col)
    down, across = (WGS84.inv(lon[k], lat[k], lon[k + 1], lat[k + 1])[2] for k in (0, 2))
    if not (isfinite(down) and isfinite(across) and down > 0 and across > 0):
        raise GridError(f"the scene's centre lies outside the area of its CRS {geobox.crs}; check the scene's CRS")
    a, b, _, d, e, _ = geobox.affine[:6]
    unit_m = geobox.crs.proj.axis_info[0].unit_conversion_factor if geobox.crs.projected else 0.0
    return _nominal(down, hypot(b, e) * unit_m), _nominal(across, hypot(a, d) * unit_m)


def lonlat_at(geobox: GeoBox, row: NDArray[Any], col: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Longitude and latitude in degrees of places on a grid, pixel centres at halves; NaN where they have none.

    Raises:
        GridError: The grid has no CRS.
    """
    if geobox.crs is None:
        raise GridError("the scene has no CRS, so its pixels have no place on the ground; give crs: EPSG:... beside it")
    return transform(*apply(geobox.affine, col, row), geobox.crs, LONLAT)


def _steps(row: float, col: float) -> list[tuple[float, float]]:
    """Four points `(col, row)`: one pixel down, then one pixel across, about a centre."""
    return [(col, row - 0.5), (col, row + 0.5), (col - 0.5, row), (col + 0.5, row)]


def _nominal(ground_m: float, nominal_m: float) -> float:
    return nominal_m if abs(ground_m - nominal_m) <= NOMINAL_TOLERANCE * ground_m else ground_m


def grid_at(geobox: GeoBox, gsd_m: float | None) -> GeoBox:
    """The same extent in square pixels of about `gsd_m` metres; `geobox` itself where `gsd_m` is None or already so.

    The number of pixels is whole, so the ground sampling distance may differ from `gsd_m` by up to half a pixel over
    the whole extent.

    Raises:
        InputError: `gsd_m` is not positive, or not finite.
        GridError: The grid has no CRS.
    """
    if gsd_m is None:
        return geobox
    check_gsd_m(gsd_m)
    rows, cols = geobox.shape
    now = ground_gsd_m(geobox)
    new_rows, new_cols = max(1, round(rows * now[0] / gsd_m)), max(1, round(cols * now[1] / gsd_m))
    if (new_rows, new_cols) == (rows, cols):
        return geobox
    scaled = geobox.affine @ Affine.scale(cols / new_cols, rows / new_rows)
    return GeoBox((new_rows, new_cols), scaled, geobox.crs)


def check_gsd_m(gsd_m: float) -> None:
    """Nothing, where a ground sampling distance is one.

    Raises:
        InputError: It is not positive, or not finite.
    """
    if not 0 < gsd_m < inf:
        raise InputError(f"gsd_m is {gsd_m}: needed is a finite ground sampling distance above 0 m")


def lonlat_mesh(geobox: GeoBox, *, nodes: int = 65) -> NDArray[np.float64]:
    """Longitude and latitude in degrees at nodes spread evenly over the grid's pixel centres, `(2, node, node)`."""
    rows, cols = geobox.shape
    col, row = np.meshgrid(np.linspace(0.5, cols - 0.5, nodes), np.linspace(0.5, rows - 0.5, nodes))
    return np.stack(lonlat_at(geobox, row, col))


def outline_of(scenes: Sequence[SceneArrays], part: int, *, longest_px: int = 96) -> dict[str, Any] | None:
    """A GeoJSON geometry in WGS 84 degrees that outlines the labelled pixels of a part; None where there are none.

    Drawn on cells of which at most `longest_px` make a side of a scene, fewer where scenes are many: it says where, not
    exactly how far. Scenes without a CRS are left out.
    """
    longest_px = max(4, min(longest_px, int(4 * longest_px / sqrt(max(1, len(scenes))))))
    shapes = [piece for scene in scenes if scene.geobox.crs is not None for piece in _outlined(scene, part, longest_px)]
    if not shapes:
        return None
    return dict(json.loads(shapely.to_geojson(shapely.simplify(shapely.union_all(shapes), 1e-6))))


def _outlined(scene: SceneArrays, part: int, longest_px: int) -> list[Any]:
    """Polygons in degrees around the cells of a scene that hold a labelled pixel of the part."""
    step = max(1, -(-max(scene.shape) // longest_px))
    cells = np.zeros(tuple(-(-size // step) for size in scene.shape), np.bool_)
    for window in windows_of(scene.shape):
        mine = scene.part[window.slices] == part
        if mine.any():
            told = mine & (scene.labels[window.slices] != scene.no_label)
            here, found = in_cells(told, step, at=(window.row_off, window.col_off))
            cells[here] |= found
    if not cells.any():
        return []
    traced = features.shapes(cells.view(np.uint8), mask=cells, transform=Affine.scale(step))
    return [_in_degrees(shape(geometry), scene.geobox) for geometry, _ in traced]


def in_cells(
    plane: NDArray[Any], step: int, *, at: tuple[int, int] = (0, 0), how: np.ufunc = np.logical_or
) -> tuple[tuple[slice, slice], NDArray[Any]]:
    """The pixels of square cells of `step` pixels put together, for a window that starts `at` (row, col) of its plane.

    Args:
        plane: The window, `(row, col)`.
        step: Side of a cell.
        at: First row and column of the window.
        how: What makes one value of two; by default, whether any is True.

    Returns:
        Where in the plane of cells these lie, and their values `(row, col)`.

    >>> in_cells(np.array([[True, False, False]]), 2, at=(0, 3))
    ((slice(0, 1, None), slice(1, 3, None)), array([[ True, False]]))
    """
    spans = [(off // step, (off + size - 1) // step + 1) for off, size in zip(at, plane.shape, strict=True)]
    starts = [np.maximum(np.arange(first, stop) * step - off, 0) for (first, stop), off in zip(spans, at, strict=True)]
    found = how.reduceat(how.reduceat(plane, starts[0], axis=0), starts[1], axis=1)
    return (slice(*spans[0]), slice(*spans[1])), np.asarray(found)


def _in_degrees(polygon: Any, geobox: GeoBox) -> Any:
    """A polygon in pixels `(col, row)` in degrees."""
    moved = shapely.transform(polygon, lambda xy: np.column_stack(lonlat_at(geobox, xy[:, 1], xy[:, 0])))
    return shapely.set_precision(moved, 1e-6)
