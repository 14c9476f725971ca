"""What rasters say of their values: names, colours and the legend of a map, in a file or beside it; of all members."""

from __future__ import annotations

import json
import logging
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import rasterio.shutil

from geoseg.errors import LegendError
from geoseg.io.cog import LEGEND_TAG
from geoseg.io.combine import Mosaic
from geoseg.io.handles import GDAL_ERRORS, dataset, file_key, gdal, is_remote, one_line, unplaced_is_fine
from geoseg.io.pam import BandNotes, band_notes
from geoseg.io.protocol import Source
from geoseg.io.xarray_source import XarraySource
from geoseg.legend import Legend, LegendClass, default_color

logger = logging.getLogger(__name__)

# What programs call pixels that nobody has labelled: no class, whatever their code.
UNLABELLED = re.compile(r"(unclassified|unlabell?ed|no ?data|masked pixels|background/no ?data)", re.IGNORECASE)
NO_CLASS = ""
BACKGROUND = "background"
LARGEST_TABLE = 255
"""The last value of a colour table whose black entries are kept: a longer one is black where nobody set a colour."""

NUMBERED = re.compile(r"(class|value|code|category)?\s*(-?\d+)", re.IGNORECASE)
"""How programs call a value that nobody has named."""


@dataclass(frozen=True, slots=True)
class Says:
    """What a raster says of its values.

    Attributes:
        notes: Names and colours that programs wrote beside it.
        written: The legend that geoseg wrote into it.
        nodata: Its nodata; of several files None where it is not the same.
        name: The file.
        silent: Whether one of several files gives no names.
    """

    notes: BandNotes = BandNotes()  # noqa: RUF009 - frozen
    written: Legend | None = None
    nodata: float | None = None
    name: str = ""
    silent: bool = False

    @property
    def names(self) -> dict[int, str]:
        """All names of values that are not nodata."""
        if self.written is not None:
            return {item.id: item.name for item in self.written.classes}
        return {code: name for code, name in counted(self.notes).items() if code != whole_number(self.nodata)}

    @property
    def class_names(self) -> dict[int, str]:
        """Names of values that are classes."""
        if self.written is not None:
            return {item.id: item.name for item in self.written.classes}
        return {code: name for code, name in self.notes.names.items() if not is_no_class(name)}

    @property
    def unlabelled(self) -> frozenset[int]:
        """Values that the raster itself calls unclassified, unlabelled or no data."""
        if self.written is not None:
            return frozenset()
        return frozenset(code for code, name in self.notes.names.items() if is_no_class(name))


def source_says(source: Source) -> Says:
    """What all files of a source, or a cube's flags, say of its values.

    Raises:
        LegendError: Two files name their values unlike.
    """
    return together(each_says(source))


def each_says(source: Source, *, told: bool = False) -> list[Says]:
    """What each file of a source, or a cube's flags, says of its values.

    Args:
        source: One band of class codes.
        told: Whether the user says what the values of all files mean. Of files over a net, where to ask is a request
            each, the first then stands for the others, unless it is a map.
    """
    said: list[Says] = []
    for leaf in _leaves(source):
        passed = told and bool(said) and said[0].written is None and is_remote(getattr(leaf, "path", ""))
        said += [] if passed else [_leaf_says(leaf)]
    return said


def is_unnamed(code: int, name: str) -> bool:
    """Whether a name says no more of a value than its number, or is what geoseg calls one without a name.

    >>> is_unnamed(3, "3"), is_unnamed(3, "Value 3"), is_unnamed(1, "class 300000"), is_unnamed(1, "category 5")
    (True, True, True, False)
    """
    found = NUMBERED.fullmatch(name.strip())
    return found is not None and (int(found[2]) == code or (found[1] or "").lower() == "class")


def is_no_class(name: str) -> bool:
    """Whether a name is what programs call pixels that nobody has labelled.

    >>> is_no_class("NO_DATA"), is_no_class("no-data"), is_no_class("Unclassified"), is_no_class("background")
    (True, True, True, False)
    """
    return UNLABELLED.fullmatch(_plain(name)) is not None


