"""The buffer against brute force: exact on one grid, kept across grids, in strips of any height."""

import numpy as np
import pytest
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from scipy import ndimage

from geoseg.data.scene import OUTSIDE, TEST, TRAINING, VALIDATION
from geoseg.data.splits import buffer
from geoseg.data.splits.buffer import cut_buffers
from geoseg.data.splits.reach import FAR, rows_below, widths_within, within_reach

FUNCTION = [HealthCheck.function_scoped_fixture]


def cut_by_hand(part, gsd, reach_m):
    """Validation near the test, then training near what is left, by whole-plane distance transforms."""
    found = part.copy()
    for cut, kept in (([VALIDATION], [TEST]), ([TRAINING], [VALIDATION, TEST])):
        held = np.isin(found, kept)
        if held.any():
            near = ndimage.distance_transform_edt(~held, sampling=gsd) <= reach_m
            found[near & np.isin(found, cut)] = OUTSIDE
    return found


def speckled(seed, shape, share=0.02):
    """Parts strewn at random, with blobs of all."""
    rng = np.random.default_rng(seed)
    part = np.full(shape, TRAINING, np.uint8)
    part[rng.random(shape) < share] = VALIDATION
    part[rng.random(shape) < share / 2] = TEST
    for _ in range(4):
        row, col = (rng.integers(0, size) for size in shape)
        part[row : row + rng.integers(1, 30), col : col + rng.integers(1, 30)] = rng.integers(0, 4)
    return part


@settings(max_examples=30, suppress_health_check=FUNCTION)
@given(
    seed=st.integers(0, 10**6),
    reach_m=st.floats(0, 900).map(lambda metres: round(metres, 3)),  # a tie but for rounding may go either way
    share=st.sampled_from([0.0005, 0.01, 0.1]),
    across=st.sampled_from([5.0, 10.0, 13.0]),
)
def test_one_scene_is_cut_exactly(decoded, strict, monkeypatch, *, seed, reach_m, share, across):
    monkeypatch.setattr(buffer, "STRIP_PX", 20_000)
    monkeypatch.setattr(buffer, "BLOCK_PX", 32)
    part = speckled(seed, (170, 90), share)
    geobox = GeoBox(part.shape, Affine(across, 0, 5e5, 0, -10, 5.2e6), "EPSG:32633")
    scene = strict(decoded(np.zeros(part.shape, np.uint8), geobox=geobox))
    scene.part[:, :] = part
    cut_buffers([scene], buffer_m=reach_m)
    np.testing.assert_array_equal(scene.part[:, :], cut_by_hand(part, (10.0, across), reach_m))


def test_a_buffer_wider_than_many_strips_reaches_through_them(decoded, strict, monkeypatch):
    monkeypatch.setattr(buffer, "STRIP_PX", 1)
    part = np.full((1500, 40), TRAINING, np.uint8)
    part[3, 7] = part[1490, 30] = VALIDATION
    scene = strict(decoded(np.zeros(part.shape, np.uint8)))
    scene.part[:, :] = part
    cut_buffers([scene], buffer_m=6_000)
    assert scene.part.largest <= 1024 * 40  # a window, never the scene
    np.testing.assert_array_equal(scene.part[:, :], cut_by_hand(part, (10.0, 10.0), 6_000))
    assert (scene.part[:, :] == TRAINING).any()


@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 9), st.floats(0, 60))
def test_strips_of_any_height_give_the_distances_of_the_whole(seed, cols, step, reach_m):
    marked = np.random.default_rng(seed).random((30, cols)) < 0.03
    widths = widths_within(reach_m, (7.0, 11.0))
    above, belows, below = np.full(cols, FAR), [], np.full(cols, FAR)
    strips = [slice(top, min(30, top + step)) for top in range(0, 30, step)]
    for strip in reversed(strips):
        belows.append(below.copy())
        rows_below(marked[strip], below)
    near = [within_reach(marked[s], above, b, widths) for s, b in zip(strips, reversed(belows), strict=True)]
    expected = ndimage.distance_transform_edt(~marked, sampling=(7.0, 11.0)) <= reach_m if marked.any() else marked
    np.testing.assert_array_equal(np.concatenate(near), expected)


def test_widths_hold_pixels_at_exactly_the_distance():
    assert widths_within(50.0, (10.0, 10.0)).tolist() == [5, 4, 4, 4, 3, 0]
    assert widths_within(0.0, (10.0, 10.0)).tolist() == [0]
    assert widths_within(0.3, (0.1, 0.1)).tolist() == [3, 2, 2, 0]


