"""Band statistics in one streaming pass, merged exactly."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial, reduce
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from geoseg.data.histogram import Histogram, count_buckets, count_values, counted_exactly
from geoseg.data.scene import TRAINING, SceneArrays, windows_of
from geoseg.jit import jit
from geoseg.raster import QUANTILE_LEVELS
from geoseg.tiling import Window

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Item = TypeVar("Item")
Result = TypeVar("Result")

WINDOW_BYTES = 1 << 25
"""Bytes of pixels that a thread counts at once, about."""

AHEAD = 4
"""Windows a thread that are counted before the first of them is merged."""


@dataclass(frozen=True, slots=True, eq=False)
class BandStats:
    """Count, mean, sum of squared deviations, smallest and largest value of each band, and how its values spread.

    Two of them merge into that of all their pixels. Where values are counted one by one (integers of up to 16 bits) all
    figures follow from the counts, and are the same to the last bit in whatever order they were merged; elsewhere
    moments are merged by Chan, Golub and LeVeque 1983, "Algorithms for computing the sample variance", eq. 2.1.

    Attributes:
        count: Pixels, int64 `(band,)`; a scene that lacks a band adds none to it.
        mean: float64 `(band,)`, as the rest; 0 without a pixel.
        squares: Sum of squared deviations from the mean.
        low: Smallest value; infinite without a pixel.
        high: Largest value; minus infinite without a pixel.
        histogram: How often each value occurs.
    """

    count: Counts
    mean: Floats
    squares: Floats
    low: Floats
    high: Floats
    histogram: Histogram

    @property
    def std(self) -> Floats:
        """Standard deviation of the pixels (divided by their count); 1 for a band that is constant or empty."""
        spread = np.sqrt(self.squares / np.maximum(self.count, 1))
        return np.where(spread > 0, spread, 1.0)

    @classmethod
    def empty(cls, bands: int, *, exact: bool) -> BandStats:
        """Statistics of no pixel."""
        nothing = np.zeros(bands)
        low, high = np.full(bands, np.inf), np.full(bands, -np.inf)
        return cls(np.zeros(bands, np.int64), nothing, nothing.copy(), low, high, Histogram.empty(bands, exact=exact))

    @classmethod
    def of(cls, values: NDArray[Any]) -> BandStats:
        """Statistics of `(band, pixel)`."""
        return cls.of_pixels(values[:, None], np.ones((1, values.shape[1]), np.bool_))

    @classmethod
    def of_pixels(cls, pixels: NDArray[Any], mask: NDArray[np.bool_]) -> BandStats:
        """Statistics of `(band, row, col)` where the mask `(row, col)` is True; what is not finite is left out."""
        pixels = pixels.view(np.uint8) if pixels.dtype == np.bool_ else pixels
        if counted_exactly(pixels.dtype):
            return cls._counted(count_values(pixels, mask))
        histogram, moments = count_buckets(pixels.astype(np.float32) if pixels.dtype == np.float16 else pixels, mask)
        number, mean, squares, low, high = moments.T.copy()
        return cls(number.astype(np.int64), mean, squares, low, high, histogram)

    @classmethod
    def _counted(cls, histogram: Histogram) -> BandStats:
        """Statistics of values that were counted one by one."""
        count, bins = histogram.total, histogram.bins
        mean = (histogram.counts @ bins) / np.maximum(count, 1)
        squares = np.array(
            [found @ np.square(bins - middle) for found, middle in zip(histogram.counts, mean, strict=True)]
        )
        low, high = np.full(len(count), np.inf), np.full(len(count), -np.inf)
        for band in np.flatnonzero(count):
            there = np.flatnonzero(histogram.counts[band])
            low[band], high[band] = bins[there[0]], bins[there[-1]]
        return cls(count, mean, squares, low, high, histogram)

    def merge(self, other: BandStats) -> BandStats:
        """Statistics of the pixels of both."""
        histogram = self.histogram.merge(other.histogram)
        if histogram.exact:
            return self._counted(histogram)
        count = self.count + other.count
        share = other.count / np.maximum(count, 1)
        step = np.where((self.count > 0) & (other.count > 0), other.mean - self.mean, 0.0)
        squares = self.squares + other.squares + step**2 * (self.count * share)
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        mean = np.where(self.count > 0, self.mean + step * share, other.mean)
        return BandStats(count, mean, squares, low, high, histogram)

    def placed(self, positions: Sequence[int], bands: int) -> BandStats:
        """These bands at `positions` among `bands` bands, of which the others have no pixel."""
        if len(positions) == bands:
            return self
        wide = BandStats.empty(bands, exact=self.histogram.exact)
        for column, own in zip(wide.columns, self.columns, strict=True):
            column[list(positions)] = own
        counts = np.zeros((bands, self.histogram.counts.shape[1]), np.int64)
        counts[list(positions)] = self.histogram.counts
        return replace(wide, histogram=replace(self.histogram, counts=counts))

    @property
    def columns(self) -> tuple[Counts, Floats, Floats, Floats, Floats]:
        """Count, mean, squares, low and high, each `(band,)`."""
        return self.count, self.mean, self.squares, self.low, self.high

    def quantiles(self, levels: Sequence[float]) -> Floats:
        """Values below which shares `levels` of the pixels lie, float64 `(level, band)`; NaN for a band without pixels.

        Between two pixels they are interpolated linearly (Hyndman and Fan 1996, "Sample quantiles in statistical
        packages", definition 7, as numpy does). They are exact for integers of up to 16 bits, and else off by less than
        1/128 of their value.
        """
        out = np.full((len(levels), len(self.count)), np.nan)
        for band in np.flatnonzero(self.count).tolist():
            place = np.asarray(levels, np.float64) * (self.count[band] - 1)
            below = np.floor(place).astype(np.int64)
            above = np.minimum(below + 1, self.count[band] - 1)
            first, second = (
                np.clip(self.histogram.ranked(rank, band), self.low[band], self.high[band]) for rank in (below, above)
            )
            out[:, band] = first + (second - first) * (place - below)
        return out

    def shares(self, values: Floats, band: int) -> tuple[Floats, Floats]:
        """Shares of the pixels of a band that lie below each of `values (k,)`, and below or on it."""
        below, upto = self.histogram.shares(values, band)
        under, over = values < self.low[band], values >= self.high[band]
        beyond = values > self.high[band]
        return (
            np.where(under | (values == self.low[band]), 0.0, np.where(beyond, 1.0, below)),
            np.where(under, 0.0, np.where(over, 1.0, upto)),
        )


def training_statistics(scenes: Sequence[SceneArrays], *, part: int = TRAINING) -> BandStats:
    """Statistics over the valid pixels of one part of all scenes, in one pass, a window at a time.

    Windows are counted by threads and merged in their order, so that the figures depend on no schedule.
    """
    exact = all(counted_exactly(scene.pixels.dtype) for scene in scenes)
    empty = BandStats.empty(len(scenes[0].bands), exact=exact)
    count = partial(_window_statistics, part=part)
    return reduce(BandStats.merge, in_threads(count, _all_windows(scenes)), empty)


def training_quantiles(stats: BandStats) -> tuple[tuple[float, ...], ...]:
    """Values of each band at `QUANTILE_LEVELS`, as the model card takes them; none for a band without pixels."""
    values = stats.quantiles(QUANTILE_LEVELS).T.tolist()
    return tuple(tuple(row) if count else () for row, count in zip(values, stats.count, strict=True))


def _all_windows(scenes: Sequence[SceneArrays]) -> Iterator[tuple[SceneArrays, Window]]:
    for scene in scenes:
        item = len(scene.bands) * scene.pixels.dtype.itemsize
        side = next((side for side in (1024, 512) if side * side * item <= WINDOW_BYTES), 256)
        for window in windows_of(scene.shape, side_px=side):
            yield scene, window


def _window_statistics(item: tuple[SceneArrays, Window], *, part: int) -> BandStats:
    scene, window = item
    mask = scene.part[window.slices] == part
    present = [band for band in range(len(scene.bands)) if band not in scene.absent]
    if not mask.any():
        return BandStats.empty(len(scene.bands), exact=counted_exactly(scene.pixels.dtype))
    pixels = scene.pixels[slice(0, len(scene.bands)), *window.slices]
    if not scene.absent:
        return BandStats.of_pixels(pixels, mask)
    return BandStats.of_pixels(pixels[present], mask).placed(present, len(scene.bands))


def class_pixels(scenes: Sequence[SceneArrays], *, part: int, classes: int) -> Counts:
    """Labelled pixels of each class, `(class,)`, in one part of all scenes."""
    total = np.zeros(classes, np.int64)
    windows = ((scene, window) for scene in scenes for window in windows_of(scene.shape))
    for counts in in_threads(partial(_window_classes, part=part), windows):
        found = counts[:classes]
        total[: len(found)] += found
    return total


def _window_classes(item: tuple[SceneArrays, Window], *, part: int) -> Counts:
    scene, window = item
    counts = np.zeros(scene.no_label + 1, np.int64)
    _count_classes(scene.labels[window.slices], scene.part[window.slices], part, counts)
    return counts[: scene.no_label]


@jit
def _count_classes(
    labels: NDArray[Any], parts: NDArray[Any], part: int, counts: Counts
) -> None:  # pragma: no cover - compiled
    """Adds the labels of one part to `counts (label,)`."""
    rows, cols = labels.shape
    for row in range(rows):
        for col in range(cols):
            if parts[row, col] == part:
                counts[labels[row, col]] += 1


def in_threads(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """What `work` makes of each item, in their order; few are worked on ahead of what is asked for."""
    threads = min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    rest = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        waiting = [pool.submit(work, item) for item in islice(rest, AHEAD * threads)]
        while waiting:
            done = waiting.pop(0).result()
            waiting += [pool.submit(work, item) for item in islice(rest, 1)]
            yield done
