"""A small picture of a scene or a class map."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geoseg.errors import OutputError
from geoseg.io.clouds import by_nearest
from geoseg.io.combine import pick
from geoseg.io.legends import raster_legend, values_of
from geoseg.io.protocol import Source
from geoseg.raster import Raster

LONGEST_PX = 900
TRUE_COLOR = ("red", "green", "blue")


def draw_scene(source: Source, out: Path, *, classes: bool = False) -> Path:
    """The PNG file that shows the whole scene: bands stretched to the eye, or classes in their colours.

    Args:
        source: The scene, or a class map.
        out: The file.
        classes: Whether it is a class map.

    Raises:
        OutputError: The file cannot be written.
    """
    import matplotlib.image

    if classes:
        codes = by_nearest(source)
        picture = _colored(codes.read(_shrunk(codes.geobox)), codes)
    else:
        chosen = _picture_bands(source.bands)
        shown = pick(source, chosen, [source.bands[band] for band in chosen])
        picture = _stretched(shown.read(_shrunk(source.geobox)))
    part = out.with_name(out.name + ".part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        matplotlib.image.imsave(part, picture, format="png")
        part.replace(out)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(f"{out} cannot be written: {error.strerror or error}") from error
    return out


def _shrunk(geobox: GeoBox) -> GeoBox:
    """The same ground in at most 900 pixels on the longer side, each of 2, 4, 8, ... pixels of the grid a side.

    Such factors are those of overviews, so that a large scene need not be read whole.
    """
    rows, cols = geobox.shape
    step = 1
    while max(rows, cols) > step * LONGEST_PX:
        step *= 2
    return GeoBox((-(-rows // step), -(-cols // step)), geobox.affine @ Affine.scale(step), geobox.crs)


def _picture_bands(names: Sequence[str]) -> list[int]:
    """Positions of red, green and blue, else of the first three bands, else of the first."""
    words = [re.split(r"[^a-z]+", name.lower()) for name in names]  # B4_red is red
    found = [next((k for k, own in enumerate(words) if color in own), -1) for color in TRUE_COLOR]
    return found if min(found) >= 0 else [0, 1, 2] if len(names) >= 3 else [0]


def _stretched(raster: Raster) -> NDArray[np.uint8]:
    """Three bands, or one in grey, `(row, col, 4)`, between their 2 % and 98 % quantiles; clear where invalid."""
    out = np.zeros((*raster.valid.shape, 4), np.uint8)
    if raster.valid.any():
        for k in range(3):
            band = raster.pixels[k % len(raster.pixels)].astype(np.float64)
            low, high = np.percentile(band[raster.valid], [2, 98])
            out[..., k] = np.clip((np.where(raster.valid, band, low) - low) / max(high - low, 1e-12) * 255, 0, 255)
        out[..., 3] = 255 * raster.valid
    return out


def _colored(raster: Raster, source: Source) -> NDArray[np.uint8]:
    """Classes in their colours, `(row, col, 4)`; clear where there is none."""
    classed = raster.valid & (raster.pixels[0] >= 0)
    values = np.unique(raster.pixels[0][classed]).tolist() or values_of(source)
    legend = raster_legend(source, values=values)
    colors = np.zeros((65536, 4), np.uint8)
    for item in legend.classes:
        colors[list(item.codes or (item.id,))] = (*item.rgb, 255)
    picture: NDArray[np.uint8] = colors[raster.pixels[0]]
    picture[~classed] = 0
    return picture
