"""How far a network looks: its effective receptive field, and the overlap of tiles that follows from it."""

from __future__ import annotations

import copy
import logging

import torch
from torch import Tensor, nn

from geoseg.errors import InputError

logger = logging.getLogger(__name__)

LARGEST_SIDE = 1024
"""Pixels of the largest image that a field is measured in; half of it is the largest radius."""

TAIL = 0.1
"""Of the part of a field that may lie outside the radius, how much may lie in the image's outer quarter."""


def receptive_radius(
    network: nn.Module,
    *,
    bands: int,
    side: int = 256,
    share: float = 0.99,
    samples: int = 4,
    seed: int = 0,
    multiple: int = 32,
) -> int:
    """Pixels that a network effectively looks to each side of a pixel, in its own pixels.

    The field is the gradient of a pixel's logits by the input, as absolute values, summed over the bands and averaged
    over random normal inputs and over pixels near the centre, for in a network with strides each pixel of a stride has
    a field of its own. The radius is the smallest Chebyshev distance within which `share` of the field lies. Where the
    field has not ended at the border of the image, the image's side is doubled, up to `LARGEST_SIDE`.

    A network that sees everything, by attention (SegFormer) or by pooling the whole image, has no end to find: its
    radius is that of the largest image, at most half of `LARGEST_SIDE`, and means "at least"; a warning is logged.

    A copy of the network is run, in eval mode, float32 and on the CPU, so that the network stays as it is.

    Source: Luo, Li, Urtasun & Zemel 2016, Understanding the Effective Receptive Field in Deep Convolutional Neural
    Networks, section 2. Where they take one output, a pixel's logits are mixed here with random normal weights: the
    expected absolute gradient is then that of their norm, while in a plain sum competing classes would cancel.

    Args:
        network: From `(n, band, row, col)` to logits `(n, class, row, col)` of the same rows and columns.
        bands: Bands of the input.
        side: Rows and columns of the first image tried.
        share: Share of the field within the radius, above 0 and at most 1. Fields fade out, so that 1 finds the
            theoretical field, of which the rim counts for nothing.
        samples: Inputs, each with a pixel of its own.
        seed: For inputs, pixels and weights.
        multiple: Sides that the network takes are multiples of this; a multiple of all its strides too.

    Raises:
        InputError: An option makes no sense, or the network gives no logits for each pixel of its input.
    """
    _check_options(bands=bands, side=side, share=share, samples=samples, multiple=multiple)
    with torch.inference_mode(mode=False), torch.enable_grad():
        still = copy.deepcopy(network).to("cpu", torch.float32).eval().requires_grad_(requires_grad=False)
        while True:
            rings, reach = _rings(still, bands=bands, side=side, samples=samples, seed=seed, multiple=multiple)
            ended = bool(rings[reach - reach // 4 :].sum() <= (1 - share) * TAIL * rings.sum())
            if ended or 2 * side > LARGEST_SIDE:
                break
            side *= 2
    radius = min(_radius(rings, share), side // 2)
    if not ended:
        logger.warning("the network looks farther than %d px can show; %d px is the least it may be", side, radius)
    return radius


def overlap_for(radius: int, *, tile_px: int, multiple: int = 2) -> int:
    """Pixels that tiles should share for a network that looks `radius` pixels far.

    Twice the radius: in the middle of the overlap, where blending hands over from one tile to the next, a pixel is half
    the overlap from both tiles' borders, and that far the network has to see. It is even, so that the middle falls
    between two pixels, and at most half a tile, which `Tiling` allows; rounded down there, as a tile of 90 px has 44.
    A network that pools squares of pixels sees each pixel in one place of its square where tiles start a multiple of
    their side apart, so the overlap is rounded up to one where half a tile has room for it.

    Args:
        radius: As `receptive_radius` gives it.
        tile_px: The tile's side, in the model's pixels.
        multiple: Pixels a side of the largest squares that the network pools.

    Raises:
        InputError: A number is negative.

    >>> overlap_for(24, tile_px=512), overlap_for(300, tile_px=512), overlap_for(19, tile_px=512, multiple=8)
    (48, 256, 40)
    """
    if radius < 0 or tile_px < 1:
        raise InputError(f"radius of {radius} px, tile of {tile_px} px: needed are a radius of 0 or more and a tile")
    wanted = -(-2 * radius // multiple) * multiple
    return wanted + wanted % 2 if wanted + wanted % 2 <= tile_px // 2 else min(2 * radius, tile_px // 4 * 2)


def _check_options(*, bands: int, side: int, share: float, samples: int, multiple: int) -> None:
    if min(bands, samples, multiple) < 1:
        raise InputError(f"bands={bands}, samples={samples}, multiple={multiple}: each must be 1 or more")
    if not 0 < share <= 1:
        raise InputError(f"share={share}: needed is a share above 0 and at most 1, such as 0.99")
    if side % multiple or not 2 * multiple <= side <= LARGEST_SIDE:
        raise InputError(f"side={side}: needed is a multiple of {multiple} from {2 * multiple} to {LARGEST_SIDE}")


def _rings(network: nn.Module, *, bands: int, side: int, samples: int, seed: int, multiple: int) -> tuple[Tensor, int]:
    """The field's sum at each Chebyshev distance, float64, and the distance up to which rings are whole."""
    draw = torch.Generator().manual_seed(seed)
    rings = torch.zeros(side, dtype=torch.float64)
    for row, col in _pixels(samples, side=side, multiple=multiple, draw=draw):
        image = torch.randn(1, bands, side, side, generator=draw)
        field = _field(network, image, row, col, draw)
        away = torch.maximum((torch.arange(side) - row).abs()[:, None], (torch.arange(side) - col).abs())
        rings.index_add_(0, away.flatten(), field.flatten())
    if not torch.isfinite(rings).all():
        raise InputError("the network's gradients are not finite; needed are weights that are numbers")
    return rings, side // 2 - (multiple + 1) // 2


def _pixels(samples: int, *, side: int, multiple: int, draw: torch.Generator) -> list[tuple[int, int]]:
    """Rows and columns of pixels about the centre, spread over a square of `multiple` pixels, none alike in either.

    A Latin hypercube: with few samples each axis still meets each part of a stride.
    """
    strata = torch.stack([torch.randperm(samples, generator=draw) for _ in range(2)])
    off = (strata + torch.rand(2, samples, generator=draw)) * multiple / samples
    rows, cols = (off.long().clamp(max=multiple - 1) + side // 2 - multiple // 2).tolist()
    return list(zip(rows, cols, strict=True))


def _field(network: nn.Module, image: Tensor, row: int, col: int, draw: torch.Generator) -> Tensor:
    """Absolute gradient of one pixel's logits by the input, summed over the bands: float64 `(row, col)`."""
    given = image.requires_grad_()
    logits = network(given)
    if not isinstance(logits, Tensor) or logits.ndim != 4 or logits.shape[2:] != image.shape[2:]:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(
            f"the network gives {found} for {tuple(image.shape)}; needed are logits (n, class, row, col) of as many "
            "rows and columns"
        )
    mixed = (logits[0, :, row, col] * torch.randn(logits.shape[1], generator=draw)).sum()
    (gradient,) = torch.autograd.grad(mixed, given)
    return gradient[0].double().abs().sum(0)


def _radius(rings: Tensor, share: float) -> int:
    """The smallest distance up to which `share` of the rings' sum lies; 0 where all are zero."""
    within = rings.cumsum(0)
    # The last sum may differ from itself added up in another order.
    wanted = share * within[-1] * (1 - 1e-12)
    return int((within < wanted).sum())
