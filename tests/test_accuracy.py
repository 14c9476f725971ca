"""Scores against a published example, scikit-learn, and themselves in another order."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics

from geoseg.accuracy import Accuracy, Confusion, accumulate
from geoseg.errors import InputError, LegendError
from geoseg.legend import Legend

LEGEND = Legend.from_dict({1: "water", 4: "forest", 9: "urban"})
IDS = st.sampled_from([1, 4, 9])


def every(values):
    return np.ones(np.shape(values), bool)


def count(mapped, reference, legend=LEGEND):
    mapped, reference = np.asarray(mapped, np.uint8), np.asarray(reference, np.uint8)
    return accumulate(mapped, every(mapped), reference, every(reference), legend=legend)


def congalton() -> Accuracy:
    """Congalton (1991), table 1: deciduous, conifer, agriculture, shrub; rows map, columns reference."""
    table = np.array([[65, 4, 22, 24], [6, 81, 5, 8], [0, 11, 85, 19], [4, 7, 3, 90]], np.int64)
    legend = Legend.from_dict({1: "deciduous", 2: "conifer", 3: "agriculture", 4: "shrub"})
    return Confusion(legend, table.T.copy(), np.zeros(4, np.int64)).finish()


def test_published_example_of_congalton_1991():
    scores = congalton()
    assert scores.confusion.matrix.sum() == 434
    assert round(scores.overall, 2) == 0.74
    assert np.round(scores.producers, 2).tolist() == [0.87, 0.79, 0.74, 0.64]
    assert np.round(scores.users, 2).tolist() == [0.57, 0.81, 0.74, 0.87]
    assert round(scores.kappa, 2) == 0.65


def test_rows_are_the_reference():
    counts = count([1, 1, 4], [4, 4, 9])
    assert counts.matrix.tolist() == [[0, 0, 0], [2, 0, 0], [0, 1, 0]]


@settings(max_examples=25, deadline=None)
@given(hnp.arrays(np.uint8, (40, 2), elements=IDS))
def test_agrees_with_scikit_learn(pairs):
    mapped, reference = pairs.T
    scores = count(mapped, reference).finish()
    labels = [1, 4, 9]
    assert (scores.confusion.matrix == metrics.confusion_matrix(reference, mapped, labels=labels)).all()
    assert scores.overall == pytest.approx(metrics.accuracy_score(reference, mapped))
    options = {"labels": labels, "average": None, "zero_division": np.nan}
    assert scores.iou == pytest.approx(_jaccard(reference, mapped, labels), nan_ok=True)
    assert scores.users == pytest.approx(metrics.precision_score(reference, mapped, **options), nan_ok=True)
    assert scores.producers == pytest.approx(metrics.recall_score(reference, mapped, **options), nan_ok=True)
    present = np.unique(pairs)
    f1 = metrics.f1_score(reference, mapped, labels=present, average="macro")
    assert scores.mean_f1 == pytest.approx(f1)
    iou = metrics.jaccard_score(reference, mapped, labels=present, average="macro")
    assert scores.mean_iou == pytest.approx(iou)
    if len(present) > 1:
        assert scores.kappa == pytest.approx(metrics.cohen_kappa_score(reference, mapped), nan_ok=True)


def _jaccard(reference, mapped, labels):
    absent = ~np.isin(labels, np.union1d(reference, mapped))
    scores = metrics.jaccard_score(reference, mapped, labels=labels, average=None, zero_division=0)
    return np.where(absent, np.nan, scores)


@given(
    hnp.arrays(np.uint8, (2, 30, 3), elements=IDS),
    hnp.arrays(np.bool_, (2, 30, 3)),
    st.lists(st.integers(0, 30), max_size=4),
)
def test_merged_parts_are_the_whole(ids, valid, cuts):
    whole = accumulate(ids[0], valid[0], ids[1], valid[1], legend=LEGEND)
    edges = [0, *sorted(cuts), 30]
    total = Confusion.zeros(LEGEND)
    for start, stop in itertools.pairwise(edges):
        rows = slice(start, stop)
        total = total.update(ids[0, rows], valid[0, rows], ids[1, rows], valid[1, rows])
    assert (total.matrix == whole.matrix).all()
    assert (total.unmapped == whole.unmapped).all()
    assert whole.matrix.sum() + whole.unmapped.sum() == valid[1].sum()


def test_unmapped_reference_is_counted_apart():
    ids = np.array([1, 4, 4, 9], np.uint8)
    mapped = np.array([True, False, False, True])
    scores = accumulate(ids, mapped, ids, every(ids), legend=LEGEND).finish()
    assert scores.overall == 1.0
    assert scores.confusion.unmapped.tolist() == [0, 2, 0]
    assert "2 reference pixels lie on nodata" in scores.table()
    assert scores.to_dict()["classes"][1]["unmapped_px"] == 2


def test_what_stands_under_invalid_pixels_does_not_matter():
    ids = np.array([[1, 77], [4, 255]], np.uint8)
    valid = np.array([[True, False], [True, False]])
    assert accumulate(ids, valid, ids, valid, legend=LEGEND).matrix.sum() == 2


def test_a_class_that_nobody_has_does_not_lower_the_mean():
    scores = count([1, 1, 4, 4], [1, 1, 4, 1]).finish()
    assert scores.mean_iou == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert np.isnan(scores.iou[2])


def test_a_class_of_the_map_alone_lowers_the_mean():
    assert count([1, 9], [1, 1]).finish().mean_iou == pytest.approx((1 / 2 + 0) / 2)


def test_class_zero_counts():
    legend = Legend.from_dict({0: "other", 1: "building"})
    assert count([0, 0, 1], [0, 1, 1], legend).matrix.tolist() == [[1, 0], [1, 1]]


def test_counts_beyond_32_bits_stay_exact():
    big = Confusion(LEGEND, np.eye(3, dtype=np.int64) * 2**40, np.zeros(3, np.int64))
    scores = big.merge(count([1], [4])).finish()
    assert scores.to_dict()["judged_px"] == 3 * 2**40 + 1
    assert scores.kappa == pytest.approx(1.0)


def test_dict_is_json_without_nan():
    scores = count([1, 4], [1, 1]).finish()
    text = json.dumps(scores.to_dict(), allow_nan=False)
    back = json.loads(text)
    assert back["confusion"]["matrix"] == [[1, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert back["classes"][2] == {
        "id": 9, "name": "urban", "iou": None, "f1": None, "users_accuracy": None, "producers_accuracy": None,
        "reference_px": 0, "map_px": 0, "unmapped_px": 0,
    }  # fmt: skip


def test_kappa_of_a_single_class_is_undefined():
    scores = count([1, 1], [1, 1]).finish()
    assert scores.to_dict()["kappa"] is None
    assert "kappa - (undefined: map and reference have one class alone)" in scores.table()
    assert "nan" not in scores.table()


def test_table_is_aligned():
    lines = congalton().table().splitlines()
    assert lines[0].split() == ["class", "IoU", "F1", "user's", "producer's", "reference", "px", "map", "px"]
    assert len({len(line) for line in lines[:5]}) == 1
    assert lines[1].startswith("1 deciduous")
    assert "Overall accuracy 0.740" in lines[6]
    assert lines[-4].split() == ["1", "65", "6", "0", "4"]


def test_large_counts_are_grouped():
    table = Confusion(LEGEND, np.eye(3, dtype=np.int64) * 1234567, np.zeros(3, np.int64)).finish().table()
    assert "1,234,567" in table


@pytest.mark.parametrize(("mapped", "reference", "whose"), [([7], [1], "map"), ([1], [7], "reference")])
def test_ids_outside_the_legend_are_named(mapped, reference, whose):
    with pytest.raises(LegendError, match=rf"the {whose} has class ids \[7\]"):
        count(mapped, reference)


def test_shapes_must_agree():
    with pytest.raises(InputError, match="differ in shape"):
        count([1, 4], [1])


def test_nothing_to_judge_is_said():
    with pytest.raises(InputError, match="no pixel has both"):
        Confusion.zeros(LEGEND).finish()


def test_other_classes_cannot_be_merged():
    with pytest.raises(LegendError, match="cannot be added"):
        Confusion.zeros(LEGEND).merge(Confusion.zeros(Legend.from_dict({1: "water"})))


def test_counts_must_fit_the_legend():
    with pytest.raises(InputError, match="do not fit a legend of 3"):
        Confusion(LEGEND, np.zeros((2, 2), np.int64), np.zeros(2, np.int64))
