"""A run that was stopped goes on as if it had never stopped, whatever it keeps between epochs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from geoseg.errors import InputError, OutputError
from geoseg.models.card import read_card
from geoseg.models.file import load_model
from geoseg.models.history import History
from geoseg.training import run as running
from geoseg.training.resuming import CheckpointFiles, RunCheckpoint
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


def test_what_is_random_and_averaged_goes_on(config, stopped_after):
    whole = run_fit(config(name="whole", **KEPT))
    with stopped_after(3):
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


def test_a_run_goes_on_as_it_was_begun_or_not_at_all(config):
    given = config(trainer={"max_epochs": 1})
    run_fit(given)
    for part, changes in (
        ("data", {"bands": ["band3", "band1", "band2"]}), ("data", {"split": {"block_m": 400.0}}),
        ("model", {"lr": 1e-4}), ("model", {"ema_decay": 0.0}), ("model", {"decoder": "random_forest"}),
    ):  # fmt: skip
        (name,) = changes
        with pytest.raises(InputError, match=rf"began with another {part}.{name}") as caught:
            run_fit({**given, part: {**given[part], **changes}}, resume=True)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="began with another seed_everything"):
        run_fit({**given, "seed_everything": 7}, resume=True)
    begun = Path("runs/tiny/config.yaml").read_text()
    longer = {**given, "data": {**given["data"], "workers": 1}, "trainer": {**given["trainer"], "max_epochs": 2}}
    card = read_card(run_fit(longer, resume=True).model)
    assert begun != Path("runs/tiny/config.yaml").read_text()
    assert (card.training["epochs"], card.training["steps"]) == (2, 8)
    assert card.training["config"]["trainer"]["max_epochs"] == 2


def test_what_was_best_is_found_where_the_folder_was_moved(tmp_path):
    before = RunCheckpoint(dirpath=tmp_path / "old", filename="best", monitor="val/score", mode="max")
    before.best_model_path = before.kth_best_model_path = str(tmp_path / "old" / "best.ckpt")
    before.best_model_score, before.best_k_models = torch.tensor(0.7), {before.best_model_path: torch.tensor(0.7)}
    now = RunCheckpoint(dirpath=tmp_path / "new", filename="best", monitor="val/score", mode="max")
    now.load_state_dict(before.state_dict())
    assert now.best_model_score == 0.7
    assert now.best_model_path == now.kth_best_model_path == str(tmp_path / "new" / "best.ckpt")
    assert list(now.best_k_models) == [now.best_model_path]


@pytest.mark.parametrize("stop", [{"val_check_interval": 2}, {"check_val_every_n_epoch": 2}])
def test_a_run_goes_on_from_its_last_whole_epoch(config, monkeypatch, stop):
    given = config(model={"lr": 0.005}, trainer={"max_epochs": 4, **stop})
    whole = run_fit({**given, "name": "whole"})
    stepped = History.on_train_batch_end

    def interrupt(self, trainer, task, *rest):
        stepped(self, trainer, task, *rest)
        if trainer.global_step == 15:  # of 16, in the last of four epochs, after a validation within it
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(History, "on_train_batch_end", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_fit(given)
    assert torch.load("runs/tiny/last.ckpt", weights_only=True)["global_step"] == 12
    resumed = run_fit(given, resume=True)
    for one, other in zip(*(load_model(run.model)[0].state_dict().values() for run in (whole, resumed)), strict=True):
        torch.testing.assert_close(one, other)
    rows = [json.loads((run.folder / "metrics.json").read_text())["history"] for run in (whole, resumed)]
    assert [row["train/loss"] for row in rows[1]] == pytest.approx([row["train/loss"] for row in rows[0]])


def test_a_run_that_time_ended_repeats_the_epoch_that_was_cut(config, monkeypatch, caplog):
    given = config(model={"lr": 0.005}, trainer={"max_epochs": 2})
    whole = run_fit({**given, "name": "whole"})
    stepped = History.on_train_batch_end

    def stop(self, trainer, task, *rest):
        stepped(self, trainer, task, *rest)
        trainer.should_stop = trainer.global_step == 6  # as trainer.max_time does

    with monkeypatch.context() as patch:
        patch.setattr(History, "on_train_batch_end", stop)
        run_fit({**given, "trainer": {**given["trainer"], "min_epochs": 0}})
    assert torch.load("runs/tiny/last.ckpt", weights_only=True)["global_step"] == 4
    resumed = run_fit(given, resume=True)
    for one, other in zip(*(load_model(run.model)[0].state_dict().values() for run in (whole, resumed)), strict=True):
        torch.testing.assert_close(one, other)


def test_a_checkpoint_without_its_end_is_one_line(config):
    given = config(trainer={"max_epochs": 1})
    last = run_fit(given).folder / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-500])
    with pytest.raises(InputError, match=r"last.ckpt is damaged.*--overwrite"):
        run_fit(given, resume=True)


def test_steps_that_nobody_judged_are_told(config, caplog):
    run_fit(config(trainer={"max_steps": 6}))
    assert "the last 2 steps of the run were not validated" in caplog.text


def test_the_folder_of_all_runs_may_be_at_home(config, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    run = run_fit(config(trainer={"max_epochs": 1}, runs="~/runs"))
    assert run.folder == tmp_path / "home" / "runs" / "tiny"
    assert {"model.safetensors", "best.ckpt", "last.ckpt", "config.yaml"} <= {
        path.name for path in run.folder.iterdir()
    }


def test_a_run_that_early_stopping_ended_is_at_its_end(config, monkeypatch, caplog):
    def stop(*_args, **_rest):
        raise KeyboardInterrupt

    given = config(model={"lr": 1e-12}, trainer={"max_epochs": 9}, early_stopping={"patience": 1})
    with monkeypatch.context() as patch:
        patch.setattr(running, "settle", stop)
        with pytest.raises(KeyboardInterrupt):
            run_fit(given)
    rows = json.loads((run_fit(given, resume=True).folder / "metrics.json").read_text())["history"]
    assert [row["step"] for row in rows] == [4, 8]
    assert "were not validated" not in caplog.text


def test_patience_of_no_epoch_stops_at_the_first_that_is_no_better(config):
    given = config(model={"lr": 1e-12}, trainer={"max_epochs": 9}, early_stopping={"patience": 0})
    rows = json.loads((run_fit(given).folder / "metrics.json").read_text())["history"]
    assert [row["step"] for row in rows] == [4, 8]


def test_a_schedule_without_an_end_is_told_of(config, caplog):
    caplog.set_level("WARNING")
    run_fit(config(trainer={"max_epochs": -1, "max_time": "00:00:00:03"}))
    assert "schedule onecycle needs to know the run's length" in caplog.text


def test_the_best_epoch_keeps_its_weights_alone_and_the_last_one_all(config):
    folder = run_fit(config(trainer={"max_epochs": 2})).folder
    best, last = (torch.load(folder / f"{name}.ckpt", weights_only=True) for name in ("best", "last"))
    assert "optimizer_states" not in best
    assert last["optimizer_states"]
    assert best["state_dict"].keys() == last["state_dict"].keys()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("PytorchStreamWriter failed")])
def test_a_checkpoint_appears_whole_or_not_at_all(tmp_path, monkeypatch, error):
    files, path = CheckpointFiles(), tmp_path / "run" / "last.ckpt"
    files.save_checkpoint({"step": 1}, path)

    def fail(_, part):
        Path(part).write_bytes(b"half of it")
        raise error

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OutputError, match=r"last.ckpt cannot be written .* is the disk full"):
        files.save_checkpoint({"step": 2}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert [item.name for item in path.parent.iterdir()] == ["last.ckpt"]
