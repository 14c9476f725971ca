"""Scores against sklearn; the same for every cut into batches."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from geoseg.models.losses import IGNORE_INDEX
from geoseg.models.metrics import Scores, confusion_counts


def planes(seed: int, classes: int = 4):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, (6, 10, 10))
    predicted = np.where(rng.random(label.shape) > 0.4, label, rng.integers(0, classes, label.shape))
    label[rng.random(label.shape) > 0.8] = IGNORE_INDEX
    return torch.from_numpy(predicted), torch.from_numpy(label)


def test_scores_are_sklearns():
    predicted, label = planes(1)
    scores = Scores(confusion_counts(predicted, label, classes=4).numpy())
    known = (label != IGNORE_INDEX).numpy()
    y, p = label.numpy()[known], predicted.numpy()[known]
    np.testing.assert_array_equal(scores.matrix, sk.confusion_matrix(y, p))
    np.testing.assert_allclose(scores.iou, sk.jaccard_score(y, p, average=None))
    np.testing.assert_allclose(scores.f1, sk.f1_score(y, p, average=None))
    np.testing.assert_allclose(scores.precision, sk.precision_score(y, p, average=None))
    np.testing.assert_allclose(scores.recall, sk.recall_score(y, p, average=None))
    assert scores.frequency_weighted_iou == pytest.approx(sk.jaccard_score(y, p, average="weighted"))
    assert scores.overall_accuracy == pytest.approx(sk.accuracy_score(y, p))
    assert scores.mean_iou == pytest.approx(sk.jaccard_score(y, p, average="macro"))
    assert scores.mean_f1 == pytest.approx(sk.f1_score(y, p, average="macro"))
    assert scores.score == pytest.approx((scores.mean_iou + scores.overall_accuracy) / 2)


@given(st.integers(0, 1000), st.integers(1, 6))
def test_any_cut_gives_the_same_counts(seed, step):
    predicted, label = planes(seed)
    whole = confusion_counts(predicted, label, classes=4)
    parts = [
        confusion_counts(predicted[k : k + step], label[k : k + step], classes=4) for k in range(0, len(label), step)
    ]
    assert torch.equal(torch.stack(parts).sum(0), whole)
    assert whole.dtype == torch.int64


def test_a_class_that_is_nowhere_has_no_score():
    scores = Scores(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
    assert np.isnan(scores.iou[2])
    assert scores.mean_iou == pytest.approx((3 / 4 + 4 / 5) / 2)
    values = scores.to_dict(("a", "b", "c"))
    assert values["classes"]["c"]["iou"] is None
    assert json.loads(json.dumps(values, allow_nan=False))["confusion"] == scores.matrix.tolist()


def test_without_any_pixel_there_is_no_score():
    scores = Scores(np.zeros((2, 2), np.int64))
    assert np.isnan(scores.score)
    assert scores.to_dict(("a", "b"))["overall_accuracy"] is None


def test_labels_of_few_bits_and_many_classes_are_counted():
    label, predicted = torch.tensor([[190, 199, IGNORE_INDEX]], dtype=torch.int16), torch.tensor([[190, 3, 5]])
    counts = confusion_counts(predicted, label, classes=200)
    assert counts.sum() == 2
    assert counts[190, 190] == counts[199, 3] == 1
