"""Labels onto any grid: which class stands where, and what is said where none does."""

from __future__ import annotations

import logging
import pickle
from concurrent.futures import ThreadPoolExecutor

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import example, given, settings
from hypothesis import strategies as st
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox

from geoseg.errors import BandError, GridError, InputError, LegendError, MissingInputError, ReadError
from geoseg.io.burning import burn
from geoseg.io.grids import crop, transform
from geoseg.io.labels import LabelSource, check_overlap, open_labels
from geoseg.io.polygons import Polygons
from geoseg.io.protocol import Source
from geoseg.io.sources import open_source
from geoseg.legend import Legend
from geoseg.raster import Raster
from geoseg.tiling import Window

UTM = CRS("EPSG:32612")
GRID = GeoBox((40, 60), Affine(10, 0, 500_000, 0, -10, 4_200_000), UTM)
LEGEND = Legend.from_dict({1: "water", 4: "forest", 9: "urban"})


def box(left, top, right, bottom):
    """A box in pixels of GRID, as a geometry in its CRS."""
    (x0, y0), (x1, y1) = GRID.affine @ (left, top), GRID.affine @ (right, bottom)
    return shapely.box(x0, y1, x1, y0)


SHAPES = [box(2, 3, 20, 12), box(10, 8, 30, 20), box(40, 25, 55, 38)]


@pytest.fixture
def vector(tmp_path):
    def write(name="labels.gpkg", *, geometry=SHAPES, crs="EPSG:32612", to=None, **columns):
        columns = columns or {"kind": ["forest", "water", "urban"], "code": [4, 1, 9]}
        frame = gpd.GeoDataFrame(columns, geometry=list(geometry), crs=crs)
        frame = frame if to is None else frame.to_crs(to)
        path = tmp_path / name
        frame.to_parquet(path) if name.endswith("parquet") else frame.to_file(path)
        return str(path)

    return write


def expected_ids(fill=255):
    ids = np.full((40, 60), fill)
    ids[3:12, 2:20] = 4
    ids[8:20, 10:30] = 1
    ids[25:38, 40:55] = 9
    return ids


def test_polygons_by_name_later_ones_win(vector):
    labels, legend = open_labels(vector(), legend=LEGEND, column="kind")
    raster = labels.read(GRID)
    assert legend == LEGEND
    assert (raster.pixels[0] == expected_ids()).all()
    assert (raster.valid == (expected_ids() != 255)).all()
    assert raster.bands == ("label",)
    assert raster.dtype == labels.dtype == np.uint8
    assert isinstance(labels, LabelSource)
    assert isinstance(labels, Source)


@pytest.mark.parametrize("name", ["l.gpkg", "l.shp", "l.geojson", "l.fgb", "l.parquet", "l.kml"])
def test_any_format(vector, name):
    to = "EPSG:4326" if name.endswith(("json", "kml")) else None
    path = vector(name, to=to)
    labels, legend = open_labels({"path": path, "column": "kind"})
    assert legend.names == ("forest", "urban", "water")
    found = labels.read(GRID).pixels[0]
    wanted = np.array([255, 3, 1, 2])[np.searchsorted([-1, 1, 4, 9], expected_ids(-1))]
    if name.endswith("fgb"):
        # FlatGeobuf sorts by place when it is written: the order in the file is another one.
        wanted[8:12, 10:20] = found[8:12, 10:20]
    assert (found == wanted).all()


def test_codes_stay_the_ids(vector):
    labels, legend = open_labels(vector(), column="code")
    assert legend.ids.tolist() == [1, 4, 9]
    assert (labels.read(GRID).pixels[0] == expected_ids()).all()


def test_codes_with_names_beside_them(vector):
    path = vector(kind=["Sand", "Wet Sand", "Sand"], code=[2253, 22531, 2253])
    labels, legend = open_labels({"path": path, "column": "code", "name_column": "kind"})
    assert dict(zip(legend.ids.tolist(), legend.names, strict=True)) == {2253: "Sand", 22531: "Wet Sand"}
    assert labels.dtype == np.uint16
    assert labels.read(GRID).pixels[0][30, 45] == 2253


