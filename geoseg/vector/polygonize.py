"""From a class map to polygons: trace, merge, smooth or simplify, and make a layer of features."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import geopandas
import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from geoseg.errors import GridError, InputError, LegendError
from geoseg.legend import Legend
from geoseg.raster import Raster
from geoseg.tiling import Window
from geoseg.vector.attributes import region_measures
from geoseg.vector.coverage import Arcs, Coverage
from geoseg.vector.features import Features, Naming, check_columns, feature_layer
from geoseg.vector.grouping import class_groups, diagonal_groups, value_groups
from geoseg.vector.kinds import KINDS, Kind, ValuesAre
from geoseg.vector.layer import FeatureBatch, PolygonLayer
from geoseg.vector.lines.regularize import regularize_arcs
from geoseg.vector.lines.simplify import simplify_arcs
from geoseg.vector.lines.smooth import Crossings, merge_crossings, smooth_arcs
from geoseg.vector.merging import Minimum, check_similarity, merge_regions
from geoseg.vector.metric import Metric, fit_metric
from geoseg.vector.options import PolygonOptions
from geoseg.vector.reading import GridReader, InMemory
from geoseg.vector.rings import Polygons
from geoseg.vector.stitching import stitch
from geoseg.vector.tracing import BLOCK_PX, TraceBlock, Traced, in_threads, windows_of

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

_log = logging.getLogger(__name__)

Run = Callable[[TraceBlock, Sequence[Window]], Iterator[Traced]]
"""Who traces the blocks: gives them in any order."""

Progress = Callable[[int, int], None]

LegendOf = Callable[[list[int]], Legend | None]
"""The classes of a map that holds these values; None where they have no names."""

LEAST_TOLERANCE_PX = 0.01
"""A tolerance below it does nothing, and is degrees rather than metres."""


def polygonize(
    classes: Raster,
    *,
    legend: Legend | None = None,
    confidence: Raster | None = None,
    options: PolygonOptions | None = None,
) -> geopandas.GeoDataFrame:
    """The polygons of a raster in memory, as a table; see `polygon_layer`.

    Args:
        classes: One band of integers. Invalid pixels and the legend's ignore value are no polygon.
        legend: Names of the classes, where the values are classes.
        confidence: Percent 0 to 100 on the same grid.
        options: What to do with regions and boundaries.

    Raises:
        InputError: Not one band of integers, or an option makes no sense.
        LegendError: A value in the map is not in the legend.
        GridError: The confidence lies on another grid, or the CRS has no ground under it.
    """
    if confidence is not None and confidence.geobox != classes.geobox:
        raise GridError("the confidence map lies on another grid than the class map; read it onto the map's grid")
    if confidence is not None and len(confidence.bands) != 1:
        raise InputError(f"a confidence map has one band, got {len(confidence.bands)}; select one")
    if len(classes.bands) != 1:
        raise InputError(f"a class map has one band, got {len(classes.bands)} ({', '.join(classes.bands)}); select one")
    others = {} if confidence is None else {"confidence": InMemory(confidence)}
    ignore = frozenset() if legend is None else frozenset([legend.ignore])
    reader = GridReader(InMemory(classes), others, ignore=ignore)
    return to_frame(
        polygon_layer(reader, legend_of=None if legend is None else lambda _: legend, options=options)
    )  # fmt: skip


def polygon_layer(
    reader: GridReader,
    *,
    legend_of: LegendOf | None = None,
    values_are: ValuesAre | None = None,
    options: PolygonOptions | None = None,
    run: Run = in_threads,
    block_px: int = BLOCK_PX,
    progress: Progress | None = None,
) -> PolygonLayer:
    """The polygons of a map, ready to be written in batches.

    They are a valid coverage: each is valid, none overlap, and there is no gap but where the map is nodata. Features
    stand in the order of their first pixels. Without a CRS areas and lengths are pixels; a warning says so.

    Args:
        reader: The map and what lies on its grid.
        legend_of: The classes of the map's values; without it values have no names.
        values_are: Whether the values are the classes' ids or their codes, where the map says so.
        options: What to do with regions and boundaries.
        run: Who traces the blocks; threads by default.
        block_px: Side of a block. The result does not depend on it.
        progress: Told the pixels traced and the pixels in all.

    Raises:
        InputError: The map is not of integers below 2**63, an option makes no sense, or a raster's name is taken.
        LegendError: A value in the map is not in the legend, or may be an id as well as a code.
        GridError: The CRS has no ground under it.
    """
    options = options or PolygonOptions()
    check_columns(reader.layers)
    geobox, kind = reader.source.geobox, KINDS[options.kind]
    metric = _metric_of(geobox, options)
    coverage, crossings = trace_map(reader, run=run, block_px=block_px, progress=progress)
    if coverage.regions.count == 0:
        _log.warning("the map has no valid pixel: the layer is empty")
    naming = _naming(coverage, kind, legend_of, values_are)
    coverage, groups = _grouped(coverage, kind, naming, metric, options)
    arcs = _drawn(coverage, kind, naming, (metric, crossings), options)
    coverage = replace(coverage, arcs=arcs)
    measures = region_measures(arcs, metric, count=coverage.regions.count)
    multi = options.dissolve or options.connectivity == 8 or kind.name in ("instances", "panoptic")
    return feature_layer(Features(coverage, groups, measures, metric, multi), geobox=geobox, kind=kind, naming=naming)


def trace_map(
    reader: GridReader, *, run: Run = in_threads, block_px: int = BLOCK_PX, progress: Progress | None = None
) -> tuple[Coverage, Crossings | None]:
    """The coverage of a map, and where its boundaries cross between pixel centres, if the reader says so.

    Raises:
        InputError: The map is not of integers, or one is 2**63 or more.
    """
    windows = windows_of(reader.shape, block_px=block_px)
    blocks = _counted(run(TraceBlock(reader), windows), total=reader.shape[0] * reader.shape[1], progress=progress)
    crossings: list[Crossings] = []

    def kept() -> Iterator[Traced]:
        for block in blocks:
            if block.crossings is not None:
                crossings.append(block.crossings)
            yield replace(block, crossings=None)

    coverage = stitch(kept(), shape=reader.shape)
    largest = coverage.regions.classes.max()
    if largest > np.iinfo(np.int64).max:
        raise InputError(f"the map holds {largest}; the largest number of a column of integers is 2**63 - 1")
    return coverage, merge_crossings(crossings) if crossings else None


def to_frame(layer: PolygonLayer) -> geopandas.GeoDataFrame:
    """All features of a layer as a table."""
    batches = list(layer.batches())
    table = pa.Table.from_batches([batch.table for batch in batches], layer.schema)
    shapes = [_shapes(batch, multi=layer.multi) for batch in batches]
    geometry = np.concatenate(shapes) if shapes else np.empty(0, object)
    return geopandas.GeoDataFrame(table.to_pandas(), geometry=geometry, crs=layer.crs)


def _shapes(batch: FeatureBatch, *, multi: bool) -> Polygons:
    if not multi:
        return batch.rings.to_polygons()
    rings = batch.rings
    shapes: Polygons = shapely.from_ragged_array(
        shapely.GeometryType.MULTIPOLYGON, rings.coords, (rings.ring_offsets, rings.polygon_offsets, batch.parts)
    )
    return shapes


def _counted(blocks: Iterable[Traced], *, total: int, progress: Progress | None) -> Iterator[Traced]:
    done = 0
    for block in blocks:
        done += block.window.rows * block.window.cols
        if progress is not None:
            progress(done, total)
        yield block


def _metric_of(geobox: GeoBox, options: PolygonOptions) -> Metric:
    """The ground under the grid, on which the tolerance makes sense."""
    metric = fit_metric(geobox)
    if metric.unit == "px":
        _log.warning("the map has no CRS: areas, lengths, min_area_m2 and tolerance_m are in pixels")
    side = min(metric.pixel_size())
    if geobox.crs is not None and geobox.crs.geographic and 0 < options.tolerance < LEAST_TOLERANCE_PX * side:
        raise InputError(
            f"tolerance_m {options.tolerance_m} is in metres, of which a pixel here has {side:.3g}: below a hundredth "
            f"of a pixel it does nothing; were it degrees, give {side:.3g} for a pixel"
        )
    return metric


def _naming(coverage: Coverage, kind: Kind, legend_of: LegendOf | None, values_are: ValuesAre | None) -> Naming:
    """Names of the classes, all of those in the map."""
    found = _present(coverage, kind)
    legend = legend_of(found) if legend_of is not None and kind.has_classes else None
    naming = Naming.of(found, kind, legend, values_are=values_are)
    unknown = [value for value in found if naming.names and value not in naming.names]
    if unknown:
        shown, have = (", ".join(map(str, values[:12])) for values in (unknown, sorted(naming.names or {})))
        raise LegendError(f"the map holds {shown}, the legend has {have}; add the classes to the legend")
    return naming


def _grouped(
    coverage: Coverage, kind: Kind, naming: Naming, metric: Metric, options: PolygonOptions
) -> tuple[Coverage, NDArray[np.int32]]:
    """The coverage without small regions, and the feature of each region."""
    minimum = _minimum(naming, options.minima)
    check_similarity(options.similarity, known=naming.names or naming.present)
    if minimum.any:
        areas, _ = region_measures(coverage.arcs, metric, count=coverage.regions.count)
        before, values = coverage.regions.count, coverage.regions.classes
        coverage, _ = merge_regions(
            coverage, areas=areas, minimum=minimum, rule=options.merge_rule, similarity=options.similarity,
            weights=metric.edge_weights(), connectivity=options.connectivity,
            groups=_connected(coverage, kind, options), classes=kind.class_of(values),
        )  # fmt: skip
        _log.info("merged %d regions into %d", before, coverage.regions.count)
    if options.dissolve:
        return coverage, class_groups(coverage.regions.classes)
    return coverage, _connected(coverage, kind, options)


def _connected(coverage: Coverage, kind: Kind, options: PolygonOptions) -> NDArray[np.int32]:
    """The feature of each region: what is connected, and the parts of an instance."""
    values = coverage.regions.classes
    groups = np.arange(len(values), dtype=np.int32)
    if options.connectivity == 8:
        groups = diagonal_groups(coverage.arcs, values)
    together = kind.instance(values)
    return value_groups(values, together=together, otherwise=groups) if together[1:].any() else groups


def _present(coverage: Coverage, kind: Kind) -> list[int]:
    """The classes in the map."""
    found: list[int] = np.unique(kind.class_of(coverage.regions.classes[1:])).tolist()
    return found


def _minimum(naming: Naming, minima: Mapping[str, float]) -> Minimum:
    """Smallest areas by the classes' numbers."""
    by_class: dict[int, float] = {}
    for name, area in minima.items():
        if name != "default":
            by_class |= dict.fromkeys(_numbers(name, naming, what="min_area_m2"), area)
    return Minimum(minima["default"], by_class)


