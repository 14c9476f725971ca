"""What is drawn: blocks on the ground, patches of labels, whole scenes, areas of a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from shapely.geometry.base import BaseGeometry

from geoseg.data.grids import LONLAT
from geoseg.data.scene import SceneArrays, windows_of
from geoseg.data.splits.blocks import default_block_m, ground_blocks
from geoseg.data.splits.ground import footprint, in_degrees
from geoseg.data.splits.options import SplitOptions
from geoseg.data.splits.patchwork import label_patches
from geoseg.data.splits.same_image import image_groups
from geoseg.errors import GridError, InputError
from geoseg.io.polygons import PolygonFile, onto_crs

SPARSE_SHARE = 0.05  # labels on less of the scenes than this come as single polygons
MANY_SCENES, SMALL_PX = 24, 1024
SAME_GROUND = 0.5  # what shares more than this of the smaller one is one unit

Geometries = list[BaseGeometry | None]


@dataclass(frozen=True, slots=True, eq=False)
class Pieces:
    """What is drawn together, before it is drawn.

    Attributes:
        geometries: Polygons in degrees; None for a whole scene without a CRS.
        scenes: The scene that each holds for; None for all.
        groups: The unit that each belongs to, `(piece,)`, from 0.
        words: What they are, for people.
        spare: Whether those that hold for all scenes and have no labels may be left out: they are laid over the ground
            whether anything is there or not.
    """

    geometries: Geometries
    scenes: list[str | None]
    groups: NDArray[np.int64]
    words: str
    spare: bool = False

    @property
    def places(self) -> list[tuple[BaseGeometry | None, str | None]]:
        """Geometry and scene of each."""
        return list(zip(self.geometries, self.scenes, strict=True))

    def kept(self, chosen: NDArray[np.int64]) -> Pieces:
        """Those at `chosen`, their groups numbered anew."""
        groups = np.unique(self.groups[chosen], return_inverse=True)[1]
        geometries, scenes = ([values[k] for k in chosen.tolist()] for values in (self.geometries, self.scenes))
        return Pieces(geometries, scenes, groups, self.words, self.spare)


def cut_units(scenes: Sequence[SceneArrays], keys: Sequence[str], options: SplitOptions) -> Pieces:
    """The units that are drawn, of the kind that `options.unit` says.

    Raises:
        InputError: They cannot be made of these scenes; one line says why.
        GridError: A scene has no CRS and the units are places on the ground.
    """
    kind = _resolved(scenes, options) if options.unit == "auto" else options.unit
    unplaced = [scene.name for scene in scenes if scene.geobox.crs is None]
    if unplaced and kind != "scene" and options.unit != "auto":
        raise GridError(
            f"{unplaced[0]} has no CRS, so it has no {kind} on the ground; unit: scene would work, or crs: EPSG:..."
        )
    placed = [k for k, scene in enumerate(scenes) if scene.geobox.crs is not None]
    if kind == "scene" or not unplaced:
        return _cut(kind, scenes, keys, options)
    loose = [k for k in range(len(scenes)) if k not in set(placed)]
    return _together(
        _cut(kind, [scenes[k] for k in placed], [keys[k] for k in placed], options),
        _whole_scenes([scenes[k] for k in loose], [keys[k] for k in loose], options),
    )


def _cut(kind: str, scenes: Sequence[SceneArrays], keys: Sequence[str], options: SplitOptions) -> Pieces:
    """The units of a kind; blocks where patches were not asked for and are too many."""
    try:
        return CUTTERS[kind](scenes, keys, options)
    except InputError:
        if options.unit != "auto" or kind != "polygon":
            raise
        return _blocks(scenes, keys, options)


def _together(one: Pieces, other: Pieces) -> Pieces:
    groups = np.concatenate([one.groups, other.groups + one.groups.max(initial=-1) + 1])
    words = f"{one.words}; {other.words} without a CRS"
    return Pieces(one.geometries + other.geometries, one.scenes + other.scenes, groups, words, one.spare)


def _resolved(scenes: Sequence[SceneArrays], options: SplitOptions) -> str:
    """The kind of unit for these scenes, where none is asked for."""
    chips = len(scenes) >= MANY_SCENES and all(max(scene.shape) <= SMALL_PX for scene in scenes)
    if all(scene.geobox.crs is None for scene in scenes) or (chips and options.block_m is None):
        return "scene"
    usable = told = 0
    for scene in scenes:
        for window in windows_of(scene.shape):
            usable += int(np.count_nonzero(scene.valid[window.slices]))
            told += int(np.count_nonzero(scene.labels[window.slices] != scene.no_label))
    return "polygon" if told < SPARSE_SHARE * usable else "block"


def _blocks(scenes: Sequence[SceneArrays], keys: Sequence[str], options: SplitOptions) -> Pieces:  # noqa: ARG001
    block_m = options.block_m or default_block_m(scenes)
    found = ground_blocks([scene.geobox for scene in scenes], block_m)
    return Pieces(list(found), [None] * len(found), np.arange(len(found)), f"blocks of {block_m:,.0f} m", spare=True)


def _patches(scenes: Sequence[SceneArrays], keys: Sequence[str], options: SplitOptions) -> Pieces:  # noqa: ARG001
    shapes: list[BaseGeometry] = []
    names: list[str | None] = []
    for scene, key in zip(scenes, keys, strict=True):
        found = [in_degrees(patch, scene.geobox) for patch in label_patches(scene)]
        shapes += found
        names += [key] * len(found)
    return Pieces(list(shapes), names, same_ground(shapes, names), "connected patches of labels")


def _whole_scenes(scenes: Sequence[SceneArrays], keys: Sequence[str], options: SplitOptions) -> Pieces:  # noqa: ARG001
    shapes = [None if scene.geobox.crs is None else footprint(scene.geobox) for scene in scenes]
    groups = same_ground(shapes, keys)
    loose = [k for k, shape in enumerate(shapes) if shape is None]
    first: dict[int, int] = {}
    for k, image in zip(loose, image_groups([scenes[k] for k in loose]), strict=True):
        groups[k] = groups[first.setdefault(image, k)]
    return Pieces(shapes, list(keys), np.unique(groups, return_inverse=True)[1], "whole scenes")


def _areas(scenes: Sequence[SceneArrays], keys: Sequence[str], options: SplitOptions) -> Pieces:  # noqa: ARG001
    shapes, values = read_areas(str(options.areas), options.attribute)
    first: dict[str, int] = {}
    owners = [k if value is None else first.setdefault(value, k) for k, value in enumerate(values)]
    words = f"areas of {options.areas}" + (f" by {options.attribute}" if options.attribute else "")
    return Pieces(list(_disjoint(shapes)), [None] * len(shapes), np.unique(owners, return_inverse=True)[1], words)


CUTTERS: dict[str, Callable[[Sequence[SceneArrays], Sequence[str], SplitOptions], Pieces]] = {
    "block": _blocks,
    "polygon": _patches,
    "scene": _whole_scenes,
    "area": _areas,
}


def read_areas(path: str, attribute: str | None) -> tuple[list[BaseGeometry], list[str | None]]:
    """Polygons of a file in degrees, and the value of `attribute` of each; None where it has none.

    Raises:
        MissingInputError: The file is not there.
        ReadError: It cannot be read.
        InputError: It has no polygons, or lacks the attribute.
        GridError: It has no CRS, or its polygons no place on the earth.
    """
    polygons = PolygonFile(path, columns=(attribute,) if attribute else ()).read()
    shapes = list(onto_crs(polygons, LONLAT))
    check_degrees(shapes, path)
    values = list(polygons.columns[attribute]) if attribute else [None] * len(shapes)
    return shapes, [None if value is None or value != value else str(value) for value in values]  # noqa: PLR0124 - NaN


def check_degrees(shapes: Sequence[BaseGeometry], path: str) -> None:
    """Nothing, where shapes lie on the earth.

    Raises:
        GridError: Their coordinates are no degrees.
    """
    west, south, east, north = shapely.total_bounds(shapes) if len(shapes) else (0, 0, 0, 0)
    if max(abs(west), abs(east)) > 361 or max(abs(south), abs(north)) > 91:
        raise GridError(
            f"{path} has coordinates such as {west:,.0f} {south:,.0f}, which are no degrees; save it with its CRS, or "
            "in longitude and latitude (EPSG:4326)"
        )


def _disjoint(shapes: Sequence[BaseGeometry]) -> list[BaseGeometry]:
    """Shapes without what later ones cover, as the later one stands where two overlap."""
    found = list(shapes)
    first, second = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    for one, other in zip(first.tolist(), second.tolist(), strict=True):
        if one < other and found[one].intersection(shapes[other]).area > 0:
            found[one] = found[one].difference(shapes[other])
    return found


def same_ground(shapes: Sequence[BaseGeometry | None], owners: Sequence[Any]) -> NDArray[np.int64]:
    """A number for each shape, the same for those of different owners that share more than half of the smaller one."""
    told = np.array([k for k, shape in enumerate(shapes) if shape is not None], np.int64)
    valid = shapely.make_valid(np.array([shapes[k] for k in told.tolist()], dtype=object))
    first, second = shapely.STRtree(valid).query(valid, predicate="intersects")
    owner = np.array([str(owners[k]) for k in told.tolist()])
    rival = (first < second) & (owner[first] != owner[second]) if len(told) else np.zeros(0, np.bool_)
    first, second = first[rival], second[rival]
    area = shapely.area(valid)
    shared = shapely.area(shapely.intersection(valid[first], valid[second]))
    same = shared > SAME_GROUND * np.minimum(area[first], area[second])
    pairs = told[first[same]], told[second[same]]
    joined = coo_array((np.ones(len(pairs[0]), np.bool_), pairs), shape=(len(shapes), len(shapes)))
    return np.asarray(connected_components(joined, directed=False)[1], np.int64)
