"""Splits from files: those that geoseg wrote, and polygons drawn or edited in a GIS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from odc.geo.crs import CRS
from shapely.geometry.base import BaseGeometry

from geoseg.data.grids import LONLAT
from geoseg.data.splits.plan import MEMBER, SplitPlan, SplitUnit, part_of, read_json
from geoseg.data.splits.units import check_degrees, read_areas
from geoseg.errors import InputError
from geoseg.io.facts import crs_named
from geoseg.io.polygons import PolygonFile, Polygons, onto_crs

JSON_SUFFIXES = {".geojson", ".json"}
SHARED = 0.01  # polygons that share less than this of the smaller one only touch


def read_split(path: str, *, attribute: str | None = None) -> SplitPlan:
    """The split in a polygon file of any format.

    Args:
        path: A GeoJSON file that geoseg wrote, or any polygon file with a property that names the part.
        attribute: That property; `part` by default.

    Raises:
        MissingInputError: The file is not there.
        ReadError: It cannot be read.
        InputError: A polygon has no or an unknown part, or polygons of different parts overlap.
        GridError: Its coordinates are no place on the earth.
    """
    plan = _from_json(path, attribute) if Path(path).suffix.lower() in JSON_SUFFIXES else _from_areas(path, attribute)
    check_degrees([unit.geometry for unit in plan.units if unit.geometry is not None], path)
    plan = replace(plan, units=tuple(_whole(unit, path, k) for k, unit in enumerate(plan.units)))
    if not plan.units:
        raise InputError(f"the split {path} has no polygon; needed are polygons with a property {attribute or 'part'}")
    _refuse_overlap(plan.units, path)
    return plan


def _from_json(path: str, attribute: str | None) -> SplitPlan:
    document = read_json(path)
    ours = MEMBER in document
    if attribute is not None:
        document = {**document, "features": [_renamed(feature, attribute) for feature in document.get("features", [])]}
    plan = SplitPlan.from_geojson(document)
    crs = _declared_crs(document)
    units = plan.units if crs is None else tuple(_moved(unit, crs) for unit in plan.units)
    return replace(plan, units=units, method=plan.method if ours and plan.method else f"the polygons of {path}")


def _renamed(feature: Any, attribute: str) -> Any:
    """A feature whose part stands in another property."""
    said = feature.get("properties") if isinstance(feature, dict) else None
    if not isinstance(said, dict) or attribute not in said:
        have = ", ".join(map(str, said or {})) or "none"
        raise InputError(f"a polygon of the split has no property {attribute}; its properties are {have}")
    return {**feature, "properties": {**said, "part": said[attribute]}}


def _declared_crs(document: Mapping[str, Any]) -> CRS | None:
    """The CRS that a GeoJSON file of the old kind names; None for longitude and latitude."""
    declared = document.get("crs")
    said = declared.get("properties") if isinstance(declared, dict) else None
    name = said.get("name") if isinstance(said, dict) else declared
    return None if name is None or "CRS84" in str(name) else crs_named(str(name))


def _moved(unit: SplitUnit, crs: CRS) -> SplitUnit:
    if unit.geometry is None:
        return unit
    return replace(unit, geometry=onto_crs(Polygons(np.array([unit.geometry], dtype=object), crs), LONLAT)[0])


def _from_areas(path: str, attribute: str | None) -> SplitPlan:
    """The split of a file that is no GeoJSON; what geoseg wrote and a GIS converted keeps its scenes and folds."""
    plan = areas_as_parts(*read_areas(path, attribute or "part"), path)
    fields = PolygonFile(path).fields()
    scenes, folds = (
        read_areas(path, name)[1] if name in fields else [None] * len(plan.units) for name in ("scene", "fold")
    )
    units = [
        replace(unit, scene=scene, fold=None if fold is None else int(float(fold)))
        for unit, scene, fold in zip(plan.units, scenes, folds, strict=True)
    ]
    return replace(plan, units=tuple(units))


def areas_as_parts(shapes: Sequence[BaseGeometry], values: Sequence[str | None], path: str) -> SplitPlan:
    """The split of polygons whose values are parts.

    Raises:
        InputError: A value is none.
    """
    units = [
        SplitUnit(shape, part_of(value, f"polygon {k + 1} of {path}"))
        for k, (shape, value) in enumerate(zip(shapes, values, strict=True))
    ]
    return SplitPlan(tuple(units), None, (), f"the polygons of {path}")


def _whole(unit: SplitUnit, path: str, number: int) -> SplitUnit:
    """The unit with a valid polygon.

    Raises:
        InputError: It has no area, or no place and no scene.
    """
    shape = unit.geometry
    if shape is None:
        if unit.scene is None:
            raise InputError(
                f"polygon {number + 1} of {path} has no geometry and names no scene; needed is one of them"
            )
        return unit
    if not shape.is_valid:
        shape = shapely.make_valid(shape)
    if shape.geom_type not in ("Polygon", "MultiPolygon"):
        shape = shapely.union_all([part for part in shapely.get_parts(shape) if shapely.get_dimensions(part) == 2])
    if shape.is_empty or not shape.area > 0:
        raise InputError(f"polygon {number + 1} of {path} has no area; needed are polygons")
    return unit if shape is unit.geometry else replace(unit, geometry=shape)


def _refuse_overlap(units: Sequence[SplitUnit], path: str) -> None:
    """Raises InputError where polygons of different parts, that hold for the same scenes, overlap."""
    placed = [k for k, unit in enumerate(units) if unit.geometry is not None]
    shapes = np.array([units[k].geometry for k in placed], dtype=object)
    for one, other in np.stack(shapely.STRtree(shapes).query(shapes, predicate="intersects"), 1).tolist():
        a, b = units[placed[one]], units[placed[other]]
        if one >= other or a.part == b.part or a.scene != b.scene:
            continue
        shared = shapely.intersection(shapes[one], shapes[other]).area / min(shapes[one].area, shapes[other].area)
        if shared > SHARED:
            at = shapely.intersection(shapes[one], shapes[other]).representative_point()
            numbers = f"polygon {placed[one] + 1} ({a.part}) and polygon {placed[other] + 1} ({b.part})"
            raise InputError(
                f"in {path} {numbers} overlap near {at.x:.4f} {at.y:.4f}, {shared:.0%} of the smaller one: these "
                "pixels would be known beforehand; redraw one of them"
            )


def with_fold(plan: SplitPlan, fold: int, path: str) -> SplitPlan:
    """The plan with one of its folds to validate on and the others to train on.

    Raises:
        InputError: Its units have no such fold.
    """
    folds = sorted({unit.fold for unit in plan.units if unit.fold is not None})
    if fold not in folds:
        have = ", ".join(map(str, folds)) or "none"
        raise InputError(
            f"fold is {fold}, and the folds of {path} are {have}; give one of them, or leave folds and fold out"
        )
    units = tuple(
        unit if unit.fold is None else replace(unit, part="validation" if unit.fold == fold else "training")
        for unit in plan.units
    )
    return replace(plan, units=units)
