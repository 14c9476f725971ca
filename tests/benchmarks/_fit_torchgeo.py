"""The side of torchgeo in `train_torchgeo`: its task, its datamodule and Lightning's trainer, as its tutorials say.

The datamodule is made like torchgeo's own of NAIP and Chesapeake (two raster datasets, `&`, a part of the ground for
each split), with the augmentation of its own of Landsat 8 (L8 Biome). The best checkpoint is that of the least
`val_loss`, which the tutorials keep. Learning rate, loss, schedule and patience are the task's defaults.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import kornia.augmentation as K  # noqa: N812 - as torchgeo does
import rasterio
import shapely
import torch
from _fit_common import (
    BUFFER_PX,
    CLASSES,
    ENCODER,
    FIRST_ID,
    TRAIN_COLS,
    UNLABELLED,
    VALIDATION_FROM_ROW,
    StepClock,
    parse,
    report,
)
from kornia.constants import DataKey, Resample
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torchgeo.datamodules import GeoDataModule
from torchgeo.datasets import RasterDataset
from torchgeo.samplers import GridGeoSampler, RandomBatchGeoSampler
from torchgeo.trainers import SemanticSegmentationTask


class Labels(RasterDataset):
    """The labels."""

    is_image = False


def to_channels(sample: dict[str, Any]) -> dict[str, Any]:
    """Ids 1 to 8 as channels 0 to 7."""
    mask = sample["mask"]
    sample["mask"] = torch.where(mask == UNLABELLED, UNLABELLED, mask - FIRST_ID)
    return sample


class Zion(GeoDataModule):
    """The west of zion: its north trains, its south validates."""

    def __init__(
        self, image: Path, labels: Path, *, mean: torch.Tensor, std: torch.Tensor, augment: str, **kwargs: Any
    ) -> None:
        self.mean, self.std = mean, std  # before the parent makes its normalisation from them
        super().__init__(RasterDataset, **kwargs)
        self.image, self.labels = image, labels
        if augment == "landsat":
            self.train_aug = K.AugmentationSequential(
                K.Normalize(mean=mean, std=std),
                K.RandomResizedCrop((self.patch_size, self.patch_size), scale=(0.6, 1.0)),
                K.RandomVerticalFlip(p=0.5),
                K.RandomHorizontalFlip(p=0.5),
                data_keys=None, keepdim=True,
                extra_args={DataKey.MASK: {"resample": Resample.NEAREST, "align_corners": None}},
            )  # fmt: skip

    def setup(self, stage: str) -> None:
        """Datasets and samplers."""
        if stage != "fit":
            return
        self.dataset = RasterDataset(str(self.image)) & Labels(str(self.labels), transforms=to_channels)
        train, validation = parts(self.image)
        self.train_batch_sampler = RandomBatchGeoSampler(
            self.dataset, self.patch_size, self.batch_size, self.length, train
        )
        self.val_sampler = GridGeoSampler(self.dataset, self.patch_size, self.patch_size, validation)


def parts(image: Path) -> tuple[shapely.Polygon, shapely.Polygon]:
    """Where training and validation patches lie."""
    with rasterio.open(image) as file:
        grid, rows = file.transform, file.height

    def box(first: int, last: int) -> shapely.Polygon:
        (left, top), (right, bottom) = grid @ (0, first), grid @ (TRAIN_COLS, last)
        return shapely.box(left, bottom, right, top)

    return box(0, VALIDATION_FROM_ROW - BUFFER_PX), box(VALIDATION_FROM_ROW, rows)


def moments(image: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each band over the training part; torchgeo's users write them into their class."""
    with rasterio.open(image) as file:
        pixels = file.read(window=((0, VALIDATION_FROM_ROW - BUFFER_PX), (0, TRAIN_COLS))).astype("float64")
    return torch.tensor(pixels.mean((1, 2))).float(), torch.tensor(pixels.std((1, 2))).float()


def main() -> None:
    """Train, map and print."""
    options = parse()
    warnings.simplefilter("ignore")
    seed_everything(options.seed)
    mean, std = moments(options.image)
    start = time.perf_counter()
    data = Zion(
        options.image, options.labels, mean=mean, std=std, augment=options.augment, batch_size=options.batch,
        patch_size=options.patch, length=options.batch * options.epoch_steps, num_workers=options.workers,
    )  # fmt: skip
    task = SemanticSegmentationTask(
        model="unet", backbone=ENCODER, in_channels=len(mean), num_classes=CLASSES, ignore_index=UNLABELLED
    )
    best = ModelCheckpoint(monitor="val_loss", dirpath=options.folder / "torchgeo", save_top_k=1, save_last=True)
    trainer = Trainer(
        accelerator="cpu", max_epochs=options.epochs, callbacks=[best, StepClock()], log_every_n_steps=1,
        logger=TensorBoardLogger(save_dir=options.folder, name="torchgeo"), enable_progress_bar=False,
    )  # fmt: skip
    trainer.fit(task, datamodule=data)
    fit = time.perf_counter() - start
    trained = SemanticSegmentationTask.load_from_checkpoint(best.best_model_path, weights_only=False)
    report(options, trained.model, fit=fit, mean=mean, std=std)


if __name__ == "__main__":
    main()
