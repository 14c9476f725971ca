"""What the runners of `predict_peers` share: arguments, the clock, memory, the network, and one JSON line.

A runner works in the environment of what it runs, so this takes nothing of geoseg; torch loads where it is asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

SECONDS_ARE = "reading, inference and writing the map; imports, building the network and a warm-up are not counted"

MapScene = Callable[[Path, Path], None]


def parse(*, batch: int | None) -> argparse.Namespace:
    """The runner's arguments; `batch` is the peer's own, where the benchmark does not say."""
    parser = argparse.ArgumentParser()
    for name in ("scene", "warm", "model", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--tile", type=int, required=True)
    parser.add_argument("--overlap", type=int, required=True)
    parser.add_argument("--batch", type=int, default=batch)
    return parser.parse_args()


def measure(
    map_scene: MapScene, options: argparse.Namespace, *, package: str,
    afterwards: Callable[[], dict[str, Any]] = dict, **about: Any,
) -> None:  # fmt: skip
    """Map the small scene, then the scene by the clock, and print what it took and what `afterwards` finds."""
    map_scene(options.warm, options.out.with_name("warm.tif"))
    before = peak_mb()
    start, busy = time.perf_counter(), time.process_time()
    map_scene(options.scene, options.out)
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    found = {
        "seconds": round(seconds, 3), "cpu_seconds": round(busy, 3), "seconds_are": SECONDS_ARE, "peak_mb": peak_mb(),
        "warm_mb": before,
        "map": str(options.out), "version": version(package), "batch": options.batch, **versions(), **about,
    }  # fmt: skip
    print(json.dumps(found | afterwards()), flush=True)


def versions() -> dict[str, Any]:
    """The torch that did the work, and with how many threads."""
    import torch

    return {"torch": torch.__version__, "threads": torch.get_num_threads(), "cores": os.cpu_count()}


def peak_mb() -> int:
    """The most memory that this process has held, MB.

    Linux's `ru_maxrss` also remembers the process that started this one; the high-water mark of its own memory map
    does not.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return round(int(lines["VmHWM"].split()[0]) / 1024)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def load_network(path: Path, *, divided_by: float = 1.0) -> tuple[Any, dict[str, Any]]:
    """The network of a geoseg model file as a plain module of segmentation-models-pytorch, and what the file says.

    The module takes pixels that a peer has divided by a number; one multiplication and one addition a pixel give the
    network what geoseg gives it, and their time is small beside the network's.
    """
    import segmentation_models_pytorch as smp
    import torch
    from safetensors import safe_open
    from safetensors.torch import load_file

    with safe_open(path, framework="pt") as file:
        card = json.loads(file.metadata()["geoseg"])
    spec = card["mlm:hyperparameters"]
    network = smp.Unet(
        encoder_name=spec["encoder"], encoder_weights=None, in_channels=spec["bands"], classes=spec["classes"]
    )
    network.load_state_dict(load_file(path))

    class Standardized(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            mean, std = (torch.tensor([band[key] for band in card["geoseg:bands"]]) for key in ("mean", "std"))
            self.network = network
            self.register_buffer("factor", (divided_by / std)[:, None, None])
            self.register_buffer("shift", (-mean / std)[:, None, None])

        def forward(self, pixels: Any) -> Any:
            return self.network(torch.addcmul(self.shift, pixels, self.factor))

    return Standardized().eval(), {"bands": spec["bands"], "classes": spec["classes"]}


def write_map(path: Path, classes: Any, *, like: Path) -> None:
    """Class numbers `(row, col)` as a tiled DEFLATE GeoTIFF on the scene's grid."""
    import rasterio

    with rasterio.open(like) as scene:
        grid = {"crs": scene.crs, "transform": scene.transform, "width": scene.width, "height": scene.height}
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "tiled": True, "compress": "deflate", **grid}
    with rasterio.open(path, "w", **profile) as file:
        file.write(classes.astype("uint8"), 1)
