"""From a coverage to a layer: which regions make up a feature, its attributes, and its polygons in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.legend import Legend
from geoseg.vector.coverage import Coverage
from geoseg.vector.grouping import group_regions
from geoseg.vector.kinds import Kind, ValuesAre, names_of
from geoseg.vector.layer import FeatureBatch, PolygonLayer
from geoseg.vector.metric import Metric
from geoseg.vector.regions import Ints, Sums
from geoseg.vector.rings import RingIndex, index_rings, rings_of

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

BATCH = 32768
"""Features at a time."""

CONFIDENCE = "confidence"
"""The layer of which the smallest value is told too."""

RESERVED = frozenset(
    {"id", "class_id", "class_name", "instance_id", "value", "area_m2", "area_px", "perimeter_m", "perimeter_px",
     "pixels", f"{CONFIDENCE}_min", "fid", "geom", "geometry", "bbox"}
)  # fmt: skip
"""Columns that a table may have anyway, by its kind or by the format of its file."""


@dataclass(frozen=True, slots=True)
class Naming:
    """What the values of a map are called.

    Attributes:
        names: Name of each class by what stands in the map; None where there is no column of names.
        legend: The classes with their colours, for styles; None where their ids are not what stands in the map.
        present: The classes in the map.
    """

    names: Mapping[int, str] | None
    legend: Legend | None
    present: frozenset[int]

    @classmethod
    def of(
        cls, values: Sequence[int], kind: Kind, legend: Legend | None, *, values_are: ValuesAre | None = None
    ) -> Naming:
        """The names of a map of one kind that holds these classes."""
        if legend is None:
            return cls({} if kind.has_classes and not values else None, None, frozenset(values))
        names = names_of(values, legend, values_are=values_are)
        shown = legend if names.keys() <= set(legend.ids.tolist()) else None
        return cls(names, shown, frozenset(values))


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Groups of a coverage's regions, nodata first.

    Attributes:
        coverage: The regions and the boundaries as they will be drawn.
        groups: Feature of each region, int32 `(region,)`; 0 for nodata alone.
        measures: Area and perimeter of each region as drawn `(region,)`, in the metric's unit.
        metric: The ground under the grid.
        multi: Whether a feature may have several polygons.
    """

    coverage: Coverage
    groups: NDArray[np.int32]
    measures: tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]
    metric: Metric
    multi: bool


def check_columns(names: Iterable[str]) -> None:
    """That each other raster has a column of its own, whatever the letter case.

    Raises:
        InputError: A name is empty, taken by the table itself, or there twice.
    """
    taken = set(RESERVED)
    for name in names:
        if not name.strip():
            raise InputError(f"the name '{name}' of a column is empty; give a raster's column a name: name=path")
        if name.lower() in taken:
            raise InputError(f"a column '{name}' would be there twice; give the raster's another name: name=path")
        taken.add(name.lower())


def feature_layer(features: Features, *, geobox: GeoBox, kind: Kind, naming: Naming) -> PolygonLayer:
    """The layer of all features, to be written batch by batch.

    The columns are `id` (one more than the row-major index of the feature's first pixel: the same as long as that
    feature is), those of the kind of map, `area_m2` and `perimeter_m` on the ellipsoid, holes included, of the polygons
    as drawn, or `area_px` and `perimeter_px`; `pixels` of the map; the mean of each other raster by its name, and
    `confidence_min`.

    Args:
        features: What to draw.
        geobox: The map's grid.
        kind: What the map's values are.
        naming: Names of the classes.
    """
    order = np.argsort(features.groups[1:], kind="stable").astype(np.int32) + np.int32(1)
    count = int(features.groups.max(initial=0))
    parts = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(features.groups[1:], minlength=count + 1)[1:], out=parts[1:])
    index = index_rings(features.coverage.arcs, order=order)
    table = _Table(_columns(features, kind, count=count), naming.names)
    drawn = _Drawn(features, index, parts, geobox, table)
    crs = None if geobox.crs is None else geobox.crs.proj
    return PolygonLayer(table.schema, crs, features.multi, count, index.vertices, drawn.batches, naming.legend)


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """Attributes of all features by column; names of classes, where they have names, are put in batch by batch."""

    columns: Mapping[str, NDArray[Any]]
    names: Mapping[int, str] | None

    @property
    def schema(self) -> pa.Schema:
        return self.batch(0, 0).schema

    def batch(self, start: int, stop: int) -> pa.RecordBatch:
        """The features `start` to `stop - 1`."""
        found: dict[str, pa.Array] = {}
        for name, values in self.columns.items():
            part = values[start:stop]
            found[name] = pa.array(part, from_pandas=part.dtype.kind == "f")
            if name == "class_id" and self.names is not None:
                found["class_name"] = _named(part, self.names)
        return pa.RecordBatch.from_pydict(found)


@dataclass(frozen=True, slots=True, eq=False)
class _Drawn:
    """The polygons and attributes of all features."""

    features: Features
    index: RingIndex
    parts: Ints
    geobox: GeoBox
    table: _Table

    def batches(self) -> Iterator[FeatureBatch]:
        """Some features after the other."""
        for start in range(0, len(self.parts) - 1, BATCH):
            yield self.batch(start, min(start + BATCH, len(self.parts) - 1))

    def batch(self, start: int, stop: int) -> FeatureBatch:
        """The features `start` to `stop - 1`; outer rings run counter-clockwise in the CRS."""
        transform, parts = self.geobox.affine, self.parts[start : stop + 1]
        rings = rings_of(
            self.features.coverage.arcs, self.index, start=int(parts[0]), stop=int(parts[-1]), transform=transform,
            clockwise=transform.determinant > 0,
        )  # fmt: skip
        return FeatureBatch(self.table.batch(start, stop), rings, parts - parts[0])


def _columns(features: Features, kind: Kind, *, count: int) -> dict[str, NDArray[Any]]:
    """Columns of numbers."""
    regions, unit = group_regions(features.coverage.regions, features.groups), features.metric.unit
    areas, lengths = (
        np.bincount(features.groups, weights=measure, minlength=count + 1)[1:] for measure in features.measures
    )
    columns: dict[str, NDArray[Any]] = {
        "id": regions.first[1:] + 1,
        **kind.columns(regions.classes[1:]),
        "area_m2" if unit == "m" else "area_px": areas,
        f"perimeter_{unit}": lengths,
        "pixels": regions.pixels[1:],
    }
    for name, sums in regions.values.items():
        columns[name] = _mean(sums)
        if name == CONFIDENCE:
            columns[f"{name}_min"] = np.where(sums.count > 0, sums.low, np.nan)[1:]
    return columns


def _named(values: NDArray[Any], names: Mapping[int, str]) -> pa.Array:
    """The name of each value."""
    known = np.array(sorted(names), np.int64)
    index = np.searchsorted(known, values.astype(np.int64)).astype(np.int32)
    words = pa.array([names[value] for value in known.tolist()], pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(index), words).cast(pa.string())


def _mean(sums: Sums) -> NDArray[np.float64]:
    """Mean of the valid values of each region but nodata; NaN where there is none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: NDArray[np.float64] = sums.total[1:] / sums.count[1:]
    return mean
