"""A file's overviews: their true sizes, and whether they hold means of its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
from rasterio.windows import Window as RasterioWindow

from geoseg.errors import ReadError
from geoseg.io.handles import GDAL_ERRORS, dataset, file_key, forget, is_remote
from geoseg.io.resample import Patch, sample_box
from geoseg.tiling import Window

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from geoseg.io.grids import Lattice

MEANS = frozenset({"AVERAGE", "BILINEAR", "CUBIC", "CUBICSPLINE", "LANCZOS"})
"""GDAL's ways to make overviews that weigh all pixels under one."""

LOOK_PX = 256
"""Pixels a side in which the roughest place of an overview is looked for."""

PROBE_PX = 512
"""File pixels a side that are compared with an overview, unless two of its pixels need more."""

MEAN_SHARE = 0.3
"""A mean is off that of the pixels under it by less than this share of their standard deviation."""

TELLING_STEPS = 4
"""Steps of the values that pixels under one differ by, or more, where means can be told from other values."""


@dataclass(frozen=True, slots=True)
class Level:
    """A file's own pixels, or those of one of its overviews.

    Attributes:
        position: Where the overview stands among the file's, as GDAL counts; None of the file itself.
        factor: Whole rows and columns of the file in one pixel.
        shape: Rows and columns. Of a file whose sides the factor does not divide a pixel has a little less of both.
        size: Rows and columns of the file.
    """

    position: int | None
    factor: int
    shape: tuple[int, int]
    size: tuple[int, int]

    def fits(self, lattice: Lattice) -> bool:
        """Whether blocks of its pixels may stand for those of `lattice`."""
        divides = all(count * self.factor == size for count, size in zip(self.shape, self.size, strict=True))
        whole = divides and lattice.row % self.factor == 0 and lattice.col % self.factor == 0
        # One whose pixels do not start with ours is off by up to half of one: little where there are many.
        return all(step % self.factor == 0 and (whole or step >= 4 * self.factor) for step in lattice.factors)

    def on_file(self, window: Window) -> tuple[float, float, float, float]:
        """First column and row, columns and rows of the file that a window of its pixels covers."""
        down, across = (size / count for size, count in zip(self.size, self.shape, strict=True))
        return window.col_off * across, window.row_off * down, window.cols * across, window.rows * down

    def under(self, first: int, count: int, axis: int) -> NDArray[np.intp]:
        """Its rows (`axis` 0) or columns under the centres of `count` runs of `factor`, from `first` of the file on."""
        centres = first + (np.arange(count) + 0.5) * self.factor
        found = np.floor_divide(centres * self.shape[axis], self.size[axis])
        return np.asarray(np.clip(found, 0, self.shape[axis] - 1), dtype=np.intp)


def overview(path: str, position: int, factor: int) -> Level | None:
    """An overview, by its position and factor; None where it cannot be opened.

    To be used within `gdal(path)`.
    """
    return _overview(path, file_key(path), position, factor)


@lru_cache(maxsize=4096)
def _overview(path: str, _key: Any, position: int, factor: int) -> Level | None:
    try:
        fine, coarse = dataset(path), dataset(path, overview=position)
    except ReadError:
        return None  # GDAL opens none where bands differ in theirs
    return Level(position, factor, tuple(coarse.shape), tuple(fine.shape))


def holds_means(path: str, level: Level, indexes: Iterable[int]) -> bool:
    """Whether an overview holds means: as the first of the bands `indexes` says that can tell, or a place in it shows.

    To be used within `gdal(path)`. What cannot be read for that is not taken for means, until it can be. Where no band
    tells, for none varies, there is nothing to be lost.
    """
    if level.position is None:
        return False
    try:
        told = (_holds_means(path, file_key(path), level.position, index) for index in indexes)
        return next((found for found in told if found is not None), True)
    except (*GDAL_ERRORS, ReadError):
        forget(path)
        return False


@lru_cache(maxsize=4096)
def _holds_means(path: str, _key: Any, position: int, index: int) -> bool | None:
    fine, coarse = dataset(path), dataset(path, overview=position)
    said = coarse.tags(index).get("RESAMPLING")
    if said is not None:
        return said.upper() in MEANS
    # Over a net a look at all of it costs requests, and a window across blocks of the file costs blocks.
    shown = _are_means(fine, coarse, index, _middle(fine, coarse, index)) if is_remote(path) else None
    if shown is None:
        roughest = _around(_roughest(coarse, index), coarse.shape, _side(fine, coarse))
        shown = _are_means(fine, coarse, index, roughest)
    return shown


