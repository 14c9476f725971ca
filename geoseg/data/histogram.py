"""Counts of pixel values that merge exactly and give quantiles.

Integers of up to 16 bits are counted value by value, so their quantiles are those of the pixels themselves. All other
values fall into buckets of float32: the upper 16 of its bits, in an order that is the order of the values. A bucket
spans 1/128 of its value, so a quantile is off by less than 0.8 % of itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.jit import jit

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

SIGN, ALL = np.uint32(0x80000000), np.uint32(0xFFFFFFFF)
LARGEST = float(np.finfo(np.float32).max)
BUCKET_ERROR = 2.0**-7
"""The largest error of a quantile from buckets, as a share of its value (of normal float32 numbers)."""


def counted_exactly(dtype: np.dtype[Any]) -> bool:
    """Whether values of `dtype` are counted one by one."""
    return dtype.kind in "iu" and dtype.itemsize <= 2


def buckets_of(values: NDArray[Any]) -> NDArray[np.int64]:
    """The bucket, 0 to 65535, of each value: the upper half of its float32 bits, ordered as the values are.

    The bits of IEEE 754 numbers sort like integers once the sign bit is flipped, and all bits of negative ones (Herf
    2001, "Radix Tricks").
    """
    bits = np.clip(values, -LARGEST, LARGEST).astype(np.float32).view(np.uint32)
    return np.asarray((bits ^ np.where(bits & SIGN, ALL, SIGN)) >> np.uint32(16), np.int64)


def bucket_edges(buckets: NDArray[np.int64]) -> Floats:
    """The smallest value of each bucket, clipped to what float32 holds."""
    key = (np.clip(buckets, 0, 65535).astype(np.uint32)) << np.uint32(16)
    bits = key ^ np.where(key & SIGN, SIGN, ALL)
    with np.errstate(invalid="ignore"):  # beyond infinity there are only NaNs
        edges = bits.view(np.float32).astype(np.float64)
    ends = np.where(key & SIGN, LARGEST, -LARGEST)
    return np.clip(np.where(np.isfinite(edges), edges, ends), -LARGEST, LARGEST)


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """How often each value of each band occurs.

    Attributes:
        counts: int64 `(band, bin)`.
        first: The value, or the bucket, that the first bin counts; the others follow without a gap.
        exact: Whether a bin is a value; else it is a bucket.
    """

    counts: Counts
    first: int
    exact: bool

    @classmethod
    def empty(cls, bands: int, *, exact: bool) -> Histogram:
        """Nothing counted yet."""
        return cls(np.zeros((bands, 0), np.int64), 0, exact)

    @property
    def total(self) -> Counts:
        """Pixels counted, `(band,)`."""
        return np.asarray(self.counts.sum(1))

    @property
    def bins(self) -> Counts:
        """What each bin counts, `(bin,)`."""
        return self.first + np.arange(self.counts.shape[1])

    def merge(self, other: Histogram) -> Histogram:
        """The counts of both; values join buckets where the other has buckets."""
        if self.exact != other.exact:
            return self.bucketed().merge(other.bucketed())
        if not (self.counts.size and other.counts.size):
            return self if self.counts.size else other
        first = min(self.first, other.first)
        stop = max(part.first + part.counts.shape[1] for part in (self, other))
        counts = np.zeros((len(self.counts), stop - first), np.int64)
        for part in (self, other):
            counts[:, part.first - first : part.first - first + part.counts.shape[1]] += part.counts
        return Histogram(counts, first, self.exact)

    def bucketed(self) -> Histogram:
        """The same pixels in buckets."""
        if not self.exact:
            return self
        if not self.counts.size:
            return Histogram(self.counts, self.first, exact=False)
        buckets = buckets_of(self.bins)
        counts = np.zeros((len(self.counts), int(buckets[-1] - buckets[0]) + 1), np.int64)
        for band, found in enumerate(self.counts):
            np.add.at(counts[band], buckets - buckets[0], found)
        return Histogram(counts, int(buckets[0]), exact=False)

    def ranked(self, ranks: NDArray[np.int64], band: int) -> Floats:
        """The values at 0-based places among the band's sorted pixels; inside a bucket they are spread evenly."""
        reached = self.counts[band].cumsum()
        at = np.searchsorted(reached, ranks, side="right")
        if self.exact:
            return (self.first + at).astype(np.float64)
        edges = bucket_edges(self.first + np.stack([at, at + 1]))
        inside = (ranks - (reached[at] - self.counts[band, at]) + 0.5) / self.counts[band, at]
        return np.asarray(edges[0] + (edges[1] - edges[0]) * inside)

    def shares(self, values: Floats, band: int) -> tuple[Floats, Floats]:
        """Shares of the band's pixels that lie below each value, and below or on it; a bucket is taken as even."""
        reached = np.concatenate([[0], self.counts[band].cumsum()]) / max(int(self.counts[band].sum()), 1)
        last = len(reached) - 1
        if self.exact:
            whole = np.clip(values, -(2.0**40), 2.0**40)
            below = np.clip(np.ceil(whole).astype(np.int64) - self.first, 0, last)
            upto = np.clip(np.floor(whole).astype(np.int64) + 1 - self.first, 0, last)
            return reached[below], reached[upto]
        bucket = buckets_of(values)
        edges = bucket_edges(np.stack([bucket, bucket + 1]))
        inside = np.clip((values - edges[0]) / np.maximum(edges[1] - edges[0], 1e-300), 0, 1)
        at = bucket - self.first
        found = reached[np.clip(at, 0, last)] * (1 - inside) + reached[np.clip(at + 1, 0, last)] * inside
        return found, found


