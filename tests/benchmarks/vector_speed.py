"""How fast does a class map become simplified polygons in a GeoPackage, against rasterio, shapely and geopandas?

From file to file, on a real map and on a synthetic one of about 400,000 polygons. The shares of the stages stand beside
the figures, and `gdal_polygonize.py` does where it is installed; that one neither simplifies nor measures.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from _maps import TOLERANCE_M, base_map, reference, write_map
from _run import SHARED, emit

import geoseg
from geoseg.io.sources import open_source
from geoseg.vector.lines.simplify import simplify_arcs
from geoseg.vector.metric import fit_metric
from geoseg.vector.polygonize import trace_map
from geoseg.vector.reading import GridReader

ROUNDS = 3
MANAUS = SHARED / "manaus" / "cls_1985_amazon_manaus.tif"


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came of it."""
    start = time.perf_counter()
    found = work()
    return time.perf_counter() - start, found


def ours(source: Path, out: Path, *, tolerance_m: float) -> dict[str, Any]:
    """Seconds from file to file, and of tracing and simplifying by themselves."""
    seconds, _ = timed(lambda: geoseg.vectorize(source, out=out, tolerance_m=tolerance_m, overwrite=True))
    opened = open_source({"path": str(source), "resampling": "nearest"})
    trace_s, (coverage, _) = timed(lambda: trace_map(GridReader(opened, {})))
    pixel = fit_metric(opened.geobox).pixel_size()
    simplify_s, simpler = timed(lambda: simplify_arcs(coverage.arcs, tolerance=tolerance_m, pixel=pixel))
    return {
        "seconds": seconds, "polygons": coverage.regions.count,
        "vertices": [len(coverage.arcs.coords), len(simpler.coords)],
        "stages": {"trace": trace_s, "simplify": simplify_s, "rest": seconds - trace_s - simplify_s},
    }  # fmt: skip


def gdal_polygonize(source: Path, out: Path) -> float | None:
    """Seconds of GDAL's own program; None where it is not installed."""
    program = shutil.which("gdal_polygonize.py") or shutil.which("gdal_polygonize")
    if program is None:
        return None
    out.unlink(missing_ok=True)
    return timed(lambda: subprocess.run([program, "-q", source, out], check=True))[0]


def compare(name: str, source: Path, folder: Path, *, tolerance_m: float, rounds: int) -> None:
    """Measure both sides, alternating, and print a line."""
    here, there = [], []
    ours(source, folder / "ours.gpkg", tolerance_m=tolerance_m)  # compiled loops
    for _ in range(rounds):
        here.append(ours(source, folder / "ours.gpkg", tolerance_m=tolerance_m))
        there.append(reference(source, folder / "reference.gpkg", tolerance_m=tolerance_m))
        print(name, here[-1], there[-1], file=sys.stderr, flush=True)
        (folder / "reference.gpkg").unlink()
    first, second = (median(run["seconds"] for run in runs) for runs in (here, there))
    stages = {stage: round(median(run["stages"][stage] for run in here), 3) for stage in here[0]["stages"]}
    theirs = {stage: round(median(run["stages"][stage] for run in there), 3) for stage in there[0]["stages"]}
    core = theirs["shapes"] + theirs["shapely"] + theirs["simplify"]
    gdal_s = gdal_polygonize(source, folder / "gdal.gpkg")
    emit(
        "vector_speed", map=name, ours=round(first, 3), reference=round(second, 3), ratio=round(second / first, 2),
        unit="s", ratio_is="speed ours/reference, file to file", better="higher", bar=8,
        trace_and_simplify_ratio=round(core / (stages["trace"] + stages["simplify"]), 2), trace_and_simplify_bar=20,
        stages=stages, reference_stages=theirs, polygons=here[0]["polygons"], reference_polygons=there[0]["polygons"],
        vertices=here[0]["vertices"], tolerance_m=tolerance_m, rounds=rounds,
        gdal_polygonize_s=gdal_s, gdal_polygonize_ratio=None if gdal_s is None else round(gdal_s / first, 2),
    )  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="geoseg-bench-") as name:
        folder = Path(name)
        if MANAUS.exists():
            compare("manaus", MANAUS, folder, tolerance_m=30.0, rounds=options.rounds)
        synthetic = write_map(folder / "map.tif", options.side, base_map())
        compare(f"synthetic {options.side}", synthetic, folder, tolerance_m=TOLERANCE_M, rounds=options.rounds)


if __name__ == "__main__":
    main()
