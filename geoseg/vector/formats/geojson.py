"""GeoJSON as RFC 7946 has it: longitudes and latitudes in WGS 84, seven decimals (about 1 cm)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from geoseg.errors import InputError
from geoseg.vector.formats.ogr import Progress, not_whole, write_ogr
from geoseg.vector.formats.reproject import reproject
from geoseg.vector.formats.styles import write_style
from geoseg.vector.layer import FeatureBatch, PolygonLayer

_ID = "feature id"
_END = b"]\n}\n"


def write_geojson(layer: PolygonLayer, path: Path, progress: Progress) -> None:
    """Writes a feature collection. A column `id` is also the `id` of the features; polygons across 180° are parted.

    Raises:
        InputError: The layer has no CRS.
    """
    if layer.crs is None:
        raise InputError(f"GeoJSON needs longitudes and latitudes, {path.name}'s map has no CRS; write .gpkg instead")
    options = {"RFC7946": "YES", "COORDINATE_PRECISION": "7"}
    layer = reproject(layer, "OGC:CRS84")
    if "id" in layer.schema.names:
        layer, options["ID_FIELD"] = _with_feature_ids(layer), _ID
    write_ogr(layer, path, driver="GeoJSON", progress=progress, layer_options=options)
    with path.open("rb") as file:
        file.seek(-len(_END), os.SEEK_END)
        if file.read() != _END:
            raise not_whole()
    write_style(layer, path)


def _with_feature_ids(layer: PolygonLayer) -> PolygonLayer:
    """The layer with its ids a second time: GDAL takes the column that becomes the `id` out of the properties."""
    schema = layer.schema.append(layer.schema.field("id").with_name(_ID))

    def batches() -> Iterator[FeatureBatch]:
        for batch in layer.batches():
            columns = [*batch.table.columns, batch.table["id"]]
            yield batch._replace(table=pa.RecordBatch.from_arrays(columns, schema=schema))

    return replace(layer, schema=schema, batches=batches)
