"""True area and perimeter of polygons drawn in pixel coordinates, for any CRS, without transforming their vertices.

A map's ground metric is smooth: how many square metres a pixel covers, and how many metres a step is long, changes
slowly over a scene. `fit_metric` fits it once, as Chebyshev polynomials in pixel coordinates, from a few hundred points
transformed to the ellipsoid. Area then is a boundary integral (Green's theorem) and perimeter a line integral of the
polynomials, for edges that are straight in the map's CRS, as they are drawn. Edges that two polygons share cancel, so
the areas of a coverage sum to the area of its outline.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Any, Literal

import numpy as np
import pyproj
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geoseg.errors import GridError
from geoseg.jit import jit
from geoseg.vector.coverage import Arcs

Floats = NDArray[np.floating[Any]]

_log = logging.getLogger(__name__)
_ORDERS = (6, 12, 24, 48)
_GAUSS = 0.5 / 3**0.5  # two-point Gauss-Legendre on [-1/2, 1/2]
_PIECE = 1 / 128  # of the scene's side: longer edges are cut before the integral


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """The ground under a pixel grid.

    A surface element at the pixel coordinates (x, y) covers `area(x, y)` m² a square pixel; a step (dx, dy) there is
    `sqrt(E dx² + 2 F dx dy + G dy²)` metres long (first fundamental form). All are tensor Chebyshev series in
    `2 x / cols - 1` and `2 y / rows - 1`.

    Attributes:
        shape: Rows and columns of the grid.
        flux: Integral of the area element over x, in m² a pixel row: coefficients `(order in x, order in y)`.
        steps: E, F and G in m² `(3, order in x, order in y)`.
        unit: `m`; `px` where there is no CRS, and a pixel is the unit of everything above.
    """

    shape: tuple[int, int]
    flux: Floats
    steps: Floats
    unit: Literal["m", "px"] = "m"

    def pixel_area(self) -> float:
        """Area of a pixel at the grid's centre."""
        E, F, G = self._steps_at_centre()
        return sqrt(E * G - F * F)

    def edge_weights(self) -> tuple[int, int]:
        """Relative length of a pixel edge along x and along y at the grid's centre, in thousandths of the latter."""
        E, _, G = self._steps_at_centre()
        return max(1, round(1000 * sqrt(E / G))), 1000

    def _steps_at_centre(self) -> list[float]:
        return [float(chebyshev.chebval2d(0.0, 0.0, part)) for part in self.steps]


def fit_metric(geobox: GeoBox) -> Metric:
    """The ground metric of a grid; in pixels where it has no CRS, and so no place on the ground.

    The polynomials' order grows until the last coefficients vanish (relative 1e-10). Where that never happens, or the
    grid reaches beyond the ellipsoid, as a global Mollweide map's corners do, and where the CRS is a local one, lengths
    are taken from the CRS's own plane, and a warning says so.

    Raises:
        GridError: That plane has no metres either.
    """
    if geobox.crs is None:
        rows, cols = (int(side) for side in geobox.shape)
        return Metric((rows, cols), *_constant(1.0, 0.0, 1.0, cols), "px")
    crs = pyproj.CRS.from_user_input(geobox.crs.proj)
    metrics = (_fit(geobox, crs, order) for order in _ORDERS)
    return next((metric for metric in metrics if metric is not None), None) or _planar_metric(geobox, crs)


def measure_arcs(arcs: Arcs, metric: Metric, *, count: int) -> tuple[Floats, Floats]:
    """Area and perimeter of each region's polygon `(count + 1,)`, nodata first and without meaning.

    Each arc is measured once and counts for both its sides. Holes count against the area and for the perimeter.
    """
    areas, lengths = np.zeros(count + 1), np.zeros(count + 1)
    _measure(arcs, metric.flux, metric.steps, metric.shape, (areas, lengths))
    return areas, lengths


def measure_regions(regions: NDArray[np.int32], metric: Metric, *, count: int) -> Floats:
    """Area of each region's pixels, in the metric's unit squared, `(count + 1,)`, nodata first."""
    areas = np.zeros(count + 1, np.float64)
    _measure_pixels(regions, metric.flux, areas)
    return areas


