"""A small picture of a scene or a class map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import OutputError
from geoseg.io.clouds import by_nearest, roughly
from geoseg.io.combine import pick
from geoseg.io.legends import raster_legend, values_of
from geoseg.io.protocol import Source
from geoseg.pictures import picture_bands, shrunk, stretched
from geoseg.raster import Raster

LONGEST_PX = 900


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
        picture = _colored(codes.read(shrunk(codes.geobox, longest_px=LONGEST_PX)), codes)
    else:
        chosen = picture_bands(source.bands)
        shown = pick(source, chosen, [source.bands[band] for band in chosen])
        raster = roughly(shown).read(shrunk(source.geobox, longest_px=LONGEST_PX))
        picture = stretched(raster.pixels, raster.valid)
    part = out.with_name(out.name + ".part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        matplotlib.image.imsave(part, picture, format="png")
        part.replace(out)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(f"{out} cannot be written: {error.strerror or error}") from error
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
