"""COCO panoptic: one JSON of images and segments, and a picture an image whose colours are the segments' ids.

The format is described at https://cocodataset.org/#format-data ("Panoptic Segmentation"): a segment's id is
red + 256 green + 65536 blue, and 0 is no segment.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geoseg.data.doors.chip_files import some
from geoseg.data.doors.masks import MaskOnImage, handed_down, path_of, without_suffix
from geoseg.errors import BandError, InputError, MissingInputError, ReadError
from geoseg.io.gdal import GdalSource
from geoseg.io.grids import grids_meet
from geoseg.io.sources import Source
from geoseg.legend import Kind, Legend, LegendClass, default_color
from geoseg.raster import Raster

COCO_KEYS = ("json", "images", "segments", "crowd", "part")
SEGMENT_IDS = 1 << 24
"""Numbers that the three bytes of a colour tell apart."""

SEGMENT_DTYPE = np.dtype(np.int32)


def _is_whole(value: Any) -> bool:
    if isinstance(value, float):
        return value.is_integer()
    return isinstance(value, int) and not isinstance(value, bool)


def _is_segment(value: Any) -> bool:
    return _is_whole(value) and 0 <= value < SEGMENT_IDS


def _is_color(value: Any) -> bool:
    """Whether it is a colour, or nothing."""
    rgb = isinstance(value, list) and len(value) == 3
    return not value or (rgb and all(_is_whole(part) and 0 <= part <= 255 for part in value))


Check = tuple[str, Callable[[Any], bool]]
NAME: Check = "a number or a text", lambda value: isinstance(value, str | int | float)
TEXT: Check = "a text", lambda value: isinstance(value, str)
LIST: Check = "a list", lambda value: isinstance(value, list)
WHOLE: Check = "a whole number", _is_whole
SEGMENT: Check = f"a whole number of 0 to {SEGMENT_IDS - 1}", _is_segment
COLOR: Check = "a list of three numbers 0 to 255", _is_color

PARTS = ("images", "annotations", "categories")
FIELDS: dict[str, dict[str, Check]] = {
    "images": {"id": NAME, "file_name": TEXT},
    "annotations": {"image_id": NAME, "file_name": TEXT, "segments_info": LIST},
    "categories": {"id": WHOLE, "name": NAME, "color": COLOR},
    "segments_info": {"id": SEGMENT, "category_id": WHOLE},
}
"""What is read of each entry of a panoptic JSON: what it must be, and whether it is."""


@dataclass(frozen=True)
class CocoLabels:
    """The classes of a panoptic picture, with its segments at hand.

    Attributes:
        source: Red, green and blue of the picture, on the grid of its image.
        legend: The classes.
        segments: Ids of the picture's segments, in ascending order.
        classes: Class id of each segment, `legend.ignore` where it is to be ignored.
        counted: Whether each segment is one object: not a crowd of them, and of a class of things.
    """

    source: Source
    legend: Legend
    segments: tuple[int, ...]
    classes: tuple[int, ...]
    counted: tuple[bool, ...]

    @property
    def geobox(self) -> GeoBox:
        """The image's grid."""
        return self.source.geobox

    @property
    def bands(self) -> tuple[str, ...]:
        """`label`."""
        return ("label",)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The legend's dtype."""
        return self.legend.dtype

    def read(self, geobox: GeoBox) -> Raster:
        """Class ids on `geobox`, nearest neighbour; invalid where no segment is, or one to be ignored.

        Raises:
            ReadError: The picture cannot be read there, or has a segment that the JSON lacks.
            BandError: The picture has not three bands.
            GridError: One of the grids has no CRS and they are not one grid.
        """
        place, valid = self._places(geobox)
        ids = np.array([*self.classes, self.legend.ignore], self.dtype)[place]
        valid &= ids != self.legend.ignore
        return Raster(np.where(valid, ids, self.legend.ignore).astype(self.dtype)[None], valid, geobox, self.bands)

    def bounds_overlap(self, geobox: GeoBox) -> bool:
        """Whether the picture's bounds meet those of the grid."""
        return grids_meet(self.geobox, geobox)

    def instances(self) -> CocoInstances:
        """The objects: ids of the segments that are one thing each."""
        return CocoInstances(self)

    def _places(self, geobox: GeoBox) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Position in `segments` of each pixel's segment, their number where it is none; and where there is one."""
        found = self.source.read(geobox)
        if len(found.pixels) != 3:
            raise BandError(
                f"{path_of(self._picture)} has {len(found.pixels)} bands; needed are three, red, green and blue, in "
                "which COCO writes the ids of segments"
            )
        red, green, blue = found.pixels.astype(np.int64)
        ids = red + (green << 8) + (blue << 16)
        known = np.array([*self.segments, np.iinfo(np.int64).max])
        place = np.searchsorted(known, ids)
        stray = found.valid & (ids != 0) & (known[place] != ids)
        if stray.any():
            values, counts = np.unique(ids[stray], return_counts=True)
            raise ReadError(
                f"{path_of(self._picture)} has segments that its JSON does not name: "
                f"{some([f'{value} ({count} pixels)' for value, count in zip(values, counts, strict=True)])}; needed "
                "is each in segments_info; is it the picture of another JSON?"
            )
        valid = found.valid & (ids != 0)
        return np.where(valid, place, len(self.segments)), valid

    @property
    def _picture(self) -> Any:
        return self.source.source if isinstance(self.source, MaskOnImage) else self.source


