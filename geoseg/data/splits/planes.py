"""From units to the part of each pixel: polygons rasterised on every scene by pixel centre, window by window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from geoseg.data.grids import LONLAT
from geoseg.data.scene import OUTSIDE, TRAINING, SceneArrays, windows_of
from geoseg.data.splits.ground import footprint, scene_keys, turns
from geoseg.data.splits.plan import PART_CODES, SplitPlan, SplitUnit, class_counts
from geoseg.io.burning import burn
from geoseg.io.grids import crop
from geoseg.io.polygons import Polygons
from geoseg.jit import jit

NONE = -1  # the unit of a pixel that lies in none
FIRST_BURNT = ("training", "validation", "test", "outside")  # where two overlap the later stands


@dataclass(frozen=True)
class Places:
    """Where units lie, ready to be looked up on any scene.

    Attributes:
        everywhere: Polygons that hold for all scenes.
        numbers: The unit of each of them.
        own: By scene, the polygons that hold there only, and the unit of each; these stand above the others.
        whole: By scene, the unit that covers all of it.
    """

    everywhere: Polygons
    numbers: NDArray[np.int64]
    own: Mapping[str, tuple[Polygons, NDArray[np.int64]]]
    whole: Mapping[str, int]

    @classmethod
    def of(cls, units: Sequence[tuple[BaseGeometry | None, str | None]], scenes: Sequence[SceneArrays]) -> Places:
        """The places of units, each a geometry in degrees and the scene that it holds for; later ones stand above."""
        boxes = dict(zip(scene_keys(scenes), (scene.geobox for scene in scenes), strict=True))
        everywhere = [k for k, (geometry, scene) in enumerate(units) if scene is None and geometry is not None]
        named: dict[str, list[int]] = {}
        for k, (_, scene) in enumerate(units):
            if scene in boxes:
                named.setdefault(scene, []).append(k)
        whole = {key: mine[-1] for key, mine in named.items() if _is_whole(units[mine[-1]][0], boxes[key])}
        own = {key: _polygons(units, mine) for key, mine in named.items() if key not in whole}
        return cls(*_polygons(units, everywhere), own, whole)

    def plane(self, key: str, geobox: GeoBox) -> NDArray[np.int32]:
        """The unit of each pixel of a window of a scene, `(row, col)`; -1 where there is none."""
        if key in self.whole:
            return np.full(tuple(geobox.shape), self.whole[key], np.int32)
        found = np.full(tuple(geobox.shape), NONE, np.int32)
        if geobox.crs is None:
            return found
        for polygons, numbers in filter(None, (self._everywhere, self.own.get(key))):
            for turned in _turned(geobox):
                above = burn(polygons, numbers, turned, fill=NONE, dtype=np.int32)
                np.copyto(found, above, where=above != NONE)
        return found

    @cached_property
    def _everywhere(self) -> tuple[Polygons, NDArray[np.int64]] | None:
        return (self.everywhere, self.numbers) if len(self.everywhere) else None


def _turned(geobox: GeoBox) -> list[GeoBox]:
    """The grid where polygons between -180 and 180 may meet it: a grid in degrees may count on, from 0 to 360."""
    if geobox.crs is None or not geobox.crs.geographic:
        return [geobox]
    west, _, east, _ = geobox.extent.boundingbox.bbox
    return [
        GeoBox(geobox.shape, Affine.translation(-360 * turn, 0) @ geobox.affine, geobox.crs)
        for turn, _, _ in turns(west, east)
    ]


def _polygons(
    units: Sequence[tuple[BaseGeometry | None, str | None]], chosen: Sequence[int]
) -> tuple[Polygons, NDArray[np.int64]]:
    placed = [k for k in chosen if units[k][0] is not None]
    geometries = np.empty(len(placed), object)
    geometries[:] = [units[k][0] for k in placed]
    return Polygons(geometries, LONLAT), np.array(placed, np.int64)


def _is_whole(geometry: BaseGeometry | None, geobox: GeoBox) -> bool:
    """Whether a unit of a scene covers all of it: it has no geometry, or the scene's outline."""
    if geometry is None or geobox.crs is None:
        return geometry is None
    return bool(geometry.equals_exact(footprint(geobox), 1e-7))


