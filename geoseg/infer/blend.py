"""Blending: how overlapping tiles are weighted.

A window is separable: the weight at a pixel is the product of a weight along the rows and one along the columns. Along
an axis the lattice is known beforehand, so its weights are divided by their sum there: they add up to one at each pixel
and no sum of weights has to be carried along.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.tiling import Axis


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