@jit
def _count_values(
    pixels: NDArray[Any], mask: NDArray[np.bool_], first: int, counts: Counts
) -> None:  # pragma: no cover - compiled
    """Adds each integer where the mask is True to `counts (band, value - first)`."""
    bands, rows, cols = pixels.shape
    for band in range(bands):
        for row in range(rows):
            for col in range(cols):
                if mask[row, col]:
                    counts[band, np.int64(pixels[band, row, col]) - first] += 1


@jit
def _count_buckets(
    pixels: NDArray[Any], bits: NDArray[np.uint32], mask: NDArray[np.bool_], counts: Counts, moments: Floats
) -> None:  # pragma: no cover - compiled
    """Adds each finite value where the mask is True to its bucket; writes the moments of each band.

    Each row is summed twice, about its own mean the second time, and rows are merged as `BandStats` are.
    """
    bands, rows, cols = pixels.shape
    for band in range(bands):
        number, centre, spread, low, high = 0, 0.0, 0.0, np.inf, -np.inf
        for row in range(rows):
            here, total = 0, 0.0
            for col in range(cols):
                value = np.float64(pixels[band, row, col])
                if mask[row, col] and np.isfinite(value):
                    here += 1
                    total += value
                    low, high = min(low, value), max(high, value)
                    raw = bits[band, row, col]
                    flipped = raw ^ (np.uint32(0x80000000) | np.uint32(np.int32(raw) >> 31))
                    counts[band, np.int64(flipped >> np.uint32(16))] += 1
            if here == 0:
                continue
            middle, about = total / here, 0.0
            for col in range(cols):
                value = np.float64(pixels[band, row, col])
                if mask[row, col] and np.isfinite(value):
                    about += (value - middle) * (value - middle)
            step, both = middle - centre, number + here
            spread += about + step * step * (number * (here / both))
            centre += step * (here / both)
            number = both
        moments[band] = np.array([float(number), centre, spread, low, high])


def count_values(pixels: NDArray[Any], mask: NDArray[np.bool_]) -> Histogram:
    """The values of integer pixels `(band, row, col)` of up to 16 bits where the mask is True."""
    limits = np.iinfo(pixels.dtype)
    counts = np.zeros((len(pixels), int(limits.max) - int(limits.min) + 1), np.int64)
    _count_values(pixels, mask, int(limits.min), counts)
    return _trimmed(counts, int(limits.min), exact=True)


def count_buckets(pixels: NDArray[Any], mask: NDArray[np.bool_]) -> tuple[Histogram, Floats]:
    """The finite values of any pixels `(band, row, col)` where the mask is True, in buckets, and their moments.

    Moments are float64 `(band, 5)`: number, mean, sum of squared deviations, smallest and largest value.
    """
    counts, moments = np.zeros((len(pixels), 65536), np.int64), np.zeros((len(pixels), 5))
    with np.errstate(over="ignore"):
        narrow = pixels.astype(np.float32, copy=False)
    _count_buckets(pixels, narrow.view(np.uint32), mask, counts, moments)
    return _trimmed(counts, 0, exact=False), moments


def _trimmed(counts: Counts, first: int, *, exact: bool) -> Histogram:
    """The histogram without the empty bins at either end."""
    found = np.flatnonzero(counts.any(0))
    if not found.size:
        return Histogram.empty(len(counts), exact=exact)
    start, stop = int(found[0]), int(found[-1]) + 1
    return Histogram(counts[:, start:stop].copy(), first + start, exact)
