"""Arcs of merged regions, from the arcs of the regions before: no second look at the raster."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geoseg.jit import jit
from geoseg.vector.coverage import Arcs, end_headings, heading_of, junction_table
from geoseg.vector.regions import Ints


def dissolve(arcs: Arcs, lut: NDArray[np.int32]) -> Arcs:
    """The arcs with `lut[region]` for each region: as if the merged raster had been traced.

    Arcs whose sides became one region are dropped. Arcs that meet at a junction where only two are left become one, and
    the junction a turn or nothing.
    """
    left, right = lut[arcs.left], lut[arcs.right]
    kept = np.flatnonzero(left != right)
    lengths = np.diff(arcs.offsets)[kept]
    offsets = np.zeros(len(kept) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    index = np.repeat(arcs.offsets[kept] - offsets[:-1], lengths) + np.arange(offsets[-1])
    remaining = Arcs(
        arcs.coords[index], offsets, left[kept], right[kept], arcs.junctions[kept], arcs.leaving[kept],
        arcs.junction_count,
    )  # fmt: skip
    table = junction_table(remaining)
    return _joined(remaining, table, (table >= 0).sum(1) > 2)


def _joined(arcs: Arcs, table: NDArray[np.int32], stays: NDArray[np.bool_]) -> Arcs:
    """The arcs joined at the junctions that do not stay."""
    coords, offsets = np.empty_like(arcs.coords), np.zeros_like(arcs.offsets)
    ends = np.empty((len(arcs.left), 2), np.int32)
    count = _join(arcs, table, stays, (coords, offsets, ends))
    offsets, (first, last) = offsets[: count + 1].copy(), ends[:count].T
    forwards = first % 2 == 0
    left, right = arcs.left[first // 2], arcs.right[first // 2]
    # -1, of an arc without junctions and of one that closes where none stays, picks the -1 at the end.
    number = np.append(np.where(stays, np.cumsum(stays) - 1, -1), -1).astype(np.int32)
    met = np.stack([arcs.junctions[first // 2, first % 2], arcs.junctions[last // 2, 1 - last % 2]], axis=1)
    coords = coords[: offsets[-1]].copy()
    return Arcs(
        coords, offsets, np.where(forwards, left, right), np.where(forwards, right, left), number[met],
        end_headings(coords, offsets), int(stays.sum()),
    )  # fmt: skip


@jit
def _join(
    arcs: Arcs,
    table: NDArray[np.int32],
    stays: NDArray[np.bool_],
    out: tuple[NDArray[np.int32], Ints, NDArray[np.int32]],
) -> int:
    """Writes chains between junctions that stay, then closed ones. Returns how many.

    Into `out` go vertices, offsets, and the first and last half-edge of each chain.
    """
    coords, offsets, ends = out
    used = np.zeros(arcs.left.shape[0], np.bool_)
    count, at = 0, 0
    for closed in (False, True):
        for half in range(2 * used.shape[0]):
            start = arcs.junctions[half // 2, half % 2]
            if used[half // 2] or (not closed and (start < 0 or not stays[start])):
                continue
            last = half
            at = _append(arcs, half, coords, at, at)
            while last >= 0:
                ends[count, 0], ends[count, 1] = half, last
                used[last // 2] = True
                last = _onward(arcs, table, stays, last)
                if last < 0 or used[last // 2]:
                    break
                at = _append(arcs, last, coords, offsets[count], at)
            if closed:
                at = _close(coords, offsets[count], at)
            count += 1
            offsets[count] = at
    return count


@jit
def _onward(arcs: Arcs, table: NDArray[np.int32], stays: NDArray[np.bool_], half: int) -> int:
    """The half-edge that goes on from the end of one; -1 where a junction stays, or a closed arc is its own end."""
    junction = arcs.junctions[half // 2, 1 - half % 2]
    if junction < 0 or stays[junction]:
        return -1
    onward = -1
    for heading in range(4):
        if table[junction, heading] >= 0 and table[junction, heading] != half ^ 1:
            onward = table[junction, heading]
    return onward


@jit
def _append(arcs: Arcs, half: int, coords: NDArray[np.int32], begin: int, at: int) -> int:
    """Adds a half-edge's vertices to the chain that started at `begin`. Returns the end of the vertices written."""
    arc = half // 2
    start, end = arcs.offsets[arc], arcs.offsets[arc + 1]
    if at > begin:
        at -= 1  # the vertex that both share; it stays where the line turns
    for step in range(end - start):
        source = start + step if half % 2 == 0 else end - 1 - step
        coords[at, 0], coords[at, 1] = arcs.coords[source, 0], arcs.coords[source, 1]
        at += 1
        if step == 1 and at - begin > 2 and heading_of(coords, at - 3, at - 2) == heading_of(coords, at - 2, at - 1):
            coords[at - 2, 0], coords[at - 2, 1] = coords[at - 1, 0], coords[at - 1, 1]
            at -= 1
    return at


@jit
def _close(out: NDArray[np.int32], begin: int, at: int) -> int:
    """Takes the seam of a closed chain out where the line does not turn there. Returns the end of its vertices."""
    if heading_of(out, at - 2, at - 1) != heading_of(out, begin, begin + 1):
        return at
    for vertex in range(begin, at - 2):
        out[vertex, 0], out[vertex, 1] = out[vertex + 1, 0], out[vertex + 1, 1]
    out[at - 2, 0], out[at - 2, 1] = out[begin, 0], out[begin, 1]
    return at - 1
