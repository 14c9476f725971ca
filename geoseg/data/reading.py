"""Scenes read in pieces that suit their files, each pixel once; and what cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from math import ceil, isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geoseg.data.arrays import as_kept
from geoseg.data.block_cache import CANNOT_READ, OnError, Unreadable, unreadable_message
from geoseg.data.scene import BLOCK_PX
from geoseg.errors import ReadError
from geoseg.io.gdal import GdalSource
from geoseg.io.grids import aligned, crop
from geoseg.io.handles import dataset, gdal
from geoseg.io.protocol import Source
from geoseg.io.regions import Area
from geoseg.legend import Legend
from geoseg.tiling import Window

READ_BYTES = 32 << 20  # of pixels that a thread reads at once; it takes a few times as much


# -- which windows -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FileBlocks:
    """How a file holds its pixels, in pixels of a scene's grid.

    Attributes:
        rows: Rows of one of its blocks.
        cols: Columns of one.
        row: Where blocks begin: so many rows before the grid's first pixel, less than a block.
        col: The same for columns.
    """

    rows: int
    cols: int
    row: int = 0
    col: int = 0


def file_blocks(source: Source, grid: GeoBox) -> FileBlocks | None:
    """The blocks of the first file behind a source; None where there is none that GDAL knows."""
    found = _first_file(source)
    if found is None:
        return None
    with gdal(found.path):
        rows, cols = dataset(found.path).block_shapes[0]
    place = aligned(found.geobox, grid)
    if place is not None and place.factors == (1, 1):
        return FileBlocks(rows, cols, place.row % rows, place.col % cols)
    # Warped or resampled: about as much of the grid, and no more is known.
    down, across = (size / of for size, of in zip(grid.shape, found.geobox.shape, strict=True))
    return FileBlocks(max(1, ceil(rows * down)), max(1, ceil(cols * across)))


def _first_file(source: Any) -> GdalSource | None:
    if isinstance(source, GdalSource):
        return source
    if isinstance(source, tuple | list):
        parts: list[Any] = list(source)
    elif is_dataclass(source):
        parts = [getattr(source, item.name) for item in fields(source)]
    else:
        return None
    return next((found for part in parts if (found := _first_file(part)) is not None), None)


def reading_windows(
    shape: tuple[int, int], *, pixel_bytes: int, blocks: FileBlocks | None, most_bytes: int | None = None
) -> Iterator[Window]:
    """A plane in windows that share no block of the file, as far as that is possible in little memory.

    Whole rows while they stay below `most_bytes`, else rectangles; a file of whole rows is read in whole rows anyway.

    Args:
        shape: Rows and columns.
        pixel_bytes: Bytes of all bands of a pixel.
        blocks: How the file holds its pixels.
        most_bytes: Of a window, READ_BYTES by default; one block of the file may be larger.
    """
    rows, cols = shape
    blocks = blocks or FileBlocks(BLOCK_PX, BLOCK_PX)
    most_px = max(1, (READ_BYTES if most_bytes is None else most_bytes) // pixel_bytes)
    step_rows, step_cols = _whole(min(blocks.rows, rows)), _whole(min(blocks.cols, cols))
    if blocks.cols >= cols:  # strips, of which as many as there is room for
        high, wide = max(1, most_px // cols // blocks.rows) * blocks.rows, cols
    elif step_rows * cols <= most_px:
        high, wide = most_px // cols // step_rows * step_rows, cols
    else:
        side = isqrt(most_px)
        high, wide = max(1, side // step_rows) * step_rows, max(1, side // step_cols) * step_cols
    for top, bottom in _steps(rows, high, blocks.row):
        for left, right in _steps(cols, wide, blocks.col if wide < cols else 0):
            yield Window(top, left, bottom - top, right - left)


def _whole(block_px: int) -> int:
    """The smallest multiple of a file's block that is no smaller than a block of the store."""
    return ceil(BLOCK_PX / block_px) * block_px


def _steps(size: int, step: int, lead: int) -> Iterator[tuple[int, int]]:
    """Starts and stops; all but the first start at multiples of `step` from `lead` before 0 on."""
    start = 0
    while start < size:
        stop = min(size, start + step - (lead + start) % step)
        yield start, stop
        start = stop


