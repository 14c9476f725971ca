"""Counts of classes in cells equal those of brute force, and pixels are drawn evenly from them."""

from dataclasses import replace

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from scipy import stats

from geoseg.data.label_index import ANY, CELL_PX, LabelIndex, draw, summed
from geoseg.data.scene import TRAINING, VALIDATION
from geoseg.errors import InputError
from geoseg.io.regions import open_area


class StrictLayer:
    """A layer that keeps to its contract: two slices of step 1, and never more than a window at a time."""

    def __init__(self, values):
        self.values, self.largest = values, 0

    @property
    def shape(self):
        return self.values.shape

    @property
    def dtype(self):
        return self.values.dtype

    def __getitem__(self, key):
        assert isinstance(key, tuple)
        assert len(key) == self.values.ndim
        assert all(isinstance(part, slice) and part.step in (None, 1) for part in key)
        found = self.values[key].copy()
        found.flags.writeable = False
        self.largest = max(self.largest, found.size)
        return found


class Discs:
    """A region that obeys the Mask protocol: pixels whose centre lies within discs on the ground."""

    def __init__(self, *discs):
        self.discs = discs

    def mask(self, geobox):
        col, row = np.meshgrid(np.arange(geobox.shape[1]) + 0.5, np.arange(geobox.shape[0]) + 0.5)
        x, y = geobox.affine.a * col + geobox.affine.c, geobox.affine.e * row + geobox.affine.f
        return np.any([np.hypot(x - at_x, y - at_y) < radius for at_x, at_y, radius in self.discs], axis=0)


