"""The side of geoseg in `train_torchgeo`: `geoseg fit` with the defaults of its options."""

from __future__ import annotations

import time
from typing import Any

import matplotlib.figure  # noqa: F401 - see main
from _fit_common import (
    BUFFER_PX,
    CLASSES,
    ENCODER,
    FIRST_ID,
    TRAIN_COLS,
    VALIDATION_FROM_ROW,
    parse,
    report,
)

from geoseg import models
from geoseg.models.file import load_model
from geoseg.training.run import run_fit

GSD_M = 30


def config(options: Any) -> dict[str, Any]:
    """What is given is what both sides have in common; all else is left as it is by default."""
    return {
        "name": "geoseg",
        "runs": str(options.folder),
        "overwrite": True,
        "seed_everything": options.seed,
        "data": {
            "scenes": [
                {"image": str(options.image), "labels": str(options.labels), "region": {"cols": [0, TRAIN_COLS]}}
            ],
            "legend": {number: f"class {number}" for number in range(FIRST_ID, FIRST_ID + CLASSES)},
            "patch_px": options.patch,
            "batch": options.batch,
            "epoch_patches": options.batch * options.epoch_steps,
            "split": {"regions": [{"rows": [VALIDATION_FROM_ROW, None]}], "buffer_m": BUFFER_PX * GSD_M},
            "workers": options.workers,
        },
        "model": {"decoder": "unet", "encoder": ENCODER},
        "trainer": {
            "max_epochs": options.epochs,
            "accelerator": "cpu",
            "callbacks": [{"class_path": "_fit_common.StepClock"}],
        },
        "early_stopping": {"patience": 10**6},  # as many steps as the other side
    }


def main() -> None:
    """Train, map and print."""
    options = parse()
    _ = models.encoded  # imports are nobody's seconds here, and torchgeo has pyplot's when it begins
    start = time.perf_counter()
    result = run_fit(config(options))
    fit = time.perf_counter() - start
    network, card = load_model(result.model)
    report(options, network, fit=fit, mean=[band.mean for band in card.bands], std=[band.std for band in card.bands])


if __name__ == "__main__":
    main()
