"""Shapefiles, and their limits said aloud: 10-character names, 18-digit numbers, 2 GB a file."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyproj

from geoseg.errors import InputError
from geoseg.vector.formats.ogr import Progress, not_whole, write_ogr
from geoseg.vector.formats.styles import write_style
from geoseg.vector.layer import FeatureBatch, PolygonLayer

SIDECARS = (".shx", ".dbf", ".prj", ".cpg", ".qix", ".sbn", ".sbx", ".fields.json")

_log = logging.getLogger(__name__)
_MOST_BYTES = 2**31 - 1
_TEXT_WIDTH = 80
_LONGEST = 254  # bytes of a text
_WIDTH = b"GDAL:OGR:width"
# Longer whole numbers are read back as floats; a minus is a character too.
_LOWEST, _HIGHEST = -(10**17) + 1, 10**18 - 1


def write_shapefile(layer: PolygonLayer, path: Path, progress: Progress) -> None:
    """Writes a shapefile with its sidecars, in UTF-8.

    Names of more than 10 characters are cut, see `short_names`; what stands for what is written to `.fields.json`.
    A column with whole numbers of more than 18 digits becomes text, which loses none of them.

    Raises:
        InputError: The layer may not fit 2 GB, or its CRS cannot be written as a `.prj`.
    """
    _check_size(layer, path)
    _check_crs(layer, path)
    names = short_names(layer.schema.names)
    plain = path.with_suffix(".shp")  # as GDAL calls it, whatever the letter case that was asked for
    count = _write(layer, plain, names, progress)
    if not _is_whole(plain, count):
        raise not_whole()
    plain.rename(path)
    changed = {name: short for name, short in names.items() if name != short}
    if changed:
        path.with_suffix(".fields.json").write_text(json.dumps(changed, indent=1, ensure_ascii=False), encoding="utf-8")
        _log.info("a shapefile's names have 10 characters: %s", ", ".join(f"{a} is {b}" for a, b in changed.items()))
    write_style(layer, path)


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Each name's stand-in of at most 10 characters, unique whatever the letter case.

    Of a name with letters beyond ASCII at most 10 bytes are kept.

    >>> short_names(["class_name", "perimeter_m", "perimeter_px"])
    {'class_name': 'class_name', 'perimeter_m': 'perimeter_', 'perimeter_px': 'perimete_2'}
    """
    short: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        candidate, number = _cut(name, 10), 1
        while candidate.lower() in taken:
            number += 1
            candidate = f"{_cut(name, 9 - len(str(number)))}_{number}"
        taken.add(candidate.lower())
        short[name] = candidate
    return short


def _cut(name: str, size: int) -> str:
    """The first `size` bytes of a name, without the half of a letter."""
    return name.encode()[:size].decode(errors="ignore")


class _LongNumbersError(Exception):
    """A column holds whole numbers that are too long for a number field."""

    def __init__(self, column: str) -> None:
        super().__init__(column)
        self.column = column


def _write(layer: PolygonLayer, path: Path, names: Mapping[str, str], progress: Progress) -> int:
    """Writes the layer, again from its start with one more column as text when a number proves too long."""
    texts: set[str] = set()
    while True:
        try:
            return write_ogr(
                _fitted(layer, names, texts),
                path,
                driver="ESRI Shapefile",
                progress=progress,
                layer_options={"ENCODING": "UTF-8", "2GB_LIMIT": "YES"},
            )
        except _LongNumbersError as error:
            _log.info("the numbers of %s are too long for a shapefile: they are written as text", error.column)
            texts.add(error.column)
            for suffix in (path.suffix, *SIDECARS):
                path.with_suffix(suffix).unlink(missing_ok=True)


