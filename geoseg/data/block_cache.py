"""Layers of sets that are larger than the disk may hold: blocks are decoded when they are needed, and some are kept.

The processes of a job share the blocks that are kept: one file of slots, and a small table that says whose pixels lie
in which slot. Readers take no lock: each slot counts its changes, and what was copied while the count changed is thrown
away (a sequence lock). Changes are made under a file lock, the block used least recently goes first.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from math import ceil
from pathlib import Path
from time import monotonic_ns
from typing import Any, Literal, NamedTuple, NoReturn

import numpy as np
from filelock import FileLock
from numpy.typing import DTypeLike, NDArray
from odc.geo.geobox import GeoBox

from geoseg.data.arrays import MAPS, BlockLattice, Piece, as_kept, create_file, spans, window_of
from geoseg.data.scene import BLOCK_PX
from geoseg.errors import MissingInputError, ReadError
from geoseg.io.grids import crop
from geoseg.io.protocol import Source
from geoseg.tiling import Window

OnError = Literal["stop", "skip"]
CANNOT_READ = (ReadError, MissingInputError)
DECODING_LOCKS = 64  # blocks that may be decoded side by side
POLL_S = 0.001
WRITING = 1  # the lowest bit of a slot's count of changes is set while it is written
SAFE_ASK = "data.store.on_error: skip leaves out what cannot be read"


class Unreadable(NamedTuple):
    """Pixels that could not be read: the scene's name, the window of its grid, and why."""

    scene: str
    window: Window
    reason: str

    def __str__(self) -> str:
        """The place, in words."""
        place = self.window
        return f"rows {place.row_off} to {place.row_stop}, columns {place.col_off} to {place.col_stop} of {self.scene}"


class BlockPool:
    """Slots for decoded blocks, shared by all scenes and processes of a job.

    Attributes:
        folder: Where its files lie; it is pickled by this.
        slots: Blocks that are kept.
        slot_bytes: Size of the largest block.
        blocks: Blocks that there are, in all scenes.
    """

    def __init__(self, folder: Path, *, slots: int, slot_bytes: int, blocks: int) -> None:
        self.folder, self.slots, self.slot_bytes, self.blocks = folder, slots, slot_bytes, blocks
        self._slot_file, self._table_file = str(folder / "slots"), str(folder / "table")

    @classmethod
    def create(cls, folder: Path, *, slots: int, slot_bytes: int, blocks: int) -> BlockPool:
        """An empty pool in a folder, its space on the disk reserved.

        Raises:
            OSError: There is no room for it, or the folder cannot be written.
        """
        made = cls(folder, slots=slots, slot_bytes=slot_bytes, blocks=blocks)
        create_file(folder / "slots", slots * slot_bytes)
        create_file(folder / "table", 8 * 3 * slots + 4 * blocks + blocks)
        made._where[:], made._owner[:] = -1, -1
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return _same_pool, (self.folder, self.slots, self.slot_bytes, self.blocks)

    def take(self, block: int, copy: Callable[[NDArray[np.uint8]], None], *, touching: int) -> bool:
        """Whether a block was there and `copy`, called with the bytes of its slot, has seen nothing but that block.

        Args:
            block: Number of the block.
            copy: Takes what it needs; it may be called in vain.
            touching: Bytes that it takes.
        """
        slot = int(self._where[block])
        if slot < 0:
            return False
        changes = int(self._changes[slot])
        if changes & WRITING or self._owner[slot] != block:
            return False
        copy(self._bytes(slot, touching=touching))
        if self._changes[slot] != changes:
            return False
        self._used[slot] = monotonic_ns()
        return True

    def has(self, block: int) -> bool:
        """Whether a block is there now."""
        slot = int(self._where[block])
        return slot >= 0 and self._owner[slot] == block and not self._changes[slot] & WRITING

    def put(self, block: int, pixels: NDArray[Any], *, only_if_free: bool = False) -> bool:
        """Keeps a block, in the place of the one used least recently; whether it was kept.

        Args:
            block: Number of the block.
            pixels: Its pixels, C-contiguous.
            only_if_free: Whether no other block may go for it.
        """
        with self._locked("table"):
            if self.has(block):
                return True
            slot = int(self._used.argmin())
            if only_if_free and self._used[slot]:
                return False
            self._changes[slot] |= WRITING  # a writer that was killed may have left it so
            former = int(self._owner[slot])
            if former >= 0 and self._where[former] == slot:
                self._where[former] = -1
            self._owner[slot] = block
            self._bytes(slot, touching=pixels.nbytes)[: pixels.nbytes] = pixels.reshape(-1).view(np.uint8)
            self._changes[slot] += 1
            self._where[block] = slot
            self._used[slot] = monotonic_ns()
        return True

    def decoding(self, block: int) -> AbstractContextManager[Any]:
        """A held lock under which one process decodes a block that others wait for."""
        return self._locked(f"decode-{block % DECODING_LOCKS:02d}")

    def failed(self, block: int) -> bool:
        """Whether a block could not be read."""
        return bool(self._failed[block])

    def give_up(self, block: int) -> None:
        """No longer tries to read a block."""
        self._failed[block] = 1

    def note_failure(self, block: int, failure: Unreadable) -> None:
        """Counts a block that cannot be read, and gives it up."""
        with self._locked("table"):
            if self._failed[block]:
                return
            self.give_up(block)
            window = failure.window
            said = [failure.scene, window.row_off, window.col_off, window.rows, window.cols, failure.reason]
            with (self.folder / "unreadable").open("a", encoding="utf-8") as file:
                file.write(json.dumps(said) + "\n")

    def failures(self) -> list[Unreadable]:
        """What any process of the job could not read."""
        try:
            lines = (self.folder / "unreadable").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        return [Unreadable(name, Window(*place), reason) for name, *place, reason in map(json.loads, lines)]

    def _locked(self, name: str) -> AbstractContextManager[Any]:
        return FileLock(self.folder / f"{name}.lock", thread_local=False).acquire(poll_interval=POLL_S)

    def _bytes(self, slot: int, *, touching: int) -> NDArray[np.uint8]:
        stored = MAPS.bytes_of(self._slot_file, writable=True, touching=touching)
        return stored[slot * self.slot_bytes : (slot + 1) * self.slot_bytes]

    def _column(self, dtype: DTypeLike, start: int, count: int) -> NDArray[Any]:
        return np.ndarray((count,), dtype, MAPS.bytes_of(self._table_file, writable=True), start)

    @property
    def _changes(self) -> NDArray[np.int64]:
        """Times that each slot began or ended to be written."""
        return self._column(np.int64, 0, self.slots)

    @property
    def _used(self) -> NDArray[np.int64]:
        """When each slot was last used, of one clock for all processes; 0 for a free one."""
        return self._column(np.int64, 8 * self.slots, self.slots)

    @property
    def _owner(self) -> NDArray[np.int64]:
        """The block in each slot; -1 for none."""
        return self._column(np.int64, 16 * self.slots, self.slots)

    @property
    def _where(self) -> NDArray[np.int32]:
        """The slot of each block; -1 for none."""
        return self._column(np.int32, 24 * self.slots, self.blocks)

    @property
    def _failed(self) -> NDArray[np.uint8]:
        """1 for each block that could not be read."""
        return self._column(np.uint8, 24 * self.slots + 4 * self.blocks, self.blocks)


