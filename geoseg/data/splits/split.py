"""Splits by place: which pixels train, which validate and test, and the buffer between them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

from geoseg.data.grids import LONLAT
from geoseg.data.scene import PARTS, SceneArrays
from geoseg.data.splits.buffer import cut_buffers
from geoseg.data.splits.checks import check_classes, check_parts, settle_leaks
from geoseg.data.splits.drawing import draw_units
from geoseg.data.splits.files import read_split, with_fold
from geoseg.data.splits.ground import footprint, in_degrees, scene_keys
from geoseg.data.splits.options import SplitOptions
from geoseg.data.splits.plan import PART_CODES, Part, SplitPlan, SplitUnit, class_counts, part_of
from geoseg.data.splits.planes import part_counts, write_parts
from geoseg.data.splits.variogram import label_range_m
from geoseg.errors import GridError, InputError
from geoseg.io.polygons import onto_crs
from geoseg.io.regions import open_area
from geoseg.tiling import Window

logger = logging.getLogger(__name__)


def split_scenes(
    scenes: Sequence[SceneArrays],
    *,
    classes: int,
    options: SplitOptions,
    class_names: Sequence[str] | None = None,
    roles: Sequence[str] | None = None,
) -> SplitPlan:
    """The split of scenes; fills in the `part` of each: TRAINING, VALIDATION, TEST, or OUTSIDE for the buffer.

    Args:
        scenes: Decoded scenes; where they overlap on the ground, a validation pixel of one is none to train on in
            another, nor is anything within the buffer around it.
        classes: Number of classes.
        options: How to split.
        class_names: Their names, for messages and files.
        roles: One word a scene: `split`, or `training`, `validation` or `test` for a scene that is wholly one of them.
            Where one is said to validate, those to `split` train.

    Raises:
        InputError: Nothing is left to train on or to validate on, or a class is left without training pixels; parts
            given by the user are too close to each other; a file or an option makes no sense.
        GridError: A scene has no CRS and was to be split by place.
    """
    names = tuple(class_names) if class_names is not None else tuple(f"class {k}" for k in range(classes))
    said = _checked_roles(scenes, roles, options)
    plan = replace(_planned(scenes, said, names, options), classes=names)
    plan = write_parts(scenes, replace(plan, buffer_m=_buffer_m(scenes, plan, options)))
    if options.file is not None:
        _check_touches(scenes, plan, options.file)
    settle_leaks(scenes, said, buffer_m=plan.buffer_m, leakage=options.leakage)
    cut_buffers(scenes, buffer_m=plan.buffer_m)
    counts = part_counts(scenes, classes=classes)
    pixels = {part: class_counts(counts[code]) for part, code in PART_CODES.items()}
    check_parts(counts, options)
    check_classes(counts, names, options)
    _tell_left_out(plan, int(counts.sum()))
    logger.info("split: %s", plan.method)
    return replace(plan, pixels=pixels)


def _checked_roles(scenes: Sequence[SceneArrays], roles: Sequence[str] | None, options: SplitOptions) -> list[str]:
    said = list(roles) if roles is not None else ["split"] * len(scenes)
    unknown = sorted(set(said) - {"split", *PARTS})
    if unknown or len(said) != len(scenes):
        raise InputError(
            f"a scene's part is {unknown or said}: needed is one of split, {', '.join(PARTS)} for each scene"
        )
    if options.folds is not None and "validation" in said:
        name = scenes[said.index("validation")].name
        raise InputError(f"{name} is said to validate, and folds draw what validates; leave out its part, or folds")
    return said


def _planned(
    scenes: Sequence[SceneArrays], roles: Sequence[str], names: Sequence[str], options: SplitOptions
) -> SplitPlan:
    """The units that the options and the roles of scenes ask for."""
    keys = scene_keys(scenes)
    free = [k for k, role in enumerate(roles) if role == "split"]
    given = [
        _scene_unit(scenes[k], keys[k], part_of(role, scenes[k].name))
        for k, role in enumerate(roles)
        if role != "split"
    ]
    mine = [scenes[k] for k in free]
    if options.file is not None:
        plan = read_split(options.file, attribute=options.attribute)
        plan = plan if options.folds is None else with_fold(plan, options.fold, options.file)
        return replace(plan, units=(*plan.units, *given))
    drawing = replace(
        options,
        validation_share=0.0 if "validation" in roles else options.validation_share,
        test_share=0.0 if "test" in roles else options.test_share,
    )
    if not mine or (options.regions is None and not (drawing.validation_share or drawing.test_share or options.folds)):
        rest = [_scene_unit(scenes[k], keys[k], "training") for k in free]
        return SplitPlan((*rest, *given), None, (), "whole scenes, as given")
    if options.regions is not None:
        units, method = _region_units(mine, [keys[k] for k in free], options.regions), "regions, as given"
    else:
        units, method = draw_units(mine, [keys[k] for k in free], classes=len(names), options=drawing)
    return SplitPlan((*units, *given), None, (), method)


def _scene_unit(scene: SceneArrays, key: str, part: Part) -> SplitUnit:
    return SplitUnit(None if scene.geobox.crs is None else footprint(scene.geobox), part, key)


def _region_units(scenes: Sequence[SceneArrays], keys: Sequence[str], regions: Any) -> list[SplitUnit]:
    """Where regions validate; a region need not touch every scene, but it must touch one.

    Regions in pixels hold for their scene, those on the ground for all.
    """
    units: list[SplitUnit] = []
    for region in regions if isinstance(regions, list) else [regions]:
        refused: list[InputError] = []
        shapes: dict[bytes, BaseGeometry] = {}
        for scene, key in zip(scenes, keys, strict=True):
            try:
                area = open_area(region, scene.image_grid).region
            except InputError as error:
                refused.append(error)
                continue
            if isinstance(area, Window):
                units.append(SplitUnit(_box(area, scene), "validation", key))
            else:
                shapes |= {shape.wkb: shape for shape in onto_crs(area, LONLAT)}
        if len(refused) == len(scenes):
            raise refused[0]
        units += [SplitUnit(shape, "validation") for shape in shapes.values()]
    return units


def _box(window: Window, scene: SceneArrays) -> BaseGeometry:
    """Pixels of a scene's image in degrees."""
    if scene.geobox.crs is None:
        raise GridError(f"{scene.name} has no CRS, so it cannot be split by regions; part: or unit: scene would work")
    box = shapely.box(window.col_off, window.row_off, window.col_stop, window.row_stop)
    return in_degrees(box, scene.image_grid)


