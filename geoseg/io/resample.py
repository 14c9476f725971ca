"""Pixels of one grid onto another: thinning by whole factors, then sampling at pixel centres.

A pixel of the result is valid where the source pixel under its centre is, so nodata neither grows nor shrinks and
pieces that abut leave no seam. Where pixels were thinned first, that is the thinned one: it is valid where one of its
pixels is, and ends where the source does. Interpolation and means take valid pixels only, their weights scaled to one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import floor, log2
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.errors import InputError
from geoseg.io.grids import Lattice, aligned, require_crs, shrink
from geoseg.io.kernels import span_inside, take_box_means, take_nearest
from geoseg.io.pixel_maps import PixelMap
from geoseg.tiling import Window

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from odc.geo.geobox import GeoBox

STRIP_PX = 1 << 18
"""Pixels of the result that are sampled at once."""

SOURCE_PX = 1 << 24
"""Source pixels that are read at once, at most, unless a single pixel of the result needs more."""

MARGIN_PX = 2
"""Thinned pixels around a point that the kernels of interpolation reach."""

BOX_PX = 8
"""Thinned pixels to the side of a box that is averaged; fewer than that."""

BOX_STEPS = 512
"""Parts of a pixel that the side of a box is counted in."""


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """Pixels `(band, row, col)` and `valid (row, col)` of a lattice."""

    pixels: NDArray[Any]
    valid: NDArray[np.bool_]

    @classmethod
    def empty(cls, count: int, shape: tuple[int, int], dtype: np.dtype[Any]) -> Patch:
        """A patch without any valid pixel."""
        return cls(np.zeros((count, *shape), dtype=dtype), np.zeros(shape, dtype=bool))


def to_dtype(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """`values` as `dtype`; integers are rounded and clipped to their range."""
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        # The largest 64-bit integers have no double of their own, and the next double up would overflow.
        top = np.nextafter(float(limits.max), 0) if float(limits.max) > limits.max else float(limits.max)
        values = np.clip(np.rint(values), limits.min, top)
    return values.astype(dtype)


def _wide(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The float dtype that sums of `dtype` are taken in."""
    return np.dtype(np.float32 if np.can_cast(dtype, np.float32) else np.float64)


# -- thinning: (band, row, factor, col, factor) to (band, row, col) ----------------------------------------------------


