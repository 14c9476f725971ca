"""Which pixels lie within a distance of marked ones, strip by strip, exactly."""

from __future__ import annotations

from math import floor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.jit import jit

FAR = 1 << 30  # rows to nowhere


def widths_within(reach_m: float, gsd_m: tuple[float, float]) -> NDArray[np.int64]:
    """How many pixels to each side lie within `reach_m` of a pixel, by rows away from it: `(row,)`.

    >>> widths_within(50.0, (10.0, 10.0)).tolist()
    [5, 4, 4, 4, 3, 0]
    """
    down, across = gsd_m
    rows = np.arange(floor(reach_m / down * (1 + 1e-12)) + 1) * down
    left = np.sqrt(np.maximum(reach_m**2 - rows**2, 0)) / across
    return np.asarray(np.floor(left * (1 + 1e-12)), np.int64)


@jit
def rows_below(marked: NDArray[np.bool_], below: NDArray[Any]) -> None:
    """Turns rows from a strip's end to the next mark, `(col,)`, into rows from its first row to the next one."""
    rows, cols = marked.shape
    for col in range(cols):
        below[col] += rows
    for row in range(rows - 1, -1, -1):
        for col in range(cols):
            if marked[row, col]:
                below[col] = row


@jit
def within_reach(
    marked: NDArray[np.bool_], above: NDArray[Any], below: NDArray[Any], widths: NDArray[Any]
) -> NDArray[np.bool_]:
    """Where a strip lies within reach of a mark, in it or beyond its first and last row.

    The vertical part of a distance is found column by column, the horizontal one by spreading along each row as far as
    that leaves room (in the manner of Meijster, Roerdink and Hesselink 2000, "A general algorithm for computing
    distance transforms in linear time", where only a threshold is asked for).

    Args:
        marked: The marks, `(row, col)`.
        above: Rows from each column's mark before the strip to the row before the strip, `(col,)`; is turned into that
            for the next strip.
        below: Rows from the row after the strip to each column's next mark.
        widths: Of `widths_within`.
    """
    rows, cols = marked.shape
    away = np.empty((rows, cols), np.int32)
    last = below.copy()
    for row in range(rows - 1, -1, -1):
        for col in range(cols):
            last[col] = 0 if marked[row, col] else last[col] + 1
            away[row, col] = last[col]
    near = np.zeros((rows, cols), np.bool_)
    for row in range(rows):
        right = -1
        for col in range(cols):
            above[col] = 0 if marked[row, col] else above[col] + 1
            away[row, col] = min(away[row, col], above[col])
            if away[row, col] < widths.size:
                right = max(right, col + widths[away[row, col]])
            if col <= right:
                near[row, col] = True
        left = cols
        for col in range(cols - 1, -1, -1):
            if away[row, col] < widths.size:
                left = min(left, col - widths[away[row, col]])
            if col >= left:
                near[row, col] = True
    return near
