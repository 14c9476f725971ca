"""Averaged weights, and what counts steps of the optimiser where several batches make one."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from geoseg.data import datamodule
from geoseg.errors import InputError
from geoseg.models.average import SwaOptions, move_average, reestimate_norms
from geoseg.models.file import load_model
from geoseg.models.optim import SCHEDULES
from geoseg.models.task import SegmentationTask
from geoseg.training.command import FitCLI
from geoseg.training.run import run_fit


class Watch(Callback):
    """What a run did: its weights and learning rate after each step of the optimiser, its averages, its draws."""

    def __init__(self) -> None:
        self.weights, self.rates, self.draws = [], [], []
        self.average, self.swa, self.swa_steps = None, None, 0

    def on_train_end(self, _trainer, pl_module):
        self.average, self.swa = (
            None if each is None else {name: value.clone() for name, value in each.state_dict().items()}
            for each in (pl_module.average, pl_module.swa_network)
        )
        self.swa_steps = pl_module.swa_steps

    def on_train_batch_end(self, trainer, pl_module, *_rest):
        if trainer.global_step > len(self.weights):
            self.weights.append({name: value.clone() for name, value in pl_module.network.state_dict().items()})
            self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


@pytest.fixture
def watch(monkeypatch) -> Watch:
    """Watches a run, and every draw of augmentation."""
    watch, augment = Watch(), datamodule.augment_batch

    def drawn(batch, *, generator, **rest):
        watch.draws.append(generator.initial_seed())
        return augment(batch, generator=generator, **rest)

    monkeypatch.setattr(datamodule, "augment_batch", drawn)
    fit = FitCLI.instantiate_trainer

    def instantiate(self, **kwargs):
        trainer = fit(self, **kwargs)
        trainer.callbacks.insert(0, watch)
        return trainer

    monkeypatch.setattr(FitCLI, "instantiate_trainer", instantiate)
    return watch


def mean_of(weights: list[dict[str, torch.Tensor]], name: str) -> np.ndarray:
    return np.mean([each[name].double().numpy() for each in weights], axis=0)


def test_the_mean_of_the_last_weights_is_that_of_their_steps(config, watch):
    run_fit(config(model={"swa": {"start": 0.75}}, trainer={"max_epochs": 4}))  # 4 steps an epoch
    assert len(watch.weights) == 16
    assert watch.swa_steps == 4
    for name in ("0.weight", "3.weight", "3.bias", "1.running_mean"):
        np.testing.assert_allclose(watch.swa[name].numpy(), mean_of(watch.weights[12:], name), atol=1e-6)


def test_swa_is_saved_where_it_scores_best_with_batch_norms_that_fit_it(config, watch, caplog):
    # The learning rate jumps at the end, so that single weights are poor and their mean is not.
    poor = {"lr": 0.005, "ema_decay": 0.0, "swa": {"start": 0.5, "lr": 0.05}, "schedule": "constant"}
    with caplog.at_level(logging.INFO, "geoseg"):
        result = run_fit(config(model=poor, trainer={"max_epochs": 4}))
    (said,) = [record.getMessage() for record in caplog.records if "mean of the last" in record.getMessage()]
    figures = json.loads((result.folder / "metrics.json").read_text())
    network, _ = load_model(result.model)
    saved = network.state_dict()
    chosen = "score" in said and "not saved" not in said
    for name in ("0.weight", "3.weight", "3.bias"):
        same = np.allclose(saved[name].numpy(), mean_of(watch.weights[8:], name), atol=1e-6)
        assert same is chosen
    best = max(row["val/score"] for row in figures["history"])
    assert result.scores["overall_accuracy"] / 2 + result.scores["mean_iou"] / 2 >= best - 1e-6


def test_batch_norms_are_measured_on_all_batches_alike():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Conv2d(3, 2, 1)).eval()
    network[1].running_mean += 7.0
    batches = [torch.randn(4, 2, 5, 5) * scale for scale in (1.0, 3.0, 0.5)]
    seen = [network[0](batch).detach().double().numpy() for batch in batches]
    assert reestimate_norms(network, batches, network) == 1
    means = np.mean([batch.mean((0, 2, 3)) for batch in seen], axis=0)
    variances = np.mean([batch.var((0, 2, 3), ddof=1) for batch in seen], axis=0)
    np.testing.assert_allclose(network[1].running_mean.numpy(), means, atol=1e-6)
    np.testing.assert_allclose(network[1].running_var.numpy(), variances, rtol=1e-5)
    assert network[1].momentum == 0.1
    assert not any(module.training for module in network.modules())


def test_batch_norms_of_several_processes_are_one_by_the_law_of_total_variance():
    values = torch.randn(2, 4000, 1, 1, 1) * torch.tensor([1.0, 3.0])[:, None, None, None, None] + 2.0
    values[1] += 5.0
    norms = [nn.Sequential(nn.BatchNorm2d(1)).eval() for _ in values]
    for norm, part in zip(norms, values, strict=True):
        reestimate_norms(norm, [part], norm)
    stats = [(norm[0].running_mean.clone(), norm[0].running_var.clone()) for norm in norms]
    square = torch.stack([var + mean.square() for mean, var in stats]).mean(0)
    answers = [square, torch.stack([mean for mean, _ in stats]).mean(0)]
    reestimate_norms(norms[0], [values[0]], norms[0], reduce=lambda _: answers.pop(0))
    whole = values.flatten()
    assert norms[0][0].running_mean.item() == pytest.approx(whole.mean().item(), abs=1e-4)
    assert norms[0][0].running_var.item() == pytest.approx(whole.var().item(), rel=1e-3)


def test_a_batch_norm_that_is_kept_stays():
    network = nn.Sequential(nn.BatchNorm2d(1), nn.BatchNorm2d(1)).eval()
    assert reestimate_norms(network, [torch.full((2, 1, 2, 2), 5.0)], network, kept=lambda name: name == "0") == 1
    assert network[0].running_mean.item() == 0
    assert network[1].running_mean.item() == pytest.approx(5.0, rel=1e-3)


def test_several_batches_make_a_step_and_all_count_steps(config, watch):
    run_fit(config(trainer={"accumulate_grad_batches": 2, "max_epochs": 3}, model={"ema_decay": 0.6}))
    steps = len(watch.weights)
    assert steps == 6  # 3 epochs of 4 batches
    expected = [0.02 * SCHEDULES["onecycle"](step / steps, 0.15) for step in range(1, steps + 1)]
    assert watch.rates == pytest.approx(expected)
    # The running mean moves once a step.
    found, draws = watch.average["3.weight"].double(), list(watch.draws)
    mean = {name: value.double() for name, value in first(config).items()}
    for step, weights in enumerate(watch.weights[:steps]):
        decay = min(0.6, (2 + step) / (11 + step))
        mean = {name: decay * value + (1 - decay) * weights[name].double() for name, value in mean.items()}
    torch.testing.assert_close(found, mean["3.weight"], atol=1e-6, rtol=1e-5)
    # Every batch is augmented by a draw of its own.
    assert len(set(draws)) == len(draws) == 12


def first(config) -> dict[str, torch.Tensor]:
    """The weights that a run with the same seed begins with."""
    begun = run_fit(config(name="begun", model={"lr": 1e-30, "weight_decay": 0.0, "ema_decay": 0.0}))
    return load_model(begun.model)[0].state_dict()


def test_accumulated_batches_are_as_one_large_batch(config):
    plain = {"augment": {"turns": False, "gain": 0.0, "band_gain": 0.0, "noise": 0.0}}
    model = {"loss": {"ce": 1.0}, "options": {"hidden": []}, "ema_decay": 0.0}
    runs = [
        run_fit(config(name=f"by{batch}", data={**plain, "batch": batch}, model=model,
                       trainer={"accumulate_grad_batches": 8 // batch}))
        for batch in (8, 4)
    ]  # fmt: skip
    losses = [
        [row["train/loss"] for row in json.loads((run.folder / "metrics.json").read_text())["history"]] for run in runs
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    one, other = (load_model(run.model)[0].state_dict() for run in runs)
    torch.testing.assert_close(one["0.weight"], other["0.weight"], atol=1e-3, rtol=1e-2)


def test_a_run_that_ends_before_the_mean_begins_says_so(config, caplog):
    early = {"early_stopping": {"patience": 1, "min_delta": 1.0}, "trainer": {"max_epochs": 20}}
    with caplog.at_level(logging.WARNING, "geoseg"):
        run_fit(config(model={"swa": {"start": 0.9}}, **early))
    assert "ended before swa.start" in caplog.text


def test_a_mean_of_weights_needs_an_end(config):
    with pytest.raises(InputError, match=r"swa needs to know the run's length.*max_epochs"):
        run_fit(config(model={"swa": {}}, trainer={"max_epochs": -1, "max_time": "00:00:00:30"}))


@pytest.mark.parametrize("wrong", [{"start": 1.0}, {"start": -0.1}, {"lr": 0.0}])
def test_options_that_make_no_sense_are_refused(wrong):
    with pytest.raises(InputError, match="swa"):
        SwaOptions(**wrong)


def test_weights_that_do_not_move_stay_as_they_are_to_the_last_bit():
    network = nn.Linear(50, 50)
    average = nn.Linear(50, 50)
    average.load_state_dict(network.state_dict())
    for step in range(20):
        move_average(average, network, decay=step / (step + 1))
    assert torch.equal(average.weight, network.weight)


def test_the_task_keeps_the_steps_of_the_mean_in_a_checkpoint():
    task, checkpoint = SegmentationTask(swa=SwaOptions()), {}
    task.swa_steps, task.validated_step = 7, 5
    task.on_save_checkpoint(checkpoint)
    other = SegmentationTask(swa=SwaOptions())
    other.on_load_checkpoint(checkpoint)
    assert (other.swa_steps, other.validated_step) == (7, 5)
