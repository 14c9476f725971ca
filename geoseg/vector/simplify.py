"""Simpler boundaries that neighbours still share: each arc is simplified once, and none may touch another.

All is exact: the vertices are whole pixel corners, before and after.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.jit import jit
from geoseg.vector.coverage import Arcs, junction_table
from geoseg.vector.regions import Ints

_CLOSED_MIN = 4  # an island keeps four corners: a single pixel does not become a triangle


class _Chains(NamedTuple):
    """What is left of the arcs while vertices go.

    Attributes:
        back: The vertex before each; -1 at the end of an open arc and along arcs that must stay.
        on: The vertex after each.
        alive: Whether a vertex is left.
        taken: Whether a living vertex of any arc stands at a corner `(row, col)`.
        arc: The arc of each vertex.
        sizes: Living vertices of each arc; of a closed one without the last, which is the first one again.
    """

    back: NDArray[np.int32]
    on: NDArray[np.int32]
    alive: NDArray[np.bool_]
    taken: NDArray[np.bool_]
    arc: NDArray[np.int32]
    sizes: Ints


def simplify_arcs(arcs: Arcs, *, min_triangle: float) -> Arcs:
    """The arcs with fewer vertices, all of them vertices they had before; the polygons still are a valid coverage.

    Visvalingam & Whyatt, Line generalisation by repeated elimination of points, Cartographic J. 30 (1993): the vertex
    whose triangle with its two neighbours is smallest goes first, while one is smaller than `min_triangle`. Junctions
    stay, and so does every border with nodata or the outside, so that the areas sum to what they were.

    A vertex goes only where its triangle holds no other vertex of any arc, and where no other line joins its two
    neighbours. No line can then cross the new one: it would have to end in the triangle, or to cross one of the
    triangle's other sides, which are lines of the coverage themselves.

    Args:
        arcs: The boundaries in pixel corners.
        min_triangle: Area in pixels below which a triangle is too small.
    """
    if len(arcs.left) == 0:
        return arcs
    chains, table = _chains_of(arcs), junction_table(arcs)
    while _eliminate(arcs, table, chains, 2 * min_triangle):
        pass
    return _living(arcs, chains.alive)


def _chains_of(arcs: Arcs) -> _Chains:
    sizes = np.diff(arcs.offsets)
    back, on = _link_vertices(arcs)
    taken = np.zeros(tuple(arcs.coords.max(0)[::-1] + 1), np.bool_)
    taken[arcs.coords[:, 1], arcs.coords[:, 0]] = True
    arc = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    return _Chains(back, on, np.ones(len(back), np.bool_), taken, arc, sizes - (arcs.junctions[:, 0] < 0))


def _living(arcs: Arcs, alive: NDArray[np.bool_]) -> Arcs:
    """The arcs with their living vertices; a closed arc that lost its first vertex begins with the next one."""
    closed = np.flatnonzero(arcs.junctions[:, 0] < 0)
    offsets = np.concatenate([[0], np.cumsum(alive, dtype=np.int64)])[arcs.offsets]
    coords = arcs.coords[alive]
    coords[offsets[closed + 1] - 1] = coords[offsets[closed]]
    return arcs._replace(coords=coords, offsets=offsets)


@jit
def _link_vertices(arcs: Arcs) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The vertex before and after each, around closed arcs too."""
    back, on = np.full(arcs.offsets[-1], -1, np.int32), np.full(arcs.offsets[-1], -1, np.int32)
    for arc in range(arcs.left.shape[0]):
        if arcs.left[arc] == 0 or arcs.right[arc] == 0:
            continue
        begin, end = arcs.offsets[arc], arcs.offsets[arc + 1]
        for at in range(begin, end - 1):
            on[at], back[at + 1] = at + 1, at
        if arcs.junctions[arc, 0] < 0:  # the last vertex is the first one again, and takes no part
            back[begin], on[end - 2], back[end - 1] = end - 2, begin, -1
    return back, on


@jit
def _doubled_area(coords: NDArray[np.int32], a: int, b: int, c: int) -> int:
    """Twice the signed area of a triangle of vertices."""
    ax, ay = np.int64(coords[a, 0]), np.int64(coords[a, 1])
    return int((coords[b, 0] - ax) * (coords[c, 1] - ay) - (coords[b, 1] - ay) * (coords[c, 0] - ax))


@jit
def _triangle(arcs: Arcs, chains: _Chains, vertex: int) -> int:
    """Twice the area of a vertex's triangle with its neighbours; -1 where the vertex must stay."""
    if chains.back[vertex] < 0 or chains.on[vertex] < 0:
        return -1
    return abs(_doubled_area(arcs.coords, chains.back[vertex], vertex, chains.on[vertex]))


