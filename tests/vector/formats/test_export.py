"""Every format read back by geopandas; what a format cannot hold; and nothing left behind on failure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import weakref
from dataclasses import replace
from types import SimpleNamespace

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pyogrio
import pytest
import rasterio.features
import shapely
from affine import Affine

from geoseg.errors import InputError, OutputError, OutputExistsError, ReadError
from geoseg.legend import Legend
from geoseg.vector import check_format, polygon_style, write_layer, write_polygons
from geoseg.vector.formats import export
from geoseg.vector.formats.export import FORMATS, Format, check_target
from geoseg.vector.formats.frames import flatten, layer_of_frame
from geoseg.vector.formats.shapefile import short_names
from geoseg.vector.layer import FeatureBatch, PolygonLayer

LEGEND = Legend.from_dict({1: {"name": "forêt", "color": "#1f6b35"}, 2: "water & ice", 3: "road"})
TILES = ".pmtiles"
TABLES = [extension for extension in FORMATS if extension != TILES]  # that hold features whole


def table(shape=(12, 15), *, crs="EPSG:32630", pixel=10.0, seed=0):
    """Polygons of a random map, each with a number of its own."""
    values = np.random.default_rng(seed).integers(1, 4, shape).astype(np.uint8)
    transform = Affine(pixel, 0, 500_000, 0, -pixel, 5_800_000)
    shapes = [
        (shapely.geometry.shape(each), int(value))
        for each, value in rasterio.features.shapes(values, transform=transform)
    ]
    polygons = np.array([each for each, _ in shapes], object)
    ids = np.array([value for _, value in shapes], np.int32)
    unit = "m" if crs else "px"
    columns = {
        "id": np.arange(len(ids)) + 2**40,
        "class_id": ids,
        "class_name": [LEGEND.names[value - 1] for value in ids],
        f"area_{unit}2" if crs else "area_px": shapely.area(polygons) / 7,
        f"perimeter_{unit}": shapely.length(polygons) / 3,
        "confidence": np.where(ids == 2, np.nan, ids * 30.1),
    }
    return geopandas.GeoDataFrame(columns, geometry=polygons, crs=crs)


def read_back(path):
    if path.suffix == ".parquet":
        return geopandas.read_parquet(path)
    return geopandas.read_file(path, layer=path.stem)  # a GeoPackage has its styles as a second layer


def layer_in_batches(frame, size=10, legend=LEGEND):
    parts = [layer_of_frame(frame.iloc[start : start + size]) for start in range(0, len(frame), size)]
    whole = layer_of_frame(frame, legend=legend)
    return replace(whole, batches=lambda: (batch for part in parts for batch in part.batches()))


@pytest.mark.parametrize("extension", TABLES)
def test_round_trip(tmp_path, extension):
    frame = table()
    out = write_layer(layer_in_batches(frame), tmp_path / f"map{extension}")
    assert out == tmp_path / f"map{extension}"
    back = read_back(out).sort_values("id", ignore_index=True)
    names = short_names(frame.columns) if extension == ".shp" else {name: name for name in frame.columns}
    assert set(back.columns) == set(names.values())
    for name, column in frame.drop(columns="geometry").items():
        if column.dtype.kind == "f":
            np.testing.assert_allclose(back[names[name]], column, rtol=1e-14)
        else:
            assert back[names[name]].tolist() == column.tolist()
    if extension == ".geojson":
        assert back.crs == "EPSG:4326"
        assert back.to_crs(frame.crs).geometry.hausdorff_distance(frame.geometry).max() < 0.02  # of seven decimals
    else:
        assert back.crs == frame.crs
        assert back.geometry.normalize().geom_equals_exact(frame.geometry.normalize(), 0).all()


@pytest.mark.parametrize("extension", TABLES)
def test_multi_polygons_come_back_as_they_were(tmp_path, extension):
    frame = table().dissolve("class_id").reset_index()
    assert set(frame.geom_type) == {"MultiPolygon"}
    back = read_back(write_polygons(frame, tmp_path / f"map{extension}", legend=LEGEND))
    back = back.sort_values("class_id", ignore_index=True).to_crs(frame.crs)
    np.testing.assert_allclose(back.area, frame.area, rtol=1e-2 if extension == ".geojson" else 1e-12)
    assert shapely.get_num_geometries(back.geometry).tolist() == shapely.get_num_geometries(frame.geometry).tolist()


@pytest.mark.parametrize("extension", TABLES)
def test_an_empty_table_is_an_empty_layer(tmp_path, extension):
    frame = table().iloc[:0]
    out = write_polygons(frame, tmp_path / f"map{extension}", legend=LEGEND)
    back = read_back(out)
    assert len(back) == 0
    if extension == ".geojson":
        assert json.loads(out.read_text())["features"] == []  # has no columns without features
        return
    assert "class_id" in back.columns
    assert back.crs == frame.crs
    if extension != ".parquet":
        assert pyogrio.read_info(out, layer="map")["geometry_type"] == "Polygon"


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
    assert out.read_bytes() != before
    if extension != TILES:
        assert len(read_back(out)) == len(small)


def test_unknown_extension_lists_the_known(tmp_path):
    with pytest.raises(InputError, match=r"\.gpkg, \.fgb, \.geojson, \.parquet, \.shp, \.pmtiles"):
        write_polygons(table(), tmp_path / "map.kml", legend=LEGEND)


def test_a_missing_driver_is_named_with_what_can_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(pyogrio, "list_drivers", lambda **_: {"GPKG": "rw", "ESRI Shapefile": "rw"})
    for check in (check_format, lambda out: write_polygons(table(), out, legend=LEGEND)):
        with pytest.raises(InputError, match=r"'FlatGeobuf'.*can write \.gpkg, \.parquet, \.shp$"):
            check(tmp_path / "map.fgb")
    check_format(tmp_path / "map.parquet")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("extension", FORMATS)
def test_failure_leaves_nothing_and_keeps_what_was_there(tmp_path, extension, monkeypatch):
    out = tmp_path / f"map{extension}"
    out.write_text("precious")
    whole = FORMATS[extension].write

    def half_written(layer, path, progress):
        whole(layer, path, progress)
        raise pyogrio.errors.DataLayerError(f"no room\nfor {path}")

    monkeypatch.setitem(export.FORMATS, extension, Format(half_written, None))
    with pytest.raises(OutputError) as caught:
        write_polygons(table(), out, legend=LEGEND, overwrite=True)
    assert str(caught.value) == f"{out} cannot be written: no room for {out.name}"  # one line, no scratch folder
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    assert out.read_text() == "precious"


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize("error", [ReadError("the map cannot be read: bad block"), KeyboardInterrupt()], ids=repr)
def test_what_ends_the_batches_is_what_the_caller_sees(tmp_path, extension, error):
    layer = layer_in_batches(table())

    def interrupted():
        yield from list(layer.batches())[:2]
        raise error

    with pytest.raises(type(error)) as caught:
        write_layer(replace(layer, batches=interrupted), tmp_path / f"map{extension}")
    assert caught.value is error
    assert list(tmp_path.iterdir()) == []


FULL_DISK = """
import json, resource, sys
from pathlib import Path
import geopandas, numpy as np, shapely
from geoseg.errors import OutputError
from geoseg.vector.formats.export import FORMATS, write_polygons

