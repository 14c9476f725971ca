"""Features as groups of regions: 4-connected regions of a coverage that make up one multi-polygon.

Groups are numbered by their first member from 1; group 0 is nodata alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.vector.coverage import Arcs
from geoseg.vector.neighbours import corner_pairs
from geoseg.vector.regions import Regions, Sums
from geoseg.vector.unionfind import number_sets, unite_pairs


def diagonal_groups(arcs: Arcs, classes: NDArray[Any]) -> NDArray[np.int32]:
    """8-connected groups: regions of one class that touch at a corner are one, int32 `(region,)`.

    At a corner of a checkerboard both diagonals join: polygons that cross there would not be valid, but multi-polygons
    whose parts touch at a point are.

    Args:
        arcs: The boundaries of 4-connected regions.
        classes: Class of each region `(region,)`, nodata first.
    """
    parent = np.arange(len(classes), dtype=np.int32)
    first, second = corner_pairs(arcs)
    same = classes[first] == classes[second]
    unite_pairs(parent, first[same], second[same])
    return number_sets(parent)


def value_groups(
    values: NDArray[Any], *, together: NDArray[np.bool_] | None = None, otherwise: NDArray[np.int32] | None = None
) -> NDArray[np.int32]:
    """Regions of one value, such as a class or the id of an instance, are one group, int32 `(region,)`.

    Args:
        values: Value of each region `(region,)`, nodata first.
        together: Which regions are joined by their value `(region,)`; all by default.
        otherwise: Groups of all regions `(region,)`, which are joined too; by default each region is its own.

    >>> value_groups(np.array([0, 7, 2, 7])).tolist()
    [0, 1, 2, 1]
    """
    parent = np.arange(len(values), dtype=np.int32)
    if otherwise is not None:
        unite_pairs(parent, *_to_first(otherwise))
    chosen = np.arange(1, len(values), dtype=np.int32)
    if together is not None:
        chosen = chosen[together[1:]]
    first, second = _to_first(values[chosen])
    unite_pairs(parent, chosen[first], chosen[second])
    return number_sets(parent)


def class_groups(classes: NDArray[Any]) -> NDArray[np.int32]:
    """One group a class, int32 `(region,)`.

    Args:
        classes: Class of each region `(region,)`, nodata first.
    """
    return value_groups(classes)


def join_groups(arcs: Arcs, groups: NDArray[np.int32]) -> NDArray[np.int32]:
    """What `dissolve` needs to join regions of one group that share an edge: a region for each, int32 `(region,)`.

    Args:
        arcs: The boundaries.
        groups: Group of each region `(region,)`; those of group 0 become nodata.
    """
    parent = np.where(groups == 0, 0, np.arange(len(groups))).astype(np.int32)
    inner = groups[arcs.left] == groups[arcs.right]
    unite_pairs(parent, arcs.left[inner], arcs.right[inner])
    return number_sets(parent)


def group_regions(regions: Regions, groups: NDArray[np.int32], *, classes: NDArray[Any] | None = None) -> Regions:
    """What is known of each group.

    Args:
        regions: What is known of each region.
        groups: Group of each region `(region,)`, by first member; regions of group 0 become nodata.
        classes: Class of each group `(group,)`; by default that of its first region.
    """
    count = int(groups.max(initial=0)) + 1
    leaders = np.zeros(count, np.int64)
    leaders[groups[::-1]] = np.arange(len(groups))[::-1]  # the last one written stands
    chosen = regions.classes[leaders] if classes is None else classes
    first = regions.first[leaders]
    first[0] = -1
    pixels = _added(regions.pixels, groups, count)
    values = {name: _reduced(sums, groups, count) for name, sums in regions.values.items()}
    return replace(regions, classes=chosen, pixels=pixels, first=first, values=values)


def _to_first(values: NDArray[Any]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Pairs that join each item to the first one with its value."""
    _, leaders, inverse = np.unique(values, return_index=True, return_inverse=True)
    return leaders.astype(np.int32)[inverse], np.arange(len(values), dtype=np.int32)


def _added(values: NDArray[Any], groups: NDArray[np.int32], count: int) -> NDArray[Any]:
    out = np.zeros(count, values.dtype)
    np.add.at(out, groups, values)
    out[0] = 0
    return out


def _reduced(sums: Sums, groups: NDArray[np.int32], count: int) -> Sums:
    kind = sums.low.dtype
    highest = np.iinfo(kind).max if kind.kind in "iu" else np.inf
    low = np.full(count, highest, kind)
    np.minimum.at(low, groups, sums.low)
    low[0] = highest
    return Sums(_added(sums.total, groups, count), _added(sums.count, groups, count), low)
