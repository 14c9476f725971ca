"""The largest batch and the best learning rate, found by a short trial before a run."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from numpy.typing import NDArray

from geoseg.data.datamodule import SceneDataModule
from geoseg.errors import InputError
from geoseg.models.memory import is_too_large
from geoseg.models.task import SegmentationTask

LOWEST_LR, HIGHEST_LR, SWEEP_STEPS = 1e-6, 1.0, 100
SMOOTHING = 0.9  # share of the old in the running mean of the loss
DIVERGED = 4.0  # times the least loss
LARGEST_BATCH = {"cpu": 64, "cuda": 1024}
MEMORY_SHARE = 0.9  # of a GPU, so that validation and fragmentation have room
TRIALS = 3
OF_TRAINER = ("accelerator", "devices", "precision", "gradient_clip_val", "accumulate_grad_batches")

logger = logging.getLogger(__name__)


class Sweep(Callback):
    """Raises the learning rate from step to step by a constant factor, and notes the loss.

    Source: Smith 2015, Cyclical Learning Rates for Training Neural Networks, section 3.3; exponential as in fastai.

    Attributes:
        rates: Learning rate of each step.
        losses: Mean loss of its batches.
    """

    def __init__(self, lr: float) -> None:
        self.lr = lr
        self.rates: list[float] = []
        self.losses: list[float] = []
        self._within: list[float] = []
        self._smooth, self._least = 0.0, math.inf

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """Sets the rate of the step, each layer's in its proportion."""
        rate = sweep_rates()[min(trainer.global_step, SWEEP_STEPS - 1)]
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = rate * group["initial_lr"] / self.lr

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int  # noqa: ARG002
    ) -> None:  # fmt: skip
        """Notes the loss of a step, and stops where it has diverged."""
        self._within.append(float(outputs["loss"]) * trainer.accumulate_grad_batches)
        if trainer.global_step == len(self.losses):
            return
        self.rates.append(float(sweep_rates()[len(self.losses)]))
        self.losses.append(float(np.mean(self._within)))
        self._within.clear()
        smooth = smoothed(np.array(self.losses))[-1]
        self._least = min(self._least, smooth)
        trainer.should_stop = trainer.should_stop or smooth > DIVERGED * self._least


def sweep_rates() -> NDArray[np.float64]:
    """The rates of a sweep, `(step,)`."""
    return np.geomspace(LOWEST_LR, HIGHEST_LR, SWEEP_STEPS)


def smoothed(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """The running mean of losses, corrected for its start (as Adam's moments, Kingma and Ba 2015, section 3)."""
    mean, found = 0.0, []
    for step, loss in enumerate(losses.tolist()):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        found.append(mean / (1 - SMOOTHING ** (step + 1)))
    return np.array(found)


def steepest(rates: NDArray[np.float64], losses: NDArray[np.float64]) -> float | None:
    """The rate at which the loss falls fastest over the logarithm of the rate; None where it never falls.

    The first tenth, where the mean is of few losses, and the last steps before it diverged are left out.
    """
    skipped, last = len(rates) // 10, 5
    if len(rates) < skipped + last + 2:
        return None
    slopes = np.gradient(smoothed(losses), np.log(rates))[skipped:-last]
    best = int(slopes.argmin())
    return float(rates[skipped + best]) if slopes[best] < 0 else None


def search(trainer: Trainer, task: SegmentationTask, data: SceneDataModule, config: Any, *, folder: Path) -> None:
    """Sets the batch and the learning rate where the run's configuration asks for it; a run that goes on keeps its own.

    Args:
        trainer: Of the run.
        task: Prepared.
        data: Set up.
        config: With `find_batch`, `find_lr`, `data.batch` and `model.lr`; it holds afterwards what was found, and no
            longer asks for it, so that it makes the same run again.
        folder: The run's, where a run that goes on finds what it began with.
    """
    if config.resume and (config.find_batch or config.find_lr):
        begun = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))
        data.batch, task.lr = begun["data"]["batch"], begun["model"]["lr"]
    else:
        if config.find_batch:
            data.batch = find_batch(task, data, device=trainer.strategy.root_device)
        if config.find_lr:
            task.lr = find_lr(task, data, **{key: config.trainer[key] for key in OF_TRAINER})
    config.data.batch, config.model.lr = data.batch, task.lr
    config.find_batch = config.find_lr = False