def _buffer_m(scenes: Sequence[SceneArrays], plan: SplitPlan, options: SplitOptions) -> float | None:
    """The buffer in metres; None for 16 pixels."""
    if options.buffer_m != "auto":
        return plan.buffer_m if options.buffer_m is None else float(options.buffer_m)
    found = label_range_m(scenes, seed=options.seed)
    logger.info("%s", found)
    return found.buffer_m


def _check_touches(scenes: Sequence[SceneArrays], plan: SplitPlan, path: str) -> None:
    """Raises InputError where no unit of a file holds a labelled pixel; warns of scenes that none speaks of."""
    if not any(sum(unit.counts) for unit in plan.units):
        raise InputError(f"no polygon of {path} holds a labelled pixel: {_whereabouts(scenes, plan)}")
    if all(unit.scene is not None for unit in plan.units):
        named = {unit.scene for unit in plan.units}
        silent = [key for key in scene_keys(scenes) if key not in named]
        if silent:
            logger.warning(
                "the split %s says nothing of %d scenes, such as %s: they train", path, len(silent), silent[0]
            )


def _tell_left_out(plan: SplitPlan, labelled: int) -> None:
    """Warns of labelled pixels that no unit holds, where units say what trains."""
    left = labelled - sum(sum(unit.counts) for unit in plan.units)
    if left > 0 and any(unit.part == "training" and unit.scene is None for unit in plan.units):
        logger.warning(
            "%d of %d labelled pixels lie in no unit of the split (%s): left out", left, labelled, plan.method
        )


def _whereabouts(scenes: Sequence[SceneArrays], plan: SplitPlan) -> str:
    """Where a split and the scenes lie, for a message."""
    shapes = [unit.geometry for unit in plan.units if unit.geometry is not None]
    boxes = [footprint(scene.geobox) for scene in scenes if scene.geobox.crs is not None]
    if not shapes or not boxes:
        named = ", ".join(sorted({str(unit.scene) for unit in plan.units})[:3])
        return f"it names the scenes {named}, and these are {', '.join(scene_keys(scenes)[:3])}"
    here, there = (shapely.total_bounds(found).round(3).tolist() for found in (boxes, shapes))
    return (
        f"its polygons lie within {there} degrees (west, south, east, north), the scenes within {here}; check its CRS"
    )
