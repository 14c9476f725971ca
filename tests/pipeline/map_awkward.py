"""Maps every raster of a list with a fitting dummy model, in one process; prints JSON lines and the peak memory.

Run as a program, so that a crash or a hang is one process's and its memory can be measured.
"""

from __future__ import annotations

import json
import re
import resource
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

import rasterio
import torch

import geoseg
from geoseg.legend import Legend
from geoseg.models import BandInfo, ModelCard, ModelSpec, create_model, save_model

LEGEND = Legend.from_dict({1: "a", 2: "b", 3: "c"})


def model_for(scene: str, folder: Path) -> Path:
    """A per-pixel network with as many bands as the file has."""
    bands = geoseg.open_source(scene).bands
    path = folder / f"model{len(bands)}.safetensors"
    torch.manual_seed(0)
    spec = ModelSpec(decoder="pixel", encoder="none", bands=len(bands), classes=3, options={"hidden": [4]})
    infos = tuple(BandInfo(name=name, mean=100.0, std=50.0) for name in bands)
    card = ModelCard(name="dummy", spec=spec, bands=infos, legend=LEGEND, gsd_m=(0.0, 0.0), tile_px=256, overlap_px=16)
    save_model(path, model=create_model(spec), card=card)
    return path


def outcome(scene: str, folder: Path) -> str:
    """`map`, `refused: ...`, or what went wrong."""
    out = folder / "map.tif"
    try:
        geoseg.predict(scene, model=model_for(scene, folder), out=out, memory="2GB", overwrite=True)
    except geoseg.GeosegError as error:
        left = [path.name for path in folder.iterdir() if path.name.startswith("map")]
        return f"left behind: {left}" if left else f"refused: {error}"
    except Exception:  # noqa: BLE001 - the test reports it
        return f"traceback: {traceback.format_exc()}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(scene) as given, rasterio.open(out) as made:
            same = (given.transform, given.shape) == (made.transform, made.shape)
    for path in folder.glob("map*"):
        path.unlink()
    return "map" if same else f"another grid: {given.transform} {made.transform}"


def peak_mb() -> float:
    """The most memory that this program had; what `getrusage` says includes that of the process which started it."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s*(\d+)", status.read_text())[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    for scene in sys.stdin.read().splitlines():
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps({"file": scene, "outcome": outcome(scene, Path(folder))}), flush=True)
    print(json.dumps({"peak_mb": peak_mb()}))


if __name__ == "__main__":
    main()
