"""Where scenes and their pixels lie on the ground: outlines in degrees, places in space, who is near whom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from scipy.spatial import cKDTree
from shapely.geometry.base import BaseGeometry

from geoseg.data.grids import lonlat_at
from geoseg.data.scene import SceneArrays
from geoseg.tiling import Window

DECIMALS = 9  # of a degree: a tenth of a millimetre
DENSE_PX = 32  # a straight edge of so many pixels stays straight in degrees, to a small part of a pixel
SEMI_MAJOR_M, FLATTENING = 6_378_137.0, 1 / 298.257223563  # WGS 84
BALL_NODES = 9


def scene_keys(scenes: Sequence[SceneArrays]) -> list[str]:
    """A name for each scene that no other has: its own, numbered where several share it."""
    met: dict[str, int] = {}
    keys = []
    for scene in scenes:
        met[scene.name] = met.get(scene.name, 0) + 1
        keys.append(scene.name if met[scene.name] == 1 else f"{scene.name} #{met[scene.name]}")
    return keys


def in_degrees(shape: BaseGeometry, geobox: GeoBox) -> BaseGeometry:
    """A shape in pixels `(col, row)` of a grid in longitude and latitude, its long edges bent with it.

    Rasterised onto the grid again it covers the same pixels, where its edges run between pixels. Longitudes are -180
    to 180; what lies across the antimeridian is cut there.
    """
    moved = shapely.transform(shapely.segmentize(shape, DENSE_PX), lambda xy: _rounded(geobox, xy))
    west, _, east, _ = shapely.bounds(moved)
    if east - west > 180 and not _counts_on(geobox):
        moved = shapely.transform(moved, lambda xy: np.column_stack([xy[:, 0] % 360, xy[:, 1]]))
    pieces = [
        shapely.transform(shapely.clip_by_rect(moved, 360 * turn - 180, -90, 360 * turn + 180, 90), _turned_by(turn))
        for turn, _, _ in turns(*shapely.bounds(moved)[[0, 2]].tolist())
    ]
    inside = np.abs(shapely.bounds(moved)[[0, 2]]).max() <= 180
    return moved if inside else shapely.make_valid(shapely.union_all(pieces))


def _rounded(geobox: GeoBox, xy: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.round(np.column_stack(lonlat_at(geobox, xy[:, 1], xy[:, 0])), DECIMALS)


def _turned_by(turn: int) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    return lambda xy: xy - [360 * turn, 0]


def _counts_on(geobox: GeoBox) -> bool:
    """Whether longitudes on a grid are counted on beyond 180, and do not start anew."""
    return geobox.crs is not None and bool(geobox.crs.geographic)


def turns(west: float, east: float) -> list[tuple[int, float, float]]:
    """The turns around the globe that longitudes lie in, with the part of them in each.

    >>> turns(10, 20), turns(170, 200)
    ([(0, 10, 20)], [(0, 170, 180), (1, 180, 200)])
    """
    first, last = floor((west + 180) / 360), max(ceil((east + 180) / 360), floor((west + 180) / 360) + 1)
    return [(turn, max(west, 360 * turn - 180), min(east, 360 * turn + 180)) for turn in range(first, last)]


def footprint(geobox: GeoBox) -> BaseGeometry:
    """The outline of a grid in longitude and latitude."""
    return in_degrees(shapely.box(0, 0, geobox.shape[1], geobox.shape[0]), geobox)


def in_space(lon: NDArray[Any], lat: NDArray[Any]) -> NDArray[np.float64]:
    """Metres from the earth's centre, `(..., 3)`, of points on the ellipsoid WGS 84.

    Straight lines between such points are as long as the way on the ground, to 1 m in 100 km (EPSG method 9602).
    """
    lam, phi = np.radians(lon), np.radians(lat)
    e2 = FLATTENING * (2 - FLATTENING)
    normal = SEMI_MAJOR_M / np.sqrt(1 - e2 * np.sin(phi) ** 2)
    across = normal * np.cos(phi)
    return np.stack([across * np.cos(lam), across * np.sin(lam), normal * (1 - e2) * np.sin(phi)], -1)


def pixels_in_space(geobox: GeoBox, row: NDArray[Any], col: NDArray[Any]) -> NDArray[np.float64]:
    """Metres from the earth's centre, `(pixel, 3)`, of pixel centres; `row` and `col` are whole numbers."""
    return in_space(*lonlat_at(geobox, row + np.float64(0.5), col + np.float64(0.5)))


@dataclass(frozen=True, slots=True, eq=False)
class Balls:
    """Spheres that windows of pixels lie in.

    Attributes:
        centre: Metres from the earth's centre, `(window, 3)`.
        radius_m: `(window,)`.
    """

    centre: NDArray[np.float64]
    radius_m: NDArray[np.float64]

    @classmethod
    def around(cls, windows: Sequence[tuple[GeoBox, Window]]) -> Balls:
        """A sphere around each window of a grid with a CRS."""
        found = [_ball(geobox, window) for geobox, window in windows]
        centres = np.array([centre for centre, _ in found]).reshape(-1, 3)
        return cls(centres, np.array([radius for _, radius in found]))

    def near(self, others: Balls, reach_m: float) -> list[NDArray[np.int64]]:
        """For each sphere, which of `others` may hold a point within `reach_m` of a point of it; sorted."""
        if not len(self.radius_m) or not len(others.radius_m):
            return [np.zeros(0, np.int64)] * len(self.radius_m)
        tree = cKDTree(others.centre)
        widest = float(others.radius_m.max())
        close = tree.query_ball_point(self.centre, self.radius_m + widest + reach_m, return_sorted=True)
        return [self._touching(k, np.asarray(hits, np.int64), others, reach_m) for k, hits in enumerate(close)]

    def _touching(self, k: int, hits: NDArray[np.int64], others: Balls, reach_m: float) -> NDArray[np.int64]:
        apart = np.linalg.norm(others.centre[hits] - self.centre[k], axis=1)
        return np.asarray(hits[apart <= self.radius_m[k] + others.radius_m[hits] + reach_m])


def _ball(geobox: GeoBox, window: Window) -> tuple[NDArray[np.float64], float]:
    rows = np.linspace(window.row_off, window.row_stop, BALL_NODES)
    cols = np.linspace(window.col_off, window.col_stop, BALL_NODES)
    col, row = np.meshgrid(cols, rows)
    points = in_space(*lonlat_at(geobox, row, col)).reshape(-1, 3)
    known = points[np.isfinite(points).all(1)]
    if not len(known):
        return np.full(3, 1e12), 0.0  # it has no place, so nothing is near it
    centre = (known.min(0) + known.max(0)) / 2
    return centre, 1.05 * float(np.linalg.norm(known - centre, axis=1).max())
