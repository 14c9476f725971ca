"""Where the pixels of one grid lie on another.

Coordinates of pixels are `(row, col)` with the first pixel covering 0 to 1, so its centre is at 0.5.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import ceil, floor, hypot, isfinite, prod
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from pyproj.exceptions import ProjError

from geoseg.errors import GridError
from geoseg.tiling import Window

if TYPE_CHECKING:
    from numpy.typing import NDArray

FINER = 0.99
"""A pixel is finer than another below this share of its side."""

ALIGNED_PX = 1e-3
"""Two grids are one where no corner is off by more than this."""


@dataclass(frozen=True, slots=True)
class Lattice:
    """Pixels of a grid, thinned by whole factors.

    Attributes:
        row: Row of the grid at which the first thinned row starts; may be negative.
        col: The same for columns.
        rows: Thinned rows.
        cols: Thinned columns.
        factors: Rows and columns of the grid in one thinned pixel.
    """

    row: int
    col: int
    rows: int
    cols: int
    factors: tuple[int, int] = (1, 1)

    @property
    def window(self) -> Window:
        """The pixels of the grid that it covers."""
        return Window(self.row, self.col, self.rows * self.factors[0], self.cols * self.factors[1])

    @property
    def unthinned(self) -> Lattice:
        """All pixels of the grid that it covers."""
        return Lattice(self.row, self.col, self.rows * self.factors[0], self.cols * self.factors[1])

    def on(self, grid: GeoBox) -> GeoBox:
        """Its place on the ground."""
        affine = grid.affine @ Affine.translation(self.col, self.row) @ Affine.scale(self.factors[1], self.factors[0])
        return GeoBox((self.rows, self.cols), affine, grid.crs)

    def part(self, window: Window) -> Lattice:
        """The thinned pixels of `window`, counted from the first of this lattice."""
        row, col = self.row + window.row_off * self.factors[0], self.col + window.col_off * self.factors[1]
        return Lattice(row, col, window.rows, window.cols, self.factors)


def crop(geobox: GeoBox, window: Window) -> GeoBox:
    """The grid of `window`, which may reach beyond `geobox`."""
    affine = geobox.affine @ Affine.translation(window.col_off, window.row_off)
    return GeoBox((window.rows, window.cols), affine, geobox.crs)


def rectangles(mask: NDArray[np.bool_]) -> Iterator[Window]:
    """Windows that cover the true pixels of `mask`, each pixel once: runs of the same columns in successive rows."""
    if not mask.any():
        return
    bands = np.flatnonzero((mask[1:] != mask[:-1]).any(axis=1)) + 1
    for top, bottom in pairwise([0, *bands.tolist(), len(mask)]):
        edges = np.flatnonzero(np.diff(mask[top], prepend=False, append=False))
        for left, right in edges.reshape(-1, 2).tolist():
            yield Window(top, left, bottom - top, right - left)


def apply(affine: Affine, cols: Any, rows: Any) -> tuple[Any, Any]:
    """`affine` of numbers or arrays, without the warnings and types that its own operator has for arrays."""
    return affine.a * cols + affine.b * rows + affine.c, affine.d * cols + affine.e * rows + affine.f


@lru_cache(maxsize=1024)
def _equivalent(one: CRS, other: CRS) -> bool:
    return bool(one == other or one.proj.equals(other.proj, ignore_axis_order=True))


def same_crs(one: CRS | None, other: CRS | None) -> bool:
    """Whether coordinates of one mean the same in the other; two missing ones do."""
    if one is None or other is None:
        return one is other
    return one is other or _equivalent(one, other)


def aligned(grid: GeoBox, geobox: GeoBox) -> Lattice | None:
    """`geobox` as whole pixels of `grid`, thinned by whole factors; None where it is not that."""
    if not same_crs(grid.crs, geobox.crs):
        return None
    pixels = ~grid.affine @ geobox.affine
    factors = max(1, round(pixels.e)), max(1, round(pixels.a))
    whole = Affine(factors[1], 0, round(pixels.c), 0, factors[0], round(pixels.f))
    rows, cols = geobox.shape
    off = max(abs(a - b) for corner in corners(geobox) for a, b in zip(pixels @ corner, whole @ corner, strict=True))
    found = Lattice(round(pixels.f), round(pixels.c), rows, cols, factors)
    return found if off <= ALIGNED_PX and not _wraps(grid, found) else None


@lru_cache(maxsize=256)
def turn_of(crs: CRS | None) -> float | None:
    """One turn around the globe in the units of a geographic CRS, 360 for degrees; None for all others."""
    if crs is None or not crs.geographic:
        return None
    return float(2 * np.pi / crs.proj.axis_info[0].unit_conversion_factor)


def _wraps(grid: GeoBox, lattice: Lattice) -> bool:
    """Whether some of `lattice` lies on `grid` only after a turn around the globe."""
    turn = turn_of(grid.crs)
    if turn is None or grid.affine.a == 0:
        return False
    window, turn_px = lattice.window, round(turn / abs(grid.affine.a))
    moved = [window.col_off + turn_px, window.col_off - turn_px]
    return any(off < grid.shape[1] and off + window.cols > 0 for off in moved)


def require_crs(grid: GeoBox, geobox: GeoBox, name: str) -> None:
    """Nothing, where both grids have a CRS.

    Raises:
        GridError: One of them has none.
    """
    if grid.crs is None:
        raise GridError(f"{name} has no CRS, so it is read on its own grid only; give it one with crs: EPSG:...")
    if geobox.crs is None:
        raise GridError(f"the grid asked of {name} has no CRS; needed is one, or whole pixels of the file's own grid")


@lru_cache(maxsize=256)
def _transformer(source: CRS, target: CRS) -> Any:
    try:
        return source.transformer_to_crs(target)
    except ProjError as error:
        raise GridError(f"no way from {source} to {target}: {error}") from error


def transform(
    x: NDArray[Any], y: NDArray[Any], source: CRS | None, target: CRS | None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Coordinates `x, y` of `source` in `target`; NaN where they have no place there.

    Raises:
        GridError: One of the two is missing, or there is no way from one to the other.
    """
    if same_crs(source, target):
        return x, y
    if source is None or target is None:
        raise GridError("coordinates without a CRS have no place in another; give it with crs: EPSG:...")
    moved = _transformer(source, target)(np.array(x, dtype=float), np.array(y, dtype=float))
    known = np.isfinite(moved[0]) & np.isfinite(moved[1])
    return np.where(known, moved[0], np.nan), np.where(known, moved[1], np.nan)


