"""Runs a job again and again in children that are killed at random moments; says as JSON what became of it.

`python killed_jobs.py FOLDER KILLS SEED`. The children are forked from a process that has imported everything and
started no thread, so that a kill comes at any moment of the job, and not of the imports.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

from geoseg.infer.canvas import HOST, Scores
from geoseg.infer.job import Job, run_job
from geoseg.infer.layers import chosen_layers
from geoseg.infer.parts import Plan
from geoseg.infer.scale import lattice_for
from geoseg.infer.task import SceneTask
from geoseg.io.sources import open_source
from geoseg.legend import Legend

SHAPE = (700, 500)


class Slow:
    """Scores that hang on the position; each tile takes a few milliseconds."""

    classes, batch_tiles, readers, lanes, model_bytes, arrays = 3, 1, 1, 1, 0, HOST

    def scores(self, tiles, valid, *, model_shape):  # noqa: ARG002
        time.sleep(0.004)
        row, col = tiles[0].astype(float)
        waves = [np.sin(0.37 * k * row + 1.7 * k) + np.cos(0.11 * k * col) for k in range(3)]
        return Scores([np.ascontiguousarray(np.stack(waves, axis=-1), np.float32)], logits=True)


def write_scene(path: Path) -> Path:
    profile = {"driver": "GTiff", "count": 2, "height": SHAPE[0], "width": SHAPE[1], "dtype": "uint16",
               "crs": "EPSG:32633", "transform": Affine(10, 0, 500_000, 0, -10, 5_000_000)}  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        file.write(np.indices(SHAPE).astype(np.uint16))
    return path


def run(scene: Path, out: Path) -> None:
    source = open_source(scene)
    lattice = lattice_for(SHAPE, tile_px=64, overlap_px=16, scale=(1.0, 1.0))
    task = SceneTask(
        source, Slow(), Legend.from_dict({3: "a", 7: "b", 12: "c"}), lattice.tiling, lattice.model_shape, "hann",
        layers=chosen_layers(["margin"]),
    )  # fmt: skip
    run_job(Job(task, out, lambda kept: kept or Plan((1, 5)), model={"name": "slow"}))


def child(scene: Path, out: Path) -> int:
    """The process id of a child that runs the job and ends with 0, or with 2 after an error."""
    pid = os.fork()
    if pid:
        return pid
    try:
        run(scene, out)
        os._exit(0)
    finally:  # whatever happened, nothing of the parent runs on in the child
        traceback.print_exc()
        os._exit(2)


def finished(folder: Path) -> dict[str, int]:
    """Parts of finished blocks and when they were written."""
    done = list(folder.glob("block-*.class.tif"))
    names = [path.name.replace(".class.", f".{layer}.") for path in done for layer in ("class", "confidence", "margin")]
    return {name: (folder / name).stat().st_mtime_ns for name in names if (folder / name).exists()}


def main() -> None:
    folder, kills, rng = Path(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))
    scene = write_scene(folder / "scene.tif")
    start = time.monotonic()
    assert os.waitpid(child(scene, folder / "whole" / "map.tif"), 0)[1] == 0
    seconds = time.monotonic() - start
    killed, rewritten, early = 0, 0, 0
    out = folder / "killed" / "map.tif"
    parts = out.with_name("map.tif.parts")
    while killed < kills:
        if out.exists() and not parts.exists():  # it is complete: start anew
            early += 1
            shutil.rmtree(out.parent)
        pid = child(scene, out)
        time.sleep(rng.uniform(0, 1.1 * seconds / 3))
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            assert status == 0, status
            continue
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        killed += 1
        before = finished(parts) if parts.exists() else {}
        if rng.random() < 0.3:  # what the next run keeps is looked at before it is done
            pid = child(scene, out)
            time.sleep(0.5 * seconds / 3)
            after = finished(parts) if parts.exists() else {}
            rewritten += sum(after.get(name, when) != when for name, when in before.items())
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    if not out.exists() or parts.exists():
        assert os.waitpid(child(scene, out), 0)[1] == 0
    names = {path.name for path in (folder / "whole").iterdir()} | {path.name for path in out.parent.iterdir()}
    different = [
        name
        for name in sorted(names)
        if not name.endswith(".json") and (folder / "whole" / name).read_bytes() != (out.parent / name).read_bytes()
    ]
    print(json.dumps({"killed": killed, "early": early, "rewritten": rewritten, "different": different,
                      "names": sorted(path.name for path in out.parent.iterdir())}))  # fmt: skip


if __name__ == "__main__":
    main()
