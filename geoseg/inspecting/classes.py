"""Class rasters: is it one, and how many pixels and hectares has each class."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.data.histogram import count_values, counted_exactly
from geoseg.data.scene import windows_of
from geoseg.data.statistics import in_threads
from geoseg.data.survey import Survey, sample_windows
from geoseg.errors import LegendError
from geoseg.inspecting.files import has_palette
from geoseg.inspecting.grids import ground_metric, pixel_areas_m2
from geoseg.io.clouds import by_nearest
from geoseg.io.grids import crop
from geoseg.io.legends import raster_legend
from geoseg.io.protocol import Source
from geoseg.jit import jit
from geoseg.legend import Legend
from geoseg.tiling import Window
from geoseg.vector.metric import Metric

EXACT_PX = 200_000_000
"""Larger class rasters are counted from a sample unless asked otherwise."""

SAMPLE_PX = 1 << 25
FEW_VALUES = 40
"""A raster of integers without names or colours holds classes where it has no more values than that."""


@dataclass(frozen=True, slots=True)
class ClassCount:
    """Pixels and true area of one value; estimates where only a sample was counted."""

    value: int
    name: str | None
    pixels: int
    area_m2: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"value": self.value, "name": self.name, "pixels": self.pixels, "area_m2": self.area_m2}


SHARES = ("confidence", "entropy", "margin")
"""Bands in percent, of which few values may occur."""


def as_codes(source: Source) -> Source:
    """The source by nearest neighbour where it may be a class raster, whose values have no mean; others as they are."""
    return by_nearest(source) if _may_hold_classes(source) else source


def _may_hold_classes(source: Source) -> bool:
    return len(source.bands) == 1 and counted_exactly(source.dtype)


def class_legend(source: Source, seen: Survey) -> Legend | None:
    """The legend of a source that is a class raster; None for other scenes.

    It is one where its one band holds integers of up to 16 bits, none negative, and has a colour table, class names, or
    a handful of values that each occur often.
    """
    if not _may_hold_classes(source) or not seen.valid:
        return None
    histogram = seen.stats.histogram
    values = histogram.bins[histogram.counts[0] > 0].tolist()
    if values[0] < 0 or len(values) > 4096:
        return None
    try:
        legend = raster_legend(source, values=values)
    except LegendError:
        return None
    if source.bands[0].lower() in SHARES and not has_palette(source):
        return None
    named = any(not re.fullmatch(r"class \d+", name) for name in legend.names)
    few = len(values) <= FEW_VALUES and seen.valid >= 100 * len(values)
    return legend if named or few or has_palette(source) else None


def class_counts(source: Source, legend: Legend, *, exact: bool = False) -> tuple[list[ClassCount], bool]:
    """Pixels and area of each value of a class raster, and whether they are estimates from a sample.

    Areas are sums of the true areas of pixels on the ellipsoid; None without a place on the ground.

    Args:
        source: The raster, as `as_codes` has it.
        legend: Its classes.
        exact: Whether a large raster is counted pixel by pixel.

    Raises:
        ReadError: The raster cannot be read.
    """
    grid = source.geobox
    shape = (int(grid.shape[0]), int(grid.shape[1]))
    sampled = shape[0] * shape[1] > EXACT_PX and not exact
    windows = sample_windows(shape, unit=(256, 256), limit_px=SAMPLE_PX) if sampled else list(windows_of(shape))
    metric = ground_metric(grid)
    pixels, areas = np.zeros(65536, np.int64), np.zeros(65536)
    seen = 0
    for window, (counted, covered) in zip(
        windows, in_threads(partial(_count_window, source, metric), windows), strict=True
    ):
        pixels += counted
        areas += covered
        seen += window.rows * window.cols
    share = seen / (shape[0] * shape[1])
    names = {code: item.name for item in legend.classes for code in item.codes or (item.id,)}
    found = [
        ClassCount(
            value=value,
            name=names.get(value),
            pixels=round(pixels[value] / share),
            area_m2=None if metric is None else float(areas[value]) / share,
        )
        for value in np.flatnonzero(pixels).tolist()
    ]
    return found, sampled


def _count_window(
    source: Source, metric: Metric | None, window: Window
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Pixels and square metres of each value, `(65536,)`; a negative one is no class."""
    raster = source.read(crop(source.geobox, window))
    values = raster.pixels[0]
    classed = raster.valid & (values >= 0)
    found = count_values(raster.pixels, classed)
    pixels, areas = np.zeros(65536, np.int64), np.zeros(65536)
    pixels[found.bins] = found.counts[0]
    if metric is not None:
        add_areas(values, classed, pixel_areas_m2(metric, window), areas)
    return pixels, areas


@jit
def add_areas(
    values: NDArray[Any], mask: NDArray[np.bool_], pixel_areas: NDArray[np.float64], areas: NDArray[np.float64]
) -> None:  # pragma: no cover - compiled
    """Adds the area of each pixel where the mask is True to `areas (value,)`."""
    rows, cols = values.shape
    for row in range(rows):
        for col in range(cols):
            if mask[row, col]:
                areas[values[row, col]] += pixel_areas[row, col]
