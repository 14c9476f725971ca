"""What do two workers of a Dask cluster on this machine cost or gain against a serial run on the same cores?

A U-Net over a scene, from file to maps. The cluster is started before, and both sides have run once on a small scene,
so that libraries are loaded; what that takes stands beside the figures. Two workers predict one row of tiles twice, of
19 at 8,192 pixels; with `--side 4096` it is one of 9, and sending the network is a fifteenth of all seconds.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import distributed
import numpy as np
import rasterio
from _run import emit
from _scenes import BANDS, CLASSES, write_base, write_model, write_tiff

import geoseg

WORKERS, ROUNDS, WARM_UP_PX = 2, 3, 1024


def timed(scene: Path, model: Path, out: Path, **crew: Any) -> float:
    """Seconds to map a scene."""
    start = time.perf_counter()
    geoseg.predict(scene, model=model, out=out, overwrite=True, **crew)
    return time.perf_counter() - start


def differing(one: Path, other: Path) -> float:
    """Share of the pixels whose class differs."""
    with rasterio.open(one) as first, rasterio.open(other) as second:
        return float(np.mean(first.read(1) != second.read(1)))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=8192, help="pixels each way")
    side = parser.parse_args().side
    cores = len(os.sched_getaffinity(0))
    threads = max(1, cores // WORKERS)
    with tempfile.TemporaryDirectory(prefix="geoseg-bench-") as name:
        folder = Path(name)
        base = write_base(folder / "base.tif")
        small, scene = write_tiff(folder / "small.tif", base, WARM_UP_PX), write_tiff(folder / "scene.tif", base, side)
        model = write_model(folder / "model.safetensors", decoder="unet", like=base)
        start = time.perf_counter()
        local = {
            "n_workers": WORKERS,
            "threads_per_worker": threads,
            "dashboard_address": ":0",
            "local_directory": name,
        }
        with distributed.LocalCluster(**local) as cluster:
            crews = {
                "serial": {"engine": "serial"},
                "dask": {"scheduler": cluster.scheduler_address, "devices": WORKERS},
            }
            cluster_s = time.perf_counter() - start
            warm_up = {
                engine: timed(small, model, folder / f"small.{engine}.tif", **crew) for engine, crew in crews.items()
            }
            seconds: dict[str, list[float]] = {"serial": [], "dask": []}
            for _ in range(ROUNDS):
                for engine, crew in crews.items():
                    seconds[engine].append(timed(scene, model, folder / f"{engine}.tif", **crew))
                    print(engine, round(seconds[engine][-1], 1), "s", file=sys.stderr)
        differs = differing(folder / "serial.tif", folder / "dask.tif")
    mpx = side * side / 1e6
    speed = {engine: mpx / median(found) for engine, found in seconds.items()}
    emit(
        "predict_dask", ours=round(speed["dask"], 3), reference=round(speed["serial"], 3),
        ratio=round(speed["dask"] / speed["serial"], 3), unit="Mpx/s", ratio_is="dask/serial", better="higher",
        network="unet resnet18", side_px=side, bands=BANDS, classes=CLASSES, workers=WORKERS, threads_each=threads,
        cores_used=cores, seconds={engine: [round(s, 2) for s in found] for engine, found in seconds.items()},
        not_counted={"cluster_start_s": round(cluster_s, 2),
                     "warm_up_s": {engine: round(s, 2) for engine, s in warm_up.items()}},
        classes_differ=differs, distributed=distributed.__version__,
    )  # fmt: skip


if __name__ == "__main__":
    main()
