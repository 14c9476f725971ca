"""How far the confidence of a map can be believed: counts by confidence, and the calibration error from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVELS = 256  # steps in which confidence is counted, those of a uint8 confidence map


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """Counts of pixels by confidence; sums of two are the counts of both.

    Attributes:
        counts: int64 `(level, 2)`: labelled pixels whose confidence is `level / 255`, wrong and right ones.
    """

    counts: NDArray[np.int64]

    @classmethod
    def of(cls, level: NDArray[np.uint8], right: NDArray[np.bool_]) -> Reliability:
        """The counts of pixels with confidence `level / 255`, of which `right` have the right class."""
        pairs = level.ravel().astype(np.int64) * 2 + right.ravel()
        return cls(np.bincount(pairs, minlength=2 * LEVELS).reshape(LEVELS, 2))

    def __add__(self, other: Reliability) -> Reliability:
        """The counts of both."""
        return Reliability(self.counts + other.counts)

    def bins(self, *, bins: int = 15) -> NDArray[np.float64]:
        """Mean confidence, accuracy and share of the pixels in bins of equal width, `(bin, 3)`; NaN in empty ones."""
        levels = np.arange(LEVELS)
        edges = np.minimum(levels * bins // (LEVELS - 1), bins - 1)
        pixels, right, confidence = (
            np.bincount(edges, weights=values, minlength=bins)
            for values in (self.counts.sum(1), self.counts[:, 1], self.counts.sum(1) * levels / (LEVELS - 1))
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.stack([confidence / pixels, right / pixels, pixels / pixels.sum()], 1)

    def expected_error(self, *, bins: int = 15) -> float:
        """Expected calibration error: mean of |confidence - accuracy| (Guo et al. 2017, eq. 3); NaN without pixels."""
        found = self.bins(bins=bins)
        if not self.counts.any():
            return float("nan")
        return float(np.nansum(np.abs(found[:, 0] - found[:, 1]) * found[:, 2]))
