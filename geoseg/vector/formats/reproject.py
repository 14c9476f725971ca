"""A layer in another CRS. What is straight in one is not in the other, so long edges get vertices first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyproj
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.jit import jit
from geoseg.vector.layer import FeatureBatch, PolygonLayer
from geoseg.vector.regions import Ints
from geoseg.vector.rings import Rings

# A chord of length L leaves the true line by about L² tan(lat) / 8R: 500 m by 5 mm at 45°.
_LONGEST_M = 500.0
_LONGEST_RAD = np.pi / 180  # of maps in degrees, so that no edge goes halfway round the globe


def reproject(layer: PolygonLayer, crs: str) -> PolygonLayer:
    """The layer in another CRS, x (or longitude) first, reprojected batch by batch.

    Edges get vertices every 500 m, or every degree, the same for both polygons that share one.

    Args:
        layer: Has a CRS.
        crs: What pyproj takes.

    Raises:
        InputError: The layer has no CRS; or while a batch is made: a vertex has no place in the other CRS.
    """
    transformer = pyproj.Transformer.from_crs(layer.crs, crs, always_xy=True)
    longest = longest_edge(layer)

    def batches() -> Iterator[FeatureBatch]:
        for batch in layer.batches():
            rings = densify(batch.rings, longest)
            coords = transformed(rings.coords, transformer, crs)
            yield batch._replace(rings=replace(rings, coords=coords))

    return replace(layer, crs=pyproj.CRS(crs), batches=batches)


def longest_edge(layer: PolygonLayer) -> float:
    """How long an edge may be that is reprojected, in units of the layer's CRS."""
    if layer.crs is None:
        raise InputError("a layer without a CRS cannot be reprojected; write .gpkg instead")
    longest = _LONGEST_M if layer.crs.is_projected else _LONGEST_RAD if layer.crs.is_geographic else np.inf
    return float(longest / (layer.crs.axis_info[0].unit_conversion_factor if layer.crs.axis_info else 1.0))


def edge_lengths(coords: NDArray[np.float64], ring_offsets: Ints) -> NDArray[np.float64]:
    """Lengths of the edges of rings, without those that are none or have no place."""
    lengths: NDArray[np.float64] = np.hypot(*np.diff(coords, axis=0).T)
    inside = np.ones(len(lengths), bool)
    inside[ring_offsets[1:-1] - 1] = False  # from one ring's last vertex to the next one's first is no edge
    return lengths[inside & np.isfinite(lengths) & (lengths > 0)]


def densify(rings: Rings, longest: float) -> Rings:
    """The rings with edges of at most `longest`; both rings that share an edge get the same vertices on it."""
    ring_offsets = _dense_offsets(rings.coords, rings.ring_offsets, longest)
    if ring_offsets[-1] == len(rings.coords):
        return rings
    coords = np.empty((ring_offsets[-1], 2), np.float64)
    _fill_dense(rings.coords, rings.ring_offsets, longest, coords)
    return Rings(coords, ring_offsets, rings.polygon_offsets)


def transformed(coords: NDArray[np.float64], transformer: pyproj.Transformer, crs: str) -> NDArray[np.float64]:
    """Coordinates `(vertex, xy)` in another CRS.

    Args:
        coords: Vertices.
        transformer: Leads to that CRS.
        crs: Its name.

    Raises:
        InputError: A vertex has no place there.
    """
    x, y = transformer.transform(coords[:, 0], coords[:, 1])
    moved = np.column_stack([x, y])
    if not np.isfinite(moved).all():
        raise InputError(f"a part of the map has no place in {crs}; write .gpkg, which keeps the map's own CRS")
    return moved


@jit
def _pieces(coords: NDArray[np.float64], at: int, longest: float) -> int:
    """Into how many pieces the edge from a vertex to the next is cut."""
    length = np.hypot(coords[at + 1, 0] - coords[at, 0], coords[at + 1, 1] - coords[at, 1])
    return max(1, int(np.ceil(length / longest)))


@jit
def _dense_offsets(coords: NDArray[np.float64], ring_offsets: Ints, longest: float) -> Ints:
    offsets = np.zeros_like(ring_offsets)
    for ring in range(ring_offsets.shape[0] - 1):
        size = 1
        for at in range(ring_offsets[ring], ring_offsets[ring + 1] - 1):
            size += _pieces(coords, at, longest)
        offsets[ring + 1] = offsets[ring] + size
    return offsets


@jit
def _fill_dense(coords: NDArray[np.float64], ring_offsets: Ints, longest: float, out: NDArray[np.float64]) -> None:
    """Writes each edge's start and the vertices on it, which are counted from its lower end whichever way it runs."""
    to = 0
    for ring in range(ring_offsets.shape[0] - 1):
        last = ring_offsets[ring + 1] - 1
        for at in range(ring_offsets[ring], last):
            pieces = _pieces(coords, at, longest)
            turned = coords[at + 1, 0] < coords[at, 0] or (
                coords[at + 1, 0] == coords[at, 0] and coords[at + 1, 1] < coords[at, 1]
            )
            low, high = (at + 1, at) if turned else (at, at + 1)
            out[to] = coords[at]
            for step in range(1, pieces):
                share = (pieces - step if turned else step) / pieces
                out[to + step] = coords[low] + share * (coords[high] - coords[low])
            to += pieces
        out[to] = coords[last]
        to += 1
