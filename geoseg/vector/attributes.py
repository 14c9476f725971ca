"""True area and perimeter of polygons drawn in pixel coordinates, for any CRS, without transforming their vertices.

Area is a boundary integral (Green's theorem) and perimeter a line integral of a metric's polynomials, for edges that
are straight in the map's CRS, as they are drawn. Edges that two polygons share cancel, so the areas of a coverage sum
to the area of its outline.

Most edges run along pixels. Their integrals over a pixel's side are tabulated: in one direction by the polynomials'
integral over each row (or column), in the other by the polynomials at each corner; an edge is the sum over its pixels
of a short dot product. Others are integrated by Gauss's rule with two points, whose error over an edge of length h is
h⁵/4320 of the fourth derivative (Abramowitz & Stegun 25.4.30), in pieces short enough for it.
"""

from __future__ import annotations

from math import ceil, comb, isinf
from typing import Any, NamedTuple

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from geoseg.jit import jit
from geoseg.vector.coverage import Arcs
from geoseg.vector.lines.corridor import SUBPIXEL
from geoseg.vector.metric import Metric

Floats = NDArray[np.floating[Any]]

_GAUSS = 0.5 / 3**0.5  # two-point Gauss-Legendre on [-1/2, 1/2]
_PIECES = 128, 65536  # of the scene's side: longer edges are cut before the integral; at least, at most
_EDGES = 128  # in a batch, so that all about them stays in the nearest cache
_ERROR = 1e-10  # of a pixel's area, along an edge that is one pixel high


class _Tables(NamedTuple):
    """The metric at the corners and sides of pixels.

    Attributes:
        at_x: Polynomials at each corner along x `(col + 1, order in x)`.
        at_y: Polynomials at each corner along y `(row + 1, order in y)`.
        flux: Integral of the flux over each row, as a series in x `(row, order in x)`.
        upright: Length of an upright pixel edge in each row, as a series in x `(row, order in x)`.
        flat: Length of a flat pixel edge in each column, as a series in y `(col, order in y)`.
    """

    at_x: Floats
    at_y: Floats
    flux: Floats
    upright: Floats
    flat: Floats


class _Ground(NamedTuple):
    """A metric for compiled functions: its series, and how many columns and rows an edge aslant may cross uncut."""

    shape: tuple[int, int]
    flux: Floats
    steps: Floats
    piece: tuple[float, float]


class _Batch(NamedTuple):
    """Edges that run aslant, to be integrated together, at two points each.

    Attributes:
        arc: Arc that each is of, int32 `(edge,)`.
        edge: Its middle x and y, and how far it goes along both, in pixels `(4, edge)`.
        at: Scratch `(point,)`.
        inner: Scratch `(point,)`.
        in_x: Polynomials at each point `(order in x, point)`.
        in_y: Polynomials at each point `(order in y, point)`.
        values: E, F, G and the flux at each point `(4, point)`.
    """

    arc: NDArray[np.int32]
    edge: Floats
    at: Floats
    inner: Floats
    in_x: Floats
    in_y: Floats
    values: Floats


def arc_measures(arcs: Arcs, metric: Metric) -> tuple[Floats, Floats]:
    """What each arc adds to the area on its right and takes from that on its left, and its length, both `(arc,)`.

    Args:
        arcs: The boundaries, as traced, simplified or smoothed.
        metric: The ground under the grid.
    """
    arcs = _to_poles(arcs, metric)
    areas, lengths = np.zeros(len(arcs.left)), np.zeros(len(arcs.left))
    (rows, cols), pieces = metric.shape, _pieces(metric)
    ground = _Ground((rows, cols), metric.flux, metric.steps, (cols / pieces, rows / pieces))
    _measure_along(arcs, _tabulate(metric), (areas, lengths))
    _measure_aslant(arcs, ground, _batch(metric), (areas, lengths))
    return areas, lengths


def region_measures(
    arcs: Arcs, metric: Metric, *, count: int, groups: NDArray[np.int32] | None = None
) -> tuple[Floats, Floats]:
    """Area and perimeter of each region's polygon `(count + 1,)`, nodata first and without meaning.

    Each arc is measured once and counts for both its sides. Holes count against the area and for the perimeter.

    Args:
        arcs: The boundaries.
        metric: The ground under the grid.
        count: Number of regions, or of groups.
        groups: Group of each region `(region,)`, to measure these instead: borders within one are no perimeter.
    """
    if groups is None:
        groups = np.arange(count + 1, dtype=np.int32)
    out = np.zeros(count + 1), np.zeros(count + 1)
    _add_sides((arcs.left, arcs.right), arc_measures(arcs, metric), groups, out)
    return out


