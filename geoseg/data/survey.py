"""A source looked over once: the values and the validity of its bands, from evenly spread blocks where it is large."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from math import ceil, prod, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geoseg.data.statistics import BandStats, in_threads
from geoseg.io.combine import BandStack, Mosaic, Picked, pick
from geoseg.io.gdal import GdalSource
from geoseg.io.grids import crop
from geoseg.io.handles import dataset, gdal
from geoseg.io.protocol import Source
from geoseg.tiling import Window

SAMPLES = 1 << 26
"""Values that are looked at, bands times pixels; a source with more is sampled."""

UNIT_PX = 256
"""Side of a block of the sample; a file's own blocks where they are larger."""

MOST_BANDS = 12
"""The validity of each band is told apart up to so many."""

SUSPECTS = (0.0, -9999.0, -32768.0, -3.4028234663852886e38, -3.4028230607370965e38)
"""Values that often stand for nothing without being declared, beside the largest one of an integer dtype.

The last ones are the smallest of float32, and what older programs write for it.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """What was seen of a source.

    Attributes:
        stats: Figures of each band over the pixels that are valid in it (in all bands, above `MOST_BANDS`).
        seen: Pixels that were looked at.
        pixels: Pixels of the grid.
        valid: Those seen that are valid in every band.
        uniform: Of these, how many hold one and the same suspicious value in every band, by that value.
    """

    stats: BandStats
    seen: int
    pixels: int
    valid: int
    uniform: dict[float, int]

    @property
    def sampled(self) -> bool:
        """Whether only a sample was looked at."""
        return self.seen < self.pixels

    def merge(self, other: Survey) -> Survey:
        """What was seen in both parts of one grid."""
        uniform = {value: count + other.uniform[value] for value, count in self.uniform.items()}
        stats = self.stats.merge(other.stats)
        return Survey(stats, self.seen + other.seen, self.pixels, self.valid + other.valid, uniform)


def survey(source: Source, *, geobox: GeoBox | None = None, samples: int = SAMPLES, each_band: bool = True) -> Survey:
    """The values and the validity of a source's bands, read once, block by block.

    A source of more than `samples` values (pixels times bands) is read in blocks that lie on an even lattice over it,
    the same each time; on a coarser grid the pixels of the source that it needs are counted.

    Args:
        source: What to look over.
        geobox: The grid to look at it on; its own by default.
        samples: The most values to read.
        each_band: Whether a pixel that is invalid in one band counts in the others.

    Raises:
        ReadError: The source cannot be read.
    """
    grid = source.geobox if geobox is None else geobox
    shape = (int(grid.shape[0]), int(grid.shape[1]))
    own = geobox is None or geobox == source.geobox
    density = 1.0 if own else max(1.0, prod(source.geobox.shape) / max(1, prod(shape)))
    apart = each_band and 1 < len(source.bands) <= MOST_BANDS
    parts = [pick(source, [k], [name]) for k, name in enumerate(source.bands)] if apart else [source]
    limit = max(1, int(samples / (len(source.bands) * density)))
    windows = sample_windows(shape, unit=_unit(source, shape) if own else (UNIT_PX // 2, UNIT_PX // 2), limit_px=limit)
    look = partial(_look, parts, grid, pixels=prod(shape))
    found = list(in_threads(look, windows))
    return reduce(Survey.merge, found)


def sample_windows(shape: tuple[int, int], *, unit: tuple[int, int], limit_px: int) -> list[Window]:
    """Blocks of `unit` (row, col) pixels on an even lattice over a plane, row by row: all, or about `limit_px` pixels.

    >>> [(w.row_off, w.col_off) for w in sample_windows((900, 400), unit=(100, 100), limit_px=40_000)]
    [(100, 200), (300, 200), (500, 200), (700, 200)]
    """
    rows, cols = (ceil(size / step) for size, step in zip(shape, unit, strict=True))
    wanted = max(1, limit_px // prod(unit))
    if rows * cols > wanted:
        across = min(cols, max(1, round(sqrt(wanted * cols / rows))))
        down = min(rows, max(1, wanted // across))
        across = min(cols, max(1, wanted // down))
    else:
        down, across = rows, cols
    return [
        Window(row, col, min(unit[0], shape[0] - row), min(unit[1], shape[1] - col))
        for row in _spread(rows, down, unit[0])
        for col in _spread(cols, across, unit[1])
    ]


def _spread(cells: int, wanted: int, step: int) -> Iterator[int]:
    """First pixels of `wanted` of `cells` cells, evenly spread."""
    for k in range(wanted):
        yield int((k + 0.5) * cells / wanted) * step


def native_block(source: Source) -> tuple[int, int] | None:
    """Rows and columns that the first file of a source is stored in; None where nothing says so."""
    if isinstance(source, GdalSource):
        with gdal(source.path):
            rows, cols = dataset(source.path).block_shapes[0]
            return int(rows), int(cols)
    if isinstance(source, Picked):
        return native_block(source.source)
    return native_block(source.members[0]) if isinstance(source, BandStack) else None


def _unit(source: Source, shape: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of a sampled block: whole stored blocks, so that nothing is decoded twice."""
    rows, cols = (None if isinstance(source, Mosaic) else native_block(source)) or (UNIT_PX, UNIT_PX)
    if cols >= shape[1] and cols > UNIT_PX:  # strips
        return min(shape[0], rows * max(1, UNIT_PX**2 // (rows * cols))), shape[1]
    return min(shape[0], rows * ceil(UNIT_PX / rows)), min(shape[1], cols * ceil(UNIT_PX / cols))


def _look(parts: Sequence[Source], grid: GeoBox, window: Window, *, pixels: int) -> Survey:
    """What a window shows of bands that are read on their own, or together."""
    box = crop(grid, window)
    rasters = [part.read(box) for part in parts]
    valid = np.logical_and.reduce([raster.valid for raster in rasters])
    bands = sum(len(raster.bands) for raster in rasters)
    stats = [BandStats.of_pixels(raster.pixels, raster.valid) for raster in rasters]
    whole = stats[0]
    if len(rasters) > 1:
        whole = reduce(BandStats.merge, (own.placed([k], bands) for k, own in enumerate(stats)))
    planes = [plane for raster in rasters for plane in raster.pixels]
    uniform = {value: _uniform(planes, valid, value) for value in _suspects(planes[0].dtype)}
    return Survey(whole, window.rows * window.cols, pixels, int(valid.sum()), uniform)


def _suspects(dtype: np.dtype[Any]) -> tuple[float, ...]:
    """Suspicious values that the dtype can hold."""
    if dtype.kind not in "iu":
        return SUSPECTS if dtype != np.float16 else SUSPECTS[:3]
    limits = np.iinfo(dtype)
    return tuple(value for value in {*SUSPECTS, float(limits.max)} if limits.min <= value <= limits.max)


def _uniform(planes: Sequence[NDArray[Any]], valid: NDArray[np.bool_], value: float) -> int:
    same = valid.copy()
    for plane in planes:
        if not same.any():
            return 0
        same &= plane == value
    return int(same.sum())
