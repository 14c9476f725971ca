"""Does training on a CPU ever wait for its patches?

A U-Net with resnet18 on patches of 256 x 256 pixels and six bands: images a second through the real pipeline (sampler,
store, augmentation), against the same network, loss and optimiser on one batch that lies in memory.
"""

from __future__ import annotations

import argparse

import torch
from _run import emit
from _train_feed import BANDS, PATCH_PX, in_folder

BAR = 0.95


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    found = in_folder(
        side=2048, batch=options.batch, steps=options.steps, rounds=options.rounds, accelerator="cpu", workers=0
    )
    emit(
        "train_feed", **found, unit="images/s", ratio_is="ours/one fixed batch", better="higher", bar=BAR,
        network="unet resnet18", patch_px=PATCH_PX, bands=BANDS, batch=options.batch, steps=options.steps,
        threads=torch.get_num_threads(),
    )  # fmt: skip


if __name__ == "__main__":
    main()