def _numbers(name: str, naming: Naming, *, what: str) -> list[int]:
    """What stands in the map for a class, by its name or its number."""
    names = naming.names or {}
    found = [value for value, known in names.items() if known.lower() == name.lower()]
    if found:
        return found
    number = int(name) if re.fullmatch(r"-?\d+", name) else None
    if number is None or (names and number not in names):
        some = [f"{value} {known}" for value, known in list(names.items())[:12]]
        known = ", ".join(some) or "numbers, for the map's values have no names"
        raise LegendError(f"{what} names the class '{name}', which is not known; known are {known}")
    if naming.present and number not in naming.present and not names:
        _log.warning("%s names %d, and the map holds no %d", what, number, number)
    return [number]


def _drawn(
    coverage: Coverage, kind: Kind, naming: Naming, ground: tuple[Metric, Crossings | None],
    options: PolygonOptions,
) -> Arcs:  # fmt: skip
    """The boundaries as they will be drawn."""
    (metric, crossings), arcs = ground, coverage.arcs
    pixel = metric.pixel_size()
    if options.smooth or crossings is not None:
        arcs = smooth_arcs(arcs, crossings)
    if options.tolerance > 0:
        arcs = simplify_arcs(arcs, tolerance=options.tolerance, pixel=pixel, method=options.simplify)
    if options.right_angles:
        numbers = [number for name in options.right_angles for number in _numbers(name, naming, what="right_angles")]
        things = np.isin(kind.class_of(coverage.regions.classes), np.array(numbers))
        things[0] = False
        arcs = regularize_arcs(arcs, things, pixel=pixel, tolerance=options.tolerance or max(pixel))
    return arcs
