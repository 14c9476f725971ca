"""Labels on top of each other: of each pixel the first that labels it, under one legend."""

from __future__ import annotations

import pickle

import geopandas as gpd
import numpy as np
import pytest
import shapely
import yaml
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox

from geoseg.errors import InputError, LegendError
from geoseg.io.combine import Mosaic
from geoseg.io.grids import crop
from geoseg.io.label_layers import LabelLayers, layered, union_legend
from geoseg.io.labels import LabelSource, check_overlap, open_labels
from geoseg.io.protocol import Source
from geoseg.io.stamps import paths_in
from geoseg.legend import Legend
from geoseg.raster import Raster
from geoseg.tiling import Window

UTM = Affine(10, 0, 500_000, 0, -10, 4_200_000)
GRID = GeoBox((10, 12), UTM, CRS("EPSG:32612"))
LEGEND = Legend.from_dict({1: "water", 4: "forest", 9: "urban"})


@pytest.fixture
def vector(tmp_path):
    """Writes boxes `(left, top, right, bottom)` in pixels of GRID with a column `kind`."""

    def write(name, boxes, kinds, *, to=None, column="kind", **more):
        shapes = []
        for left, top, right, bottom in boxes:
            (x0, y0), (x1, y1) = UTM @ (left, top), UTM @ (right, bottom)
            shapes.append(shapely.box(x0, y1, x1, y0))
        frame = gpd.GeoDataFrame({column: kinds, **more}, geometry=shapes, crs="EPSG:32612")
        path = tmp_path / name
        (frame if to is None else frame.to_crs(to)).to_file(path)
        return str(path)

    return write


@pytest.fixture
def raster(write_tif):
    """Half a raster of forest, its other half unlabelled."""
    codes = np.full((10, 12), 255, "uint8")
    codes[:, :6] = 4
    return write_tif("half.tif", codes, nodata=255)


def ids(labels):
    return labels.read(GRID).pixels[0]


def test_the_first_that_labels_a_pixel_wins_whatever_it_is(vector, raster):
    lake = vector("lake.gpkg", [(2, 2, 8, 5)], ["water"], to="EPSG:32613")
    expected = np.full((10, 12), 255)
    expected[:, :6] = 4
    below = expected.copy()
    expected[2:5, 2:8] = 1
    below[2:5, 6:8] = 1
    for spec, wanted in (([lake, raster], expected), ([raster, lake], below), ({"layers": [lake, raster]}, expected)):
        labels, legend = open_labels(spec, legend=LEGEND, column="kind")
        assert isinstance(labels, LabelLayers)
        assert isinstance(labels, LabelSource)
        assert isinstance(labels, Source)
        assert legend == labels.legend == LEGEND
        assert np.array_equal(ids(labels), wanted)
        assert np.array_equal(labels.read(GRID).valid, wanted != 255)
        assert labels.dtype == labels.read(GRID).dtype == np.uint8


def test_a_list_of_plain_rasters_stays_a_mosaic(write_tif, raster):
    other = write_tif("other.tif", np.full((10, 12), 9, "uint8"))
    labels, _ = open_labels([raster, other], legend=LEGEND)
    assert isinstance(labels.source, Mosaic)
    layers, _ = open_labels({"layers": [raster, other]}, legend=LEGEND)
    assert np.array_equal(ids(labels), ids(layers))


def test_different_codes_for_one_name_are_matched_by_name(write_tif, raster):
    codes = np.full((10, 12), 7, "uint8")
    codes[5:] = 41
    other = {"path": write_tif("b.tif", codes), "legend": {7: "Forest", 41: "road"}}
    first = {"path": raster, "legend": {4: {"name": "forest", "codes": [4, 41]}}}
    labels, legend = open_labels([first, other])
    # 41 is a code of forest in the first file, so that road takes an id of its own.
    assert dict(zip(legend.names, legend.ids.tolist(), strict=True)) == {"road": 1, "forest": 4}
    expected = np.full((10, 12), 4)
    expected[5:, 6:] = 1
    assert np.array_equal(ids(labels), expected)
    wanted = Legend.from_dict({11: "ROAD", 12: "forest"})
    labels, legend = open_labels([first, other], legend=wanted)
    assert legend == wanted
    assert np.array_equal(ids(labels), np.where(expected == 1, 11, 12))


