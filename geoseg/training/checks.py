"""What would stop a run later is refused before it begins."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

from geoseg.data.datamodule import SceneDataModule
from geoseg.data.grids import ground_gsd_m
from geoseg.data.statistics import training_quantiles
from geoseg.errors import InputError, MissingInputError
from geoseg.models.build import create_model, on_nothing
from geoseg.models.freezing import FOREVER
from geoseg.models.pretrained.sources import check_published
from geoseg.models.spec import ModelSpec
from geoseg.models.task import SegmentationTask

logger = logging.getLogger(__name__)

FILLS = (-9999.0, -32768.0)
"""Values that stand for nothing in many files, whether these say so or not."""

LARGEST = 1e30
"""What is measured is less; files are filled with the largest numbers of their dtype."""

FAR_OFF = 50
"""A deviation above so many times the spread of half of a band's values comes from some that are no measurements."""

SAME_SIZE = 1.1
"""Pixels of scenes are of one size where the largest are no more than this times the smallest."""

PLAIN = "32-true"
"""What Lightning is told of arithmetic; the network's own choice takes its place."""


def check_strategy(trainer: Trainer, task: SegmentationTask, *, searches: bool) -> None:
    """Refuses what processes that share the work cannot do.

    Args:
        trainer: Its strategy says how they share it.
        task: What is asked of the network.
        searches: Whether a learning rate or a batch is to be found.

    Raises:
        InputError: Something does not go together.
    """
    strategy = trainer.strategy
    if trainer.precision != PLAIN:
        raise InputError(
            f"trainer.precision is {trainer.precision}, and the model chooses its arithmetic itself: leave it out, and "
            "give model.bf16 (auto, yes or no)"
        )
    if isinstance(strategy.launcher, _MultiProcessingLauncher):
        raise InputError(
            "processes that a notebook, or a strategy such as ddp_spawn, starts keep the run's history to themselves: "
            "give trainer.devices 1, or run `geoseg fit` on a command line with trainer.strategy ddp"
        )
    if searches and trainer.world_size > 1:
        raise InputError(
            f"find_lr and find_batch try on one device, there are {trainer.world_size}: run them once with "
            "trainer.devices 1, then give model.lr and data.batch"
        )
    if isinstance(strategy, DeepSpeedStrategy | ModelParallelStrategy):
        name = type(strategy).__name__
        raise InputError(f"trainer.strategy {name} is not supported; ddp, or fsdp for large backbones, would do")
    timed = [name for name, until in task.freezing.items() if until not in (FOREVER, 0)]
    kwargs = getattr(strategy, "_ddp_kwargs", {})
    if isinstance(strategy, DDPStrategy) and timed and not kwargs.get("find_unused_parameters"):
        raise InputError(
            f"freeze.{timed[0]} for some epochs needs trainer.strategy ddp_find_unused_parameters_true with several "
            "devices, for the parts that learn change"
        )
    if isinstance(strategy, FSDPStrategy):
        _check_sharding(strategy, task, timed=bool(timed))


def _check_sharding(strategy: FSDPStrategy, task: SegmentationTask, *, timed: bool) -> None:
    """FSDP cuts every weight in shards, each in one process."""
    if task.ema_decay or task.swa is not None:
        what = "model.ema_decay 0" if task.ema_decay else "no model.swa"
        raise InputError(f"with trainer.strategy fsdp no process has the whole weights to average: needed is {what}")
    if timed or task.compiled:
        what = "model.freeze for some epochs" if timed else "model.compile"
        raise InputError(f"{what} does not go with trainer.strategy fsdp; leave it out, or take ddp")
    if getattr(strategy, "_state_dict_type", "full") != "full":
        raise InputError("fsdp's state_dict_type is sharded; the model file needs whole weights: state_dict_type full")


