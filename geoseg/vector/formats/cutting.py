"""Polygons cut for maps in tiles: at the 180th meridian, where the map ends, and the large ones along tiles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from geoseg.vector.formats.frames import flatten
from geoseg.vector.formats.split import select_features
from geoseg.vector.layer import FeatureBatch, PolygonLayer
from geoseg.vector.regions import Ints

_FAR = 1e9
_DEEPEST_CUT = 18  # the zoom of the smallest tiles that are cut along


def part_large(layer: PolygonLayer, *, half_world: float, most: int = 1024) -> PolygonLayer:
    """The layer with pieces, each a feature, of each polygon of more than `most` vertices; all else as it was.

    They are cut along tiles, of ever larger zooms, until each has few enough.

    Args:
        layer: What is cut.
        half_world: Half the side of the tile of zoom 0, whose middle is at (0, 0).
        most: Vertices that a polygon may have.
    """

    def batches() -> Iterator[FeatureBatch]:
        for batch in layer.batches():
            large = _vertex_counts(batch) > most
            if not large.any():
                yield batch
                continue
            yield select_features(batch, ~large)
            yield _in_pieces(select_features(batch, large), half_world, most)

    return replace(layer, batches=batches)


def _vertex_counts(batch: FeatureBatch) -> Ints:
    return np.diff(batch.rings.ring_offsets[batch.rings.polygon_offsets[batch.parts]])


def _in_pieces(batch: FeatureBatch, half_world: float, most: int) -> FeatureBatch:
    todo = list(zip(batch.rings.to_polygons(), _owners(batch).tolist(), strict=True))
    done: list[tuple[shapely.Polygon, int]] = []
    for zoom in range(_DEEPEST_CUT + 1):
        fine = zoom == _DEEPEST_CUT
        done += [each for each in todo if fine or shapely.get_num_coordinates(each[0]) <= most]
        left = [each for each in todo if not fine and shapely.get_num_coordinates(each[0]) > most]
        todo = [(piece, owner) for whole, owner in left for piece in _along_tiles(whole, half_world, zoom)]
    rings, parts = flatten(np.array([piece for piece, _ in done], object))
    return FeatureBatch(batch.table.take(pa.array([owner for _, owner in done])), rings, parts)


def _along_tiles(polygon: shapely.Polygon, half_world: float, zoom: int) -> list[shapely.Polygon]:
    """What of a polygon lies in each tile that it touches."""
    side = 2 * half_world / 2**zoom
    west, south, east, north = (np.array(polygon.bounds) + half_world) // side
    if (west, south) == (east, north):
        return [polygon]
    corners = [(col * side - half_world, row * side - half_world)
               for row in np.arange(south, north + 1) for col in np.arange(west, east + 1)]  # fmt: skip
    pieces = shapely.get_parts([shapely.clip_by_rect(polygon, x, y, x + side, y + side) for x, y in corners])
    return [piece for piece in pieces if piece.geom_type == "Polygon" and piece.area > 0]


def part_across(layer: PolygonLayer, *, half_world: float) -> PolygonLayer:
    """The layer with a feature a polygon and side of each feature that crosses the meridian; all else as it was.

    Args:
        layer: Has edges that are far shorter than `half_world`, but for those that cross.
        half_world: x of the meridian; minus that is the other end of the map.
    """

    def batches() -> Iterator[FeatureBatch]:
        for batch in layer.batches():
            crossing = _crossing(batch, half_world)
            if not crossing.any():
                yield batch
                continue
            yield select_features(batch, ~crossing)
            yield from _sides(select_features(batch, crossing), half_world)

    return replace(layer, batches=batches)


def _crossing(batch: FeatureBatch, half_world: float) -> NDArray[np.bool_]:
    """Which features have an edge from one end of the map to the other."""
    rings = batch.rings
    jumps = np.zeros(len(rings.coords), np.int64)  # on the way to each vertex
    np.cumsum(np.abs(np.diff(rings.coords[:, 0])) > half_world, out=jumps[1:])
    inside = jumps[rings.ring_offsets[1:] - 1] - jumps[rings.ring_offsets[:-1]]
    up_to = np.concatenate([[0], np.cumsum(inside)])[rings.polygon_offsets[batch.parts]]
    return np.diff(up_to) > 0


def _owners(batch: FeatureBatch) -> Ints:
    """Feature of each polygon `(polygon,)`."""
    return np.repeat(np.arange(len(batch.parts) - 1), np.diff(batch.parts))


def _sides(batch: FeatureBatch, half_world: float) -> Iterator[FeatureBatch]:
    """What of the features lies before the meridian, then what lies behind it."""
    x, y = batch.rings.coords.T
    coords = np.column_stack([np.where(x < 0, x + 2 * half_world, x), y])
    whole = shapely.make_valid(replace(batch.rings, coords=coords).to_polygons())
    owner = _owners(batch)
    for shift in (0.0, 2 * half_world):
        side = shapely.box(shift - half_world, -_FAR, shift + half_world, _FAR)
        pieces, index = shapely.get_parts(shapely.intersection(whole, side), return_index=True)
        kept = shapely.get_type_id(pieces) == shapely.GeometryType.POLYGON
        if kept.any():
            rings, parts = flatten(shapely.orient_polygons(pieces[kept]))
            table = batch.table.take(pa.array(owner[index[kept]]))
            yield FeatureBatch(table, replace(rings, coords=rings.coords - [shift, 0]), parts)
