"""Vertices of arcs go one by one, least significant first, where the coverage stays valid without them.

One arc after the other, in their order, so that the result depends on nothing else; what was in the way of a vertex may
be gone later, so arcs are gone over again until nothing goes. Each arc is packed to the front of its place when it is
done, which is all the state there is between arcs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.jit import jit
from geoseg.vector.coverage import Arcs, junction_table
from geoseg.vector.lines.heap import pop, push
from geoseg.vector.lines.vertex_index import VertexIndex, holds_vertex, index_vertices, remove_vertex, turn_of
from geoseg.vector.regions import Ints

_CLOSED_MIN = 4  # an island keeps four corners: a single pixel does not become a triangle
_GONE = -1.0
_ROUNDING = 1e-9  # distances that differ by less of themselves are one
_LONG = 256  # vertices


class Rule(NamedTuple):
    """What makes a vertex significant.

    Attributes:
        by_distance: Whether its squared distance, as Douglas & Peucker split, counts; otherwise twice the area of its
            triangle, as Visvalingam & Whyatt, in square units of the coordinates.
        limit: Vertices below it go.
        unit_x: Length of a unit of the coordinates along x, for distances.
        unit_y: Length along y.
    """

    by_distance: bool
    limit: float
    unit_x: float
    unit_y: float


class _Scratch(NamedTuple):
    """The arc at hand; vertices are counted from its first.

    Attributes:
        links: The vertex before and the vertex after each, `(vertex, 2)`; -1 beyond the ends of an open arc.
        weights: Significance of each; -1 of those that are gone.
        keys: The significances of those that wait, a binary heap.
        queue: The vertices that they belong to.
        spans: First and last vertex of parts that are still to be split.
        caps: Significance of the split that each part came from.
    """

    links: NDArray[np.int32]
    weights: NDArray[np.float64]
    keys: NDArray[np.float64]
    queue: NDArray[np.int32]
    spans: NDArray[np.int32]
    caps: NDArray[np.float64]


class _State(NamedTuple):
    """The coverage while vertices go.

    Attributes:
        arcs: The boundaries; `coords` is packed arc by arc.
        sizes: Vertices that are left of each arc, int32 `(arc,)`.
        pending: Arcs that may lose vertices, bool `(arc,)`.
        table: Half-edges that leave each junction.
        standing: Where vertices stand.
    """

    arcs: Arcs
    sizes: NDArray[np.int32]
    pending: NDArray[np.bool_]
    table: NDArray[np.int32]
    standing: VertexIndex


def eliminate(arcs: Arcs, rule: Rule) -> Arcs:
    """The arcs without the vertices that are below the rule's limit and may go.

    Borders with nodata or the outside, and junctions, keep all. A vertex goes only where its triangle with its
    neighbours holds no other vertex of any arc, and where no other line joins the two. No line can then cross the new
    one: it would have to end in the triangle, or to cross one of the triangle's other sides, which are lines of the
    coverage themselves.
    """
    sizes = np.diff(arcs.offsets).astype(np.int32)
    pending = (sizes > 2) & (arcs.left != 0) & (arcs.right != 0)
    if not pending.any():
        return arcs
    own = arcs._replace(coords=arcs.coords.copy())
    state = _State(own, sizes, pending, junction_table(arcs), index_vertices(arcs))
    scratch = _scratch_for(int(sizes[pending].max()))
    while _thin(state, scratch, rule):
        pass
    return _packed(state)


def _scratch_for(size: int) -> _Scratch:
    ints, floats = np.int32, np.float64
    return _Scratch(
        np.empty((size, 2), ints), np.empty(size, floats),
        np.empty(3 * size, floats), np.empty(3 * size, ints),  # each that goes puts its two neighbours in again
        np.empty((size + 2, 2), ints), np.empty(size + 2, floats),
    )  # fmt: skip


def _packed(state: _State) -> Arcs:
    offsets = np.zeros_like(state.arcs.offsets)
    np.cumsum(state.sizes, out=offsets[1:])
    coords = np.empty((int(offsets[-1]), 2), np.int32)
    _copy_living(state.arcs, offsets, coords)
    return state.arcs._replace(coords=coords, offsets=offsets)


@jit
def _copy_living(arcs: Arcs, offsets: Ints, coords: NDArray[np.int32]) -> None:
    for arc in range(arcs.left.shape[0]):
        shift = arcs.offsets[arc] - offsets[arc]
        for to in range(offsets[arc], offsets[arc + 1]):
            coords[to, 0], coords[to, 1] = arcs.coords[to + shift, 0], arcs.coords[to + shift, 1]


@jit
def _thin(state: _State, scratch: _Scratch, rule: Rule) -> int:
    """One run over the arcs that may lose vertices. Returns how many went, 0 where nothing is left to go.

    Compiled code counts references to each array that it takes out of a tuple, which takes longer than all that is done
    to a vertex. So that happens once, here, and what is called for each arc or vertex takes arrays.
    """
    (coords, offsets, _, _, junctions, _, _, _), sizes, pending, table, (starts, entries, shift, cols) = state
    links, weights, keys, queue, spans, caps = scratch
    by_distance, limit, unit_x, unit_y = rule
    gone = 0
    for arc in range(pending.shape[0]):
        if not pending[arc]:
            continue
        begin, junction = offsets[arc], junctions[arc, 0]
        living = sizes[arc] - (junction < 0)  # the last vertex of a closed arc is its first again
        _link(links, living, junction < 0)
        if by_distance:
            _weigh_distances(coords, weights, spans, caps, (unit_x, unit_y), limit, begin, living, junction < 0)
        else:
            _weigh_triangles(coords, links, weights, begin, living)
        waiting = _line_up(weights, keys, queue, limit, living)
        left, blocked = living, False
        while waiting > 0 and (left > _CLOSED_MIN or junction >= 0):
            weight, vertex = keys[0], queue[0]
            waiting = pop(keys, queue, waiting)
            if weight != weights[vertex]:
                continue
            before, after = links[vertex, 0], links[vertex, 1]
            a, b, c = _place(coords, begin + before), _place(coords, begin + vertex), _place(coords, begin + after)
            if holds_vertex(starts, entries, (shift, cols), a, b, c) or _turns_back(coords, links, begin, vertex):
                blocked = True
                continue
            if links[before, 0] < 0 and links[after, 1] < 0 and _joins(coords, offsets, sizes, table, junction, arc, c):
                blocked = True
                continue
            remove_vertex(starts, entries, (shift, cols), b)
            links[before, 1], links[after, 0], weights[vertex] = after, before, _GONE
            left -= 1
            if not by_distance:
                waiting = _weigh_again(coords, links, weights, keys, queue, limit, begin, before, waiting)
                waiting = _weigh_again(coords, links, weights, keys, queue, limit, begin, after, waiting)
        gone, pending[arc] = gone + living - left, blocked
        sizes[arc] = _pack(coords, weights, begin, living, junction < 0)
    return gone if pending.any() else 0


@jit
def _link(links: NDArray[np.int32], living: int, closed: bool) -> None:  # noqa: FBT001 - compiled: positional only
    for vertex in range(living):
        links[vertex, 0], links[vertex, 1] = vertex - 1, vertex + 1
    if closed:
        links[0, 0], links[living - 1, 1] = living - 1, 0
    else:
        links[living - 1, 1] = -1


@jit
def _weigh_triangles(
    coords: NDArray[np.int32], links: NDArray[np.int32], weights: NDArray[np.float64], begin: int, living: int
) -> None:
    for vertex in range(living):
        weights[vertex] = _doubled_area(coords, links, begin, vertex)


@jit
def _doubled_area(coords: NDArray[np.int32], links: NDArray[np.int32], begin: int, vertex: int) -> float:
    """Twice the area of a vertex's triangle with its neighbours; infinite for the ends of an open arc."""
    before, after = links[vertex, 0], links[vertex, 1]
    if before < 0 or after < 0:
        return np.inf
    return float(
        abs(turn_of(_place(coords, begin + before), _place(coords, begin + vertex), _place(coords, begin + after)))
    )


