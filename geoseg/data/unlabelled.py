"""Imagery without labels beside the labelled: what of it may be shown, how it is drawn, and a patch's two views."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed

from geoseg.data.augment import AugmentOptions, CutMixOptions, augment_batch
from geoseg.data.label_index import LabelIndex
from geoseg.data.sampling import PatchBatches, PatchSampler, SamplingOptions
from geoseg.data.scene import TRAINING, SceneArrays, windows_of
from geoseg.data.splits.buffer import cut_buffers
from geoseg.data.splits.checks import leave_out
from geoseg.data.splits.same_image import shared_pixels
from geoseg.errors import InputError

SAME = "same"
STRONG = AugmentOptions(gain=0.2, band_gain=0.1, noise=0.1, blur=1.0, cutmix=CutMixOptions(share=0.5))
"""How the student sees unlabelled patches by default."""

SEED_STEP = 500_009  # another draw than that of the labelled patches

logger = logging.getLogger(__name__)

Given = str | Sequence[str | Mapping[str, Any]] | None


def read_unlabelled(given: Given) -> tuple[bool, tuple[Mapping[str, Any], ...]]:
    """What `data.unlabelled` says: whether the training scenes are meant too, and a mapping for each other scene.

    Raises:
        InputError: It is neither `same`, nor the path of an image, nor a list of such or of mappings.
    """
    items = [] if given is None else [given] if isinstance(given, str) else list(given)
    others = [{"image": item} if isinstance(item, str) else item for item in items if item != SAME]
    if given is not None and not items:
        raise InputError("data.unlabelled is empty: needed is one scene at least, or 'same' for those of data.scenes")
    for item in others:
        if not isinstance(item, Mapping):
            raise InputError(f"data.unlabelled has {item!r}: needed are '{SAME}', images, or mappings with image")
        if "labels" in item:
            raise InputError("a scene of data.unlabelled has labels; leave them out there, or name it in data.scenes")
    return SAME in items, tuple(others)


def check_unlabelled(given: Given, *, batch: int | None, labelled_batch: int, augment: AugmentOptions) -> None:
    """Nothing, where the options fit; a warning where CutMix has nothing to mix.

    Raises:
        InputError: They do not.
    """
    read_unlabelled(given)
    if batch is not None and batch < 1:
        raise InputError(
            f"unlabelled_batch is {batch}: needed is 1 or more patches a step, or none for as many as batch"
        )
    if batch is not None and given is None:
        raise InputError("unlabelled_batch is given, and data.unlabelled names no scene: give both, or neither")
    if augment.classmix is not None:
        raise InputError("unlabelled_augment.classmix pastes by labels, and there are none; cutmix would work")
    if given is not None and augment.cutmix is not None and (batch or labelled_batch) == 1:
        logger.warning(
            "unlabelled_augment.cutmix mixes patches of a step, and there is one: unlabelled_batch: 2 would do"
        )


def set_apart(scenes: Sequence[SceneArrays], unlabelled: Sequence[SceneArrays], *, buffer_m: float | None) -> None:
    """Leaves out of unlabelled scenes what lies on validation or test pixels of others, or within the buffer of them.

    Of those without a CRS, one that holds pixels of an image that validate or test is left out whole.

    Args:
        scenes: Those with labels, split.
        unlabelled: All their valid pixels are TRAINING.
        buffer_m: As it was for the split.

    Raises:
        InputError: Nothing is left.
    """
    if not unlabelled:
        return
    cut_buffers([*scenes, *unlabelled], buffer_m=buffer_m)
    for number in sorted({shared.scene for shared in shared_pixels(unlabelled, scenes)}):
        logger.warning("%s validates or tests, and is left out of data.unlabelled", unlabelled[number].name)
        leave_out(unlabelled[number])
    if not any(_trains(scene) for scene in unlabelled):
        raise InputError(
            "data.unlabelled leaves no pixel to draw: its scenes hold none, or lie on validation or test pixels and "
            "within split.buffer_m of them; name imagery of other places, or a smaller buffer"
        )


def _trains(scene: SceneArrays) -> bool:
    return any(bool((scene.part[window.slices] == TRAINING).any()) for window in windows_of(scene.shape))


# -- batches -----------------------------------------------------------------------------------------------------------


class PairedSampler:
    """The windows of labelled patches, and in each step those of unlabelled ones after them: `(n + m, 3)`.

    The unlabelled ones are drawn around any valid pixel that trains, by the seed and the epoch alone; their scenes are
    counted on after the labelled scenes. Each process has windows of its own.

    Args:
        labelled: Draws the labelled patches; its epoch and its number of steps hold for both.
        scenes: Those with labels.
        unlabelled: Those without, set apart.
        batch: Unlabelled patches a step, of each process.
    """

    def __init__(
        self, labelled: PatchSampler, scenes: Sequence[SceneArrays], unlabelled: Sequence[SceneArrays], *, batch: int
    ) -> None:
        self.labelled, self.first, self.batch = labelled, len(scenes), batch
        self.unlabelled = PatchSampler(
            unlabelled,
            LabelIndex.of(unlabelled, classes=1),
            options=SamplingOptions(shares={"random": 1.0}),
            class_names=("any",),
            patch_px=labelled.ground.patch_px,
            batch=batch,
            epoch_patches=batch,
            seed=labelled.seed + SEED_STEP,
        )

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch whose patches come next."""
        self.labelled.set_epoch(epoch)

    def __len__(self) -> int:
        """Steps of this process in an epoch."""
        return len(self.labelled)

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        several = distributed.is_available() and distributed.is_initialized()
        self.unlabelled.epoch_patches = len(self) * self.batch * (distributed.get_world_size() if several else 1)
        self.unlabelled.set_epoch(self.labelled.epoch)
        for own, other in zip(self.labelled, self.unlabelled, strict=True):
            yield np.concatenate([own, other + np.array([self.first, 0, 0])])