def _same_pool(folder: Path, slots: int, slot_bytes: int, blocks: int) -> BlockPool:
    return BlockPool(folder, slots=slots, slot_bytes=slot_bytes, blocks=blocks)


class BlockCache:
    """Pixels `(band, row, col)` of a scene, decoded when they are asked for; it is pickled, too, and cannot be written.

    Args:
        pool: Where blocks are kept.
        first: Number of the scene's first block in the pool.
        source: What is read.
        grid: The scene's grid.
        dtype: What the pixels are kept in.
        name: The scene's, for messages.
        on_error: Whether a block that cannot be read is a ReadError, or zeros that `copy_into` tells of.
        unit: Blocks down and across that are decoded together, since the file holds them together.
    """

    def __init__(
        self,
        pool: BlockPool,
        first: int,
        *,
        source: Source,
        grid: GeoBox,
        dtype: DTypeLike,
        name: str,
        on_error: OnError = "stop",
        unit: tuple[int, int] = (1, 1),
    ) -> None:
        self.pool, self.first, self.source, self.grid, self.name = pool, first, source, grid, name
        self.dtype, self.on_error, self.unit = np.dtype(dtype), on_error, unit
        rows, cols = grid.shape
        self.shape = (len(source.bands), rows, cols)
        self._lattice = BlockLattice(rows, cols)

    def __getitem__(self, key: tuple[slice, ...]) -> NDArray[Any]:
        """A copy of the values there, 0 where they cannot be read.

        Raises:
            ReadError: They cannot be read, and `on_error` is stop.
        """
        bands, *plane = spans(key, self.shape)
        window = window_of(*plane)
        found = np.empty((bands.stop - bands.start, window.rows, window.cols), self.dtype)
        self._copy(found, bands, window)
        return found

    def __setitem__(self, key: tuple[slice, ...], values: Any) -> NoReturn:
        """Refuses: the pixels are the source's.

        Raises:
            TypeError: Always.
        """
        raise TypeError("pixels that are decoded when they are needed cannot be written")

    def copy_into(self, out: NDArray[Any], window: Window) -> tuple[Window, ...]:
        """Copies the values of a window to `out`.

        Returns:
            The parts of it that could not be read; there `out` is 0.

        Raises:
            ReadError: It cannot be read, and `on_error` is stop.
        """
        return self._copy(out, slice(0, self.shape[0]), window)

    def offer(self, window: Window, pixels: NDArray[Any], *, unreadable: Sequence[Window] = ()) -> None:
        """Keeps the whole blocks of a window that was read anyway, as long as there are free slots.

        Args:
            window: Which pixels.
            pixels: `(band, row, col)`.
            unreadable: Parts of it that could not be read; whole blocks in them are not tried again.
        """
        for piece in self._lattice.pieces(window):
            whole = self._lattice.window(piece.row, piece.col)
            number = self._number(piece.row, piece.col)
            if any(whole.intersect(place) == whole for place in unreadable):
                self.pool.give_up(number)
            elif whole.intersect(window) == whole and not any(_meet(whole, place) for place in unreadable):
                block = np.ascontiguousarray(pixels[:, *piece.outside], self.dtype)
                if not self.pool.put(number, block, only_if_free=True):
                    return

    def _copy(self, out: NDArray[Any], bands: slice, window: Window) -> tuple[Window, ...]:
        missing = []
        for piece in self._lattice.pieces(window):
            part = out[:, *piece.outside]
            if not self._kept(piece, bands, part) and not self._decoded(piece, bands, part):
                part[...] = 0
                place = self._lattice.window(piece.row, piece.col)
                top, left = place.row_off + piece.inside[0].start, place.col_off + piece.inside[1].start
                missing.append(Window(top, left, part.shape[1], part.shape[2]))
        return tuple(missing)

    def _kept(self, piece: Piece, bands: slice, part: NDArray[Any]) -> bool:
        """Whether the piece was copied from the pool."""
        place = self._lattice.window(piece.row, piece.col)
        shape = (self.shape[0], place.rows, place.cols)

        def copy(stored: NDArray[np.uint8]) -> None:
            part[...] = np.ndarray(shape, self.dtype, stored)[bands, *piece.inside]

        rows = piece.inside[0].stop - piece.inside[0].start
        touching = shape[0] * rows * shape[2] * self.dtype.itemsize
        return self.pool.take(self._number(piece.row, piece.col), copy, touching=touching)

    def _decoded(self, piece: Piece, bands: slice, part: NDArray[Any]) -> bool:
        """Whether the piece was decoded and copied; False where it cannot be read, which is counted."""
        number = self._number(piece.row, piece.col)
        top, left = piece.row - piece.row % self.unit[0], piece.col - piece.col % self.unit[1]
        with self.pool.decoding(self._number(top, left)):
            if self.pool.failed(number):
                return False
            if self._kept(piece, bands, part):  # another process has decoded it meanwhile
                return True
            block = self._read_unit(top, left, piece)
        if block is None:
            return False
        part[...] = block[bands, *piece.inside]
        return True

    def _read_unit(self, top: int, left: int, piece: Piece) -> NDArray[Any] | None:
        """The block of a piece; it and the blocks that the file holds together with it go to the pool."""
        down, across = (min(of, n - at) for of, n, at in zip(self.unit, self._lattice.count, (top, left), strict=True))
        first, last = self._lattice.window(top, left), self._lattice.window(top + down - 1, left + across - 1)
        whole = Window(
            first.row_off, first.col_off, last.row_stop - first.row_off, last.col_stop - first.col_off
        )  # fmt: skip
        try:
            pixels = self._read(whole)
        except CANNOT_READ as error:
            return self._read_alone(piece, error)
        found = None
        for row, col in np.ndindex(down, across):
            inside = pixels[:, row * BLOCK_PX : (row + 1) * BLOCK_PX, col * BLOCK_PX : (col + 1) * BLOCK_PX]
            block = np.ascontiguousarray(inside)
            self.pool.put(self._number(top + row, left + col), block)
            if (top + row, left + col) == (piece.row, piece.col):
                found = block
        return found

    def _read_alone(self, piece: Piece, error: ReadError | MissingInputError) -> NDArray[Any] | None:
        """The block of a piece, after its unit could not be read; None where it cannot either, which is counted."""
        place = self._lattice.window(piece.row, piece.col)
        number = self._number(piece.row, piece.col)
        if self.unit != (1, 1):
            try:
                block = self._read(place)
            except CANNOT_READ as last:
                error = last
            else:
                self.pool.put(number, block)
                return block
        if self.on_error == "stop":
            raise ReadError(unreadable_message(self.name, place, error)) from error
        self.pool.note_failure(number, Unreadable(self.name, place, str(error)))
        return None

    def _read(self, window: Window) -> NDArray[Any]:
        return np.ascontiguousarray(as_kept(self.source.read(crop(self.grid, window)).pixels, self.dtype))

    def _number(self, row: int, col: int) -> int:
        return self.first + row * self._lattice.count[1] + col


def _meet(one: Window, other: Window) -> bool:
    found = one.intersect(other)
    return bool(found.rows and found.cols)


def unreadable_message(name: str, window: Window, error: Exception) -> str:
    """One line about a scene that cannot be read."""
    return (
        f"scene {name} cannot be read at rows {window.row_off} to {window.row_stop}, columns {window.col_off} to "
        f"{window.col_stop} of its training grid: {error}; {SAFE_ASK}"
    )


def blocks_of(shape: tuple[int, int]) -> int:
    """Blocks of a plane."""
    return ceil(shape[0] / BLOCK_PX) * ceil(shape[1] / BLOCK_PX)
