"""Losses of the overlap of each class, summed over the whole batch; only classes that its labels hold count."""

from __future__ import annotations

import torch

from geoseg.models.losses.inputs import LossInputs


def dice(inputs: LossInputs) -> torch.Tensor:
    """1 - mean soft Dice coefficient over the classes that the batch's labels hold.

    Milletari et al. 2016 ("V-Net", eq. 2) with plain sums below the line, plus one above and below, which keeps tiny
    classes steady.
    """
    both, predicted, true = _sums(inputs)
    return _mean_loss((2 * both + 1) / (predicted + true + 1), true)


def jaccard(inputs: LossInputs) -> torch.Tensor:
    """1 - mean soft intersection over union (Rahman and Wang 2016, eq. 1 to 3), plus one above and below."""
    both, predicted, true = _sums(inputs)
    return _mean_loss((both + 1) / (predicted + true - both + 1), true)


def tversky(inputs: LossInputs, *, alpha: float = 0.3, beta: float = 0.7) -> torch.Tensor:
    """1 - mean Tversky index, with `alpha` for false and `beta` for missed pixels (Salehi et al. 2017, eq. 2).

    Above one half, `beta` favours finding all of a rare class. With both at one half this is `dice`.
    """
    both, predicted, true = _sums(inputs)
    false, missed = predicted - both, true - both
    return _mean_loss((both + 0.5) / (both + alpha * false + beta * missed + 0.5), true)


def lovasz(inputs: LossInputs) -> torch.Tensor:
    """Lovász-softmax: a convex surrogate of the mean IoU over the batch (Berman et al. 2018, eq. 9 and algorithm 1).

    With soft labels the error of a pixel is taken against its share, and its class is the one of the largest share.
    """
    known = inputs.known
    probability, truth = (plane.movedim(1, -1)[known] for plane in (inputs.logits.softmax(1), inputs.truth))
    label = inputs.label[known]
    terms = [
        _lovasz_of_class((truth[:, k] - probability[:, k]).abs(), (label == k).float())
        for k in torch.unique(label).tolist()
    ]
    return torch.stack(terms).mean() if terms else inputs.logits.sum() * 0


def _lovasz_of_class(errors: torch.Tensor, members: torch.Tensor) -> torch.Tensor:
    ordered, order = errors.sort(descending=True)
    sorted_members = members[order]
    total = sorted_members.sum()
    intersection = total - sorted_members.cumsum(0)
    union = total + (1 - sorted_members).cumsum(0)
    index = 1 - intersection / union
    steps = torch.cat([index[:1], index[1:] - index[:-1]])
    return (ordered * steps).sum()


def _sums(inputs: LossInputs) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of each class over the labelled pixels: product of probability and truth, probability, truth; `(class,)`."""
    probability = inputs.logits.softmax(1) * inputs.known.unsqueeze(1)
    truth = inputs.truth
    return (probability * truth).sum((0, 2, 3)), probability.sum((0, 2, 3)), truth.sum((0, 2, 3))


def _mean_loss(score: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    present = (true > 0).float()
    return ((1 - score) * present).sum() / present.sum().clamp(min=1)
