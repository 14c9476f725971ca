"""Scenes without a CRS: which of them are of one image, and which pixels they share there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from geoseg.data.scene import TEST, TRAINING, VALIDATION, SceneArrays, windows_of
from geoseg.tiling import Window

PAIRS = ((TRAINING, VALIDATION), (TRAINING, TEST), (VALIDATION, TEST))
"""Parts of which the first must not know the second."""


@dataclass(frozen=True, slots=True)
class Shared:
    """Pixels of a part of one scene that are pixels of another part in another scene.

    Attributes:
        scene: Number of the scene.
        part: The part there.
        other_scene: Number of the other one, among the others.
        other_part: The part there.
        pixels: How many they are.
    """

    scene: int
    part: int
    other_scene: int
    other_part: int
    pixels: int


def image_groups(scenes: Sequence[SceneArrays]) -> list[int]:
    """A number for each scene, the same for those that share what their images are made of."""
    first: dict[str, int] = {}
    edges = [(k, first.setdefault(mark, k)) for k, scene in enumerate(scenes) for mark in _marks(scene)]
    ends = np.array(edges, np.int64).reshape(-1, 2).T
    joined = coo_array((np.ones(len(edges), np.bool_), (ends[0], ends[1])), shape=(len(scenes), len(scenes)))
    return [int(group) for group in connected_components(joined, directed=False)[1]]


def shared_pixels(scenes: Sequence[SceneArrays], others: Sequence[SceneArrays]) -> Iterator[Shared]:
    """Training pixels of scenes that validate or test in others, and validation pixels that test there.

    Scenes with a CRS are passed over. Two that are cut from one grid share the pixels that lie in both; where one image
    is read in two ways, all of it is taken for the same place.

    Args:
        scenes: Scenes with their parts.
        others: Those that must not be known; a scene that stands in both is not compared with itself.
    """
    held: dict[int, set[int]] = {}
    for k, other in _of_one_image(scenes, others):
        mine, theirs = _parts(scenes[k], held), _parts(others[other], held)
        for part, other_part in PAIRS:
            pixels = _count(scenes[k], part, others[other], other_part) if part in mine and other_part in theirs else 0
            if pixels:
                yield Shared(k, part, other, other_part, pixels)


def _of_one_image(scenes: Sequence[SceneArrays], others: Sequence[SceneArrays]) -> Iterator[tuple[int, int]]:
    """Numbers of scenes and others without a CRS that share what their images are made of, each pair once."""
    by_mark: dict[str, list[int]] = {}
    for k, scene in enumerate(others):
        for mark in _marks(scene) if scene.geobox.crs is None else ():
            by_mark.setdefault(mark, []).append(k)
    for k, scene in enumerate(scenes):
        marks = _marks(scene) if scene.geobox.crs is None else ()
        for other in sorted({other for mark in marks for other in by_mark.get(mark, [])}):
            if others[other] is not scene:
                yield k, other


def _marks(scene: SceneArrays) -> frozenset[str]:
    """What tells a scene's image; its name where nothing else does."""
    return scene.origins or frozenset({scene.name})


def _parts(scene: SceneArrays, held: dict[int, set[int]]) -> set[int]:
    """The parts that a scene has pixels in, looked up once."""
    if id(scene) not in held:
        held[id(scene)] = {
            int(part) for window in windows_of(scene.shape) for part in np.unique(scene.part[window.slices])
        }
    return held[id(scene)]


def _count(one: SceneArrays, part: int, other: SceneArrays, other_part: int) -> int:
    """Pixels of a part of one scene that are of another part in the other."""
    if one.image_grid != other.image_grid:
        return sum(int(np.count_nonzero(one.part[window.slices] == part)) for window in windows_of(one.shape))
    return sum(int(np.count_nonzero((mine == part) & (theirs == other_part))) for mine, theirs in _both(one, other))


def _both(one: SceneArrays, other: SceneArrays) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """The parts of the pixels that lie in two scenes cut from one grid, window by window."""
    moved = ~other.geobox.affine @ one.geobox.affine
    down, across = round(moved.f), round(moved.c)
    for window in windows_of(one.shape):
        there = _moved(window, down, across).intersect(Window(0, 0, *other.shape))
        if there.rows and there.cols:
            yield one.part[_moved(there, -down, -across).slices], other.part[there.slices]


def _moved(window: Window, down: int, across: int) -> Window:
    return Window(window.row_off + down, window.col_off + across, window.rows, window.cols)