def test_legends_that_are_found_are_united(vector, write_tif):
    crops = vector("crops.gpkg", [(0, 0, 3, 3)], ["maize"])
    houses = vector("houses.gpkg", [(2, 2, 6, 6)], ["house"], column="what", height=[3.5])
    codes = write_tif("codes.tif", np.full((10, 12), 2, "uint8"))
    labels, legend = open_labels([crops, {"path": houses, "column": "what"}, {"path": codes, "legend": {2: "maize"}}])
    assert dict(zip(legend.names, legend.ids.tolist(), strict=True)) == {"maize": 1, "house": 3}
    expected = np.ones((10, 12))
    expected[2:6, 2:6] = 3
    expected[:3, :3] = 1
    assert np.array_equal(ids(labels), expected)


@given(st.lists(st.lists(st.sampled_from("abcdefg"), min_size=1, unique=True), min_size=1, max_size=5), st.data())
def test_a_union_has_each_name_once_and_the_first_legend_whole(names, data):
    legends = []
    for group in names:
        numbers = data.draw(st.lists(st.integers(0, 40), min_size=len(group), max_size=len(group), unique=True))
        cased = [data.draw(st.sampled_from([name, name.upper()])) for name in group]
        legends.append(Legend.from_dict(dict(zip(numbers, cased, strict=True))))
    union = union_legend(legends)
    assert {name.lower() for name in union.names} == {name for group in names for name in group}
    assert set(legends[0].classes) <= set(union.classes)
    assert len(union) == len({name.lower() for name in union.names})


def test_a_class_that_gives_way_does_not_push_others_aside():
    union = union_legend([Legend.from_dict({1: "park"}), Legend.from_dict({1: "sand", 2: "rock", 3: "wood"})])
    assert dict(zip(union.names, union.ids.tolist(), strict=True)) == {"park": 1, "rock": 2, "wood": 3, "sand": 4}


def test_background_is_what_no_layer_labels(vector, raster):
    lake = vector("lake.gpkg", [(2, 2, 8, 5)], ["water"])
    town = vector("town.gpkg", [(9, 9, 11, 10)], ["urban"])
    spec = {"layers": [lake, town], "background": "forest", "column": "kind"}
    expected = np.full((10, 12), 4)
    expected[2:5, 2:8], expected[9:10, 9:11] = 1, 9
    assert np.array_equal(ids(open_labels(spec, legend=LEGEND)[0]), expected)
    last = [lake, {"path": town, "column": "kind", "background": "forest"}]
    assert np.array_equal(ids(open_labels(last, legend=LEGEND, column="kind")[0]), expected)
    found, legend = open_labels([lake, town], column="kind", background="land")
    assert legend.names == ("land", "water", "urban")
    assert (ids(found) == 255).sum() == 0
    with pytest.raises(InputError, match="a layer with a background hides those below it"):
        open_labels([{"path": lake, "column": "kind", "background": "forest"}, raster], legend=LEGEND)


def test_what_is_ignored_in_one_layer_is_asked_of_the_next(write_tif):
    one = write_tif("one.tif", np.array([[1, 2, 3]], "uint8"))
    two = write_tif("two.tif", np.array([[2, 1, 3]], "uint8"))
    legend = {1: "water", 2: "forest"}
    box = GeoBox((1, 3), UTM, "EPSG:32612")
    spec = {"layers": [{"path": one, "ignore": [2, 3]}, {"path": two}], "legend": legend, "ignore": [3]}
    labels, found = open_labels(spec)
    assert found == Legend.from_dict(legend)
    assert labels.read(box).pixels[0, 0].tolist() == [1, 1, 255]


def test_open_labels_and_layers_in_layers(vector, raster):
    lake = open_labels(vector("lake.gpkg", [(2, 2, 8, 5)], ["Water"]))[0]
    labels, legend = open_labels(
        [lake, [raster, vector("t.gpkg", [(0, 0, 12, 1)], ["urban"])]], legend=LEGEND, column="kind"
    )
    expected = np.full((10, 12), 255)
    expected[0] = 9
    expected[:, :6] = 4
    expected[2:5, 2:8] = 1
    assert np.array_equal(ids(labels), expected)
    assert legend == LEGEND
    again, _ = open_labels(lake, legend=LEGEND)
    assert (ids(again)[2:5, 2:8] == 1).all()
    with pytest.raises(InputError, match="open take no background"):
        open_labels([raster, lake], legend=LEGEND, background="urban")