def test_two_codes_of_one_name_are_one_class(vector):
    path = vector(kind=["crop", "crop", "sea"], code=[5, 7, 8])
    labels, legend = open_labels({"path": path, "column": "code", "name_column": "kind"})
    assert legend.by_name("crop").codes == (5, 7)
    assert set(np.unique(labels.read(GRID).pixels)) == {5, 8, 255}


def test_one_code_of_two_names_is_refused(vector):
    path = vector(kind=["a", "b", "c"], code=[5, 5, 8])
    with pytest.raises(LegendError, match=r"code 5 .* is called 'a' and 'b'"):
        open_labels({"path": path, "column": "code", "name_column": "kind"})


def test_codes_that_no_map_can_hold_get_ids(vector):
    labels, legend = open_labels(vector(code=[-3, 700_000, -3]), column="code")
    assert legend.ids.tolist() == [1, 2]
    assert [item.codes for item in legend.classes] == [(-3,), (700_000,)]
    assert labels.read(GRID).pixels[0][15, 25] == 2


def test_the_only_column_needs_no_name(vector):
    assert open_labels(vector(code=[1, 1, 1]))[1].ids.tolist() == [1]


def test_columns_are_listed_when_none_is_given(vector):
    with pytest.raises(InputError, match="column: one of kind, code; or value: NAME"):
        open_labels(vector())


def test_a_missing_column_is_said_with_those_there(vector):
    with pytest.raises(InputError, match="no column klass; its columns are kind, code"):
        open_labels(vector(), column="klass")


def test_one_value_for_all(vector):
    labels, legend = open_labels({"path": vector(), "value": "building"})
    assert legend.names == ("building",)
    assert labels.read(GRID).valid.sum() == (expected_ids() != 255).sum()
    known = open_labels({"path": vector(), "value": "forest"}, legend=LEGEND)[0]
    assert set(np.unique(known.read(GRID).pixels)) == {4, 255}


def test_a_legend_of_one_class_and_background_says_enough(vector):
    legend = Legend.from_dict({0: "other", 1: "building"})
    labels, _ = open_labels({"path": vector(), "background": "other"}, legend=legend)
    raster = labels.read(GRID)
    assert raster.valid.all()
    assert (raster.pixels[0] == (expected_ids() != 255)).all()


def test_a_new_background_becomes_a_class(vector):
    labels, legend = open_labels(vector(), column="code", background="other")
    assert legend.by_name("other").id == 0
    raster = labels.read(GRID)
    assert raster.valid.all()
    assert (raster.pixels[0] == expected_ids(0)).all()


def test_a_background_outside_the_given_legend_is_refused(vector):
    with pytest.raises(LegendError, match="class 'other' is not in the legend"):
        open_labels(vector(), legend=LEGEND, column="kind", background="other")


def test_polygons_without_a_class_are_unlabelled_even_on_background(vector):
    path = vector(kind=["forest", None, " "], code=[4, 1, 9])
    labels, _ = open_labels(path, column="kind", background="other")
    raster = labels.read(GRID)
    assert not raster.valid[8:20, 10:30].any()
    assert not raster.valid[25:38, 40:55].any()
    assert raster.valid.sum() == 2400 - 12 * 20 - 13 * 15


def test_null_codes_are_unlabelled(vector):
    labels, legend = open_labels(vector(code=[4, None, 9]), column="code")
    assert legend.ids.tolist() == [4, 9]
    assert not labels.read(GRID).valid[15, 25]


@pytest.mark.parametrize(("column", "ignored"), [("kind", ["water"]), ("kind", "water"), ("code", [1]), ("code", 1)])
def test_ignored_classes(vector, column, ignored):
    labels, legend = open_labels({"path": vector(), "column": column, "ignore": ignored})
    assert len(legend) == 2
    assert not labels.read(GRID).valid[8:20, 10:30].any()


