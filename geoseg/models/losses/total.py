"""The loss of a training task: a weighted sum of losses by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from geoseg.errors import InputError
from geoseg.models.losses.boundary import boundary
from geoseg.models.losses.inputs import LossInputs
from geoseg.models.losses.overlap import dice, jaccard, lovasz, tversky
from geoseg.models.losses.pixelwise import (
    cross_entropy,
    focal,
    generalized_cross_entropy,
    hardest_pixels,
    symmetric_cross_entropy,
)

Part = float | Mapping[str, Any]
"""The weight of a loss in the sum, or a mapping of its options with `weight` among them (1 by default)."""

LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "ce": cross_entropy,
    "focal": focal,
    "ohem": hardest_pixels,
    "gce": generalized_cross_entropy,
    "sce": symmetric_cross_entropy,
    "dice": dice,
    "jaccard": jaccard,
    "tversky": tversky,
    "lovasz": lovasz,
    "boundary": boundary,
}

LIMITS: dict[str, tuple[float, float]] = {
    "gamma": (0, 10), "share": (0.001, 1), "q": (0.001, 1), "alpha": (0, 100), "beta": (0, 100), "width_px": (3, 31),
    "reach_px": (1, 63),
}  # fmt: skip
"""The least and the largest value of each option."""


class SegmentationLoss(nn.Module):
    """A weighted sum of named losses: `{"ce": 1.0, "focal": {"weight": 0.5, "gamma": 3}}`.

    Raises:
        InputError: A name or an option is unknown, a value is out of range, or nothing is left to minimise.
    """

    weight: torch.Tensor

    def __init__(self, parts: Mapping[str, Part], *, weight: ArrayLike, smoothing: float = 0.0) -> None:
        super().__init__()
        check_loss(parts, smoothing=smoothing)
        self.smoothing = smoothing
        self.terms = [(share, partial(LOSSES[name], **options)) for name, share, options in _read(parts) if share]
        self.register_buffer("weight", torch.as_tensor(np.asarray(weight), dtype=torch.float32), persistent=False)

    def forward(self, logits: torch.Tensor, label: torch.Tensor, soft: torch.Tensor | None = None) -> torch.Tensor:
        """The loss of `logits` `(n, class, row, col)` on `label` `(n, row, col)`: a scalar.

        `soft` gives the shares of the classes in any unit, `(n, class, row, col)`, where labels are soft.
        """
        shares = None if soft is None else soft.float() / soft.sum(1, keepdim=True).clamp(min=1)
        inputs = LossInputs(logits.float(), label, self.weight, self.smoothing, shares)
        return torch.stack([share * loss(inputs) for share, loss in self.terms]).sum()


def loss_parts(given: Mapping[str, Part] | Sequence[str] | str | None) -> dict[str, Part]:
    """Losses and their weights, of what a user gives: names alone weigh alike; by default `{ce: 1, dice: 0.5}`.

    >>> loss_parts("focal"), loss_parts(["ce", "dice"])
    ({'focal': 1.0}, {'ce': 1.0, 'dice': 1.0})
    """
    if not given:
        return {"ce": 1.0, "dice": 0.5}
    if isinstance(given, Mapping):
        return dict(given)
    return dict.fromkeys([given] if isinstance(given, str) else given, 1.0)


def check_loss(parts: Mapping[str, Part], *, smoothing: float) -> None:
    """Nothing, where the options fit.

    Raises:
        InputError: They do not.
    """
    found = _read(parts)
    if not any(share > 0 for _, share, _ in found) or any(share < 0 for _, share, _ in found):
        raise InputError(f"loss weights are {dict(parts)}: needed are numbers from 0 on, one above 0")
    if not 0 <= smoothing < 1:
        raise InputError(f"label_smoothing is {smoothing}: needed is 0 to below 1")


def _read(parts: Mapping[str, Part]) -> list[tuple[str, float, dict[str, Any]]]:
    """Name, weight and options of each loss."""
    return [(name, *_read_one(name, part)) for name, part in parts.items()]


def _read_one(name: str, part: Part) -> tuple[float, dict[str, Any]]:
    if name not in LOSSES:
        near = get_close_matches(name, LOSSES, n=1)
        hint = f"; near it is {near[0]}" if near else ""
        raise InputError(f"loss '{name}' is unknown; known are {', '.join(LOSSES)}{hint}")
    options = dict(part) if isinstance(part, Mapping) else {"weight": part}
    share = options.pop("weight", 1.0)
    known = list(inspect.signature(LOSSES[name]).parameters)[1:]
    for option, value in {"weight": share, **options}.items():
        if option != "weight" and option not in known:
            raise InputError(f"loss {name} has no option {option}; it has {', '.join(['weight', *known])}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f"{option} of loss {name} is {value!r}: needed is a number")
        low, high = LIMITS.get(option, (float("-inf"), float("inf")))
        if not low <= value <= high:
            raise InputError(f"{option} of loss {name} is {value}: needed is {low} to {high}")
        if option.endswith("_px") and value % 2 != 1:
            raise InputError(f"{option} of loss {name} is {value}: needed is an odd number of pixels")
    return float(share), options
