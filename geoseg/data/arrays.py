"""Layers of a scene in files: blocks of 256 x 256 pixels that are mapped into memory, and given back.

A layer's file has a header of one page, then the blocks row by row. The pixels of a block lie together, band by band,
so that a patch touches few pages. Blocks at the last row and column are as small as what is left, so nothing is padded.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from geoseg.data.scene import BLOCK_PX, Layer
from geoseg.errors import ReadError
from geoseg.jit import jit
from geoseg.tiling import Window

KEPT_DTYPES = ("uint8", "int16", "uint16", "int32", "float32")  # torch and GDAL both know them
HEADER_BYTES = 4096
MAGIC = "geoseg blocks 1"
RESIDENT_BYTES = 256 << 20  # pages touched before all are given back
OPEN_MAPS = 128  # each takes a file descriptor, of which a process has few
ZEROS = bytes(1 << 20)
NO_RESERVE = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)


# -- maps of files -----------------------------------------------------------------------------------------------------


class OpenMaps:
    """This process's maps of files: few at a time, and little of them resident, however much is touched."""

    def __init__(self) -> None:
        self._maps: OrderedDict[tuple[str, bool], tuple[mmap.mmap, NDArray[np.uint8]]] = OrderedDict()
        self.renew()

    def renew(self) -> None:
        """A lock of this process's own: a fork may have copied one that another thread held."""
        self._lock, self._touched = threading.Lock(), 0

    def bytes_of(self, path: str, *, writable: bool, touching: int = 0) -> NDArray[np.uint8]:
        """All bytes of a file, shared with whoever maps it; the array keeps them mapped while it lives.

        Args:
            path: The file.
            writable: Whether the array may be written.
            touching: About as many bytes will be read or written.
        """
        return self._opened(path, writable=writable, touching=touching)[1]

    def forget(self, path: str) -> None:
        """Maps a file anew when it is next asked for: another may have its name now."""
        with self._lock:
            for writable in (False, True):
                self._maps.pop((path, writable), None)

    def flush(self, path: str) -> None:
        """Waits until what was written to a file through this process's map is on the disk."""
        self._opened(path, writable=True)[0].flush()

    def _opened(self, path: str, *, writable: bool, touching: int = 0) -> tuple[mmap.mmap, NDArray[np.uint8]]:
        with self._lock:
            self._touched += touching
            if self._touched > RESIDENT_BYTES:
                self._give_back()
            key = (path, writable)
            if key not in self._maps:
                self._maps[key] = _mapped(path, writable=writable)
                if len(self._maps) > OPEN_MAPS:
                    self._maps.popitem(last=False)
            self._maps.move_to_end(key)
            return self._maps[key]

    def _give_back(self) -> None:
        """Takes all pages out of this process; the system keeps them in its own cache, the written ones too."""
        self._touched = 0
        if sum(len(opened) for opened, _ in self._maps.values()) <= RESIDENT_BYTES:
            return
        if not hasattr(mmap, "MADV_DONTNEED"):
            self._maps.clear()
        for opened, _ in self._maps.values():
            opened.madvise(mmap.MADV_DONTNEED)


def _mapped(path: str, *, writable: bool) -> tuple[mmap.mmap, NDArray[np.uint8]]:
    with Path(path).open("r+b" if writable else "rb") as file:
        opened = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ)
    return opened, np.frombuffer(opened, np.uint8)


MAPS = OpenMaps()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=MAPS.renew)


