"""Arcs of a region raster: each boundary between two regions is traced once, from junction to junction.

Everything here is in pixel corners: x is the column, y the row of a corner, both integers, y downwards; arcs that were
smoothed count in fractions of a pixel, `scale` to each. "Left" and "right" are those of somebody who walks along the
arc and sees the raster as it is printed. A *junction* is a corner where more than two boundary edges meet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.jit import jit
from geoseg.vector.regions import Ints, Regions

# Headings 0 to 3: east, south, west, north. A corner's byte has bit `heading` where an edge leaves it that way.
_STEP_X = np.array([1, 0, -1, 0])
_STEP_Y = np.array([0, 1, 0, -1])
# The pixel on the left (first row) and on the right of an edge, counted from the corner that it leaves.
_ROW_BESIDE = np.array([[-1, 0, 0, -1], [0, 0, -1, -1]])
_COL_BESIDE = np.array([[0, 0, -1, -1], [0, -1, -1, 0]])
_DEGREE = np.array([bits.bit_count() for bits in range(16)])
# One edge ends where a block does; two are a line that goes on.
_IS_JUNCTION = np.array([bits.bit_count() not in (0, 2) for bits in range(16)])
_ONLY = np.array([{1: 0, 2: 1, 4: 2, 8: 3}.get(bits, -1) for bits in range(16)])


class Arcs(NamedTuple):
    """Every boundary between two regions, once; a named tuple, so that compiled functions take it whole.

    Attributes:
        coords: Corners `(vertex, xy)`, int32: the ends and the turns of each arc.
        offsets: Arc `i` is `coords[offsets[i]:offsets[i + 1]]`, int64 `(arc + 1,)`.
        left: Region on the left of each arc, int32 `(arc,)`.
        right: Region on the right.
        junctions: Junction at the start and at the end, int32 `(arc, 2)`; -1 for a closed arc that meets no other.
        leaving: Heading, 0 to 3, with which the arc left those two junctions when it was traced, uint8 `(arc, 2)`.
            Together with `junctions` it is the topology, which no simplification changes.
        junction_count: Number of junctions.
        scale: Units of `coords` in a pixel's side: 1 where vertices are pixel corners.
    """

    coords: NDArray[np.int32]
    offsets: Ints
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    junctions: NDArray[np.int32]
    leaving: NDArray[np.uint8]
    junction_count: int
    scale: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Coverage:
    """A map as regions and the boundaries between them.

    Attributes:
        arcs: The boundaries; `left` and `right` are regions, 0 is nodata and everything outside.
        regions: What is known of each region, nodata first.
        shape: Rows and columns of the map.
    """

    arcs: Arcs
    regions: Regions
    shape: tuple[int, int]


def trace_arcs(regions: NDArray[np.int32], *, outline: bool = True) -> Arcs:
    """Arcs of a region raster `(row, col)`, 0 = nodata.

    Args:
        regions: Region of each pixel.
        outline: Whether the raster's edge is a boundary too, with nodata outside. Without it, as for a block of a
            larger map, arcs end where they meet that edge, at junctions of their own.

    >>> arcs = trace_arcs(np.array([[1, 1, 2]], np.int32))
    >>> [arcs.coords[a:b].tolist() for a, b in zip(arcs.offsets[:-1], arcs.offsets[1:])]
    [[[2, 0], [3, 0], [3, 1], [2, 1]], [[2, 0], [2, 1]], [[2, 0], [0, 0], [0, 1], [2, 1]]]
    >>> arcs.left.tolist(), arcs.right.tolist()
    ([0, 2, 1], [2, 1, 0])
    """
    edges = _corner_edges(regions, outline)
    turns, ends, junctions = _count_corners(edges)
    most = ends // 2 + turns // 4
    arcs = Arcs(
        coords=np.empty((turns + ends + turns // 4, 2), np.int32),
        offsets=np.zeros(most + 1, np.int64),
        left=np.empty(most, np.int32),
        right=np.empty(most, np.int32),
        junctions=np.full((most, 2), -1, np.int32),
        leaving=np.empty((most, 2), np.uint8),
        junction_count=junctions,
    )
    count = _trace(regions, edges, _index_junctions(edges, junctions), arcs)
    return _cut(arcs, count)


def _cut(arcs: Arcs, count: int) -> Arcs:
    """The first arcs alone, in arrays of their own, with the headings of their ends."""
    offsets = arcs.offsets[: count + 1].copy()
    coords = arcs.coords[: offsets[-1]].copy()
    return Arcs(
        coords, offsets, arcs.left[:count].copy(), arcs.right[:count].copy(), arcs.junctions[:count].copy(),
        end_headings(coords, offsets), arcs.junction_count,
    )  # fmt: skip


@jit
def _corner_edges(regions: NDArray[np.int32], outline: bool) -> NDArray[np.uint8]:  # noqa: FBT001
    """A byte a corner `(row + 1, col + 1)`: which of its four edges part two regions, low nibble; a copy, high."""
    rows, cols = regions.shape
    edges = np.zeros((rows + 1, cols + 1), np.uint8)
    for row in range(rows):
        for col in range(cols):
            if row > 0 and regions[row, col] != regions[row - 1, col]:
                edges[row, col] |= np.uint8(0x11)
                edges[row, col + 1] |= np.uint8(0x44)
            if col > 0 and regions[row, col] != regions[row, col - 1]:
                edges[row, col] |= np.uint8(0x22)
                edges[row + 1, col] |= np.uint8(0x88)
    if outline:
        _add_outline(regions, edges)
    return edges


@jit
def _add_outline(regions: NDArray[np.int32], edges: NDArray[np.uint8]) -> None:
    """Adds the edges between the raster and the nodata outside."""
    rows, cols = regions.shape
    for row, inner in ((0, 0), (rows, rows - 1)):
        for col in range(cols):
            if regions[inner, col] != 0:
                edges[row, col] |= np.uint8(0x11)
                edges[row, col + 1] |= np.uint8(0x44)
    for col, inner in ((0, 0), (cols, cols - 1)):
        for row in range(rows):
            if regions[row, inner] != 0:
                edges[row, col] |= np.uint8(0x22)
                edges[row + 1, col] |= np.uint8(0x88)


@jit
def _count_corners(edges: NDArray[np.uint8]) -> tuple[int, int, int]:
    """Corners where a single boundary turns; edges that end at junctions; junctions."""
    turns, ends, junctions = 0, 0, 0
    for row in range(edges.shape[0]):
        for col in range(edges.shape[1]):
            bits = edges[row, col] & 15
            if _IS_JUNCTION[bits]:
                junctions += 1
                ends += _DEGREE[bits]
            elif bits not in (0, 5, 10):
                turns += 1
    return turns, ends, junctions


@jit
def _index_junctions(edges: NDArray[np.uint8], count: int) -> tuple[Ints, NDArray[np.int32]]:
    """Junctions in row-major order: the first of each row, and the column of each."""
    row_starts = np.zeros(edges.shape[0] + 1, np.int64)
    cols = np.empty(count, np.int32)
    at = 0
    for row in range(edges.shape[0]):
        for col in range(edges.shape[1]):
            if _IS_JUNCTION[edges[row, col] & 15]:
                cols[at] = col
                at += 1
        row_starts[row + 1] = at
    return row_starts, cols


@jit
def _junction_at(index: tuple[Ints, NDArray[np.int32]], x: int, y: int) -> int:
    row_starts, cols = index
    low, high = row_starts[y], row_starts[y + 1]
    while low < high:
        middle = (low + high) // 2
        if cols[middle] < x:
            low = middle + 1
        else:
            high = middle
    return int(low)


@jit
def _follow(
    edges: NDArray[np.uint8], start: tuple[int, int, int], coords: NDArray[np.int32], at: int
) -> tuple[int, int, int]:
    """Walks from a start (x, y, heading) to the next junction, or back. Returns that x, y, and the end of the vertices.

    The high nibble loses the bits of each edge walked.
    """
    x, y, heading = start
    coords[at, 0], coords[at, 1] = x, y
    at += 1
    while True:
        edges[y, x] &= np.uint8(255 - (16 << heading))
        x += _STEP_X[heading]
        y += _STEP_Y[heading]
        back = (heading + 2) % 4
        edges[y, x] &= np.uint8(255 - (16 << back))
        bits = edges[y, x] & 15
        if _DEGREE[bits] != 2 or (x == start[0] and y == start[1]):
            coords[at, 0], coords[at, 1] = x, y
            return x, y, at + 1
        onward = _ONLY[bits ^ (1 << back)]
        if onward != heading:
            coords[at, 0], coords[at, 1] = x, y
            at += 1
            heading = onward


@jit
def _region_beside(regions: NDArray[np.int32], x: int, y: int, heading: int, side: int) -> int:
    """The region on the left (side 0) or the right (1) of the edge that leaves a corner with this heading."""
    row, col = y + _ROW_BESIDE[side, heading], x + _COL_BESIDE[side, heading]
    if 0 <= row < regions.shape[0] and 0 <= col < regions.shape[1]:
        return int(regions[row, col])
    return 0


@jit
def _trace(
    regions: NDArray[np.int32], edges: NDArray[np.uint8], index: tuple[Ints, NDArray[np.int32]], out: Arcs
) -> int:
    """Walks all arcs: first those between junctions, then the closed ones, which are all that is left."""
    arc, at = 0, 0
    for closed in (False, True):
        for y in range(edges.shape[0]):
            for x in range(edges.shape[1]):
                if edges[y, x] < 16 or (not closed and not _IS_JUNCTION[edges[y, x] & 15]):
                    continue
                for heading in range(4):
                    if edges[y, x] & (16 << heading):
                        out.left[arc] = _region_beside(regions, x, y, heading, 0)
                        out.right[arc] = _region_beside(regions, x, y, heading, 1)
                        end_x, end_y, at = _follow(edges, (x, y, heading), out.coords, at)
                        if not closed:
                            out.junctions[arc, 0] = _junction_at(index, x, y)
                            out.junctions[arc, 1] = _junction_at(index, end_x, end_y)
                        arc += 1
                        out.offsets[arc] = at
    return arc


@jit
def heading_of(coords: NDArray[np.int32], start: int, end: int) -> int:
    """Heading of the straight line from one vertex to another in the same row or column."""
    if coords[start, 1] == coords[end, 1]:
        return 0 if coords[end, 0] > coords[start, 0] else 2
    return 1 if coords[end, 1] > coords[start, 1] else 3


@jit
def end_headings(coords: NDArray[np.int32], offsets: Ints) -> NDArray[np.uint8]:
    """Heading with which each arc leaves its start, and with which its reverse leaves its end, `(arc, 2)`."""
    out = np.empty((offsets.shape[0] - 1, 2), np.uint8)
    for arc in range(out.shape[0]):
        out[arc, 0] = heading_of(coords, offsets[arc], offsets[arc] + 1)
        out[arc, 1] = heading_of(coords, offsets[arc + 1] - 1, offsets[arc + 1] - 2)
    return out


@jit
def junction_table(arcs: Arcs) -> NDArray[np.int32]:
    """Half-edges that leave each junction `(junction, heading)`, -1 where none does.

    A half-edge is an arc walked in one direction: `2 * arc` forwards, `2 * arc + 1` backwards. Arcs that have one
    region on both sides are left out.
    """
    table = np.full((arcs.junction_count, 4), -1, np.int32)
    for arc in range(arcs.left.shape[0]):
        if arcs.junctions[arc, 0] >= 0 and arcs.left[arc] != arcs.right[arc]:
            table[arcs.junctions[arc, 0], arcs.leaving[arc, 0]] = 2 * arc
            table[arcs.junctions[arc, 1], arcs.leaving[arc, 1]] = 2 * arc + 1
    return table
