"""Backbones by name: encoders of segmentation-models-pytorch and timm, Swin of torchvision, and foundation models.

Any of them takes any number of bands. Those without a pyramid of features get one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from typing import Any

import segmentation_models_pytorch as smp
import timm

from geoseg.errors import InputError
from geoseg.models.networks.foundation import CopernicusFM, Croma, Dofa, Panopticon, ScaleMae
from geoseg.models.networks.pyramid import Pyramid, Trunk
from geoseg.models.networks.timm_facts import has_pyramid
from geoseg.models.networks.trunks import SWINS, Swin, timm_trunk
from geoseg.models.spec import ModelSpec
from geoseg.models.wavelengths import unknown_bands

TIMM_PREFIX = "tu-"  # how smp calls timm's encoders


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnTrunk:
    """A backbone that neither smp nor timm has.

    Attributes:
        make: From `options`, and `bands` or `wavelengths_um`, to the trunk.
        by_wavelength: Whether it is built from wavelengths, and so takes bands of any sensor.
        options: What its published weights were made with.
    """

    make: Callable[..., Trunk]
    by_wavelength: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


def _vit(width: int, depth: int, heads: int, **more: Any) -> dict[str, Any]:
    return {"embed_dim": width, "depth": depth, "num_heads": heads, **more}


OWN_TRUNKS: dict[str, OwnTrunk] = {
    "dofa_small_patch16_224": OwnTrunk(make=Dofa, by_wavelength=True, options=_vit(384, 12, 6, patch_size=16)),
    "dofa_base_patch16_224": OwnTrunk(make=Dofa, by_wavelength=True, options=_vit(768, 12, 12, patch_size=16)),
    "dofa_large_patch16_224": OwnTrunk(make=Dofa, by_wavelength=True, options=_vit(1024, 24, 16, patch_size=16)),
    "dofa_huge_patch14_224": OwnTrunk(make=Dofa, by_wavelength=True, options=_vit(1280, 32, 16, patch_size=14)),
    "copernicusfm_base": OwnTrunk(make=CopernicusFM, by_wavelength=True, options=_vit(768, 12, 12)),
    "panopticon_vitb14": OwnTrunk(make=Panopticon, by_wavelength=True),
    "scalemae_large_patch16": OwnTrunk(make=ScaleMae, options=_vit(1024, 24, 16, patch_size=16)),
    "croma_base": OwnTrunk(make=Croma, options={"encoder_dim": 768, "encoder_depth": 12}),
    "croma_large": OwnTrunk(make=Croma, options={"encoder_dim": 1024, "encoder_depth": 24}),
    **{name: OwnTrunk(make=partial(Swin, name)) for name in SWINS},
}
"""Backbones by the names that torchgeo gives them, with those of its weights."""


def encoder_name(name: str) -> str:
    """The name under which the encoder `name` is built: one of ours, then an smp encoder, then a timm model.

    Raises:
        InputError: None of them knows it; the message gives the nearest names.

    >>> encoder_name("resnet18"), encoder_name("convnext_tiny"), encoder_name("swin_v2_b")
    ('resnet18', 'tu-convnext_tiny', 'swin_v2_b')
    """
    if name in OWN_TRUNKS or name in smp_encoders():
        return name
    bare = name.removeprefix(TIMM_PREFIX)
    if timm.is_model(bare):
        return TIMM_PREFIX + bare
    names = sorted({*OWN_TRUNKS, *smp_encoders(), *timm.list_models()})
    near = get_close_matches(bare.lower(), names, n=5, cutoff=0.5) or ["resnet18", "mobilenet_v2", "convnext_tiny"]
    raise InputError(
        f"encoder '{name}' is unknown; near it are {', '.join(near)}; known are the encoders of "
        "segmentation-models-pytorch, the models of timm, and torchgeo's DOFA, CROMA, Panopticon, Copernicus-FM, "
        "Scale-MAE and Swin"
    )


def smp_encoders() -> tuple[str, ...]:
    """Names of smp's own encoders, without those it calls deprecated."""
    return tuple(sorted(name for name in smp.encoders.encoders if not name.startswith(("timm-", "geoseg-"))))


def weights_option(name: str, weights: str | None) -> str | bool | None:
    """What smp takes as `encoder_weights` for the encoder `name`: a tag, or True for a timm model.

    Raises:
        InputError: The encoder has no weights of that name.
    """
    if weights is None or name.startswith(TIMM_PREFIX):
        return None if weights is None else True
    known = sorted(smp.encoders.encoders[name]["pretrained_settings"]) if name not in OWN_TRUNKS else []
    if weights not in known:
        listed = f"it has {', '.join(known)}" if known else "it has none by a tag"
        raise InputError(
            f"encoder '{name}' has no weights '{weights}'; {listed}; a file (.pth, .safetensors) or torchgeo's, "
            "such as ResNet18_Weights.SENTINEL2_ALL_MOCO, would do too"
        )
    return weights


def own_trunk(spec: ModelSpec, *, pretrained: bool = False) -> Trunk | None:
    """The trunk of an encoder that smp does not build, None for those that it does.

    Raises:
        InputError: A wavelength is missing that the backbone needs, or torchgeo is.
        ValueError: The options do not fit, or the backbone's features are of no use.
    """
    name, options = encoder_name(spec.encoder), dict(spec.options.get("encoder_options") or {})
    own = OWN_TRUNKS.get(name)
    if own is not None:
        given = {**own.options, **options}
        if not own.by_wavelength:
            return own.make(bands=spec.bands, options=given)
        check_wavelengths(spec)
        return own.make(wavelengths_um=spec.wavelengths_um, options=given)
    bare = name.removeprefix(TIMM_PREFIX)
    if bare == name or has_pyramid(bare, depth=spec.options.get("encoder_depth")):
        return None
    return timm_trunk(bare, bands=spec.bands, pretrained=pretrained, options=options)


def check_wavelengths(spec: ModelSpec, names: tuple[str, ...] | None = None) -> None:
    """Nothing, where all wavelengths that the encoder needs are known.

    Args:
        spec: What is to be built.
        names: Of the bands, for the message.

    Raises:
        InputError: One is not.
    """
    own = OWN_TRUNKS.get(spec.encoder)
    unknown = unknown_bands(spec.wavelengths_um, names, bands=spec.bands)
    if own is not None and own.by_wavelength and unknown:
        first = unknown.split(", ")[0]
        raise InputError(
            f"{spec.encoder} is built from the wavelengths of its bands, and those of {unknown} are unknown; say them "
            f"in micrometres, e.g. model.wavelengths_um: {{{first}: 0.665}}, or model.sensor for numbered bands"
        )


@contextmanager
def known_to_smp(trunk: Trunk, *, bands: int) -> Iterator[str]:
    """The name under which smp's decoders find a trunk as their encoder, for as long as the block runs."""
    name = f"geoseg-{id(trunk)}"

    def make(*, depth: int, output_stride: int) -> Pyramid:
        return Pyramid(trunk, bands=bands, depth=depth, output_stride=output_stride)

    smp.encoders.encoders[name] = {"encoder": make, "params": {}, "pretrained_settings": {}}
    try:
        yield name
    finally:
        del smp.encoders.encoders[name]
