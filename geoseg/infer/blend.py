"""Blending: how overlapping tiles are weighted, and the running sum of their class probabilities.

A window is separable: the weight at a pixel is the product of a weight along the rows and one along the columns. Along
an axis the lattice is known beforehand, so its weights are divided by their sum there: they add up to one at each pixel
and no sum of weights has to be carried along.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.tiling import Axis

NO_NUMBER = 254  # a percentage that says: the network gave NaN here


def hann(ramp: NDArray[np.float64]) -> NDArray[np.float64]:
    """The raised cosine (Blackman, Tukey 1958): a quarter turn of sin², 0 at the tile's border, 1 past the overlap."""
    return np.sin(np.pi / 2 * ramp) ** 2


def triangle(ramp: NDArray[np.float64]) -> NDArray[np.float64]:
    """A straight line, 0 at the tile's border, 1 past the overlap."""
    return ramp


def flat(ramp: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same weight everywhere: the plain mean."""
    return np.ones_like(ramp)


BLENDS: Mapping[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "hann": hann,
    "triangle": triangle,
    "flat": flat,
}


def window(tile: int, overlap: int, *, blend: str = "hann") -> NDArray[np.float64]:
    """Weights `(tile,)` along one axis of a tile, float64, above zero everywhere.

    Args:
        tile: Pixels along the axis.
        overlap: Pixels that neighbouring tiles share; the weight rises over these.
        blend: A name in `BLENDS`.

    Raises:
        InputError: The blend is unknown.

    >>> window(6, 2, blend="triangle")
    array([0.25, 0.75, 1.  , 1.  , 0.75, 0.25])
    """
    if blend not in BLENDS:
        raise InputError(f"blend '{blend}' is unknown; known are {', '.join(BLENDS)}")
    centre = np.arange(tile) + 0.5  # pixel centres lie half a pixel inside, so no weight is zero
    to_border = np.minimum(centre, tile - centre)
    return BLENDS[blend](np.minimum(to_border / max(overlap, 0.5), 1.0))


def axis_weights(axis: Axis, *, blend: str = "hann") -> NDArray[np.float32]:
    """Weights `(tile index, pixel of the tile)` of every tile along an axis; they sum to 1 at each pixel covered.

    Raises:
        InputError: The blend is unknown.
    """
    one = window(axis.tile, axis.overlap, blend=blend)
    total = np.zeros((axis.count - 1) * axis.stride + axis.tile)
    for index in range(axis.count):
        total[index * axis.stride :][: axis.tile] += one
    shares = [one / total[index * axis.stride :][: axis.tile] for index in range(axis.count)]
    return np.asarray(shares, np.float32)


@dataclass(frozen=True, slots=True)
class Arrays:
    """A library of arrays on a device, as far as blending needs it: numpy, or torch on one device.

    Attributes:
        zeros: float32 zeros of a shape, on the device.
        best: The highest of scores `(class, row, col)`, NaN where one is NaN, and its channel: the lowest at a tie.
        percent: Probabilities as whole percent, and `NO_NUMBER` for NaN.
        to_device: An array of the device from a numpy array.
        to_host: A numpy array of a dtype from one of the device.
    """

    zeros: Callable[[tuple[int, ...]], Any]
    best: Callable[[Any], tuple[Any, Any]]
    percent: Callable[[Any], Any]
    to_device: Callable[[NDArray[Any]], Any]
    to_host: Callable[[Any, type[np.generic]], NDArray[Any]]


NUMPY = Arrays(
    zeros=lambda shape: np.zeros(shape, np.float32),
    best=lambda scores: (scores.max(axis=0), scores.argmax(axis=0)),
    percent=lambda scores: np.where(np.isnan(scores), NO_NUMBER, np.round(scores * 100)),
    to_device=np.asarray,
    to_host=lambda array, dtype: array.astype(dtype),
)


class Accumulator:
    """The running sum of weighted class probabilities over a strip, one row of tiles high.

    Tiles are added in lattice order, row by row; rows that no later tile reaches are finished and rolled out. Every
    operation rounds once (no fused multiply-add), so the sum has the same bits wherever and however it is made.
    """

    def __init__(self, arrays: Arrays, *, classes: int, rows: int, cols: int) -> None:
        self._arrays = arrays
        self._scores = arrays.zeros((classes, rows, cols))

    def add(self, weighted: Any, *, col_off: int) -> None:
        """Add a tile `(class, row, col)`; its first column lies at `col_off`, and what lies outside is left out."""
        left, right = max(col_off, 0), min(col_off + weighted.shape[2], self._scores.shape[2])
        if left < right:
            self._scores[:, : weighted.shape[1], left:right] += weighted[:, :, left - col_off : right - col_off]

    def finish(self, rows: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Channel of the highest score (uint8, or uint16) and its percentage in the first `rows`, both `(row, col)`.

        The lowest channel wins a tie. The percentage is 0 to 100, or `NO_NUMBER` where a score is NaN.
        """
        score, channel = self._arrays.best(self._scores[:, :rows])
        small = np.uint8 if self._scores.shape[0] <= 256 else np.uint16
        to_host = self._arrays.to_host
        return to_host(channel, small), to_host(self._arrays.percent(score), np.uint8)

    def roll(self, rows: int) -> None:
        """Let the first `rows` go and make as many empty ones below."""
        keep = self._scores.shape[1] - rows
        self._scores[:, :keep] = self._scores[:, rows:] * 1  # a copy in any library: the two may overlap
        self._scores[:, keep:] = 0


def weigh(probabilities: Any, row_weights: Any, col_weights: Any) -> Any:
    """Probabilities `(class, row, col)` times the window."""
    return probabilities * (row_weights[:, None] * col_weights[None, :])
