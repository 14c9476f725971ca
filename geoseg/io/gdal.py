"""One raster of any format that GDAL opens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from odc.geo.geobox import GeoBox
from rasterio.windows import Window as RasterioWindow

from geoseg.errors import InputError, ReadError
from geoseg.io.facts import Facts, crs_named, describe
from geoseg.io.grids import Lattice
from geoseg.io.handles import GDAL_ERRORS, dataset, forget, gdal, one_line
from geoseg.io.overviews import Level, holds_means, overview
from geoseg.io.resample import Patch, read_onto, resampling_named
from geoseg.io.vrt import refuse_broken
from geoseg.raster import Raster
from geoseg.tiling import Window

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["GdalSource", "crs_named", "instant"]

CHUNK_PX = 1 << 21
"""Samples that are decoded at once while thinning."""


@dataclass(frozen=True)
class GdalSource:
    """A single raster; opened when its grid, bands or pixels are first asked for.

    Attributes:
        path: A file, a `/vsi...` path or an address.
        names: Names of the image bands in file order; None takes the file's, else band1, band2, ... As many names as
            there are bands with the alpha band counted make the alpha band an image band.
        chosen: Names or 1-based numbers of the bands that are read; None takes all.
        nodata: Value that stands for nothing, instead of the file's.
        scale: Factor on raw values, instead of the file's.
        offset: Added to scaled values, instead of the file's.
        crs: CRS instead of the file's.
        resampling: How values are taken on grids other than the file's own.
        date: When the pixels were taken, ISO 8601, instead of what the file says.
        rough: Whether overviews of any kind may stand for means, as is enough for a picture.

    Raises:
        InputError: The resampling is unknown or the date is not ISO 8601.
    """

    path: str
    names: tuple[str, ...] | None = None
    chosen: tuple[str | int, ...] | None = None
    nodata: float | None = None
    scale: float | None = None
    offset: float | None = None
    crs: str | None = None
    resampling: str = "bilinear"
    date: str | None = None
    rough: bool = False

    def __post_init__(self) -> None:
        resampling_named(self.resampling)
        if self.date is not None:
            instant(self.date)

    @cached_property
    def facts(self) -> Facts:
        """What the file says, with what the options say instead."""
        with gdal(self.path):
            refuse_broken(self.path)
            return describe(self, dataset(self.path))

    @property
    def geobox(self) -> GeoBox:
        """The file's grid."""
        return self.facts.geobox

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the selected bands."""
        return tuple(band.name for band in self.facts.bands)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The file's dtype, or float32 where values are scaled."""
        return np.dtype(np.float32) if self.facts.scaled else self.facts.raw_dtype

    def read(self, geobox: GeoBox) -> Raster:
        """The pixels on `geobox`.

        Raises:
            ReadError: The file cannot be read there.
            GridError: One of the grids has no CRS and they are not one grid.
        """
        found = read_onto(
            self.geobox,
            geobox,
            self._read_lattice,
            resampling=self.resampling,
            count=len(self.facts.bands),
            dtype=self.dtype,
            name=self.path,
        )
        return Raster(found.pixels, found.valid, geobox, self.bands)

    def _read_lattice(self, lattice: Lattice) -> Patch:
        """The pixels of `lattice`; those outside the file are invalid."""
        out = Patch.empty(len(self.facts.bands), (lattice.rows, lattice.cols), self.dtype)
        inside = thinned_inside(lattice, self.geobox)
        if inside.rows and inside.cols:
            with gdal(self.path):
                self._fill(out, lattice, inside)
        return out

    def _fill(self, out: Patch, lattice: Lattice, inside: Window) -> None:
        """Read `inside`, counted in thinned pixels of `lattice`, into `out`, a chunk at a time."""
        method = resampling_named(self.resampling)
        level = self._level(lattice) if method.overviews else self._own
        rest = lattice.factors[0] // level.factor, lattice.factors[1] // level.factor
        for chunk in _chunks(inside, rest, len(self.facts.bands)):
            part = lattice.part(chunk)
            patch = self._decode(replace(part, rows=part.rows * rest[0], cols=part.cols * rest[1]), level)
            thinned = patch if rest == (1, 1) else method.thin(patch, rest)
            out.pixels[:, chunk.slices[0], chunk.slices[1]] = thinned.pixels
            out.valid[chunk.slices] = thinned.valid

    @property
    def _own(self) -> Level:
        """The file's own pixels."""
        return Level(None, 1, self.geobox.shape.yx, self.geobox.shape.yx)

    def _level(self, lattice: Lattice) -> Level:
        """The coarsest overview whose pixels make up those of `lattice`, else the file's own pixels."""
        for factor, position in sorted(((f, i) for i, f in enumerate(self.facts.overviews)), reverse=True):
            found = overview(self.path, position, factor) if max(lattice.factors) >= factor > 1 else None
            if found is None or not found.fits(lattice):
                continue
            if self.rough or holds_means(self.path, found, (band.index for band in self.facts.bands)):
                return found
        return self._own

    def _decode(self, lattice: Lattice, level: Level) -> Patch:
        """Scaled pixels and validity at `level` under the pixels of `lattice`, which are as large."""
        inside = thinned_inside(replace(lattice, factors=(level.factor, level.factor)), self.geobox)
        row, col = lattice.row + inside.row_off * level.factor, lattice.col + inside.col_off * level.factor
        if level.position is None:
            found = self._decode_inside(level, Window(row, col, inside.rows, inside.cols))
        else:
            found = self._decode_under(level, level.under(row, inside.rows, 0), level.under(col, inside.cols, 1))
        if found.valid.shape == (lattice.rows, lattice.cols):
            return found
        out = Patch.empty(len(found.pixels), (lattice.rows, lattice.cols), found.pixels.dtype)
        out.pixels[:, *inside.slices], out.valid[inside.slices] = found.pixels, found.valid
        return out

    def _decode_under(self, level: Level, rows: NDArray[np.intp], cols: NDArray[np.intp]) -> Patch:
        """Scaled pixels and validity of some rows and columns of a level, in order."""
        row, col = int(rows[0]), int(cols[0])
        found = self._decode_inside(level, Window(row, col, int(rows[-1]) - row + 1, int(cols[-1]) - col + 1))
        if (np.diff(rows) == 1).all() and (np.diff(cols) == 1).all():
            return found
        at_row, at_col = np.ix_(rows - row, cols - col)
        return Patch(found.pixels[:, at_row, at_col], found.valid[at_row, at_col])

    def _decode_inside(self, level: Level, window: Window) -> Patch:
        """Scaled pixels and validity of `window` of a level."""
        facts, opened = self.facts, dataset(self.path, overview=level.position)
        place = RasterioWindow(window.col_off, window.row_off, window.cols, window.rows)
        indexes = [band.index for band in facts.bands]
        try:
            raw = _read_bands(opened, indexes, place, facts.raw_dtype)
            valid = _valid(raw, facts)
            for index in facts.masks:
                valid &= self._mask(index, level, window) != 0
            for index in facts.alphas:
                valid &= opened.read(index, window=place) > 0
        except GDAL_ERRORS as error:
            forget(self.path)
            raise ReadError(
                f"{self.path} cannot be read at rows {window.row_off} to {window.row_stop}, columns {window.col_off} "
                f"to {window.col_stop}{f' of {level.factor} x {level.factor} pixels' * (level.factor > 1)}: "
                f"{one_line(error)}"
            ) from error
        return Patch(_scaled(raw, facts), valid)

    def _mask(self, index: int, level: Level, window: Window) -> NDArray[np.uint8]:
        """The mask that the file keeps of a band, in `window` of a level.

        It is asked of the file itself: of an overview whose mask was not shrunk with it GDAL says that all is valid.
        """
        place = RasterioWindow(*level.on_file(window))
        found = dataset(self.path).read_masks(index, window=place, out_shape=(window.rows, window.cols))
        return np.asarray(found)


