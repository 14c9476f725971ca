"""The decoded scene store: every source pixel is read and warped once, then cut into patches as often as wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geoseg.data.scene import IGNORE_INDEX, OUTSIDE, TRAINING, SceneArrays
from geoseg.errors import InputError, OutputError
from geoseg.io.grids import crop
from geoseg.io.sources import Source
from geoseg.legend import Legend
from geoseg.tiling import Window

KEPT_DTYPES = ("uint8", "int16", "uint16", "int32", "float32")  # torch and GDAL both know them
BLOCK_BYTES = 2**26


def kept_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype in which pixels of `dtype` are kept: their own where torch has it, else the next that holds them."""
    if dtype.name in KEPT_DTYPES:
        return dtype
    return np.dtype({"int8": "int16", "bool": "uint8"}.get(dtype.name, "float32"))


def store_bytes(shape: tuple[int, int], *, bands: int, dtype: np.dtype[Any]) -> int:
    """Bytes that a decoded scene of `shape` (row, col) takes."""
    return shape[0] * shape[1] * (bands * kept_dtype(dtype).itemsize + 3)


def decode_scene(
    image: Source,
    labels: Source,
    *,
    legend: Legend,
    grid: GeoBox,
    inside: NDArray[np.bool_],
    name: str,
    folder: Path | None = None,
) -> SceneArrays:
    """The scene read once, in row blocks, onto `grid`.

    Args:
        image: The pixels.
        labels: Class ids of `legend`, one band.
        legend: Gives each id its channel index.
        grid: The whole training grid.
        inside: Boolean `(row, col)` on `grid`, True in the scene's region; the store covers its bounding box only.
        name: For messages.
        folder: Where memory-mapped files go; None keeps the arrays in memory.

    Raises:
        InputError: The region is empty, or no labelled pixel lies on a valid pixel in it.
        OutputError: The folder cannot be written.
    """
    top, left, box = _bounding_box(grid, inside, name)
    rows, cols = box.shape
    label_dtype = np.dtype(np.uint8 if legend.no_index == 255 else np.uint16)
    pixels = _allocate(folder, "pixels", (len(image.bands), rows, cols), kept_dtype(image.dtype))
    valid = _allocate(folder, "valid", (rows, cols), np.dtype(np.bool_))
    index = _allocate(folder, "labels", (rows, cols), label_dtype)
    part = _allocate(folder, "part", (rows, cols), np.dtype(np.uint8))
    for start, stop in row_blocks(pixels.shape, pixels.dtype):
        block = crop(box, Window(start, 0, stop - start, cols))
        seen, told = image.read(block), labels.read(block)
        usable = seen.valid & inside[top + start : top + stop, left : left + cols]
        pixels[:, start:stop] = seen.pixels
        valid[start:stop] = usable
        index[start:stop] = np.where(usable & told.valid, legend.indexes(told.pixels[0]), legend.no_index)
        part[start:stop] = np.where(usable, TRAINING, OUTSIDE)
    if not (index != legend.no_index).any():
        raise InputError(
            f"no labelled pixel lies on a valid pixel of {name}: the labels do not overlap the image or its region"
        )
    bands = tuple(image.bands)
    return SceneArrays(name, pixels, valid, index, part, box, bands, legend.no_index, image.geobox)


def row_blocks(shape: Sequence[int], dtype: np.dtype[Any]) -> Iterator[tuple[int, int]]:
    """Starts and stops of row blocks of about 64 MiB over `(band, row, col)`."""
    bands, rows, cols = shape
    step = max(1, BLOCK_BYTES // max(1, bands * cols * dtype.itemsize))
    for start in range(0, rows, step):
        yield start, min(rows, start + step)


def _bounding_box(grid: GeoBox, inside: NDArray[np.bool_], name: str) -> tuple[int, int, GeoBox]:
    rows, cols = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if not rows.size:
        raise InputError(f"the region of {name} holds none of its pixels")
    top, left = int(rows[0]), int(cols[0])
    return top, left, crop(grid, Window(top, left, int(rows[-1]) + 1 - top, int(cols[-1]) + 1 - left))


def _allocate(folder: Path | None, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    if folder is None:
        return np.zeros(shape, dtype)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=shape)
    except OSError as error:
        raise OutputError(f"the store folder {folder} cannot be written: {error.strerror or error}") from error


def gather_patches(
    scenes: Sequence[SceneArrays], windows: NDArray[np.int64], *, patch_px: int, part: int, halo_px: int = 0
) -> dict[str, torch.Tensor]:
    """A batch of square patches, cut from the store.

    Args:
        scenes: The store.
        windows: `(n, 3)`: scene, first row, first column; a window may reach beyond its scene, which pads it.
        patch_px: Rows and columns of a patch.
        part: TRAINING hides every pixel of another part from the network; VALIDATION hides only labels.
        halo_px: Pixels at each border of a patch whose labels are left out: they serve as context.

    Returns:
        `image` `(n, band, row, col)` in the store's dtype, `valid` bool and `label` int64 `(n, row, col)`, IGNORE_INDEX
        where there is no label to learn from or to be judged by.
    """
    count = len(windows)
    dtype = kept_dtype(np.result_type(*(scene.pixels.dtype for scene in scenes)))
    pixels = np.zeros((count, len(scenes[0].bands), patch_px, patch_px), dtype)
    valid = np.zeros((count, patch_px, patch_px), np.bool_)
    label = np.full((count, patch_px, patch_px), IGNORE_INDEX, np.int64)
    for k, (scene_index, row_off, col_off) in enumerate(windows.tolist()):
        scene = scenes[scene_index]
        there, here = _overlap(scene.shape, row_off, col_off, patch_px)
        chosen = scene.part[there] == part
        pixels[k][:, *here] = scene.pixels[:, *there]
        valid[k][here] = scene.valid[there] & chosen if part == TRAINING else scene.valid[there]
        told = scene.labels[there]
        label[k][here] = np.where(chosen & (told != scene.no_label), told.astype(np.int64), IGNORE_INDEX)
    if halo_px:
        core = label[:, halo_px:-halo_px, halo_px:-halo_px].copy()
        label[:] = IGNORE_INDEX
        label[:, halo_px:-halo_px, halo_px:-halo_px] = core
    return {"image": torch.from_numpy(pixels), "valid": torch.from_numpy(valid), "label": torch.from_numpy(label)}


def _overlap(
    shape: tuple[int, int], row_off: int, col_off: int, patch_px: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a window meets its scene: slices of the scene, and slices of the patch."""
    there, here = [], []
    for size, off in zip(shape, (row_off, col_off), strict=True):
        start, stop = max(0, off), max(0, off, min(size, off + patch_px))
        there.append(slice(start, stop))
        here.append(slice(start - off, stop - off))
    return (there[0], there[1]), (here[0], here[1])
