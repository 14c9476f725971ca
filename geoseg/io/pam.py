"""Class names beside a raster: what GDAL and the GIS programs built on it read from `NAME.tif.aux.xml`.

The format is GDAL's persistent auxiliary metadata (PAM): category names, and a raster attribute table (RAT) with value,
class name and colour. QGIS, ArcGIS and every GDAL program show them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from xml.etree import ElementTree as ET

from geoseg.legend import Legend

# Category names are a list from 0 on: beyond this many the table alone carries the names.
LARGEST_NAMED_ID = 4095

# Numbers of GDALRATFieldType and GDALRATFieldUsage in gdal.h.
_INTEGER, _TEXT = "0", "2"
_PIXEL_COUNT, _NAME, _MIN, _MAX, _MIN_MAX, _RED, _GREEN, _BLUE, _ALPHA = "1", "2", "3", "4", "5", "6", "7", "8", "9"
_COLUMNS = (
    ("Value", _INTEGER, _MIN_MAX),
    ("Class", _TEXT, _NAME),
    ("Red", _INTEGER, _RED),
    ("Green", _INTEGER, _GREEN),
    ("Blue", _INTEGER, _BLUE),
    ("Alpha", _INTEGER, _ALPHA),
)


@dataclass(frozen=True, slots=True)
class BandNotes:
    """What the auxiliary metadata of a band say about its values.

    Attributes:
        names: Name of each value that has one.
        colors: Red, green, blue and alpha of each value, 0 to 255.
        counts: Pixels of each value, where the attribute table has them.
    """

    names: Mapping[int, str] = field(default_factory=dict)
    colors: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    counts: Mapping[int, int] = field(default_factory=dict)


def pam_xml(bands: Sequence[tuple[str, Legend | None]], *, srs: str | None = None) -> str:
    """The text of an `.aux.xml` file.

    Args:
        bands: Description and legend of each band.
        srs: WKT of a CRS that the file itself cannot hold.
    """
    root = ET.Element("PAMDataset")
    if srs is not None:
        ET.SubElement(root, "SRS", {"dataAxisToSRSAxisMapping": "1,2"}).text = srs
    for number, (description, legend) in enumerate(bands, start=1):
        band = ET.SubElement(root, "PAMRasterBand", {"band": str(number)})
        ET.SubElement(band, "Description").text = description
        if legend is not None:
            _add_names(band, legend)
    ET.indent(root)
    return ET.tostring(root, "unicode") + "\n"


def _add_names(band: ET.Element, legend: Legend) -> None:
    if legend.classes[-1].id <= LARGEST_NAMED_ID:
        names = {item.id: item.name for item in legend.classes}
        categories = ET.SubElement(band, "CategoryNames")
        for value in range(legend.classes[-1].id + 1):
            ET.SubElement(categories, "Category").text = names.get(value, "")
    table = ET.SubElement(band, "GDALRasterAttributeTable", {"tableType": "thematic"})
    for index, (name, kind, usage) in enumerate(_COLUMNS):
        column = ET.SubElement(table, "FieldDefn", {"index": str(index)})
        for tag, text in (("Name", name), ("Type", kind), ("Usage", usage)):
            ET.SubElement(column, tag).text = text
    for index, item in enumerate(legend.classes):
        row = ET.SubElement(table, "Row", {"index": str(index)})
        for cell in (item.id, item.name, *item.rgb, 255):
            ET.SubElement(row, "F").text = str(cell)


def band_notes(band: ET.Element) -> BandNotes:
    """What a `PAMRasterBand` or a `VRTRasterBand` element says about the band's values."""
    names = {
        value: category.text.strip()
        for value, category in enumerate(band.findall("CategoryNames/Category"))
        if category.text and category.text.strip()
    }
    colors = {
        value: tuple(int(float(entry.get(part, "255"))) for part in ("c1", "c2", "c3", "c4"))
        for value, entry in enumerate(band.findall("ColorTable/Entry"))
    }
    table = band.find("GDALRasterAttributeTable")
    if table is None:
        return BandNotes(names, colors)
    notes = _table_notes(table)
    return BandNotes({**names, **notes.names}, colors or notes.colors, notes.counts)


def _table_notes(table: ET.Element) -> BandNotes:
    usages = [column.findtext("Usage", "") for column in table.findall("FieldDefn")]
    heads = [column.findtext("Name", "").strip().lower() for column in table.findall("FieldDefn")]
    rows = [[cell.text or "" for cell in row.findall("F")] for row in table.findall("Row")]
    value = next((usages.index(usage) for usage in (_MIN_MAX, _MIN) if usage in usages), None)
    if value is None and "value" in heads:
        value = heads.index("value")
    keys = [_integer(row[value]) if value is not None else number for number, row in enumerate(rows)]
    name = usages.index(_NAME) if _NAME in usages else next((heads.index(h) for h in _NAME_HEADS if h in heads), None)
    found = [(key, row) for key, row in zip(keys, rows, strict=True) if key is not None]
    names = {} if name is None else {key: row[name].strip() for key, row in found if row[name].strip()}
    counts: dict[int, int] = {}
    if _PIXEL_COUNT in usages:
        counts = {key: _integer(row[usages.index(_PIXEL_COUNT)]) or 0 for key, row in found}
    return BandNotes(names, _table_colors(usages, found), counts)


_NAME_HEADS = ("class_name", "classname", "class_names", "class", "name", "label", "category", "description")


def _table_colors(usages: list[str], found: list[tuple[int, list[str]]]) -> dict[int, tuple[int, ...]]:
    if not {_RED, _GREEN, _BLUE} <= set(usages):
        return {}
    columns = [usages.index(part) for part in (_RED, _GREEN, _BLUE)]
    # GDAL hands colours on as integers from 0 to 255, whatever the program that made them wrote.
    return {key: (*(_integer(row[column]) or 0 for column in columns), 255) for key, row in found}


def _integer(text: str) -> int | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if math.isfinite(value) and value == int(value) else None