def _to_ecef(geobox: GeoBox, crs: pyproj.CRS, x: Floats, y: Floats) -> Floats | None:
    """Earth-centred coordinates in m `(3, ...)` of pixel coordinates, on the ellipsoid: no seam at 180° or a pole.

    None for a local CRS, which is on no ellipsoid, and for points beyond the ground.

    X, Y, Z by Snyder, Map Projections: A Working Manual (1987), section "Ellipsoid", with height 0.
    """
    geodetic, ellipsoid, transform = crs.geodetic_crs, crs.ellipsoid, geobox.affine
    if geodetic is None or ellipsoid is None:
        return None
    east, north = transform.a * x + transform.b * y + transform.c, transform.d * x + transform.e * y + transform.f
    lon, lat = pyproj.Transformer.from_crs(crs, geodetic, always_xy=True).transform(east, north)
    unit = geodetic.axis_info[0].unit_conversion_factor
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        return None
    lon, lat = np.asarray(lon) * unit, np.asarray(lat) * unit
    a, b = ellipsoid.semi_major_metre, ellipsoid.semi_minor_metre
    squash = (b / a) ** 2
    normal = a / np.sqrt(1 - (1 - squash) * np.sin(lat) ** 2)
    return np.stack(
        [normal * np.cos(lat) * np.cos(lon), normal * np.cos(lat) * np.sin(lon), squash * normal * np.sin(lat)]
    )


def _fit(geobox: GeoBox, crs: pyproj.CRS, order: int) -> Metric | None:
    """The metric with polynomials of one order; None where they do not describe the ground."""
    rows, cols = (int(side) for side in geobox.shape)
    nodes = chebyshev.chebpts1(order + 1)
    u, v = np.meshgrid(nodes, nodes, indexing="ij")
    ground = _to_ecef(geobox, crs, (u + 1) * cols / 2, (v + 1) * rows / 2)
    if ground is None:
        return None
    place = _coefficients(ground, nodes)
    along_x = _values(chebyshev.chebder(place, axis=1) * (2 / cols), nodes)
    along_y = _values(chebyshev.chebder(place, axis=2) * (2 / rows), nodes)
    E, F, G = (along_x**2).sum(0), (along_x * along_y).sum(0), (along_y**2).sum(0)
    element = np.linalg.norm(np.cross(along_x, along_y, axis=0), axis=0)
    area, steps = _coefficients(element, nodes), _coefficients(np.stack([E, F, G]), nodes)
    # What stands below this is the rounding of coordinates on the ellipsoid, some 1e-9 m.
    floor = max(1e-10, 1e-8 * order**2 / float(min(np.sqrt(E.max()) * cols, np.sqrt(G.max()) * rows)))
    if max(_tail(area), _tail(steps)) > floor:
        return None
    return Metric((rows, cols), chebyshev.chebint(_trim(area), axis=0, lbnd=-1) * (cols / 2), _trim(steps))


def _planar_metric(geobox: GeoBox, crs: pyproj.CRS) -> Metric:
    """The metric of the CRS's own plane."""
    axis = crs.axis_info[0] if crs.axis_info else None
    if axis is None or crs.is_geographic:
        raise GridError(f"no area can be measured in the CRS '{crs.name}'; reproject the map to a CRS on the ground")
    _log.warning("areas and lengths are those of the plane of '%s': the grid reaches beyond the ground", crs.name)
    unit, transform = axis.unit_conversion_factor, geobox.affine
    rows, cols = (int(side) for side in geobox.shape)
    x, y = np.array([transform.a, transform.d]) * unit, np.array([transform.b, transform.e]) * unit
    return Metric((rows, cols), *_constant(float(x @ x), float(x @ y), float(y @ y), cols))


def _constant(E: float, F: float, G: float, cols: int) -> tuple[Floats, Floats]:
    """Flux and steps of flat ground."""
    return np.full((2, 1), sqrt(E * G - F * F) * cols / 2), np.array([E, F, G]).reshape(3, 1, 1)


def _coefficients(values: Floats, nodes: Floats) -> Floats:
    """Chebyshev coefficients of values `(..., x, y)` at Chebyshev points of the first kind, of the same shape."""
    order = len(nodes) - 1
    basis = chebyshev.chebvander(nodes, order) * (2 / (order + 1))
    basis[:, 0] /= 2
    coefficients: Floats = np.einsum("...xy,xi,yj->...ij", values, basis, basis)
    return coefficients


