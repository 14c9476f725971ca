"""Training steps of one network: by the real pipeline, and on one batch that already lies on the device."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from _feeds import BANDS, CLASSES, Files
from _peer_common import peak_mb
from _train_feed import WARM_STEPS, Clock, _Fixed, _quiet
from lightning.pytorch import Trainer

from geoseg.data import SceneDataModule
from geoseg.models.task import SegmentationTask, use_bf16

WORTH_IT = 1.03  # a larger batch has to be so much faster
BANDS_UM = (0.49, 0.56, 0.665, 0.842, 1.61, 2.19)  # Sentinel-2's blue, green, red, nir and both swir


@dataclass(frozen=True, slots=True)
class Network:
    """What is trained.

    Attributes:
        decoder: Of geoseg.
        encoder: Of geoseg.
        patch_px: The largest side of a patch that it is measured with.
        batches: What is tried, in rising order, until the memory is full.
    """

    decoder: str
    encoder: str
    patch_px: int = 512
    batches: tuple[int, ...] = (8, 16, 32, 64)


@dataclass(slots=True)
class Bench:
    """What all networks are measured with; one scene, decoded once a patch size.

    Attributes:
        files: The scene and its labels.
        device: `cuda` or `cpu`.
        steps: That are measured, after three that warm up.
        rounds: Both sides, alternating.
        workers: Threads that cut patches.
    """

    files: Files
    device: str
    steps: int
    rounds: int
    workers: int
    opened: dict[int, SceneDataModule] = field(default_factory=dict)

    def data(self, patch_px: int, batch: int) -> SceneDataModule:
        """The data module, for batches of one size."""
        if patch_px not in self.opened:
            self.opened[patch_px] = SceneDataModule(
                scenes=[{"image": str(self.files.image), "labels": str(self.files.labels)}],
                legend={value: f"class {value}" for value in range(1, CLASSES + 1)},
                patch_px=patch_px, workers=self.workers,
            )  # fmt: skip
            self.opened[patch_px].setup()
        data = self.opened[patch_px]
        data.batch, data.epoch_patches = batch, batch * (self.steps + WARM_STEPS)
        return data

    def close(self) -> None:
        """Forgets the scenes."""
        for data in self.opened.values():
            data.close()


def measured(
    network: Network, bench: Bench, *, patch_px: int, compiled: bool, batches: Sequence[int], bands: int = BANDS
) -> dict[str, Any]:
    """Images a second of both sides with the batch that fills the device, and the memory that training takes."""
    task = SegmentationTask(
        decoder=network.decoder, encoder=network.encoder, compile=compiled,
        wavelengths_um={f"b{number}": value for number, value in enumerate(BANDS_UM[:bands], start=1)},
    )  # fmt: skip
    data = bench.data(patch_px, batches[0])
    task.prepare(
        mean=data.stats.mean, std=data.stats.std, class_names=data.legend.names, class_pixels=data.training_pixels,
        band_names=data.bands,
    )  # fmt: skip
    batch, tried = fullest(lambda size: _rate(task, bench, patch_px, size, fixed=True), batches)
    _forget_peak(bench.device)
    found: dict[str, list[float]] = {"ours": [], "reference": []}
    peaks: list[float] = []
    for _ in range(bench.rounds):
        for name, rates in found.items():
            rates.append(_rate(task, bench, patch_px, batch, fixed=name == "reference"))
            print(network.decoder, network.encoder, name, rates[-1], file=sys.stderr, flush=True)
            if name == "ours":
                peaks.append(_peak_gb(bench.device))
    mine, limit = median(found["ours"]), median(found["reference"])
    return {
        "network": f"{network.decoder} {network.encoder}", "compiled": compiled, "ours": mine, "reference": limit,
        "ratio": round(mine / limit, 3), "peak_gb": max(peaks), "batch": batch, "tried": tried, "patch_px": patch_px,
        "precision": "bf16" if use_bf16(task.bf16, torch.device(bench.device)) else "fp32",
        "parameters_m": round(sum(each.numel() for each in task.network.parameters()) / 1e6, 1), "all": found,
    }  # fmt: skip


def fullest(rate: Callable[[int], float], batches: Sequence[int]) -> tuple[int, dict[int, float]]:
    """The batch that fills the device, and the images a second of the network alone with each that was tried.

    Raises:
        torch.cuda.OutOfMemoryError: Not even the first fits.
    """
    tried: dict[int, float] = {}
    for batch in batches:
        try:
            tried[batch] = rate(batch)
        except torch.cuda.OutOfMemoryError:
            if not tried:
                raise
            torch.cuda.empty_cache()
            break
    best = batches[0]
    for batch, speed in tried.items():
        if speed > WORTH_IT * tried[best]:
            best = batch
    return best, tried


def _rate(task: SegmentationTask, bench: Bench, patch_px: int, batch: int, *, fixed: bool) -> float:
    """Images a second after the first three steps."""
    data, clock = bench.data(patch_px, batch), Clock()
    given: dict[str, Any] = {"datamodule": data}
    if fixed:
        given = {"train_dataloaders": _Fixed([_on_device(data, bench.device)] * (bench.steps + WARM_STEPS))}
    with _quiet():
        trainer = Trainer(
            max_steps=bench.steps + WARM_STEPS, accelerator="gpu" if bench.device == "cuda" else "cpu", devices=1,
            logger=False, callbacks=[clock], enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, limit_val_batches=0, gradient_clip_val=5.0, use_distributed_sampler=False,
        )  # fmt: skip
        trainer.fit(task, **given)
    first, last = clock.marks
    return round(batch * bench.steps / (last - first), 2)


def _on_device(data: SceneDataModule, device: str) -> dict[str, torch.Tensor]:
    """The first batch of an epoch, as it leaves augmentation."""
    first = next(iter(data.train_dataloader()))
    batch = {**first, "label": first["label"].long(), "image": first["image"].float()}
    return {name: values.to(device) for name, values in batch.items()}


def _forget_peak(device: str) -> None:
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak_gb(device: str) -> float:
    """The most memory that tensors held on the GPU; on a CPU, that the process has held so far."""
    return round(torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else peak_mb() / 1e3, 2)
