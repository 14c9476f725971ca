"""What a loss sees: logits, labels, weights, and which pixels count."""

from __future__ import annotations

from dataclasses import dataclass

import torch

IGNORE_INDEX = -100


@dataclass(frozen=True, slots=True)
class LossInputs:
    """What a loss sees.

    Attributes:
        logits: float32 `(n, class, row, col)`.
        label: int64 `(n, row, col)`, IGNORE_INDEX where unlabelled.
        weight: Weight of each class, float32 `(class,)`.
        smoothing: Label smoothing, 0 to 1.
        soft: Shares of the classes where labels are soft, float32 `(n, class, row, col)`, adding up to 1; None where
            every label is one class. Unlabelled is what `label` leaves out.
    """

    logits: torch.Tensor
    label: torch.Tensor
    weight: torch.Tensor
    smoothing: float
    soft: torch.Tensor | None = None

    @property
    def known(self) -> torch.Tensor:
        """Which pixels are labelled, bool `(n, row, col)`."""
        return self.label != IGNORE_INDEX

    @property
    def pixel_weight(self) -> torch.Tensor:
        """Weight of each pixel, `(n, row, col)`: that of its class, or of its classes by their shares; 0 unlabelled."""
        if self.soft is None:
            return self.weight[self.label.clamp(min=0)] * self.known
        return (self.soft * self.weight[:, None, None]).sum(1) * self.known

    @property
    def weight_sum(self) -> torch.Tensor:
        """Sum of the weights of all labelled pixels, never 0."""
        if self.soft is None:
            return _above_zero(self.weight[self.label[self.known]].sum())
        return _above_zero(self.pixel_weight.sum())

    @property
    def truth(self) -> torch.Tensor:
        """Share of each class at each pixel, `(n, class, row, col)`, 0 where unlabelled."""
        known = self.known.unsqueeze(1)
        if self.soft is not None:
            return self.soft * known
        return torch.zeros_like(self.logits).scatter_(1, self.label.clamp(min=0).unsqueeze(1), 1.0) * known


def _above_zero(total: torch.Tensor) -> torch.Tensor:
    return total.clamp(min=torch.finfo(torch.float32).tiny)
