"""Learning without labels: formulas by hand, what counts, and what the teacher is never told."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.errors import InputError
from geoseg.models.semi import METHODS, SemiOptions, learn_unlabelled, ramp_up, semi_loss, with_student
from geoseg.models.task import SegmentationTask
from geoseg.models.trouble import seen_of

COUNT, CLASSES, SIDE = 3, 4, 5


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(0))
    return powers / powers.sum(0)


def drawn(seed: int) -> dict[str, torch.Tensor]:
    """Logits of both, where each pixel comes from, and which are valid."""
    rng = np.random.default_rng(seed)
    plane = (COUNT, SIDE, SIDE)
    return {
        "logits": torch.from_numpy(rng.normal(0, 2, (COUNT, CLASSES, SIDE, SIDE))),
        "shares": torch.from_numpy(rng.normal(0, 2, (COUNT, CLASSES, SIDE, SIDE))).softmax(1),
        "source": torch.from_numpy(rng.choice([-100, 0, 1, 2], plane)),
        "valid": torch.from_numpy(rng.random(plane) < 0.7),
    }


def by_hand(method: str, threshold: float, *, logits, shares, source, valid) -> tuple[float, float]:
    """The loss and the share of sure pixels, pixel by pixel."""
    losses, sure = [], []
    for k, row, col in np.ndindex(*source.shape):
        if not valid[k, row, col] or source[k, row, col] < 0:
            continue
        told = shares[source[k, row, col], :, row, col].numpy()
        said = softmax(logits[k, :, row, col].numpy())
        sure.append(told.max() >= threshold)
        if method == "consistency":
            losses.append(((said - told) ** 2).sum())
        else:
            losses.append(-math.log(said[told.argmax()]) if sure[-1] else 0.0)
    return float(np.mean(losses)), float(np.mean(sure))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("threshold", [0.0, 0.6, 1.0])
def test_the_loss_is_the_mean_over_pixels_that_count(method, threshold):
    planes = drawn(1)
    found = semi_loss(SemiOptions(method=method, threshold=threshold), **planes)
    loss, sure = by_hand(method, threshold, **planes)
    assert found["loss"].item() == pytest.approx(loss, rel=1e-12)
    assert found["confident"].item() == pytest.approx(sure)


@given(seed=st.integers(0, 1000), method=st.sampled_from(sorted(METHODS)))
@settings(max_examples=25, deadline=None)
def test_what_is_invalid_or_hidden_never_counts(seed, method):
    planes, other = drawn(seed), drawn(seed + 5000)
    planes["logits"].requires_grad_()
    counts = planes["valid"] & (planes["source"] >= 0)
    options = SemiOptions(method=method, threshold=0.3)
    found = semi_loss(options, **planes)
    changed = torch.where(counts.unsqueeze(1), planes["logits"], other["logits"])
    assert semi_loss(options, **{**planes, "logits": changed})["loss"].item() == found["loss"].item()
    (slope,) = torch.autograd.grad(found["loss"], planes["logits"])
    assert not slope.masked_select(~counts.unsqueeze(1)).any()
    assert slope.masked_select(counts.unsqueeze(1)).any()


def test_without_a_pixel_that_counts_the_loss_is_zero_and_can_be_descended():
    planes = drawn(2)
    planes["logits"].requires_grad_()
    found = semi_loss(SemiOptions(), **{**planes, "valid": torch.zeros_like(planes["valid"])})
    (slope,) = torch.autograd.grad(found["loss"], planes["logits"])
    assert found["loss"].item() == found["confident"].item() == 0
    assert not slope.any()


def test_the_weight_rises_to_one():
    assert ramp_up(0.0, 0.4) == pytest.approx(math.exp(-5))
    assert ramp_up(0.1, 0.4) == pytest.approx(math.exp(-5 * 0.75**2))
    assert ramp_up(0.2, 0.4) == pytest.approx(math.exp(-5 / 4))
    assert ramp_up(0.4, 0.4) == ramp_up(0.9, 0.4) == ramp_up(0.0, 0.0) == 1.0


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Two labelled patches and three without labels, in both views."""
    rng = torch.Generator().manual_seed(0)

    def image(count: int) -> torch.Tensor:
        return 10 + 2 * torch.randn(count, 2, 32, 32, generator=rng)

    def valid(count: int) -> torch.Tensor:
        return torch.rand(count, 32, 32, generator=rng) < 0.9

    label = torch.randint(-1, 2, (2, 32, 32), generator=rng)
    return {
        "image": image(2), "valid": valid(2), "label": label.masked_fill(label < 0, -100),
        "window": torch.tensor([[0, 1, 2], [1, 3, 4]]), "unlabelled_window": torch.tensor([[2, 5, 6]] * 3),
        "unlabelled_image": image(3), "unlabelled_valid": valid(3), "student_image": image(3),
        "student_valid": valid(3), "student_source": torch.randint(0, 3, (3, 32, 32), generator=rng),
    }  # fmt: skip


