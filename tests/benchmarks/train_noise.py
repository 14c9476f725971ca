"""How much does a robust loss lose where 20 % of the training labels are wrong?

A synthetic landscape whose west trains and whose east, with true labels, judges. Of the west's labels a fifth is wrong,
those that validate included: every other class is as likely (symmetric noise), in blobs of some ten pixels that were
mislabelled together (`blobs`), or pixel by pixel (`pixels`). Three runs that differ in nothing but labels and loss:
true labels with cross-entropy, wrong ones with cross-entropy, wrong ones with the robust loss.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import rasterio
import torch
from _run import emit
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, label

from geoseg import io, pipeline, synthetic
from geoseg.accuracy import Confusion
from geoseg.synthetic.scene import Landscape
from geoseg.training.run import run_fit

SHARE, BLOB_PX = 0.2, 5.0
PATCH_PX, BATCH, GAP_PX = 64, 8, 32
ROBUST = {"gce": {"q": 0.4}}
BAR = 0.02  # mean IoU lost against true labels


def main() -> None:
    """Measure and print."""
    options = arguments().parse_args()
    with tempfile.TemporaryDirectory(prefix="geoseg-bench-") as folder:
        for noise in options.noise:
            start = time.perf_counter()
            rows = [trained(Path(folder), noise, options, seed=seed) for seed in range(options.seeds)]
            verdict(noise, rows, options, seconds=time.perf_counter() - start)


def arguments() -> argparse.ArgumentParser:
    """The options of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--noise", nargs="+", choices=("blobs", "pixels"), default=["pixels", "blobs"])
    parser.add_argument(
        "--seeds", type=int, default=3, help="each has its landscape, its wrong labels and its training"
    )
    parser.add_argument("--steps", type=int, default=240, help="of the optimiser")
    parser.add_argument("--side", type=int, nargs=2, default=(512, 768), metavar=("ROWS", "COLS"))
    parser.add_argument("--robust", type=json.loads, default=ROBUST, help="model.loss as JSON")
    return parser


def trained(folder: Path, noise: str, options: argparse.Namespace, *, seed: int) -> dict[str, float]:
    """Mean IoU on the east of each run."""
    land = synthetic.landscape(seed, shape=tuple(options.side))
    image = io.write_raster(land.image, folder / "image.tif", nodata=0, overwrite=True)
    files = {
        "clean": io.write_raster(land.labels, folder / "clean.tif", legend=land.legend, overwrite=True),
        "noisy": io.write_raster(
            spoilt(land, noise, seed=seed), folder / "noisy.tif", legend=land.legend, overwrite=True
        ),
    }
    arms = {"clean": ("clean", {"ce": 1.0}), "plain": ("noisy", {"ce": 1.0}), "robust": ("noisy", options.robust)}
    found = {}
    for name, (labels, loss) in arms.items():
        result = run_fit(config(image, files[labels], loss, options, folder=folder, seed=seed))
        found[name] = round(mean_iou(land, image, result.model, folder=folder), 4)
        print(noise, seed, name, found[name], file=sys.stderr, flush=True)
    return found


def spoilt(land: Landscape, noise: str, *, seed: int) -> Any:
    """The labels, a fifth of them wrong."""
    rng = np.random.default_rng((seed, 1))
    ids, truth = land.legend.ids, land.labels.pixels
    channel = np.searchsorted(ids, truth)
    moved = (channel + offsets(rng, noise, truth.shape[1:], classes=len(ids))) % len(ids)
    return replace(land.labels, pixels=ids[moved].astype(truth.dtype))


def offsets(rng: np.random.Generator, noise: str, shape: tuple[int, ...], *, classes: int) -> NDArray[np.int64]:
    """How many classes further the label of each pixel is, 0 where it is right: one number a blob."""
    if noise == "pixels":
        return np.where(rng.random(shape) < SHARE, rng.integers(1, classes, shape), 0)
    field = gaussian_filter(rng.standard_normal(shape), BLOB_PX, mode="wrap")
    blobs, count = label(field > np.quantile(field, 1 - SHARE))
    return np.concatenate([[0], rng.integers(1, classes, count)])[blobs]


def config(
    image: Path, labels: Path, loss: dict[str, Any], options: argparse.Namespace, *, folder: Path, seed: int
) -> dict[str, Any]:
    """The run; all but the loss is as in the demo, with a smaller network."""
    epoch_steps = min(40, options.steps)
    scene = {"image": str(image), "labels": str(labels), "region": {"cols": [0, train_cols(options.side[1])]}}
    return {
        "name": "noise",
        "runs": str(folder),
        "overwrite": True,
        "logs": [],
        "seed_everything": seed,
        "data": {"scenes": [scene], "patch_px": PATCH_PX, "batch": BATCH, "epoch_patches": BATCH * epoch_steps},
        "model": {
            "encoder": "resnet18",
            "options": {"encoder_depth": 3, "decoder_channels": [48, 24, 16]},
            "loss": loss,
            "label_smoothing": 0.0,
        },
        "trainer": {"max_epochs": -(-options.steps // epoch_steps), "accelerator": "cpu"},
        "early_stopping": {"patience": 10**6},
        "validation": {"places": 0},
    }


def train_cols(cols: int) -> int:
    """Columns that train; the last third, but for a gap of 32, judges."""
    return 2 * cols // 3


def mean_iou(land: Landscape, image: Path, model: Path, *, folder: Path) -> float:
    """Of the map of the east, against its true labels."""
    mapped = folder / "map.tif"
    pipeline.predict([str(image)], model=model, out=mapped, overwrite=True)
    with rasterio.open(mapped) as file:
        found = file.read(1)
    judged = land.image.valid.copy()
    judged[:, : train_cols(judged.shape[1]) + GAP_PX] = False
    return Confusion.zeros(land.legend).update(found, judged, land.labels.pixels[0], judged).finish().mean_iou


def verdict(noise: str, rows: list[dict[str, float]], options: argparse.Namespace, *, seconds: float) -> None:
    """The line of a kind of noise: means over the seeds."""
    means = {name: round(mean(row[name] for row in rows), 4) for name in rows[0]}
    emit(
        "train_noise", noise=noise, share=SHARE, ours=means["robust"], reference=means["clean"],
        ratio=round(means["robust"] / means["clean"], 4), unit="mean IoU on true labels",
        ratio_is="robust loss on wrong labels/cross-entropy on true ones", better="higher",
        lost=round(means["clean"] - means["robust"], 4), bar_lost=BAR, plain=means["plain"],
        lost_plain=round(means["clean"] - means["plain"], 4), robust_loss=options.robust,
        steps=options.steps, patch_px=PATCH_PX, batch=BATCH, scene_px=list(options.side), seeds=rows,
        seconds=round(seconds, 1), threads=torch.get_num_threads(),
    )  # fmt: skip


if __name__ == "__main__":
    main()
