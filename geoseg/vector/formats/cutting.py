"""Polygons cut for maps in tiles: where the world ends in the north and south, and the large ones along tiles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
import shapely

from geoseg.vector.formats.frames import flatten
from geoseg.vector.formats.split import select_features
from geoseg.vector.formats.wkb import feature_bounds
from geoseg.vector.layer import FeatureBatch, PolygonLayer
from geoseg.vector.regions import Ints

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
    pieces = shapely.get_parts([_in_tile(polygon, x, y, side) for x, y in corners])
    return [piece for piece in pieces if piece.geom_type == "Polygon" and piece.area > 0]


def _in_tile(polygon: shapely.Polygon, x: float, y: float, side: float) -> shapely.Geometry:
    try:
        return shapely.clip_by_rect(polygon, x, y, x + side, y + side)
    except shapely.errors.GEOSException:  # it is fast, but fails where two corners of a piece fall together
        return shapely.intersection(polygon, shapely.box(x, y, x + side, y + side))


def clip_to_world(layer: PolygonLayer, *, half_world: float) -> PolygonLayer:
    """The layer without what lies beyond the tile of zoom 0, north and south.

    Args:
        layer: What is cut.
        half_world: As in `part_large`.
    """

    def batches() -> Iterator[FeatureBatch]:
        for batch in layer.batches():
            bounds = feature_bounds(batch)
            beyond = (bounds[:, 1] < -half_world) | (bounds[:, 3] > half_world)
            if not beyond.any():
                yield batch
                continue
            yield select_features(batch, ~beyond)
            yield _clipped(select_features(batch, beyond), half_world)

    return replace(layer, batches=batches)


def _clipped(batch: FeatureBatch, half_world: float) -> FeatureBatch:
    """What of the features lies within the world, each of its polygons a feature."""
    world = shapely.box(-half_world, -half_world, half_world, half_world)
    cut = shapely.intersection(shapely.make_valid(batch.rings.to_polygons()), world)
    pieces, index = shapely.get_parts(cut, return_index=True)
    kept = (shapely.get_type_id(pieces) == shapely.GeometryType.POLYGON) & (shapely.area(pieces) > 0)
    if not kept.any():
        return select_features(batch, np.zeros(len(batch.parts) - 1, bool))
    rings, parts = flatten(pieces[kept])
    return FeatureBatch(batch.table.take(pa.array(_owners(batch)[index[kept]])), rings, parts)


def _owners(batch: FeatureBatch) -> Ints:
    """Feature of each polygon `(polygon,)`."""
    return np.repeat(np.arange(len(batch.parts) - 1), np.diff(batch.parts))
