"""Polygons from one CRS to another: bent, cut where the globe is cut, and closed over its poles."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.crs import CRS
from shapely.geometry.base import BaseGeometry

from geoseg.io.grids import transform, turn_of

# A straight edge of this length stays within centimetres of itself in any projection made for the place.
DENSE_M = 1000.0
DENSE_DEGREES = 0.01
# Edges that long, in lengths of the above, are looked at: a projection may be torn between their ends.
LEAP = 100
# A point off the globe comes back from longitude and latitude elsewhere, by more than this.
OFF_M = 10.0
Geometries = NDArray[np.object_]
Floats = NDArray[np.float64]


class World(NamedTuple):
    """The globe in a CRS whose first axis is longitude, evenly and at all latitudes."""

    left: float
    bottom: float
    right: float
    top: float

    @property
    def turn(self) -> float:
        """Once around."""
        return self.right - self.left


def dense_length(crs: CRS | None) -> float:
    """Length, in units of a CRS, that the edges of `Polygons.dense` stay within."""
    if crs is None:
        return math.inf
    if crs.geographic:
        return DENSE_DEGREES
    return DENSE_M / (crs.proj.axis_info[0].unit_conversion_factor or 1)


@lru_cache(maxsize=256)
def _longitudes(crs: CRS) -> CRS | None:
    """Longitude and latitude on the datum of a CRS; None where it lies on no globe."""
    base = crs.proj.geodetic_crs
    return None if base is None else CRS(base)


@lru_cache(maxsize=256)
def world_of(crs: CRS) -> World | None:
    """The globe in a geographic or cylindrical CRS, as Mercator; None for all others."""
    turn = turn_of(crs)
    if turn is not None:
        return World(-turn / 2, -turn / 4, turn / 2, turn / 4)
    base, operation = _longitudes(crs), crs.proj.coordinate_operation
    if base is None or operation is None:
        return None
    full = turn_of(base) or 360.0
    lon, lat = np.meshgrid(np.arange(-4, 5) * full / 8, np.array([-1, 0, 1]) * full / 6)
    x, y = transform(lon, lat, base, crs)
    steps = np.diff(x)
    turn = 8 * float(np.median(steps))
    middle = sum(float(each.value) for each in operation.params if each.name == "False easting")
    # Where the world is cut an eighth of a turn leads back to the other side; NaN fails everything here.
    uneven = np.abs(np.mod(steps + turn * 3 / 8, turn) - turn / 2).max() if turn > 0 else math.inf
    if not max(uneven, np.ptp(y, axis=1).max(), np.abs(x - middle).max() - turn / 2) < 1e-6 * turn:
        return None
    _, poles = transform(np.zeros(2), np.array([-1, 1]) * full / 4, base, crs)
    bottom, top = np.where(np.isfinite(poles), poles, np.array([-10, 10]) * turn).tolist()
    return World(middle - turn / 2, bottom, middle + turn / 2, top)


def on_globe(x: Floats, y: Floats, crs: CRS) -> NDArray[np.bool_]:
    """Which points of a CRS are a place on the globe; in a geographic one all are."""
    base = _longitudes(crs)
    if base is None or crs.geographic:
        return np.isfinite(x) & np.isfinite(y)
    back_x, back_y = transform(*transform(x, y, crs, base), base, crs)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.hypot(back_x - x, back_y - y) <= dense_length(crs) * OFF_M / DENSE_M)


def moved(
    shapes: Geometries, source: CRS, target: CRS, onto: Callable[[Floats, Floats], tuple[Floats, Floats]] | None = None
) -> Geometries:
    """Shapes of one CRS in another; those that the antimeridian or a pole cuts there in pieces.

    Args:
        shapes: Polygons with points along their long edges.
        source: Their CRS.
        target: Another one.
        onto: What is done to coordinates of `target` at last.

    Returns:
        The shapes; None where one has no place, or is torn otherwise.
    """
    coordinates, index = shapely.get_coordinates(shapes, return_index=True)
    x, y = transform(coordinates[:, 0], coordinates[:, 1], source, target)
    suspects = np.union1d(_suspects(shapes, x, y, index, target), _inverted(shapes, (x, y), source))
    x, y = (x, y) if onto is None else onto(x, y)
    found, plain = shapes.copy(), np.ones(len(shapes), np.bool_)
    plain[suspects] = False
    kept = plain[index] if len(suspects) else slice(None)
    found[plain] = shapely.set_coordinates(shapes[plain], np.column_stack([x[kept], y[kept]]))
    for place in suspects.tolist():
        shape = _untorn(shapes[place], source, target)
        found[place] = shape if shape is None or onto is None else shapely.transform(shape, onto, interleaved=False)
    return found


def _suspects(shapes: Geometries, x: Floats, y: Floats, index: NDArray[np.int64], crs: CRS) -> NDArray[np.int64]:
    """Shapes, by their place in `index`, with a point that has no place or an edge that leaps."""
    world = world_of(crs)
    with np.errstate(invalid="ignore"):
        if world is not None:
            leaps = ~(np.abs(np.diff(x)) <= world.turn / 2)
        else:
            leaps = ~(np.abs(np.diff(x)) + np.abs(np.diff(y)) <= LEAP * dense_length(crs))
    leaps &= index[1:] == index[:-1]
    found = np.unique(index[1:][leaps])
    if len(found):  # from one ring of a shape to its next there is no edge
        rings = shapely.get_rings(shapely.get_parts(shapes[found]))
        starts = np.cumsum(shapely.get_num_coordinates(rings))[:-1]
        leaps[np.flatnonzero(np.isin(index, found))[starts] - 1] = False
    return np.unique(index[1:][leaps])


def _inverted(shapes: Geometries, there: tuple[Floats, Floats], crs: CRS) -> NDArray[np.int64]:
    """Wide shapes of `crs` with a ring that runs the other way round `there`, for it holds what has no place there."""
    left, bottom, right, top = shapely.bounds(shapes).reshape(-1, 4).T
    wide = np.fmax(right - left, top - bottom) > 10 * LEAP * dense_length(crs)
    if not wide.any():
        return np.zeros(0, np.int64)
    parts, owner = shapely.get_parts(shapes[wide], return_index=True)
    rings, of_part = shapely.get_rings(parts, return_index=True)
    here, index = shapely.get_coordinates(shapes, return_index=True)
    stops, of_wide = np.cumsum(shapely.get_num_coordinates(rings)), wide[index]
    flipped = _areas(here[of_wide], stops) * _areas(np.column_stack(there)[of_wide], stops) < 0
    return np.asarray(np.flatnonzero(wide)[np.unique(owner[of_part[flipped]])], dtype=np.int64)


def _areas(points: Floats, stops: NDArray[np.int64]) -> Floats:
    """Twice the area of each ring, less than nothing where it runs clockwise; rings lie one after the other."""
    x, y = points.T
    cross = np.zeros_like(x)
    with np.errstate(invalid="ignore", over="ignore"):
        cross[:-1] = (x[1:] - x[:-1]) * (y[1:] + y[:-1])
        cross[stops - 1] = 0
        return -np.add.reduceat(cross, np.concatenate([[0], stops[:-1]]))


def _untorn(shape: BaseGeometry, source: CRS, target: CRS) -> BaseGeometry | None:
    """A shape in another CRS where some edges leap; None where it has no place there in pieces that are known."""
    world, found = world_of(target), []
    for ring in map(shapely.get_coordinates, shapely.get_rings(shapely.get_parts(shape))):
        there = np.column_stack(transform(ring[:, 0], ring[:, 1], source, target))
        if not np.isfinite(there).all() or (world is None and _is_torn(ring, there, source, target)):
            return None
        turns = 0 if world is None else _unwind(there, world.turn)
        stop = np.array([len(ring)])
        if not turns and _areas(ring, stop)[0] * _areas(there, stop)[0] < 0:
            return None
        found.append(there)
    if world is not None:
        return _unrolled(shape, found, world)
    return shapely.set_coordinates(shape, np.concatenate(found))


def _is_torn(ring: Floats, there: Floats, source: CRS, target: CRS) -> bool:
    """Whether the middle of a long edge of `ring` is not about the middle of that edge `there`."""
    edges = np.diff(there, axis=0)
    long = np.abs(edges).sum(axis=1) > LEAP * dense_length(target)
    middle = (ring[:-1] + ring[1:])[long] / 2
    off = np.column_stack(transform(middle[:, 0], middle[:, 1], source, target)) - (there[:-1] + there[1:])[long] / 2
    return not bool((np.hypot(off[:, 0], off[:, 1]) <= np.hypot(edges[long, 0], edges[long, 1]) / 4).all())


def _unwind(points: Floats, turn: float) -> int:
    """How often a ring goes around the globe to the east; its longitudes are made ones without leaps, in place."""
    points[1:, 0] -= turn * np.cumsum(np.round(np.diff(points[:, 0]) / turn))
    return round(float(points[-1, 0] - points[0, 0]) / turn)


def _unrolled(shape: BaseGeometry, rings: list[Floats], world: World) -> BaseGeometry | None:
    """A shape whose rings, without leaps, are given in another CRS, cut along the antimeridian of that."""
    unwound, parts = iter(rings), []
    for part in shapely.get_parts(shape):
        outer, *holes = (_inside(next(unwound), world, ccw=bool(ring.is_ccw)) for ring in shapely.get_rings(part))
        parts.append(shapely.difference(outer, shapely.union_all(holes)))
    return areal_part(shapely.union_all(parts))


def _inside(points: Floats, world: World, *, ccw: bool) -> BaseGeometry:
    """What a ring on the globe holds; `ccw` where that is on the ring's left."""
    turn, (first, last) = world.turn, points[[0, -1], 0].tolist()
    if turns := round((last - first) / turn):
        # Going east the north is on the left.
        pole = world.top if (turns > 0) == ccw else world.bottom
        points = np.vstack([points, [[last, pole], [first, pole]]])
    whole = shapely.make_valid(shapely.Polygon(points))
    laps = range(
        math.ceil((world.left - points[:, 0].max()) / turn), math.floor((world.right - points[:, 0].min()) / turn) + 1
    )
    copies = [shapely.transform(whole, lambda xy, by=by * turn: xy + np.array([by, 0])) for by in laps]
    return shapely.union_all(shapely.intersection(np.array(copies, dtype=object), shapely.box(*world)))


def areal_part(shape: BaseGeometry | None) -> BaseGeometry | None:
    """The polygons of a shape; None where it has none."""
    if shape is None or shape.is_empty or shapely.get_dimensions(shape) < 2:
        return None
    if shape.geom_type in ("Polygon", "MultiPolygon"):
        return shape
    return shapely.MultiPolygon(list(_flat(shape.geoms)))


def _flat(shapes: Iterable[BaseGeometry]) -> Iterable[BaseGeometry]:
    for shape in shapes:
        if hasattr(shape, "geoms"):
            yield from _flat(shape.geoms)
        elif shape.geom_type == "Polygon" and not shape.is_empty:
            yield shape
