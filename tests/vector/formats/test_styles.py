"""The styles that QGIS shows polygons in."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from geoseg.legend import Legend
from geoseg.vector import polygon_style
from geoseg.vector.formats.styles import is_map_style, is_polygon_style

LEGEND = Legend.from_dict({1: {"name": "forêt", "color": "#1f6b35"}, 2: "water & ice", 3: "road"})


def parsed(style):
    return ET.fromstring(style.split("\n", 1)[1])  # noqa: S314 - our own text


def test_it_has_every_class_in_its_colour():
    root = parsed(polygon_style(LEGEND))
    assert [each.get("label") for each in root.iter("category")] == ["forêt", "water & ice", "road"]
    colors = [each.get("value") for each in root.iter("Option") if each.get("name") == "color"]
    assert colors[0] == "31,107,53,255"
    assert [each.get("symbol") for each in root.iter("category")] == [each.get("name") for each in root.iter("symbol")]


def test_without_a_legend_there_is_one_symbol_with_an_outline():
    root = parsed(polygon_style(None))
    assert root.find("renderer-v2").get("type") == "singleSymbol"
    assert len(list(root.iter("symbol"))) == 1
    assert "outline_color" in [each.get("name") for each in root.iter("Option")]


@pytest.mark.parametrize("legend", [LEGEND, None])
def test_ours_are_known_from_those_of_others(tmp_path, legend):
    (tmp_path / "ours.qml").write_text(polygon_style(legend), encoding="utf-8")
    (tmp_path / "raster.qml").write_text(LEGEND.to_qml(), encoding="utf-8")
    (tmp_path / "changed.qml").write_text(polygon_style(None).replace("0.2", "0.5"), encoding="utf-8")
    assert is_polygon_style(tmp_path / "ours.qml")
    assert not is_polygon_style(tmp_path / "raster.qml")
    assert not is_polygon_style(tmp_path / "changed.qml")
    found = [is_map_style(tmp_path / f"{name}.qml") for name in ("raster", "ours", "changed")]
    assert found == [True, False, False]


def test_one_that_qgis_saved_is_the_users(tmp_path):
    """QGIS writes the document anew, without comments."""
    path = tmp_path / "saved.qml"
    path.write_text(ET.tostring(parsed(polygon_style(LEGEND)), "unicode"), encoding="utf-8")
    assert 'attr="class_id"' in path.read_text(encoding="utf-8")
    assert not is_polygon_style(path)
