"""What class numbers mean: born checked, translated both ways, and readable again."""

from __future__ import annotations

import json
import pickle
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg.errors import GeosegError, LegendError
from geoseg.legend import NAMED_COLORS, Legend, LegendClass, default_color

SPARSE = Legend.from_dict({3: "water", 40: {"name": "forest", "codes": [41, 42]}, 300: "urban"})


@st.composite
def legends(draw):
    ids = draw(st.lists(st.integers(0, 65534), min_size=1, max_size=8, unique=True))
    names = draw(st.lists(st.text(min_size=1, max_size=9), min_size=len(ids), max_size=len(ids), unique=True))
    colors = draw(st.lists(st.integers(0, 2**24 - 1), min_size=len(ids), max_size=len(ids)))
    kinds = draw(st.lists(st.sampled_from(["stuff", "thing"]), min_size=len(ids), max_size=len(ids)))
    rows = zip(ids, names, colors, kinds, strict=True)
    free = next(value for value in (255, 65535) if value not in ids)
    return Legend(tuple(LegendClass(i, name, f"#{color:06x}", kind) for i, name, color, kind in rows), free)


@given(legends())
def test_plain_values_give_the_legend_back(legend):
    assert Legend.from_dict(legend.to_dict()) == legend
    assert Legend.from_dict(json.loads(json.dumps(legend.to_dict()))) == legend


@given(legends())
def test_pickle_and_hash(legend):
    again = pickle.loads(pickle.dumps(legend))  # noqa: S301 - our own bytes
    assert again == legend
    assert hash(again) == hash(legend)
    assert again.indexes(legend.ids).tolist() == list(range(len(legend)))


@given(legends(), st.data())
def test_indexes_undo_ids(legend, data):
    channel = np.array(data.draw(st.lists(st.integers(0, len(legend) - 1), max_size=20)), int)
    ids = legend.ids[channel].astype(legend.dtype)
    assert (legend.indexes(ids) == channel).all()
    assert legend.indexes(np.array([legend.ignore], legend.dtype)).tolist() == [legend.no_index]


def test_order_is_that_of_the_ids():
    legend = Legend.from_dict({9: "b", 2: "a"})
    assert legend.ids.tolist() == [2, 9]
    assert legend.names == ("a", "b")
    assert len(legend) == 2


@pytest.mark.parametrize(
    ("ids", "ignore", "dtype"),
    [([0, 1], 255, "uint8"), ([254], 255, "uint8"), ([255], 65535, "uint16"), ([7, 22531], 65535, "uint16")],
)
def test_ignore_and_dtype_fit_the_ids(ids, ignore, dtype):
    legend = Legend.from_values(ids)
    assert (legend.ignore, legend.dtype) == (ignore, np.dtype(dtype))


def test_many_classes_take_wide_indexes():
    legend = Legend.from_values(range(300))
    assert legend.no_index == 65535
    assert legend.indexes(np.array([299, 400], "uint16")).tolist() == [299, 65535]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int64", "float32"])
def test_translate_against_a_plain_loop(dtype):
    legend = Legend.from_dict({3: "water", 40: {"name": "forest", "codes": [41, 42]}})
    codes = np.random.default_rng(3).choice([3, 41, 42, 255], (20, 30)).astype(dtype)
    table = {3: 3, 41: 40, 42: 40, 255: 255}
    expected = [[table[int(code)] for code in row] for row in codes]
    ids = legend.translate(codes)
    assert ids.dtype == np.uint8
    assert ids.tolist() == expected


def test_translate_of_nothing():
    assert SPARSE.translate(np.zeros((0, 4), "uint8")).shape == (0, 4)


@pytest.mark.parametrize("dtype", ["uint8", "int32"])
def test_translate_names_unknown_codes(dtype):
    with pytest.raises(LegendError, match=r"codes 5, 40 are not in the legend, which knows 3, 41, 42, 300, 65535"):
        SPARSE.translate(np.array([3, 40, 5], dtype))


def test_lookup():
    assert SPARSE.by_name("FOREST").id == 40
    assert SPARSE.by_id(3).name == "water"
    with pytest.raises(LegendError, match="class 'sea' is not in the legend, which has water, forest, urban"):
        SPARSE.by_name("sea")
    with pytest.raises(LegendError, match="class id 4 is not in the legend, which has 3, 40, 300"):
        SPARSE.by_id(4)


