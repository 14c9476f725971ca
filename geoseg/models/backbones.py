"""Encoders by name: those of segmentation-models-pytorch and of timm, for any number of bands."""

from __future__ import annotations

from difflib import get_close_matches

import segmentation_models_pytorch as smp
import timm

from geoseg.errors import InputError

TIMM_PREFIX = "tu-"  # how smp calls timm's encoders


def encoder_name(name: str) -> str:
    """The name under which smp builds the encoder `name`: an smp encoder first, then a timm model.

    Raises:
        InputError: Neither knows it; the message gives the nearest names.

    >>> encoder_name("resnet18"), encoder_name("convnext_tiny")
    ('resnet18', 'tu-convnext_tiny')
    """
    if name in smp_encoders():
        return name
    bare = name.removeprefix(TIMM_PREFIX)
    if timm.is_model(bare):
        return TIMM_PREFIX + bare
    names = sorted({*smp_encoders(), *timm.list_models()})
    near = get_close_matches(bare, names, n=5, cutoff=0.5) or ["resnet18", "mobilenet_v2", "convnext_tiny"]
    raise InputError(
        f"encoder '{name}' is unknown; near it are {', '.join(near)}; "
        "known are the encoders of segmentation-models-pytorch and the models of timm"
    )


def smp_encoders() -> tuple[str, ...]:
    """Names of smp's own encoders, without those it calls deprecated."""
    return tuple(sorted(name for name in smp.encoders.encoders if not name.startswith("timm-")))


def weights_option(name: str, weights: str | None) -> str | bool | None:
    """What smp takes as `encoder_weights` for the encoder `name`: a tag, or True for a timm model.

    Raises:
        InputError: An smp encoder has no weights of that name.
    """
    if weights is None or name.startswith(TIMM_PREFIX):
        return None if weights is None else True
    known = sorted(smp.encoders.encoders[name]["pretrained_settings"])
    if weights not in known:
        raise InputError(f"encoder '{name}' has no weights '{weights}'; it has {', '.join(known)}")
    return weights
