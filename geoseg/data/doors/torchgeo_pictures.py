"""The picture files of torchgeo's chip datasets, as far as their attributes list them: sizes without decoding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
MASKS = ("mask", "label", "target", "lbl", "gt")
PIL_DTYPES = {"1": "uint8", "L": "uint8", "P": "uint8", "RGB": "uint8", "RGBA": "uint8", "CMYK": "uint8",
              "I;16": "uint16"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class File:
    """A file behind a source that reads it by ways of its own, so that what GDAL says of it does not count.

    Attributes:
        path: Where it is.
    """

    path: str


@dataclass(frozen=True, slots=True)
class Header:
    """What a picture says before it is decoded.

    Attributes:
        shape: Rows and columns.
        bands: Its bands.
        kind: Dtype of its pixels, where that is plain.
    """

    shape: tuple[int, int]
    bands: int
    kind: str | None


def header(path: str) -> Header | None:
    """The header of a picture; None where it cannot be read."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            return Header((picture.height, picture.width), len(picture.getbands()), PIL_DTYPES.get(picture.mode))
    except (OSError, UnidentifiedImageError, SyntaxError, Image.DecompressionBombError):
        return None


@dataclass(frozen=True, slots=True)
class Pictures:
    """Files of a dataset, one an item.

    Attributes:
        images: Paths of the images, where they are listed.
        masks: Paths of the masks, where they are listed.
        alone: Whether there is one list of images and one of masks, so that an item is made of these two files.
    """

    images: Sequence[str] | None = None
    masks: Sequence[str] | None = None
    alone: bool = False

    def at(self, index: int) -> tuple[File | None, File | None]:
        """Image and mask of an item."""
        return File(self.images[index]) if self.images else None, File(self.masks[index]) if self.masks else None


def base_of(dataset: Any) -> Any:
    """The dataset that a subset, or a subset of one, is of."""
    return base_of(dataset.dataset) if hasattr(dataset, "indices") and hasattr(dataset, "dataset") else dataset


def pictures_of(dataset: Any) -> Pictures:
    """The files that a dataset's attributes list."""
    if base_of(dataset) is not dataset:
        inner = pictures_of(dataset.dataset)
        images, masks = (
            None if paths is None else [paths[index] for index in dataset.indices]
            for paths in (inner.images, inner.masks)
        )
        return Pictures(images, masks, inner.alone)
    if type(dataset).__name__.startswith("LandCoverAI") and hasattr(dataset, "ids"):
        stems = [str(Path(dataset.root) / "output" / item.strip()) for item in dataset.ids]
        return Pictures([f"{stem}.jpg" for stem in stems], [f"{stem}_m.png" for stem in stems], alone=True)
    found: dict[bool, list[list[str]]] = {True: [], False: []}
    for name, value in vars(dataset).items():
        if isinstance(value, list) and value and len(value) == len(dataset):
            for is_mask, paths in _listed(name, value):
                found[is_mask].append(paths)
    images, masks = (found[kind][0] if found[kind] else None for kind in (False, True))
    return Pictures(images, masks, alone=len(found[True]) == len(found[False]) == 1)


def _listed(name: str, items: list[Any]) -> list[tuple[bool, list[str]]]:
    """Whether it is of masks, and the paths, of each list of pictures in a list of paths or of mappings to paths."""
    if isinstance(items[0], Mapping):
        keys = sorted(str(key) for key, value in items[0].items() if _is_picture(value))
        columns = [(key, [item.get(key) for item in items]) for key in keys]
    else:
        columns = [(name, items)] if _is_picture(items[0]) else []
    return [
        (any(word in key.lower() for word in MASKS), [str(path) for path in paths])
        for key, paths in columns
        if all(_is_picture(path) for path in paths)
    ]


def _is_picture(value: Any) -> bool:
    return isinstance(value, str | Path) and str(value).lower().endswith(SUFFIXES)
