"""torchgeo's datasets with a place (GeoDataset) as sources: what their own `__getitem__` gives, on their own grid."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import rasterio.features
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geoseg.data.doors.torchgeo_classes import band_names
from geoseg.data.doors.torchgeo_grid import CODE_DTYPE, bands_of, codes_of, lattice_of
from geoseg.data.doors.torchgeo_identity import identity
from geoseg.data.doors.torchgeo_pictures import File
from geoseg.errors import InputError, ReadError
from geoseg.io.grids import Lattice, crop
from geoseg.io.handles import GDAL_ERRORS, one_line
from geoseg.io.protocol import Source
from geoseg.io.resample import Patch, read_onto
from geoseg.raster import Raster
from geoseg.tiling import Window

CORNER_PX = 8
"""Rows and columns that are looked at to learn what a dataset gives."""

FAULTS = (*GDAL_ERRORS, OSError, ValueError, RuntimeError, KeyError)


class Held:
    """A GeoDataset without transforms and open files; it equals another that reads the same."""

    def __init__(self, dataset: Any, told: str | None = None) -> None:
        self.dataset = dataset
        self.told = told or identity(dataset)

    @property
    def name(self) -> str:
        """The dataset's class."""
        return type(self.dataset).__name__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Held) and self.told == other.told

    def __hash__(self) -> int:
        return hash(self.told)

    def __repr__(self) -> str:
        return f"Held({self.told})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Held, (self.dataset, self.told)


