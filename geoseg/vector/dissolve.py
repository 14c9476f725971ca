"""Arcs joined to longer ones: of merged regions, and of pieces from blocks; no second look at the raster."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.jit import jit
from geoseg.vector.coverage import Arcs, end_headings, junction_table
from geoseg.vector.regions import Ints


class _Links(NamedTuple):
    """How pieces follow each other; a half-edge is `2 * arc` forwards, `2 * arc + 1` backwards.

    Attributes:
        table: Half-edges that leave each junction `(junction, heading)`, -1 where none does.
        stays: Junctions where more than two meet `(junction,)`.
        order: Junctions in row-major order of their corners, int32.
        number: New number of each junction that stays, int32 `(junction,)`.
    """

    table: NDArray[np.int32]
    stays: NDArray[np.bool_]
    order: NDArray[np.int32]
    number: NDArray[np.int32]


class _Chains(NamedTuple):
    """Half-edges that become one arc, with room for as many chains as there are pieces; open ones come first.

    Attributes:
        first: Half-edge that each begins in, int32 `(chain,)`.
        skip: Vertices of it that come before the chain's start, and so at its end, int32; 0 in open ones.
        offsets: Vertices of all chains before, int64 `(chain + 1,)`.
        junctions: New junctions at its ends, int32 `(chain, 2)`; -1 in closed ones.
    """

    first: NDArray[np.int32]
    skip: NDArray[np.int32]
    offsets: Ints
    junctions: NDArray[np.int32]


def dissolve(arcs: Arcs, lut: NDArray[np.int32]) -> Arcs:
    """The arcs with `lut[region]` for each region: as if the merged raster had been traced.

    Arcs whose sides became one region are dropped. Arcs that meet at a junction where only two are left become one, and
    the junction a turn or nothing.

    >>> from geoseg.vector.coverage import trace_arcs
    >>> arcs = dissolve(trace_arcs(np.array([[1, 1, 2]], np.int32)), np.array([0, 1, 1], np.int32))
    >>> arcs.coords.tolist(), arcs.junctions.tolist()
    ([[0, 0], [3, 0], [3, 1], [0, 1], [0, 0]], [[-1, -1]])
    """
    return join_arcs(arcs._replace(left=lut[arcs.left], right=lut[arcs.right]))


def join_arcs(pieces: Arcs) -> Arcs:
    """The arcs that the pieces make up, array for array what tracing the whole raster gives, however they were cut.

    Where only two pieces meet they become one, without the vertex between them if the line does not turn there. Pieces
    with one region on both sides are left out. Junctions are numbered in row-major order. Arcs between junctions come
    first: each runs from its lower end, by (y, x, heading), and they are sorted by it. Closed arcs follow: each runs
    east from its topmost, there leftmost vertex, and they are sorted by that (y, x).

    Args:
        pieces: Boundaries with vertices at pixel corners; not simplified. Their `junctions` are the corners where
            pieces end, numbered in any order; -1 at a closed piece that ends at none.
    """
    links, used = _linked(pieces), pieces.left == pieces.right
    most = len(used) - int(np.count_nonzero(used))
    chains = _Chains(
        np.empty(most, np.int32), np.zeros(most, np.int32), np.zeros(most + 1, np.int64),
        np.full((most, 2), -1, np.int32),
    )  # fmt: skip
    opened = _open_chains(pieces, links, chains, used)
    count = _closed_chains(pieces, links, chains, used, opened)
    offsets = chains.offsets[: count + 1]
    coords, sides = np.empty((offsets[-1], 2), np.int32), np.empty((2, count), np.int32)
    _write(pieces, links, chains, coords, sides)
    return Arcs(
        coords, offsets, sides[0], sides[1], chains.junctions[:count], end_headings(coords, offsets),
        int(np.count_nonzero(links.stays)), pieces.scale,
    )  # fmt: skip


def _linked(pieces: Arcs) -> _Links:
    table = junction_table(pieces)
    corners = _junction_corners(pieces)
    order = np.arange(len(corners), dtype=np.int32)
    if np.any(corners[1:] < corners[:-1]):
        order = np.argsort(corners, kind="stable").astype(np.int32)
    stays = np.count_nonzero(table >= 0, axis=1) > 2
    number = np.empty(len(stays), np.int32)
    number[order] = np.cumsum(stays[order], dtype=np.int32) - np.int32(1)
    return _Links(table, stays, order, number)


@jit
def _junction_corners(arcs: Arcs) -> Ints:
    """Corner of each junction as a number that grows in row-major order; of one without arcs the largest there is."""
    corners = np.full(arcs.junction_count, np.iinfo(np.int64).max, np.int64)
    for arc in range(arcs.left.shape[0]):
        if arcs.junctions[arc, 0] >= 0:
            for end, at in enumerate((arcs.offsets[arc], arcs.offsets[arc + 1] - 1)):
                corners[arcs.junctions[arc, end]] = np.int64(arcs.coords[at, 1]) << 32 | arcs.coords[at, 0]
    return corners


@jit
def _onward(arcs: Arcs, links: _Links, half: int) -> int:
    """The half-edge that goes on from the end of one; -1 where a junction stays; itself where it closes on its own."""
    junction = arcs.junctions[half // 2, 1 - half % 2]
    if junction < 0:
        return half
    if links.stays[junction]:
        return -1
    onward = half
    for heading in range(4):
        if links.table[junction, heading] >= 0 and links.table[junction, heading] != half ^ 1:
            onward = links.table[junction, heading]
    return int(onward)


@jit
def _is_straight(arcs: Arcs, half: int, onward: int) -> bool:
    """Whether the line does not turn between two half-edges that follow each other."""
    back = arcs.leaving[half // 2, 1 - half % 2]
    return bool((back + 2) % 4 == arcs.leaving[onward // 2, onward % 2])


@jit
def _size(arcs: Arcs, half: int) -> int:
    return int(arcs.offsets[half // 2 + 1] - arcs.offsets[half // 2])


@jit
def _open_chains(arcs: Arcs, links: _Links, chains: _Chains, used: NDArray[np.bool_]) -> int:
    """Chains between junctions that stay, from each of these in order; their arcs are used then. Returns how many."""
    count = 0
    for junction in links.order:
        if not links.stays[junction]:
            continue
        for heading in range(4):
            half = links.table[junction, heading]
            if half < 0 or used[half // 2]:
                continue
            used[half // 2] = True
            chains.first[count], size = half, _size(arcs, half)
            onward = _onward(arcs, links, half)
            while onward >= 0:
                size += _size(arcs, onward) - 1 - _is_straight(arcs, half, onward)
                used[onward // 2] = True
                half, onward = onward, _onward(arcs, links, onward)
            chains.junctions[count, 0] = links.number[junction]
            chains.junctions[count, 1] = links.number[arcs.junctions[half // 2, 1 - half % 2]]
            count += 1
            chains.offsets[count] = chains.offsets[count - 1] + size
    return count


@jit
def _closed_chains(arcs: Arcs, links: _Links, chains: _Chains, used: NDArray[np.bool_], count: int) -> int:
    """Chains of the arcs not used yet, which are all closed, in the order of their topmost, there leftmost vertices.

    They are added to those that are there already. Returns how many there are then.
    """
    most = np.count_nonzero(~used)
    first, skip, sizes = np.empty(most, np.int32), np.empty(most, np.int32), np.ones(most, np.int64)
    corners = np.full(most, np.iinfo(np.int64).max, np.int64)
    closed = 0
    for arc in range(used.shape[0]):
        if used[arc]:
            continue
        half = 2 * arc
        while not used[half // 2]:
            used[half // 2] = True
            corner, at = _lowest(arcs, half)
            if corner < corners[closed]:
                corners[closed], first[closed], skip[closed] = corner, half, at
            onward = _onward(arcs, links, half)
            sizes[closed] += _size(arcs, half) - 1 - _is_straight(arcs, half, onward)
            half = onward
        if not _runs_east(arcs, first[closed], skip[closed]):
            skip[closed] = _size(arcs, first[closed]) - 1 - skip[closed]
            first[closed] ^= 1
        closed += 1
    for chain in np.argsort(corners[:closed]):
        chains.first[count], chains.skip[count] = first[chain], skip[chain]
        count += 1
        chains.offsets[count] = chains.offsets[count - 1] + sizes[chain]
    return count


@jit
def _vertex(arcs: Arcs, half: int, step: int) -> int:
    """The vertex that a half-edge comes to after so many steps."""
    return int(arcs.offsets[half // 2] + step if half % 2 == 0 else arcs.offsets[half // 2 + 1] - 1 - step)


@jit
def _lowest(arcs: Arcs, half: int) -> tuple[int, int]:
    """The topmost, there leftmost vertex but the last: its corner as a number, and the steps to it."""
    coords, vertex, way = arcs.coords, _vertex(arcs, half, 0), 1 - half % 2 * 2
    corner, at = np.iinfo(np.int64).max, 0
    for step in range(_size(arcs, half) - 1):
        here = np.int64(coords[vertex, 1]) << 32 | coords[vertex, 0]
        if here < corner:
            corner, at = here, step
        vertex += way
    return corner, at


@jit
def _runs_east(arcs: Arcs, half: int, step: int) -> bool:
    here, there = _vertex(arcs, half, step), _vertex(arcs, half, step + 1)
    return bool(arcs.coords[there, 0] > arcs.coords[here, 0])


@jit
def _copy(arcs: Arcs, half: int, steps: tuple[int, int], coords: NDArray[np.int32], at: int) -> int:
    """Copies vertices of a half-edge, from a step up to another. Returns the end of what was written."""
    source, vertex, way = arcs.coords, _vertex(arcs, half, steps[0]), 1 - half % 2 * 2
    for _ in range(steps[0], steps[1]):
        coords[at, 0], coords[at, 1] = source[vertex, 0], source[vertex, 1]
        at += 1
        vertex += way
    return at


@jit
def _write(
    arcs: Arcs, links: _Links, chains: _Chains, coords: NDArray[np.int32], sides: NDArray[np.int32]
) -> None:  # fmt: skip
    """Writes the vertices of each chain, and the regions on its left and right.

    A closed one ends with those vertices of its first half-edge that were skipped.
    """
    for chain in range(sides.shape[1]):
        first, skip = chains.first[chain], chains.skip[chain]
        sides[first % 2, chain], sides[1 - first % 2, chain] = arcs.left[first // 2], arcs.right[first // 2]
        at = _copy(arcs, first, (skip, _size(arcs, first)), coords, chains.offsets[chain])
        half, onward = first, _onward(arcs, links, first)
        while onward >= 0:
            at -= _is_straight(arcs, half, onward)
            closes = onward == first
            at = _copy(arcs, onward, (1, skip + 1 if closes else _size(arcs, onward)), coords, at)
            half, onward = onward, -1 if closes else _onward(arcs, links, onward)
