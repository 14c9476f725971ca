"""The lattice of tiles: everything covered, nothing twice, whatever the cut."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg.errors import InputError
from geoseg.tiling import Axis, Tiling, Window

SHAPES = st.tuples(st.integers(1, 400), st.integers(1, 400))


@st.composite
def tilings(draw):
    multiple = draw(st.sampled_from([1, 8, 32]))
    tile = multiple * draw(st.integers(1, 160 // multiple))
    overlap = draw(st.integers(0, tile // 2))
    return Tiling.over(draw(SHAPES), largest_tile_px=tile, overlap_px=overlap, multiple=multiple), overlap, multiple


def counted(tiling):
    """How many tiles cover each pixel of the scene."""
    hits = np.zeros((tiling.rows.size, tiling.cols.size), int)
    for row in range(tiling.count[0]):
        for col in range(tiling.count[1]):
            hits[tiling.tile(row, col).intersect(tiling.scene).slices] += 1
    return hits


@given(tilings())
def test_every_pixel_lies_in_one_to_four_tiles(case):
    tiling, overlap, _ = case
    hits = counted(tiling)
    assert hits.min() >= 1
    if 2 * overlap <= min(tiling.tile_shape):
        assert hits.max() <= 4


@given(tilings())
def test_tiles_are_regular_and_start_inside(case):
    tiling, overlap, multiple = case
    for axis in (tiling.rows, tiling.cols):
        assert axis.tile % multiple == 0
        assert axis.stride == (axis.tile - overlap if axis.count > 1 else axis.tile)
        assert (axis.count - 1) * axis.stride < axis.size
        assert (axis.count - 1) * axis.stride + axis.tile >= axis.size


@given(tilings(), st.data())
def test_touching_is_the_brute_force(case, data):
    tiling = case[0]
    rows, cols = tiling.rows.size, tiling.cols.size
    top, left = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, cols - 1))
    window = Window(top, left, data.draw(st.integers(1, rows - top)), data.draw(st.integers(1, cols - left)))
    expected = [
        (row, col)
        for row in range(tiling.count[0])
        for col in range(tiling.count[1])
        if min(shape_of(tiling.tile(row, col).intersect(window))) > 0
    ]
    assert list(tiling.touching(window)) == expected


def shape_of(window):
    return window.rows, window.cols


@given(tilings(), st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_blocks_part_the_scene_for_any_cut(case, cells):
    tiling = case[0]
    hits = np.zeros((tiling.rows.size, tiling.cols.size), int)
    blocks = tiling.blocks(cells=cells)
    for block in blocks:
        hits[block.window.slices] += 1
        assert block.window.intersect(tiling.scene) == block.window
        assert min(shape_of(block.window)) > 0
    assert (hits == 1).all()
    assert [block.index for block in blocks] == list(range(len(blocks)))


@given(tilings(), st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_strips_run_downwards(case, cells):
    blocks = case[0].blocks(cells=cells)
    for before, block in itertools.pairwise(blocks):
        if before.strip == block.strip:
            assert block.window.row_off == before.window.row_stop
            assert (block.window.col_off, block.window.cols) == (before.window.col_off, before.window.cols)
        else:
            assert block.strip == before.strip + 1
            assert block.window.row_off == 0


@given(st.integers(300, 5000), st.integers(300, 5000))
def test_little_is_predicted_twice(rows, cols):
    tiling = Tiling.over((rows, cols), largest_tile_px=512, overlap_px=64)
    assert tiling.excess < (1 + 64 / 256) ** 2 * (1 + 32 / 300) ** 2


@pytest.mark.parametrize(("shape", "most"), [((4096, 4096), 1.35), ((16384, 16384), 1.35), ((1428, 1128), 1.4)])
def test_excess_of_real_scenes(shape, most):
    assert 1 <= Tiling.over(shape).excess < most


def test_excess_counts_all_tile_pixels():
    tiling = Tiling.over((1000, 300))
    assert tiling.excess == pytest.approx(3 * 1 * 384 * 320 / (1000 * 300))


def test_small_scenes_take_one_small_tile():
    tiling = Tiling.over((20, 33))
    assert tiling.tile_shape == (32, 64)
    assert tiling.count == (1, 1)
    assert tiling.tile(0, 0) == Window(0, 0, 32, 64)
    # The tile is smaller than the overlap here, and still the one that touches everything.
    assert list(tiling.touching(Window(19, 32, 1, 1))) == [(0, 0)]


def test_scene_as_large_as_a_tile():
    assert Tiling.over((512, 512)).count == (1, 1)
    assert Tiling.over((513, 512)).count == (2, 1)


def test_lattice_does_not_depend_on_the_cut():
    tiling = Tiling.over((900, 1300), largest_tile_px=256)
    whole = {place: tiling.tile(*place) for place in tiling.touching(tiling.scene)}
    for block in tiling.blocks(cells=(2, 3)):
        for place in tiling.touching(block.window):
            assert tiling.tile(*place) == whole[place]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (0, 10)}, "empty: 0 rows"),
        ({"largest_tile_px": 100}, "multiple of 32"),
        ({"largest_tile_px": 0}, "multiple of 32"),
        ({"overlap_px": 300}, "0 to 256"),
        ({"overlap_px": -1}, "0 to 256"),
    ],
)
def test_wrong_numbers_are_refused(options, message):
    given_options = {"shape": (600, 600)} | options
    with pytest.raises(InputError, match=message):
        Tiling.over(given_options.pop("shape"), **given_options)


def test_blocks_need_cells():
    with pytest.raises(InputError, match="at least one cell"):
        Tiling.over((600, 600)).blocks(cells=(0, 1))


def test_window_arithmetic():
    window = Window(2, 3, 4, 5)
    assert (window.row_stop, window.col_stop) == (6, 8)
    assert window.slices == (slice(2, 6), slice(3, 8))
    assert window.intersect(Window(0, 0, 3, 4)) == Window(2, 3, 1, 1)
    assert shape_of(window.intersect(Window(9, 9, 2, 2))) == (0, 0)


@given(st.integers(1, 300), st.integers(1, 5), st.integers(0, 40))
def test_cells_part_an_axis(size, tiles, overlap):
    axis = Axis.fit(size, largest_tile=tiles * 32 + 64, overlap=min(overlap, tiles * 16), multiple=32)
    edges = [axis.cell(index) for index in range(axis.count)]
    assert edges[0][0] == 0
    assert edges[-1][1] == size
    assert all(before[1] == after[0] for before, after in itertools.pairwise(edges))
    assert all(stop > start for start, stop in edges)
