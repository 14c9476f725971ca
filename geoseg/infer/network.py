"""Networks made ready for inference, and the steps around them, in torch."""

from __future__ import annotations

import hashlib
import logging
import platform
import warnings
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from geoseg.infer.devices import has_bf16_tiles
from geoseg.infer.fast.graphs import UNDRAWABLE, simplified
from geoseg.infer.fast.products import target_has
from geoseg.infer.fast.winograd import can_be_fast
from geoseg.models.card import ModelCard

logger = logging.getLogger(__name__)

X86 = ("x86_64", "AMD64")
"""Processors for which torch has no Winograd filtering of its own."""

WINOGRAD_SHARE = 0.85
"""Of a network's multiplications: from here on fp32 is faster than bf16 where this is computed by vectors.

Measured on one such processor: U-Nets on resnet18 (0.90) and on resnet50 (0.68) take 0.87 and 1.54 times as long.
"""

PROBE_SHAPE = (64, 96)
FOLD_TOLERANCE = 1e-3
"""Of the largest logit, by how much folding batch norms may move one."""


def ready(
    network: nn.Module, device: torch.device, *, bands: int, compiled: bool, precision: str = "fp32"
) -> Callable[[Tensor], Tensor]:
    """The network for inference on a device: simplified, and in the layout that is fastest there."""
    fast = by_winograd(device, compiled=compiled, precision=precision)
    found = simpler(network.eval(), bands=bands, fast=fast).to(device).to(memory_format=torch.channels_last)
    return cast("Callable[[Tensor], Tensor]", torch.compile(found, dynamic=False)) if compiled else found


def by_winograd(device: torch.device, *, compiled: bool, precision: str) -> bool:
    """Whether convolutions of 3 x 3 pixels are done by Winograd's filtering: not where each product is a call."""
    suited = platform.machine() in X86 and target_has("fma")
    return device.type == "cpu" and precision == "fp32" and not compiled and suited


def outruns_bf16(network: nn.Module, device: torch.device, *, bands: int, compiled: bool) -> bool:
    """Whether fp32 is faster than the device's bf16: by Winograd's filtering, which has a quarter of the products.

    Told by what the network multiplies, not by a clock: whoever goes on with a job has to come to the same.
    """
    if has_bf16_tiles(device) or not by_winograd(device, compiled=compiled, precision="fp32"):
        return False
    multiplied = {True: 0, False: 0}

    def count(layer: Any, given: Any, found: Tensor) -> None:
        pixels = given[0] if isinstance(layer, nn.ConvTranspose2d) else found
        multiplied[can_be_fast(layer)] += pixels.numel() * layer.weight[0].numel()

    layers = [layer for layer in network.modules() if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear))]
    attention = any(
        isinstance(layer, (nn.MultiheadAttention, nn.TransformerEncoderLayer)) for layer in network.modules()
    )
    if attention or not any(can_be_fast(layer) for layer in layers):  # that attention calls none of its layers
        return False
    held = [layer.register_forward_hook(count) for layer in layers]
    try:
        with torch.no_grad():
            network.eval()(_noise(bands))
    except UNDRAWABLE as error:
        logger.debug("what the network multiplies is not known: %s", error)
        return False
    finally:
        for hook in held:
            hook.remove()
    return multiplied[True] >= WINOGRAD_SHARE * sum(multiplied.values())


def _noise(bands: int) -> Tensor:
    return torch.randn(1, bands, *PROBE_SHAPE, generator=torch.Generator().manual_seed(0))


def simpler(network: nn.Module, *, bands: int, fast: bool = False) -> nn.Module:
    """The network with batch norms folded into the convolutions before them, where that can be done; else itself.

    The same function but for rounding, without the passes over memory; held against the network on a tile of noise.

    Args:
        network: The network, in evaluation mode.
        bands: How many it sees.
        fast: Whether convolutions of 3 x 3 pixels are done by Winograd's filtering, for a CPU.
    """
    if not any(isinstance(layer, nn.BatchNorm2d) or (fast and can_be_fast(layer)) for layer in network.modules()):
        return network
    noise = _noise(bands)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            wanted = network.cpu()(noise)
            found = simplified(network, probe=noise if fast else None)
            seen = found(noise)
    except UNDRAWABLE as error:
        # A network that decides by its input cannot be drawn as a graph; it runs as it is.
        logger.debug("the network is not simplified: %s", error)
        return network
    largest = float(wanted.abs().nan_to_num().max())  # a network with broken weights is told of when it is used
    same = torch.allclose(seen, wanted, rtol=FOLD_TOLERANCE, atol=FOLD_TOLERANCE * largest)
    return found if same else network


def to_gpu(arrays: Sequence[NDArray[Any]], device: torch.device) -> Tensor:
    """The arrays as one tensor on a GPU, by way of pinned memory."""
    first = torch.from_numpy(arrays[0][:0])
    stacked = torch.empty((len(arrays), *arrays[0].shape), dtype=first.dtype, pin_memory=device.type == "cuda")
    np.stack(arrays, out=stacked.numpy())
    return stacked.to(device, non_blocking=True)


def softmax(logits: Tensor) -> Tensor:
    """Probabilities of logits `(n, class, row, col)`."""
    return logits.contiguous().softmax(dim=1)


def resize(planes: Tensor, shape: tuple[int, ...]) -> Tensor:
    """`planes` (n, band, row, col) at another size, bilinear; averaged over what falls together when it shrinks."""
    if tuple(planes.shape[2:]) == tuple(shape):
        return planes
    shrinks = planes.shape[2] > shape[0] or planes.shape[3] > shape[1]
    return functional.interpolate(planes, size=shape, mode="bilinear", antialias=shrinks, align_corners=False)


def model_digest(network: nn.Module, card: ModelCard) -> str:
    """SHA-256 of a network's weights, their names, and how its input is normalised, in hexadecimal."""
    digest = hashlib.sha256(repr(card.bands).encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
