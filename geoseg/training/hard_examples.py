"""Tells the data how hard its patches were, so that hard ones come again."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray


class HardExamples(Callback):
    """Gathers the loss of each patch over an epoch, and of all devices, and hands them to the data module.

    It does nothing unless the data module draws patches by their loss.
    """

    def __init__(self) -> None:
        self._windows: list[torch.Tensor] = []
        self._losses: list[torch.Tensor] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Forgets the last epoch."""
        self._windows, self._losses = [], []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: dict[str, torch.Tensor], batch_idx: int  # noqa: ARG002
    ) -> None:  # fmt: skip
        """Keeps the losses of a batch, on their device."""
        losses = outputs.get("patch_losses") if isinstance(outputs, dict) else None
        if losses is not None:
            self._windows.append(batch["window"])
            self._losses.append(losses)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hands the losses on before the checkpoint is written, which follows the validation."""
        self._hand_over(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hands them on where no validation did."""
        self._hand_over(trainer, pl_module)

    def _hand_over(self, trainer: Trainer, module: LightningModule) -> None:
        if not self._losses:
            return
        found = torch.cat([torch.cat(self._windows).double(), torch.cat(self._losses).double()[:, None]], 1)
        self._windows, self._losses = [], []
        windows, losses = _split(_from_all(found, trainer, module))
        loop: Any = trainer
        loop.datamodule.note_losses(windows, losses)


def _from_all(rows: torch.Tensor, trainer: Trainer, module: LightningModule) -> NDArray[np.float64]:
    """The rows of all devices, those of the first device first; devices may have different numbers of them."""
    if trainer.world_size == 1:
        return np.asarray(rows.cpu().numpy(), np.float64)
    gather: Any = module.all_gather
    count = torch.tensor([len(rows)], device=rows.device)
    counts = gather(count).flatten().tolist()
    padded = torch.zeros((max(counts), rows.shape[1]), dtype=rows.dtype, device=rows.device)
    padded[: len(rows)] = rows
    gathered = gather(padded).cpu().numpy()
    return np.concatenate([part[:size] for part, size in zip(gathered, counts, strict=True)]).astype(np.float64)


def _split(rows: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    return rows[:, :3].astype(np.int64), rows[:, 3]
