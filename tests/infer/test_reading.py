"""Pixels that cannot be read stop the job, or become nodata that is listed; all others are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from geoseg.errors import ReadError
from geoseg.infer.blocks import run_blocks
from geoseg.infer.encode import encode_block, notes_of
from geoseg.infer.layers import chosen_layers
from geoseg.infer.reading import Unread, merged, read_piece
from geoseg.infer.scale import lattice_for
from geoseg.infer.task import SceneTask
from geoseg.legend import Legend
from geoseg.raster import Raster
from geoseg.tiling import Window

LEGEND = Legend.from_dict({3: "water", 7: "forest", 12: "field"})
unhurried = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])


@dataclass(frozen=True)
class Broken:
    """A scene whose file is stored in blocks, one of which is damaged."""

    whole: Any
    bad: Window

    def __getattr__(self, name: str) -> Any:
        return getattr(self.whole, name)

    def read(self, geobox: GeoBox) -> Raster:
        own, asked = self.whole.geobox.affine, geobox.affine
        row, col = round((asked.f - own.f) / own.e), round((asked.c - own.c) / own.a)
        part = Window(row, col, *geobox.shape).intersect(self.bad)
        if part.rows and part.cols:
            raise ReadError(f"bad.tif cannot be read at rows {row} to {row + geobox.shape[0]}")
        found: Raster = self.whole.read(geobox)
        return found


def task_of(source: Any, predictor: Any, **options: Any) -> SceneTask:
    lattice = lattice_for(source.geobox.shape, tile_px=64, overlap_px=16, scale=(1.0, 1.0))
    return SceneTask(source, predictor, LEGEND, lattice.tiling, lattice.model_shape, "hann", **options)


@unhurried
@given(
    row=st.integers(0, 5), col=st.integers(0, 5), rows=st.integers(1, 2), cols=st.integers(1, 2),
    cells=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)  # fmt: skip
def test_a_damaged_block_is_nodata_and_nothing_else_is(
    scene: Callable[..., Any], positions: Callable[..., Any], *, row: int, col: int, rows: int, cols: int,
    cells: tuple[int, int],
) -> None:  # fmt: skip
    bad = Window(64 * row, 64 * col, 64 * rows, 64 * cols).intersect(Window(0, 0, 400, 390))
    source = Broken(scene(400, 390), bad)
    task = task_of(source, positions(), on_error="nodata")
    classes, listed = np.zeros((400, 390), np.uint8), np.zeros((400, 390), int)
    for block in run_blocks(task, task.tiling.blocks(cells=cells)):
        classes[block.block.window.slices] = block.layers["class"][0]
        for item in block.unread:
            listed[item.window.slices] += 1
            assert "bad.tif cannot be read" in item.reason
    wanted = np.zeros((400, 390), int)
    wanted[bad.slices] = 1
    np.testing.assert_array_equal(listed, wanted)
    np.testing.assert_array_equal(classes == LEGEND.ignore, wanted == 1)


def test_by_default_the_job_stops_there(scene: Callable[..., Any], positions: Callable[..., Any]) -> None:
    task = task_of(Broken(scene(200, 200), Window(100, 100, 1, 1)), positions())
    with pytest.raises(ReadError, match=r"bad\.tif cannot be read at rows"):
        list(run_blocks(task, task.tiling.blocks(cells=(9, 9))))


@unhurried
@given(
    bad=st.tuples(st.integers(0, 390), st.integers(1, 40)), down=st.integers(1, 3),
    kept=st.lists(st.booleans(), min_size=4, max_size=4),
)  # fmt: skip
def test_each_block_lists_all_that_lacks_where_tiles_reach_over_several_blocks(
    scene: Callable[..., Any], positions: Callable[..., Any], *, bad: tuple[int, int], down: int, kept: list[bool]
) -> None:
    source = Broken(scene(400, 64), Window(bad[0], 0, bad[1], 64).intersect(Window(0, 0, 400, 64)))
    tiling = lattice_for((400, 64), tile_px=256, overlap_px=128, scale=(1.0, 1.0)).tiling
    assert tiling.rows.tile > 2 * tiling.rows.stride
    task = SceneTask(source, positions(), LEGEND, tiling, tiling.tile_shape, "hann", on_error="nodata")
    whole = read_piece(source, tiling.scene, scene=source.geobox, on_error="nodata", pool=None)
    blocks = [block for block in tiling.blocks(cells=(down, 1)) if not kept[block.index]]
    for block in run_blocks(task, blocks):
        listed = np.zeros((400, 64), bool)
        for item in block.unread:
            listed[item.window.slices] = True
        np.testing.assert_array_equal(listed[block.block.window.slices], ~whole.valid[block.block.window.slices])


@pytest.mark.parametrize("shape", [(30, 5000), (700, 1025), (3, 64)])
def test_threads_read_the_same_pixels(scene: Callable[..., Any], shape: tuple[int, int]) -> None:
    source = scene(*shape)
    window = Window(1, 3, shape[0] - 2, shape[1] - 5)
    with ThreadPoolExecutor(3) as pool:
        found = read_piece(source, window, scene=source.geobox, on_error="stop", pool=pool)
    whole = read_piece(source, window, scene=source.geobox, on_error="stop", pool=None)
    np.testing.assert_array_equal(found.pixels, whole.pixels)
    np.testing.assert_array_equal(found.valid, whole.valid)


def test_what_could_not_be_read_travels_with_the_part(
    scene: Callable[..., Any], positions: Callable[..., Any], tmp_path: Any
) -> None:
    task = task_of(
        Broken(scene(130, 100), Window(64, 0, 64, 64)), positions(), on_error="nodata",
        layers=chosen_layers(["entropy"]),
    )  # fmt: skip
    (block,) = run_blocks(task, task.tiling.blocks(cells=(9, 9)))
    (tmp_path / "part.tif").write_bytes(encode_block(task, block).files["class"])
    valid_px, lost_px, unread = notes_of(tmp_path / "part.tif")
    assert (valid_px, lost_px) == (130 * 100 - 64 * 64, 64 * 64)
    assert sum(item.window.rows * item.window.cols for item in unread) == 64 * 64
    assert Unread.from_list(unread[0].to_list()) == unread[0]
    assert str(Unread(Window(2, 3, 4, 5), "x")) == "rows 2 to 6, columns 3 to 8"
    named = Unread(Window(2, 3, 4, 5), "x", "a.tif")
    assert str(named) == "rows 2 to 6, columns 3 to 8 of a.tif"
    assert Unread.from_list(json.loads(json.dumps(named.to_list()))) == named


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), unique=True, max_size=20), st.randoms())
def test_places_are_joined_and_no_pixel_is_lost(cells: list[tuple[int, int]], random: Any) -> None:
    unread = [Unread(Window(64 * row, 64 * col, 64, 64), f"{row} {col}") for row, col in cells]
    random.shuffle(unread)
    found = merged(unread)
    counts, wanted = np.zeros((400, 400), int), np.zeros((400, 400), int)
    for items, target in ((found, counts), (unread, wanted)):
        for item in items:
            target[item.window.slices] += 1
    np.testing.assert_array_equal(counts, wanted)
    assert len(found) <= len(unread)


def test_places_of_two_scenes_stay_apart() -> None:
    unread = [Unread(Window(64 * row, 0, 64, 64), "x", scene) for row in (1, 0) for scene in ("b", "a")]
    assert [(item.scene, item.window) for item in merged(unread)] == [
        ("a", Window(0, 0, 128, 64)), ("b", Window(0, 0, 128, 64)),
    ]  # fmt: skip


def test_a_rectangle_of_cells_becomes_one_place() -> None:
    cells = [Unread(Window(row, col, 10, 7), "x") for row in (30, 40, 20) for col in (14, 7, 21)]
    assert [item.window for item in merged(cells)] == [Window(20, 7, 30, 21)]


@unhurried
@given(
    bad=st.tuples(st.integers(0, 299), st.integers(0, 299), st.integers(1, 90), st.integers(1, 90)),
    cut=st.tuples(st.integers(1, 299), st.integers(1, 299)), pooled=st.booleans(),
)  # fmt: skip
def test_what_cannot_be_read_does_not_hang_on_the_cut(
    scene: Callable[..., Any], bad: tuple[int, int, int, int], cut: tuple[int, int], pooled: bool
) -> None:
    whole = Window(0, 0, 300, 300)
    source, (row, col) = Broken(scene(300, 300), Window(*bad).intersect(whole)), cut
    with ThreadPoolExecutor(2) as pool:
        given_pool = pool if pooled else None

        def read(window: Window) -> Any:
            return read_piece(source, window, scene=source.geobox, on_error="nodata", pool=given_pool)

        wanted = read(whole)
        for part in (Window(0, 0, row, col), Window(row, col, 300 - row, 300 - col), Window(row, 0, 300 - row, col)):
            found = read(part)
            np.testing.assert_array_equal(found.valid, wanted.valid[part.slices])
            np.testing.assert_array_equal(found.pixels, wanted.pixels[:, *part.slices])
            listed = np.zeros((300, 300), bool)
            for item in found.unread:
                assert item.window == item.window.intersect(part)
                listed[item.window.slices] = True
            assert not listed[part.slices][found.valid].any()


@pytest.mark.parametrize("value", [-1.797e308, 3.5e38, np.inf])
def test_what_no_network_can_see_is_nodata(value: float) -> None:
    geobox = GeoBox((2, 3), Affine(10, 0, 500_000, 0, -10, 5_000_000), "EPSG:32633")
    pixels = np.ones((2, 2, 3))
    pixels[1, 0, 2] = value
    source: Any = SimpleNamespace(read=lambda asked: Raster(pixels, np.ones((2, 3), np.bool_), asked, ("a", "b")))
    found = read_piece(source, Window(0, 0, 2, 3), scene=geobox, on_error="stop", pool=None)
    assert found.valid.tolist() == [[True, True, False], [True, True, True]]
