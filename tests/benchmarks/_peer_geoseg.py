"""geoseg itself, measured like its peers: `geoseg.predict` in this process."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import rasterio
from _peer_common import measure, parse

import geoseg
from geoseg.infer import PredictOptions, TorchModel


def build(model: Path, out: Path) -> dict[str, Any]:
    """The precision in which the map was made, and the seconds that reading and building the network take.

    `predict` does that by the clock, which the peers are spared: the benchmark takes it off.
    """
    start = time.perf_counter()
    TorchModel.load(model).predictor(PredictOptions(device="cpu"))
    seconds = round(time.perf_counter() - start, 3)
    with rasterio.open(out) as file:
        return {"precision": file.tags()["GEOSEG_MODEL_PRECISION"], "building_s": seconds}


def main() -> None:
    """Measure and print."""
    options = parse(batch=None)

    def map_scene(scene: Path, out: Path) -> None:
        geoseg.predict(
            str(scene), model=options.model, out=out, tile_px=options.tile, overlap_px=options.overlap,
            batch=options.batch, device="cpu", overwrite=True,
        )  # fmt: skip

    measure(
        map_scene, options, package="geoseg", blends="probabilities, hann", input="raw",
        writes="class map and confidence map, COGs with overviews",
        afterwards=lambda: build(options.model, options.out),
    )  # fmt: skip


if __name__ == "__main__":
    main()