def test_classes_outside_the_legend_are_named(vector):
    with pytest.raises(LegendError, match="class 'urban' is not in the legend"):
        open_labels(vector(), legend=Legend.from_dict({1: "water", 4: "forest"}), column="kind")
    with pytest.raises(LegendError, match="codes 9 are not in the legend"):
        open_labels(vector(), legend=Legend.from_dict({1: "water", 4: "forest"}), column="code")


def test_fractions_are_no_codes(vector):
    with pytest.raises(LegendError, match=r"1\.5 is no class code"):
        open_labels(vector(code=[4, 1.5, 9]), column="code")


def test_another_crs_and_resolution(vector):
    path = vector(to="EPSG:4326")
    coarse = GeoBox((13, 20), GRID.affine @ Affine.scale(3), UTM)
    found = open_labels(path, legend=LEGEND, column="kind")[0].read(coarse).pixels[0]
    assert (found == expected_ids()[1:39:3, 1::3]).all()


def brute_force(geometries, values, geobox, crs):
    """Point in polygon, pixel by pixel, in the polygons' own CRS."""
    rows, cols = np.indices(tuple(geobox.shape)) + 0.5
    x, y = geobox.affine @ (cols, rows)
    x, y = transform(x.ravel(), y.ravel(), geobox.crs, crs)
    ids = np.zeros(x.size, int)
    for geometry, value in zip(geometries, values, strict=True):
        ids[shapely.contains_xy(geometry, x, y)] = value
    return ids.reshape(tuple(geobox.shape))


AFFINES = {
    "north-up": Affine(10, 0, 500_000, 0, -10, 4_200_000),
    "south-up": Affine(10, 0, 500_000, 0, 10, 4_199_600),
    "rotated": Affine.translation(500_000, 4_200_000) @ Affine.rotation(-25) @ Affine.scale(9, -11),
}


@pytest.mark.parametrize("crs", ["EPSG:32612", "EPSG:4326", "EPSG:2163"])
@pytest.mark.parametrize("name", AFFINES)
@settings(max_examples=8)
@given(seed=st.integers(0, 10_000))
def test_burning_is_point_in_polygon(name, crs, seed):
    rng = np.random.default_rng(seed)
    geobox = GeoBox((30, 40), AFFINES[name], UTM)
    corners = rng.uniform(-5, 45, (4, 3, 2))
    triangles = [shapely.Polygon([geobox.affine @ tuple(corner) for corner in triangle]) for triangle in corners]
    frame = gpd.GeoSeries(triangles, crs=UTM.to_wkt()).to_crs(crs)
    polygons = Polygons(frame.to_numpy(), CRS(crs))
    found = burn(polygons, np.arange(1, 5), geobox, fill=0, dtype="uint8")
    wanted = brute_force(frame, range(1, 5), geobox, CRS(crs))
    # Centres that lie on an edge to within rounding may go either way.
    assert (found != wanted).sum() <= 3


@settings(max_examples=20)
@given(st.integers(0, 30), st.integers(0, 40), st.integers(1, 20), st.integers(1, 20), st.integers(0, 50))
@example(row=0, col=9, rows=15, cols=20, seed=19)  # an edge that was cut near the window bent otherwise
def test_a_window_of_the_read_is_the_read_of_the_window(row, col, rows, cols, seed):
    corners = np.random.default_rng(seed).uniform(-10, 60, (6, 3, 2))
    triangles = [shapely.Polygon([GRID.affine @ tuple(corner) for corner in triangle]) for triangle in corners]
    moved = gpd.GeoSeries(triangles, crs=UTM.to_wkt()).to_crs("EPSG:4326")
    polygons, window = Polygons(moved.to_numpy(), CRS("EPSG:4326")), Window(row, col, rows, cols)
    whole = burn(polygons, np.arange(6), crop(GRID, Window(-10, -10, 80, 90)), fill=9, dtype="uint8")
    part = burn(polygons, np.arange(6), crop(GRID, window), fill=9, dtype="uint8")
    assert (whole[10:, 10:][window.slices] == part).all()


