"""Does a GPU wait for its patches while it trains?

As `train_feed`, on a GPU: the batch grows until the network alone is no faster with a larger one, and then both sides
are measured with it. Workers are those that serve a GPU best here: half of the cores.
"""

from __future__ import annotations

import argparse
import os

import torch
from _run import emit
from _train_feed import BANDS, PATCH_PX, in_folder

BATCHES = (32, 64, 128, 256)
WORTH_IT = 1.03  # a larger batch has to be so much faster
BAR = 0.90


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=max(2, (os.cpu_count() or 2) // 2))
    options = parser.parse_args()
    if not torch.cuda.is_available():
        emit("train_gpu", skipped="torch finds no CUDA device on this machine")
        return
    shared = {"side": 8192, "steps": options.steps, "accelerator": "gpu", "workers": options.workers}
    batch, tried = fullest(shared)
    found = in_folder(batch=batch, rounds=options.rounds, **shared)
    emit(
        "train_gpu", **found, unit="images/s", ratio_is="ours/one fixed batch", better="higher", bar=BAR,
        network="unet resnet18", patch_px=PATCH_PX, bands=BANDS, batch=batch, tried=tried, workers=options.workers,
        device=torch.cuda.get_device_properties(0).name, peak_gb=round(torch.cuda.max_memory_allocated() / 1e9, 1),
    )  # fmt: skip


def fullest(shared: dict[str, object]) -> tuple[int, dict[int, float]]:
    """The batch that fills the device, and the images a second of the network alone with each that was tried."""
    tried: dict[int, float] = {}
    for batch in BATCHES:
        try:
            tried[batch] = in_folder(batch=batch, rounds=1, **shared)["reference"]
        except torch.cuda.OutOfMemoryError:
            break
    order = sorted(tried)
    best = order[0]
    for batch in order[1:]:
        if tried[batch] > WORTH_IT * tried[best]:
            best = batch
    return best, tried


if __name__ == "__main__":
    main()
