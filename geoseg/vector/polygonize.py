"""From a class map to a table of polygons."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import geopandas
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoseg.errors import GridError, InputError, LegendError
from geoseg.legend import Legend
from geoseg.raster import Raster
from geoseg.vector.attributes import Metric, fit_metric, measure_arcs, measure_regions
from geoseg.vector.coverage import Arcs, find_neighbours, trace_arcs
from geoseg.vector.dissolve import dissolve
from geoseg.vector.regions import count_pixels, label_regions, merge_small, sum_over_regions
from geoseg.vector.rings import Polygons, build_rings
from geoseg.vector.simplify import simplify_arcs

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

_log = logging.getLogger(__name__)


def polygonize(
    classes: Raster,
    *,
    legend: Legend,
    confidence: Raster | None = None,
    min_area_m2: float = 0.0,
    tolerance_m: float = 0.0,
    connectivity: Literal[4] = 4,
) -> geopandas.GeoDataFrame:
    """One polygon a 4-connected region of one class, in row-major order of their first pixels.

    The polygons are a valid coverage: each is valid, none overlap, and there is no gap but where the map is nodata. The
    columns are `class_id`, `class_name`, `area_m2` (on the ellipsoid), `perimeter_m` (on the ellipsoid, holes
    included), `pixels` (of the map, before simplification), `confidence` (mean over the region in percent, only where a
    confidence raster is given), `geometry`. Without a CRS they are `area_px` and `perimeter_px`, in pixels, and
    `min_area_m2` and `tolerance_m` are taken as pixels too; a warning says so.

    Args:
        classes: A class map: one band of integers. Invalid pixels and the legend's ignore value are no polygon.
        legend: Names of the classes.
        confidence: Percent 0 to 100 on the same grid.
        min_area_m2: Regions below this area join the neighbour they share the longest border with, smallest first.
        tolerance_m: Boundaries are simplified, see `simplify_arcs`: the side of a square, a vertex goes
            while its triangle with its neighbours is smaller; 0 leaves them exact.
        connectivity: 4: pixels that only touch at a corner are not joined.

    Raises:
        InputError: Not one band of integers, or an option out of range.
        LegendError: A value in the map is not in the legend.
        GridError: The confidence lies on another grid, or the CRS has no ground under it.
    """
    _check_options(classes, min_area_m2, tolerance_m, connectivity)
    _check_confidence(confidence, classes.geobox)
    ids = classes.pixels[0]
    regions, class_of_region = label_regions(ids, classes.valid & (ids != legend.ignore))
    _check_legend(class_of_region, legend)
    traced = _Traced(
        trace_arcs(regions), class_of_region, _sums(regions, confidence, len(class_of_region) - 1),
        _metric_of(classes.geobox),
    )  # fmt: skip
    if min_area_m2 > 0:
        traced = _merged(traced, measure_regions(regions, traced.metric, count=traced.count), min_area_m2)
    if tolerance_m > 0:
        min_triangle = tolerance_m**2 / traced.metric.pixel_area()
        traced = replace(traced, arcs=simplify_arcs(traced.arcs, min_triangle=min_triangle))
    return _frame(traced, legend, classes.geobox)


@dataclass(frozen=True, slots=True)
class _Traced:
    """Regions, nodata first, and their boundaries.

    Attributes:
        arcs: The boundaries.
        classes: Class of each region `(region,)`.
        sums: Sums over each region's pixels `(region,)`: `pixels`, and with a confidence `confidence` and `seen`.
        metric: The ground under the grid.
    """

    arcs: Arcs
    classes: NDArray[Any]
    sums: dict[str, NDArray[Any]]
    metric: Metric

    @property
    def count(self) -> int:
        """Number of regions, nodata aside."""
        return len(self.classes) - 1


def _check_options(classes: Raster, min_area_m2: float, tolerance_m: float, connectivity: int) -> None:
    if len(classes.bands) != 1:
        raise InputError(f"a class map has one band, got {len(classes.bands)} ({', '.join(classes.bands)}); select one")
    if classes.dtype.kind not in "iu":
        raise InputError(f"a class map holds integers, got {classes.dtype}; round or classify it first")
    for name, value in (("min_area_m2", min_area_m2), ("tolerance_m", tolerance_m)):
        if not 0 <= value < np.inf:
            raise InputError(f"{name} must be 0 or more, got {value}")
    if connectivity != 4:
        raise InputError(f"connectivity must be 4, got {connectivity}")


def _check_confidence(confidence: Raster | None, geobox: GeoBox) -> None:
    if confidence is None:
        return
    if len(confidence.bands) != 1:
        raise InputError(f"a confidence map has one band, got {len(confidence.bands)}; select one")
    if confidence.geobox != geobox:
        raise GridError("the confidence map lies on another grid than the class map; read it onto the map's grid")


def _check_legend(class_of_region: NDArray[Any], legend: Legend) -> None:
    unknown = sorted(set(np.unique(class_of_region[1:]).tolist()) - set(legend.ids.tolist()))
    if unknown:
        shown = ", ".join(map(str, unknown[:12]))
        known = ", ".join(map(str, legend.ids[:12].tolist()))
        raise LegendError(f"the map holds {shown}, the legend has {known}; add the classes to the legend")


def _metric_of(geobox: GeoBox) -> Metric:
    metric = fit_metric(geobox)
    if metric.unit == "px":
        _log.warning("the map has no CRS: areas, lengths, min_area_m2 and tolerance_m are in pixels")
    return metric


def _sums(regions: NDArray[np.int32], confidence: Raster | None, count: int) -> dict[str, NDArray[Any]]:
    sums: dict[str, NDArray[Any]] = {"pixels": count_pixels(regions, count=count)}
    if confidence is not None:
        sums["confidence"], sums["seen"] = sum_over_regions(
            regions, confidence.pixels[0], confidence.valid, count=count
        )
    return sums


def _merged(traced: _Traced, areas: NDArray[np.floating[Any]], min_area: float) -> _Traced:
    """The same without small regions."""
    lut, classes = merge_small(
        find_neighbours(traced.arcs, weights=traced.metric.edge_weights()),
        class_of_region=traced.classes,
        pixels=traced.sums["pixels"],
        areas=areas,
        min_area=min_area,
    )
    sums = {name: np.zeros(len(classes), values.dtype) for name, values in traced.sums.items()}
    for name, values in traced.sums.items():
        np.add.at(sums[name], lut, values)
    _log.info("merged %d regions into %d", traced.count, len(classes) - 1)
    return _Traced(dissolve(traced.arcs, lut), classes, sums, traced.metric)


def _frame(traced: _Traced, legend: Legend, geobox: GeoBox) -> geopandas.GeoDataFrame:
    areas, perimeters = measure_arcs(traced.arcs, traced.metric, count=traced.count)
    classes, sums, unit = traced.classes[1:], traced.sums, traced.metric.unit
    columns: dict[str, Any] = {
        "class_id": classes.astype(np.int32),
        "class_name": pd.array(np.array(legend.names, object)[np.searchsorted(legend.ids, classes)], dtype="str"),
        "area_m2" if unit == "m" else "area_px": areas[1:],
        f"perimeter_{unit}": perimeters[1:],
        "pixels": sums["pixels"][1:],
    }
    if "confidence" in sums:
        with np.errstate(invalid="ignore"):  # a region without a single valid confidence gets NaN
            columns["confidence"] = sums["confidence"][1:] / sums["seen"][1:]
    crs = None if geobox.crs is None else geobox.crs.proj
    return geopandas.GeoDataFrame(columns, geometry=_polygons(traced.arcs, geobox, traced.count), crs=crs)


def _polygons(arcs: Arcs, geobox: GeoBox, count: int) -> Polygons:
    """Polygons in the CRS; outer rings run counter-clockwise there."""
    transform = geobox.affine
    rings = build_rings(arcs, count=count, clockwise=transform.determinant > 0)
    x, y = rings.coords.T.copy()
    rings.coords[:, 0] = transform.a * x + transform.b * y + transform.c
    rings.coords[:, 1] = transform.d * x + transform.e * y + transform.f
    return rings.to_polygons()
