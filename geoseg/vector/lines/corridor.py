"""The fewest lines through the gates that a boundary passes.

A boundary passes one *gate* for each pixel edge it is made of: the straight way between the centres of the two pixels
that it parts there. Between two gates lies the cell around one pixel corner, a square whose corners are pixel centres.
A line that passes an arc's gates in their order, within their ends, parts the same pixels as the arc does. It meets no
other arc's line: a gate belongs to one arc, the cell of a corner where no arcs meet is crossed once, and in the cell of
a junction the lines are rays from the corner to different sides. Nor does it leave the boundary: within a cell, all
that lies between two gates is at most half a pixel from it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.jit import jit
from geoseg.vector.coverage import Arcs, heading_of
from geoseg.vector.regions import Ints

SUBPIXEL = 256  # units in a pixel's side
MIDDLE = SUBPIXEL // 2
LEAST, MOST = 16, SUBPIXEL - 16  # where a gate may be passed, counted from the upper or left pixel's centre
SLACK = 16  # how far from a known crossing a line may pass, 1/16 pixel
_EDGE = 8  # but always so far from the pixel's centre
_LONGEST = 512  # gates that one line passes at most, so that the time grows with the length of the boundaries
_AREA = 2.0 * SUBPIXEL**2  # twice the area that weighs as much as a vertex, where a line gives it to the other side
_ISLAND = 4  # vertices that a closed arc keeps at least
_STEP_X = np.array([1, 0, -1, 0])
_STEP_Y = np.array([0, 1, 0, -1])

Cone = tuple[int, int, int, int]


class Crossings(NamedTuple):
    """Where boundaries pass gates that they do not pass in the middle, by the gate's pixel edge.

    Attributes:
        keys_x: Edges from corner `(row, col)` to `(row, col + 1)`, as `row * (cols + 1) + col`, sorted, int64.
        at_x: Place on the way from the centre of the pixel above to that of the pixel below, in 1/256 of it, uint8.
        keys_y: Edges from corner `(row, col)` to `(row + 1, col)`.
        at_y: Place on the way from the centre of the pixel on the left to that of the pixel on the right.
        cols: Columns of the map.
    """

    keys_x: Ints
    at_x: NDArray[np.uint8]
    keys_y: Ints
    at_y: NDArray[np.uint8]
    cols: int


class Gates(NamedTuple):
    """Room for the arc at hand: its gates in the order in which it passes them, and its junctions before and after.

    Attributes:
        points: Where the boundary passes, `(gate, xy)`, in 1/256 pixel.
        headings: Heading of the boundary there.
        rooms: How far the line may pass to the left and to the right of the point, `(gate, 2)`, in 1/256 pixel.
        costs: Least cost of a line from the start to each.
        before: The vertex before each on that line.
    """

    points: NDArray[np.int32]
    headings: NDArray[np.int8]
    rooms: NDArray[np.uint8]
    costs: NDArray[np.float64]
    before: NDArray[np.int32]


def gates_for(edges: int) -> Gates:
    """Room for arcs of up to so many pixel edges."""
    size = edges + 2
    return Gates(
        np.empty((size, 2), np.int32), np.zeros(size, np.int8), np.zeros((size, 2), np.uint8),
        np.empty(size, np.float64), np.empty(size, np.int32),
    )  # fmt: skip


@jit
def count_edges(arcs: Arcs) -> Ints:
    """Pixel edges of each arc, int64 `(arc,)`; -1 of one that is not made of pixel edges."""
    coords, edges = arcs.coords, np.zeros(arcs.left.shape[0], np.int64)
    for arc in range(edges.shape[0]):
        for at in range(arcs.offsets[arc] + 1, arcs.offsets[arc + 1]):
            dx, dy = abs(coords[at, 0] - coords[at - 1, 0]), abs(coords[at, 1] - coords[at - 1, 1])
            if dx > 0 and dy > 0:
                edges[arc] = -1
                break
            edges[arc] += dx + dy
    return edges


@jit
def thread_arcs(  # noqa: PLR0917 - compiled: positional only
    arcs: Arcs, crossings: Crossings, gates: Gates, first: int, sizes: Ints, out: NDArray[np.int32]
) -> int:  # fmt: skip
    """Writes lines for arcs from `first` on, one for each of `sizes`, which gets its vertices. Returns their sum."""
    points, headings, rooms, costs, before = gates
    coords, offsets, left, right, junctions = arcs.coords, arcs.offsets, arcs.left, arcs.right, arcs.junctions
    at = 0
    for i in range(sizes.shape[0]):
        arc, begin = first + i, at
        if left[arc] == 0 or right[arc] == 0:
            for vertex in range(offsets[arc], offsets[arc + 1]):
                out[at, 0], out[at, 1] = SUBPIXEL * coords[vertex, 0], SUBPIXEL * coords[vertex, 1]
                at += 1
            sizes[i] = at - begin
            continue
        closed = junctions[arc, 0] < 0
        count = _lay_gates(coords, (offsets[arc], offsets[arc + 1]), closed, crossings, gates)
        start, last = 0, count if closed else count - 1
        vertices = _fewest(points, headings, rooms, costs, before, (start, count, last), _LONGEST)
        if closed:
            # Where a closed line begins it must have a vertex: one that the first try found in its middle is better.
            start = _halfway(before, last, vertices)
            vertices = _fewest(points, headings, rooms, costs, before, (start, count, last), _LONGEST)
            if vertices < _ISLAND:
                shorter = max(count // _ISLAND, 1)
                vertices = _fewest(points, headings, rooms, costs, before, (start, count, last), shorter)
        sizes[i] = vertices + 1
        at = _write(points, before, (start, count, last), out, at + vertices)
    return at


@jit
def _halfway(before: NDArray[np.int32], last: int, vertices: int) -> int:
    for _ in range(vertices // 2):
        last = before[last]
    return last


@jit
def _write(
    points: NDArray[np.int32], before: NDArray[np.int32], lap: tuple[int, int, int], out: NDArray[np.int32], at: int
) -> int:
    """Writes a line from its end, which gets the place `at`, to its start. Returns the place after its end."""
    start, count, node = lap
    behind = at + 1
    while True:
        gate = start + node if start + node < count else start + node - count
        out[at, 0], out[at, 1] = points[gate, 0], points[gate, 1]
        if node == 0:
            return behind
        node, at = before[node], at - 1


@jit
def _lay_gates(
    coords: NDArray[np.int32],
    span: tuple[int, int],
    closed: bool,  # noqa: FBT001 - compiled: positional only
    crossings: Crossings,
    gates: Gates,
) -> int:
    """Fills the gates of one arc; junctions are points without a gate. Returns how many points that is."""
    points, headings, rooms, _, _ = gates
    count, known = 0, len(crossings.keys_x) + len(crossings.keys_y) > 0
    if not closed:
        points[0, 0], points[0, 1] = SUBPIXEL * coords[span[0], 0], SUBPIXEL * coords[span[0], 1]
        count = 1
    for vertex in range(span[0], span[1] - 1):
        heading = heading_of(coords, vertex, vertex + 1)
        x, y = int(np.int64(coords[vertex, 0])), int(np.int64(coords[vertex, 1]))
        steps = abs(coords[vertex + 1, 0] - x) + abs(coords[vertex + 1, 1] - y)
        for _ in range(steps):
            headings[count] = heading
            at = _crossing_of(crossings, x, y, heading) if known else MIDDLE
            low, high = (max(at - SLACK, _EDGE), min(at + SLACK, SUBPIXEL - _EDGE)) if known else (1, SUBPIXEL - 1)
            along_x, along_y = MIDDLE * _STEP_X[heading], MIDDLE * _STEP_Y[heading]
            across = at - MIDDLE
            points[count, 0] = SUBPIXEL * x + along_x + (across if heading % 2 == 1 else 0)
            points[count, 1] = SUBPIXEL * y + along_y + (across if heading % 2 == 0 else 0)
            lower_is_left = heading in (0, 3)
            rooms[count, 0] = at - low if lower_is_left else high - at
            rooms[count, 1] = high - at if lower_is_left else at - low
            x, y, count = x + _STEP_X[heading], y + _STEP_Y[heading], count + 1
    if not closed:
        points[count, 0], points[count, 1] = SUBPIXEL * coords[span[1] - 1, 0], SUBPIXEL * coords[span[1] - 1, 1]
        count += 1
    return count


@jit
def _crossing_of(crossings: Crossings, x: int, y: int, heading: int) -> int:
    """Where the gate of the pixel edge that leaves a corner is passed."""
    row, col = y - (heading == 3), x - (heading == 2)
    keys, places = (crossings.keys_x, crossings.at_x) if heading % 2 == 0 else (crossings.keys_y, crossings.at_y)
    key = row * (crossings.cols + 1) + col
    low, high = 0, len(keys)
    while low < high:
        middle = (low + high) // 2
        if keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    return int(places[low]) if low < len(keys) and keys[low] == key else MIDDLE


@jit
def _fewest(  # noqa: PLR0917 - compiled: positional only
    points: NDArray[np.int32],
    headings: NDArray[np.int8],
    rooms: NDArray[np.uint8],
    costs: NDArray[np.float64],
    before: NDArray[np.int32],
    lap: tuple[int, int, int],
    longest: int,
) -> int:
    """Finds the line of least cost, whose vertices are points of the boundary. Returns how many lines it has.

    Each vertex costs 1, and so does each pixel of area that a straight line moves to its other side: without that,
    convex regions would shrink. From each point, gate by gate, what can be seen through all gates so far is a cone;
    where it is empty there is nothing more to see.

    The arrays are those of `Gates`; `lap` is the gate to begin at, the number of gates, and how many to go on from
    there, over the last to the first again where the boundary closes; no line passes more than `longest` gates.
    """
    start, count, last = lap
    costs[: last + 1] = np.inf
    costs[0] = 0.0
    for node in range(last):
        gate = start + node if start + node < count else start + node - count
        ax, ay = np.int64(points[gate, 0]), np.int64(points[gate, 1])
        old_x, old_y, swept = 0, 0, 0
        cone = (0, 0, 0, 0)
        for other in range(node + 1, min(last, node + longest) + 1):
            to = start + other if start + other < count else start + other - count
            x, y = points[to, 0] - ax, points[to, 1] - ay
            swept += old_x * y - old_y * x
            old_x, old_y = x, y
            if _sees(cone, x, y):
                cost = costs[node] + 1.0 + abs(swept) / _AREA
                if cost < costs[other]:
                    costs[other], before[other] = cost, node
            left_x, left_y = _STEP_X[headings[to] - 1], _STEP_Y[headings[to] - 1]
            room, space = np.int64(rooms[to, 0]), np.int64(rooms[to, 1])
            cone = _narrow(cone, x + room * left_x, y + room * left_y, x - space * left_x, y - space * left_y)
            if cone[0] * cone[3] - cone[1] * cone[2] <= 0:
                break
    vertices, node = 0, last
    while node > 0:
        node = before[node]
        vertices += 1
    return vertices


@jit
def _narrow(cone: Cone, left_x: int, left_y: int, right_x: int, right_y: int) -> Cone:
    """What is seen of a cone (its left side, then its right one) through a gate; all of a gate where there is none."""
    lx, ly, rx, ry = cone
    if lx == 0 and ly == 0:
        return left_x, left_y, right_x, right_y
    if lx * left_y - ly * left_x > 0:  # y runs down, so what is clockwise has a positive product
        lx, ly = left_x, left_y
    if rx * right_y - ry * right_x < 0:
        rx, ry = right_x, right_y
    return lx, ly, rx, ry


@jit
def _sees(cone: Cone, x: int, y: int) -> bool:
    """Whether a place is within a cone; the apex itself is not."""
    if x == 0 and y == 0:
        return False
    return cone[0] * y - cone[1] * x >= 0 and cone[2] * y - cone[3] * x <= 0
