"""Labels that lie off: each patch's are moved to where the network sees them, a few pixels at most."""

from __future__ import annotations

import torch
from torch.nn import functional

from geoseg.errors import InputError
from geoseg.models.losses.inputs import IGNORE_INDEX

MOST_PX = 32
"""The largest reach."""

PENALTY = 0.002
"""What the largest shift along one axis costs, in nats a pixel: labels that fit alike anywhere stay where they are."""


def check_shift(reach_px: int) -> None:
    """Nothing, where labels may be moved by so many pixels; 0 leaves them where they are.

    Raises:
        InputError: It is out of range.
    """
    if not 0 <= reach_px <= MOST_PX:
        raise InputError(f"label_shift_px is {reach_px}: needed is 0 to {MOST_PX} pixels")


def registered(
    logits: torch.Tensor, label: torch.Tensor, soft: torch.Tensor | None = None, *, reach_px: int
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Labels moved, each patch's by the whole pixels that make them likeliest, for noise of registration.

    A patch's labels are taken to be displaced by an unknown translation, after Mnih and Hinton 2012 ("Learning to label
    aerial images from noisy data"); here the likeliest one is taken, and none is averaged over. The likelihood is the
    mean over labelled pixels, less a penalty that grows with the square of the shift; pixels that a shift moves out
    count as the mean without a shift.

    Args:
        logits: float32 `(n, class, row, col)`.
        label: int64 `(n, row, col)`, IGNORE_INDEX where unlabelled.
        soft: Shares of the classes `(n, class, row, col)`, moved alike.
        reach_px: The largest shift along each axis.

    Returns:
        Labels and shares; IGNORE_INDEX and 0 where they have moved in from outside.
    """
    shifts = likeliest_shifts(logits, label, reach_px=reach_px)
    wide = functional.pad(label, [reach_px] * 4, value=IGNORE_INDEX)
    rows, cols = label.shape[-2:]

    def moved(padded: torch.Tensor, shift: tuple[int, int]) -> torch.Tensor:
        row, col = (reach_px - step for step in shift)
        return padded[..., row : row + rows, col : col + cols]

    label = torch.stack([moved(each, shift) for each, shift in zip(wide, shifts, strict=True)])
    if soft is not None:
        soft = torch.stack(
            [moved(each, shift) for each, shift in zip(functional.pad(soft, [reach_px] * 4), shifts, strict=True)]
        )
    return label, soft


def likeliest_shifts(logits: torch.Tensor, label: torch.Tensor, *, reach_px: int) -> list[tuple[int, int]]:
    """By how many (rows, columns) each patch's labels are to be moved down and to the right; see `registered`."""
    rows, cols = label.shape[-2:]
    size = (rows + reach_px, cols + reach_px)  # so much of zeros that nothing comes in again at the other side
    known = label != IGNORE_INDEX
    truth = torch.zeros_like(logits).scatter_(1, label.clamp(min=0).unsqueeze(1), 1.0) * known.unsqueeze(1)
    at_all = torch.ones_like(label, dtype=logits.dtype)

    def correlated(image: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
        """Sum of products for each shift of `moving`, over all channels; the shift 0 comes first, negatives last."""
        product = torch.fft.rfft2(image, s=size) * torch.fft.rfft2(moving, s=size).conj()
        found: torch.Tensor = torch.fft.irfft2(product.sum(1), s=size)
        return found

    likelihood = correlated(logits.log_softmax(1), truth)
    inside = correlated(at_all.unsqueeze(1), known.to(logits.dtype).unsqueeze(1))
    labelled = known.sum((1, 2)).clamp(min=1)[:, None, None]
    unmoved = likelihood[:, :1, :1] / labelled
    steps = torch.arange(-reach_px, reach_px + 1, device=logits.device)
    near = ((likelihood + (labelled - inside) * unmoved) / labelled)[:, steps][:, :, steps]
    squares = (steps / reach_px) ** 2
    near = near - PENALTY * (squares[:, None] + squares[None, :])
    best = near.flatten(1).argmax(1)
    return [(int(place // len(steps)) - reach_px, int(place % len(steps)) - reach_px) for place in best.tolist()]
