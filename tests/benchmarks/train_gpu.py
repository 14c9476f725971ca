"""Does a GPU wait for its patches while it trains, and what do current networks take there?

Images a second of training by the real pipeline (sampler, store, augmentation), against the same step on one batch that
already lies on the device; and the most memory that training held. For each network the batch grows until the step
alone is no faster with a larger one. A line for each network, compiled or not; the verdict is that of the fastest one,
a U-Net with resnet18 on patches of 256 pixels, which needs its patches soonest. Threads that cut patches are half of
the cores.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from _feeds import BANDS, write_files
from _run import emit
from _train_steps import Bench, Network, measured

from geoseg.errors import InputError

NETWORKS = {
    "unet_resnet50": Network("unet", "resnet50"),
    "segformer_b2": Network("segformer", "mit_b2"),
    "dofa_base": Network("dpt", "dofa_base_patch16_224"),
    "unet_resnet18": Network("unet", "resnet18", patch_px=256, batches=(32, 64, 128, 256)),
}
VERDICT = "unet_resnet18"
SCENE_PX = {"cuda": 8192, "cpu": 1024}
COMPILED = {"no": (False,), "yes": (True,), "both": (False, True)}
BAR = 0.90


def main() -> None:
    """Measure and print."""
    options = arguments().parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        emit("train_gpu", skipped="torch finds no CUDA device on this machine")
        return
    with tempfile.TemporaryDirectory(prefix="geoseg-bench-") as name:
        files = write_files(Path(name), SCENE_PX[options.device])
        bench = Bench(files, options.device, options.steps, options.rounds, options.workers)
        lines = [line for network in options.networks for line in measured_lines(network, bench, options)]
        bench.close()
    if not lines:
        return
    last = next((line for line in lines if line["name"] == VERDICT), lines[-1])
    ratios = {f"{line['name']}{' compiled' * line['compiled']}": line["ratio"] for line in lines}
    said(last, options, ratios=ratios)


def arguments() -> argparse.ArgumentParser:
    """The options of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=tuple(SCENE_PX), default="cuda", help="cpu shows that it runs, no more")
    parser.add_argument("--side", type=int, default=512, help="of a patch, in pixels")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=max(2, (os.cpu_count() or 2) // 2))
    parser.add_argument("--networks", nargs="+", choices=tuple(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--compile", choices=tuple(COMPILED), default="both", help="compiling takes a minute a network")
    parser.add_argument("--batches", type=int, nargs="+", help="to try; without, what suits the network")
    return parser


def measured_lines(name: str, bench: Bench, options: argparse.Namespace) -> list[dict[str, Any]]:
    """What was found for a network, compiled or not, each printed at once."""
    network, lines = NETWORKS[name], []
    batches = options.batches or (network.batches if options.device == "cuda" else (2,))
    for compiled in COMPILED[options.compile]:
        try:
            found = measured(
                network, bench, patch_px=min(network.patch_px, options.side), compiled=compiled, batches=batches
            )
        except InputError as error:
            if not compiled:
                raise
            emit("train_gpu", name=name, compiled=True, skipped=str(error))  # no compiler that torch could use
            continue
        lines.append({"name": name, **found})
        said(lines[-1], options)
        batches = (found["batch"],)  # the same one compiled, so that both lines compare
    return lines


def said(line: dict[str, Any], options: argparse.Namespace, **more: Any) -> None:
    """Print a line."""
    device = torch.cuda.get_device_properties(0).name if options.device == "cuda" else "cpu"
    emit(
        "train_gpu", **line, unit="images/s", ratio_is="ours/one fixed batch", better="higher", bar=BAR, bands=BANDS,
        steps=options.steps, workers=options.workers, device=device, **more,
    )  # fmt: skip


if __name__ == "__main__":
    main()
