"""A training run: configuration in, one model file out.

What may stand in the configuration is in `geoseg.training.command`.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np
import torch
from jsonargparse import Namespace
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy
from lightning.pytorch.utilities import rank_zero_only

from geoseg.data.datamodule import SceneDataModule, counts_by_name
from geoseg.data.splits import draw_split
from geoseg.data.statistics import training_quantiles
from geoseg.errors import InputError, MissingInputError, OutputError, OutputExistsError
from geoseg.infer.holding import held
from geoseg.io.outputs import check_kept
from geoseg.models.card import BandInfo, ModelCard
from geoseg.models.file import save_model
from geoseg.models.history import draw_curves
from geoseg.models.memory import is_too_large
from geoseg.models.task import SegmentationTask, use_bf16
from geoseg.progress import is_first_process, progress_bar
from geoseg.training.checks import (
    check_batches,
    check_labels,
    check_length,
    check_network,
    check_strategy,
    check_unlabelled,
    warn_of_values,
)
from geoseg.training.command import FitCLI, parsed
from geoseg.training.ending import settle
from geoseg.training.forest import grow_forest
from geoseg.training.manners import interruptible, quiet
from geoseg.training.pictures import CONFUSION_NAME, PREDICTIONS_NAME, RELIABILITY_NAME, draw_judgement
from geoseg.training.resuming import FACTS_NAME, check_begun, check_same_data, data_facts
from geoseg.training.search import search
from geoseg.training.sharding import shard_by_blocks
from geoseg.training.validation import Judgement, judge_scenes

FOREST = "random_forest"
MODEL_NAME, LAST_NAME, BEST_NAME = "model.safetensors", "last.ckpt", "best.ckpt"
LEAST_TILE_PX, TILE_MULTIPLE = 512, 32
SPLIT_NAME, SPLIT_PICTURE = "split.geojson", "split.png"
OF_TRAINER = (
    "max_epochs", "max_steps", "max_time", "accumulate_grad_batches", "gradient_clip_val", "limit_train_batches",
)  # fmt: skip
"""What of the trainer's options says how a model was made."""

