"""The inner loops of reading onto another grid, compiled; other threads run meanwhile."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.jit import jit


@jit
def interpolate_nodes(  # noqa: PLR0917 - compiled: positional only
    nodes: NDArray[np.float64],
    cell_row: NDArray[np.intp],
    cell_col: NDArray[np.intp],
    down: NDArray[np.float64],
    across: NDArray[np.float64],
    steps: float,
) -> NDArray[np.float64]:
    """`nodes` interpolated first along columns and then along rows, rounded to `steps` a pixel, `(row, col)`.

    `cell_row` and `down` say for each row which nodes it lies between and how far down; so do the others for columns.
    """
    found = np.empty((len(cell_row), len(cell_col)))
    for i in range(len(cell_row)):
        top, share = cell_row[i], down[i]
        for j in range(len(cell_col)):
            left, part = cell_col[j], across[j]
            upper = nodes[top, left] * (1 - part) + nodes[top, left + 1] * part
            lower = nodes[top + 1, left] * (1 - part) + nodes[top + 1, left + 1] * part
            found[i, j] = np.rint((upper * (1 - share) + lower * share) * steps) / steps
    return found


@jit
def span_inside(
    row: NDArray[np.float64], col: NDArray[np.float64], rows: int, cols: int
) -> tuple[float, float, float, float]:
    """Least and greatest row, least and greatest column of the points on a grid of `rows` and `cols`.

    The least are infinite where no point is. NaN is nowhere.
    """
    top, bottom, left, right = np.inf, -np.inf, np.inf, -np.inf
    for k in range(len(row)):
        if 0 <= row[k] < rows and 0 <= col[k] < cols:
            top, bottom = min(top, row[k]), max(bottom, row[k])
            left, right = min(left, col[k]), max(right, col[k])
    return top, bottom, left, right


@jit
def take_nearest(  # noqa: PLR0917 - compiled: positional only
    pixels: NDArray[Any],
    valid: NDArray[np.bool_],
    row: NDArray[np.float64],
    col: NDArray[np.float64],
    out: NDArray[Any],
    out_valid: NDArray[np.bool_],
) -> None:
    """Writes the pixels `(band, row, col)` under the points into `out` `(band, point)`; 0 and invalid outside."""
    rows, cols = valid.shape
    for k in range(len(row)):
        inside = 0 <= row[k] < rows and 0 <= col[k] < cols
        at_row, at_col = (int(row[k]), int(col[k])) if inside else (0, 0)
        out_valid[k] = inside and valid[at_row, at_col]
        for band in range(len(pixels)):
            if inside:
                out[band, k] = pixels[band, at_row, at_col]
            else:
                out[band, k] = 0


@jit
def take_box_means(  # noqa: PLR0917 - compiled: positional only
    pixels: NDArray[Any],
    valid: NDArray[np.bool_],
    row: NDArray[np.float64],
    col: NDArray[np.float64],
    high: float,
    wide: float,
    out: NDArray[np.float64],
    out_valid: NDArray[np.bool_],
) -> None:
    """Writes means of the valid pixels `(band, row, col)` in boxes around the points into `out` `(band, point)`.

    Pixels weigh as much as lies in the box, which is `high` rows by `wide` columns. Where no valid pixel is under the
    point, 0 and invalid.
    """
    rows, cols = valid.shape
    for k in range(len(row)):
        inside = 0 <= row[k] < rows and 0 <= col[k] < cols
        out_valid[k] = inside and valid[int(row[k]), int(col[k])]
        out[:, k] = 0
        if not out_valid[k]:
            continue
        top, bottom, left, right = row[k] - high / 2, row[k] + high / 2, col[k] - wide / 2, col[k] + wide / 2
        weight = 0.0
        for i in range(max(0, int(np.floor(top))), min(rows, int(np.ceil(bottom)))):
            for j in range(max(0, int(np.floor(left))), min(cols, int(np.ceil(right)))):
                if valid[i, j]:
                    share = (min(bottom, i + 1.0) - max(top, float(i))) * (min(right, j + 1.0) - max(left, float(j)))
                    weight += share
                    for band in range(len(pixels)):
                        out[band, k] += pixels[band, i, j] * share
        out[:, k] /= weight