def name_key(name: str) -> str:
    """What two spellings of one name have in common; all names of what is no class are one.

    >>> name_key("Bare_Soil ") == name_key("bare-soil"), name_key("unlabelled") == name_key("No data")
    (True, True)
    """
    return NO_CLASS if is_no_class(name) else _plain(name)


def _plain(name: str) -> str:
    """A name in small letters with single blanks between its words; a minus before a number stays."""
    return " ".join(re.sub(r"_|(?<=\w)-(?=\w)", " ", name.lower()).split())


def _leaves(source: Any) -> Iterator[Any]:
    """The rasters that codes are read from: of a mosaic all, of a stack the first."""
    members, inner = getattr(source, "members", ()), getattr(source, "source", None)
    if isinstance(source, XarraySource) or isinstance(getattr(source, "path", None), str):
        yield source
    elif members:
        for member in members if isinstance(source, Mosaic) else members[:1]:
            yield from _leaves(member)
    elif inner is not None:
        yield from _leaves(inner)


def _leaf_says(leaf: Any) -> Says:
    if isinstance(leaf, XarraySource):
        return Says(BandNotes(names=leaf.cube.flags), nodata=next(iter(leaf.cube.pieces[0].nodata), None))
    facts, given = getattr(leaf, "facts", None), getattr(leaf, "nodata", None)
    said = _file_says(leaf.path, int(facts.bands[0].index) if facts is not None and facts.bands else 1)
    return said if given is None else replace(said, nodata=given)


def together(said: list[Says]) -> Says:
    """What several files say, of which each value has one name.

    Raises:
        LegendError: A value has two names, or a class of maps two values.
    """
    if not said:
        return Says()
    first = said[0]
    if all((each.notes, each.written, each.nodata) == (first.notes, first.written, first.nodata) for each in said):
        return first
    names, silent = _agreed(said), any(not each.names for each in said)
    nodata = first.nodata if len({each.nodata for each in said}) == 1 else None
    colors = {code: color for each in reversed(said) for code, color in each.notes.colors.items()}
    written = [each.written for each in said if each.written is not None]
    if not written:
        return Says(BandNotes(names, colors), None, nodata, first.name, silent)
    return Says(BandNotes(), _joined(written, names), nodata, first.name)


def _joined(written: list[Legend], names: Mapping[int, str]) -> Legend:
    """The classes of maps of one region each, and those that `names` add to them; with codes where all are alike."""
    items: dict[int, LegendClass] = {}
    for item in (replace(item, codes=()) for legend in written for item in legend.classes):
        other = items.setdefault(item.id, item)
        if is_unnamed(item.id, other.name) and not is_unnamed(item.id, item.name):
            items[item.id] = item
    added = {code: name for code, name in names.items() if code not in items and 0 <= code <= 65534}
    if not added and all(legend == written[0] for legend in written):
        return written[0]
    more = [LegendClass(code, name, default_color(name, k)) for k, (code, name) in enumerate(added.items())]
    return Legend((*items.values(), *(item for item in more if name_key(item.name) != NO_CLASS)))


def _agreed(said: list[Says]) -> dict[int, str]:
    """Names by value.

    Raises:
        LegendError: Two files differ.
    """
    ours = any(each.written is not None for each in said)
    by_code: dict[int, tuple[str, str]] = {}
    by_name: dict[str, tuple[int, str]] = {}
    for each in said:
        for code, name in each.names.items():
            other, where = by_code.get(code, (name, each.name))
            if code not in by_code or _gives_way(code, other, name):
                by_code[code] = name, each.name
            elif not _gives_way(code, name, other) and name_key(other) != name_key(name):
                raise _unlike(f"{where} calls its value {code} {other}, {each.name} calls it {name}")
            value, where = by_name.setdefault(name_key(name), (code, each.name))
            if ours and value != code and name_key(name) != NO_CLASS:
                raise _unlike(f"{where} calls its value {value} {name}, {each.name} its value {code}")
    return {code: name for code, (name, _) in by_code.items()}


def _gives_way(code: int, name: str, other: str) -> bool:
    """Whether a name of a value says less than another: it is but a number, or no class where that is background."""
    return is_unnamed(code, name) or (name_key(name) == NO_CLASS and name_key(other) == BACKGROUND)


