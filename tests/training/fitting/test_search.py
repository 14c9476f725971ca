"""The learning rate and the batch, found before a run."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch
import yaml

from geoseg.errors import InputError
from geoseg.models.card import read_card
from geoseg.models.file import load_model
from geoseg.models.memory import is_too_large
from geoseg.training.run import run_fit
from geoseg.training.search import fastest, find_lr, largest, smoothed, steepest, sweep_rates


def test_the_rate_is_where_a_loss_falls_fastest():
    rates = sweep_rates()
    losses = 3 - 2 / (1 + np.exp(-3 * np.log(rates / 1e-3)))  # a logistic fall about 1e-3
    found = steepest(rates, losses)
    # The running mean lags behind by about ten steps of a factor of 1.15 each.
    assert 1e-3 <= found <= 1e-3 * (rates[1] / rates[0]) ** 15


def test_a_loss_that_never_falls_has_no_rate():
    rates = sweep_rates()
    assert steepest(rates, np.linspace(1, 2, len(rates))) is None
    assert steepest(rates[:5], np.ones(5)) is None


def test_the_running_mean_of_a_constant_is_the_constant_from_the_start():
    np.testing.assert_allclose(smoothed(np.full(5, 2.5)), 2.5)


def test_the_largest_batch_is_tried_few_times():
    tried: list[int] = []

    def fits(size: int) -> bool:
        tried.append(size)
        return size <= 100

    assert largest(fits, most=1000) == 100
    assert len(tried) < 16
    assert largest(lambda _: True, most=48) == 48
    assert largest(lambda size: size <= 2, most=48) == 2
    with pytest.raises(InputError, match=r"no batch of 2 fits.*data.patch_px smaller"):
        largest(lambda _: False, most=48)


def test_a_gpu_refuses_a_batch_in_several_ways():
    said = [
        "CUDA error: out of memory",
        "CUBLAS_STATUS_ALLOC_FAILED",
        "upsample_nearest_nhwc only supports less than INT_MAX",
    ]
    assert all(is_too_large(error) for error in [torch.OutOfMemoryError("x"), *map(RuntimeError, said)])
    assert not is_too_large(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_the_fastest_batch_is_the_smallest_of_those_that_are_nearly_as_fast():
    tried: list[int] = []

    def seconds(size: int) -> float:
        tried.append(size)
        return 1.0 + size if size <= 8 else 10.0 * size

    assert fastest(seconds, most=64) == 8
    assert tried == [2, 4, 8, 16, 32]
    assert fastest(lambda size: size, most=64) == 2
    assert fastest(lambda _: 1.0, most=1) == 1


def test_a_sweep_leaves_no_trace(config):
    kept = {"trainer": {"max_epochs": 1}, "data": {"epoch_patches": 32}}
    found = run_fit(config(**kept), find_lr=True)
    rate = read_card(found.model).training["config"]["model"]["lr"]
    assert 1e-6 < rate < 1
    assert rate != 0.02
    written = yaml.safe_load((found.folder / "config.yaml").read_text())
    assert written["model"]["lr"] == rate
    assert written["find_lr"] is False
    given = run_fit(config(name="given", model={"lr": rate}, **kept))
    for one, other in zip(*(load_model(run.model)[0].state_dict().values() for run in (found, given)), strict=True):
        assert torch.equal(one, other)


def test_a_run_that_goes_on_keeps_what_it_found(config):
    first = run_fit(config(trainer={"max_epochs": 1}), find_lr=True, find_batch=True)
    begun = yaml.safe_load((first.folder / "config.yaml").read_text())
    again = run_fit(config(trainer={"max_epochs": 2}), find_lr=True, find_batch=True, resume=True)
    after = yaml.safe_load((again.folder / "config.yaml").read_text())
    assert (after["model"]["lr"], after["data"]["batch"]) == (begun["model"]["lr"], begun["data"]["batch"])
    rows = json.loads((again.folder / "metrics.json").read_text())["history"]
    assert [row["epoch"] for row in rows] == [0, 1]


def test_the_batch_that_is_found_is_the_one_that_is_used(config, caplog):
    with caplog.at_level(logging.INFO, "geoseg"):
        found = run_fit(config(trainer={"max_epochs": 1}), find_batch=True)
    batch = yaml.safe_load((found.folder / "config.yaml").read_text())["data"]["batch"]
    assert batch in (2, 4, 8, 16, 32)
    assert f"find_batch: {batch} patches" in caplog.text
    rows = json.loads((found.folder / "metrics.json").read_text())["history"]
    assert rows[0]["step"] == 32 // batch
    given = run_fit(config(name="given", data={"batch": batch}, trainer={"max_epochs": 1}))
    for one, other in zip(*(load_model(run.model)[0].state_dict().values() for run in (found, given)), strict=True):
        assert torch.equal(one, other)


def test_without_a_better_rate_the_given_one_stays(config, monkeypatch, caplog):
    monkeypatch.setattr("geoseg.training.search.steepest", lambda *_: None)
    with caplog.at_level(logging.WARNING, "geoseg"):
        found = run_fit(config(trainer={"max_epochs": 1}), find_lr=True)
    assert read_card(found.model).training["config"]["model"]["lr"] == 0.02
    assert "model.lr stays 0.02" in caplog.text
    assert callable(find_lr)
