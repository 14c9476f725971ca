"""The two kinds of label source: a raster of class codes, and polygons with a class.

Both are values, as every Source: a path and options. They have the one band `label`. Where nobody labelled anything
they are invalid and hold the legend's ignore value.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geoseg.io.burning import burn, near
from geoseg.io.grids import grids_meet
from geoseg.io.legends import whole_numbers
from geoseg.io.pixel_maps import PixelMap
from geoseg.io.polygons import PolygonFile, Polygons
from geoseg.io.protocol import Source
from geoseg.legend import Legend
from geoseg.raster import Raster
from geoseg.tiling import Window

BAND = "label"
NOMINAL_PX = 1024


@runtime_checkable
class LabelSource(Source, Protocol):
    """A Source of class ids: one band `label`, `legend.ignore` and invalid where nothing is labelled."""

    @property
    def legend(self) -> Legend:
        """The classes."""

    def bounds_overlap(self, geobox: GeoBox) -> bool:
        """Whether the labels' bounds meet those of the grid."""


@dataclass(frozen=True)
class LabelRaster:
    """Class codes of a raster as class ids.

    Attributes:
        source: One band of codes, resampled by nearest neighbour.
        legend: The classes.
        coding: The classes with the codes of this raster.
        ignored: Codes that are no class.
        background: Id of the class of unlabelled pixels inside the raster's extent.
    """

    source: Source
    legend: Legend
    coding: Legend
    ignored: tuple[int, ...] = ()
    background: int | None = None

    @property
    def geobox(self) -> GeoBox:
        """The raster's own grid."""
        return self.source.geobox

    @property
    def bands(self) -> tuple[str, ...]:
        """`label`."""
        return (BAND,)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The legend's dtype."""
        return self.legend.dtype

    def read(self, geobox: GeoBox) -> Raster:
        """Class ids on `geobox`, nearest neighbour.

        Raises:
            LegendError: A code belongs to no class.
            ReadError: The file cannot be read there.
            GridError: One of the grids has no CRS and they are not one grid.
        """
        raster = self.source.read(geobox)
        codes, said = raster.pixels[0], raster.valid
        labelled = said & ~np.isin(codes, [*self.ignored, self.coding.ignore])
        ids = np.full(labelled.shape, self.legend.ignore, self.dtype)
        ids[labelled] = self.coding.translate(whole_numbers(codes[labelled]))
        if self.background is not None:
            silent = ~said & _inside(geobox, self.geobox)
            ids[silent] = self.background
            labelled |= silent
        return Raster(ids[None], labelled, geobox, self.bands)

    def bounds_overlap(self, geobox: GeoBox) -> bool:
        """Whether the raster's bounds meet those of the grid."""
        return grids_meet(self.geobox, geobox)


def _inside(geobox: GeoBox, grid: GeoBox) -> NDArray[np.bool_]:
    """Which pixel centres of `geobox` lie on `grid`, `(row, col)`."""
    row, col = PixelMap.between(geobox, grid).coordinates(Window(0, 0, *geobox.shape))
    with np.errstate(invalid="ignore"):
        return np.asarray((row >= 0) & (row < grid.shape[0]) & (col >= 0) & (col < grid.shape[1]))


@dataclass(frozen=True)
class LabelVector:
    """Polygons with a class as class ids: a path and options; the file is read when pixels are first asked for.

    Attributes:
        file: What is read, its columns the class column first.
        legend: The classes.
        coding: The classes with the codes of this file.
        value: Id of the class of all polygons, where there is no column.
        ignored: Codes or names that are no class.
        background: Id of the class outside all polygons.
        all_touched: Whether a polygon takes all pixels that it touches, not only those whose centre it holds.
    """

    file: PolygonFile
    legend: Legend
    coding: Legend
    value: int | None = None
    ignored: tuple[int | str, ...] = ()
    background: int | None = None
    all_touched: bool = False

    @property
    def geobox(self) -> GeoBox:
        """A grid over the polygons' bounds in their own CRS; polygons have no resolution, so its own is nominal."""
        polygons = self.file.read()
        left, bottom, right, top = polygons.bounds
        step = max(right - left, top - bottom) / NOMINAL_PX
        shape = max(1, round((top - bottom) / step)), max(1, round((right - left) / step))
        return GeoBox(shape, Affine(step, 0, left, 0, -step, top), polygons.crs)

    @property
    def bands(self) -> tuple[str, ...]:
        """`label`."""
        return (BAND,)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The legend's dtype."""
        return self.legend.dtype

    @property
    def numbers(self) -> set[int] | None:
        """The codes in the class column; None where there is none, or one of names."""
        values = None if self.value is not None else self.file.read().columns[self.file.columns[0]]
        if values is None or is_text(values):
            return None
        return set(whole_numbers(values[known(values, self.ignored)]).tolist())

    def read(self, geobox: GeoBox) -> Raster:
        """Class ids on `geobox`: the class of the last polygon in the file that holds the pixel's centre.

        Raises:
            LegendError: A polygon's class is not in the legend.
            GridError: `geobox` has no CRS.
        """
        polygons = self.file.read()
        fill = self.legend.ignore if self.background is None else self.background
        values = class_ids(self, polygons)
        ids = burn(polygons, values, geobox, fill=fill, dtype=self.dtype, all_touched=self.all_touched)
        return Raster(ids[None], ids != self.legend.ignore, geobox, self.bands)

    def bounds_overlap(self, geobox: GeoBox) -> bool:
        """Whether a polygon's bounds meet those of the grid."""
        return len(near(self.file.read(), geobox)[0]) > 0


@lru_cache(maxsize=64)
def class_ids(labels: LabelVector, polygons: Polygons) -> NDArray[np.int64]:
    """Class id of each polygon, `legend.ignore` where it has none."""
    if labels.value is not None:
        return np.full(len(polygons), labels.value, np.int64)
    values = polygons.columns[labels.file.columns[0]]
    named = known(values, labels.ignored)
    ids = np.full(len(polygons), labels.legend.ignore, np.int64)
    if is_text(values):
        by_name = {name: labels.coding.by_name(name).id for name in names_in(values[named])}
        ids[named] = [by_name[str(name).strip()] for name in values[named]]
    else:
        ids[named] = labels.coding.translate(whole_numbers(values[named]))
    return ids


def is_text(values: NDArray[Any]) -> bool:
    """Whether a column holds texts."""
    return values.dtype.kind in "OUST"


def known(values: NDArray[Any], ignored: tuple[int | str, ...]) -> NDArray[np.bool_]:
    """Where a column holds a class: neither null, nor blank, nor to be ignored."""
    if not is_text(values):
        there = np.isfinite(values) if values.dtype.kind == "f" else np.ones(len(values), np.bool_)
        return np.asarray(there & ~np.isin(values, [int(code) for code in ignored if _is_integer(code)]))
    texts = ["" if _is_null(value) else str(value).strip().lower() for value in values]
    left_out = {str(name).strip().lower() for name in ignored}
    return np.array([bool(text) and text not in left_out for text in texts], np.bool_)


def _is_integer(code: int | str) -> bool:
    return isinstance(code, int) or code.strip().removeprefix("-").isdecimal()


def _is_null(value: Any) -> bool:
    try:
        return value is None or bool(value != value)  # noqa: PLR0124 - NaN
    except TypeError:  # pandas.NA, which is neither like nor unlike itself
        return True


def names_in(values: NDArray[Any]) -> list[str]:
    """The different texts of a column, trimmed and in order."""
    return sorted({str(value).strip() for value in values})
