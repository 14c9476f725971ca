"""A split as a value: units with their place and part, kept as GeoJSON that a GIS opens."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import mapping, shape
from shapely.geometry.base import BaseGeometry

from geoseg.data.scene import OUTSIDE, PARTS
from geoseg.errors import InputError, MissingInputError, OutputError, ReadError

Part = Literal["training", "validation", "test", "outside"]
PART_WORDS: dict[str, Part] = {
    "training": "training", "train": "training", "validation": "validation", "val": "validation", "valid": "validation",
    "test": "test", "testing": "test", "outside": "outside", "none": "outside",
}  # fmt: skip
PART_CODES = {**PARTS, "outside": OUTSIDE}
MEMBER, VERSION = "geoseg_split", 1
PIXELS = "pixels_"  # before the name of a class: labelled pixels of it


@dataclass(frozen=True, slots=True)
class SplitUnit:
    """A place that is wholly of one part.

    Attributes:
        geometry: Polygons in longitude and latitude (WGS 84); None for a whole scene without a CRS.
        part: training, validation, test or outside.
        scene: The scene that it holds for, where it does not hold for all.
        fold: Its fold, where there are folds.
        counts: Labelled pixels of each class in it, before the buffer is cut.
    """

    geometry: BaseGeometry | None
    part: Part
    scene: str | None = None
    fold: int | None = None
    counts: tuple[int, ...] = ()


@dataclass(frozen=True)
class SplitPlan:
    """A split of scenes: what lies where, and how far apart the parts are kept.

    Attributes:
        units: The units; what lies in none trains, but for labelled pixels where some unit of no particular scene, or
            of that scene, is said to train: these lie outside.
        buffer_m: No training pixel lies this close to one that validates or tests, in metres; None for 16 pixels.
        classes: Names of the classes.
        method: How the split was made, in words.
        pixels: Labelled pixels of each class in each part after the buffer was cut; `outside` are those in the buffer
            or in no unit.
    """

    units: tuple[SplitUnit, ...]
    buffer_m: float | None
    classes: tuple[str, ...]
    method: str = ""
    pixels: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def to_geojson(self) -> dict[str, Any]:
        """The plan as a GeoJSON collection, a feature a unit; what holds for all stands in a member of its own."""
        said = {
            "version": VERSION, "method": self.method, "buffer_m": self.buffer_m, "classes": list(self.classes),
            "pixels": {part: list(counts) for part, counts in self.pixels.items()},
        }  # fmt: skip
        features = [_feature(unit, self.classes) for unit in self.units]
        return {"type": "FeatureCollection", MEMBER: said, "features": features}

    @classmethod
    def from_geojson(cls, document: Mapping[str, Any]) -> SplitPlan:
        """The plan of a collection that `to_geojson` made, as it was or edited in a GIS.

        Raises:
            InputError: It is none.
        """
        said = document.get(MEMBER) or {}
        features = document.get("features")
        if document.get("type") != "FeatureCollection" or not isinstance(features, list) or not isinstance(said, dict):
            raise InputError(
                "a split is a GeoJSON FeatureCollection of polygons with a property part, and this is none"
            )
        if not all(isinstance(feature, dict) for feature in features):
            raise InputError("the split holds something that is no GeoJSON feature; needed are polygons")
        if said.get("version", VERSION) != VERSION:
            raise InputError(f"the split is of version {said['version']}: this geoseg reads version {VERSION}")
        classes = tuple(map(str, said.get("classes") or _class_names(features)))
        units = tuple(_unit(feature, classes, number) for number, feature in enumerate(features))
        pixels = {str(part): tuple(map(int, counts)) for part, counts in (said.get("pixels") or {}).items()}
        buffer_m = said.get("buffer_m")
        return cls(units, None if buffer_m is None else float(buffer_m), classes, str(said.get("method", "")), pixels)

    def write(self, path: str | Path) -> None:
        """Writes the GeoJSON file, whole or not at all.

        Raises:
            OutputError: The place cannot be written.
        """
        path = Path(path)
        scratch = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_text(_lines(self.to_geojson()), "utf-8")
            scratch.replace(path)
        except OSError as error:
            with suppress(OSError):
                scratch.unlink(missing_ok=True)
            raise OutputError(f"the split {path} cannot be written: {error.strerror or error}") from error

    @classmethod
    def read(cls, path: str | Path) -> SplitPlan:
        """The plan in a GeoJSON file.

        Raises:
            MissingInputError: The file is not there.
            ReadError: It is no JSON.
            InputError: It is no split.
        """
        return cls.from_geojson(read_json(path))


def read_json(path: str | Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        MissingInputError: The file is not there.
        ReadError: It cannot be read, or is no JSON object.
    """
    try:
        document = json.loads(Path(path).read_text("utf-8"))
    except FileNotFoundError as error:
        raise MissingInputError(f"the split {path} is not there; needed is a file of polygons") from error
    except (OSError, ValueError) as error:
        raise ReadError(f"the split {path} cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise ReadError(f"the split {path} is no GeoJSON; needed is a FeatureCollection")
    return document


def part_of(word: Any, where: str) -> Part:
    """The part that a word in a file means.

    Raises:
        InputError: It means none.
    """
    part = PART_WORDS.get(str(word).strip().lower())
    if part is None:
        raise InputError(f"{where} has the part {word!r}; needed is one of training, validation, test, outside")
    return part


def _lines(document: dict[str, Any]) -> str:
    """JSON with a line for each feature, so that two splits can be compared by eye."""
    features = ",\n".join(json.dumps(feature, ensure_ascii=False) for feature in document["features"])
    head = json.dumps({**document, "features": []}, ensure_ascii=False)
    return f"{head[:-2]}\n{features}\n]}}\n"


def _feature(unit: SplitUnit, classes: Sequence[str]) -> dict[str, Any]:
    said: dict[str, Any] = {"part": unit.part}
    if unit.scene is not None:
        said["scene"] = unit.scene
    if unit.fold is not None:
        said["fold"] = unit.fold
    said |= {f"{PIXELS}{name}": count for name, count in zip(classes, unit.counts, strict=False)}
    geometry = None if unit.geometry is None else mapping(unit.geometry)
    return {"type": "Feature", "properties": said, "geometry": geometry}


def _class_names(features: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of classes from the properties of features."""
    names = (
        key.removeprefix(PIXELS)
        for feature in features
        for key in feature.get("properties") or {}
        if key.startswith(PIXELS)
    )
    return list(dict.fromkeys(names))


def _unit(feature: Any, classes: Sequence[str], number: int) -> SplitUnit:
    where = f"polygon {number + 1} of the split"
    try:
        said = feature["properties"] or {}
        geometry = None if feature["geometry"] is None else shape(feature["geometry"])
        fold = None if said.get("fold") is None else int(said["fold"])
        counts = tuple(int(said.get(f"{PIXELS}{name}") or 0) for name in classes)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, shapely.errors.ShapelyError) as error:
        raise InputError(f"{where} is no GeoJSON feature: {error}") from error
    if "part" not in said:
        have = ", ".join(map(str, said)) or "none"
        raise InputError(f"{where} has no property part; its properties are {have}; attribute: NAME reads another")
    scene = None if said.get("scene") is None else str(said["scene"])
    return SplitUnit(geometry, part_of(said["part"], where), scene, fold, counts)


def class_counts(counts: NDArray[np.int64]) -> tuple[int, ...]:
    """A row of counts as plain integers."""
    return tuple(map(int, counts))
