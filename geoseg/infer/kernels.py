"""The loops over pixels on a CPU, each one pass over memory: into the network, out of it, and onto the map.

They run band by band of rows in threads. Every operation rounds once (numba joins no multiplication and addition), so
a pixel's result has the same bits wherever in a tile, a block or a thread it is worked out.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.jit import jit

F = np.float32
LEAST_ROWS = 64
"""Fewer rows are not worth another thread."""


def thread_count() -> int:
    """Threads to work with: `OMP_NUM_THREADS` where it is set, else the cores that this process may use."""
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if wanted.isdigit() and int(wanted):
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_thread = threading.local()


def stay_in_thread() -> None:
    """Let this thread work through all rows itself from now on: others are at work beside it."""
    _thread.alone = True


@lru_cache(maxsize=2)
def _pool(process: int) -> ThreadPoolExecutor:  # keyed by process, for a fork leaves the threads behind
    return ThreadPoolExecutor(thread_count(), thread_name_prefix=f"geoseg-rows-{process}")


def in_rows(rows: int, work: Callable[[slice], Any]) -> None:
    """Call `work` with slices that cover `rows`, in threads where that pays."""
    threads = 1 if getattr(_thread, "alone", False) else thread_count()
    bands = min(threads, max(1, rows // LEAST_ROWS))
    edges = np.linspace(0, rows, bands + 1).astype(int)
    parts = [slice(int(start), int(stop)) for start, stop in pairwise(edges)]
    if len(parts) == 1:
        work(parts[0])
    else:
        list(_pool(os.getpid()).map(work, parts))


def standardize(
    tiles: Sequence[NDArray[Any]],
    valid: Sequence[NDArray[np.bool_]],
    *,
    mean: NDArray[np.float32],
    std: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Input of a network, float32 `(tile, row, col, band)`: `(value - mean) / std`, and 0 where a pixel is invalid.

    Args:
        tiles: `(band, row, col)` each, any real dtype.
        valid: `(row, col)` each.
        mean: One a band.
        std: One a band.
    """
    out = np.empty((len(tiles), *tiles[0].shape[1:], len(tiles[0])), np.float32)
    for number, (pixels, usable) in enumerate(zip(tiles, valid, strict=True)):

        def work(part: slice, pixels: NDArray[Any] = pixels, usable: Any = usable, number: int = number) -> None:
            _standardize(pixels[:, part], usable[part], mean, std, out[number, part])

        in_rows(out.shape[1], work)
    return out


@jit
def _standardize(pixels: Any, valid: Any, mean: Any, std: Any, out: Any) -> None:
    bands, rows, cols = pixels.shape
    for row in range(rows):
        for band in range(bands):
            for col in range(cols):
                value = (F(pixels[band, row, col]) - mean[band]) / std[band]
                out[row, col, band] = value if valid[row, col] else F(0)


def add_tile(sums: NDArray[np.float32], tile: NDArray[np.float32], weights: tuple[Any, Any], *, logits: bool) -> None:
    """Add a tile's weighted class probabilities to sums, both `(row, col, class)` float32.

    Args:
        sums: What is added to, in place.
        tile: Probabilities, or the logits of which they are the softmax.
        weights: Along the rows and along the columns; a pixel's weight is their product.
        logits: Whether `tile` holds logits.
    """
    kernel = _add_softmax if logits else _add

    def work(part: slice) -> None:
        kernel(sums[part], tile[part], weights[0][part], weights[1])

    in_rows(sums.shape[0], work)


@jit
def _add(sums: Any, tile: Any, row_weights: Any, col_weights: Any) -> None:
    rows, cols, classes = sums.shape
    for row in range(rows):
        for col in range(cols):
            weight = row_weights[row] * col_weights[col]
            for k in range(classes):
                sums[row, col, k] += tile[row, col, k] * weight


