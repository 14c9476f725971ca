"""What timm's models give and take, found out without memory on torch's meta device."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import timm
import torch
from torch import Tensor

PLAIN_PYRAMIDS = ([4, 8, 16, 32], [2, 4, 8, 16, 32], [1, 2, 4, 8, 16, 32])  # smp takes these from timm as they are
REFUSALS = (RuntimeError, AssertionError, ValueError, TypeError, AttributeError, NotImplementedError, IndexError)
"""How timm's models refuse what does not fit; it differs by model."""


@dataclass(frozen=True, slots=True)
class Sides:
    """Which images a model takes.

    Attributes:
        multiple: Rows and columns are multiples of this.
        largest: Of either, None where there is no end.
        options: Arguments that the model needs for it.
    """

    multiple: int
    largest: int | None
    options: Mapping[str, Any]


def made(name: str, **options: Any) -> Any:
    """A model of timm, whose types are those of any module."""
    return timm.create_model(name, **options)


@lru_cache
def timm_strides(name: str) -> tuple[int, ...]:
    """Strides of the features of a timm model, none where it gives no features.

    >>> timm_strides("resnet10t"), set(timm_strides("vit_tiny_patch16_224"))
    ((2, 4, 8, 16, 32), {16})
    """
    try:
        with torch.device("meta"):
            strides = made(name, features_only=True).feature_info.reduction()
    except REFUSALS:
        return ()
    return tuple(int(stride) for stride in strides)


def has_pyramid(name: str, *, depth: int | None = None) -> bool:
    """Whether smp makes an encoder of the timm model as it is.

    Args:
        name: Of the model.
        depth: Stages asked for; a model with fewer than usual is an encoder of no more than it has.

    >>> has_pyramid("convnext_atto"), has_pyramid("vit_tiny_patch16_224")
    (True, False)
    """
    strides = list(timm_strides(name))
    full = next((full for full in PLAIN_PYRAMIDS if strides == full[: len(strides)]), None)
    return bool(strides) and full is not None and (strides == full or depth is not None)


def sides_of(name: str, options: Mapping[str, Any], *, bands: int) -> Sides:
    """Which images a timm model takes, and the arguments that let it take any where there are such.

    A model that takes its own size alone takes no other; one that takes twice that too, as those that cut the image in
    a fixed number of windows, takes multiples of it.

    Args:
        name: Of the model.
        options: What it is to be made with.
        bands: Of the images.

    Raises:
        ValueError: Its features are not at a half, a quarter, ... of the image, or it takes no such images at all.
    """
    given = {"in_chans": bands, **options}
    return _sides(name, tuple(sorted((key, repr(value)) for key, value in given.items())), _Held(given))


class _Held:
    """Options that a cache takes for equal to any; their text beside them tells them apart."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = dict(options)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held)

    def __hash__(self) -> int:
        return 0


@lru_cache
def _sides(name: str, _: tuple[tuple[str, str], ...], held: _Held) -> Sides:
    options, stride = held.options, max(32, *(timm_strides(name) or (32,)))
    free = {"dynamic_img_size": True} if "dynamic_img_size" in _parameters(name) - options.keys() else {}
    usual: Any = timm.get_pretrained_cfg_value(name, "input_size")
    side = int(options.get("img_size") or usual[-1])
    for device in ("meta", "cpu"):  # some cannot be run without memory
        if _probe(name, {**options, **free}, 2 * stride, 3 * stride, device=device):
            return Sides(stride, None, free)
        fits = _probe(name, options, side, side, device=device)
        if fits is False:
            strides = ", ".join(map(str, timm_strides(name)))
            raise ValueError(f"its features do not lie at strides {strides} of the image")
        if fits:
            return Sides(side, None if _probe(name, options, 2 * side, side, device=device) else side, {})
    reason = _refusal(name, options, side)
    raise ValueError(f"it takes no images of {options['in_chans']} bands and {side} x {side} pixels: {reason}")


@lru_cache
def _parameters(name: str) -> frozenset[str]:
    """Names of the arguments of a timm model's class and its bases."""
    with torch.device("meta"):
        kind: Any = type(timm.create_model(name))
    return frozenset(key for base in kind.__mro__[:-1] for key in inspect.signature(base.__init__).parameters)


def _probe(name: str, options: Mapping[str, Any], rows: int, cols: int, *, device: str) -> bool | None:
    """Whether a model's features of such an image lie at their strides; None where it refuses the image."""
    strides = timm_strides(name)
    try:
        found = _features(name, options, rows, cols, device=device)
    except REFUSALS:
        return None
    wanted = [(rows // _grown(stride), cols // _grown(stride)) for stride in strides]
    return all(_lies(part, size) for part, size in zip(found, wanted, strict=False))


def _refusal(name: str, options: Mapping[str, Any], side: int) -> str:
    """Why a model refuses an image, in its own words."""
    try:
        _features(name, options, side, side, device="cpu")
    except REFUSALS as error:
        return next(iter(str(error).splitlines()), type(error).__name__)
    return "it does not say why"


def _features(name: str, options: Mapping[str, Any], rows: int, cols: int, *, device: str) -> list[Tensor]:
    """What a model makes of an image."""
    strides = timm_strides(name)
    with torch.device(device), torch.no_grad(), torch.random.fork_rng(devices=()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        flat = {"out_indices": (0,)} if len(set(strides)) == 1 else {}  # all of its blocks are alike
        model = made(name, features_only=True, **flat, **options).eval()
        patch, grown = _unit(strides)
        image = torch.zeros(1, options["in_chans"], rows // grown * patch, cols // grown * patch)
        found: list[Tensor] = model(image)
        return found


def _grown(stride: int) -> int:
    return 1 << (stride - 1).bit_length()


def _unit(strides: tuple[int, ...]) -> tuple[int, int]:
    """By what an image is shrunk for patches that are no power of two: 14/16, as the trunks do it."""
    stride = strides[-1] if strides else 1
    return stride, _grown(stride)


def _lies(part: Tensor, size: tuple[int, int]) -> bool:
    """Whether a map has such rows and columns, its channels first or last."""
    return tuple(part.shape[2:]) == size or tuple(part.shape[1:3]) == size