# Tenths and thirds have no exact float, so origins of windows are rounded; the last is far from its CRS's origin.
WINDOWED = {
    "tenths": Affine(0.1, 0, 500_000.7, 0, -0.1, 4_200_000.3),
    "rotated": Affine.translation(1e6 / 3, 1e7 / 3) @ Affine.rotation(-25) @ Affine.scale(1 / 3, -0.7),
    "south-up": Affine(0.3, 0, 8e6 / 7, 0, 0.3, 9_999_999.9),
}


@pytest.mark.parametrize("all_touched", [False, True])
@pytest.mark.parametrize("name", WINDOWED)
@settings(max_examples=30)
@given(window=st.builds(Window, *[st.integers(0, 60)] * 2, *[st.integers(1, 40)] * 2), data=st.data())
def test_a_window_of_the_read_holds_where_edges_meet_centres_and_corners(name, all_touched, window, data):
    """Corners on halves and quarters of pixels: many edges run exactly through a pixel's centre or corner."""
    seed, far = data.draw(st.integers(0, 10_000)), data.draw(st.sampled_from([0, 3_000, 50_000]))
    scene = crop(GeoBox((100, 100), WINDOWED[name], UTM), Window(far, 2 * far, 100, 100))
    corners = np.random.default_rng(seed).integers(-120, 520, (8, 3, 2)) / np.array([4, 2, 4])[:, None]
    triangles = [shapely.Polygon([scene.affine @ tuple(corner) for corner in triangle]) for triangle in corners]
    polygons = Polygons(np.array(triangles), UTM)
    whole = burn(polygons, np.arange(8), scene, fill=9, dtype="uint8", all_touched=all_touched)
    part = burn(polygons, np.arange(8), crop(scene, window), fill=9, dtype="uint8", all_touched=all_touched)
    assert (whole[window.slices] == part).all()


def test_neighbours_that_share_an_edge_through_centres_share_out_the_pixels():
    """Each pixel to exactly one of four boxes, though their edges run through rows and columns of centres."""
    boxes = np.array([box(4.5, 4.5, 20.5, 15.5), box(20.5, 4.5, 30.5, 15.5), box(4.5, 15.5, 30.5, 20.5)])
    counts = sum(burn(Polygons(boxes[[i]], UTM), np.ones(1), GRID, fill=0, dtype="uint8").astype(int) for i in range(3))
    assert counts.max() == 1
    assert counts.sum() == 26 * 16


def test_long_edges_bend_with_the_crs():
    """A parallel of 6 degrees bulges by kilometres in UTM, where its ends alone would give a straight line."""
    edge = shapely.box(-114, 30, -108, 37)
    geobox = GeoBox((60, 60), Affine(100, 0, 497_000, 0, -100, 4_098_000), UTM)
    found = burn(Polygons(np.array([edge]), CRS("EPSG:4326")), np.array([1]), geobox, fill=0, dtype="uint8")
    assert (found == brute_force([edge], [1], geobox, CRS("EPSG:4326"))).all()
    assert 0 < found.mean() < 1


def test_the_whole_world_as_a_label():
    world = Polygons(np.array([shapely.box(-180, -90, 180, 90)]), CRS("EPSG:4326"))
    assert burn(world, np.array([1]), GRID, fill=0, dtype="uint8").all()


POLAR = GeoBox((100, 100), Affine(5e4, 0, -2.5e6, 0, -5e4, 2.5e6), CRS("EPSG:3031"))
ANTIMERIDIAN = GeoBox((60, 60), Affine(5000, 0, 150_000, 0, -5000, 7_000_000), CRS("EPSG:32601"))