def check_unlabelled(data: SceneDataModule, task: SegmentationTask) -> None:
    """Refuses scenes without labels that nothing learns from, and a task that lacks them; before anything is read.

    Raises:
        InputError: Only one of the two is given, or the model cannot learn from them.
    """
    if task.semi is not None and not data.wants_unlabelled:
        raise InputError(
            "model.semi learns from scenes without labels, and data.unlabelled names none; name some, or 'same' for "
            "what is not labelled in data.scenes"
        )
    if data.wants_unlabelled and task.semi is None:
        raise InputError(
            "data.unlabelled names scenes, and model.semi does not say how to learn from them; give model.semi, such "
            "as {method: pseudo_labels}, or leave data.unlabelled out"
        )
    if task.semi is not None and task.decoder == "random_forest":
        raise InputError("random_forest grows on labels alone; leave out model.semi and data.unlabelled")


def check_length(trainer: Trainer, data: SceneDataModule) -> None:
    """Refuses runs in which nothing is validated.

    Raises:
        InputError: The trainer's limits leave no validation, or want another loader.
    """
    if getattr(trainer, "overfit_batches", 0):
        raise InputError("trainer.overfit_batches is not supported; give trainer.limit_train_batches")
    if getattr(trainer, "fast_dev_run", False):
        raise InputError("trainer.fast_dev_run leaves no model; trainer.max_epochs 1 and a small data.epoch_patches do")
    if 0 in (trainer.max_epochs, trainer.max_steps, trainer.limit_train_batches):
        raise InputError(
            f"trainer.max_epochs is {trainer.max_epochs}, max_steps {trainer.max_steps}, limit_train_batches "
            f"{trainer.limit_train_batches}: with a 0 nothing is learnt; give 1 or more"
        )
    if trainer.accumulate_grad_batches < 1:
        raise InputError(f"trainer.accumulate_grad_batches is {trainer.accumulate_grad_batches}: needed is 1 or more")
    if trainer.limit_val_batches == 0:
        raise InputError(
            "trainer.limit_val_batches is 0, and the best weights are those that validate best: leave it out"
        )
    batches = -(-data.epoch_patches // (data.batch * trainer.world_size))
    if isinstance(trainer.limit_train_batches, int):
        batches = min(batches, trainer.limit_train_batches)
    _check_validations(trainer, batches)
    steps = -(-batches // trainer.accumulate_grad_batches)
    if trainer.val_check_interval == 1.0 and 0 <= trainer.max_steps < steps:
        raise InputError(
            f"trainer.max_steps is {trainer.max_steps}, and an epoch has {steps} steps: nothing would be validated; "
            f"give {steps} or more, or a smaller data.epoch_patches"
        )


def _check_validations(trainer: Trainer, batches: int) -> None:
    """Refuses intervals at which nothing is ever validated; an epoch has so many batches."""
    every, epochs = trainer.val_check_interval, trainer.check_val_every_n_epoch
    if not every or (isinstance(every, int) and (every < 0 or (epochs is not None and every > batches))):
        raise InputError(
            f"trainer.val_check_interval is {every}, and an epoch has {batches} batches; give a share of an epoch up "
            f"to 1.0, or batches from 1 to {batches}"
        )
    if epochs is not None and trainer.max_epochs is not None and 0 < trainer.max_epochs < epochs:
        raise InputError(
            f"trainer.check_val_every_n_epoch is {epochs}, and the run has {trainer.max_epochs} epochs: nothing would "
            f"be validated; give {trainer.max_epochs} or less"
        )


def check_network(task: SegmentationTask) -> None:
    """Refuses a network that cannot be built, before any scene is read.

    Bands and classes are not known yet, so what hangs on them is found when it is built.

    Raises:
        InputError: A name or an option is unknown, or the weights are not there.
    """
    if task.decoder == "random_forest":
        return
    wavelengths = (0.49, 0.56, 0.665)
    with torch.random.fork_rng(devices=()):
        on_nothing(
            ModelSpec(decoder=task.decoder, encoder=task.encoder, bands=3, classes=2, options=task.options,
                      wavelengths_um=wavelengths)
        )  # fmt: skip
    if task.weights is not None:
        check_published(task.weights, encoder=task.encoder)
    if task.init_from is not None and not Path(task.init_from).expanduser().is_file():
        raise MissingInputError(f"model.init_from {task.init_from} is not there; needed is a model file")


def check_labels(data: SceneDataModule) -> None:
    """Refuses data that the network cannot be judged or trained with.

    Raises:
        InputError: No labelled pixel validates or trains.
    """
    for pixels, what in ((data.training_pixels, "training"), (data.validation_pixels, "validation")):
        if not pixels.any():
            raise InputError(
                f"the {what} part holds no labelled pixel; name scenes with labels for it, or regions that hold some "
                "(data.split.regions)"
            )


def warn_of_values(data: SceneDataModule) -> None:
    """Says what a network would learn from and hardly anybody means: undeclared nodata, and pixels of many sizes."""
    stats = data.stats
    moments = zip(stats.low.tolist(), stats.high.tolist(), stats.std.tolist(), strict=True)
    for name, values, (low, high, std) in zip(data.bands, training_quantiles(stats), moments, strict=True):
        far = _no_measurement(low, high, std, values) if values else None
        if far is not None:
            logger.warning(
                "band %s has values from %.6g to %.6g, the middle one is %.6g: is %.6g no measurement? Then say "
                "nodata: %.6g beside the path of its image", name, low, high, values[len(values) // 2], far, far,
            )  # fmt: skip
    metres = [sum(ground_gsd_m(scene.geobox)) / 2 for scene in data.scenes if scene.geobox.crs is not None]
    if metres and max(metres) > SAME_SIZE * min(metres):
        logger.warning(
            "scenes have pixels of %.4g to %.4g m, and each is trained and judged at its own; geoseg predict maps all "
            "at %.4g m: give data.gsd_m, so that all are read at one", min(metres), max(metres), sum(data.gsd_m) / 2,
        )  # fmt: skip


def _no_measurement(low: float, high: float, std: float, values: tuple[float, ...]) -> float | None:
    """A band's least or largest value, where it stands for nothing, as it seems; else None.

    Of values far off on one side, the other half of the band tells how far the measurements spread.
    """
    if low in FILLS or low < -LARGEST:
        return low
    if high > LARGEST:
        return high
    below, above = values[len(values) // 2] - values[0], values[-1] - values[len(values) // 2]
    if 0 < FAR_OFF * min(below, above) < std:
        return low if below > above else high
    return None


def check_batches(data: SceneDataModule, spec: ModelSpec, *, world: int) -> None:
    """Refuses batches that are too small for the network or the processes.

    Args:
        data: Says how many patches a batch and an epoch have.
        spec: Of the network.
        world: Processes that share an epoch.

    Raises:
        InputError: They are.
    """
    patches, batch = data.epoch_patches, data.batch
    if patches < world:
        raise InputError(f"data.epoch_patches is {patches}: needed is at least one for each of the {world} processes")
    if smallest_batch(patches, batch=batch, world=world) == 1 and not _takes_one(spec, data.patch_px):
        raise InputError(
            f"{spec.decoder} needs two patches in a batch, and data.batch {batch} of {patches} data.epoch_patches "
            f"{f'on {world} devices ' if world > 1 else ''}leaves a batch of one: needed are data.batch of 2 or more "
            f"and data.epoch_patches a multiple of {max(batch, 2) * world}"
        )


def smallest_batch(patches: int, *, batch: int, world: int) -> int:
    """Patches in the smallest batch of an epoch, of any process.

    >>> smallest_batch(64, batch=8, world=1), smallest_batch(65, batch=8, world=1), smallest_batch(65, batch=8, world=2)
    (8, 1, 8)
    """
    step = batch * world
    before = (patches - 1) // step
    rest = patches - before * step
    return batch if before and rest < world else rest // world


def _takes_one(spec: ModelSpec, patch_px: int) -> bool:
    """Whether a training step goes through with one patch; batch norms of a single value do not."""
    try:
        with torch.device("meta"):
            network = create_model(spec).train()
            image = torch.zeros(1, spec.bands, patch_px, patch_px)
        with torch.no_grad():
            network(image)
    except ValueError as error:
        return "more than 1 value per channel" not in str(error)
    except (RuntimeError, NotImplementedError, InputError):
        return True  # not everything runs without values
    return True
