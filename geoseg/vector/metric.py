"""The ground under a pixel grid in any CRS: how many square metres a pixel covers, and how many metres a step is long.

Both change slowly over a scene. `fit_metric` fits them once, as Chebyshev polynomials in pixel coordinates, from a few
hundred points transformed to the ellipsoid.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from math import inf, pi, sqrt
from typing import Any, Literal

import numpy as np
import pyproj
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geoseg.errors import GridError

Floats = NDArray[np.floating[Any]]

_log = logging.getLogger(__name__)
_ORDERS = (6, 12, 24, 48, 96)
_NEGLIGIBLE = 1e-12  # of the largest coefficient
_OVERHANG = 1e-6, 1.0  # pixels that a grid may reach beyond a pole: less is rounding, more is a mistake
_STEP = 1e-3  # of a pixel, for areas by differences
_ALIKE = 0.01  # of an area


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
        edges: Metres a pixel along x and along y, the roots of E and G `(2, order in x, order in y)`.
        unit: `m`; `px` where there is no CRS, and a pixel is the unit of everything above.
        poles: Where the poles lie, as y in pixels from above, if the grid reaches beyond them; there is no ground on
            the far side. Infinite where it does not.
    """

    shape: tuple[int, int]
    flux: Floats
    steps: Floats
    edges: Floats
    unit: Literal["m", "px"] = "m"
    poles: tuple[float, float] = (-inf, inf)

    def pixel_area(self) -> float:
        """Area of a pixel at the grid's centre."""
        E, F, G = _at_centre(self.steps)
        return sqrt(E * G - F * F)

    def pixel_size(self) -> tuple[float, float]:
        """Length of a pixel along x and along y at the grid's centre."""
        along_x, along_y = _at_centre(self.edges)
        return along_x, along_y

    def edge_weights(self) -> tuple[int, int]:
        """Relative length of a pixel edge along x and along y at the grid's centre, in thousandths of the latter."""
        along_x, along_y = self.pixel_size()
        return max(1, round(1000 * along_x / along_y)), 1000


def fit_metric(geobox: GeoBox) -> Metric:
    """The ground metric of a grid; in pixels where it has no CRS, and so no place on the ground.

    The polynomials' order grows until the last coefficients vanish (relative 1e-10). Where the grid reaches beyond the
    ellipsoid, as a global Mollweide map's corners do, where the CRS is a local one, and where the coefficients do not
    vanish but the CRS's own plane keeps areas, lengths are taken from that plane, and a warning says so. Pixels centred
    on a pole reach beyond it in degrees; they end there.

    Raises:
        GridError: That plane has no metres either, or false ones.
    """
    if geobox.crs is None:
        rows, cols = (int(side) for side in geobox.shape)
        return Metric((rows, cols), *_constant(1.0, 0.0, 1.0, cols), "px")
    crs = pyproj.CRS.from_user_input(geobox.crs.proj)
    poles = _poles(geobox, crs)
    metrics = (_fit(geobox, crs, order, poles) for order in _ORDERS)
    return next((metric for metric in metrics if metric is not None), None) or _planar_metric(geobox, crs)


def _poles(geobox: GeoBox, crs: pyproj.CRS) -> tuple[float, float]:
    """`Metric.poles` of a grid of degrees along parallels."""
    transform = geobox.affine
    if not crs.is_geographic or crs.is_derived or transform.b != 0 or transform.d != 0:
        return -inf, inf
    right, (least, most) = pi / 2 / crs.axis_info[0].unit_conversion_factor, _OVERHANG
    first, last = sorted((lat - transform.f) / transform.e for lat in (-right, right))
    beyond = int(geobox.shape[0]) - last
    return first if least < first <= most else -inf, last if least < beyond <= most else inf


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


