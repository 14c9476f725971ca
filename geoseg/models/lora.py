"""Low-rank adaptation: a large encoder stays as it is, and small matrices beside its attention learn."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from geoseg.errors import InputError
from geoseg.models.depth import INTO_ATTENTION, OUT_OF_ATTENTION, attentions, backbone


@dataclass(frozen=True, kw_only=True)  # no slots: jsonargparse reads the defaults from __dict__
class LoraOptions:
    """What is added to each linear layer of the encoder's attention.

    Attributes:
        rank: Rank of the matrix that is added.
        alpha: It is multiplied by alpha / rank; twice the rank is common.
    """

    rank: int = 8
    alpha: float = 16.0

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.alpha > 0:
            raise InputError(
                f"lora has rank {self.rank}, alpha {self.alpha}: needed are a rank of 1 or more, alpha above 0"
            )


class LowRank(nn.Module):
    """`W + alpha / rank * B A` for a weight `W` `(out, in)`, with `A` `(rank, in)` and `B` `(out, rank)`.

    `B` is 0 at first, so that nothing changes before the first step (Hu et al. 2021, LoRA: Low-Rank Adaptation of Large
    Language Models, equation 3 and section 4.1).
    """

    def __init__(self, weight: Tensor, options: LoraOptions) -> None:
        super().__init__()
        rows, columns = weight.shape
        self.scale = options.alpha / options.rank
        self.A = nn.Parameter(weight.new_empty(options.rank, columns))
        self.B = nn.Parameter(weight.new_zeros(rows, options.rank))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))  # as a linear layer's own weight

    def forward(self, weight: Tensor) -> Tensor:
        """The adapted weight."""
        return weight + self.scale * (self.B @ self.A)


def add_lora(network: nn.Module, options: LoraOptions) -> int:
    """Freezes the encoder of a network and adds low-rank matrices to its attention; gives the weights these have.

    They are added to the weights, not to the layers, since some libraries use the weights of a layer without it.

    Raises:
        InputError: There is no encoder, it has no attention, or the rank is no smaller than a layer.
    """
    _, inner = backbone(network, needed_by="lora")
    layers = [
        child
        for _, module in attentions(inner)
        for name, child in module.named_children()
        if isinstance(child, nn.Linear) and name in INTO_ATTENTION | OUT_OF_ATTENTION
    ]
    if not layers:
        raise InputError("lora needs attention, and this encoder has none; mit_b0, swin_t and vit_... have it")
    least = min(min(layer.weight.shape) for layer in layers)
    if options.rank >= least:
        raise InputError(f"lora.rank is {options.rank}: needed is less than {least}, the encoder's smallest layer")
    inner.requires_grad_(requires_grad=False)
    added = [LowRank(layer.weight.detach(), options) for layer in layers]
    for layer, low_rank in zip(layers, added, strict=True):
        parametrize.register_parametrization(layer, "weight", low_rank)
    return sum(parameter.numel() for low_rank in added for parameter in low_rank.parameters())


def still_norms(network: nn.Module) -> None:
    """Keeps the batch norms of an encoder that stays by the statistics that they have."""
    for module in backbone(network, needed_by="lora")[1].modules():
        if getattr(module, "running_mean", None) is not None:
            module.eval()


def merge_lora(network: nn.Module) -> None:
    """Makes the adapted weights plain ones; the network is then as one that never had LoRA."""
    for module in list(_adapted(network)):
        with torch.no_grad():
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)


def _adapted(network: nn.Module) -> Iterator[nn.Module]:
    for module in network.modules():
        if parametrize.is_parametrized(module, "weight"):
            yield module
