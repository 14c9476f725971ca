"""Statistics against numpy, whatever the cut, the dtype and the order in which parts are merged."""

from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from geoseg.data import statistics
from geoseg.data.histogram import BUCKET_ERROR, Histogram, bucket_edges, buckets_of
from geoseg.data.scene import TRAINING, VALIDATION, SceneArrays, windows_of
from geoseg.data.statistics import BandStats, class_pixels, in_threads, training_quantiles, training_statistics
from geoseg.models.card import QUANTILE_LEVELS, BandInfo

INTEGERS = ("int8", "uint8", "int16", "uint16")
FLOATS = ("float16", "float32", "float64", "int32", "uint32", "int64")


def values_of(rng, dtype, shape):
    if np.dtype(dtype).kind in "iu":
        limits = np.iinfo(dtype)
        near = rng.normal(40, 25, shape).clip(max(limits.min, -(2**20)), min(limits.max, 2**20))
        wild = rng.integers(max(limits.min, -(2**20)), min(limits.max, 2**20), shape)
        return np.where(rng.random(shape) < 0.9, near, wild).astype(dtype)
    return (rng.normal(0.2, 0.3, shape) * rng.choice([1, 1, 1, 300], shape)).astype(dtype)


@pytest.mark.parametrize("dtype", INTEGERS + FLOATS)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=6), st.integers(0, 2**31), st.integers(1, 4))
def test_merged_parts_are_the_whole(dtype, lengths, seed, bands):
    rng = np.random.default_rng(seed)
    parts = [values_of(rng, dtype, (bands, length)) for length in lengths]
    merged = reduce(BandStats.merge, map(BandStats.of, parts))
    whole = np.concatenate(parts, 1).astype(float)
    assert merged.count.tolist() == [whole.shape[1]] * bands
    assert merged.histogram.total.tolist() == [whole.shape[1]] * bands
    if whole.shape[1]:
        squares = np.square(whole - whole.mean(1)[:, None]).sum(1)
        np.testing.assert_allclose(merged.mean, whole.mean(1), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(merged.squares, squares, rtol=1e-9, atol=1e-9 * max(1, np.abs(whole).max()) ** 2)
        np.testing.assert_array_equal(merged.low, whole.min(1))
        np.testing.assert_array_equal(merged.high, whole.max(1))


@given(st.lists(st.sampled_from(INTEGERS + FLOATS), min_size=3, max_size=3), st.integers(0, 2**31))
def test_counts_are_merged_the_same_in_any_order(dtypes, seed):
    rng = np.random.default_rng(seed)
    one, two, three = (BandStats.of(values_of(rng, dtype, (2, rng.integers(0, 9)))) for dtype in dtypes)
    left, right, back = one.merge(two).merge(three), one.merge(two.merge(three)), three.merge(two).merge(one)
    for other in (right, back):
        assert other.count.tolist() == left.count.tolist()
        if left.histogram.counts.size:
            found = other.histogram if left.histogram.exact == other.histogram.exact else other.histogram.bucketed()
            mine = left.histogram if left.histogram.exact == found.exact else left.histogram.bucketed()
            np.testing.assert_array_equal(trimmed(found), trimmed(mine))
        np.testing.assert_array_equal(other.low, left.low)
        np.testing.assert_array_equal(other.high, left.high)
        np.testing.assert_allclose(other.mean, left.mean, rtol=1e-12, atol=1e-12)
        if left.histogram.exact:
            np.testing.assert_array_equal(other.mean, left.mean)
            np.testing.assert_array_equal(other.squares, left.squares)


def trimmed(histogram):
    counts = np.zeros((2, 200_000), np.int64)
    counts[:, histogram.bins + 70_000] = histogram.counts
    return counts


@pytest.mark.parametrize("dtype", INTEGERS)
@given(st.integers(1, 200), st.integers(0, 2**31))
def test_quantiles_of_integers_are_numpys(dtype, count, seed):
    rng = np.random.default_rng(seed)
    values = values_of(rng, dtype, (3, count))
    stats = reduce(BandStats.merge, [BandStats.of(part) for part in np.array_split(values, 3, axis=1)])
    levels = [0.0, *QUANTILE_LEVELS, *rng.random(4), 1.0]
    found = stats.quantiles(levels)
    assert found.shape == (len(levels), 3)
    np.testing.assert_allclose(found, np.quantile(values.astype(float), levels, axis=1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", FLOATS)
@given(st.integers(1, 300), st.integers(0, 2**31))
def test_quantiles_of_others_are_numpys_within_the_bucket(dtype, count, seed):
    values = values_of(np.random.default_rng(seed), dtype, (2, count)).astype(dtype)
    truth = np.quantile(values.astype(float), QUANTILE_LEVELS, axis=1)
    found = BandStats.of(values).quantiles(QUANTILE_LEVELS)
    low = np.quantile(values.astype(float), QUANTILE_LEVELS, axis=1, method="lower")
    high = np.quantile(values.astype(float), QUANTILE_LEVELS, axis=1, method="higher")
    assert (np.abs(found - truth) <= BUCKET_ERROR * np.maximum(np.abs(low), np.abs(high)) + 1e-12).all()


@given(arrays.arrays(np.float32, 50, elements=st.floats(width=32, allow_nan=False)))
def test_buckets_are_ordered_as_the_values_and_hold_them(values):
    ordered = np.sort(values + np.float32(0))  # which has one zero only
    buckets = buckets_of(ordered)
    assert (np.diff(buckets) >= 0).all()
    finite = ordered[np.isfinite(ordered)]
    held = buckets_of(finite)
    assert (bucket_edges(held) <= finite).all()
    assert (bucket_edges(held + 1) >= finite).all()


@given(st.integers(0, 2**31), st.sampled_from(["uint8", "int16", "float32"]))
def test_shares_below_values_are_those_of_the_pixels(seed, dtype):
    rng = np.random.default_rng(seed)
    values = values_of(rng, dtype, (1, 400))
    probes = np.concatenate([rng.choice(values[0], 5).astype(float), rng.uniform(-300, 300, 5), [-1e9, 1e9]])
    below, upto = BandStats.of(values).shares(probes, 0)
    exact = np.dtype(dtype).kind in "iu"
    slack = 0 if exact else np.array([(buckets_of(values[0]) == bucket).mean() for bucket in buckets_of(probes)])
    assert (np.abs(below - [(values < probe).mean() for probe in probes]) <= slack + 1e-12).all()
    assert (np.abs(upto - [(values <= probe).mean() for probe in probes]) <= slack + 1e-12).all()


def test_extreme_values_keep_their_place():
    values = np.array([[-1e300, -3e38, -1.0, 0.0, 1.0, 3e38, 1e300, np.nan, np.inf]])
    stats = BandStats.of(values)
    assert (stats.count[0], stats.low[0], stats.high[0]) == (7, -1e300, 1e300)
    assert stats.quantiles([0.5])[0, 0] == pytest.approx(0.0, abs=1e-30)
    assert np.isfinite(stats.quantiles([0.0, 0.2, 0.8, 1.0])).all()


def test_a_large_offset_costs_no_digits():
    rng = np.random.default_rng(0)
    values = 1e9 + rng.normal(0, 1e-3, (1, 20_000))
    assert BandStats.of(values.reshape(1, -1)).std[0] == pytest.approx(values.std(), rel=1e-6)


def test_only_valid_training_pixels_count(decoded, monkeypatch):
    monkeypatch.setattr(statistics, "windows_of", small_windows)
    rng = np.random.default_rng(0)
    scenes = [decoded(rng.integers(0, 3, (40, 30)).astype(np.uint8), valid=rng.random((40, 30)) > 0.3) for _ in "ab"]
    for scene in scenes:
        scene.part[scene.valid & (rng.random((40, 30)) > 0.5)] = VALIDATION
        scene.pixels[:, scene.part != TRAINING] = 10**6
    stats = training_statistics(scenes)
    values = np.concatenate([scene.pixels[:, scene.part == TRAINING] for scene in scenes], 1)
    assert stats.count.tolist() == [values.shape[1]] * 2
    np.testing.assert_allclose(stats.mean, values.mean(1))
    np.testing.assert_allclose(stats.std, values.std(1))
    assert stats.high.max() < 10**6
    other = training_statistics(scenes, part=VALIDATION)
    assert other.count.tolist() == [sum(int((scene.part == VALIDATION).sum()) for scene in scenes)] * 2


def small_windows(shape, *, side_px=16):
    return windows_of(shape, side_px=16)


class Strict:
    """A layer as the contract has it: one slice of step 1 an axis, and an array comes back."""

    def __init__(self, values, asked):
        self.values, self.shape, self.dtype, self.asked = values, values.shape, values.dtype, asked

    def __getitem__(self, key):
        assert isinstance(key, tuple)
        assert len(key) == self.values.ndim
        assert all(isinstance(one, slice) and one.step in (None, 1) for one in key)
        found = self.values[key].copy()
        self.asked.append(found.nbytes)
        return found


def strict(scene, asked, **changes):
    layers = {name: Strict(getattr(scene, name), asked) for name in ("pixels", "valid", "labels", "part")}
    rest = {name: getattr(scene, name) for name in ("name", "geobox", "bands", "no_label", "image_grid", "absent")}
    return SceneArrays(**{**rest, **layers, **changes})


def test_layers_are_read_in_windows_and_never_whole(decoded, grid):
    asked = []
    rng = np.random.default_rng(1)
    scene = decoded(rng.integers(0, 4, (700, 2300)).astype(np.uint8), bands=3)
    stats = training_statistics([strict(scene, asked)])
    np.testing.assert_allclose(stats.mean, scene.pixels.reshape(3, -1).mean(1))
    assert (
        class_pixels([strict(scene, asked)], part=TRAINING, classes=4).tolist()
        == np.bincount(scene.labels.ravel()).tolist()
    )
    assert max(asked) <= 3 * 1024 * 1024 * 4


def test_a_band_that_a_scene_lacks_is_not_counted_there(decoded):
    labels = np.zeros((20, 30), np.uint8)
    whole, lacking = decoded(labels, bands=3), decoded(labels, bands=3)
    lacking.pixels[1] = 0
    stats = training_statistics([whole, strict(lacking, [], absent=(1,))])
    assert stats.count.tolist() == [1200, 600, 1200]
    np.testing.assert_allclose(stats.mean[1], whole.pixels[1].mean())
    np.testing.assert_allclose(stats.std[1], whole.pixels[1].std())
    alone = training_statistics([strict(lacking, [], absent=(1,))])
    assert (alone.count[1], alone.std[1]) == (0, 1.0)
    assert np.isnan(alone.quantiles([0.5])[0, 1])
    assert training_quantiles(alone)[1] == ()


def test_quantiles_of_training_go_into_the_card_as_they_are(decoded):
    stats = training_statistics([decoded(np.zeros((20, 30), np.uint8))])
    for band, values in enumerate(training_quantiles(stats)):
        info = BandInfo(name="b", mean=0.0, std=1.0, quantiles=values)
        assert info.quantiles == tuple(stats.quantiles(QUANTILE_LEVELS)[:, band])
        assert all(type(value) is float for value in info.quantiles)


def test_a_constant_band_has_a_deviation_of_one():
    np.testing.assert_array_equal(BandStats.of(np.full((2, 9), 4)).std, [1, 1])
    np.testing.assert_array_equal(BandStats.of(np.full((2, 9), 4, np.uint8)).std, [1, 1])


def test_class_pixels_are_counted_in_their_part(decoded):
    labels = np.array([[0, 1, 255, 1], [2, 2, 2, 1]], np.uint8)
    scene = decoded(labels)
    scene.part[:, 3] = VALIDATION
    assert class_pixels([scene, scene], part=TRAINING, classes=4).tolist() == [2, 2, 6, 0]
    assert class_pixels([scene], part=VALIDATION, classes=4).tolist() == [0, 2, 0, 0]


def test_an_empty_histogram_takes_on_what_it_meets():
    nothing = Histogram.empty(2, exact=True)
    some = BandStats.of(np.array([[3, 3], [5, 7]], np.uint8)).histogram
    assert nothing.merge(some) is some
    assert some.merge(nothing) is some
    assert nothing.merge(some.bucketed()).exact is False


def test_work_in_threads_keeps_its_order_and_is_not_far_ahead():
    begun = []
    found = in_threads(lambda item: begun.append(item) or item * 2, iter(range(1000)))
    assert next(found) == 0
    assert len(begun) <= 32
    assert list(found) == [2 * item for item in range(1, 1000)]


def test_an_error_in_a_thread_is_the_callers():
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda item: 1 / item, [1, 0]))
