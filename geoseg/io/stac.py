"""STAC as sources: items, what a search found, collections and catalogues, on disk or behind an address."""

from __future__ import annotations

import logging
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import url2pathname

from geoseg.errors import InputError, ReadError
from geoseg.extras import extra_module
from geoseg.io.gdal import instant
from geoseg.io.handles import is_remote, one_line
from geoseg.io.protocol import Source
from geoseg.io.stac_bands import item_source
from geoseg.io.web_json import WEB, Document, read_json

if TYPE_CHECKING:
    from pystac import Item

log = logging.getLogger(__name__)

MOST_PAGES = 100
"""Pages of one search that are read before it is refused as endless."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which items and which of their assets are wanted.

    Attributes:
        assets: Keys of assets or names of bands, in order; None takes all that is imagery.
        first: Items that end before it are left out.
        stop: Items that begin at it or later are left out.
        max_cloud_percent: Items with more cloud, or that do not say how much, are left out.
    """

    assets: tuple[str, ...] | None = None
    first: datetime | None = None
    stop: datetime | None = None
    max_cloud_percent: float | None = None

    def __str__(self) -> str:
        """What is asked of items, in words."""
        days = f"from {_text(self.first)} to before {_text(self.stop)}" if self.first and self.stop else ""
        cloud = f"with at most {self.max_cloud_percent:g} % cloud" if self.max_cloud_percent is not None else ""
        return " ".join(part for part in (days, cloud) if part)


def selection(*, assets: Any = None, dates: Any = None, max_cloud_percent: Any = None) -> Selection:
    """The selection that options say: names, first and last date or time (the last day counts whole), percent.

    Raises:
        InputError: An option is of the wrong kind.
    """
    if isinstance(assets, str):
        assets = [assets]
    if assets is not None and (
        not isinstance(assets, Sequence) or not assets or not all(isinstance(name, str) for name in assets)
    ):
        raise InputError(f"assets must be a list of asset keys or band names, got {assets!r}")
    first, stop = (None, None) if dates is None else _span(dates)
    if max_cloud_percent is not None and (
        isinstance(max_cloud_percent, bool)
        or not isinstance(max_cloud_percent, Real)
        or not 0 <= float(max_cloud_percent) <= 100
    ):
        raise InputError(f"max_cloud_percent must be a number from 0 to 100, got {max_cloud_percent!r}")
    return Selection(
        None if assets is None else tuple(assets),
        first,
        stop,
        None if max_cloud_percent is None else float(max_cloud_percent),
    )


def _span(dates: Any) -> tuple[datetime, datetime]:
    """The first moment of the first date, and the moment after the last."""
    if isinstance(dates, str) or not isinstance(dates, Sequence) or len(dates) != 2:
        raise InputError(f"dates must be the first and the last, such as [2021-05-01, 2021-06-30], got {dates!r}")
    texts = [value.isoformat() if isinstance(value, date) else str(value) for value in dates]
    first, last = (instant(text) for text in texts)
    stop = last + (timedelta(microseconds=1) if re.search(r"[T ]", texts[1]) else timedelta(days=1))
    if stop <= first:
        raise InputError(f"dates must be the first and the last, got {texts[0]} after {texts[1]}")
    return first, stop


# -- from a place to its items -----------------------------------------------------------------------------------------


class Found(NamedTuple):
    """An item, and the places that its hrefs may be relative to, the likeliest first."""

    item: Item
    bases: tuple[str, ...]


def stac_document(path: str) -> Document | None:
    """The STAC JSON at `path`; None where its name does not end in .json or .geojson, or where it is other JSON.

    Raises:
        MissingInputError: There is nothing at `path`.
        ReadError: It cannot be read, or is no JSON.
    """
    web = path.startswith(WEB)
    if not web and ("://" in path or path.startswith("/vsi")):
        return None
    name = urlsplit(path).path if web else path
    if not name.lower().endswith((".json", ".geojson")):
        return None
    document = read_json(path)
    # STACTA, whose tiles are one raster, is GDAL's.
    return document if _is_stac(document.content) and "asset_templates" not in document.content else None


