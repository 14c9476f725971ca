"""Each block of a map labelled and traced by itself: what `stitching` puts together to the map's coverage."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from geoseg.jit import jit
from geoseg.tiling import Window
from geoseg.vector.coverage import Arcs, trace_arcs
from geoseg.vector.lines.smooth import Crossings
from geoseg.vector.regions import Ints, Regions, Sums, label_regions

BLOCK_PX = 2048


class Layer(NamedTuple):
    """Pixels of one band `(row, col)` and which of them are usable."""

    pixels: NDArray[Any]
    valid: NDArray[np.bool_]


class MapReader(Protocol):
    """Where blocks come from."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the map."""

    def read(self, window: Window) -> tuple[Layer, Mapping[str, Layer]]:
        """The map's integers in a window, and the other rasters there by name."""

    def crossings(self, window: Window) -> Crossings | None:
        """Where boundaries cross between pixel centres, in a window and to its neighbours; None where that is open."""


@dataclass(frozen=True, slots=True, eq=False)
class Traced:
    """One block: its regions, and the boundaries between two pixels of the block.

    Attributes:
        window: The block's pixels in the map.
        arcs: In corners of the map. They end at the block's edge, at junctions of their own.
        corners: Corner `row * (cols + 1) + col` in the map of each junction, int64 `(junction,)`.
        regions: What is known of its regions, `first` counted in the map.
        edges: Regions along the block's edge: `top`, `bottom` `(col,)`, `left`, `right` `(row,)`, int32.
        crossings: Where boundaries cross between pixel centres.
    """

    window: Window
    arcs: Arcs
    corners: Ints
    regions: Regions
    edges: Mapping[str, NDArray[np.int32]] = field(default_factory=dict)
    crossings: Crossings | None = None


@dataclass(frozen=True, slots=True)
class TraceBlock:
    """The work on one window; it can be sent to another process.

    Attributes:
        reader: Where the pixels come from.
    """

    reader: MapReader

    def __call__(self, window: Window) -> Traced:
        """Read, label and trace."""
        layer, others = self.reader.read(window)
        traced = trace_block(layer, window=window, cols=self.reader.shape[1], others=others)
        return replace(traced, crossings=self.reader.crossings(window))


def windows_of(shape: tuple[int, int], *, block_px: int = BLOCK_PX) -> list[Window]:
    """The map cut into blocks of at most `block_px` each way."""
    rows, cols = shape
    return [
        Window(row, col, min(block_px, rows - row), min(block_px, cols - col))
        for row in range(0, rows, block_px)
        for col in range(0, cols, block_px)
    ]


def in_threads(work: TraceBlock, windows: Sequence[Window]) -> Iterator[Traced]:
    """Each window traced, in whatever order they are finished; as many at a time as there are cores."""
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    try:
        for future in as_completed([pool.submit(work, window) for window in windows]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def trace_block(
    layer: Layer, *, window: Window, cols: int, others: Mapping[str, Layer] | None = None
) -> Traced:  # fmt: skip
    """Label and trace a block.

    Args:
        layer: Integers; what is not valid belongs to no region.
        window: Where the block lies.
        cols: Columns of the map.
        others: Rasters to sum over the regions.

    Raises:
        InputError: The map is not of integers, or the shapes differ.
    """
    labels, classes = label_regions(layer.pixels, layer.valid)
    count = len(classes) - 1
    pixels, first = np.zeros(count + 1, np.int64), np.full(count + 1, -1, np.int64)
    _count(labels, pixels, first)
    pixels[0], first[0] = 0, -1
    row, col = np.divmod(first[1:], labels.shape[1])
    first[1:] = (row + window.row_off) * cols + col + window.col_off
    values = {name: _sums(labels, other, count=count) for name, other in (others or {}).items()}
    arcs = trace_arcs(labels, outline=False)
    arcs.coords[:] += np.array([window.col_off, window.row_off], np.int32)
    edges = {"top": labels[0], "bottom": labels[-1], "left": labels[:, 0], "right": labels[:, -1]}
    return Traced(
        window, arcs, _junction_corners(arcs, cols=cols), Regions(classes, pixels, first, values),
        {name: edge.copy() for name, edge in edges.items()},
    )  # fmt: skip


def sums_like(values: NDArray[Any] | np.dtype[Any], *, count: int) -> Sums:
    """Sums over no pixel yet, for `count` regions and nodata."""
    whole = np.dtype(getattr(values, "dtype", values)).kind in "iub"
    low = np.full(count + 1, np.iinfo(np.int64).max) if whole else np.full(count + 1, np.inf)
    return Sums(np.zeros(count + 1, low.dtype), np.zeros(count + 1, np.int64), low)


def _sums(labels: NDArray[np.int32], layer: Layer, *, count: int) -> Sums:
    """What a layer's valid pixels come to in each region."""
    sums = sums_like(layer.pixels, count=count)
    values = np.ascontiguousarray(layer.pixels, layer.pixels.dtype.newbyteorder("="))
    _add_values(labels, values, layer.valid, (sums.total, sums.count, sums.low))
    return sums


def _junction_corners(arcs: Arcs, *, cols: int) -> Ints:
    """The corner of each junction, from the ends of the arcs."""
    corners = np.empty(arcs.junction_count, np.int64)
    open_arcs = arcs.junctions[:, 0] >= 0
    for end, vertex in ((0, arcs.offsets[:-1]), (1, arcs.offsets[1:] - 1)):
        at = arcs.coords[vertex[open_arcs]].astype(np.int64)
        corners[arcs.junctions[open_arcs, end]] = at[:, 1] * (cols + 1) + at[:, 0]
    return corners


@jit
def _count(labels: NDArray[np.int32], pixels: Ints, first: Ints) -> None:
    """Counts the pixels of each region; `first` becomes the index of its first pixel in the block."""
    rows, cols = labels.shape
    for row in range(rows):
        for col in range(cols):
            region = labels[row, col]
            if pixels[region] == 0:
                first[region] = row * cols + col
            pixels[region] += 1


@jit
def _add_values(
    labels: NDArray[np.int32],
    values: NDArray[Any],
    valid: NDArray[np.bool_],
    out: tuple[NDArray[Any], Ints, NDArray[Any]],
) -> None:
    total, count, low = out
    for row in range(labels.shape[0]):
        for col in range(labels.shape[1]):
            if valid[row, col]:
                region = labels[row, col]
                total[region] += values[row, col]
                count[region] += 1
                low[region] = min(low[region], values[row, col])
