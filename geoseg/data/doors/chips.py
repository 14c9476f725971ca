"""Folders of paired chips: an image and a mask a chip, as most training sets come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, cast

from geoseg.data.doors.chip_files import chip_files, looked_up, some, split_lines
from geoseg.data.doors.masks import PLACELESS, MaskOnImage, handed_down, without_suffix
from geoseg.errors import InputError, MissingInputError
from geoseg.io.clouds import by_nearest
from geoseg.io.combine import BandStack
from geoseg.io.facts import Facts
from geoseg.io.gdal import GdalSource
from geoseg.io.sources import Source

CHIP_KEYS = ("images", "labels", "pair", "list", "part", "unpaired")
LABEL_KEYS = ("legend", "colors", "tolerance", "background", "ignore")
"""Options of labels that may also stand beside `labels`."""

MASK_KEYS = ("select", "nodata", "crs", "resampling")
"""Options of a source that masks which are pictures know."""

MAY_LACK_PLACE = (".tif", ".tiff")
"""Kinds of file that mostly say where they lie, but not always: masks come without the world files of their images."""

FOUND = ("path", "bands", "select", "nodata", "scale", "offset", "crs", "resampling")
"""Keys of a mapping of images that is a place with options, not several bands."""


@dataclass(frozen=True, slots=True)
class Chips:
    """Chips of one kind, images or labels.

    Attributes:
        what: `images` or `labels`, for messages.
        files: Paths by key, one mapping a band where bands are files of their own.
        bands: Names of these bands; None where a chip is one file.
        options: Options of each band's source.
    """

    what: str
    files: tuple[dict[str, str], ...]
    bands: tuple[str, ...] | None
    options: tuple[dict[str, Any], ...]

    def paths(self, key: str) -> list[str]:
        """The files of a chip."""
        return [files[key] for files in self.files]

    def spec(self, key: str) -> Any:
        """What `open_source` opens a chip by."""
        members: list[Any] = [
            {"path": path, **options} if options else path
            for path, options in zip(self.paths(key), self.options, strict=True)
        ]
        return members[0] if self.bands is None else {"stack": members, "bands": list(self.bands)}

    def source(self, key: str) -> Source:
        """A chip's grid, for a mask that does not say where it lies; no file is opened."""
        members = [
            GdalSource(path, crs=_crs(options.get("crs")))
            for path, options in zip(self.paths(key), self.options, strict=True)
        ]
        return members[0] if self.bands is None else BandStack(tuple(members), names=self.bands)


@dataclass(frozen=True)
class ChipMask(MaskOnImage):
    """A mask of one file on the grid of its image, of which its file's names, colours and nodata tell the classes.

    Attributes:
        source: The file.
        image: The image.
    """

    source: GdalSource

    @property
    def facts(self) -> Facts:
        """What the file says of itself."""
        return self.source.facts

    @property
    def nodata(self) -> float | None:
        """The value that was said to be no class."""
        return self.source.nodata

    def nearest(self, codes: range | None = None) -> ChipMask:
        """The mask with its file's values read as `geoseg.io.clouds.by_nearest` does."""
        return replace(self, source=cast("GdalSource", by_nearest(self.source, codes=codes)))


