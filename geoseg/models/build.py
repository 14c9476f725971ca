"""Networks by name: `create_model(spec)`."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from difflib import get_close_matches
from itertools import pairwise
from typing import Any

import segmentation_models_pytorch as smp
from torch import nn

from geoseg.errors import InputError
from geoseg.models.backbones import encoder_name, weights_option
from geoseg.models.spec import ModelSpec

FIXED = {"encoder_name", "encoder_weights", "in_channels", "classes", "activation", "aux_params", "kwargs", "self"}


def create_model(spec: ModelSpec, *, weights: str | None = None) -> nn.Module:
    """A network from `(n, band, row, col)` float32, sides multiples of 32, to logits `(n, class, row, col)`.

    Args:
        spec: What to build.
        weights: Pretrained weights for the encoder, by the name smp gives them; any word takes timm's own. They are
            downloaded, or taken from the cache. None starts from random weights.

    Raises:
        InputError: A name or an option is unknown, an option does not fit, or the weights cannot be had.
    """
    build = DECODERS.get(spec.decoder)
    if build is None:
        near = get_close_matches(spec.decoder, DECODERS, n=len(DECODERS), cutoff=0.4)
        names = [*near, *(name for name in DECODERS if name not in near)]
        raise InputError(f"decoder '{spec.decoder}' is unknown; known are {', '.join(names)}")
    return build(spec, weights)


def _smp_builder(architecture: type[nn.Module]) -> Callable[[ModelSpec, str | None], nn.Module]:
    """A function that builds one of smp's networks, with `dropout` before its last layer."""
    known = [*sorted(set(inspect.signature(architecture).parameters) - FIXED), "dropout"]

    def build(spec: ModelSpec, weights: str | None) -> nn.Module:
        stray = sorted(set(spec.options) - set(known))
        if stray:
            raise InputError(f"{spec.decoder} has no option {', '.join(stray)}; it has {', '.join(known)}")
        options = {name: value for name, value in spec.options.items() if name != "dropout"}
        name = encoder_name(spec.encoder)
        network = _assemble(architecture, spec, options, name, weights)
        dropout = float(spec.options.get("dropout", 0.0))
        if dropout:
            head = network.get_submodule("segmentation_head")
            network.segmentation_head = nn.Sequential(nn.Dropout2d(dropout), head)
        return network

    return build


def _assemble(
    architecture: type[nn.Module], spec: ModelSpec, options: dict[str, Any], name: str, weights: str | None
) -> nn.Module:
    given = weights_option(name, weights)
    try:
        with warnings.catch_warnings():
            # smp warns that timm's weights are chosen by the model's name, which is what is meant here.
            warnings.filterwarnings("ignore", message=".*timm universal.*")
            return architecture(
                encoder_name=name, encoder_weights=given, in_channels=spec.bands, classes=spec.classes, **options
            )
    except OSError as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"the weights '{weights}' of {spec.encoder} cannot be had ({reason[:160]}); "
            "download them once on a machine with network, or leave model.weights out"
        ) from error
    except (ValueError, TypeError, KeyError, RuntimeError, AssertionError, IndexError) as error:
        # Foreign constructors refuse what does not fit in many ways; each is an option the user gave.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{spec.decoder} on {spec.encoder} with {options} cannot be built: {reason[:200]}") from error


def _pixel(spec: ModelSpec, weights: str | None) -> nn.Module:
    """A classifier of single pixels: 1 x 1 convolutions; the baseline that sees no context."""
    stray = sorted(set(spec.options) - {"hidden"})
    if stray or weights is not None:
        raise InputError(f"pixel has no option {', '.join(stray) or 'weights'}; it has hidden")
    widths = [spec.bands, *(int(width) for width in spec.options.get("hidden", (64, 64)))]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], spec.classes, 1))


DECODERS: dict[str, Callable[[ModelSpec, str | None], nn.Module]] = {
    "unet": _smp_builder(smp.Unet),
    "unetplusplus": _smp_builder(smp.UnetPlusPlus),
    "manet": _smp_builder(smp.MAnet),
    "linknet": _smp_builder(smp.Linknet),
    "fpn": _smp_builder(smp.FPN),
    "pspnet": _smp_builder(smp.PSPNet),
    "pan": _smp_builder(smp.PAN),
    "deeplabv3": _smp_builder(smp.DeepLabV3),
    "deeplabv3plus": _smp_builder(smp.DeepLabV3Plus),
    "upernet": _smp_builder(smp.UPerNet),
    "segformer": _smp_builder(smp.Segformer),
    "pixel": _pixel,
}