@jit
def _eliminate(arcs: Arcs, table: NDArray[np.int32], chains: _Chains, limit: float) -> int:
    """One run over all vertices, smallest triangle first. Returns how many went: what stood in the way may be gone."""
    queue = [(0, 0) for _ in range(0)]
    for vertex in range(arcs.coords.shape[0]):
        area = _triangle(arcs, chains, vertex)
        if 0 <= area < limit:
            queue.append((area, vertex))
    heapq.heapify(queue)
    gone = 0
    while len(queue) > 0:
        area, vertex = heapq.heappop(queue)
        if area != _triangle(arcs, chains, vertex) or not _may_go(arcs, table, chains, vertex):
            continue
        before, after = chains.back[vertex], chains.on[vertex]
        _remove(arcs, chains, vertex)
        gone += 1
        for other in (before, after):
            area = _triangle(arcs, chains, other)
            if 0 <= area < limit:
                heapq.heappush(queue, (area, int(np.int64(other))))
    return gone


@jit
def _remove(arcs: Arcs, chains: _Chains, vertex: int) -> None:
    before, after = chains.back[vertex], chains.on[vertex]
    chains.on[before], chains.back[after] = after, before
    chains.back[vertex] = chains.on[vertex] = -1
    chains.alive[vertex] = False
    chains.taken[arcs.coords[vertex, 1], arcs.coords[vertex, 0]] = False
    chains.sizes[chains.arc[vertex]] -= 1


@jit
def _may_go(arcs: Arcs, table: NDArray[np.int32], chains: _Chains, vertex: int) -> bool:
    """Whether the coverage stays valid without the vertex."""
    arc = chains.arc[vertex]
    if arcs.junctions[arc, 0] < 0 and chains.sizes[arc] <= _CLOSED_MIN:
        return False
    before, after = chains.back[vertex], chains.on[vertex]
    if _same_place(arcs.coords, before, after) or _holds_vertex(arcs.coords, before, vertex, after, chains.taken):
        return False
    if chains.back[before] >= 0:
        return not _same_place(arcs.coords, chains.back[before], after)
    if chains.on[after] >= 0:
        return not _same_place(arcs.coords, chains.on[after], before)
    return not _joins(arcs, table[arcs.junctions[arc, 0]], chains, after)


@jit
def _joins(arcs: Arcs, leaving: NDArray[np.int32], chains: _Chains, after: int) -> bool:
    """Whether one of the half-edges that leave a junction has its next vertex at the place of another vertex."""
    for half in leaving:
        if half >= 0:
            if half % 2 == 0:
                start = arcs.offsets[half // 2]
                onward = chains.on[start] if chains.on[start] >= 0 else start + 1
            else:
                start = arcs.offsets[half // 2 + 1] - 1
                onward = chains.back[start] if chains.back[start] >= 0 else start - 1
            if _same_place(arcs.coords, onward, after):
                return True
    return False


@jit
def _same_place(coords: NDArray[np.int32], first: int, second: int) -> bool:
    return bool(coords[first, 0] == coords[second, 0] and coords[first, 1] == coords[second, 1])


@jit
def _holds_vertex(coords: NDArray[np.int32], a: int, b: int, c: int, taken: NDArray[np.bool_]) -> bool:
    """Whether a living vertex other than the three corners lies in the triangle or on its sides."""
    xs, ys = (coords[a, 0], coords[b, 0], coords[c, 0]), (coords[a, 1], coords[b, 1], coords[c, 1])
    for y in range(min(ys), max(ys) + 1):
        low, high = _row_of_triangle(xs, ys, y)
        for x in range(low, high + 1):
            corner = (x == xs[0] and y == ys[0]) or (x == xs[1] and y == ys[1]) or (x == xs[2] and y == ys[2])
            if taken[y, x] and not corner:
                return True
    return False


@jit
def _row_of_triangle(xs: tuple[int, int, int], ys: tuple[int, int, int], y: int) -> tuple[int, int]:
    """First and last whole x of a closed triangle in one row; the last is below the first where there is none."""
    low, high = np.int64(min(xs)), np.int64(max(xs))
    turn = (xs[1] - np.int64(xs[0])) * (ys[2] - np.int64(ys[0])) - (ys[1] - np.int64(ys[0])) * (xs[2] - np.int64(xs[0]))
    sign = 1 if turn >= 0 else -1
    for side in range(3):
        x0, y0 = np.int64(xs[side]), np.int64(ys[side])
        dx, dy = xs[(side + 1) % 3] - x0, ys[(side + 1) % 3] - y0
        # Inside is where sign * (dx * (y - y0) - dy * (x - x0)) >= 0, that is slope * x <= constant.
        slope, constant = sign * dy, sign * (dx * (y - y0) + dy * x0)
        if slope > 0:
            high = min(high, constant // slope)
        elif slope < 0:
            low = max(low, -(constant // -slope))
        elif constant < 0:
            high = low - 1
    return int(low), int(high)
