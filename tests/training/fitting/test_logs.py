"""Where a run logs to, compiled networks, and what its options say."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from geoseg.errors import InputError
from geoseg.models.average import SwaOptions
from geoseg.models.file import load_model
from geoseg.models.lora import LoraOptions
from geoseg.models.task import SegmentationTask
from geoseg.training import logs
from geoseg.training.command import FitCLI
from geoseg.training.run import run_fit


def test_logs_are_those_asked_for(config):
    both = run_fit(config(name="both"))
    assert (both.folder / "csv").is_dir()
    assert (both.folder / "tensorboard").is_dir()
    one = run_fit(config(name="one", logs=["csv"]))
    assert (one.folder / "csv").is_dir()
    assert not (one.folder / "tensorboard").exists()
    none = run_fit(config(name="none", logs=[]))
    assert not (none.folder / "csv").exists()


@pytest.mark.parametrize("name", logs.OPTIONAL)
def test_a_log_that_is_not_installed_says_how_it_would_be(config, monkeypatch, name):
    monkeypatch.setattr(logs, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=f"{name}, which is not installed; pip install {name}"):
        run_fit(config(logs=["csv", name]))
    assert not Path("runs").exists()


@pytest.mark.parametrize("name", logs.OPTIONAL)
def test_a_log_that_is_installed_is_made(tmp_path, monkeypatch, name):
    made = []

    def logger(**given):
        made.append(given)
        return CSVLogger(tmp_path)

    monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(logs, "find_spec", lambda _: True)
    monkeypatch.setattr(logs, {"wandb": "WandbLogger", "mlflow": "MLFlowLogger"}[name], logger)
    assert len(logs.loggers(["csv", name, name], folder=tmp_path / "run", name="run")) == 2
    (given,) = made
    assert "run" in (given.get("name"), given.get("run_name"))
    assert str(given["save_dir"]).startswith(str(tmp_path / "run"))


def test_an_unknown_log_lists_the_known(config):
    with pytest.raises(InputError, match="'tensorbord', which is unknown; known are csv, tensorboard, wandb, mlflow"):
        run_fit(config(logs=["tensorbord"]))


@pytest.mark.parametrize("kind", [SegmentationTask, SwaOptions, LoraOptions])
def test_every_option_is_described(kind):
    text = inspect.getdoc(kind) or ""
    for name in inspect.signature(kind).parameters:
        assert f"    {name}: " in text


def test_every_option_of_the_run_has_help():
    parser = FitCLI.__dict__["add_arguments_to_parser"]
    for name in ("logs", "find_lr", "find_batch"):
        assert f'"--{name}"' in inspect.getsource(parser)


@pytest.mark.slow
def test_a_compiled_network_leaves_plain_weights(config):
    model = {"options": {"hidden": [4]}}
    runs = [run_fit(config(name=f"c{compiled}", model={**model, "compile": compiled})) for compiled in (True, False)]
    one, other = (load_model(run.model)[0].state_dict() for run in runs)
    assert list(one) == list(other)
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=1e-4, rtol=1e-3)
