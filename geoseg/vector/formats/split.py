"""A layer's classes as layers of their own, for one file a class."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.legend import Legend
from geoseg.vector.layer import FeatureBatch, PolygonLayer
from geoseg.vector.regions import Ints
from geoseg.vector.rings import Rings


def split_by_class(layer: PolygonLayer) -> dict[str, PolygonLayer]:
    """The layer of each class that has a feature, by a name for its file, in order of the classes' ids.

    The batches are made once to count and once more for each class, so that none is kept.

    Raises:
        InputError: The layer has no classes.
    """
    if layer.legend is None or "class_id" not in layer.schema.names:
        raise InputError("one file a class needs a map of classes, and this map's polygons have none")
    counts = _count(layer)
    names = file_names({item.id: item.name for item in layer.legend.classes if item.id in counts})
    return {name: _of_class(layer, layer.legend, class_id, counts[class_id]) for class_id, name in names.items()}


def file_names(names: Mapping[int, str]) -> dict[int, str]:
    """Each class's name as a part of a file name: letters, digits and hyphens, unique whatever the letter case.

    >>> file_names({1: "Forest", 2: "water & ice", 3: "water/ice", 4: "?"})
    {1: 'Forest', 2: 'water_ice', 3: 'water_ice_3', 4: '4'}
    """
    safe: dict[int, str] = {}
    taken: set[str] = set()
    for class_id, name in names.items():
        candidate = re.sub(r"[^\w-]+", "_", name).strip("_")[:60] or str(class_id)
        while candidate.lower() in taken:
            candidate = f"{candidate}_{class_id}"
        taken.add(candidate.lower())
        safe[class_id] = candidate
    return safe


def select_features(batch: FeatureBatch, chosen: NDArray[np.bool_]) -> FeatureBatch:
    """The chosen features `(feature,)` of a batch, in their order."""
    polygons, parts = _gather(batch.parts, np.flatnonzero(chosen))
    rings, polygon_offsets = _gather(batch.rings.polygon_offsets, polygons)
    vertices, ring_offsets = _gather(batch.rings.ring_offsets, rings)
    selected = Rings(batch.rings.coords[vertices], ring_offsets, polygon_offsets)
    return FeatureBatch(batch.table.filter(pa.array(chosen)), selected, parts)


def _gather(offsets: Ints, chosen: Ints) -> tuple[Ints, Ints]:
    """Members of the chosen groups, of which `i` has `offsets[i]` to `offsets[i + 1] - 1`, and the new offsets."""
    sizes = np.diff(offsets)[chosen]
    fresh = np.zeros(len(chosen) + 1, np.int64)
    np.cumsum(sizes, out=fresh[1:])
    return np.repeat(offsets[chosen] - fresh[:-1], sizes) + np.arange(fresh[-1]), fresh


def _classes(batch: FeatureBatch) -> Ints:
    classes: Ints = batch.table["class_id"].to_numpy(zero_copy_only=False).astype(np.int64)
    return classes


def _vertex_counts(batch: FeatureBatch) -> Ints:
    return np.diff(batch.rings.ring_offsets[batch.rings.polygon_offsets[batch.parts]])


def _count(layer: PolygonLayer) -> dict[int, tuple[int, int]]:
    """Features and vertices of each class."""
    counts: dict[int, tuple[int, int]] = {}
    for batch in layer.batches():
        ids, inverse = np.unique(_classes(batch), return_inverse=True)
        features = np.bincount(inverse, minlength=len(ids))
        vertices = np.bincount(inverse, _vertex_counts(batch), minlength=len(ids)).astype(np.int64)
        for class_id, more, corners in zip(ids.tolist(), features.tolist(), vertices.tolist(), strict=True):
            before = counts.get(class_id, (0, 0))
            counts[class_id] = (before[0] + more, before[1] + corners)
    return counts


def _of_class(layer: PolygonLayer, legend: Legend, class_id: int, counts: tuple[int, int]) -> PolygonLayer:
    def batches() -> Iterator[FeatureBatch]:
        for batch in layer.batches():
            chosen = _classes(batch) == class_id
            if chosen.any():
                yield select_features(batch, chosen)

    own = tuple(item for item in legend.classes if item.id == class_id)
    count, vertices = counts
    return replace(layer, count=count, vertices=vertices, batches=batches, legend=Legend(own, legend.ignore))
