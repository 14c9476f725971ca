"""PMTiles: one file of vector tiles that a web map reads over HTTP without a server of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import ceil, log2
from pathlib import Path

import numpy as np
import pyproj

from geoseg.errors import InputError
from geoseg.vector.formats.cutting import clip_to_world, part_large
from geoseg.vector.formats.lonlat import to_lonlat
from geoseg.vector.formats.ogr import Progress, write_ogr
from geoseg.vector.formats.reproject import edge_lengths, reproject
from geoseg.vector.formats.styles import write_style
from geoseg.vector.layer import FeatureBatch, PolygonLayer

_MERCATOR = "EPSG:3857"
_WORLD_M = 2 * np.pi * 6378137  # the side of the tile of zoom 0
_TILE_UNITS = 4096
_UNITS_AN_EDGE = 4  # of the typical edge, at the largest zoom
_LARGEST_ZOOM = 22
_NO_LIMIT = 2**31 - 1


def write_pmtiles(layer: PolygonLayer, path: Path, progress: Progress) -> None:
    """Writes tiles of zoom 0 up to one that keeps the detail of the layer, see `largest_zoom`.

    GDAL clips the polygons to tiles and rounds their vertices to a 4096th of a tile. It works on each polygon alone: at
    small zooms those below a unit vanish, and what crosses itself once rounded is mended, so gaps of a unit may show
    there; at the largest zoom neighbours share their vertices. Large polygons are cut along tiles first, see `_cut`, so
    a feature may be several. No tile is left incomplete for its size. What lies beyond 85.05° north or south, where
    web maps end, is left out.

    Raises:
        InputError: The layer has no feature where web maps have tiles.
    """
    if layer.count == 0:
        raise InputError(f"{path.name} would have no tile: the map has no polygon; write .gpkg for an empty layer")
    options = {
        "MINZOOM": "0",
        "MAXZOOM": str(largest_zoom(layer)),
        "NAME": path.stem,
        # Beyond its limits, 500 kB by default, GDAL writes a tile without a part of its features.
        "MAX_SIZE": str(_NO_LIMIT),
        "MAX_FEATURES": str(_NO_LIMIT),
    }
    write_ogr(_not_empty(_cut(layer), path), path, driver="PMTiles", progress=progress, dataset_options=options)
    write_style(layer, path)


def _cut(layer: PolygonLayer) -> PolygonLayer:
    """The layer in the Mercator map, its large polygons in pieces.

    A polygon that crosses itself once its vertices are rounded GDAL mends or, failing that, drops: with the thousands
    of holes of a map's main class it drops most of the map.
    """
    mercator = reproject(to_lonlat(layer), _MERCATOR)
    return part_large(clip_to_world(mercator, half_world=_WORLD_M / 2), half_world=_WORLD_M / 2)


def _not_empty(layer: PolygonLayer, path: Path) -> PolygonLayer:
    """The layer, whose batches end in an error where none has a feature: GDAL has no words for that."""

    def batches() -> Iterator[FeatureBatch]:
        count = 0
        for batch in layer.batches():
            count += batch.table.num_rows
            yield batch
        if count == 0:
            raise InputError(
                f"{path.name} would have no tile: web maps end at 85.05° north and south; write .gpkg instead"
            )

    return replace(layer, batches=batches)


def largest_zoom(layer: PolygonLayer) -> int:
    """The zoom at which a typical edge, the median of the first batch's, spans at least 4 of a tile's 4096 units.

    A map of 10 m pixels gets 11 at the equator, and 12 from 60° on, where the Mercator map is twice as large.
    """
    rings = next(iter(layer.batches())).rings
    x, y = pyproj.Transformer.from_crs(layer.crs, _MERCATOR, always_xy=True).transform(*rings.coords.T)
    lengths = edge_lengths(np.column_stack([x, y]), rings.ring_offsets)
    if len(lengths) == 0:
        return 0
    zoom = ceil(log2(_UNITS_AN_EDGE * _WORLD_M / _TILE_UNITS / np.median(lengths)))
    return min(max(zoom, 0), _LARGEST_ZOOM)