def _blocks(patch: Patch, factors: tuple[int, int]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Pixels as `(band, row, factor, col, factor)` and valid as `(row, factor, col, factor)`, filled up as invalid."""
    rows, cols = patch.valid.shape
    fill = (-rows % factors[0]), (-cols % factors[1])
    pixels, valid = patch.pixels, patch.valid
    if any(fill):
        pixels = np.pad(pixels, ((0, 0), (0, fill[0]), (0, fill[1])))
        valid = np.pad(valid, ((0, fill[0]), (0, fill[1])))
    shape = valid.shape[0] // factors[0], factors[0], valid.shape[1] // factors[1], factors[1]
    return pixels.reshape(-1, *shape), valid.reshape(shape)


def thin_mean(patch: Patch, factors: tuple[int, int]) -> Patch:
    """Means of the valid pixels of each block; valid where there is one."""
    pixels, valid = _blocks(patch, factors)
    count = valid.sum(axis=(1, 3))
    sums = np.where(valid, pixels, 0).sum(axis=(2, 4), dtype=np.float64)
    return Patch(to_dtype(sums / np.maximum(count, 1), patch.pixels.dtype), count > 0)


def thin_pick(patch: Patch, factors: tuple[int, int]) -> Patch:
    """The pixel under the centre of each block."""
    pixels, valid = _blocks(patch, factors)
    row, col = factors[0] // 2, factors[1] // 2
    return Patch(pixels[:, :, row, :, col], valid[:, row, :, col])


def thin_mode(patch: Patch, factors: tuple[int, int]) -> Patch:
    """The most frequent valid value of each block, the smaller at a tie; valid where there is one."""
    pixels, valid = _blocks(patch, factors)
    values, codes = np.unique(pixels, return_inverse=True)
    # One row a block, values in order, invalid ones first and never counted.
    ordered = np.where(valid, codes.reshape(pixels.shape), -1).astype(np.int32).transpose(0, 1, 3, 2, 4)
    ordered = np.sort(ordered.reshape(*ordered.shape[:3], -1), axis=-1)
    place = np.arange(ordered.shape[-1], dtype=np.int32)
    starts = np.ones(ordered.shape, dtype=bool)
    starts[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    length = np.where(ordered >= 0, place - np.maximum.accumulate(np.where(starts, place, 0), axis=-1) + 1, 0)
    best = np.take_along_axis(ordered, length.argmax(axis=-1)[..., None], axis=-1)[..., 0]
    return Patch(values[np.maximum(best, 0)], np.asarray(valid.any(axis=(1, 3))))


# -- sampling at points ------------------------------------------------------------------------------------------------


Size = tuple[float, float]
"""Rows and columns of a patch that a pixel of the result spans; kernels of a size of their own take no notice."""


def sample_nearest(patch: Patch, row: NDArray[np.float64], col: NDArray[np.float64], _size: Size = (1.0, 1.0)) -> Patch:
    """The pixels under the points `row, col`; points outside are invalid."""
    found = Patch.empty(len(patch.pixels), row.shape, patch.pixels.dtype)
    bits = np.dtype(f"u{patch.pixels.itemsize}")  # what is only moved needs no other dtype
    out = found.pixels.view(bits).reshape(len(patch.pixels), row.size)
    take_nearest(
        np.ascontiguousarray(patch.pixels).view(bits), patch.valid, row.ravel(), col.ravel(), out, found.valid.ravel()
    )
    return found


def linear_weights(offset: NDArray[Any]) -> list[NDArray[Any]]:
    """Weights of the two neighbours of a point that lies `offset` (0 to 1) behind the first."""
    return [1 - offset, offset]


def cubic_weights(offset: NDArray[Any]) -> list[NDArray[Any]]:
    """Weights of the four neighbours of a point that lies `offset` (0 to 1) behind the second.

    Keys, R. (1981). Cubic convolution interpolation for digital image processing. IEEE Transactions on Acoustics,
    Speech, and Signal Processing 29(6), 1153-1160, with a = -1/2.
    """
    t, u = offset, 1 - offset
    return [-0.5 * t * u * u, 1 + t * t * (1.5 * t - 2.5), 1 + u * u * (1.5 * u - 2.5), -0.5 * u * t * t]


Weights = Callable[["NDArray[Any]"], "list[NDArray[Any]]"]


def _taps(
    at: NDArray[np.float64], size: int, weights: Weights, dtype: np.dtype[Any]
) -> Iterator[tuple[NDArray[np.intp], NDArray[Any]]]:
    """Index and weight of each neighbour along one axis; weight zero for those outside."""
    first = np.floor(at - 0.5)
    shares = weights((at - 0.5 - first).astype(dtype))
    start = first.astype(np.intp) - (len(shares) // 2 - 1)
    for step, share in enumerate(shares):
        index = start + step
        yield np.clip(index, 0, size - 1), np.where((index >= 0) & (index < size), share, 0).astype(dtype)


def _weighted(patch: Patch, row: NDArray[Any], col: NDArray[Any], weights: Weights) -> tuple[Any, Any]:
    """Sums `(band, point)` of weight times valid pixel, and sums `(point,)` of the weights of valid pixels."""
    dtype = _wide(patch.pixels.dtype)
    rows, cols = patch.valid.shape
    count, columns = patch.pixels.shape[0], list(_taps(col, cols, weights, dtype))
    total, weight = np.zeros((count, row.size), dtype=dtype), np.zeros(row.size, dtype=dtype)
    whole = bool(patch.valid.all())
    # Invalid pixels may hold anything, NaN too, which no weight of zero would silence.
    pixels = patch.pixels if whole else np.where(patch.valid, patch.pixels, np.zeros((), patch.pixels.dtype))
    flat, valid = pixels.reshape(count, -1), patch.valid.ravel()
    for at_row, down in _taps(row, rows, weights, dtype):
        for at_col, across in columns:
            index, share = at_row * cols + at_col, down * across
            if not whole:
                share *= valid.take(index)
            weight += share
            for band in range(count):
                total[band] += flat[band].take(index) * share
    return total, weight


def sample_weighted(patch: Patch, row: NDArray[np.float64], col: NDArray[np.float64], weights: Weights) -> Patch:
    """Interpolated values at the points `row, col`; valid where the pixel under the point is.

    Where a neighbour is missing, kernels with negative weights give way to bilinear weights of the rest.
    """
    nearest = sample_nearest(patch, row, col)
    inside = nearest.valid
    found = np.zeros((patch.pixels.shape[0], *inside.shape), dtype=patch.pixels.dtype)
    if not inside.any():
        return Patch(found, inside)
    at_row, at_col = row[inside], col[inside]
    total, weight = _weighted(patch, at_row, at_col, weights)
    lacking = np.abs(weight - 1) > 1e-3
    if weights is not linear_weights and lacking.any():
        total[:, lacking], weight[lacking] = _weighted(patch, at_row[lacking], at_col[lacking], linear_weights)
    found[:, inside] = to_dtype(total / weight, found.dtype)
    return Patch(found, inside)


def sample_linear(patch: Patch, row: NDArray[np.float64], col: NDArray[np.float64], _size: Size = (1.0, 1.0)) -> Patch:
    """Bilinear values at the points."""
    return sample_weighted(patch, row, col, linear_weights)


def sample_cubic(patch: Patch, row: NDArray[np.float64], col: NDArray[np.float64], _size: Size = (1.0, 1.0)) -> Patch:
    """Bicubic values at the points."""
    return sample_weighted(patch, row, col, cubic_weights)


def sample_box(patch: Patch, row: NDArray[np.float64], col: NDArray[np.float64], size: Size) -> Patch:
    """Means of the valid pixels in boxes of `size` around the points, by the area of each inside; valid as nearest.

    The size is taken to a 512th of a pixel: halves of it and points then add up exactly, wherever a window begins.
    """
    count = len(patch.pixels)
    high, wide = (max(round(side * BOX_STEPS), 1) / BOX_STEPS for side in size)
    means, valid = np.empty((count, row.size)), np.empty(row.shape, dtype=bool)
    pixels = patch.pixels.astype(_wide(patch.pixels.dtype), order="C", copy=False)
    take_box_means(pixels, patch.valid, row.ravel(), col.ravel(), high, wide, means, valid.ravel())
    return Patch(to_dtype(means.reshape(count, *row.shape), patch.pixels.dtype), valid)


# -- methods -----------------------------------------------------------------------------------------------------------


def _halvings(step: float) -> int:
    """The largest power of two that is at most `step`."""
    return int(2 ** floor(log2(max(step, 1.0)) + 1e-9))


def _box_part(step: float) -> int:
    """The pixels of a block, a power of two, of which fewer than `BOX_PX` make up a box."""
    return _halvings(step * 2 / BOX_PX)


def _rare(step: float) -> int:
    """1 as long as every pixel can be looked at; what is picked by the thousand may be off by a 64th."""
    return 1 if step <= 64 else _halvings(step / 32)


@dataclass(frozen=True, slots=True)
class Resampling:
    """How values are taken.

    Attributes:
        thin: Blocks of pixels to one pixel.
        sample: Values at points.
        factor: Pixels of a block along an axis, for the number of source pixels in a pixel of the result.
        overviews: Whether a file's overviews may stand for its pixels where they hold means.
        reach: Thinned pixels around a point that `sample` takes notice of.
    """

    thin: Callable[[Patch, tuple[int, int]], Patch]
    sample: Callable[[Patch, NDArray[np.float64], NDArray[np.float64], Size], Patch]
    factor: Callable[[float], int]
    overviews: bool
    reach: int = MARGIN_PX


RESAMPLINGS: dict[str, Resampling] = {
    "nearest": Resampling(thin_pick, sample_nearest, _rare, overviews=False),
    "bilinear": Resampling(thin_mean, sample_linear, _halvings, overviews=True),
    "cubic": Resampling(thin_mean, sample_cubic, _halvings, overviews=True),
    "average": Resampling(thin_mean, sample_box, _box_part, overviews=True, reach=BOX_PX // 2),
    "mode": Resampling(thin_mode, sample_nearest, _halvings, overviews=False),
}
"""Ways to take values, by name.

Where a pixel of the result is a block of whole source pixels, it is that block thinned, whatever its size. Elsewhere:

- `nearest`: the pixel under the centre, to a 64th of a result pixel.
- `bilinear`, `cubic`: interpolated between means of blocks, whose side is the largest power of two in a result pixel.
- `average`: the mean of what a box of the result pixel's size holds, along the rows and columns of the source and by
  area. Of boxes of 8 pixels and more a side, the parts are means of blocks, 4 to 8 to a side.
- `mode`: the most frequent value of the block under the centre, of the size that `bilinear` has.

What a result pixel's size is, one place of the source says for all.
"""


def resampling_named(name: str) -> Resampling:
    """The method called `name`.

    Raises:
        InputError: There is none; the message lists the names.
    """
    if name not in RESAMPLINGS:
        raise InputError(f"resampling {name!r} is unknown; known are {', '.join(RESAMPLINGS)}")
    return RESAMPLINGS[name]


ReadLattice = Callable[[Lattice], Patch]


@dataclass(frozen=True, slots=True)
class Job:
    """One read of a grid onto a geobox."""

    pixel_map: PixelMap
    read: ReadLattice
    method: Resampling
    factors: tuple[int, int]
    size: Size

    def fill(self, out: Patch, window: Window) -> None:
        """Sample `window` of the result into `out`, halved until what it needs of the source is small enough."""
        row, col = self.pixel_map.coordinates(window)
        lattice = self._needed(row, col)
        if lattice is None:
            return
        if lattice.rows * lattice.cols > SOURCE_PX and window.rows * window.cols > 1:
            for half in _halves(window):
                self.fill(out, half)
            return
        patch = self.read(lattice)
        found = self.method.sample(
            patch,
            row / self.factors[0] - lattice.row // self.factors[0],
            col / self.factors[1] - lattice.col // self.factors[1],
            self.size,
        )
        found = self._ended(found, row, col)
        out.pixels[:, window.slices[0], window.slices[1]] = found.pixels
        out.valid[window.slices] = found.valid

    def _ended(self, found: Patch, row: NDArray[np.float64], col: NDArray[np.float64]) -> Patch:
        """`found` without points `row, col` beyond the grid, which its last thinned row and column may reach."""
        rows, cols = self.pixel_map.grid.shape
        if rows % self.factors[0] == 0 and cols % self.factors[1] == 0:
            return found
        inside = (row < rows) & (col < cols)
        return Patch(np.where(inside, found.pixels, found.pixels.dtype.type(0)), found.valid & inside)

    def _needed(self, row: NDArray[np.float64], col: NDArray[np.float64]) -> Lattice | None:
        """The thinned pixels of the grid that the points `row, col` need; None where no point is on the grid."""
        rows, cols = self.pixel_map.grid.shape
        top, bottom, left, right = span_inside(row.ravel(), col.ravel(), rows, cols)
        if top > bottom:
            return None
        spans = []
        for low, high, size, factor in ((top, bottom, rows, self.factors[0]), (left, right, cols, self.factors[1])):
            first = max(0, floor(low / factor) - self.method.reach)
            stop = min(-(-size // factor), floor(high / factor) + self.method.reach + 1)
            spans.append((first * factor, stop - first))
        return Lattice(spans[0][0], spans[1][0], spans[0][1], spans[1][1], self.factors)


def _halves(window: Window) -> tuple[Window, Window]:
    """`window` in two along its longer side."""
    row, col, rows, cols = window.row_off, window.col_off, window.rows, window.cols
    if rows >= cols:
        return Window(row, col, rows // 2, cols), Window(row + rows // 2, col, rows - rows // 2, cols)
    return Window(row, col, rows, cols // 2), Window(row, col + cols // 2, rows, cols - cols // 2)


def cut_up(window: Window, pixels: int) -> Iterator[Window]:
    """`window` in pieces of at most so many pixels, or of one."""
    if window.rows * window.cols <= max(pixels, 1):
        yield window
        return
    for half in _halves(window):
        yield from cut_up(half, pixels)


def read_onto(
    grid: GeoBox,
    geobox: GeoBox,
    read: ReadLattice,
    *,
    resampling: str,
    count: int,
    dtype: np.dtype[Any],
    name: str,
) -> Patch:
    """What `read` gives of `grid`, on `geobox`.

    Args:
        grid: The grid that `read` reads.
        geobox: Where the pixels are wanted.
        read: Gives the pixels of a lattice of `grid`; outside the grid they are invalid.
        resampling: A key of `RESAMPLINGS`.
        count: Bands.
        dtype: Dtype of the pixels.
        name: What the source is called in errors.

    Raises:
        GridError: One of the grids has no CRS and they are not one grid.
    """
    lattice = aligned(grid, geobox)
    if lattice is not None:
        return read(lattice)
    require_crs(grid, geobox, name)
    method = resampling_named(resampling)
    steps = shrink(grid, geobox)
    factors = method.factor(steps[0]), method.factor(steps[1])
    size = steps[0] / factors[0], steps[1] / factors[1]
    job = Job(PixelMap.between(geobox, grid), read, method, factors, size)
    rows, cols = geobox.shape
    out = Patch.empty(count, (rows, cols), dtype)
    high = max(1, STRIP_PX // max(cols, 1))
    for row in range(0, rows, high):
        job.fill(out, Window(row, 0, min(high, rows - row), cols))
    return out
