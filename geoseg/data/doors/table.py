"""The doors by their key in a config, and the way through them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from geoseg.data.doors.chips import chip_images, chip_scenes
from geoseg.data.doors.coco import coco_images, coco_scenes
from geoseg.data.doors.torchgeo import torchgeo_images, torchgeo_scenes, with_torchgeo
from geoseg.errors import InputError

Doors = Mapping[str, Callable[[Mapping[str, Any]], list[dict[str, Any]]]]

DOORS: Doors = {
    "chips": chip_scenes,
    "coco": coco_scenes,
    "torchgeo": torchgeo_scenes,
}
"""What a mapping with this key becomes. A door gets the whole mapping and hands on the keys that are not its own."""

BARE: Doors = {"chips": chip_images, "coco": coco_images, "torchgeo": torchgeo_images}
"""The same for scenes without labels."""


def expand_scenes(specs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One mapping a scene, with keys such as `image`, `labels`, `part`; those without a door's key stay as they are.

    Raises:
        InputError: A mapping has the keys of two doors, or what a door leads to makes no sense.
        MissingInputError: What a door leads to is not there.
    """
    return [scene for spec in specs for scene in _expanded(spec)]


def expand_unlabelled(specs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One mapping a scene without labels, of every image behind a door, whatever its part.

    Raises:
        InputError: A mapping has the keys of two doors, or what a door leads to makes no sense.
        MissingInputError: What a door leads to is not there.
    """
    return [scene for spec in specs for scene in _expanded(spec, BARE)]


def _expanded(spec: Mapping[str, Any], doors: Doors = DOORS) -> list[dict[str, Any]]:
    spec = with_torchgeo(spec)
    keys = [key for key in doors if key in spec]
    if len(keys) > 1:
        raise InputError(f"a scene has {' and '.join(keys)}; needed is one of them")
    return doors[keys[0]](spec) if keys else [spec]
