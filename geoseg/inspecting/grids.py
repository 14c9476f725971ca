"""Where a grid lies and how large its pixels are on the ground, in words; true areas of its rows of pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geoseg.data.grids import ground_gsd_m, lonlat_at
from geoseg.errors import GridError
from geoseg.vector.metric import Metric, fit_metric


def crs_name(geobox: GeoBox) -> str:
    """The CRS by its code where it has one, else by its name; `none` without."""
    if geobox.crs is None:
        return "none"
    code = geobox.crs.to_epsg()
    return f"EPSG:{code}" if code else str(geobox.crs.proj.name)


def ground_size(geobox: GeoBox) -> tuple[float, float] | None:
    """Metres on the ground from one pixel to the next, `(row, col)`; None where the grid has no place there."""
    try:
        return ground_gsd_m(geobox)
    except GridError:
        return None


def ground_metric(geobox: GeoBox) -> Metric | None:
    """The ground under the grid; None where it has no place there."""
    if geobox.crs is None or ground_size(geobox) is None:
        return None
    try:
        return fit_metric(geobox)
    except GridError:
        return None


def pixel_areas_m2(metric: Metric, rows: NDArray[np.floating[Any]], col: float) -> NDArray[np.float64]:
    """True areas of the pixels at the rows' centres `(row,)` and about a column, in square metres.

    The area element sqrt(E G - F²) of the first fundamental form there.
    """
    u, v = 2 * col / metric.shape[1] - 1, 2 * rows / metric.shape[0] - 1
    E, F, G = (chebyshev.chebval2d(np.full(rows.shape, u), v, part) for part in metric.steps)
    return np.asarray(np.sqrt(E * G - F * F))


def describe_grid(geobox: GeoBox) -> dict[str, Any]:
    """Shape, CRS, pixel size and bounds of a grid as plain values."""
    rows, cols = (int(side) for side in geobox.shape)
    ground = ground_size(geobox)
    a, b, c, d, e, f = geobox.affine[:6]
    return {
        "rows": rows,
        "cols": cols,
        "crs": crs_name(geobox),
        "affine": [a, b, c, d, e, f],
        "pixel": [abs(geobox.resolution.x), abs(geobox.resolution.y)],
        "gsd_m": None if ground is None else list(ground),
        "bounds_lonlat": None if ground is None else _bounds(geobox),
    }


def _bounds(geobox: GeoBox) -> list[float] | None:
    """West, south, east, north in degrees, of the outer edges; None where one has no place on the ground.

    A grid across the antimeridian counts on eastwards, beyond 180.
    """
    share = np.linspace(0, 1, 9)
    col, row = np.meshgrid(share * geobox.shape[1], share * geobox.shape[0])
    lon, lat = lonlat_at(geobox, row, col)
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        return None
    if geobox.crs is not None and not geobox.crs.geographic and np.ptp(lon) > 180:
        lon = np.mod(lon, 360)
    return [float(lon.min()), float(lat.min()), float(lon.max()), float(lat.max())]


def pixel_text(grid: dict[str, Any]) -> str:
    """The size of a pixel in words, columns first."""
    across, down = grid["pixel"]
    if grid["gsd_m"] is None:
        return f"{across:g} x {down:g} (in the grid's own units; no place on the ground)"
    return f"{grid['gsd_m'][1]:.4g} x {grid['gsd_m'][0]:.4g} m on the ground"


def place_text(grid: dict[str, Any]) -> str:
    """Where the grid lies in words."""
    if grid["bounds_lonlat"] is None:
        return "unknown"
    west, south, east, north = grid["bounds_lonlat"]
    km = [size * step / 1000 for size, step in zip((grid["cols"], grid["rows"]), grid["gsd_m"][::-1], strict=True)]
    across = f"{_degrees(west, 'WE')} to {_degrees(east, 'WE')}"
    return f"{across}, {_degrees(south, 'SN')} to {_degrees(north, 'SN')}; {_km(km)}"


def _degrees(value: float, sides: str) -> str:
    return f"{abs(value):.3f}° {sides[value >= 0]}"


def _km(sides: list[float]) -> str:
    return " x ".join(f"{side:.3g}" for side in sides) + " km"