@jit
def _weigh_distances(  # noqa: PLR0917 - compiled: positional only
    coords: NDArray[np.int32],
    weights: NDArray[np.float64],
    spans: NDArray[np.int32],
    caps: NDArray[np.float64],
    unit: tuple[float, float],
    limit: float,
    begin: int,
    living: int,
    closed: bool,  # noqa: FBT001 - compiled: positional only
) -> None:
    weights[:living] = np.inf
    if closed:
        first, second = _far_pair(coords, unit, begin, living)
        _split(coords, weights, spans, caps, unit, limit, begin, living, first, second)
        _split(coords, weights, spans, caps, unit, limit, begin, living, second, first + living)
    else:
        _split(coords, weights, spans, caps, unit, limit, begin, living, 0, living - 1)


@jit
def _far_pair(coords: NDArray[np.int32], unit: tuple[float, float], begin: int, living: int) -> tuple[int, int]:
    """Two vertices of a closed arc that stay: the one that is furthest from the middle, and the furthest from that.

    Of several as far away the one with the lowest x, then y is meant, so it does not matter where the arc begins.
    """
    x, y = np.int64(0), np.int64(0)  # whole numbers, whose sum is the same in any order
    for at in range(begin, begin + living):
        x += coords[at, 0]
        y += coords[at, 1]
    first = _furthest(coords, unit, begin, living, float(x / living), float(y / living))
    second = _furthest(coords, unit, begin, living, coords[begin + first, 0], coords[begin + first, 1])
    return min(first, second), max(first, second)