# -- what is in them ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SceneReader:
    """What a scene's pixels, labels and region are read from; `read` may be called by many threads.

    Attributes:
        name: For messages.
        image: The pixels.
        labels: Class ids, one band; None where nothing is labelled.
        soft: Shares of the classes; where there are some, `labels` are not read.
        legend: Gives each class id its channel index.
        grid: The scene's grid.
        area: Outside it nothing is valid.
        dtype: What pixels are kept in.
        on_error: Whether what cannot be read stops, or is left out.
    """

    name: str
    image: Source
    labels: Source | None
    soft: Source | None
    legend: Legend
    grid: GeoBox
    area: Area | None
    dtype: np.dtype[Any]
    on_error: OnError = "stop"

    def read(self, window: Window) -> Reading:
        """The window's pixels and labels.

        Raises:
            ReadError: It cannot be read, and `on_error` is stop.
        """
        try:
            return self._read(window)
        except CANNOT_READ as error:
            if self.on_error == "stop":
                raise ReadError(unreadable_message(self.name, window, error)) from error
            if max(window.rows, window.cols) <= BLOCK_PX:
                return self._nothing(window, Unreadable(self.name, window, str(error)))
        # Half a file that cannot be read need not cost the other half.
        whole = self._nothing(window)
        return whole.joined([self.read(part) for part in _quarters(window)])

    def _read(self, window: Window) -> Reading:
        place = crop(self.grid, window)
        inside = None if self.area is None else self.area.mask(place)
        if inside is not None and not inside.any():
            return self._nothing(window)
        seen = self.image.read(place)
        usable = seen.valid if inside is None else seen.valid & inside
        pixels = as_kept(seen.pixels, self.dtype)
        if pixels.dtype.kind == "f":  # judged in the dtype that is kept: float64 may hold what float32 does not
            usable = usable & np.isfinite(pixels).all(0)
        labels, soft = self._labels(place, usable)
        return Reading(window, pixels, usable, labels, soft, in_area=True)

    def _labels(self, place: GeoBox, usable: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
        """Channel index of each pixel's class, and the shares of all classes where labels are soft."""
        if self.soft is not None:
            told = self.soft.read(place)
            return soft_labels(told.pixels, told.valid & usable, no_index=self.legend.no_index)
        if self.labels is None:
            return np.full(usable.shape, self.legend.no_index, index_dtype(self.legend)), None
        told = self.labels.read(place)
        index = self.legend.indexes(told.pixels[0])
        index[~(told.valid & usable)] = self.legend.no_index
        return index, None

    def _nothing(self, window: Window, *unreadable: Unreadable) -> Reading:
        plane = (window.rows, window.cols)
        soft = None if self.soft is None else np.zeros((len(self.legend), *plane), np.uint8)
        return Reading(
            window,
            np.zeros((len(self.image.bands), *plane), self.dtype),
            np.zeros(plane, np.bool_),
            np.full(plane, self.legend.no_index, index_dtype(self.legend)),
            soft,
            unreadable=unreadable,
            in_area=bool(unreadable),
        )


@dataclass(frozen=True, slots=True)
class Reading:
    """A window of a scene as it was read.

    Attributes:
        window: Which pixels.
        pixels: `(band, row, col)`.
        valid: Boolean `(row, col)`.
        labels: Channel index of each pixel's class `(row, col)`.
        soft: Shares of 255 `(class, row, col)`; None where labels are plain.
        unreadable: What could not be read.
        in_area: Whether the region has a pixel here.
    """

    window: Window
    pixels: NDArray[Any]
    valid: NDArray[np.bool_]
    labels: NDArray[Any]
    soft: NDArray[np.uint8] | None
    unreadable: tuple[Unreadable, ...] = ()
    in_area: bool = False

    def joined(self, parts: list[Reading]) -> Reading:
        """This window, filled with what was read of parts of it."""
        for part in parts:
            down, across = part.window.row_off - self.window.row_off, part.window.col_off - self.window.col_off
            inside = Window(down, across, part.window.rows, part.window.cols).slices
            self.pixels[:, *inside], self.valid[inside], self.labels[inside] = part.pixels, part.valid, part.labels
            if self.soft is not None and part.soft is not None:
                self.soft[:, *inside] = part.soft
        unreadable = tuple(item for part in parts for item in part.unreadable)
        in_area = any(part.in_area for part in parts)
        return Reading(self.window, self.pixels, self.valid, self.labels, self.soft, unreadable, in_area)


def soft_labels(
    shares: NDArray[Any], usable: NDArray[np.bool_], *, no_index: int
) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """The class of the largest share, the first of equal ones, and all shares as parts of 255.

    Args:
        shares: `(class, row, col)`, at least 0; they are scaled to add up to 1.
        usable: Boolean `(row, col)`; elsewhere, and where no class has a share, there is no label.
        no_index: What says so.
    """
    wide = np.where(usable & np.isfinite(shares).all(0), shares, 0).clip(0).astype(np.float32)
    total = wide.sum(0)
    told = total > 0
    wide *= np.where(told, 255 / np.where(told, total, 1), 0)
    index = wide.argmax(0).astype(np.uint8 if no_index == 255 else np.uint16)
    index[~told] = no_index
    return index, np.rint(wide).astype(np.uint8)


def index_dtype(legend: Legend) -> np.dtype[Any]:
    """Dtype of channel indexes."""
    return np.dtype(np.uint8 if legend.no_index == 255 else np.uint16)


def _quarters(window: Window) -> Iterator[Window]:
    """The window cut in up to four, along blocks where it is longer than one."""
    high, wide = (max(BLOCK_PX, ceil(size / 2 / BLOCK_PX) * BLOCK_PX) for size in (window.rows, window.cols))
    for top in range(0, window.rows, high):
        for left in range(0, window.cols, wide):
            rows, cols = min(high, window.rows - top), min(wide, window.cols - left)
            yield Window(window.row_off + top, window.col_off + left, rows, cols)
