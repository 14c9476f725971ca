"""Does the time of the vectoriser grow as the map does? From file to GeoPackage, at growing sizes of one pattern."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _maps import TOLERANCE_M, base_map, write_map
from _run import emit

import geoseg


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", type=json.loads, default=[2048, 4096, 8192, 16384, 32768], help="JSON list")
    sides = parser.parse_args().sides
    with tempfile.TemporaryDirectory(prefix="geoseg-bench-") as name:
        folder, base, seconds = Path(name), base_map(), {}
        for side in [sides[0], *sides]:  # the first once more, for compiled loops
            source = write_map(folder / "map.tif", side, base)
            start = time.perf_counter()
            geoseg.vectorize(source, out=folder / "map.gpkg", tolerance_m=TOLERANCE_M, overwrite=True)
            seconds[side] = round(time.perf_counter() - start, 2)
            print(side, seconds[side], file=sys.stderr, flush=True)
    pixels = 2 * np.log(np.array(list(seconds)))
    exponent = float(np.polyfit(pixels, np.log(list(seconds.values())), 1)[0])
    largest, before = list(seconds)[-1], list(seconds)[-2]
    emit(
        "vector_growth", ours=round(exponent, 3), reference=1.0, ratio=round(exponent, 3), unit="exponent",
        ratio_is="exponent of time over pixels", better="lower", bar=1.05, seconds=seconds,
        last_step=round(float(np.log(seconds[largest] / seconds[before]) / np.log(largest / before) / 2), 3),
    )  # fmt: skip


if __name__ == "__main__":
    main()
