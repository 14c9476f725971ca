"""How much memory does the vectoriser take, against rasterio, shapely and geopandas, and on a very large map?

Each side is a process of its own, from file to GeoPackage; what its imports take stands beside the figures.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _maps import TOLERANCE_M, base_map, write_map
from _run import SHARED, emit, geoseg

MANAUS = SHARED / "manaus" / "cls_1985_amazon_manaus.tif"
BUDGET_MB = 6000
REFERENCE = "import sys; from pathlib import Path; from _maps import reference; "
RUN = "reference(Path(sys.argv[1]), Path(sys.argv[2]), tolerance_m=float(sys.argv[3]))"


def reference_peak(source: Path, out: Path, tolerance_m: float) -> dict[str, float]:
    """Seconds and peak memory of the other way."""
    arguments = [sys.executable, "-c", REFERENCE + RUN, str(source), str(out), str(tolerance_m)]
    start = time.perf_counter()
    process = subprocess.Popen(arguments, cwd=Path(__file__).parent, stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    out.unlink(missing_ok=True)
    if process.returncode:
        raise SystemExit(f"the reference ended with {process.returncode}")
    return {"seconds": round(time.perf_counter() - start, 2), "peak_mb": round(usage.ru_maxrss / 1024)}


def our_peak(source: Path, out: Path, tolerance_m: float) -> dict[str, float]:
    """Seconds and peak memory of `geoseg vectorize`."""
    found = geoseg("vectorize", source, "--out", out, "--tolerance-m", str(tolerance_m), "--overwrite")
    out.unlink(missing_ok=True)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--largest", type=int, default=32768, help="pixels each way of the map for ours alone; 0: none")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="geoseg-bench-") as name:
        folder, base = Path(name), base_map()
        maps = {f"synthetic {options.side}": (write_map(folder / "map.tif", options.side, base), TOLERANCE_M)}
        if MANAUS.exists():
            maps = {"manaus": (MANAUS, 30.0)} | maps
        for title, (source, tolerance_m) in maps.items():
            here = our_peak(source, folder / "ours.gpkg", tolerance_m)
            there = reference_peak(source, folder / "reference.gpkg", tolerance_m)
            emit(
                "vector_memory", map=title, ours=here["peak_mb"], reference=there["peak_mb"],
                ratio=round(here["peak_mb"] / there["peak_mb"], 3), unit="MB", ratio_is="peak ours/reference",
                better="lower", bar=0.333, seconds=here["seconds"], reference_seconds=there["seconds"],
            )  # fmt: skip
        if options.largest:
            source = write_map(folder / "large.tif", options.largest, base)
            found = our_peak(source, folder / "large.gpkg", TOLERANCE_M)
            emit(
                "vector_memory", map=f"synthetic {options.largest}", ours=found["peak_mb"], reference=BUDGET_MB,
                ratio=round(found["peak_mb"] / BUDGET_MB, 3), unit="MB", ratio_is="peak ours/limit", better="lower",
                bar=1.0, seconds=found["seconds"],
            )  # fmt: skip


if __name__ == "__main__":
    main()
