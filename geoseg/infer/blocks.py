"""Blocks of a scene: read, predict tile by tile, blend, and hand on finished rows.

The work goes down a strip of columns, one row of tiles after the other. Only one row of tiles is ever summed up, so
memory depends on the strip's width and the tile's height, never on the scene. A block whose upper neighbour was just
made takes its unfinished rows over; a block that starts alone predicts the tiles above it again and keeps its share.
Both sum the same tiles in the same order, so they give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import ModelFileError
from geoseg.infer.blend import axis_weights
from geoseg.infer.canvas import NO_NUMBER, Arrays, Scores
from geoseg.infer.feed import read_ahead
from geoseg.infer.layers import Layer, chosen_layers
from geoseg.infer.memory import give_back, memory_kept
from geoseg.infer.reading import Piece, Unread, read_piece
from geoseg.io.grids import crop
from geoseg.tiling import Block, Tiling, Window

if TYPE_CHECKING:
    from geoseg.io.protocol import Source
    from geoseg.io.regions import Area
    from geoseg.legend import Legend


class Predictor(Protocol):
    """Tiles in, class scores out, on some device. It can be pickled, and is at home wherever it is unpickled.

    Attributes:
        batch_tiles: How many tiles it takes at once.
    """

    batch_tiles: int

    @property
    def classes(self) -> int:
        """How many classes it gives."""

    @property
    def precision(self) -> str:
        """Its arithmetic: `fp32`, `bf16` or `fp16`."""

    @property
    def model_bytes(self) -> int:
        """Memory that the network itself takes on the host."""

    @property
    def arrays(self) -> Arrays:
        """The library of arrays that `scores` returns."""

    @property
    def readers(self) -> int:
        """Threads that read for it side by side; one where it works on the same cores."""

    def fit_batch(self, *, model_shape: tuple[int, int], tiles: int, memory_bytes: int, search: bool = True) -> int:
        """Choose `batch_tiles` by a short trial; returns the bytes of memory that a batch takes on the host.

        Args:
            model_shape: Rows and columns at which the network sees a tile.
            tiles: How many tiles lie ahead.
            memory_bytes: Memory of the host that a batch may take.
            search: Whether to look for a batch, or only measure the one there is.
        """

    def check(
        self, tiles: Sequence[NDArray[Any]], valid: Sequence[NDArray[np.bool_]], *, model_shape: tuple[int, int]
    ) -> None:
        """Look at some tiles of the scene, as for `scores`, before a job begins: is the arithmetic good enough?"""

    def scores(
        self, tiles: Sequence[NDArray[Any]], valid: Sequence[NDArray[np.bool_]], *, model_shape: tuple[int, int]
    ) -> Scores:
        """Class scores of tiles of one size.

        Args:
            tiles: `(band, row, col)` each, as read, any real dtype.
            valid: `(row, col)` each, True where a pixel is usable.
            model_shape: Rows and columns at which the network sees a tile.
        """


@dataclass(frozen=True)
class Member:
    """One of several scenes on a common grid, and the window of the grid outside which it has no pixel."""

    source: Source
    window: Window


@dataclass(frozen=True)
class SceneTask:
    """All that a worker needs to make any block of a scene; it can be pickled.

    Attributes:
        source: The scene; its bands are the model's, in the model's order.
        predictor: The network.
        legend: The classes, one a channel.
        tiling: The lattice of tiles.
        model_shape: Rows and columns at which the network sees a tile.
        blend: A name in `BLENDS`.
        layers: What is made of each pixel.
        members: Scenes that are predicted each on its own, on the grid of `source`; none where `source` is predicted.
        rule: How their predictions become one, a name in `EACH_SCENE`.
        area: Where a map is wanted; None is everywhere.
        on_error: A word of `ON_ERROR`.
    """

    source: Source
    predictor: Predictor
    legend: Legend
    tiling: Tiling
    model_shape: tuple[int, int]
    blend: str
    layers: tuple[Layer, ...] = field(default_factory=lambda: chosen_layers(()))
    members: tuple[Member, ...] = ()
    rule: str = "mean"
    area: Area | None = None
    on_error: str = "stop"

    @property
    def scenes(self) -> tuple[Member, ...]:
        """What is read."""
        return self.members or (Member(self.source, self.tiling.scene),)

    @property
    def reach(self) -> Window:
        """The pixels that may matter to the map: a tile more on each side than the area."""
        scene = self.tiling.scene
        if self.area is None:
            return scene
        wanted, (rows, cols) = self.area.window(self.source.geobox), self.tiling.tile_shape
        return Window(
            wanted.row_off - rows, wanted.col_off - cols, wanted.rows + 2 * rows, wanted.cols + 2 * cols
        ).intersect(scene)


@dataclass(frozen=True, slots=True)
class FinishedBlock:
    """A block's layers by name, `(band, row, col)` each, and the pixels of it that could not be read."""

    block: Block
    layers: Mapping[str, NDArray[Any]]
    unread: tuple[Unread, ...] = ()


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


