"""A run that was stopped goes on as if it had never stopped, whatever it keeps between epochs."""

from __future__ import annotations

import json

import pytest
import torch

from geoseg.models.file import load_model
from geoseg.models.history import History
from geoseg.training import run as running
from geoseg.training.run import run_fit

KEPT = {
    "data": {"sampling": {"shares": {"hard": 0.5, "labelled": 0.5}}},
    "model": {
        "decoder": "unet", "encoder": "resnet18", "lr": 0.005, "ema_decay": 0.8, "swa": {"start": 0.3},
        "options": {"encoder_depth": 3, "decoder_channels": [8, 8, 8], "dropout": 0.3},
        "freeze": {"encoder": 1}, "layer_decay": 0.8,
    },
    "trainer": {"max_epochs": 4, "accumulate_grad_batches": 2},
}  # fmt: skip


def test_what_is_random_and_averaged_goes_on(config, monkeypatch):
    whole = run_fit(config(name="whole", **KEPT))
    ran = History.on_validation_end

    def interrupt(self, trainer, task):
        ran(self, trainer, task)
        if len(self.rows) == 3:  # the last checkpoint is that of the second epoch
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(History, "on_validation_end", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_fit(config(**KEPT))
    assert torch.load("runs/tiny/last.ckpt", weights_only=True)["epoch"] == 1
    torch.manual_seed(12345)  # another process has drawn other numbers
    resumed = run_fit(config(**KEPT), resume=True)
    rows = [json.loads((run.folder / "metrics.json").read_text())["history"] for run in (whole, resumed)]
    assert [row["step"] for row in rows[1]] == [2, 4, 6, 8]
    for one, other in zip(*rows, strict=True):
        assert one["train/loss"] == pytest.approx(other["train/loss"], rel=1e-6)
        assert one["val/score"] == pytest.approx(other["val/score"], rel=1e-6)
    for one, other in zip(*(load_model(run.model)[0].state_dict().values() for run in (whole, resumed)), strict=True):
        torch.testing.assert_close(one, other)


def test_a_run_whose_model_was_not_written_ends_as_it_would_have(config, monkeypatch):
    def stop(*_args, **_rest):
        raise KeyboardInterrupt

    given = config(model={"swa": {"start": 0.5}, "lr": 0.005}, trainer={"max_epochs": 2})
    whole = run_fit({**given, "name": "whole"})
    with monkeypatch.context() as patch:
        patch.setattr(running, "settle", stop)
        with pytest.raises(KeyboardInterrupt):
            run_fit(given)
    resumed = run_fit(given, resume=True)
    for one, other in zip(*(load_model(run.model)[0].state_dict().values() for run in (whole, resumed)), strict=True):
        torch.testing.assert_close(one, other)
