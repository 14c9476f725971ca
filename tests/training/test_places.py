"""Places to look at are full, show the classes, and do not overlap; the survey counts what there is."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.data.scene import VALIDATION
from geoseg.tiling import Window
from geoseg.training.places import CELL_PX, PLACE_CELLS, Survey, choose_places


def labelled(scene):
    return (scene.part == VALIDATION) & (scene.labels != scene.no_label)


def test_a_survey_counts_each_label_once(make_scene):
    scene = make_scene(1, shape=(1300, 1100), until=900)
    survey = Survey.of(scene, classes=3)
    for k in range(3):
        assert survey.counts[..., k].sum() == (labelled(scene) & (scene.labels == k)).sum()
    cell = labelled(scene)[5 * CELL_PX : 6 * CELL_PX, 2 * CELL_PX : 3 * CELL_PX]
    assert survey.counts[5, 2].sum() == cell.sum()


def test_the_window_holds_all_labels_and_so_do_the_windows_that_hold_some(make_scene):
    scene = make_scene(2, shape=(500, 700), until=200)
    survey, told = Survey.of(scene, classes=3), labelled(scene)
    inside = np.zeros_like(told)
    inside[survey.window.slices] = True
    assert not (told & ~inside).any()
    for row in range(0, 500, 90):
        for col in range(0, 700, 70):
            window = Window(row, col, 90, 70)
            assert survey.holds(window) or not told[window.slices].any()
    assert not survey.holds(Window(0, 300, 500, 400))


def test_a_scene_without_a_label_has_no_window(make_scene):
    survey = Survey.of(make_scene(3, until=0), classes=3)
    assert survey.window is None
    assert choose_places([survey], count=4) == []


@given(st.integers(0, 10**6), st.integers(0, 6), st.integers(1, 3))
@settings(max_examples=50, deadline=None)
def test_places_are_in_their_scene_hold_labels_and_do_not_overlap(seed, count, scenes):
    rng = np.random.default_rng(seed)
    surveys = []
    for _ in range(scenes):
        rows, cols = rng.integers(1, 14, 2)
        counts = rng.integers(0, 60, (rows, cols, 3)) * (rng.random((rows, cols, 3)) > 0.7)
        surveys.append(Survey(counts.astype(np.int32), (int(rows) * CELL_PX - 5, int(cols) * CELL_PX - 9)))
    chosen = choose_places(surveys, count=count)
    assert len(chosen) <= count
    for owner, window in chosen:
        assert window.intersect(Window(0, 0, *surveys[owner].shape)) == window
        assert max(window.rows, window.cols) <= PLACE_CELLS * CELL_PX
        assert surveys[owner].holds(window)
    for (one, first), (other, second) in combinations(chosen, 2):
        part = first.intersect(second)
        assert one != other or not (part.rows and part.cols)


def test_full_places_come_first_and_then_those_with_classes_not_seen():
    counts = np.zeros((4, 40, 3), np.int32)
    counts[:, :4, 0] = 100  # full, one class
    counts[:, 10:14, 0] = 99
    counts[:, 20:24, :2] = 40  # as good as full, two classes
    counts[:, 30:34, 2] = 10  # some labels, the third class
    chosen = choose_places([Survey(counts, (256, 2560))], count=9)
    assert [window.col_off // CELL_PX for _, window in chosen] == [20, 0, 10, 30]
    assert choose_places([Survey(counts[:, :9], (256, 576))], count=9) == [(0, Window(0, 0, 256, 256))]
