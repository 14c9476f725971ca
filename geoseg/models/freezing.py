"""Parts of a network that do not learn, for ever or for the first epochs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches

import torch
from torch import nn

from geoseg.errors import InputError

FOREVER = "all"
PROBE_PX = 64


def check_freeze(freeze: Mapping[str, int | str]) -> None:
    """Nothing, where each part is frozen for a number of epochs, or for all.

    Raises:
        InputError: One is not.
    """
    for name, until in freeze.items():
        if until != FOREVER and (isinstance(until, bool) or not isinstance(until, int) or until < 0):
            raise InputError(f"freeze.{name} is {until!r}: needed is a number of epochs, or all for the whole run")


def frozen_parts(network: nn.Module, freeze: Mapping[str, int | str]) -> list[tuple[str, nn.Module, int | str]]:
    """The parts that `freeze` names, with the epochs for which they stay; the larger parts come first.

    So of `{encoder: all, encoder.layer4: 3}` the second says what becomes of the fourth stage.

    Raises:
        InputError: The network has no such part.
    """
    known = [name for name, _ in network.named_modules() if name]
    for name in freeze:
        if name not in known:
            near = get_close_matches(name, known, n=4, cutoff=0.5) or [name for name, _ in network.named_children()]
            raise InputError(f"freeze names '{name}', which the network does not have; it has {', '.join(near)}, ...")
    return [
        (name, network.get_submodule(name), freeze[name]) for name in sorted(freeze, key=lambda key: key.count("."))
    ]


def is_frozen(until: int | str, *, epoch: int) -> bool:
    """Whether a part is frozen in an epoch, which are counted from 0."""
    return until == FOREVER or (isinstance(until, int) and epoch < until)


def freeze_parts(
    network: nn.Module, freeze: Mapping[str, int | str], *, epoch: int, trainable: Collection[str]
) -> None:
    """Makes the parameters of each part learn or not, as the epoch wants it.

    A frozen part is in evaluation mode: its batch norms keep their statistics, and its dropout is off.

    Args:
        network: What is trained.
        freeze: Epochs by part.
        epoch: The epoch that begins, from 0.
        trainable: Names of the parameters that learn where nothing is frozen.

    Raises:
        InputError: The network has no such part.
    """
    for name, part, until in frozen_parts(network, freeze):
        frozen = is_frozen(until, epoch=epoch)
        part.train(not frozen)
        for own, parameter in part.named_parameters():
            parameter.requires_grad = not frozen and f"{name}.{own}" in trainable


def idle_parameters(network: nn.Module, *, bands: int) -> frozenset[str]:
    """Names of the parameters that no output depends on, such as the last stages of an encoder cut short.

    Args:
        network: Of `create_model`; it is run once on an empty image, and is afterwards as it was.
        bands: Of its input.
    """
    modes = [(module, module.training) for module in network.modules()]
    named = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    try:
        with torch.enable_grad():
            logits = network.eval().forward(torch.zeros(1, bands, PROBE_PX, PROBE_PX))
            found = torch.autograd.grad(logits.sum(), list(named.values()), allow_unused=True)
    finally:
        for module, mode in modes:
            module.training = mode
    return frozenset(name for name, gradient in zip(named, found, strict=True) if gradient is None)


def ever_learns(name: str, freeze: Mapping[str, int | str]) -> bool:
    """Whether the parameter or module of this name learns at some time, by what is said of the smallest part it is in.

    >>> ever_learns("encoder.layer1.weight", {"encoder": "all", "encoder.layer1": 2})
    True
    """
    parts = [part for part in freeze if f"{name}.".startswith(f"{part}.")]
    return not parts or freeze[max(parts, key=len)] != FOREVER
