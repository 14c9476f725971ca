"""What a configuration says of scenes, opened: the same bands and the same classes for all, each on its own grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from odc.geo.geobox import GeoBox

from geoseg.data.decode import SceneInput
from geoseg.data.doors import DOORS, expand_scenes, expand_unlabelled
from geoseg.data.grids import check_gsd_m, grid_at, ground_gsd_m
from geoseg.data.scene import PARTS
from geoseg.errors import BandError, GridError, InputError, LegendError
from geoseg.io.band_sets import with_bands
from geoseg.io.labels import LabelSource, open_labels, read_legend
from geoseg.io.regions import open_area
from geoseg.io.soft_labels import open_soft_labels
from geoseg.io.sources import Source, open_source
from geoseg.legend import Legend
from geoseg.raster import match_bands

SCENE_KEYS = ("image", "labels", "region", "part", "name", "weight")
UNLABELLED_KEYS = ("image", "region", "name", "weight")
KNOWN_UNLABELLED = f"{', '.join(UNLABELLED_KEYS)}, or one of {', '.join(DOORS)}"
ROLES = ("split", *PARTS)


@dataclass(frozen=True, slots=True)
class OpenedScenes:
    """Scenes ready to be decoded, and what they have in common.

    Attributes:
        inputs: One a scene.
        roles: One word a scene: `split`, or the part that the whole scene is.
        bands: Names of the bands.
        legend: The classes.
        gsd_m: Ground sampling distance of the first scene's training grid, metres `(row, col)`.
    """

    inputs: tuple[SceneInput, ...]
    roles: tuple[str, ...]
    bands: tuple[str, ...]
    legend: Legend
    gsd_m: tuple[float, float]


def open_scenes(
    specs: Sequence[Mapping[str, Any]],
    *,
    legend: Any = None,
    bands: Sequence[str] | None = None,
    gsd_m: float | None = None,
    missing_bands: Literal["refuse", "mask"] = "refuse",
) -> OpenedScenes:
    """Opens the scenes of a configuration; no pixel is read.

    Args:
        specs: One mapping a scene, with the keys SCENE_KEYS; or one for many, with a door's key.
        legend: The classes: a legend file or a mapping; without, what the labels say of themselves.
        bands: Names of the bands to use; without, those of the first image, or of any where missing ones are masked.
        gsd_m: Ground sampling distance to train at; without, each image's own. Chips without a CRS have pixels of it.
        missing_bands: What to do where an image lacks a band: refuse it, or hide that band from the network there.

    Raises:
        GeosegError: A scene or its labels cannot be used; one line says why.
    """
    wanted = [_checked(spec) for spec in expand_scenes(list(specs))]
    images = [open_source(spec["image"]) for spec in wanted]
    names = tuple(bands) if bands else _all_bands(images, missing_bands)
    labels, found = _same_legend(wanted, legend)
    inputs = []
    for number, (spec, image, told) in enumerate(zip(wanted, images, labels, strict=True)):
        if missing_bands == "refuse":
            match_bands(names, image.bands)
        inputs.append(_input(spec, number, image, told, names=names, gsd_m=gsd_m))
    roles = tuple(str(spec.get("part", "split")) for spec in wanted)
    return OpenedScenes(tuple(inputs), roles, names, found, _ground_size(inputs[0], gsd_m))


def open_unlabelled(
    specs: Sequence[Mapping[str, Any]],
    *,
    bands: Sequence[str],
    gsd_m: float | None = None,
    missing_bands: Literal["refuse", "mask"] = "refuse",
) -> tuple[SceneInput, ...]:
    """Opens scenes without labels; no pixel is read.

    Args:
        specs: One mapping a scene, with the keys UNLABELLED_KEYS; or one for many, with a door's key.
        bands: Names of the bands, those of the labelled scenes.
        gsd_m: As for these.
        missing_bands: As for these.

    Raises:
        BandError: An image has other bands.
        GeosegError: A scene cannot be used.
    """
    inputs = []
    for number, spec in enumerate(expand_unlabelled(specs)):
        _check_keys(spec, UNLABELLED_KEYS, ("image",), f"of data.unlabelled has {{}}; its keys are {KNOWN_UNLABELLED}")
        image = open_source(spec["image"])
        named = {"name": _scene_name(spec["image"], number, what="unlabelled scene"), **spec}
        try:
            if missing_bands == "refuse":
                match_bands(bands, image.bands)
        except BandError as error:
            raise BandError(f"{named['name']} of data.unlabelled: {error}") from error
        inputs.append(_input(named, number, image, (None, None), names=tuple(bands), gsd_m=gsd_m))
    return tuple(inputs)


def _checked(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    known = f"{', '.join(SCENE_KEYS)}, or one of {', '.join(DOORS)}"
    _check_keys(spec, SCENE_KEYS, ("image", "labels"), f"has {{}}; its keys are {known}")
    if spec.get("part", "split") not in ROLES:
        raise InputError(f"a scene's part is '{spec['part']}'; known are {', '.join(ROLES)}")
    return spec


def _check_keys(spec: Mapping[str, Any], known: Sequence[str], needed: Sequence[str], words: str) -> None:
    """Refuses keys that a scene does not have; `words` say so, with the problem in the braces."""
    stray, lacking = set(spec) - set(known), set(needed) - set(spec)
    if stray or lacking:
        problem = f"unknown key {', '.join(sorted(stray))}" if stray else f"no {', '.join(sorted(lacking))}"
        raise InputError(f"a scene {words.format(problem)}")
    weight = spec.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not weight >= 0:
        raise InputError(f"a scene's weight is {weight!r}: needed is a number from 0 on, 1 by default")


def _all_bands(images: Sequence[Source], missing_bands: str) -> tuple[str, ...]:
    """The first image's bands, and where missing ones are masked those that others add."""
    if missing_bands == "refuse":
        return images[0].bands
    names = {band.lower(): band for image in reversed(images) for band in reversed(image.bands)}
    order = dict.fromkeys(band.lower() for image in images for band in image.bands)
    return tuple(names[band] for band in order)


