"""The training task: a network, its normalisation, its loss and its averaged weights as a LightningModule."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from numpy.typing import NDArray
from torch import nn

from geoseg.errors import InputError
from geoseg.models.build import create_model
from geoseg.models.losses import WEIGHTINGS, SegmentationLoss, check_loss, class_weights
from geoseg.models.metrics import Scores, confusion_counts
from geoseg.models.spec import ModelSpec

Batch = dict[str, torch.Tensor]


def one_cycle(progress: float, warmup: float) -> float:
    """Half a cosine up from 1/25, half a cosine down to 0 (Smith and Topin 2019)."""
    if progress < warmup:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * progress / warmup)) / 2
    return _cosine((progress - warmup) / (1 - warmup))


def _cosine(progress: float) -> float:
    return (1 + math.cos(math.pi * min(progress, 1.0))) / 2


def _warm(shape: Callable[[float], float]) -> Callable[[float, float], float]:
    """A schedule that rises in a straight line during the warm-up, and follows `shape` from then on."""

    def factor(progress: float, warmup: float) -> float:
        if progress < warmup:
            return max(progress / warmup, 0.01)
        return shape(min((progress - warmup) / (1 - warmup), 1.0))

    return factor


SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "onecycle": one_cycle,
    "cosine": _warm(_cosine),
    "poly": _warm(lambda progress: (1 - progress) ** 0.9),
    "constant": _warm(lambda progress: 1.0),  # noqa: ARG005 - the shape of all schedules
}


class SegmentationTask(LightningModule):
    """Trains a network of `geoseg.models.DECODERS`; validates and keeps the running mean of its weights.

    Logs `train/loss`, and after each epoch `val/score` (mean of accuracy and mean IoU), `val/oa`, `val/miou`, `val/f1`
    and the IoU of every class, all from one summed confusion matrix.

    Args:
        decoder: unet, unetplusplus, fpn, deeplabv3plus, segformer, ..., or pixel, which sees no context.
        encoder: An encoder of segmentation-models-pytorch or timm.
        weights: Pretrained weights of the encoder, e.g. imagenet; without, it starts from random ones.
        options: The decoder's options, e.g. {encoder_depth: 3, decoder_channels: [64, 32, 32], dropout: 0.2}.
        loss: Losses and their weights in the sum: ce, dice, focal.
        class_weights: Weight of rare classes in ce and focal: none, inverse, sqrt_inverse, effective.
        class_weight_cap: No class weighs more than this times the most common one.
        label_smoothing: Share of each label that is spread over all classes in ce.
        lr: Highest learning rate of AdamW.
        weight_decay: Of AdamW, on weights with more than one dimension.
        schedule: Learning rate over the run: onecycle, cosine, poly, constant.
        warmup: Share of the run in which the learning rate rises.
        ema_decay: Decay of the running mean of the weights, which is validated and saved; 0 keeps none.
        bf16: Run the network in bfloat16: yes, no, or auto, which does so where the device has instructions for it.
    """

    mean: torch.Tensor
    std: torch.Tensor
    counts: torch.Tensor

    def __init__(
        self,
        *,
        decoder: str = "unet",
        encoder: str = "resnet18",
        weights: str | None = None,
        options: dict[str, Any] | None = None,
        loss: dict[str, float] | None = None,
        class_weights: str = "none",
        class_weight_cap: float = 5.0,
        label_smoothing: float = 0.05,
        lr: float = 2e-3,
        weight_decay: float = 1e-2,
        schedule: str = "onecycle",
        warmup: float = 0.15,
        ema_decay: float = 0.99,
        bf16: str = "auto",
    ) -> None:
        super().__init__()
        self.loss_parts = loss or {"ce": 1.0, "dice": 0.5}
        check_loss(self.loss_parts, smoothing=label_smoothing)
        _check_options(class_weights, schedule, warmup, ema_decay, bf16)
        self.decoder, self.encoder, self.weights, self.options = decoder, encoder, weights, options or {}
        self.weighting, self.weight_cap, self.smoothing = class_weights, class_weight_cap, label_smoothing
        self.lr, self.weight_decay, self.schedule, self.warmup = lr, weight_decay, schedule, warmup
        self.ema_decay, self.bf16 = ema_decay, bf16
        self.spec: ModelSpec | None = None
        self.class_names: tuple[str, ...] = ()

    def prepare(
        self,
        *,
        mean: Sequence[float] | NDArray[np.float64],
        std: Sequence[float] | NDArray[np.float64],
        class_names: Sequence[str],
        class_pixels: NDArray[np.int64],
    ) -> None:
        """Builds the network for the data it will see; comes before the trainer.

        Args:
            mean: Mean of each band over the training pixels.
            std: Standard deviation of each band.
            class_names: Names of the output channels.
            class_pixels: Labelled training pixels of each class.

        Raises:
            InputError: The network cannot be built.
        """
        self.spec = ModelSpec(
            decoder=self.decoder, encoder=self.encoder, bands=len(mean), classes=len(class_names), options=self.options
        )
        self.class_names = tuple(class_names)
        # BatchNorm and convolutions run fastest on CPU and tensor cores with the bands innermost.
        self.network = create_model(self.spec, weights=self.weights).to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.network).requires_grad_(requires_grad=False) if self.ema_decay else None
        weight = class_weights(class_pixels, how=self.weighting, cap=self.weight_cap)
        self.loss = SegmentationLoss(self.loss_parts, weight=weight, smoothing=self.smoothing)
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.as_tensor(np.asarray(values), dtype=torch.float32))
        self.register_buffer("counts", torch.zeros(len(class_names), len(class_names), dtype=torch.int64))

    @property
    def scores(self) -> Scores:
        """Scores of the last validation; a checkpoint brings its own back."""
        return Scores(self.counts.cpu().numpy().copy())

    @property
    def judged(self) -> nn.Module:
        """The network that is validated and saved: the averaged one where there is one."""
        return self.network if self.average is None else self.average

    def forward(self, image: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Logits of the judged network, float32 `(n, class, row, col)`."""
        return self._run(self.judged, image, valid)

    def _run(self, network: nn.Module, image: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        scaled = normalize(image, valid, mean=self.mean, std=self.std)
        with torch.autocast(scaled.device.type, torch.bfloat16, enabled=use_bf16(self.bf16, scaled.device)):
            logits: torch.Tensor = network(scaled)
        return logits.float()

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:  # noqa: ARG002 - Lightning's signature
        """The loss of a batch."""
        loss: torch.Tensor = self.loss(self._run(self.network, batch["image"], batch["valid"]), batch["label"])
        if not torch.isfinite(loss):
            raise InputError(
                f"the loss is {loss.item()} at step {self.global_step}; lower model.lr (now {self.lr}), or look for "
                "extreme values in the bands"
            )
        self.log("train/loss", loss.detach(), on_step=False, on_epoch=True, batch_size=len(batch["label"]))
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """Moves the averaged weights towards the network's."""
        if self.average is not None:
            decay = min(self.ema_decay, (1 + self.global_step) / (10 + self.global_step))
            move_average(self.average, self.network, decay=decay)

    def on_train_epoch_start(self) -> None:
        """Keeps the averaged network out of training mode."""
        if self.average is not None:
            self.average.eval()

    def on_validation_epoch_start(self) -> None:
        """Empties the confusion matrix."""
        self.counts.zero_()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """Counts a batch into the confusion matrix."""
        predicted = self(batch["image"], batch["valid"]).argmax(1)
        self.counts += confusion_counts(predicted, batch["label"], classes=len(self.class_names))

    def on_validation_epoch_end(self) -> None:
        """Logs the scores of the whole validation part."""
        self.counts.copy_(self.trainer.strategy.reduce(self.counts, reduce_op="sum"))
        scores = self.scores
        values = {
            "val/score": scores.score, "val/oa": scores.overall_accuracy, "val/miou": scores.mean_iou,
            "val/f1": scores.mean_f1,
        }  # fmt: skip
        self.log_dict(values)
        classes = zip(self.class_names, scores.iou.tolist(), strict=True)
        self.log_dict({f"val/iou/{name}": value for name, value in classes if not math.isnan(value)})

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW without decay on biases and norms, and the schedule by step."""
        parameters = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=self.lr, fused=True)
        steps, shape = self.trainer.estimated_stepping_batches, SCHEDULES[self.schedule]

        def factor(step: int) -> float:
            return shape(step / steps, self.warmup) if math.isfinite(steps) else 1.0

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def normalize(image: torch.Tensor, valid: torch.Tensor, *, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """`(value - mean) / std` of each band, 0 at invalid pixels; float32 `(n, band, row, col)`, bands innermost."""
    scaled = (image.float() - mean[:, None, None]) / std[:, None, None]
    return torch.where(valid.unsqueeze(1), scaled, 0.0).contiguous(memory_format=torch.channels_last)


def move_average(average: nn.Module, network: nn.Module, *, decay: float) -> None:
    """Moves the averaged weights and statistics: `decay` of the old, the rest of the new; integers are copied."""
    pairs = list(zip(average.state_dict().values(), network.state_dict().values(), strict=True))
    floats = [(old, new.detach()) for old, new in pairs if old.is_floating_point()]
    torch._foreach_lerp_([old for old, _ in floats], [new for _, new in floats], 1 - decay)
    for old, new in pairs:
        if not old.is_floating_point():
            old.copy_(new)


def use_bf16(choice: str, device: torch.device) -> bool:
    """Whether the network runs in bfloat16; `auto` does so on a device with instructions for it.

    On CPUs with AVX512-BF16 or AMX a training step of a small U-Net takes about 0.6 of the time in float32; on others
    bfloat16 is emulated, and slower.
    """
    if choice != "auto":
        return choice == "yes"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and cpu_has_bf16()


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware."""
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def _check_options(weighting: str, schedule: str, warmup: float, ema_decay: float, bf16: str) -> None:
    choices = (
        ("class_weights", weighting, tuple(WEIGHTINGS)),
        ("schedule", schedule, tuple(SCHEDULES)),
        ("bf16", bf16, ("auto", "yes", "no")),
    )
    for name, value, known in choices:
        if value not in known:
            raise InputError(f"model.{name} '{value}' is unknown; known are {', '.join(known)}")
    if not 0 < warmup < 1 or not 0 <= ema_decay < 1:
        raise InputError(f"warmup is {warmup}, ema_decay {ema_decay}: needed are shares between 0 and 1")
