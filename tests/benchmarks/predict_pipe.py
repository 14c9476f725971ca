"""How fast is the way of the pixels itself?

A network of one 1 x 1 convolution over a scene, from file to maps, against plainly copying the same raster block by
block with rasterio and the same compression.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import rasterio
from _run import emit
from _scenes import BANDS, CLASSES, write_base, write_model, write_tiff

import geoseg

ROUNDS = 3


def copied(scene: Path, out: Path) -> float:
    """Seconds to copy a raster block by block."""
    start = time.perf_counter()
    with rasterio.open(scene) as source, rasterio.open(out, "w", **source.profile) as target:
        for _, window in source.block_windows(1):
            target.write(source.read(window=window), window=window)
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=8192)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="geoseg-bench-") as name:
        folder = Path(name)
        base = write_base(folder / "base.tif")
        model, scene = (
            write_model(folder / "model.safetensors", decoder="pixel"),
            write_tiff(folder / "scene.tif", base, options.side),
        )

        def predict(path: Path) -> float:
            start = time.perf_counter()
            geoseg.predict(str(path), model=model, out=folder / "map.tif", overwrite=True)
            return time.perf_counter() - start

        predict(write_tiff(folder / "small.tif", base, 512))  # imports and compiled loops
        ours, copies = [], []
        for _ in range(ROUNDS):
            copies.append(copied(scene, folder / "copy.tif"))
            ours.append(predict(scene))
    px = options.side**2 / 1e6
    emit(
        "predict_pipe", ours=round(px / median(ours), 3), reference=round(px / median(copies), 3),
        ratio=round(median(copies) / median(ours), 3), unit="Mpx/s", ratio_is="ours/copy", better="higher", bar=0.5,
        side=options.side, bands=BANDS, classes=CLASSES, seconds=[round(item, 2) for item in ours],
        copy_seconds=[round(item, 2) for item in copies],
    )  # fmt: skip


if __name__ == "__main__":
    main()