WRONG = {
    "at least one class": lambda: Legend(()),
    "name x belongs to two classes": lambda: Legend.from_dict({1: "x", 2: "x"}),
    "code 1 belongs to two classes": lambda: Legend.from_dict({1: "x", 2: {"name": "y", "codes": [1]}}),
    "id 1 belongs to two": lambda: Legend((LegendClass(1, "a", "#000000"), LegendClass(1, "b", "#000000"))),
    "ignore value 1 is taken": lambda: Legend.from_dict({"classes": {1: "x"}, "ignore": 1}),
    "class id 'a' is no integer": lambda: Legend.from_dict({"a": "x"}),
    "class id 1.5 is no integer": lambda: Legend.from_dict({1.5: "x"}),
    "needs a name": lambda: Legend.from_dict({1: {"color": "#000000"}}),
    "unknown keys colour": lambda: Legend.from_dict({1: {"name": "x", "colour": "#000000"}}),
    "unknown legend key nodata": lambda: Legend.from_dict({"classes": {1: "x"}, "nodata": 0}),
    "must map ids to names": lambda: Legend.from_dict({"classes": ["x"]}),
    "ignore value 'none' is no integer": lambda: Legend.from_dict({"classes": {1: "x"}, "ignore": "none"}),
    "code of class 1 'a' is no integer": lambda: Legend.from_dict({1: {"name": "x", "codes": ["a"]}}),
    "must be a list of integers": lambda: Legend.from_dict({1: {"name": "x", "codes": 4}}),
    "outside 0 to 65534": lambda: LegendClass(65535, "x", "#000000"),
    "has no name": lambda: LegendClass(1, "", "#000000"),
    "not of the form #rrggbb": lambda: LegendClass(1, "x", "red"),
    "neither stuff nor thing": lambda: LegendClass(1, "x", "#000000", "object"),
    "is no QML": lambda: Legend.from_qml("<qgis"),
    "no paletted raster renderer": lambda: Legend.from_qml("<qgis/>"),
    "value of the QGIS style 'a' is no integer": lambda: Legend.from_qml(qml_of('value="a" color="#000000"')),
}  # fmt: skip


@pytest.mark.parametrize("message", WRONG)
def test_wrong_legends_are_refused_in_one_line(message):
    with pytest.raises(GeosegError, match=message) as caught:
        WRONG[message]()
    assert isinstance(caught.value, ValueError)
    assert len(str(caught.value).splitlines()) == 1


def qml_of(entry):
    return (
        "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'><qgis version='3.34'><pipe>"
        f'<rasterrenderer type="paletted" band="1"><colorPalette><paletteEntry {entry}/></colorPalette>'
        "</rasterrenderer></pipe></qgis>"
    )


def test_qgis_style_as_qgis_writes_it():
    legend = Legend.from_qml(qml_of('alpha="255" color="#1f6b35ff" label="Wald" value="4"'))
    assert legend.classes == (LegendClass(4, "Wald", "#1f6b35"),)
    assert Legend.from_qml(qml_of('value="4"')).names == ("class 4",)


def test_qgis_style_gives_the_legend_back():
    text = SPARSE.to_qml()
    again = Legend.from_qml(text)
    assert [(c.id, c.name, c.color) for c in again.classes] == [(c.id, c.name, c.color) for c in SPARSE.classes]
    renderer = ET.fromstring(text).find(".//rasterrenderer")  # noqa: S314 - our own text
    assert renderer.get("type") == "paletted"


def test_colour_table():
    legend = Legend.from_color_table({0: (0, 0, 0, 0), 4: (31, 107, 53, 255)}, names={4: "forest"}, ignore=0)
    assert legend.classes == (LegendClass(4, "forest", "#1f6b35"),)
    assert legend.ignore == 0
    assert legend.classes[0].rgb == (31, 107, 53)


def test_values_and_names():
    assert Legend.from_values(np.array([5, 2, 255, 2]), ignore=255).names == ("class 2", "class 5")
    assert Legend.from_values([0, 1], ignore=-9999).ignore == 255
    assert Legend.from_names(["sand", "mud", "sand"]).to_dict()["classes"][2]["name"] == "sand"


def test_class_zero_is_a_class():
    legend = Legend.from_dict({0: "background", 1: "building"})
    assert legend.indexes(np.array([0, 1], "uint8")).tolist() == [0, 1]
    assert legend.translate(np.array([0], "uint8")).tolist() == [0]


def test_colours_say_what_is_shown():
    assert default_color("Emergent Wetland", 0) == dict(NAMED_COLORS)["wetland|marsh|mangrove|swamp|bog"]
    colors = [default_color(f"zone {k}", k) for k in range(40)]
    assert len(set(colors)) == 40
    assert all(LegendClass(k, "x", color).rgb for k, color in enumerate(colors))


def test_merged_ignore():
    assert SPARSE.merged_ignore(0).ignore == 0
    with pytest.raises(LegendError, match="taken"):
        SPARSE.merged_ignore(3)


def test_classes_of_like_names_take_shades_that_differ():
    wetlands = Legend.from_dict({1: "emergent wetland", 2: "forested wetland", 3: "marsh", 4: "bog", 5: "swamp"})
    assert len({item.color for item in wetlands.classes}) == 5
    kept = Legend.from_dict({1: {"name": "a", "color": "#010203"}, 2: {"name": "b", "color": "#010203"}})
    assert [item.color for item in kept.classes] == ["#010203"] * 2  # what the user says stands