@pytest.mark.parametrize("geobox", [POLAR, ANTIMERIDIAN])
def test_around_a_pole_and_across_the_antimeridian(geobox):
    shapes = [shapely.box(-180, -90, 180, 90), shapely.box(-180, 60, -177, 62), shapely.box(20, -90, 180, -72)]
    values, lonlat = np.array([1, 2, 3]), CRS("EPSG:4326")
    whole = burn(Polygons(np.array(shapes), lonlat), values, geobox, fill=0, dtype="uint8")
    assert (whole != brute_force(shapes, values, geobox, lonlat)).sum() <= 3
    for window in (Window(30, 30, 20, 20), Window(0, 0, 60, 10), Window(20, 40, 9, 20)):
        part = burn(Polygons(np.array(shapes), lonlat), values, crop(geobox, window), fill=0, dtype="uint8")
        assert (whole[window.slices] == part).all()


FIJI = GeoBox((40, 200), Affine(0.1, 0, 175, 0, -0.1, -15), CRS("EPSG:4326"))


@pytest.mark.parametrize("geobox", [FIJI, GeoBox((40, 200), Affine(0.1, 0, -185, 0, -0.1, -15), CRS("EPSG:4326"))])
def test_polygons_on_either_side_of_the_antimeridian_on_a_grid_in_degrees(geobox):
    """The grid counts beyond 180 degrees, the polygons do not; the last polygon holds, whichever side it is on."""
    shapes = [shapely.box(178, -18, 180, -16), shapely.box(-180, -17, -177, -15.5), shapely.box(-180, -90, 180, -17.5)]
    values = np.array([1, 2, 3])
    found = burn(Polygons(np.array(shapes), geobox.crs), values, geobox, fill=0, dtype="uint8")
    wanted = np.zeros(geobox.shape, "uint8")
    for shape, value in zip(shapes, values, strict=True):
        for turn in (-360, 0, 360):
            moved = shapely.transform(shape, lambda xy, turn=turn: xy + np.array([turn, 0]))
            wanted[brute_force([moved], [1], geobox, geobox.crs) == 1] = value
    assert (found == wanted).all()
    assert set(np.unique(found)) == {0, 1, 2, 3}
    same = burn(Polygons(np.array(shapes), CRS("EPSG:4258")), values, geobox, fill=0, dtype="uint8")
    assert (same != wanted).sum() <= 3
    window = Window(3, 40, 20, 30)
    part = burn(Polygons(np.array(shapes), geobox.crs), values, crop(geobox, window), fill=0, dtype="uint8")
    assert (found[window.slices] == part).all()


def test_all_touched_takes_more(vector):
    path = vector(geometry=[box(5.6, 5.6, 7.4, 7.4)], kind=["a"])
    assert open_labels(path, column="kind")[0].read(GRID).valid.sum() == 1
    assert open_labels({"path": path, "column": "kind", "all_touched": True})[0].read(GRID).valid.sum() == 9


def test_broken_shapes_are_mended_or_counted(vector, caplog):
    bow = shapely.Polygon([GRID.affine @ corner for corner in [(2, 2), (12, 12), (12, 2), (2, 12)]])
    shapes = [bow, None, shapely.Point(GRID.affine @ (30, 30)), box(20, 20, 25, 25)]
    with caplog.at_level(logging.WARNING):
        labels, _ = open_labels(vector("mixed.gpkg", geometry=shapes, kind=["a", "b", "c", "d"]), column="kind")
        raster = labels.read(GRID)
    assert "1 of 4 shapes were repaired, 2 without an area are left out" in caplog.text
    assert raster.valid[20:25, 20:25].all()
    assert 40 <= raster.valid[2:12, 2:12].sum() <= 60
    assert labels.legend.names == ("a", "d")


def test_no_polygon_at_all_is_refused(vector):
    with pytest.raises(InputError, match="no polygon with an area"):
        open_labels(vector(geometry=[shapely.Point(1, 2)], kind=["a"]), column="kind")
    with pytest.raises(InputError, match="is empty"):
        open_labels(vector(geometry=[], kind=[]), column="kind")


