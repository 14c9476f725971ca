"""The command line of a training run: what may stand in its YAML file, and how it is refused.

It is Lightning's command-line interface over `SceneDataModule`, `SegmentationTask` and the trainer, so the signatures
of these classes are the schema of the YAML file.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from geoseg.data.datamodule import SceneDataModule
from geoseg.errors import GeosegError, InputError, MissingInputError
from geoseg.models.history import History, Ticks
from geoseg.models.task import SegmentationTask
from geoseg.training.hard_examples import HardExamples
from geoseg.training.logs import check_logs, loggers
from geoseg.training.manners import buildable, interruptible
from geoseg.training.resuming import CheckpointFiles, LastEpoch, RunCheckpoint
from geoseg.training.sync_norms import SyncNorms
from geoseg.training.validation import ValidationOptions

MONITOR = "val/score"
CONFIG_SUFFIXES = (".yaml", ".yml", ".json")


class FitCLI(LightningCLI):
    """`name`, `data`, `model`, `trainer`, `early_stopping` and what belongs to the run, parsed and built."""

    def __init__(self, args: Sequence[str]) -> None:
        super().__init__(
            SegmentationTask,
            SceneDataModule,
            save_config_callback=None,
            seed_everything_default=0,
            parser_kwargs={"exit_on_error": False, "prog": "geoseg fit"},
            args=list(args),
            run=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds what is the run's own, and defaults that suit maps."""
        parser.add_argument("--name", type=str | int, default="landcover", help="the run; its folder is RUNS/NAME")
        parser.add_argument("--runs", type=str, default="runs", help="the folder of all runs")
        parser.add_argument("--resume", action="store_true", help="go on where the run of that name stopped")
        parser.add_argument("--overwrite", action="store_true", help="start the run of that name anew")
        logs = "where curves go: csv, tensorboard, and where they are installed wandb, mlflow"
        parser.add_argument("--logs", type=list[str], default=["csv", "tensorboard"], help=logs)
        size = "set data.batch by a trial: the most that fits on a GPU, the fastest on a CPU"
        parser.add_argument("--find_batch", type=bool, default=False, help=size)
        parser.add_argument("--find_lr", type=bool, default=False, help="set model.lr by a sweep of 100 steps")
        parser.add_argument("--license", type=str | None, default=None, help="licence of the weights, an SPDX name")
        parser.add_class_arguments(ValidationOptions, "validation")
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)
        parser.set_defaults(
            {
                "early_stopping.monitor": MONITOR,
                "early_stopping.mode": "max",
                "early_stopping.patience": 10,
                "trainer.devices": 1,
                "trainer.max_epochs": 40,
                "trainer.gradient_clip_val": 5.0,
                "trainer.num_sanity_val_steps": 0,
                "trainer.log_every_n_steps": 1,
                "trainer.enable_model_summary": False,
                "trainer.enable_progress_bar": False,
            }
        )

    @property
    def folder(self) -> Path:
        """The run's folder."""
        if not self.run_name.strip(". /\\"):
            raise InputError(f"name '{self.run_name}' names no folder; give the run a name, such as landcover")
        return Path(str(self.config.runs)).expanduser() / self.run_name

    @property
    def run_name(self) -> str:
        """The run's name.

        Raises:
            InputError: A YAML file gives it as a number, whose digits may not be those that stand there.
        """
        if isinstance(self.config.name, int):
            raise InputError(f"name is the number {self.config.name}; put it in quotes, as in name: 'run 1'")
        return str(self.config.name)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer, with the run's own logs, history and checkpoints."""
        self.history, self.ticks = History(), Ticks()
        kept: dict[str, Any] = {"dirpath": self.folder, "enable_version_counter": False}
        kept["auto_insert_metric_name"] = False
        # A run goes on from the last epoch; of the best one only the weights are wanted.
        self.checkpoint = RunCheckpoint(filename="best", monitor=MONITOR, mode="max", save_weights_only=True, **kept)
        last = LastEpoch(filename="last", save_on_train_epoch_end=True, **kept)
        self.trainer_defaults = {"callbacks": [self.history, self.ticks, self.checkpoint, last, HardExamples()]}
        given: dict[str, Any] = {}
        if self.config.trainer.logger in (None, True):
            check_logs(self.config.logs)
            given["logger"] = loggers(self.config.logs, folder=self.folder, name=self.run_name)
        if self.config.trainer.sync_batchnorm:
            others = self.config_init.trainer.plugins or []
            given["plugins"] = [*(others if isinstance(others, list) else [others]), SyncNorms()]
        own = {"default_root_dir": str(self.folder), "use_distributed_sampler": False}
        with buildable():
            trainer = super().instantiate_trainer(**given, **own, **kwargs)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = CheckpointFiles()
        return trainer


