"""A training run: configuration in, one model file out.

The configuration is Lightning's command-line interface over `SceneDataModule`, `SegmentationTask` and the trainer, so
the signatures of these classes are the schema of the YAML file.
"""

from __future__ import annotations

import inspect
import json
import logging
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentError, Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only

from geoseg.data.datamodule import SceneDataModule, counts_by_name
from geoseg.data.splits import draw_split
from geoseg.data.statistics import training_quantiles
from geoseg.errors import GeosegError, InputError, MissingInputError, OutputError, OutputExistsError
from geoseg.models.card import BandInfo, ModelCard
from geoseg.models.file import save_model
from geoseg.models.history import History, Ticks, draw_curves
from geoseg.models.task import SegmentationTask, use_bf16
from geoseg.progress import is_first_process, progress_bar
from geoseg.training.checks import check_batches, check_labels, check_strategy
from geoseg.training.ending import settle
from geoseg.training.forest import grow_forest
from geoseg.training.hard_examples import HardExamples
from geoseg.training.logs import check_logs, loggers
from geoseg.training.manners import buildable, interruptible, quiet
from geoseg.training.pictures import CONFUSION_NAME, PREDICTIONS_NAME, RELIABILITY_NAME, draw_judgement
from geoseg.training.search import search
from geoseg.training.validation import Judgement, ValidationOptions, judge_scenes

MONITOR = "val/score"
FOREST = "random_forest"
MODEL_NAME, LAST_NAME, BEST_NAME = "model.safetensors", "last.ckpt", "best.ckpt"
SPLIT_NAME, SPLIT_PICTURE = "split.geojson", "split.png"
OWN_FILES = (
    LAST_NAME, BEST_NAME, "metrics.json", "curves.png", "config.yaml", SPLIT_NAME, SPLIT_PICTURE, "csv", "tensorboard",
    "wandb", "mlflow", CONFUSION_NAME, RELIABILITY_NAME, PREDICTIONS_NAME,
)  # fmt: skip

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FitResult:
    """What a training run left.

    Attributes:
        model: The model file.
        folder: The run's folder: metrics, pictures, logs and checkpoints.
        scores: Scores of the model on the stitched validation part.
    """

    model: Path
    folder: Path
    scores: dict[str, Any]

    def __str__(self) -> str:
        accuracy, mean_iou = self.scores["overall_accuracy"], self.scores["mean_iou"]
        if accuracy is None:
            return f"{self.model}: no label to validate with"
        return f"{self.model}: validation accuracy {accuracy:.3f}, mean IoU {mean_iou:.3f}"


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
        parser.add_argument("--name", type=str, default="landcover", help="the run; its folder is RUNS/NAME")
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
        return Path(self.config.runs, self.config.name)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer, with the run's own logs, history and checkpoints."""
        self.history, self.ticks = History(), Ticks()
        kept: dict[str, Any] = {"dirpath": self.folder, "enable_version_counter": False}
        kept["auto_insert_metric_name"] = False
        self.checkpoint = ModelCheckpoint(filename="best", monitor=MONITOR, mode="max", **kept)
        last = ModelCheckpoint(filename="last", **kept)  # save_last would keep the last one that was the best
        self.trainer_defaults = {"callbacks": [self.history, self.ticks, self.checkpoint, last, HardExamples()]}
        given: dict[str, Any] = {}
        if self.config.trainer.logger in (None, True):
            check_logs(self.config.logs)
            given["logger"] = loggers(self.config.logs, folder=self.folder, name=self.config.name)
        own = {"default_root_dir": str(self.folder), "use_distributed_sampler": False}
        with buildable():
            return super().instantiate_trainer(**given, **own, **kwargs)


def run_fit(
    config: str | Path | Mapping[str, Any] | None = None, *, args: Sequence[str] = (), **options: Any
) -> FitResult:
    """Trains a model as the configuration says, and writes RUNS/NAME/model.safetensors.

    Args:
        config: A YAML file, or the same keys as a mapping.
        args: Command-line options; they win over `config`.
        options: Keys that win over both, e.g. `data={"batch": 4}`.

    Returns:
        Where the model is, and how it scores.

    Raises:
        InputError: A key is unknown, or a value does not fit.
        OutputExistsError: The run is there already, and neither `resume` nor `overwrite` was given.
        GeosegError: The data cannot be used.
    """
    if not is_first_process():
        logging.getLogger("geoseg").setLevel(logging.ERROR)  # the first one says the rest
    with quiet():
        cli = _parsed(config, args, options)
        _check_folder(cli.folder, resume=cli.config.resume, overwrite=cli.config.overwrite)
        try:
            cli.datamodule.setup("fit")
            return _train(cli)
        finally:
            cli.datamodule.close()


@contextmanager
def opened_data(config: str | Path | Mapping[str, Any]) -> Iterator[SceneDataModule]:
    """The data module of a configuration, not set up yet; what it holds is freed at the end.

    Raises:
        InputError: A key is unknown, or a value does not fit.
        MissingInputError: The file is not there.
    """
    with quiet():
        cli = _parsed(config, (), {})
        try:
            yield cli.datamodule
        finally:
            cli.datamodule.close()