@pytest.mark.filterwarnings("ignore:'crs' was not provided:UserWarning")
def test_polygons_need_a_crs(vector):
    path = vector(crs=None)
    with pytest.raises(GridError, match="has no CRS"):
        open_labels(path, column="kind")
    labels, _ = open_labels({"path": path, "column": "code", "crs": "EPSG:32612"})
    assert (labels.read(GRID).pixels[0] == expected_ids()).all()
    with pytest.raises(GridError, match="the scene has no CRS"):
        labels.read(GeoBox((4, 6), GRID.affine, None))


def test_layers(tmp_path):
    path = str(tmp_path / "two.gpkg")
    gpd.GeoDataFrame({"a": [1]}, geometry=[shapely.Point(0, 0)], crs=32612).to_file(path, layer="points")
    gpd.GeoDataFrame({"b": [2]}, geometry=[SHAPES[0]], crs=32612).to_file(path, layer="areas")
    assert open_labels(path, column="b")[1].ids.tolist() == [2]
    with pytest.raises(InputError, match="no layer woods; its layers are points, areas"):
        open_labels({"path": path, "column": "b", "layer": "woods"})
    with pytest.raises(InputError, match="no polygon with an area"):
        open_labels({"path": path, "column": "a", "layer": "points"})


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(MissingInputError, match="is not there"):
        open_labels(str(tmp_path / "none.gpkg"))
    (tmp_path / "text.gpkg").write_text("no vector")
    with pytest.raises(ReadError):
        open_labels(str(tmp_path / "text.gpkg"))


def test_options_of_the_other_kind_are_refused(vector, write_tif):
    with pytest.raises(InputError, match="no option bands"):
        open_labels({"path": vector(), "column": "kind", "bands": ["a"]})
    with pytest.raises(InputError, match="no option column; it is for vector files"):
        open_labels(write_tif("l.tif", np.ones((4, 5), "uint8")), column="kind")


def test_pickles_small_and_reads_in_threads(vector):
    labels, _ = open_labels(vector(), legend=LEGEND, column="kind")
    labels.read(GRID)
    content = pickle.dumps(labels)
    assert len(content) < 2000
    again = pickle.loads(content)  # noqa: S301 - our own bytes
    assert again == labels
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: again.read(GRID).pixels, range(8)))
    assert all((pixels[0] == expected_ids()).all() for pixels in found)


def test_a_replaced_file_is_read_again(vector):
    labels, _ = open_labels(vector(), column="code")
    assert labels.read(GRID).valid.any()
    vector(geometry=[box(0, 0, 1, 1)], code=[4])
    assert labels.read(GRID).valid.sum() == 1


def test_bounds(vector):
    labels, _ = open_labels(vector(to="EPSG:4326"), column="code")
    assert labels.bounds_overlap(GRID)
    assert not labels.bounds_overlap(crop(GRID, Window(0, 56, 40, 60)))
    assert not labels.bounds_overlap(GeoBox((40, 60), AFFINES["north-up"], "EPSG:32632"))
    check_overlap(labels, GRID)
    with pytest.raises(InputError, match="and the image do not overlap"):
        check_overlap(labels, crop(GRID, Window(900, 0, 10, 10)), name="labels.gpkg")
    assert labels.geobox.crs == CRS("EPSG:4326")
    assert labels.read(labels.geobox).valid.any()


# -- rasters -----------------------------------------------------------------------------------------------------------


def coded():
    """Codes by place: columns of 1, 41, 42, 255 and 7."""
    return np.repeat(np.array([1, 41, 42, 255, 7], "uint8"), 12)[None, :].repeat(40, 0)


