"""A layer of polygons on its way to a file: a schema, and batches of features that never stand in memory together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from geoseg.legend import Legend
from geoseg.vector.regions import Ints
from geoseg.vector.rings import Rings

if TYPE_CHECKING:
    import pyproj


class FeatureBatch(NamedTuple):
    """Some features, in the order of the layer.

    Attributes:
        table: Their attributes.
        rings: Their polygons, in the layer's CRS.
        parts: Feature `i` has the polygons `parts[i]` to `parts[i + 1] - 1`, int64 `(feature + 1,)`; in a layer that is
            not `multi` each has one.
    """

    table: pa.RecordBatch
    rings: Rings
    parts: Ints


@dataclass(frozen=True, slots=True, eq=False)
class PolygonLayer:
    """Features and what they have in common.

    Attributes:
        schema: The attributes.
        crs: Where the polygons lie; None where that is not known, and coordinates are what the map's are.
        multi: Whether features are multi-polygons.
        count: Number of features.
        vertices: Number of vertices of all rings, closing ones included.
        batches: Makes the batches anew at each call.
        legend: Classes of the column `class_id`, for styles; None where features have no class.
    """

    schema: pa.Schema
    crs: pyproj.CRS | None
    multi: bool
    count: int
    vertices: int
    batches: Callable[[], Iterator[FeatureBatch]]
    legend: Legend | None = None
