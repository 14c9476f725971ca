"""Bilinear resampling of planes in memory, as torch does it (`functional.interpolate`), without torch.

Along an axis each new pixel is a weighted mean of a few old ones, its taps; one axis is resampled after the other. The
arithmetic is float32 throughout, so that the places of far pixels are rounded as torch rounds them.
"""

from __future__ import annotations

from math import ceil

import numpy as np
from numpy.typing import NDArray

F = np.float32


def resize(planes: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """`planes` (n, band, row, col) at another size, bilinear; averaged over what falls together when it shrinks.

    Args:
        planes: float32.
        shape: Rows and columns wanted.
    """
    rows, cols = planes.shape[2:]
    averaged = rows > shape[0] or cols > shape[1]  # then along both axes, as torch does
    for axis, size, wanted in ((3, cols, shape[1]), (2, rows, shape[0])):
        if size != wanted:
            planes = _along(planes, axis, *(area_taps if averaged else point_taps)(size, wanted))
    return planes


def point_taps(size: int, wanted: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Positions and weights `(new pixel, tap)` of the two old pixels beside each new pixel's centre.

    >>> point_taps(2, 4)[1][:, 1]
    array([0.  , 0.25, 0.75, 0.  ], dtype=float32)
    """
    scale = F(size) / F(wanted)
    centre = np.maximum(scale * (np.arange(wanted, dtype=F) + F(0.5)) - F(0.5), F(0))
    low = np.minimum(centre.astype(np.intp), size - 1)
    share = np.where(low == size - 1, F(0), centre - low.astype(F))
    return np.stack([low, np.minimum(low + 1, size - 1)], axis=1), np.stack([F(1) - share, share], axis=1)


def area_taps(size: int, wanted: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Positions and weights `(new pixel, tap)` of the old pixels under a triangle as wide as two new pixels.

    The triangle is never narrower than two old pixels; what of it lies outside is left out (Pillow's and torch's
    antialiased bilinear filter).
    """
    scale = F(size) / F(wanted)
    reach = max(scale, F(1))
    centre = scale * (np.arange(wanted, dtype=F) + F(0.5))
    first = np.maximum((centre - reach + F(0.5)).astype(np.intp), 0)
    stop = np.minimum((centre + reach + F(0.5)).astype(np.intp), size)
    taken = first[:, None] + np.arange(2 * ceil(reach) + 1)
    away = (taken.astype(F) - centre[:, None] + F(0.5)) / reach
    weight = np.where(taken < stop[:, None], np.maximum(F(1) - np.abs(away), F(0)), F(0))
    return np.minimum(taken, size - 1), weight / weight.sum(axis=1, keepdims=True)


def _along(
    planes: NDArray[np.float32], axis: int, taken: NDArray[np.intp], weights: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The weighted sum of the taps along an axis."""
    shape = [-1 if number == axis else 1 for number in range(planes.ndim)]
    total = np.take(planes, taken[:, 0], axis=axis) * weights[:, 0].reshape(shape)
    for tap in range(1, taken.shape[1]):
        total += np.take(planes, taken[:, tap], axis=axis) * weights[:, tap].reshape(shape)
    return total
