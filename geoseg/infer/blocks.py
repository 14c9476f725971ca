"""Blocks of a scene: read, predict tile by tile, blend, and hand on finished rows.

The work goes down a strip of columns, one row of tiles after the other. Only one row of tiles is ever summed up, so
memory depends on the strip's width and the tile's height, never on the scene. A block whose upper neighbour was just
made takes its unfinished rows over; a block that starts alone predicts the tiles above it again and keeps its share.
Both sum the same tiles in the same order, so they give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import ModelFileError
from geoseg.infer.blend import NO_NUMBER, Accumulator, Arrays, axis_weights, weigh
from geoseg.infer.feed import read_ahead
from geoseg.io.grids import crop
from geoseg.tiling import Block, Tiling, Window

if TYPE_CHECKING:
    from geoseg.io.protocol import Source
    from geoseg.legend import Legend

NO_CONFIDENCE = 255


class Predictor(Protocol):
    """Tiles in, class probabilities out, on some device."""

    @property
    def classes(self) -> int:
        """How many classes it gives."""

    @property
    def batch_tiles(self) -> int:
        """How many tiles it takes at once."""

    @property
    def arrays(self) -> Arrays:
        """The library of arrays that `probabilities` returns."""

    def probabilities(self, pixels: NDArray[Any], valid: NDArray[np.bool_], *, model_shape: tuple[int, int]) -> Any:
        """Class probabilities `(tile, class, row, col)`, float32, on the device.

        Args:
            pixels: `(tile, band, row, col)` as read, any real dtype.
            valid: `(tile, row, col)`, True where a pixel is usable.
            model_shape: Rows and columns at which the network sees the tile.
        """


@dataclass(frozen=True)
class SceneTask:
    """All that a worker needs to make any block of a scene.

    Attributes:
        source: The scene; its bands are the model's, in the model's order.
        predictor: The network.
        legend: The classes, one a channel.
        tiling: The lattice of tiles.
        model_shape: Rows and columns at which the network sees a tile.
        blend: A name in `BLENDS`.
    """

    source: Source
    predictor: Predictor
    legend: Legend
    tiling: Tiling
    model_shape: tuple[int, int]
    blend: str


@dataclass(frozen=True, slots=True)
class FinishedBlock:
    """A block's class ids and confidence in percent, `(row, col)` each."""

    block: Block
    classes: NDArray[Any]
    confidence: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Step:
    """One row of tiles of one block.

    Attributes:
        block: The block it is for.
        tile_row: The row of tiles.
        fresh: Whether nothing is carried over from the step before.
        read: Rows of the scene, start and stop, that were not read by the step before.
        emit: Rows that the step finishes for its block, from the top of the row of tiles on; may be none.
        last: Whether the block is finished after it.
    """

    block: Block
    tile_row: int
    fresh: bool
    read: tuple[int, int]
    emit: int
    last: bool


def plan_steps(tiling: Tiling, blocks: Sequence[Block]) -> Iterator[Step]:
    """The rows of tiles to predict for `blocks`, in their order; a block that continues the one before takes over."""
    axis, above = tiling.rows, None
    for block in blocks:
        window = block.window
        rows = axis.touching(window.row_off, window.row_stop)
        carried = above is not None and above.strip == block.strip and above.window.row_stop == window.row_off
        first = window.row_off // axis.stride if carried else rows.start
        for tile_row in range(first, rows.stop):
            fresh = tile_row == first and not carried
            top = tile_row * axis.stride
            read_from = top if fresh else min(top - axis.stride + axis.tile, axis.size)
            stop = axis.cell(tile_row)[1]
            emit = stop - top if top >= window.row_off else 0
            read = read_from, min(top + axis.tile, axis.size)
            yield Step(block, tile_row, fresh, read, emit, last=stop == window.row_stop)
        above = block


