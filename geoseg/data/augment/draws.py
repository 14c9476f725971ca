"""What all augmentations share: what they know, what they draw, and how they change some patches or hide some pixels.

Everything is drawn on the CPU and sent to the batch's device; nothing is read back, so that no step waits for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from geoseg.data.scene import IGNORE_INDEX

Planes = dict[str, torch.Tensor]
PIXEL_PLANES = ("image", "valid", "label", "soft")  # those with rows and columns, which stay in step


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Setting:
    """What a step knows beside the batch.

    Attributes:
        mean: Mean of each band, float32 `(band,)`, on the batch's device.
        std: Standard deviation of each band.
        rare: Chance of each class to be pasted, float32 `(class,)`, on the batch's device; None for one half each.
        generator: The step's own draw, on the CPU.
    """

    mean: torch.Tensor
    std: torch.Tensor
    rare: torch.Tensor | None
    generator: torch.Generator

    def evenly(self, low: float, high: float, *shape: int) -> torch.Tensor:
        """Numbers between `low` and `high`, float32 on the CPU."""
        return low + (high - low) * torch.rand(shape, generator=self.generator)

    def some_of(self, count: int, share: float) -> torch.Tensor:
        """Positions of the patches that are drawn, each with the chance `share`; int64 on the CPU, rising."""
        return (torch.rand(count, generator=self.generator) < share).nonzero().flatten()


def side_px(planes: Planes) -> tuple[int, int]:
    """Rows and columns of the patches."""
    rows, cols = planes["image"].shape[-2:]
    return rows, cols


def sent(values: torch.Tensor, planes: Planes) -> torch.Tensor:
    """The values on the batch's device."""
    return values.to(planes["image"].device, non_blocking=True)


def change_some(planes: Planes, chosen: torch.Tensor, change: Callable[[Planes], Planes]) -> Planes:
    """The batch with the chosen patches changed; the others, and planes that `change` leaves alone, are kept."""
    if not len(chosen):
        return planes
    if len(chosen) == len(planes["image"]):
        return change(planes)
    at = sent(chosen, planes)
    before = {name: plane.index_select(0, at) for name, plane in planes.items()}
    after = change(before)
    changed = {name: plane for name, plane in after.items() if plane is not before[name]}
    return {**planes, **{name: planes[name].index_copy(0, at, plane) for name, plane in changed.items()}}


def per_band(values: torch.Tensor) -> torch.Tensor:
    """Values `(..., band)` as `(..., band, 1, 1)`, to go with images."""
    return values[..., None, None]


def seen(planes: Planes) -> torch.Tensor:
    """Which values of the image are there, bool that goes with `(n, band, row, col)`."""
    valid = planes["valid"].unsqueeze(1)
    return valid & per_band(planes["present"]) if "present" in planes else valid


def unlabel(planes: Planes, hidden: torch.Tensor) -> Planes:
    """The batch without labels where `hidden`, bool `(n, row, col)`."""
    changed = {"label": planes["label"].masked_fill(hidden, IGNORE_INDEX)}
    if "soft" in planes:
        changed["soft"] = planes["soft"].masked_fill(hidden.unsqueeze(1), 0)
    return {**planes, **changed}


def hide(planes: Planes, hidden: torch.Tensor) -> Planes:
    """The batch invalid and without labels where `hidden`."""
    return {**unlabel(planes, hidden), "valid": planes["valid"] & ~hidden}


def rectangles(planes: Planes, height: torch.Tensor, width: torch.Tensor, setting: Setting) -> torch.Tensor:
    """One rectangle a patch, anywhere inside it; bool `(n, row, col)` on the batch's device.

    Args:
        planes: The patches.
        height: Height of each, in sides of the patch, float32 `(n,)` on the CPU.
        width: Width of each.
        setting: The draw.
    """
    inside = []
    for length, extent in zip(side_px(planes), (height, width), strict=True):
        extent_px = (extent * length).round().clamp(1, length)
        first = ((length - extent_px + 1) * setting.evenly(0, 1, len(extent))).floor().clamp(max=length - 1)
        at = torch.arange(length)
        inside.append(sent((at >= first[:, None]) & (at < (first + extent_px)[:, None]), planes))
    return inside[0][:, :, None] & inside[1][:, None, :]