@jit
def _exp(values: Any, power: Any, factor: Any) -> None:
    """The exponential of float32 numbers up to 0, in place, within 2 units in the last place.

    The range is cut to [-ln 2 / 2, ln 2 / 2], where a polynomial of degree 7 stands for it (Cephes, `expf`: S. Moshier
    1984). A loop without branches or calls, which compilers turn into vector instructions.

    Args:
        values: The numbers.
        power: int32 scratch of the same length.
        factor: The same memory as float32.
    """
    for i in range(len(values)):
        x = max(values[i], F(-87.3365))  # below lies no normal float32; comparing lets NaN through
        whole = np.floor(x * F(1.44269504088896341) + F(0.5))
        x = x - whole * F(0.693359375)  # ln 2 in two parts, the first exact
        x = x + whole * F(2.12194440e-4)
        y = F(1.9875691500e-4)
        y = y * x + F(1.3981999507e-3)
        y = y * x + F(8.3334519073e-3)
        y = y * x + F(4.1665795894e-2)
        y = y * x + F(1.6666665459e-1)
        y = y * x + F(5.0000001201e-1)
        values[i] = y * (x * x) + x + F(1)
        power[i] = (np.int32(whole) + np.int32(127)) << np.int32(23)  # 2 to the whole, as bits
    for i in range(len(values)):
        values[i] *= factor[i]


@jit
def _add_softmax(sums: Any, logits: Any, row_weights: Any, col_weights: Any) -> None:
    rows, cols, classes = sums.shape
    line = np.empty((cols, classes), np.float32)
    flat = line.reshape(cols * classes)
    power = np.empty(cols * classes, np.int32)
    factor = power.view(np.float32)
    for row in range(rows):
        for col in range(cols):
            most = F(logits[row, col, 0])
            for k in range(1, classes):
                most = max(most, F(logits[row, col, k]))
            for k in range(classes):
                line[col, k] = F(logits[row, col, k]) - most
        _exp(flat, power, factor)
        for col in range(cols):
            total = F(0)
            for k in range(classes):
                total += line[col, k]
            weight = row_weights[row] * col_weights[col] / total
            for k in range(classes):
                sums[row, col, k] += line[col, k] * weight


@jit
def best(scores: Any, channel: Any, score: Any) -> None:
    """The highest of scores `(row, col, class)` and its channel, each `(row, col)`; the lowest channel wins a tie.

    The score is NaN where one of them is.
    """
    rows, cols, classes = scores.shape
    for row in range(rows):
        for col in range(cols):
            first, most = 0, scores[row, col, 0]
            total = most
            for k in range(1, classes):
                value = scores[row, col, k]
                total += value
                higher = value > most  # chosen, not branched on: neighbours differ too often to guess
                first = k if higher else first
                most = value if higher else most
            channel[row, col] = first
            score[row, col] = F(np.nan) if math.isnan(total) else most


@jit
def runner_up(scores: Any, leader: Any, channel: Any, score: Any) -> None:
    """The highest of scores `(row, col, class)` but for the channel `leader (row, col)`, as `best` gives it.

    With a single class that channel itself, and a score of 0.
    """
    rows, cols, classes = scores.shape
    for row in range(rows):
        for col in range(cols):
            without = leader[row, col]
            second, most = without, F(-1)
            for k in range(classes):
                value = scores[row, col, k]
                higher = (value > most) & (k != without)
                second = k if higher else second
                most = value if higher else most
            channel[row, col] = second
            score[row, col] = max(most, F(0))


@jit
def entropy(scores: Any, out: Any) -> None:
    """Shannon entropy of scores `(row, col, class)` over its largest, ln of the number of classes: 0 to 1."""
    rows, cols, classes = scores.shape
    largest = math.log(max(classes, 2))
    for row in range(rows):
        for col in range(cols):
            total = 0.0
            for k in range(classes):
                value = scores[row, col, k]
                if value > 0:
                    total -= value * math.log(value)
                elif math.isnan(value):
                    total = math.nan
            out[row, col] = total / largest


@jit
def percent(shares: Any, out: Any, no_number: Any) -> None:
    """Shares of 0 to 1 as whole percent, half to even, and `no_number` for NaN; both of one dimension."""
    for i in range(len(shares)):
        value = shares[i]
        out[i] = no_number if math.isnan(value) else np.uint8(min(max(np.rint(value * F(100)), F(0)), F(100)))
