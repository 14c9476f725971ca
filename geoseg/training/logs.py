"""Where a run logs to: files in its folder, and services that are asked for by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from geoseg.errors import InputError

PROJECT = "geoseg"


def _wandb(folder: Path, name: str) -> Logger:
    folder.mkdir(parents=True, exist_ok=True)  # it writes elsewhere where the folder is not there yet
    return WandbLogger(project=PROJECT, name=name, save_dir=folder)


def _mlflow(folder: Path, name: str) -> Logger:
    return MLFlowLogger(experiment_name=PROJECT, run_name=name, save_dir=str(folder / "mlflow"))


LOGS: dict[str, Callable[[Path, str], Logger]] = {
    "csv": lambda folder, _: CSVLogger(folder, name="csv"),
    "tensorboard": lambda folder, _: TensorBoardLogger(folder, name="tensorboard"),
    "wandb": _wandb,
    "mlflow": _mlflow,
}
"""From the run's folder and name to a logger. MLflow writes to the run's folder unless MLFLOW_TRACKING_URI is set."""

OPTIONAL = ("wandb", "mlflow")  # modules that geoseg does not install


def check_logs(names: Sequence[str]) -> None:
    """Nothing, where each log is known and its library is there.

    Raises:
        InputError: One is not.
    """
    for name in names:
        if name not in LOGS:
            raise InputError(f"logs names '{name}', which is unknown; known are {', '.join(LOGS)}")
        if name in OPTIONAL and find_spec(name) is None:
            raise InputError(f"logs names {name}, which is not installed; pip install {name}, or leave it out")


def loggers(names: Sequence[str], *, folder: Path, name: str) -> list[Logger]:
    """The loggers of a run.

    Args:
        names: Of `LOGS`.
        folder: The run's.
        name: The run's.

    Raises:
        InputError: A log is unknown, or its library is not installed.
    """
    check_logs(names)
    try:
        return [LOGS[each](folder, name) for each in dict.fromkeys(names)]
    except ImportError as error:  # a library that is there in part, or too old
        raise InputError(f"a log of {', '.join(names)} cannot be made: {' '.join(str(error).split())}") from error
