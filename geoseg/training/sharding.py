"""Backbones too large for one device, cut in shards by FSDP: each process keeps a part of every weight."""

from __future__ import annotations

import torch
from lightning.pytorch.strategies import FSDPStrategy
from torch import nn
from torch.distributed.fsdp import MixedPrecision
from torch.nn.utils.parametrize import ParametrizationList

BLOCK_WEIGHTS = 1_000_000
"""Smaller blocks are put together: fetching a little at a time costs more than it spares."""

LISTS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def shard_by_blocks(strategy: FSDPStrategy, network: nn.Module, *, least: int = BLOCK_WEIGHTS) -> None:
    """Has the strategy fetch the weights of a block when it is run, and let go of them: no device holds all at once.

    Without it FSDP fetches those of the whole network. A policy that the configuration gives is left as it is. Weights
    are laid out row by row, for FSDP gives the optimizer's state back in that order whatever theirs is.

    Args:
        strategy: Before it is set up.
        network: What it will cut.
        least: Weights of a block; smaller ones are fetched with what they lie in.
    """
    network.to(memory_format=torch.contiguous_format)
    blocks = frozenset(_blocks(network))

    def wanted(module: nn.Module, recurse: bool, nonwrapped_numel: int) -> bool:  # noqa: FBT001 - FSDP's signature
        return recurse or (module in blocks and nonwrapped_numel >= least)

    strategy.kwargs.setdefault("auto_wrap_policy", wanted)
    if strategy.mixed_precision is None:  # Lightning's would set each batch norm apart, as if it were in fp32 alone
        strategy.mixed_precision = MixedPrecision(_module_classes_to_ignore=())


def _blocks(network: nn.Module) -> list[nn.Module]:
    """What stands in a list, and is run as one: a list itself may be counted or cut by the network that has it."""
    return [
        child
        for module in network.modules()
        if isinstance(module, LISTS) and not isinstance(module, ParametrizationList)
        for child in module.children()
        if not isinstance(child, LISTS)
    ]
