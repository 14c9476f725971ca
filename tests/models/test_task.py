"""Normalisation, averaged weights, schedules."""

import numpy as np
import pytest
import torch
from torch import nn

from geoseg.errors import InputError
from geoseg.models.optim import clip_where_larger
from geoseg.models.task import SCHEDULES, SegmentationTask, move_average, normalize, use_bf16


def prepared(**options) -> SegmentationTask:
    task = SegmentationTask(decoder="pixel", options={"hidden": [4]}, **options)
    task.prepare(mean=[10.0, 20.0], std=[2.0, 4.0], class_names=["a", "b"], class_pixels=np.array([90, 10]))
    return task


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int16, torch.float32])
def test_the_network_sees_standard_deviations_and_zero_where_invalid(dtype):
    image = torch.tensor([[[[12, 200]], [[16, 200]]]]).to(dtype)
    valid = torch.tensor([[[True, False]]])
    out = normalize(image, valid, mean=torch.tensor([10.0, 20.0]), std=torch.tensor([2.0, 4.0]))
    torch.testing.assert_close(out, torch.tensor([[[[1.0, 0.0]], [[-1.0, 0.0]]]]))


def test_nan_under_the_mask_does_no_harm():
    image = torch.full((1, 1, 1, 2), float("nan"))
    image[..., 0] = 3.0
    out = normalize(image, torch.tensor([[[True, False]]]), mean=torch.zeros(1), std=torch.ones(1))
    assert out.flatten().tolist() == [3.0, 0.0]


def test_a_band_that_a_patch_lacks_is_the_mean_there():
    image = torch.full((2, 2, 1, 1), 14)
    image[1, 1] = 0
    present = torch.tensor([[True, True], [True, False]])
    valid = torch.ones(2, 1, 1, dtype=torch.bool)
    out = normalize(image, valid, mean=torch.tensor([10.0, 10.0]), std=torch.tensor([2.0, 4.0]), present=present)
    assert out.flatten(1).tolist() == [[2.0, 1.0], [2.0, 0.0]]


def test_the_average_is_the_recurrence():
    old, new = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    new(torch.randn(4, 3, 2, 2) + 5)
    expected = {name: 0.75 * old.state_dict()[name] + 0.25 * value for name, value in new.state_dict().items()}
    move_average(old, new, decay=0.75)
    for name in ("weight", "running_mean", "running_var"):
        torch.testing.assert_close(old.state_dict()[name], expected[name])
    assert old.num_batches_tracked == new.num_batches_tracked == 1


def test_the_averaged_network_is_judged_and_never_trained():
    task = prepared()
    assert task.judged is task.average
    assert not any(parameter.requires_grad for parameter in task.average.parameters())
    task.train()
    task.on_train_epoch_start()
    assert not task.average.training
    assert prepared(ema_decay=0.0).judged is not None


def test_logits_are_float32_for_every_class():
    task = prepared(bf16="yes").eval()
    logits = task(torch.randint(0, 30, (1, 2, 32, 32)), torch.ones(1, 32, 32, dtype=torch.bool))
    assert logits.shape == (1, 2, 32, 32)
    assert logits.dtype == torch.float32


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_rise_and_then_do_not(name):
    rates = np.array([SCHEDULES[name](progress, 0.2) for progress in np.linspace(0, 1, 101)])
    assert (np.diff(rates[:20]) > 0).all()
    assert rates.max() == pytest.approx(1, abs=1e-6)
    assert (np.diff(rates[21:]) <= 0).all()
    assert rates[-1] == pytest.approx(1 if name == "constant" else 0, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"schedule": "step"}, "onecycle"),
        ({"class_weights": "log"}, "sqrt_inverse"),
        ({"bf16": "maybe"}, "auto, yes, no"),
        ({"warmup": 0.0}, "between 0 and 1"),
        ({"ema_decay": 1.0}, "between 0 and 1"),
        ({"loss": {"lovas": 1.0}}, "known are ce"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        SegmentationTask(**options)


def test_bf16_is_a_choice():
    assert use_bf16("yes", torch.device("cpu"))
    assert not use_bf16("no", torch.device("cpu"))
    assert not use_bf16("auto", torch.device("meta"))


@pytest.mark.parametrize("factor", [0.01, 0.999, 1.0, 1.001, 40.0, float("nan"), float("inf")])
def test_gradients_are_clipped_as_torch_clips_them(factor):
    torch.manual_seed(0)
    networks = [nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(2, 2)) for _ in range(2)]
    for network in networks:
        torch.manual_seed(1)
        for parameter in network.parameters():
            parameter.grad = torch.randn_like(parameter)
    norm = torch.nn.utils.get_total_norm(each.grad for each in networks[0].parameters())
    for network in networks:
        for parameter in network.parameters():
            parameter.grad *= factor * 5 / norm
    clip_where_larger(torch.optim.SGD(networks[0].parameters(), lr=0.1), 5.0)
    torch.nn.utils.clip_grad_norm_(networks[1].parameters(), 5.0)
    for one, other in zip(*(network.parameters() for network in networks), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-6, atol=1e-7, equal_nan=True)
