"""A run that goes on: what it goes on from, and that it is the run that was begun."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import Namespace
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from geoseg.data.datamodule import SceneDataModule, counts_by_name
from geoseg.errors import InputError, OutputError

FREE = ("data.workers", "data.store")
"""What of `data` and `model` changes no result."""

SHOWN = 4

FACTS_NAME = "data.json"
SAME = 1e-4
"""By what share figures of the same data may differ, as they do between processors."""


def check_begun(folder: Path, now: str, config: Namespace) -> None:
    """Nothing, where a configuration is the one that its run began with, as far as results hang on it.

    The trainer's part may differ: a run may get more epochs, or other devices.

    Args:
        folder: Of the run; its config.yaml says what it began with.
        now: The configuration as YAML.
        config: The same; its searches found a batch and a rate that the file has.

    Raises:
        InputError: They differ.
    """
    path = folder / "config.yaml"
    try:
        begun: Any = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return  # it cannot be told
    if not isinstance(begun, dict):
        return  # nor of a file that was cut short
    wanted = yaml.safe_load(now)
    found = (("data.batch", config.find_batch), ("model.lr", config.find_lr))
    free = {*FREE, *(name for name, searched in found if searched)}
    differing = [
        f"{part}.{key}"
        for part in ("data", "model")
        for key, value in (begun.get(part) or {}).items()
        if key in wanted[part] and f"{part}.{key}" not in free and wanted[part][key] != value
    ]
    if begun.get("seed_everything") != wanted["seed_everything"]:
        differing.append("seed_everything")
    if differing:
        more = f" and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
        raise InputError(
            f"the run began with another {', '.join(differing[:SHOWN])}{more}, and --resume goes on with what it began "
            f"with: give what {path} says, or train under another --name"
        )


def data_facts(data: SceneDataModule) -> dict[str, Any]:
    """What a run's pixels and labels are, in figures that hardly stay the same where they change; plain values."""
    parts = {"training": data.training_pixels, "validation": data.validation_pixels}
    counts = {f"{name} pixels": counts_by_name(data.legend, pixels) for name, pixels in parts.items()}
    moments = {"mean": data.stats.mean, "deviation": data.stats.std}
    return counts | {name: dict(zip(data.bands, values.tolist(), strict=True)) for name, values in moments.items()}


def check_same_data(folder: Path, now: Mapping[str, Any]) -> None:
    """Nothing, where the data are those that a run began with; files may have changed under their names.

    Args:
        folder: Of the run.
        now: The facts of today's data.

    Raises:
        InputError: They are others.
    """
    path = folder / FACTS_NAME
    try:
        begun: Any = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return  # it cannot be told
    spread = now["deviation"]
    for what, values in now.items():
        for name, value in values.items():
            before = begun.get(what, {}).get(name) if isinstance(begun, dict) else None
            size = max(abs(value), spread.get(name, 0.0))  # the mean of a band may be next to nothing
            if before is not None and abs(before - value) > SAME * size:
                raise InputError(
                    f"the data are others than the run began with: {what} of {name} {before:,.6g}, now {value:,.6g}; "
                    "restore the files, or train under another --name"
                )


class CheckpointFiles(TorchCheckpointIO):
    """Checkpoints on disk: written to a file beside their own, which appears whole or not at all.

    Lightning's own are made in memory first, which takes twice their memory and several times as long.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Writes a checkpoint.

        Raises:
            OutputError: It cannot be written.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        whole = Path(path)
        part = whole.with_name(f".{whole.name}.part")
        try:
            whole.parent.mkdir(parents=True, exist_ok=True)
            torch.save(checkpoint, part)
            part.replace(whole)
        except (OSError, RuntimeError) as error:  # the latter of torch, where the disk is full
            part.unlink(missing_ok=True)
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise OutputError(
                f"the checkpoint {whole} cannot be written ({why[:120]}); is the disk full? free some space and go on "
                "with --resume"
            ) from error


class RunCheckpoint(ModelCheckpoint):
    """A checkpoint in the run's folder, that is found again where the folder was moved."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What was kept so far, in the folder of today."""
        here = str(self.dirpath)

        def moved(path: str) -> str:
            return str(Path(here, Path(path).name)) if path else path

        paths = {
            name: moved(state_dict[name]) for name in ("best_model_path", "last_model_path", "kth_best_model_path")
        }
        best = {moved(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **paths, "best_k_models": best, "dirpath": here})


class LastEpoch(RunCheckpoint):
    """The checkpoint of the last whole epoch, from which a run goes on as if it had never stopped.

    Lightning takes an epoch that was cut short for a whole one, and its patches after a stop are those of its start.
    """

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the epoch, where it is whole."""
        if trainer.fit_loop.epoch_loop.batch_progress.current.completed >= trainer.num_training_batches:
            super().on_train_epoch_end(trainer, pl_module)
