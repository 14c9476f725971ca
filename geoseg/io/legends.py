"""Where a Legend comes from: YAML, a QGIS style, what a raster says of its values, or the values found in it."""

from __future__ import annotations

import json
import logging
import os
import re
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import rasterio.shutil
import yaml
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geoseg.errors import LegendError, MissingInputError, ReadError
from geoseg.io.cog import LEGEND_TAG
from geoseg.io.grids import crop
from geoseg.io.handles import GDAL_ERRORS, dataset, gdal, one_line, unplaced_is_fine
from geoseg.io.pam import BandNotes, band_notes
from geoseg.io.protocol import Source
from geoseg.io.sources import open_source
from geoseg.io.xarray_source import XarraySource
from geoseg.legend import Legend, LegendClass, default_color
from geoseg.tiling import Window

logger = logging.getLogger(__name__)

LegendSpec = str | Path | Mapping[Any, Any] | Legend
"""A file (YAML, JSON, QGIS style, raster), the classes themselves, or a legend."""

MOST_VALUES = 4096
STRIP_PX = 1 << 22
# What programs call pixels that nobody has labelled: no class, whatever their code.
UNLABELLED = re.compile(r"(unclassified|unlabell?ed|no ?data|masked pixels|background/no ?data)", re.IGNORECASE)


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


def raster_legend(source: Source, *, ignore: Iterable[int] = (), values: Iterable[int] | None = None) -> Legend:
    """The legend of a label raster, found as `read_legend` says.

    Args:
        source: One band of class codes; its pixels are read, in strips, only where names are missing.
        ignore: Codes that are no class.
        values: The values in its pixels, where the caller knows them; all are classes then.

    Raises:
        LegendError: The raster has no class, or its values are no class codes.
    """
    path, left_out = _first_path(source), set(ignore)
    notes, written, nodata = _source_says(source)
    given = getattr(source, "nodata", None)
    nodata = nodata if given is None else given
    empty = None if nodata is None or not np.isfinite(nodata) or nodata != int(nodata) else int(nodata)
    if written is not None:
        return without(written.of_map(), left_out)
    named = {code: name for code, name in notes.names.items() if code != empty and code not in left_out}
    named = {code: name for code, name in named.items() if not UNLABELLED.fullmatch(name)}
    if notes.counts and any(notes.counts.values()):
        named = {code: name for code, name in named.items() if notes.counts.get(code)}
    if values is not None:
        codes = sorted((set(named) | set(values)) - left_out)
    else:
        codes = sorted(named) if named else sorted(set(values_of(source)) - left_out)
    if not codes:
        raise LegendError(f"{path or 'the label raster'} has no labelled pixel; needed is at least one class")
    return _legend(codes, named, notes.colors, empty)


def map_legend(source: Source) -> Legend | None:
    """The legend that geoseg wrote into a map, with the codes of the label files that it was learnt from."""
    return _source_says(source)[1]


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
    notes, written, _ = _source_says(source)
    if written is not None:
        return {item.id: item.name for item in written.classes}
    return {code: name for code, name in notes.names.items() if not UNLABELLED.fullmatch(name)}


def unlabelled_codes(source: Source) -> frozenset[int]:
    """Codes that the raster itself calls unclassified, unlabelled or no data."""
    notes, written, _ = _source_says(source)
    if written is not None:
        return frozenset()
    return frozenset(code for code, name in notes.names.items() if UNLABELLED.fullmatch(name))


def values_of(source: Source) -> list[int]:
    """The values found in a raster of class codes, in order; read in strips.

    Raises:
        LegendError: The values are no integers, or too many to be classes.
    """
    found: set[int] = set()
    for strip in _strips(source.geobox):
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


def _strips(geobox: GeoBox) -> Iterator[GeoBox]:
    rows, cols = geobox.shape
    step = max(1, STRIP_PX // cols)
    for row in range(0, rows, step):
        yield crop(geobox, Window(row, 0, min(step, rows - row), cols))


def _first_path(source: Any) -> str | None:
    """The file of a source, of a mosaic's first member, or of what a band is picked from."""
    if isinstance(getattr(source, "path", None), str):
        return str(source.path)
    members = getattr(source, "members", None)
    inner = members[0] if members else getattr(source, "source", None)
    return None if inner is None else _first_path(inner)


def _band_of(source: Any) -> int:
    """1-based index in its file of the band that is read."""
    facts = getattr(source, "facts", None)
    return int(facts.bands[0].index) if facts is not None and facts.bands else 1


def _source_says(source: Source) -> tuple[BandNotes, Legend | None, float | None]:
    """What a source's file, or a cube's flags, say of its values, as `_file_says` has it."""
    if isinstance(source, XarraySource):
        return BandNotes(names=source.cube.flags), None, next(iter(source.cube.pieces[0].nodata), None)
    path = _first_path(source)
    return (BandNotes(), None, None) if path is None else _file_says(path, _band_of(source))


def _file_says(path: str, band: int) -> tuple[BandNotes, Legend | None, float | None]:
    """As `_read_says`, once for a file on disk as long as it stays the same, with what lies beside it."""
    try:
        stats = [os.stat(name) for name in (path, f"{path}.aux.xml") if os.path.exists(name)]  # noqa: PTH110, PTH116
    except (OSError, ValueError):
        stats = []
    stamp = tuple((stat.st_size, stat.st_mtime_ns) for stat in stats)
    return _kept_says(path, band, stamp) if stamp else _read_says(path, band)


@lru_cache(maxsize=16)
def _kept_says(path: str, band: int, _: tuple[Any, ...]) -> tuple[BandNotes, Legend | None, float | None]:
    return _read_says(path, band)


def _read_says(path: str, band: int) -> tuple[BandNotes, Legend | None, float | None]:
    """What a raster says of its values, the legend that geoseg wrote into it, and its nodata."""
    with gdal(path):
        opened = dataset(path)
        nodata, tag = opened.nodatavals[band - 1], opened.tags().get(LEGEND_TAG)
        if tag:
            return BandNotes(), _written(tag, path), nodata
        return _notes(path, band), None, nodata


def _written(tag: str, path: str) -> Legend | None:
    try:
        return Legend.from_dict(json.loads(tag))
    except (ValueError, TypeError) as error:
        logger.warning("%s has a tag %s that is no legend (%s); it is not used", path, LEGEND_TAG, error)
        return None


def _notes(path: str, band: int) -> BandNotes:
    """Category names, attribute table and colours of a band, through GDAL's own reading of any format.

    rasterio has no call for names and tables. A virtual raster of the file lists them all.
    """
    name = f"/vsimem/{uuid.uuid4().hex}.vrt"
    try:
        rasterio.shutil.copy(path, name, driver="VRT")
        with unplaced_is_fine(), rasterio.open(name) as virtual:
            text = virtual.tags(ns="xml:VRT")["xml:VRT"]
    except (*GDAL_ERRORS, KeyError) as error:
        logger.info("%s: class names and colours cannot be read (%s)", path, one_line(error))
        return BandNotes()
    finally:
        if rasterio.shutil.exists(name):
            rasterio.shutil.delete(name)
    element = ET.fromstring(text).find(f"VRTRasterBand[@band='{band}']")  # noqa: S314 - GDAL wrote it
    return BandNotes() if element is None else band_notes(element)
