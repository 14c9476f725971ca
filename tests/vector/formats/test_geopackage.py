"""What stands inside a GeoPackage: a spatial index, a style, a CRS."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace

import geopandas
import numpy as np
import pyogrio
import pyproj
import pytest
import shapely

from geoseg.errors import OutputError
from geoseg.legend import Legend
from geoseg.vector import polygon_style, write_layer, write_polygons
from geoseg.vector.formats.export import check_target
from geoseg.vector.formats.frames import layer_of_frame

LEGEND = Legend.from_dict({1: "forest", 2: "water"})
OWN_GRID = pyproj.CRS.from_wkt(
    pyproj.CRS.from_proj4("+proj=laea +lat_0=17.5 +lon_0=33.25 +datum=WGS84").to_wkt().replace("unknown", "my grid", 1)
)
EQUAL_EARTH = pyproj.CRS.from_proj4("+proj=eqearth +lon_0=10 +datum=WGS84")  # there is no WKT1 of it


def frame_of(crs="EPSG:32630", count=300):
    row, col = np.divmod(np.arange(count), 20)
    boxes = shapely.box(10 * col, 10 * row, 10 * col + 10, 10 * row + 10)
    return geopandas.GeoDataFrame({"class_id": 1 + np.arange(count) % 2}, geometry=boxes, crs=crs)


def query(path, statement):
    with closing(sqlite3.connect(path)) as database:
        return database.execute(statement).fetchall()


def test_it_carries_its_style(tmp_path):
    out = write_polygons(frame_of(), tmp_path / "map.gpkg", legend=LEGEND)
    statement = "SELECT f_table_name, f_geometry_column, styleQML, useAsDefault FROM layer_styles"
    assert query(out, statement) == [("map", "geom", polygon_style(LEGEND), 1)]
    assert query(out, "SELECT column_name FROM gpkg_geometry_columns WHERE table_name = 'map'") == [("geom",)]
    assert sorted(tmp_path.iterdir()) == [out, tmp_path / "map.qml"]


def test_every_feature_is_in_the_spatial_index(tmp_path):
    out = write_polygons(frame_of(), tmp_path / "map.gpkg", legend=LEGEND)
    found = query(out, "SELECT id, minx, maxx, miny, maxy FROM rtree_map_geom ORDER BY id")
    expected = frame_of().bounds[["minx", "maxx", "miny", "maxy"]].to_numpy()
    np.testing.assert_array_equal(np.array(found)[:, 1:], expected)


@pytest.mark.parametrize("name", ['a "map"', "karte-ä", "map 2", "it's"])
def test_any_file_name_names_the_layer(tmp_path, name):
    out = write_polygons(frame_of(), tmp_path / f"{name}.gpkg", legend=LEGEND)
    assert len(pyogrio.read_dataframe(out, layer=name)) == 300


@pytest.mark.parametrize("crs", [OWN_GRID, EQUAL_EARTH], ids=["own grid", "no WKT1"])
def test_a_crs_without_a_code_is_kept_as_wkt2(tmp_path, crs):
    out = write_polygons(frame_of(crs), tmp_path / "map.gpkg", legend=LEGEND)
    back = geopandas.read_file(out, layer="map")
    assert back.crs == crs
    assert back.crs.name == crs.name
    (wkt,) = query(out, "SELECT definition_12_063 FROM gpkg_spatial_ref_sys WHERE srs_id = 100000")[0]
    assert pyproj.CRS.from_wkt(wkt) == crs
    assert ("gpkg_crs_wkt",) in {row[:1] for row in query(out, "SELECT extension_name FROM gpkg_extensions")} or (
        "gpkg_crs_wkt_1_1",
    ) in query(out, "SELECT extension_name FROM gpkg_extensions")


def test_a_crs_with_a_code_needs_no_extension(tmp_path):
    out = write_polygons(frame_of(), tmp_path / "map.gpkg", legend=LEGEND)
    assert not [name for (name,) in query(out, "SELECT extension_name FROM gpkg_extensions") if "crs" in name]


@pytest.fixture
def opened(tmp_path):
    """A GeoPackage that another program has open and has changed, its changes still in a journal."""
    out = write_polygons(frame_of(), tmp_path / "map.gpkg", legend=LEGEND)
    with closing(sqlite3.connect(out)) as database:
        database.execute("PRAGMA journal_mode = wal")
        database.execute("UPDATE layer_styles SET description = hex(zeroblob(3000))")
        database.commit()
        yield out


def test_one_that_is_open_elsewhere_is_not_replaced(opened):
    before = opened.read_bytes()
    with pytest.raises(OutputError, match=r"map\.gpkg-(wal|shm).*QGIS"):
        check_target(opened, crs=None, overwrite=True)
    with pytest.raises(OutputError, match="close it in QGIS"):
        write_polygons(frame_of(count=20), opened, legend=LEGEND, overwrite=True)
    assert opened.read_bytes() == before
    assert len(pyogrio.read_dataframe(opened, layer="map")) == 300


def test_one_that_is_opened_meanwhile_is_not_replaced(tmp_path):
    out = write_polygons(frame_of(), tmp_path / "map.gpkg", legend=LEGEND)
    before = out.read_bytes()
    layer = layer_of_frame(frame_of(count=20))

    def batches():
        yield from layer.batches()
        (tmp_path / "map.gpkg-wal").touch()

    with pytest.raises(OutputError, match="close it in QGIS"):
        write_layer(replace(layer, batches=batches), out, overwrite=True)
    assert out.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"map.gpkg", "map.gpkg-wal", "map.qml"}


@pytest.mark.parametrize("end", ["-wal", "-shm", "-journal"])
def test_a_journal_without_its_file_is_in_the_way_too(tmp_path, end):
    (tmp_path / f"map.gpkg{end}").touch()
    with pytest.raises(OutputError, match=f"map.gpkg{end}"):
        write_polygons(frame_of(), tmp_path / "map.gpkg", legend=LEGEND)
