"""What the benchmarks of training data share: a scene with labels, and the loaders of both sides."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import rasterio
from _scenes import BANDS, write_base, write_tiff
from affine import Affine
from rasterio.warp import Resampling, calculate_default_transform, reproject

from geoseg.data import SceneDataModule

CLASSES = 8
PATCH_PX = 256
OTHER_CRS = "EPSG:3035"


@dataclass(frozen=True)
class Files:
    """A scene of six uint16 bands, its labels on its own grid, and the same labels in another CRS."""

    image: Path
    labels: Path
    other_labels: Path


def write_files(folder: Path, side: int) -> Files:
    """All three as tiled DEFLATE GeoTIFFs."""
    image = write_tiff(folder / "image.tif", write_base(folder / "base.tif"), side)
    labels = _write_labels(folder / "labels.tif", image, side)
    return Files(image, labels, _write_warped(folder / "labels_3035.tif", labels))


def _write_labels(path: Path, image: Path, side: int) -> Path:
    coarse = np.random.default_rng(1).integers(1, CLASSES + 1, (side // 32, side // 32))
    with rasterio.open(image) as file:
        profile = {**file.profile, "count": 1, "dtype": "uint8", "nodata": 0}
    with rasterio.open(path, "w", **profile) as file:
        file.write(np.kron(coarse, np.ones((32, 32), np.uint8)).astype(np.uint8), 1)
    return path


def _write_warped(path: Path, labels: Path) -> Path:
    with rasterio.open(labels) as file:
        place = calculate_default_transform(file.crs, OTHER_CRS, file.width, file.height, *file.bounds)
        transform, cols, rows = place
        profile = {**file.profile, "crs": OTHER_CRS, "transform": Affine(*transform[:6]), "width": cols, "height": rows}
        with rasterio.open(path, "w", **profile) as out:
            reproject(
                rasterio.band(file, 1), rasterio.band(out, 1), resampling=Resampling.nearest, num_threads=2,
            )  # fmt: skip
    return path


def ours(files: Files, *, labels: Path, patches: int, batch: int, workers: int, **options: Any) -> SceneDataModule:
    """The data module, set up: the scene decoded, split and counted."""
    legend = {value: f"class {value}" for value in range(1, CLASSES + 1)}
    data = SceneDataModule(
        scenes=[{"image": str(files.image), "labels": str(labels)}], legend=legend,
        patch_px=PATCH_PX, batch=batch, epoch_patches=patches, workers=workers, **options,
    )  # fmt: skip
    data.setup()
    return data


def torchgeo_loader(files: Files, *, labels: Path, patches: int, batch: int, workers: int) -> Iterable[Any]:
    """Torchgeo's own way: image & mask, random windows, a DataLoader."""
    from torch.utils.data import DataLoader
    from torchgeo.datasets import RasterDataset, stack_samples
    from torchgeo.samplers import RandomGeoSampler

    class Labels(RasterDataset):
        is_image = False

    dataset = RasterDataset(str(files.image)) & Labels(str(labels))
    sampler = RandomGeoSampler(dataset, size=PATCH_PX, length=patches)
    return DataLoader(dataset, batch, sampler=sampler, num_workers=workers, collate_fn=stack_samples)


def rate(batches: Callable[[], Iterable[dict[str, Any]]]) -> float:
    """Patches a second of one epoch, with what it takes to begin it."""
    start, count = time.perf_counter(), 0
    for batch in batches():
        count += len(batch["image"])
    return count / (time.perf_counter() - start)


def alternating(sides: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Each side's figures of all rounds, one side after the other in each."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, measure in sides.items():
            found[name].append(round(measure(), 1))
            print(name, found[name][-1], file=sys.stderr, flush=True)
    return found


def middle(values: list[float]) -> float:
    """The median, rounded."""
    return round(median(values), 1)


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """What all of them take."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--side", type=int, default=4096, help="pixels of the scene each way")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    return parser


__all__ = ["BANDS", "PATCH_PX", "Files", "alternating", "arguments", "middle", "ours", "rate", "torchgeo_loader",
           "write_files"]  # fmt: skip
