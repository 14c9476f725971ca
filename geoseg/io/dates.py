"""When the pixels of a source were taken, as far as the user, the file or its name says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from geoseg.errors import InputError
from geoseg.io.gdal import GdalSource, instant
from geoseg.io.handles import dataset, gdal
from geoseg.io.protocol import Source
from geoseg.io.xarray_source import XarraySource

YEARS = range(1970, 2101)
"""Years that a number in a file's name may stand for."""

NAMED = 5
"""Sources that an error names before it counts the rest."""

_IN_NAME = re.compile(r"(?<!\d)(\d{4})(-?)(\d{2})\2(\d{2})(?:T(\d{2})(\d{2})(\d{2})(?!\d)|(?!\d))")


def acquired(source: Source) -> datetime | None:
    """When the pixels of `source` were taken, in UTC; None where nothing says so.

    The user's `date` comes first, then what the file says of the acquisition (or the time of a cube), then the first
    date in the file's name (`20210527T112111`, `20210527` or `2021-05-27` between other characters than digits), and
    last the file's TIFF time stamp, which may be when it was processed. What has no zone is UTC. Of several files it is
    the latest date.

    Raises:
        MissingInputError: A file is not there.
        ReadError: A file cannot be opened.
    """
    if isinstance(source, GdalSource):
        return _of_file(source)
    if isinstance(source, XarraySource):
        return instant(source.taken) if source.taken else None
    dates = [date for within in _within(source) if (date := acquired(within)) is not None]
    return max(dates, default=None)


def said_span(sources: Iterable[Source]) -> tuple[datetime, datetime] | None:
    """First and last moment that pixels were taken, in UTC; None unless that is known of all sources.

    As `acquired`, but no file is opened: what the user, a catalogue or the files' names say.
    """
    found = [said for source in sources for said in _said(source)]
    known = [moment for moment in found if moment is not None]
    return (min(known), max(known)) if known and len(known) == len(found) else None


def _said(source: Source) -> list[datetime | None]:
    if isinstance(source, GdalSource):
        return [instant(source.date) if source.date is not None else date_in_name(source.path)]
    if isinstance(source, XarraySource):
        return [instant(source.taken) if source.taken else None]
    return [said for within in _within(source) for said in _said(within)] or [None]


def newest_first(members: Sequence[Source]) -> list[Source]:
    """The sources by the date they were acquired on, the latest first; those of one date stay in their order.

    Raises:
        InputError: No date is known of some of them.
    """
    dates = [acquired(member) for member in members]
    undated = [_name(member) for member, date in zip(members, dates, strict=True) if date is None]
    if undated:
        more = f" and {len(undated) - NAMED} more" if len(undated) > NAMED else ""
        raise InputError(
            f"no date is known of {', '.join(undated[:NAMED])}{more}; needed is one for each source; "
            "say it with date: beside path:, such as {path: scene.tif, date: 2021-05-27}"
        )
    known = [(date, member) for date, member in zip(dates, members, strict=True) if date is not None]
    return [member for _, member in sorted(known, key=lambda pair: pair[0], reverse=True)]


def _of_file(source: GdalSource) -> datetime | None:
    if source.date is not None:
        return instant(source.date)
    with gdal(source.path):
        opened = dataset(source.path)
        taken, stamp = opened.tags(ns="IMAGERY").get("ACQUISITIONDATETIME"), opened.tags().get("TIFFTAG_DATETIME")
    return _from_tag(taken) or date_in_name(source.path) or _from_tag(stamp)


def _from_tag(text: str | None) -> datetime | None:
    """The moment that a file's tag names, with the colons of TIFF 6.0 (tag 306) or ISO 8601; None for anything else."""
    try:
        return instant(re.sub(r"^(\d{4}):(\d{2}):(\d{2})", r"\1-\2-\3", text.strip())) if text else None
    except InputError:
        return None


def date_in_name(path: str) -> datetime | None:
    """The first date in the name of the file at `path`, or of the file that an address names; None without one.

    >>> date_in_name("LC08_L2SP_037034_20150818_20200908_02_T1_SR_B4.TIF").date().isoformat()
    '2015-08-18'
    """
    name = re.split(r"[/\\]", re.sub(r"[?#].*$", "", path) if "://" in path else path)[-1]
    for year, _, month, day, *time in _IN_NAME.findall(name):
        if int(year) in YEARS:
            parts = (int(year), int(month), int(day))
            found = _moment(*parts, *(int(part) for part in time if part)) or _moment(*parts)
            if found is not None:
                return found
    return None


def _moment(*parts: int) -> datetime | None:
    """Year, month, day and perhaps hour, minute, second as a moment in UTC; None where the calendar has none."""
    try:
        return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type] # mypy counts tzinfo as the eighth
    except ValueError:
        return None


def _name(source: Source) -> str:
    """What a message calls a source."""
    if isinstance(source, GdalSource):
        return source.path
    within = _within(source)
    if not within:
        return f"a {type(source).__name__}"
    return _name(within[0]) + (f" (and {len(within) - 1} beside it)" if len(within) > 1 else "")


def _within(source: Any) -> list[Source]:
    """The sources that a source is made of: that of picked or masked bands, those of stacks, mosaics and series."""
    return [source.source] if hasattr(source, "source") else list(getattr(source, "members", ()))
