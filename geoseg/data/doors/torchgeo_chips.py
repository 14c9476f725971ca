"""torchgeo's datasets of image chips (NonGeoDataset) as sources on grids without a place."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geoseg.data.doors.torchgeo_classes import band_names
from geoseg.data.doors.torchgeo_grid import CODE_DTYPE, bands_of, codes_of, lattice_of
from geoseg.data.doors.torchgeo_identity import bare, identity, is_stable
from geoseg.data.doors.torchgeo_pictures import File, Pictures, base_of, header, pictures_of
from geoseg.errors import InputError, ReadError
from geoseg.io.grids import Lattice
from geoseg.io.handles import one_line
from geoseg.io.resample import Patch, read_onto
from geoseg.raster import Raster
from geoseg.tiling import Window

KEPT, KEPT_BYTES = 8, 1 << 28
"""Chips kept decoded: image and mask of a chip are asked for one after the other, by some threads at once."""

FAULTS = (
    OSError,
    ValueError,
    RuntimeError,
    KeyError,
    IndexError,
    SyntaxError,
)  # Pillow calls a broken PNG a syntax error


@dataclass(frozen=True)
class Chip:
    """One decoded item.

    Attributes:
        image: `(band, row, col)`.
        codes: `(1, row, col)`, class codes; None where the item has no mask.
        labelled: `(row, col)`, where a code is one.
    """

    image: NDArray[Any]
    codes: NDArray[np.uint16] | None
    labelled: NDArray[np.bool_] | None

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self.image.nbytes + (0 if self.codes is None or self.labelled is None else 2 * self.codes.nbytes)


@dataclass
class _Entry:
    """A chip that is decoded once, by whoever comes first."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    chip: Chip | None = None


class ChipSet:
    """A dataset's items, decoded when asked for; the last few are kept.

    It equals another that reads the same items. Threads may share it, and it can be pickled.

    Args:
        dataset: The dataset; its transforms are not applied.
        kind: Dtype that holds the images' values; that of the tensors unless given.
        told: The dataset's identity, where it is known.
        by_files: Whether the files of its chips say all that its items are made of.
    """

    def __init__(
        self, dataset: Any, *, kind: str | None = None, told: str | None = None, by_files: bool = False
    ) -> None:
        self.dataset, self.kind = bare(dataset), kind
        self.name = type(base_of(dataset)).__name__
        self.told, self.by_files = told or identity(self.dataset), by_files
        self._lock, self._kept = threading.Lock(), OrderedDict[int, _Entry]()

    def __len__(self) -> int:
        return len(self.dataset)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ChipSet) and self.told == other.told

    def __hash__(self) -> int:
        return hash(self.told)

    def __repr__(self) -> str:
        return f"ChipSet({self.told})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _chip_set, (self.dataset, self.kind, self.told, self.by_files)

    @property
    def digest(self) -> str | None:
        """A name that is the same in another run as long as the files are; None where there is none."""
        return f"{self.told} {self.kind}" if self.by_files and is_stable(self.told) else None

    def item(self, index: int) -> str:
        """What the item at `index` is, in words that a subset has for it too."""
        dataset = self.dataset
        while dataset is not base_of(dataset):
            dataset, index = dataset.dataset, int(dataset.indices[index])
        return f"{self._base_told} {index}"

    @cached_property
    def _base_told(self) -> str:
        base = base_of(self.dataset)
        return self.told if base is self.dataset else identity(base)

    def chip(self, index: int) -> Chip:
        """The item at `index`, without the dataset's transforms.

        Raises:
            ReadError: It cannot be read, or is no image.
        """
        with self._lock:
            entry = self._kept.setdefault(index, _Entry())
            self._kept.move_to_end(index)
        with entry.lock:
            if entry.chip is None:
                entry.chip = self._decoded(index)
                self._make_room()
            return entry.chip

    def keep(self, index: int, chip: Chip) -> None:
        """Takes a chip that is decoded already."""
        with self._lock:
            self._kept[index] = _Entry(chip=chip)

    def _make_room(self) -> None:
        """Forgets the chips that were asked for longest ago."""
        with self._lock:
            sizes = [0 if entry.chip is None else entry.chip.nbytes for entry in self._kept.values()]
            while len(sizes) > 1 and (len(sizes) > KEPT or sum(sizes) > KEPT_BYTES):
                self._kept.popitem(last=False)
                sizes.pop(0)

    def _decoded(self, index: int) -> Chip:
        try:
            item: Mapping[str, Any] = self.dataset[index]
            image = bands_of(item["image"])
            codes, labelled = codes_of(item["mask"]) if "mask" in item else (None, None)
        except FAULTS as error:
            what = f"it has no {error}" if isinstance(error, KeyError) else one_line(error)
            raise ReadError(f"item {index} of {self.name} cannot be read: {what}") from error
        narrow = image if self.kind is None else image.astype(self.kind)
        if narrow is not image and not np.array_equal(narrow, image):
            raise ReadError(
                f"item {index} of {self.name} has values that are no {self.kind}, as those of the first are"
            )
        if codes is not None and codes.shape[1:] != image.shape[1:]:
            raise ReadError(
                f"item {index} of {self.name} has an image of {image.shape[1:]} and a mask of {codes.shape[1:]} pixels "
                "(row, col); needed is one size"
            )
        return Chip(narrow, codes, labelled)


def _chip_set(dataset: Any, kind: str | None, told: str, by_files: bool) -> ChipSet:  # noqa: FBT001 - of a pickle
    return ChipSet(dataset, kind=kind, told=told, by_files=by_files)


