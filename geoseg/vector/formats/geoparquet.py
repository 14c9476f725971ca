"""GeoParquet 1.1: a row group a batch, each with its bounds, so that a reader skips what it does not need."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geoseg.vector.formats.ogr import GEOMETRY, Progress
from geoseg.vector.formats.styles import write_style
from geoseg.vector.formats.wkb import are_counter_clockwise, feature_bounds, to_wkb
from geoseg.vector.layer import FeatureBatch, PolygonLayer

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
COVERING = "bbox"


def write_geoparquet(layer: PolygonLayer, path: Path, progress: Progress) -> None:
    """Writes a GeoParquet file of version 1.1, https://geoparquet.org/releases/v1.1.0, compressed by zstd."""
    box = pa.struct([pa.field(name, pa.float64(), nullable=False) for name in _CORNERS])
    schema = pa.schema([*layer.schema, (GEOMETRY, pa.large_binary()), (COVERING, box)])
    total = _Total()
    with pq.ParquetWriter(path, schema, **_parquet_options(layer.schema)) as writer:
        done = 0
        for batch in layer.batches():
            bounds = feature_bounds(batch)
            covering = pa.StructArray.from_arrays(bounds.T.copy(), fields=list(box))
            columns = [*batch.table.columns, to_wkb(batch, multi=layer.multi), covering]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
            total.add(batch, bounds)
            done += batch.table.num_rows
            progress(done, layer.count)
        writer.add_key_value_metadata({"geo": json.dumps(_metadata(layer, total))})
    write_style(layer, path)


class _Total:
    """What holds for all features of a file."""

    def __init__(self) -> None:
        self.bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])
        self.counter_clockwise = True

    def add(self, batch: FeatureBatch, bounds: NDArray[np.float64]) -> None:
        """Takes a batch in."""
        self.counter_clockwise = self.counter_clockwise and are_counter_clockwise(batch)
        if len(bounds):
            self.bounds[:2] = np.minimum(self.bounds[:2], bounds[:, :2].min(0))
            self.bounds[2:] = np.maximum(self.bounds[2:], bounds[:, 2:].max(0))


def _metadata(layer: PolygonLayer, total: _Total) -> dict[str, Any]:
    """The value of the key `geo`."""
    column: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": ["MultiPolygon" if layer.multi else "Polygon"],
        "crs": None if layer.crs is None else layer.crs.to_json_dict(),
        "covering": {"bbox": {name: [COVERING, name] for name in _CORNERS}},
    }
    if np.isfinite(total.bounds).all():
        column["bbox"] = total.bounds.tolist()
    if total.counter_clockwise:
        column["orientation"] = "counterclockwise"
    return {"version": "1.1.0", "primary_column": GEOMETRY, "columns": {GEOMETRY: column}}


def _parquet_options(attributes: Iterable[pa.Field]) -> dict[str, Any]:
    """Dictionaries for what repeats, and statistics for all but the geometries, whose order means nothing."""
    fields = list(attributes)
    repeating = [field.name for field in fields if not pa.types.is_floating(field.type) and field.type != pa.int64()]
    measured = [field.name for field in fields] + [f"{COVERING}.{name}" for name in _CORNERS]
    return {"compression": "zstd", "use_dictionary": repeating, "write_statistics": measured}
