"""Band statistics in one streaming pass, merged exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.data.patches import row_blocks
from geoseg.data.scene import TRAINING, SceneArrays


@dataclass(frozen=True, slots=True, eq=False)
class BandStats:
    """Count, mean, sum of squared deviations, smallest and largest value of each band; float64 `(band,)`.

    Two of them merge into that of all their pixels (Chan, Golub and LeVeque 1983, "Algorithms for computing the sample
    variance", eq. 2.1).
    """

    count: int
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @property
    def std(self) -> NDArray[np.float64]:
        """Standard deviation of the pixels (divided by their count); 1 for a band that is constant."""
        spread = np.sqrt(self.squares / max(self.count, 1))
        return np.where(spread > 0, spread, 1.0)

    @classmethod
    def of(cls, values: NDArray[Any]) -> BandStats:
        """Statistics of `(band, pixel)`."""
        bands, count = values.shape
        if not count:
            nothing = np.zeros(bands)
            return cls(0, nothing, nothing, nothing + np.inf, nothing - np.inf)
        wide = values.astype(np.float64)
        mean = wide.mean(1)
        return cls(count, mean, np.square(wide - mean[:, None]).sum(1), wide.min(1), wide.max(1))

    def merge(self, other: BandStats) -> BandStats:
        """Statistics of the pixels of both."""
        count = self.count + other.count
        if not (self.count and other.count):
            return self if self.count else other
        step = other.mean - self.mean
        squares = self.squares + other.squares + step**2 * (self.count * other.count / count)
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        return BandStats(count, self.mean + step * (other.count / count), squares, low, high)


def training_statistics(scenes: Sequence[SceneArrays]) -> BandStats:
    """Statistics over the valid training pixels of all scenes."""
    blocks = (
        BandStats.of(scene.pixels[:, start:stop][:, scene.part[start:stop] == TRAINING])
        for scene in scenes
        for start, stop in row_blocks((len(scene.bands) * 4, *scene.shape), np.dtype(np.float64))
    )
    return reduce(BandStats.merge, blocks)


def class_pixels(scenes: Sequence[SceneArrays], *, part: int, classes: int) -> NDArray[np.int64]:
    """Labelled pixels of each class, `(class,)`, in one part of all scenes."""
    total = np.zeros(classes, np.int64)
    for scene in scenes:
        for start, stop in row_blocks((8, *scene.shape), scene.labels.dtype):
            told = scene.labels[start:stop][scene.part[start:stop] == part]
            total += np.bincount(told[told != scene.no_label], minlength=classes)[:classes]
    return total
