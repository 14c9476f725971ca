"""Windows laid over scenes in a lattice: each training pixel in turn, each validation label once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.data.label_index import CELL_PX, LabelIndex
from geoseg.data.scene import VALIDATION, SceneArrays, windows_of
from geoseg.errors import InputError
from geoseg.jit import jit

Windows = NDArray[np.int64]
"""`(n, 3)`: scene, first row, first column."""


def place_windows(corners: NDArray[np.int64], shapes: NDArray[np.int64], patch_px: int) -> NDArray[np.int64]:
    """Window corners `(n, 2)` moved inside their scenes; a scene smaller than a patch lies in the patch's middle."""
    room = shapes - patch_px
    return np.where(room >= 0, np.clip(corners, 0, np.maximum(room, 0)), room // 2)


def lattice_windows(scenes: Sequence[SceneArrays], index: LabelIndex, *, patch_px: int) -> Windows:
    """The windows side by side that hold a usable pixel of the index; together they show every one.

    The last ones of a scene are moved inside it. Only cells that are neither full nor of one window alone are read.

    Args:
        scenes: Those that were indexed; scenes of weight 0 are left out.
        index: Where the usable pixels are.
        patch_px: Side of a window.
    """
    found = [np.zeros((0, 3), np.int64)]
    bounds = np.searchsorted(index.cells, index.starts)
    for number, scene in enumerate(scenes):
        if scene.weight > 0 and bounds[number] < bounds[number + 1]:
            cells = np.arange(bounds[number], bounds[number + 1])
            row, col = np.nonzero(_touched(scene, index, cells, patch_px))
            corners = place_windows(np.stack([row, col], 1) * patch_px, index.shapes[[number]], patch_px)
            found.append(np.insert(corners, 0, number, axis=1))
    return np.concatenate(found)


def _touched(scene: SceneArrays, index: LabelIndex, cells: NDArray[Any], side: int) -> NDArray[np.bool_]:
    """Which squares of `side` pixels of a scene hold a usable pixel in one of these cells, `(row, col)`."""
    flags = _flags(scene, side)
    places = index.places(cells)
    sizes = np.minimum(CELL_PX, np.array(scene.shape) - places[:, 1:])
    first, last = places[:, 1:] // side, (places[:, 1:] + sizes - 1) // side
    clear = (first == last).all(1) | (index.usable[cells] == sizes.prod(1))
    _mark_boxes(flags, first[clear], last[clear])
    for cell, place in zip(cells[~clear].tolist(), places[~clear].tolist(), strict=True):
        window = index.cell_window(place)
        _mark_pixels(flags, index.usable_in(scene, cell, window), window.row_off, window.col_off, side)
    return flags


def validation_windows(
    scenes: Sequence[SceneArrays], *, patch_px: int, halo_px: int, part: int = VALIDATION
) -> Windows:
    """Windows whose cores (without `halo_px` at each border) show every label of a part once.

    Args:
        scenes: Decoded and split; they are read window by window.
        patch_px: Side of a window.
        halo_px: Pixels at each border that serve as context.
        part: VALIDATION or TEST.

    Raises:
        InputError: The halo leaves no core.
    """
    core = patch_px - 2 * halo_px
    if core <= 0:
        raise InputError(f"a halo of {halo_px} px leaves nothing of a patch of {patch_px} px; needed is less than half")
    found = [np.zeros((0, 3), np.int64)]
    for number, scene in enumerate(scenes):
        flags = _flags(scene, core)
        for window in windows_of(scene.shape):
            judged = scene.part[window.slices] == part
            if judged.any():
                judged = judged & (scene.labels[window.slices] != scene.no_label)
                _mark_pixels(flags, np.ascontiguousarray(judged), window.row_off, window.col_off, core)
        row, col = np.nonzero(flags)
        found.append(np.stack([np.full(len(row), number), row * core - halo_px, col * core - halo_px], 1))
    return np.concatenate(found)


def share_of(windows: Windows, rank: int, world: int) -> Windows:
    """The windows of one of `world` processes: a run of neighbours, so that each process reads blocks of its own.

    The shares are disjoint, together they are all windows, and their lengths differ by one at most: where there are
    fewer windows than processes, some are empty.
    """
    return np.array_split(windows, world)[rank]


def _flags(scene: SceneArrays, side: int) -> NDArray[np.bool_]:
    rows, cols = scene.shape
    return np.zeros((-(-rows // side), -(-cols // side)), np.bool_)


@jit
def _mark_pixels(flags: Any, mask: Any, row_off: Any, col_off: Any, side: Any) -> None:
    """Sets the flag of each square that holds a True pixel of a mask, which begins at `row_off, col_off`."""
    for row in range(mask.shape[0]):
        for col in range(mask.shape[1]):
            if mask[row, col]:
                flags[(row + row_off) // side, (col + col_off) // side] = True


@jit
def _mark_boxes(flags: Any, first: Any, last: Any) -> None:
    """Sets the flags of boxes of squares, `(n, 2)` each, the last ones included."""
    for k in range(len(first)):
        for row in range(first[k, 0], last[k, 0] + 1):
            for col in range(first[k, 1], last[k, 1] + 1):
                flags[row, col] = True