def _to_poles(arcs: Arcs, metric: Metric) -> Arcs:
    """The arcs ending at the poles, where the grid reaches beyond them."""
    if all(map(isinf, metric.poles)):
        return arcs
    coords = arcs.coords * np.int32(SUBPIXEL // arcs.scale)
    first, last = (np.clip(pole, 0, metric.shape[0]) for pole in metric.poles)
    np.clip(coords[:, 1], round(first * SUBPIXEL), round(last * SUBPIXEL), out=coords[:, 1])
    return arcs._replace(coords=coords, scale=SUBPIXEL)


def _batch(metric: Metric) -> _Batch:
    points = 2 * _EDGES
    order_x, order_y = (max(metric.flux.shape[axis], metric.steps.shape[axis + 1]) for axis in (0, 1))
    return _Batch(
        np.empty(_EDGES, np.int32), np.empty((4, _EDGES)), np.empty(points), np.empty(points),
        np.empty((order_x, points)), np.empty((order_y, points)), np.empty((4, points)),
    )  # fmt: skip


def _tabulate(metric: Metric) -> _Tables:
    rows, cols = metric.shape
    along_x, along_y = metric.edges
    order_x, order_y = max(len(metric.flux), len(along_y)), along_x.shape[1]
    return _Tables(
        chebyshev.chebvander(2 * np.arange(cols + 1) / cols - 1, order_x - 1),
        chebyshev.chebvander(2 * np.arange(rows + 1) / rows - 1, order_y - 1),
        _over_sides(metric.flux.T, rows),
        _over_sides(along_y.T, rows),
        _over_sides(along_x, cols),
    )


def _over_sides(series: Floats, count: int) -> Floats:
    """The series `(order, other)` integrated over each of `count` pixels along its axis `(count, other)`."""
    middle = np.arange(count) + 0.5
    before, after = (chebyshev.chebval(2 * (middle + offset) / count - 1, series) for offset in (-_GAUSS, _GAUSS))
    return np.ascontiguousarray((before + after).T / 2)


def _pieces(metric: Metric) -> float:
    """Pieces that a scene's side is cut into so that Gauss's rule for the flux errs by no more than `_ERROR`.

    The flux counts from the scene's edge, so it is large against the width of a region. A Chebyshev series is at most
    the sum of its coefficients' sizes; a piece of 1/n of the side is 2/n long in the polynomials' coordinates.
    """
    fourth = sum(comb(4, k) * _bound(metric.flux, k, 4 - k) for k in range(5))
    least, most = _PIECES
    return float(np.clip(2 * (fourth / (4320 * _ERROR * metric.pixel_area())) ** 0.25, least, most))


def _bound(series: Floats, in_x: int, in_y: int) -> float:
    derived = chebyshev.chebder(chebyshev.chebder(series, in_x, axis=0), in_y, axis=1)
    return float(np.abs(derived).sum())


@jit
def _fill_basis(at: Floats, count: int, out: Floats) -> None:
    """Chebyshev polynomials of the first kind at points `(point,)`: `(order, point)`."""
    for point in range(count):
        out[0, point] = 1.0
    if out.shape[0] > 1:
        for point in range(count):
            out[1, point] = at[point]
    for order in range(2, out.shape[0]):
        for point in range(count):
            out[order, point] = 2 * at[point] * out[order - 1, point] - out[order - 2, point]


@jit
def _evaluate(coefficients: Floats, batch: _Batch, count: int, out: Floats) -> None:
    """A series at the points of a batch, which the processor takes several at a time."""
    inner = batch.inner
    for point in range(count):
        out[point] = 0.0
    for i in range(coefficients.shape[0]):
        for point in range(count):
            inner[point] = coefficients[i, 0]
        for j in range(1, coefficients.shape[1]):
            for point in range(count):
                inner[point] += coefficients[i, j] * batch.in_y[j, point]
        for point in range(count):
            out[point] += inner[point] * batch.in_x[i, point]


@jit
def _runs_along(x: np.int64, y: np.int64, to_x: np.int64, to_y: np.int64, scale: int) -> bool:
    """Whether an edge runs along the sides of pixels."""
    if x != to_x and y != to_y:
        return False
    return scale == 1 or (x % scale == 0 and y % scale == 0 and (to_x + to_y) % scale == 0)


# The next two take no function that is given an array into their inner loops: numba counts a reference at each call.


@jit
def _measure_along(arcs: Arcs, tables: _Tables, out: tuple[Floats, Floats]) -> None:
    """Measures the edges that run along pixels."""
    coords, offsets, scale, (areas, lengths) = arcs.coords, arcs.offsets, arcs.scale, out
    at_x, at_y, flux, upright, flat = tables
    for arc in range(areas.shape[0]):
        area, length = 0.0, 0.0
        for at in range(offsets[arc], offsets[arc + 1] - 1):
            x, y = np.int64(coords[at, 0]), np.int64(coords[at, 1])
            to_x, to_y = np.int64(coords[at + 1, 0]), np.int64(coords[at + 1, 1])
            if not _runs_along(x, y, to_x, to_y, scale):
                continue
            if scale != 1:
                x, y, to_x, to_y = x // scale, y // scale, to_x // scale, to_y // scale
            for col in range(min(x, to_x), max(x, to_x)):
                for order in range(flat.shape[1]):
                    length += flat[col, order] * at_y[y, order]
            under = 0.0
            for row in range(min(y, to_y), max(y, to_y)):
                for order in range(flux.shape[1]):
                    under += flux[row, order] * at_x[x, order]
                for order in range(upright.shape[1]):
                    length += upright[row, order] * at_x[x, order]
            area += under if to_y > y else -under
        areas[arc], lengths[arc] = area, length


@jit
def _measure_aslant(arcs: Arcs, ground: _Ground, batch: _Batch, out: tuple[Floats, Floats]) -> None:
    """Adds the other edges, in pieces and in batches."""
    coords, offsets, scale = arcs.coords, arcs.offsets, arcs.scale
    arc_of, edge, (cols, rows) = batch.arc, batch.edge, ground.piece
    waiting = 0
    for arc in range(offsets.shape[0] - 1):
        for at in range(offsets[arc], offsets[arc + 1] - 1):
            x, y = np.int64(coords[at, 0]), np.int64(coords[at, 1])
            to_x, to_y = np.int64(coords[at + 1, 0]), np.int64(coords[at + 1, 1])
            if _runs_along(x, y, to_x, to_y, scale):
                continue
            dx, dy, pieces = (to_x - x) / scale, (to_y - y) / scale, 1
            if abs(dx) > cols or abs(dy) > rows:
                pieces = ceil(max(abs(dx) / cols, abs(dy) / rows))
                dx, dy = dx / pieces, dy / pieces
            for piece in range(pieces):
                if waiting == arc_of.shape[0]:
                    _integrate(ground, batch, waiting, out)
                    waiting = 0
                arc_of[waiting] = arc
                edge[0, waiting], edge[1, waiting] = x / scale + (piece + 0.5) * dx, y / scale + (piece + 0.5) * dy
                edge[2, waiting], edge[3, waiting] = dx, dy
                waiting += 1
    _integrate(ground, batch, waiting, out)


@jit
def _integrate(ground: _Ground, batch: _Batch, count: int, out: tuple[Floats, Floats]) -> None:
    """Adds the integrals over the edges of a batch to those of their arcs."""
    x, y, dx, dy = batch.edge
    (rows, cols), values, at = ground.shape, batch.values, batch.at
    for point in range(2 * count):
        edge = point // 2
        at[point] = 2 * (x[edge] + (_GAUSS if point % 2 else -_GAUSS) * dx[edge]) / cols - 1
    _fill_basis(at, 2 * count, batch.in_x)
    for point in range(2 * count):
        edge = point // 2
        at[point] = 2 * (y[edge] + (_GAUSS if point % 2 else -_GAUSS) * dy[edge]) / rows - 1
    _fill_basis(at, 2 * count, batch.in_y)
    _evaluate(ground.flux, batch, 2 * count, values[3])
    for part in range(3):
        _evaluate(ground.steps[part], batch, 2 * count, values[part])
    for point in range(2 * count):
        edge, arc = point // 2, batch.arc[point // 2]
        squared = dx[edge] ** 2 * values[0, point] + dy[edge] ** 2 * values[2, point]
        squared += 2 * dx[edge] * dy[edge] * values[1, point]
        out[0][arc] += 0.5 * dy[edge] * values[3, point]
        out[1][arc] += 0.5 * np.sqrt(max(squared, 0.0))


@jit
def _add_sides(
    sides: tuple[NDArray[np.int32], NDArray[np.int32]],
    measures: tuple[Floats, Floats],
    groups: NDArray[np.int32],
    out: tuple[Floats, Floats],
) -> None:
    """Adds each arc's measures to both its sides, in the order of the arcs."""
    for arc in range(sides[0].shape[0]):
        left, right = groups[sides[0][arc]], groups[sides[1][arc]]
        area, length = measures[0][arc], measures[1][arc]
        if left != right:
            out[0][left] -= area  # y runs down: a patch on the left is walked against the sense of the integral
            out[0][right] += area
            out[1][left] += length
            out[1][right] += length
