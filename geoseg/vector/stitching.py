"""Blocks put together: regions and arcs that go on across the seams between blocks become whole.

A block knows the boundaries between its own pixels. Those between two blocks, and around the map, are read off the
regions along the blocks' edges. Nothing here looks at pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.jit import jit
from geoseg.tiling import Window
from geoseg.vector.coverage import Arcs, Coverage, end_headings
from geoseg.vector.dissolve import join_arcs
from geoseg.vector.regions import Ints, Regions, Sums
from geoseg.vector.tracing import Traced, sums_like


def stitch(blocks: Iterable[Traced], *, shape: tuple[int, int]) -> Coverage:
    """The map's coverage. It is the same for any cut into blocks.

    Args:
        blocks: In any order; they tile the map in rows and columns, each row of blocks of one height.
        shape: Rows and columns of the map.

    Raises:
        InputError: The blocks do not tile the map.
    """
    grid = _Grid.of(list(blocks), shape)
    lut, regions = _whole_regions(grid)
    seams = [
        _along_seam(grid, above, below, lut, axis=axis) for axis in (0, 1) for above, below in grid.neighbours(axis)
    ]
    arcs = join_arcs(_all_pieces(grid, seams, lut))
    return Coverage(arcs, regions, shape)


class _Grid(NamedTuple):
    """Blocks in rows and columns.

    Attributes:
        blocks: In row-major order.
        across: Blocks in a row.
        starts: What is added to a block's regions for numbers that no two blocks share; one more at the end. Region 0
            of each block is 0 in all.
        shape: Rows and columns of the map.
    """

    blocks: list[Traced]
    across: int
    starts: list[int]
    shape: tuple[int, int]

    @classmethod
    def of(cls, blocks: list[Traced], shape: tuple[int, int]) -> _Grid:
        blocks = sorted(blocks, key=lambda block: (block.window.row_off, block.window.col_off))
        across = len({block.window.col_off for block in blocks})
        counts = np.array([block.regions.count for block in blocks], np.int64)
        grid = cls(blocks, across, [0, *np.cumsum(counts).tolist()], shape)
        _check_cover(grid)
        return grid

    def neighbours(self, axis: int) -> Iterator[tuple[int | None, int | None]]:
        """Pairs of blocks that share an edge, above and below (0) or left and right (1); None is outside the map."""
        down = len(self.blocks) // self.across
        for index in range(len(self.blocks)):
            row, col = divmod(index, self.across)
            step, last, at = (self.across, down - 1, row) if axis == 0 else (1, self.across - 1, col)
            if at == 0:
                yield None, index
            yield index, (index + step if at < last else None)

    def along(self, index: int | None, edge: str, lut: NDArray[np.int32], *, size: int) -> NDArray[np.int32]:
        """Regions of the map along a block's edge; 0 outside."""
        if index is None:
            return np.zeros(size, np.int32)
        return lut[self.own(index, edge)]

    def own(self, index: int, edge: str) -> NDArray[np.int64]:
        """Regions along a block's edge, in numbers that no two blocks share."""
        labels = self.blocks[index].edges[edge]
        return np.where(labels == 0, 0, labels.astype(np.int64) + self.starts[index])


NO_ARCS = Arcs(
    np.empty((0, 2), np.int32), np.zeros(1, np.int64), np.empty(0, np.int32), np.empty(0, np.int32),
    np.empty((0, 2), np.int32), np.empty((0, 2), np.uint8), 0,
)  # fmt: skip

SIDES = (("bottom", "top"), ("right", "left"))
"""Edges that two neighbours share, above and below (0) or left and right (1)."""


def _check_cover(grid: _Grid) -> None:
    windows = [block.window for block in grid.blocks]
    tops, lefts = (sorted({getattr(window, name) for window in windows}) for name in ("row_off", "col_off"))
    edges = [*tops, grid.shape[0]], [*lefts, grid.shape[1]]
    wanted = [
        Window(top, left, bottom - top, right - left)
        for top, bottom in pairwise(edges[0]) for left, right in pairwise(edges[1])
    ]  # fmt: skip
    if not windows or windows != wanted or (tops[0], lefts[0]) != (0, 0):
        raise InputError(f"{len(windows)} blocks do not tile a map of {grid.shape} (row, col) in rows and columns")


