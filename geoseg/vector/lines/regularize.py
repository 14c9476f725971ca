"""Right angles for things: boundaries of buildings and their like as rings whose edges are square to each other."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.vector.coverage import Arcs
from geoseg.vector.lines.corridor import SUBPIXEL
from geoseg.vector.lines.rectilinear import fit_rings
from geoseg.vector.lines.simplify import simplify_arcs
from geoseg.vector.regions import Ints

_LEAST_IOU = 0.75  # of the new shape with the old one
_AREA_CHANGE = 0.05  # of the old area
_APART = 2  # units between what changes and any other boundary
_CHUNK = 1 << 17  # arcs that are held against the new shapes at a time

Geometries = np.ndarray[tuple[int], np.dtype[np.object_]]


def regularize_arcs(
    arcs: Arcs, things: NDArray[np.bool_], *, pixel: tuple[float, float] = (1.0, 1.0), tolerance: float
) -> Arcs:
    """The arcs, in 1/256 pixel, with right angles where one alone parts a thing from what is around it or in it.

    Such a ring is replaced by one whose edges follow, in turns, the direction that most of its edges have and the one
    square to it, each placed so that the area beneath it stays. It is left as it was where the new one would change its
    area by more than 5 %, have an intersection over union with it below 0.75, or come near another boundary; of two new
    ones too near each other the first is taken. Boundaries of things with nodata, and with several neighbours, stay.

    Args:
        arcs: The boundaries: as they were traced, smoothed or simplified.
        things: Which regions are things, nodata first, `(region,)`.
        pixel: Size of a pixel along x and y, in the unit of the tolerance; angles are right in that unit.
        tolerance: Edges shorter than this, or than a pixel, are no edges of the thing.

    Raises:
        InputError: A tolerance below 0, or a pixel without size.
    """
    if not 0 <= tolerance < np.inf:
        raise InputError(f"the tolerance must be 0 or more, got {tolerance}")
    if not (0 < pixel[0] < np.inf and 0 < pixel[1] < np.inf):
        raise InputError(f"a pixel's size along x and y must be above 0, got {pixel[0]} x {pixel[1]}")
    fine = arcs._replace(coords=arcs.coords * np.int32(SUBPIXEL // arcs.scale), scale=SUBPIXEL)
    inner = (arcs.left != 0) & (arcs.right != 0) & (arcs.junctions[:, 0] < 0)
    rings = np.flatnonzero(inner & (things[arcs.left] | things[arcs.right]))
    if len(rings) == 0:
        return fine
    exact = _selected(fine, rings)
    coords, offsets = _fit(exact, pixel, max(tolerance, *pixel))
    fitted = np.flatnonzero(np.diff(offsets))
    old, new = _polygons(exact.coords, exact.offsets)[fitted], _polygons(coords, np.unique(offsets))
    alike = _are_alike(old, new)
    fitted, changes = fitted[alike], shapely.symmetric_difference(old[alike], new[alike])
    chosen = fitted[_first_of_near(changes, ~_near_others(fine, rings[fitted], changes))]
    return _replaced(fine, rings[chosen], coords, np.stack([offsets[chosen], offsets[chosen + 1]], axis=1))


def _selected(arcs: Arcs, which: Ints) -> Arcs:
    """Some closed arcs alone."""
    sizes = np.diff(arcs.offsets)[which]
    offsets = np.append(0, np.cumsum(sizes))
    index = np.repeat(arcs.offsets[which] - offsets[:-1], sizes) + np.arange(offsets[-1])
    return arcs._replace(
        coords=arcs.coords[index], offsets=offsets, left=arcs.left[which], right=arcs.right[which],
        junctions=arcs.junctions[which], leaving=arcs.leaving[which], junction_count=0,
    )  # fmt: skip


def _fit(exact: Arcs, pixel: tuple[float, float], shortest: float) -> tuple[NDArray[np.int32], Ints]:
    """Rectilinear rings, flat, in the arcs' units, and their offsets; some are empty."""
    rough = simplify_arcs(exact, tolerance=max(pixel), pixel=pixel, method="douglas-peucker")
    unit = np.array(pixel) / SUBPIXEL
    coords, offsets = fit_rings(exact.coords * unit, exact.offsets, rough.coords * unit, rough.offsets, shortest)
    return np.rint(coords / unit).astype(np.int32), offsets


def _polygons(coords: NDArray[np.int32], offsets: Ints) -> Geometries:
    """A polygon of each ring."""
    parts = (offsets, np.arange(len(offsets)))
    polygons: Geometries = shapely.from_ragged_array(shapely.GeometryType.POLYGON, coords.astype(np.float64), parts)
    return polygons


def _are_alike(old: Geometries, new: Geometries) -> NDArray[np.bool_]:
    """Which new shapes are valid, run the same way round as the old, and are about the same."""
    alike: NDArray[np.bool_] = shapely.is_valid(new)
    alike &= shapely.is_ccw(shapely.get_exterior_ring(old)) == shapely.is_ccw(shapely.get_exterior_ring(new))
    before, after = shapely.area(old[alike]), shapely.area(new[alike])
    shared = shapely.area(shapely.intersection(old[alike], new[alike]))
    close = np.abs(after - before) <= _AREA_CHANGE * before
    alike[alike] = close & (shared >= _LEAST_IOU * (before + after - shared))
    return alike


def _near_others(arcs: Arcs, rings: Ints, changes: Geometries) -> NDArray[np.bool_]:
    """Which changes, each the area that one of the rings gains or loses, touch or hold some of another arc.

    Where none does, no other arc comes to lie on the new ring or on its other side: it would have to cross the old one.
    """
    near, tree = np.zeros(len(rings), np.bool_), shapely.STRtree(changes)
    for first in range(0, len(arcs.left), _CHUNK):
        offsets = arcs.offsets[first : first + _CHUNK + 1]
        coords = arcs.coords[offsets[0] : offsets[-1]].astype(np.float64)
        lines = shapely.from_ragged_array(shapely.GeometryType.LINESTRING, coords, (offsets - offsets[0],))
        line, change = tree.query(lines, predicate="dwithin", distance=_APART)
        near[change[rings[change] != line + first]] = True
    return near


def _first_of_near(changes: Geometries, free: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Of the changes that are free, each that is near none that was taken before it."""
    first, second = shapely.STRtree(changes).query(changes, predicate="dwithin", distance=_APART)
    taken = free.copy()
    for low, high in sorted(zip(first[first < second].tolist(), second[first < second].tolist(), strict=True)):
        taken[high] &= not taken[low]
    return taken


def _replaced(arcs: Arcs, which: Ints, coords: NDArray[np.int32], spans: Ints) -> Arcs:
    """The arcs with others' vertices, `coords[begin:end]`, in place of those of some of them."""
    starts, sizes = arcs.offsets[:-1].copy(), np.diff(arcs.offsets)
    starts[which], sizes[which] = spans[:, 0] + len(arcs.coords), spans[:, 1] - spans[:, 0]
    offsets = np.append(0, np.cumsum(sizes))
    index = np.repeat(starts - offsets[:-1], sizes) + np.arange(offsets[-1])
    return arcs._replace(coords=np.concatenate([arcs.coords, coords])[index], offsets=offsets)
