"""A loss of where the borders of the classes lie."""

from __future__ import annotations

import torch
from torch.nn import functional

from geoseg.models.losses.inputs import LossInputs


def boundary(inputs: LossInputs, *, width_px: int = 3, reach_px: int = 5) -> torch.Tensor:
    """1 - mean boundary F1 over the classes whose borders the batch's labels hold.

    Bokhovkin and Burnaev 2019 ("Boundary loss for remote sensing imagery semantic segmentation", eq. 3 to 7): borders
    are found by pooling, `width_px` wide, and count as met within `reach_px` (both odd). Where labelled pixels meet
    unlabelled ones there is no border.
    """
    known = inputs.known.unsqueeze(1).float()
    predicted = _border(inputs.logits.softmax(1), known, width_px)
    true = _border(inputs.truth, known, width_px)
    precision = _share(predicted * _grown(true, reach_px), predicted)
    recall = _share(true * _grown(predicted, reach_px), true)
    score = 2 * precision * recall / (precision + recall).clamp(min=1e-6)
    present = (true.sum((0, 2, 3)) > 0).float()
    return ((1 - score) * present).sum() / present.sum().clamp(min=1)


def _border(shares: torch.Tensor, known: torch.Tensor, width_px: int) -> torch.Tensor:
    """How much of a border each pixel is, 0 to 1: what its neighbours have of other classes and itself has not."""
    others = (1 - shares) * known
    return (_grown(others, width_px) - others).clamp(min=0) * known


def _grown(plane: torch.Tensor, side_px: int) -> torch.Tensor:
    return functional.max_pool2d(plane, side_px, stride=1, padding=side_px // 2)


def _share(part: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    return part.sum((0, 2, 3)) / whole.sum((0, 2, 3)).clamp(min=1e-6)