def plan_steps(tiling: Tiling, blocks: Iterable[Block]) -> Iterator[Step]:
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


@dataclass(slots=True)
class Lane:
    """What is carried down a strip for one scene: the pixels under the row of tiles, and the unfinished sums."""

    pixels: NDArray[Any]
    valid: NDArray[np.bool_]
    sums: Any


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a strip as read: pixels by scene, where there are any, and where a map is wanted."""

    window: Window
    pieces: Mapping[int, Piece]
    wanted: NDArray[np.bool_]


class Strip:
    """What is carried down a strip of columns, for one row of tiles after the other."""

    def __init__(self, task: SceneTask, block: Block, *, weights: tuple[Any, Any]) -> None:
        tiling, window = task.tiling, block.window
        self._task = task
        self._weights = weights
        self._tile_cols = tiling.cols.touching(window.col_off, window.col_stop)
        self.left = self._tile_cols.start * tiling.cols.stride
        self._shape = tiling.rows.tile, (len(self._tile_cols) - 1) * tiling.cols.stride + tiling.cols.tile
        self._inside = slice(window.col_off - self.left, window.col_stop - self.left)
        self._lanes: dict[int, Lane] = {}
        self._wanted = np.zeros(self._shape, np.bool_)
        self._filled = 0

    def push(self, read: Rows) -> None:
        """Take in the next rows of the scene; what follows the scene's end is invalid."""
        rows, cols = read.wanted.shape
        part = slice(self._filled, self._filled + rows), slice(0, cols)
        self._wanted[part] = read.wanted
        for scene, piece in read.pieces.items():
            if scene not in self._lanes:
                self._lanes[scene] = self._empty_lane()
            self._lanes[scene].pixels[:, *part], self._lanes[scene].valid[part] = piece.pixels, piece.valid
        self._filled += rows
        # A scene without a pixel under the tiles adds nothing; its sums belong to pixels that it does not have.
        self._lanes = {scene: lane for scene, lane in sorted(self._lanes.items()) if lane.valid.any()}

    def _empty_lane(self) -> Lane:
        task = self._task
        cols = self._inside.stop - self._inside.start
        return Lane(
            np.zeros((len(task.source.bands), *self._shape), task.source.dtype),
            np.zeros(self._shape, np.bool_),
            task.predictor.arrays.zeros(task.predictor.classes, self._shape[0], cols),
        )

    def roll(self) -> None:
        """Move on to the next row of tiles."""
        stride, keep = self._task.tiling.rows.stride, self._task.tiling.rows.overlap
        for lane in self._lanes.values():
            lane.pixels[:, :keep] = lane.pixels[:, stride:]
            _roll(lane.valid, stride, keep)
            self._task.predictor.arrays.roll(lane.sums, stride)
        _roll(self._wanted, stride, keep)
        self._filled = max(self._filled - stride, 0)

    def predict(self, tile_row: int) -> None:
        """Add the tiles of a row to the sums, left to right; a tile without a valid, wanted pixel is left out."""
        for lane in self._lanes.values():
            self._predict(lane, tile_row)

    def _predict(self, lane: Lane, tile_row: int) -> None:
        predictor, cols = self._task.predictor, self._task.tiling.cols
        parts = {col: slice(col * cols.stride - self.left, col * cols.stride - self.left + cols.tile)
                 for col in self._tile_cols}  # fmt: skip
        needed = [col for col, part in parts.items() if (lane.valid[:, part] & self._wanted[:, part]).any()]
        while needed:
            batch, needed = needed[: predictor.batch_tiles], needed[predictor.batch_tiles :]
            scores = predictor.scores(
                [lane.pixels[:, :, parts[col]] for col in batch],
                [lane.valid[:, parts[col]] for col in batch],
                model_shape=self._task.model_shape,
            )
            for tile, col in zip(scores.values, batch, strict=True):
                weights = self._weights[0][tile_row], self._weights[1][col]
                off = parts[col].start - self._inside.start
                predictor.arrays.add(lane.sums, tile, weights, col_off=off, logits=scores.logits)

    def finish(self, rows: int) -> dict[str, NDArray[Any]]:
        """The layers of the first `rows` of the current row of tiles, `(band, row, col)` each.

        Raises:
            ModelFileError: The network gave NaN.
        """
        task, names = self._task, [layer.name for layer in self._task.layers]
        wanted = self._wanted[:rows, self._inside]
        lanes = list(self._lanes.values())
        masks = [lane.valid[:rows, self._inside] for lane in lanes]
        valid = wanted & np.logical_or.reduce(masks) if masks else np.zeros_like(wanted)
        if not valid.any():
            return {layer.name: layer.empty(task.legend, valid.shape) for layer in task.layers}
        arrays = task.predictor.arrays
        scores = [arrays.top(lane.sums, rows) for lane in lanes]
        single = scores[0] if len(scores) == 1 else arrays.combine(scores, masks, rule=task.rule)
        found = arrays.measure(single, names)
        if (found["confidence"][0][valid] == NO_NUMBER).any():
            raise ModelFileError(
                "the network gives NaN instead of probabilities; its weights are broken, or the scene's values lie "
                "far outside those it was trained on; try --precision fp32, or check the scene's nodata and scale"
            )
        return {layer.name: layer.placed(found[layer.name], task.legend, valid) for layer in task.layers}


