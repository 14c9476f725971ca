"""Rings as well-known binary, one compiled pass a batch: no object a polygon.

The layout is that of OGC 06-103r4, Simple feature access, part 1, section 8.2: byte order, type, count, then of each
ring the number of points and their coordinates, here always little endian and two-dimensional.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geoseg.jit import jit
from geoseg.vector.layer import FeatureBatch
from geoseg.vector.regions import Ints

_POLYGON, _MULTI_POLYGON = 3, 6
_HEAD = 9  # byte order, type and count


def to_wkb(batch: FeatureBatch, *, multi: bool) -> pa.LargeBinaryArray:
    """The features' geometries `(feature,)`, little endian.

    Args:
        batch: Features; each has one polygon unless `multi`.
        multi: Whether to write multi-polygons.
    """
    rings, parts = batch.rings, batch.parts
    offsets = _wkb_offsets(parts, rings.polygon_offsets, rings.ring_offsets, multi)
    out = np.empty(offsets[-1], np.uint8)
    raw = np.ascontiguousarray(rings.coords, "<f8").reshape(-1).view(np.uint8)
    _fill_wkb((parts, rings.polygon_offsets, rings.ring_offsets), raw, multi, offsets, out)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(out)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(parts) - 1, buffers)


def feature_bounds(batch: FeatureBatch) -> NDArray[np.float64]:
    """West, south, east and north of each feature, float64 `(feature, 4)`, in the layer's CRS."""
    rings, parts = batch.rings, batch.parts
    bounds = np.empty((len(parts) - 1, 4), np.float64)
    _fill_bounds(rings.coords, rings.ring_offsets[rings.polygon_offsets[parts]], bounds)
    return bounds


def are_counter_clockwise(batch: FeatureBatch) -> bool:
    """Whether every outer ring runs counter-clockwise and every hole clockwise."""
    rings = batch.rings
    return _are_counter_clockwise(rings.coords, rings.ring_offsets, rings.polygon_offsets)


@jit
def _wkb_offsets(parts: Ints, polygon_offsets: Ints, ring_offsets: Ints, multi: bool) -> Ints:  # noqa: FBT001
    """Where each feature's bytes begin, and where the last one's end."""
    offsets = np.zeros(parts.shape[0], np.int64)
    for feature in range(parts.shape[0] - 1):
        polygons = parts[feature + 1] - parts[feature]
        first, last = polygon_offsets[parts[feature]], polygon_offsets[parts[feature + 1]]
        size = _HEAD * (polygons + multi) + 4 * (last - first) + 16 * (ring_offsets[last] - ring_offsets[first])
        offsets[feature + 1] = offsets[feature] + size
    return offsets


@jit
def _put(out: NDArray[np.uint8], at: int, value: int) -> int:
    """Writes an unsigned integer of 4 bytes. Returns where it ends."""
    for byte in range(4):
        out[at + byte] = (value >> 8 * byte) & 255
    return at + 4


@jit
def _put_head(out: NDArray[np.uint8], at: int, kind: int, count: int) -> int:
    out[at] = 1
    return _put(out, _put(out, at + 1, kind), count)


@jit
def _fill_wkb(
    nested: tuple[Ints, Ints, Ints],
    raw: NDArray[np.uint8],
    multi: bool,  # noqa: FBT001
    offsets: Ints,
    out: NDArray[np.uint8],
) -> None:
    parts, polygon_offsets, ring_offsets = nested
    for feature in range(parts.shape[0] - 1):
        at = offsets[feature]
        if multi:
            at = _put_head(out, at, _MULTI_POLYGON, parts[feature + 1] - parts[feature])
        for polygon in range(parts[feature], parts[feature + 1]):
            first, last = polygon_offsets[polygon], polygon_offsets[polygon + 1]
            at = _put_head(out, at, _POLYGON, last - first)
            for ring in range(first, last):
                begin, end = ring_offsets[ring], ring_offsets[ring + 1]
                at = _put(out, at, end - begin)
                size = 16 * (end - begin)
                out[at : at + size] = raw[16 * begin : 16 * end]
                at += size


@jit
def _fill_bounds(coords: NDArray[np.float64], vertices: Ints, bounds: NDArray[np.float64]) -> None:
    """Feature `i` has the vertices `vertices[i]` to `vertices[i + 1] - 1`."""
    for feature in range(bounds.shape[0]):
        west, south, east, north = np.inf, np.inf, -np.inf, -np.inf
        for vertex in range(vertices[feature], vertices[feature + 1]):
            x, y = coords[vertex, 0], coords[vertex, 1]
            west, south, east, north = min(west, x), min(south, y), max(east, x), max(north, y)
        bounds[feature, 0], bounds[feature, 1], bounds[feature, 2], bounds[feature, 3] = west, south, east, north


@jit
def _are_counter_clockwise(coords: NDArray[np.float64], ring_offsets: Ints, polygon_offsets: Ints) -> bool:
    for polygon in range(polygon_offsets.shape[0] - 1):
        for ring in range(polygon_offsets[polygon], polygon_offsets[polygon + 1]):
            outer = ring == polygon_offsets[polygon]
            begin, end = ring_offsets[ring], ring_offsets[ring + 1]
            x0, y0 = coords[begin, 0], coords[begin, 1]  # subtracted, so that large coordinates lose no digits
            area = 0.0
            for at in range(begin, end - 1):
                area += (coords[at, 0] - x0) * (coords[at + 1, 1] - y0)
                area -= (coords[at + 1, 0] - x0) * (coords[at, 1] - y0)
            if (area > 0) != outer:
                return False
    return True
