"""Where a scene is trained: ground size of its pixels, its grid at another resolution, outlines of pixel masks."""

from __future__ import annotations

import json
from math import hypot, isfinite
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import Geod, Transformer
from rasterio import features
from rasterio.transform import Affine
from shapely.geometry import shape

from geoseg.errors import GridError, InputError

WGS84 = Geod(ellps="WGS84")
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
    ends = np.array([geobox.affine @ at for at in _steps(rows / 2, cols / 2)])
    lon, lat = _degrees(geobox, ends[:, 0], ends[:, 1])
    down, across = (WGS84.inv(lon[k], lat[k], lon[k + 1], lat[k + 1])[2] for k in (0, 2))
    if not (isfinite(down) and isfinite(across) and down > 0 and across > 0):
        raise GridError(f"the scene's centre lies outside the area of its CRS {geobox.crs}; check the scene's CRS")
    a, b, _, d, e, _ = geobox.affine[:6]
    unit_m = geobox.crs.proj.axis_info[0].unit_conversion_factor if geobox.crs.projected else 0.0
    return _nominal(down, hypot(b, e) * unit_m), _nominal(across, hypot(a, d) * unit_m)


def _degrees(geobox: GeoBox, x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Longitude and latitude of coordinates in the grid's CRS."""
    if geobox.crs is None:
        raise GridError("the scene has no CRS, so its pixels have no place on the ground; give crs: EPSG:... beside it")
    moved = Transformer.from_crs(geobox.crs.proj, "OGC:CRS84", always_xy=True).transform(x, y)
    return np.asarray(moved[0]), np.asarray(moved[1])


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
        InputError: `gsd_m` is not positive.
        GridError: The grid has no CRS.
    """
    if gsd_m is None:
        return geobox
    if gsd_m <= 0:
        raise InputError(f"gsd_m is {gsd_m}: needed is a ground sampling distance above 0 m")
    rows, cols = geobox.shape
    now = ground_gsd_m(geobox)
    new_rows, new_cols = max(1, round(rows * now[0] / gsd_m)), max(1, round(cols * now[1] / gsd_m))
    if (new_rows, new_cols) == (rows, cols):
        return geobox
    scaled = geobox.affine @ Affine.scale(cols / new_cols, rows / new_rows)
    return GeoBox((new_rows, new_cols), scaled, geobox.crs)


def lonlat_mesh(geobox: GeoBox, *, nodes: int = 65) -> NDArray[np.float64]:
    """Longitude and latitude in degrees at nodes spread evenly over the grid's pixel centres, `(2, node, node)`."""
    rows, cols = geobox.shape
    col, row = np.meshgrid(np.linspace(0.5, cols - 0.5, nodes), np.linspace(0.5, rows - 0.5, nodes))
    a, b, c, d, e, f = geobox.affine[:6]
    return np.stack(_degrees(geobox, a * col + b * row + c, d * col + e * row + f))


def outline(masks: list[tuple[NDArray[np.bool_], GeoBox]], *, longest_px: int = 96) -> dict[str, Any] | None:
    """A GeoJSON geometry in WGS 84 degrees that outlines the True pixels of all masks; None where there are none.

    Drawn on cells of which at most `longest_px` make a side: it says where, not exactly how far.
    """
    parts: list[Any] = []
    for mask, geobox in masks:
        step = max(1, -(-max(mask.shape) // longest_px))
        coarse = _any_in_cells(mask, step)
        found = features.shapes(coarse.view(np.uint8), mask=coarse, transform=geobox.affine @ Affine.scale(step))
        parts += [_in_degrees(shape(geometry), geobox) for geometry, _ in found]
    if not parts:
        return None
    return dict(json.loads(shapely.to_geojson(shapely.simplify(shapely.union_all(parts), 1e-6))))


def _any_in_cells(mask: NDArray[np.bool_], step: int) -> NDArray[np.bool_]:
    """True where a cell of `step` x `step` pixels holds a True pixel."""
    rows, cols = (-(-size // step) for size in mask.shape)
    padded = np.zeros((rows * step, cols * step), np.bool_)
    padded[: mask.shape[0], : mask.shape[1]] = mask
    return np.asarray(padded.reshape(rows, step, cols, step).any((1, 3)))


def _in_degrees(polygon: Any, geobox: GeoBox) -> Any:
    moved = shapely.transform(polygon, lambda xy: np.column_stack(_degrees(geobox, xy[:, 0], xy[:, 1])))
    return shapely.set_precision(moved, 1e-6)
