"""Which weights a run ends with: those of the best epoch, or the mean of the last steps."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import FSDPStrategy
from torch import nn

from geoseg.data.datamodule import SceneDataModule
from geoseg.data.loader import PatchLoader
from geoseg.models.average import reestimate_norms
from geoseg.models.freezing import FOREVER, ever_learns
from geoseg.models.lora import merge_lora
from geoseg.models.metrics import Scores, confusion_counts
from geoseg.models.task import Batch, SegmentationTask

logger = logging.getLogger(__name__)


def settle(task: SegmentationTask, data: SceneDataModule, trainer: Trainer, *, best: Path) -> None:
    """Puts the weights to save into `task.judged`: plain ones, on the CPU, and the counts that go with them.

    Args:
        task: After the run.
        data: What it was trained and validated with.
        trainer: That of the run; every process calls this.
        best: The checkpoint of the best epoch; without one the weights stay those of the last.
    """
    averaged, steps = copy.deepcopy(task.swa_network), task.swa_steps
    if isinstance(trainer.strategy, FSDPStrategy):
        _join(task, trainer, needed=not trainer.strategy.broadcast(best.is_file()))
    if best.is_file():
        task.load_state_dict(torch.load(best, map_location="cpu", weights_only=True)["state_dict"])
    if averaged is not None and steps:
        _weigh(averaged, steps, task, data, trainer)
    elif averaged is not None:
        logger.warning("the run ended before swa.start: there is no mean of the last weights, the best epoch is saved")
    task.cpu()
    merge_lora(task.judged)


def _join(task: SegmentationTask, trainer: Trainer, *, needed: bool) -> None:
    """A whole network again; where they are needed, with the weights that the processes have in shards."""
    whole = trainer.strategy.lightning_module_state_dict() if needed else {}
    task.renew()
    if whole:  # the first process alone gets them
        task.load_state_dict(whole)


def _weigh(averaged: nn.Module, steps: int, task: SegmentationTask, data: SceneDataModule, trainer: Trainer) -> None:
    """Takes the averaged network where it scores no worse than the best epoch."""
    device, several = trainer.strategy.root_device, trainer.world_size > 1
    still = {**task.freezing, **({"encoder": FOREVER} if task.lora is not None else {})}
    task.to(device)
    averaged.to(device).eval()
    drawn = data.state_dict()
    if drawn:  # of a run that had nothing left to train, it is what its checkpoint had
        data.load_state_dict(drawn)
    reestimate_norms(
        averaged,
        _batches(data.train_dataloader(), device),
        lambda batch: task.run(averaged, batch["image"], batch["valid"], batch.get("present")),
        reduce=partial(trainer.strategy.reduce, reduce_op="mean") if several else None,
        kept=lambda name: not ever_learns(name, still),
    )
    counts = torch.zeros_like(task.counts)
    with torch.no_grad():
        for batch in _batches(data.val_dataloader(), device):
            found = task.run(averaged, batch["image"], batch["valid"], batch.get("present")).argmax(1)
            counts += confusion_counts(found, batch["label"], classes=len(task.class_names))
    counts = trainer.strategy.reduce(counts, reduce_op="sum")
    score, best = Scores(counts.cpu().numpy()).score, task.scores.score
    if score >= best:
        task.judged.load_state_dict(averaged.state_dict())
        task.counts.copy_(counts)
    saved = "saved" if score >= best else "not saved"
    logger.info("mean of the last %d weights: score %.4f, %s; best epoch: %.4f", steps, score, saved, best)


def _batches(loader: PatchLoader, device: torch.device) -> Iterator[Batch]:
    for batch in filter(lambda found: len(found["label"]), loader):
        moved: Batch = move_data_to_device(batch, device)
        yield {**moved, "label": moved["label"].long()}
