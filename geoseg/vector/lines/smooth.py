"""Natural lines in place of staircases, and boundaries finer than pixels from class probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.vector.coverage import Arcs
from geoseg.vector.lines.corridor import LEAST, MOST, SUBPIXEL, Crossings, count_edges, gates_for, thread_arcs
from geoseg.vector.regions import Ints

__all__ = ["SUBPIXEL", "Crossings", "find_crossings", "merge_crossings", "smooth_arcs"]

_CHUNK = 1 << 20  # vertices that are written at a time


def smooth_arcs(arcs: Arcs, crossings: Crossings | None = None) -> Arcs:
    """The arcs as natural lines, in 1/256 pixel; the polygons still are a valid coverage.

    A line runs from junction to junction through middles of pixel edges, as few of them as can be without giving area
    to one side. All of it is within half a pixel of the exact boundary, and the middle of every pixel edge within half
    a pixel of it; the corners, which stand out from any straight line on both sides, are within half a pixel's
    diagonal. It parts the same pixel centres, so the polygons rasterise to the map that they came from. Junctions stay
    where they are, and borders with nodata or the outside keep every corner, so that the areas sum to what they were.

    With crossings, lines run through these instead, and leave out only what is nearer to them than 1/16 pixel.

    Args:
        arcs: The boundaries as they were traced, in pixel corners.
        crossings: Where the boundary is between the centres of two pixels; the middle, where nothing is said.

    Raises:
        InputError: The arcs were smoothed or simplified already.
    """
    edges = count_edges(arcs)
    if arcs.scale != 1 or (edges < 0).any():
        raise InputError("boundaries are smoothed as they were traced, these were changed; smooth first, then simplify")
    if len(edges) == 0:
        return arcs._replace(scale=SUBPIXEL)
    gates, room = gates_for(int(edges.max())), np.cumsum(edges + 2)
    sizes, pieces, first = np.zeros(len(edges), np.int64), [], 0
    while first < len(edges):
        done = int(room[first - 1]) if first else 0
        end = max(first + 1, int(np.searchsorted(room, done + _CHUNK)))
        out = np.empty((int(room[end - 1]) - done, 2), np.int32)
        used = thread_arcs(arcs, crossings or _no_crossings(), gates, first, sizes[first:end], out)
        pieces.append(out[:used].copy())
        first = end
    return arcs._replace(coords=np.concatenate(pieces), offsets=np.append(0, np.cumsum(sizes)), scale=SUBPIXEL)


def _no_crossings() -> Crossings:
    return Crossings(np.empty(0, np.int64), np.empty(0, np.uint8), np.empty(0, np.int64), np.empty(0, np.uint8), 0)


def find_crossings(
    probabilities: NDArray[Any],
    classes: NDArray[Any],
    valid: NDArray[np.bool_],
    *,
    row_off: int,
    col_off: int,
    cols: int,
) -> Crossings:
    """Where the two classes on the sides of each pixel edge inside a window are as probable as each other.

    Between the centres of two pixels of classes A and B, the difference of their probabilities is taken to be linear;
    its zero is the crossing. Where it has none, because the pixels got their classes in another way, nothing is said.
    Windows that overlap by one pixel leave no edge out.

    Args:
        probabilities: `(class, row, col)`, of any scale: uint8, percent or float.
        classes: Index into the probabilities' first axis of each pixel's class, `(row, col)`.
        valid: Pixels that have a class.
        row_off: First row of the window in the map.
        col_off: First column of the window in the map.
        cols: Columns of the map.

    Raises:
        InputError: The arrays differ in shape.
    """
    if probabilities.ndim != 3 or not probabilities.shape[1:] == classes.shape == valid.shape:
        raise InputError(
            f"probabilities (class, row, col) {probabilities.shape} must lie on the pixels of the classes "
            f"{classes.shape} and of what is valid {valid.shape}"
        )
    keys, places = [], []
    for axis in (0, 1):
        rows, columns, place = _find_along(axis, probabilities, classes, valid)
        keys.append((rows + row_off).astype(np.int64) * (cols + 1) + columns + col_off)
        places.append(place)
    return Crossings(keys[0], places[0], keys[1], places[1], cols)


def _find_along(
    axis: int, probabilities: NDArray[Any], classes: NDArray[Any], valid: NDArray[np.bool_]
) -> tuple[Ints, Ints, NDArray[np.uint8]]:
    """Row and column of the second pixel of each pair along an axis with a crossing, and its place, in their order."""
    before, after = ((slice(None),) * axis + (part,) for part in (slice(None, -1), slice(1, None)))
    rows, columns = np.nonzero((classes[before] != classes[after]) & valid[before] & valid[after])
    here, there = (rows, columns), (rows + (axis == 0), columns + (axis == 1))
    first, second = classes[here], classes[there]
    start, end = (
        probabilities[(first, *at)].astype(np.float64) - probabilities[(second, *at)].astype(np.float64)
        for at in (here, there)
    )
    crossed = (start >= 0) & (end <= 0) & (start > end)
    place = np.rint(SUBPIXEL * start[crossed] / (start[crossed] - end[crossed]))
    return there[0][crossed], there[1][crossed], np.clip(place, LEAST, MOST).astype(np.uint8)


def merge_crossings(parts: Sequence[Crossings]) -> Crossings:
    """The crossings of windows of one map together; those that two windows have are kept once.

    Raises:
        InputError: There is none, or they are of maps of different widths.
    """
    widths = sorted({part.cols for part in parts})
    if len(widths) != 1:
        raise InputError(f"crossings of one map are merged, got some for maps of {widths or 'no'} columns")
    keys_x, at_x = _merged([part.keys_x for part in parts], [part.at_x for part in parts])
    keys_y, at_y = _merged([part.keys_y for part in parts], [part.at_y for part in parts])
    return Crossings(keys_x, at_x, keys_y, at_y, widths[0])


def _merged(keys: list[Ints], places: list[NDArray[np.uint8]]) -> tuple[Ints, NDArray[np.uint8]]:
    unique, index = np.unique(np.concatenate(keys), return_index=True)
    return unique, np.concatenate(places)[index]
