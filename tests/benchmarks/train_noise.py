"""How much does a robust loss lose where 20 % of the training labels are wrong?

A synthetic landscape whose west trains and whose east, with true labels, judges. Of the west's labels a fifth is wrong,
those that validate included: every other class is as likely (symmetric noise), in blobs of some ten pixels that were
mislabelled together (`blobs`), or pixel by pixel (`pixels`). Or all lie off (`displaced`), each block of 256 pixels by
another shift of up to 3. Three runs that differ in nothing but labels and loss: true labels with cross-entropy, wrong
ones with cross-entropy, wrong ones with the robust loss, or with cross-entropy and `label_shift_px`.
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
BLOCK_PX, SHIFT_PX = 256, 3
KINDS = ("pixels", "blobs", "displaced")
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
    parser.add_argument("--noise", nargs="+", choices=KINDS, default=list(KINDS))
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
    plain = {"loss": {"ce": 1.0}}
    robust = {**plain, "label_shift_px": SHIFT_PX + 1} if noise == "displaced" else {"loss": options.robust}
    arms = {"clean": ("clean", plain), "plain": ("noisy", plain), "robust": ("noisy", robust)}
    found = {}
    for name, (labels, learning) in arms.items():
        result = run_fit(config(image, files[labels], learning, options, folder=folder, seed=seed))
        found[name] = round(mean_iou(land, image, result.model, folder=folder), 4)
        print(noise, seed, name, found[name], file=sys.stderr, flush=True)
    return found


def spoilt(land: Landscape, noise: str, *, seed: int) -> Any:
    """The labels, a fifth of them wrong, or all of them off."""
    rng = np.random.default_rng((seed, 1))
    if noise == "displaced":
        return replace(land.labels, pixels=displaced(rng, land.labels.pixels[0])[None])
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


def displaced(rng: np.random.Generator, plane: NDArray[Any]) -> NDArray[Any]:
    """The plane with each block from another place, up to `SHIFT_PX` off along each axis."""
    wide, out = np.pad(plane, SHIFT_PX, mode="edge"), np.empty_like(plane)
    for row in range(0, plane.shape[0], BLOCK_PX):
        for col in range(0, plane.shape[1], BLOCK_PX):
            block = out[row : row + BLOCK_PX, col : col + BLOCK_PX]
            down, right = rng.integers(0, 2 * SHIFT_PX + 1, 2)
            block[:] = wide[row + down :, col + right :][: block.shape[0], : block.shape[1]]
    return out


def config(
    image: Path, labels: Path, learning: dict[str, Any], options: argparse.Namespace, *, folder: Path, seed: int
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
            **learning,
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
        lost_plain=round(means["clean"] - means["plain"], 4),
        robust_loss="label_shift_px" if noise == "displaced" else options.robust,
        steps=options.steps, patch_px=PATCH_PX, batch=BATCH, scene_px=list(options.side), seeds=rows,
        seconds=round(seconds, 1), threads=torch.get_num_threads(),
    )  # fmt: skip


if __name__ == "__main__":
    main()