def find_lr(task: SegmentationTask, data: SceneDataModule, **trainer: Any) -> float:
    """A learning rate for a task, by a sweep of 100 steps; the task is afterwards as it was.

    Args:
        task: Ready to train.
        data: Set up.
        trainer: What the trainer of the run is told of its device, precision, clipping and accumulation.
    """
    before, sweep = copy.deepcopy(task.state_dict()), Sweep(task.lr)
    # Accumulated batches make one step, so that there are as many epochs as it takes.
    with isolate_rng():
        runner = Trainer(
            **trainer, max_steps=SWEEP_STEPS, max_epochs=-1, callbacks=[sweep], logger=False, limit_val_batches=0,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            use_distributed_sampler=False, num_sanity_val_steps=0,
        )  # fmt: skip
        try:
            runner.fit(task, datamodule=data)
        except InputError as error:
            if not sweep.losses:
                raise
            logger.debug("the sweep ended: %s", error)  # the loss is no number any more
    task.load_state_dict(before)
    task.swa_steps = 0
    found = steepest(np.array(sweep.rates), np.array(sweep.losses))
    if found is None:
        logger.warning("find_lr: the loss falls at no learning rate; model.lr stays %g", task.lr)
        return task.lr
    found = float(f"{found:.2g}")
    logger.info(
        "find_lr: %g, where the loss falls fastest (%d steps, up to %g)", found, len(sweep.rates), sweep.rates[-1]
    )
    return found


def find_batch(task: SegmentationTask, data: SceneDataModule, *, device: torch.device) -> int:
    """Patches in a batch: as many as fit on a GPU, or on a CPU those that are fastest; the task is as it was.

    Raises:
        InputError: Not even two patches fit.
    """
    before = copy.deepcopy(task.state_dict())
    most = min(data.epoch_patches, LARGEST_BATCH.get(device.type, LARGEST_BATCH["cpu"]))
    trial = partial(_seconds, task.to(device), patch_px=data.patch_px, beside=data.beside)
    try:
        with isolate_rng():
            found = _largest_on(device, trial, most=most) if device.type == "cuda" else fastest(trial, most=most)
    finally:
        task.zero_grad(set_to_none=True)
        task.cpu().load_state_dict(before)
    logger.info("find_batch: %d patches of %d px", found, data.patch_px)
    return found


def _largest_on(device: torch.device, trial: Callable[[int], float], *, most: int) -> int:
    def fits(size: int) -> bool:
        try:
            trial(size)
        except RuntimeError as error:
            if not is_too_large(error):
                raise
            return False
        finally:
            torch.cuda.empty_cache()
        return True

    torch.cuda.set_per_process_memory_fraction(MEMORY_SHARE, device)
    try:
        return largest(fits, most=most)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


def largest(fits: Callable[[int], bool], *, most: int) -> int:
    """The largest batch up to `most` that fits: doubled until one does not, then halved in between.

    Raises:
        InputError: Two do not fit.

    >>> largest(lambda size: size <= 37, most=1000)
    37
    """
    low = min(2, most)
    if not fits(low):
        raise InputError(f"no batch of {low} fits in the GPU's memory; make data.patch_px smaller, or the encoder")
    high = low
    while high < most:
        high = min(2 * high, most)
        if not fits(high):
            break
        low = high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def fastest(seconds: Callable[[int], float], *, most: int) -> int:
    """Of 2, 4, 8, ... up to `most` the smallest batch that trains nearly as many patches a second as the best.

    It ends where two sizes in a row were slower than one before.

    >>> fastest(lambda size: 1.0 + 0.1 * size + (size > 16) * size, most=64)
    16
    """
    sizes = [2**power for power in range(1, most.bit_length()) if 2**power <= most] or [most]
    rates: dict[int, float] = {}
    for size in sizes:
        rates[size] = size / seconds(size)
        if len(rates) > 2 and max(list(rates.values())[-2:]) < 0.9 * max(rates.values()):
            break
    return next(size for size, rate in rates.items() if rate >= 0.95 * max(rates.values()))


def _seconds(task: SegmentationTask, size: int, *, patch_px: int, beside: Callable[[int], int]) -> float:
    """Seconds of a training step, the least of a few; on noise, and without changing a weight.

    Unlabelled patches that go `beside` the labelled ones are run with them, and by their teacher first.
    """
    task.network.train()
    bands, classes, more = len(task.mean), len(task.class_names), beside(size)
    noise = torch.randn(size + more, bands, patch_px, patch_px, device=task.device)
    image = task.mean[:, None, None] + task.std[:, None, None] * noise
    valid = torch.ones(size + more, patch_px, patch_px, dtype=torch.bool, device=task.device)
    label = torch.randint(classes, (size + more, patch_px, patch_px), device=task.device)
    learning = [parameter for parameter in task.network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=0.0, weight_decay=0.0)
    found = []
    for _ in range(TRIALS):
        start = time.perf_counter()
        if more:
            with torch.no_grad():
                task(image[size:], valid[size:])
        task.loss(task.run(task.network, image, valid), label).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if task.device.type == "cuda":
            torch.cuda.synchronize(task.device)
        found.append(time.perf_counter() - start)
    return min(found)