OWN_FILES = (
    LAST_NAME, BEST_NAME, "metrics.json", "curves.png", "config.yaml", FACTS_NAME, SPLIT_NAME, SPLIT_PICTURE, "csv",
    "tensorboard", "wandb", "mlflow", CONFUSION_NAME, RELIABILITY_NAME, PREDICTIONS_NAME,
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
        cli = parsed(config, args, options)
        with held(cli.folder / MODEL_NAME) if is_first_process() else nullcontext():
            _check_folder(cli.folder, resume=cli.config.resume, overwrite=cli.config.overwrite)
            check_kept(cli.folder / MODEL_NAME, [cli.model.init_from] if cli.model.init_from else [])
            if cli.config.resume:
                check_begun(cli.folder, _dumped(cli), cli.config)
            try:
                check_network(cli.model)
                check_unlabelled(cli.datamodule, cli.model)
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
        cli = parsed(config, (), {})
        try:
            yield cli.datamodule
        finally:
            cli.datamodule.close()


def _check_folder(folder: Path, *, resume: bool, overwrite: bool) -> None:
    if resume:
        if not (folder / LAST_NAME).exists():
            raise MissingInputError(f"{folder / LAST_NAME} is not there, so there is nothing to resume")
        if not is_zipfile(folder / LAST_NAME):  # its directory stands at the end
            raise InputError(
                f"{folder / LAST_NAME} is damaged, and the run cannot go on from it; --overwrite starts anew"
            )
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
    warn_of_values(data)
    if cli.config.resume:
        check_same_data(cli.folder, data_facts(data))
    task.prepare(
        mean=data.stats.mean, std=data.stats.std, class_names=data.legend.names, class_pixels=data.training_pixels,
        band_names=data.bands, limits=(data.stats.low, data.stats.high),
    )  # fmt: skip
    if task.decoder == FOREST:
        return _grow(cli)
    data.largest_px = getattr(task.network, "largest", None)
    task.keeps_patch_losses = data.learns_from_losses
    check_strategy(trainer, task, searches=cli.config.find_batch or cli.config.find_lr)
    check_length(trainer, data)
    if isinstance(trainer.strategy, DDPStrategy):
        task.leave_idle_out()
    elif isinstance(trainer.strategy, FSDPStrategy):
        shard_by_blocks(trainer.strategy, task.network)
    with interruptible():
        search(trainer, task, data, cli.config, folder=cli.folder)
    check_batches(data, task.spec, world=trainer.world_size)
    if getattr(rank_zero_only, "rank", 0) == 0:
        _ready(cli)
    resumed = str(cli.folder / LAST_NAME) if cli.config.resume else None
    with progress_bar(f"fit {cli.run_name}") as tick, _told_what_is_kept(cli), interruptible(), _within_memory(data):
        cli.ticks.tick = tick
        trainer.fit(task, datamodule=data, ckpt_path=resumed, weights_only=True)
    if trainer.should_stop and trainer.early_stopping_callback is not None:
        _tell_early_stop(cli)
    return _finish(cli)


@contextmanager
def _told_what_is_kept(cli: FitCLI) -> Iterator[None]:
    """An interrupt says how the run goes on."""
    try:
        yield
    except KeyboardInterrupt:
        last = cli.folder / LAST_NAME
        if last.exists():
            logger.info("%s holds the last whole epoch; the same command with --resume goes on from it", last)
        raise


def _tell_early_stop(cli: FitCLI) -> None:
    stopping: Any = cli.trainer.early_stopping_callback
    if stopping.stopped_epoch:
        logger.info(
            "stopped after epoch %d: the score of the validation was no better for %d epochs "
            "(early_stopping.patience)", stopping.stopped_epoch + 1, stopping.patience,
        )  # fmt: skip


@contextmanager
def _within_memory(data: SceneDataModule) -> Iterator[None]:
    """A step that a device has no memory for is told in one line.

    Raises:
        InputError: There was one.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_too_large(error):
            raise
        raise InputError(
            f"the memory does not hold a step of {data.batch} patches of {data.patch_px} px; give a lower data.batch "
            "(--find_batch true finds one on a GPU, trainer.accumulate_grad_batches makes a step of several) or "
            "data.patch_px"
        ) from error


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
        (cli.folder / "config.yaml").write_text(_dumped(cli), "utf-8")
        (cli.folder / FACTS_NAME).write_text(json.dumps(data_facts(cli.datamodule), indent=1), "utf-8")
        if cli.datamodule.split_plan is not None:
            cli.datamodule.split_plan.write(cli.folder / SPLIT_NAME)
            draw_split(cli.datamodule.scenes, cli.datamodule.split_plan, cli.folder / SPLIT_PICTURE)
    except OSError as error:
        raise OutputError(f"the run's folder {cli.folder} cannot be written: {error.strerror or error}") from error


def _dumped(cli: FitCLI) -> str:
    """The whole configuration as YAML."""
    return str(cli.parser.dump(cli.config, skip_unset=False))


def _finish(cli: FitCLI) -> FitResult:
    """The best weights in the model file, and the figures beside it."""
    task, data = cli.model, cli.datamodule
    unseen = cli.trainer.global_step - task.validated_step
    if unseen > 0 and task.decoder != FOREST and (cli.folder / BEST_NAME).is_file():
        logger.warning(
            "the last %d steps of the run were not validated, and the model is without them: the run ended within an "
            "epoch, or between validations (trainer.check_val_every_n_epoch)", unseen,
        )  # fmt: skip
    elif unseen > 0 and task.decoder != FOREST:
        logger.warning("the run ended before its first validation: the model is that of its last step, %d", unseen)
    settle(task, data, cli.trainer, best=cli.folder / BEST_NAME)
    scores, card = task.scores.to_dict(task.class_names), _card(cli, {})
    model = cli.folder / MODEL_NAME
    for scene in data.unreadable:
        logger.warning("left out, since it could not be read: %s: %s", scene, scene.reason)
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
    with progress_bar(f"validate {cli.run_name}") as tick:
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
    where, tile_px = data.outlines(), _tile_px(task.network, data.patch_px)
    libraries = ("geoseg", "torch", "lightning", "segmentation-models-pytorch", "timm")
    return ModelCard(
        name=cli.run_name,
        spec=task.spec,
        bands=_band_infos(data, task),
        legend=data.legend,
        gsd_m=data.gsd_m,
        tile_px=tile_px,
        overlap_px=0 if task.spec.decoder == "pixel" else min(64, tile_px // 4),
        train_region=where["training"],
        val_region=where["validation"],
        scores=scores,
        versions={name: version(name) for name in libraries},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        license=cli.config.license,
        training={
            "config": json.loads(json.dumps(_plain(cli.config), default=str)),
            "epochs": cli.trainer.current_epoch,
            "steps": cli.trainer.global_step,
            "seconds": round(cli.history.seconds, 1),
            "training_pixels": counts_by_name(data.legend, data.training_pixels),
            "validation_pixels": counts_by_name(data.legend, data.validation_pixels),
            "split": "" if data.split_plan is None else data.split_plan.method,
        },
    )


def _tile_px(network: Any, patch_px: int) -> int:
    """Sides of the tiles to predict: no smaller than patches, no larger than a network of one size takes."""
    largest: int | None = getattr(network, "largest", None)
    wanted = max(LEAST_TILE_PX, -(-patch_px // TILE_MULTIPLE) * TILE_MULTIPLE)
    return wanted if largest is None else min(wanted, largest // TILE_MULTIPLE * TILE_MULTIPLE)


def _band_infos(data: SceneDataModule, task: SegmentationTask) -> tuple[BandInfo, ...]:
    """What the card says of the bands; a band that no training pixel has is neither low nor high."""
    stats, wavelengths_um = data.stats, (task.spec and task.spec.wavelengths_um) or (None,) * len(data.bands)
    columns = zip(
        data.bands, task.mean.tolist(), task.std.tolist(), stats.mean.tolist(), stats.std.tolist(), stats.low.tolist(),
        stats.high.tolist(), training_quantiles(stats), wavelengths_um, strict=True,
    )  # fmt: skip
    return tuple(
        BandInfo(
            name=name, min=low if quantiles else None, max=high if quantiles else None, quantiles=quantiles,
            wavelength_um=wavelength_um, **moments(seen=(mean, std), own=own),
        )
        for name, mean, std, *own, low, high, quantiles, wavelength_um in columns
    )  # fmt: skip


def moments(*, seen: tuple[float, float], own: Sequence[float]) -> dict[str, float]:
    """Mean and deviation that a network's input is normalised by, and the data's own where they are others.

    >>> moments(seen=(0.0, 1e4), own=(412.5, 99.0))
    {'mean': 0.0, 'std': 10000.0, 'training_mean': 412.5, 'training_std': 99.0}
    >>> moments(seen=(412.5, 99.0), own=(412.5, 99.0))
    {'mean': 412.5, 'std': 99.0}
    """
    mean, std = (
        mine if np.float32(mine) == np.float32(value) else value for mine, value in zip(own, seen, strict=True)
    )
    differs = (mean, std) != tuple(own)
    return {"mean": mean, "std": std, **({"training_mean": own[0], "training_std": own[1]} if differs else {})}


def _plain(config: Namespace) -> dict[str, Any]:
    """What of the configuration says how the model was made: data, model, seed and epochs."""
    values = config.as_dict()
    kept = {key: values[key] for key in ("seed_everything", "data", "model", "early_stopping")}
    return {**kept, "trainer": {name: values["trainer"][name] for name in OF_TRAINER}}