def _fitted(layer: PolygonLayer, names: Mapping[str, str], texts: set[str]) -> PolygonLayer:
    """The layer with short names, widths of its texts, and some columns of numbers as text."""
    fields = [field.with_type(pa.string()) if field.name in texts else field for field in layer.schema]
    widths = _text_widths(layer, texts)
    fields = [_with_width(field, widths.get(field.name)) for field in fields]
    schema = pa.schema([field.with_name(names[field.name]) for field in fields])
    cut: set[str] = set()  # columns of which that was said

    def batches() -> Iterator[FeatureBatch]:
        for batch in layer.batches():
            for field in fields:
                if pa.types.is_integer(field.type) and _has_long_numbers(batch.table[field.name]):
                    raise _LongNumbersError(field.name)
            columns = [_shortened(batch.table[field.name].cast(field.type), field.name, cut) for field in fields]
            yield batch._replace(table=pa.RecordBatch.from_arrays(columns, schema=schema))

    return replace(layer, schema=schema, batches=batches)


def _has_long_numbers(column: pa.Array) -> bool:
    extremes = pc.min_max(column)
    if not extremes["min"].is_valid:
        return False
    return int(extremes["min"].as_py()) < _LOWEST or int(extremes["max"].as_py()) > _HIGHEST


def _shortened(column: pa.Array, name: str, told: set[str]) -> pa.Array:
    """A column whose texts are cut where they are too long, which is said once."""
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return column
    if (pc.max(pc.binary_length(column)).as_py() or 0) <= _LONGEST:
        return column
    if name not in told:
        told.add(name)
        _log.warning("a shapefile's texts have %d bytes: longer ones of %s are cut", _LONGEST, name)
    return pa.array([text if text is None else _cut(text, _LONGEST) for text in column.to_pylist()], column.type)


def _with_width(field: pa.Field, width: int | None) -> pa.Field:
    return field if width is None else field.with_metadata({_WIDTH: str(width).encode()})


def _text_widths(layer: PolygonLayer, texts: Iterable[str] = ()) -> dict[str, int]:
    """Bytes of the columns of text whose longest value is known."""
    widths = dict.fromkeys(texts, 20)
    if layer.legend is not None and "class_name" in layer.schema.names:
        widths["class_name"] = min(_LONGEST, max(len(name.encode()) for name in layer.legend.names))
    return widths


def _check_size(layer: PolygonLayer, path: Path) -> None:
    """That both files stay below 2 GB, counting at most: a ring has at least four vertices."""
    shapes = 100 + 52 * layer.count + 17 * layer.vertices
    widths = _text_widths(layer)
    table = layer.count * (1 + sum(widths.get(field.name, _field_width(field.type)) for field in layer.schema))
    if max(shapes, table) > _MOST_BYTES:
        raise InputError(
            f"{path.name} would pass the 2 GB of a shapefile: {layer.count} polygons with {layer.vertices} vertices; "
            "write .gpkg, or one file a class (--per-class), or raise the tolerance or the smallest area"
        )


def _field_width(kind: pa.DataType) -> int:
    """Characters of a value in the table, at most."""
    if pa.types.is_floating(kind):
        return 24
    if pa.types.is_boolean(kind):
        return 1
    if pa.types.is_integer(kind):
        return 20 if kind.bit_width == 64 else 18 if kind == pa.uint32() else 11
    return _TEXT_WIDTH


def _check_crs(layer: PolygonLayer, path: Path) -> None:
    try:
        if layer.crs is not None:
            layer.crs.to_wkt("WKT1_ESRI")
    except pyproj.exceptions.CRSError as error:
        raise InputError(
            f"the CRS '{layer.crs.name if layer.crs else ''}' cannot be written as the .prj of {path.name}; write .gpkg"
        ) from error


def _is_whole(path: Path, count: int) -> bool:
    """Whether each file is as long as its head says: ESRI Shapefile Technical Description, 1998, and dBASE III."""
    with path.open("rb") as shp, path.with_suffix(".dbf").open("rb") as dbf:
        shapes = 2 * int.from_bytes(shp.read(28)[24:], "big")
        head = dbf.read(12)
    table = int.from_bytes(head[8:10], "little") + count * int.from_bytes(head[10:12], "little")
    return (
        path.stat().st_size == shapes
        and path.with_suffix(".shx").stat().st_size == 100 + 8 * count
        and path.with_suffix(".dbf").stat().st_size >= table
    )
