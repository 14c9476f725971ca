"""Pixels that torchgeo gives as tensors, as pixels that sources give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.io.grids import Lattice
from geoseg.io.resample import Patch, resampling_named
from geoseg.tiling import Window

CODE_DTYPE = np.dtype(np.uint16)
"""Class codes: what a legend can hold, and what it translates fastest."""

CHUNK_PX = 1 << 22
"""Pixels that are read at once while thinning."""


def bands_of(values: Any) -> NDArray[Any]:
    """An image tensor `(band, row, col)`, `(row, col)` or `(time, band, row, col)` as `(band, row, col)`."""
    array = np.asarray(values)
    return array.reshape(-1, *array.shape[-2:])


def codes_of(values: Any) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """A mask tensor as class codes `(1, row, col)`, and which of them are codes; negative ones mean no class.

    Raises:
        ValueError: A code has a fraction or is above 65535, or the mask has more than one band.
    """
    array = bands_of(values)
    if len(array) != 1:
        raise ValueError(f"the mask has {len(array)} bands; needed is one band of class codes")
    valid = array[0] >= 0
    codes = np.where(valid, array, 0)
    if codes.size and (codes.max() > 65535 or (codes.dtype.kind == "f" and (codes != np.rint(codes)).any())):
        raise ValueError("the mask holds other values than class codes; needed are whole numbers up to 65535")
    return codes.astype(CODE_DTYPE), valid


def lattice_of(
    lattice: Lattice, shape: tuple[int, int], read: Callable[[Window], Patch], *, empty: Patch, resampling: str
) -> Patch:
    """The pixels of a lattice of a grid; those outside the grid are invalid.

    Args:
        lattice: What is asked for.
        shape: Rows and columns of the grid.
        read: Gives a window inside the grid.
        empty: A patch of the lattice's shape without a valid pixel; it is filled.
        resampling: How blocks of pixels become one.
    """
    factors, whole = lattice.factors, Window(0, 0, *shape)
    high = max(1, CHUNK_PX // max(1, lattice.cols * factors[0] * factors[1])) if factors != (1, 1) else lattice.rows
    for row in range(0, lattice.rows, max(1, high)):
        strip = Window(row, 0, min(high, lattice.rows - row), lattice.cols)
        asked = lattice.part(strip).window
        inside = asked.intersect(whole)
        if not (inside.rows and inside.cols):
            continue
        patch = _padded(read(inside), inside, asked)
        if factors != (1, 1):
            patch = resampling_named(resampling).thin(patch, factors)
        rows, cols = strip.slices
        empty.pixels[:, rows, cols], empty.valid[rows, cols] = patch.pixels, patch.valid
    return empty


def _padded(patch: Patch, inside: Window, asked: Window) -> Patch:
    """A patch of `inside` on `asked`, which is no smaller."""
    if inside == asked:
        return patch
    out = Patch.empty(len(patch.pixels), (asked.rows, asked.cols), patch.pixels.dtype)
    row, col = inside.row_off - asked.row_off, inside.col_off - asked.col_off
    out.pixels[:, row : row + inside.rows, col : col + inside.cols] = patch.pixels
    out.valid[row : row + inside.rows, col : col + inside.cols] = patch.valid
    return out
