"""Flips, turns and warps: every plane of a patch moves alike."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import torch

from geoseg.data.augment.draws import PIXEL_PLANES, Planes, Setting, change_some, sent, side_px
from geoseg.data.augment.options import WarpOptions
from geoseg.data.scene import IGNORE_INDEX
from geoseg.errors import InputError

# What each turn is: rows for columns first, or not, and the axes that are mirrored then.
SYMMETRIES: tuple[tuple[bool, tuple[int, ...]], ...] = (
    (False, ()),
    (True, (-2,)),
    (False, (-2, -1)),
    (True, (-1,)),
    (False, (-1,)),
    (True, (-2, -1)),
    (False, (-2,)),
    (True, ()),
)
LEAST_WEIGHT = 0.2  # that valid pixels have in the mean of four where the nearest of them is valid, and a margin


def turn(planes: Planes, _: object, setting: Setting) -> Planes:
    """Each patch in one of its eight flips and quarter turns; the four that keep the shape where it is no square."""
    rows, cols = side_px(planes)
    turns = torch.randint(8, (len(planes["image"]),), generator=setting.generator)
    return turn_batch(planes, turns if rows == cols else turns & ~1)


def turn_batch(planes: Planes, turns: torch.Tensor) -> Planes:
    """All planes of patch `k` turned by `turns[k] % 4` quarters, and then mirrored where `turns[k]` is 4 and more.

    The quarters go against the clock, as in `torch.rot90`; planes without rows and columns are handed on.

    Args:
        planes: A batch.
        turns: int64 `(n,)` on the CPU, 0 to 7.

    Raises:
        InputError: A quarter turn of patches that are not square.
    """
    moved = [name for name in PIXEL_PLANES if name in planes]
    rows, cols = side_px(planes)
    if rows != cols and bool((turns % 2).any()):
        raise InputError(f"patches of {rows} x {cols} cannot be turned by quarters: needed are square ones")
    turned = {name: torch.empty_like(planes[name], memory_format=torch.contiguous_format) for name in moved}
    for number, at in _alike(turns, planes["image"].device):
        transposed, mirrored = SYMMETRIES[number]
        for name in moved:
            view = planes[name][at]
            view = view.transpose(-2, -1) if transposed else view
            turned[name][at] = view.flip(mirrored) if mirrored else view
    return {**planes, **turned}


def _alike(turns: torch.Tensor, device: torch.device) -> Iterator[tuple[int, torch.Tensor | slice]]:
    """Each turn and the patches that get it: all at once on a device, one by one in the processor's cache."""
    if device.type == "cpu":
        yield from ((number, slice(k, k + 1)) for k, number in enumerate(turns.tolist()))
        return
    for number in sorted(set(turns.tolist())):
        yield number, (turns == number).nonzero().flatten().to(device, non_blocking=True)


def warp(planes: Planes, options: WarpOptions, setting: Setting) -> Planes:
    """Some patches enlarged or reduced, rotated and moved."""
    chosen = setting.some_of(len(planes["image"]), options.share)
    matrix = _draw_matrices(options, side_px(planes), len(chosen), setting)
    return change_some(planes, chosen, partial(warp_batch, matrix=matrix))


def _draw_matrices(options: WarpOptions, side: tuple[int, int], count: int, setting: Setting) -> torch.Tensor:
    """Where each pixel of a patch goes, in pixels `(x, y)` from the middle of the upper left one; `(count, 2, 3)`."""
    from kornia.geometry.transform import get_affine_matrix2d

    low, high = (math.log(value) for value in options.scale)
    scale = setting.evenly(low, high, count).exp()
    angle_deg = setting.evenly(-options.rotate_deg, options.rotate_deg, count)
    extent = torch.tensor([side[1], side[0]], dtype=torch.float32)
    reach = (scale - 1).clamp(min=0)[:, None] / 2 + options.shift  # an enlarged patch hides this much on each side
    moved = setting.evenly(-1, 1, count, 2) * reach * extent
    middle = ((extent - 1) / 2).expand(count, 2)
    matrices: torch.Tensor = get_affine_matrix2d(moved, middle, scale[:, None].expand(count, 2), angle_deg)
    return matrices[:, :2]


def warp_batch(planes: Planes, *, matrix: torch.Tensor) -> Planes:
    """All planes of each patch moved by its own matrix, onto the same rows and columns.

    Valid, label and soft shares are those of the nearest pixel. The image is the mean of the four pixels around, by
    their bilinear weights; only valid ones count, and where the nearest is invalid the image is 0. What comes from
    outside is invalid and unlabelled.

    Args:
        planes: A batch; its image is float32.
        matrix: Where each pixel goes, `(x, y)` to `(x, y)`, float32 `(n, 2, 3)` on the CPU.
    """
    from kornia.geometry.transform import warp_affine

    side, matrix = side_px(planes), sent(matrix, planes)
    usable = planes["valid"].unsqueeze(1)
    known = torch.where(usable, planes["image"], 0.0)
    smooth = warp_affine(torch.cat([known, usable.float()], 1), matrix, side, mode="bilinear")
    # Outside is 0, which must come to mean "unlabelled".
    planar = [usable, (planes["label"] - IGNORE_INDEX).unsqueeze(1), *([planes["soft"]] if "soft" in planes else [])]
    nearest = warp_affine(torch.cat([plane.float() for plane in planar], 1), matrix, side, mode="nearest")
    valid = nearest[:, 0] > 0
    share = valid.unsqueeze(1) / smooth[:, -1:].clamp(min=LEAST_WEIGHT)
    warped = {
        "image": smooth[:, :-1] * share,
        "valid": valid,
        "label": nearest[:, 1].to(planes["label"].dtype) + IGNORE_INDEX,
    }
    if "soft" in planes:
        warped["soft"] = nearest[:, 2:].to(planes["soft"].dtype)
    return {**planes, **warped}
