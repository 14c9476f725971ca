"""Schedules of the learning rate, and groups of parameters with rates of their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

Schedule = Callable[[float, float], float]
"""From the progress of the run and the share of it that warms up, both 0 to 1, to a factor of the learning rate."""


def one_cycle(progress: float, warmup: float) -> float:
    """Half a cosine up from 1/25, half a cosine down to 0 (Smith and Topin 2019)."""
    if progress < warmup:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * progress / warmup)) / 2
    return _cosine((progress - warmup) / (1 - warmup))


def _cosine(progress: float) -> float:
    return (1 + math.cos(math.pi * min(progress, 1.0))) / 2


def _warm(shape: Callable[[float], float]) -> Schedule:
    """A schedule that rises in a straight line during the warm-up, and follows `shape` from then on."""

    def factor(progress: float, warmup: float) -> float:
        if progress < warmup:
            return max(progress / warmup, 0.01)
        return shape(min((progress - warmup) / (1 - warmup), 1.0))

    return factor


SCHEDULES: dict[str, Schedule] = {
    "onecycle": one_cycle,
    "cosine": _warm(_cosine),
    "poly": _warm(lambda progress: (1 - progress) ** 0.9),
    "constant": _warm(lambda progress: 1.0),  # noqa: ARG005 - the shape of all schedules
}


def then_constant(schedule: Schedule, *, start: float, level: float) -> Schedule:
    """A schedule up to `start`, and the constant factor `level` from there on.

    A mean of weights gains from steps that stay large (Izmailov et al. 2018, Averaging Weights Leads to Wider Optima).
    """
    return lambda progress, warmup: schedule(progress, warmup) if progress < start else level


def by_step(schedule: Schedule, *, steps: float, warmup: float) -> Callable[[int], float]:
    """Factor of the learning rate at each step of a run of so many; 1 where its length is not known."""
    return lambda step: schedule(step / steps, warmup) if math.isfinite(steps) else 1.0


def layer_rates(layers: Mapping[str, int], *, count: int, decay: float) -> dict[str, float]:
    """Factor of the learning rate of each parameter of an encoder of `count` layers: `decay ** (count - layer)`.

    The first layer learns slowest; what stands after the encoder has the factor 1 (Bao, Dong, Piao and Wei 2022, BEiT,
    appendix; there a transformer's patch embedding is layer 0 and its blocks are layers 1 on).
    """
    return {name: decay ** (count - layer) for name, layer in layers.items()}


def parameter_groups(
    parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    lr: float,
    weight_decay: float,
    rates: Mapping[str, float],
    decays: Mapping[str, bool],
) -> list[dict[str, Any]]:
    """Groups for an optimiser: one for each learning rate, with and without weight decay.

    Args:
        parameters: With their names.
        lr: Highest learning rate.
        weight_decay: Of those that decay.
        rates: Factor of `lr` by name; 1 where a name is missing.
        decays: Whether a parameter decays, by name: those with more than one dimension do, biases and norms do not.
    """
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    for name, parameter in parameters:
        rate, does = rates.get(name, 1.0), decays[name]
        fresh = {"params": [], "lr": lr * rate, "weight_decay": weight_decay if does else 0.0}
        groups.setdefault((-rate, not does), fresh)["params"].append(parameter)
    return [groups[key] for key in sorted(groups)]


def clip_where_larger(optimizer: Optimizer, largest: float) -> None:
    """Scales all gradients down to a norm of `largest` where theirs is larger, and leaves them alone elsewhere.

    torch's own `clip_grad_norm_` multiplies by one there, to ask no GPU for a number; on a CPU that is another pass
    over the memory of all gradients.
    """
    parameters = [each for group in optimizer.param_groups for each in group["params"] if each.grad is not None]
    norm = get_total_norm(each.grad for each in parameters)
    if not norm <= largest:  # of NaN too, which is told of elsewhere
        clip_grads_with_norm_(parameters, largest, norm)
