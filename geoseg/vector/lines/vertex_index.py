"""Where the vertices of a coverage stand, by cells of a grid: does a triangle hold one?

Sized by the vertices, not by the pixels: four bytes a vertex and four a cell, of which there are fewer than vertices.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.jit import jit
from geoseg.vector.coverage import Arcs

_MAX_SHIFT = 15  # a place within a cell is two numbers of 15 bits
_WITHIN = (1 << _MAX_SHIFT) - 1
_NO_ENTRY = -1


class VertexIndex(NamedTuple):
    """Places of vertices, cell by cell, row-major; a junction stands in it once, however many arcs end there.

    Attributes:
        starts: Cell `i` has `entries[starts[i]:starts[i + 1]]`, int32 `(cell + 1,)`.
        entries: Places within their cell: y in the upper bits, x in the lower 15; int32. What is left of a cell that
            lost vertices ends with -1.
        shift: A cell's side is `2 ** shift` units of the coordinates.
        cols: Cells in a row of the grid.
    """

    starts: NDArray[np.int32]
    entries: NDArray[np.int32]
    shift: int
    cols: int


def index_vertices(arcs: Arcs) -> VertexIndex:
    """The index of all vertices of arcs, of which there is at least one; no coordinate is negative."""
    width, height = (int(most) + 1 for most in arcs.coords.max(0))
    shift = arcs.scale.bit_length()
    while shift < _MAX_SHIFT and ((width >> shift) + 1) * ((height >> shift) + 1) > len(arcs.coords) // 2:
        shift += 1
    cols, rows = (width >> shift) + 1, (height >> shift) + 1
    starts = np.zeros(rows * cols + 1, np.int32)
    _count_entries(arcs, shift, cols, starts)
    np.cumsum(starts, out=starts)
    index = VertexIndex(starts, np.empty(int(starts[-1]), np.int32), shift, cols)
    _fill_entries(arcs, index)
    return index


@jit
def _range_of(arcs: Arcs, arc: int, seen: NDArray[np.bool_]) -> tuple[int, int]:
    """The arc's vertices that no arc before has, and not the last of a closed one, which is the first again."""
    begin, end = arcs.offsets[arc], arcs.offsets[arc + 1]
    start, stop = arcs.junctions[arc, 0], arcs.junctions[arc, 1]
    if start < 0:
        return begin, end - 1
    if seen[start]:
        begin += 1
    seen[start] = True
    if seen[stop]:
        end -= 1
    seen[stop] = True
    return begin, end


@jit
def _count_entries(arcs: Arcs, shift: int, cols: int, counts: NDArray[np.int32]) -> None:
    seen = np.zeros(arcs.junction_count, np.bool_)
    for arc in range(arcs.left.shape[0]):
        begin, end = _range_of(arcs, arc, seen)
        for at in range(begin, end):
            counts[(arcs.coords[at, 1] >> shift) * cols + (arcs.coords[at, 0] >> shift)] += 1


@jit
def _fill_entries(arcs: Arcs, index: VertexIndex) -> None:
    """Fills each cell from its end, so that `starts`, which begins as the ends, has the starts afterwards."""
    shift, within = index.shift, (1 << index.shift) - 1
    seen = np.zeros(arcs.junction_count, np.bool_)
    for arc in range(arcs.left.shape[0]):
        begin, end = _range_of(arcs, arc, seen)
        for at in range(begin, end):
            x, y = arcs.coords[at, 0], arcs.coords[at, 1]
            cell = (y >> shift) * index.cols + (x >> shift)
            index.starts[cell] -= 1
            index.entries[index.starts[cell]] = (y & within) << _MAX_SHIFT | (x & within)


@jit
def remove_vertex(
    starts: NDArray[np.int32], entries: NDArray[np.int32], grid: tuple[int, int], place: tuple[int, int]
) -> None:
    """Takes a place out; the last one of its cell fills the gap. The index comes in parts, as for `holds_vertex`."""
    shift, within = grid[0], (1 << grid[0]) - 1
    gone = (place[1] & within) << _MAX_SHIFT | (place[0] & within)
    cell = (place[1] >> shift) * grid[1] + (place[0] >> shift)
    found, last = -1, starts[cell]
    while last < starts[cell + 1] and entries[last] != _NO_ENTRY:
        if entries[last] == gone:
            found = last
        last += 1
    if found >= 0:
        entries[found] = entries[last - 1]
        entries[last - 1] = _NO_ENTRY


