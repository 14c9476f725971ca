"""Statistics against numpy, whatever the cut."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from geoseg.data import patches
from geoseg.data.scene import TRAINING, VALIDATION
from geoseg.data.statistics import BandStats, class_pixels, training_statistics


@given(st.lists(st.integers(0, 30), min_size=1, max_size=6), st.integers(0, 2**31), st.integers(1, 4))
def test_merged_parts_are_the_whole(lengths, seed, bands):
    rng = np.random.default_rng(seed)
    parts = [rng.normal(1e5, 3, (bands, length)) for length in lengths]
    merged = BandStats.of(parts[0])
    for part in parts[1:]:
        merged = merged.merge(BandStats.of(part))
    whole = np.concatenate(parts, 1)
    assert merged.count == whole.shape[1]
    if whole.shape[1]:
        np.testing.assert_allclose(merged.mean, whole.mean(1), rtol=1e-13)
        np.testing.assert_allclose(
            merged.squares, np.square(whole - whole.mean(1)[:, None]).sum(1), rtol=1e-8, atol=1e-6
        )
        np.testing.assert_array_equal(merged.low, whole.min(1))
        np.testing.assert_array_equal(merged.high, whole.max(1))


def test_only_valid_training_pixels_count(decoded, monkeypatch):
    monkeypatch.setattr(patches, "BLOCK_BYTES", 2000)
    rng = np.random.default_rng(0)
    scenes = [decoded(rng.integers(0, 3, (40, 30)).astype(np.uint8), valid=rng.random((40, 30)) > 0.3) for _ in "ab"]
    for scene in scenes:
        scene.part[scene.valid & (rng.random((40, 30)) > 0.5)] = VALIDATION
        scene.pixels[:, scene.part != TRAINING] = 10**6
    stats = training_statistics(scenes)
    values = np.concatenate([scene.pixels[:, scene.part == TRAINING] for scene in scenes], 1)
    np.testing.assert_allclose(stats.mean, values.mean(1))
    np.testing.assert_allclose(stats.std, values.std(1))
    assert stats.high.max() < 10**6


def test_a_constant_band_has_a_deviation_of_one():
    np.testing.assert_array_equal(BandStats.of(np.full((2, 9), 4)).std, [1, 1])


def test_class_pixels_are_counted_in_their_part(decoded):
    labels = np.array([[0, 1, 255, 1], [2, 2, 2, 1]], np.uint8)
    scene = decoded(labels)
    scene.part[:, 3] = VALIDATION
    assert class_pixels([scene, scene], part=TRAINING, classes=4).tolist() == [2, 2, 6, 0]
    assert class_pixels([scene], part=VALIDATION, classes=4).tolist() == [0, 2, 0, 0]
