"""Every format read back by geopandas; what a format cannot hold; and nothing left behind on failure."""

import json
import sqlite3
from xml.etree import ElementTree as ET

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from geoseg.errors import InputError, OutputError, OutputExistsError
from geoseg.legend import Legend
from geoseg.raster import Raster
from geoseg.vector import export, polygonize, write_polygons
from geoseg.vector.export import FORMATS, polygon_style, short_names

LEGEND = Legend.from_dict({1: {"name": "forêt", "color": "#1f6b35"}, 2: "water & ice", 3: "road"})


def table(shape=(12, 15), *, crs="EPSG:32630", pixel=10.0, seed=0, valid=None):
    values = np.random.default_rng(seed).integers(1, 4, shape).astype(np.uint8)
    geobox = GeoBox(shape, Affine(pixel, 0, 500_000, 0, -pixel, 5_800_000), crs)
    valid = np.ones(shape, bool) if valid is None else valid
    raster = Raster(values[None], valid, geobox, ("class",))
    confidence = Raster(values[None] * 30, valid, geobox, ("confidence",))
    return polygonize(raster, legend=LEGEND, confidence=confidence)


def read_back(path):
    if path.suffix == ".parquet":
        return geopandas.read_parquet(path)
    return geopandas.read_file(path, layer=path.stem)  # a GeoPackage has its styles as a second layer


@pytest.mark.parametrize("extension", FORMATS)
def test_round_trip(tmp_path, extension):
    frame = table()
    out = write_polygons(frame, tmp_path / f"map{extension}", legend=LEGEND)
    assert out == tmp_path / f"map{extension}"
    back = read_back(out)
    back = back.sort_values(["pixels", "area_m2"], ignore_index=True)
    frame = frame.sort_values(["pixels", "area_m2"], ignore_index=True)
    names = short_names(frame.columns) if extension == ".shp" else {name: name for name in frame.columns}
    assert set(back.columns) - {"fid"} == set(names.values())
    assert sorted(back["class_name"]) == sorted(frame["class_name"])
    np.testing.assert_array_equal(back["class_id"].sort_values(), frame["class_id"].sort_values())
    np.testing.assert_allclose(back["area_m2"], frame["area_m2"], rtol=1e-12)
    np.testing.assert_allclose(back[names["perimeter_m"]].sort_values(), frame["perimeter_m"].sort_values(), rtol=1e-12)
    assert (back.geom_type == "Polygon").all()
    if extension == ".geojson":
        assert back.crs == "EPSG:4326"
        assert back.to_crs(frame.crs).area.sum() == pytest.approx(frame.area.sum(), rel=1e-3)
    else:
        assert back.crs == frame.crs
        assert back.area.sum() == pytest.approx(frame.area.sum(), rel=1e-12)


@pytest.mark.parametrize("extension", FORMATS)
def test_an_empty_table_is_an_empty_layer(tmp_path, extension):
    frame = table(valid=np.zeros((12, 15), bool))
    out = write_polygons(frame, tmp_path / f"map{extension}", legend=LEGEND)
    back = read_back(out)
    assert len(back) == 0
    assert "class_id" in back.columns or extension == ".geojson"  # a GeoJSON without features has no columns


@pytest.mark.parametrize("extension", FORMATS)
def test_existing_output_stays_unless_overwritten(tmp_path, extension):
    out = tmp_path / f"map{extension}"
    write_polygons(table(), out, legend=LEGEND)
    before = out.read_bytes()
    with pytest.raises(OutputExistsError, match="overwrite"):
        write_polygons(table((3, 3)), out, legend=LEGEND)
    assert out.read_bytes() == before
    small = table((3, 3))
    write_polygons(small, out, legend=LEGEND, overwrite=True)
    back = read_back(out)
    assert len(back) == len(small)


def test_unknown_extension_lists_the_known(tmp_path):
    with pytest.raises(InputError, match=r"\.gpkg, \.fgb, \.geojson, \.parquet, \.shp"):
        write_polygons(table(), tmp_path / "map.kml", legend=LEGEND)


