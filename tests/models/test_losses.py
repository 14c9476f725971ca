"""Losses against torch's own, sklearn's and values by hand; pixels without labels add nothing."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from geoseg.errors import InputError
from geoseg.models.losses import IGNORE_INDEX, LOSSES, SegmentationLoss, class_weights


def batch(seed: int = 0, classes: int = 4, share: float = 0.7):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, 8, 8, generator=generator, requires_grad=True)
    label = torch.randint(classes, (2, 8, 8), generator=generator)
    label[torch.rand(2, 8, 8, generator=generator) > share] = IGNORE_INDEX
    return logits, label


def loss(name: str, logits, label, *, weight=None, smoothing: float = 0.0):
    weight = np.ones(logits.shape[1]) if weight is None else weight
    return SegmentationLoss({name: 1.0}, weight=weight, smoothing=smoothing)(logits, label)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_torchs(smoothing):
    logits, label = batch()
    weight = torch.tensor([1.0, 2.0, 0.5, 3.0])
    expected = functional.cross_entropy(logits, label, weight=weight, label_smoothing=smoothing)
    torch.testing.assert_close(loss("ce", logits, label, weight=weight, smoothing=smoothing), expected)


def test_cross_entropy_by_hand():
    logits = torch.log(torch.tensor([0.5, 0.25, 0.25])).reshape(1, 3, 1, 1).expand(1, 3, 1, 2)
    label = torch.tensor([[[0, 1]]])
    assert loss("ce", logits, label).item() == pytest.approx((np.log(2) + np.log(4)) / 2)


def test_focal_by_hand():
    logits = torch.log(torch.tensor([0.5, 0.25, 0.25])).reshape(1, 3, 1, 1).expand(1, 3, 1, 2)
    label = torch.tensor([[[0, 1]]])
    expected = (0.5**2 * np.log(2) + 0.75**2 * np.log(4)) / 2
    assert loss("focal", logits, label).item() == pytest.approx(expected)


def test_dice_by_hand():
    """Two pixels of class 0 with probability 0.75: (2 * 1.5 + 1) / (1.5 + 2 + 1); class 1 is not in the labels."""
    logits = torch.log(torch.tensor([0.75, 0.25])).reshape(1, 2, 1, 1).expand(1, 2, 1, 3)
    label = torch.tensor([[[0, 0, IGNORE_INDEX]]])
    assert loss("dice", logits, label).item() == pytest.approx(1 - 4 / 4.5)


def test_a_perfect_map_has_no_dice_loss():
    _, label = batch(share=1.0)
    logits = 100.0 * functional.one_hot(label, 4).movedim(-1, 1)
    assert loss("dice", logits, label).item() == pytest.approx(0, abs=1e-6)
    assert loss("ce", logits, label).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_pixels_without_labels_have_no_gradient(name):
    logits, label = batch()
    loss(name, logits, label).backward()
    unlabelled = (label == IGNORE_INDEX).unsqueeze(1).expand_as(logits)
    assert (logits.grad[unlabelled] == 0).all()
    assert (logits.grad[~unlabelled] != 0).any()


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_without_labels_costs_nothing_and_can_be_learnt_from(name):
    logits, label = batch()
    value = loss(name, logits, torch.full_like(label, IGNORE_INDEX), smoothing=0.1)
    value.backward()
    assert value.item() == 0
    assert (logits.grad == 0).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(list(LOSSES)))
def test_unlabelled_pixels_can_be_cut_away(seed, name):
    logits, label = batch(seed)
    label[:, 4:] = IGNORE_INDEX
    torch.testing.assert_close(loss(name, logits, label), loss(name, logits[:, :, :4], label[:, :4]))


def test_parts_are_summed_with_their_weights():
    logits, label = batch()
    both = SegmentationLoss({"ce": 1.0, "dice": 0.5, "focal": 0.0}, weight=np.ones(4))(logits, label)
    torch.testing.assert_close(both, loss("ce", logits, label) + 0.5 * loss("dice", logits, label))


@pytest.mark.parametrize(
    ("parts", "words"), [({"jaccard": 1.0}, "known are ce, dice"), ({"ce": 0.0}, "above 0"), ({}, "above 0")]
)
def test_unknown_and_empty_losses_are_refused(parts, words):
    with pytest.raises(InputError, match=words):
        SegmentationLoss(parts, weight=[1.0])


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_smoothing_outside_its_range_is_refused(smoothing):
    with pytest.raises(InputError, match="label_smoothing"):
        SegmentationLoss({"ce": 1.0}, weight=[1.0], smoothing=smoothing)


def test_inverse_weights_are_sklearns_balanced_ones_up_to_a_factor():
    counts = np.array([70, 20, 10])
    ours = class_weights(counts, how="inverse", cap=1e9)
    theirs = compute_class_weight("balanced", classes=np.arange(3), y=np.repeat(np.arange(3), counts))
    np.testing.assert_allclose(ours / ours[0], theirs / theirs[0])


@pytest.mark.parametrize("how", ["none", "inverse", "sqrt_inverse", "effective"])
def test_weights_have_a_mean_of_one_and_stay_under_the_cap(how):
    counts = np.array([10**6, 3 * 10**4, 200, 0])
    weight = class_weights(counts, how=how, cap=7.0)
    assert (weight * counts).sum() / counts.sum() == pytest.approx(1)
    assert weight[:3].max() <= 7 * weight[0] * (1 + 1e-12)
    assert weight[3] == 1
    assert (np.diff(weight[:3]) >= 0).all()


def test_square_roots_and_unknown_weightings():
    weight = class_weights(np.array([400, 100]), how="sqrt_inverse", cap=9)
    assert weight[1] / weight[0] == pytest.approx(2)
    with pytest.raises(InputError, match="sqrt_inverse"):
        class_weights(np.array([1]), how="log")
