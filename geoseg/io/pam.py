"""Class names beside a raster: what GDAL and the GIS programs built on it read from `NAME.tif.aux.xml`.

The format is GDAL's persistent auxiliary metadata (PAM): category names, and a raster attribute table (RAT) with value,
class name and colour. QGIS, ArcGIS and every GDAL program show them.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from xml.etree import ElementTree as ET

from geoseg.legend import Legend

logger = logging.getLogger(__name__)

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


def band_notes(band: ET.Element, *, where: str = "the label raster") -> BandNotes:
    """What a `PAMRasterBand` or a `VRTRasterBand` element says about the band's values.

    Args:
        band: The element.
        where: The file, for messages.
    """
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
    notes = _table_notes(table, where)
    return BandNotes({**names, **notes.names}, colors or notes.colors, notes.counts)


@dataclass(frozen=True, slots=True)
class _Table:
    """An attribute table: use, head (without blanks and dashes) and type of each column, and the cells by row."""

    usages: list[str]
    heads: list[str]
    kinds: list[str]
    rows: list[list[str]]

    @classmethod
    def of(cls, table: ET.Element) -> _Table:
        columns = table.findall("FieldDefn")
        return cls(
            [column.findtext("Usage", "") for column in columns],
            [re.sub(r"[\s_-]+", "", column.findtext("Name", "").lower()) for column in columns],
            [column.findtext("Type", "") for column in columns],
            [[cell.text or "" for cell in row.findall("F")] for row in table.findall("Row")],
        )

    def integers(self, column: int) -> list[int | None]:
        """The cells of a column, None where they are no whole numbers."""
        return [_integer(row[column]) for row in self.rows]

    def is_key(self, column: int) -> bool:
        """Whether each row has a whole number of its own in a column."""
        cells = self.integers(column)
        return None not in cells and len(set(cells)) == len(cells)


def _table_notes(element: ET.Element, where: str) -> BandNotes:
    table = _Table.of(element)
    keys = _linear_bins(element, len(table.rows)) or _keys(table)
    if keys is None:
        logger.warning(
            "%s: columns of its attribute table differ in what may be the pixels' values; its names are not used, "
            "say what the values mean with legend: {...}", where,
        )  # fmt: skip
        return BandNotes()
    found = [(key, row) for key, row in zip(keys, table.rows, strict=True) if key is not None]
    name = _name_column(table, keys)
    names = {} if name is None else {key: row[name].strip() for key, row in found if row[name].strip()}
    counts: dict[int, int] = {}
    if _PIXEL_COUNT in table.usages:
        counts = {key: _integer(row[table.usages.index(_PIXEL_COUNT)]) or 0 for key, row in found}
    return BandNotes(names, _table_colors(table.usages, found), counts)


def _linear_bins(element: ET.Element, count: int) -> list[int | None]:
    """The value of each row where they lie at equal steps, as GDAL writes them; none where they do not."""
    try:
        first, step = float(element.get("Row0Min", "")), float(element.get("BinSize", ""))
    except ValueError:
        return []
    if step == 1 and math.isfinite(first):  # GDAL's row of a value is the bin that it lies in, from -0.5 on too
        return [math.ceil(first) + row for row in range(count)]
    return [_integer(str(first + row * step)) for row in range(count)] if step else []


def _keys(table: _Table) -> list[int | None] | None:
    """The value that each row is about: what a column says, else the row's number; None where columns differ."""
    value = next((table.usages.index(usage) for usage in (_MIN_MAX, _MIN) if usage in table.usages), None)
    if value is None and "value" in table.heads:
        value = table.heads.index("value")
    if value is not None:
        return table.integers(value)
    plain = [k for k, usage in enumerate(table.usages) if usage in _MAY_BE_VALUES and table.is_key(k)]
    told = [k for k in plain if table.heads[k] in _VALUE_HEADS]
    others = [k for k in plain if table.kinds[k] == _INTEGER and table.heads[k] not in _OTHER_HEADS]
    columns = [table.integers(k) for k in told or others]
    if any(column != columns[0] for column in columns):
        return None
    return columns[0] if columns else list(range(len(table.rows)))


def _name_column(table: _Table, keys: list[int | None]) -> int | None:
    """The column of names: one declared so, else one called so, of texts first, which does not repeat the values."""
    if _NAME in table.usages:
        return table.usages.index(_NAME)
    called = [table.heads.index(head) for head in _NAME_HEADS if head in table.heads]
    called.sort(key=lambda column: table.kinds[column] != _TEXT)
    return next((column for column in called if not table.rows or table.integers(column) != keys), None)


_MAY_BE_VALUES = ("", "0")  # columns without a declared use
_VALUE_HEADS = (
    "id", "code", "gridcode", "dn", "classid", "classcode", "classvalue", "classnumber", "pixelvalue", "rastervalue",
    "labelid", "landcoverid", "landcovercode", "lccode", "values",
)  # fmt: skip
_OTHER_HEADS = (
    "oid", "fid", "objectid", "rowid", "count", "pixelcount", "histogram", "area", "red", "green", "blue", "alpha",
    "opacity", "r", "g", "b",
)  # fmt: skip
_NAME_HEADS = ("classname", "classnames", "class", "name", "label", "category", "description")


def _table_colors(usages: list[str], found: list[tuple[int, list[str]]]) -> dict[int, tuple[int, ...]]:
    if not {_RED, _GREEN, _BLUE} <= set(usages):
        return {}
    columns = [usages.index(part) for part in (_RED, _GREEN, _BLUE)]
    parts = {key: [_integer(row[column]) or 0 for column in columns] for key, row in found}
    # Most programs write integers from 0 to 255, some up to 65535.
    wide = any(part > 255 for color in parts.values() for part in color)
    return {key: (*(part * 255 // 65535 if wide else part for part in color), 255) for key, color in parts.items()}


def _integer(text: str) -> int | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if math.isfinite(value) and value == int(value) else None
