"""Pretrained weights into a network's encoder: names matched, the first layer adapted, positions resized."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from geoseg.errors import InputError
from geoseg.models.pretrained.catalog import is_radar
from geoseg.models.pretrained.first_layer import adapt_encoder, band_mixing
from geoseg.models.pretrained.layouts import in_timms_names
from geoseg.models.pretrained.sources import USUAL, Pretrained, tensors_in
from geoseg.models.spec import ModelSpec
from geoseg.models.wavelengths import band_wavelengths

logger = logging.getLogger(__name__)

POSITIONS = "pos_embed"

WRAPPERS = (
    "", "module.", "model.", "backbone.", "encoder.", "encoder.model.", "encoder.trunk.", "encoder.trunk.model.",
    "model.backbone.", "model.encoder.", "network.encoder.", "image_encoder.",
)  # fmt: skip
"""What may stand before the encoder's names in a file."""

HEADS = re.compile(
    r"(^|\.)(head|heads|fc|fc_norm|norm|norm_out|classifier|last_linear|mask_token|decoder\w*|projector|predictor|"
    r"conv_head|bn2|final_norm|patch_embed_variable|\w*GAP_FFN|num_batches_tracked|head_drop|cls_head)(\.|$)"
)
"""What a file may hold that an encoder has no use for."""


def load_weights(
    network: nn.Module,
    found: Pretrained,
    *,
    spec: ModelSpec,
    names: Sequence[str] | None,
    wider: Callable[[], nn.Module],
    whole: Callable[[], nn.Module],
) -> None:
    """Loads pretrained weights into the encoder of a network.

    Args:
        network: It has an `encoder`.
        found: The weights.
        spec: What the network was built of; its wavelengths tell which bands are neighbours.
        names: Of the network's bands.
        wider: Gives the network with one band more; its layers of other shapes are those that see the bands.
        whole: Gives a network with all stages of the encoder, which a file may hold where the network has fewer.

    Raises:
        InputError: The weights are those of another architecture.
    """
    core = core_of(network)
    expected = core.state_dict()
    tensors = in_timms_names(tensors_in(found.state, part=_part(spec, names)), expected)
    matched = _matched(tensors, expected, found.own_names)
    first = {
        name for name, tensor in core_of(wider()).state_dict().items()
        if name in expected and tensor.shape != expected[name].shape
    }  # fmt: skip
    ready = {}
    for name, tensor in matched.items():
        wanted = expected[name]
        if name in first:
            tensor = _adapted(tensor, wanted, found, spec, names)  # noqa: PLW2901 - the same tensor, fitted
        elif name.endswith("pos_embed") and tensor.shape != wanted.shape:
            tensor = _resized(tensor, wanted)  # noqa: PLW2901
        ready[name] = tensor
    _check(ready, tensors, expected, found=found, spec=spec)
    if not found.own_names:
        _check_stray(tensors, matched, expected, whole, said=f"{found.where} is no weights of {spec.encoder}")
    core.load_state_dict({**expected, **ready})


def core_of(network: nn.Module) -> nn.Module:
    """The part of a network whose weights have the names that they are published under."""
    encoder = network.get_submodule("encoder")
    trunk = getattr(encoder, "trunk", None)
    if trunk is not None:
        core: nn.Module = trunk.core
        return core
    inner = getattr(encoder, "model", None)  # of smp's encoders, those of timm
    return inner if isinstance(inner, nn.Module) else encoder


def _part(spec: ModelSpec, names: Sequence[str] | None) -> str | None:
    """Which part of a file CROMA's encoder is."""
    if not spec.encoder.startswith("croma"):
        return None
    return "s1_encoder" if is_radar(names) else "s2_encoder"


def _plain(name: str) -> str:
    """A name in one spelling: timm writes `stages_0` and `stages.0` for one thing."""
    return name.replace("_", ".")


def _may_lack(name: str) -> bool:
    """Whether a file may be without this tensor of an encoder: a head of its own, not a part of a layer's name."""
    return HEADS.match(name) is not None or name.endswith("num_batches_tracked")


def _matched(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], own_names: bool) -> dict[str, Tensor]:  # noqa: FBT001
    """The file's tensors under the encoder's names, by the wrapper that fits most of them."""
    own = {_plain(name): name for name in expected}
    best: dict[str, Tensor] = {}
    for wrapper in ("",) if own_names else WRAPPERS:
        inside = {_plain(name[len(wrapper) :]): value for name, value in tensors.items() if name.startswith(wrapper)}
        fitting = {own[name]: value for name, value in inside.items() if name in own}
        if own_names and not fitting:
            continue
        if len(fitting) > len(best):
            best = fitting
    return best