def test_raster_codes_become_ids(write_tif):
    legend = Legend.from_dict(
        {1: "water", 4: {"name": "forest", "codes": [41, 42]}, 9: {"name": "urban", "codes": [7]}}
    )
    labels, found = open_labels(write_tif("l.tif", coded(), nodata=255), legend=legend)
    raster = labels.read(GRID)
    assert found == legend
    assert raster.pixels[0][0, ::12].tolist() == [1, 4, 4, 255, 9]
    assert raster.valid[0, ::12].tolist() == [True, True, True, False, True]
    assert isinstance(labels, LabelSource)


def test_raster_labels_are_never_mixed(write_tif):
    path = write_tif("l.tif", coded(), nodata=255)
    finer = GeoBox((100, 150), GRID.affine @ Affine.scale(0.4), UTM)
    turned = GeoBox((50, 50), Affine.translation(500_100, 4_199_900) @ Affine.rotation(20) @ Affine.scale(7, -7), UTM)
    labels, legend = open_labels(path)
    assert legend.ids.tolist() == [1, 7, 41, 42]
    for geobox in (finer, turned):
        assert set(np.unique(labels.read(geobox).pixels)) <= {1, 7, 41, 42, 255}


def test_unknown_codes_are_named_and_can_be_ignored(write_tif):
    path = write_tif("l.tif", coded(), nodata=255)
    legend = Legend.from_dict({1: "water", 41: "forest"})
    with pytest.raises(LegendError, match="codes 7, 42 are not in the legend"):
        open_labels(path, legend=legend)[0].read(GRID)
    raster = open_labels({"path": path, "ignore": [7, 42]}, legend=legend)[0].read(GRID)
    assert raster.valid[0, ::12].tolist() == [True, True, False, False, False]
    with pytest.raises(InputError, match="integer codes"):
        open_labels({"path": path, "ignore": ["crop"]}, legend=legend)


def test_undeclared_nodata_is_still_no_class(write_tif):
    labels, legend = open_labels({"path": write_tif("l.tif", coded()), "nodata": 255})
    assert 255 not in legend.ids
    assert not labels.read(GRID).valid[0, 36]
    plain = Legend.from_dict({1: "a", 7: "b", 41: "c", 42: "d"})
    assert not open_labels(write_tif("m.tif", coded()), legend=plain)[0].read(GRID).valid[0, 36]


def test_background_fills_the_raster_and_not_the_world(write_tif):
    path = write_tif("l.tif", coded(), nodata=255)
    labels, legend = open_labels({"path": path, "ignore": [42]}, background="other")
    raster = labels.read(crop(GRID, Window(-5, -5, 50, 70)))
    assert legend.by_name("other").id == 0
    assert raster.valid[10, 5:65:12].tolist() == [True, True, False, True, True]
    assert raster.pixels[0][10, 5 + 36] == 0
    assert not raster.valid[:5].any()
    assert not raster.valid[:, 65:].any()


def test_codes_of_a_file_are_matched_by_name(write_tif):
    path = write_tif("l.tif", coded(), nodata=255)
    own = {1: "Urban", 7: "forest", 41: {"name": "water", "codes": [41, 42]}}
    raster = open_labels({"path": path, "legend": own}, legend=LEGEND)[0].read(GRID)
    assert raster.pixels[0][0, ::12].tolist() == [9, 1, 1, 255, 4]
    with pytest.raises(LegendError, match="'sea' is not in the legend"):
        open_labels({"path": path, "legend": {1: "sea"}}, legend=LEGEND)


def test_float_rasters_of_whole_numbers(write_tif):
    pixels = coded().astype("float32")
    assert open_labels(write_tif("l.tif", pixels, nodata=255))[1].ids.tolist() == [1, 7, 41, 42]
    pixels[0, 0] = 1.5
    with pytest.raises(LegendError, match=r"1\.5 is no class code"):
        open_labels(write_tif("f.tif", pixels, nodata=255))


def test_mosaics_of_label_rasters(write_tif):
    left = write_tif("a.tif", np.full((40, 30), 3, "uint8"))
    right = write_tif("b.tif", np.full((40, 30), 5, "uint8"), affine=GRID.affine @ Affine.translation(30, 0))
    for spec in ([left, right], {"mosaic": [left, right]}, open_source([left, right])):
        labels, legend = open_labels(spec)
        assert legend.ids.tolist() == [3, 5]
        assert labels.read(GRID).pixels[0][0, [0, 59]].tolist() == [3, 5]