@given(st.integers(0, 2**32 - 1), st.data())
def test_layers_are_a_loop_over_pixels_in_every_window(seed, data):
    rng = np.random.default_rng(seed)
    planes = rng.choice([1, 4, 9, 255], (3, 10, 12), p=[0.2, 0.2, 0.2, 0.4]).astype("uint8")
    layers = layered([Plane(plane, LEGEND) for plane in planes])
    top, left = data.draw(st.integers(0, 9)), data.draw(st.integers(0, 11))
    window = Window(top, left, data.draw(st.integers(1, 10 - top)), data.draw(st.integers(1, 12 - left)))
    expected = np.full((10, 12), 255)
    for row, col in np.ndindex(10, 12):
        expected[row, col] = next((plane[row, col] for plane in planes if plane[row, col] != 255), 255)
    found = layers.read(crop(GRID, window))
    assert np.array_equal(found.pixels[0], expected[window.slices])
    assert np.array_equal(found.valid, expected[window.slices] != 255)


class Plane:
    """Labels in memory on GRID."""

    geobox, bands, dtype = GRID, ("label",), np.dtype("uint8")

    def __init__(self, plane, legend):
        self.plane, self.legend = plane, legend

    def read(self, geobox):
        col, row = (round(v) for v in ~GRID.affine @ (geobox.affine.c, geobox.affine.f))
        part = self.plane[row : row + geobox.shape[0], col : col + geobox.shape[1]]
        return Raster(part[None].copy(), part != self.legend.ignore, geobox, self.bands)

    def bounds_overlap(self, geobox):
        return geobox is not None


def test_layers_are_a_value_and_know_where_they_lie(vector, raster):
    lake = vector("lake.gpkg", [(20, 2, 28, 5)], ["water"])
    labels, _ = open_labels([lake, raster], legend=LEGEND, column="kind")
    again = pickle.loads(pickle.dumps(labels))  # noqa: S301
    assert again == labels
    assert np.array_equal(ids(again), ids(labels))
    assert paths_in(labels) == [lake, raster]
    assert labels.geobox == GRID
    east, far = crop(GRID, Window(0, 20, 5, 5)), crop(GRID, Window(0, 5000, 5, 5))
    check_overlap(labels, east)
    with pytest.raises(InputError, match="do not overlap"):
        check_overlap(labels, far)


def test_yaml_says_it_all(vector, raster):
    lake = vector("lake.gpkg", [(2, 2, 8, 5)], ["lac"])
    spec = yaml.safe_load(f"""
    layers:
      - {{path: {lake}, value: water}}
      - {raster}
    legend: {{1: water, 4: forest, 6: rest}}
    background: rest
    """)
    labels, legend = open_labels(spec)
    expected = np.full((10, 12), 6)
    expected[:, :6] = 4
    expected[2:5, 2:8] = 1
    assert np.array_equal(ids(labels), expected)
    assert legend.names == ("water", "forest", "rest")


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ({"layers": []}, InputError, "layers of labels must be a list with at least one"),
        ({"layers": "R"}, InputError, "layers of labels must be a list"),
        ({"layers": ["R"], "value": 3}, InputError, "in layers have no option value; known are layers, legend"),
        (["V", "R"], LegendError, "class 'meadow' is not in the legend, which has water, forest, urban"),
        ([{"path": "R", "legend": {4: "moss"}}], LegendError, "class 'moss' is not in the legend"),
    ],
)
def test_layers_that_make_no_sense_are_told(vector, raster, spec, error, message):
    files = {"R": raster, "V": vector("v.gpkg", [(0, 0, 2, 2)], ["meadow"])}

    def named(value):
        if isinstance(value, dict):
            return {key: named(inner) for key, inner in value.items()}
        return [named(inner) for inner in value] if isinstance(value, list) else files.get(value, value)

    with pytest.raises(error, match=message):
        open_labels(named(spec), legend=LEGEND, column="kind" if isinstance(spec, list) else None)
