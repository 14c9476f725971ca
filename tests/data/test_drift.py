"""Drift on scenes made to differ in a known way, and the look at a source that it rests on."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from geoseg.data.drift import BandDrift, ExpectedBand, band_drift, compare, likely_order, verdict_of
from geoseg.data.statistics import BandStats
from geoseg.data.survey import sample_windows, survey
from geoseg.errors import BandError
from geoseg.io import open_source
from geoseg.raster import QUANTILE_LEVELS
from geoseg.synthetic import landscape


def expected_of(values, names=("red", "nir")):
    """What a model trained on `(band, pixel)` knows, by numpy alone."""
    return [
        ExpectedBand(
            name=name,
            mean=band.mean(),
            std=band.std(),
            min=float(band.min()),
            max=float(band.max()),
            quantiles=tuple(np.quantile(band, QUANTILE_LEVELS)),
        )
        for name, band in zip(names, values.astype(float), strict=True)
    ]


def reflectance(seed, shape=(2, 120, 150), *, mean=(1500, 3200), std=(300, 500), dtype="uint16"):
    rng = np.random.default_rng(seed)
    plane = rng.normal(0, 1, shape)
    return (plane * np.array(std)[:, None, None] + np.array(mean)[:, None, None]).clip(1, 65000).astype(dtype)


@pytest.fixture
def train():
    return expected_of(reflectance(0).reshape(2, -1))


def drift(memory_source, pixels, expected, **options):
    return band_drift(memory_source(pixels, bands=("red", "nir")), expected, **options)


def test_another_draw_of_the_same_ground_is_as_trained(memory_source, train):
    for band in drift(memory_source, reflectance(1), train):
        assert band.verdict == "as trained"
        assert abs(band.shift) < 0.05
        assert band.std_ratio == pytest.approx(1, abs=0.05)
        assert band.outside == pytest.approx(0.02, abs=0.01)
        assert band.distance < 0.02
        assert (band.note, band.pixels) == ("", 120 * 150)


def test_every_figure_is_what_numpy_and_scipy_say(memory_source):
    trained, scene = reflectance(0).reshape(2, -1), reflectance(1, mean=(1700, 3100), std=(420, 350))
    found = drift(memory_source, scene, expected_of(trained))
    for band, old, new in zip(found, trained.astype(float), scene.reshape(2, -1).astype(float), strict=True):
        assert band.mean == pytest.approx(new.mean())
        assert band.std == pytest.approx(new.std())
        assert band.shift == pytest.approx((new.mean() - old.mean()) / old.std())
        assert band.std_ratio == pytest.approx(new.std() / old.std())
        assert band.below == pytest.approx((new < old.min()).mean())
        assert band.above == pytest.approx((new > old.max()).mean())
        low, high = np.quantile(old, [0.01, 0.99])
        assert band.outside == pytest.approx((new < low).mean() + (new > high).mean())
        whole = scipy_stats.ks_2samp(old, new).statistic
        assert band.distance <= whole + 1e-3  # at nine places only, so a lower bound
        assert band.distance >= 0.8 * whole


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda pixels: (pixels / 10_000).astype(np.float32), "about 10,000 times smaller: another scaling"),
        (lambda pixels: (pixels * 10.0).astype(np.uint32), "about 10 times larger: another scaling"),
        (lambda pixels: (pixels / 255).astype(np.float32), "about 260 times smaller: another scaling"),
        (lambda pixels: pixels + np.uint16(1000), "about 1,000 higher in every band: another offset"),
    ],
)
def test_another_scaling_and_another_offset_are_said_in_plain_words(memory_source, train, change, words):
    for band in drift(memory_source, change(reflectance(1)), train):
        assert band.verdict == "out of range"
        assert words in band.note


def test_a_shift_of_one_band_is_told_by_how_many_deviations_and_of_no_other(memory_source, train):
    pixels = reflectance(1)
    pixels[0] += 480  # 1.6 deviations
    red, nir = drift(memory_source, pixels, train)
    assert (red.verdict, nir.verdict) == ("shifted", "as trained")
    assert red.shift == pytest.approx(1.6, abs=0.05)
    assert (red.note, nir.note) == ("", "")
    pixels[0] += 1800
    assert drift(memory_source, pixels, train)[0].verdict == "out of range"


def test_a_dull_scene_is_shifted_at_the_same_mean(memory_source, train):
    for band in drift(memory_source, reflectance(1, std=(100, 200)), train):
        assert (band.verdict, abs(band.shift) < 0.1) == ("shifted", True)


def test_the_distance_sees_two_humps_that_mean_and_spread_do_not(memory_source, train):
    pixels = reflectance(2, mean=(1800, 3700), std=(20, 30))
    pixels[:, 1::2] = reflectance(3, mean=(1200, 2700), std=(20, 30))[:, 1::2]
    for band in drift(memory_source, pixels, train):
        assert abs(band.shift) < 0.1
        assert band.std_ratio == pytest.approx(1, abs=0.05)
        assert band.distance > 0.2


def test_many_equal_pixels_are_no_distance_to_themselves():
    values = np.array([[0] * 950 + [7] * 50], np.uint8)
    (band,) = compare(BandStats.of(values), expected_of(values, ["red"]))
    assert (band.distance, band.verdict) == (0.0, "as trained")


def test_a_model_without_quantiles_and_range_still_gives_mean_and_spread(memory_source):
    old = [ExpectedBand(name="red", mean=1500, std=300), ExpectedBand(name="nir", mean=3200, std=500)]
    for band in drift(memory_source, reflectance(1), old):
        assert band.verdict == "as trained"
        assert (band.below, band.above, band.outside, band.distance) == (None, None, None, None)


def test_bands_are_found_by_name_and_a_missing_one_is_an_error(memory_source, train):
    pixels = reflectance(1)
    turned = memory_source(pixels[::-1], bands=("NIR", "Red"))
    assert [band.verdict for band in band_drift(turned, train)] == ["as trained"] * 2
    with pytest.raises(BandError, match="nir"):
        band_drift(memory_source(pixels, bands=("red", "other")), train)


def test_a_scene_without_valid_pixels_has_no_data(memory_source, train):
    pixels = reflectance(1)
    source = memory_source(pixels, bands=("red", "nir"), valid=np.zeros(pixels.shape[1:], bool))
    for band in band_drift(source, train):
        assert (band.verdict, band.pixels, band.mean, band.note) == ("no data", 0, None, "no valid pixel")


def test_invalid_pixels_do_not_count(memory_source, train):
    pixels, valid = reflectance(1), np.ones((120, 150), bool)
    pixels[:, :60], valid[:60] = 0, False
    source = memory_source(pixels, bands=("red", "nir"), valid=valid)
    assert [band.verdict for band in band_drift(source, train)] == ["as trained"] * 2


def test_a_finer_scene_is_looked_at_in_the_models_pixels(tmp_path, train):
    rng = np.random.default_rng(5)
    coarse = reflectance(1).astype(float)
    fine = np.repeat(np.repeat(coarse, 4, 1), 4, 2) + rng.normal(0, 2000, (2, 480, 600))
    path = tmp_path / "fine.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=480, width=600, count=2, dtype="float32", crs="EPSG:32633",
        transform=rasterio.Affine(2.5, 0, 500_000, 0, -2.5, 5_200_000),
    ) as target:  # fmt: skip
        target.write(fine.astype(np.float32))
        target.descriptions = ("red", "nir")
    source = open_source(path)
    own, models = band_drift(source, train), band_drift(source, train, gsd_m=(10.0, 10.0))
    averaged = fine.reshape(2, 120, 4, 150, 4).mean((2, 4))
    for band, before, truth in zip(models, own, averaged, strict=True):
        assert before.pixels == 480 * 600
        assert band.pixels == 120 * 150
        assert band.std == pytest.approx(truth.std(), rel=1e-3)
        assert before.std > 2 * band.std


@given(st.floats(-8, 8), st.floats(0.05, 20), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_verdict_never_improves_as_figures_grow_worse(shift, ratio, beyond, outside, distance):
    order = ["as trained", "shifted", "out of range"]
    known = {"name": "red", "trained_mean": 1.0, "trained_std": 1.0, "pixels": 5}
    band = BandDrift(**known, shift=shift, std_ratio=ratio, below=beyond, above=0.0, outside=outside, distance=distance)
    worse = BandDrift(
        **known, shift=2 * shift, std_ratio=ratio if 0.5 < ratio < 2 else ratio**2 if ratio > 1 else ratio / 2,
        below=min(1, 2 * beyond), above=0.0, outside=min(1, 2 * outside), distance=min(1, 2 * distance),
    )  # fmt: skip
    assert order.index(verdict_of(worse)) >= order.index(verdict_of(band))


# -- the look at a source ----------------------------------------------------------------------------------------------


@given(
    st.tuples(st.integers(1, 900), st.integers(1, 900)),
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.integers(1, 200_000),
)
def test_sampled_blocks_lie_apart_inside_and_keep_to_the_limit(shape, unit, limit):
    windows = sample_windows(shape, unit=unit, limit_px=limit)
    seen = np.zeros(shape, np.uint8)
    for window in windows:
        assert (window.row_off % unit[0], window.col_off % unit[1]) == (0, 0)
        seen[window.slices] += 1
    assert seen.max() == 1
    assert windows == sample_windows(shape, unit=unit, limit_px=limit)
    cells = np.prod([-(-size // step) for size, step in zip(shape, unit, strict=True)])
    if cells * unit[0] * unit[1] <= limit:
        assert seen.all()
    else:
        assert len(windows) <= max(1, limit // (unit[0] * unit[1]))
        assert 2 * len(windows) >= min(cells, max(1, limit // (unit[0] * unit[1])))


def test_a_sample_is_spread_over_the_whole_plane():
    windows = sample_windows((10_000, 10_000), unit=(100, 100), limit_px=1_000_000)
    rows, cols = ({getattr(window, name) for window in windows} for name in ("row_off", "col_off"))
    for offsets in (sorted(rows), sorted(cols)):
        assert (len(offsets), len(set(np.diff(offsets)))) == (10, 1)
        assert offsets[0] < 1000 <= 10_000 - offsets[-1] + 500


def test_a_survey_tells_each_bands_validity_and_suspicious_values(tmp_path):
    rng = np.random.default_rng(2)
    pixels = rng.integers(1, 4000, (3, 300, 400)).astype(np.uint16)
    pixels[0, :50], pixels[1, :, :100] = 0, 0  # nodata, in one band each
    pixels[:, 200:, 300:] = 65535
    path = tmp_path / "scene.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=300, width=400, count=3, dtype="uint16", nodata=0, crs="EPSG:32633",
        transform=rasterio.Affine(10, 0, 500_000, 0, -10, 5_200_000),
    ) as target:  # fmt: skip
        target.write(pixels)
    seen = survey(open_source(path))
    assert (seen.seen, seen.pixels, seen.sampled) == (120_000, 120_000, False)
    assert seen.stats.count.tolist() == [(band != 0).sum() for band in pixels]
    assert seen.valid == int((pixels != 0).all(0).sum())
    assert seen.uniform[65535.0] == 100 * 100
    together = survey(open_source(path), each_band=False)
    assert together.stats.count.tolist() == [seen.valid] * 3


def test_a_large_source_is_sampled_the_same_each_time_and_near_the_truth(memory_source):
    pixels = reflectance(0, (2, 1500, 1600))
    source = memory_source(pixels)
    seen, again = (survey(source, samples=1_000_000) for _ in range(2))
    assert seen.sampled
    assert seen.seen <= 500_000
    np.testing.assert_array_equal(seen.stats.histogram.counts, again.stats.histogram.counts)
    np.testing.assert_allclose(seen.stats.mean, pixels.reshape(2, -1).mean(1), rtol=0.01)


# -- the order of bands ------------------------------------------------------------------------------------------------

NAMES = ("blue", "green", "red", "nir")


@pytest.fixture(scope="module")
def land():
    """Blue, green, red and near infrared of two halves of one landscape, `(band, row, col)` each."""
    pixels = landscape(shape=(192, 256), seed=3).image.pixels[:4]
    return pixels[:, :, :128], pixels[:, :, 128:]


@pytest.mark.parametrize("order", [order for order in permutations(range(4)) if order[3] != 3], ids=str)
def test_bands_in_another_order_are_told(land, order):
    west, east = land
    found = compare(BandStats.of_pixels(east[list(order)], np.ones(east.shape[1:], bool)), trained_on(west))
    moved = [band for band, place in enumerate(order) if band != place]
    said = f"values look like those of {', '.join(NAMES[order[band]] for band in moved)}: another order of bands"
    assert [band.note for band in found] == [said if band in moved else "" for band in range(4)]


@pytest.mark.parametrize("part", range(8))
def test_a_part_of_the_land_alone_is_no_other_order(land, part):
    west, east = land
    own = np.array_split(east, 8, axis=1)[part]
    found = compare(BandStats.of_pixels(own, np.ones(own.shape[1:], bool)), trained_on(west))
    assert not any(band.note for band in found)


def trained_on(pixels):
    return expected_of(pixels.reshape(4, -1), NAMES)


def test_bands_that_are_alike_or_without_quantiles_have_no_order():
    twins = reflectance(0, mean=(1500, 1500), std=(300, 300))
    expected = expected_of(twins.reshape(2, -1))
    stats = BandStats.of_pixels(twins[::-1], np.ones(twins.shape[1:], bool))
    assert likely_order(stats, expected) == (0, 1)
    bare = [ExpectedBand(name=band.name, mean=band.mean, std=band.std) for band in expected]
    assert likely_order(stats, bare) == (0, 1)
