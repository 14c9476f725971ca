"""What stands in a label file means what the file says of itself: ids of our maps, names, nodata, open sources."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

import geoseg
from geoseg.cli import main
from geoseg.errors import InputError, LegendError
from geoseg.io import raster_says
from geoseg.io.combine import Mosaic
from geoseg.io.geotiff import write_raster
from geoseg.io.labels import open_labels
from geoseg.io.legends import read_legend
from geoseg.io.pam import _integer
from geoseg.io.raster_says import is_unnamed
from geoseg.io.sources import open_source
from geoseg.legend import Legend
from geoseg.raster import Raster

PLACE = Affine(10, 0, 500_000, 0, -10, 4_200_000)
ROW = GeoBox((1, 4), PLACE, "EPSG:32612")
CODED = Legend.from_dict({1: {"name": "water", "codes": [2]}, 2: {"name": "forest", "codes": [1, 41]}})


@pytest.fixture
def write_map(tmp_path):
    """Writes one row of class ids with a legend, as a map has it."""

    def write(name, ids, legend):
        pixels = np.array([[ids]], legend.dtype)
        raster = Raster(pixels, pixels[0] != legend.ignore, ROW, ("class",))
        return str(write_raster(raster, tmp_path / name, legend=legend))

    return write


def read(spec, **options):
    labels, legend = open_labels(spec, **options)
    found = labels.read(ROW)
    return np.where(found.valid, found.pixels[0].astype(int), -1)[0].tolist(), legend


def test_a_map_holds_ids_whatever_codes_its_legend_has(write_map):
    path = write_map("map.tif", [1, 2, 2, 255], CODED)
    assert read(path) == ([1, 2, 2, -1], CODED)
    assert read(path, legend=CODED)[0] == [1, 2, 2, -1]
    assert read({"path": path, "legend": path})[0] == [1, 2, 2, -1]
    assert geoseg.assess(path, reference=path).accuracy.overall == 1
    assert {"1 water", "2 forest"} <= {line.strip()[:8].strip() for line in str(geoseg.info(path)).splitlines()}


def test_the_legend_of_a_map_knows_the_codes_of_other_files(write_map, write_tif):
    path = write_map("map.tif", [1, 2, 2, 2], CODED)
    codes = write_tif("codes.tif", np.array([[2, 41, 1, 41]], "uint8"))
    assert geoseg.assess(path, reference=codes).accuracy.overall == 1
    assert read_legend(path) == CODED


@pytest.mark.parametrize("layered", [False, True])
def test_maps_of_other_ids_are_matched_by_name(write_map, layered):
    mine = write_map("mine.tif", [1, 2, 2, 1], Legend.from_dict({1: "water", 2: "Forest"}))
    theirs = write_map("theirs.tif", [2, 1, 1, 2], Legend.from_dict({1: "forest", 2: "water"}))
    assert geoseg.assess(mine, reference={"layers": [theirs]} if layered else theirs).accuracy.overall == 1


def test_names_that_contradict_the_legend_are_refused_where_not_all_are_known(write_map):
    mine = write_map("mine.tif", [1, 2, 2, 1], Legend.from_dict({1: "water", 2: "forest"}))
    theirs = write_map("theirs.tif", [2, 1, 1, 3], Legend.from_dict({1: "forest", 2: "water", 3: "urban"}))
    with pytest.raises(LegendError, match=r"theirs.tif calls its value 1 forest, which is 2 in the legend.*say what"):
        geoseg.assess(mine, reference=theirs)
    own = {"path": theirs, "legend": {1: "forest", 2: "water"}, "ignore": [3]}
    assert geoseg.assess(mine, reference=own).accuracy.overall == 1


def test_codes_that_the_user_gives_win_over_names_in_a_file_of_others(write_tif):
    path = write_tif("others.tif", np.array([[1, 2, 2, 1]], "uint8"))
    names = "<CategoryNames><Category/><Category>forest</Category><Category>water</Category></CategoryNames>"
    Path(f"{path}.aux.xml").write_text(f'<PAMDataset><PAMRasterBand band="1">{names}</PAMRasterBand></PAMDataset>')
    assert read(path)[1].names == ("forest", "water")
    legend = Legend.from_dict({1: {"name": "forest", "codes": [2]}, 2: {"name": "water", "codes": [1]}})
    assert read(path, legend=legend)[0] == [2, 1, 1, 2]
    assert read(path, legend=Legend.from_dict({1: "water", 2: "forest"}))[0] == [2, 1, 1, 2]


def test_a_map_keeps_its_names_where_classes_are_ignored(write_map):
    path = write_map("map.tif", [1, 2, 2, 1], Legend.from_dict({1: "water", 2: "forest"}))
    ids, legend = read({"path": path, "ignore": [2]})
    assert (ids, legend.names) == ([1, -1, -1, 1], ("water",))
    with pytest.raises(LegendError, match="none is left"):
        open_labels({"path": path, "ignore": [1, 2]})


@pytest.mark.parametrize(
    ("pixels", "own", "wanted"),
    [
        ([1, 2, 0, 1], {"classes": {1: "background", 2: "building"}, "ignore": 0}, [1, 2, -1, 1]),
        ([0, 255, 255, 0], {0: "background", 255: "building"}, [1, 2, 2, 1]),
        ([0, 255, 7, 0], {"classes": {0: "background", 255: "building"}, "ignore": 7}, [1, 2, -1, 1]),
    ],
)
def test_a_file_has_its_own_ignore_value(write_tif, pixels, own, wanted):
    path = write_tif("labels.tif", np.array([pixels], "uint8"))
    legend = Legend.from_dict({1: "background", 2: "building"})
    assert read({"path": path, "legend": own}, legend=legend)[0] == wanted


@pytest.mark.parametrize(
    ("dtype", "values"), [("float32", [1, 2, 2, 1]), ("int32", [1, 100_000, 2, 1]), ("int16", [-1, 2, 2, 7])]
)
def test_maps_of_any_whole_numbers_are_assessed(write_tif, dtype, values):
    path = write_tif("map.tif", np.array([values], dtype))
    assert geoseg.assess(path, reference=path).accuracy.overall == 1


@settings(max_examples=25, deadline=None)
@given(st.floats(0.05, 0.95), st.floats(0.3, 3))
def test_labels_that_are_open_already_are_read_by_nearest_neighbour(off, step):
    path = f"/vsimem/open_{off}_{step}.tif"
    profile = {"driver": "GTiff", "width": 4, "height": 2, "count": 1, "dtype": "uint8", "crs": "EPSG:32612"}
    with rasterio.open(path, "w", transform=PLACE, **profile) as file:
        file.write(np.array([[[1, 1, 3, 3]] * 2], "uint8"))
    grid = GeoBox((2, 6), PLACE @ Affine.translation(off, 0.1) @ Affine.scale(step), "EPSG:32612")
    legend = Legend.from_dict({1: "a", 2: "b", 3: "c"})
    opened, named = (open_labels(spec, legend=legend)[0].read(grid) for spec in (open_source(path), path))
    np.testing.assert_array_equal(opened.pixels, named.pixels)
    np.testing.assert_array_equal(opened.valid, named.valid)
    assert not (opened.pixels == 2).any()


def test_colours_are_nodata_and_not_their_channels(write_tif):
    colors = np.array([[255, 0, 0], [0, 255, 0], [255, 255, 255], [0, 0, 0]], "uint8").T[:, None]
    path = write_tif("colors.tif", colors, photometric="RGB", nodata=0)
    table = {"#ff0000": "red", "#00ff00": "green", "#ffffff": "white"}
    assert read({"path": path, "colors": table})[0] == [1, 2, 3, -1]
    assert read({"path": path, "colors": {**table, "#000000": "black"}})[0] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("mask", "codes", "valid"),
    [
        ({"band": "CLDPRB"}, [0, 30, 60, 90], [True, True, False, False]),
        ({"band": "CLDPRB", "kind": "values", "drop": [1]}, [0, 1, 2, 0], [True, False, True, True]),
    ],
)
def test_a_mask_means_its_values_where_all_bands_have_one_nodata(write_tif, mask, codes, valid):
    path = write_tif("image.tif", np.array([[[1, 2, 3, 4]], [codes]], "uint16"), names=("red", "CLDPRB"), nodata=0)
    source = open_source({"path": path, "mask": mask})
    assert source.read(source.geobox).valid[0].tolist() == valid


def test_nulls_of_any_kind_and_names_in_other_letters(tmp_path):
    places = gpd.points_from_xy([500_005, 500_015, 500_025, 500_035], [4_199_995] * 4).buffer(4, cap_style="square")
    names = pd.array(["Forest", None, "forest", "water"], dtype="string")
    gpd.GeoDataFrame({"c": names}, geometry=places, crs="EPSG:32612").to_parquet(tmp_path / "l.parquet")
    ids, legend = read(str(tmp_path / "l.parquet"))
    assert (ids, legend.names) == ([1, -1, 1, 2], ("Forest", "water"))
    assert read({"path": str(tmp_path / "l.parquet"), "ignore": ["FOREST"]})[0] == [-1, -1, -1, 1]
    with pytest.raises(LegendError, match="name water belongs to two classes"):
        Legend.from_dict({1: "Water", 2: "water"})


@pytest.mark.parametrize(("text", "value"), [("nan", None), ("inf", None), ("3.0", 3), ("3.5", None), ("x", None)])
def test_values_of_a_table_that_are_no_codes_are_passed_over(text, value):
    assert _integer(text) == value


def test_a_nodata_that_valid_pixels_have_is_refused(tmp_path):
    raster = Raster(np.array([[[0, 1, 2, 3]]], "uint8"), np.array([[True, True, True, False]]), ROW, ("a",))
    with pytest.raises(InputError, match="cannot have nodata 0: valid pixels have that value"):
        write_raster(raster, tmp_path / "a.tif", nodata=0)
    with pytest.raises(InputError, match="needs a nodata value that uint8 can hold, got 0.5"):
        write_raster(raster, tmp_path / "a.tif", nodata=0.5)
    source = open_source(str(write_raster(raster, tmp_path / "a.tif", nodata=255.0)))
    assert source.read(ROW).valid[0].tolist() == [True, True, True, False]


def test_values_without_a_name_stand_for_what_the_legend_says(write_tif):
    path = write_tif("some.tif", np.array([[0, 1, 2, 2]], "uint8"))
    names = "<CategoryNames><Category/><Category>water</Category><Category>forest</Category></CategoryNames>"
    Path(f"{path}.aux.xml").write_text(f'<PAMDataset><PAMRasterBand band="1">{names}</PAMRasterBand></PAMDataset>')
    assert read(path, legend=Legend.from_dict({0: "other", 1: "forest", 2: "water"}))[0] == [0, 2, 1, 1]
    high = Legend.from_dict({"classes": {255: "water", 1: "forest"}, "ignore": 0})
    assert read(path, legend=high)[0] == [-1, 255, 1, 1]


# -- several files -----------------------------------------------------------------------------------------------------


@pytest.fixture
def named(write_tif):
    """Writes two pixels of codes at a column, with names of the values from 0 on."""

    def write(name, codes, names, *, col=0, **profile):
        path = write_tif(name, np.array([codes], "uint8"), affine=PLACE @ Affine.translation(col, 0), **profile)
        listed = "".join(f"<Category>{text}</Category>" for text in names)
        Path(f"{path}.aux.xml").write_text(
            f'<PAMDataset><PAMRasterBand band="1"><CategoryNames>{listed}</CategoryNames></PAMRasterBand></PAMDataset>'
        )
        return path

    return write


def test_a_mosaic_has_the_names_of_all_its_files(named, write_tif):
    first = named("a.tif", [1, 2], ["", "water", "Bare_soil"], nodata=0)
    second = named("b.tif", [2, 3], ["no data", "", "bare soil", "road"], col=2, nodata=0)
    assert read([first, second])[1].names == ("water", "Bare_soil", "road")
    wanted = Legend.from_dict({1: "road", 2: "water", 3: "bare soil"})
    assert read([first, second], legend=wanted)[0] == [2, 3, 3, 1]
    silent = write_tif("c.tif", np.array([[2, 9]], "uint8"), affine=PLACE @ Affine.translation(2, 0))
    ids, legend = read([first, silent])
    assert (ids, legend.names) == ([1, 2, 2, 9], ("water", "Bare_soil", "class 9"))


@pytest.mark.parametrize("names", [["", "forest", "water"], ["", "water", "unlabelled"]])
@pytest.mark.parametrize("wanted", [None, Legend.from_dict({1: "water", 2: "forest"})])
def test_files_of_a_mosaic_that_name_their_values_unlike_are_refused(named, names, wanted):
    first, second = named("a.tif", [1, 2], ["", "water", "forest"]), named("b.tif", [1, 2], names, col=2)
    with pytest.raises(LegendError, match=r"a\.tif calls its value \d \w+, .*b\.tif calls it \w+; .*layers") as told:
        read([first, second], legend=wanted)
    assert "\n" not in str(told.value)


def test_layers_and_a_legend_go_where_files_name_their_values_unlike(named):
    first, second = (
        named("a.tif", [1, 2], ["", "water", "forest"]),
        named("b.tif", [1, 2], ["", "forest", "sea"], col=2),
    )
    wanted = Legend.from_dict({4: "forest", 5: "water", 6: "sea"})
    assert read({"layers": [first, second]}, legend=wanted)[0] == [5, 4, 4, 6]
    own = {"mosaic": [first, second], "legend": {1: "water", 2: "forest"}}
    assert read(own, legend=wanted)[0] == [5, 4, 5, 4]
    coded = Legend.from_dict({7: {"name": "wet", "codes": [1]}, 8: {"name": "dry", "codes": [2]}})
    assert read([first, second], legend=coded)[0] == [7, 8, 7, 8]


@pytest.mark.parametrize("names", [["unclassified", "water", "forest"], ["0", "1", "Value 2"], ["", "water body", "x"]])
@pytest.mark.parametrize("wanted", [["water", "forest"], ["Wasser", "Wald"]])
def test_names_that_differ_are_fine_where_the_legend_wanted_reads_all_files_alike(named, names, wanted):
    first, second = named("a.tif", [1, 2], ["Background", "water", "forest"]), named("b.tif", [2, 1], names, col=2)
    legend = Legend.from_dict(dict(enumerate(wanted, 1)))
    assert read([first, second], legend=legend)[0] == [1, 2, 2, 1]


@pytest.mark.parametrize("names", [["unclassified", "water", "forest"], ["0", "1", "Value 2"]])
def test_names_that_say_nothing_do_not_contradict_others(named, names):
    first, second = named("a.tif", [1, 2], ["Background", "water", "forest"]), named("b.tif", [2, 1], names, col=2)
    for paths in ([first, second], [second, first]):
        ids, legend = read(paths)
        assert (ids, legend.names) == ([1, 2, 2, 1], ("Background", "water", "forest"))


@pytest.mark.parametrize("wanted", [None, {0: "background", 1: "forest"}, {1: "background", 2: "forest"}])
@pytest.mark.parametrize("masked", [False, True])
def test_what_one_file_calls_unlabelled_is_not_the_background_of_another(named, write_tif, wanted, masked):
    first, second = (
        named("a.tif", [0, 1], ["background", "forest"]),
        named("b.tif", [0, 1], ["NoData", "forest"], col=2),
    )
    legend = None if wanted is None else Legend.from_dict(wanted)
    clear = {"mask": {"path": write_tif("m.tif", np.ones((1, 4), "uint8")), "kind": "values", "drop": [9]}}
    for paths in ([first, second], [second, first]):
        ids, found = read({"mosaic": paths, **(clear if masked else {})}, legend=legend)
        names = {item.id: item.name for item in found.classes} | {-1: None}
        assert [names[value] for value in ids] == ["background", "forest", None, "forest"]


def test_a_legend_of_codes_says_what_the_values_of_all_files_mean(named):
    paths = [named("a.tif", [0, 1], ["background", "forest"]), named("b.tif", [0, 1], ["nodata", "forest"], col=2)]
    assert read({"mosaic": paths, "legend": {0: "background", 1: "forest"}})[0] == [0, 1, 0, 1]
    coded = Legend.from_dict({5: {"name": "ground", "codes": [0]}, 6: {"name": "forest", "codes": [1]}})
    assert read(paths, legend=coded)[0] == [5, 6, 5, 6]


@pytest.mark.parametrize("name", ["No_Data", "NO_DATA", "no-data", "Masked_pixels", "background/no-data"])
def test_no_class_is_known_in_any_spelling(named, name):
    ids, legend = read(named("a.tif", [0, 1], [name, "water"]))
    assert (ids[:2], legend.names) == ([-1, 1], ("water",))


def test_names_with_a_dash_are_those_with_a_blank_and_numbers_keep_their_sign():
    assert raster_says.name_key("Bare-Soil") == raster_says.name_key("bare soil")
    assert raster_says.name_key("-1") != raster_says.name_key("1")


def test_names_in_other_letters_than_utf_8_are_read(write_tif):
    path = write_tif("a.tif", np.array([[1, 2, 2, 1]], "uint8"))
    names = "<CategoryNames><Category/><Category>forêt</Category><Category>eau</Category></CategoryNames>"
    text = f'<PAMDataset><PAMRasterBand band="1">{names}</PAMRasterBand></PAMDataset>'
    Path(f"{path}.aux.xml").write_bytes(text.encode("latin-1"))
    assert read(path, legend=Legend.from_dict({1: "a", 2: "b"}))[0] == [1, 2, 2, 1]
    assert read(path)[1].names == ("forêt", "eau")


def test_names_that_cannot_be_read_are_warned_of_and_passed_over(write_tif, monkeypatch, caplog):
    path = write_tif("a.tif", np.array([[1, 2, 2, 1]], "uint8"))
    monkeypatch.setattr(raster_says, "_virtual", lambda _: "<VRTDataset>\x01")
    assert read(path)[1].names == ("class 1", "class 2")
    assert len(caplog.records) == 1
    assert f"{path}: its class names cannot be read" in caplog.text


def test_values_are_those_of_a_table_that_starts_at_any_row(write_tif):
    path = write_tif("a.tif", np.array([[1, 2, 2, 1]], "uint8"))
    head = '<FieldDefn index="0"><Name>Class</Name><Type>2</Type><Usage>2</Usage></FieldDefn>'
    rows = '<Row index="0"><F>water</F></Row><Row index="1"><F>forest</F></Row>'
    table = f'<GDALRasterAttributeTable Row0Min="1" BinSize="1" tableType="thematic">{head}{rows}'
    Path(f"{path}.aux.xml").write_text(
        f'<PAMDataset><PAMRasterBand band="1">{table}</GDALRasterAttributeTable></PAMRasterBand></PAMDataset>'
    )
    assert read(path, legend=Legend.from_dict({5: "water", 7: "forest"}))[0] == [5, 7, 7, 5]


def test_of_a_long_colour_table_what_nobody_set_is_not_kept(write_tif):
    path = write_tif("a.tif", np.array([[1, 300, 2, 1]], "uint16"))
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {1: (0, 0, 0, 255), 300: (1, 2, 3, 255)})
    (said,) = raster_says.each_says(open_source(path))
    assert len(said.notes.colors) == 257
    assert [item.color for item in read(path)[1].classes][0::2] == ["#000000", "#010203"]


def test_files_of_one_colour_table_share_it(write_tif):
    paths = [write_tif(f"{number}.tif", np.array([[1]], "uint8")) for number in range(2)]
    for path in paths:
        with rasterio.open(path, "r+") as file:
            file.write_colormap(1, {1: (1, 2, 3, 255)})
    first, second = (raster_says.each_says(open_source(path))[0].notes.colors for path in paths)
    assert first is second


def test_files_that_a_legend_reads_unlike_are_refused(named):
    first, second = (
        named("a.tif", [1, 2], ["", "water", "forest"]),
        named("b.tif", [1, 2], ["", "water body", "water"], col=2),
    )
    with pytest.raises(LegendError, match=r"value 1 water, .*b.tif calls it water body|calls its value 2 water"):
        read([first, second], legend=Legend.from_dict({1: "water", 2: "forest"}))


@pytest.mark.parametrize(
    ("code", "name", "unnamed"),
    [(3, "3", True), (3, " value 3", True), (3, "CODE3", True), (1, "class 300000", True), (-1, "-1", True),
     (1, "2", False), (1, "category 5", False), (1, "zone 1", False), (1, "", False)],
)  # fmt: skip
def test_names_that_are_but_numbers(code, name, unnamed):
    assert is_unnamed(code, name) is unnamed


@pytest.mark.parametrize("legend", [None, Legend.from_dict({1: "water", 2: "forest"}), CODED])
def test_each_file_is_asked_once(named, monkeypatch, legend):
    paths = [named(f"{col}.tif", [1, 2], ["", "water", "forest"], col=col) for col in (0, 2)]
    asked, ask = [], raster_says._file_says
    monkeypatch.setattr(raster_says, "_file_says", lambda path, band: asked.append(path) or ask(path, band))
    read(paths, legend=legend)
    assert asked == paths


@pytest.mark.parametrize(("told", "written", "count"), [(False, None, 3), (True, None, 1), (True, CODED, 3)])
def test_files_over_a_net_are_asked_once_and_the_first_alone_where_the_user_says_all(monkeypatch, told, written, count):
    paths = [f"https://host/{count}{number}.tif" for number in range(3)]
    mosaic, asked = Mosaic(tuple(SimpleNamespace(path=path) for path in paths)), []
    said = raster_says.Says(written=written)
    monkeypatch.setattr(raster_says, "_read_says", lambda path, _: asked.append(path) or said)
    raster_says._kept_says.cache_clear()
    for _ in range(2):
        assert raster_says.each_says(mosaic, told=told) == [said] * count
    assert asked == paths[:count]
    raster_says._kept_says.cache_clear()


def test_a_mosaic_of_maps_has_the_classes_of_all(write_map, tmp_path):
    def write(name, ids, legend, col):
        raster = Raster(np.array([[ids]], "uint8"), np.ones((1, 2), bool), ROW[:, col : col + 2], ("class",))
        return str(write_raster(raster, tmp_path / name, legend=Legend.from_dict(legend)))

    west = write("west.tif", [1, 2], {1: {"name": "water", "codes": [2]}, 2: {"name": "forest", "codes": [1]}}, 0)
    east = write("east.tif", [2, 3], {2: "Forest", 3: "road"}, 2)
    assert read([west, east])[1].names == ("water", "forest", "road")
    wanted = Legend.from_dict({1: "forest", 2: "road", 3: "water"})
    assert read([west, east], legend=wanted)[0] == [3, 1, 1, 2]
    moved = write("moved.tif", [3, 3], {3: "water"}, 2)
    with pytest.raises(LegendError, match=r"west.tif calls its value 1 water, .*moved.tif its value 3"):
        read([west, moved])


def test_maps_with_a_name_win_over_those_with_a_number_in_any_order(tmp_path):
    def write(name, legend, col):
        raster = Raster(np.array([[[1, 2]]], "uint8"), np.ones((1, 2), bool), ROW[:, col : col + 2], ("class",))
        return str(write_raster(raster, tmp_path / name, legend=Legend.from_dict(legend)))

    paths = [write("west.tif", {1: "class 1", 2: "water"}, 0), write("east.tif", {1: "forest", 2: "water"}, 2)]
    assert read(paths)[1] == read(paths[::-1])[1]
    assert read(paths)[1].names == ("forest", "water")


def test_labels_that_are_open_are_matched_where_an_id_is_what_they_ignore(named):
    path = named("a.tif", [1, 2], ["", "background", "building"], nodata=0)
    legend = Legend.from_dict({0: "background", 1: "building"})
    assert read(open_labels(path)[0], legend=legend)[0] == read(path, legend=legend)[0] == [0, 1, -1, -1]


def test_the_band_that_is_chosen_has_its_own_names(named):
    names = (
        "<PAMRasterBand band='2'><CategoryNames><Category/><Category>water</Category></CategoryNames></PAMRasterBand>"
    )
    paths = [named(f"{col}.tif", [1, 1], ["", "sand"], col=col) for col in (0, 2)]
    for path in paths:
        with rasterio.open(path) as file:
            profile = file.profile | {"count": 2}
        with rasterio.open(path, "w", **profile) as file:
            file.write(np.ones((2, 1, 2), "uint8"))
        Path(f"{path}.aux.xml").write_text(f"<PAMDataset>{names}</PAMDataset>")
    assert read({"mosaic": paths, "select": [2]})[1].names == ("water",)


# -- polygons ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def write_boxes(tmp_path):
    """Writes a pixel of ROW for each row of a table."""

    def write(name, **columns):
        places = gpd.points_from_xy([500_005, 500_015, 500_025, 500_035], [4_199_995] * 4).buffer(4, cap_style="square")
        count = len(next(iter(columns.values())))
        gpd.GeoDataFrame(columns, geometry=places[:count], crs="EPSG:32612").to_file(tmp_path / name)
        return str(tmp_path / name)

    return write


@pytest.mark.parametrize("column", ["class_id", "class_name"])
def test_polygons_of_a_map_hold_its_classes_whatever_codes_its_legend_has(write_map, column, tmp_path):
    path = write_map("map.tif", [1, 2, 2, 1], CODED)
    polygons = str(geoseg.vectorize(path, out=tmp_path / "map.gpkg"))
    assert geoseg.assess(path, reference=polygons, column=column).accuracy.overall == 1
    assert read({"path": polygons, "column": column}, legend=CODED)[0] == [1, 2, 2, 1]
    assert read({"path": polygons, "column": "class_id"})[1].names == ("water", "forest")


def test_polygons_of_another_map_are_matched_by_name(write_boxes):
    path = write_boxes("other.gpkg", class_id=[5, 1, 1, 5], class_name=["water", "Forest", "forest ", "water"])
    wanted = Legend.from_dict({1: "water", 5: "forest"})
    assert read({"path": path, "column": "class_id"}, legend=wanted)[0] == [1, 5, 5, 1]
    edited = write_boxes("edited.gpkg", class_id=[1, 1], class_name=["water", "forest"])
    with pytest.raises(LegendError, match=r"code 1 of .* is called 'water' and 'forest'; .*column: class_name"):
        read({"path": edited, "column": "class_id"}, legend=wanted)


def test_polygons_that_call_numbers_by_other_names_are_refused(write_map, write_boxes):
    mine = write_map("mine.tif", [1, 2, 2, 1], Legend.from_dict({1: "water", 2: "forest"}))
    tundra = write_boxes("tundra.gpkg", class_id=[1, 2], class_name=["water", "tundra"])
    with pytest.raises(LegendError, match=r"value 2 is forest in the map, and tundra in .*tundra.gpkg; .*legend"):
        geoseg.assess(mine, reference=tundra, column="class_id")
    said = {"path": tundra, "column": "class_id", "legend": {1: "water", 2: "forest"}}
    assert geoseg.assess(mine, reference=said).accuracy.overall == 1
    swapped = write_boxes("swapped.gpkg", class_id=[1, 2, 3], class_name=["forest", "water", "tundra"])
    with pytest.raises(LegendError, match=r"calls its value 1 forest, which is 2 in the legend"):
        read({"path": swapped, "column": "class_id"}, legend=Legend.from_dict({1: "water", 2: "forest"}))


def test_codes_of_polygons_without_names_of_classes_are_codes(write_boxes):
    plain = write_boxes("plain.gpkg", class_id=[2, 1, 41])
    notes = write_boxes("notes.gpkg", class_id=[2, 2, 41], class_name=["a pond", "a lake", "firs"])
    unnamed = write_boxes("unnamed.gpkg", class_id=[2, 1, 41], class_name=["class 2", "class 1", None])
    found = [read({"path": path, "column": "class_id"}, legend=CODED)[0] for path in (plain, notes, unnamed)]
    assert found == [[1, 2, 2, -1], [1, 1, 2, -1], [1, 2, 2, -1]]
    assert read({"path": notes, "column": "class_id"})[1].names == ("class 2", "class 41")


@pytest.mark.parametrize("named", [{}, {"name_column": "class_name"}])
def test_a_legend_of_the_file_goes_before_finer_names_beside_its_codes(write_boxes, named):
    path = write_boxes("fine.gpkg", class_id=[1, 1, 2, 2], class_name=["forest", "young forest", "water", "lake"])
    own = {"path": path, "column": "class_id", "legend": {1: "forest", 2: "water"}}
    assert read({**own, **named})[0] == [1, 1, 2, 2]
    assert read({**own, **named}, legend=Legend.from_dict({5: "water", 6: "forest"}))[0] == [6, 6, 5, 5]


def test_finer_names_of_one_code_are_passed_over_where_none_contradicts_the_legend(write_boxes):
    path = write_boxes("fine.gpkg", class_id=[1, 1, 2, 2], class_name=["forest", "young forest", "water", "lake"])
    spec = {"path": path, "column": "class_id"}
    assert read(spec, legend=Legend.from_dict({1: "forest", 2: "water"}))[0] == [1, 1, 2, 2]
    with pytest.raises(LegendError, match="code 1 of .* is called 'forest' and 'young forest'"):
        read(spec, legend=Legend.from_dict({2: "forest", 1: "water"}))


def test_a_number_that_all_polygons_are_is_the_id_of_their_class(write_boxes):
    path = write_boxes("all.gpkg", kind=["a", "b", "a", "b"])
    ids, legend = read({"path": path, "value": 3})
    assert (ids, legend.ids.tolist(), legend.names) == ([3] * 4, [3], ("class 3",))
    ids, legend = read({"path": path, "value": "roof"})
    assert (ids, legend.names) == ([1] * 4, ("roof",))


def test_names_beside_codes_have_nulls_and_blanks(write_boxes):
    path = write_boxes("n.gpkg", kind=[1, 1, 2, 2], said=[None, " water ", "", "Forest"])
    ids, legend = read({"path": path, "column": "kind", "name_column": "said"})
    assert (ids, legend.names) == ([1, 1, 2, 2], ("water", "Forest"))


@pytest.mark.parametrize("ignore", [[99], ["99"], 99, 99.0, [99.0], np.array([99])])
@pytest.mark.parametrize("values", [["1", "99", "2"], [1, 99, 2], [1.0, 99.0, None]])
def test_ignored_classes_are_numbers_or_texts_in_any_column(write_boxes, ignore, values):
    path = write_boxes("labels.gpkg", kind=values)
    ids, legend = read({"path": path, "ignore": ignore})
    assert ids[1] == -1
    assert "99" not in " ".join(legend.names)


@pytest.mark.parametrize("ignore", [[None], [1.5], float("nan"), [True], [[1]]])
def test_ignored_classes_of_another_kind_are_refused(write_boxes, write_tif, ignore):
    polygons = write_boxes("labels.gpkg", kind=[1, 99, 2])
    for path in (polygons, write_tif("labels.tif", np.array([[1, 99, 2]], "uint8"))):
        with pytest.raises(InputError, match="ignore: needed are ") as told:
            read({"path": path, "ignore": ignore})
        assert "\n" not in str(told.value)


# -- a map and its reference -------------------------------------------------------------------------------------------


def test_other_classes_of_one_number_are_not_compared(write_map, named):
    mine = write_map("mine.tif", [1, 2, 2, 1], Legend.from_dict({1: "water", 2: "forest"}))
    tundra = write_map("tundra.tif", [1, 2, 2, 1], Legend.from_dict({1: "water", 2: "tundra"}))
    with pytest.raises(LegendError, match=r"value 2 is forest in the map, and tundra in .*tundra.tif"):
        geoseg.assess(mine, reference=tundra)
    with pytest.raises(LegendError, match="value 2 is forest in the map, and grass"):
        geoseg.assess(mine, reference={"layers": [named("grass.tif", [1, 2], ["", "water", "grass"])]})
    said = {"path": tundra, "legend": {1: "water", 2: "forest"}}
    assert geoseg.assess(mine, reference=said).accuracy.overall == 1


@pytest.mark.parametrize(
    "names",
    [["", "WATER", "Bare_Soil "], ["", "", "bare soil"], [], ["unclassified", "water", "bare soil", "road"],
     ["", "class 1", "class 2"], ["0", "1", "2"], ["", "value 1", "Category 2"]],
)  # fmt: skip
def test_names_that_do_not_contradict_the_map_are_fine(write_map, named, names):
    mine = write_map("mine.tif", [1, 2, 2, 1], Legend.from_dict({1: "water", 2: "bare soil"}))
    assert geoseg.assess(mine, reference=named("labels.tif", [1, 2, 2, 1], names)).accuracy.overall == 1


def test_codes_of_the_maps_legend_win_over_other_names_of_a_label_file(write_map, named):
    mine = write_map("mine.tif", [1, 2, 2, 1], CODED)
    labels = named("labels.tif", [2, 1, 1, 2], ["", "Evergreen forest", "Open water"])
    assert geoseg.assess(mine, reference=labels).accuracy.overall == 1


@pytest.mark.parametrize("vector", [False, True])
def test_a_map_without_names_is_compared_by_number_with_classes_that_it_lacks(write_tif, write_boxes, vector):
    path = write_tif("map.tif", np.array([[1, 2, 2, 1]], "uint8"), nodata=0)
    truth = [1, 2, 3, 41]
    reference = (
        write_boxes("r.gpkg", kind=truth) if vector else write_tif("r.tif", np.array([truth], "uint8"), nodata=0)
    )
    found = geoseg.assess(path, reference=reference).accuracy
    assert found.confusion.legend.ids.tolist() == [1, 2, 3, 41]
    assert found.confusion.matrix.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]]


@pytest.mark.parametrize(("dtype", "fill"), [("uint8", 255), ("int32", -1), ("float32", -9999), ("int32", 70000)])
def test_what_often_stands_for_nothing_is_no_class_of_a_map_without_names(write_tif, caplog, dtype, fill):
    path = write_tif("m.tif", np.array([[1, 2, 0, 1]], "uint8"), nodata=0)
    reference = write_tif("r.tif", np.array([[1, 2, 3, fill]], dtype))
    with pytest.raises(LegendError, match=str(fill)):
        geoseg.assess(path, reference=reference)
    found = geoseg.assess(path, reference={"path": reference, "ignore": [fill]})
    assert found.accuracy.overall == 1
    assert "the reference has 3, which the map does not" in caplog.text
    assert found.accuracy.confusion.legend.ids.tolist() == [1, 2, 3]


def test_what_shares_no_number_or_has_names_alone_is_not_compared_by_number(write_tif, write_boxes):
    path = write_tif("percent.tif", np.array([[20, 55, 70, 99]], "uint8"))
    with pytest.raises(LegendError, match="not in the legend"):
        geoseg.assess(path, reference=write_tif("r.tif", np.array([[1, 2, 2, 1]], "uint8")))
    with pytest.raises(LegendError, match="class 'forest' is not in the legend"):
        geoseg.assess(path, reference=write_boxes("r.gpkg", kind=["forest", "water"]))


def test_a_band_of_a_map_is_chosen(write_tif):
    path = write_tif("map.tif", np.array([[[9, 9, 9, 9]], [[1, 2, 2, 1]]], "uint8"), names=("sure", "class"))
    reference = write_tif("r.tif", np.array([[1, 2, 2, 1]], "uint8"))
    assert geoseg.assess(path, reference=reference, band="class").accuracy.overall == 1
    assert main(["assess", path, "--reference", reference, "--band", "2"]) == 0
