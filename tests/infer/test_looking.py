"""Before a job begins enough pixels are looked at that get a class, wherever they lie, and not much is read for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray

from geoseg.infer.looking import DIAGONAL, LEAST_PX, MOST_PLACES, MOST_TILES, looked_at
from geoseg.infer.scale import lattice_for
from geoseg.infer.task import SceneTask
from geoseg.io.regions import open_area
from geoseg.io.sources import open_source

SIZE = 1500


def task_of(source: Any, **options: Any) -> SceneTask:
    lattice = lattice_for(source.geobox.shape, tile_px=128, overlap_px=16, scale=(1.0, 1.0))
    return SceneTask(source, None, None, lattice.tiling, lattice.model_shape, "hann", (), **options)  # type: ignore[arg-type]


def counted(task: SceneTask) -> int:
    """Pixels looked at, each of which is where its bands say and gets a class."""
    pixels = 0
    for look in looked_at(task):
        assert not (look.counted & ~look.piece.valid).any()
        row, col = look.piece.pixels[:, look.counted]
        assert task.source.valid[row, col].all()  # type: ignore[attr-defined]
        if task.area is not None:
            assert task.area.mask(task.source.geobox)[row, col].all()
        pixels += int(look.counted.sum())
    return pixels


def off_the_diagonal(size: int, width: int) -> NDArray[np.bool_]:
    row, col = np.indices((size, size))
    return np.asarray(np.abs(row - col) > width)


def test_three_tiles_are_enough_where_they_have_pixels(scene: Callable[..., Any]) -> None:
    task = task_of(scene(SIZE, SIZE))
    assert counted(task) == 3 * task.tiling.rows.tile**2
    assert len(task.source.reads) == len(DIAGONAL)  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [200, 700, 1000])
def test_pixels_off_the_diagonal_are_found(scene: Callable[..., Any], width: int) -> None:
    assert counted(task_of(scene(SIZE, SIZE, valid=off_the_diagonal(SIZE, width)))) >= LEAST_PX


def test_a_few_pixels_on_the_diagonal_are_not_enough(scene: Callable[..., Any]) -> None:
    valid = off_the_diagonal(SIZE, 400)
    valid[750:753, 750:753] = True
    assert counted(task_of(scene(SIZE, SIZE, valid=valid))) >= LEAST_PX


def box(left: int, top: int, size: int) -> list[list[list[float]]]:
    x, y, side = 500_000 + 10 * left, 5_000_000 - 10 * top, 10 * size
    return [[[x, y], [x + side, y], [x + side, y - side], [x, y - side], [x, y]]]


@pytest.mark.parametrize("valid", [True, False])
def test_pixels_of_an_area_are_found_and_no_others_count(scene: Callable[..., Any], *, valid: bool) -> None:
    source = scene(SIZE, SIZE, valid=off_the_diagonal(SIZE, 200) if valid else None)
    polygons = [box(0, 1350, 130), box(1350, 20, 130), box(700, 200, 40)]
    area = open_area({"type": "MultiPolygon", "coordinates": polygons, "crs": "EPSG:32633"}, source.geobox)
    assert counted(task_of(source, area=area)) >= LEAST_PX
    assert len(source.reads) <= MOST_TILES


def test_too_few_pixels_are_none_and_little_is_read_for_them(scene: Callable[..., Any]) -> None:
    valid = np.zeros((SIZE, SIZE), np.bool_)
    valid[::50, ::50] = True
    for usable in (valid, ~valid & valid):
        source = scene(SIZE, SIZE, valid=usable)
        assert looked_at(task_of(source)) == []
        assert len(source.reads) <= MOST_PLACES


def test_a_small_scene_is_seen_whole(scene: Callable[..., Any]) -> None:
    valid = np.zeros((150, 130), np.bool_)
    valid[140:, 120:] = True
    assert counted(task_of(scene(150, 130, valid=valid))) >= 100
    task = task_of(scene(20, 30))
    assert counted(task) == 600
    assert counted(replace(task, area=open_area({"rows": [3, 5]}, task.source.geobox))) == 60
    assert looked_at(task_of(scene(9, 9, valid=np.zeros((9, 9), np.bool_)))) == []


def test_a_thin_area_is_seen_whole(scene: Callable[..., Any]) -> None:
    source = scene(SIZE, SIZE)
    for rows, cols in (([100, 110], [3, 7]), ([700, 701], [0, SIZE])):
        area = open_area({"rows": rows, "cols": cols}, source.geobox)
        assert counted(task_of(source, area=area)) >= (rows[1] - rows[0]) * (cols[1] - cols[0])


def test_scenes_far_apart_are_found(tmp_path: Path) -> None:
    """In two corners, off the diagonal, of a mosaic forty times as wide as they are."""
    for name, at in (("a.tif", 0), ("b.tif", 80_000)):
        profile = {"driver": "GTiff", "count": 1, "height": 200, "width": 200, "dtype": "uint8", "crs": "EPSG:32633",
                   "transform": Affine(10, 0, 500_000 - at, 0, -10, 5_000_000 - at)}  # fmt: skip
        with rasterio.open(tmp_path / name, "w", **profile) as file:
            file.write(np.ones((1, 200, 200), np.uint8))
    looks = looked_at(task_of(open_source([str(tmp_path / "a.tif"), str(tmp_path / "b.tif")])))
    assert sum(look.counted.sum() for look in looks) >= LEAST_PX
