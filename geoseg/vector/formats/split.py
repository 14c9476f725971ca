"""A layer's classes as layers of their own, for one file a class."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

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
    if "class_id" not in layer.schema.names:
        raise InputError("one file a class needs a map of classes, and this map's polygons have none")
    counts = _count(layer)
    names = file_names({class_id: counts[class_id].name for class_id in sorted(counts)})
    return {name: _of_class(layer, class_id, counts[class_id]) for class_id, name in names.items()}


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


class _Count(NamedTuple):
    """A class's name, as it stands in its first feature, and how many features and vertices it has."""

    name: str
    features: int
    vertices: int


def _count(layer: PolygonLayer) -> dict[int, _Count]:
    """What there is of each class."""
    counts: dict[int, _Count] = {}
    for batch in layer.batches():
        ids, first, inverse = np.unique(_classes(batch), return_index=True, return_inverse=True)
        features = np.bincount(inverse, minlength=len(ids))
        vertices = np.bincount(inverse, _vertex_counts(batch), minlength=len(ids)).astype(np.int64)
        for at, class_id in enumerate(ids.tolist()):
            before = counts.get(class_id) or _Count(_name(batch, int(first[at]), class_id), 0, 0)
            counts[class_id] = _Count(
                before.name, before.features + int(features[at]), before.vertices + int(vertices[at])
            )
    return counts


def _name(batch: FeatureBatch, feature: int, class_id: int) -> str:
    name = batch.table["class_name"][feature].as_py() if "class_name" in batch.table.schema.names else None
    return f"class {class_id}" if name is None else str(name)


def _of_class(layer: PolygonLayer, class_id: int, count: _Count) -> PolygonLayer:
    def batches() -> Iterator[FeatureBatch]:
        for batch in layer.batches():
            chosen = _classes(batch) == class_id
            if chosen.any():
                yield select_features(batch, chosen)

    legend = layer.legend
    own = () if legend is None else tuple(item for item in legend.classes if item.id == class_id)
    alone = Legend(own, legend.ignore) if legend is not None and own else None
    return replace(layer, count=count.features, vertices=count.vertices, batches=batches, legend=alone)