class Strip:
    """What is carried down a strip: the pixels under the current row of tiles and the unfinished sums."""

    def __init__(self, task: SceneTask, block: Block, *, weights: tuple[Any, Any]) -> None:
        tiling, window = task.tiling, block.window
        self._task = task
        self._weights = weights
        self._tile_cols = tiling.cols.touching(window.col_off, window.col_stop)
        self.left = self._tile_cols.start * tiling.cols.stride
        rows, cols = tiling.rows.tile, (len(self._tile_cols) - 1) * tiling.cols.stride + tiling.cols.tile
        self._col_off = window.col_off
        self._pixels = np.zeros((len(task.source.bands), rows, cols), task.source.dtype)
        self._valid = np.zeros((rows, cols), np.bool_)
        self._sums = Accumulator(task.predictor.arrays, classes=task.predictor.classes, rows=rows, cols=window.cols)
        self._filled = 0

    def push(self, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> None:
        """Take in the next rows of the scene; what follows the scene's end is invalid."""
        rows, cols = valid.shape
        self._pixels[:, self._filled : self._filled + rows, :cols] = pixels
        self._valid[self._filled : self._filled + rows, :cols] = valid
        self._filled += rows

    def roll(self) -> None:
        """Move on to the next row of tiles."""
        stride, keep = self._task.tiling.rows.stride, self._task.tiling.rows.overlap
        self._pixels[:, :keep] = self._pixels[:, stride:].copy()
        self._valid[:keep] = self._valid[stride:].copy()
        self._valid[keep:] = False
        self._filled = max(self._filled - stride, 0)
        self._sums.roll(stride)

    def predict(self, tile_row: int) -> None:
        """Add the tiles of a row to the sums, left to right; a tile without a valid pixel is left out."""
        predictor, cols = self._task.predictor, self._task.tiling.cols
        offsets = {col: col * cols.stride - self.left for col in self._tile_cols}
        wanted = [col for col, off in offsets.items() if self._valid[:, off : off + cols.tile].any()]
        while wanted:
            batch, wanted = wanted[: predictor.batch_tiles], wanted[predictor.batch_tiles :]
            slices = [slice(offsets[col], offsets[col] + cols.tile) for col in batch]
            scores = predictor.probabilities(
                np.stack([self._pixels[:, :, part] for part in slices]),
                np.stack([self._valid[:, part] for part in slices]),
                model_shape=self._task.model_shape,
            )
            for tile, col in enumerate(batch):
                weighted = weigh(scores[tile], self._weights[0][tile_row], self._weights[1][col])
                self._sums.add(weighted, col_off=offsets[col] + self.left - self._col_off)

    def finish(self, rows: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Class ids and confidence in percent of the first `rows` of the current row of tiles, `(row, col)` each.

        Raises:
            ModelFileError: The network gave NaN.
        """
        legend, start = self._task.legend, self._col_off - self.left
        channel, percent = self._sums.finish(rows)
        valid = self._valid[:rows, start : start + channel.shape[1]]
        if (percent[valid] == NO_NUMBER).any():
            raise ModelFileError(
                "the network gives NaN instead of probabilities; its weights are broken, or the scene's values lie "
                "far outside those it was trained on; try --precision fp32, or check the scene's nodata and scale"
            )
        ids = legend.ids.astype(legend.dtype)
        return np.where(valid, ids[channel], legend.dtype.type(legend.ignore)), np.where(valid, percent, NO_CONFIDENCE)


def run_blocks(
    task: SceneTask, blocks: Sequence[Block], *, progress: Callable[[int], None] | None = None
) -> Generator[FinishedBlock, None, None]:
    """Each block's map, in order; the next rows are read while the network works.

    Args:
        task: The scene and the network.
        blocks: Which blocks to make.
        progress: Told the pixels that each step finished.

    Raises:
        ReadError: The scene cannot be read.
        ModelFileError: The network gives NaN.
    """
    tiling, arrays = task.tiling, task.predictor.arrays
    weights = tuple(arrays.to_device(axis_weights(axis, blend=task.blend)) for axis in (tiling.rows, tiling.cols))
    strip: Strip | None = None
    done: list[tuple[NDArray[Any], NDArray[np.uint8]]] = []
    with closing(read_ahead(plan_steps(tiling, blocks), lambda step: _read(task, step))) as steps:
        for step, (pixels, valid) in steps:
            if strip is None or step.fresh:
                strip = Strip(task, step.block, weights=(weights[0], weights[1]))
            else:
                strip.roll()
            strip.push(pixels, valid)
            strip.predict(step.tile_row)
            if step.emit:
                done.append(strip.finish(step.emit))
            if progress is not None:
                progress(step.emit * step.block.window.cols)
            if step.last:
                yield FinishedBlock(step.block, *(np.concatenate(rows) for rows in zip(*done, strict=True)))
                done = []


def _read(task: SceneTask, step: Step) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Pixels `(band, row, col)` and their validity, for the rows that a step needs anew."""
    window, cols = step.block.window, task.tiling.cols
    tiles = cols.touching(window.col_off, window.col_stop)
    stop = min((tiles.stop - 1) * cols.stride + cols.tile, cols.size)
    part = Window(
        step.read[0], tiles.start * cols.stride, step.read[1] - step.read[0], stop - tiles.start * cols.stride
    )
    if not part.rows:
        return np.empty((len(task.source.bands), 0, part.cols), task.source.dtype), np.empty((0, part.cols), np.bool_)
    raster = task.source.read(crop(task.source.geobox, part))
    return raster.pixels, raster.valid
