"""Losses against torch's own, sklearn's and values by hand; pixels without labels add nothing."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from geoseg.errors import InputError
from geoseg.models.losses import IGNORE_INDEX, LOSSES, SegmentationLoss, class_weights, patch_losses, pixelwise


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


def test_cross_entropy_that_must_repeat_is_the_same(monkeypatch):
    logits, label = batch()
    weight = torch.tensor([1.0, 2.0, 0.5, 3.0])
    wanted = loss("ce", logits, label, weight=weight, smoothing=0.1)
    monkeypatch.setattr(pixelwise, "_must_repeat", lambda _: True)  # as on a GPU
    monkeypatch.setattr(functional, "cross_entropy", None)
    torch.testing.assert_close(loss("ce", logits, label, weight=weight, smoothing=0.1), wanted)


def test_cross_entropy_by_hand():
    logits = torch.log(torch.tensor([0.5, 0.25, 0.25])).reshape(1, 3, 1, 1).expand(1, 3, 1, 2)
    label = torch.tensor([[[0, 1]]])
    assert loss("ce", logits, label).item() == pytest.approx((np.log(2) + np.log(4)) / 2)


def test_focal_by_hand():
    logits = torch.log(torch.tensor([0.5, 0.25, 0.25])).reshape(1, 3, 1, 1).expand(1, 3, 1, 2)
    label = torch.tensor([[[0, 1]]])
    expected = (0.5**2 * np.log(2) + 0.75**2 * np.log(4)) / 2
    assert loss("focal", logits, label).item() == pytest.approx(expected)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("label", [0, IGNORE_INDEX])
def test_sure_pixels_have_a_gradient_that_is_a_number(gamma, label):
    logits = torch.tensor([[[[20.0, 1.0]], [[0.0, 0.0]]]], requires_grad=True)
    focal = SegmentationLoss({"focal": {"gamma": gamma}}, weight=np.ones(2), smoothing=0.0)
    focal(logits, torch.tensor([[[label, 1]]])).backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[0, 0, 0, 0].abs() < 1e-4


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
    ("parts", "words"),
    [
        ({"jacard": 1.0}, "known are ce, focal, .*; near it is jaccard"),
        ({"ce": 0.0}, "above 0"),
        ({}, "above 0"),
        ({"ce": -1.0}, "from 0 on"),
        ({"focal": {"gama": 1}}, "no option gama; it has weight, gamma"),
        ({"gce": {"q": 0}}, "q of loss gce is 0: needed is"),
        ({"boundary": {"reach_px": 4}}, "odd"),
        ({"ce": "much"}, "needed is a number"),
    ],
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


def one_hot(label, classes: int):
    """Shares of 255 that say the same as `label`, and nonsense where there is none."""
    shares = functional.one_hot(label.clamp(min=0), classes).permute(0, 3, 1, 2) * 255
    return torch.where((label == IGNORE_INDEX).unsqueeze(1), 77, shares).to(torch.uint8)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", LOSSES)
def test_soft_labels_of_one_class_are_plain_labels(name, smoothing):
    logits, label = batch()
    criterion = SegmentationLoss({name: 1.0}, weight=[1.0, 2.0, 0.5, 3.0], smoothing=smoothing)
    torch.testing.assert_close(criterion(logits, label, one_hot(label, 4)), criterion(logits, label))


@pytest.mark.parametrize("name", LOSSES)
def test_soft_labels_leave_out_what_is_unlabelled(name):
    logits, label = batch()
    SegmentationLoss({name: 1.0}, weight=np.ones(4))(logits, label, one_hot(label, 4)).backward()
    silent = (label == IGNORE_INDEX).unsqueeze(1).expand_as(logits)
    assert not logits.grad[silent].any()
    assert logits.grad[~silent].any()


def test_soft_cross_entropy_is_torchs_with_probabilities():
    logits, _ = batch()
    shares = torch.rand(logits.shape, generator=torch.Generator().manual_seed(1))
    shares /= shares.sum(1, keepdim=True)
    label = shares.argmax(1)
    found = SegmentationLoss({"ce": 1.0}, weight=np.ones(4))(logits, label, shares * 1000)
    torch.testing.assert_close(found, functional.cross_entropy(logits, shares))


def test_each_patch_has_its_own_loss():
    logits, label = batch()
    label[1] = IGNORE_INDEX
    found = patch_losses(logits.detach(), label)
    torch.testing.assert_close(found[0], functional.cross_entropy(logits[:1], label[:1]).detach())
    assert found[1] == 0


def as_probabilities(*shares: float):
    """Logits of pixels in a row with these probabilities of the first of two classes."""
    first = torch.tensor(shares)
    return torch.stack([first, 1 - first]).log().clamp(min=-50)[None, :, None, :]


def test_overlap_losses_by_hand():
    logits, label = as_probabilities(1.0, 0.5, 0.25, 0.5), torch.tensor([[[0, 0, 1, IGNORE_INDEX]]])
    # First class: both 1.5, predicted 1.75, true 2; second: both 0.75, predicted 1.25, true 1.
    jaccard = 1 - np.mean([2.5 / 3.25, 1.75 / 2.5])
    assert loss("jaccard", logits, label).item() == pytest.approx(jaccard)
    tversky = 1 - np.mean([2.0 / (1.5 + 0.2 * 0.25 + 0.8 * 0.5 + 0.5), 1.25 / (0.75 + 0.2 * 0.5 + 0.8 * 0.25 + 0.5)])
    criterion = SegmentationLoss({"tversky": {"alpha": 0.2, "beta": 0.8}}, weight=np.ones(2))
    assert criterion(logits, label).item() == pytest.approx(tversky)
    even = SegmentationLoss({"tversky": {"alpha": 0.5, "beta": 0.5}}, weight=np.ones(2))
    torch.testing.assert_close(even(logits, label), loss("dice", logits, label))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_lovasz_of_a_hard_map_is_one_minus_the_mean_iou(seed):
    rng = np.random.default_rng(seed)
    label, found = rng.integers(0, 3, (2, 1, 5, 5))
    logits = torch.from_numpy(np.eye(3)[found]).permute(0, 3, 1, 2).float() * 100
    ious = [
        ((label == k) & (found == k)).sum() / ((label == k) | (found == k)).sum() for k in np.unique(label)
    ]  # fmt: skip
    assert loss("lovasz", logits, torch.from_numpy(label)).item() == pytest.approx(1 - np.mean(ious), abs=1e-5)


def test_generalized_cross_entropy_lies_between_the_two_that_it_is_named_after():
    logits, label = batch()
    near = SegmentationLoss({"gce": {"q": 0.001}}, weight=np.ones(4))(logits, label)
    torch.testing.assert_close(near, loss("ce", logits, label), rtol=2e-3, atol=0)
    known = label != IGNORE_INDEX
    chance = logits.softmax(1).gather(1, label.clamp(min=0).unsqueeze(1)).squeeze(1)[known]
    far = SegmentationLoss({"gce": {"q": 1.0}}, weight=np.ones(4))(logits, label)
    torch.testing.assert_close(far, (1 - chance).mean())


def test_symmetric_cross_entropy_by_hand():
    logits, label = as_probabilities(0.8, 0.5), torch.tensor([[[0, 1]]])
    expected = 0.1 * np.mean([-np.log(0.8), -np.log(0.5)]) + np.mean([4 * 0.2, 4 * 0.5])
    assert loss("sce", logits, label).item() == pytest.approx(expected)


def test_the_hardest_pixels_are_those_of_the_highest_cross_entropy():
    logits, label = batch()
    each = functional.cross_entropy(logits, label, reduction="none")[label != IGNORE_INDEX].sort().values
    found = SegmentationLoss({"ohem": {"share": 0.2}}, weight=np.ones(4))(logits, label)
    torch.testing.assert_close(found, each[-round(0.2 * len(each)) :].mean())


def test_a_border_is_met_within_reach_and_missed_beyond():
    label = (torch.arange(40) >= 20).long().expand(1, 40, 40)

    def border_loss(at: int) -> float:
        found = (torch.arange(40) >= at).long()
        logits = (functional.one_hot(found, 2).T.float() * 60 - 30)[None, :, None].expand(1, 2, 40, 40)
        return loss("boundary", logits, label).item()

    assert border_loss(20) == pytest.approx(0, abs=1e-3)
    assert border_loss(21) == pytest.approx(0, abs=1e-3)
    assert border_loss(30) == pytest.approx(1, abs=1e-3)


def test_the_edge_of_what_is_labelled_is_no_border():
    label = torch.zeros(1, 20, 20, dtype=torch.int64)
    label[:, :, 10:] = IGNORE_INDEX
    assert loss("boundary", torch.randn(1, 2, 20, 20), label).item() == 0