@dataclass(frozen=True)
class ChipImage:
    """The image of one item: a Source without a place, whose pixels are 1 wide.

    Attributes:
        chips: The dataset.
        index: Which item.
        file: The image's file, where the dataset says it.
        names: Names of the bands.
        kind: Dtype of the pixels.
    """

    chips: ChipSet
    index: int
    file: File | None
    names: tuple[str, ...]
    kind: str

    @property
    def origin(self) -> str:
        """What the item is, the same in every subset of its dataset; for where no file says it."""
        return self.chips.item(self.index)

    @cached_property
    def geobox(self) -> GeoBox:
        """Rows and columns from the file's header where the dataset says the file, else from the decoded item."""
        told = None if self.file is None else header(self.file.path)
        return GeoBox(told.shape if told else self.chips.chip(self.index).image.shape[1:], Affine.identity(), None)

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands."""
        return self.names

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of the image's file where it is known and holds the values, else what torchgeo gives."""
        return np.dtype(self.kind)

    def read(self, geobox: GeoBox) -> Raster:
        """The pixels on `geobox`, all valid inside the chip.

        Raises:
            ReadError: The item cannot be read, or is not like the first one or its file.
            GridError: `geobox` does not consist of the chip's own pixels.
        """
        chip = self.chips.chip(self.index)
        pixels = chip.image
        if len(pixels) != len(self.names) or pixels.dtype != self.dtype:
            raise ReadError(
                f"item {self.index} of {self.chips.name} has {len(pixels)} bands of {pixels.dtype}, the first item "
                f"{len(self.names)} of {self.dtype}; needed are items of one kind"
            )
        return _read(self, Patch(pixels, np.isfinite(pixels).all(axis=0)), geobox, resampling="bilinear")


@dataclass(frozen=True)
class ChipCodes:
    """The mask of one item as class codes: one band on the image's grid.

    Attributes:
        image: The image.
        file: The mask's file, where the dataset says it.
    """

    image: ChipImage
    file: File | None

    @property
    def geobox(self) -> GeoBox:
        """The image's grid."""
        return self.image.geobox

    @property
    def bands(self) -> tuple[str, ...]:
        """`code`."""
        return ("code",)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of class codes."""
        return CODE_DTYPE

    def read(self, geobox: GeoBox) -> Raster:
        """The codes on `geobox`; invalid where they are negative.

        Raises:
            ReadError: The item cannot be read, or has no mask.
            GridError: `geobox` does not consist of the chip's own pixels.
        """
        chip = self.image.chips.chip(self.image.index)
        if chip.codes is None or chip.labelled is None:
            raise ReadError(f"item {self.image.index} of {self.image.chips.name} has no mask")
        return _read(self, Patch(chip.codes, chip.labelled), geobox, resampling="nearest")


def _read(source: ChipImage | ChipCodes, chip: Patch, geobox: GeoBox, *, resampling: str) -> Raster:
    """A decoded chip on `geobox`."""
    image = source if isinstance(source, ChipImage) else source.image
    shape = (int(source.geobox.shape[0]), int(source.geobox.shape[1]))
    if chip.valid.shape != shape:
        raise ReadError(
            f"item {image.index} of {image.chips.name} has {chip.valid.shape} pixels (row, col), its file {shape}"
        )

    def cut(lattice: Lattice) -> Patch:
        empty = Patch.empty(len(chip.pixels), (lattice.rows, lattice.cols), source.dtype)
        return lattice_of(lattice, shape, lambda window: _cut(chip, window), empty=empty, resampling=resampling)

    name = f"item {image.index} of {image.chips.name}"
    found = read_onto(
        source.geobox, geobox, cut, resampling=resampling, count=len(chip.pixels), dtype=source.dtype, name=name
    )
    return Raster(found.pixels, found.valid, geobox, source.bands)


def _cut(chip: Patch, window: Window) -> Patch:
    return Patch(chip.pixels[:, *window.slices], chip.valid[window.slices])


def chip_sources(dataset: Any) -> list[tuple[str, ChipImage, ChipCodes | None]]:
    """A name, the image and the mask of each item; only the first item is decoded.

    Raises:
        InputError: The dataset is empty.
        ReadError: The first item cannot be read.
    """
    chips = ChipSet(dataset)
    if not len(chips):
        raise InputError(f"{chips.name} has no item; needed is at least one")
    first, files = chips.chip(0), pictures_of(dataset)
    told = header(files.images[0]) if files.images else None
    if told is None or told.shape != first.image.shape[1:]:
        files, told = Pictures(), None  # the file is no picture of the item, or is laid out otherwise
    kind = None if told is None else told.kind
    if kind is not None and not np.array_equal(first.image.astype(kind), first.image):
        kind = None
    told_alone = files.alone and told is not None and told.bands == len(first.image)
    chips = ChipSet(dataset, kind=kind, told=chips.told, by_files=told_alone)
    chips.keep(0, Chip(first.image if kind is None else first.image.astype(kind), first.codes, first.labelled))
    names = band_names(base_of(dataset), count=len(first.image))
    found = []
    for index in range(len(chips)):
        file, mask = files.at(index)
        image = ChipImage(chips, index, file, names, kind or first.image.dtype.name)
        codes = None if first.codes is None else ChipCodes(image, mask)
        found.append((f"{chips.name} {Path(file.path).stem if file else index}", image, codes))
    return found
