"""Batches of patches, cut from decoded scenes as fast as memory gives them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import get_worker_info

from geoseg.data.arrays import copy_window, kept_dtype
from geoseg.data.scene import IGNORE_INDEX, TRAINING, Layer, SceneArrays
from geoseg.jit import jit
from geoseg.tiling import Window

SOFT_ONE = np.uint8(255)

Plane = tuple[NDArray[Any], int, int]
"""A C-contiguous array `(row, col)`, and the row and column of it at which a window begins."""

Target = tuple[NDArray[np.bool_], NDArray[np.int16], int, int, int, int]
"""`valid` and `label` of a patch, and what is filled in: first row, first column, rows, columns."""


def gather_patches(
    scenes: Sequence[SceneArrays], windows: NDArray[np.int64], *, patch_px: int, part: int, halo_px: int = 0
) -> dict[str, torch.Tensor]:
    """A batch of square patches, cut from the store.

    Args:
        scenes: The store.
        windows: `(n, 3)`: scene, first row, first column; a window may reach beyond its scene, which pads it.
        patch_px: Rows and columns of a patch.
        part: TRAINING hides every pixel of another part from the network; VALIDATION and TEST hide only labels.
        halo_px: Pixels at each border of a patch whose labels are left out: they serve as context.

    Returns:
        `image` `(n, band, row, col)` in the dtype that holds all scenes; `valid` bool and `label` int16 `(n, row,
        col)`, IGNORE_INDEX where there is no label to learn from or to be judged by; `window` int64 `(n, 3)`. Where a
        scene of the set lacks bands, `present` bool `(n, band)`; where one has soft labels, `soft` uint8 `(n, class,
        row, col)`, shares of 255, 0 where `label` is IGNORE_INDEX.

    Raises:
        ReadError: A scene that is decoded when it is needed cannot be read.
    """
    batch = _Batch(scenes, np.asarray(windows, np.int64), patch_px)
    for number, (scene, row, col) in enumerate(batch.windows.tolist()):
        batch.cut(number, scenes[scene], row, col, part=part, halo_px=halo_px)
    return batch.tensors


class _Batch:
    """The arrays of a batch, and the tensors that share their memory."""

    def __init__(self, scenes: Sequence[SceneArrays], windows: NDArray[np.int64], patch_px: int) -> None:
        count, plane = len(windows), (patch_px, patch_px)
        dtypes, masked, classes = _traits(scenes)
        self.windows, self.patch_px = windows, patch_px
        self.tensors: dict[str, torch.Tensor] = {}
        self.image = self._new("image", (count, len(scenes[0].bands), *plane), kept_dtype(np.result_type(*dtypes)))
        self.valid = self._new("valid", (count, *plane), np.dtype(np.bool_))
        self.label = self._new("label", (count, *plane), np.dtype(np.int16))
        self._new("window", (count, 3), np.dtype(np.int64))[...] = windows
        self.present = self._new("present", self.image.shape[:2], np.dtype(np.bool_)) if masked else None
        self.soft = self._new("soft", (count, classes, *plane), np.dtype(np.uint8)) if classes else None

    def _new(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        self.tensors[name] = tensor = _empty(shape, dtype)
        return tensor.numpy()

    def cut(self, number: int, scene: SceneArrays, row: int, col: int, *, part: int, halo_px: int) -> None:
        """Fills in one patch."""
        there, here = _overlap(scene.shape, row, col, self.patch_px)
        rows, cols = here
        image, valid, label = self.image[number], self.valid[number], self.label[number]
        if (there.rows, there.cols) != valid.shape:
            image[...], valid[...], label[...] = 0, False, IGNORE_INDEX
        missing = copy_window(scene.pixels, image[:, rows, cols], there)
        _judge(
            _plane(scene.part, there),
            _plane(scene.valid, there),
            _plane(scene.labels, there),
            (valid, label, rows.start, cols.start, there.rows, there.cols),
            (part, part == TRAINING, scene.no_label),
        )
        for place in missing:
            down, across = rows.start + place.row_off - there.row_off, cols.start + place.col_off - there.col_off
            hidden = Window(down, across, place.rows, place.cols).slices
            valid[hidden], label[hidden] = False, IGNORE_INDEX
        _hide_border(label, halo_px)
        if self.present is not None:
            self.present[number] = True
            self.present[number, list(scene.absent)] = False
        if self.soft is not None:
            _fill_soft(self.soft[number], label, scene.soft, there, here)


def _traits(scenes: Sequence[SceneArrays]) -> tuple[set[np.dtype[Any]], bool, int]:
    """Dtypes of the pixels, whether a scene lacks bands, and classes of soft labels, 0 where there are none."""
    dtypes, masked, classes = set(), False, 0
    for scene in scenes:
        dtypes.add(scene.pixels.dtype)
        if scene.absent:
            masked = True
        if scene.soft is not None:
            classes = scene.soft.shape[0]
    return dtypes, masked, classes


def _empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> torch.Tensor:
    """A tensor; in a worker process it lies in memory that the main process will see, so that it is not copied."""
    kind = torch.from_numpy(np.empty(0, dtype)).dtype
    if get_worker_info() is None:
        return torch.empty(shape, dtype=kind)
    # As torch's own collate function does it.
    storage: Any = torch.UntypedStorage._new_shared(prod(shape) * dtype.itemsize)  # type: ignore[no-untyped-call]  # noqa: SLF001
    return torch.empty(0, dtype=kind).set_(storage).view(shape)


def _overlap(shape: tuple[int, int], row_off: int, col_off: int, patch_px: int) -> tuple[Window, tuple[slice, slice]]:
    """Where a patch meets its scene: a window of the scene, and slices of the patch."""
    there, here = [], []
    for size, off in zip(shape, (row_off, col_off), strict=True):
        start = min(size, max(0, off))
        stop = max(start, min(size, off + patch_px))
        there.append((start, stop - start))
        here.append(slice(start - off, stop - off) if stop > start else slice(0, 0))
    return Window(there[0][0], there[1][0], there[0][1], there[1][1]), (here[0], here[1])


def _plane(layer: Layer, window: Window) -> Plane:
    """The window of a layer."""
    if isinstance(layer, np.ndarray) and layer.flags.c_contiguous:
        return layer, window.row_off, window.col_off
    return np.ascontiguousarray(layer[window.slices]), 0, 0


@jit
def _judge(part: Plane, usable: Plane, index: Plane, to: Target, rule: tuple[int, bool, int]) -> None:
    """What the network sees of a patch, and the labels that count: those of the chosen part."""
    valid, label, top, left, rows, cols = to
    chosen, hide, no_label = rule
    for row in range(rows):
        of_part = part[0][part[1] + row, part[2] : part[2] + cols]
        of_usable = usable[0][usable[1] + row, usable[2] : usable[2] + cols]
        of_index = index[0][index[1] + row, index[2] : index[2] + cols]
        to_valid, to_label = valid[top + row, left : left + cols], label[top + row, left : left + cols]
        for col in range(cols):
            counts = of_part[col] == chosen
            to_valid[col] = of_usable[col] & (counts | (not hide))
            to_label[col] = np.int16(of_index[col]) if counts & (of_index[col] != no_label) else np.int16(IGNORE_INDEX)


def _hide_border(label: NDArray[np.int16], halo_px: int) -> None:
    """Leaves out the labels of so many pixels at each border."""
    if halo_px:
        label[:halo_px] = label[-halo_px:] = IGNORE_INDEX
        label[:, :halo_px] = label[:, -halo_px:] = IGNORE_INDEX


def _fill_soft(
    out: NDArray[np.uint8], label: NDArray[np.int16], soft: Layer | None, there: Window, here: tuple[slice, slice]
) -> None:
    """Shares of the classes where there is a label; all of the label's class where the scene has plain labels."""
    if soft is None:
        np.multiply(label == np.arange(len(out))[:, None, None], SOFT_ONE, out=out)
        return
    if (there.rows, there.cols) != label.shape:
        out[...] = 0
    copy_window(soft, out[:, *here], there)
    out *= label != IGNORE_INDEX