@jit
def _furthest(  # noqa: PLR0917 - compiled: positional only
    coords: NDArray[np.int32], unit: tuple[float, float], begin: int, living: int, x: float, y: float
) -> int:
    best, most = 0, -1.0
    for vertex in range(living):
        dx, dy = (coords[begin + vertex, 0] - x) * unit[0], (coords[begin + vertex, 1] - y) * unit[1]
        far = dx * dx + dy * dy
        if far > most or (far == most and _place(coords, begin + vertex) < _place(coords, begin + best)):
            best, most = vertex, far
    return best


@jit
def _split(  # noqa: PLR0917 - compiled: positional only
    coords: NDArray[np.int32],
    weights: NDArray[np.float64],
    spans: NDArray[np.int32],
    caps: NDArray[np.float64],
    unit: tuple[float, float],
    limit: float,
    begin: int,
    living: int,
    first: int,
    last: int,
) -> None:
    """Weighs the vertices between two, `last` counted on past the end where an arc closes.

    A vertex weighs what its distance is from the line that it splits, but no more than the splits before it did: so the
    vertices at or above the limit are those that Douglas & Peucker, Algorithms for the reduction of the number of
    points, Cartographica 10 (1973), keep with that tolerance.

    Halves of about one length keep this far from the square of the vertices. Of several as far away the one next to the
    middle splits: with the first, a staircase would be parted into one step and all the others. Below the limit, where
    the weights only say what goes first, a long part is split in its middle rather than near an end.
    """
    spans[0, 0], spans[0, 1], caps[0] = first, last, np.inf
    depth = 1
    while depth > 0:
        depth -= 1
        low, high, cap = spans[depth, 0], spans[depth, 1], caps[depth]
        if high - low < 2:
            continue
        best, most, middle = low + 1, -1.0, low + high
        for vertex in range(low + 1, high):
            far = _squared_distance(coords, unit, begin + vertex % living, begin + low % living, begin + high % living)
            as_far = far >= most * (1 - _ROUNDING) and abs(2 * vertex - middle) < abs(2 * best - middle)
            if far > most * (1 + _ROUNDING) or as_far:
                best, most = vertex, max(far, most)
        if most < limit and high - low > _LONG and abs(2 * best - middle) > (high - low) * 7 // 8:
            best = middle // 2
        most = min(most, cap)
        weights[best % living] = most
        spans[depth, 0], spans[depth, 1] = low, best
        spans[depth + 1, 0], spans[depth + 1, 1] = best, high
        caps[depth] = caps[depth + 1] = most
        depth += 2