@jit
def holds_vertex(  # noqa: PLR0917 - compiled: positional only
    starts: NDArray[np.int32],
    entries: NDArray[np.int32],
    grid: tuple[int, int],
    a: tuple[int, int],
    b: tuple[int, int],
    c: tuple[int, int],
) -> bool:
    """Whether a vertex other than its corners lies in a triangle `(x, y)` or on its sides.

    Exact: the products stay within int64 while no two coordinates differ by 2**31 or more. The index comes in parts,
    as `VertexIndex.starts`, `entries` and (`shift`, `cols`), because compiled code counts references to what it takes
    from a tuple, which would take longer than the rest.
    """
    shift, cols = grid
    low_x, low_y, high_x, high_y = _bounds(a, b, c)
    first, last, low, high = low_x >> shift, high_x >> shift, low_y >> shift, high_y >> shift
    wide, found = high - low > 1 and last - first > 1, 0
    for row in range(low, high + 1):
        if wide:
            first, last = _cells_across(a, b, c, (row << shift, (row + 1) << shift), shift)
            first, last = max(first, 0), min(last, cols - 1)
        for col in range(first, last + 1):
            cell, x, y = row * cols + col, col << shift, row << shift
            corners = ((a[0] - x, a[1] - y), (b[0] - x, b[1] - y), (c[0] - x, c[1] - y))
            found += _count_inside(entries, starts[cell], starts[cell + 1], corners)
            if found > 3:  # more than the corners themselves
                return True
    return False


@jit
def _bounds(a: tuple[int, int], b: tuple[int, int], c: tuple[int, int]) -> tuple[int, int, int, int]:
    """Lowest x and y, highest x and y."""
    return min(a[0], b[0], c[0]), min(a[1], b[1], c[1]), max(a[0], b[0], c[0]), max(a[1], b[1], c[1])


@jit
def _count_inside(
    entries: NDArray[np.int32],
    begin: int,
    end: int,
    corners: tuple[tuple[int, int], tuple[int, int], tuple[int, int]],
) -> int:
    """How many of a cell's places lie in a triangle or on its sides; nothing branches but the loop, which is the point.

    Where no vertex is left, a place has a y of -1.
    """
    a, b, c = corners
    if turn_of(a, b, c) < 0:
        a, c = c, a
    low_x, low_y, high_x, high_y = _bounds(a, b, c)
    low_y = max(low_y, 0)
    (ab_x, ab_y), (bc_x, bc_y), (ca_x, ca_y) = _way(a, b), _way(b, c), _way(c, a)
    found = 0
    for at in range(begin, end):
        x, y = np.int64(entries[at] & _WITHIN), np.int64(entries[at] >> _MAX_SHIFT)
        one = ab_x * (y - a[1]) - ab_y * (x - a[0])
        two = bc_x * (y - b[1]) - bc_y * (x - b[0])
        three = ca_x * (y - c[1]) - ca_y * (x - c[0])
        found += int((one | two | three | (x - low_x) | (high_x - x) | (y - low_y) | (high_y - y)) >= 0)
    return found


@jit
def _way(start: tuple[int, int], end: tuple[int, int]) -> tuple[int, int]:
    return end[0] - start[0], end[1] - start[1]


@jit
def _cells_across(
    a: tuple[int, int], b: tuple[int, int], c: tuple[int, int], heights: tuple[int, int], shift: int
) -> tuple[int, int]:
    """First and last cell that a triangle reaches between two heights that it passes; one unit wider for rounding."""
    (top, bottom), low, high = heights, np.inf, -np.inf
    for start, end in ((a, b), (b, c), (c, a)):
        y0, y1 = (start[1], end[1]) if start[1] <= end[1] else (end[1], start[1])
        if y1 < top or y0 > bottom:
            continue
        for y in (max(y0, top), min(y1, bottom)):
            if y0 == y1:
                low, high = min(low, start[0], end[0]), max(high, start[0], end[0])
            else:
                x = start[0] + (y - start[1]) / (end[1] - start[1]) * (end[0] - start[0])
                low, high = min(low, x), max(high, x)
    return max(int(low) - 1, 0) >> shift, (int(high) + 1) >> shift


@jit
def turn_of(a: tuple[int, int], b: tuple[int, int], c: tuple[int, int]) -> int:
    """Twice the signed area of a triangle: above 0 where `c` lies clockwise of the way from `a` to `b`, as printed."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
