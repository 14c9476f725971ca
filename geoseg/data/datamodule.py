"""Scenes and labels as a LightningDataModule."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch import distributed

from geoseg.data.augment import AugmentOptions, augment_batch
from geoseg.data.decode import DecodedSet, decode_scenes
from geoseg.data.grids import outline_of
from geoseg.data.label_index import NOWHERE, LabelIndex, Mask
from geoseg.data.loader import Batches, PatchLoader
from geoseg.data.sampling import PatchBatches, PatchSampler, SamplingOptions, share_of, validation_windows
from geoseg.data.scene import TEST, TRAINING, VALIDATION, SceneArrays
from geoseg.data.specs import OpenedScenes, open_scenes, open_unlabelled
from geoseg.data.splits import SplitOptions, SplitPlan, split_scenes
from geoseg.data.statistics import BandStats, class_pixels, training_statistics
from geoseg.data.store import StoreOptions
from geoseg.data.unlabelled import (
    STRONG,
    PairedBatches,
    PairedSampler,
    check_unlabelled,
    parted,
    read_unlabelled,
    set_apart,
    two_views,
)
from geoseg.errors import InputError
from geoseg.io.regions import open_area
from geoseg.io.stamps import files_in
from geoseg.legend import Legend
from geoseg.progress import progress_bar
from geoseg.tiling import Window

MOST_SEED = 2**32 - 1  # what Lightning takes; torch's generators have room for the batches of such a seed
VALIDATION_SIDE_PX = 256  # smaller validation patches would be mostly the context around them

logger = logging.getLogger(__name__)


class SceneDataModule(LightningDataModule):
    """Training and validation batches from scenes and their labels.

    After `setup` its attributes say what it holds: `legend`, `bands`, `stats`, `gsd_m` (row, col), `scenes`,
    `split_plan`, and `training_pixels`, `validation_pixels` and `test_pixels` (labelled pixels of each class). What it
    holds of `unlabelled` scenes is in none of these figures.

    Args:
        scenes: One mapping a scene. `image`: a source; `labels`: a label raster or vector; `region`: the part of the
            scene to use; `part`: `split` (by default), `training`, `validation` or `test`; `weight`: how often its
            patches are drawn, 1 by default; `name`: for messages. Or one mapping for many: `chips`, `coco`, `torchgeo`.
        legend: The classes: a legend file or a mapping; without, what the labels say of themselves.
        bands: Names of the bands to use, of each image; without, those of the first image.
        missing_bands: What to do where an image lacks a band: refuse, or mask, which hides it from the network there.
        gsd_m: Ground sampling distance to train at, in metres; without, each image's own.
        patch_px: Rows and columns of a patch; multiples of 32 need no padding inside the network.
        batch: Patches in a batch, of each device.
        epoch_patches: Patches in an epoch, of all devices together; after each comes a validation.
        sampling: How patches are drawn.
        split: Which pixels validate.
        augment: What happens to training patches.
        unlabelled: Scenes without labels for `model.semi`: images, or mappings with `image`, `region`, `name` and
            `weight`; `same` stands for all that trains of `scenes`. What lies on or near validation pixels is left out.
        unlabelled_batch: Unlabelled patches in a step, of each device; as many as `batch` by default.
        unlabelled_augment: What the student sees of them; turns and warps hold for its teacher too.
        store: Where decoded scenes are kept.
        workers: Threads that cut patches ahead; 0 cuts each batch when it is asked for, which suits a CPU that trains.
        seed: The draw of patches and augmentation.
    """

    def __init__(
        self,
        *,
        scenes: list[dict[str, Any]],
        legend: str | dict[Any, Any] | None = None,
        bands: list[str] | None = None,
        missing_bands: Literal["refuse", "mask"] = "refuse",
        gsd_m: float | None = None,
        patch_px: int = 256,
        batch: int = 8,
        epoch_patches: int = 512,
        sampling: SamplingOptions = SamplingOptions(),  # noqa: B008 - frozen
        split: SplitOptions = SplitOptions(),  # noqa: B008 - frozen
        augment: AugmentOptions = AugmentOptions(),  # noqa: B008 - frozen
        unlabelled: str | list[str | dict[str, Any]] | None = None,
        unlabelled_batch: int | None = None,
        unlabelled_augment: AugmentOptions = STRONG,
        store: StoreOptions = StoreOptions(),  # noqa: B008 - frozen
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        _check_options(scenes, patch_px=patch_px, batch=batch, epoch_patches=epoch_patches, workers=workers, seed=seed)
        check_unlabelled(unlabelled, batch=unlabelled_batch, labelled_batch=batch, augment=unlabelled_augment)
        self._specs, self._legend_spec, self._wanted_bands, self._gsd_m = scenes, legend, bands, gsd_m
        self._missing_bands = missing_bands
        self.patch_px, self.batch, self.epoch_patches, self.sampling = patch_px, batch, epoch_patches, sampling
        self.split, self.augment, self.store, self.workers, self.seed = split, augment, store, workers, seed
        self.wants_unlabelled, self._unlabelled_spec = unlabelled is not None, unlabelled
        self._unlabelled_batch, self.unlabelled_augment = unlabelled_batch, unlabelled_augment
        self.scenes: tuple[SceneArrays, ...] = ()
        self.unlabelled: tuple[SceneArrays, ...] = ()
        self.largest_px: int | None = None  # that a network takes
        self.split_plan: SplitPlan | None = None
        self._decoded: DecodedSet | None = None
        self._sampler: PatchSampler | None = None
        self._saved: dict[str, Any] = {}

    def setup(self, stage: str | None = None) -> None:  # noqa: ARG002 - Lightning's signature
        """Decodes the scenes, splits them and counts what they hold; the second call does nothing.

        Raises:
            GeosegError: A scene, its labels or the split cannot be used; one line says why.
        """
        if self.scenes:
            return
        opened = open_scenes(
            self._specs,
            legend=self._legend_spec,
            bands=self._wanted_bands,
            gsd_m=self._gsd_m,
            missing_bands=self._missing_bands,
        )
        self.legend: Legend = opened.legend
        self.bands, self.gsd_m, self._opened = opened.bands, opened.gsd_m, opened
        same, others = read_unlabelled(self._unlabelled_spec)
        more = open_unlabelled(others, bands=self.bands, gsd_m=self._gsd_m, missing_bands=self._missing_bands)
        inputs = (*opened.inputs, *more)
        with progress_bar("read scenes") as progress:
            self._decoded = decode_scenes(inputs, legend=self.legend, options=self.store, progress=progress)
        count = len(opened.inputs)
        self.scenes, without_labels = self._decoded.scenes[:count], self._decoded.scenes[count:]
        self.split_plan = split_scenes(
            self.scenes,
            classes=len(self.legend),
            class_names=self.legend.names,
            options=self.split,
            roles=list(opened.roles),
        )
        set_apart(self.scenes, without_labels, buffer_m=self.split_plan.buffer_m)
        self.unlabelled = (*(self.scenes if same else ()), *without_labels)
        self._count()

    @property
    def files(self) -> list[str]:
        """What scenes with labels are read from, once they are set up."""
        return files_in(self._opened.inputs)

    def _count(self) -> None:
        classes = len(self.legend)
        self.stats: BandStats = training_statistics(self.scenes)
        self.training_pixels, self.validation_pixels, self.test_pixels = (
            class_pixels(self.scenes, part=part, classes=classes) for part in (TRAINING, VALIDATION, TEST)
        )
        for pixels, what, so in (
            (self.training_pixels, "training", "the network cannot learn it"),
            (self.validation_pixels, "validation", "its score stays unknown"),
        ):
            absent = [name for name, count in zip(self.legend.names, pixels, strict=True) if not count]
            if absent:
                logger.warning("no %s pixel of class %s: %s", what, ", ".join(absent), so)

    def train_dataloader(self) -> PatchLoader:
        """The patches that `sampling` draws; each epoch has its own."""
        self._sampler = PatchSampler(
            self.scenes,
            LabelIndex.of(self.scenes, classes=len(self.legend), area=_area(self.sampling.area, self._opened)),
            options=self.sampling,
            class_names=self.legend.names,
            patch_px=self.patch_px,
            batch=self.batch,
            epoch_patches=self.epoch_patches,
            seed=self.seed,
        )
        if self._saved:
            self._sampler.load_state_dict(self._saved)
        if self.trainer is not None:  # whoever asks for batches before the loop says which epoch it is
            self._sampler.set_epoch(self.trainer.current_epoch)
        if self.unlabelled:
            batches = PairedBatches(self.scenes, self.unlabelled, patch_px=self.patch_px)
            pairs = PairedSampler(self._sampler, self.scenes, self.unlabelled, batch=self.beside(self.batch))
            return self._loader(batches, pairs)
        return self._loader(PatchBatches(self.scenes, patch_px=self.patch_px, part=TRAINING), self._sampler)

    def val_dataloader(self) -> PatchLoader:
        """A grid of patches that shows every validation label once, with context around it."""
        return self._judged(VALIDATION)

    def test_dataloader(self) -> PatchLoader:
        """The same of the test part."""
        return self._judged(TEST)

    def _judged(self, part: int) -> PatchLoader:
        side = max(self.patch_px, VALIDATION_SIDE_PX)
        side = side if self.largest_px is None else min(side, self.largest_px)
        halo_px = side // 8
        windows = validation_windows(self.scenes, patch_px=side, halo_px=halo_px, part=part)
        step, most = max(1, self.batch * self.patch_px**2 // side**2), len(windows)
        if distributed.is_available() and distributed.is_initialized():
            world = distributed.get_world_size()
            windows, most = share_of(windows, rank=distributed.get_rank(), world=world), -(-most // world)
        # Processes wait for each other at every batch, so each has as many; the last ones may be empty.
        batches = [windows[start : start + step] for start in range(0, most, step)]
        return self._loader(PatchBatches(self.scenes, patch_px=side, part=part, halo_px=halo_px), batches)

    def beside(self, batch: int) -> int:
        """Unlabelled patches in a step of so many labelled ones, of each device."""
        return (self._unlabelled_batch or batch) if self.wants_unlabelled else 0

    def _loader(self, dataset: Batches, sampler: Any) -> PatchLoader:
        return PatchLoader(dataset, sampler, workers=self.workers, pin=self._feeds_gpu())

    def _feeds_gpu(self) -> bool:
        """Whether batches go to a GPU; without a trainer, whether there is one."""
        if self.trainer is None:
            return torch.cuda.is_available()
        return bool(self.trainer.strategy.root_device.type == "cuda")

    def on_after_batch_transfer(self, batch: dict[str, torch.Tensor], dataloader_idx: int) -> dict[str, torch.Tensor]:  # noqa: ARG002
        """Augments training batches on their device; the draw depends on the seed, the batch and the device's rank."""
        batch, unlabelled = parted({**batch, "label": batch["label"].long()})
        if self.trainer is None or not self.trainer.training:
            return batch
        # Batches, not steps of the optimiser: several may make one step.
        drawn = self.trainer.fit_loop.total_batch_idx + 1
        turn = drawn * self.trainer.world_size + self.trainer.global_rank
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + turn)
        mean, std, rare = (
            torch.as_tensor(values, dtype=torch.float32, device=batch["image"].device)
            for values in (self.stats.mean, self.stats.std, rarity(self.training_pixels))
        )
        batch = augment_batch(batch, options=self.augment, mean=mean, std=std, generator=generator, rare=rare)
        if not unlabelled:
            return batch
        views = two_views(unlabelled, options=self.unlabelled_augment, mean=mean, std=std, generator=generator)
        return {**batch, **views}

    @property
    def learns_from_losses(self) -> bool:
        """Whether patches are drawn by their last loss, which `note_losses` then has to be told."""
        return self.sampling.shares.get("hard", 0) > 0

    def note_losses(self, windows: NDArray[np.int64], losses: NDArray[np.float64]) -> None:
        """Remembers the loss of patches, `(n, 3)` as they were drawn and `(n,)`, for the epochs that follow."""
        if self._sampler is not None:
            self._sampler.note(windows, losses)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of the draw."""
        return self._sampler.state_dict() if self._sampler is not None else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on with the draw where a checkpoint was made."""
        self._saved = state_dict

    def outlines(self) -> dict[str, dict[str, Any] | None]:
        """Where the labelled `training` and `validation` pixels lie: coarse GeoJSON geometries in WGS 84."""
        return {
            name: outline_of(self.scenes, part) for name, part in (("training", TRAINING), ("validation", VALIDATION))
        }

    @property
    def unreadable(self) -> Sequence[Any]:
        """What could not be read and was left out, where `store.on_error` is skip."""
        return () if self._decoded is None else self._decoded.unreadable

    def teardown(self, stage: str | None = None) -> None:
        """Nothing: validation may follow training. `close` frees what is held."""

    def close(self) -> None:
        """Forgets the scenes and removes their temporary files."""
        self.scenes, self.unlabelled, self._sampler = (), (), None
        if self._decoded is not None:
            self._decoded.close()
            self._decoded = None