def _fit(geobox: GeoBox, crs: pyproj.CRS, order: int, poles: tuple[float, float]) -> Metric | None:
    """The metric with polynomials of one order; None where they do not describe the ground.

    Beyond a pole areas, and lengths along x, are taken as negative: so both are smooth there, as the cosine is.
    """
    rows, cols = (int(side) for side in geobox.shape)
    nodes = chebyshev.chebpts1(order + 1)
    u, v = np.meshgrid(nodes, nodes, indexing="ij")
    y = (v + 1) * rows / 2
    ground = _to_ecef(geobox, crs, (u + 1) * cols / 2, y)
    if ground is None:
        return None
    sign = np.where((y < poles[0]) | (y > poles[1]), -1.0, 1.0)
    place = _coefficients(ground, nodes)
    along_x = _values(chebyshev.chebder(place, axis=1) * (2 / cols), nodes)
    along_y = _values(chebyshev.chebder(place, axis=2) * (2 / rows), nodes)
    E, F, G = (along_x**2).sum(0), (along_x * along_y).sum(0), (along_y**2).sum(0)
    element = sign * np.linalg.norm(np.cross(along_x, along_y, axis=0), axis=0)
    area, steps = _coefficients(element, nodes), _coefficients(np.stack([E, F, G]), nodes)
    edges = _coefficients(np.stack([sign * np.sqrt(E), np.sqrt(G)]), nodes)
    # What stands below this is the rounding of coordinates on the ellipsoid, some 1e-9 m.
    floor = max(1e-10, 1e-8 * order**2 / float(min(np.sqrt(E.max()) * cols, np.sqrt(G.max()) * rows)))
    if max(_tail(area), _tail(steps), _tail(edges)) > floor:
        return None
    flux = chebyshev.chebint(_trim(area), axis=0, lbnd=-1) * (cols / 2)
    return Metric((rows, cols), flux, _trim(steps), _trim(edges), poles=poles)


def _planar_metric(geobox: GeoBox, crs: pyproj.CRS) -> Metric:
    """The metric of the CRS's own plane."""
    axis = crs.axis_info[0] if crs.axis_info else None
    if axis is None or crs.is_geographic:
        raise GridError(f"no area can be measured in the CRS '{crs.name}'; reproject the map to a CRS on the ground")
    unit, transform = axis.unit_conversion_factor, geobox.affine
    rows, cols = (int(side) for side in geobox.shape)
    x, y = np.array([transform.a, transform.d]) * unit, np.array([transform.b, transform.e]) * unit
    metric = Metric((rows, cols), *_constant(float(x @ x), float(x @ y), float(y @ y), cols))
    areas = _areas(geobox, crs)
    if areas is not None and abs(np.median(areas) / metric.pixel_area() - 1) > _ALIKE:
        raise GridError(
            f"no area can be measured in the CRS '{crs.name}' over so much ground; reproject the map to an equal-area "
            "CRS, or cut it to less"
        )
    why = "the grid reaches beyond the ground" if areas is None else "the ground bends too much for lengths"
    _log.warning("areas and lengths are those of the plane of '%s': %s", crs.name, why)
    return metric


def _areas(geobox: GeoBox, crs: pyproj.CRS) -> Floats | None:
    """Square metres of pixels all over a grid `(x, y)`; None where some are beyond the ground."""
    rows, cols = (int(side) for side in geobox.shape)
    nodes = (chebyshev.chebpts1(_ORDERS[-1]) + 1) / 2
    x, y = np.meshgrid(nodes * cols, nodes * rows, indexing="ij")
    half = _STEP / 2
    around = [_to_ecef(geobox, crs, x + i, y + j) for i, j in ((-half, 0), (half, 0), (0, -half), (0, half))]
    west, east, north, south = around
    if west is None or east is None or north is None or south is None:
        return None
    areas: Floats = np.linalg.norm(np.cross(east - west, south - north, axis=0), axis=0) / _STEP**2
    return areas


def _constant(E: float, F: float, G: float, cols: int) -> tuple[Floats, Floats, Floats]:
    """Flux, steps and edges of flat ground."""
    flux = np.full((2, 1), sqrt(E * G - F * F) * cols / 2)
    return flux, np.array([E, F, G]).reshape(3, 1, 1), np.sqrt([E, G]).reshape(2, 1, 1)


def _at_centre(series: Floats) -> list[float]:
    return [float(chebyshev.chebval2d(0.0, 0.0, part)) for part in series]


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
    used = size > _NEGLIGIBLE * size.max()
    return coefficients[..., : int(np.flatnonzero(used.any(1))[-1]) + 1, : int(np.flatnonzero(used.any(0))[-1]) + 1]
