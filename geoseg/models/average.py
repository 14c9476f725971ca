"""Averaged weights: a running mean over all steps (EMA), and a plain mean over the last ones (SWA)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from geoseg.errors import InputError


@dataclass(frozen=True, kw_only=True)  # no slots: jsonargparse reads the defaults from __dict__
class SwaOptions:
    """The mean of the weights over the last part of a run.

    Source: Izmailov et al. 2018, Averaging Weights Leads to Wider Optima and Better Generalization.

    Attributes:
        start: Share of the run after which the mean begins.
        lr: Learning rate from then on; without, it goes on by the schedule.
    """

    start: float = 0.75
    lr: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.start < 1:
            raise InputError(f"swa.start is {self.start}: needed is a share of the run from 0 to below 1")
        if self.lr is not None and not self.lr > 0:
            raise InputError(f"swa.lr is {self.lr}: needed is a number above 0, or none to follow the schedule")


def move_average(average: nn.Module, network: nn.Module, *, decay: float) -> None:
    """Moves the averaged weights and statistics: `decay` of the old, the rest of the new; integers are copied."""
    pairs = list(zip(average.state_dict().values(), network.state_dict().values(), strict=True))
    apart = {(old.data_ptr(), old.shape): (old, new.detach()) for old, new in pairs if old.is_floating_point()}
    floats = list(apart.values())  # weights that are shared move once
    torch._foreach_lerp_([old for old, _ in floats], [new for _, new in floats], 1 - decay)
    for old, new in pairs:
        if not old.is_floating_point():
            old.copy_(new)


def reestimate_norms(
    network: nn.Module,
    batches: Iterable[Any],
    run: Callable[[Any], Any],
    *,
    reduce: Callable[[Tensor], Tensor] | None = None,
    kept: Callable[[str], bool] = lambda _: False,
) -> int:
    """Measures the means and variances of batch norms anew, each batch counting the same; gives their number.

    The mean of several weights has other activations than any of them, so that their running statistics do not fit it.

    Args:
        network: In evaluation mode; only its batch norms change mode, and are put back.
        batches: What `run` takes.
        run: Runs the network on a batch.
        reduce: The mean of a tensor over all processes, where there are several.
        kept: By name, whether a batch norm is left as it is.
    """
    named = [(name, module) for name, module in network.named_modules() if isinstance(module, _BatchNorm)]
    norms = [module for name, module in named if module.running_mean is not None and not kept(name)]
    if not norms:
        return 0
    before = [module.momentum for module in norms]
    for module in norms:
        module.reset_running_stats()
        module.momentum = None  # the plain mean over all batches
        module.train()
    try:
        with torch.no_grad():
            for batch in batches:
                run(batch)
    finally:
        for module, momentum in zip(norms, before, strict=True):
            module.momentum = momentum
            module.eval()
    for module in norms if reduce is not None else ():
        _merge(module, reduce)
    return len(norms)


def _merge(norm: _BatchNorm, reduce: Callable[[Tensor], Tensor] | None) -> None:
    """One mean and variance of those of all processes, by the law of total variance."""
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None or reduce is None:
        return
    square = reduce(variance + mean.square())
    mean.copy_(reduce(mean.clone()))
    variance.copy_(square - mean.square())


def still_copy(network: nn.Module) -> nn.Module:
    """A copy that does not learn."""
    return copy.deepcopy(network).requires_grad_(requires_grad=False)
