"""One image made of many dates: of each pixel the median, or the pixel of the clearest or the newest date."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox

from geoseg.errors import BandError
from geoseg.io.clouds import Masked, by_nearest, pick_bands
from geoseg.io.combine import Mosaic
from geoseg.io.grids import crop
from geoseg.io.protocol import Source
from geoseg.io.resample import to_dtype
from geoseg.raster import Raster, match_bands
from geoseg.tiling import Window

if TYPE_CHECKING:
    from numpy.typing import NDArray

STRIP_SAMPLES = 1 << 24
"""Samples of all dates that are in memory at once, at least `STRIP_ROWS` rows of them."""

STRIP_ROWS = 64

FEW_DATES = 16
"""Dates up to which whole planes are compared to sort them, which is faster."""

MEASURED_PX = 512
"""Pixels along the longer side of the read by which it is found how cloudy a date is."""


def matched(members: Sequence[Source], dates: Sequence[str]) -> tuple[Source, ...]:
    """The members with the first's bands in the first's order.

    Raises:
        BandError: One lacks a band.
    """
    first, found = members[0].bands, [members[0]]
    for position, member in enumerate(members[1:], start=2):
        if not {name.lower() for name in first} <= {name.lower() for name in member.bands}:
            when = dates[position - 1] if dates else f"number {position}"
            raise BandError(
                f"date {when} has bands [{', '.join(member.bands)}], the first has [{', '.join(first)}]; choose bands "
                "that all dates have with select: [...]"
            )
        found.append(pick_bands(member, match_bands(first, member.bands), first))
    return tuple(found)


@dataclass(frozen=True)
class Composite:
    """One image made of many dates, with the bands of one.

    Attributes:
        members: One source a date, oldest first; they may differ in CRS, resolution and order of bands.
        dates: When they were taken, ISO 8601; empty where nobody says.
        combine: A key of `COMPOSITES`.
        clouds: Percent of cloud that is said of each date; None where it is to be measured.
    """

    members: tuple[Source, ...]
    dates: tuple[str, ...] = ()
    combine: str = "median"
    clouds: tuple[float | None, ...] = ()

    @cached_property
    def geobox(self) -> GeoBox:
        """The dates' grid where they have one, else the first's CRS and origin, the finest resolution, and all of them.

        Raises:
            GridError: They lie on several grids, and one has no CRS.
        """
        first = self.members[0].geobox
        return first if all(member.geobox == first for member in self.members) else Mosaic(self.members).geobox

    @property
    def bands(self) -> tuple[str, ...]:
        """The first date's bands."""
        return self.members[0].bands

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

    @cached_property
    def clearest_first(self) -> tuple[int, ...]:
        """Positions of the dates by how cloudy they are, the clearest first and the latest of equals.

        As it is said where it is said of all, else as a coarse read of the whole grid shows it, once.
        """
        said = [percent for percent in self.clouds if percent is not None]
        clouds = said if len(said) == len(self.members) else [_unusable(member, self.geobox) for member in self.members]
        return tuple(sorted(range(len(clouds)), key=lambda i: (clouds[i], -i)))

    def read(self, geobox: GeoBox) -> Raster:
        """The image on `geobox`; valid where any date is."""
        pixels = np.zeros((len(self.bands), *geobox.shape), self.dtype)
        valid = np.zeros(geobox.shape, np.bool_)
        for strip in self._strips(geobox):
            part = COMPOSITES[self.combine](self, crop(geobox, strip))
            pixels[:, *strip.slices], valid[strip.slices] = part
        return Raster(pixels, valid, geobox, self.bands)

    def picked(self, positions: Sequence[int], names: Sequence[str]) -> Source:
        """Some bands of every date, combined in the same order of dates; bands left out are not read."""
        found = replace(self, members=tuple(pick_bands(member, positions, names) for member in self.alike))
        if "clearest_first" in self.__dict__:
            found.__dict__["clearest_first"] = self.clearest_first
        return found

    def _strips(self, geobox: GeoBox) -> Iterator[Window]:
        rows, cols = geobox.shape
        samples = len(self.members) * len(self.bands) * cols
        high = max(STRIP_ROWS, STRIP_SAMPLES // samples)
        for row in range(0, rows, high):
            yield Window(row, 0, min(high, rows - row), cols)


Part = tuple["NDArray[Any]", "NDArray[np.bool_]"]


def _median(series: Composite, geobox: GeoBox) -> Part:
    """The median of each band over the dates on which the pixel is valid; of two in the middle their mean.

    Integers are rounded, halves to the even one.
    """
    found = [member.read(geobox) for member in series.alike]
    valid = np.stack([raster.valid for raster in found])
    count = valid.sum(axis=0)
    pixels = np.zeros((len(series.bands), *geobox.shape), series.dtype)
    for band in range(len(pixels)):
        pixels[band] = median_of(np.stack([raster.pixels[band] for raster in found]), valid, count).astype(series.dtype)
    return pixels, count > 0


def median_of(values: NDArray[Any], valid: NDArray[np.bool_], count: NDArray[np.intp]) -> NDArray[Any]:
    """The median over the first axis of `values` `(date, row, col)` where `valid`, 0 where none of them is.

    Args:
        values: Of any real dtype, which the result has, too.
        valid: Same shape.
        count: Valid dates of each pixel.
    """
    highest = np.inf if np.issubdtype(values.dtype, np.floating) else np.iinfo(values.dtype).max
    ordered = _in_order(np.where(valid, values, np.asarray(highest, values.dtype)))
    seen = np.maximum(count, 1)
    low, high = (np.take_along_axis(ordered, at[None], axis=0)[0] for at in ((seen - 1) // 2, seen // 2))
    low, high = (np.where(count > 0, middle, 0) for middle in (low, high))
    wide: np.dtype[Any] = np.dtype(np.float32 if np.can_cast(values.dtype, np.float32) else np.float64)
    mean = to_dtype(low.astype(wide) / 2 + high.astype(wide) / 2, values.dtype)
    # What stands there once stays as it is, to the last bit of the largest integers.
    return np.where(low == high, low, mean)


def _in_order(values: NDArray[Any]) -> NDArray[Any]:
    """`values`, which may be changed, sorted along the first axis; a few planes by comparing whole ones."""
    if len(values) > FEW_DATES:
        return np.sort(values, axis=0)
    smaller = np.empty_like(values[0])
    for last in range(len(values) - 1, 0, -1):
        for i in range(last):
            np.minimum(values[i], values[i + 1], out=smaller)
            np.maximum(values[i], values[i + 1], out=values[i + 1])
            values[i] = smaller
    return values


def _clearest(series: Composite, geobox: GeoBox) -> Part:
    """Whole pixels, of the least cloudy date on which they are valid."""
    return _first_valid(series, geobox, series.clearest_first)


def _newest(series: Composite, geobox: GeoBox) -> Part:
    """Whole pixels, of the latest date on which they are valid."""
    return _first_valid(series, geobox, range(len(series.members) - 1, -1, -1))


def _first_valid(series: Composite, geobox: GeoBox, order: Sequence[int]) -> Part:
    pixels = np.zeros((len(series.bands), *geobox.shape), series.dtype)
    valid = np.zeros(geobox.shape, np.bool_)
    for position in order:
        if valid.all():
            break
        found = series.alike[position].read(geobox)
        taken = found.valid & ~valid
        pixels[:, taken] = found.pixels[:, taken]
        valid |= taken
    return pixels, valid


COMPOSITES: dict[str, Callable[[Composite, GeoBox], Part]] = {
    "median": _median,
    "least_cloud": _clearest,
    "newest": _newest,
}
"""Ways to make one image of many dates: pixels `(band, row, col)` and valid `(row, col)`."""


def _unusable(source: Source, grid: GeoBox) -> float:
    """The share of `grid` on which `source` has no valid pixel, by single pixels, at most MEASURED_PX along a side."""
    step = ceil(max(grid.shape) / MEASURED_PX)
    rows, cols = grid.shape
    coarse = GeoBox((ceil(rows / step), ceil(cols / step)), grid.affine @ Affine.scale(step), grid.crs)
    return 1 - float(_usable(source, coarse).mean())


def _usable(source: Source, coarse: GeoBox) -> NDArray[np.bool_]:
    """Where `source` is valid, by one of its bands and without growing what is hidden."""
    if isinstance(source, Masked):
        seen = replace(source, rule=replace(source.rule, grow_px=0)).clear(coarse)
        return seen & _usable(source.source, coarse)
    return by_nearest(pick_bands(source, [0], source.bands[:1])).read(coarse).valid