def create_file(path: Path, size: int, *, start: bytes = b"") -> None:
    """A file of zeros whose space on the disk is its own: a full disk fails here, not when a page is first written.

    Raises:
        OSError: There is no room, or the file cannot be made; nothing is left of it.
    """
    MAPS.forget(str(path))
    try:
        with path.open("wb") as file:
            _reserve(file, size)
            file.seek(0)
            file.write(start)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _reserve(file: BinaryIO, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in NO_RESERVE:
                raise
        else:
            return
    file.writelines(ZEROS[: size - start] for start in range(0, size, len(ZEROS)))


# -- blocks ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Piece:
    """The part of a block that a window of its layer holds.

    Attributes:
        row: Row of the block among blocks.
        col: Column of the block among blocks.
        inside: Its rows and columns in the block.
        outside: The same pixels in the window.
    """

    row: int
    col: int
    inside: tuple[slice, slice]
    outside: tuple[slice, slice]


@dataclass(frozen=True, slots=True)
class BlockLattice:
    """How a plane is cut into blocks: `rows, cols` pixels."""

    rows: int
    cols: int

    @property
    def count(self) -> tuple[int, int]:
        """Blocks down and across."""
        return -(-self.rows // BLOCK_PX), -(-self.cols // BLOCK_PX)

    def window(self, row: int, col: int) -> Window:
        """The pixels of a block."""
        top, left = row * BLOCK_PX, col * BLOCK_PX
        return Window(top, left, min(BLOCK_PX, self.rows - top), min(BLOCK_PX, self.cols - left))

    def first_pixel(self, row: int, col: int) -> int:
        """Pixels of the plane that are stored before a block."""
        window = self.window(row, col)
        return window.row_off * self.cols + window.rows * window.col_off

    def pieces(self, window: Window) -> Iterator[Piece]:
        """The window cut along blocks."""
        cols = list(_cuts(window.col_off, window.col_stop))
        for row, down, below in _cuts(window.row_off, window.row_stop):
            for col, across, beside in cols:
                yield Piece(row, col, (down, across), (below, beside))


def _cuts(start: int, stop: int) -> Iterator[tuple[int, slice, slice]]:
    """Each block of an axis that `start` to `stop` touches, the part of it, and where that lies from `start` on."""
    for block in range(start // BLOCK_PX, -(-stop // BLOCK_PX)):
        first, last = max(start, block * BLOCK_PX), min(stop, (block + 1) * BLOCK_PX)
        yield block, slice(first - block * BLOCK_PX, last - block * BLOCK_PX), slice(first - start, last - start)


def spans(key: Any, shape: tuple[int, ...]) -> list[slice]:
    """Starts and stops of a layer's slices.

    Raises:
        IndexError: There is not one slice of step 1 an axis.
    """
    given = key if isinstance(key, tuple) else (key,)
    if len(given) != len(shape) or not all(isinstance(part, slice) and part.step in (None, 1) for part in given):
        raise IndexError(f"a layer of {len(shape)} axes is sliced by as many slices of step 1, not by {key!r}")
    found = [part.indices(size)[:2] for part, size in zip(given, shape, strict=True)]
    return [slice(start, max(start, stop)) for start, stop in found]


def window_of(rows: slice, cols: slice) -> Window:
    """The window of two spans."""
    return Window(rows.start, cols.start, rows.stop - rows.start, cols.stop - cols.start)


class BlockArray:
    """A layer `(row, col)` or `(band, row, col)` in blocks of a file; pickled by its path, and shared by processes.

    Attributes:
        path: The file.
        shape: Axes of the layer.
        dtype: Dtype of the values.
        writable: Whether it may be written.
    """

    def __init__(self, path: Path, *, shape: tuple[int, ...], dtype: DTypeLike, writable: bool) -> None:
        self.path, self.shape, self.dtype, self.writable = path, shape, np.dtype(dtype), writable
        self._name, self._bands = str(path), shape[0] if len(shape) == 3 else 1
        self._lattice = BlockLattice(*shape[-2:])

    @classmethod
    def create(cls, path: Path, *, shape: tuple[int, ...], dtype: DTypeLike, fill: float = 0) -> BlockArray:
        """A new layer full of `fill`, its space on the disk reserved.

        Raises:
            OSError: There is no room for it, or the file cannot be made; nothing is left of it.
        """
        said = {"format": MAGIC, "shape": list(shape), "dtype": np.dtype(dtype).str}
        header = json.dumps(said).encode().ljust(HEADER_BYTES - 1) + b"\n"
        create_file(path, layer_bytes(shape, dtype), start=header)
        made = cls(path, shape=tuple(shape), dtype=dtype, writable=True)
        if fill:
            for row, col in np.ndindex(*made._lattice.count):
                made._block(row, col)[:] = fill
        return made

    @classmethod
    def open(cls, path: Path, *, writable: bool = False) -> BlockArray:
        """A layer that `create` made.

        Raises:
            ReadError: The file is not there, is no such layer, or is not complete.
        """
        try:
            with path.open("rb") as file:
                said = json.loads(file.read(HEADER_BYTES))
            shape, dtype = tuple(map(int, said["shape"])), np.dtype(said["dtype"])
            whole = said["format"] == MAGIC and path.stat().st_size == layer_bytes(shape, dtype)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ReadError(f"{path} is no layer of a decoded scene: {error}") from error
        if not whole:
            raise ReadError(f"{path} is not a complete layer of a decoded scene; decode the scene again")
        MAPS.forget(str(path))
        return cls(path, shape=shape, dtype=dtype, writable=writable)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.path, self.shape, self.dtype.str, self.writable)

    def __getitem__(self, key: tuple[slice, ...]) -> NDArray[Any]:
        """A copy of the values there."""
        axes = spans(key, self.shape)
        bands = axes[0] if len(axes) == 3 else slice(0, 1)
        window = window_of(*axes[-2:])
        found = np.empty((bands.stop - bands.start, window.rows, window.cols), self.dtype)
        self._copy(found, bands, window)
        return found if len(axes) == 3 else found[0]

    def __setitem__(self, key: tuple[slice, ...], values: Any) -> None:
        """Writes the values there, other processes see them."""
        axes = spans(key, self.shape)
        bands = axes[0] if len(axes) == 3 else slice(0, 1)
        window = window_of(*axes[-2:])
        wanted = tuple(axis.stop - axis.start for axis in axes)
        given = np.broadcast_to(np.asarray(values, self.dtype if np.isscalar(values) else None), wanted)
        given = given if len(axes) == 3 else given[None]
        for piece in self._lattice.pieces(window):
            self._block(piece.row, piece.col, touched=piece)[bands, *piece.inside] = given[:, *piece.outside]

    def copy_into(self, out: NDArray[Any], window: Window) -> tuple[Window, ...]:
        """Copies the values of a window of all bands to `out`; nothing, since all that is stored can be read."""
        self._copy(out if out.ndim == 3 else out[None], slice(0, self._bands), window)
        return ()

    def flush(self) -> None:
        """Waits until all that was written is on the disk."""
        MAPS.flush(self._name)

    def _copy(self, out: NDArray[Any], bands: slice, window: Window) -> None:
        if out.flags.c_contiguous and out.dtype == self.dtype and out.size:
            wide = -(-window.col_stop // BLOCK_PX) - window.col_off // BLOCK_PX
            touching = self._bands * window.rows * wide * BLOCK_PX * self.dtype.itemsize
            stored = MAPS.bytes_of(self._name, writable=self.writable, touching=touching)
            layer = (self._bands, self._lattice.rows, self._lattice.cols, self.dtype.itemsize)
            place = (bands.start, window.row_off, window.col_off, window.row_stop, window.col_stop)
            _copy_blocks(stored, out.view(np.uint8), layer, place)
            return
        for piece in self._lattice.pieces(window):
            out[:, *piece.outside] = self._block(piece.row, piece.col, touched=piece)[bands, *piece.inside]

    def _block(self, row: int, col: int, *, touched: Piece | None = None) -> NDArray[Any]:
        """A block as it lies in the file, `(band, row, col)`."""
        place = self._lattice.window(row, col)
        rows = place.rows if touched is None else touched.inside[0].stop - touched.inside[0].start
        stored = MAPS.bytes_of(
            self._name, writable=self.writable, touching=self._bands * rows * place.cols * self.dtype.itemsize
        )
        start = HEADER_BYTES + self._bands * self._lattice.first_pixel(row, col) * self.dtype.itemsize
        shape = (self._bands, place.rows, place.cols)
        return np.ndarray(shape, self.dtype, stored, start)


@jit
def _copy_blocks(
    stored: NDArray[np.uint8], out: NDArray[np.uint8], layer: tuple[int, int, int, int],
    place: tuple[int, int, int, int, int],
) -> None:  # fmt: skip
    """Copies a window of a layer's file, both as bytes: a patch is too little for a call of numpy for each block.

    Args:
        stored: The file.
        out: The window, `(band, row, byte of the row)`.
        layer: Bands, rows, columns and bytes of a value of the layer.
        place: First band, first row and column, last row and column (exclusive) of the window.
    """
    bands, rows, cols, size = layer
    band, top, left, bottom, right = place
    for block_top in range(top - top % BLOCK_PX, bottom, BLOCK_PX):
        high = min(BLOCK_PX, rows - block_top)
        first, last = max(top, block_top), min(bottom, block_top + high)
        for block_left in range(left - left % BLOCK_PX, right, BLOCK_PX):
            wide = min(BLOCK_PX, cols - block_left)
            begin, end = max(left, block_left), min(right, block_left + wide)
            block = HEADER_BYTES + bands * (block_top * cols + high * block_left) * size
            to, count = (begin - left) * size, (end - begin) * size
            for k in range(out.shape[0]):
                for row in range(first, last):
                    at = block + (((band + k) * high + row - block_top) * wide + begin - block_left) * size
                    target, source = out[k, row - top, to : to + count], stored[at : at + count]
                    for byte in range(count):
                        target[byte] = source[byte]


def _reopened(path: Path, shape: tuple[int, ...], dtype: str, writable: bool) -> BlockArray:  # noqa: FBT001
    return BlockArray(path, shape=shape, dtype=dtype, writable=writable)


def kept_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype in which pixels of `dtype` are kept: their own where torch and GDAL have it, else one of these.

    Of bytes the next that holds them; of all others float32, which rounds: integers are exact up to 2 ** 24.
    """
    if dtype.name in KEPT_DTYPES:
        return dtype
    return np.dtype({"int8": "int16", "bool": "uint8"}.get(dtype.name, "float32"))


def as_kept(pixels: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Pixels in the dtype in which they are kept; what float32 cannot hold becomes infinite."""
    with np.errstate(over="ignore"):
        return pixels.astype(dtype, copy=False)


def layer_bytes(shape: tuple[int, ...], dtype: DTypeLike) -> int:
    """Size of a layer's file."""
    return HEADER_BYTES + prod(shape) * np.dtype(dtype).itemsize


def copy_window(layer: Layer, out: NDArray[Any], window: Window) -> tuple[Window, ...]:
    """Copies a window of all bands of a layer to `out`.

    Returns:
        The parts of it that could not be read; there `out` is 0.
    """
    if isinstance(layer, np.ndarray):
        out[...] = layer[..., *window.slices]
        return ()
    copy = getattr(layer, "copy_into", None)
    if copy is not None:
        missing: tuple[Window, ...] = copy(out, window)
        return missing
    every = (slice(None),) * (len(layer.shape) - 2)
    out[...] = layer[(*every, *window.slices)]
    return ()
