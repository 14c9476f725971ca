"""Rings whose edges meet at right angles, fitted to rings that do so roughly, as those of buildings in a raster do."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geoseg.jit import jit
from geoseg.vector.regions import Ints

# Columns of a run of edges that follow one of the two directions.
_ALONG_X, _Y_DX, _ALONG_Y, _X_DY = range(4)
_PASSES = 2  # the direction of the rough ring sorts the edges, that of the sorted edges is the one that is meant


@jit
def fit_rings(
    exact: NDArray[np.float64], exact_offsets: Ints, rough: NDArray[np.float64], rough_offsets: Ints, shortest: float
) -> tuple[NDArray[np.float64], Ints]:
    """Rectilinear rings, flat, and their offsets; one is empty where there is none for its ring.

    Args:
        exact: Vertices `(vertex, xy)` of rings that end where they began, flat.
        exact_offsets: Where each begins.
        rough: The same rings with fewer vertices, which are some of theirs, in their order; at least four different.
        rough_offsets: Where each begins.
        shortest: Edges of the result are no shorter, but of a ring that has four.
    """
    out = np.empty((rough.shape[0] + 5 * rough_offsets.shape[0], 2), np.float64)
    offsets = np.zeros(rough_offsets.shape[0], np.int64)
    for ring in range(offsets.shape[0] - 1):
        fine = exact[exact_offsets[ring] : exact_offsets[ring + 1]]
        coarse = rough[rough_offsets[ring] : rough_offsets[ring + 1]]
        offsets[ring + 1] = offsets[ring] + _fit_ring(fine, coarse, shortest, out[offsets[ring] :])
    return out[: offsets[-1]].copy(), offsets


@jit
def _fit_ring(
    fine: NDArray[np.float64], coarse: NDArray[np.float64], shortest: float, out: NDArray[np.float64]
) -> int:  # fmt: skip
    """Writes one ring. Returns its vertices with the closing one, or 0."""
    at = _match(fine, coarse)
    if at[0] < 0:
        return 0
    angle = _main_direction(coarse)
    for _ in range(_PASSES):
        angle += _tilt(_turned(fine, -angle), _turned(coarse, -angle), at)
    upright = _turned(fine, -angle)
    runs = _find_runs(upright, _turned(coarse, -angle), at)
    runs = _without_short(runs, shortest)
    count = int(runs.shape[0])
    if count < 4 or count % 2 == 1:
        return 0
    corners = np.empty((count + 1, 2), np.float64)
    for run in range(count):
        following = (run + 1) % count
        flat, steep = (run, following) if run % 2 == 0 else (following, run)
        corners[run, 0], corners[run, 1] = _offset(runs, steep), _offset(runs, flat)
    corners[count] = corners[0]
    out[: count + 1] = _turned(corners, angle)
    return count + 1


@jit
def _match(fine: NDArray[np.float64], coarse: NDArray[np.float64]) -> Ints:
    """Which vertex of the exact ring each of the rough one is, counted on past the end; -1 first where one is none."""
    size = fine.shape[0] - 1
    at = np.empty(coarse.shape[0], np.int64)
    vertex = 0
    for corner in range(coarse.shape[0]):
        tries = 0
        while fine[vertex % size, 0] != coarse[corner, 0] or fine[vertex % size, 1] != coarse[corner, 1]:
            vertex, tries = vertex + 1, tries + 1
            if tries > size:
                at[0] = -1
                return at
        at[corner] = vertex
        vertex += 1
    return at


@jit
def _main_direction(ring: NDArray[np.float64]) -> float:
    """Angle from the x axis, within 45°, that edges follow or are square to; long ones count more, by their square."""
    real, imaginary = 0.0, 0.0
    for vertex in range(ring.shape[0] - 1):
        dx, dy = ring[vertex + 1, 0] - ring[vertex, 0], ring[vertex + 1, 1] - ring[vertex, 1]
        fourfold = 4.0 * np.arctan2(dy, dx)
        real += (dx * dx + dy * dy) * np.cos(fourfold)
        imaginary += (dx * dx + dy * dy) * np.sin(fourfold)
    return float(np.arctan2(imaginary, real) / 4.0)


@jit
def _turned(ring: NDArray[np.float64], angle: float) -> NDArray[np.float64]:
    cosine, sine = np.cos(angle), np.sin(angle)
    out = np.empty_like(ring)
    for vertex in range(ring.shape[0]):
        out[vertex, 0] = cosine * ring[vertex, 0] - sine * ring[vertex, 1]
        out[vertex, 1] = sine * ring[vertex, 0] + cosine * ring[vertex, 1]
    return out


@jit
def _is_flat(ring: NDArray[np.float64], vertex: int) -> bool:
    return bool(abs(ring[vertex + 1, 0] - ring[vertex, 0]) >= abs(ring[vertex + 1, 1] - ring[vertex, 1]))


@jit
def _tilt(fine: NDArray[np.float64], coarse: NDArray[np.float64], at: Ints) -> float:
    """Angle by which the lines of least squares through the exact ring, one for each rough edge, are turned.

    All lines have one direction or are square to it, so their second moments are added up, turned back.
    """
    spread, shear = 0.0, 0.0
    for edge in range(coarse.shape[0] - 1):
        weight, x, y, xx, yy, xy = _moments(fine, at[edge], at[edge + 1])
        if weight > 0:
            sign = 1.0 if _is_flat(coarse, edge) else -1.0
            spread += sign * ((xx - x * x / weight) - (yy - y * y / weight))
            shear += sign * (xy - x * y / weight)
    return float(0.5 * np.arctan2(2.0 * shear, spread))


@jit
def _moments(fine: NDArray[np.float64], begin: int, end: int) -> tuple[float, float, float, float, float, float]:
    """Length of a part of a ring, and the integrals of x, y, x², y² and xy along it."""
    size = fine.shape[0] - 1
    weight, x, y, xx, yy, xy = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for vertex in range(begin, end):
        x0, y0 = fine[vertex % size, 0], fine[vertex % size, 1]
        dx, dy = fine[vertex % size + 1, 0] - x0, fine[vertex % size + 1, 1] - y0
        length, mid_x, mid_y = np.hypot(dx, dy), x0 + dx / 2, y0 + dy / 2
        weight, x, y = weight + length, x + length * mid_x, y + length * mid_y
        xx += length * (mid_x * mid_x + dx * dx / 12)
        yy += length * (mid_y * mid_y + dy * dy / 12)
        xy += length * (mid_x * mid_y + dx * dy / 12)
    return weight, x, y, xx, yy, xy


@jit
def _find_runs(fine: NDArray[np.float64], coarse: NDArray[np.float64], at: Ints) -> NDArray[np.float64]:
    """Runs of edges that follow x, then of edges that follow y, in turns, beginning with one along x.

    Of each run, how far it goes along x and along y, and the integrals of y over x and of x over y.
    """
    size, edges = fine.shape[0] - 1, coarse.shape[0] - 1
    first = 0
    while first < edges and not (_is_flat(coarse, first) and not _is_flat(coarse, (first - 1) % edges)):
        first += 1
    runs = np.zeros((edges, 4), np.float64)
    if first == edges:
        return runs[:0]
    run, flat = 0, True
    for step in range(edges):
        edge = (first + step) % edges
        if _is_flat(coarse, edge) != flat:
            run, flat = run + 1, not flat
        for vertex in range(at[edge], at[edge + 1]):
            x0, y0 = fine[vertex % size, 0], fine[vertex % size, 1]
            dx, dy = fine[vertex % size + 1, 0] - x0, fine[vertex % size + 1, 1] - y0
            runs[run, _ALONG_X] += dx
            runs[run, _Y_DX] += (y0 + dy / 2) * dx
            runs[run, _ALONG_Y] += dy
            runs[run, _X_DY] += (x0 + dx / 2) * dy
    return runs[: run + 1].copy()


@jit
def _offset(runs: NDArray[np.float64], run: int) -> float:
    """Height of a run along x, or place of one along y, that keeps the area beneath it."""
    along, beneath = (_ALONG_X, _Y_DX) if run % 2 == 0 else (_ALONG_Y, _X_DY)
    return float(runs[run, beneath] / runs[run, along]) if runs[run, along] != 0 else np.inf


@jit
def _without_short(runs: NDArray[np.float64], shortest: float) -> NDArray[np.float64]:
    """The runs once those that would be too short are one with their neighbours, shortest first, down to four."""
    while runs.shape[0] > 4:
        count, best, least = runs.shape[0], -1, shortest
        for run in range(count):
            length = abs(_offset(runs, (run + 1) % count) - _offset(runs, run - 1 if run > 0 else count - 1))
            if length < least:
                best, least = run, length
        if best < 0:
            break
        # Turned by an even number of places, runs along x keep the even ones; the short one comes to 1 or 2.
        place = 1 if best % 2 == 1 else 2
        fewer = np.empty((count - 2, 4), np.float64)
        for run in range(count - 2):
            fewer[run] = runs[(best - place + run + (0 if run < place else 2)) % count]
        fewer[place - 1] += runs[best] + runs[(best + 1) % count]
        runs = fewer
    return runs
