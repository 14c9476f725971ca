"""What a training run remembers of itself: scores by epoch, its progress, and its curves."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

logger = logging.getLogger(__name__)


class History(Callback):
    """One row an epoch, kept in the checkpoints, so that a resumed run has all of them.

    Attributes:
        rows: `epoch`, `step`, `seconds` and `train/loss`, and the scores of the validation.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self._before_s, self._start = 0.0, time.monotonic()
        self._losses: list[torch.Tensor] = []

    @property
    def seconds(self) -> float:
        """Seconds of training so far, those of the run that was resumed included."""
        return self._before_s + time.monotonic() - self._start

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002 - Lightning's hooks
        """Starts the clock."""
        self._start = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *rest: Any) -> None:  # noqa: ARG002
        """Notes the loss; it stays on its device."""
        # Lightning has divided it by the number of batches that make a step of the optimiser.
        self._losses.append(outputs["loss"].detach() * trainer.accumulate_grad_batches)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Adds the epoch's row, before its checkpoint is written."""
        if not self._losses:
            return
        scores = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        loss = float(trainer.strategy.reduce(self._stacked().mean(), reduce_op="mean"))
        row = {"epoch": trainer.current_epoch, "step": trainer.global_step, "seconds": round(self.seconds, 3)}
        self.rows.append({**row, "train/loss": loss, **scores})
        self._losses.clear()
        if trainer.is_global_zero:
            _tell(self.rows[-1], trainer.max_epochs)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Takes the mean over processes where nothing was validated: one of them writes the checkpoint of all."""
        if self._losses:
            # Those of the epochs before are equal in all processes by now, and stay as they are.
            self._losses = list(trainer.strategy.reduce(self._stacked(), reduce_op="mean"))

    def _stacked(self) -> torch.Tensor:
        """The losses since the last validation, on one device; those of a checkpoint come to the CPU."""
        return torch.stack([loss.to(self._losses[-1].device) for loss in self._losses])

    def state_dict(self) -> dict[str, Any]:
        """The rows, the seconds, and the losses since the last validation, plain values."""
        losses = [float(loss) for loss in self._losses]
        return {"rows": list(self.rows), "seconds": self.seconds, "losses": losses}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from a checkpoint's rows."""
        self.rows, self._before_s = list(state_dict["rows"]), state_dict["seconds"]
        self._losses = [torch.tensor(loss) for loss in state_dict.get("losses", ())]  # older runs kept none


def _tell(row: dict[str, float], epochs: int | None) -> None:
    """A line an epoch in the log: who looks at no terminal sees how a run goes, too."""
    shown = [("accuracy", "val/oa"), ("mean IoU", "val/miou")]
    scores = [f"{name} {row[key]:.3f}" for name, key in shown if key in row]
    of = f" of {epochs}" if epochs is not None and epochs > 0 else ""
    told = ", ".join([f"loss {row['train/loss']:.4f}", *scores])
    logger.info("epoch %d%s: %s; %.0f s", row["epoch"] + 1, of, told, row["seconds"])


class Ticks(Callback):
    """Tells a progress bar how far the run is.

    Attributes:
        tick: A function `(done, total)`.
    """

    def __init__(self) -> None:
        self.tick: Callable[[int, int], None] | None = None

    def on_train_batch_end(self, trainer: Trainer, *rest: Any) -> None:  # noqa: ARG002
        """Moves the bar by a step."""
        total = trainer.estimated_stepping_batches
        if self.tick is not None and total != float("inf"):
            self.tick(trainer.global_step, int(total))


def draw_curves(rows: list[dict[str, float]], path: Path) -> None:
    """A small PNG: loss, accuracy and mean IoU over the epochs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] + 1 for row in rows]
    left.plot(epochs, [row["train/loss"] for row in rows], color="#5a5a5a")
    left.set(title="training loss", xlabel="epoch")
    for name, title, color in (("val/oa", "accuracy", "#3b7fc4"), ("val/miou", "mean IoU", "#1f6b35")):
        right.plot(epochs, [row.get(name, float("nan")) for row in rows], label=title, color=color)
    right.set(title="validation", xlabel="epoch", ylim=(0, 1))
    right.legend(frameon=False)
    figure.savefig(path, dpi=110)
