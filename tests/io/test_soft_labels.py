"""Shares of classes from files of bytes, percent and fractions, and the hard labels they make."""

from __future__ import annotations

import logging
import pickle

import numpy as np
import pytest
import yaml
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from geoseg.errors import BandError, InputError, LegendError, MissingInputError
from geoseg.io.grids import crop
from geoseg.io.labels import LabelSource, check_overlap, open_labels
from geoseg.io.protocol import Source
from geoseg.io.soft_labels import HardLabels, SoftLabels, open_soft_labels
from geoseg.io.sources import open_source
from geoseg.io.stamps import paths_in
from geoseg.legend import Legend
from geoseg.tiling import Window

UTM = Affine(10, 0, 500_000, 0, -10, 4_200_000)
LEGEND = Legend.from_dict({2: "water", 5: "forest", 7: "field"})
SHARES = np.random.default_rng(4).dirichlet([0.6, 0.6, 0.6], (20, 24)).transpose(2, 0, 1)
UNITS = {"uint8": 255, "percent": 100, "float32": 1, "permille": 10_000}


def written(write_tif, unit, shares=SHARES):
    """One file of three bands in that unit, and the shares that it stands for."""
    dtype = {"uint8": "uint8", "percent": "uint8", "float32": "float32", "permille": "uint16"}[unit]
    values = shares * UNITS[unit]
    values = (values if dtype == "float32" else np.rint(values)).astype(dtype)
    total = values.astype("float64").sum(axis=0)
    path = write_tif(f"{unit}.tif", values, names=("water", "forest", "field"))
    return path, values / np.where(total > 0, total, 1)


@pytest.mark.parametrize("unit", UNITS)
def test_shares_in_any_unit_add_up_to_one(write_tif, unit):
    path, expected = written(write_tif, unit)
    soft, legend = open_soft_labels({"soft": path})
    assert isinstance(soft, SoftLabels)
    assert isinstance(soft, Source)
    assert legend == Legend.from_dict({1: "water", 2: "forest", 3: "field"})
    found = soft.read(soft.geobox)
    assert found.bands == soft.bands == ("water", "forest", "field")
    assert found.dtype == soft.dtype == np.float32
    assert np.abs(found.pixels - expected).max() < 1e-6
    assert np.abs(found.pixels.sum(axis=0) - 1).max() < 1e-6
    assert found.valid.all()


def test_one_file_a_class_a_mapping_and_a_pattern_say_the_same(write_tif, tmp_path):
    whole, expected = written(write_tif, "uint8")
    bands = open_source(whole).read(open_source(whole).geobox).pixels
    files = [write_tif(f"shares_{name}.tif", band) for name, band in zip("abc", bands, strict=True)]
    names = ["water", "forest", "field"]
    for spec in (
        {"soft": files, "classes": names},
        {"soft": dict(zip(names, files, strict=True))},
        {"soft": str(tmp_path / "shares_*.tif"), "classes": names},
        {"soft": {"stack": files}, "classes": names},
        {"soft": {"path": whole, "bands": names}},
        {"soft": [{"path": whole, "select": [k]} for k in (1, 2, 3)], "classes": names},
    ):
        soft, legend = open_soft_labels(spec, legend=LEGEND)
        assert legend == LEGEND
        assert np.abs(soft.read(soft.geobox).pixels - expected).max() < 1e-6
    named = [write_tif(f"{name}.tif", band) for name, band in zip(names, bands, strict=True)]
    soft, legend = open_soft_labels({"soft": named})
    assert legend.names == ("water", "forest", "field")


def test_classes_are_matched_to_the_legend_by_name_and_some_may_have_no_share(write_tif):
    path, expected = written(write_tif, "uint8")
    wanted = Legend.from_dict({1: "Field", 3: "rock", 4: "WATER", 9: "forest"})
    soft, _ = open_soft_labels({"soft": path}, legend=wanted)
    found = soft.read(soft.geobox).pixels
    assert np.abs(found[[2, 3, 0]] - expected).max() < 1e-6
    assert not found[1].any()
    unnamed = write_tif("unnamed.tif", np.ones((3, 4, 4), "uint8"))
    assert open_soft_labels({"soft": unnamed}, legend=LEGEND)[0].positions == (0, 1, 2)
    with pytest.raises(LegendError, match="3 bands without names, the legend 4 classes; name the bands with classes:"):
        open_soft_labels({"soft": unnamed}, legend=wanted)