def test_several_bands_are_refused(write_tif):
    path = write_tif("l.tif", np.stack([coded(), coded() + 1]))
    with pytest.raises(BandError, match="labels need one band"):
        open_labels(path)
    assert open_labels({"path": path, "select": [2]})[1].ids.tolist() == [0, 2, 8, 42, 43]


def test_images_are_no_labels(write_tif, encoded):
    with pytest.raises(LegendError, match="more than 4096 values"):
        open_labels(write_tif("l.tif", encoded(80, 80)))


def test_raster_without_a_labelled_pixel(write_tif):
    with pytest.raises(LegendError, match="no labelled pixel"):
        open_labels(write_tif("l.tif", np.full((4, 5), 255, "uint8"), nodata=255))


def test_raster_bounds(write_tif):
    labels, _ = open_labels(write_tif("l.tif", coded()))
    assert labels.bounds_overlap(GRID)
    assert labels.bounds_overlap(GeoBox((9, 9), Affine(0.01, 0, -111.05, 0, -0.01, 37.98), "EPSG:4326"))
    assert not labels.bounds_overlap(crop(GRID, Window(0, 60, 10, 10)))
    assert not labels.bounds_overlap(GeoBox((9, 9), Affine(0.01, 0, 11, 0, -0.01, 47), "EPSG:4326"))


def test_label_raster_pickles(write_tif):
    labels, _ = open_labels(write_tif("l.tif", coded()), background=1)
    again = pickle.loads(pickle.dumps(labels))  # noqa: S301 - our own bytes
    assert (again.read(GRID).pixels == labels.read(GRID).pixels).all()


def test_an_open_source_is_taken_as_it_is():
    class Constant:
        geobox, bands, dtype = GRID, ("codes",), np.dtype("uint8")

        def read(self, geobox):
            pixels = np.full((1, *geobox.shape), 4, "uint8")
            return Raster(pixels, np.ones(tuple(geobox.shape), bool), geobox, self.bands)

    labels, legend = open_labels(Constant())
    assert legend.ids.tolist() == [4]
    assert (labels.read(GRID).pixels == 4).all()


# -- real labels -------------------------------------------------------------------------------------------------------


def test_nlcd_on_the_landsat_grid(shared_data):
    """Another CRS and pixel size, against the same labels warped by somebody else's program."""
    labels, legend = open_labels(str(shared_data / "zion" / "nlcd.tif"))
    reference = shared_data / "zion" / "nlcd_on_landsat_grid.tif"
    with rasterio.open(reference) as file:
        wanted = file.read(1)
    assert legend.ids.tolist() == list(range(1, 9))
    assert legend.classes[3].color == "#68aa63"
    found = labels.read(open_source(str(reference)).geobox)
    assert (found.pixels[0] == wanted).mean() > 0.999


def test_beaufort_polygons_on_degrees(shared_data):
    path = shared_data / "beaufort" / "rcr_landcover.shp"
    labels, legend = open_labels({"path": str(path), "column": "Classvalue", "name_column": "Classname"})
    assert legend.by_name("WetSand").id == 22531
    image = open_source(str(shared_data / "beaufort" / "beaufort_s2_b01_b08.tif"))
    assert labels.read(image.geobox).valid.sum() == 598


def test_buildings_on_background(shared_data):
    path = shared_data / "buildings" / "massachusetts_buildings.gpkg"
    labels, legend = open_labels({"path": str(path), "background": "other"})
    raster = labels.read(open_source(str(shared_data / "buildings" / "22978945_15.tif")).geobox)
    assert legend.ids.tolist() == [0, 1]
    assert raster.valid.all()
    assert 0.05 < raster.pixels.mean() < 0.15