def _unlike(what: str) -> LegendError:
    return LegendError(
        f"{what}; lay them on top of each other with {{layers: [...]}}, which goes by names, or say what the values of "
        "all mean with {mosaic: [...], legend: {...}}"
    )


def counted(notes: BandNotes) -> Mapping[int, str]:
    """The names, without those of values of which the table counts no pixel."""
    if not any(notes.counts.values()):
        return notes.names
    return {code: name for code, name in notes.names.items() if notes.counts.get(code)}


def whole_number(nodata: float | None) -> int | None:
    """A nodata value that a code may have."""
    return None if nodata is None or not np.isfinite(nodata) or nodata != int(nodata) else int(nodata)


def _file_says(path: str, band: int) -> Says:
    """As `_read_says`, once for a file as long as it stays the same, with what lies beside it."""
    key = file_key(path)
    if is_remote(path):
        return _kept_says(path, band, key)
    return _read_says(path, band) if key[1] is None else _kept_says(path, band, (key, file_key(f"{path}.aux.xml")))


@lru_cache(maxsize=4096)
def _kept_says(path: str, band: int, _key: Any) -> Says:
    return _read_says(path, band)


def _read_says(path: str, band: int) -> Says:
    """What a raster says of its values, the legend that geoseg wrote into it, and its nodata."""
    with gdal(path):
        opened = dataset(path)
        nodata, tag = opened.nodatavals[band - 1], opened.tags().get(LEGEND_TAG)
        if tag:
            return Says(BandNotes(), _written(tag, path), nodata, path)
        return Says(_notes(path, band), None, nodata, path)


def _written(tag: str, path: str) -> Legend | None:
    try:
        return Legend.from_dict(json.loads(tag))
    except (ValueError, TypeError) as error:
        logger.warning("%s has a tag %s that is no legend (%s); it is not used", path, LEGEND_TAG, error)
        return None


def _notes(path: str, band: int) -> BandNotes:
    """Category names, attribute table and colours of a band, through GDAL's own reading of any format."""
    try:
        text = _virtual(path)
    except (*GDAL_ERRORS, KeyError) as error:
        logger.info("%s: class names and colours cannot be read (%s)", path, one_line(error))
        return BandNotes()
    try:
        root = ET.fromstring(_COLOR_TABLE.sub("", text))  # noqa: S314 - GDAL wrote it
        element = root.find(f"VRTRasterBand[@band='{band}']")
    except ET.ParseError as error:
        logger.warning("%s: its class names cannot be read (%s); its values go without names", path, error)
        element = None
    notes = BandNotes() if element is None else band_notes(element, where=path)
    return replace(notes, colors=_shared(_color_table(path, band)) or notes.colors)


_COLOR_TABLE = re.compile(r"<ColorTable>.*?</ColorTable>", re.DOTALL)


def _virtual(path: str) -> str:
    """A virtual raster of the file, which lists names and tables, for which rasterio has no call."""
    name = f"/vsimem/{uuid.uuid4().hex}.vrt"
    try:
        rasterio.shutil.copy(path, name, driver="VRT")
        with unplaced_is_fine(), rasterio.open(name) as virtual:
            return str(virtual.tags(ns="xml:VRT")["xml:VRT"])
    except UnicodeDecodeError as error:  # GDAL hands names on in whatever letters a program wrote them
        return bytes(error.object).decode("latin-1")
    finally:
        if rasterio.shutil.exists(name):
            rasterio.shutil.delete(name)


def _color_table(path: str, band: int) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """The entries of a band's colour table, without those of a long one that nobody set; none where it has none."""
    try:
        colors = dataset(path).colormap(band)
    except ValueError:
        return ()
    return tuple((value, color) for value, color in colors.items() if value <= LARGEST_TABLE or any(color[:3]))


@lru_cache(maxsize=64)
def _shared(colors: tuple[tuple[int, tuple[int, ...]], ...]) -> Mapping[int, tuple[int, ...]]:
    """Colours by value: files with one colour table have it once in memory."""
    return dict(colors)
