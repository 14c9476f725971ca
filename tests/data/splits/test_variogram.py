"""The range of labels on fields whose variogram is known."""

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from geoseg.data.splits import LabelRange, label_range_m
from geoseg.data.splits.variogram import MODELS, exponential, spherical
from geoseg.errors import InputError


def poisson_lines(seed, size, lines, classes):
    """Cells cut by random straight lines, each of a random class: an exponential variogram by construction.

    A segment of length h is cut by a Poisson number of lines of mean h * lines / (pi * radius), where the lines hit a
    disc of that radius (Matheron 1975); uncut ends have one class, others differ with chance 1 - 1 / classes.
    """
    rng = np.random.default_rng(seed)
    radius = size / np.sqrt(2)
    turn, away = rng.uniform(0, np.pi, lines), rng.uniform(-radius, radius, lines)
    row, col = np.indices((size, size)) - size / 2
    cell = np.zeros((size, size), np.uint64)
    for angle, shift in zip(turn, away, strict=True):
        cell = cell * np.uint64(2862933555777941757) + np.uint64(3) * (
            row * np.sin(angle) + col * np.cos(angle) > shift
        ).astype(np.uint64)
    numbers = np.unique(cell, return_inverse=True)[1].reshape(size, size)
    return rng.integers(0, classes, numbers.max() + 1)[numbers].astype(np.uint8), np.pi * radius / lines


@pytest.mark.parametrize(("lines", "classes", "gsd_m"), [(60, 3, 10.0), (120, 5, 10.0), (60, 3, 0.5)])
def test_the_range_of_random_cells_is_three_times_their_scale(decoded, grid, lines, classes, gsd_m):
    found, expected = [], []
    for seed in range(5):
        labels, scale = poisson_lines(seed, 800, lines, classes)
        found.append(label_range_m([decoded(labels, geobox=grid(800, 800, gsd_m=gsd_m))], seed=seed))
        expected.append(np.log(20) * scale * gsd_m)
    assert np.median([each.range_m for each in found]) == pytest.approx(np.mean(expected), rel=0.15)
    assert np.median([each.sill for each in found]) == pytest.approx(1 - 1 / classes, abs=0.04)
    assert np.median([each.nugget for each in found]) < 0.05
    assert all(each.bounded for each in found)


def test_each_value_is_the_chance_that_two_labels_differ(decoded):
    labels, _ = poisson_lines(1, 700, 50, 4)
    found = label_range_m([decoded(labels)])
    lags = np.array(found.lags_m)
    assert lags[0] == pytest.approx(10, rel=0.05)
    across = [(labels[:, : -int(k)] != labels[:, int(k) :]).mean() for k in (1, 5, 20)]
    down = [(labels[: -int(k)] != labels[int(k) :]).mean() for k in (1, 5, 20)]
    told = np.interp([10, 50, 200], lags, found.values)
    np.testing.assert_allclose(told, (np.array(across) + down) / 2, atol=0.025)


def test_labels_at_random_have_no_range_but_a_nugget(decoded):
    labels = np.random.default_rng(0).integers(0, 4, (500, 500)).astype(np.uint8)
    found = label_range_m([decoded(labels)])
    assert found.nugget + found.sill > 0.75
    assert found.values[0] == pytest.approx(0.75, abs=0.03)
    assert found.range_m < 100 or found.nugget > 0.7


def test_a_trend_through_the_whole_scene_is_said_to_have_no_end(decoded):
    labels = (np.indices((600, 600))[1] > 300).astype(np.uint8)
    found = label_range_m([decoded(labels)], max_lag_m=2000)
    assert not found.bounded
    assert found.range_m == pytest.approx(2000, rel=0.1)
    assert "farther than the" in str(found)


def test_blocks_at_the_edge_are_not_looked_at_more_than_others(decoded):
    """A scene of 257 pixels has blocks of one row: what is there may not pass for the whole."""
    labels = np.random.default_rng(0).integers(0, 2, (257, 257)).astype(np.uint8)
    labels[256], labels[:, 256] = 1, 1
    assert label_range_m([decoded(labels)]).values[0] == pytest.approx(0.5, abs=0.04)


def test_the_same_seed_gives_the_same_range_and_stored_layers_too(decoded, patchy, strict):
    scene = decoded(patchy(0, (700, 600), side=20))
    assert label_range_m([scene], seed=4) == label_range_m([strict(scene)], seed=4)
    assert label_range_m([scene], seed=4) != label_range_m([scene], seed=5)


def test_many_chips_in_two_zones_make_one_variogram(decoded, patchy, grid):
    chips = [decoded(patchy(k, (64, 64), side=16), geobox=grid(64, 64, west=4e5 + 5000 * k)) for k in range(40)]
    chips += [
        decoded(
            patchy(k, (64, 64), side=16),
            geobox=GeoBox((64, 64), Affine(10, 0, 7e5, 0, -10, 5e6 + 9000 * k), "EPSG:32632"),
        )
        for k in range(40)
    ]
    found = label_range_m(chips)
    assert 100 < found.range_m < 260  # squares of 160 m
    assert found.sill == pytest.approx(2 / 3, abs=0.08)


def test_too_little_to_say_is_refused(decoded):
    with pytest.raises(InputError, match="all of one class"):
        label_range_m([decoded(np.zeros((100, 100), np.uint8))])
    lonely = np.full((50, 50), 255, np.uint8)
    lonely[3, 4] = lonely[40, 20] = 1
    with pytest.raises(InputError, match="too few labels"):
        label_range_m([decoded(lonely)])
    with pytest.raises(InputError, match="no scene has a CRS"):
        label_range_m([decoded(lonely, geobox=GeoBox((50, 50), Affine.identity(), None))])


def test_models_reach_95_percent_of_their_sill_where_it_is_said():
    for shape, reach in MODELS.values():
        assert shape(np.array([reach]))[0] == pytest.approx(0.95, abs=1e-4)
    assert exponential(np.array([0.0]))[0] == spherical(np.array([0.0]))[0] == 0


@pytest.mark.parametrize(
    ("range_m", "buffer_m"),
    [(262.0, 270.0), (260.0, 260.0), (2930.0, 3000.0), (99.1, 100.0), (3.14, 3.2), (0.62, 0.62)],
)
def test_the_buffer_is_the_range_to_two_digits_and_never_less(range_m, buffer_m):
    assert LabelRange(range_m, 0.5, 0.0, "spherical", (), (), (), bounded=True).buffer_m == pytest.approx(buffer_m)
