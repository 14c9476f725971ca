"""Clouds, their shadows, and rectangles cut out."""

from __future__ import annotations

from functools import partial

import torch
from torch.nn import functional

from geoseg.data.augment.draws import (
    Planes,
    Setting,
    change_some,
    hide,
    per_band,
    rectangles,
    seen,
    sent,
    side_px,
    unlabel,
)
from geoseg.data.augment.options import CloudOptions, CutoutOptions

OCTAVES = (1, 2, 4)  # how much finer each layer of a cloud's shape is than the first, and how much weaker
SAMPLE = 4096  # pixels that tell how high the field of a patch rises


def clouds(planes: Planes, options: CloudOptions, setting: Setting) -> Planes:
    """Clouds over some patches, and their shadows beside them."""
    chosen = setting.some_of(len(planes["image"]), options.share)
    return change_some(planes, chosen, partial(_overcast, options=options, setting=setting))


def _overcast(planes: Planes, *, options: CloudOptions, setting: Setting) -> Planes:
    count = len(planes["image"])
    veil = cloud_veil(planes, options, setting)
    if options.shadow:
        planes = _cast_shadow(planes, veil, options, setting)
    if options.kind == "hole":
        return hide(planes, veil > 0)
    veil = veil * sent(setting.evenly(*options.opacity, count, 1, 1), planes)
    brightness = sent(setting.evenly(*options.brightness, count, 1), planes)
    white = per_band(setting.mean + brightness * setting.std)
    hazed = torch.lerp(planes["image"], white, veil.unsqueeze(1))
    image = torch.where(seen(planes), hazed, planes["image"])
    return unlabel({**planes, "image": image}, veil > options.opaque)


def cloud_veil(planes: Planes, options: CloudOptions, setting: Setting) -> torch.Tensor:
    """Opacity of a layer of clouds, float32 `(n, row, col)`: above 0 on the share of the patch that `cover` draws.

    It is a smooth random field above the level that leaves this share. It rises in a straight line to 1, which it
    reaches where the cloud's edge ends; both levels are those of a sample of the patch's pixels.
    """
    count = len(planes["image"])
    field = _smooth_field(planes, options.size_px, setting)
    sample = field.flatten(1)
    ordered = sample[:, :: max(1, sample.shape[1] // SAMPLE)].sort(1).values
    cover = setting.evenly(*options.cover, count, 1)
    shares = torch.cat([1 - cover, 1 - cover * (1 - options.edge)], 1)
    last = ordered.shape[1] - 1
    levels = ordered.gather(1, sent((shares * last).round().long(), planes))
    low, high = levels[:, 0, None, None], levels[:, 1, None, None]
    tiny = torch.finfo(torch.float32).tiny
    return ((field - low) / (high - low).clamp(min=tiny)).clamp(0, 1)


def _smooth_field(planes: Planes, size_px: float, setting: Setting) -> torch.Tensor:
    """A sum of random fields, each twice as fine and half as strong as the one before; float32 `(n, row, col)`."""
    count, side = len(planes["image"]), side_px(planes)
    total = torch.zeros((count, 1, *side), device=planes["image"].device)
    for finer in OCTAVES:
        nodes = [max(2, round(length * finer / size_px) + 1) for length in side]
        coarse = sent(torch.randn((count, 1, *nodes), generator=setting.generator) / finer, planes)
        total += functional.interpolate(coarse, size=side, mode="bicubic", align_corners=True)
    return total[:, 0]


def _cast_shadow(planes: Planes, veil: torch.Tensor, options: CloudOptions, setting: Setting) -> Planes:
    """The image darker where the veil, moved by up to a cloud's size, falls."""
    count = len(veil)
    moves = setting.evenly(-options.size_px, options.size_px, count, 2).round().long().tolist()
    fallen = torch.stack([one.roll((down, right), (0, 1)) for one, (down, right) in zip(veil, moves, strict=True)])
    depth = sent(setting.evenly(0, options.shadow, count, 1), planes)
    darker = torch.addcmul(planes["image"], per_band(depth * setting.std), fallen.unsqueeze(1), value=-1)
    return {**planes, "image": torch.where(seen(planes), darker, planes["image"])}


def cutout(planes: Planes, options: CutoutOptions, setting: Setting) -> Planes:
    """Rectangles of some patches invalid and unlabelled (DeVries and Taylor 2017, arXiv:1708.04552)."""
    chosen = setting.some_of(len(planes["image"]), options.share)
    return change_some(planes, chosen, partial(_cut_out, options=options, setting=setting))


def _cut_out(planes: Planes, *, options: CutoutOptions, setting: Setting) -> Planes:
    count = len(planes["image"])
    for _ in range(options.count):
        height, width = setting.evenly(*options.size, count), setting.evenly(*options.size, count)
        planes = hide(planes, rectangles(planes, height, width, setting))
    return planes