def _input(
    spec: Mapping[str, Any],
    number: int,
    image: Source,
    labels: tuple[LabelSource | None, Source | None],
    *,
    names: tuple[str, ...],
    gsd_m: float | None,
) -> SceneInput:
    source, absent = with_bands(image, names)
    name = str(spec.get("name") or _scene_name(spec["image"], number))
    if len(absent) == len(names):
        raise InputError(f"{name} has none of the bands [{', '.join(names)}]; its bands are [{', '.join(image.bands)}]")
    region = spec.get("region")
    return SceneInput(
        name=name,
        image=source,
        labels=labels[0],
        grid=_training_grid(image.geobox, gsd_m),
        area=None if region is None else open_area(region, image.geobox),
        absent=absent,
        weight=float(spec.get("weight", 1.0)),
        soft=labels[1],
    )


def _training_grid(geobox: GeoBox, gsd_m: float | None) -> GeoBox:
    return geobox if geobox.crs is None else grid_at(geobox, gsd_m)


def _ground_size(scene: SceneInput, gsd_m: float | None) -> tuple[float, float]:
    """The size of a training pixel on the ground.

    Raises:
        GridError: The scene has no CRS, and the configuration does not say either.
        InputError: What it says is no size.
    """
    if scene.grid.crs is not None:
        return ground_gsd_m(scene.grid)
    if gsd_m is None:
        raise GridError(f"{scene.name} has no CRS, so its pixels have no size on the ground; say it with data.gsd_m")
    check_gsd_m(gsd_m)
    return gsd_m, gsd_m


def _scene_name(spec: Any, number: int, *, what: str = "scene") -> str:
    return str(spec) if isinstance(spec, str | Path) and len(str(spec)) < 200 else f"{what} {number + 1}"


def _same_legend(
    specs: Sequence[Mapping[str, Any]], legend_spec: Any
) -> tuple[list[tuple[LabelSource, Source | None]], Legend]:
    """The labels of all scenes under one legend: the one given, else the union of what the labels say."""
    legend = None if legend_spec is None else read_legend(legend_spec)
    opened = [_labels(spec["labels"], legend) for spec in specs]
    found = [own for *_, own in opened]
    if all(own == found[0] for own in found):
        return [(hard, soft) for hard, soft, _ in opened], found[0]
    union = _union(found)
    return [_labels(spec["labels"], union)[:2] for spec in specs], union


def _labels(spec: Any, legend: Legend | None) -> tuple[LabelSource, Source | None, Legend]:
    """The labels, their shares of the classes where they are soft, and their legend."""
    if isinstance(spec, Mapping) and "soft" in spec:
        soft, found = open_soft_labels(spec, legend=legend)
        return soft.hard, soft, found
    hard, found = open_labels(spec, legend=legend)
    return hard, None, found


def _union(legends: Sequence[Legend]) -> Legend:
    classes: dict[int, Any] = {}
    for item in (item for legend in legends for item in legend.classes):
        known = classes.setdefault(item.id, item)
        if known.name != item.name:
            raise LegendError(
                f"class {item.id} is '{known.name}' in one scene's labels and '{item.name}' in another's; give a legend"
            )
    return Legend(tuple(classes.values()), legends[0].ignore)
