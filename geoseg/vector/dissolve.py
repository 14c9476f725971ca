"""Arcs joined to longer ones: of merged regions, and of pieces from blocks; no second look at the raster."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.jit import jit
from geoseg.vector.coverage import Arcs, end_headings, junction_table
from geoseg.vector.regions import Ints


class _Chains(NamedTuple):
    """Half-edges that become one arc, each chain by its first; `2 * arc` is an arc forwards, `2 * arc + 1` backwards.

    Attributes:
        first: Half-edge that the chain begins in, int32 `(chain,)`.
        last: Half-edge that an open chain ends with, int32.
        skip: Vertices of `first` that come before the chain's start, and so at its end, int32; 0 in open chains.
        sizes: Number of vertices, int64.
    """

    first: NDArray[np.int32]
    last: NDArray[np.int32]
    skip: NDArray[np.int32]
    sizes: Ints


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
    table = junction_table(pieces)
    corners = _junction_corners(pieces)
    order = np.argsort(corners, kind="stable") if np.any(corners[1:] < corners[:-1]) else np.arange(len(corners))
    stays = (table >= 0).sum(1, dtype=np.int8) > 2
    number = np.full(len(stays) + 1, -1, np.int32)  # the last one is for closed arcs, whose junction is -1
    number[order[stays[order]]] = np.arange(np.count_nonzero(stays), dtype=np.int32)
    used = pieces.left == pieces.right
    opened = _open_chains(pieces, (table, stays), order, used)
    closed = _closed_chains(pieces, (table, stays), used)
    chains = _Chains(*(np.concatenate(both) for both in zip(opened, closed, strict=True)))
    met = np.full((len(chains.first), 2), -1, np.int32)
    met[: len(opened.first), 0] = _start_junction(pieces, opened.first)
    met[: len(opened.first), 1] = _start_junction(pieces, opened.last ^ 1)
    return _written(pieces, (table, stays), chains, number[met])


def _start_junction(arcs: Arcs, halves: NDArray[np.int32]) -> NDArray[np.int32]:
    junctions: NDArray[np.int32] = arcs.junctions[halves >> 1, halves & 1]
    return junctions


def _written(
    arcs: Arcs, links: tuple[NDArray[np.int32], NDArray[np.bool_]], chains: _Chains, junctions: NDArray[np.int32]
) -> Arcs:
    """The chains as arcs."""
    offsets = np.zeros(len(chains.sizes) + 1, np.int64)
    np.cumsum(chains.sizes, out=offsets[1:])
    coords = np.empty((offsets[-1], 2), np.int32)
    _write(arcs, links, chains, offsets, coords)
    forwards = chains.first % 2 == 0
    left, right = arcs.left[chains.first >> 1], arcs.right[chains.first >> 1]
    return Arcs(
        coords, offsets, np.where(forwards, left, right), np.where(forwards, right, left), junctions,
        end_headings(coords, offsets), int(np.count_nonzero(links[1])), arcs.scale,
    )  # fmt: skip


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
def _onward(arcs: Arcs, links: tuple[NDArray[np.int32], NDArray[np.bool_]], half: int) -> int:
    """The half-edge that goes on from the end of one; -1 where a junction stays; itself where it closes on its own."""
    table, stays = links
    junction = arcs.junctions[half // 2, 1 - half % 2]
    if junction < 0:
        return half
    if stays[junction]:
        return -1
    onward = half
    for heading in range(4):
        if table[junction, heading] >= 0 and table[junction, heading] != half ^ 1:
            onward = table[junction, heading]
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
def _open_chains(
    arcs: Arcs, links: tuple[NDArray[np.int32], NDArray[np.bool_]], order: Ints, used: NDArray[np.bool_]
) -> _Chains:
    """Chains between junctions that stay, from each of these in order; their arcs are marked as used."""
    table, stays = links
    most = 0
    for junction in range(table.shape[0]):
        if stays[junction]:
            for heading in range(4):
                most += table[junction, heading] >= 0
    out = _Chains(
        np.empty(most // 2, np.int32), np.empty(most // 2, np.int32), np.zeros(most // 2, np.int32),
        np.empty(most // 2, np.int64),
    )  # fmt: skip
    count = 0
    for junction in order:
        for heading in range(4):
            half = table[junction, heading]
            if not stays[junction] or half < 0 or used[half // 2]:
                continue
            out.first[count], out.sizes[count] = half, _size(arcs, half)
            used[half // 2] = True
            onward = _onward(arcs, links, half)
            while onward >= 0:
                out.sizes[count] += _size(arcs, onward) - 1 - _is_straight(arcs, half, onward)
                used[onward // 2] = True
                half, onward = onward, _onward(arcs, links, onward)
            out.last[count] = half
            count += 1
    return out


@jit
def _closed_chains(
    arcs: Arcs, links: tuple[NDArray[np.int32], NDArray[np.bool_]], used: NDArray[np.bool_]
) -> _Chains:
    """Chains of the arcs not used yet, which are all closed, in the order of their topmost, there leftmost vertices."""
    most = np.count_nonzero(~used)
    first, skip, sizes = np.empty(most, np.int32), np.empty(most, np.int32), np.empty(most, np.int64)
    corners = np.empty(most, np.int64)
    count = 0
    for arc in range(used.shape[0]):
        if used[arc]:
            continue
        sizes[count], corners[count] = 1, np.iinfo(np.int64).max
        half = 2 * arc
        while not used[half // 2]:
            used[half // 2] = True
            corner, at = _lowest(arcs, half)
            if corner < corners[count]:
                corners[count], first[count], skip[count] = corner, half, at
            onward = _onward(arcs, links, half)
            sizes[count] += _size(arcs, half) - 1 - _is_straight(arcs, half, onward)
            half = onward
        if not _runs_east(arcs, first[count], skip[count]):
            skip[count] = _size(arcs, first[count]) - 1 - skip[count]
            first[count] ^= 1
        count += 1
    order = np.argsort(corners[:count])
    return _Chains(first[order], first[order], skip[order], sizes[order])


@jit
def _vertex(arcs: Arcs, half: int, step: int) -> int:
    """The vertex that a half-edge comes to after so many steps."""
    return int(arcs.offsets[half // 2] + step if half % 2 == 0 else arcs.offsets[half // 2 + 1] - 1 - step)


@jit
def _lowest(arcs: Arcs, half: int) -> tuple[int, int]:
    """The topmost, there leftmost vertex but the last: its corner as a number, and the steps to it."""
    corner, at = np.iinfo(np.int64).max, 0
    for step in range(_size(arcs, half) - 1):
        vertex = _vertex(arcs, half, step)
        here = np.int64(arcs.coords[vertex, 1]) << 32 | arcs.coords[vertex, 0]
        if here < corner:
            corner, at = here, step
    return corner, at


@jit
def _runs_east(arcs: Arcs, half: int, step: int) -> bool:
    here, there = _vertex(arcs, half, step), _vertex(arcs, half, step + 1)
    return bool(arcs.coords[there, 0] > arcs.coords[here, 0])


@jit
def _copy(arcs: Arcs, half: int, steps: tuple[int, int], coords: NDArray[np.int32], at: int) -> int:
    """Copies vertices of a half-edge, from a step up to another. Returns the end of what was written."""
    for step in range(steps[0], steps[1]):
        vertex = _vertex(arcs, half, step)
        coords[at, 0], coords[at, 1] = arcs.coords[vertex, 0], arcs.coords[vertex, 1]
        at += 1
    return at


@jit
def _write(
    arcs: Arcs,
    links: tuple[NDArray[np.int32], NDArray[np.bool_]],
    chains: _Chains,
    offsets: Ints,
    coords: NDArray[np.int32],
) -> None:
    """Writes the vertices of each chain; a closed one ends with those of its first half-edge that were skipped."""
    for chain in range(chains.first.shape[0]):
        half, skip = chains.first[chain], chains.skip[chain]
        at = _copy(arcs, half, (skip, _size(arcs, half)), coords, offsets[chain])
        onward = _onward(arcs, links, half)
        while onward >= 0:
            at -= _is_straight(arcs, half, onward)
            closes = onward == chains.first[chain]
            at = _copy(arcs, onward, (1, skip + 1 if closes else _size(arcs, onward)), coords, at)
            half, onward = onward, -1 if closes else _onward(arcs, links, onward)
