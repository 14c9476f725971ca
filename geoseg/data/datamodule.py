"""Scenes and labels as a LightningDataModule."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from geoseg.data.augment import AugmentOptions, augment_batch
from geoseg.data.grids import grid_at, ground_gsd_m, outline
from geoseg.data.patches import decode_scene, store_bytes
from geoseg.data.sampling import ClassIndex, PatchBatches, PatchSampler, validation_windows
from geoseg.data.scene import TRAINING, VALIDATION, SceneArrays
from geoseg.data.splits import SplitOptions, split_scenes
from geoseg.data.statistics import BandStats, class_pixels, training_statistics
from geoseg.errors import InputError, LegendError
from geoseg.io.labels import open_labels, read_legend
from geoseg.io.regions import region_mask
from geoseg.io.sources import Source, open_source
from geoseg.legend import Legend
from geoseg.raster import match_bands

SCENE_KEYS = ("image", "labels", "region", "part", "name")
ROLES = ("split", "training", "validation")

logger = logging.getLogger(__name__)


class SceneDataModule(LightningDataModule):
    """Training and validation batches from scenes and their labels.

    After `setup` its attributes say what it holds: `legend`, `bands`, `stats`, `gsd_m` (row, col), `scenes`,
    `training_pixels` and `validation_pixels` (labelled pixels of each class).

    Args:
        scenes: One mapping a scene. `image`: a source; `labels`: a label raster or vector; `region`: the part of the
            scene to use; `part`: `split` (by default), `training` or `validation`; `name`: for messages.
        legend: The classes: a legend file or a mapping; without, what the labels say of themselves.
        bands: Names of the bands to use, of each image; without, those of the first image.
        gsd_m: Ground sampling distance to train at, in metres; without, each image's own.
        patch_px: Rows and columns of a patch; a multiple of 32.
        batch: Patches in a batch.
        epoch_patches: Patches in an epoch; after each comes a validation.
        balance: Share of patches whose class is drawn evenly, the others by how common classes are.
        jitter_px: How far a patch's middle may lie from the pixel it was drawn for; without, a quarter of a patch.
        split: Which pixels validate.
        augment: What happens to training patches.
        workers: Processes that cut patches; 0 cuts them in this one, which is fastest while the store is in memory.
        seed: The draw of patches and augmentation.
        memory_cap_gb: Decoded scenes above this size go to memory-mapped files.
        cache: Folder for these files; without, a temporary one that goes at the end.
    """

    def __init__(
        self,
        *,
        scenes: list[dict[str, Any]],
        legend: str | dict[Any, Any] | None = None,
        bands: list[str] | None = None,
        gsd_m: float | None = None,
        patch_px: int = 256,
        batch: int = 8,
        epoch_patches: int = 512,
        balance: float = 0.5,
        jitter_px: int | None = None,
        split: SplitOptions = SplitOptions(),  # noqa: B008 - frozen
        augment: AugmentOptions = AugmentOptions(),  # noqa: B008 - frozen
        workers: int = 0,
        seed: int = 0,
        memory_cap_gb: float = 4.0,
        cache: str | None = None,
    ) -> None:
        super().__init__()
        _check_options(scenes, patch_px=patch_px, batch=batch, epoch_patches=epoch_patches)
        self._specs, self._legend_spec, self._wanted_bands, self._gsd_m = scenes, legend, bands, gsd_m
        self.patch_px, self.batch, self.epoch_patches, self.balance = patch_px, batch, epoch_patches, balance
        self.jitter_px = patch_px // 4 if jitter_px is None else jitter_px
        self.split, self.augment, self.workers, self.seed = split, augment, workers, seed
        self._cap_bytes, self._cache = memory_cap_gb * 2**30, cache
        self._temporary: Path | None = None
        self.scenes: list[SceneArrays] = []

    def setup(self, stage: str | None = None) -> None:  # noqa: ARG002 - Lightning's signature
        """Decodes the scenes, splits them and counts what they hold; the second call does nothing.

        Raises:
            GeosegError: A scene, its labels or the split cannot be used; one line says why.
        """
        if self.scenes:
            return
        images = [open_source(spec["image"]) for spec in self._specs]
        images, self.bands = _same_bands(images, self._specs, self._wanted_bands)
        labels, self.legend = _same_legend(self._specs, self._legend_spec)
        decoded = self._decode(images, labels)
        roles = [str(spec.get("part", "split")) for spec in self._specs]
        self.scenes = split_scenes(decoded, classes=len(self.legend), options=self.split, roles=roles)
        self._count()

    def _decode(self, images: Sequence[Source], labels: Sequence[Source]) -> list[SceneArrays]:
        grids = [grid_at(image.geobox, self._gsd_m) for image in images]
        self.gsd_m = ground_gsd_m(grids[0])
        sizes = [
            store_bytes((grid.shape[0], grid.shape[1]), bands=len(image.bands), dtype=image.dtype)
            for grid, image in zip(grids, images, strict=True)
        ]
        folder = self._store_folder() if sum(sizes) > self._cap_bytes else None
        decoded = []
        for k, (spec, image, told, grid) in enumerate(zip(self._specs, images, labels, grids, strict=True)):
            name = str(spec.get("name") or _scene_name(spec["image"], k))
            inside = region_mask(spec.get("region"), grid, grid=image.geobox)
            own = folder / str(k) if folder else None
            decoded.append(
                decode_scene(image, told, legend=self.legend, grid=grid, inside=inside, name=name, folder=own)
            )
        return decoded

    def _store_folder(self) -> Path:
        self._temporary = Path(tempfile.mkdtemp(prefix="geoseg-store-", dir=self._cache))
        return self._temporary

    def _count(self) -> None:
        classes = len(self.legend)
        self.stats: BandStats = training_statistics(self.scenes)
        self.training_pixels = class_pixels(self.scenes, part=TRAINING, classes=classes)
        self.validation_pixels = class_pixels(self.scenes, part=VALIDATION, classes=classes)
        for pixels, what, so in (
            (self.training_pixels, "training", "the network cannot learn it"),
            (self.validation_pixels, "validation", "its score stays unknown"),
        ):
            absent = [name for name, count in zip(self.legend.names, pixels, strict=True) if not count]
            if absent:
                logger.warning("no %s pixel of class %s: %s", what, ", ".join(absent), so)

    def train_dataloader(self) -> DataLoader[dict[str, torch.Tensor]]:
        """Random and class-balanced patches; each epoch has its own."""
        sampler = PatchSampler(
            [scene.shape for scene in self.scenes],
            ClassIndex.of(self.scenes, counts=self.training_pixels, seed=self.seed),
            patch_px=self.patch_px, batch=self.batch, batches=max(1, self.epoch_patches // self.batch),
            balance=self.balance, jitter_px=self.jitter_px, seed=self.seed,
        )  # fmt: skip
        return self._loader(PatchBatches(self.scenes, patch_px=self.patch_px, part=TRAINING), sampler)

    def val_dataloader(self) -> DataLoader[dict[str, torch.Tensor]]:
        """A grid of patches that shows every validation label once, with context around it."""
        side = max(self.patch_px, 256)
        halo_px = side // 8
        windows = validation_windows(self.scenes, patch_px=side, halo_px=halo_px)
        step = max(1, self.batch * self.patch_px**2 // side**2)
        batches = [windows[start : start + step] for start in range(0, len(windows), step)]
        dataset = PatchBatches(self.scenes, patch_px=side, part=VALIDATION, halo_px=halo_px)
        return self._loader(dataset, batches)

    def _loader(self, dataset: PatchBatches, sampler: Any) -> DataLoader[dict[str, torch.Tensor]]:
        pin = torch.cuda.is_available()
        return DataLoader(dataset, sampler=sampler, batch_size=None, num_workers=self.workers, pin_memory=pin)

    def on_after_batch_transfer(self, batch: dict[str, torch.Tensor], dataloader_idx: int) -> dict[str, torch.Tensor]:  # noqa: ARG002
        """Augments training batches on their device; the draw depends on the seed and the step alone."""
        if self.trainer is None or not self.trainer.training:
            return batch
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.trainer.global_step)
        mean, std = (
            torch.as_tensor(values, dtype=torch.float32, device=batch["image"].device)
            for values in (self.stats.mean, self.stats.std)
        )
        return augment_batch(batch, options=self.augment, mean=mean, std=std, generator=generator)

    def outlines(self) -> dict[str, dict[str, Any] | None]:
        """Where the labelled `training` and `validation` pixels lie: coarse GeoJSON geometries in WGS 84."""
        told = [(scene, scene.labels != scene.no_label) for scene in self.scenes]
        return {
            name: outline([((scene.part == part) & labelled, scene.geobox) for scene, labelled in told])
            for name, part in (("training", TRAINING), ("validation", VALIDATION))
        }

    def teardown(self, stage: str | None = None) -> None:
        """Nothing: validation may follow training. `close` frees what is held."""

    def close(self) -> None:
        """Forgets the scenes and removes their temporary files."""
        self.scenes = []
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None


def _check_options(scenes: list[dict[str, Any]], *, patch_px: int, batch: int, epoch_patches: int) -> None:
    if not scenes:
        raise InputError("data.scenes is empty: needed is at least one mapping with image and labels")
    for scene in scenes:
        stray, lacking = set(scene) - set(SCENE_KEYS), {"image", "labels"} - set(scene)
        if stray or lacking:
            problem = f"unknown key {', '.join(sorted(stray))}" if stray else f"no {', '.join(sorted(lacking))}"
            raise InputError(f"a scene has {problem}; its keys are {', '.join(SCENE_KEYS)}")
        if scene.get("part", "split") not in ROLES:
            raise InputError(f"a scene's part is '{scene['part']}'; known are {', '.join(ROLES)}")
    if patch_px < 32 or patch_px % 32:
        raise InputError(f"patch_px is {patch_px}: needed is a multiple of 32")
    if batch < 1 or epoch_patches < batch:
        raise InputError(f"batch is {batch} and epoch_patches {epoch_patches}: needed is 1 <= batch <= epoch_patches")


def _scene_name(spec: Any, number: int) -> str:
    return spec if isinstance(spec, str | Path) and len(str(spec)) < 200 else f"scene {number + 1}"  # type: ignore[return-value]


def _same_bands(
    images: list[Source], specs: list[dict[str, Any]], wanted: list[str] | None
) -> tuple[list[Source], tuple[str, ...]]:
    """Every image with the same bands in the same order, and their names."""
    names = tuple(wanted or images[0].bands)
    chosen = []
    for image, spec in zip(images, specs, strict=True):
        match_bands(names, image.bands)
        same = tuple(band.lower() for band in image.bands) == tuple(name.lower() for name in names)
        chosen.append(image if same else open_source(_selected(spec["image"], names)))
    return chosen, names


def _selected(spec: Any, names: Sequence[str]) -> dict[str, Any]:
    """The source spec that reads only `names`, in that order."""
    if isinstance(spec, Mapping):
        return {**spec, "select": list(names)}
    return {"mosaic" if isinstance(spec, list) else "path": spec, "select": list(names)}


def _same_legend(specs: list[dict[str, Any]], legend_spec: Any) -> tuple[list[Any], Legend]:
    """The labels of all scenes under one legend: the one given, else the union of what the labels say."""
    legend = None if legend_spec is None else read_legend(legend_spec)
    opened = [open_labels(spec["labels"], legend=legend) for spec in specs]
    found = [own for _, own in opened]
    if all(own == found[0] for own in found):
        return [source for source, _ in opened], found[0]
    union = _union(found)
    return [open_labels(spec["labels"], legend=union)[0] for spec in specs], union


def _union(legends: list[Legend]) -> Legend:
    classes: dict[int, Any] = {}
    for item in (item for legend in legends for item in legend.classes):
        known = classes.setdefault(item.id, item)
        if known.name != item.name:
            raise LegendError(
                f"class {item.id} is '{known.name}' in one scene's labels and '{item.name}' in another's; give a legend"
            )
    return Legend(tuple(classes.values()), legends[0].ignore)


def counts_by_name(legend: Legend, counts: NDArray[np.int64]) -> dict[str, int]:
    """Pixels of each class by its name."""
    return dict(zip(legend.names, counts.tolist(), strict=True))
