"""GeoJSON as RFC 7946 has it: longitudes and latitudes in WGS 84, with no more decimals than the map needs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from math import ceil, log10
from pathlib import Path

import numpy as np
import pyarrow as pa

from geoseg.vector.formats.lonlat import to_lonlat
from geoseg.vector.formats.ogr import Progress, not_whole, write_ogr
from geoseg.vector.formats.reproject import edge_lengths
from geoseg.vector.formats.styles import write_style
from geoseg.vector.layer import FeatureBatch, PolygonLayer

_ID = "feature id"
_END = b"]\n}\n"
_LEAST_DECIMALS, _MOST_DECIMALS = 7, 12
_EDGE_SHARE = 50


def write_geojson(layer: PolygonLayer, path: Path, progress: Progress) -> None:
    """Writes a feature collection. A column `id` is also the `id` of the features.

    Polygons across 180° are parted, and those around a pole reach to it, along the ends of the map.
    """
    layer = to_lonlat(layer)
    options = {"RFC7946": "YES", "WRAPDATELINE": "NO", "COORDINATE_PRECISION": str(decimals(layer))}
    if "id" in layer.schema.names:
        layer, options["ID_FIELD"] = _with_feature_ids(layer), _ID
    write_ogr(layer, path, driver="GeoJSON", progress=progress, layer_options=options)
    with path.open("rb") as file:
        file.seek(-len(_END), os.SEEK_END)
        if file.read() != _END:
            raise not_whole()
    write_style(layer, path)


def decimals(layer: PolygonLayer) -> int:
    """Decimals that place each vertex to a fiftieth of a short edge, 7 to 12.

    That is the tenth percentile of the first batch's edges. Seven decimals are about a centimetre, enough for pixels
    of half a metre.

    Args:
        layer: In degrees.
    """
    batch = next(layer.batches(), None)
    lengths = np.empty(0) if batch is None else edge_lengths(batch.rings.coords, batch.rings.ring_offsets)
    if len(lengths) == 0:
        return _LEAST_DECIMALS
    needed = ceil(log10(_EDGE_SHARE / 2 / np.percentile(lengths, 10)))  # rounding errs by half a unit
    return min(max(needed, _LEAST_DECIMALS), _MOST_DECIMALS)


def _with_feature_ids(layer: PolygonLayer) -> PolygonLayer:
    """The layer with its ids a second time: GDAL takes the column that becomes the `id` out of the properties."""
    schema = layer.schema.append(layer.schema.field("id").with_name(_ID))

    def batches() -> Iterator[FeatureBatch]:
        for batch in layer.batches():
            columns = [*batch.table.columns, batch.table["id"]]
            yield batch._replace(table=pa.RecordBatch.from_arrays(columns, schema=schema))

    return replace(layer, schema=schema, batches=batches)