class PairedBatches:
    """Cuts the batches of a `PairedSampler`: labelled planes, and `unlabelled_image`, `_valid`, `_window`, `_present`.

    Args:
        scenes: Those with labels.
        unlabelled: Those without.
        patch_px: Side of a patch.
    """

    def __init__(self, scenes: Sequence[SceneArrays], unlabelled: Sequence[SceneArrays], *, patch_px: int) -> None:
        self.first = len(scenes)
        self.labelled = PatchBatches(scenes, patch_px=patch_px, part=TRAINING)
        self.unlabelled = PatchBatches(unlabelled, patch_px=patch_px, part=TRAINING)

    def __getitem__(self, windows: NDArray[np.int64]) -> dict[str, torch.Tensor]:
        """The batch of `windows` `(n, 3)`; what does not train is not valid in either half."""
        own = windows[:, 0] < self.first
        more = self.unlabelled[windows[~own] - np.array([self.first, 0, 0])]
        more["window"] = torch.from_numpy(windows[~own])
        kept = {f"unlabelled_{name}": more[name] for name in ("image", "valid", "window", "present") if name in more}
        return {**self.labelled[windows[own]], **kept}


def parted(batch: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The labelled planes of a batch, and the unlabelled ones under their plain names; these may be none."""
    prefix = "unlabelled_"
    labelled = {name: plane for name, plane in batch.items() if not name.startswith(prefix)}
    return labelled, {name.removeprefix(prefix): batch[name] for name in batch if name.startswith(prefix)}


def two_views(
    planes: Mapping[str, torch.Tensor],
    *,
    options: AugmentOptions,
    mean: torch.Tensor,
    std: torch.Tensor,
    generator: torch.Generator,
) -> dict[str, torch.Tensor]:
    """Unlabelled patches as the teacher sees them (`unlabelled_...`), and as the student does (`student_...`).

    Turns and warps are the same for both; all else that `options` say the student alone sees, as in FixMatch (Sohn et
    al. 2020, arXiv:2001.07685, section 2.3). `student_source`, int64 `(m, row, col)`, says of which of the patches each
    pixel of the student's view is (CutMix pastes others in), IGNORE_INDEX where it was hidden.

    Args:
        planes: `image`, `valid`, `window` and perhaps `present` of `(m, ...)` patches, on their device.
        options: What is done.
        mean: As for `augment_batch`.
        std: As for `augment_batch`.
        generator: The draw; two numbers are taken.
    """
    valid = planes["valid"]
    source = torch.arange(len(valid), device=valid.device)[:, None, None].expand(valid.shape)
    draw: dict[str, Any] = {"mean": mean, "std": std, "generator": generator}
    moved = AugmentOptions(turns=options.turns, warp=options.warp, gain=0.0, band_gain=0.0, noise=0.0)
    # Labels go where their pixels go, and so do numbers of patches in their place.
    weak = augment_batch({**planes, "label": source.contiguous()}, options=moved, **draw)
    strong = augment_batch(weak, options=replace(options, turns=False, warp=None), **draw)
    views = {f"unlabelled_{name}": plane for name, plane in weak.items() if name != "label"}
    seen = {name: strong[name] for name in ("image", "valid", "present") if name in strong}
    return {**views, **{f"student_{name}": plane for name, plane in seen.items()}, "student_source": strong["label"]}
