"""A layer in longitudes and latitudes as maps of the world want them: from -180° to 180°, poles included.

A ring that crosses the 180th meridian jumps there from one end of the map to the other, and one around a pole does not
even close. So each such ring is followed with longitudes that run on, led along the pole where it encloses that, and
cut where a turn of the globe ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from geoseg.vector.formats.frames import flatten
from geoseg.vector.formats.reproject import densify, longest_edge, transformed
from geoseg.vector.formats.split import select_features
from geoseg.vector.layer import FeatureBatch, PolygonLayer
from geoseg.vector.regions import Ints
from geoseg.vector.rings import Polygons

LONLAT = "OGC:CRS84"

_HALF, _TURN, _POLE = 180.0, 360.0, 90.0
_NEAR = 1e-9  # degrees, a tenth of a millimetre
_STEPS = 2.0**40  # of a degree

Floats = NDArray[np.float64]


def to_lonlat(layer: PolygonLayer) -> PolygonLayer:
    """The layer in longitudes and latitudes in WGS 84, its polygons parted at 180° and closed along the poles.

    Features that are parted come after the others of their batch, those of several polygons in a batch of their own.

    Args:
        layer: Has a CRS.

    Raises:
        InputError: While a batch is made: a vertex has no longitude and latitude.
    """
    transformer = pyproj.Transformer.from_crs(layer.crs, LONLAT, always_xy=True)
    longest = longest_edge(layer)

    def batches() -> Iterator[FeatureBatch]:
        for batch in layer.batches():
            source = batch._replace(rings=densify(batch.rings, longest))
            lonlat = _snapped(transformed(source.rings.coords, transformer, LONLAT))
            moved = batch._replace(rings=replace(source.rings, coords=lonlat))
            special = _are_special(moved)
            if not special.any():
                yield moved
                continue
            if not special.all():
                yield select_features(moved, ~special)
            drawn = select_features(source, special).rings.coords
            yield from _parted(select_features(moved, special), drawn)

    return replace(layer, crs=pyproj.CRS(LONLAT), batches=batches)


def _snapped(coords: Floats) -> Floats:
    """Coordinates with what is all but on the 180th meridian, either side, on it.

    Longitudes have 40 binary digits after the point, so that no turn of the globe added or taken away rounds them.
    """
    lon = np.round(coords[:, 0] * _STEPS) / _STEPS
    coords[:, 0] = np.where(np.abs(np.abs(lon) - _HALF) < _NEAR, np.copysign(_HALF, lon), lon)
    return coords


def _are_special(batch: FeatureBatch) -> NDArray[np.bool_]:
    """Which features leave the map, jump from one end of it to the other, or have a corner at a pole."""
    rings = batch.rings
    lon, lat = rings.coords.T
    inside = np.ones(len(lon), bool)  # whether the edge to each vertex is one, not the step to the next ring
    inside[rings.ring_offsets[:-1]] = False
    leaves = np.abs(lon) > _HALF
    leaves[1:] |= inside[1:] & (np.abs(np.diff(lon)) > _HALF)
    polar = np.abs(lat) > _POLE - _NEAR
    if polar.any():
        beside = np.zeros(len(lon), bool)
        beside[1:] |= inside[1:] & polar[:-1]
        beside[:-1] |= inside[1:] & polar[1:]
        leaves |= polar & ~beside
    up_to = np.concatenate([[0], np.cumsum(leaves)])[rings.ring_offsets[rings.polygon_offsets[batch.parts]]]
    return np.diff(up_to) > 0


def _parted(batch: FeatureBatch, drawn: Floats) -> Iterator[FeatureBatch]:
    """The features in the map: first those of one polygon, then those of several.

    Args:
        batch: Features in longitudes and latitudes.
        drawn: The same vertices as they were drawn, which tells which way a ring runs.
    """
    rings = batch.rings
    starts, ends = rings.ring_offsets[:-1], rings.ring_offsets[1:]
    discs = np.array([_disc(rings.coords[a:b], drawn[a:b]) for a, b in zip(starts, ends, strict=True)], object)
    owners = np.repeat(np.arange(len(rings.polygon_offsets) - 1), np.diff(rings.polygon_offsets))
    polygons = _pierced(_in_map(discs), rings.polygon_offsets, owners)
    owners = np.repeat(np.arange(len(batch.parts) - 1), np.diff(batch.parts))
    features = _joined(polygons, owners, len(batch.parts) - 1)
    sizes = shapely.get_num_geometries(features)
    for chosen in (sizes == 1, sizes > 1):
        if chosen.any():
            table = select_features(batch, chosen).table
            yield FeatureBatch(table, *flatten(shapely.orient_polygons(features[chosen])))


def _disc(ring: Floats, drawn: Floats) -> shapely.Polygon:
    """What a ring encloses, holes not heeded, in longitudes that run on and may leave the map."""
    x, y = (drawn[:-1] - drawn[0]).T
    counter_clockwise = x @ np.roll(y, -1) - y @ np.roll(x, -1) > 0
    line = _followed(ring[:-1] if counter_clockwise else ring[-2::-1])
    disc = shapely.Polygon(line)
    return disc if disc.is_valid else shapely.make_valid(disc, method="structure", keep_collapsed=False)


def _followed(ring: Floats) -> Floats:
    """A counter-clockwise ring `(vertex, 2)`, not closed, in longitudes that run on; around a pole with it."""
    ring, corner = _with_corners(ring)
    lon, turns = _run_on(ring, corner)
    if turns == 0:
        return np.column_stack([lon, ring[:, 1]])
    # From the vertex next to the pole no other part of the ring is in the way there.
    pole = np.copysign(_POLE, turns)
    nearest = -int(np.argmax(ring[:, 1] / pole))
    ring = np.roll(ring, nearest, 0)
    lon, _ = _run_on(ring, np.roll(corner, nearest))
    end = lon[0] + turns * _TURN
    return np.vstack([np.column_stack([lon, ring[:, 1]]), [end, ring[0, 1]], [end, pole], [lon[0], pole]])


def _run_on(ring: Floats, corner: NDArray[np.bool_]) -> tuple[Floats, int]:
    """Longitudes without jumps, and how often the ring goes round the globe, eastwards.

    A pole has every longitude: a ring that has a corner there arrives by one and leaves by another. What is enclosed
    lies on the left, so it runs west along the north pole and east along the south pole.
    """
    steps = np.diff(ring[:, 0], append=ring[0, 0])
    north = ring[:, 1] > 0
    along = np.where(north, -(-steps % _TURN), steps % _TURN)
    steps = np.where(corner, along, (steps + _HALF) % _TURN - _HALF)
    lon = ring[0, 0] + np.concatenate([[0], np.cumsum(steps)])
    whole = _TURN * np.round((lon[:-1] - ring[:, 0]) / _TURN)  # to the last digit
    return ring[:, 0] + whole, round((lon[-1] - lon[0]) / _TURN)


def _with_corners(ring: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """The ring with two vertices for each corner at a pole, and which is the first of such two.

    Where several vertices in a row lie at a pole it is a line in the map's own CRS, and their longitudes do count.
    """
    polar = np.abs(ring[:, 1]) > _POLE - _NEAR
    corner = polar & ~np.roll(polar, 1) & ~np.roll(polar, -1)
    if not corner.any():
        return ring, corner
    shift = -int(np.flatnonzero(~corner)[0])
    ring, corner = np.roll(ring, shift, 0), np.roll(corner, shift)
    doubled = np.repeat(ring, 1 + corner, 0)
    first = np.flatnonzero(corner) + np.arange(corner.sum())
    doubled[first, 0], doubled[first + 1, 0] = doubled[first - 1, 0], doubled[(first + 2) % len(doubled), 0]
    is_first = np.zeros(len(doubled), bool)
    is_first[first] = True
    return doubled, is_first


def _in_map(discs: Polygons) -> Polygons:
    """Polygons of any longitudes, moved by whole turns and cut so that they lie within -180° and 180°."""
    west, _, east, _ = shapely.bounds(discs).T
    low, high = np.floor((west.min() + _HALF) / _TURN), np.ceil((east.max() - _HALF) / _TURN)
    pieces, owners = [], []
    for turn in np.arange(low, high + 1):
        near = np.flatnonzero((west < _HALF + turn * _TURN) & (east > turn * _TURN - _HALF))
        window = shapely.box(turn * _TURN - _HALF, -_POLE, turn * _TURN + _HALF, _POLE)
        cut = shapely.intersection(discs[near], window)
        pieces.append(shapely.transform(cut, lambda xy, turn=turn: xy - [turn * _TURN, 0]))
        owners.append(near)
    return _joined(np.concatenate(pieces), np.concatenate(owners), len(discs))


def _pierced(discs: Polygons, polygon_offsets: Ints, owners: Ints) -> Polygons:
    """The first of each polygon's discs without the others."""
    outer = np.zeros(len(discs), bool)
    outer[polygon_offsets[:-1]] = True
    holes = _joined(discs[~outer], owners[~outer], len(polygon_offsets) - 1)
    pierced: Polygons = shapely.difference(discs[outer], holes)
    return pierced


def _joined(geometries: Polygons, owners: Ints, count: int) -> Polygons:
    """The union `(owner,)` of the polygons of each owner; lines and points that a cut leaves are dropped."""
    parts, index = shapely.get_parts(geometries, return_index=True)
    kept = (shapely.get_type_id(parts) == shapely.GeometryType.POLYGON) & (shapely.area(parts) > 0)
    parts, index = parts[kept], owners[index[kept]]
    order = np.argsort(index, kind="stable")
    bounds = np.searchsorted(index[order], np.arange(count + 1))
    joined: Polygons = np.array([_union(parts[order[a:b]]) for a, b in pairwise(bounds)], object)
    return joined


def _union(polygons: Polygons) -> shapely.Polygon | shapely.MultiPolygon:
    return polygons[0] if len(polygons) == 1 else shapely.union_all(polygons)
