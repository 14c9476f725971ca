"""A region to look at: an image stretched to the eye, a class map in its colours, polygons over the scene.

The `show` functions draw on a matplotlib axis and return it, so pictures can be put together in a notebook or saved.
Rasters are read at the size they are shown, never whole.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoseg import io
from geoseg.errors import InputError
from geoseg.legend import Legend
from geoseg.raster import Raster, match_bands

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from odc.geo.geobox import GeoBox

logger = logging.getLogger(__name__)

TRUE_COLOR = ("red", "green", "blue")


def quicklook(scene: Any, *, longest_px: int = 900) -> Raster:
    """The whole scene read at a size of at most `longest_px` on its longer side.

    Args:
        scene: A path, a source spec or an open source.
        longest_px: Pixels of the longer side.
    """
    source = io.open_source(scene)
    return source.read(shrunk(source.geobox, longest_px=longest_px))


def shrunk(geobox: GeoBox, *, longest_px: int) -> GeoBox:
    """The same ground in at most `longest_px` pixels on the longer side; the geobox itself where it is small enough."""
    rows, cols = geobox.shape
    factor = max(rows, cols) / longest_px
    if factor <= 1 or geobox.crs is None:
        return geobox
    return geobox.zoom_to((max(1, round(rows / factor)), max(1, round(cols / factor))))


def stretched(raster: Raster, *, bands: Sequence[str] | None = None, percent: float = 2.0) -> NDArray[np.uint8]:
    """Picture `(row, col, 4)` uint8 of three bands, each stretched to its own percentiles; clear where invalid.

    Args:
        raster: Pixels of any dtype.
        bands: Names for red, green and blue; by default the bands of that name, else the first three (or the only one).
        percent: Share of the valid pixels cut at each end.

    Raises:
        BandError: A band is not there.
    """
    chosen = raster.pixels[_picture_bands(raster, bands)].astype(np.float32)
    out = np.zeros((*raster.valid.shape, 4), np.uint8)
    if not raster.valid.any():
        return out
    for k, band in enumerate(chosen):
        low, high = np.percentile(band[raster.valid], [percent, 100 - percent])
        out[..., k] = np.clip((band - low) / max(high - low, 1e-12) * 255, 0, 255)
    out[..., 3] = 255 * raster.valid
    return out


def _picture_bands(raster: Raster, bands: Sequence[str] | None) -> list[int]:
    if bands is not None:
        if len(bands) != 3:
            raise InputError(f"a picture needs three bands, got {', '.join(bands)}")
        return match_bands(bands, raster.bands)
    lowered = [name.lower() for name in raster.bands]
    if all(name in lowered for name in TRUE_COLOR):
        return [lowered.index(name) for name in TRUE_COLOR]
    return [0, 1, 2] if len(lowered) >= 3 else [0, 0, 0]


def colored(ids: NDArray[Any], valid: NDArray[np.bool_], legend: Legend) -> NDArray[np.uint8]:
    """Picture `(row, col, 4)` uint8 of class ids `(row, col)` in the legend's colours; clear where invalid."""
    lut = np.zeros((65536, 4), np.uint8)
    for item in legend.classes:
        lut[item.id] = (*item.rgb, 255)
    picture: NDArray[np.uint8] = lut[ids]
    picture[~valid] = 0
    return picture


def show(scene: Any, *, bands: Sequence[str] | None = None, axis: Axes | None = None, longest_px: int = 900) -> Axes:
    """An axis with the scene, stretched, in its own coordinates.

    Args:
        scene: A path, a source spec, an open source, or a Raster.
        bands: Names for red, green and blue.
        axis: Where to draw; a new figure by default.
        longest_px: Pixels read on the longer side.
    """
    raster = scene if isinstance(scene, Raster) else quicklook(scene, longest_px=longest_px)
    return _drawn(stretched(raster, bands=bands), raster.geobox, axis)


def show_map(
    class_map: str | Path, *, axis: Axes | None = None, legend: Legend | None = None, longest_px: int = 900
) -> Axes:
    """An axis with a class map in its legend's colours, and the legend beside it.

    Args:
        class_map: A raster of class ids.
        axis: Where to draw; a new figure by default.
        legend: The classes; those written in the file by default.
        longest_px: Pixels read on the longer side.
    """
    legend = legend or io.read_legend(class_map)
    raster = quicklook({"path": str(class_map), "resampling": "nearest"}, longest_px=longest_px)
    drawn = _drawn(colored(raster.pixels[0], raster.valid, legend), raster.geobox, axis)
    add_legend(drawn, legend)
    return drawn


def show_polygons(
    scene: Any,
    polygons: str | Path,
    *,
    bands: Sequence[str] | None = None,
    legend: Legend | None = None,
    axis: Axes | None = None,
) -> Axes:
    """An axis with the outlines of polygons over the scene.

    Args:
        scene: A path, a source spec or an open source; it has a CRS.
        polygons: A vector file.
        bands: Names for red, green and blue.
        legend: Colours the outlines by the polygons' `class_id`; white without.
        axis: Where to draw; a new figure by default.
    """
    import geopandas
    import pyogrio

    raster = quicklook(scene)
    drawn = _drawn(stretched(raster, bands=bands), raster.geobox, axis)
    frame = geopandas.read_file(polygons, layer=pyogrio.list_layers(polygons)[0, 0])  # a style may be a second table
    if frame.crs is not None and raster.geobox.crs is not None:
        frame = frame.to_crs(raster.geobox.crs.to_wkt())
    colors = "white" if legend is None else [legend.by_id(value).color for value in frame["class_id"]]
    frame.boundary.plot(ax=drawn, color=colors, linewidth=0.7)
    if legend is not None:
        add_legend(drawn, legend)
    return drawn


def add_legend(axis: Axes, legend: Legend) -> None:
    """Draws the legend's classes under the axis."""
    from matplotlib.patches import Patch

    handles = [Patch(facecolor=item.color, label=item.name) for item in legend.classes]
    axis.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=4, fontsize=7, frameon=False)


def _drawn(picture: NDArray[np.uint8], geobox: GeoBox, axis: Axes | None) -> Axes:
    import matplotlib.pyplot as plt

    if axis is None:
        _, axis = plt.subplots(figsize=(7, 7))
    affine = geobox.transform
    rows, cols = geobox.shape
    plain = affine.b == 0 and affine.d == 0
    extent = (affine.c, affine.c + cols * affine.a, affine.f + rows * affine.e, affine.f) if plain else None
    axis.imshow(picture, extent=extent, interpolation="nearest")
    axis.set_axis_off()
    return axis
