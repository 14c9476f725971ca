"""Decodes a made-up scene: `python decode_job.py FOLDER ROWS COLS DISK_GB`; says as JSON what became of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from made_up import LEGEND, MadeUp, grid_of

from geoseg.data.decode import SceneInput, decode_scenes
from geoseg.data.patches import gather_patches
from geoseg.data.store import StoreOptions


def main(folder: str, rows: int, cols: int, disk_gb: float) -> None:
    grid = grid_of(rows, cols)
    scene = SceneInput(name="made up", image=MadeUp(grid), labels=MadeUp(grid, ("label",)), grid=grid)
    options = StoreOptions(folder=folder or None, memory_gb=0, disk_gb=disk_gb)
    before = peak_mb()
    found = decode_scenes([scene], legend=LEGEND, options=options)
    rng = np.random.default_rng(0)
    for _ in range(8):
        windows = np.stack([np.zeros(8, np.int64), *rng.integers(-20, [[rows - 200], [cols - 200]], (2, 8))], 1)
        batch = gather_patches(found.scenes, windows, patch_px=256, part=1)
        check(windows, batch)
    print(json.dumps({"kind": type(found.scenes[0].pixels).__name__, "peak_mb": peak_mb() - before}))
    found.close()


def check(windows, batch) -> None:
    for (_, row, col), image, valid in zip(
        windows.tolist(), batch["image"].numpy(), batch["valid"].numpy(), strict=True
    ):
        expected = np.arange(row, row + 256)[:, None] * 3 + np.arange(col, col + 256)[None] * 7
        if not (image[1][valid] == (expected + 1000).astype(np.uint16)[valid]).all():
            raise SystemExit("the patch is not the window it says")


def peak_mb() -> float:
    """The most memory that the process has had."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0.0
    said = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return float(said["VmHWM"].split()[0]) / 1024


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