def _roll(rows: NDArray[np.bool_], stride: int, keep: int) -> None:
    rows[:keep] = rows[stride:]
    rows[keep:] = False


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
    tiling, arrays, readers = task.tiling, task.predictor.arrays, task.predictor.readers
    rows, cols = (arrays.to_device(axis_weights(axis, blend=task.blend)) for axis in (tiling.rows, tiling.cols))
    strip: Strip | None = None
    done: list[dict[str, NDArray[Any]]] = []
    unread: dict[int, list[Unread]] = {}
    with ExitStack() as stack:
        if readers == 1:  # the network works in this process's memory
            stack.enter_context(memory_kept())
        pool = stack.enter_context(ThreadPoolExecutor(readers, "geoseg-decode")) if readers > 1 else None
        reads = read_ahead(plan_steps(tiling, blocks), lambda step: _read(task, step, pool), modest=readers == 1)
        for step, read in stack.enter_context(closing(reads)):
            if strip is None or step.fresh:
                strip, unread = Strip(task, step.block, weights=(rows, cols)), {}
            else:
                strip.roll()
            strip.push(read)
            strip.predict(step.tile_row)
            unread.setdefault(step.block.index, []).extend(
                item for piece in read.pieces.values() for item in piece.unread
            )
            if step.emit:
                done.append(strip.finish(step.emit))
            if progress is not None:
                progress(step.emit * step.block.window.cols)
            if step.last:
                yield _finished(step.block, done, [item for items in unread.values() for item in items])
                done, unread = [], {step.block.index: unread[step.block.index]}
            if readers == 1:
                give_back()  # what the threads left free adds up, the more rows of tiles the more


def _finished(block: Block, done: Sequence[Mapping[str, NDArray[Any]]], unread: Sequence[Unread]) -> FinishedBlock:
    layers = {name: np.concatenate([rows[name] for rows in done], axis=1) for name in done[0]}
    inside = dict.fromkeys(part for item in unread if (part := item.within(block.window)) is not None)
    return FinishedBlock(block, layers, tuple(inside))


def _read(task: SceneTask, step: Step, pool: ThreadPoolExecutor | None) -> Rows:
    """What a step needs anew."""
    window, cols = step.block.window, task.tiling.cols
    tiles = cols.touching(window.col_off, window.col_stop)
    stop = min((tiles.stop - 1) * cols.stride + cols.tile, cols.size)
    left = tiles.start * cols.stride
    part = Window(step.read[0], left, step.read[1] - step.read[0], stop - left)
    wanted = _wanted(task, part)
    pieces, reach = {}, part.intersect(task.reach)
    for number, member in enumerate(task.scenes):
        inner = reach.intersect(member.window)
        if not (inner.rows and inner.cols):
            continue
        piece = read_piece(member.source, inner, scene=task.source.geobox, on_error=task.on_error, pool=pool)
        if piece.valid.any() or piece.unread:
            pieces[number] = piece if inner == part else _spread(piece, inner, part)
    return Rows(part, pieces, wanted)


def _wanted(task: SceneTask, window: Window) -> NDArray[np.bool_]:
    """Which pixels of a window a map is wanted for."""
    if task.area is None or not window.rows:
        return np.ones((window.rows, window.cols), np.bool_)
    return task.area.mask(crop(task.source.geobox, window))


def _spread(piece: Piece, inner: Window, whole: Window) -> Piece:
    """The piece of `inner` within a larger window."""
    out = Piece.empty(len(piece.pixels), whole, piece.pixels.dtype)
    part = Window(inner.row_off - whole.row_off, inner.col_off - whole.col_off, inner.rows, inner.cols).slices
    out.pixels[:, *part], out.valid[part] = piece.pixels, piece.valid
    return Piece(out.pixels, out.valid, piece.unread)