def _whole_regions(grid: _Grid) -> tuple[NDArray[np.int32], Regions]:
    """The map's region for each region of a block (`_Grid.own`), and what is known of the map's regions."""
    total = grid.starts[-1]
    classes = np.concatenate([np.zeros(1, _dtype(grid)), *(block.regions.classes[1:] for block in grid.blocks)])
    parent = np.arange(total + 1)
    for axis, (before, after) in enumerate(SIDES):
        for first, second in grid.neighbours(axis):
            if first is not None and second is not None:
                _unite_along(parent, grid.own(first, before), grid.own(second, after), classes)
    _flatten(parent)
    firsts = np.concatenate([np.full(1, -1), *(block.regions.first[1:] for block in grid.blocks)])
    return _numbered(grid, parent, firsts, classes)


def _numbered(grid: _Grid, parent: Ints, first: Ints, classes: NDArray[Any]) -> tuple[NDArray[np.int32], Regions]:
    """Regions numbered by their first pixels."""
    earliest = first.copy()
    np.minimum.at(earliest, parent, first)
    roots = np.flatnonzero(parent == np.arange(len(parent)))
    roots = roots[np.argsort(earliest[roots], kind="stable")]  # nodata's -1 comes first
    number = np.empty(len(parent), np.int32)
    number[roots] = np.arange(len(roots), dtype=np.int32)
    lut = number[parent]
    pixels = np.zeros(len(roots), np.int64)
    _add_each(pixels, lut, np.concatenate([[0], *(block.regions.pixels[1:] for block in grid.blocks)]))
    names = grid.blocks[0].regions.values
    values = {name: _summed([block.regions.values[name] for block in grid.blocks], lut, len(roots)) for name in names}
    return lut, Regions(classes[roots], pixels, earliest[roots], values)


def _summed(parts: Sequence[Sums], lut: NDArray[np.int32], size: int) -> Sums:
    """The sums of whole regions; what lies in nodata is left out."""
    out = sums_like(parts[0].total.dtype, count=size - 1)
    for name in ("total", "count"):
        _add_each(getattr(out, name), lut[1:], np.concatenate([getattr(part, name)[1:] for part in parts]))
    np.minimum.at(out.low, lut[1:], np.concatenate([part.low[1:] for part in parts]))
    return out


def _dtype(grid: _Grid) -> np.dtype[Any]:
    return np.dtype(np.result_type(*{block.regions.classes.dtype for block in grid.blocks}))


