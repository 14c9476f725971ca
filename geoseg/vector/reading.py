"""Blocks of a map and of other rasters on its grid, as tracing takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geoseg.errors import InputError
from geoseg.raster import Raster
from geoseg.tiling import Window
from geoseg.vector.lines.smooth import Crossings, find_crossings
from geoseg.vector.tracing import Layer


class GridSource(Protocol):
    """Whatever reads pixels onto a grid."""

    @property
    def geobox(self) -> GeoBox:
        """Its own grid."""

    @property
    def bands(self) -> tuple[str, ...]:
        """Its bands."""

    def read(self, geobox: GeoBox) -> Raster:
        """Its pixels there."""


@dataclass(frozen=True, slots=True, eq=False)
class InMemory:
    """A raster as a source of its own grid's windows."""

    raster: Raster

    @property
    def geobox(self) -> GeoBox:
        """The raster's grid."""
        return self.raster.geobox

    @property
    def bands(self) -> tuple[str, ...]:
        """The raster's bands."""
        return self.raster.bands

    def read(self, geobox: GeoBox) -> Raster:
        """The raster in a window of its grid.

        Raises:
            InputError: The place is no such window.
        """
        offset = ~self.raster.geobox.affine @ geobox.affine
        row, col = round(offset.f), round(offset.c)
        window = Window(row, col, *geobox.shape)
        if self.raster.geobox[window.slices] != geobox:
            raise InputError("a raster in memory is read in windows of its own grid")
        pixels = self.raster.pixels[(slice(None), *window.slices)]
        return Raster(pixels, self.raster.valid[window.slices], geobox, self.raster.bands)


@dataclass(frozen=True, slots=True, eq=False)
class GridReader:
    """Reads a map and what lies on its grid, window by window.

    Attributes:
        source: The map: one band of integers.
        others: Rasters to sum over the regions: each band becomes a layer, named by the name here, or for a raster of
            several bands by the name, an underscore and the band.
        probabilities: Probabilities of the classes, a band a class in the order of `values`; they place boundaries
            inside pixels.
        values: The map's values that the bands of `probabilities` stand for.
        ignore: Values of the map that are nodata.
    """

    source: GridSource
    others: Mapping[str, GridSource]
    probabilities: GridSource | None = None
    values: tuple[int, ...] = ()
    ignore: frozenset[int] = frozenset()

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the map."""
        rows, cols = self.source.geobox.shape
        return int(rows), int(cols)

    @property
    def layers(self) -> list[str]:
        """Names of the layers that `others` become."""
        return [layer for name, source in self.others.items() for layer in layer_names(name, source.bands)]

    def read(self, window: Window) -> tuple[Layer, dict[str, Layer]]:
        """The map in a window, and the other rasters there by name."""
        place = self.source.geobox[window.slices]
        found: dict[str, Layer] = {}
        for name, source in self.others.items():
            raster = source.read(place)
            for layer, pixels in zip(layer_names(name, raster.bands), raster.pixels, strict=True):
                found[layer] = Layer(pixels, raster.valid)
        return self._map(place), found

    def crossings(self, window: Window) -> Crossings | None:
        """Where boundaries cross between pixel centres, in a window and to its neighbours below and on the right."""
        if self.probabilities is None:
            return None
        rows, cols = self.shape
        grown = window_grown(window, rows=rows, cols=cols)
        place = self.source.geobox[grown.slices]
        layer, likely = self._map(place), self.probabilities.read(place)
        index = np.searchsorted(self.values, layer.pixels).clip(0, len(self.values) - 1)
        valid = layer.valid & likely.valid & (np.array(self.values)[index] == layer.pixels)
        return find_crossings(likely.pixels, index, valid, row_off=grown.row_off, col_off=grown.col_off, cols=cols)

    def _map(self, place: GeoBox) -> Layer:
        raster = self.source.read(place)
        ids: NDArray[Any] = raster.pixels[0]
        return Layer(ids, raster.valid & ~np.isin(ids, list(self.ignore)) if self.ignore else raster.valid)


def layer_names(name: str, bands: Sequence[str]) -> list[str]:
    """Name of the layer of each band.

    >>> layer_names("dem", ["height"]), layer_names("scene", ["red", "nir"])
    (['dem'], ['scene_red', 'scene_nir'])
    """
    return [name] if len(bands) == 1 else [f"{name}_{band}" for band in bands]


def window_grown(window: Window, *, rows: int, cols: int) -> Window:
    """The window with a row below and a column on the right, where the map has them."""
    stop = min(window.row_stop + 1, rows), min(window.col_stop + 1, cols)
    return Window(window.row_off, window.col_off, stop[0] - window.row_off, stop[1] - window.col_off)
