"""How long does `geoseg fit` take, and how good is its map, beside torchgeo's segmentation task?

The same U-Net on zion, the same patch size, batch and number of steps, the same part for validation after each epoch
and the same threads; each side in a process of its own, one after the other, with another seed in each round. What each
package decides for its users is left to it: torchgeo's task has cross-entropy at a constant 0.001 and takes the
checkpoint of the least validation loss; geoseg has cross-entropy and Dice, a one-cycle schedule, half of the patches
balanced over the classes, and averaged weights. Seconds are those of the whole fit, from files to the best weights,
without imports; those of geoseg include its judgement of the stitched validation part and its pictures. Both networks
then map the east in one plain loop.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import mean, median
from typing import Any

from _run import emit, need_shared

SIDES = {"ours": "_fit_geoseg.py", "reference": "_fit_torchgeo.py"}
BAR = 2.0
WORKERS = (0, 2)
SCORES = ("overall_accuracy", "mean_iou")


def main() -> None:
    """Measure and print."""
    options = arguments().parse_args()
    data = need_shared("train_torchgeo") / "zion"
    if find_spec("torchgeo") is None:
        emit("train_torchgeo", skipped="torchgeo is not installed; pip install 'geoseg[torchgeo]'")
        return
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in SIDES}
    with tempfile.TemporaryDirectory(prefix="geoseg-bench-") as folder:
        place: dict[str, Any] = {"data": data, "folder": Path(folder)}
        tried = {} if options.torchgeo_workers is not None else try_workers(options, **place)
        for seed in range(options.rounds):
            for name in SIDES:
                found[name].append(side(name, options, seed=seed, **place))
    verdict(found, options, tried=tried)


def try_workers(options: argparse.Namespace, **place: Any) -> dict[int, float]:
    """Seconds of one epoch of torchgeo with each number of workers; `options` has afterwards the faster one."""
    short = argparse.Namespace(**{**vars(options), "steps": min(options.steps, options.epoch_steps)})
    seconds: dict[int, float] = {}
    for short.torchgeo_workers in WORKERS:
        seconds[short.torchgeo_workers] = side("reference", short, seed=0, **place)["stepping_seconds"]
    options.torchgeo_workers = min(seconds, key=lambda count: seconds[count])
    return seconds


def arguments() -> argparse.ArgumentParser:
    """The options of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300, help="of the optimiser")
    parser.add_argument("--epoch-steps", type=int, default=50, help="after each epoch comes a validation")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--patch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3, help="each has its seed, and trains both sides once")
    parser.add_argument("--labels", default="nlcd_on_landsat_grid.tif", help="nlcd.tif has its own CRS and pixel size")
    workers = "processes that read for torchgeo; without, 0 and 2 are tried for an epoch, and the faster is taken"
    parser.add_argument("--torchgeo-workers", type=int, help=workers)
    augment = "landsat: crop, scale and flips, as its datamodule of Landsat 8 has; none: its base class's"
    parser.add_argument("--torchgeo-augment", choices=("landsat", "none"), default="landsat", help=augment)
    return parser


def side(name: str, options: argparse.Namespace, *, data: Path, folder: Path, seed: int) -> dict[str, Any]:
    """What one side took, and its scores on the east."""
    epochs = -(-options.steps // options.epoch_steps)
    given = {
        "image": data / "landsat8_2345.tif", "labels": data / options.labels, "folder": folder, "seed": seed,
        "epochs": epochs, "epoch-steps": min(options.steps, options.epoch_steps), "batch": options.batch,
        "patch": options.patch,
    }  # fmt: skip
    if name == "reference":
        given |= {"workers": options.torchgeo_workers, "augment": options.torchgeo_augment}
    script = Path(__file__).with_name(SIDES[name])
    command = [
        sys.executable,
        str(script),
        *(part for key, value in given.items() for part in (f"--{key}", str(value))),
    ]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if run.returncode:
        raise SystemExit(f"{SIDES[name]} ended with {run.returncode}")
    found = json.loads(run.stdout.splitlines()[-1])
    print(name, found, file=sys.stderr, flush=True)
    return found


def verdict(found: dict[str, list[dict[str, Any]]], options: argparse.Namespace, *, tried: dict[int, float]) -> None:
    """The line: medians of seconds, means of scores."""
    steps = found["ours"][0]["steps"]
    rate = {name: steps / median(row["fit_seconds"] for row in rows) for name, rows in found.items()}
    figures = {
        name: {score: round(mean(row[score] for row in rows), 4) for score in SCORES} for name, rows in found.items()
    }
    step_s = {name: median(row["step_seconds"] for row in rows) for name, rows in found.items()}
    emit(
        "train_torchgeo",
        ours=round(rate["ours"], 3),
        reference=round(rate["reference"], 3),
        ratio=round(rate["ours"] / rate["reference"], 3),
        unit="steps/s of the whole fit",
        ratio_is="ours/torchgeo",
        better="higher",
        bar=BAR,
        scores=figures["ours"],
        scores_reference=figures["reference"],
        scores_hold=all(figures["ours"][score] >= figures["reference"][score] for score in SCORES),
        step_seconds=step_s,
        step_ratio=round(step_s["reference"] / step_s["ours"], 3),
        all=found,
        network="unet resnet18",
        batch=options.batch,
        patch_px=options.patch,
        steps=steps,
        labels=options.labels,
        torchgeo={
            "version": version("torchgeo"),
            "workers": options.torchgeo_workers,
            "tried_workers": tried,
            "augment": options.torchgeo_augment,
        },
        threads=found["ours"][0]["threads"],
        load=round(os.getloadavg()[0], 2),
    )  # fmt: skip


if __name__ == "__main__":
    main()
