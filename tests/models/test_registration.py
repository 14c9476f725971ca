"""Labels that lie off are moved to where they fit, patch by patch, and nothing else becomes of them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from geoseg.errors import InputError
from geoseg.models.losses import IGNORE_INDEX, check_shift, registered
from geoseg.models.losses.registration import PENALTY, likeliest_shifts
from geoseg.models.task import SegmentationTask

REACH = 5
steps = st.integers(-REACH, REACH)


def fields(count: int, side: int, *, seed: int, classes: int = 3) -> torch.Tensor:
    """Blocks of 8 pixels of random classes, `(n, row, col)`."""
    draw = torch.randint(0, classes, (count, 1, -(-side // 8), -(-side // 8)), generator=generator(seed))
    return functional.interpolate(draw.float(), scale_factor=8)[:, 0, :side, :side].long()


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def seen(truth: torch.Tensor, *, noise: float, seed: int, classes: int = 3) -> torch.Tensor:
    """Logits of a network that sees the truth through noise."""
    clear = 2.0 * functional.one_hot(truth, classes).movedim(-1, 1)
    return clear + noise * torch.randn(clear.shape, generator=generator(seed))


def by_hand(logits: torch.Tensor, label: torch.Tensor) -> list[tuple[int, int]]:
    """The shifts, each tried out: the mean log-likelihood of the moved labels, less the penalty."""
    # What is moved out counts as the mean without a shift.
    found = []
    for log_p, own in zip(logits.log_softmax(1), label, strict=True):
        best, labelled = {}, own != IGNORE_INDEX
        unmoved = log_p.gather(0, own.clamp(min=0)[None])[0][labelled].mean()
        for row in range(-REACH, REACH + 1):
            for col in range(-REACH, REACH + 1):
                wide = functional.pad(own, [REACH] * 4, value=IGNORE_INDEX)
                moved = wide[REACH - row :, REACH - col :][: own.shape[0], : own.shape[1]]
                known = moved != IGNORE_INDEX
                total = log_p.gather(0, moved.clamp(min=0)[None])[0][known].sum()
                mean = (total + (labelled.sum() - known.sum()) * unmoved) / labelled.sum()
                best[row, col] = float(mean) - PENALTY * (row**2 + col**2) / REACH**2
        found.append(max(best, key=lambda shift: best[shift]))
    return found


@given(shifts=st.lists(st.tuples(steps, steps), min_size=1, max_size=3), seed=st.integers(0, 99))
def test_labels_come_back_to_where_they_were(shifts, seed):
    wide = fields(len(shifts), 64 + 2 * REACH, seed=seed)
    truth = wide[:, REACH:-REACH, REACH:-REACH]
    off = torch.stack([
        plane[REACH - row : REACH - row + 64, REACH - col : REACH - col + 64]
        for plane, (row, col) in zip(wide, shifts, strict=True)
    ])  # fmt: skip
    shares = functional.one_hot(off, 3).movedim(-1, 1).float()
    label, soft = registered(seen(truth, noise=1.0, seed=seed), off, shares, reach_px=REACH)
    known = label != IGNORE_INDEX
    assert torch.equal(label[known], truth[known])
    assert torch.equal(soft.argmax(1)[known], truth[known])
    assert torch.equal(soft.sum(1) > 0, known)
    for plane, (row, col) in zip(known, shifts, strict=True):
        assert int((~plane).sum()) == 64 * 64 - (64 - abs(row)) * (64 - abs(col))


@given(seed=st.integers(0, 999), rows=st.integers(12, 30), cols=st.integers(12, 30), hidden=st.floats(0, 0.9))
def test_the_shifts_are_those_found_by_trying_all(seed, rows, cols, hidden):
    draw = generator(seed)
    label = torch.randint(0, 2, (2, rows, cols), generator=draw)
    label[torch.rand(label.shape, generator=draw) < hidden] = IGNORE_INDEX
    logits = torch.randn((2, 2, rows, cols), generator=draw)
    assert likeliest_shifts(logits, label, reach_px=REACH) == by_hand(logits, label)


def test_labels_are_not_moved_out_of_sight():
    label = torch.full((1, 20, 20), IGNORE_INDEX)
    label[0, 0, :] = label[0, :, 0] = 1  # all wrong, and gone by a shift of a pixel
    logits = torch.zeros(1, 2, 20, 20)
    logits[:, 0] = 5.0
    assert likeliest_shifts(logits, label, reach_px=REACH) == [(0, 0)]


def test_labels_that_fit_alike_anywhere_stay():
    label = torch.zeros(2, 40, 40, dtype=torch.long)
    label[1] = IGNORE_INDEX
    assert likeliest_shifts(torch.zeros(2, 3, 40, 40), label, reach_px=REACH) == [(0, 0), (0, 0)]


@pytest.mark.parametrize("reach", [-1, 33])
def test_a_reach_out_of_range_is_one_line(reach):
    with pytest.raises(InputError, match=f"label_shift_px is {reach}: needed is 0 to 32 pixels"):
        check_shift(reach)


def test_a_step_learns_from_the_moved_labels(monkeypatch):
    truth = fields(2, 64, seed=1, classes=2)
    off = truth.roll((2, -3), (1, 2))
    batch = {"image": seen(truth, noise=0.5, seed=1, classes=2), "valid": torch.ones_like(off, dtype=torch.bool)}
    back, _ = registered(batch["image"], off, reach_px=REACH)
    losses = {}
    for reach in (0, REACH):
        task = SegmentationTask(decoder="pixel", options={"hidden": [4]}, loss={"ce": 1.0}, label_shift_px=reach)
        task.prepare(mean=[0.0] * 2, std=[1.0] * 2, class_names=["a", "b"], class_pixels=np.array([5, 5]))
        task.network = torch.nn.Identity()  # the image is what a network would see
        monkeypatch.setattr(task, "log_dict", lambda *_, **__: None)
        losses[reach] = {
            name: float(task.training_step({**batch, "label": label}, 0)["loss"])
            for name, label in {"true": truth, "off": off, "back": back}.items()
        }
    assert losses[REACH]["off"] == losses[0]["back"] < losses[0]["off"] / 2
    assert losses[REACH]["true"] == losses[0]["true"]