@dataclass(frozen=True)
class CocoInstances:
    """The objects of a panoptic picture: one band `instance`, the id of the segment, 0 and invalid where none is.

    Attributes:
        labels: The picture.
    """

    labels: CocoLabels

    @property
    def geobox(self) -> GeoBox:
        """The image's grid."""
        return self.labels.geobox

    @property
    def bands(self) -> tuple[str, ...]:
        """`instance`."""
        return ("instance",)

    @property
    def dtype(self) -> np.dtype[Any]:
        """int32."""
        return SEGMENT_DTYPE

    def read(self, geobox: GeoBox) -> Raster:
        """Ids of objects on `geobox`, nearest neighbour.

        Raises:
            ReadError: The picture cannot be read there, or has a segment that the JSON lacks.
            GridError: One of the grids has no CRS and they are not one grid.
        """
        place, valid = self.labels._places(geobox)  # noqa: SLF001 - the same picture, read another way
        valid &= np.array([*self.labels.counted, False])[place]
        ids = np.array([*self.labels.segments, 0], SEGMENT_DTYPE)[place]
        return Raster(np.where(valid, ids, 0).astype(SEGMENT_DTYPE)[None], valid, geobox, self.bands)


def coco_scenes(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One scene an annotated image of a COCO panoptic set, in the order of the JSON; no picture is opened.

    The legend has the categories' names and colours; those with `isthing` are things. Ids are the categories', or 1,
    2, ... where one of them is no id that a map can hold; codes are the categories' in any case.

    Args:
        spec: `coco` is a mapping, what stands beside it (`part`, `weight`, ...) goes to each image; `name` stands in
            front of their names. Its keys: `json`, a file in COCO's panoptic format; `images`, the folder of images, or
            a mapping `{path: folder, bands: [...], ...}` with options of a source; `segments`, the folder of the
            pictures of segments; `crowd`: `ignore` (the default) or `keep` what is marked `iscrowd`; `part`.

    Raises:
        InputError: An option makes no sense, or the JSON does not fit itself.
        MissingInputError: A file or folder is not there.
        ReadError: The JSON cannot be read, or is of another format.
        LegendError: Two categories share a name.
    """
    given = _checked(spec["coco"])
    document = _document(Path(str(given["json"])).expanduser())
    legend = coco_legend(document["categories"])
    class_ids = {code: item.id for item in legend.classes for code in item.codes}
    images = {image["id"]: image for image in document["images"]}
    beside = handed_down(spec, "coco") | {key: given[key] for key in ("part",) if given.get(key) is not None}
    prefix = beside.pop("name", None)
    place, options = _images(given["images"])
    pairs = [(_image_of(images, entry, given["json"]), entry) for entry in document["annotations"]]
    _refuse_missing(place, [image["file_name"] for image, _ in pairs], "images")
    _refuse_missing(Path(str(given["segments"])).expanduser(), [entry["file_name"] for _, entry in pairs], "segments")
    scenes = []
    for image, entry in pairs:
        path, name = place / image["file_name"], _name(image["file_name"], place, prefix)
        mask = GdalSource(str(Path(str(given["segments"])).expanduser() / entry["file_name"]), resampling="nearest")
        source = MaskOnImage(mask, GdalSource(str(path), crs=options.get("crs")))
        labels = _labels(source, entry, legend, class_ids, keep=given.get("crowd") == "keep")
        scenes.append({**_image(path, options), "labels": labels, "name": name, **beside})
    return scenes


def coco_images(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One scene without labels for each image that a JSON of COCO lists, annotated or not.

    Args:
        spec: `coco` is a mapping with `json`, of any of COCO's formats, and `images`; `images` and what stands beside
            it are as for `coco_scenes`.

    Raises:
        InputError: An option makes no sense.
        MissingInputError: A file or folder is not there.
        ReadError: The JSON cannot be read, or lists no images.
    """
    given = spec["coco"]
    if not isinstance(given, Mapping) or set(given) != {"json", "images"}:
        raise InputError(f"coco of data.unlabelled must be a mapping with json and images alone, got {given!r}")
    files = [image["file_name"] for image in _document(Path(str(given["json"])).expanduser(), ("images",))["images"]]
    place, options = _images(given["images"])
    _refuse_missing(place, files, "images")
    beside = handed_down(spec, "coco")
    prefix = beside.pop("name", None)
    return [{**_image(place / file, options), "name": _name(file, place, prefix), **beside} for file in files]


def coco_legend(categories: Sequence[Mapping[str, Any]]) -> Legend:
    """The legend of COCO's categories.

    Raises:
        LegendError: Two categories share a name or an id.
    """
    ordered = sorted(categories, key=lambda category: int(category["id"]))
    fits = all(0 <= int(category["id"]) < 65535 for category in ordered)
    items: list[LegendClass] = []
    for number, category in enumerate(ordered, start=1):
        name, code = str(category["name"]), int(category["id"])
        color = _hex(category.get("color")) or default_color(name, number - 1, taken=[item.color for item in items])
        kind: Kind = "thing" if category.get("isthing", 0) else "stuff"
        items.append(LegendClass(code if fits else number, name, color, kind, (code,)))
    return Legend(tuple(items), -1 if fits else _free(items))


def _free(items: Sequence[LegendClass]) -> int:
    """An ignore value that no class has as id or as code."""
    taken = {value for item in items for value in (item.id, *item.codes)}
    return next(value for value in chain([255], range(65535, 0, -1)) if value not in taken)


def _hex(color: Any) -> str | None:
    return "#" + "".join(f"{int(part):02x}" for part in color) if color else None


def _checked(given: Any) -> Mapping[str, Any]:
    needed = COCO_KEYS[:3]
    if not isinstance(given, Mapping) or any(given.get(key) is None for key in needed):
        raise InputError(f"coco must be a mapping with {', '.join(needed)}, got {given!r}")
    stray = [str(key) for key in given if key not in COCO_KEYS]
    if stray:
        raise InputError(f"coco has no option {', '.join(stray)}; known are {', '.join(COCO_KEYS)}")
    if given.get("crowd", "ignore") not in ("ignore", "keep"):
        raise InputError(f"crowd is {given['crowd']!r}; known are ignore, keep")
    return given


def _images(given: Any) -> tuple[Path, dict[str, Any]]:
    """The folder of images, and options of each."""
    options = dict(given) if isinstance(given, Mapping) else {"path": given}
    if not isinstance(options.get("path"), str | Path):
        raise InputError(f"coco: images must be a folder, or {{path: folder, bands: [...]}}, got {given!r}")
    return Path(str(options.pop("path"))).expanduser(), options


def _image(path: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    return {"image": {"path": str(path), **options} if options else str(path)}


def _name(file: str, place: Path, prefix: str | None) -> str:
    return f"{prefix}/{without_suffix(file)}" if prefix else without_suffix(str(place / file))


def _document(path: Path, parts: Sequence[str] = PARTS) -> dict[str, Any]:
    """The JSON, which has the parts of a panoptic set that are wanted.

    Raises:
        MissingInputError: It is not there.
        ReadError: It is no JSON, of another kind, or damaged.
    """
    wanted = "a JSON in COCO's panoptic format" if "annotations" in parts else "a JSON in any of COCO's formats"
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise MissingInputError(f"coco: {path} is not there; needed is {wanted}") from error
    except (OSError, ValueError) as error:
        raise ReadError(f"coco: {path} cannot be read as JSON: {error}") from error
    for part in parts:
        entries = found.get(part) if isinstance(found, dict) else None
        if not isinstance(entries, list) or not entries:
            raise ReadError(f"coco: {path} has no {part}; needed is {wanted}")
        _check_entries(entries, part, path)
    for entry in found["annotations"] if "annotations" in parts else ():
        _check_entries(entry["segments_info"], "segments_info", path)
    return cast("dict[str, Any]", found)


def _check_entries(entries: Sequence[Any], part: str, path: Path) -> None:
    """Nothing, where each entry has what is read of it.

    Raises:
        ReadError: One has not.
    """
    for entry in entries:
        if not isinstance(entry, dict):
            raise ReadError(f"coco: {part} of {path} have an entry {entry!r:.60}, needed is an object")
        for key, (wanted, fits) in FIELDS[part].items():
            if fits(entry.get(key)):
                continue
            if key in entry:
                raise ReadError(f"coco: {part} of {path} have {key} {entry[key]!r:.60}, needed is {wanted}")
            hint = "; is it of the format for instances?" if key == "segments_info" else ""
            raise ReadError(f"coco: {part} of {path} lack {key}, which COCO's panoptic format has{hint}")


def _image_of(images: Mapping[Any, Mapping[str, Any]], entry: Mapping[str, Any], path: Any) -> Mapping[str, Any]:
    if entry["image_id"] not in images:
        raise InputError(f"coco: {path} has segments of image {entry['image_id']}, which is not among its images")
    return images[entry["image_id"]]


def _refuse_missing(folder: Path, names: Sequence[str], what: str) -> None:
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        raise MissingInputError(
            f"coco: {len(missing)} of {len(names)} {what} are not in {folder}: {some(missing)}; give the folder from "
            f"which the JSON counts with {what}:"
        )


def _labels(
    source: Source, entry: Mapping[str, Any], legend: Legend, class_ids: Mapping[int, int], *, keep: bool
) -> CocoLabels:
    """The label source of one annotated image.

    Raises:
        InputError: A segment is of an unknown category, or there twice.
    """
    segments = sorted(entry["segments_info"], key=lambda segment: int(segment["id"]))
    ids = tuple(int(segment["id"]) for segment in segments)
    if len(set(ids)) < len(ids):
        twice = next(one for one, other in pairwise(ids) if one == other)
        raise InputError(f"coco: segment {twice} of {entry['file_name']} is there twice; needed is one entry a segment")
    unknown = [segment for segment in segments if segment["category_id"] not in class_ids]
    if unknown:
        raise InputError(
            f"coco: segment {unknown[0]['id']} of {entry['file_name']} is of category {unknown[0]['category_id']}, "
            f"which is not among the categories {some([str(code) for code in sorted(class_ids)])}"
        )
    crowd = [bool(segment.get("iscrowd", 0)) for segment in segments]
    classes = tuple(
        legend.ignore if many and not keep else class_ids[segment["category_id"]]
        for segment, many in zip(segments, crowd, strict=True)
    )
    things = {item.id for item in legend.classes if item.kind == "thing"}
    counted = tuple(not many and k in things for k, many in zip(classes, crowd, strict=True))
    return CocoLabels(source, legend, ids, classes, counted)
