"""A network whose weights FSDP has cut in shards: what it needs of all processes at once."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import FSDPStrategy
from torch import distributed, nn


def is_sharded(trainer: Trainer) -> bool:
    """Whether no process has the whole weights."""
    return isinstance(trainer.strategy, FSDPStrategy)


def clip_shards(trainer: Trainer, norm: float) -> None:
    """Scales gradients down to a norm that the sharded network alone knows."""
    network: Any = trainer.strategy.model
    network.clip_grad_norm_(norm)


def share_buffers(network: nn.Module) -> None:
    """Gives all processes the first one's statistics of batch norms, as DDP does and FSDP does not."""
    for buffer in network.buffers():
        distributed.broadcast(buffer, 0)


def blank_of(planes: torch.Tensor) -> torch.Tensor:
    """A batch of one of zeros, like those of `(n, ...)`: who has more to run fetches weights from all processes."""
    return planes.new_zeros(1, *planes.shape[1:])