@pytest.mark.parametrize("extension", FORMATS)
def test_failure_leaves_nothing_and_keeps_what_was_there(tmp_path, extension, monkeypatch):
    out = tmp_path / f"map{extension}"
    out.write_text("precious")

    def half_written(frame, path, legend):
        FORMATS_BEFORE[extension](frame, path, legend)
        raise pyogrio.errors.DataLayerError("disk full")

    FORMATS_BEFORE = dict(FORMATS)
    monkeypatch.setitem(export.FORMATS, extension, half_written)
    with pytest.raises(OutputError, match="disk full"):
        write_polygons(table(), out, legend=LEGEND, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    assert out.read_text() == "precious"


def test_a_folder_is_no_output_and_a_file_no_folder(tmp_path):
    (tmp_path / "a.gpkg").mkdir()
    with pytest.raises(OutputError, match="folder"):
        write_polygons(table(), tmp_path / "a.gpkg", legend=LEGEND)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_polygons(table(), tmp_path / "file" / "a.gpkg", legend=LEGEND)


def test_geojson_is_rfc_7946(tmp_path):
    document = json.loads(write_polygons(table(), tmp_path / "map.geojson", legend=LEGEND).read_text(encoding="utf-8"))
    assert "crs" not in document
    ring = np.array(document["features"][0]["geometry"]["coordinates"][0])
    assert np.abs(ring[0] - [-3, 52.35]).max() < 0.1
    assert shapely.is_ccw(shapely.linearrings(ring))
    assert all(len(str(abs(value)).split(".")[1]) <= 7 for value in ring.ravel())


def test_geojson_keeps_the_coverage_where_edges_are_long(tmp_path):
    """A straight edge of 100 km at 52° N bends by 250 m in degrees: more than the pixels beside it are wide."""
    values = np.ones((20, 2000), np.uint8)
    values[:10] = 2
    values[8, 1000:1010] = 3
    geobox = GeoBox(values.shape, Affine(50, 0, 500_000, 0, -50, 5_800_000), "EPSG:32630")
    frame = polygonize(Raster(values[None], values > 0, geobox, ("class",)), legend=LEGEND)
    back = geopandas.read_file(write_polygons(frame, tmp_path / "map.geojson", legend=LEGEND))
    there = back.to_crs(frame.crs)
    assert back.is_valid.all()
    assert shapely.coverage_is_valid(back.geometry.to_numpy())
    np.testing.assert_allclose(there.area.sort_values(), frame.area.sort_values(), rtol=1e-4)


def test_geojson_without_crs_is_refused(tmp_path):
    with pytest.raises(InputError, match="no CRS"):
        write_polygons(table(crs=None), tmp_path / "map.geojson", legend=LEGEND)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("extension", [".gpkg", ".fgb", ".parquet", ".shp"])
def test_other_formats_hold_a_map_without_crs(tmp_path, extension):
    out = write_polygons(table(crs=None), tmp_path / f"map{extension}", legend=LEGEND)
    back = read_back(out)
    assert back["area_px"].sum() == pytest.approx(180)


def test_parquet_is_geoparquet_with_a_bbox_column(tmp_path):
    out = write_polygons(table(), tmp_path / "map.parquet", legend=LEGEND)
    metadata = json.loads(pq.read_metadata(out).metadata[b"geo"])
    assert metadata["version"] == "1.1.0"
    assert metadata["columns"]["geometry"]["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]
    assert metadata["columns"]["geometry"]["crs"]["id"] == {"authority": "EPSG", "code": 32630}


def test_shapefile_has_its_sidecars_and_names(tmp_path):
    write_polygons(table(), tmp_path / "map.shp", legend=LEGEND)
    assert {path.suffix for path in tmp_path.iterdir()} == {".shp", ".shx", ".dbf", ".prj", ".cpg", ".json", ".qml"}
    assert (tmp_path / "map.cpg").read_text() == "UTF-8"
    assert json.loads((tmp_path / "map.fields.json").read_text()) == {"perimeter_m": "perimeter_"}


def test_shapefile_over_two_gigabytes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_SHAPEFILE_BYTES", 1000)
    with pytest.raises(InputError, match="2 GB"):
        write_polygons(table(), tmp_path / "map.shp", legend=LEGEND)
    assert list(tmp_path.iterdir()) == []


def test_short_names_are_unique_in_any_case():
    names = [f"band_mean_{number}" for number in range(12)] + ["BAND_MEAN_x"]
    short = list(short_names(names).values())
    assert len({name.lower() for name in short}) == len(names)
    assert max(map(len, short)) <= 10


def test_style_has_every_class_in_its_colour():
    root = ET.fromstring(polygon_style(LEGEND).split("\n", 1)[1])  # noqa: S314 - our own text
    assert [each.get("label") for each in root.iter("category")] == ["forêt", "water & ice", "road"]
    colors = [each.get("value") for each in root.iter("Option") if each.get("name") == "color"]
    assert colors[0] == "31,107,53,255"


def test_geopackage_carries_its_style(tmp_path):
    out = write_polygons(table(), tmp_path / "map.gpkg", legend=LEGEND)
    with sqlite3.connect(out) as database:
        rows = database.execute("SELECT f_table_name, f_geometry_column, styleQML, useAsDefault FROM layer_styles")
        name, column, style, default = rows.fetchone()
        registered = database.execute("SELECT column_name FROM gpkg_geometry_columns WHERE table_name = 'map'")
        assert registered.fetchone() == (column,)
    database.close()
    assert (name, default) == ("map", 1)
    assert style == polygon_style(LEGEND)
    assert list(tmp_path.iterdir()) == [out]


def test_the_raster_style_of_the_same_name_stays(tmp_path):
    (tmp_path / "map.qml").write_text(LEGEND.to_qml())
    write_polygons(table(), tmp_path / "map.fgb", legend=LEGEND, overwrite=True)
    assert (tmp_path / "map.qml").read_text() == LEGEND.to_qml()