@dataclass(frozen=True)
class GeoDatasetSource:
    """The images or the masks of a GeoDataset.

    A pixel is valid inside the footprints of the dataset's files that are of the time asked for; where torchgeo fills
    holes of a file with zeros these are valid, for nothing tells them apart. Transforms are not applied.

    Attributes:
        held: The dataset.
        grid: Its pixels.
        key: What of its samples, `image` or `mask`.
        first: First moment that is asked for, in nanoseconds since 1970.
        last: Last moment.
        files: The files that it reads there, as far as the dataset's index names them.
    """

    held: Held
    grid: GeoBox
    key: str
    first: int
    last: int
    files: tuple[File, ...] = ()

    @property
    def geobox(self) -> GeoBox:
        """The grid."""
        return self.grid

    @cached_property
    def bands(self) -> tuple[str, ...]:
        """Names of the image's bands, or `code`."""
        return ("code",) if self.key == "mask" else band_names(self.held.dataset, count=len(self._corner))

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """What the dataset gives, or that of class codes."""
        return CODE_DTYPE if self.key == "mask" else self._corner.dtype

    @cached_property
    def _corner(self) -> NDArray[Any]:
        """The first few pixels."""
        rows, cols = self.grid.shape
        return self._fetched(Window(0, 0, min(rows, CORNER_PX), min(cols, CORNER_PX))).pixels

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: not the pixels that were looked at."""
        return {name: value for name, value in self.__dict__.items() if name != "_corner"}

    def read(self, geobox: GeoBox) -> Raster:
        """The pixels on `geobox`; where it is another grid, images bilinear and masks by nearest neighbour.

        Raises:
            ReadError: The dataset cannot be read there.
            GridError: One of the grids has no CRS and they are not one grid.
        """
        resampling = "nearest" if self.key == "mask" else "bilinear"
        count, shape = len(self.bands), (int(self.grid.shape[0]), int(self.grid.shape[1]))

        def cut(lattice: Lattice) -> Patch:
            empty = Patch.empty(count, (lattice.rows, lattice.cols), self.dtype)
            return lattice_of(lattice, shape, self._fetched, empty=empty, resampling=resampling)

        found = read_onto(
            self.grid, geobox, cut, resampling=resampling, count=count, dtype=self.dtype, name=self.held.name
        )
        return Raster(found.pixels, found.valid, geobox, self.bands)

    def _fetched(self, window: Window) -> Patch:
        """The pixels of a window of the grid."""
        place = crop(self.grid, window)
        valid = self._covered(place)
        if not valid.any() and "_corner" in self.__dict__:
            return Patch.empty(len(self.bands), valid.shape, self.dtype)
        try:
            sample = self.held.dataset[query_of(place, self.first, self.last)]
            if self.key == "mask":
                pixels, labelled = codes_of(sample["mask"])
                valid = valid & labelled if labelled.shape == valid.shape else valid
            else:
                pixels = bands_of(sample["image"])
        except IndexError:  # torchgeo's word for: there is no file
            return Patch.empty(len(self.bands), valid.shape, self.dtype)
        except FAULTS as error:
            raise ReadError(
                f"{self.held.name} cannot be read at rows {window.row_off} to {window.row_stop}, columns "
                f"{window.col_off} to {window.col_stop}: {one_line(error)}"
            ) from error
        if pixels.shape[1:] != valid.shape:
            raise ReadError(
                f"{self.held.name} gives {pixels.shape[1:]} pixels (row, col) for {valid.shape} asked for, so nothing "
                "says where they lie; needed is a dataset that keeps to the grid asked for"
            )
        return Patch(pixels, valid & np.isfinite(pixels).all(axis=0))

    def _covered(self, place: GeoBox) -> NDArray[np.bool_]:
        """Which pixels of `place` have their centre in a footprint of the time asked for."""
        import pandas as pd

        index = self.held.dataset.index
        when = index.index
        if isinstance(when, pd.IntervalIndex):
            index = index[(when.left <= pd.Timestamp(self.last)) & (when.right >= pd.Timestamp(self.first))]
        shapes = [shape for shape in index.geometry if not shape.is_empty]
        if not shapes:
            return np.zeros(tuple(place.shape), np.bool_)
        return np.asarray(
            rasterio.features.geometry_mask(shapes, tuple(place.shape), place.affine, all_touched=False, invert=True)
        )


def query_of(place: GeoBox, first: int, last: int) -> tuple[slice, slice, slice]:
    """The key of a torchgeo dataset for a grid and a span of time, in nanoseconds since 1970."""
    import pandas as pd

    x_res, y_res = place.affine.a, -place.affine.e
    left, top = place.affine.c, place.affine.f
    rows, cols = place.shape
    times = slice(pd.Timestamp(first), pd.Timestamp(last), 1)
    return slice(left, left + cols * x_res, x_res), slice(top - rows * y_res, top, y_res), times


def grid_of(dataset: Any, bounds: tuple[float, float, float, float]) -> GeoBox:
    """The dataset's pixels over `bounds` (left, bottom, right, top), the first one in the upper left corner.

    Raises:
        InputError: The dataset has no resolution.
    """
    x_res, y_res = (abs(float(step)) for step in dataset.res)
    if not (x_res and y_res):
        raise InputError(f"{type(dataset).__name__} has no resolution; give it one with res:")
    left, bottom, right, top = bounds
    shape = max(1, round((top - bottom) / y_res)), max(1, round((right - left) / x_res))
    return GeoBox(shape, Affine(x_res, 0, left, 0, -y_res, top), dataset.crs)


@dataclass(frozen=True)
class Recoded:
    """A raster of codes under other codes.

    Attributes:
        codes: One band of codes; its name is kept. What its file says of these codes is not true of the new ones.
        table: The new code of each old one, from 0 on; codes beyond it are invalid.
    """

    codes: Source
    table: tuple[int, ...]

    @property
    def geobox(self) -> GeoBox:
        """The source's grid."""
        return self.codes.geobox

    @property
    def bands(self) -> tuple[str, ...]:
        """The source's band."""
        return self.codes.bands

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of class codes."""
        return CODE_DTYPE

    def read(self, geobox: GeoBox) -> Raster:
        """The new codes on `geobox`.

        Raises:
            ReadError: The file cannot be read there.
            GridError: One of the grids has no CRS and they are not one grid.
        """
        found = self.codes.read(geobox)
        known = found.valid & (found.pixels[0] >= 0) & (found.pixels[0] < len(self.table))
        codes = np.asarray(self.table, CODE_DTYPE)[np.where(known, found.pixels[0], 0).astype(np.intp)]
        return Raster(codes[None], known, geobox, self.bands)
