"""The assets of a STAC item as bands: which are imagery, what they are called, how they are scaled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from math import isnan
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from geoseg.errors import InputError, ReadError
from geoseg.io.combine import BandStack
from geoseg.io.gdal import GdalSource
from geoseg.io.handles import one_line
from geoseg.io.protocol import Source

if TYPE_CHECKING:
    from collections.abc import Callable

    from pystac import Asset, Item

SIDE_ROLES = {"thumbnail", "overview", "visual", "metadata", "preview", "rendered_preview"}
"""Roles, and keys, of assets that are not measured pixels."""

NO_RASTER = ("json", "xml", "text/", "html", "pdf", "parquet", "geopackage", "zip")
"""What stands in the media types of data that is no raster."""


@dataclass(frozen=True, slots=True)
class Told:
    """What an item says of one band; None where it says nothing."""

    name: str | None = None
    common: str | None = None
    nodata: float | None = None
    scale: float | None = None
    offset: float | None = None

    def __str__(self) -> str:
        """Its names."""
        return " ".join(part for part in (self.name, self.common and f"({self.common})") if part)


def told_of(asset: Asset, *, offset_applied: bool) -> tuple[Told, list[Told]]:
    """What an asset says of all its bands, and of each: `bands` of STAC 1.1, `eo:bands` and `raster:bands` of 1.0."""
    fields = asset.extra_fields
    lists = [[band or {} for band in fields.get(key) or []] for key in ("raster:bands", "eo:bands", "bands")]
    whole: dict[str, Any] = {
        key: fields[key] for key in ("nodata", "raster:scale", "raster:offset", "eo:common_name") if key in fields
    }
    merged = [dict(whole) for _ in range(max(len(bands) for bands in lists))]
    for bands in lists:
        for into, band in zip(merged, bands, strict=False):
            into.update(band)
    told = [_told(band, offset_applied=offset_applied) for band in [whole, *merged]]
    return told[0], [band for band in told[1:] if (band.name or "").lower() != "alpha"]


def _told(band: Mapping[str, Any], *, offset_applied: bool) -> Told:
    scale, offset = band.get("raster:scale", band.get("scale")), band.get("raster:offset", band.get("offset"))
    nodata = None if band.get("nodata") is None else float(band["nodata"])  # a string where it is not finite
    return Told(
        band.get("name"),
        band.get("eo:common_name") or band.get("common_name"),
        None if nodata is None or isnan(nodata) else nodata,  # NaN is never valid anyway
        None if scale is None else float(scale),
        None if offset is None or offset_applied else float(offset),
    )


class Imagery:
    """The assets of an item, and what it says of their bands."""

    def __init__(self, item: Item) -> None:
        self.id, self.assets = item.id, item.assets
        # Earth Search says so where the file is already corrected by the offset that it names all the same.
        applied = any(k.endswith(":boa_offset_applied") and v is True for k, v in item.properties.items())
        try:
            self.told = {key: told_of(asset, offset_applied=applied) for key, asset in item.assets.items()}
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise ReadError(f"item {item.id} holds malformed STAC, of its bands: {one_line(error)}") from error

    @cached_property
    def usual(self) -> list[str]:
        """Keys of the assets that are imagery; of one in two formats, the GeoTIFF."""
        keys = [key for key, asset in self.assets.items() if _is_imagery(key, asset)]
        tiffs = [key for key in keys if _is_tiff(self.assets[key])]
        bands = {bands for key in tiffs if (bands := self._bands(key))}
        twins = {
            key for key in keys if self._bands(key) in bands or key.startswith(tuple(f"{tiff}-" for tiff in tiffs))
        }
        return [key for key in keys if key in tiffs or key not in twins]

    @cached_property
    def shared(self) -> set[str]:
        """Common names of several bands, in small letters, as `rededge` of three of Sentinel-2's.

        One band at several resolutions has one name in all of its assets, and is one.
        """
        named: dict[str, set[str]] = {}
        for key in self.usual:
            for band in self.told[key][1] or [self.told[key][0]]:
                if band.common:
                    named.setdefault(band.common.lower(), set()).add((band.name or key).lower())
        return {common for common, own in named.items() if len(own) > 1}

    def choose(self, names: Sequence[str] | None) -> list[tuple[str, int | None]]:
        """Keys and 0-based positions of bands, None for all of the asset.

        Raises:
            InputError: There is no such asset or band, or there are several.
        """
        if names is not None:
            return [self._named(name) for name in names]
        if not self.usual:
            raise InputError(
                f"item {self.id} has no imagery, which is assets of role data or of a TIFF type; it has {self}; "
                "name what is wanted with assets: [...]"
            )
        return [(key, None) for key in self.usual]

    def _named(self, name: str) -> tuple[str, int | None]:
        keys = [name] if name in self.assets else [key for key in self.assets if key.lower() == name.lower()]
        if len(keys) == 1:
            return keys[0], None
        found = self._with_band(name, "name") or self._with_band(name, "common")
        if len(found) == 1:
            return found[0]
        if not found:
            raise InputError(f"item {self.id} has no asset or band '{name}'; it has {self}")
        places = ", ".join(f"{key} ({self.told[key][1][i or 0]})" for key, i in found)
        raise InputError(f"'{name}' is several bands of item {self.id}: {places}; name one asset")

    def _with_band(self, name: str, field: str) -> list[tuple[str, int | None]]:
        """Bands of imagery whose `field` is `name`."""
        return [
            (key, i)
            for key in self.usual
            for i, band in enumerate(self.told[key][1] or [self.told[key][0]])
            if (getattr(band, field) or "").lower() == name.lower()
        ]

    def _bands(self, key: str) -> tuple[tuple[str | None, str | None], ...]:
        return tuple((band.name, band.common) for band in self.told[key][1] if band.name or band.common)

    def __str__(self) -> str:
        """The assets and their bands, for a message."""
        known = {key: ", ".join(filter(None, map(str, bands))) for key, (_, bands) in self.told.items()}
        return ", ".join(f"{key} [{bands}]" if bands else key for key, bands in known.items()) or "none"


def _is_tiff(asset: Asset) -> bool:
    named = (asset.media_type or urlsplit(asset.href).path).lower()
    return "tif" in named if asset.media_type else named.endswith((".tif", ".tiff"))


def _is_imagery(key: str, asset: Asset) -> bool:
    roles = {role.lower() for role in asset.roles or ()}
    if key.lower() in SIDE_ROLES or roles & SIDE_ROLES:
        return False
    kind = (asset.media_type or "").lower()
    return _is_tiff(asset) or ("data" in roles and not any(word in kind for word in NO_RASTER))


class Band(NamedTuple):
    """A band of a file, by its 0-based position, and what the item says of it."""

    key: str
    file: GdalSource
    position: int
    told: Told

    @property
    def alone(self) -> bool:
        """Whether the file has no other band."""
        return len(self.file.facts.bands) == 1


def item_source(
    item: Item, assets: Sequence[str] | None, *, path_of: Callable[[str], str], options: Mapping[str, Any]
) -> Source:
    """The chosen bands of an item: one file, or a stack where they are of several or are scaled differently.

    Args:
        item: The item.
        assets: Keys of assets or names of bands, in order; None takes all that is imagery.
        path_of: From an asset's href to its path or address.
        options: Options of `GdalSource` that hold for all files.

    Raises:
        InputError: There is no such asset or band, or there are several.
        MissingInputError: A file is not there.
        ReadError: A file is no raster that can be read.
    """
    imagery = Imagery(item)
    bands: list[Band] = []
    opened: dict[str, list[Band]] = {}
    for key, position in imagery.choose(assets):
        if key not in opened:
            file = GdalSource(path_of(imagery.assets[key].href), **options)
            opened[key] = _bands(key, file, *imagery.told[key])
        bands += opened[key] if position is None else [_band_at(position, opened[key])]
    _refuse_repeated(imagery.id, bands)
    named = zip(bands, _names(bands, shared=imagery.shared), strict=True)
    groups = groupby(named, key=lambda pair: (pair[0].key, _missing(pair[0])))
    members = [_file(*zip(*group, strict=True)) for _, group in groups]
    return members[0] if len(members) == 1 else BandStack(tuple(members))


def _refuse_repeated(name: str, bands: Sequence[Band]) -> None:
    places = [(band.key, band.position) for band in bands]
    twice = [band for band, place in zip(bands, places, strict=True) if places.count(place) > 1]
    if twice:
        raise InputError(f"band {_own_name(twice[0])} of item {name} is asked for twice; name each once in assets")


def _band_at(position: int, bands: Sequence[Band]) -> Band:
    if position < len(bands):
        return bands[position]
    raise InputError(
        f"the item names {position + 1} or more bands of {bands[0].file.path}, the file has {len(bands)}; "
        f"name the asset, {bands[0].key}, instead of the band"
    )


def _bands(key: str, file: GdalSource, whole: Told, each: list[Told]) -> list[Band]:
    """The bands of a file with what the item says of them, where it counts as many as the file has."""
    facts = file.facts
    if facts.alphas and len(each) == len(facts.bands) + len(facts.alphas):
        # The fourth of four bands is often marked as alpha; the item knows that it is near infrared.
        file = replace(file, names=tuple(band.name or f"band{i}" for i, band in enumerate(each, start=1)))
        facts = file.facts
    told = each if len(each) == len(facts.bands) else [whole] * len(facts.bands)
    return [Band(key, file, i, band) for i, band in enumerate(told)]


def _names(bands: Sequence[Band], *, shared: set[str]) -> list[str]:
    """Common names where they tell the bands apart, else the key of an asset of one band, else the band's name.

    Names of bands that two assets share get the asset's key before them. `shared` are common names of several bands of
    the item: a band is called the same whichever others are chosen beside it.
    """
    common = [(band.told.common or "").lower() for band in bands]
    apart = [bool(name) and common.count(name) == 1 and name not in shared for name in common]
    found = [
        band.told.common if alone and band.told.common else _own_name(band)
        for band, alone in zip(bands, apart, strict=True)
    ]
    lowered = [name.lower() for name in found]
    return [
        name if lowered.count(name.lower()) == 1 else f"{band.key}_{name}"
        for name, band in zip(found, bands, strict=True)
    ]


def _own_name(band: Band) -> str:
    return band.key if band.alone else band.told.name or band.file.facts.bands[band.position].name


def _missing(band: Band) -> dict[str, Any]:
    """Nodata, scale and offset that the item gives and neither the user nor the file."""
    file, told = band.file, band.told
    found: dict[str, Any] = {}
    said = any(known.nodata is not None for known in file.facts.bands) or file.facts.masks or file.facts.alphas
    if told.nodata is not None and not said:
        found["nodata"] = told.nodata
    if file.scale is None and file.offset is None and not file.facts.scaled:
        scaling = {"scale": told.scale or 1.0, "offset": told.offset or 0.0}
        found.update(scaling if tuple(scaling.values()) != (1, 0) else {})
    return found


def _file(bands: Sequence[Band], names: Sequence[str]) -> GdalSource:
    """Bands of one file that are scaled alike, under `names`; what the file says already is not said again."""
    file = bands[0].file
    positions, facts = [band.position for band in bands], file.facts
    called = [band.name for band in facts.bands]
    for position, name in zip(positions, names, strict=True):
        called[position] = name
    chosen = None if positions == list(range(len(called))) else tuple(facts.bands[i].number for i in positions)
    same = [band.name for band in facts.bands] == called
    found = replace(file, names=file.names if same else tuple(called), chosen=chosen, **_missing(bands[0]))
    # Described while the file is still open, so that it is opened once.
    return found if found.facts else file
