"""Where the pixel centres of one grid lie on another, by a lattice of exact coordinates.

Coordinates of pixels are `(row, col)` with the first pixel covering 0 to 1, so its centre is at 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor
from typing import TYPE_CHECKING

import numpy as np
from odc.geo.geobox import GeoBox

from geoseg.io.grids import apply, same_crs, to_pixels
from geoseg.io.kernels import interpolate_nodes
from geoseg.tiling import Window

if TYPE_CHECKING:
    from numpy.typing import NDArray

NODE_PX = 32
"""Pixels between two nodes of the coordinate lattice."""

CURVED_PX = 0.02
"""Cells of the lattice that bend more than this are transformed pixel by pixel."""

STEPS_PER_PX = 1024.0
"""Coordinates are rounded to such steps, so that a window of a read is the read of that window, to the last bit."""


def _nodes(geobox: GeoBox) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows and columns of lattice nodes around `geobox`; the same places on the ground for any window of a grid."""
    found = []
    col, row = apply(~geobox.affine, 0.0, 0.0)
    for origin, size in ((row, geobox.shape[0]), (col, geobox.shape[1])):
        # The odd fraction keeps the usual origins, whole and half pixels, away from where rounding would flip.
        first = -(floor(-origin + 0.3819) % NODE_PX)
        found.append(np.arange(first, size + NODE_PX, NODE_PX, dtype=float))
    return found[0], found[1]


def _halved(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Evenly spaced places and the middles between them."""
    return np.linspace(places[0], places[-1], 2 * len(places) - 1)


def _curved(exact: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The cells of a lattice in whose middle, or on whose edges, its nodes mislead by more than `CURVED_PX`.

    A conformal map may bend along one axis as much as it bends back along the other: true in the middle of a cell it is
    off on the edges.

    Args:
        exact: What is interpolated, at the nodes and half-way between them.
    """
    nodes = exact[::2, ::2]
    across, down = (nodes[:, :-1] + nodes[:, 1:]) / 2, (nodes[:-1] + nodes[1:]) / 2
    with np.errstate(invalid="ignore"):
        flat = ~(np.abs(across - exact[::2, 1::2]) <= CURVED_PX)
        upright = ~(np.abs(down - exact[1::2, ::2]) <= CURVED_PX)
        middle = ~(np.abs((across[:-1] + across[1:]) / 2 - exact[1::2, 1::2]) <= CURVED_PX)
    return np.asarray(middle | flat[:-1] | flat[1:] | upright[:, :-1] | upright[:, 1:])


@dataclass(frozen=True, slots=True)
class PixelMap:
    """Where the pixel centres of a geobox lie on a grid.

    Between the nodes of a lattice that is fixed on the ground coordinates are interpolated; cells in which that is
    wrong by more than `CURVED_PX` are marked, and transformed pixel by pixel.
    """

    geobox: GeoBox
    grid: GeoBox
    node_rows: NDArray[np.float64]
    node_cols: NDArray[np.float64]
    row: NDArray[np.float64]
    col: NDArray[np.float64]
    curved: NDArray[np.bool_]

    @classmethod
    def between(cls, geobox: GeoBox, grid: GeoBox) -> PixelMap:
        """The map from pixels of `geobox` to pixels of `grid`."""
        rows, cols = _nodes(geobox)
        if same_crs(geobox.crs, grid.crs) and not (grid.crs is not None and grid.crs.geographic):
            row, col = to_pixels(*np.meshgrid(rows, cols, indexing="ij"), geobox, grid)
            curved = np.zeros((len(rows) - 1, len(cols) - 1), dtype=bool)
            return cls(geobox, grid, rows, cols, row, col, curved)
        exact = to_pixels(*np.meshgrid(_halved(rows), _halved(cols), indexing="ij"), geobox, grid)
        row, col = (np.ascontiguousarray(each[::2, ::2]) for each in exact)
        curved = _curved(exact[0]) | _curved(exact[1])
        return cls(geobox, grid, rows, cols, row, col, curved)

    def coordinates(self, window: Window) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Rows and columns on the grid of the pixel centres of `window`; NaN where they have no place there."""
        rows = np.arange(window.row_off, window.row_stop, dtype=np.float64) + np.float64(0.5)
        cols = np.arange(window.col_off, window.col_stop, dtype=np.float64) + np.float64(0.5)
        cell_row, cell_col = self._cell(rows, self.node_rows), self._cell(cols, self.node_cols)
        down = (rows - self.node_rows[cell_row]) / NODE_PX
        across = (cols - self.node_cols[cell_col]) / NODE_PX
        found = [
            interpolate_nodes(nodes, cell_row, cell_col, down, across, STEPS_PER_PX) for nodes in (self.row, self.col)
        ]
        self._mend(found, rows, cols)
        return found[0], found[1]

    def _cell(self, positions: NDArray[np.float64], nodes: NDArray[np.float64]) -> NDArray[np.intp]:
        return np.asarray(np.floor_divide(positions - nodes[0], NODE_PX), dtype=np.intp)

    def _mend(self, found: list[NDArray[np.float64]], rows: NDArray[np.float64], cols: NDArray[np.float64]) -> None:
        """Transform the pixels of curved cells one by one, in place."""
        cell_row, cell_col = self._cell(rows, self.node_rows), self._cell(cols, self.node_cols)
        wrong = self.curved[cell_row][:, cell_col]
        if not wrong.any():
            return
        at_row, at_col = np.nonzero(wrong)
        row, col = to_pixels(rows[at_row], cols[at_col], self.geobox, self.grid)
        for whole, exact in zip(found, (row, col), strict=True):
            whole[wrong] = np.round(exact * STEPS_PER_PX) / STEPS_PER_PX
