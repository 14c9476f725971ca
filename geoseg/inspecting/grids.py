"""Where a grid lies and how large its pixels are on the ground, in words; true areas of its pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geoseg.data.grids import LONLAT, ground_gsd_m, lonlat_at
from geoseg.errors import GridError
from geoseg.io.grids import apply, transform
from geoseg.tiling import Window
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


def pixel_areas_m2(metric: Metric, window: Window) -> NDArray[np.float64]:
    """True areas of a window's pixels in square metres, `(row, col)`.

    The integral of the metric's flux over y, from edge to edge: a Chebyshev series, so one matrix for the rows and one
    for the columns.
    """
    rows, cols = metric.shape
    series = chebyshev.chebint(metric.flux, axis=1) * (rows / 2)
    across = np.arange(window.cols + 1) + window.col_off
    down = np.clip(np.arange(window.rows + 1) + window.row_off, *metric.poles)
    return np.asarray(_steps(down, rows, series.shape[1]) @ series.T @ _steps(across, cols, series.shape[0]).T)


def _steps(edges: NDArray[Any], size: int, terms: int) -> NDArray[np.float64]:
    """By how much Chebyshev polynomials grow from edge to edge of a side of `size` pixels, `(pixel, term)`."""
    return np.diff(chebyshev.chebvander(2 * edges / size - 1, terms - 1), axis=0)


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

    A grid across the antimeridian counts on eastwards, beyond 180. One with a pole inside has all longitudes.
    """
    share = np.linspace(0, 1, 9)
    col, row = np.meshgrid(share * geobox.shape[1], share * geobox.shape[0])
    lon, lat = lonlat_at(geobox, row, col)
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        return None
    rows, cols = geobox.shape
    points = {pole: at for pole in (-90.0, 90.0) if (at := _pole_point(geobox, pole)) is not None}
    inside = [pole for pole, (row_at, col_at) in points.items() if 0 < row_at < rows and 0 < col_at < cols]
    if points:
        lon = np.where(np.abs(lat) < 90 - 1e-9, lon, lon[4, 4])  # at a pole on the edge it says nothing
    west, east = (-180.0, 180.0) if inside else _span(lon)
    return [west, float(min([lat.min(), *inside])), east, float(max([lat.max(), *inside]))]


def _pole_point(geobox: GeoBox, pole: float) -> tuple[float, float] | None:
    """Row and column of the pole; None where it is a line, at which longitudes end, or has no place."""
    x, y = transform(np.array([-120.0, 0.0, 120.0]), np.full(3, pole), LONLAT, geobox.crs)
    col, row = apply(~geobox.affine, x, y)
    one = np.ptp(col) < 1 and np.ptp(row) < 1  # False for NaN
    return (float(row[1]), float(col[1])) if one else None


def _span(lon: NDArray[np.float64]) -> tuple[float, float]:
    """The westernmost and easternmost of longitudes `(row, col)`, where neighbours lie less than half a turn apart."""
    lon = np.unwrap(np.unwrap(lon, axis=0, period=360), axis=1, period=360)
    turns = 360 * np.floor((lon.min() + 180) / 360)
    return float(lon.min() - turns), float(lon.max() - turns)


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
