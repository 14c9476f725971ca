"""Raster: pixels in memory, which of them are usable, and where they lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.errors import BandError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from odc.geo.geobox import GeoBox

QUANTILE_LEVELS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
"""Shares of the training pixels below the values that a model keeps of each band, to know a scene that differs."""


@dataclass(frozen=True, slots=True, eq=False)
class Raster:
    """Pixels of one place.

    Attributes:
        pixels: Array `(band, row, col)` of any real dtype. What stands at an invalid pixel has no meaning.
        valid: Boolean array `(row, col)`, True where every band holds a usable value.
        geobox: Shape, affine and CRS of the pixels.
        bands: One name a band, in the order of `pixels`.

    Raises:
        InputError: The parts do not fit each other.
    """

    pixels: NDArray[Any]
    valid: NDArray[np.bool_]
    geobox: GeoBox
    bands: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.pixels.ndim != 3:
            raise InputError(f"pixels must be (band, row, col), got {self.pixels.ndim} dimensions")
        if self.valid.dtype != np.bool_ or self.valid.shape != self.pixels.shape[1:]:
            raise InputError(f"valid must be bool {self.pixels.shape[1:]}, got {self.valid.dtype} {self.valid.shape}")
        if tuple(self.geobox.shape) != self.pixels.shape[1:]:
            raise InputError(f"geobox is {tuple(self.geobox.shape)}, pixels are {self.pixels.shape[1:]} (row, col)")
        if len(self.bands) != self.pixels.shape[0]:
            raise InputError(f"{len(self.bands)} band names for {self.pixels.shape[0]} bands")

    @property
    def dtype(self) -> np.dtype[Any]:
        """The pixels' dtype."""
        return self.pixels.dtype

    def select(self, bands: Sequence[str]) -> Raster:
        """The same place with only `bands`, in that order; `valid` stays as it is.

        Raises:
            BandError: A name is not among the raster's bands.
        """
        indexes = match_bands(bands, self.bands)
        return Raster(self.pixels[indexes], self.valid, self.geobox, tuple(self.bands[i] for i in indexes))


def match_bands(wanted: Sequence[str], offered: Sequence[str]) -> list[int]:
    """Positions in `offered` of each name in `wanted`, letter case ignored.

    Raises:
        BandError: A wanted name is not offered, or is offered twice; the message gives both lists.

    >>> match_bands(["red", "NIR"], ["blue", "green", "red", "nir"])
    [2, 3]
    """
    lowered = [name.lower() for name in offered]
    found = [name for name in wanted if lowered.count(name.lower()) == 1]
    if len(found) != len(wanted):
        raise BandError(
            f"needed bands are [{', '.join(wanted)}], the scene has [{', '.join(offered)}]; "
            "name its bands in their order: --bands with a scene, bands: [...] beside path: in a config"
        )
    return [lowered.index(name.lower()) for name in wanted]
