"""Networks by name: `create_model(spec)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from itertools import pairwise

from torch import nn

from geoseg import models
from geoseg.errors import InputError
from geoseg.models.memory import without_memory
from geoseg.models.networks.forest import Forest
from geoseg.models.spec import ModelSpec


def create_model(spec: ModelSpec, *, weights: str | None = None, band_names: Sequence[str] | None = None) -> nn.Module:
    """A network from `(n, band, row, col)` float32, of any rows and columns, to logits `(n, class, row, col)`.

    Without weights nothing is read or downloaded: the same spec gives the same network.

    Args:
        spec: What to build.
        weights: Pretrained weights for the encoder: a file (.pth, .safetensors); torchgeo's by their name, such as
            ResNet18_Weights.SENTINEL2_ALL_MOCO; or by the name smp gives them, where any word takes timm's own. They
            are downloaded, or taken from the cache. None starts from random weights. The first layer is adapted to the
            bands by their names and wavelengths.
        band_names: Of the bands, to find those that the weights were made for.

    Raises:
        InputError: A name or an option is unknown, an option does not fit, the weights cannot be had or are those of
            another architecture, or a wavelength is missing that the encoder needs.
        MissingInputError: The file of weights is not there.
    """
    if spec.decoder not in DECODERS:
        near = get_close_matches(spec.decoder, DECODERS, n=len(DECODERS), cutoff=0.4)
        listed = [*near, *(name for name in DECODERS if name not in near)]
        raise InputError(f"decoder '{spec.decoder}' is unknown; known are {', '.join(listed)}")
    names = tuple(band_names) if band_names is not None else None
    if names is not None and len(names) != spec.bands:
        raise InputError(f"{len(names)} band names for a network of {spec.bands} bands")
    if spec.decoder in ENCODED:
        return models.encoded.create_encoded(spec, weights=weights, names=names)
    if weights is not None:
        raise InputError(f"{spec.decoder} has no encoder, and so takes no weights; leave model.weights out")
    return PLAIN[spec.decoder](spec)


def on_nothing(spec: ModelSpec) -> nn.Module:
    """The network for the shapes of its weights: without memory, where its constructor looks at no values.

    Raises:
        InputError: As of `create_model`.
    """
    return without_memory(lambda: create_model(spec))


def _pixel(spec: ModelSpec) -> nn.Module:
    """A classifier of single pixels: 1 x 1 convolutions; the baseline that sees no context."""
    stray = sorted(set(spec.options) - {"hidden"})
    if stray:
        raise InputError(f"pixel has no option {', '.join(stray)}; it has hidden")
    hidden = spec.options.get("hidden", (64, 64))
    if not isinstance(hidden, list | tuple) or not all(type(width) is int and width > 0 for width in hidden):
        raise InputError(f"hidden is {hidden!r}: needed is a list of widths of layers, such as [64, 64]")
    widths = [spec.bands, *hidden]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], spec.classes, 1))


ENCODED = (
    "unet", "unetplusplus", "manet", "linknet", "fpn", "pspnet", "pan", "deeplabv3", "deeplabv3plus", "upernet",
    "segformer", "dpt", "fcn",
)  # fmt: skip
"""Decoders on an encoder. Their libraries take two seconds to load, and are loaded when one is built."""

PLAIN: dict[str, Callable[[ModelSpec], nn.Module]] = {"pixel": _pixel, "pixel_mlp": _pixel, "random_forest": Forest}
"""Networks without an encoder."""

DECODERS = (*ENCODED, *PLAIN)
"""What `ModelSpec.decoder` may be."""
