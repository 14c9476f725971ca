"""Blocks on the ground, the same for all scenes: rows of latitude cut into cells of equal width (a sinusoidal grid)."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, cos, degrees, floor, sqrt

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from geoseg.data.grids import ground_gsd_m, lonlat_at
from geoseg.data.scene import SceneArrays
from geoseg.data.splits.ground import DECIMALS, turns
from geoseg.errors import InputError

EARTH_RADIUS_M = 6_371_007.2  # authalic sphere
MOST_BLOCKS = 500_000
NODES = 17
LAST_LON = 180 - 1e-9
BLOCKS_A_SIDE = 5


def default_block_m(scenes: Sequence[SceneArrays]) -> float:
    """A fifth of the largest scene's side, in metres."""
    areas = [float(np.prod(np.multiply(scene.shape, ground_gsd_m(scene.geobox)))) for scene in scenes]
    return sqrt(max(areas)) / BLOCKS_A_SIDE


def ground_blocks(geoboxes: Sequence[GeoBox], block_m: float) -> list[BaseGeometry]:
    """The blocks of side `block_m` that grids may lie in, in degrees, from the south-west to the north-east.

    Raises:
        InputError: They are too many.
    """
    angle = block_m / EARTH_RADIUS_M
    cells = {cell for geobox in geoboxes for cell in _cells(geobox, angle)}
    return [_polygon(down, across, angle) for down, across in sorted(cells)]


def _step(down: int, angle: float) -> float:
    """Degrees of longitude from one block of a row to the next; the whole circle where a row goes round the pole."""
    return min(degrees(angle / max(cos((down + 0.5) * angle), 1e-9)), 180.0)


def _cells(geobox: GeoBox, angle: float) -> list[tuple[int, int]]:
    """Rows and columns of the blocks that a grid may meet."""
    rows, cols = np.meshgrid(*(np.linspace(0, size, NODES) for size in geobox.shape), indexing="ij")
    lon, lat = lonlat_at(geobox, rows, cols)
    known = np.isfinite(lon)
    south, north = (floor(value / degrees(angle)) for value in _widened(lat[known]))
    spans = [
        (down, floor(west / _step(down, angle)), floor(east / _step(down, angle)))
        for down in range(south, north + 1)
        for west, east in _intervals(lon[known], counts_on=bool(geobox.crs and geobox.crs.geographic))
    ]
    total = sum(last - first + 1 for _, first, last in spans)
    if total > MOST_BLOCKS:
        side = angle * EARTH_RADIUS_M
        raise InputError(f"block_m of {side:,.0f} m makes about {total:,} blocks; needed are at most {MOST_BLOCKS:,}")
    return [(down, across) for down, first, last in spans for across in range(first, last + 1)]


def _widened(values: NDArray[np.float64]) -> tuple[float, float]:
    """The range of values at nodes, a little wider, for edges between nodes may bend."""
    slack = float(np.ptp(values)) / 50
    return float(values.min()) - slack, float(values.max()) + slack


def _intervals(lon: NDArray[np.float64], *, counts_on: bool) -> list[tuple[float, float]]:
    """The ranges of longitude from -180 to 180 that nodes lie in; two of them across the antimeridian.

    Args:
        lon: At the nodes.
        counts_on: Whether longitudes are counted on beyond 180, and do not start anew.
    """
    west, east = _widened(lon if counts_on or np.ptp(lon) <= 180 else lon % 360)
    if east - west >= 360:
        return [(-180.0, LAST_LON)]
    return [(start - 360 * turn, min(stop - 360 * turn, LAST_LON)) for turn, start, stop in turns(west, east)]


def _polygon(down: int, across: int, angle: float) -> BaseGeometry:
    """A block; its edges have corners where those of the rows beside it do, so that no gap is left between them."""
    step = _step(down, angle)
    west, east = across * step, (across + 1) * step
    south, north = _parallel(down, angle), _parallel(down + 1, angle)
    lower = [(lon, south) for lon in [west, *_corners(down - 1, angle, west, east), east]]
    upper = [(lon, north) for lon in [west, *_corners(down + 1, angle, west, east), east]]
    ring = np.round(np.clip(lower + upper[::-1], [-180, -90], [180, 90]), DECIMALS)
    return shapely.Polygon(ring)


def _parallel(down: int, angle: float) -> float:
    return degrees(down * angle)


def _corners(down: int, angle: float, west: float, east: float) -> list[float]:
    """Longitudes between two, at which blocks of a row begin."""
    step = _step(down, angle)
    found = [k * step for k in range(floor(west / step), ceil(east / step) + 1)]
    return [lon for lon in found if west < lon < east]
