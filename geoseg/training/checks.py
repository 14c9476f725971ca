"""What would stop a run later is refused before it begins."""

from __future__ import annotations

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

from geoseg.data.datamodule import SceneDataModule
from geoseg.errors import InputError
from geoseg.models.build import create_model
from geoseg.models.freezing import FOREVER
from geoseg.models.spec import ModelSpec
from geoseg.models.task import SegmentationTask

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
    if trainer.limit_val_batches == 0:
        raise InputError(
            "trainer.limit_val_batches is 0, and the best weights are those that validate best: leave it out"
        )
    batches = -(-data.epoch_patches // (data.batch * trainer.world_size))
    if isinstance(trainer.limit_train_batches, int):
        batches = min(batches, trainer.limit_train_batches)
    steps = -(-batches // trainer.accumulate_grad_batches)
    if trainer.val_check_interval == 1.0 and 0 <= trainer.max_steps < steps:
        raise InputError(
            f"trainer.max_steps is {trainer.max_steps}, and an epoch has {steps} steps: nothing would be validated; "
            f"give {steps} or more, or a smaller data.epoch_patches"
        )


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
