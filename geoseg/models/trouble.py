"""Where training went wrong: the patches whose loss is no number, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

SHOWN = 3


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Which patches a batch was made of.

    Attributes:
        windows: `(n, 3)`: scene, first row and first column, on the batch's device.
        size: Rows and columns of a patch.
    """

    windows: Tensor
    size: tuple[int, int]


def seen_of(batch: Mapping[str, Tensor]) -> Seen | None:
    """The patches of a batch, where it tells them, the unlabelled ones too."""
    windows, image = batch.get("window"), batch["image"]
    if windows is not None and "unlabelled_window" in batch:
        windows = torch.cat([windows, batch["unlabelled_window"]])
    return None if windows is None else Seen(windows, (image.shape[-2], image.shape[-1]))


def described(seen: Seen | None, scenes: Sequence[Any], *, bad: Tensor | None = None) -> str:
    """Patches in words, by scene and place; only the bad ones where there are any.

    Args:
        seen: The patches.
        scenes: Each has a `name`.
        bad: Bool `(n,)`.
    """
    if seen is None:
        return "unknown"
    chosen = seen.windows if bad is None or not bad.any() else seen.windows[bad.to(seen.windows.device)]
    rows, cols = seen.size
    words = [
        f"{scenes[scene].name if scene < len(scenes) else f'scene {scene}'} rows {row} to {row + rows}, "
        f"columns {col} to {col + cols}"
        for scene, row, col in chosen[:SHOWN].tolist()
    ]
    more = len(chosen) - len(words)
    return "; ".join(words) + (f"; and {more} more" if more > 0 else "")


def bad_patches(batch: Mapping[str, Tensor], losses: Tensor) -> Tensor:
    """Bool `(n,)`: patches with a value that is no number, or where all are numbers those whose loss is none.

    Batch norms spread one bad value over all patches of a batch.
    """
    values = batch["image"].float().masked_fill(~batch["valid"].unsqueeze(1), 0.0)
    wrong = ~torch.isfinite(values).flatten(1).all(1)
    return wrong if bool(wrong.any()) else ~torch.isfinite(losses)


def is_finite(network: nn.Module, *, statistics: bool = True) -> bool:
    """Whether every weight is a number, and every statistic of batch norms, which a bad image alone can spoil."""
    tensors = [*network.parameters(), *(network.buffers() if statistics else ())]
    checks = [torch.isfinite(each.detach()).all() for each in tensors if each.is_floating_point() and each.numel()]
    return bool(torch.stack(checks).all()) if checks else True


def from_all(words: str) -> str:
    """What the processes say, those that say nothing left out."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return words
    said: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(said, words)
    return "; ".join(dict.fromkeys(part for part in said if part))