def noisy(decoded, rows: int, cols: int, *, seed: int, classes: int = 4):
    """A scene of random labels, half of them none, a third of its pixels not to train on."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, (rows, cols)).astype(np.uint8)
    labels[rng.random((rows, cols)) < 0.5] = 255
    scene = decoded(labels, valid=rng.random((rows, cols)) < 0.9)
    scene.part[rng.random((rows, cols)) < 0.3] = VALIDATION
    scene.part[: rows // 3, : cols // 2] = VALIDATION
    return scene


def brute(scenes, classes: int, area=None):
    """Usable pixels and those of each class by scene and cell, one pixel after the other."""
    usable, pairs = {}, {}
    for number, scene in enumerate(scenes):
        keep = scene.part[:, :] == TRAINING
        if area is not None:
            keep = keep & area.mask(scene.geobox)
        for row, col in zip(*np.nonzero(keep), strict=True):
            at = (number, row // CELL_PX * CELL_PX, col // CELL_PX * CELL_PX)
            usable[at] = usable.get(at, 0) + 1
            told = scene.labels[row : row + 1, col : col + 1][0, 0]
            if told < classes:
                pairs[(*at, told)] = pairs.get((*at, told), 0) + 1
    return usable, pairs


def counted(index):
    """The same out of an index."""
    places = [tuple(place) for place in index.places(np.arange(len(index.cells))).tolist()]
    classes = index.class_of(np.arange(len(index.pair_cells))).tolist()
    usable = dict(zip(places, index.usable.tolist(), strict=True))
    pairs = zip(index.pair_cells.tolist(), classes, index.pair_counts.tolist(), strict=True)
    return usable, {(*places[cell], k): count for cell, k, count in pairs}


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 200), st.integers(1, 200)), min_size=1, max_size=3), st.integers(0, 99))
def test_counts_are_those_of_brute_force(decoded, shapes, seed):
    scenes = [noisy(decoded, *shape, seed=seed + k) for k, shape in enumerate(shapes)]
    assert counted(LabelIndex.of(scenes, classes=4)) == brute(scenes, 4)


@settings(max_examples=10, deadline=None)
@given(st.integers(60, 200), st.integers(60, 200), st.integers(0, 99))
def test_an_area_leaves_out_what_lies_outside(decoded, rows, cols, seed):
    scene = noisy(decoded, rows, cols, seed=seed)
    area = Discs((500_600.0, 5_199_400.0, 700.0), (501_500.0, 5_198_500.0, 300.0))
    assert counted(LabelIndex.of([scene], classes=4, area=area)) == brute([scene], 4, area)


def test_a_polygon_of_a_file_in_another_crs_is_an_area(decoded):
    scene = noisy(decoded, 150, 170, seed=1)
    west, south, east, north = shapely.box(15.0, 46.945, 15.012, 46.96).bounds  # the scene begins at 15 °E
    area = open_area({"bbox": [west, south, east, north], "crs": "EPSG:4326"}, scene.geobox)
    found = counted(LabelIndex.of([scene], classes=4, area=area))
    assert found == brute([scene], 4, area)
    assert 0 < sum(found[0].values()) < np.count_nonzero(scene.part == TRAINING)


def test_large_scenes_are_read_window_by_window(decoded):
    scene = noisy(decoded, 1100, 2100, seed=2)
    strict = replace(scene, labels=StrictLayer(scene.labels), part=StrictLayer(scene.part))
    index = LabelIndex.of([strict], classes=4)
    assert max(strict.labels.largest, strict.part.largest) <= 1024**2
    assert counted(index) == counted(LabelIndex.of([scene], classes=4))
    np.testing.assert_array_equal(
        index.class_pixels, np.bincount(scene.labels[(scene.part == TRAINING) & (scene.labels < 4)], minlength=4)
    )
    assert sum(getattr(index, name).nbytes for name in index.__slots__) < 100 * len(index.cells)


def test_labels_of_sixteen_bits_and_a_wide_legend(decoded):
    labels = np.full((70, 70), 65535, np.uint16)
    labels[5, 6], labels[69, 69] = 299, 0
    scene = decoded(np.zeros((70, 70), np.uint8))
    index = LabelIndex.of([replace(scene, labels=labels, no_label=65535)], classes=300)
    assert counted(index)[1] == {(0, 0, 0, 299): 1, (0, 64, 64, 0): 1}


def test_every_pixel_has_the_same_chance_whatever_its_cell(decoded):
    labels = np.full((130, 130), 255, np.uint8)
    labels[:3, :5] = 1  # fifteen in one cell, five in another, two in the last
    labels[100, 70:75] = labels[129, 128:130] = 1
    labels[30:60, 30:60] = 0
    scene = decoded(labels)
    index, rng = LabelIndex.of([scene], classes=2), np.random.default_rng(3)
    first = index.first_pairs
    pairs = draw(summed(index.pair_chances), rng.random(6600), first=first[1], stop=first[2])
    found = index.pixels([scene], index.pair_cells[pairs], index.class_of(pairs), rng.random(6600))
    pixels, counts = np.unique(found, axis=0, return_counts=True)
    np.testing.assert_array_equal(pixels[:, 1:], np.argwhere(labels == 1))
    assert stats.chisquare(counts).pvalue > 0.001


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 99), st.booleans())
def test_drawn_pixels_are_what_was_asked_for(decoded, seed, within_area):
    scenes = [noisy(decoded, 150, 90, seed=seed), noisy(decoded, 20, 300, seed=seed + 1)]
    area = Discs((500_600.0, 5_199_400.0, 600.0)) if within_area else None
    index, rng = LabelIndex.of(scenes, classes=4, area=area), np.random.default_rng(seed)
    pairs = rng.integers(0, len(index.pair_cells), 60)
    cells = np.concatenate([index.pair_cells[pairs], rng.integers(0, len(index.cells), 60)])
    classes = np.concatenate([index.class_of(pairs), np.full(60, ANY)])
    picks = np.concatenate([rng.random(118), [0.0, 1 - 2**-53]])
    found = index.pixels(scenes, cells, classes, picks)
    np.testing.assert_array_equal(found // [1, CELL_PX, CELL_PX] * [1, CELL_PX, CELL_PX], index.places(cells))
    for (number, row, col), k in zip(found.tolist(), classes.tolist(), strict=True):
        scene = scenes[number]
        assert scene.part[row, col] == TRAINING
        assert k in (ANY, scene.labels[row, col])
        assert area is None or area.mask(scene.geobox)[row, col]


def test_cells_that_a_rectangle_touches_are_found(decoded):
    scenes = [noisy(decoded, 90, 200, seed=5), noisy(decoded, 300, 150, seed=6)]
    index, rng = LabelIndex.of(scenes, classes=4), np.random.default_rng(7)
    places = index.places(np.arange(len(index.cells)))
    for _ in range(100):
        scene, (top, bottom), (left, right) = rng.integers(2), *np.sort(rng.integers(-50, 350, (2, 2)), axis=1)
        touches = (places[:, 0] == scene) & (bottom > top) & (right > left)
        for axis, start, stop in ((1, top, bottom), (2, left, right)):
            size = scenes[scene].shape[axis - 1]
            ends = np.minimum(places[:, axis] + CELL_PX, size)
            touches &= (places[:, axis] < stop) & (ends > start) & (start < size) & (stop > 0)
        found = index.within(scene, (top, bottom), (left, right))
        np.testing.assert_array_equal(np.sort(found), np.flatnonzero(touches))


def test_chances_of_nothing_are_never_drawn():
    before = summed(np.array([0.0, 0.0, 2.0, 0.0, 1e-9, 0.0]))
    picks = np.array([0.0, 0.5, 1 - 2**-53])
    np.testing.assert_array_equal(draw(before, picks), [2, 2, 4])
    np.testing.assert_array_equal(draw(before, picks, first=3, stop=6), [4, 4, 4])
    np.testing.assert_array_equal(draw(before, picks, first=np.array([0, 4, 2]), stop=np.array([3, 5, 4])), [2, 4, 2])


def test_labels_that_cannot_be_read_any_more_give_the_middle_of_their_cell(decoded):
    scene = decoded(np.zeros((100, 100), np.uint8))
    index = LabelIndex.of([scene], classes=1)
    scene.labels[:] = 255
    np.testing.assert_array_equal(index.pixels([scene], np.array([0]), np.array([0]), np.array([0.3])), [[0, 32, 0]])


def test_no_scene_and_no_training_pixel_make_an_empty_index(decoded):
    scene = decoded(np.zeros((100, 100), np.uint8))
    scene.part[:] = VALIDATION
    for scenes in ([], [scene]):
        index = LabelIndex.of(scenes, classes=3)
        assert len(index.cells) == len(index.pair_cells) == 0
        np.testing.assert_array_equal(index.class_pixels, [0, 0, 0])


@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
def test_a_weight_that_is_none_is_refused(decoded, weight):
    scene = replace(decoded(np.zeros((9, 9), np.uint8), name="north"), weight=weight)
    with pytest.raises(InputError, match="north"):
        LabelIndex.of([scene], classes=1)


def test_scenes_without_a_place_can_be_indexed(decoded):
    nowhere = GeoBox((80, 80), Affine.identity(), None)
    index = LabelIndex.of([decoded(np.zeros((80, 80), np.uint8), geobox=nowhere)], classes=1)
    assert index.class_pixels.tolist() == [6400]
