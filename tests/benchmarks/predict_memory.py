"""Does the memory of `geoseg predict` grow with the scene, and does its budget hold?

The same scene, repeated by a VRT, at growing sizes and very wide; each is mapped in a process of its own by a network
of 1 x 1 convolutions, so that what is measured is the way of the pixels, not the network. `--unet` takes a U-Net.
The baseline is a process that imports the libraries and loads the model.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from _run import emit, geoseg
from _scenes import write_base, write_model, write_tiff, write_vrt

BASE_PX = 4096
BUDGETS_MB = (2500, 4000)


LOAD = """
import resource, sys
from pathlib import Path
import geoseg.infer.scene
from geoseg.infer.predictor import TorchModel
TorchModel.load(Path(sys.argv[1]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def loaded_mb(model: Path) -> int:
    """Peak memory of a process that imports what predicting takes, loads the model and ends."""
    run = subprocess.run([sys.executable, "-c", LOAD, str(model)], capture_output=True, text=True, check=True)
    return int(run.stdout)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", type=json.loads, default=[4096, 16384, 32768], help="JSON list of pixels")
    parser.add_argument("--wide", type=json.loads, default=[1024, 200_000], help="JSON list: rows, columns")
    parser.add_argument("--unet", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="geoseg-bench-") as name:
        folder = Path(name)
        model = write_model(folder / "model.safetensors", decoder="unet" if options.unet else "pixel")
        base = write_tiff(folder / "base.tif", write_base(folder / "small.tif"), BASE_PX)

        def peak(rows: int, cols: int, memory_mb: int) -> dict[str, float]:
            scene = write_vrt(folder / "scene.vrt", base, rows, cols, base_px=BASE_PX)
            found = geoseg(
                "predict", scene, "--model", model, "--out", folder / "map.tif", "--memory", f"{memory_mb}MB",
                "--overwrite", "true",
            )  # fmt: skip
            print(rows, cols, memory_mb, found, file=sys.stderr)
            return found

        shapes = [(side, side) for side in options.sides] + [tuple(options.wide)]
        idle = loaded_mb(model)
        peaks = {f"{rows} x {cols}": peak(rows, cols, BUDGETS_MB[-1]) for rows, cols in shapes}
        small = {budget: peak(*shapes[0], budget)["peak_mb"] for budget in BUDGETS_MB[:-1]}
    above = {shape: found["peak_mb"] - idle for shape, found in peaks.items()}
    wide = above.pop(f"{options.wide[0]} x {options.wide[1]}")
    budgets = small | {BUDGETS_MB[-1]: max(found["peak_mb"] for found in peaks.values())}
    emit(
        "predict_memory", ours=max(above.values()), reference=min(above.values()), unit="MB",
        ratio=round(max(above.values()) / min(above.values()), 3), ratio_is="largest/smallest peak above baseline",
        better="lower", bar=1.1, wide_over_largest=round(wide / max(above.values()), 3),
        network="unet resnet18" if options.unet else "1x1", baseline_mb=idle, peak_by_budget_mb=budgets,
        peaks_mb={shape: found["peak_mb"] for shape, found in peaks.items()},
        budget_holds=all(peak_mb <= budget for budget, peak_mb in budgets.items()),
        seconds={shape: found["seconds"] for shape, found in peaks.items()},
    )  # fmt: skip


if __name__ == "__main__":
    main()