def test_nothing_and_nodata_are_no_label_and_nodata_of_one_class_is_no_share_of_it(write_tif):
    values = np.array([[[9, 0, 0, 0, 255]], [[3, 0, 6, 255, 255]]], "uint8")
    files = [write_tif(f"{name}.tif", plane, nodata=255) for name, plane in zip(("a", "b"), values, strict=True)]
    together = write_tif("both.tif", values, nodata=255, names=("a", "b"))
    for spec in ({"soft": files}, {"soft": together}):
        soft, _ = open_soft_labels(spec)
        found = soft.read(soft.geobox)
        assert found.valid[0].tolist() == [True, False, True, False, False]
        assert found.pixels[:, 0].T.tolist() == [[0.75, 0.25], [0, 0], [0, 1], [0, 0], [0, 0]]
    zero = write_tif("zero.tif", values[:, :, :3], nodata=0, names=("a", "b"))
    soft, _ = open_soft_labels({"soft": zero})
    assert soft.read(soft.geobox).pixels[:, 0].T.tolist() == [[0.75, 0.25], [0, 0], [0, 1]]


@pytest.mark.parametrize(("top", "scale"), [(0.8, 1), (80, 100), (240, 255)])
def test_a_background_takes_the_rest_of_the_pixel(write_tif, caplog, top, scale):
    shares = np.array([[top, top / 2, 0, -9]], "float32")
    path = write_tif("water.tif", shares, nodata=-9)
    with caplog.at_level(logging.INFO):
        soft, legend = open_soft_labels({"soft": [path], "background": "land"})
    assert f"a whole pixel is taken to be {scale}" in caplog.text
    assert legend.names == ("water", "land")
    found = soft.read(soft.geobox)
    assert found.valid[0].tolist() == [True, True, True, False]
    assert np.allclose(found.pixels[0, 0, :3], [top / scale, top / 2 / scale, 0])
    assert np.allclose(found.pixels[1, 0, :3], [1 - top / scale, 1 - top / 2 / scale, 1])
    half, _ = open_soft_labels({"soft": [path], "background": "land", "scale": 2 * top})
    assert np.allclose(half.read(half.geobox).pixels[0, 0, :3], [0.5, 0.25, 0])


# -- hard labels -------------------------------------------------------------------------------------------------------


def test_hard_labels_are_the_largest_share(write_tif):
    path, expected = written(write_tif, "uint8")
    soft, _ = open_soft_labels({"soft": path}, legend=LEGEND)
    labels, legend = open_labels({"soft": path}, legend=LEGEND)
    assert labels == soft.hard
    assert isinstance(labels, HardLabels)
    assert isinstance(labels, LabelSource)
    assert legend == LEGEND
    found = labels.read(labels.geobox)
    assert np.array_equal(found.pixels[0], np.array([2, 5, 7])[expected.argmax(axis=0)])
    assert found.dtype == labels.dtype == np.uint8
    assert found.valid.all()
    outside = labels.read(labels.geobox.pad(1))
    assert (outside.pixels[0][~outside.valid] == 255).all()
    assert np.array_equal(outside.valid, np.pad(found.valid, 1))


def test_of_equal_shares_the_first_class_of_the_legend_counts(write_tif):
    path = write_tif("even.tif", np.full((2, 1, 1), 50, "uint8"), names=("forest", "water"))
    labels, _ = open_labels({"soft": path}, legend=LEGEND)
    assert labels.read(labels.geobox).pixels[0, 0, 0] == 2


def test_soft_labels_may_be_a_layer(write_tif):
    path = write_tif("even.tif", np.array([[[90, 0]], [[10, 0]]], "uint8"), names=("forest", "water"))
    below = write_tif("below.tif", np.full((1, 2), 7, "uint8"))
    labels, _ = open_labels([{"soft": path}, below], legend=LEGEND)
    assert labels.read(labels.geobox).pixels[0, 0].tolist() == [5, 7]


def test_labels_elsewhere_are_told(write_tif):
    labels, _ = open_labels({"soft": written(write_tif, "uint8")[0]})
    check_overlap(labels, labels.geobox)
    with pytest.raises(InputError, match="do not overlap"):
        check_overlap(labels, crop(labels.geobox, Window(900, 0, 5, 5)))


# -- on any grid, in any window ----------------------------------------------------------------------------------------