def to_pixels(
    rows: NDArray[Any], cols: NDArray[Any], geobox: GeoBox, grid: GeoBox
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Where points `rows, cols` of `geobox` lie on `grid`, as its rows and columns."""
    x, y = apply(geobox.affine, cols, rows)
    x, y = transform(x, y, geobox.crs, grid.crs)
    turn = turn_of(grid.crs)
    if turn is not None:
        rows_, cols_ = grid.shape
        west = min((grid.affine @ corner)[0] for corner in ((0, 0), (cols_, 0), (0, rows_), (cols_, rows_)))
        x = west + np.mod(x - west, turn)
    col, row = apply(~grid.affine, x, y)
    return np.asarray(row), np.asarray(col)


def _spans(geobox: GeoBox, grid: GeoBox, row: float, col: float) -> tuple[float, float]:
    """Rows and columns of `grid` that one pixel of `geobox` spans at `row, col` of `geobox`; NaN where nowhere."""
    x, y = apply(geobox.affine, col + np.array([0.0, 0, 1, 0, -1]), row + np.array([0.0, 1, 0, -1, 0]))
    x, y = transform(x, y, geobox.crs, grid.crs)
    ahead, behind = np.array([x[1:3] - x[0], y[1:3] - y[0]]), np.array([x[0] - x[3:], y[0] - y[3:]])
    with np.errstate(invalid="ignore"):  # a map is torn, as at the antimeridian, on one side of a place at most
        torn = np.hypot(*ahead) > 2 * np.hypot(*behind)
    inverse = ~grid.affine
    linear = Affine(inverse.a, inverse.b, 0, inverse.d, inverse.e, 0)
    cols, rows = apply(linear, *np.where(torn | np.isnan(ahead).any(axis=0), behind, ahead))
    return hypot(*rows), hypot(*cols)


def _step(geobox: GeoBox, grid: GeoBox, x: float, y: float) -> tuple[float, float]:
    """Rows and columns of `grid` that one pixel of `geobox` spans at `x, y` of the grid's CRS; NaN where nowhere."""
    x_to, y_to = transform(np.array([x]), np.array([y]), grid.crs, geobox.crs)
    col, row = apply(~geobox.affine, float(x_to[0]), float(y_to[0]))
    return _spans(geobox, grid, row, col)


def _common_place(grid: GeoBox, target: CRS) -> tuple[float, float]:
    """A point of `grid` in its own CRS, inside the area that `target` is made for where the two meet."""
    rows, cols = grid.shape
    centre: tuple[float, float] = apply(grid.affine, cols / 2, rows / 2)
    area = target.proj.area_of_use
    if area is None or area.west >= area.east:
        return centre
    lonlat = CRS("EPSG:4326")
    edge = np.linspace(0, 1, 9)
    cells = np.meshgrid(edge * cols, edge * rows)
    x, y = apply(grid.affine, cells[0].ravel(), cells[1].ravel())
    lon, lat = transform(x, y, grid.crs, lonlat)
    known = np.isfinite(lon) & np.isfinite(lat)
    if not known.any():
        return centre
    west, east = max(area.west, lon[known].min()), min(area.east, lon[known].max())
    south, north = max(area.south, lat[known].min()), min(area.north, lat[known].max())
    if west >= east or south >= north:
        return centre
    back = transform(np.array([(west + east) / 2]), np.array([(south + north) / 2]), lonlat, grid.crs)
    return float(back[0][0]), float(back[1][0])


@lru_cache(maxsize=1024)
def _shrink(grid: GeoBox, linear: tuple[float, float, float, float], crs: CRS) -> tuple[float, float]:
    geobox = GeoBox((1, 1), Affine(linear[0], linear[1], 0, linear[2], linear[3], 0), crs)
    shrink = _step(geobox, grid, *_common_place(grid, crs))
    return shrink if all(isfinite(step) and step > 0 for step in shrink) else (1.0, 1.0)


def shrink(grid: GeoBox, geobox: GeoBox) -> tuple[float, float]:
    """Rows and columns of `grid` that a pixel of `geobox` spans, at one place that depends on no window of `geobox`."""
    affine = geobox.affine
    return _shrink(grid, (affine.a, affine.b, affine.d, affine.e), geobox.crs)


def relative_size(geobox: GeoBox, grid: GeoBox) -> tuple[float, float]:
    """Rows and columns of `grid` that the pixel in the middle of `geobox` spans."""
    return _spans(geobox, grid, geobox.shape[0] / 2, geobox.shape[1] / 2)


def _mesh(geobox: GeoBox) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows and columns of points spread over `geobox`, edges and corners among them."""
    share = np.linspace(0, 1, 21)
    row, col = np.meshgrid(share * geobox.shape[0], share * geobox.shape[1], indexing="ij")
    return row.ravel(), col.ravel()


def pixel_bounds(geobox: GeoBox, grid: GeoBox) -> tuple[float, float, float, float]:
    """First row, first column, last row, last column of `geobox` in pixels of `grid`.

    Raises:
        GridError: No part of it has a place in the CRS of `grid`.
    """
    row, col = to_pixels(*_mesh(geobox), geobox, grid)
    known = np.isfinite(row) & np.isfinite(col)
    if not known.any():
        raise GridError(f"a grid in {geobox.crs} has no place in {grid.crs}")
    return float(row[known].min()), float(col[known].min()), float(row[known].max()), float(col[known].max())


def bounds_beside(geobox: GeoBox, grid: GeoBox) -> tuple[float, float, float, float]:
    """As `pixel_bounds`, of a `geobox` in one piece, on the side of the globe that is nearer to the middle of `grid`.

    Raises:
        GridError: No part of it has a place in the CRS of `grid`.
    """
    row, col = _mesh(geobox)
    x, y = transform(*apply(geobox.affine, col, row), geobox.crs, grid.crs)
    known = np.isfinite(x) & np.isfinite(y)
    if not known.any():
        raise GridError(f"a grid in {geobox.crs} has no place in {grid.crs}")
    x, y, turn = x[known], y[known], turn_of(grid.crs)
    if turn is not None:
        if not same_crs(geobox.crs, grid.crs):
            x = x[0] + np.mod(x - x[0] + turn / 2, turn) - turn / 2
        middle = (grid.affine @ (grid.shape[1] / 2, grid.shape[0] / 2))[0]
        x = x - turn * np.round(((x.min() + x.max()) / 2 - middle) / turn)
    col, row = apply(~grid.affine, x, y)
    return float(row.min()), float(col.min()), float(row.max()), float(col.max())


def ground_bounds(geobox: GeoBox, crs: CRS) -> tuple[float, float, float, float]:
    """West, south, east, north of `geobox` in `crs`, widened by what points may miss; infinite where unknown."""
    row, col = _mesh(geobox)
    x, y = transform(*apply(geobox.affine, col, row), geobox.crs, crs)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return -np.inf, -np.inf, np.inf, np.inf
    wide, high = (0.0, 0.0) if same_crs(geobox.crs, crs) else (np.ptp(x) / 10, np.ptp(y) / 10)
    if crs.geographic and not same_crs(geobox.crs, crs):
        # A grid across the antimeridian, or asked for on the other side of it.
        return -np.inf, float(y.min() - high), np.inf, float(y.max() + high)
    return float(x.min() - wide), float(y.min() - high), float(x.max() + wide), float(y.max() + high)


def corners(geobox: GeoBox) -> list[tuple[int, int]]:
    """Columns and rows of the four corners."""
    rows, cols = geobox.shape
    return [(0, 0), (cols, 0), (0, rows), (cols, rows)]


def window_of(bounds: NDArray[np.float64], geobox: GeoBox) -> Window:
    """The pixels of `geobox` that touch west, south, east, north, and one more on each side."""
    whole = Window(0, 0, *geobox.shape)
    if not np.isfinite(bounds).all():
        return whole
    west, south, east, north = bounds
    there = [~geobox.affine @ corner for corner in ((west, south), (west, north), (east, south), (east, north))]
    cols, rows = zip(*there, strict=True)
    row, col = floor(min(rows)) - 1, floor(min(cols)) - 1
    return Window(row, col, ceil(max(rows)) + 1 - row, ceil(max(cols)) + 1 - col).intersect(whole)


def common_grid(grids: Sequence[GeoBox]) -> GeoBox:
    """The first grid's CRS and origin, the finest resolution, over the extent of all.

    Raises:
        GridError: One has no CRS.
    """
    if any(grid.crs is None for grid in grids):
        raise GridError("members of a mosaic have no CRS, so nothing says where they lie; give it with crs: EPSG:...")
    first = grids[0]
    finest = min((relative_size(grid, first) for grid in grids), key=prod)
    scale = finest if prod(finest) < FINER else (1.0, 1.0)
    affine = first.affine @ Affine.scale(scale[1], scale[0])
    rows, cols = (max(1, round(size / factor)) for size, factor in zip(first.shape, scale, strict=True))
    ruled = GeoBox((rows, cols), affine, first.crs)
    spans = np.array([bounds_beside(grid, ruled) for grid in grids])
    # What lies on a pixel's edge must not open another pixel for the last digit's sake.
    row, col = floor(spans[:, 0].min() + 1e-3), floor(spans[:, 1].min() + 1e-3)
    rows, cols = ceil(spans[:, 2].max() - 1e-3) - row, ceil(spans[:, 3].max() - 1e-3) - col
    turn = turn_of(first.crs)
    if turn is not None and affine.b == 0:
        cols = min(cols, round(turn / abs(affine.a)))  # once around the globe
    return GeoBox((rows, cols), affine @ Affine.translation(col, row), first.crs)


def grids_meet(grid: GeoBox, geobox: GeoBox) -> bool:
    """Whether a raster on `grid` has pixels inside `geobox`, by their bounds.

    Raises:
        GridError: One of them has no CRS.
    """
    if (geobox.crs is None) != (grid.crs is None):
        require_crs(grid, geobox, "the raster")
    # Either may be the smaller one, and around the globe only the smaller is seen in one piece from the other.
    return _reaches(grid, geobox) or _reaches(geobox, grid)


def _reaches(grid: GeoBox, geobox: GeoBox) -> bool:
    """Whether the bounds of `geobox` in pixels of `grid` lie over its pixels."""
    try:
        top, left, bottom, right = pixel_bounds(geobox, grid)
    except GridError:
        return False
    return top < grid.shape[0] and bottom > 0 and left < grid.shape[1] and right > 0
