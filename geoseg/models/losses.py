"""Losses that honour what is unlabelled: pixels of IGNORE_INDEX add nothing, a batch without labels gives 0."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn
from torch.nn import functional

from geoseg.errors import InputError

IGNORE_INDEX = -100
EFFECTIVE_BETA = 0.9999
FOCAL_GAMMA = 2.0


@dataclass(frozen=True, slots=True)
class LossInputs:
    """What a loss sees.

    Attributes:
        logits: float32 `(n, class, row, col)`.
        label: int64 `(n, row, col)`, IGNORE_INDEX where unlabelled.
        weight: Weight of each class, float32 `(class,)`.
        smoothing: Label smoothing, 0 to 1.
    """

    logits: torch.Tensor
    label: torch.Tensor
    weight: torch.Tensor
    smoothing: float

    @property
    def weight_sum(self) -> torch.Tensor:
        """Sum of the weights of all labelled pixels' classes, never 0."""
        known = self.label[self.label != IGNORE_INDEX]
        return self.weight[known].sum().clamp(min=torch.finfo(torch.float32).tiny)


def cross_entropy(inputs: LossInputs) -> torch.Tensor:
    """Weighted mean of the cross-entropy over labelled pixels, as `torch.nn.functional.cross_entropy` defines it."""
    total = functional.cross_entropy(
        inputs.logits, inputs.label, weight=inputs.weight, ignore_index=IGNORE_INDEX, reduction="sum",
        label_smoothing=inputs.smoothing,
    )  # fmt: skip
    return total / inputs.weight_sum


def dice(inputs: LossInputs) -> torch.Tensor:
    """1 - mean soft Dice coefficient over the classes that the batch's labels hold.

    Summed over the whole batch (Milletari et al. 2016, "V-Net", eq. 2, with plain sums below the line), plus one above
    and below, which keeps tiny classes steady.
    """
    known = (inputs.label != IGNORE_INDEX).unsqueeze(1)
    probability = inputs.logits.softmax(1) * known
    truth = torch.zeros_like(probability).scatter_(1, inputs.label.clamp(min=0).unsqueeze(1), 1.0) * known
    both = (probability * truth).sum((0, 2, 3))
    sizes = truth.sum((0, 2, 3))
    score = (2 * both + 1) / (probability.sum((0, 2, 3)) + sizes + 1)
    present = (sizes > 0).float()
    return ((1 - score) * present).sum() / present.sum().clamp(min=1)


def focal(inputs: LossInputs) -> torch.Tensor:
    """Weighted mean of the focal loss over labelled pixels (Lin et al. 2017, eq. 5, gamma 2)."""
    known = inputs.label != IGNORE_INDEX
    safe = inputs.label.clamp(min=0)
    log_p = inputs.logits.log_softmax(1).gather(1, safe.unsqueeze(1)).squeeze(1)
    each = -((1 - log_p.exp()) ** FOCAL_GAMMA) * log_p * inputs.weight[safe] * known
    return each.sum() / inputs.weight_sum


LOSSES: dict[str, Callable[[LossInputs], torch.Tensor]] = {"ce": cross_entropy, "dice": dice, "focal": focal}


class SegmentationLoss(nn.Module):
    """A weighted sum of named losses: `{"ce": 1.0, "dice": 0.5}`.

    Raises:
        InputError: A name is not in LOSSES, a weight is negative, or nothing is left to minimise.
    """

    weight: torch.Tensor

    def __init__(self, parts: Mapping[str, float], *, weight: ArrayLike, smoothing: float = 0.0) -> None:
        super().__init__()
        check_loss(parts, smoothing=smoothing)
        self.parts, self.smoothing = dict(parts), smoothing
        self.register_buffer("weight", torch.as_tensor(np.asarray(weight), dtype=torch.float32), persistent=False)

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """The loss of `logits` `(n, class, row, col)` on `label` `(n, row, col)`: a scalar."""
        inputs = LossInputs(logits.float(), label, self.weight, self.smoothing)
        terms = [share * LOSSES[name](inputs) for name, share in self.parts.items() if share]
        return torch.stack(terms).sum()


def check_loss(parts: Mapping[str, float], *, smoothing: float) -> None:
    """Nothing, where the options fit.

    Raises:
        InputError: They do not.
    """
    stray = sorted(set(parts) - set(LOSSES))
    if stray:
        raise InputError(f"loss '{stray[0]}' is unknown; known are {', '.join(LOSSES)}")
    if not any(share > 0 for share in parts.values()) or any(share < 0 for share in parts.values()):
        raise InputError(f"loss weights are {dict(parts)}: needed are numbers from 0 on, one above 0")
    if not 0 <= smoothing < 1:
        raise InputError(f"label_smoothing is {smoothing}: needed is 0 to below 1")


def class_weights(counts: NDArray[np.int64], *, how: str, cap: float = 5.0) -> NDArray[np.float64]:
    """Weight of each class from its labelled pixels, `(class,)`; their mean over all labelled pixels is 1.

    Args:
        counts: Labelled training pixels of each class.
        how: A name in WEIGHTINGS: `none`; `inverse` and `sqrt_inverse` of a class's share; `effective` number of
            samples (Cui et al. 2019, eq. 4, beta 0.9999).
        cap: No class weighs more than this times the most common one.

    Raises:
        InputError: The name is unknown.

    >>> class_weights(np.array([900, 100]), how="inverse", cap=20).round(3).tolist()
    [0.556, 5.0]
    """
    if how not in WEIGHTINGS:
        raise InputError(f"class_weights '{how}' is unknown; known are {', '.join(WEIGHTINGS)}")
    present = counts > 0
    raw = np.where(present, WEIGHTINGS[how](np.maximum(counts, 1).astype(float)), 0.0)
    common = raw[int(np.argmax(counts))]
    capped = np.minimum(raw / common, cap)
    mean = (capped * counts).sum() / max(int(counts.sum()), 1)
    return np.asarray(np.where(present, capped / mean, 1.0))


WEIGHTINGS: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "none": np.ones_like,
    "inverse": lambda counts: 1 / counts,
    "sqrt_inverse": lambda counts: 1 / np.sqrt(counts),
    "effective": lambda counts: (1 - EFFECTIVE_BETA) / (1 - EFFECTIVE_BETA**counts),
}
