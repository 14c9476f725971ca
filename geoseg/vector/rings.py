"""Polygons put together from arcs.

The half-edges that have one region on their left, linked at the junctions, are its rings: a doubly connected edge list,
de Berg et al., Computational Geometry, 3rd ed., section 2.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from geoseg.jit import jit
from geoseg.vector.coverage import Arcs, junction_table
from geoseg.vector.regions import Ints

Polygons = np.ndarray[tuple[int], np.dtype[np.object_]]


@dataclass(frozen=True, slots=True, eq=False)
class Rings:
    """Polygons as flat arrays, in the order of their regions: the outer ring first, then the holes.

    Attributes:
        coords: Vertices `(vertex, xy)`; each ring ends where it began.
        ring_offsets: Ring `i` is `coords[ring_offsets[i]:ring_offsets[i + 1]]`.
        polygon_offsets: Polygon `i` has the rings `polygon_offsets[i]` to `polygon_offsets[i + 1] - 1`.
    """

    coords: NDArray[np.float64]
    ring_offsets: Ints
    polygon_offsets: Ints

    def to_polygons(self) -> Polygons:
        """Shapely polygons `(polygon,)`, made in one call."""
        polygons: Polygons = shapely.from_ragged_array(
            shapely.GeometryType.POLYGON, self.coords, (self.ring_offsets, self.polygon_offsets)
        )
        return polygons


class RingIndex(NamedTuple):
    """Where the rings of all polygons are found in the arcs.

    Attributes:
        ahead: The half-edge that follows each in its ring, int32 `(half-edge,)`.
        first: A half-edge of each ring, int32 `(ring,)`; polygon by polygon, the outer ring first.
        ring_offsets: Vertices before each ring, closing ones included, int64 `(ring + 1,)`.
        polygon_offsets: Rings before each polygon, int64 `(polygon + 1,)`.
    """

    ahead: NDArray[np.int32]
    first: NDArray[np.int32]
    ring_offsets: Ints
    polygon_offsets: Ints

    @property
    def vertices(self) -> int:
        """Number of vertices of all rings."""
        return int(self.ring_offsets[-1])


def build_rings(arcs: Arcs, *, count: int, clockwise: bool = False) -> Rings:
    """The polygons of the regions 1..count, which are 4-connected, in pixels.

    Every junction is a vertex of all the rings that pass it, so the polygons are a coverage whose neighbours share
    their vertices. Where a region touches itself at a corner its rings are parted there, so each polygon is valid.

    Args:
        arcs: The boundaries, simplified or not; no arc has the same region on both sides.
        count: Number of regions.
        clockwise: Outer rings run clockwise as printed, holes against it; otherwise the other way round. True for a
            raster that is stored south up, so that they run counter-clockwise on the ground.
    """
    index = index_rings(arcs, order=np.arange(1, count + 1, dtype=np.int32))
    transform = Affine.identity()
    return rings_of(arcs, index, start=0, stop=count, transform=transform, clockwise=clockwise)


def index_rings(arcs: Arcs, *, order: NDArray[np.int32]) -> RingIndex:
    """The rings of the regions in `order`, which are 4-connected, and all but nodata."""
    ahead = _link(arcs, junction_table(arcs))
    face = np.column_stack([arcs.left, arcs.right]).ravel()
    first, sizes, doubled_areas = _measure_rings(arcs, face, ahead)
    place = np.zeros(len(order) + 1, np.int64)
    place[order] = np.arange(len(order))
    # y runs down, so an outer ring has a negative area.
    key = place[face[first]] * 2 + (doubled_areas > 0)
    by_polygon = np.argsort(key, kind="stable")
    ring_offsets, polygon_offsets = np.zeros(len(first) + 1, np.int64), np.zeros(len(order) + 1, np.int64)
    np.cumsum(sizes[by_polygon], out=ring_offsets[1:])
    np.cumsum(np.bincount(key >> 1, minlength=len(order)), out=polygon_offsets[1:])
    return RingIndex(ahead, first[by_polygon], ring_offsets, polygon_offsets)


def rings_of(
    arcs: Arcs, index: RingIndex, *, start: int, stop: int, transform: Affine, clockwise: bool = False
) -> Rings:  # fmt: skip
    """The polygons `start` to `stop - 1` of an index, in the plane that `transform` leads to from pixels.

    Args:
        arcs: The boundaries that the index is of.
        index: As `index_rings` gives it.
        start: First polygon.
        stop: One past the last polygon.
        transform: From pixel corners to coordinates.
        clockwise: As in `build_rings`, in pixels.
    """
    low, high = index.polygon_offsets[start], index.polygon_offsets[stop]
    ring_offsets = index.ring_offsets[low : high + 1] - index.ring_offsets[low]
    coords = np.empty((ring_offsets[-1], 2), np.float64)
    six = np.array(transform[:6])
    _fill_rings(arcs, index.ahead, index.first[low:high], (ring_offsets, six, clockwise), coords)
    return Rings(coords, ring_offsets, index.polygon_offsets[start : stop + 1] - low)


@jit
def _link(arcs: Arcs, table: NDArray[np.int32]) -> NDArray[np.int32]:
    """The half-edge that follows each in its region's ring.

    At a corner where the region lies on both diagonal pixels and the other two are foreign, the ring turns right. It so
    keeps to the same foreign pixel: each foreign patch around has a ring of its own, and no ring touches itself.
    """
    ahead = np.empty(2 * arcs.left.shape[0], np.int32)
    for half in range(ahead.shape[0]):
        junction = arcs.junctions[half // 2, 1 - half % 2]
        if junction < 0:
            ahead[half] = half
            continue
        region = _region_on_left(arcs, half)
        back = arcs.leaving[half // 2, 1 - half % 2]
        for turn in (1, 2, 3):  # of those that fit the last stands: right before straight on before left
            other = table[junction, (back + turn) % 4]
            if other >= 0 and _region_on_left(arcs, other) == region:
                ahead[half] = other
    return ahead


@jit
def _region_on_left(arcs: Arcs, half: int) -> int:
    return int(arcs.left[half // 2] if half % 2 == 0 else arcs.right[half // 2])


@jit
def _measure_rings(
    arcs: Arcs, face: NDArray[np.int32], ahead: NDArray[np.int32]
) -> tuple[NDArray[np.int32], Ints, Ints]:
    """Of each ring of a region other than nodata: a half-edge, vertices with the closing one, and twice its area."""
    halves = ahead.shape[0]
    walked = np.zeros(halves, np.bool_)
    first, sizes, areas = np.empty(halves, np.int32), np.empty(halves, np.int64), np.zeros(halves, np.int64)
    rings = 0
    for start in range(halves):
        if walked[start] or face[start] == 0:
            continue
        half, size = start, 1
        while not walked[half]:
            walked[half] = True
            begin, end = arcs.offsets[half // 2], arcs.offsets[half // 2 + 1]
            size += end - begin - 1
            sign = 1 if half % 2 == 0 else -1
            for at in range(begin, end - 1):  # twice the area by the shoelace formula
                x, y = np.int64(arcs.coords[at, 0]), np.int64(arcs.coords[at, 1])
                areas[rings] += sign * (x * arcs.coords[at + 1, 1] - y * arcs.coords[at + 1, 0])
            half = ahead[half]
        first[rings], sizes[rings] = start, size
        rings += 1
    return first[:rings].copy(), sizes[:rings].copy(), areas[:rings].copy()


@jit
def _fill_rings(
    arcs: Arcs,
    ahead: NDArray[np.int32],
    first: NDArray[np.int32],
    how: tuple[Ints, NDArray[np.float64], bool],
    out: NDArray[np.float64],
) -> None:
    """Writes each ring's vertices: of every half-edge all but the last, which the next one begins with."""
    ring_offsets, six, clockwise = how
    a, b, c, d, e, f = six[0], six[1], six[2], six[3], six[4], six[5]
    for ring in range(first.shape[0]):
        begin, last = ring_offsets[ring], ring_offsets[ring + 1] - 1
        half, to = first[ring], begin
        while to < last:
            start, end = arcs.offsets[half // 2], arcs.offsets[half // 2 + 1]
            for step in range(end - start - 1):
                source = start + step if half % 2 == 0 else end - 1 - step
                x, y = arcs.coords[source, 0] / arcs.scale, arcs.coords[source, 1] / arcs.scale
                place = begin + last - to if clockwise else to
                out[place, 0], out[place, 1] = a * x + b * y + c, d * x + e * y + f
                to += 1
            half = ahead[half]
        closing, opening = (begin, last) if clockwise else (last, begin)
        out[closing, 0], out[closing, 1] = out[opening, 0], out[opening, 1]
