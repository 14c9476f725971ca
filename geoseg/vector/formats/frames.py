"""GeoDataFrames as layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import shapely

from geoseg.errors import InputError
from geoseg.legend import Legend
from geoseg.vector.layer import FeatureBatch, PolygonLayer
from geoseg.vector.regions import Ints
from geoseg.vector.rings import Polygons, Rings

if TYPE_CHECKING:
    import geopandas

_BATCH = 16384  # features


def layer_of_frame(frame: geopandas.GeoDataFrame, *, legend: Legend | None = None) -> PolygonLayer:
    """A table of polygons, or of polygons and multi-polygons, as a layer.

    Args:
        frame: The table; its index is dropped.
        legend: Classes of its column `class_id`.

    Raises:
        InputError: A geometry is missing or is no polygon.
    """
    geometries: Polygons = np.asarray(frame.geometry.array, dtype=object)
    kinds = set(np.unique(shapely.get_type_id(geometries)).tolist())
    if not kinds <= {shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON}:
        raise InputError("a table of polygons has a geometry that is none; keep polygons and multi-polygons alone")
    multi = shapely.GeometryType.MULTIPOLYGON in kinds
    table = pa.Table.from_pandas(frame.drop(columns=frame.geometry.name), preserve_index=False)
    table = table.replace_schema_metadata(None).combine_chunks()

    def batches() -> Iterator[FeatureBatch]:
        for start in range(0, len(frame), _BATCH):
            part = geometries[start : start + _BATCH]
            yield _batch(table.slice(start, len(part)), part)

    vertices = int(shapely.get_num_coordinates(geometries).sum())
    return PolygonLayer(table.schema, frame.crs, multi, len(frame), vertices, batches, legend)


def flatten(geometries: Polygons) -> tuple[Rings, Ints]:
    """Polygons or multi-polygons `(feature,)`, at least one, as flat arrays; and the first polygon of each feature."""
    _, coords, offsets = shapely.to_ragged_array(geometries, include_z=False)
    rings, polygons, *parts = (np.asarray(each, np.int64) for each in offsets)
    return Rings(coords, rings, polygons), parts[0] if parts else np.arange(len(geometries) + 1)


def _batch(table: pa.Table, geometries: Polygons) -> FeatureBatch:
    columns = [column.combine_chunks() for column in table.columns]
    record = pa.RecordBatch.from_arrays(columns, schema=table.schema)
    return FeatureBatch(record, *flatten(geometries))
