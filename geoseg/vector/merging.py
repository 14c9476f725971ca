"""Regions below a minimum mapping unit go, smallest first: into a neighbour, or to nodata."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.jit import jit
from geoseg.vector.coverage import Coverage
from geoseg.vector.dissolve import dissolve
from geoseg.vector.grouping import diagonal_groups, group_regions, join_groups
from geoseg.vector.neighbours import Neighbours, corner_pairs, find_neighbours
from geoseg.vector.regions import Ints
from geoseg.vector.unionfind import find_root, number_sets

Floats = NDArray[np.floating[Any]]
Similarity = Mapping[tuple[int, int], float]
"""How similar two classes are, in any order; 0 for pairs that are not named."""


@dataclass(frozen=True, slots=True)
class Minimum:
    """The smallest area a region may have, in the unit of the areas it is held against.

    Attributes:
        default: Of all classes but those below; 0 where none is too small.
        classes: Of single classes, by number.

    Raises:
        InputError: One of them is no area.
    """

    default: float = 0.0
    classes: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for area in (self.default, *self.classes.values()):
            if not 0 <= area < np.inf:
                raise InputError(f"a minimum area must be 0 or more, got {area}")

    @property
    def any(self) -> bool:
        """Whether a region of any class may be too small."""
        return max(self.default, *self.classes.values(), 0) > 0

    def of(self, classes: NDArray[Any]) -> NDArray[np.float64]:
        """The minimum of each class given.

        >>> Minimum(9, {2: 0}).of(np.array([1, 2])).tolist()
        [9.0, 0.0]
        """
        found = np.full(classes.shape, self.default, np.float64)
        for number, area in self.classes.items():
            found[classes == number] = area
        return found


def merge_regions(
    coverage: Coverage,
    *,
    areas: Floats,
    minimum: Minimum,
    rule: str = "border",
    similarity: Similarity | None = None,
    weights: tuple[int, int] = (1, 1),
    connectivity: int = 4,
    groups: NDArray[np.int32] | None = None,
    classes: NDArray[Any] | None = None,
) -> tuple[Coverage, NDArray[np.int32]]:
    """The coverage without small regions, and the new region of each old one, int32 `(region,)`.

    A region is small while its area is below the minimum of its class. Under the rules that join, the smallest (fewest
    pixels, then lowest number) takes the class of a neighbour and joins it, and with it any other neighbour of that
    class, until no small one has a neighbour. Regions that touch nothing but nodata stay. Under `nodata` all small ones
    go. New regions are 4-connected, and their numbers keep the order of the first pixels.

    Args:
        coverage: 4-connected regions, with boundaries as traced.
        areas: Area of each region `(region,)`.
        minimum: In the unit of the areas.
        rule: One of `RULES`.
        similarity: For the rule `similar`.
        weights: Length of one pixel edge along x and along y, for the longest border.
        connectivity: 8 where all regions of one class that touch at a corner count as one, small or large.
        groups: Regions that count as one `(region,)`, such as the parts of an instance; by default what is connected.
        classes: Class of each region that `minimum` and `similarity` speak of `(region,)`, where the map's values say
            more than that.

    Raises:
        InputError: The rule is unknown.
    """
    if rule not in RULES:
        raise InputError(f"merge rule '{rule}' is unknown; known are {', '.join(RULES)}")
    arcs, regions = coverage.arcs, coverage.regions
    if groups is None:
        groups = _connected(coverage, connectivity)
    known = regions.classes if classes is None else classes
    units = group_regions(replace(regions, values={}), groups)
    leaders = _leaders(groups)
    traits = _Traits(
        units.classes.astype(np.int64), known[leaders].astype(np.int64), minimum.of(known[leaders]), units.pixels,
        np.bincount(groups, weights=areas).astype(np.float64),
    )  # fmt: skip
    corners = corner_pairs(arcs) if connectivity == 8 else (np.empty(0, np.int32), np.empty(0, np.int32))
    touching = _with_corners(find_neighbours(arcs, weights=weights, groups=groups), *(groups[each] for each in corners))
    joined, origin = RULES[rule](traits, touching, similarity or {})
    lut = join_groups(arcs, joined[groups])
    merged = group_regions(regions, lut, classes=units.classes[origin[joined[groups]]][_leaders(lut)])
    return Coverage(dissolve(arcs, lut), merged, coverage.shape), lut


def check_similarity(similarity: Similarity, *, known: Collection[int]) -> None:
    """Holds a table against the classes that there are.

    Raises:
        InputError: A class is unknown, a number is none, or a pair is given twice with two numbers.
    """
    for (first, second), value in similarity.items():
        unknown = [str(number) for number in (first, second) if number not in known]
        if unknown:
            have = ", ".join(str(number) for number in sorted(known)[:12])
            raise InputError(f"the similarity of {first} and {second}: no class {unknown[0]}; the classes are {have}")
        if not np.isfinite(value):
            raise InputError(f"the similarity of {first} and {second} must be a number, got {value}")
        if similarity.get((second, first), value) != value:
            raise InputError(
                f"the similarity of {first} and {second} is given as {value} and as {similarity[second, first]}; once "
                "is enough, it holds both ways"
            )


class _Traits(NamedTuple):
    """What decides of each unit, a region or a group that counts as one, nodata first; all `(unit,)`.

    Attributes:
        values: Value in the map, int64; neighbours of one value join.
        classes: Class that similarity speaks of, int64.
        minima: The smallest area that its class may have.
        pixels: Number of pixels.
        areas: Area.
    """

    values: Ints
    classes: Ints
    minima: NDArray[np.float64]
    pixels: Ints
    areas: Floats


Rule = Callable[[_Traits, Neighbours, Similarity], tuple[NDArray[np.int32], NDArray[np.int32]]]
"""New unit of each old one `(unit,)`, 0 where it becomes nodata, and of each new one an old unit that has its class."""


def _join_longest(
    traits: _Traits, neighbours: Neighbours, _: Similarity
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    return _joined(traits, neighbours, _Rank(np.zeros(len(traits.values), np.int32), np.zeros((1, 1))))


def _join_similar(
    traits: _Traits, neighbours: Neighbours, similarity: Similarity
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    named = sorted({number for pair in similarity for number in pair})
    codes = np.zeros(len(traits.classes), np.int32)  # 0 is all classes of which nothing is said
    scores = np.zeros((len(named) + 1, len(named) + 1))
    for code, number in enumerate(named, 1):
        codes[traits.classes == number] = code
    for (first, second), value in similarity.items():
        at = named.index(first) + 1, named.index(second) + 1
        scores[at] = scores[at[::-1]] = value
    return _joined(traits, neighbours, _Rank(codes, scores))


def _drop(traits: _Traits, _: Neighbours, __: Similarity) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    kept = traits.areas >= traits.minima
    kept[0] = True
    number = np.cumsum(kept, dtype=np.int32) - np.int32(1)
    return np.where(kept, number, 0).astype(np.int32), np.flatnonzero(kept).astype(np.int32)


RULES: dict[str, Rule] = {"border": _join_longest, "similar": _join_similar, "nodata": _drop}
"""`border`: into the neighbour with the longest shared border, then the lowest number. `similar`: into that of the most
similar class, then as `border`. `nodata`: it becomes nodata."""


class _Lists(NamedTuple):
    """Unit `u` touches `others[starts[u]:starts[u + 1]]`, with `borders` beside them, 0 where it is at a corner alone.

    Only small units have a list: a set of units that is small as a whole has no other members.
    """

    starts: Ints
    others: NDArray[np.int32]
    borders: Ints


class _Rank(NamedTuple):
    """Which neighbour comes first: a number for each class, int32 `(unit,)`, and the scores of each pair of numbers."""

    codes: NDArray[np.int32]
    scores: NDArray[np.float64]


class _Forest(NamedTuple):
    """Merged units as sets; what is said of a set stands at its root, its lowest number.

    A set's members are a linked list: the root, then `following`, to the root's `last`. A set has the class of the unit
    `origin`.
    """

    parent: NDArray[np.int32]
    following: NDArray[np.int32]
    last: NDArray[np.int32]
    origin: NDArray[np.int32]
    pixels: Ints
    areas: Floats


def _connected(coverage: Coverage, connectivity: int) -> NDArray[np.int32]:
    if connectivity == 8:
        return diagonal_groups(coverage.arcs, coverage.regions.classes)
    return np.arange(coverage.regions.count + 1, dtype=np.int32)


def _leaders(groups: NDArray[np.int32]) -> Ints:
    """First region of each group."""
    leaders = np.zeros(int(groups.max(initial=0)) + 1, np.int64)
    leaders[groups[::-1]] = np.arange(len(groups))[::-1]  # the last one written stands
    return leaders


def _with_corners(neighbours: Neighbours, first: NDArray[np.int32], second: NDArray[np.int32]) -> Neighbours:
    """The pairs and those that touch at a corner, which have no border."""
    return Neighbours(
        np.concatenate([neighbours.first, first]), np.concatenate([neighbours.second, second]),
        np.concatenate([neighbours.border, np.zeros(len(first), np.int64)]),
    )  # fmt: skip


def _joined(
    traits: _Traits, neighbours: Neighbours, rank: _Rank
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:  # fmt: skip
    size = len(traits.values)
    everyone = np.arange(size, dtype=np.int32)
    forest = _Forest(
        everyone.copy(), np.full(size, -1, np.int32), everyone.copy(), everyone.copy(), traits.pixels.copy(),
        traits.areas.copy(),
    )  # fmt: skip
    small = traits.areas < traits.minima
    small[0] = False
    waiting = everyone[small]
    waiting = waiting[np.argsort(traits.pixels[waiting], kind="stable")]
    lists = _list_neighbours(neighbours.first, neighbours.second, neighbours.border, small)
    _merge(forest, lists, traits, rank, waiting)
    return number_sets(forest.parent), forest.origin[forest.parent == everyone]


@jit
def _list_neighbours(
    first: NDArray[np.int32], second: NDArray[np.int32], border: Ints, small: NDArray[np.bool_]
) -> _Lists:
    starts = np.zeros(small.shape[0] + 1, np.int64)
    for pair in range(first.shape[0]):
        starts[first[pair] + 1] += small[first[pair]]
        starts[second[pair] + 1] += small[second[pair]]
    for unit in range(small.shape[0]):
        starts[unit + 1] += starts[unit]
    lists = _Lists(starts, np.empty(starts[-1], np.int32), np.empty(starts[-1], np.int64))
    following = starts.copy()
    for pair in range(first.shape[0]):
        for here, there in ((first[pair], second[pair]), (second[pair], first[pair])):
            if small[here]:
                lists.others[following[here]], lists.borders[following[here]] = there, border[pair]
                following[here] += 1
    return lists


@jit
def _merge(
    forest: _Forest, lists: _Lists, traits: _Traits, rank: _Rank, waiting: NDArray[np.int32]
) -> None:  # fmt: skip
    """Merges small sets until none has a neighbour, the smallest first.

    Units wait in order of their size. A set that has grown is larger than those before; it waits in a heap, again
    whenever it has grown, and entries whose pixel count is out of date are passed over.
    """
    shared = np.full(forest.parent.shape[0], -1, np.int64)  # border with each neighbour, -1 between steps
    touched = np.empty(forest.parent.shape[0], np.int32)
    grown = [(0, 0) for _ in range(0)]
    at = 0
    while at < waiting.shape[0] or len(grown) > 0:
        if len(grown) == 0 or (at < waiting.shape[0] and (traits.pixels[waiting[at]], waiting[at]) < grown[0]):
            amount, unit = traits.pixels[waiting[at]], waiting[at]
            at += 1
        else:
            amount, unit = heapq.heappop(grown)
        if forest.parent[unit] != unit or forest.pixels[unit] != amount:
            continue
        count = _gather(forest, lists, unit, shared, touched)
        best = _best(forest.origin, rank, unit, shared, touched[:count])
        shared[touched[:count]] = -1
        if best == 0:
            continue
        value, root = traits.values[forest.origin[best]], unit
        for other in touched[:count]:
            if traits.values[forest.origin[other]] == value:
                root = _unite(forest, root, other)
        if forest.areas[root] < traits.minima[forest.origin[root]]:
            heapq.heappush(grown, (forest.pixels[root], root))


@jit
def _gather(forest: _Forest, lists: _Lists, unit: int, shared: Ints, touched: NDArray[np.int32]) -> int:
    """Writes the roots of a set's neighbours, and adds the borders with them to `shared`. Returns how many they are."""
    (starts, others, borders), parent = lists, forest.parent
    count, member = 0, unit
    while member != -1:
        for at in range(starts[member], starts[member + 1]):
            other = others[at]
            if parent[other] != other:
                other = find_root(parent, other)
            if other != unit:
                if shared[other] < 0:
                    shared[other] = 0
                    touched[count] = other
                    count += 1
                shared[other] += borders[at]
        member = forest.following[member]
    return count


@jit
def _best(
    origin: NDArray[np.int32], rank: _Rank, unit: int, shared: Ints, touched: NDArray[np.int32]
) -> int:  # fmt: skip
    """The neighbour of the highest score, then the longest border, then the lowest number; 0 when there is none."""
    score, codes = rank.scores[rank.codes[origin[unit]]], rank.codes
    best = 0
    for other in touched:
        if shared[other] == 0:
            continue
        mine, held = score[codes[origin[other]]], score[codes[origin[best]]]
        longer = shared[other] > shared[best] or (shared[other] == shared[best] and other < best)
        if best == 0 or mine > held or (mine == held and longer):
            best = other
    return best


@jit
def _unite(forest: _Forest, unit: int, into: int) -> int:
    """Joins a root to another, whose class both have from now on. Returns the root of the two, the lower number."""
    low, high = min(unit, into), max(unit, into)
    forest.origin[low] = forest.origin[into]
    forest.parent[high] = low
    forest.following[forest.last[low]] = high
    forest.last[low] = forest.last[high]
    forest.pixels[low] += forest.pixels[high]
    forest.areas[low] += forest.areas[high]
    return low
