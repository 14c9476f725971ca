"""The loops of Winograd's filtering over squares of pixels, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray  # type: ignore[attr-defined]

from geoseg.infer.fast.products import WIDE_VECTORS, narrow_rows, wide_rows
from geoseg.infer.fast.vectors import (
    BUSY_PLANES,
    FLOAT_BYTES,
    LANES,
    PLANES,
    float32s,
    input_transform,
    output_transform,
    upsampled_transform,
)
from geoseg.jit import jit

SQUARE = 4
"""Rows and columns of the output that are made at a time."""

PRODUCTS = len(PLANES)


@jit
def convolve(  # noqa: PLR0917 - a loop over memory
    begin: Any, end: Any, images: Any, panels: Any, plain_from: Any, given: Any, made: Any, bias: Any, least: Any,
    plus: Any, added: Any, out: Any,
) -> None:  # fmt: skip
    """A convolution of 3 x 3 pixels, of squares `begin` to `end`.

    Args:
        begin: The first square; they are counted row by row.
        end: The square behind the last one.
        images: int64 `(image, 6)`: address of the pixels `(row, col, channel)`, their rows, columns and channels,
            whether the convolution sees them twice as large, and which channel of its input is their first.
        panels: The transformed weights `(36, panel, in, column)`.
        plain_from: Channels of the input before this one are those of images seen twice as large.
        given: Memory for the planes `(36, square, in)` of a chunk of squares, and the row behind them.
        made: Memory for the planes `(36, square, out)`, and the row behind them.
        bias: As for `write_squares`, with all that follows.
        least: What is smaller becomes this.
        plus: An image that is added, as the output but flat; else zeros for one vector.
        added: Whether it is an image.
        out: The image `(row, col, channel)`.
    """
    across, chunk = -(-out.shape[1] // SQUARE), given.shape[1] - 1
    for first in range(begin, end, chunk):
        count = min(chunk, end - first)
        for image in range(len(images)):
            read_squares(images[image], given, first, count, across)
        _multiply(given, panels, made, plain_from, count)
        write_squares(made, bias, least, plus, added, out, first, count, across)


@jit
def _multiply(given: Any, panels: Any, made: Any, plain_from: Any, count: Any) -> None:
    """The products of at least the first `count` squares with the weights; those that are zero are left out."""
    deep, columns, width = given.shape[2], panels.shape[3], made.shape[2]
    a_row, out_row = np.uint64(FLOAT_BYTES * deep), np.uint64(FLOAT_BYTES * width)
    for plane in range(PRODUCTS):
        start = 0 if plane < BUSY_PLANES else plain_from
        if start == deep:
            made[plane, :count] = 0
            continue
        depth = np.uint64(deep - start)
        for panel in range(panels.shape[1]):
            a = np.uint64(given[plane].ctypes.data) + np.uint64(FLOAT_BYTES * start)
            b = np.uint64(panels[plane, panel].ctypes.data) + np.uint64(FLOAT_BYTES * start * columns)
            to = np.uint64(made[plane].ctypes.data) + np.uint64(FLOAT_BYTES * panel * columns)
            if columns == WIDE_VECTORS * LANES:
                wide_rows(a, a_row, b, to, out_row, depth, np.uint64(count))
            else:
                narrow_rows(a, a_row, b, to, out_row, depth, np.uint64(count))


@jit
def read_squares(image: Any, out: Any, first: Any, count: Any, across: Any) -> None:
    """Transform the surroundings of squares `first` to `first + count` of an image.

    Args:
        image: A row of the table that `convolve` takes.
        out: The planes `(36, square, channel)`.
        first: The first square.
        count: How many.
        across: Squares side by side.
    """
    base, rows, cols, channels, twice, channel = image
    pixels = carray(float32s(np.uint64(base)), (rows, cols, channels))
    _, chunk, deep = out.shape
    side, stride = (4, 2) if twice else (6, 4)
    step = np.uint64(FLOAT_BYTES * chunk * deep)
    ring = np.zeros(PRODUCTS * LANES, np.float32)
    for square in range(count):
        top = ((first + square) // across) * stride - 1
        left = ((first + square) % across) * stride - 1
        inside = top >= 0 and left >= 0 and top + side <= rows and left + side <= cols
        for lane in range(0, channels, LANES):
            target = np.uint64(out.ctypes.data) + np.uint64(FLOAT_BYTES * (square * deep + channel + lane))
            if inside:
                place = np.uint64(FLOAT_BYTES * ((top * cols + left) * channels + lane))
                source = np.uint64(base) + place
                row, col = np.uint64(FLOAT_BYTES * cols * channels), np.uint64(FLOAT_BYTES * channels)
            else:
                for i in range(side):
                    for j in range(side):
                        there = 0 <= top + i < rows and 0 <= left + j < cols
                        for k in range(LANES):
                            value = pixels[top + i, left + j, lane + k] if there else np.float32(0)
                            ring[(i * side + j) * LANES + k] = value
                source = np.uint64(ring.ctypes.data)
                row, col = np.uint64(FLOAT_BYTES * side * LANES), np.uint64(FLOAT_BYTES * LANES)
            if twice:
                upsampled_transform(source, row, col, target, step)
            else:
                input_transform(source, row, col, target, step)


@jit
def write_squares(  # noqa: PLR0917 - a loop over memory
    products: Any, bias: Any, least: Any, plus: Any, added: Any, out: Any, first: Any, count: Any, across: Any
) -> None:
    """Transform the products of squares `first` to `first + count` back into an image.

    Args:
        products: The planes `(36, square, channel)`.
        bias: Added to each channel.
        least: What is smaller becomes this.
        plus: An image that is added, as the output but flat; else zeros for one vector.
        added: Whether it is an image.
        out: The image `(row, col, channel)`.
        first: The first square.
        count: How many.
        across: Squares side by side.
    """
    rows, cols, width = out.shape
    step = np.uint64(FLOAT_BYTES * products.shape[1] * width)
    row, col = np.uint64(FLOAT_BYTES * cols * width), np.uint64(FLOAT_BYTES * width)
    follows = np.uint64(1 if added else 0)  # whether `plus` moves on with the output
    edge, more = np.zeros((SQUARE, SQUARE, LANES), np.float32), np.zeros((SQUARE, SQUARE, LANES), np.float32)
    edge_row, edge_col = np.uint64(FLOAT_BYTES * SQUARE * LANES), np.uint64(FLOAT_BYTES * LANES)
    for square in range(count):
        top = ((first + square) // across) * SQUARE
        left = ((first + square) % across) * SQUARE
        inside = top + SQUARE <= rows and left + SQUARE <= cols
        for lane in range(0, width, LANES):
            source = np.uint64(products.ctypes.data) + np.uint64(FLOAT_BYTES * (square * width + lane))
            offset = np.uint64(bias.ctypes.data) + np.uint64(FLOAT_BYTES * lane)
            if inside:
                place = np.uint64(FLOAT_BYTES * ((top * cols + left) * width + lane))
                output_transform(
                    source, step, offset, np.uint64(plus.ctypes.data) + follows * place, follows * row, follows * col,
                    least, np.uint64(out.ctypes.data) + place, row, col,
                )  # fmt: skip
                continue
            if added:
                _take(plus, out.shape, top, left, lane, more)
            output_transform(
                source, step, offset, np.uint64(more.ctypes.data), edge_row, edge_col, least,
                np.uint64(edge.ctypes.data), edge_row, edge_col,
            )  # fmt: skip
            for i in range(min(SQUARE, rows - top)):
                for j in range(min(SQUARE, cols - left)):
                    for k in range(LANES):
                        out[top + i, left + j, lane + k] = edge[i, j, k]


@jit
def _take(  # noqa: PLR0917 - a loop over memory
    image: Any, shape: Any, top: Any, left: Any, lane: Any, square: Any
) -> None:
    """Copy what a flat image has of a square that reaches over its edge."""
    rows, cols, width = shape
    for i in range(min(SQUARE, rows - top)):
        for j in range(min(SQUARE, cols - left)):
            for k in range(LANES):
                square[i, j, k] = image[((top + i) * cols + left + j) * width + lane + k]