def rarity(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """How rare each class is, `(class,)`: the inverse of its labelled pixels, 1 for the rarest, 0 for absent ones."""
    present = counts > 0
    least = int(counts[present].min()) if present.any() else 1
    return np.where(present, least / np.maximum(counts, 1), 0.0)


def _area(spec: Any, opened: OpenedScenes) -> Mask | list[Mask] | None:
    """The region that patches are drawn in; None for everywhere. It need not touch every scene.

    One on the ground is read once, for all scenes; one in pixels counts in each image anew.
    """
    if spec is None:
        return None
    areas: dict[int, Mask] = {}
    refused: list[InputError] = []
    for number, scene in enumerate(opened.inputs):
        try:
            area = open_area(spec, scene.image.geobox)
        except InputError as error:
            refused.append(error)
            continue
        if not isinstance(area.region, Window):
            return area
        areas[number] = area
    if not areas:
        raise refused[0]
    return [areas.get(number, NOWHERE) for number in range(len(opened.inputs))]


def _check_options(
    scenes: list[dict[str, Any]], *, patch_px: int, batch: int, epoch_patches: int, workers: int, seed: int
) -> None:
    if not scenes:
        raise InputError("data.scenes is empty: needed is at least one mapping with image and labels")
    if patch_px < 32:
        raise InputError(f"patch_px is {patch_px}: needed is 32 or more")
    if batch < 1 or epoch_patches < batch:
        raise InputError(f"batch is {batch} and epoch_patches {epoch_patches}: needed is 1 <= batch <= epoch_patches")
    if workers < 0:
        raise InputError(f"workers is {workers}: needed is 0 or more")
    if not 0 <= seed <= MOST_SEED:
        raise InputError(f"seed is {seed}: needed is a whole number from 0 to {MOST_SEED:,}")


def counts_by_name(legend: Legend, counts: NDArray[np.int64]) -> dict[str, int]:
    """Pixels of each class by its name."""
    return dict(zip(legend.names, counts.tolist(), strict=True))