def stac_members(
    places: Sequence[str], wanted: Selection, *, options: Mapping[str, Any], document: Document | None = None
) -> list[Source]:
    """One source an item at `places`, in the order in which they stand there.

    An item is a stack of its assets, or the file of its single asset. What the item says of scale, offset and nodata
    holds where neither the user nor the file says it; its date stands on its sources.

    Args:
        places: Paths or addresses of an Item, an ItemCollection, a Collection or a Catalog, whose links are followed.
        wanted: Which items and which of their assets.
        options: Options of `GdalSource` that hold for all files, and win.
        document: What stands at the only place, where that is known.

    Raises:
        InputError: What stands there is no STAC, holds no item or none that is wanted, or an item lacks an asset.
        MissingInputError: A file is not there.
        ReadError: A file cannot be read.
    """
    what = places[0] + (f" and {len(places) - 1} more" if len(places) > 1 else "")
    documents = [document] if document is not None else [read_json(place) for place in places]
    everything = [one for place, told in zip(places, documents, strict=True) for one in _items(place, told)]
    if not everything:
        raise InputError(f"{what} holds no item; needed is at least one, as a file or as a link of rel item or child")
    found = [one for one in everything if _is_wanted(one.item, wanted)]
    if not found:
        spans = [_dates(one.item) for one in everything]
        raise InputError(
            f"none of the {len(everything)} items of {what} is {wanted}; they are of "
            f"{_text(min(first for first, _ in spans))} to {_text(max(last for _, last in spans))}, "
            f"cloud in percent: {_clouds(one.item for one in everything)}"
        )
    members = [_source(one, wanted, options) for one in found]
    _refuse_unlike([one.item.id for one in found], members)
    return members


def _pystac() -> ModuleType:
    """The library, loaded when it is first needed."""
    return extra_module("pystac", extra="stac", needed_by="a STAC source")


def _is_stac(document: Any) -> bool:
    if not isinstance(document, dict):
        return False
    features = document.get("features")
    if document.get("type") == "FeatureCollection" and isinstance(features, list):
        return all(isinstance(feature, dict) and "stac_version" in feature for feature in features)
    return "stac_version" in document


def _items(place: str, found: Document) -> Iterator[Found]:
    """All items at `place`: its own, then those that its links lead to, each place once."""
    waiting, seen, pages = deque([place]), {place}, 0
    known = {place: found}
    while waiting:
        asked = waiting.popleft()
        # Where a server sends one elsewhere, what is relative is so to there.
        document, here = known.pop(asked) if asked in known else read_json(asked)
        if not _is_stac(document):
            raise InputError(
                f"{here} is no STAC; needed is an Item, ItemCollection, Collection or Catalog (a raster: path:)"
            )
        if document.get("type") == "FeatureCollection":
            pages += 1
            yield from (_feature(here, feature) for feature in document["features"])
            links = _next_page(here, document.get("links") or [], pages)
        else:
            thing = _object(here, document)
            if isinstance(thing, _pystac().Item):
                yield Found(thing, tuple(dict.fromkeys([here, *_self(here, document)])))
            # As they are written: pystac would read the root to say them otherwise.
            told = [link.get_href(transform_href=False) for rel in ("item", "child") for link in thing.get_links(rel)]
            links = [link for link in told if link is not None]
        targets = [target for target in (_joined(here, link) for link in links) if target not in seen]
        seen.update(targets)
        waiting.extendleft(reversed(targets))


