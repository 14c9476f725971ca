"""Pixels for the network: the scenes under a window, where they are wanted, and what cannot be read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import ReadError
from geoseg.io.grids import crop
from geoseg.tiling import Window

if TYPE_CHECKING:
    from geoseg.io.protocol import Source

ON_ERROR = ("stop", "nodata")
"""What becomes of pixels that cannot be read: the job stops, or they are nodata and listed."""

CELLS_PX = (1024, 256, 64)
"""A window that cannot be read is tried again in cells of the scene of these sides, ever smaller."""

PIECE_PX = 1024
"""Columns that a reading thread takes at once."""


@dataclass(frozen=True, slots=True)
class Unread:
    """Pixels of the map's grid that could not be read, why, and of which scene where each is predicted on its own."""

    window: Window
    reason: str
    scene: str = ""

    def within(self, window: Window) -> Unread | None:
        """The part of it inside `window`; None where there is none."""
        part = self.window.intersect(window)
        return replace(self, window=part) if part.rows and part.cols else None

    def to_list(self) -> list[Any]:
        """Plain values that `Unread.from_list` reads back."""
        window = self.window
        values = [window.row_off, window.col_off, window.rows, window.cols, self.reason]
        return [*values, self.scene] if self.scene else values

    @classmethod
    def from_list(cls, values: Sequence[Any]) -> Unread:
        """What `to_list` gave."""
        return cls(Window(*map(int, values[:4])), *map(str, values[4:6]))

    def __str__(self) -> str:
        window = self.window
        place = f"rows {window.row_off} to {window.row_stop}, columns {window.col_off} to {window.col_stop}"
        return f"{place} of {self.scene}" if self.scene else place


def merged(unread: Iterable[Unread]) -> list[Unread]:
    """The same pixels in fewer places: those of a scene that touch are joined, with the first's reason."""
    found = list(unread)
    for down in (True, False):
        found.sort(key=lambda item: (item.scene, *_placed_along(item.window, down=down)))
        joined: list[Unread] = []
        for item in found:
            if joined and joined[-1].scene == item.scene and _continues(joined[-1].window, item.window, down=down):
                last, add = joined[-1].window, item.window
                rows, cols = (last.rows + add.rows, last.cols) if down else (last.rows, last.cols + add.cols)
                joined[-1] = replace(joined[-1], window=Window(last.row_off, last.col_off, rows, cols))
            else:
                joined.append(item)
        found = joined
    return found


def _placed_along(window: Window, *, down: bool) -> tuple[int, int, int]:
    if down:
        return window.col_off, window.cols, window.row_off
    return window.row_off, window.rows, window.col_off


def _continues(last: Window, window: Window, *, down: bool) -> bool:
    stop, start = (last.row_stop, window.row_off) if down else (last.col_stop, window.col_off)
    return _placed_along(last, down=down)[:2] == _placed_along(window, down=down)[:2] and stop == start


@dataclass(frozen=True, slots=True)
class Piece:
    """Pixels `(band, row, col)` of a window of the scene, which are valid `(row, col)`, and what could not be read."""

    pixels: NDArray[Any]
    valid: NDArray[np.bool_]
    unread: tuple[Unread, ...] = ()

    @classmethod
    def empty(cls, bands: int, window: Window, dtype: np.dtype[Any]) -> Piece:
        """A piece without a valid pixel."""
        return cls(np.zeros((bands, window.rows, window.cols), dtype), np.zeros((window.rows, window.cols), np.bool_))


def read_piece(source: Source, window: Window, *, scene: Any, on_error: str, pool: ThreadPoolExecutor | None) -> Piece:
    """The source's pixels under a window of the scene's grid.

    Args:
        source: What is read.
        window: Which pixels of the grid.
        scene: The grid.
        on_error: A word of `ON_ERROR`.
        pool: Threads that read pieces side by side; None reads all at once.

    Raises:
        ReadError: The source cannot be read there, and `on_error` is `stop`.
    """
    if pool is None:
        return _read_cells(source, window, scene=scene, on_error=on_error)
    parts = list(_cells(window, PIECE_PX, rows=False))
    pieces = list(pool.map(lambda part: _read_cells(source, part, scene=scene, on_error=on_error), parts))
    return pieces[0] if len(pieces) == 1 else _joined(source, window, parts, pieces)


def _read_cells(source: Source, window: Window, *, scene: Any, on_error: str) -> Piece:
    """A window; what cannot be read is nodata by whole cells of the scene, however the work is cut."""
    if on_error != "nodata":
        return _read(source, window, scene=scene, on_error=on_error)
    side, (rows, cols) = CELLS_PX[-1], scene.shape
    top, left = window.row_off // side * side, window.col_off // side * side
    bottom, right = min(-(-window.row_stop // side) * side, rows), min(-(-window.col_stop // side) * side, cols)
    whole = Window(top, left, bottom - top, right - left)
    found = _read(source, whole, scene=scene, on_error=on_error)
    inside = Window(window.row_off - top, window.col_off - left, window.rows, window.cols).slices
    unread = tuple(part for item in found.unread if (part := item.within(window)) is not None)
    return Piece(found.pixels[:, *inside], found.valid[inside], unread)


def _read(source: Source, window: Window, *, scene: Any, on_error: str, cells: Sequence[int] = CELLS_PX) -> Piece:
    try:
        raster = source.read(crop(scene, window))
    except ReadError as error:
        if on_error != "nodata":
            raise
        if not cells:
            return Piece(*_nothing(source, window), (Unread(window, str(error)),))
    else:
        return Piece(raster.pixels, raster.valid & _fits_float32(raster.pixels))
    parts = list(_cells(window, cells[0]))
    pieces = [_read(source, part, scene=scene, on_error=on_error, cells=cells[1:]) for part in parts]
    return _joined(source, window, parts, pieces)


def _fits_float32(pixels: NDArray[Any]) -> NDArray[np.bool_] | bool:
    """Which pixels are numbers to a network, which sees float32; all of any dtype that has no larger ones."""
    if pixels.dtype != np.float64:
        return True
    return np.asarray((np.abs(pixels) <= np.finfo(np.float32).max).all(axis=0))


def _nothing(source: Source, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    empty = Piece.empty(len(source.bands), window, source.dtype)
    return empty.pixels, empty.valid


def _joined(source: Source, window: Window, parts: Sequence[Window], pieces: Sequence[Piece]) -> Piece:
    """The pieces of a window as one."""
    pixels, valid = _nothing(source, window)
    for part, piece in zip(parts, pieces, strict=True):
        inside = Window(part.row_off - window.row_off, part.col_off - window.col_off, part.rows, part.cols).slices
        pixels[:, *inside], valid[inside] = piece.pixels, piece.valid
    return Piece(pixels, valid, tuple(item for piece in pieces for item in piece.unread))


def _cells(window: Window, side: int, *, rows: bool = True) -> Iterator[Window]:
    """The window cut along the lines of a grid of `side` pixels that starts at the scene's first pixel."""
    for top, bottom in _cuts(window.row_off, window.row_stop, side if rows else window.row_stop):
        for left, right in _cuts(window.col_off, window.col_stop, side):
            yield Window(top, left, bottom - top, right - left)


def _cuts(start: int, stop: int, side: int) -> Iterator[tuple[int, int]]:
    edges = [start, *range((start // side + 1) * side, stop, side), stop]
    return pairwise(edges)