folder = Path(sys.argv[1])
row, col = np.divmod(np.arange(900), 30)
boxes = shapely.segmentize(shapely.box(90 * col, 90 * row, 90 * col + 80, 90 * row + 80), 5)
frame = geopandas.GeoDataFrame({"id": np.arange(900), "x": row / 7}, geometry=boxes, crs="EPSG:32630")
for extension in FORMATS:
    out = write_polygons(frame, folder / f"map{extension}", legend=None)
    size = max(path.stat().st_size for path in folder.iterdir())
    for path in folder.iterdir():
        path.unlink()
    for limit in (size - 1, size - 300, size * 9 // 10, size // 2, size // 10):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            write_polygons(frame, out, legend=None)
            message = None
        except OutputError as error:
            message = str(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print(json.dumps([extension, size - limit, message, [path.name for path in folder.iterdir()]]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="file sizes are limited by the POSIX way")
def test_a_file_without_its_end_is_an_error_in_every_format(tmp_path):
    """GDAL says nothing when what it writes on closing finds no room; a limit of file sizes stands for that."""
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
    outcomes = [json.loads(line) for line in run.stdout.splitlines()]
    assert {extension for extension, *_ in outcomes} == set(FORMATS)
    for extension, lacking, message, left in outcomes:
        assert message is not None, (extension, lacking)
        assert message.startswith(f"{tmp_path / f'map{extension}'} cannot be written: ")
        assert "\n" not in message
        assert left == []


def test_little_room_on_the_disk_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(export.shutil, "disk_usage", lambda _: SimpleNamespace(free=2_300_000))

    def failing(layer, path, progress):
        raise OSError("disk I/O error")

    monkeypatch.setitem(export.FORMATS, ".gpkg", Format(failing, None))
    with pytest.raises(OutputError, match="disk I/O error; its disk has 2 MB left"):
        write_polygons(table(), tmp_path / "map.gpkg", legend=LEGEND)


def test_a_folder_is_no_output_and_a_file_no_folder(tmp_path):
    (tmp_path / "a.gpkg").mkdir()
    with pytest.raises(OutputError, match="folder"):
        write_polygons(table(), tmp_path / "a.gpkg", legend=LEGEND)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_polygons(table(), tmp_path / "file" / "a.gpkg", legend=LEGEND)


@pytest.mark.parametrize("extension", [".gpkg", ".fgb", ".parquet", ".shp"])
def test_a_map_without_crs_can_be_held(tmp_path, extension):
    frame = table(crs=None)
    back = read_back(write_polygons(frame, tmp_path / f"map{extension}", legend=LEGEND))
    assert back["area_px"].sum() == pytest.approx(frame["area_px"].sum())
    assert back.area.sum() == pytest.approx(frame.area.sum())


@pytest.mark.parametrize("extension", FORMATS)
def test_batches_are_taken_one_by_one_and_given_up(tmp_path, extension):
    """Of 40 batches no more than a few are in memory at a time."""
    alive = weakref.WeakSet()
    most, told = 0, []
    boxes = shapely.box(np.arange(400) * 10.0, 0, np.arange(400) * 10.0 + 10, 10)

    class Tracked(np.ndarray):
        pass

    def batches():
        nonlocal most
        for start in range(0, 400, 10):
            ids = np.arange(start, start + 10).view(Tracked)
            alive.add(Holder(ids))
            most = max(most, len(alive))
            column = pa.Array.from_buffers(pa.int64(), 10, [None, pa.py_buffer(ids)])
            yield FeatureBatch(pa.RecordBatch.from_arrays([column], names=["id"]), *flatten(boxes[start : start + 10]))

    class Holder:
        """Lives as long as its array, which cannot be in a set."""

        def __init__(self, array):
            array.holder = self

    whole = layer_of_frame(geopandas.GeoDataFrame({"id": [1]}, geometry=boxes[:1], crs="EPSG:32630"))
    layer = PolygonLayer(whole.schema, whole.crs, False, 400, 2000, batches)
    write_layer(layer, tmp_path / f"map{extension}", progress=lambda *each: told.append(each))
    assert 1 <= most <= 3
    assert told == [(done, 400) for done in range(10, 401, 10)]
    if extension != TILES:
        assert sorted(read_back(tmp_path / f"map{extension}")["id"]) == list(range(400))


@pytest.mark.parametrize("extension", TABLES)
def test_a_file_a_class_has_its_class_and_its_style(tmp_path, extension):
    frame = table()
    told = []
    layer = layer_in_batches(frame)
    where = write_layer(layer, tmp_path / f"map{extension}", per_class=True, progress=lambda *each: told.append(each))
    assert where == tmp_path
    assert told[-1] == (len(frame), len(frame))
    assert told == sorted(told)
    outs = sorted(tmp_path.glob(f"*{extension}"))
    assert [path.stem for path in outs] == ["map_forêt", "map_road", "map_water_ice"]
    for path, class_id in zip(outs, (1, 3, 2), strict=True):
        back = read_back(path).sort_values("id", ignore_index=True)
        own = frame[frame["class_id"] == class_id]
        assert back["id"].tolist() == own["id"].tolist()
        np.testing.assert_allclose(back.to_crs(frame.crs).area, own.area, rtol=1e-2)
        if extension != ".gpkg":
            style = path.with_suffix(".qml").read_text(encoding="utf-8")
            assert style.count("<category ") == 1
            assert f'value="{class_id}"' in style


def test_of_files_a_class_none_is_written_where_one_exists(tmp_path):
    (tmp_path / "map_road.shp").write_text("precious")
    with pytest.raises(OutputExistsError, match=r"map_road\.shp"):
        write_layer(layer_in_batches(table()), tmp_path / "map.shp", per_class=True)
    assert [path.name for path in tmp_path.iterdir()] == ["map_road.shp"]


def test_a_file_a_class_needs_classes(tmp_path):
    objects = table().drop(columns=["class_id", "class_name"])
    with pytest.raises(InputError, match="map of classes"):
        write_layer(layer_in_batches(objects, legend=None), tmp_path / "map.shp", per_class=True)


@pytest.mark.parametrize("codes", [{1: 11, 2: 42, 3: 70_001}, {1: -3, 2: 0, 3: 255}], ids=["codes", "negative"])
def test_a_file_a_class_needs_no_legend_of_ids(tmp_path, codes):
    frame = table().assign(class_id=lambda frame: frame["class_id"].map(codes))
    write_layer(layer_in_batches(frame, legend=None), tmp_path / "map.gpkg", per_class=True)
    outs = sorted(tmp_path.glob("*.gpkg"))
    assert [path.stem for path in outs] == ["map_forêt", "map_road", "map_water_ice"]
    for path, number in zip(outs, (1, 3, 2), strict=True):
        assert set(read_back(path)["class_id"]) == {codes[number]}
        assert len(read_back(path)) == (frame["class_id"] == codes[number]).sum()


def test_classes_without_names_have_files_by_their_numbers(tmp_path):
    frame = table().drop(columns="class_name").assign(class_id=lambda frame: frame["class_id"] - 2)
    write_layer(layer_in_batches(frame, legend=None), tmp_path / "map.fgb", per_class=True)
    assert {path.stem for path in tmp_path.glob("*.fgb")} == {"map_class_-1", "map_class_0", "map_class_1"}


def test_a_file_a_class_of_no_feature_is_no_file(tmp_path):
    write_layer(layer_of_frame(table().iloc[:0], legend=LEGEND), tmp_path / "map.shp", per_class=True)
    assert list(tmp_path.iterdir()) == []


def test_columns_of_one_name_are_refused(tmp_path):
    with pytest.raises(InputError, match="more than one column called class_id"):
        write_polygons(table().rename(columns={"confidence": "Class_ID"}), tmp_path / "map.gpkg", legend=LEGEND)


def test_no_geometry_but_polygons_is_taken(tmp_path):
    frame = geopandas.GeoDataFrame({"id": [1]}, geometry=[shapely.Point(0, 0)], crs="EPSG:32630")
    with pytest.raises(InputError, match="polygons"):
        write_polygons(frame, tmp_path / "map.gpkg", legend=None)


@pytest.mark.parametrize("kind", [pa.uint8(), pa.int16(), pa.uint32(), pa.uint64(), pa.bool_(), pa.float32()], ids=str)
@pytest.mark.parametrize("extension", TABLES)
def test_columns_of_any_kind_keep_their_values(tmp_path, extension, kind):
    layer = layer_of_frame(table((1, 2), seed=3))
    (batch,) = layer.batches()
    count = batch.table.num_rows
    column = pa.array([True, None][:count] if kind == pa.bool_() else [100, None][:count], kind)
    record = pa.RecordBatch.from_arrays([column], names=["value"])
    layer = replace(layer, schema=record.schema, batches=lambda: iter([batch._replace(table=record)]))
    back = read_back(write_layer(layer, tmp_path / f"map{extension}"))
    values = back["value"].tolist()
    assert len(values) == count
    assert [value for value in values if not pd.isna(value)] == [100 if kind != pa.bool_() else True]


@pytest.mark.parametrize(("extension", "warns"), [(".fgb", True), (".gpkg", False)])
def test_the_raster_style_of_the_same_name_stays(tmp_path, caplog, extension, warns):
    (tmp_path / "map.qml").write_text(LEGEND.to_qml())
    write_polygons(table(), tmp_path / f"map{extension}", legend=LEGEND, overwrite=True)
    assert (tmp_path / "map.qml").read_text() == LEGEND.to_qml()
    said = f"{tmp_path / 'map.qml'} is the style of map.tif and stays; give the polygons another name"
    assert (said in caplog.text) is warns  # a GeoPackage holds it too


def test_a_geopackage_has_its_style_inside_and_beside(tmp_path):
    write_polygons(table(), tmp_path / "map.gpkg", legend=LEGEND)
    assert (tmp_path / "map.qml").read_text() == polygon_style(LEGEND)


def test_objects_without_classes_get_a_plain_style_that_may_be_replaced(tmp_path):
    objects = table().drop(columns=["class_id", "class_name"])
    write_polygons(objects, tmp_path / "map.fgb", legend=LEGEND)
    assert (tmp_path / "map.qml").read_text() == polygon_style(None)
    write_polygons(table(), tmp_path / "map.fgb", legend=LEGEND, overwrite=True)
    assert (tmp_path / "map.qml").read_text() == polygon_style(LEGEND)


def test_a_style_that_was_edited_stays_and_that_is_told(tmp_path, caplog):
    write_polygons(table(), tmp_path / "map.fgb", legend=LEGEND)
    style = tmp_path / "map.qml"
    edited = style.read_text().replace("31,107,53", "255,0,0")
    style.write_text(edited)
    write_polygons(table(), tmp_path / "map.fgb", legend=LEGEND, overwrite=True)
    assert style.read_text() == edited
    assert f"left the style {style} as it is" in caplog.text


@pytest.mark.parametrize("extension", [*FORMATS, *map(str.upper, FORMATS)])
def test_extensions_may_be_in_capitals(tmp_path, extension):
    out = write_polygons(table(), tmp_path / f"A{extension}", legend=LEGEND)
    assert out in tmp_path.iterdir()
    if extension.lower() != TILES:
        back = geopandas.read_parquet(out) if extension.lower() == ".parquet" else geopandas.read_file(out, layer="A")
        assert len(back) == len(table())


TARGETS = {
    "no CRS for GeoJSON": ("map.geojson", {"crs": None}, r"no CRS; write \.gpkg"),
    "no CRS for tiles": ("map.pmtiles", {"crs": None}, r"no CRS; write \.gpkg"),
    "a table of GeoPackage": ("gpkg_map.gpkg", {}, "'gpkg_map'"),
    "a table of SQLite": ("SQLite_x.gpkg", {}, "'SQLite_x'"),
    "the table of styles": ("layer_styles.gpkg", {}, "'layer_styles'"),
    "two of one name": ("map.fgb", {"columns": ["Mean", "mean"]}, "more than one column called mean"),
    "geometry": ("map.fgb", {"columns": ["Geometry"]}, "'geometry'"),
    "geometry in a GeoPackage": ("map.gpkg", {"columns": ["geom"]}, "'geom'"),
    "ids in a GeoPackage": ("map.gpkg", {"columns": ["fid"]}, "'fid'"),
    "bounds": ("map.parquet", {"columns": ["bbox"]}, "'bbox'"),
    "unknown": ("map.kml", {}, "extension"),
}


@pytest.mark.parametrize(("name", "given", "message"), TARGETS.values(), ids=TARGETS)
def test_what_cannot_be_written_is_known_before_the_work(tmp_path, name, given, message):
    with pytest.raises(InputError, match=message):
        check_target(tmp_path / name, **{"crs": "EPSG:32630", **given})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["gpkg_map", "sqlite_x", "rtree_a", "layer_styles"])
def test_a_reserved_name_is_refused_on_writing_too(tmp_path, name):
    with pytest.raises(InputError, match=name):
        write_polygons(table(), tmp_path / f"{name}.gpkg", legend=LEGEND)
    write_polygons(table(), tmp_path / f"{name}.fgb", legend=LEGEND)


def test_files_a_class_that_exist_are_known_before_the_work(tmp_path):
    out, classes = tmp_path / "map.fgb", {1: "forest", 2: "water & ice"}
    check_target(out, crs=None, classes=classes)
    (tmp_path / "map_water_ice.fgb").touch()
    check_target(out, crs=None)
    check_target(out, crs=None, classes=classes, overwrite=True)
    with pytest.raises(OutputExistsError, match=r"map_water_ice\.fgb"):
        check_target(out, crs=None, classes=classes)
