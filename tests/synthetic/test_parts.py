"""The parts that the synthetic landscape is made of, each against a slow and plain answer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from geoseg.synthetic import layout, light

MASKS = hnp.arrays(np.bool_, st.tuples(st.integers(3, 12), st.integers(3, 12)))
SEEDS = st.integers(0, 2**32 - 1)


# Ids and masks


@given(hnp.arrays(np.int64, st.tuples(st.integers(1, 8), st.integers(1, 8)), elements=st.integers(0, 30)))
def test_renumber_closes_gaps_and_keeps_regions_and_order(ids):
    renumbered = layout._renumber(ids)
    assert renumbered.dtype == np.uint32
    pairs = {(int(old), int(new)) for old, new in zip(ids.ravel(), renumbered.ravel(), strict=True)}
    positive = sorted(pair for pair in pairs if pair[0] > 0)
    assert [new for _, new in positive] == list(range(1, len(positive) + 1))
    assert all(new == 0 for old, new in pairs if old == 0)


@given(MASKS, st.integers(1, 6))
def test_components_are_the_large_enough_regions(mask, min_px):
    regions, n = ndimage.label(mask)
    large = [np.argwhere(regions == i).tolist() for i in range(1, n + 1) if np.sum(regions == i) >= min_px]
    found = layout._components(mask, min_px)
    assert [np.argwhere(found == i + 1).tolist() for i in range(len(large))] == large
    assert found.max() == len(large)


@given(MASKS)
def test_distance_is_the_nearest_true_pixels(mask):
    found = layout._distance_to(mask)
    places = np.argwhere(mask)
    for row, col in np.ndindex(mask.shape):
        nearest = min((float(np.hypot(r - row, c - col)) for r, c in places), default=1e6)
        assert found[row, col] == pytest.approx(nearest, abs=1e-4)


@given(MASKS, st.floats(0.05, 0.5), SEEDS)
def test_cover_takes_the_highest_of_the_allowed_places(allowed, share, seed):
    allowed[0, 0] = True
    field = np.random.default_rng(seed).permutation(allowed.size).astype(np.float32).reshape(allowed.shape)
    taken = layout._cover(field, allowed, share)
    assert not (taken & ~allowed).any()
    left = allowed & ~taken
    assert not taken.any() or not left.any() or field[taken].min() > field[left].max()
    assert abs(int(taken.sum()) - min(share * field.size, 0.9 * allowed.sum())) <= 1


@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 20), st.just(2)), elements=st.floats(-4, 14)))
def test_mark_sets_the_pixels_under_the_points_and_no_others(points):
    mask = layout._mark(points, (8, 11))
    expected = np.zeros((8, 11), bool)
    for row, col in np.rint(points).astype(int):
        if 0 <= row < 8 and 0 <= col < 11:
            expected[row, col] = True
    assert np.array_equal(mask, expected)


# Lines


@given(hnp.arrays(np.float64, st.tuples(st.integers(2, 8), st.just(2)), elements=st.integers(-40, 40).map(float)))
def test_densify_keeps_the_ends_and_leaves_no_hole(points):
    dense = layout._densify(points, 0.4)
    assert np.allclose(dense[[0, -1]], points[[0, -1]])
    assert np.hypot(*np.diff(dense, axis=0).T).max() <= 0.4 + 1e-9
    low, high = points.min(axis=0), points.max(axis=0)
    assert (dense >= low - 1e-9).all()
    assert (dense <= high + 1e-9).all()


def test_a_route_joins_its_ends_goes_round_the_dear_and_cheapens_its_way():
    cost = np.ones((30, 30), np.float32)
    cost[:22, 15] = 100
    start, end = np.array([30.0, 12.0]), np.array([30.0, 168.0])
    way = layout._route(cost, start, end, 6)
    assert np.allclose(way[[0, -1]], [start, end])
    assert way[:, 0].max() > 115
    assert cost.min() == pytest.approx(0.35)
    assert np.hypot(*np.diff(way, axis=0).T).max() <= 0.41


@given(st.integers(1, 9), SEEDS)
def test_links_join_all_villages_and_all_edges(n, seed):
    shape = (300, 500)
    centres = np.random.default_rng(seed).uniform(10, 290, (n, 2))
    links = layout._links(centres, shape)
    index = {tuple(centre): i for i, centre in enumerate(centres)}
    group = list(range(n))
    for start, end, _ in links:
        if tuple(end) in index:
            a, b = group[index[tuple(start)]], group[index[tuple(end)]]
            group = [a if member == b else member for member in group]
    assert len(set(group)) == 1
    gates = [end for _, end, _ in links if tuple(end) not in index]
    assert [(gate[axis]) for gate, axis in zip(gates, (0, 0, 1, 1), strict=True)] == [0, 299, 0, 499]
    pairs = [frozenset((tuple(start), tuple(end))) for start, end, _ in links]
    assert len(pairs) == len(set(pairs))


@pytest.mark.parametrize("seed", range(4))
def test_the_river_is_one_body_of_its_width(seed):
    shape = (400, 400)
    river = layout._river(np.random.default_rng(seed), shape)
    inside_px = ndimage.distance_transform_edt(np.pad(river, 40, mode="edge"))[40:-40, 40:-40]
    assert 2.5 <= np.percentile(inside_px[:, 50:-50].max(axis=0), 10) <= 4.5
    assert river.any(axis=0).mean() > 0.8
    assert 0.01 < river.mean() < 0.08


# Fields


def test_districts_are_cells_of_the_nearest_point():
    shape, spacing_px = (90, 130), 30
    district = layout._districts(np.random.default_rng(5), shape, spacing_px=spacing_px)
    n_rows, n_cols = (n // spacing_px + 3 for n in shape)
    points = (np.indices((n_rows, n_cols)) - 1 + np.random.default_rng(5).uniform(0.1, 0.9, (2, n_rows, n_cols))) * 30
    row, col = np.indices(shape)
    distance = np.hypot(points[0].ravel() - row[..., None], points[1].ravel() - col[..., None])
    assert np.mean(district == np.argmin(distance, axis=-1)) > 0.99


@given(SEEDS)
def test_jittered_intervals_follow_each_other(seed):
    value = np.linspace(0, 40, 2000)
    number = layout._jittered_floor(np.random.default_rng(seed), value, np.zeros(2000, np.intp))
    assert set(np.diff(number)) <= {0, 1}
    lengths = np.bincount(number + 1)[2:-1] / 50
    assert lengths.min() > 0.5
    assert lengths.max() < 1.5


def test_parcels_stay_out_of_closed_ground_and_are_large_enough():
    closed = np.zeros((200, 260), bool)
    closed[60:80] = closed[:, 120:124] = True
    parcels, furrow = layout._parcels(np.random.default_rng(2), closed.shape, closed)
    assert not parcels[closed].any()
    assert np.bincount(parcels.ravel())[1:].min() >= layout.MIN_PARCEL_PX
    assert (parcels[~closed] > 0).mean() > 0.9
    slope = np.hypot(*np.gradient(furrow))
    assert np.median(slope) == pytest.approx(1, abs=0.01)


def test_crops_need_a_farm_and_no_parcel_is_number_zero():
    parcels = np.repeat(np.arange(64, dtype=np.uint32).reshape(8, 8), 12, axis=0).repeat(12, axis=1)
    farmed, cropped = layout._land_use(np.random.default_rng(0), parcels)
    assert not farmed[0]
    assert not (cropped & ~farmed).any()
    assert 0.75 < farmed[1:].mean() < 0.85
    assert 0.5 < cropped.sum() / farmed.sum() < 0.95


# Villages


@pytest.mark.parametrize("block_px", [17.5, 24.0])
@pytest.mark.parametrize("seed", range(3))
def test_village_buildings_stand_apart_from_each_other_and_from_streets(seed, block_px):
    offset = np.stack(np.meshgrid(np.arange(-50, 51), np.arange(-50, 51), indexing="ij")).astype(float)
    hall, street, inside = layout._settlement(np.random.default_rng(seed), offset, 44.0, block_px)
    assert not (hall & street).any()
    assert not ((hall | street) & ~inside).any()
    sizes = np.bincount(ndimage.label(hall)[0].ravel())[1:]
    assert len(sizes) > 4
    assert sizes.max() <= (0.68 * block_px + 2) ** 2


def test_shade_falls_north_west_of_buildings():
    buildings = np.zeros((9, 9), bool)
    buildings[4:6, 4:6] = True
    expected = np.zeros((9, 9), bool)
    for row, col in np.argwhere(buildings):
        expected[row - 1, col - 1] = expected[row - 2, col - 2] = True
    assert np.array_equal(layout._building_shade(buildings), expected & ~buildings)


# Light


def test_mixtures_run_from_one_material_to_the_other():
    share = np.array([-1, 0, 0.5, 1, 2], np.float32)
    mixed = light._mix(light.LOAM, light.SAND, share)
    middle = (np.array(light.LOAM) + np.array(light.SAND)) / 2
    assert np.allclose(mixed.T, [light.LOAM, light.LOAM, middle, light.SAND, light.SAND])
    assert np.allclose(light._blended(mixed, light.CLOUD, np.ones(5, np.float32)).T, light.CLOUD)


def test_shade_and_cover_work_in_place_and_band_by_band():
    scene = np.full((6, 2, 2), 1000, np.float32)
    light._shade(scene, np.array([[0, 1], [0.5, 0]], np.float32))
    assert np.allclose(scene[:, 0, 0], 1000)
    assert np.allclose(scene[:, 0, 1], 1000 * np.array(light.SKYLIGHT))
    assert np.allclose(scene[:, 1, 0], 500 * (1 + np.array(light.SKYLIGHT)))
    light._blend(scene, light.CLOUD, np.array([[0, 1], [0, 0]], np.float32))
    assert np.allclose(scene[:, 0, 1], light.CLOUD)
    assert np.allclose(scene[:, 1, 1], 1000)


@pytest.mark.parametrize("seed", range(3))
def test_shadows_are_the_clouds_moved_to_the_north_west(seed):
    opacity, shadow = light._clouds(np.random.default_rng(seed), (300, 300))
    assert np.mean(opacity >= 0.4) == pytest.approx(light.CLOUD_SHARE, abs=0.005)
    fits = [(i, j) for i in range(14, 26) for j in range(12, 24)
            if np.allclose(shadow[:-i, :-j], np.clip(1.6 * opacity[i:, j:], 0, 1))]  # fmt: skip
    assert len(fits) == 1


def test_furrows_have_the_wavelength_of_ploughing():
    furrow = np.arange(400, dtype=np.float32)
    wave = light._furrows(np.random.default_rng(0), np.zeros(400, np.uint32), furrow)
    frequency = np.argmax(np.abs(np.fft.rfft(wave))) / 400
    assert 3.9 <= 1 / frequency <= 6.2
    assert 0.13 < np.abs(wave).max() < 0.23


def test_the_swath_edge_leaves_out_one_corner_only():
    inside = light._swath(np.random.default_rng(0), (120, 160))
    assert not inside[0, 0]
    assert inside[0, -1]
    assert inside[-1].all()
    assert 0.86 < inside.mean() < 0.97
    assert (inside[:, 1:] >= inside[:, :-1]).all()
    assert (inside[1:] >= inside[:-1]).all()


@settings(max_examples=20)
@given(SEEDS)
def test_noise_and_blur_keep_the_mean(seed):
    scene = np.full((6, 64, 64), 2000, np.float32)
    light._sense(np.random.default_rng(seed), scene)
    added = scene.mean(axis=(1, 2)) - 2000
    assert (added > -8).all()
    assert (added < np.array(light.SCATTER_DN) + 8).all()
    assert np.allclose(scene[4].std(), light.NOISE_DN[4], rtol=0.1)
