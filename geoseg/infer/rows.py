"""Rows of tiles: in which order they are predicted, what is read for each, and the batches they are cut into."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoseg.infer.reading import Piece, Unread, read_piece
from geoseg.io.grids import crop
from geoseg.tiling import Block, Tiling, Window

if TYPE_CHECKING:
    from geoseg.infer.task import SceneTask


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


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a strip as read: pixels by scene, where there are any, and where a map is wanted."""

    window: Window
    pieces: Mapping[int, Piece]
    wanted: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class TileRow:
    """A row of tiles.

    Attributes:
        step: What it is for.
        left: The column of the scene at which it begins.
        valid: By scene that has a pixel under it, which pixels those are, `(row, col)`.
        wanted: Where a map is wanted, likewise.
        unread: What could not be read of the rows that are new in it.
    """

    step: Step
    left: int
    valid: Mapping[int, NDArray[np.bool_]]
    wanted: NDArray[np.bool_]
    unread: tuple[Unread, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """Tiles of one scene and one row; `pixels` and `valid` as for `Predictor.scores`."""

    scene: int
    tile_row: int
    tile_cols: list[int]
    pixels: list[NDArray[Any]]
    valid: list[NDArray[np.bool_]]


class Intake:
    """The pixels under a row of tiles, carried down a strip of columns.

    What was handed out is never written to again: tiles may still be at work when the next row is taken in.
    """

    def __init__(self, task: SceneTask, block: Block) -> None:
        tiling, window = task.tiling, block.window
        self._task = task
        self._tile_cols = tiling.cols.touching(window.col_off, window.col_stop)
        self._left = self._tile_cols.start * tiling.cols.stride
        self._shape = tiling.rows.tile, (len(self._tile_cols) - 1) * tiling.cols.stride + tiling.cols.tile
        self._pixels: dict[int, NDArray[Any]] = {}
        self._valid: dict[int, NDArray[np.bool_]] = {}
        self._wanted = np.zeros(self._shape, np.bool_)
        self._filled = 0
        self._begun = False

    def push(self, step: Step, read: Rows) -> TileRow:
        """Take in the next rows of the scene, under the next row of tiles; what follows the scene's end is invalid."""
        if self._begun:
            self._roll()
        self._begun = True
        rows, cols = read.wanted.shape
        part = slice(self._filled, self._filled + rows), slice(0, cols)
        self._wanted[part] = read.wanted
        for scene, piece in read.pieces.items():
            if scene not in self._pixels:
                self._pixels[scene] = self._empty()
                self._valid[scene] = np.zeros(self._shape, np.bool_)
            self._pixels[scene][:, *part], self._valid[scene][part] = piece.pixels, piece.valid
        self._filled += rows
        # A scene without a pixel under the tiles adds nothing.
        self._valid = {scene: valid for scene, valid in sorted(self._valid.items()) if valid.any()}
        self._pixels = {scene: self._pixels[scene] for scene in self._valid}
        unread = tuple(item for piece in read.pieces.values() for item in piece.unread)
        return TileRow(step, self._left, dict(self._valid), self._wanted, unread)

    def _empty(self) -> NDArray[Any]:
        return np.zeros((len(self._task.source.bands), *self._shape), self._task.source.dtype)

    def _roll(self) -> None:
        """Move on to the next row of tiles, in new memory."""
        rows = self._task.tiling.rows
        for scene, before in self._pixels.items():
            self._pixels[scene] = self._empty()
            self._pixels[scene][:, : rows.overlap] = before[:, rows.stride :]
        self._valid = {scene: _rolled(valid, rows.stride) for scene, valid in self._valid.items()}
        self._wanted = _rolled(self._wanted, rows.stride)
        self._filled = max(self._filled - rows.stride, 0)

    def batches(self, row: TileRow) -> Iterator[Batch]:
        """The tiles of the row just taken in, left to right; without those that have no valid, wanted pixel."""
        predictor, cols = self._task.predictor, self._task.tiling.cols
        parts = {col: slice(col * cols.stride - self._left, col * cols.stride - self._left + cols.tile)
                 for col in self._tile_cols}  # fmt: skip
        for scene, valid in row.valid.items():
            pixels = self._pixels[scene]
            needed = [col for col, part in parts.items() if (valid[:, part] & row.wanted[:, part]).any()]
            while needed:
                some, needed = needed[: predictor.batch_tiles], needed[predictor.batch_tiles :]
                yield Batch(
                    scene, row.step.tile_row, some, [pixels[:, :, parts[col]] for col in some],
                    [valid[:, parts[col]] for col in some],
                )  # fmt: skip


def _rolled(rows: NDArray[np.bool_], stride: int) -> NDArray[np.bool_]:
    out = np.zeros_like(rows)
    out[: len(rows) - stride] = rows[stride:]
    return out


def read_rows(task: SceneTask, step: Step, pool: ThreadPoolExecutor | None) -> Rows:
    """What a step needs anew."""
    window, cols = step.block.window, task.tiling.cols
    tiles = cols.touching(window.col_off, window.col_stop)
    stop = min((tiles.stop - 1) * cols.stride + cols.tile, cols.size)
    left = tiles.start * cols.stride
    part = Window(step.read[0], left, step.read[1] - step.read[0], stop - left)
    wanted = wanted_in(task, part)
    pieces, reach = {}, part.intersect(task.reach)
    for number, member in enumerate(task.scenes):
        inner = reach.intersect(member.window)
        if not (inner.rows and inner.cols):
            continue
        piece = read_piece(member.source, inner, scene=task.source.geobox, on_error=task.on_error, pool=pool)
        if piece.unread and task.members:
            piece = replace(piece, unread=tuple(replace(item, scene=member.name) for item in piece.unread))
        if piece.valid.any() or piece.unread:
            pieces[number] = piece if inner == part else _spread(piece, inner, part)
    return Rows(part, pieces, wanted)


def wanted_in(task: SceneTask, window: Window) -> NDArray[np.bool_]:
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
