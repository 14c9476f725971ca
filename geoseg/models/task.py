"""The training task: a network, its normalisation, its loss and its averaged weights as a LightningModule."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from numpy.typing import ArrayLike, NDArray
from torch import nn
from torch.optim import Optimizer

from geoseg.errors import InputError
from geoseg.models.average import SwaOptions, move_average, still_copy
from geoseg.models.build import create_model
from geoseg.models.choices import check_choices, check_shares, check_sizes
from geoseg.models.compiling import told_of_compiling
from geoseg.models.depth import encoder_layers
from geoseg.models.freezing import check_freeze, ever_learns, freeze_parts, idle_parameters
from geoseg.models.lora import LoraOptions, add_lora, still_norms
from geoseg.models.losses import (
    SegmentationLoss,
    check_loss,
    check_shift,
    class_weights,
    loss_parts,
    patch_losses,
    registered,
)
from geoseg.models.metrics import Scores, confusion_counts
from geoseg.models.normalizing import normalize, use_bf16
from geoseg.models.optim import (
    SCHEDULES,
    by_step,
    clip_where_larger,
    layer_rates,
    parameter_groups,
    then_constant,
)
from geoseg.models.pretrained.catalog import made_with
from geoseg.models.pretrained.scaling import expected_input
from geoseg.models.semi import SemiOptions, check_teacher, learn_unlabelled, with_student
from geoseg.models.shards import blank_of, clip_shards, is_sharded, share_buffers
from geoseg.models.spec import ModelSpec
from geoseg.models.transfer import inherited_input, start_from
from geoseg.models.trouble import Seen, bad_patches, described, from_all, is_finite, seen_of
from geoseg.models.wavelengths import band_wavelengths

__all__ = ["SCHEDULES", "SegmentationTask", "move_average", "normalize", "use_bf16"]

Batch = dict[str, torch.Tensor]
NEVER = 10**9  # an epoch that no run reaches

logger = logging.getLogger(__name__)


class SegmentationTask(LightningModule):
    """Trains a network of `geoseg.models.DECODERS`; validates and keeps the running mean of its weights.

    Logs `train/loss`, and after each epoch `val/score` (mean of accuracy and mean IoU), `val/oa`, `val/miou`, `val/f1`
    and the IoU of every class, all from one summed confusion matrix.

    Args:
        decoder: unet, unetplusplus, fpn, deeplabv3plus, segformer, ..., or pixel, which sees no context.
        encoder: An encoder of segmentation-models-pytorch or timm.
        weights: Pretrained weights of the encoder, e.g. imagenet; without, it starts from random ones.
        unit: Of the scenes' numbers, e.g. reflectance*10000, by which the normalisation that pretrained weights expect
            is taken over; guessed where it is not given, none leaves the data's own statistics.
        init_from: A model file to begin with instead, of other classes or bands: what is of the same name is kept.
        options: The decoder's options, e.g. {encoder_depth: 3, decoder_channels: [64, 32, 32], dropout: 0.2}.
        wavelengths_um: Centre wavelengths of bands by name in micrometres, where their names do not tell them.
        sensor: What numbered bands are of: sentinel-2, landsat-5, landsat-7, landsat-8, landsat-9, naip.
        freeze: Parts that do not learn: {encoder: 5} for the first five epochs, {encoder: all} for the whole run.
        layer_decay: The learning rate of each layer of the encoder is that of the next one times this; 1 changes none.
        lora: Leaves the encoder as it is, and adds matrices of low rank to its attention, e.g. {rank: 8, alpha: 16}.
        loss: A loss by its name, several, or losses with their weights in the sum: ce, focal, ohem, dice, jaccard,
            tversky, lovasz, boundary, and gce and sce for wrong labels; or a loss with options, e.g.
            {ce: 1, tversky: {weight: 0.5, beta: 0.8}}.
        class_weights: Weight of rare classes in ce and focal: none, inverse, sqrt_inverse, effective.
        class_weight_cap: No class weighs more than this times the most common one.
        label_smoothing: Share of each label that is spread over all classes in ce.
        label_shift_px: Labels may lie off by up to so many pixels along each axis: in each step, those of each patch
            are moved to where the network sees them. 0 takes them as they lie.
        lr: Highest learning rate of AdamW.
        weight_decay: Of AdamW, on weights with more than one dimension.
        schedule: Learning rate over the run: onecycle, cosine, poly, constant.
        warmup: Share of the run in which the learning rate rises.
        ema_decay: Decay of the running mean of the weights, which is validated and saved; 0 keeps none.
        swa: Takes the mean of the weights over the last part of the run too, e.g. {start: 0.75}; it is saved where it
            scores better than the best epoch.
        semi: Learns from the scenes of data.unlabelled too, e.g. {method: pseudo_labels, threshold: 0.95}.
        bf16: Run the network in bfloat16: yes, no, or auto, which does so where the device has instructions for it.
        compile: Whether torch.compile makes the network's training faster, which takes a minute first.
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
        unit: str | None = None,
        init_from: str | None = None,
        options: dict[str, Any] | None = None,
        wavelengths_um: dict[str, float] | None = None,
        sensor: str | None = None,
        freeze: dict[str, int | str] | None = None,
        layer_decay: float = 1.0,
        lora: LoraOptions | None = None,
        loss: dict[str, Any] | list[str] | str | None = None,
        class_weights: str = "none",
        class_weight_cap: float = 5.0,
        label_smoothing: float = 0.05,
        label_shift_px: int = 0,
        lr: float = 2e-3,
        weight_decay: float = 1e-2,
        schedule: str = "onecycle",
        warmup: float = 0.15,
        ema_decay: float = 0.99,
        swa: SwaOptions | None = None,
        semi: SemiOptions | None = None,
        bf16: str = "auto",
        compile: bool = False,  # noqa: A002 (the option is called so everywhere)
    ) -> None:
        super().__init__()
        self.loss_parts, self.freezing = loss_parts(loss), freeze or {}
        check_loss(self.loss_parts, smoothing=label_smoothing)
        check_shift(label_shift_px)
        check_freeze(self.freezing)
        check_choices(class_weights=class_weights, schedule=schedule, bf16=bf16, unit=unit)
        check_shares(warmup=warmup, ema_decay=ema_decay, layer_decay=layer_decay)
        check_sizes(lr=lr, weight_decay=weight_decay, class_weight_cap=class_weight_cap)
        check_teacher(semi, ema_decay=ema_decay)
        if weights is not None and init_from is not None:
            raise InputError("model.weights and model.init_from are both given, and both fill the encoder: give one")
        self.decoder, self.encoder, self.weights, self.options = decoder, encoder, weights, options or {}
        self.unit, self.init_from, self.wavelengths_um, self.sensor = unit, init_from, wavelengths_um, sensor
        self.layer_decay, self.lora, self.swa, self.compiled = layer_decay, lora, swa, compile
        self.weighting, self.weight_cap, self.smoothing = class_weights, class_weight_cap, label_smoothing
        self.shift_px = label_shift_px
        self.lr, self.weight_decay, self.schedule, self.warmup = lr, weight_decay, schedule, warmup
        self.ema_decay, self.semi, self.bf16 = ema_decay, semi, bf16
        self.spec: ModelSpec | None = None
        self.class_names: tuple[str, ...] = ()
        self.keeps_patch_losses = False
        self.swa_steps, self._stepped, self.validated_step = 0, 0, 0
        self._before: Seen | None = None
        self._figures: list[tuple[int, dict[str, torch.Tensor]]] = []

    def prepare(
        self,
        *,
        mean: Sequence[float] | NDArray[np.float64],
        std: Sequence[float] | NDArray[np.float64],
        class_names: Sequence[str],
        class_pixels: NDArray[np.int64],
        band_names: Sequence[str] | None = None,
        limits: tuple[ArrayLike, ArrayLike] | None = None,
    ) -> None:
        """Builds the network for the data it will see; comes before the trainer.

        Args:
            mean: Mean of each band over the training pixels.
            std: Standard deviation of each band.
            class_names: Names of the output channels.
            class_pixels: Labelled training pixels of each class.
            band_names: Names of the bands, which tell their wavelengths.
            limits: Least and largest value of each band, which tell their unit.

        Raises:
            InputError: The network cannot be built, or what is asked of it does not fit it.
        """
        self.class_names = tuple(class_names)
        self.spec = self._spec(len(mean), band_names)
        if self.weights is not None and band_names is not None:
            mean, std = expected_input(
                self.weights, band_names, mean=mean, std=std, limits=limits, unit=self.unit,
                wavelengths_um=self.spec.wavelengths_um,
            )  # fmt: skip
        elif self.init_from is not None and band_names is not None and self.unit != "none":
            mean, std = inherited_input(self.init_from, band_names, mean=mean, std=std, unit=self.unit,
                                        wavelengths_um=self.spec.wavelengths_um)  # fmt: skip
        self._seed = torch.initial_seed()
        # BatchNorm and convolutions run fastest on CPU and tensor cores with the bands innermost.
        self.network = self._begun(self.spec, band_names).to(memory_format=torch.channels_last)
        self._ready_to_learn(self.spec)
        self.average = still_copy(self.network) if self.ema_decay else None
        self.swa_network = still_copy(self.network) if self.swa is not None else None
        if self.compiled:
            self.network.compile()  # in place: the weights keep their names
        weight = class_weights(class_pixels, how=self.weighting, cap=self.weight_cap)
        self.loss = SegmentationLoss(self.loss_parts, weight=weight, smoothing=self.smoothing)
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.as_tensor(np.asarray(values), dtype=torch.float32))
        self.register_buffer("counts", torch.zeros(len(class_names), len(class_names), dtype=torch.int64))
        self._counting = self.counts.clone()

    def _spec(self, bands: int, names: Sequence[str] | None) -> ModelSpec:
        wavelengths = None
        if names is not None:
            wavelengths = band_wavelengths(names, given=self.wavelengths_um, sensor=self.sensor)
        options = self.options
        own = {} if self.weights is None else made_with(self.weights, names=names)
        if own:
            options = {**options, "encoder_options": {**own, **(options.get("encoder_options") or {})}}
        return ModelSpec(
            decoder=self.decoder, encoder=self.encoder, bands=bands, classes=len(self.class_names), options=options,
            wavelengths_um=wavelengths,
        )  # fmt: skip

    def _begun(self, spec: ModelSpec, names: Sequence[str] | None) -> nn.Module:
        """The network with the weights that it begins with."""
        network = create_model(spec, weights=self.weights, band_names=names)
        if self.init_from is not None:
            start_from(self.init_from, network, spec=spec, band_names=names, class_names=self.class_names)
        return network

    def _ready_to_learn(self, spec: ModelSpec) -> None:
        """Decides which parameters learn, and how fast."""
        if self.lora is not None:
            added = add_lora(self.network, self.lora)
            logger.info("LoRA: %d weights beside those of the encoder's attention learn, the encoder stays", added)
        self._rates: Mapping[str, float] = {}
        if self.layer_decay < 1:
            layers, count = encoder_layers(self.network, bands=spec.bands)
            self._rates = layer_rates(layers, count=count, decay=self.layer_decay)
        named = [(name, parameter) for name, parameter in self.network.named_parameters() if parameter.requires_grad]
        self._trainable = frozenset(name for name, _ in named)
        self._learning = {name: parameter.ndim > 1 for name, parameter in named if ever_learns(name, self.freezing)}
        if self.lora is not None and not any(".parametrizations." in name for name in self._learning):
            raise InputError(
                "model.lora learns in the encoder, which model.freeze holds for all epochs; leave freeze out"
            )
        freeze_parts(self.network, self.freezing, epoch=0, trainable=self._trainable)
        learns = any(parameter.requires_grad for parameter in self.network.parameters())
        freeze_parts(self.network, self.freezing, epoch=NEVER, trainable=self._trainable)
        if named and not (self._learning and learns):  # a forest has nothing that descends a gradient
            raise InputError("model.freeze leaves nothing to learn, or not at first; freeze less, e.g. {encoder: all}")

    def leave_idle_out(self) -> None:
        """Parameters that no output depends on do not learn: processes would wait for their gradients."""
        idle = idle_parameters(self.network, bands=len(self.mean))
        for name, parameter in self.network.named_parameters():
            if name in idle:
                parameter.requires_grad = False
        self._trainable -= idle

    def renew(self) -> None:
        """A whole network in place of one that was cut in shards; its weights come from a checkpoint."""
        if self.spec is not None:
            self.network = create_model(self.spec)
            if self.lora is not None:
                add_lora(self.network, self.lora)

    @property
    def scores(self) -> Scores:
        """Scores of the last validation; a checkpoint brings its own back."""
        return Scores(self.counts.cpu().numpy().copy())

    @property
    def judged(self) -> nn.Module:
        """The network that is validated and saved: the averaged one where there is one."""
        return self.network if self.average is None else self.average

    def forward(self, image: torch.Tensor, valid: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
        """Logits of the judged network, float32 `(n, class, row, col)`."""
        return self.run(self.judged, image, valid, present)

    def run(
        self, network: nn.Module, image: torch.Tensor, valid: torch.Tensor, present: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits of one of the networks, float32 `(n, class, row, col)`, of an image in the units of its file."""
        scaled = normalize(image, valid, mean=self.mean, std=self.std, present=present)
        half = torch.autocast(scaled.device.type, torch.bfloat16, enabled=use_bf16(self.bf16, scaled.device))
        with told_of_compiling("leave model.compile out"), half:
            logits: torch.Tensor = network(scaled)
        return logits.float()

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, torch.Tensor]:  # noqa: ARG002 - Lightning's
        """The loss of a batch, and where they are asked for those of its patches."""
        count, shown = len(batch["label"]), batch if self.semi is None else with_student(batch)
        logits = self.run(self.network, shown["image"], shown["valid"], shown.get("present"))
        label, soft = batch["label"], batch.get("soft")
        if self.shift_px:
            label, soft = registered(logits[:count].detach(), label, soft, reach_px=self.shift_px)
        loss: torch.Tensor = self.loss(logits[:count], label, soft)
        figures: dict[str, torch.Tensor] = {}
        if self.semi is not None:
            teacher, done = partial(self.run, self.judged), self.global_step / self._steps
            more, figures = learn_unlabelled(self.semi, batch, logits[count:], teacher, progress=done)
            loss = loss + more
        self._check_loss(loss.detach(), logits.detach(), shown)
        self._figures.append((count, {"train/loss": loss.detach(), **figures}))
        if not self.keeps_patch_losses:
            return {"loss": loss}
        return {"loss": loss, "patch_losses": patch_losses(logits[:count].detach(), label)}

    def _check_loss(self, loss: torch.Tensor, logits: torch.Tensor, batch: Batch) -> None:
        """Stops where the loss of any process is no number, before its gradient reaches the weights."""
        fine = torch.isfinite(loss)
        if bool(self.trainer.strategy.reduce(fine.float(), reduce_op="min") if self._world > 1 else fine):
            return
        scenes = self._scenes()
        bad = bad_patches(batch, patch_losses(logits, batch["label"]))
        if is_finite(self.network, statistics=False):
            where = f"in its patches: {from_all('' if fine else described(seen_of(batch), scenes, bad=bad))}"
        else:
            where = f"in the patches of the step before: {from_all(described(self._before, scenes))}"
        self._stop(f"the loss is {'nan' if fine else loss.item()} at step {self.global_step}", where)

    def _stop(self, what: str, where: str) -> None:
        """Refuses to go on; of several processes the first one speaks.

        Raises:
            InputError: Always, but in the processes that are silent.
            SystemExit: In these.
        """
        if self.global_rank:
            raise SystemExit(0)
        keepers = getattr(self._trainer, "checkpoint_callbacks", ())
        last = next((each.best_model_path for each in keepers if each.monitor is None), "")  # that of the last epoch
        kept = f"; the last good checkpoint is {last}" if last else ""
        raise InputError(f"{what}; lower model.lr (now {self.lr}), or look for extreme values {where}{kept}")

    def on_train_start(self) -> None:
        """Learns which step the run begins at; one that early stopping had ended, and that goes on, is at its end."""
        self._stepped = self.global_step
        waited = [each.wait_count >= max(each.patience, 1) for each in self.trainer.early_stopping_callbacks]
        self.trainer.should_stop = self.trainer.should_stop or any(waited)
        self._steps = float(self.trainer.estimated_stepping_batches)
        asking = "swa" if self.swa is not None else "semi" if self.semi is not None else None
        if asking is not None and not math.isfinite(self._steps):
            raise InputError(f"model.{asking} needs to know the run's length: give trainer.max_epochs or max_steps")
        if self.schedule != "constant" and not math.isfinite(self._steps):
            logger.warning(
                "schedule %s needs to know the run's length, so the rate stays at %g: give trainer.max_epochs or "
                "max_steps beside max_time, or model.schedule: constant", self.schedule, self.lr,
            )  # fmt: skip

    def on_train_epoch_start(self) -> None:
        """Freezes what the epoch wants frozen, and keeps the averaged networks out of training mode.

        What is random in the network (dropout) depends on the seed, the epoch and the process alone, so that a run that
        was stopped goes on with what it would have drawn.
        """
        freeze_parts(self.network, self.freezing, epoch=self.current_epoch, trainable=self._trainable)
        if self.lora is not None:
            still_norms(self.network)
        for network in (self.average, self.swa_network):
            if network is not None:
                network.eval()
        turn = self.current_epoch * self._world + self.global_rank
        torch.manual_seed((self._seed * 1_000_003 + turn) % 2**63)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """Moves the averaged weights towards the network's, where the optimiser has made a step."""
        self._before = seen_of(batch)
        if self.global_step == self._stepped:
            return
        self._stepped = self.global_step
        if self.average is not None:
            decay = min(self.ema_decay, (1 + self.global_step) / (10 + self.global_step))
            move_average(self.average, self.network, decay=decay)
        if self.swa is not None and self.swa_network is not None and self.global_step > self.swa.start * self._steps:
            move_average(self.swa_network, self.network, decay=self.swa_steps / (self.swa_steps + 1))
            self.swa_steps += 1

    def on_train_epoch_end(self) -> None:
        """Logs the means over the epoch's patches, of all processes; a step leaves its figures on their device."""
        patches = sum(count for count, _ in self._figures)
        names = self._figures[0][1] if patches else ()
        means = {name: sum(count * found[name] for count, found in self._figures) / patches for name in names}
        self._figures.clear()
        self.log_dict(means, sync_dist=True)

    def on_validation_epoch_start(self) -> None:
        """Empties the confusion matrix; stops where the weights are no numbers, before they are validated and kept."""
        # A plain tensor: between processes, buffers are overwritten by those of the first.
        self._counting = torch.zeros_like(self.counts)
        if is_sharded(self.trainer):
            share_buffers(self.network)
        fine = torch.tensor(is_finite(self.network), dtype=torch.float32, device=self.device)
        if not self.trainer.strategy.reduce(fine, reduce_op="min"):
            where = f"in the patches of its last batch: {from_all(described(self._before, self._scenes()))}"
            self._stop(f"the weights are no numbers at step {self.global_step}", where)

    @property
    def _world(self) -> int:
        """Processes that train; one where there is no trainer."""
        return 1 if self._trainer is None else int(self._trainer.world_size)

    def _scenes(self) -> Sequence[Any]:
        data = getattr(self._trainer, "datamodule", None)
        return [*getattr(data, "scenes", ()), *getattr(data, "unlabelled", ())]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """Counts a batch into the confusion matrix; it is empty where another process has one more."""
        if not len(batch["label"]):
            if is_sharded(self.trainer):
                self(blank_of(batch["image"]), blank_of(batch["valid"]))
            return
        predicted = self(batch["image"], batch["valid"], batch.get("present")).argmax(1)
        self._counting += confusion_counts(predicted, batch["label"], classes=len(self.class_names))

    def on_validation_epoch_end(self) -> None:
        """Logs the scores of the whole validation part."""
        self.counts.copy_(self.trainer.strategy.reduce(self._counting, reduce_op="sum"))
        self.validated_step = self.global_step
        scores = self.scores
        values = {
            "val/score": scores.score, "val/oa": scores.overall_accuracy, "val/miou": scores.mean_iou,
            "val/f1": scores.mean_f1,
        }  # fmt: skip
        self.log_dict(values)
        classes = zip(self.class_names, scores.iou.tolist(), strict=True)
        self.log_dict({f"val/iou/{name}": value for name, value in classes if not math.isnan(value)})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps how many weights the mean of the last steps is of."""
        checkpoint["swa_steps"] = self.swa_steps
        checkpoint["validated_step"] = self.validated_step

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Goes on from there."""
        self.swa_steps = int(checkpoint.get("swa_steps", 0))
        self.validated_step = int(checkpoint.get("validated_step", 0))

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """As the trainer says; the norm of sharded gradients is known to the sharded network alone."""
        by_norm = bool(gradient_clip_val) and gradient_clip_algorithm in (None, "norm")
        if is_sharded(self.trainer) and by_norm:
            clip_shards(self.trainer, float(gradient_clip_val or 0))
            return
        if self.device.type == "cpu" and by_norm:
            clip_where_larger(optimizer, float(gradient_clip_val or 0))
            return
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW without decay on biases and norms, and the schedule by step."""
        named = [(name.replace("_fsdp_wrapped_module.", ""), each) for name, each in self.network.named_parameters()]
        groups = parameter_groups(
            [(name, parameter) for name, parameter in named if name in self._learning],
            lr=self.lr, weight_decay=self.weight_decay, rates=self._rates, decays=self._learning,
        )  # fmt: skip
        optimizer = torch.optim.AdamW(groups, lr=self.lr, fused=True)
        steps, shape = self.trainer.estimated_stepping_batches, SCHEDULES[self.schedule]
        if self.swa is not None and self.swa.lr is not None:
            shape = then_constant(shape, start=self.swa.start, level=self.swa.lr / self.lr)
        factors = by_step(shape, steps=steps, warmup=self.warmup)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factors)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
