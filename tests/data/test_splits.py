"""No training pixel near a validation pixel: by brute force, across scenes and map zones too."""

import numpy as np
import pytest
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from scipy.spatial import cKDTree

from geoseg.data.scene import OUTSIDE, TRAINING, VALIDATION
from geoseg.data.splits import SplitOptions, choose_units, split_scenes
from geoseg.errors import InputError


def patchy(seed: int, shape=(96, 80), classes: int = 3) -> np.ndarray:
    """Labels in 8-pixel fields."""
    rng = np.random.default_rng(seed)
    fields = rng.integers(0, classes, (shape[0] // 8, shape[1] // 8))
    return np.kron(fields, np.ones((8, 8))).astype(np.uint8)


def centres(scene, part) -> np.ndarray:
    row, col = np.nonzero(scene.part == part)
    a = scene.geobox.affine
    return np.stack([a.a * (col + 0.5) + a.c, a.e * (row + 0.5) + a.f], 1)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**6), st.floats(0, 120), st.sampled_from([150.0, 240.0, None]))
def test_the_buffer_is_kept(decoded, seed, buffer_m, block_m):
    options = SplitOptions(block_m=block_m, buffer_m=buffer_m, seed=seed)
    (scene,) = split_scenes([decoded(patchy(seed))], classes=3, options=options)
    training, validation = centres(scene, TRAINING), centres(scene, VALIDATION)
    nearest, _ = cKDTree(validation).query(training)
    assert nearest.min() > buffer_m
    buffered, _ = cKDTree(validation).query(centres(scene, OUTSIDE)) if (scene.part == OUTSIDE).any() else ([0], 0)
    assert np.max(buffered) <= buffer_m  # and no pixel is lost that need not be


def test_validation_has_about_its_share_of_every_class(decoded):
    shares = []
    for seed in range(5):
        scene = decoded(patchy(seed, (320, 320)))
        before = np.bincount(scene.labels.ravel(), minlength=3)
        (split,) = split_scenes([scene], classes=3, options=SplitOptions(block_m=300, buffer_m=0, seed=seed))
        shares.append(np.bincount(split.labels[split.part == VALIDATION], minlength=3) / before)
    assert np.abs(np.array(shares) - 0.2).max() < 0.08


def test_the_seed_draws_the_split(decoded):
    parts = [
        split_scenes([decoded(patchy(1, (160, 160)))], classes=3, options=SplitOptions(seed=seed, buffer_m=10))[0].part
        for seed in (3, 3, 4)
    ]
    np.testing.assert_array_equal(parts[0], parts[1])
    assert (parts[0] != parts[2]).any()


def sparse(shape=(200, 200)) -> np.ndarray:
    """Three polygons of class 0, three of class 1 and a single one of class 2, in a wide unlabelled scene."""
    labels = np.full(shape, 255, np.uint8)
    for k, (row, col) in enumerate([(10, 10), (10, 100), (100, 10), (60, 60), (150, 20), (180, 150)]):
        labels[row : row + 6, col : col + 6] = k % 2
    labels[120:126, 120:126] = 2
    return labels