def _along_seam(
    grid: _Grid, before: int | None, after: int | None, lut: NDArray[np.int32], *, axis: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Straight pieces between two blocks: ends `(piece, 2, xy)`, and the regions on the left and right `(piece, 2)`."""
    known = grid.blocks[after if after is not None else before or 0].window
    at = (known.row_off, known.col_off)[axis] if after is not None else (known.row_stop, known.col_stop)[axis]
    start, size = (known.col_off, known.cols) if axis == 0 else (known.row_off, known.rows)
    low, high = (
        grid.along(index, edge, lut, size=size) for index, edge in zip((before, after), SIDES[axis], strict=True)
    )
    changes = np.flatnonzero((np.diff(low) != 0) | (np.diff(high) != 0)) + 1
    runs = np.concatenate([[0], changes, [size]])
    parted = np.flatnonzero(low[runs[:-1]] != high[runs[:-1]])
    ends = np.empty((len(parted), 2, 2), np.int32)
    ends[:, 0, axis], ends[:, 1, axis] = runs[parted] + start, runs[parted + 1] + start
    ends[:, :, 1 - axis] = at
    low, high = low[runs[parted]], high[runs[parted]]
    # Eastwards what is above lies on the left; southwards what is on the left lies on the right.
    return ends, np.stack([low, high] if axis == 0 else [high, low], axis=1)


def _all_pieces(
    grid: _Grid, seams: Sequence[tuple[NDArray[np.int32], NDArray[np.int32]]], lut: NDArray[np.int32]
) -> Arcs:
    """Arcs of all blocks and seams as one set; those that go on across a seam are still cut there.

    The blocks lose theirs, so that not all are held twice.
    """
    ends = np.concatenate([ends for ends, _ in seams])
    sides = np.concatenate([sides for _, sides in seams])
    key = ends[..., 1].astype(np.int64) * (grid.shape[1] + 1) + ends[..., 0]
    corners, junctions = _numbered_corners([*(block.corners for block in grid.blocks), key.ravel()])
    size = sum(len(block.arcs.left) for block in grid.blocks) + len(ends)
    vertices = sum(len(block.arcs.coords) for block in grid.blocks) + 2 * len(ends)
    out = Arcs(
        np.empty((vertices, 2), np.int32), np.zeros(size + 1, np.int64), np.empty(size, np.int32),
        np.empty(size, np.int32), np.empty((size, 2), np.int32), np.empty((size, 2), np.uint8), corners,
    )  # fmt: skip
    arc = vertex = 0
    for index, block in enumerate(grid.blocks):
        arcs, own = block.arcs, np.concatenate([[0], lut[grid.starts[index] + 1 : grid.starts[index + 1] + 1]])
        number = np.append(junctions[index], np.int32(-1))  # a closed arc's -1 picks the -1 at the end
        piece = arcs._replace(left=own[arcs.left], right=own[arcs.right], junctions=number[arcs.junctions])
        arc, vertex = _put(out, piece, arc, vertex)
        grid.blocks[index] = replace(block, arcs=NO_ARCS)
    flat = ends.reshape(-1, 2)
    offsets = np.arange(len(ends) + 1, dtype=np.int64) * 2
    met = junctions[-1].reshape(-1, 2)
    _put(out, Arcs(flat, offsets, sides[:, 0], sides[:, 1], met, end_headings(flat, offsets), 0), arc, vertex)
    return out


def _put(out: Arcs, piece: Arcs, arc: int, vertex: int) -> tuple[int, int]:
    """Writes arcs into `out`, from an arc and a vertex on. Returns what comes after."""
    arc_stop, vertex_stop = arc + len(piece.left), vertex + len(piece.coords)
    out.coords[vertex:vertex_stop] = piece.coords
    out.offsets[arc + 1 : arc_stop + 1] = piece.offsets[1:] + vertex
    for name in ("left", "right", "junctions", "leaving"):
        getattr(out, name)[arc:arc_stop] = getattr(piece, name)
    return arc_stop, vertex_stop


def _numbered_corners(parts: Sequence[Ints]) -> tuple[int, list[NDArray[np.int32]]]:
    """Numbers for corners, the same for the same corner; how many, and the numbers in the parts given."""
    corners, numbers = np.unique(np.concatenate(parts), return_inverse=True)
    stops = np.cumsum([len(part) for part in parts])
    return len(corners), np.split(numbers.astype(np.int32), stops[:-1])


@jit
def _root(parent: Ints, label: int) -> int:
    while parent[label] != label:
        parent[label] = parent[parent[label]]
        label = parent[label]
    return label


@jit
def _unite_along(parent: Ints, first: Ints, second: Ints, classes: NDArray[Any]) -> None:
    """Makes one of regions of one class that touch along a seam; a set's root is its lowest number."""
    for at in range(first.shape[0]):
        one, other = first[at], second[at]
        if one != 0 and other != 0 and classes[one] == classes[other]:
            one, other = _root(parent, one), _root(parent, other)
            parent[max(one, other)] = min(one, other)


@jit
def _flatten(parent: Ints) -> None:
    for label in range(parent.shape[0]):  # a parent is lower than its child, so it is a root already
        parent[label] = parent[parent[label]]


@jit
def _add_each(out: NDArray[Any], index: NDArray[np.int32], values: NDArray[Any]) -> None:
    for at in range(index.shape[0]):
        out[index[at]] += values[at]