@jit
def _tally(counts: NDArray[np.int64], unit: NDArray[Any], label: NDArray[Any]) -> None:
    """Adds the labels of pixels to the counts `(unit, class)` of their units; the last row is for pixels in none."""
    for k in range(unit.size):
        if label[k] < counts.shape[1]:
            counts[unit[k], label[k]] += 1


def count_units(
    scenes: Sequence[SceneArrays], units: Sequence[tuple[BaseGeometry | None, str | None]], *, classes: int
) -> NDArray[np.int64]:
    """Labelled pixels, `(unit, class)`, of units given as for `Places.of`."""
    places, counts = Places.of(units, scenes), np.zeros((len(units) + 1, classes), np.int64)
    for key, scene in zip(scene_keys(scenes), scenes, strict=True):
        for window in windows_of(scene.shape):
            labels = scene.labels[window.slices]
            told = labels != scene.no_label
            if told.any():
                unit = places.plane(key, crop(scene.geobox, window))
                _tally(counts, unit[told], labels[told])
    return counts[:-1]


def write_parts(scenes: Sequence[SceneArrays], plan: SplitPlan) -> SplitPlan:
    """Writes the part of every pixel of `scenes` as the units say, without a buffer.

    Returns:
        The plan with its units in the order in which they were burnt, and the pixels counted in each.
    """
    order = sorted(plan.units, key=lambda unit: FIRST_BURNT.index(unit.part))
    units = [(unit.geometry, unit.scene) for unit in order]
    places, counts = Places.of(units, scenes), np.zeros((len(units) + 1, len(plan.classes)), np.int64)
    codes = np.array([PART_CODES[unit.part] for unit in order], np.uint8)
    for key, scene in zip(scene_keys(scenes), scenes, strict=True):
        _write_scene(key, scene, places, np.append(codes, OUTSIDE if _trains(order, key) else TRAINING), counts)
    counted = [replace(unit, counts=class_counts(row)) for unit, row in zip(order, counts, strict=False)]
    return replace(plan, units=tuple(counted))


def _trains(units: Sequence[SplitUnit], key: str) -> bool:
    """Whether some unit says what of a scene trains, so that labels in no unit do not."""
    return any(unit.part == "training" and unit.scene in (None, key) for unit in units)


def _write_scene(
    key: str, scene: SceneArrays, places: Places, codes: NDArray[np.uint8], counts: NDArray[np.int64]
) -> None:
    """Writes the parts of one scene; the last of `codes` is that of labelled pixels in no unit."""
    for window in windows_of(scene.shape):
        valid, labels = scene.valid[window.slices], scene.labels[window.slices]
        unit = places.plane(key, crop(scene.geobox, window))
        told = labels != scene.no_label
        _tally(counts, unit[told], labels[told])
        # What has no label is context around what trains, wherever it lies.
        part = np.where((unit == NONE) & ~told, np.uint8(TRAINING), codes[unit])
        scene.part[window.slices] = np.where(valid, part, np.uint8(OUTSIDE))


def part_counts(scenes: Sequence[SceneArrays], *, classes: int) -> NDArray[np.int64]:
    """Labelled pixels of each class in each part, `(part, class)`, in the order of the parts' codes."""
    counts = np.zeros((len(PART_CODES) + 1, classes), np.int64)
    for scene in scenes:
        for window in windows_of(scene.shape):
            labels = scene.labels[window.slices]
            told = labels != scene.no_label
            _tally(counts, scene.part[window.slices][told], labels[told])
    return counts[:-1]