@jit
def _squared_distance(coords: NDArray[np.int32], unit: tuple[float, float], vertex: int, start: int, end: int) -> float:
    """Squared distance of a vertex from the straight line between two others, not from what is beyond its ends."""
    x, y = np.int64(coords[start, 0]), np.int64(coords[start, 1])
    dx, dy = (coords[end, 0] - x) * unit[0], (coords[end, 1] - y) * unit[1]
    px, py = (coords[vertex, 0] - x) * unit[0], (coords[vertex, 1] - y) * unit[1]
    length, along = dx * dx + dy * dy, px * dx + py * dy
    if along <= 0 or length == 0:
        return float(px * px + py * py)
    if along >= length:
        return float((px - dx) ** 2 + (py - dy) ** 2)
    return float((px * dy - py * dx) ** 2 / length)


@jit
def _turns_back(coords: NDArray[np.int32], links: NDArray[np.int32], begin: int, vertex: int) -> bool:
    """Whether the arc would go one way and straight back: its triangle, or the loop at a junction, is all there is."""
    before, after = links[vertex, 0], links[vertex, 1]
    a, c = _place(coords, begin + before), _place(coords, begin + after)
    if a == c:
        return True
    if links[before, 0] >= 0 and _place(coords, begin + links[before, 0]) == c:
        return True
    return links[after, 1] >= 0 and _place(coords, begin + links[after, 1]) == a


@jit
def _joins(  # noqa: PLR0917 - compiled: positional only
    coords: NDArray[np.int32],
    offsets: Ints,
    sizes: NDArray[np.int32],
    table: NDArray[np.int32],
    junction: int,
    arc: int,
    place: tuple[int, int],
) -> bool:
    """Whether an arc other than this goes straight from a junction to a place."""
    for half in table[junction]:
        if half >= 0 and half // 2 != arc:
            first = offsets[half // 2]
            onward = first + 1 if half % 2 == 0 else first + sizes[half // 2] - 2
            if _place(coords, onward) == place:
                return True
    return False


@jit
def _pack(
    coords: NDArray[np.int32],
    weights: NDArray[np.float64],
    begin: int,
    living: int,
    closed: bool,  # noqa: FBT001 - compiled: positional only
) -> int:
    """Moves what is left of an arc to the front of its place; a closed one that lost its first begins with the next.

    Returns how many vertices that is.
    """
    at = begin
    for vertex in range(living):
        if weights[vertex] != _GONE:
            coords[at, 0], coords[at, 1] = coords[begin + vertex, 0], coords[begin + vertex, 1]
            at += 1
    if closed:
        coords[at, 0], coords[at, 1] = coords[begin, 0], coords[begin, 1]
        at += 1
    return int(at - begin)


@jit
def _place(coords: NDArray[np.int32], at: int) -> tuple[int, int]:
    return np.int64(coords[at, 0]), np.int64(coords[at, 1])  # type: ignore[return-value]


@jit
def _line_up(
    weights: NDArray[np.float64], keys: NDArray[np.float64], queue: NDArray[np.int32], limit: float, living: int
) -> int:
    """Queues the vertices below a limit. Returns how many."""
    waiting = 0
    for vertex in range(living):
        if weights[vertex] < limit:
            waiting = push(keys, queue, waiting, weights[vertex], vertex)
    return waiting


@jit
def _weigh_again(  # noqa: PLR0917 - compiled: positional only
    coords: NDArray[np.int32],
    links: NDArray[np.int32],
    weights: NDArray[np.float64],
    keys: NDArray[np.float64],
    queue: NDArray[np.int32],
    limit: float,
    begin: int,
    vertex: int,
    waiting: int,
) -> int:
    """Weighs a vertex that lost a neighbour, and queues it where that is too little. Returns how many wait."""
    weights[vertex] = _doubled_area(coords, links, begin, vertex)
    return push(keys, queue, waiting, weights[vertex], vertex) if weights[vertex] < limit else waiting
