"""Where a Legend comes from: YAML, a QGIS style, what a raster says of its values, or the values found in it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geoseg.errors import LegendError, MissingInputError, ReadError
from geoseg.io.combine import Mosaic
from geoseg.io.grids import crop
from geoseg.io.handles import one_line
from geoseg.io.protocol import Source
from geoseg.io.raster_says import Says, counted, is_no_class, source_says, whole_number
from geoseg.io.sources import open_source
from geoseg.legend import Legend, LegendClass, default_color
from geoseg.tiling import Window

logger = logging.getLogger(__name__)

LegendSpec = str | Path | Mapping[Any, Any] | Legend
"""A file (YAML, JSON, QGIS style, raster), the classes themselves, or a legend."""

MOST_VALUES = 4096
STRIP_PX = 1 << 22


def read_legend(spec: LegendSpec) -> Legend:
    """The legend that `spec` names.

    A raster's legend is, in this order: the one that geoseg wrote into it; its category names or attribute table, with
    its colours; the values found in its pixels, with the colours of its colour table.

    Args:
        spec: Path of a `.yaml`, `.yml` or `.json` file, of a QGIS style (`.qml`), of a raster; or a mapping of class
            ids to names or to `{name, color, kind, codes}`.

    Raises:
        MissingInputError: The file is not there.
        LegendError: It holds no legend, or one whose classes do not fit each other.
    """
    if isinstance(spec, Legend):
        return spec
    if isinstance(spec, Mapping):
        return Legend.from_dict(spec)
    suffix = Path(spec).suffix.lower()
    if suffix in (".yaml", ".yml", ".json"):
        return _from_yaml(Path(spec))
    if suffix == ".qml":
        return Legend.from_qml(_text(Path(spec)))
    source = open_source({"path": str(spec), "resampling": "nearest"})
    return map_legend(source) or raster_legend(source)


def raster_legend(
    source: Source, *, ignore: Iterable[int] = (), values: Iterable[int] | None = None, said: Says | None = None
) -> Legend:
    """The legend of a label raster, found as `read_legend` says.

    Args:
        source: One band of class codes; its pixels are read, in strips, only where names are missing.
        ignore: Codes that are no class.
        values: The values in its pixels, where the caller knows them; all are classes then.
        said: What its files say, where the caller has asked them.

    Raises:
        LegendError: The raster has no class, its values are no class codes, or its files name them unlike.
    """
    said, left_out = source_says(source) if said is None else said, set(ignore)
    empty = whole_number(said.nodata)
    if said.written is not None:
        return without(said.written.of_map(), left_out)
    named = {code: name for code, name in counted(said.notes).items() if code != empty and code not in left_out}
    named = {code: name for code, name in named.items() if not is_no_class(name)}
    if values is not None:
        found = set(named) | set(values)
    elif said.silent:
        found = set(named) | (set(values_of(source)) - said.unlabelled)
    else:
        found = set(named or values_of(source))
    codes = sorted(found - left_out)
    if not codes:
        raise LegendError(f"{said.name or 'the label raster'} has no labelled pixel; needed is at least one class")
    return _legend(codes, named, said.notes.colors, empty)


def map_legend(source: Source) -> Legend | None:
    """The legend that geoseg wrote into a map, with the codes of the label files that it was learnt from."""
    return source_says(source).written


def without(legend: Legend, left_out: Collection[int]) -> Legend:
    """The legend without some of its classes, by their ids.

    Raises:
        LegendError: None is left.
    """
    kept = tuple(item for item in legend.classes if item.id not in left_out)
    if not kept:
        raise LegendError(f"of the classes {', '.join(legend.names)} none is left; ignore fewer codes")
    return Legend(kept, legend.ignore)


def said_names(source: Source) -> dict[int, str]:
    """Names that a raster gives its values, where it does."""
    return source_says(source).class_names


def unlabelled_codes(source: Source) -> frozenset[int]:
    """Codes that the raster itself calls unclassified, unlabelled or no data."""
    return source_says(source).unlabelled


def values_of(source: Source, *, on: GeoBox | None = None) -> list[int]:
    """The values found in a raster of class codes, or in what of it lies on a grid, in order; read in strips.

    Raises:
        LegendError: The values are no integers, or too many to be classes.
    """
    found: set[int] = set()
    for strip in _strips(source, source.geobox if on is None else on):
        raster = source.read(strip)
        found.update(np.unique(whole_numbers(raster.pixels[0][raster.valid])).tolist())
        if len(found) > MOST_VALUES:
            raise LegendError(
                f"the label raster has more than {MOST_VALUES} values, so it holds no classes; choose its band of "
                "classes with select: [1], or give a legend"
            )
    return sorted(found)


def whole_numbers(codes: NDArray[Any]) -> NDArray[Any]:
    """The codes as integers, same shape.

    Raises:
        LegendError: One has a fraction.
    """
    if np.issubdtype(codes.dtype, np.integer):
        return codes
    whole = codes.astype(np.int64)
    if (whole != codes).any():
        raise LegendError(f"label value {codes[whole != codes].ravel()[0]} is no class code; needed are whole numbers")
    return whole


def legend_of_codes(codes: Iterable[int], names: Mapping[int, str]) -> Legend:
    """A legend of codes found in labels, named where names are known.

    The ids are the codes, where a map can hold them, else 1, 2, ...; codes with one name are one class.

    Raises:
        LegendError: There is no code.
    """
    return _legend(sorted(codes), names, {}, None)


def _legend(
    codes: list[int], names: Mapping[int, str], colors: Mapping[int, tuple[int, ...]], empty: int | None
) -> Legend:
    together: dict[str, list[int]] = {}
    spelt: dict[str, str] = {}
    for code in codes:
        name = names.get(code) or f"class {code}"
        together.setdefault(spelt.setdefault(name.lower(), name), []).append(code)
    fits = all(0 <= code <= 65534 for code in codes)
    items = []
    for position, (name, members) in enumerate(together.items()):
        class_id = members[0] if fits else position + 1
        color = colors.get(members[0])
        shown = default_color(name, position) if color is None else "#" + "".join(f"{part:02x}" for part in color[:3])
        items.append(LegendClass(class_id, name, shown, codes=() if members == [class_id] else tuple(members)))
    taken = {item.id for item in items} | set(codes)
    ignore = empty if empty is not None and 0 <= empty <= 65535 and empty not in taken else -1
    if ignore < 0 and taken & {255, 65535}:
        ignore = next(value for value in (255, 65535, *range(65534, 0, -1)) if value not in taken)
    return Legend(tuple(items), ignore)


def _from_yaml(path: Path) -> Legend:
    try:
        values = yaml.safe_load(_text(path))
    except yaml.YAMLError as error:
        raise LegendError(f"{path} is no YAML: {one_line(error)}") from error
    if isinstance(values, Mapping) and isinstance(values.get("legend"), Mapping):
        values = values["legend"]
    if not isinstance(values, Mapping):
        raise LegendError(f"{path} holds no legend; needed is a mapping of class ids to names")
    return Legend.from_dict(values)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise MissingInputError(
            f"the legend {path} is not there; needed is a YAML, JSON, QML or raster file"
        ) from error
    except UnicodeDecodeError as error:
        raise LegendError(f"{path} is no text in UTF-8") from error
    except OSError as error:
        raise ReadError(f"the legend {path} cannot be read: {error.strerror or error}") from error


def _strips(source: Source, geobox: GeoBox) -> Iterator[GeoBox]:
    """The grid in strips; of a mosaic whose members lie far apart what they cover alone."""
    for window in _covered(source, geobox):
        step = max(1, STRIP_PX // window.cols)
        for row in range(0, window.rows, step):
            strip = Window(window.row_off + row, window.col_off, min(step, window.rows - row), window.cols)
            yield crop(geobox, strip)


def _covered(source: Source, geobox: GeoBox) -> list[Window]:
    """Windows of the grid with all that a source has there: of a mosaic one a member where that is less, else all."""
    whole = Window(0, 0, *geobox.shape)
    if not isinstance(source, Mosaic):
        return [whole]
    windows = list(dict.fromkeys(window for _, window in replace(source, grid=geobox).placed))
    covered_px = sum(window.rows * window.cols for window in windows)
    return windows if 2 * covered_px < whole.rows * whole.cols else [whole]