def _values(coefficients: Floats, nodes: Floats) -> Floats:
    """The series `(part, order in x, order in y)` at all pairs of nodes."""
    return np.stack([chebyshev.chebgrid2d(nodes, nodes, part) for part in coefficients])


def _tail(coefficients: Floats) -> float:
    """Size of the two last orders of either axis against the largest coefficient."""
    size = np.abs(coefficients)
    return float(max(size[..., -2:, :].max(), size[..., :, -2:].max()) / size.max())


def _trim(coefficients: Floats) -> Floats:
    """The series without the last orders that add nothing."""
    size = np.abs(coefficients).reshape(-1, *coefficients.shape[-2:]).max(0)
    used = size > 1e-13 * size.max()
    return coefficients[..., : int(np.flatnonzero(used.any(1))[-1]) + 1, : int(np.flatnonzero(used.any(0))[-1]) + 1]


@jit
def _basis(at: float, out: Floats) -> None:
    """Chebyshev polynomials of the first kind at one point."""
    out[0] = 1.0
    if out.shape[0] > 1:
        out[1] = at
    for order in range(2, out.shape[0]):
        out[order] = 2 * at * out[order - 1] - out[order - 2]


@jit
def _series(coefficients: Floats, in_x: Floats, in_y: Floats) -> float:
    total = 0.0
    for i in range(coefficients.shape[0]):
        inner = 0.0
        for j in range(coefficients.shape[1]):
            inner += coefficients[i, j] * in_y[j]
        total += inner * in_x[i]
    return total


@jit
def _measure(arcs: Arcs, flux: Floats, steps: Floats, shape: tuple[int, int], out: tuple[Floats, Floats]) -> None:
    rows, cols = shape
    areas, lengths = out
    in_x = np.empty(max(flux.shape[0], steps.shape[1]))
    in_y = np.empty(max(flux.shape[1], steps.shape[2]))
    for arc in range(arcs.left.shape[0]):
        area, length = 0.0, 0.0
        for at in range(arcs.offsets[arc], arcs.offsets[arc + 1] - 1):
            x, y = float(arcs.coords[at, 0]), float(arcs.coords[at, 1])
            dx, dy = arcs.coords[at + 1, 0] - x, arcs.coords[at + 1, 1] - y
            pieces = max(1, ceil(max(abs(dx) / cols, abs(dy) / rows) / _PIECE))
            for sample in range(2 * pieces):
                t = (sample // 2 + 0.5 + (_GAUSS if sample % 2 else -_GAUSS)) / pieces
                _basis(2 * (x + t * dx) / cols - 1, in_x)
                _basis(2 * (y + t * dy) / rows - 1, in_y)
                squared = 0.0
                if dx != 0:
                    squared += dx * dx * _series(steps[0], in_x, in_y)
                if dy != 0:
                    squared += dy * dy * _series(steps[2], in_x, in_y)
                    area += dy * _series(flux, in_x, in_y) / (2 * pieces)
                if dx != 0 and dy != 0:
                    squared += 2 * dx * dy * _series(steps[1], in_x, in_y)
                length += np.sqrt(max(squared, 0.0)) / (2 * pieces)
        areas[arcs.left[arc]] -= area  # y runs down: a patch on the left is walked against the sense of the integral
        areas[arcs.right[arc]] += area
        lengths[arcs.left[arc]] += length
        lengths[arcs.right[arc]] += length


@jit
def _measure_pixels(regions: NDArray[np.int32], flux: Floats, areas: Floats) -> None:
    """Adds the area of each run of pixels: the flux at its right end less that at its left, meaned over the row."""
    rows, cols = regions.shape
    in_x, in_y, other = np.empty(flux.shape[0]), np.empty(flux.shape[1]), np.empty(flux.shape[1])
    for row in range(rows):
        _basis(2 * (row + 0.5 - _GAUSS) / rows - 1, in_y)
        _basis(2 * (row + 0.5 + _GAUSS) / rows - 1, other)
        in_y += other
        before = 0.0  # the flux at the left border
        for col in range(cols):
            if col + 1 < cols and regions[row, col + 1] == regions[row, col]:
                continue
            _basis(2 * (col + 1) / cols - 1, in_x)
            after = 0.5 * _series(flux, in_x, in_y)
            areas[regions[row, col]] += after - before
            before = after
