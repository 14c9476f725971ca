"""Masks that are pictures without a place: they lie where the image of their chip lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox

from geoseg.errors import GridError
from geoseg.io.grids import Lattice
from geoseg.io.resample import Patch, read_onto
from geoseg.io.sources import Source
from geoseg.raster import Raster

PLACELESS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
"""Kinds of file that seldom say where they lie."""


@dataclass(frozen=True)
class MaskOnImage:
    """A mask on the grid of its image, pixel on pixel, unless both say where they lie.

    Attributes:
        source: The mask; read by nearest neighbour.
        image: The image.
    """

    source: Source
    image: Source

    @cached_property
    def geobox(self) -> GeoBox:
        """The image's grid, or the mask's own where both have a CRS.

        Raises:
            GridError: The mask has another shape than the image.
        """
        own, grid = self.source.geobox, self.image.geobox
        if own.crs is not None and grid.crs is not None:
            return own
        if own.shape != grid.shape:
            raise GridError(
                f"{path_of(self.source)} has {own.shape[0]} x {own.shape[1]} pixels (rows x columns), its image "
                f"{path_of(self.image)} {grid.shape[0]} x {grid.shape[1]}; needed are as many, or a CRS in both"
            )
        return grid

    @property
    def bands(self) -> tuple[str, ...]:
        """The mask's bands."""
        return self.source.bands

    @property
    def dtype(self) -> np.dtype[Any]:
        """The mask's dtype."""
        return self.source.dtype

    def read(self, geobox: GeoBox) -> Raster:
        """The mask on `geobox`.

        Raises:
            ReadError: The file cannot be read there.
            GridError: One of the grids has no CRS and they are not one grid.
        """
        found = read_onto(
            self.geobox,
            geobox,
            self._read_lattice,
            resampling="nearest",
            count=len(self.bands),
            dtype=self.dtype,
            name=path_of(self.source),
        )
        return Raster(found.pixels, found.valid, geobox, self.bands)

    def _read_lattice(self, lattice: Lattice) -> Patch:
        raster = self.source.read(lattice.on(self.source.geobox))
        return Patch(raster.pixels, raster.valid)


def path_of(source: Any) -> str:
    """The file of a source or of its first member, for messages."""
    path = getattr(source, "path", None)
    members = getattr(source, "members", None)
    return str(path) if path is not None else path_of(members[0]) if members else "the chip"


def handed_down(spec: Mapping[str, Any], door: str) -> dict[str, Any]:
    """What stands beside a door's key, for each of its scenes."""
    return {key: value for key, value in spec.items() if key != door}


def without_suffix(path: str) -> str:
    """A path with forward slashes and without what follows its last dot: a chip's name."""
    return Path(path).with_suffix("").as_posix()
