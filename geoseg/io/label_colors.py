"""Labels that are drawn in colours: a picture of red, green and blue read as class codes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geoseg.errors import BandError, InputError, LegendError
from geoseg.io.clouds import by_nearest
from geoseg.io.combine import BandStack, Mosaic, Picked
from geoseg.io.handles import dataset, gdal
from geoseg.io.protocol import Source
from geoseg.legend import Legend, LegendClass, default_color
from geoseg.raster import Raster

BAND = "code"
OTHER = "other"
"""The key of a table of colours that stands for all colours that it does not name."""

CHANNELS = 3

NAMED = 3
"""Unknown colours that an error names before it counts the rest."""


@dataclass(frozen=True)
class ColorCodes:
    """Class codes of a picture whose colours stand for classes.

    Attributes:
        picture: Red, green and blue, or one band of grey or of places in a colour table; read by nearest neighbour.
        colors: The colours known, 0xRRGGBB, in ascending order.
        codes: The code of each, None where the colour is no class.
        tolerance: The largest difference in a channel at which a pixel still has a colour; above 0 for what was
            compressed with loss. Of two colours the nearer one is taken.
        other: Code of all other colours; None makes them no class.
        refuse: Whether other colours are refused instead.
        empty: The colour that the file calls nodata, which is no class; None where it calls none so.
        name: What the picture is called in errors.

    Raises:
        InputError: The tolerance is out of range.
    """

    picture: Source
    colors: tuple[int, ...]
    codes: tuple[int | None, ...]
    tolerance: int = 0
    other: int | None = None
    refuse: bool = True
    empty: int | None = None
    name: str = "the label picture"

    def __post_init__(self) -> None:
        if isinstance(self.tolerance, bool) or not isinstance(self.tolerance, int) or not 0 <= self.tolerance <= 127:
            raise InputError(f"tolerance must be an integer from 0 to 127, got {self.tolerance!r}")

    @property
    def geobox(self) -> GeoBox:
        """The picture's grid."""
        return self.picture.geobox

    @property
    def bands(self) -> tuple[str, ...]:
        """`code`."""
        return (BAND,)

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint16."""
        return np.dtype(np.uint16)

    def read(self, geobox: GeoBox) -> Raster:
        """Codes on `geobox`; what has no colour of a class is invalid.

        Raises:
            LegendError: A colour is unknown; the message says which and how many pixels have it.
            BandError: The picture has neither one band nor three, or not 8 bits a channel.
            ReadError: The file cannot be read there.
            GridError: One of the grids has no CRS and they are not one grid.
        """
        found = self.picture.read(geobox)
        colors, valid = self._packed(found), found.valid.copy()
        if self.empty is not None:
            valid &= colors != self.empty
        packed = colors[valid]
        place = self._places(packed)
        if self.refuse and (place == len(self.colors)).any():
            raise LegendError(self._unknown(packed[place == len(self.colors)]))
        # The last entry, which is that of the colours unknown, is met only where they are not refused.
        kept = [*self.codes, self.other]
        table = np.array([code or 0 for code in kept], self.dtype)
        codes, seen = np.zeros(valid.shape, self.dtype), valid.copy()
        codes[seen] = table[place]
        valid[seen] = np.array([code is not None for code in kept])[place]
        return Raster(codes[None], valid, geobox, self.bands)

    def _packed(self, found: Raster) -> NDArray[np.int64]:
        """Colours 0xRRGGBB `(row, col)`."""
        count = len(found.pixels)
        if count not in (1, 3):
            raise BandError(
                f"{self.name} is to be read by its colours and has {count} bands; needed are red, green and blue, "
                "or one band; choose with select: [1, 2, 3]"
            )
        if found.pixels.dtype != np.uint8:
            raise BandError(f"{self.name} is to be read by its colours and is {found.pixels.dtype}; needed is uint8")
        values = found.pixels.astype(np.int64)
        if count == 3:
            return np.asarray((values[0] << 16) + (values[1] << 8) + values[2])
        return np.asarray(self._table[values[0]])

    @cached_property
    def _table(self) -> NDArray[np.int64]:
        """The colour of each value of the only band: of the file's colour table, else a grey."""
        path = getattr(_innermost(self.picture), "path", None)
        if path is None:
            return _greys()
        with gdal(path):
            opened = dataset(path)
            colors = _color_table(opened)
            table = _greys() if colors else _greys(int(opened.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", "8")))
        for value, (red, green, blue, *_) in colors.items():
            table[value] = (red << 16) + (green << 8) + blue
        return table

    def _places(self, packed: NDArray[np.int64]) -> NDArray[np.intp]:
        """Position in `colors` of each colour, their number where it is none of them."""
        known = np.array(self.colors)
        place = np.searchsorted(known, packed).clip(max=len(known) - 1)
        missed = known[place] != packed
        if not missed.any():
            return place
        place[missed] = len(known)
        if self.tolerance:
            odd, inverse = np.unique(packed[missed], return_inverse=True)
            place[missed] = self._nearest(odd)[inverse]
        return place

    def _nearest(self, odd: NDArray[np.int64]) -> NDArray[np.intp]:
        """Position of the nearest colour of each, by the sum of squares of those within the tolerance."""
        off = np.abs(_channels(odd)[:, None] - _channels(np.array(self.colors))[None])
        distance = np.where(off.max(axis=2) <= self.tolerance, (off**2).sum(axis=2), np.iinfo(np.int64).max)
        nearest = distance.argmin(axis=1)
        within = distance[np.arange(len(odd)), nearest] < np.iinfo(np.int64).max
        return np.asarray(np.where(within, nearest, len(self.colors)))

    def _unknown(self, packed: NDArray[np.int64]) -> str:
        values, counts = np.unique(packed, return_counts=True)
        order = np.argsort(-counts, kind="stable")[:NAMED]
        shown = ", ".join(f"#{values[k]:06x} ({counts[k]} pixels)" for k in order)
        more = f" and {len(values) - NAMED} more" if len(values) > NAMED else ""
        return (
            f"{self.name} has colours that are no class: {shown}{more}; known are "
            f"{', '.join(f'#{color:06x}' for color in self.colors)}; add them to colors, as null where they are no "
            f"class, name all of them with {OTHER}: null, or allow for compression with tolerance: 8"
        )


def read_by_colors(
    picture: Source, table: Mapping[Any, Any], *, legend: Legend | None, tolerance: int = 0
) -> tuple[Source, Legend]:
    """The codes of a picture, and what they mean.

    Args:
        picture: Red, green and blue, or one band.
        table: Classes by colour: `#rrggbb` or `red, green, blue` to a class's name or id, null where it is no class.
            The key `other` stands for all colours that are not named; without it they are refused.
        legend: The classes, whose ids are the codes. Without, each name becomes a class, numbered from 1 on in the
            order of the table, and each id a class `class ID`; the first colour of a class is its colour in maps.
        tolerance: As in `ColorCodes`.

    Raises:
        InputError: A key is no colour, or two are one, or there is none.
        LegendError: A class is not in the legend.
    """
    if not isinstance(table, Mapping) or not [key for key in table if key != OTHER]:
        raise InputError(f'colors must map colours to classes, such as {{"#ffffff": road}}, got {table!r}')
    known = legend or _legend(table)
    codes = {_color(key): _code(value, known) for key, value in table.items() if key != OTHER}
    if len(codes) < len(table) - (OTHER in table):
        raise InputError(f"colors names one colour twice: {', '.join(map(str, table))}")
    ordered = sorted(codes)
    other = _code(table[OTHER], known) if table.get(OTHER) is not None else None
    whole = ColorCodes(
        picture, tuple(ordered), tuple(codes[color] for color in ordered), tolerance, other, OTHER not in table
    )
    return _by_file(whole), known


def _by_file(whole: ColorCodes) -> Source:
    """The codes of a picture, of a mosaic those of each member, which has its own nodata and colour table."""
    picture = whole.picture
    if isinstance(picture, Mosaic):
        members = tuple(_by_file(replace(whole, picture=member)) for member in _pictures(picture))
        return replace(picture, members=members, names=None, grid=picture.geobox, resampling="nearest")
    name = getattr(_innermost(picture), "path", None) or whole.name
    if len(picture.bands) != CHANNELS:
        return replace(whole, name=name)
    # A colour is nodata, not a channel of it.
    nearest = getattr(picture, "nearest", None)
    found = by_nearest(picture, codes=range(256)) if nearest is None else nearest(range(256))
    values = [int(value) for value in _nodata(picture) if value is not None and value in range(256)]
    empty = (values[0] << 16) + (values[1] << 8) + values[2] if len(values) == CHANNELS else None
    return replace(whole, picture=found, empty=None if empty in whole.colors else empty, name=name)


def _pictures(mosaic: Mosaic) -> tuple[Source, ...]:
    """The members, matched by their bands unless some have one band of colours and others their three channels."""
    counts = {len(member.bands) for member in mosaic.members}
    return mosaic.members if 1 in counts and max(counts) >= CHANNELS else mosaic.alike


def _nodata(picture: Any) -> list[float | None]:
    """What the file of each band calls nodata; nothing where that is not known."""
    if isinstance(picture, BandStack):
        return [value for member in picture.members for value in _nodata(member)]
    if isinstance(picture, Picked):
        values = _nodata(picture.source)
        return [values[position] for position in picture.positions] if values else []
    inner, facts = getattr(picture, "source", None), getattr(picture, "facts", None)
    if facts is None:
        return [] if inner is None else _nodata(inner)
    return [band.nodata for band in facts.bands]


def _legend(table: Mapping[Any, Any]) -> Legend:
    """The classes of a table of colours."""
    colors: dict[int | str, str] = {}
    for key, value in table.items():
        if value is not None:
            colors.setdefault(value, default_color("", len(colors)) if key == OTHER else f"#{_color(key):06x}")
    taken = {value for value in colors if isinstance(value, int)}
    free = iter(number for number in range(1, 65535) if number not in taken)
    items = [
        LegendClass(value, f"class {value}", color)
        if isinstance(value, int)
        else LegendClass(next(free), str(value), color)
        for value, color in colors.items()
    ]
    if not items:
        raise LegendError("colors names no class; needed is at least one colour with a class")
    return Legend(tuple(items))


def _code(value: Any, legend: Legend) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise InputError(f"a colour's class must be a name, an id or null, got {value!r}")
    return legend.by_id(value).id if isinstance(value, int) else legend.by_name(value).id


def _color(key: Any) -> int:
    """0xRRGGBB of `#rrggbb`, of `red, green, blue`, or of three numbers.

    Raises:
        InputError: It is none of these.

    >>> hex(_color("#00ff80")), hex(_color("0, 255, 128")), hex(_color((0, 255, 128)))
    ('0xff80', '0xff80', '0xff80')
    """
    if isinstance(key, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", key.strip()):
        return int(key.strip()[1:], 16)
    parts = re.split(r"[\s,]+", key.strip(" ()[]")) if isinstance(key, str) else key
    if isinstance(parts, list | tuple) and len(parts) == 3:
        numbers = [int(part) for part in parts if isinstance(part, Integral) or str(part).isdecimal()]
        if len(numbers) == 3 and all(0 <= number <= 255 for number in numbers):
            return (numbers[0] << 16) + (numbers[1] << 8) + numbers[2]
    raise InputError(f'{key!r} is no colour; needed is "#rrggbb" or "red, green, blue" from 0 to 255')


def _greys(bits: int = 8) -> NDArray[np.int64]:
    """The grey of each value, the largest that this many bits hold being white.

    >>> [hex(grey) for grey in _greys(1)[:2]], [hex(grey) for grey in _greys()[1:3]]
    (['0x0', '0xffffff'], ['0x10101', '0x20202'])
    """
    white = 2 ** min(bits, 8) - 1
    return np.asarray((np.arange(256) * 255 + white // 2) // white).clip(max=255) * 0x010101


def _color_table(opened: Any) -> Mapping[int, tuple[int, ...]]:
    """Colours by value of a file's first band; none where it has no table, though it may say so."""
    if opened.colorinterp[0].name != "palette":
        return {}
    try:
        found: Mapping[int, tuple[int, ...]] = opened.colormap(1)
    except ValueError:
        return {}
    return found


def _channels(packed: NDArray[np.int64]) -> NDArray[np.int64]:
    """Red, green and blue `(colour, channel)`."""
    return np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=-1)


def _innermost(source: Any) -> Any:
    """What a source that wraps another one reads in the end."""
    inner = getattr(source, "source", None)
    return source if inner is None else _innermost(inner)