@pytest.mark.parametrize("seed", range(6))
def test_polygons_stay_whole_and_the_only_one_of_a_class_trains(decoded, seed):
    (scene,) = split_scenes([decoded(sparse())], classes=3, options=SplitOptions(seed=seed))
    for row, col in np.argwhere(scene.labels != 255):
        corner = (row // 2 * 2, col // 2 * 2)
        assert scene.part[corner] == scene.part[row, col] or scene.labels[corner] == 255
    assert (scene.part[scene.labels == 2] == TRAINING).all()
    judged = np.unique(scene.labels[(scene.part == VALIDATION) & (scene.labels != 255)])
    assert judged.tolist() == [0, 1]


def test_regions_are_taken_as_given(decoded):
    options = SplitOptions(regions=[{"rows": [0, 20]}, {"rows": [40, 60], "cols": [10, 30]}], buffer_m=0)
    (scene,) = split_scenes([decoded(patchy(0))], classes=3, options=options)
    expected = np.zeros((96, 80), bool)
    expected[:20] = expected[40:60, 10:30] = True
    np.testing.assert_array_equal(scene.part == VALIDATION, expected)


def test_a_region_must_touch_a_scene_but_not_every_scene(decoded, grid):
    scenes = [decoded(patchy(0)), decoded(patchy(1), geobox=grid(96, 80, west=600_000))]
    box = {"bbox": [600_000, 5_199_800, 600_400, 5_200_000], "crs": "EPSG:32633"}
    split = split_scenes(scenes, classes=3, options=SplitOptions(regions=box, buffer_m=0))
    assert (split[0].part == TRAINING).all()
    assert (split[1].part[:20, :40] == VALIDATION).all()
    with pytest.raises(InputError):
        split_scenes(scenes, classes=3, options=SplitOptions(regions={"bbox": [0, 0, 1, 1], "crs": "EPSG:32633"}))


def test_whole_scenes_can_be_one_part(decoded, grid):
    scenes = [decoded(patchy(0)), decoded(patchy(1), geobox=grid(96, 80, west=600_000))]
    split = split_scenes(scenes, classes=3, options=SplitOptions(), roles=["training", "validation"])
    assert (split[0].part == TRAINING).all()
    assert (split[1].part == VALIDATION).all()


def test_scenes_in_two_zones_that_overlap_share_one_split(decoded):
    """The same place near 12 E, once in UTM 32 and once in 33: what validates in one must not train in the other."""
    east = Transformer.from_crs(32632, 32633, always_xy=True).transform(717_000, 5_300_000)
    one = GeoBox((120, 120), Affine(10, 0, 717_000 - 600, 0, -10, 5_300_600), "EPSG:32632")
    other = GeoBox((120, 120), Affine(10, 0, east[0] - 600, 0, -10, east[1] + 600), "EPSG:32633")
    scenes = [decoded(patchy(0, (120, 120)), geobox=one), decoded(patchy(1, (120, 120)), geobox=other)]
    split = split_scenes(scenes, classes=3, options=SplitOptions(block_m=300, buffer_m=50))
    to_other = Transformer.from_crs(32632, 32633, always_xy=True)
    judged = np.stack(to_other.transform(*centres(split[0], VALIDATION).T), 1)
    learnt = np.concatenate(
        [centres(split[1], TRAINING), np.stack(to_other.transform(*centres(split[0], TRAINING).T), 1)]
    )
    judged = np.concatenate([judged, centres(split[1], VALIDATION)])
    nearest, _ = cKDTree(judged).query(learnt)
    assert nearest.min() > 50 - 0.1  # the map projection's scale
    assert (split[0].part == TRAINING).any()
    assert (split[1].part == TRAINING).any()


@given(st.integers(1, 30), st.integers(1, 6), st.integers(0, 10**6), st.floats(0.05, 0.5))
def test_units_never_take_more_than_half_of_a_class(units, classes, seed, share):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 50, (units, classes)) * (rng.random((units, classes)) > 0.6)
    chosen = choose_units(counts, share=share, rng=rng)
    assert (counts[chosen].sum(0) <= counts.sum(0) / 2 + 1e-9).all()
    assert len(set(chosen.tolist())) == len(chosen)


def test_a_split_that_leaves_nothing_is_refused(decoded):
    with pytest.raises(InputError, match="train on"):
        split_scenes([decoded(patchy(0))], classes=3, options=SplitOptions(block_m=300, buffer_m=5000))
    single = np.full((100, 100), 255, np.uint8)
    single[5:9, 5:9] = 0
    with pytest.raises(InputError, match="validate on"):
        split_scenes([decoded(single)], classes=1, options=SplitOptions())


@pytest.mark.parametrize("options", [{"validation_share": 0.9}, {"block_m": 0.0}, {"buffer_m": -1.0}])
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(InputError, match="needed is"):
        SplitOptions(**options)
