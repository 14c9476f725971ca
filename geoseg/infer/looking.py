"""Some tiles of a scene, looked at before a job begins: is the arithmetic that `auto` chose good enough for it?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from geoseg.infer.reading import Piece, read_piece
from geoseg.infer.rows import wanted_in
from geoseg.infer.task import SceneTask
from geoseg.io.combine import Mosaic
from geoseg.io.grids import crop

DIAGONAL = (0.25, 0.5, 0.75)
"""Where along the diagonal of what is mapped tiles are looked at first; those are enough where they hold pixels."""

SIDE = 64
"""Places along each side of what is mapped from which others are drawn."""

MOST_PLACES, MOST_TILES = 64, 16
"""Places that are tried at most, and tiles that are held against fp32."""

LEAST_PX = 10_000
"""Pixels with a class without which a share of 99.9 % says little: ten of them may differ."""


@dataclass(frozen=True, slots=True)
class Look:
    """A tile, filled up as invalid where it reaches beyond the scene.

    Attributes:
        piece: Its pixels and which of them can be read.
        counted: Which of those get a class, `(row, col)`.
    """

    piece: Piece
    counted: NDArray[np.bool_]


def looked_at(task: SceneTask) -> list[Look]:
    """Tiles with pixels that get a class; none where too few of those are found, unless they are all there are."""
    found: list[Look] = []
    pixels = 0
    for tried, place in enumerate(_places(task), start=1):
        look = _at(task, place)
        if look is not None:
            found.append(look)
            pixels += int(look.counted.sum())
        if (tried >= len(DIAGONAL) and pixels >= LEAST_PX) or tried == MOST_PLACES or len(found) == MOST_TILES:
            return found if pixels >= LEAST_PX else []
    return found


def _places(task: SceneTask) -> Iterator[tuple[int, int]]:
    """Tiles `(row, col)`, each once: on the diagonal, then anywhere, first where the area and scenes seem to be."""
    tiling, reach = task.tiling, task.reach
    rows, cols = min(SIDE, reach.rows), min(SIDE, reach.cols)
    order = np.random.default_rng(0).permutation(rows * cols)
    likely = _covered(task, (rows, cols)).astype(int)
    if task.area is not None:
        likely += task.area.mask(crop(task.source.geobox, reach).zoom_to((rows, cols)))
    order = order[np.argsort(-likely.ravel()[order], kind="stable")]
    drawn = zip((order // cols + 0.5) / rows, (order % cols + 0.5) / cols, strict=True)
    tried = set()
    for down, across in [*((share, share) for share in DIAGONAL), *drawn]:
        row = int(reach.row_off + down * reach.rows) // tiling.rows.stride
        col = int(reach.col_off + across * reach.cols) // tiling.cols.stride
        place = min(row, tiling.rows.count - 1), min(col, tiling.cols.count - 1)
        if place not in tried:
            tried.add(place)
            yield place


def _covered(task: SceneTask, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Which of so many parts of what is mapped scenes reach into."""
    reach, source = task.reach, task.source
    windows = [window for _, window in source.placed] if isinstance(source, Mosaic) else [reach]
    covered = np.zeros(shape, np.bool_)
    for window in windows:
        inner = window.intersect(reach)
        if inner.rows and inner.cols:
            top, left = inner.row_off - reach.row_off, inner.col_off - reach.col_off
            down, across = shape[0] / reach.rows, shape[1] / reach.cols
            rows = slice(int(top * down), ceil((top + inner.rows) * down))
            covered[rows, int(left * across) : ceil((left + inner.cols) * across)] = True
    return covered


def _at(task: SceneTask, place: tuple[int, int]) -> Look | None:
    """The tile at a place of the lattice; None where no pixel of it gets a class."""
    window, scene = task.tiling.tile(*place), task.tiling.scene
    inner = window.intersect(scene)
    counted = np.zeros((window.rows, window.cols), np.bool_)
    part = slice(0, inner.rows), slice(0, inner.cols)
    counted[part] = wanted_in(task, inner)
    if not counted.any():
        return None
    piece = read_piece(task.source, inner, scene=task.source.geobox, on_error="nodata", pool=None)
    counted[part] &= piece.valid
    whole = Piece.empty(len(task.source.bands), window, task.source.dtype)
    whole.pixels[:, *part], whole.valid[part] = piece.pixels, piece.valid
    return Look(whole, counted) if counted.any() else None