def chip_scenes(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One scene a chip, in the order of their names or of the list; no file is opened.

    Args:
        spec: `chips` is a mapping, what stands beside it (`part`, `weight`, ...) goes to each chip; `name` stands in
            front of their names. Its keys:

            - `images`: a folder, whose rasters are taken with those in folders below; or a pattern such as
              `*/images/*.png`. A mapping `{path: P, bands: [...], nodata: ...}` adds options of a source; a mapping of
              band names to folders or patterns makes one image of several files.
            - `labels`: the same for masks; `{path: P, legend: ..., colors: ...}` adds options of labels. `legend`,
              `colors`, `tolerance`, `background` and `ignore` may stand beside it as well. A chip's image and mask are
              those of one relative path and stem, or for which the wildcards of the patterns stand for the same. A mask
              without a CRS, or of an image without one, has the pixels of its image.
            - `pair`: the mask's stem where it differs, such as `{stem}_mask`.
            - `list`: a text file with a chip a line, by name or path, or as image and mask with a comma between; those
              alone are taken. With two columns `images` and `labels` may be left out.
            - `part`: `training`, `validation`, `test` or `split`.
            - `unpaired`: `refuse` (the default) or `skip` images without a mask, masks without an image, and chips of
              the list that are not there.

    Raises:
        InputError: An option makes no sense, two files are one chip, or chips are not paired.
        MissingInputError: A folder, the list or a file of it is not there.
    """
    chips = spec["chips"]
    _check(chips)
    beside = handed_down(spec, "chips") | {key: chips[key] for key in ("part",) if chips.get(key) is not None}
    prefix = beside.pop("name", None)
    if chips.get("images") is None:
        images, labels = _listed_files(chips)
    else:
        images, labels = _chips(chips["images"], "images"), _chips(chips["labels"], "labels")
    options = {key: chips[key] for key in LABEL_KEYS if chips.get(key) is not None} | labels.options[0]
    scenes = []
    for image, label in _paired(images, labels, chips):
        name = f"{prefix}/{image}" if prefix else without_suffix(images.paths(image)[0])
        told = _labels(images, image, labels.paths(label)[0], options)
        scenes.append({"image": images.spec(image), "labels": told, "name": name, **beside})
    return scenes


def chip_images(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One scene without labels for each image, in the order of their names; no file is opened.

    Args:
        spec: `chips` is a mapping with `images` alone, as in `chip_scenes`; what stands beside it goes to each image,
            and `name` in front of their names.

    Raises:
        InputError: An option makes no sense, two files are one image, or an image lacks the file of a band.
        MissingInputError: A folder is not there.
    """
    chips = spec["chips"]
    if not isinstance(chips, Mapping) or set(chips) != {"images"}:
        raise InputError(f"chips of data.unlabelled must be a mapping with images alone, got {chips!r}")
    images, beside = _chips(chips["images"], "images"), handed_down(spec, "chips")
    prefix = beside.pop("name", None)
    scenes = []
    for key in dict.fromkeys(key for files in images.files for key in files):
        if lack := _lacking_band(images, key):
            raise InputError(f"chips: {lack}")
        name = f"{prefix}/{key}" if prefix else without_suffix(images.paths(key)[0])
        scenes.append({"image": images.spec(key), "name": name, **beside})
    return scenes


def _check(chips: Any) -> None:
    if not isinstance(chips, Mapping):
        raise InputError(f"chips must be a mapping with images and labels, got {chips!r}")
    known = (*CHIP_KEYS, *LABEL_KEYS)
    stray = [str(key) for key in chips if key not in known]
    if stray:
        raise InputError(f"chips has no option {', '.join(stray)}; known are {', '.join(known)}")
    given = [key for key in ("images", "labels") if chips.get(key) is not None]
    if len(given) != 2 and (given or chips.get("list") is None):
        raise InputError("chips needs images and labels, each a folder or a pattern; or a list of both")
    pair = chips.get("pair", "{stem}")
    if not isinstance(pair, str) or "{stem}" not in pair:
        raise InputError(f'pair must be the stem of a mask, such as "{{stem}}_mask", got {pair!r}')
    if "pair" in chips and not given:
        raise InputError("pair goes with images and labels; a list of both says itself what belongs together")
    if chips.get("unpaired", "refuse") not in ("refuse", "skip"):
        raise InputError(f"unpaired is {chips['unpaired']!r}; known are refuse, skip")


def _chips(given: Any, what: str) -> Chips:
    """The files that `images` or `labels` name."""
    if not isinstance(given, Mapping):
        return Chips(what, (chip_files(given, what),), None, ({},))
    if "path" in given:
        options = {key: value for key, value in given.items() if key != "path"}
        return Chips(what, (chip_files(given["path"], what),), None, (options,))
    if what == "labels" or not given or any(key in FOUND for key in given):
        raise InputError(f"chips: {what} needs path: beside its options, got {', '.join(map(str, given)) or 'none'}")
    members = [_chips(place, f"{what} of {band}") for band, place in given.items()]
    if any(member.bands for member in members):
        raise InputError(f"chips: {what} maps bands to folders or patterns, got a mapping within")
    return Chips(
        what,
        tuple(member.files[0] for member in members),
        tuple(str(band) for band in given),
        tuple(member.options[0] for member in members),
    )


def _crs(given: Any) -> str | None:
    return f"EPSG:{given}" if isinstance(given, int) else given


def _labels(images: Chips, image: str, path: str, options: dict[str, Any]) -> Any:
    """What `open_labels` opens a mask by; one that does not say where it lies lies where its image does."""
    suffix, known = PurePath(path).suffix.lower(), (*LABEL_KEYS, *MASK_KEYS)
    stray = [key for key in options if key not in known]
    nearest = options.get("resampling", "nearest") == "nearest"  # the only way in which a mask is read on its image
    if suffix not in PLACELESS and not (suffix in MAY_LACK_PLACE and nearest and not stray):
        return {"path": path, **options} if options else path
    if stray:
        raise InputError(
            f"chips: labels that are pictures have no option {', '.join(stray)}; known are {', '.join(known)}"
        )
    rest = {key: value for key, value in options.items() if key in LABEL_KEYS}
    return {"path": ChipMask(_mask(path, options), images.source(image)), **rest}


def _mask(path: str, options: Mapping[str, Any]) -> GdalSource:
    """The file of a mask; it is not opened.

    Raises:
        InputError: An option is of the wrong kind.
    """
    nodata, chosen = options.get("nodata"), options.get("select")
    if nodata is not None and (isinstance(nodata, bool) or not isinstance(nodata, int | float)):
        raise InputError(f"chips: nodata must be a number, got {nodata!r}")
    bands = [chosen] if isinstance(chosen, str | int) else chosen
    listed = isinstance(bands, Sequence) and bool(bands) and all(isinstance(band, str | int) for band in bands)
    if bands is not None and not listed:
        raise InputError(f"chips: select: needed are band names or numbers counted from 1, got {chosen!r}")
    named = None if bands is None else tuple(bands)
    return GdalSource(path, chosen=named, nodata=nodata, crs=_crs(options.get("crs")), resampling="nearest")


# -- pairs -------------------------------------------------------------------------------------------------------------


def _listed_files(chips: Mapping[str, Any]) -> tuple[Chips, Chips]:
    """The images and masks of a list with two columns, found from its folder or from here; their keys are the same.

    Raises:
        InputError: The list has a line without a mask.
        MissingInputError: A file is not there.
    """
    rows, folder = split_lines(chips["list"])
    if any(len(row) != 2 for row in rows):
        raise InputError(f"chips: {chips['list']} names no masks; needed are images and labels, or two columns in it")
    images: dict[str, str] = {}
    labels: dict[str, str] = {}
    missing: list[str] = []
    for row in rows:
        image, label = (_there(name, folder) for name in row)
        if image is not None and label is not None:
            images[image], labels[image] = image, label
        missing += [name for name, path in zip(row, (image, label), strict=True) if path is None]
    if not images or (missing and chips.get("unpaired") != "skip"):
        raise MissingInputError(
            f"chips: {len(missing)} files of the list {chips['list']} are not there: {some(missing)}; needed are paths "
            f"from {folder} on"
        )
    return Chips("images", (images,), None, ({},)), Chips("labels", (labels,), None, ({},))


def _there(name: str, folder: Path) -> str | None:
    """The file that a list names, in the list's folder or from here."""
    return next((str(path) for path in (folder / name, Path(name)) if path.exists()), None)


def _paired(images: Chips, labels: Chips, chips: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Keys of an image and of its mask, in order.

    Raises:
        InputError: One is without the other.
    """
    listed = chips.get("list") is not None and chips.get("images") is not None
    wanted, alone = _of_list(images, labels, chips) if listed else _of_all(images, labels, chips)
    found = []
    for image, label in wanted:
        lack = _lacking(images, labels, image, label)
        if lack:
            alone.append(lack)
        else:
            found.append((image, label))
    if not found or (alone and chips.get("unpaired") != "skip"):
        raise InputError(
            f"chips: {len(alone)} unpaired beside {len(found)} pairs: {some(sorted(alone))}; needed is a label for "
            'each image; give pair: "{stem}_mask" where names differ, or patterns whose wildcards stand for the same'
            + (", or unpaired: skip" if found else "")
        )
    return list(dict.fromkeys(found))


def _partner(key: str, chips: Mapping[str, Any]) -> str:
    """The mask's key of an image's key."""
    pair = chips.get("pair", "{stem}")
    if pair == "{stem}":
        return key
    whole = PurePosixPath(key)
    return str(whole.with_name(pair.replace("{stem}", whole.name)))


def _of_all(images: Chips, labels: Chips, chips: Mapping[str, Any]) -> tuple[list[tuple[str, str]], list[str]]:
    """Each image with its mask's key, and the masks that are of no image, in words."""
    wanted = [(key, _partner(key, chips)) for key in dict.fromkeys(key for files in images.files for key in files)]
    odd = labels.files[0].keys() - {label for _, label in wanted}
    return wanted, [f"label {labels.files[0][key]} has no image" for key in odd]


def _of_list(images: Chips, labels: Chips, chips: Mapping[str, Any]) -> tuple[list[tuple[str, str]], list[str]]:
    """The pairs that a list names, and what it names and is not there, in words."""
    rows, _ = split_lines(chips["list"])
    firsts = looked_up((row[0] for row in rows), images.files[0], "images")
    seconds = iter(looked_up((row[1] for row in rows if len(row) == 2), labels.files[0], "labels"))
    wanted: list[tuple[str, str]] = []
    alone: list[str] = []
    for row, image in zip(rows, firsts, strict=True):
        label = next(seconds) if len(row) == 2 else None if image is None else _partner(image, chips)
        if image is None:
            alone.append(f"'{row[0]}' of the list is no image")
        elif label is None:
            alone.append(f"'{row[1]}' of the list is no label")
        else:
            wanted.append((image, label))
    return wanted, alone


def _lacking(images: Chips, labels: Chips, image: str, label: str) -> str:
    """What is missing of a pair, in words; empty where nothing is."""
    if lack := _lacking_band(images, image):
        return lack
    return "" if label in labels.files[0] else f"image {_first(images, image)} has no label '{label}'"


def _lacking_band(images: Chips, image: str) -> str:
    """Which band's file an image lacks; empty where it has all."""
    for band, files in zip(images.bands or (), images.files, strict=bool(images.bands)):
        if image not in files:
            return f"image {_first(images, image)} has no file of band {band}"
    return ""


def _first(images: Chips, image: str) -> str:
    """The first file of an image."""
    return next(files[image] for files in images.files if image in files)
