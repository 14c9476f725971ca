"""GeoParquet, held against the rules of its specification, version 1.1.0."""

from __future__ import annotations

import json
from dataclasses import replace

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import pytest
import shapely
from geopandas.testing import assert_geodataframe_equal

from geoseg.errors import InputError
from geoseg.vector import write_layer
from geoseg.vector.formats.frames import layer_of_frame

SIDE = 40


def frame_of(*, crs="EPSG:32630", geometries=None):
    col, row = np.arange(SIDE * SIDE) % SIDE, np.arange(SIDE * SIDE) // SIDE
    if geometries is None:
        geometries = shapely.box(500_000 + 10 * col, 5_800_000 + 10 * row, 500_010 + 10 * col, 5_800_010 + 10 * row)
    return geopandas.GeoDataFrame({"id": np.arange(len(geometries))}, geometry=geometries, crs=crs)


def write(frame, path, *, batch=100):
    """In batches of `batch` features."""
    layer = layer_of_frame(frame)
    parts = [layer_of_frame(frame.iloc[start : start + batch]) for start in range(0, len(frame), batch)]
    layer = replace(layer, batches=lambda: (each for part in parts for each in part.batches()))
    return write_layer(layer, path)


def metadata_of(path):
    return json.loads(pq.read_metadata(path).metadata[b"geo"])


def test_metadata_follow_the_specification(tmp_path):
    """The rules of https://geoparquet.org/releases/v1.1.0, one after the other."""
    frame = frame_of()
    path = write(frame, tmp_path / "map.parquet")
    geo = metadata_of(path)
    schema = pq.read_schema(path)
    assert set(geo) == {"version", "primary_column", "columns"}
    assert geo["version"] == "1.1.0"
    assert geo["primary_column"] in geo["columns"]
    column = geo["columns"]["geometry"]
    assert column["encoding"] == "WKB"  # which is then a BYTE_ARRAY at the root, optional or required, never repeated
    parquet = pq.ParquetFile(path).schema
    position = schema.names.index("geometry")
    assert parquet.column(position).physical_type == "BYTE_ARRAY"
    assert parquet.column(position).max_repetition_level == 0
    assert column["geometry_types"] == ["Polygon"]
    assert pyproj.CRS.from_json_dict(column["crs"]) == frame.crs  # PROJJSON
    assert column["orientation"] == "counterclockwise"
    assert column["bbox"] == list(frame.total_bounds)
    assert column["covering"] == {"bbox": {name: ["bbox", name] for name in ("xmin", "ymin", "xmax", "ymax")}}
    box = schema.field("bbox").type
    assert pa.types.is_struct(box)
    assert [box.field(k).name for k in range(4)] == ["xmin", "ymin", "xmax", "ymax"]  # of one type, a float
    assert {box.field(k).type for k in range(4)} == {pa.float64()}


def test_each_batch_is_a_row_group_with_bounds(tmp_path):
    path = write(frame_of(), tmp_path / "map.parquet", batch=SIDE)
    groups = pq.read_metadata(path)
    assert groups.num_row_groups == SIDE
    names = [groups.schema.column(k).path for k in range(groups.num_columns)]
    for number in range(SIDE):
        column = groups.row_group(number).column(names.index("bbox.ymin"))
        assert column.statistics.min == column.statistics.max == 5_800_000 + 10 * number
        assert column.compression == "ZSTD"


def test_geopandas_reads_it_whole_and_by_a_box(tmp_path):
    frame = frame_of()
    path = write(frame, tmp_path / "map.parquet")
    back = geopandas.read_parquet(path)
    assert_geodataframe_equal(back, frame)
    box = (500_101, 5_800_101, 500_119, 5_800_109)
    near = geopandas.read_parquet(path, bbox=box)
    assert near["id"].tolist() == frame["id"][frame.intersects(shapely.box(*box))].tolist() == [410, 411]


def test_the_orientation_is_only_claimed_where_it_is_true(tmp_path):
    frame = frame_of()
    turned = frame.set_geometry(frame.geometry.reverse())
    assert "orientation" not in metadata_of(write(turned, tmp_path / "map.parquet"))["columns"]["geometry"]


def test_without_a_crs_it_is_null_not_absent(tmp_path):
    """An absent `crs` would mean longitudes and latitudes."""
    column = metadata_of(write(frame_of(crs=None), tmp_path / "map.parquet"))["columns"]["geometry"]
    assert column["crs"] is None


def test_an_empty_layer_has_no_bounds(tmp_path):
    path = write_layer(layer_of_frame(frame_of().iloc[:0]), tmp_path / "map.parquet")
    assert "bbox" not in metadata_of(path)["columns"]["geometry"]
    assert geopandas.read_parquet(path)["id"].dtype == np.int64


def test_multi_polygons_are_named_so(tmp_path):
    squares = frame_of().geometry.to_numpy()
    frame = frame_of(geometries=[shapely.MultiPolygon(list(squares[[0, 2]])), shapely.MultiPolygon([squares[4]])])
    path = write(frame, tmp_path / "map.parquet")
    assert metadata_of(path)["columns"]["geometry"]["geometry_types"] == ["MultiPolygon"]
    assert_geodataframe_equal(geopandas.read_parquet(path), frame)


def test_a_column_called_bbox_is_refused(tmp_path):
    with pytest.raises(InputError, match="'bbox'"):
        write(frame_of().rename(columns={"id": "bbox"}), tmp_path / "map.parquet")
    assert list(tmp_path.iterdir()) == []