def _are_means(fine: Any, coarse: Any, index: int, window: Window) -> bool | None:
    """Whether pixels of a window of `coarse` are about the means of the pixels of `fine` under them.

    None where those hardly differ, or none is valid.
    """
    steps = fine.shape[0] / coarse.shape[0], fine.shape[1] / coarse.shape[1]
    top, left = int(window.row_off * steps[0]), int(window.col_off * steps[1])
    bottom, right = ceil(window.row_stop * steps[0]), ceil(window.col_stop * steps[1])
    whole = Window(0, 0, *fine.shape)
    below = _seen(fine, index, Window(top, left, bottom - top, right - left).intersect(whole))
    row = (window.row_off + np.arange(window.rows) + 0.5) * steps[0] - top
    col = (window.col_off + np.arange(window.cols) + 0.5) * steps[1] - left
    at_row, at_col = np.meshgrid(row, col, indexing="ij")
    means = sample_box(below, at_row, at_col, steps)
    squares = sample_box(Patch(below.pixels**2, below.valid), at_row, at_col, steps)
    found = _seen(coarse, index, window)
    both = means.valid & found.valid
    if not both.any():
        return None
    spread = np.clip(squares.pixels - means.pixels**2, 0, None)[0, both].mean() ** 0.5
    off = ((found.pixels - means.pixels)[0, both] ** 2).mean() ** 0.5
    step = 1.0 if np.issubdtype(np.dtype(fine.dtypes[index - 1]), np.integer) else 1e-6 * np.abs(below.pixels).max()
    if off > MEAN_SHARE * spread + step:
        return False
    return True if spread >= TELLING_STEPS * step else None


def _side(fine: Any, coarse: Any) -> int:
    """Pixels a side of `coarse` that are compared with those of `fine` under them."""
    steps = (size / count for size, count in zip(fine.shape, coarse.shape, strict=True))
    return max(2, min(16, int(PROBE_PX / max(steps))))


def _middle(fine: Any, coarse: Any, index: int) -> Window:
    """A square of an overview that starts with the block in the middle of the file, so that most blocks hold it."""
    side, places = _side(fine, coarse), []
    for size, count, block in zip(fine.shape, coarse.shape, fine.block_shapes[index - 1], strict=True):
        first = size // 2 // block * block
        places.append(max(0, min(ceil(first * count / size), count - side)))
    return Window(places[0], places[1], min(side, coarse.shape[0]), min(side, coarse.shape[1]))


def _seen(opened: Any, index: int, window: Window, shape: tuple[int, int] | None = None) -> Patch:
    """Values of a window in double, as `shape` pixels where that is given, and where they count."""
    place = RasterioWindow(window.col_off, window.row_off, window.cols, window.rows)
    values = opened.read(index, window=place, out_shape=shape).astype(np.float64)
    valid = np.isfinite(values) & (opened.read_masks(index, window=place, out_shape=shape) != 0)
    return Patch(np.where(valid, values, 0)[None], valid)


def _roughest(coarse: Any, index: int) -> tuple[int, int]:
    """Row and column of an overview where valid neighbours differ most, as a coarse look shows; else the middle."""
    shape = min(coarse.shape[0], LOOK_PX), min(coarse.shape[1], LOOK_PX)
    found = _seen(coarse, index, Window(0, 0, *coarse.shape), shape)
    values, valid, rough = found.pixels[0], found.valid, np.zeros(shape)
    rough[1:] = np.abs(np.diff(values, axis=0)) * (valid[1:] & valid[:-1])
    rough[:, 1:] += np.abs(np.diff(values, axis=1)) * (valid[:, 1:] & valid[:, :-1])
    row, col = np.unravel_index(rough.argmax(), shape) if rough.any() else (shape[0] // 2, shape[1] // 2)
    return int(row) * coarse.shape[0] // shape[0], int(col) * coarse.shape[1] // shape[1]


def _around(place: tuple[int, int], shape: tuple[int, int], side: int) -> Window:
    """A square of `side` pixels around a place, moved and cut to lie inside `shape`."""
    row, col = (max(0, min(at - side // 2, size - side)) for at, size in zip(place, shape, strict=True))
    return Window(row, col, min(side, shape[0]), min(side, shape[1]))
