"""A search for hyper-parameters with optuna: `python docs/search.py configs/landcover.yaml --trials 20`.

Each trial is a whole `geoseg fit`, judged on the stitched validation part; the test part is not looked at. The study
lies in FOLDER/study.db, so the same command goes on where it was stopped. The best configuration is FOLDER/best.yaml.
Nothing is pruned: with a one-cycle schedule, early scores tell little of the last ones.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import optuna
import yaml

import geoseg

LOSSES = {"ce": {"ce": 1.0}, "ce+dice": {"ce": 1.0, "dice": 0.5}, "focal+dice": {"focal": 1.0, "dice": 0.5}}
WIDTHS = [256, 128, 64, 32, 16]  # of the decoder, from the deepest level to the last


def suggest(trial: optuna.Trial, base: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a trial; all that is not searched stays as in `base`."""
    config = copy.deepcopy(base)
    model = config.setdefault("model", {})
    model["lr"] = trial.suggest_float("lr", 3e-4, 1e-2, log=True)
    model["loss"] = LOSSES[trial.suggest_categorical("loss", list(LOSSES))]
    depth = trial.suggest_int("depth", 3, 5)
    model["options"] = {**(model.get("options") or {}), "encoder_depth": depth, "decoder_channels": WIDTHS[-depth:]}
    return config


def search(base: dict[str, Any], *, folder: Path, trials: int) -> optuna.Study:
    """The study after `trials` trials in all, those of an earlier call included."""
    folder.mkdir(parents=True, exist_ok=True)
    storage = f"sqlite:///{folder / 'study.db'}"
    study = optuna.create_study(study_name="geoseg", storage=storage, direction="maximize", load_if_exists=True)
    # The number of trials so far as seed: what goes on draws anew, and the same search again draws the same.
    study.sampler = optuna.samplers.TPESampler(seed=len(study.trials))

    def objective(trial: optuna.Trial) -> float:
        run = {**suggest(trial, base), "name": f"trial_{trial.number:03}", "runs": str(folder), "overwrite": True}
        scores = geoseg.fit(run).scores
        return (scores["overall_accuracy"] + scores["mean_iou"]) / 2

    done = len(study.get_trials(states=(optuna.trial.TrialState.COMPLETE,)))
    # A trial that diverges is a bad one, and not the end.
    study.optimize(objective, n_trials=max(0, trials - done), catch=(geoseg.GeosegError,))
    best = suggest(optuna.trial.FixedTrial(study.best_params), base)
    (folder / "best.yaml").write_text(yaml.safe_dump(best, sort_keys=False), "utf-8")
    return study


def main() -> None:
    """Search, and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="what every trial begins with")
    parser.add_argument("--trials", type=int, default=20, help="in all, those before a stop included")
    parser.add_argument("--folder", type=Path, default=Path("runs/search"))
    given = parser.parse_args()
    study = search(yaml.safe_load(given.config.read_text("utf-8")), folder=given.folder, trials=given.trials)
    print(f"best of {len(study.trials)} trials: {study.best_value:.4f} with {study.best_params}")  # noqa: T201
    print(f"geoseg fit --config {given.folder / 'best.yaml'}")  # noqa: T201


if __name__ == "__main__":
    main()