def parsed(config: str | Path | Mapping[str, Any] | None, args: Sequence[str], options: Mapping[str, Any]) -> FitCLI:
    """The data module, the task and the trainer of a configuration, built.

    Args:
        config: A YAML file, or the same keys as a mapping.
        args: Command-line options; they win over `config`.
        options: Keys that win over both.

    Raises:
        InputError: A key is unknown, or a value does not fit.
        MissingInputError: The file is not there.
    """
    given: list[str] = []
    if isinstance(config, Mapping):
        given += ["--config", json.dumps(_spelled(config), default=str)]
    elif config is not None:
        _check_there(config)
        given += ["--config", str(config)]
    given = _spelled_args([*given, *_subject(args)])
    if options:
        given += ["--config", json.dumps(_spelled(options), default=str)]
    try:
        with interruptible():
            return FitCLI(given)
    except GeosegError:
        raise
    except (ArgumentError, yaml.YAMLError, ValueError) as error:  # the last: an option that may be left out
        raise InputError(shortened(str(error))) from error


def _check_there(config: str | Path) -> None:
    if not Path(config).is_file():
        raise MissingInputError(f"the config {config} is not there; configs/landcover.yaml is one to start from")


def _subject(args: Sequence[str]) -> list[str]:
    """The arguments, where a configuration that stands first without an option's name has got one."""
    bare = bool(args) and not args[0].startswith("-") and args[0].lower().endswith(CONFIG_SUFFIXES)
    return ["--config", *args] if bare else list(args)


def _spelled(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with `model: random_forest` written out."""
    model = config.get("model")
    return {**config, "model": {"decoder": model}} if isinstance(model, str) else dict(config)


def _spelled_args(args: Sequence[str]) -> list[str]:
    """The arguments with files that name their model in one word written out, and `--model random_forest` too."""
    found: list[str] = []
    for arg in args:
        name, equals, value = arg.partition("=")
        before = found[-1] if found else ""
        if before == "--config" or (name == "--config" and equals):
            path = value if equals and before != "--config" else arg
            found.append(("--config=" if path is value else "") + _spelled_file(path))
        elif name == "--model":
            found.append("--model.decoder" + equals + value)
        else:
            found.append(arg)
    return found


def _spelled_file(path: str) -> str:
    """A YAML file that names its model in one word as JSON; anything else as it was."""
    if path.lower().endswith(CONFIG_SUFFIXES):
        _check_there(path)
    try:
        named = yaml.safe_load(Path(path).read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return path  # JSON, or what the parser refuses better
    if path.lower().endswith(CONFIG_SUFFIXES) and not isinstance(named, Mapping):
        held = "is empty" if named is None else f"holds {type(named).__name__}"
        raise InputError(
            f"the config {path} {held}; needed are keys such as data, model and trainer; configs/landcover.yaml is one "
            "to start from"
        )
    short = isinstance(named, Mapping) and isinstance(named.get("model"), str)
    return json.dumps(_spelled(named), default=str) if short else path


def shortened(message: str) -> str:
    r"""The one line of a parser's message that says what is wrong.

    >>> shortened("Validation failed: Group 'model' does not accept option 'encodr'\n  more")
    "the configuration does not fit: Group 'model' does not accept option 'encodr'; near it are encoder, ..."
    """
    lines = [line.strip(" -") for line in message.splitlines() if line.strip()]
    # Of an option that may be left out, the reasons stand in a list: its own first, then that it is not left out.
    lines = lines[lines.index("Errors:") + 1 :] if "Errors:" in lines else lines
    text = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])
    stray = re.fullmatch(r"[Uu]nrecognized arguments:? --(\w+)\.(\w+)\S*(?: .*)?", text)
    if stray:
        text = f"Group '{stray[1]}' does not accept option '{stray[2]}'"
    return f"the configuration does not fit: {text.removeprefix('Validation failed: ')[:300]}{_near(text)}"


def _near(text: str) -> str:
    """What an unknown key may have meant."""
    found = re.search(r"(?:Group '(\w+)' does not accept option|Option) '([\w.]+)'", text)
    known = {"data": SceneDataModule, "model": SegmentationTask, "trainer": Trainer}.get(found[1]) if found else None
    if not found or known is None:
        return ""
    near = get_close_matches(found[2], inspect.signature(known).parameters, n=3, cutoff=0.5)
    return f"; near it are {', '.join(near)}" if near else ""