BOXES = {
    "own": GeoBox((20, 24), UTM, "EPSG:32612"),
    "coarse": GeoBox((8, 9), UTM @ Affine.translation(1, -2) @ Affine.scale(2.6), "EPSG:32612"),
    "degrees": GeoBox((30, 30), Affine(0.0001, 0, -111.0001, 0, -0.0001, 37.9481), "EPSG:4326"),
}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Three files, one a class: at 10 m, at 20 m, and in percent with gaps."""
    import rasterio

    folder, rng = tmp_path_factory.mktemp("mixed"), np.random.default_rng(2)
    for name, step, top in (("water", 1, 1.0), ("forest", 2, 1.0), ("field", 1, 0.4)):
        values = (rng.random((20 // step, 24 // step)) * top).astype("float32")
        values[rng.random(values.shape) < 0.2] = -1
        with rasterio.open(
            folder / f"{name}.tif", "w", driver="GTiff", height=values.shape[0], width=values.shape[1], count=1,
            dtype="float32", transform=UTM @ Affine.scale(step), crs="EPSG:32612", nodata=-1,
        ) as file:  # fmt: skip
            file.write(values, 1)
    return open_soft_labels({"soft": [str(folder / f"{name}.tif") for name in ("water", "forest", "field")]})[0]


@given(st.sampled_from(list(BOXES)), st.data())
def test_a_window_of_a_read_is_the_read_of_that_window(mixed, box, data):
    grid = BOXES[box]
    row, col = (data.draw(st.integers(0, size - 1)) for size in grid.shape)
    rows, cols = (data.draw(st.integers(1, size - at)) for size, at in zip(grid.shape, (row, col), strict=True))
    part = (slice(row, row + rows), slice(col, col + cols))
    for source in (mixed, mixed.hard):
        whole, found = source.read(grid), source.read(crop(grid, Window(row, col, rows, cols)))
        assert np.array_equal(found.valid, whole.valid[part])
        assert np.array_equal(found.pixels, whole.pixels[:, *part])


def test_soft_labels_are_values_on_the_finest_grid(mixed):
    for source in (mixed, mixed.hard):
        again = pickle.loads(pickle.dumps(source))  # noqa: S301
        assert again == source
        assert hash(again) == hash(source)
        assert len(paths_in(again)) == 3
        assert np.array_equal(again.read(BOXES["own"]).pixels, source.read(BOXES["own"]).pixels)
    assert mixed.geobox == BOXES["own"]


# -- what makes no sense -----------------------------------------------------------------------------------------------


def test_yaml_says_it_all(write_tif):
    path, _ = written(write_tif, "percent")
    spec = yaml.safe_load(f"""
    soft: {path}
    classes: [lake, wood, field]
    legend:
      1: {{name: lake, color: "#0000ff"}}
      2: wood
      3: field
    scale: 100
    resampling: average
    """)
    soft, legend = open_soft_labels(spec)
    assert legend.names == ("lake", "wood", "field")
    assert soft.scale == 100
    assert {member.resampling for member in soft.members} == {"average"}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"clases": ["a"]}, InputError, "soft labels have no option clases; known are soft, classes, scale"),
        ({"classes": ["a", "b"]}, InputError, "3 bands, and 2 classes were named; needed is one each"),
        ({"classes": "water"}, InputError, "classes of soft labels must be a list"),
        ({"classes": ["a", "b", "A"]}, LegendError, "belongs to two classes|hold class"),
        (
            {"classes": ["a", "b", "c"], "legend": {1: "a", 2: "b"}},
            LegendError,
            "class 'c' is not in the legend.*classes:",
        ),
        ({"scale": 0}, InputError, "scale of soft labels must be the value of a whole pixel"),
        ({"soft": []}, InputError, "soft labels without a file"),
        ({"soft": "none_*.tif"}, MissingInputError, "no file matches none_"),
        ({"soft": ["P", "P"]}, BandError, r"a file of one class needs one band, this has \[water, forest, field\]"),
        ({"soft": "U"}, LegendError, "nothing says which classes the 2 bands of the soft labels are; name them with"),
        ({"soft": "B", "background": "land"}, InputError, "hold 9000; say what a whole pixel is, with scale: 10000"),
        ({"column": "kind"}, InputError, "soft labels have no option column"),
    ],
)
def test_soft_labels_that_make_no_sense_are_told_in_one_line(write_tif, options, error, message):
    files = {
        "P": written(write_tif, "uint8")[0],
        "U": write_tif("unnamed.tif", np.ones((2, 3, 3), "uint8")),
        "B": write_tif("big.tif", np.full((2, 3, 3), 9000, "uint16"), names=("a", "b")),
    }
    spec = {"soft": "P", **options}
    inner = spec["soft"]
    spec["soft"] = [files[one] for one in inner] if isinstance(inner, list) else files.get(inner, inner)
    with pytest.raises(error, match=message) as told:
        open_labels(spec)
    assert "\n" not in str(told.value)


def test_negative_shares_are_told(write_tif):
    path = write_tif("shares.tif", np.array([[[0.5, -9999]], [[0.5, -9999]]], "float32"), names=("a", "b"))
    soft, _ = open_soft_labels({"soft": path})
    with pytest.raises(InputError, match="soft labels hold -9999 and shares are not negative; .* with nodata: -9999"):
        soft.read(soft.geobox)
    mended, _ = open_soft_labels({"soft": path, "nodata": -9999})
    assert mended.read(mended.geobox).valid[0].tolist() == [True, False]