def _object(place: str, document: dict[str, Any]) -> Any:
    """The Item, Collection or Catalog, of any version of STAC.

    Raises:
        ReadError: It is malformed.
    """
    pystac = _pystac()
    try:
        return pystac.read_dict(document, href=place)
    except (pystac.STACError, pystac.STACTypeError, KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else one_line(error)
        raise ReadError(f"{place} holds malformed STAC ({document.get('id', 'without an id')}): {reason}") from error


def _feature(place: str, feature: dict[str, Any]) -> Found:
    """An item that stands in a collection's file, where hrefs are relative to where the item itself says it lies."""
    item = _object(place, feature)
    if not isinstance(item, _pystac().Item):
        raise InputError(f"{place} holds a feature that is no STAC Item: {feature.get('id')}")
    return Found(item, tuple(dict.fromkeys([*_self(place, feature), place])))


def _self(place: str, document: dict[str, Any]) -> list[str]:
    """Where an object says that it lies."""
    links = [link for link in document.get("links") or [] if link.get("rel") == "self"]
    return [_joined(place, link["href"]) for link in links if isinstance(link.get("href"), str)]


def _next_page(place: str, links: list[dict[str, Any]], pages: int) -> list[str]:
    """Where a search goes on, at most one address.

    Raises:
        InputError: It goes on for too long, or where a GET does not lead.
    """
    further = [link for link in links if link.get("rel") == "next" and isinstance(link.get("href"), str)]
    if further and (pages >= MOST_PAGES or further[0].get("method", "GET").upper() != "GET"):
        raise InputError(
            f"{place} is page {pages} of a search that goes on; narrow it with bbox=, datetime= or a larger limit=, "
            "or write all its items to one file"
        )
    return [further[0]["href"]] if further else []


def _joined(base: str, href: str) -> str:
    """The path or address that `href`, written in the file at `base`, stands for."""
    if href.startswith("file://"):
        return url2pathname(urlsplit(href).path)
    if "://" in href or href.startswith("/vsi"):
        return href
    if "://" in base:
        return urljoin(base, href)
    return os.path.normpath(Path(base).expanduser().parent / href)


def _located(href: str, bases: Sequence[str]) -> str:
    """The first place for `href` that is there or cannot be asked cheaply; the first of all where none is."""
    places = [_joined(base, text) for base in bases for text in dict.fromkeys((href, unquote(href)))]
    return next((place for place in places if is_remote(place) or Path(place).exists()), places[0])


# -- which items -------------------------------------------------------------------------------------------------------


def _dates(item: Item) -> tuple[datetime, datetime]:
    """First and last moment of an item."""
    common = item.common_metadata
    first, last = common.start_datetime or item.datetime, common.end_datetime or item.datetime
    if first is None or last is None:
        raise InputError(f"item {item.id} has no datetime; needed is one, or start_datetime and end_datetime")
    return instant(first.isoformat()), instant(last.isoformat())


def _date(item: Item) -> str:
    """The item's datetime, or the end of its span."""
    return _text(instant(item.datetime.isoformat()) if item.datetime else _dates(item)[1])


def _text(moment: datetime | None) -> str:
    return "" if moment is None else moment.isoformat().replace("+00:00", "Z").replace("T00:00:00Z", "")


def _cloud(item: Item) -> float | None:
    found = item.properties.get("eo:cloud_cover")
    return float(found) if isinstance(found, Real) else None


def _clouds(items: Iterable[Item]) -> str:
    found = [cloud for item in items if (cloud := _cloud(item)) is not None]
    return f"{min(found):g} to {max(found):g}" if found else "not said"


def _is_wanted(item: Item, wanted: Selection) -> bool:
    if wanted.first is not None and wanted.stop is not None:
        first, last = _dates(item)
        if last < wanted.first or first >= wanted.stop:
            return False
    if wanted.max_cloud_percent is None:
        return True
    cloud = _cloud(item)
    if cloud is None:
        log.warning("item %s does not say how cloudy it is, and is left out", item.id)
    return cloud is not None and cloud <= wanted.max_cloud_percent


def _source(found: Found, wanted: Selection, options: Mapping[str, Any]) -> Source:
    """The item's source; the user's date wins over the item's."""
    return item_source(
        found.item,
        wanted.assets,
        path_of=lambda href: _located(href, found.bases),
        options={"date": _date(found.item), **options},
    )


def _refuse_unlike(ids: Sequence[str], members: Sequence[Source]) -> None:
    """Refuse items that lack a band of the first, before pixels are read."""
    for name, member in zip(ids, members, strict=True):
        if not {band.lower() for band in members[0].bands} <= {band.lower() for band in member.bands}:
            raise InputError(
                f"item {name} has bands [{', '.join(member.bands)}], "
                f"item {ids[0]} has [{', '.join(members[0].bands)}]; "
                "choose bands that all items have with assets: [...]"
            )
