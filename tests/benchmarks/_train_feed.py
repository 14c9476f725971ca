"""Training by the real pipeline against the same network on one batch that lies in memory: does it ever wait?"""

from __future__ import annotations

import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from _feeds import BANDS, CLASSES, PATCH_PX, ours, write_files
from lightning.pytorch import Callback, Trainer

from geoseg.data import SceneDataModule
from geoseg.models import SegmentationTask

WARM_STEPS = 3


class Clock(Callback):
    """Seconds from the end of the third step to the end of the last."""

    def __init__(self) -> None:
        self.marks: list[float] = []

    def on_train_batch_end(self, trainer: Any, *_: Any, **__: Any) -> None:
        """Notes the time; on a GPU, where it matters, when the device has come so far."""
        step = trainer.global_step
        if step in (WARM_STEPS, trainer.max_steps):
            if trainer.strategy.root_device.type == "cuda":
                torch.cuda.synchronize()
            self.marks.append(time.perf_counter())


def measured(
    folder: Path, *, side: int, batch: int, steps: int, rounds: int, accelerator: str, workers: int
) -> dict[str, Any]:
    """Images a second of both sides, alternating."""
    files = write_files(folder, side)
    patches = batch * (steps + WARM_STEPS)
    data = ours(files, labels=files.labels, patches=patches, batch=batch, workers=workers)
    found: dict[str, list[float]] = {"ours": [], "reference": []}
    sides: dict[str, Callable[[], float]] = {
        "ours": lambda: _train(data, None, steps, accelerator),
        "reference": lambda: _train(data, _fixed(data, steps), steps, accelerator),
    }
    for _ in range(rounds):
        for name, train in sides.items():
            found[name].append(round(batch * steps / train(), 2))
            print(name, found[name][-1], file=sys.stderr, flush=True)
    data.close()
    mine, limit = median(found["ours"]), median(found["reference"])
    return {"ours": mine, "reference": limit, "ratio": round(mine / limit, 3), "all": found}


def _fixed(data: SceneDataModule, steps: int) -> list[dict[str, torch.Tensor]]:
    """The first batch of the epoch, as it leaves augmentation, over and over."""
    first = next(iter(data.train_dataloader()))
    batch = {**first, "label": first["label"].long(), "image": first["image"].float()}
    return [batch] * (steps + WARM_STEPS)


def _train(data: SceneDataModule, fixed: list[Any] | None, steps: int, accelerator: str) -> float:
    """Seconds of `steps` steps after the first three."""
    torch.manual_seed(0)
    task = SegmentationTask(decoder="unet", encoder="resnet18")
    task.prepare(
        mean=data.stats.mean, std=data.stats.std, class_names=data.legend.names, class_pixels=data.training_pixels
    )
    clock = Clock()
    with _quiet():
        trainer = Trainer(
            max_steps=steps + WARM_STEPS, accelerator=accelerator, devices=1, logger=False, callbacks=[clock],
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
            gradient_clip_val=5.0, use_distributed_sampler=False,
        )  # fmt: skip
        if fixed is None:
            trainer.fit(task, datamodule=data)
        else:
            trainer.fit(task, train_dataloaders=_Fixed(fixed))
    first, last = clock.marks
    return last - first


class _Fixed:
    """Batches from a list."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class _quiet(warnings.catch_warnings):  # noqa: N801 - used as a function
    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def in_folder(**options: Any) -> dict[str, Any]:
    """`measured`, with its files in a folder that goes at the end."""
    with tempfile.TemporaryDirectory(prefix="geoseg-bench-") as name:
        return measured(Path(name), **options)


__all__ = ["BANDS", "CLASSES", "PATCH_PX", "in_folder", "measured"]