def instant(text: str) -> datetime:
    """The moment that ISO 8601 `text` names, in UTC; a date is its first moment, and a time without a zone is UTC.

    Raises:
        InputError: The text is not ISO 8601.

    >>> instant("2021-05-27T13:21:11+02:00").isoformat()
    '2021-05-27T11:21:11+00:00'
    """
    try:
        found = datetime.fromisoformat(text)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"date {text!r} is not understood; needed is ISO 8601, such as 2021-05-27 or 2021-05-27T11:21:11Z"
        ) from error


def _read_bands(opened: Any, indexes: list[int], place: RasterioWindow, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Raw pixels `(band, row, col)` of one dtype."""
    if len({opened.dtypes[index - 1] for index in indexes}) == 1:
        raw: NDArray[Any] = opened.read(indexes, window=place, out_dtype=dtype)
        return raw
    # Asked for bands of several dtypes at once rasterio refuses, whatever the dtype asked for.
    return np.stack([opened.read(index, window=place).astype(dtype) for index in indexes])


def thinned_inside(lattice: Lattice, grid: GeoBox) -> Window:
    """The thinned pixels of `lattice` that share a pixel with `grid`, counted from the lattice's first."""
    spans = []
    for start, count, factor, size in zip(
        (lattice.row, lattice.col), (lattice.rows, lattice.cols), lattice.factors, grid.shape, strict=True
    ):
        first, stop = max(0, -start // factor), min(count, -(-(size - start) // factor))
        spans.append((first, max(0, stop - first)))
    return Window(spans[0][0], spans[1][0], spans[0][1], spans[1][1])


def _chunks(inside: Window, rest: tuple[int, int], bands: int) -> Iterator[Window]:
    """Windows of thinned pixels whose decoded pixels fit in memory."""
    if rest == (1, 1):
        yield inside
        return
    cols = max(1, min(inside.cols, CHUNK_PX // (rest[0] * rest[1] * bands)))
    rows = max(1, CHUNK_PX // (rest[0] * rest[1] * bands * cols))
    for row in range(inside.row_off, inside.row_stop, rows):
        for col in range(inside.col_off, inside.col_stop, cols):
            yield Window(row, col, min(rows, inside.row_stop - row), min(cols, inside.col_stop - col))


def _valid(raw: NDArray[Any], facts: Facts) -> NDArray[np.bool_]:
    """Where all bands are finite and none is nodata."""
    valid = np.ones(raw.shape[1:], dtype=bool)
    for values, band in zip(raw, facts.bands, strict=True):
        if np.issubdtype(raw.dtype, np.floating):
            valid &= np.isfinite(values)
        if band.nodata is not None:
            valid &= ~equals_nodata(values, band.nodata)
    return valid


def equals_nodata(values: NDArray[Any], nodata: float) -> NDArray[np.bool_]:
    """Where `values` stand for nothing; float32 values match a nodata that was written with few digits too.

    A nodata that the dtype cannot hold matches nothing.
    """
    if np.issubdtype(values.dtype, np.integer):
        limits = np.iinfo(values.dtype)
        fits = np.isfinite(nodata) and nodata == int(nodata) and limits.min <= nodata <= limits.max
        return values == values.dtype.type(int(nodata)) if fits else np.zeros(values.shape, dtype=bool)
    if np.isnan(nodata):
        return np.asarray(np.isnan(values))
    if values.dtype != np.float32 or not np.isfinite(nodata):
        found: NDArray[np.bool_] = values == nodata
        return found
    # GDAL's own tolerance (ARE_REAL_EQUAL in gdal_priv_templates.hpp), in double so that it does not overflow.
    wide = values.astype(np.float64)
    tolerance = 2 * float(np.finfo(np.float32).eps) * np.abs(wide + nodata)
    return np.asarray((wide == nodata) | (np.abs(wide - nodata) < tolerance))


def is_code(value: float | None, codes: range) -> bool:
    """Whether `value` is one of `codes`; a float is asked for in a range by its number, not along it."""
    return value is not None and float(value).is_integer() and int(value) in codes


def _scaled(raw: NDArray[Any], facts: Facts) -> NDArray[Any]:
    """`raw` times scale plus offset as float32, where the file has them."""
    if not facts.scaled:
        return raw
    scale = np.array([band.scale for band in facts.bands])[:, None, None]
    offset = np.array([band.offset for band in facts.bands])[:, None, None]
    return np.asarray(raw * scale + offset, dtype=np.float32)
