"""One raster of any format that GDAL opens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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
        inside = _thinned_inside(lattice, self.geobox)
        if inside.rows and inside.cols:
            with gdal(self.path):
                self._fill(out, lattice, inside)
        return out

    def _fill(self, out: Patch, lattice: Lattice, inside: Window) -> None:
        """Read `inside`, counted in thinned pixels of `lattice`, into `out`, a chunk at a time."""
        opened, method = dataset(self.path), resampling_named(self.resampling)
        level = _level(lattice, self.geobox, self.facts.overviews if method.overviews else ())
        rest = lattice.factors[0] // level[0], lattice.factors[1] // level[1]
        for chunk in _chunks(inside, rest, len(self.facts.bands)):
            patch = self._decode(opened, lattice.part(chunk), level)
            thinned = patch if rest == (1, 1) else method.thin(patch, rest)
            out.pixels[:, chunk.slices[0], chunk.slices[1]] = thinned.pixels
            out.valid[chunk.slices] = thinned.valid

    def _decode(self, opened: Any, lattice: Lattice, level: tuple[int, int]) -> Patch:
        """Scaled pixels and validity of the file under `lattice`, `level` pixels of the file in one of them."""
        whole = lattice.window
        window = whole.intersect(Window(0, 0, *self.facts.geobox.shape))
        found = self._decode_inside(opened, window, (-(-window.rows // level[0]), -(-window.cols // level[1])))
        shape = whole.rows // level[0], whole.cols // level[1]
        if found.valid.shape == shape:
            return found
        out = Patch.empty(len(found.pixels), shape, found.pixels.dtype)
        row, col = (window.row_off - whole.row_off) // level[0], (window.col_off - whole.col_off) // level[1]
        rows, cols = min(found.valid.shape[0], shape[0] - row), min(found.valid.shape[1], shape[1] - col)
        out.pixels[:, row : row + rows, col : col + cols] = found.pixels[:, :rows, :cols]
        out.valid[row : row + rows, col : col + cols] = found.valid[:rows, :cols]
        return out

    def _decode_inside(self, opened: Any, window: Window, shape: tuple[int, int]) -> Patch:
        """Scaled pixels and validity of `window` of the file as `shape` pixels."""
        facts = self.facts
        place = RasterioWindow(window.col_off, window.row_off, window.cols, window.rows)
        indexes = [band.index for band in facts.bands]
        try:
            raw = _read_bands(opened, indexes, place, shape, facts.raw_dtype)
            valid = _valid(raw, facts)
            for index in facts.masks:
                valid &= opened.read_masks(index, window=place, out_shape=shape) != 0
            for index in facts.alphas:
                valid &= opened.read(index, window=place, out_shape=shape) > 0
        except GDAL_ERRORS as error:
            forget(self.path)
            raise ReadError(
                f"{self.path} cannot be read at rows {window.row_off} to {window.row_stop}, "
                f"columns {window.col_off} to {window.col_stop}: {one_line(error)}"
            ) from error
        return Patch(_scaled(raw, facts), valid)


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


def _read_bands(
    opened: Any, indexes: list[int], place: RasterioWindow, shape: tuple[int, int], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Raw pixels `(band, row, col)` of one dtype."""
    if len({opened.dtypes[index - 1] for index in indexes}) == 1:
        raw: NDArray[Any] = opened.read(indexes, window=place, out_shape=(len(indexes), *shape), out_dtype=dtype)
        return raw
    # Asked for bands of several dtypes at once rasterio refuses, whatever the dtype asked for.
    return np.stack([opened.read(index, window=place, out_shape=shape).astype(dtype) for index in indexes])


def _thinned_inside(lattice: Lattice, grid: GeoBox) -> Window:
    """The thinned pixels of `lattice` that share a pixel with `grid`, counted from the lattice's first."""
    spans = []
    for start, count, factor, size in zip(
        (lattice.row, lattice.col), (lattice.rows, lattice.cols), lattice.factors, grid.shape, strict=True
    ):
        first, stop = max(0, -start // factor), min(count, -(-(size - start) // factor))
        spans.append((first, max(0, stop - first)))
    return Window(spans[0][0], spans[1][0], spans[0][1], spans[1][1])


def _level(lattice: Lattice, grid: GeoBox, overviews: tuple[int, ...]) -> tuple[int, int]:
    """File pixels that a decoded pixel spans: those of an overview that divides the factors, else one."""

    def fits(level: int) -> bool:
        whole = not (lattice.row % level or lattice.col % level or grid.shape[0] % level or grid.shape[1] % level)
        # An overview whose pixels do not start with ours is off by up to half of one: little where there are many.
        return all(factor % level == 0 and (whole or factor >= 4 * level) for factor in lattice.factors)

    best = max((level for level in overviews if fits(level)), default=1)
    return best, best


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


def _scaled(raw: NDArray[Any], facts: Facts) -> NDArray[Any]:
    """`raw` times scale plus offset as float32, where the file has them."""
    if not facts.scaled:
        return raw
    scale = np.array([band.scale for band in facts.bands])[:, None, None]
    offset = np.array([band.offset for band in facts.bands])[:, None, None]
    return np.asarray(raw * scale + offset, dtype=np.float32)
