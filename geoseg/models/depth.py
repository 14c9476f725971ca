"""How deep each weight of an encoder lies, and where its attention is, found without knowing its names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from geoseg.errors import InputError

INTO_ATTENTION = frozenset(
    ("qkv", "q", "k", "v", "kv", "to_qkv", "q_proj", "k_proj", "v_proj", "query", "key", "value")
)
"""Names of the linear layers that make queries, keys and values, in timm, torchvision, smp and torchgeo."""

OUT_OF_ATTENTION = frozenset(("proj", "to_out", "out_proj"))
"""Names of the linear layers after attention."""

PROBE_PX = 64


def backbone(network: nn.Module, *, needed_by: str) -> tuple[str, nn.Module]:
    """The part of a network that pretrained weights fill, without the pyramid made of it; and its name in the network.

    Raises:
        InputError: The network has no encoder.
    """
    encoder = getattr(network, "encoder", None)
    if not isinstance(encoder, nn.Module):
        raise InputError(f"{needed_by} needs a network with an encoder, such as a unet; pixel has none")
    trunk = getattr(encoder, "trunk", None)
    return ("encoder.trunk", trunk) if isinstance(trunk, nn.Module) else ("encoder", encoder)


def attentions(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Attention modules by name: those with a linear layer that makes queries, keys or values."""
    return [
        (name, inner)
        for name, inner in module.named_modules()
        if any(key in INTO_ATTENTION and isinstance(child, nn.Linear) for key, child in inner.named_children())
    ]


def encoder_layers(network: nn.Module, *, bands: int) -> tuple[dict[str, int], int]:
    """The layer of each parameter of a network's encoder, from 0 on, and the number of layers.

    The layers of a network with attention are its blocks, and what comes before them is layer 0; those of others are
    the stages between the feature maps that the decoder takes. What lies between two blocks belongs to the one before.

    Args:
        network: Any of `create_model`; it is run once on an empty image.
        bands: Of its input.

    Raises:
        InputError: The network has no encoder.
    """
    prefix, inner = backbone(network, needed_by="layer_decay")
    modes = [(module, module.training) for module in inner.modules()]
    inner.eval()
    try:
        image = torch.zeros(1, bands, _side(inner), _side(inner))
        blocks = list(dict.fromkeys(name.rpartition(".")[0] for name, _ in attentions(inner)))
        layers, count = _by_block(inner, image, blocks) if blocks else _by_stage(inner, image)
    finally:
        for module, mode in modes:
            module.training = mode
    return {f"{prefix}.{name}": layer for name, layer in layers.items()}, count


def _side(module: nn.Module) -> int:
    """Rows and columns of an image that goes through: some transformers take images of one size only."""
    sizes = (getattr(inner, "img_size", None) for inner in module.modules())
    return max([PROBE_PX, *(int(size[0]) for size in sizes if isinstance(size, tuple | list) and len(size) == 2)])


def _by_block(module: nn.Module, image: Tensor, blocks: Sequence[str]) -> tuple[dict[str, int], int]:
    places: dict[str, int] = {}
    reached = 0
    for name in _executed(module, image):
        inside = _block_of(name, blocks)
        reached = reached if inside is None else max(reached, inside)
        places.setdefault(name, reached if inside is None else inside)
    layers = {}
    for name, _ in module.named_parameters():
        owner, inside = name.rpartition(".")[0], _block_of(name, blocks)
        layers[name] = places.get(owner, 0) if inside is None else inside
    return layers, 1 + len(blocks)


def _block_of(name: str, blocks: Sequence[str]) -> int | None:
    """The layer of the block that a name lies in."""
    return next((1 + place for place, block in enumerate(blocks) if f"{name}.".startswith(f"{block}.")), None)


def _executed(module: nn.Module, image: Tensor) -> list[str]:
    """Names of the modules in the order in which they are called."""
    order: list[str] = []
    handles = [
        inner.register_forward_pre_hook(lambda _module, _args, name=name: order.append(name))
        for name, inner in module.named_modules()
    ]
    try:
        with torch.no_grad():
            module(image)
    finally:
        for handle in handles:
            handle.remove()
    return order


def _by_stage(module: nn.Module, image: Tensor) -> tuple[dict[str, int], int]:
    """The first feature map that depends on a parameter is its stage; those that none depends on are of the last."""
    named = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    with torch.enable_grad():
        maps = [found for found in module(image) if found.requires_grad]
    layers: dict[str, int] = {}
    for stage, found in enumerate(maps):
        rest = [name for name in named if name not in layers]
        if not rest:
            break
        slopes = torch.autograd.grad(found.sum(), [named[name] for name in rest], retain_graph=True, allow_unused=True)
        layers |= {name: stage for name, slope in zip(rest, slopes, strict=True) if slope is not None}
    return {name: layers.get(name, len(maps) - 1) for name, _ in module.named_parameters()}, len(maps)
