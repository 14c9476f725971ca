"""One seeded landscape: imagery, labels, parcels, buildings and true areas.

The demo, the tests and the notebooks live on it. It is no toy for the eye alone: the seven classes share their colours,
so that a method which looks at single pixels confuses roofs with soil and ripe grain, and a method which sees furrows,
crowns, straight edges and long thin shapes does not. What is true is known for every pixel, under the clouds too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo import CRS, CRSError
from odc.geo.geobox import GeoBox

from geoseg.errors import InputError
from geoseg.legend import Legend
from geoseg.raster import Raster
from geoseg.synthetic.layout import BARE_SOIL, BUILDING, CROPLAND, FOREST, GRASSLAND, ROAD, WATER, lay_out
from geoseg.synthetic.light import BANDS, expose

LEGEND = Legend.from_dict(
    {
        WATER: "water",
        FOREST: "forest",
        GRASSLAND: "grassland",
        CROPLAND: "cropland",
        BARE_SOIL: "bare soil",
        BUILDING: {"name": "building", "kind": "thing"},
        ROAD: "road",
    }
)
MIN_SIDE_PX = 96
ORIGIN_M = (399_960.0, 5_300_040.0)  # upper left corner of Sentinel-2 tile 33UVP: easting, northing


@dataclass(frozen=True, slots=True)
class Landscape:
    """A made-up place and everything that is true of it; all rasters lie on one grid.

    Attributes:
        image: uint16 `(6, row, col)`, reflectance x 10,000 in bands blue, green, red, nir, swir1, swir2; 0 and invalid
            under clouds and beyond the slanted edge of the swath.
        labels: uint8 `(1, row, col)`, class ids of `legend`; true and valid everywhere, under the clouds too.
        parcels: uint32 `(1, row, col)`, ids 1 ... n of the farmed parcels, crops and meadows; 0 = none.
        buildings: uint32 `(1, row, col)`, ids 1 ... n of the buildings; 0 = none.
        legend: The classes.
    """

    image: Raster
    labels: Raster
    parcels: Raster
    buildings: Raster
    legend: Legend

    @property
    def areas_m2(self) -> dict[int, float]:
        """True area in m2 of each class id: its pixels, counted, times the area of one."""
        counts = np.bincount(self.labels.pixels.ravel(), minlength=int(self.legend.ids[-1]) + 1)
        pixel_m2 = abs(self.labels.geobox.affine.determinant)
        return {item.id: float(counts[item.id] * pixel_m2) for item in self.legend.classes}


def landscape(
    seed: int = 0, *, shape: tuple[int, int] = (768, 1024), gsd_m: float = 10.0, crs: Any = "EPSG:32633"
) -> Landscape:
    """The landscape of a seed: the same seed, shape and versions of numpy and scipy give the same bytes.

    Features have fixed sizes in pixels, so that a larger scene holds more villages and fields, not larger ones.

    Args:
        seed: Any integer from 0 on.
        shape: Rows and columns, at least 96 each; from 384 on every class has at least 1 % of the pixels.
        gsd_m: Ground sampling distance: the side of a pixel in metres.
        crs: A projected CRS in metres, as anything that odc-geo takes.

    Raises:
        InputError: The seed is negative, the shape too small, `gsd_m` not positive or the CRS not projected in metres.

    >>> place = landscape(7, shape=(96, 128))
    >>> place.image.pixels.shape, place.image.bands[3], place.legend.by_id(6).name
    ((6, 96, 128), 'nir', 'building')
    >>> sum(place.areas_m2.values()) == 96 * 128 * 100.0
    True
    """
    geobox = _geobox(seed, shape, gsd_m, crs)
    layout_rng, light_rng = np.random.default_rng(seed).spawn(2)
    layout = lay_out(layout_rng, shape)
    pixels, valid = expose(light_rng, layout)
    return Landscape(
        image=Raster(pixels, valid, geobox, BANDS),
        labels=_truth(layout.labels, geobox, "label"),
        parcels=_truth(layout.parcels, geobox, "parcel"),
        buildings=_truth(layout.buildings, geobox, "building"),
        legend=LEGEND,
    )


def _geobox(seed: int, shape: tuple[int, int], gsd_m: float, crs: Any) -> GeoBox:
    """The landscape's grid, once the options are known to make sense."""
    if seed < 0:
        raise InputError(f"seed is {seed}; use 0 or more")
    if min(shape) < MIN_SIDE_PX:
        raise InputError(f"shape is {tuple(shape)}; a landscape needs at least {MIN_SIDE_PX} rows and columns")
    if not (np.isfinite(gsd_m) and gsd_m > 0):
        raise InputError(f"gsd_m is {gsd_m}; use a positive number of metres")
    affine = Affine(gsd_m, 0.0, ORIGIN_M[0], 0.0, -gsd_m, ORIGIN_M[1])
    return GeoBox(shape, affine, _metric_crs(crs))


def _metric_crs(crs: Any) -> CRS:
    """The CRS, known to be projected and in metres."""
    try:
        parsed = CRS(crs)
    except CRSError as error:
        raise InputError(f"crs '{crs}' is not known; use an EPSG code such as EPSG:32633") from error
    if not parsed.projected or parsed.units != ("metre", "metre"):
        raise InputError(f"crs {crs} is not projected in metres; use a UTM zone such as EPSG:32633")
    return parsed


def _truth(ids: NDArray[Any], geobox: GeoBox, band: str) -> Raster:
    """One band of ids, valid everywhere."""
    return Raster(ids[None], np.ones(ids.shape, dtype=np.bool_), geobox, (band,))
