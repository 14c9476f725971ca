"""The example of a hyper-parameter search: it goes on where it was stopped, and keeps a configuration that runs."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import yaml

from geoseg import io, synthetic
from geoseg.training.run import opened_data

optuna = pytest.importorskip("optuna", reason="the search of docs/search.py needs optuna")

SCRIPT = Path(__file__).resolve().parents[1] / "docs" / "search.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("docs_search", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.WIDTHS = [4] * 5
    return module


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> dict:
    """A configuration of one short epoch on a small landscape."""
    folder = tmp_path_factory.mktemp("landscape")
    land = synthetic.landscape(0, shape=(128, 160))
    image = io.write_raster(land.image, folder / "image.tif", nodata=0)
    labels = io.write_raster(land.labels, folder / "labels.tif", legend=land.legend)
    split = {"regions": [{"cols": [0, 64]}], "buffer_m": 40.0, "untrained": "warn"}
    scene = {"image": str(image), "labels": str(labels)}
    return {
        "data": {"scenes": [scene], "patch_px": 32, "batch": 4, "epoch_patches": 8, "split": split},
        "model": {"encoder": "mobilenetv3_small_050", "options": {"dropout": 0.1}, "bf16": "no"},
        "trainer": {"max_epochs": 1, "accelerator": "cpu"},
        "validation": {"places": 0},
        "logs": [],
    }


def test_a_search_goes_on_where_it_was_stopped_and_keeps_the_best(example, base, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = example.search(base, folder=tmp_path / "search", trials=1)
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    given = ["search.py", "base.yaml", "--trials", "2", "--folder", "search"]
    monkeypatch.setattr(sys, "argv", given)
    example.main()
    said = capsys.readouterr().out
    study = optuna.load_study(study_name="geoseg", storage="sqlite:///search/study.db")
    assert [trial.params for trial in study.trials][:1] == [first.trials[0].params]
    assert len(study.trials) == 2
    assert study.trials[0].params["lr"] != study.trials[1].params["lr"]
    assert f"best of 2 trials: {study.best_value:.4f}" in said
    assert study.best_value == max(trial.value for trial in study.trials)
    best = yaml.safe_load(Path("search/best.yaml").read_text())
    assert best["model"]["lr"] == study.best_params["lr"]
    assert best["model"]["options"]["dropout"] == 0.1
    assert best["model"]["options"]["encoder_depth"] == len(best["model"]["options"]["decoder_channels"])
    with opened_data(best) as data:
        assert data.batch == 4
    assert "runs" not in best
    assert len(list(Path("search").glob("trial_*/model.safetensors"))) == 2


def test_every_choice_is_a_configuration_that_geoseg_takes(example, base):
    for depth in (3, 4, 5):
        for loss in example.LOSSES:
            trial = optuna.trial.FixedTrial({"lr": 1e-3, "loss": loss, "depth": depth})
            with opened_data(example.suggest(trial, base)) as data:
                assert data.patch_px == 32
    assert "loss" not in base["model"]