def _parsed(config: str | Path | Mapping[str, Any] | None, args: Sequence[str], options: Mapping[str, Any]) -> FitCLI:
    given: list[str] = []
    if isinstance(config, Mapping):
        given += ["--config", json.dumps(_spelled(config), default=str)]
    elif config is not None:
        if not Path(config).is_file():
            raise MissingInputError(f"the config {config} is not there; configs/landcover.yaml is one to start from")
        named = yaml.safe_load(Path(config).read_text("utf-8"))
        given += ["--config", json.dumps(_spelled(named), default=str) if _is_short(named) else str(config)]
    given += args
    if options:
        given += ["--config", json.dumps(options, default=str)]
    try:
        with interruptible():
            return FitCLI(given)
    except GeosegError:
        raise
    except (
        ArgumentError,
        yaml.YAMLError,
        ValueError,
    ) as error:  # the last: how an option that may be left out is refused
        raise InputError(shortened(str(error))) from error


def _is_short(config: Any) -> bool:
    """Whether a configuration names its model in one word."""
    return isinstance(config, Mapping) and isinstance(config.get("model"), str)


def _spelled(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with `model: random_forest` written out."""
    return {**config, "model": {"decoder": config["model"]}} if _is_short(config) else dict(config)


def shortened(message: str) -> str:
    r"""The one line of a parser's message that says what is wrong.

    >>> shortened("Validation failed: Group 'model' does not accept option 'encodr'\n  more")
    "the configuration does not fit: Group 'model' does not accept option 'encodr'; near it are encoder, ..."
    """
    lines = [line.strip(" -") for line in message.splitlines() if line.strip()]
    # Of an option that may be left out, the reasons stand in a list: its own first, then that it is not left out.
    lines = lines[lines.index("Errors:") + 1 :] if "Errors:" in lines else lines
    text = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])
    return f"the configuration does not fit: {text.removeprefix('Validation failed: ')[:300]}{_near(text)}"


def _near(text: str) -> str:
    """What an unknown key may have meant."""
    found = re.search(r"(?:Group '(\w+)' does not accept option|Option) '([\w.]+)'", text)
    known = {"data": SceneDataModule, "model": SegmentationTask, "trainer": Trainer}.get(found[1]) if found else None
    if not found or known is None:
        return ""
    near = get_close_matches(found[2], inspect.signature(known).parameters, n=3, cutoff=0.5)
    return f"; near it are {', '.join(near)}" if near else ""


def _check_folder(folder: Path, *, resume: bool, overwrite: bool) -> None:
    if resume:
        if not (folder / LAST_NAME).exists():
            raise MissingInputError(f"{folder / LAST_NAME} is not there, so there is nothing to resume")
        return
    if overwrite:
        return
    if (folder / MODEL_NAME).exists():
        raise OutputExistsError(f"{folder / MODEL_NAME} exists; give another --name, or --overwrite")
    if (folder / LAST_NAME).exists():
        raise OutputExistsError(f"{folder} holds an unfinished run; --resume goes on with it, --overwrite starts anew")


def _train(cli: FitCLI) -> FitResult:
    data, task, trainer = cli.datamodule, cli.model, cli.trainer
    check_labels(data)
    task.prepare(
        mean=data.stats.mean, std=data.stats.std, class_names=data.legend.names, class_pixels=data.training_pixels,
        band_names=data.bands,
    )  # fmt: skip
    if task.decoder == FOREST:
        return _grow(cli)
    task.keeps_patch_losses = data.learns_from_losses
    check_strategy(trainer, task, searches=cli.config.find_batch or cli.config.find_lr)
    with interruptible():
        search(trainer, task, data, cli.config, folder=cli.folder)
    check_batches(data, task.spec, world=trainer.world_size)
    if getattr(rank_zero_only, "rank", 0) == 0:
        _ready(cli)
    resumed = str(cli.folder / LAST_NAME) if cli.config.resume else None
    with progress_bar(f"fit {cli.config.name}") as tick, interruptible():
        cli.ticks.tick = tick
        trainer.fit(task, datamodule=data, ckpt_path=resumed, weights_only=True)
    return _finish(cli)


def _grow(cli: FitCLI) -> FitResult:
    """A forest in the place of a network; it has no epochs, and needs none of what belongs to them."""
    task = cli.model
    if task.spec is None or cli.trainer.world_size > 1:
        raise InputError(f"a {FOREST} grows in one process; leave trainer.devices at 1")
    _ready(cli)
    with interruptible():
        task.spec, task.network = grow_forest(task.spec, cli.datamodule, seed=int(cli.config.seed_everything or 0))
    task.average = None
    return _finish(cli)


def _ready(cli: FitCLI) -> None:
    """The run's folder, without what an earlier run left there."""
    try:
        cli.folder.mkdir(parents=True, exist_ok=True)
        if not cli.config.resume:
            for name in OWN_FILES:
                path = cli.folder / name
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
        (cli.folder / "config.yaml").write_text(cli.parser.dump(cli.config, skip_unset=False), "utf-8")
        if cli.datamodule.split_plan is not None:
            cli.datamodule.split_plan.write(cli.folder / SPLIT_NAME)
            draw_split(cli.datamodule.scenes, cli.datamodule.split_plan, cli.folder / SPLIT_PICTURE)
    except OSError as error:
        raise OutputError(f"the run's folder {cli.folder} cannot be written: {error.strerror or error}") from error


def _finish(cli: FitCLI) -> FitResult:
    """The best weights in the model file, and the figures beside it."""
    task, data = cli.model, cli.datamodule
    best = Path(cli.checkpoint.best_model_path or cli.folder / BEST_NAME)
    settle(task, data, cli.trainer, best=best)
    scores, card = task.scores.to_dict(task.class_names), _card(cli, {})
    model = cli.folder / MODEL_NAME
    for scene in data.unreadable:
        logger.warning("left out, since it could not be read: %s", scene)
    if cli.trainer.is_global_zero:
        found = _judged(cli, card)
        scores = found.to_dict(task.class_names)
        save_model(model, model=task.judged, card=replace(card, scores=scores))
        figures = {
            "scores": scores,
            "history": cli.history.rows,
            "seconds": cli.history.seconds,
            "training_pixels": counts_by_name(data.legend, data.training_pixels),
            "validation_pixels": counts_by_name(data.legend, data.validation_pixels),
            "test_pixels": counts_by_name(data.legend, data.test_pixels),
            "unreadable": [str(scene) for scene in data.unreadable],
        }
        (cli.folder / "metrics.json").write_text(json.dumps(figures, indent=1), "utf-8")
        draw_curves(cli.history.rows, cli.folder / "curves.png")
        draw_judgement(found, cli.folder, legend=data.legend)
    logger.info("trained %s in %.0f s", model, cli.history.seconds)
    return FitResult(model, cli.folder, scores)


def _judged(cli: FitCLI, card: ModelCard) -> Judgement:
    """The best weights on the stitched validation part, with the arithmetic of the run and no larger batches."""
    data, task, device = cli.datamodule, cli.model, cli.trainer.strategy.root_device
    kind = str(device) if device.type == "cuda" else "cpu"
    with progress_bar(f"validate {cli.config.name}") as tick:
        return judge_scenes(
            data.scenes,
            network=task.judged,
            card=card,
            options=cli.config_init.validation,
            device=kind,
            precision="bf16" if use_bf16(task.bf16, torch.device(kind)) else "fp32",
            batch=data.batch * data.patch_px**2 // card.tile_px**2,
            progress=tick,
        )


def _card(cli: FitCLI, scores: dict[str, Any]) -> ModelCard:
    data, task = cli.datamodule, cli.model
    where = data.outlines()
    libraries = ("geoseg", "torch", "lightning", "segmentation-models-pytorch", "timm")
    return ModelCard(
        name=cli.config.name,
        spec=task.spec,
        bands=_band_infos(data, task.spec.wavelengths_um or (None,) * len(data.bands)),
        legend=data.legend,
        gsd_m=data.gsd_m,
        tile_px=max(512, data.patch_px),
        overlap_px=0 if task.spec.decoder == "pixel" else 64,
        train_region=where["training"],
        val_region=where["validation"],
        scores=scores,
        versions={name: version(name) for name in libraries},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        license=cli.config.license,
        training={
            "config": json.loads(json.dumps(_plain(cli.config), default=str)),
            "epochs": len(cli.history.rows),
            "seconds": round(cli.history.seconds, 1),
            "training_pixels": counts_by_name(data.legend, data.training_pixels),
            "validation_pixels": counts_by_name(data.legend, data.validation_pixels),
            "split": "" if data.split_plan is None else data.split_plan.method,
        },
    )


def _band_infos(data: SceneDataModule, wavelengths_um: Sequence[float | None]) -> tuple[BandInfo, ...]:
    """What the card says of the bands; a band that no training pixel has is neither low nor high."""
    stats = data.stats
    columns = zip(
        data.bands, stats.mean.tolist(), stats.std.tolist(), stats.low.tolist(), stats.high.tolist(),
        training_quantiles(stats), wavelengths_um, strict=True,
    )  # fmt: skip
    return tuple(
        BandInfo(
            name=name, mean=mean, std=std, min=low if quantiles else None, max=high if quantiles else None,
            quantiles=quantiles, wavelength_um=wavelength_um,
        )
        for name, mean, std, low, high, quantiles, wavelength_um in columns
    )  # fmt: skip


def _plain(config: Namespace) -> dict[str, Any]:
    """What of the configuration says how the model was made: data, model, seed and epochs."""
    values = config.as_dict()
    kept = {key: values[key] for key in ("seed_everything", "data", "model", "early_stopping")}
    return {**kept, "trainer": {name: values["trainer"][name] for name in ("max_epochs", "max_time")}}