@settings(max_examples=12, suppress_health_check=FUNCTION)
@given(seed=st.integers(0, 10**6), reach_m=st.floats(0, 400), first=st.sampled_from([0, 1]))
def test_the_buffer_is_kept_across_zones(decoded, nearest_m, two_zones, *, seed, reach_m, first):
    boxes = two_zones if first == 0 else two_zones[::-1]
    scenes = [decoded(np.zeros((120, 120), np.uint8), geobox=box) for box in boxes]
    scenes[0].part[:] = TRAINING
    scenes[1].part[:] = OUTSIDE
    row, col = np.random.default_rng(seed).integers(0, 110, 2)
    scenes[1].part[row : row + 7, col : col + 5] = VALIDATION
    cut_buffers(scenes, buffer_m=reach_m)
    assert nearest_m(scenes[0], [TRAINING], scenes, [VALIDATION]).min() > reach_m * 0.999
    lost = nearest_m(scenes[0], [OUTSIDE], scenes, [VALIDATION])
    assert lost.max() < reach_m * 1.001 + 10 * 3  # one ring of pixels more than need be
    assert (scenes[1].part == VALIDATION).sum() == 35


def test_scenes_of_one_grid_are_cut_as_if_they_were_one(decoded, grid, shifted):
    part = speckled(5, (120, 200), 0.002)
    whole = decoded(np.zeros(part.shape, np.uint8), geobox=grid(*part.shape))
    whole.part[:] = part
    cut_buffers([whole], buffer_m=130)
    pieces = []
    for cols in (slice(0, 90), slice(90, 140), slice(140, 200)):
        box = shifted(whole.geobox, 0, cols.start, (120, cols.stop - cols.start))
        piece = decoded(np.zeros(tuple(box.shape), np.uint8), geobox=box)
        piece.part[:] = part[:, cols]
        pieces.append(piece)
    cut_buffers(pieces, buffer_m=130)
    np.testing.assert_array_equal(np.concatenate([piece.part for piece in pieces], 1), whole.part)


@pytest.mark.parametrize(("fine", "coarse"), [("train", "judge"), ("judge", "train")])
def test_pixels_of_other_sizes_neither_touch_nor_hide(decoded, grid, fine, coarse):
    """A pixel of 60 m that validates keeps all of its ground from training pixels of 10 m, and the other way round."""
    small = decoded(np.zeros((120, 120), np.uint8), geobox=grid(120, 120))
    large = decoded(np.zeros((20, 20), np.uint8), geobox=grid(20, 20, gsd_m=60.0))
    trains, judges = (small, large) if fine == "train" else (large, small)
    trains.part[:], judges.part[:] = TRAINING, OUTSIDE
    judges.part[7:9, 7:9] = VALIDATION
    cut_buffers([trains, judges], buffer_m=0)
    mine = np.kron(large.part == (VALIDATION if coarse == "judge" else TRAINING), np.ones((6, 6), bool))
    theirs = small.part == (TRAINING if fine == "train" else VALIDATION)
    assert not (mine & theirs).any()
    assert (trains.part == TRAINING).mean() > 0.95


def test_a_neighbour_west_of_a_grid_in_degrees_is_seen(decoded):
    boxes = [GeoBox((50, 50), Affine(1e-4, 0, 10 + k * 5e-3, 0, -1e-4, 50), "EPSG:4326") for k in (0, 1)]
    west, east = (decoded(np.zeros((50, 50), np.uint8), geobox=box) for box in boxes)
    west.part[:], east.part[:] = VALIDATION, TRAINING
    cut_buffers([east, west], buffer_m=100)
    lost = (east.part == OUTSIDE).sum(1)
    across_m = 1e-4 * np.radians(6_378_137.0) * np.cos(np.radians(50))
    assert set(lost.tolist()) <= {int(100 // across_m), int(100 // across_m) + 1}


def test_metres_are_those_of_the_place_in_a_tall_scene_in_degrees(decoded, nearest_m):
    """From the equator to 60 N the width of a pixel halves."""
    geobox = GeoBox((600, 60), Affine(0.1, 0, 10, 0, -0.1, 60), "EPSG:4326")
    scene = decoded(np.zeros((600, 60), np.uint8), geobox=geobox)
    scene.part[:] = TRAINING
    scene.part[5, 30] = scene.part[590, 30] = VALIDATION
    cut_buffers([scene], buffer_m=60_000)
    assert nearest_m(scene, [TRAINING], [scene], [VALIDATION]).min() > 59_000


def test_without_a_crs_nothing_is_cut(decoded):
    scene = decoded(np.zeros((20, 20), np.uint8), geobox=GeoBox((20, 20), Affine.identity(), None))
    scene.part[:10], scene.part[10:] = TRAINING, VALIDATION
    cut_buffers([scene], buffer_m=50)
    assert (scene.part == OUTSIDE).sum() == 0


def test_sixteen_pixels_are_the_buffer_where_none_is_given(decoded):
    scene = decoded(np.zeros((60, 60), np.uint8))
    scene.part[:], scene.part[:10] = TRAINING, VALIDATION
    cut_buffers([scene], buffer_m=None)
    assert np.flatnonzero((scene.part == TRAINING).all(1))[0] == 10 + 15 + 1
