"""What both sides of `train_torchgeo` share: arguments, the data and its parts, the clock, and the map of the east."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import rasterio
import torch
from lightning.pytorch import Callback
from rasterio.vrt import WarpedVRT

CLASSES, FIRST_ID, UNLABELLED = 8, 1, 255  # ids 1 to 8 in the file
TRAIN_COLS, TEST_FROM_COL = 676, 708  # between them lies a gap
VALIDATION_FROM_ROW, BUFFER_PX = 1140, 32  # the south of the west validates, a fifth of it
ENCODER = "resnet18"
TILE_PX, HALO_PX = 256, 32


class StepClock(Callback):
    """Seconds of each training step with the wait for its batch; validation and checkpoints lie between epochs."""

    seconds: list[float] = []  # noqa: RUF012 - the command line makes the instance, so the class keeps the figures

    def on_train_epoch_start(self, *_: Any) -> None:
        """Starts the clock."""
        self._mark = time.perf_counter()

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        """Notes a step."""
        now = time.perf_counter()
        self.seconds.append(now - self._mark)
        self._mark = now


def parse() -> argparse.Namespace:
    """The arguments of a side."""
    parser = argparse.ArgumentParser()
    for name in ("image", "labels", "folder"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("epochs", "epoch-steps", "batch", "patch", "seed"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--augment", choices=("landsat", "none"), default="landsat", help="of torchgeo")
    return parser.parse_args()


def report(options: argparse.Namespace, network: torch.nn.Module, *, fit: float, mean: Any, std: Any) -> None:
    """Map the east, and print what the side took and how good its map is."""
    steps = StepClock.seconds
    counts = count_east(network, mean=mean, std=std, image=options.image, labels=options.labels)
    found = {
        "fit_seconds": round(fit, 2), "step_seconds": round(median(steps), 4), "steps": len(steps),
        "stepping_seconds": round(sum(steps), 2), **scores(counts), "threads": torch.get_num_threads(),
        "parameters": sum(parameter.numel() for parameter in network.parameters()), "cores": os.cpu_count(),
    }  # fmt: skip
    print(json.dumps(found), flush=True)


def _onto(labels: Any, image: Any) -> WarpedVRT:
    """The labels on the image's grid, by nearest neighbour."""
    return WarpedVRT(labels, crs=image.crs, transform=image.transform, width=image.width, height=image.height)


def count_east(network: torch.nn.Module, *, mean: Any, std: Any, image: Path, labels: Path) -> np.ndarray:
    """Confusion counts on the east, `(true, mapped)`: a plain loop over tiles that see 32 pixels around their own."""
    window = rasterio.windows.Window(TEST_FROM_COL, 0, 10**6, 10**6)
    with rasterio.open(image) as file, rasterio.open(labels) as own, _onto(own, file) as truth:
        window = window.intersection(rasterio.windows.Window(0, 0, file.width, file.height))
        pixels, ids = file.read(window=window).astype(np.float32), truth.read(1, window=window)
    moments = (np.asarray(values, np.float32)[:, None, None] for values in (mean, std))
    centre, spread = moments
    mapped = _mapped(network.eval(), (pixels - centre) / spread)
    known = ids != UNLABELLED
    pairs = (ids[known].astype(np.int64) - FIRST_ID) * CLASSES + mapped[known]
    return np.bincount(pairs, minlength=CLASSES**2).reshape(CLASSES, CLASSES)


def _mapped(network: torch.nn.Module, scaled: np.ndarray) -> np.ndarray:
    """Classes `(row, col)` of a scaled image `(band, row, col)`."""
    _, rows, cols = scaled.shape
    step = TILE_PX - 2 * HALO_PX
    after = [HALO_PX + -size % step for size in (rows, cols)]
    padded = np.pad(scaled, ((0, 0), (HALO_PX, after[0]), (HALO_PX, after[1])), mode="reflect")
    found = np.zeros((rows + step, cols + step), np.int64)
    for row in range(0, rows, step):
        for col in range(0, cols, step):
            tile = torch.from_numpy(padded[None, :, row : row + TILE_PX, col : col + TILE_PX])
            with torch.inference_mode():
                classes = network(tile).argmax(1)[0].numpy()
            found[row : row + step, col : col + step] = classes[HALO_PX:-HALO_PX, HALO_PX:-HALO_PX]
    return found[:rows, :cols]


def scores(counts: np.ndarray) -> dict[str, float]:
    """Overall accuracy, and mean IoU over all eight classes."""
    hits = np.diag(counts)
    iou = hits / np.maximum(counts.sum(0) + counts.sum(1) - hits, 1)
    return {"overall_accuracy": round(float(hits.sum() / counts.sum()), 4), "mean_iou": round(float(iou.mean()), 4)}