def _adapted(tensor: Tensor, wanted: Tensor, found: Pretrained, spec: ModelSpec, names: Sequence[str] | None) -> Tensor:
    """A first layer's weight for the network's bands; as it is where its shape cannot be one of bands."""
    per_band = wanted.shape[1] // spec.bands
    if tensor.ndim != wanted.ndim or tensor.shape[1] % per_band:
        return tensor
    count = tensor.shape[1] // per_band
    source, source_names = found.wavelengths_um, found.bands
    if source is None or len(source) != count:
        source_names = USUAL.get(count)
        source = band_wavelengths(source_names) if source_names else (None,) * count
        if count == spec.bands:  # somebody's own bands, as many as these
            if names is not None and source_names is not None and _lower(names) != list(source_names):
                _say_in_order(count, names)
            return tensor
    if spec.wavelengths_um is None and names is None and count == spec.bands:
        return tensor  # nothing is known of these bands, so they are taken to be in order
    target = spec.wavelengths_um or (None,) * spec.bands
    known = band_mixing(source, target, source_names=source_names, target_names=names)[1].tolist()
    if not any(known) and count == spec.bands and names is not None:
        _say_in_order(count, names)
        return tensor
    strange = [name for name, is_known in zip(names or (), known, strict=False) if not is_known]
    if strange:
        logger.warning(
            "%s: nothing says where in the spectrum; weights for the mean of all bands are taken", ", ".join(strange)
        )
    return adapt_encoder(
        tensor, source, target, encoder=spec.encoder, source_names=source_names, target_names=names
    )  # fmt: skip


def _lower(names: Sequence[str]) -> list[str]:
    return [name.lower() for name in names]


def _say_in_order(count: int, names: Sequence[str]) -> None:
    logger.warning("the weights' %d bands are taken for %s in order: no name or wavelength pairs them", count,
                   ", ".join(names))  # fmt: skip


def _resized(tensor: Tensor, wanted: Tensor) -> Tensor:
    """Position embeddings for the network's grid; as they are where they are none of a square grid."""
    if tensor.ndim != 3 or tensor.shape[2] != wanted.shape[2]:
        return tensor
    prefix, sides = 0, (0, 0)
    for prefix in range(6):
        sides = tuple(round((part.shape[1] - prefix) ** 0.5) for part in (tensor, wanted))
        if all(side**2 == part.shape[1] - prefix for side, part in zip(sides, (tensor, wanted), strict=True)):
            break
    else:
        return tensor
    square = tensor[:, prefix:].transpose(1, 2).reshape(len(tensor), -1, sides[0], sides[0])
    new = interpolate(square, size=(sides[1], sides[1]), mode="bicubic", antialias=True, align_corners=False)
    return torch.cat((tensor[:, :prefix], new.flatten(2).transpose(1, 2)), dim=1)


def _check(
    ready: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    *,
    found: Pretrained,
    spec: ModelSpec,
) -> None:
    """Nothing, where the weights are those of the encoder.

    Raises:
        InputError: A tensor is lacking, of another shape, or of a layer that the encoder does not have.
    """
    said = f"{found.where} is no weights of {spec.encoder}"
    if not tensors:
        raise InputError(f"{said}: it holds no tensors by name; needed is a state_dict")
    lacking = [name for name in expected if name not in ready and not _may_lack(name)]
    if lacking:
        example = next(iter(tensors))
        raise InputError(
            f"{said}: of {len(expected)} tensors it lacks {len(lacking)}, such as {lacking[0]} "
            f"{tuple(expected[lacking[0]].shape)}; it holds {len(tensors)}, such as {example} "
            f"{tuple(tensors[example].shape)}"
        )
    for name, tensor in ready.items():
        if tensor.shape != expected[name].shape:
            raise InputError(
                f"{said}: its {name} is {tuple(tensor.shape)}, the network's is {tuple(expected[name].shape)}"
            )


def _check_stray(
    tensors: Mapping[str, Tensor],
    matched: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    whole: Callable[[], nn.Module],
    *,
    said: str,
) -> None:
    """Nothing, where a file holds no tensor that the encoder, with all of its stages, has no place for.

    Raises:
        InputError: It does.
    """
    used = {id(value) for value in matched.values()}
    stray = {name: value for name, value in tensors.items() if id(value) not in used and not HEADS.search(name)}
    if not any(name.endswith(POSITIONS) for name in expected):  # some make theirs anew
        stray = {name: value for name, value in stray.items() if not name.endswith(POSITIONS)}
    if stray:
        placed = _matched(tensors, core_of(whole()).state_dict(), own_names=False)
        kept = {id(value) for value in placed.values()}
        stray = {name: value for name, value in stray.items() if id(value) not in kept}
    if stray:
        raise InputError(
            f"{said}: it has {len(stray)} tensors more, such as {next(iter(stray))}; give the encoder that has them"
        )
