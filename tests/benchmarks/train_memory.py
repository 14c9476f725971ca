"""Does the memory of training data grow with the scenes?

A set of 20 GB in sparse files (most of it was never written, and takes no space) is opened under a cap of 2 GB in a
process of its own, and its patches are cut for an epoch; once with room on disk for all of it, and once with so little
that blocks are decoded over and over. The peak is that of the whole process, libraries and mapped files included.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from _run import emit
from affine import Affine

BANDS, SIDE_PX, CAP_GB = 6, 8192, 2.0
LABELLED_PX = 2048
SHARES = {"all on disk": 1.6, "a third on disk": 0.33}

RUN = """
import json, sys, time
from pathlib import Path
from _peer_common import peak_mb
from geoseg.data import SceneDataModule, StoreOptions
scenes, folder, memory_gb, disk_gb, patches = json.loads(sys.argv[1])
imported = peak_mb()
start = time.perf_counter()
data = SceneDataModule(
    scenes=scenes, patch_px=256, batch=16, epoch_patches=patches, legend={1: "a", 2: "b"},
    store=StoreOptions(folder=folder, memory_gb=memory_gb, disk_gb=disk_gb),
)
data.setup()
ready, at_setup = time.perf_counter(), peak_mb()
count = sum(len(batch["image"]) for batch in data.train_dataloader())
done = time.perf_counter()
data.close()
print(json.dumps({"peak_mb": peak_mb(), "after_setup_mb": at_setup, "imported_mb": imported, "patches": count,
                  "setup_s": round(ready - start, 1), "patches_a_second": round(count / (done - ready), 1)}))
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--scenes", type=int, default=25, help="of 8,192 x 8,192 pixels and six uint16 bands: 0.8 GB each"
    )
    parser.add_argument("--patches", type=int, default=1024)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="geoseg-bench-") as name:
        folder = Path(name)
        scenes = [write_sparse(folder, number) for number in range(options.scenes)]
        set_gb = options.scenes * SIDE_PX**2 * BANDS * 2 / 2**30
        found = {
            disk: run([scenes, str(folder / f"store{number}"), CAP_GB, disk_gb, options.patches])
            for number, (disk, disk_gb) in enumerate(
                {"all on disk": 1.6 * set_gb, "a third on disk": set_gb / 3}.items()
            )
        }
    peak = max(case["peak_mb"] for case in found.values())
    limit_mb = round((CAP_GB + 1) * 1024)
    emit(
        "train_memory", ours=peak, reference=limit_mb, unit="MB", ratio=round(peak / limit_mb, 3),
        ratio_is="peak of the process/the cap and 1 GB", better="lower", bar=1.0, set_gb=round(set_gb, 1),
        cap_gb=CAP_GB, cases=found,
    )  # fmt: skip


def write_sparse(folder: Path, number: int) -> dict[str, str]:
    """A scene of which one corner was written, and its labels."""
    east, north = 200_000 + number % 5 * 90_000, 5_000_000 + number // 5 * 90_000
    profile = {
        "driver": "GTiff", "width": SIDE_PX, "height": SIDE_PX, "crs": "EPSG:32633", "tiled": True, "blockxsize": 256,
        "blockysize": 256, "sparse_ok": True, "transform": Affine(10, 0, east, 0, -10, north),
    }  # fmt: skip
    rng = np.random.default_rng(number)
    window = ((0, LABELLED_PX), (0, LABELLED_PX))
    image, labels = folder / f"image{number}.tif", folder / f"labels{number}.tif"
    with rasterio.open(image, "w", count=BANDS, dtype="uint16", **profile) as file:
        file.write(rng.integers(1, 3000, (BANDS, LABELLED_PX, LABELLED_PX)).astype(np.uint16), window=window)
    with rasterio.open(labels, "w", count=1, dtype="uint8", nodata=0, **profile) as file:
        coarse = rng.integers(1, 3, (LABELLED_PX // 64, LABELLED_PX // 64))
        file.write(np.kron(coarse, np.ones((64, 64))).astype(np.uint8), 1, window=window)
    return {"image": str(image), "labels": str(labels)}


def run(case: list[object]) -> dict[str, float]:
    """One case in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(case)], cwd=Path(__file__).parent, check=True, stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    print(done.stdout, file=sys.stderr, flush=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
