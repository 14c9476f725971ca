"""Several dates of one place as one source: their bands on top of each other, or one image made of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from odc.geo.geobox import GeoBox

from geoseg.errors import InputError
from geoseg.io.combine import BandStack
from geoseg.io.composites import COMPOSITES, Composite, matched
from geoseg.io.dates import acquired
from geoseg.io.gdal import instant
from geoseg.io.protocol import Source
from geoseg.io.stamps import paths_in
from geoseg.raster import Raster

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILLS = ("none", "nearest")
"""What a stack of dates does where one of them has no value: nothing, or the nearest date's value."""


# -- a place's dates ---------------------------------------------------------------------------------------------------


def date_of(source: Source) -> datetime | None:
    """When the pixels of `source` were taken, as `acquired` finds it, also of what is masked; None where nobody says.

    Of several files it is the latest date.
    """
    found = acquired(source)
    if found is not None:
        return found
    inner: Any = source
    within = [inner.source] if hasattr(inner, "source") else list(getattr(inner, "members", ()))
    return max((date for one in within if (date := date_of(one)) is not None), default=None)


def by_date(
    members: Sequence[Source], clouds: Sequence[float | None]
) -> tuple[tuple[Source, ...], tuple[str, ...], tuple[float | None, ...]]:
    """The sources, their dates as ISO 8601 and what is said of their clouds, oldest first.

    Where no date is known of any, they stay as listed and there are no dates; those of one moment stay as listed, too.

    Raises:
        InputError: A date is known of some only.
    """
    dated, undated = _dated(members)
    if undated and dated:
        raise InputError(
            f"no date is known of {undated}, but of others; say it with date: beside path:, such as "
            "{path: scene.tif, date: 2021-05-27}, or of none to keep them as listed"
        )
    if undated:
        return tuple(members), (), tuple(clouds)
    texts = (date.isoformat().replace("+00:00", "Z").replace("T00:00:00Z", "") for date, _ in dated)
    order = [i for _, i in dated]
    return tuple(members[i] for i in order), tuple(texts), tuple(clouds[i] for i in order)


def days_of(members: Sequence[Source]) -> list[list[Source]]:
    """The sources by the day (UTC) on which they were taken, oldest first.

    Raises:
        InputError: No date is known of one.
    """
    dated, undated = _dated(members)
    if undated:
        raise InputError(f"no date is known of {undated}; needed is one of each, to tell the days apart")
    return [[members[i] for _, i in group] for _, group in groupby(dated, key=lambda pair: pair[0].date())]


def _dated(members: Sequence[Source]) -> tuple[list[tuple[datetime, int]], str]:
    """Date and position of each source, oldest first and as listed within a moment; and those without, in words."""
    dates = [date_of(member) for member in members]
    found = sorted((date, i) for i, date in enumerate(dates) if date is not None)
    undated = [_name(member, i) for i, member in enumerate(members) if dates[i] is None]
    return found, ", ".join(undated[:5]) + (f" and {len(undated) - 5} more" if len(undated) > 5 else "")


def _name(source: Source, position: int) -> str:
    paths = paths_in(source)
    return paths[0] if paths else f"source {position + 1}"


# -- dates as a dimension ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DateStack:
    """The bands of all dates, date by date: `red@1`, `nir@1`, `red@2`, `nir@2`, with 1 the oldest.

    Attributes:
        members: One source a date, oldest first; they may differ in CRS, resolution and order of bands.
        dates: When they were taken, ISO 8601; empty where nobody says.
        fill: `none`: a pixel is valid where it is on every date. `nearest`: where a date has no value, it takes that of
            the nearest date which has one, the earlier of two; a pixel is valid where it is on any date.
    """

    members: tuple[Source, ...]
    dates: tuple[str, ...] = ()
    fill: str = "none"

    @cached_property
    def geobox(self) -> GeoBox:
        """The grid of the date with the smallest pixels, the first at a tie."""
        return BandStack(self.members).geobox

    @cached_property
    def bands(self) -> tuple[str, ...]:
        """Names of the first date's bands, with the number of the date."""
        names = self.members[0].bands
        return tuple(f"{name}@{number}" for number in range(1, len(self.members) + 1) for name in names)

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The dtype that holds all dates."""
        return np.result_type(*[member.dtype for member in self.members])

    @cached_property
    def alike(self) -> tuple[Source, ...]:
        """The dates with the bands of the first in its order.

        Raises:
            BandError: One lacks a band.
        """
        return matched(self.members, self.dates)

    def read(self, geobox: GeoBox) -> Raster:
        """All dates on `geobox`."""
        count = len(self.members[0].bands)
        pixels = np.empty((len(self.members), count, *geobox.shape), self.dtype)
        valid = np.empty((len(self.members), *geobox.shape), np.bool_)
        for number, member in enumerate(self.alike):
            found = member.read(geobox)
            pixels[number], valid[number] = found.pixels, found.valid
        if self.fill == "nearest":
            self._fill(pixels, valid)
            usable = valid.any(axis=0)
        else:
            usable = valid.all(axis=0)
        return Raster(pixels.reshape(-1, *geobox.shape), np.asarray(usable), geobox, self.bands)

    def _fill(self, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> None:
        """Give each date the values of the nearest that has one, in place; only what was seen is handed on."""
        for number, order in enumerate(self._nearest):
            missing = ~valid[number]
            for other in order:
                if not missing.any():
                    break
                taken = missing & valid[other]
                pixels[number][:, taken] = pixels[other][:, taken]
                missing &= ~taken

    @cached_property
    def _nearest(self) -> tuple[tuple[int, ...], ...]:
        """Of each date, the others from near to far in time, or in the list where there are no dates."""
        count = range(len(self.members))
        when = [instant(text).timestamp() for text in self.dates] or [float(number) for number in count]
        return tuple(
            tuple(sorted((i for i in count if i != n), key=lambda i: (abs(when[i] - when[n]), i))) for n in count
        )


# -- either -----------------------------------------------------------------------------------------------------------

COMBINES = ("stack", *COMPOSITES)


def combined(
    members: Sequence[Source], *, combine: str = "stack", fill: str = "none", clouds: Sequence[float | None] = ()
) -> DateStack | Composite:
    """Sources of several dates as one.

    Args:
        members: One source a date, in any order.
        combine: One of `COMBINES`.
        fill: One of `FILLS`, for a stack.
        clouds: Percent of cloud that is said of each.

    Raises:
        InputError: There is no source, a way is unknown, or the dates of some or, for `newest`, of all are not known.
        BandError: A date lacks a band of the first.
        GridError: The dates of a composite lie on several grids, and one has no CRS.
    """
    if combine not in COMBINES:
        raise InputError(f"combine {combine!r} is unknown; known are {', '.join(COMBINES)}")
    if fill not in FILLS:
        raise InputError(f"fill {fill!r} is unknown; known are {', '.join(FILLS)}")
    if fill != "none" and combine != "stack":
        raise InputError(f"fill is for combine: stack; {combine} takes every pixel from a date that has it")
    ordered, dates, said = by_date(members, clouds or [None] * len(members))
    if combine == "newest" and not dates:
        raise InputError("no date is known, so none is the newest; say them with date: beside each path:")
    matched(ordered, dates)
    return DateStack(ordered, dates, fill) if combine == "stack" else Composite(ordered, dates, combine, said)
