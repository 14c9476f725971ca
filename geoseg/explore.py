"""A region to look at: an image stretched to the eye, a class map in its colours, polygons over the scene.

The `show` functions draw on a matplotlib axis and return it, so pictures can be put together in a notebook or saved.
Rasters are read at the size they are shown, never whole; only the names of classes that nothing else says are looked
for in all pixels of a map.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoseg import io, pictures
from geoseg.errors import GridError, InputError
from geoseg.io.clouds import roughly
from geoseg.io.legends import map_legend
from geoseg.io.polygons import PolygonFile, onto_crs
from geoseg.legend import Legend
from geoseg.pictures import shrunk
from geoseg.raster import Raster, match_bands
from geoseg.vectorizing import open_class_map

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from odc.geo.geobox import GeoBox

__all__ = ["add_legend", "colored", "quicklook", "show", "show_map", "show_polygons", "shrunk", "stretched"]


def quicklook(scene: Any, *, longest_px: int = 900) -> Raster:
    """The whole scene read at a size of at most `longest_px` on its longer side.

    Args:
        scene: A path, a source spec or an open source.
        longest_px: Pixels of the longer side.
    """
    source = io.open_source(scene)
    return roughly(source).read(shrunk(source.geobox, longest_px=longest_px))


def stretched(raster: Raster, *, bands: Sequence[str] | None = None, percent: float = 2.0) -> NDArray[np.uint8]:
    """Picture `(row, col, 4)` uint8 of three bands, each stretched to its own percentiles; clear where invalid.

    Args:
        raster: Pixels of any dtype.
        bands: Names for red, green and blue; by default the bands with these words in their names, else the first
            three (or the first).
        percent: Share of the valid pixels cut at each end.

    Raises:
        BandError: A band is not there.
    """
    return pictures.stretched(raster.pixels[_picture_bands(raster, bands)], raster.valid, percent=percent)


def _picture_bands(raster: Raster, bands: Sequence[str] | None) -> list[int]:
    if bands is not None:
        if len(bands) != 3:
            raise InputError(f"a picture needs three bands, got {', '.join(bands)}")
        return match_bands(bands, raster.bands)
    return pictures.picture_bands(raster.bands)


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
    class_map: str | Path,
    *,
    axis: Axes | None = None,
    legend: Legend | None = None,
    band: str | int | None = None,
    longest_px: int = 900,
) -> Axes:
    """An axis with a class map in its legend's colours, and the legend beside it.

    Args:
        class_map: A raster of class codes.
        axis: Where to draw; a new figure by default.
        legend: What they mean: of a map that geoseg wrote its ids, of others its codes; what the file says by default.
        band: The band of the map, by name or 1-based number; the only one by default.
        longest_px: Pixels read on the longer side.

    Raises:
        BandError: The map has several bands and none was chosen.
        LegendError: A value is no class, or no whole number.
    """
    source = open_class_map(class_map, band=band)
    if legend is not None and map_legend(source) is not None:
        legend = legend.of_map()
    labels, classes = io.open_labels({"path": source, **({} if legend is None else {"legend": legend})})
    raster = quicklook(labels, longest_px=longest_px)
    drawn = _drawn(colored(raster.pixels[0], raster.valid, classes), raster.geobox, axis)
    add_legend(drawn, classes)
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

    Raises:
        MissingInputError: A file is not there.
        GridError: The scene or the polygons have no CRS.
        InputError: There is no polygon, or a legend and no column `class_id`.
        LegendError: A `class_id` is not in the legend.
    """
    from geopandas import GeoSeries

    raster = quicklook(scene)
    if raster.geobox.crs is None:
        raise GridError("the scene has no CRS, so polygons have no place on it; say it: {path: ..., crs: EPSG:...}")
    found = PolygonFile(str(polygons), columns=() if legend is None else ("class_id",)).read()
    colors = "white" if legend is None else [legend.by_id(value).color for value in found.columns["class_id"]]
    drawn = _drawn(stretched(raster, bands=bands), raster.geobox, axis)
    GeoSeries(onto_crs(found, raster.geobox.crs)).boundary.plot(ax=drawn, color=colors, linewidth=0.7)
    if legend is not None:
        add_legend(drawn, legend)
    return drawn


def add_legend(axis: Axes, legend: Legend) -> None:
    """Draws the legend's classes under the axis."""
    from matplotlib.patches import Patch

    handles = [Patch(facecolor=item.color, label=item.name) for item in legend.classes]
    axis.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=4, fontsize=7, frameon=False)


def _drawn(picture: NDArray[np.uint8], geobox: GeoBox, axis: Axes | None) -> Axes:
    """The picture in the coordinates of its grid, whichever way that is turned: north up, or without a CRS row 0 up."""
    import matplotlib.pyplot as plt
    from matplotlib.transforms import Affine2D

    if axis is None:
        _, axis = plt.subplots(figsize=(7, 7))
    rows, cols = geobox.shape
    affine = geobox.affine
    corners = np.array([affine @ corner for corner in ((0, 0), (cols, 0), (0, rows), (cols, rows))])
    (left, low), (right, high) = corners.min(0), corners.max(0)
    if affine.b == 0 and affine.d == 0:
        extent = (affine.c, affine.c + cols * affine.a, affine.f + rows * affine.e, affine.f)
        axis.imshow(picture, extent=extent, interpolation="nearest")
    else:
        turned = Affine2D(np.array(tuple(affine)).reshape(3, 3)) + axis.transData
        axis.imshow(picture, extent=(0, cols, rows, 0), interpolation="nearest", transform=turned)
    down = geobox.crs is None and affine.e > 0
    axis.set(xlim=(left, right), ylim=(high, low) if down else (low, high))
    axis.set_axis_off()
    return axis
