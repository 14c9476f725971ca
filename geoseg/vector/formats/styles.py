"""How QGIS shows polygons: in the colours of their classes, or all alike."""

from __future__ import annotations

import hashlib
from pathlib import Path
from xml.etree import ElementTree as ET

from geoseg.errors import LegendError
from geoseg.legend import Legend
from geoseg.vector.layer import PolygonLayer

_PLAIN = {"color": "120,160,200,120", "style": "solid", "outline_color": "40,60,90,255", "outline_width": "0.2"}
_SEAL = "<!-- geoseg, sha256 of the above: "


def polygon_style(legend: Legend | None) -> str:
    """A QGIS style (QML) that fills each polygon with its class's colour, by the column `class_id`.

    Without a legend all polygons look alike, with an outline. A comment at its end tells it from one that was edited.

    >>> 'attr="class_id"' in polygon_style(Legend.from_dict({1: "water"}))
    True
    """
    root = ET.Element("qgis", {"version": "3.28", "styleCategories": "Symbology"})
    if legend is None:
        renderer = ET.SubElement(root, "renderer-v2", {"type": "singleSymbol", "symbollevels": "0"})
        _add_symbol(ET.SubElement(renderer, "symbols"), 0, _PLAIN)
    else:
        renderer = ET.SubElement(
            root, "renderer-v2", {"type": "categorizedSymbol", "attr": "class_id", "symbollevels": "0"}
        )
        _add_classes(renderer, legend)
    ET.indent(root)
    body = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n" + ET.tostring(root, "unicode") + "\n"
    return body + _seal(body)


def is_polygon_style(path: Path) -> bool:
    """Whether a `.qml` is as geoseg wrote it for polygons: QGIS drops the seal, and an edit breaks it."""
    body, found, seal = path.read_text(encoding="utf-8", errors="replace").rpartition(_SEAL)
    return bool(found) and found + seal == _seal(body)


def is_map_style(path: Path) -> bool:
    """Whether a `.qml` is as geoseg wrote it for a class map."""
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        return text.rstrip() == Legend.from_qml(text).to_qml().rstrip()
    except LegendError:
        return False


def may_replace(path: Path, style: Path) -> bool:
    """Whether a style takes nobody's work away when it replaces the one at `path`."""
    if is_polygon_style(path):
        return True
    body = style.read_text(encoding="utf-8").rpartition(_SEAL)[0]
    return path.read_text(encoding="utf-8", errors="replace").rstrip() == body.rstrip()


def _seal(body: str) -> str:
    """A last line that vouches for all before it."""
    return f"{_SEAL}{hashlib.sha256(body.encode()).hexdigest()} -->\n"


def layer_style(layer: PolygonLayer) -> str:
    """The style of a layer: by class where it has classes."""
    return polygon_style(layer.legend if "class_id" in layer.schema.names else None)


def write_style(layer: PolygonLayer, path: Path) -> None:
    """Writes the style beside a file, where QGIS looks for it."""
    path.with_suffix(".qml").write_text(layer_style(layer), encoding="utf-8")


def _add_classes(renderer: ET.Element, legend: Legend) -> None:
    categories = ET.SubElement(renderer, "categories")
    symbols = ET.SubElement(renderer, "symbols")
    for position, item in enumerate(legend.classes):
        category = {"value": str(item.id), "type": "long", "label": item.name, "render": "true"}
        ET.SubElement(categories, "category", category | {"symbol": str(position)})
        rgba = ",".join(map(str, (*item.rgb, 255)))
        _add_symbol(symbols, position, {"color": rgba, "style": "solid", "outline_style": "no"})


def _add_symbol(symbols: ET.Element, position: int, options: dict[str, str]) -> None:
    symbol = ET.SubElement(symbols, "symbol", {"type": "fill", "name": str(position), "alpha": "1"})
    layer = ET.SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "pass": "0", "locked": "0"})
    parent = ET.SubElement(layer, "Option", {"type": "Map"})
    for name, value in options.items():
        ET.SubElement(parent, "Option", {"name": name, "value": value, "type": "QString"})
