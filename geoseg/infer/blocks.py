"""Blocks of a scene: read, predict tile by tile, blend, and hand on finished rows.

The work goes down a strip of columns, one row of tiles after the other. Only one row of tiles is ever summed up, so
memory depends on the strip's width and the tile's height, never on the scene. A block whose upper neighbour was just
made takes its unfinished rows over; a block that starts alone predicts the tiles above it again and keeps its share.
Both sum the same tiles in the same order, so they give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import ModelFileError
from geoseg.infer.blend import axis_weights
from geoseg.infer.canvas import NO_NUMBER, Scores
from geoseg.infer.feed import read_ahead
from geoseg.infer.lanes import in_lanes
from geoseg.infer.memory import give_back, memory_kept
from geoseg.infer.pauses import few_pauses
from geoseg.infer.reading import Unread
from geoseg.infer.rows import Batch, Intake, Rows, Step, TileRow, plan_steps, read_rows
from geoseg.infer.task import FinishedBlock, SceneTask
from geoseg.tiling import Block


class Strip:
    """The unfinished sums that are carried down a strip of columns, for one row of tiles after the other."""

    def __init__(self, task: SceneTask, block: Block) -> None:
        tiling, arrays = task.tiling, task.predictor.arrays
        axes = [arrays.to_device(axis_weights(axis, blend=task.blend)) for axis in (tiling.rows, tiling.cols)]
        self._task = task
        self._row_weights, self._col_weights = axes
        self._first, self._stop = block.window.col_off, block.window.col_stop
        self._sums: dict[int, Any] = {}

    def begin(self, row: TileRow) -> None:
        """Move on to a row of tiles. A scene without a pixel under it lets its sums go: they are of no pixel it has."""
        task, arrays = self._task, self._task.predictor.arrays
        for sums in self._sums.values():
            arrays.roll(sums, task.tiling.rows.stride)
        for scene in row.valid.keys() - self._sums.keys():
            width = self._stop - self._first
            self._sums[scene] = arrays.zeros(task.predictor.classes, task.tiling.rows.tile, width)
        self._sums = {scene: self._sums[scene] for scene in row.valid}

    def add(self, batch: Batch, scores: Scores) -> None:
        """Add the tiles of a batch to the sums of their scene."""
        task, rows = self._task, self._row_weights[batch.tile_row]
        for tile, col in zip(scores.values, batch.tile_cols, strict=True):
            off = col * task.tiling.cols.stride - self._first
            weights = rows, self._col_weights[col]
            task.predictor.arrays.add(self._sums[batch.scene], tile, weights, col_off=off, logits=scores.logits)

    def finish(self, row: TileRow) -> dict[str, NDArray[Any]]:
        """The layers of the rows that a row of tiles finishes, `(band, row, col)` each.

        Raises:
            ModelFileError: The network gave NaN.
        """
        task, rows = self._task, row.step.emit
        inside = slice(self._first - row.left, self._stop - row.left)
        masks = [valid[:rows, inside] for valid in row.valid.values()]
        wanted = row.wanted[:rows, inside]
        valid = wanted & np.logical_or.reduce(masks) if masks else np.zeros_like(wanted)
        if not valid.any():
            return {layer.name: layer.empty(task.legend, valid.shape) for layer in task.layers}
        arrays = task.predictor.arrays
        scores = [arrays.top(sums, rows) for sums in self._sums.values()]
        single = scores[0] if len(scores) == 1 else arrays.combine(scores, masks, rule=task.rule)
        found = arrays.measure(single, [layer.name for layer in task.layers])
        if ((found["confidence"][0] == NO_NUMBER) & valid).any():
            raise ModelFileError(
                "the network gives NaN instead of probabilities; its weights are broken, or the scene's values lie "
                "far outside those it was trained on; try --precision fp32, or check the scene's nodata and scale"
            )
        return {layer.name: layer.placed(found[layer.name], task.legend, valid) for layer in task.layers}


def run_blocks(
    task: SceneTask, blocks: Iterable[Block], *, progress: Callable[[int], None] | None = None
) -> Generator[FinishedBlock, None, None]:
    """Each block's map, in order; the next rows are read while the network works.

    Args:
        task: The scene and the network.
        blocks: Which blocks to make; each is asked for while the one before it is made.
        progress: Told the pixels that each step finished.

    Raises:
        ReadError: The scene cannot be read.
        ModelFileError: The network gives NaN.
    """
    readers, lanes = task.predictor.readers, task.predictor.lanes
    strip: Strip | None = None
    current: TileRow | None = None
    done: list[dict[str, NDArray[Any]]] = []
    unread: list[Unread] = []
    with ExitStack() as stack:
        stack.enter_context(few_pauses())
        if readers == 1:  # the network works in this process's memory
            stack.enter_context(memory_kept())
        pool = stack.enter_context(ThreadPoolExecutor(readers, "geoseg-decode")) if readers > 1 else None
        modest = readers == 1 and lanes == 1  # for the threads of one network wait for each other
        steps = plan_steps(task.tiling, blocks)
        reads = stack.enter_context(closing(read_ahead(steps, lambda step: read_rows(task, step, pool), modest=modest)))
        work = stack.enter_context(closing(_work(task, reads)))
        for (row, batch), scores in stack.enter_context(closing(in_lanes(work, lanes=lanes))):
            if row is not current:
                if strip is None or row.step.fresh:
                    strip, unread = Strip(task, row.step.block), []
                strip.begin(row)
                current = row
            if batch is not None and strip is not None:
                strip.add(batch, cast("Scores", scores))
                continue
            step = row.step
            unread += row.unread
            if step.emit and strip is not None:
                done.append(strip.finish(row))
            if progress is not None:
                progress(step.emit * step.block.window.cols)
            if step.last:
                yield _finished(step.block, done, unread)
                # Tiles may reach over several of the blocks below.
                done, unread = [], [item for item in unread if item.window.row_stop > step.block.window.row_stop]
                if readers == 1:
                    give_back()  # what the threads left free adds up, the more blocks the more


Part = tuple["TileRow", "Batch | None"]


def _work(
    task: SceneTask, reads: Iterable[tuple[Step, Rows]]
) -> Generator[tuple[Part, Callable[[], Scores] | None], None, None]:
    """The batches of each row of tiles with what gives their scores, and at the end of each row the row alone."""
    intake: Intake | None = None
    for step, read in reads:
        if intake is None or step.fresh:
            intake = Intake(task, step.block)
        row = intake.push(step, read)
        for batch in intake.batches(row):
            scores = partial(task.predictor.scores, batch.pixels, batch.valid, model_shape=task.model_shape)
            yield (row, batch), scores
        yield (row, None), None


def _finished(block: Block, done: Sequence[Mapping[str, NDArray[Any]]], unread: Sequence[Unread]) -> FinishedBlock:
    layers = {name: np.concatenate([rows[name] for rows in done], axis=1) for name in done[0]}
    inside = dict.fromkeys(part for item in unread if (part := item.within(block.window)) is not None)
    return FinishedBlock(block, layers, tuple(inside))
