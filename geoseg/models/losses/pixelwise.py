"""Losses that are a mean over labelled pixels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from geoseg.models.losses.inputs import IGNORE_INDEX, LossInputs


def cross_entropy(inputs: LossInputs) -> torch.Tensor:
    """Weighted mean of the cross-entropy over labelled pixels, as `torch.nn.functional.cross_entropy` defines it."""
    if inputs.soft is None and not _must_repeat(inputs.logits):
        total = functional.cross_entropy(
            inputs.logits, inputs.label, weight=inputs.weight, ignore_index=IGNORE_INDEX, reduction="sum",
            label_smoothing=inputs.smoothing,
        )  # fmt: skip
        return total / inputs.weight_sum
    shares = (1 - inputs.smoothing) * inputs.truth + inputs.smoothing / len(inputs.weight) * inputs.known.unsqueeze(1)
    return -(shares * inputs.logits.log_softmax(1) * inputs.weight[:, None, None]).sum() / inputs.weight_sum


TINY = 1e-12


def focal(inputs: LossInputs, *, gamma: float = 2.0) -> torch.Tensor:
    """Weighted mean of the focal loss over labelled pixels (Lin et al. 2017, eq. 5).

    With soft labels it is the mean over the classes by their shares.
    """

    def focused(log_p: torch.Tensor) -> torch.Tensor:
        # Below 1 the power is infinitely steep at 0, which would make no number of a sure pixel's gradient.
        return -((-torch.expm1(log_p)).clamp(min=TINY) ** gamma) * log_p

    return _mean_of(inputs, focused)


def generalized_cross_entropy(inputs: LossInputs, *, q: float = 0.7) -> torch.Tensor:
    """Weighted mean of `(1 - p^q) / q` over labelled pixels (Zhang and Sabuncu 2018, eq. 6).

    It lies between cross-entropy (q near 0) and the mean absolute error (q = 1), which bears wrong labels.
    """
    return _mean_of(inputs, lambda log_p: (1 - (q * log_p).exp()) / q)


def symmetric_cross_entropy(inputs: LossInputs, *, alpha: float = 0.1, beta: float = 1.0) -> torch.Tensor:
    """`alpha` times cross-entropy and `beta` times the reverse one (Wang et al. 2019, eq. 5 to 7), for wrong labels.

    In the reverse one, `-sum p log(t)`, the logarithm of a share of zero is -4.
    """
    log_t = inputs.truth.clamp(min=torch.finfo(torch.float32).tiny).log().clamp(min=-4.0)
    each = -(inputs.logits.softmax(1) * log_t).sum(1) * inputs.pixel_weight
    return alpha * cross_entropy(inputs) + beta * each.sum() / inputs.weight_sum


def hardest_pixels(inputs: LossInputs, *, share: float = 0.25) -> torch.Tensor:
    """Mean cross-entropy of the `share` of labelled pixels where it is highest: online hard examples.

    After Shrivastava et al. 2016 ("Training region-based object detectors with online hard example mining"), with
    pixels for regions. Class weights count in what is hard, and in the mean.
    """
    each = _cross_entropies(inputs)[inputs.known]
    count = max(1, round(share * each.numel()))
    return each.topk(count).values.mean() if each.numel() else inputs.logits.sum() * 0


def _cross_entropies(inputs: LossInputs) -> torch.Tensor:
    """Weighted cross-entropy of each pixel, `(n, row, col)`."""
    return -(inputs.truth * inputs.logits.log_softmax(1) * inputs.weight[:, None, None]).sum(1)


def _mean_of(inputs: LossInputs, of_log_p: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Weighted mean over labelled pixels of a function of the log-probability of the true class."""
    log_p = inputs.logits.log_softmax(1)
    if inputs.soft is None:
        safe = inputs.label.clamp(min=0)
        each = of_log_p(log_p.gather(1, safe.unsqueeze(1)).squeeze(1)) * inputs.weight[safe] * inputs.known
    else:
        each = of_log_p(log_p) * inputs.weight[:, None, None] * inputs.truth
    return each.sum() / inputs.weight_sum


def patch_losses(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of each patch over its labelled pixels, `(n,)`; 0 where it has none."""
    known = label != IGNORE_INDEX
    return (surprise(logits, label.clamp(min=0)) * known).sum((1, 2)) / known.sum((1, 2)).clamp(min=1)


def surprise(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each pixel `(n, row, col)`, all of them labelled, by steps that can be repeated on a GPU."""
    return -logits.log_softmax(1).gather(1, label.unsqueeze(1)).squeeze(1)


def _must_repeat(logits: torch.Tensor) -> bool:
    """Whether the run is to be the same to the last bit on a GPU, on which torch's cross-entropy of images is not."""
    return logits.is_cuda and torch.are_deterministic_algorithms_enabled()
