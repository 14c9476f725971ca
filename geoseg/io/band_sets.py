"""Sources with a given set of bands, whether or not the image has them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox

from geoseg.errors import BandError
from geoseg.io.clouds import pick_bands
from geoseg.io.protocol import Source
from geoseg.raster import Raster


@dataclass(frozen=True)
class BandSet:
    """A source's bands among others that it lacks; those are zeros and valid wherever the source is.

    Attributes:
        source: Has the bands that there are; where there are none, any band, for where it is valid.
        positions: Where the source's bands stand here; empty where there are none.
        names: Names of all bands.
    """

    source: Source
    positions: tuple[int, ...]
    names: tuple[str, ...]

    @property
    def geobox(self) -> GeoBox:
        """The source's grid."""
        return self.source.geobox

    @property
    def bands(self) -> tuple[str, ...]:
        """All names."""
        return self.names

    @property
    def dtype(self) -> np.dtype[Any]:
        """The source's dtype."""
        return self.source.dtype

    def read(self, geobox: GeoBox) -> Raster:
        """The bands on `geobox`, zeros where the source has none."""
        found = self.source.read(geobox)
        pixels = np.zeros((len(self.names), *geobox.shape), self.dtype)
        if self.positions:
            pixels[list(self.positions)] = found.pixels
        return Raster(pixels, found.valid, geobox, self.names)


def with_bands(source: Source, names: Sequence[str]) -> tuple[Source, tuple[int, ...]]:
    """The source with exactly the bands `names`, in order, and the positions of those that it lacks.

    Args:
        source: An image; bands of it that are not wanted are not read, and not asked if valid.
        names: Names of bands, letter case ignored. A band that the source lacks reads as zeros and is valid wherever
            the rest is.

    Raises:
        BandError: Two of the names are one, or the source has a wanted band twice.
    """
    lowered, offered = [name.lower() for name in names], [band.lower() for band in source.bands]
    twice = sorted({name for name in lowered if lowered.count(name) > 1 or offered.count(name) > 1})
    if twice or not names:
        raise BandError(
            f"bands [{', '.join(names)}] of a source with [{', '.join(source.bands)}]: needed is each name once"
            + (f", and {', '.join(twice)} is there twice" if twice else "")
        )
    there = [i for i, name in enumerate(lowered) if name in offered]
    absent = tuple(i for i in range(len(names)) if i not in there)
    found = [offered.index(lowered[i]) for i in there]
    if not absent:
        return pick_bands(source, found, names), ()
    kept = pick_bands(source, found or [0], [names[i] for i in there] or source.bands[:1])
    return BandSet(kept, tuple(there), tuple(names)), absent