@pytest.fixture
def task(monkeypatch) -> SegmentationTask:
    """Ready to train, a tenth of its way; it notes what it logs."""
    task = SegmentationTask(
        decoder="pixel", options={"hidden": [4]}, semi=SemiOptions(threshold=0.4, weight=3.0, ramp=0.5), bf16="no"
    )
    task.prepare(mean=[10.0, 10.0], std=[2.0, 2.0], class_names=["a", "b"], class_pixels=np.array([90, 10]))
    task.train()
    task.average.eval()
    task._steps = 10.0
    monkeypatch.setattr(SegmentationTask, "global_step", 1)
    task.logged = {}
    monkeypatch.setattr(task, "log_dict", lambda values, **_: task.logged.update(values))
    return task


def test_a_step_is_the_labelled_loss_and_the_weighted_other(task, batch):
    loss = task.training_step(batch, 0)["loss"]
    joint = with_student(batch)
    logits = task.run(task.network, joint["image"], joint["valid"])
    shares = task.run(task.average, batch["unlabelled_image"], batch["unlabelled_valid"]).softmax(1)
    other, sure = by_hand(
        "pseudo_labels", 0.4, logits=logits[2:].detach(), shares=shares,
        source=batch["student_source"], valid=batch["student_valid"],
    )  # fmt: skip
    expected = task.loss(logits[:2], batch["label"]).item() + 3.0 * math.exp(-5 * 0.8**2) * other
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    task.on_train_epoch_end()
    assert task.logged["train/loss"].item() == pytest.approx(expected, rel=1e-5)
    assert task.logged["train/semi_loss"].item() == pytest.approx(other, rel=1e-5)
    assert task.logged["train/confident"].item() == pytest.approx(sure, rel=1e-5)


def test_no_gradient_reaches_the_teacher(task, batch):
    before = {name: value.clone() for name, value in task.average.state_dict().items()}
    task.average.requires_grad_()  # even where it could learn, from probabilities that have a slope
    task.semi = SemiOptions(method="consistency")
    task.training_step(batch, 0)["loss"].backward()
    assert all(parameter.grad is None for parameter in task.average.parameters())
    assert any(parameter.grad.any() for parameter in task.network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in task.average.state_dict().items())


def test_patches_without_a_valid_pixel_leave_the_labelled_gradient(task, batch):
    task.network.eval()  # batch norms see all patches
    alone = task.loss(task.run(task.network, batch["image"], batch["valid"]), batch["label"])
    expected = torch.autograd.grad(alone, list(task.network.parameters()))
    hidden = {**batch, "student_valid": torch.zeros_like(batch["student_valid"])}
    task.training_step(hidden, 0)["loss"].backward()
    for parameter, slope in zip(task.network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, slope)


def test_the_teacher_sees_the_patch_as_it_is_and_its_bands(batch):
    seen = []

    def teacher(*planes):
        seen.append(planes)
        return torch.zeros(3, 2, 32, 32)

    batch["unlabelled_present"] = torch.ones(3, 2, dtype=torch.bool)
    learn_unlabelled(SemiOptions(), batch, torch.zeros(3, 2, 32, 32), teacher, progress=0.5)
    assert all(
        one is batch[f"unlabelled_{name}"] for one, name in zip(seen[0], ("image", "valid", "present"), strict=True)
    )


def test_bands_that_some_patches_lack_are_told_of_all(batch):
    batch["student_present"] = torch.tensor([[True, False]] * 3)
    joint = with_student(batch)
    assert joint["present"].tolist() == [[True, True]] * 2 + [[True, False]] * 3
    assert joint["image"].shape == (5, 2, 32, 32)
    assert seen_of(joint).windows.tolist() == [[0, 1, 2], [1, 3, 4], [2, 5, 6], [2, 5, 6], [2, 5, 6]]


def test_a_batch_without_unlabelled_patches_is_refused(task, batch):
    with pytest.raises(InputError, match=r"name scenes in data\.unlabelled"):
        task.training_step({name: batch[name] for name in ("image", "valid", "label")}, 0)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"method": "pseudo_label"}, "known are consistency, pseudo_labels"),
        ({"threshold": 1.5}, "probability from 0 to 1"),
        ({"threshold": math.nan}, "probability from 0 to 1"),
        ({"weight": 0.0}, "above 0"),
        ({"ramp": -0.1}, "share of the run"),
    ],
)
def test_options_that_make_no_sense_are_refused(wrong, words):
    with pytest.raises(InputError, match=words):
        SemiOptions(**wrong)


def test_a_teacher_is_needed():
    with pytest.raises(InputError, match="ema_decay above 0"):
        SegmentationTask(semi=SemiOptions(), ema_decay=0.0)


def test_figures_are_means_over_patches(task):
    task._figures = [(3, {"train/loss": torch.tensor(1.0)}), (1, {"train/loss": torch.tensor(5.0)})]
    task.on_train_epoch_end()
    assert task.logged["train/loss"].item() == 2
    task.logged.clear()
    task.on_train_epoch_end()  # an epoch without a patch
    assert not task.logged
