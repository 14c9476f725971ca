"""How long does `geoseg --help` take, and does it load anything heavy?"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from _run import emit

HEAVY = ("torch", "lightning", "geopandas", "rasterio", "matplotlib", "numba", "scipy", "dask")
PROBE = "import sys; from geoseg.cli import main; main(['--help']); print(*sys.modules, file=sys.stderr)"


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    command = [str(Path(sys.executable).with_name("geoseg")), "--help"]
    seconds(command)
    taken = statistics.median(seconds(command) for _ in range(7))
    probe = subprocess.run([sys.executable, "-c", PROBE], check=True, capture_output=True, text=True)
    loaded = sorted(set(HEAVY) & set(probe.stderr.split()))
    emit("startup", ours=round(taken, 3), unit="s", better="lower", limit=0.7, heavy_loaded=loaded)


if __name__ == "__main__":
    main()
