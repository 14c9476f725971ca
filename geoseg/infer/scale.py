"""Does the scene fit the model: its bands, its resolution, and the lattice of tiles that follows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, hypot, isfinite
from typing import TYPE_CHECKING

from odc.geo.geobox import GeoBox
from pyproj import CRS, Geod, Transformer
from pyproj.exceptions import ProjError

from geoseg.errors import GridError
from geoseg.raster import match_bands
from geoseg.tiling import Axis, Tiling

if TYPE_CHECKING:
    from geoseg.io.protocol import Source

logger = logging.getLogger(__name__)

MULTIPLE = 32
"""Networks take sides that are multiples of this."""

LARGEST_SCALED_PX = 2048
"""No tile is larger in the scene's pixels where the scene is resampled, so that memory stays bounded."""

LARGEST_FACTOR = 16.0
SAME_GSD = 0.05


def match_scene(source: Source, wanted: Sequence[str]) -> tuple[int, ...]:
    """Positions of the model's bands `wanted` among the scene's, by name, letter case ignored.

    Raises:
        BandError: The scene lacks a band; the message gives both lists.
    """
    return tuple(match_bands(wanted, source.bands))


def ground_sampling_distance(geobox: GeoBox) -> tuple[float, float] | None:
    """Metres on the ground from one pixel to the next along a (column, row) step, as `(row, col)`; None without a CRS.

    It is measured at the scene's centre along the WGS 84 ellipsoid (Karney 2013, by PROJ), so it holds for degrees, for
    feet and for projections that stretch, such as Web Mercator.
    """
    if geobox.crs is None:
        return None
    crs = CRS.from_user_input(geobox.crs.proj)
    rows, cols = geobox.shape
    centre, affine = (cols / 2, rows / 2), geobox.affine
    steps = [(-0.5, 0.0), (0.5, 0.0), (0.0, -0.5), (0.0, 0.5)]
    pixels = [(centre[0] + col, centre[1] + row) for col, row in steps]
    x = [affine.a * col + affine.b * row + affine.c for col, row in pixels]
    y = [affine.d * col + affine.e * row + affine.f for col, row in pixels]
    try:
        to_degrees = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
        lon, lat = to_degrees.transform(x, y)
        col_m = Geod(ellps="WGS84").inv(lon[0], lat[0], lon[1], lat[1])[2]
        row_m = Geod(ellps="WGS84").inv(lon[2], lat[2], lon[3], lat[3])[2]
    except ProjError:
        col_m = row_m = float("nan")
    if isfinite(row_m) and isfinite(col_m) and min(row_m, col_m) > 0:
        return row_m, col_m
    return _planar_distance(geobox, crs)


def _planar_distance(geobox: GeoBox, crs: CRS) -> tuple[float, float] | None:
    """Metres by the CRS's own unit, where its centre has no longitude and latitude."""
    if not crs.axis_info or crs.is_geographic:
        return None
    unit_m, affine = crs.axis_info[0].unit_conversion_factor, geobox.affine
    return hypot(affine.b, affine.e) * unit_m, hypot(affine.a, affine.d) * unit_m


def scale_for(geobox: GeoBox, gsd_m: tuple[float, float], *, same: float = SAME_GSD) -> tuple[float, float]:
    """How many pixels the model is to see for one of the scene, `(row, col)`.

    (1, 1) where the two sampling distances differ by at most `same` of the model's, and where the scene's is unknown.

    Args:
        geobox: The scene's grid.
        gsd_m: Metres a pixel that the model was trained on, `(row, col)`; zero where unknown.
        same: The difference, as a share, up to which nothing is resampled.

    Raises:
        GridError: The scene is more than 16 times finer or coarser.
    """
    found = ground_sampling_distance(geobox)
    if found is None or min(gsd_m) <= 0:
        logger.warning("the ground sampling distance is unknown; the scene's own pixels are used")
        return 1.0, 1.0
    row, col = found[0] / gsd_m[0], found[1] / gsd_m[1]
    if abs(row - 1) <= same and abs(col - 1) <= same:
        return 1.0, 1.0
    if not all(1 / LARGEST_FACTOR <= factor <= LARGEST_FACTOR for factor in (row, col)):
        raise GridError(
            f"the scene has pixels of {found[0]:.4g} x {found[1]:.4g} m, the model was trained on {gsd_m[0]:.4g} x "
            f"{gsd_m[1]:.4g} m, more than {LARGEST_FACTOR:.0f} times apart; resample the scene, or add --native"
        )
    logger.info("the scene is resampled from %.4g x %.4g m to the model's %.4g x %.4g m", *found, *gsd_m)
    return row, col


@dataclass(frozen=True, slots=True)
class Lattice:
    """The tiles of a scene, and the rows and columns at which the model sees a tile."""

    tiling: Tiling
    model_shape: tuple[int, int]


def lattice_for(shape: tuple[int, int], *, tile_px: int, overlap_px: int, scale: tuple[float, float]) -> Lattice:
    """The lattice over a scene of `shape` (row, col).

    Args:
        shape: Rows and columns of the scene.
        tile_px: The largest tile's side, in the model's pixels.
        overlap_px: Pixels that neighbouring tiles share, in the model's pixels.
        scale: Pixels of the model for one of the scene, `(row, col)`.

    Raises:
        InputError: The numbers do not fit each other, or the scene is empty.
    """
    tiling = Tiling.over(shape, largest_tile_px=tile_px, overlap_px=overlap_px, multiple=MULTIPLE)
    if scale == (1.0, 1.0):
        return Lattice(Tiling(_alone(tiling.rows), _alone(tiling.cols)), tiling.tile_shape)
    axes = [
        _scaled_axis(size, tile_px=tile_px, overlap_px=overlap_px, factor=factor)
        for size, factor in zip(shape, scale, strict=True)
    ]
    (rows, model_rows), (cols, model_cols) = axes
    return Lattice(Tiling(rows, cols), (model_rows, model_cols))


def _alone(axis: Axis) -> Axis:
    """The axis; a tile that has no neighbour overlaps none, however small it is."""
    return axis if axis.count > 1 else replace(axis, overlap=0)


def _scaled_axis(size: int, *, tile_px: int, overlap_px: int, factor: float) -> tuple[Axis, int]:
    """An axis in the scene's pixels, and the tile's pixels for the model.

    Tiles grow in units that are whole pixels of the scene and multiples of 32 of the model; with 32 pixels of the scene
    or more in a unit, as the tile allows, the factor is met within 2 %.
    """
    model_unit = MULTIPLE * min(ceil(factor), tile_px // MULTIPLE)
    unit = round(model_unit / factor)
    units = max(1, min(tile_px // model_unit, LARGEST_SCALED_PX // unit))
    overlap = min(ceil(overlap_px / factor), units * unit // 2)
    axis = _alone(Axis.fit(size, largest_tile=units * unit, overlap=overlap, multiple=unit))
    return axis, axis.tile // unit * model_unit
