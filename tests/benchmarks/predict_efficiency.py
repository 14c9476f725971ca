"""How much of `predict`'s time is the network?

A U-Net over a scene from file to maps, against the same tiles pushed through the same network from memory, in two ways:
by torch in the fastest setting found (plain, batch norms folded, with `--compile` also compiled; batches of 1, 2 and
4), and as `predict` runs it (convolutions by Winograd's filtering where the processor takes them, a tile a core).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import Any

import torch
from _run import emit
from _scenes import BANDS, CLASSES, write_base, write_model, write_tiff

import geoseg
from geoseg.infer.kernels import thread_count
from geoseg.infer.lanes import in_lanes
from geoseg.infer.memory import memory_kept
from geoseg.infer.network import ready, simpler
from geoseg.models.file import load_model
from geoseg.tiling import Tiling

TILE_PX, OVERLAP_PX, ROUNDS = 512, 64, 3


def settings(network: torch.nn.Module, *, compiled: bool) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """The network in the settings to try."""
    found: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "plain": network.to(memory_format=torch.channels_last),
        "folded": simpler(network, bands=BANDS).to(memory_format=torch.channels_last),
    }
    return found | ({"compiled": torch.compile(found["folded"], dynamic=False)} if compiled else {})


def forward(
    work: Callable[[torch.Tensor], torch.Tensor], shape: tuple[int, int], *, batch: int, tiles: int, kept: bool = True
) -> float:
    """Seconds to push tiles through the network, `batch` at once; with `kept` the allocator keeps what is freed."""
    image = torch.randn(batch, BANDS, *shape).to(memory_format=torch.channels_last)
    with torch.inference_mode(), memory_kept() if kept else nullcontext():
        start = time.perf_counter()
        for _ in range(tiles // batch):
            work(image)
        if tiles % batch:
            work(image[: tiles % batch])
        return time.perf_counter() - start


def fastest(network: torch.nn.Module, shape: tuple[int, int], *, compiled: bool) -> tuple[str, Any, int]:
    """The best setting and batch, each tried on 8 tiles."""
    rates = {}
    for name, work in settings(network, compiled=compiled).items():
        for batch in (1, 2, 4):
            forward(work, shape, batch=batch, tiles=batch)
            rates[name, batch] = forward(work, shape, batch=batch, tiles=8), work
    (name, batch), (_, work) = min(rates.items(), key=lambda item: item[1][0])
    print({f"{key[0]} x {key[1]}": round(value[0] / 8, 4) for key, value in rates.items()}, file=sys.stderr)
    return name, work, batch


def forward_as_predict(network: torch.nn.Module, shape: tuple[int, int], *, tiles: int) -> float:
    """Seconds to push tiles through the network as `predict` runs it, a tile in each lane."""
    work = ready(network, torch.device("cpu"), bands=BANDS, compiled=False)
    image = torch.randn(1, BANDS, *shape).to(memory_format=torch.channels_last)

    def one() -> None:
        with torch.inference_mode():
            work(image)

    lanes = thread_count()
    with memory_kept():
        for _ in in_lanes(((number, one) for number in range(2 * lanes)), lanes=lanes):
            pass
        start = time.perf_counter()
        for _ in in_lanes(((number, one) for number in range(tiles)), lanes=lanes):
            pass
        return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    tiling = Tiling.over((options.side, options.side), largest_tile_px=TILE_PX, overlap_px=OVERLAP_PX)
    tiles, shape = tiling.count[0] * tiling.count[1], tiling.tile_shape
    with tempfile.TemporaryDirectory(prefix="geoseg-bench-") as name:
        folder = Path(name)
        base = write_base(folder / "base.tif")
        model, scene = (
            write_model(folder / "unet.safetensors", decoder="unet"),
            write_tiff(folder / "scene.tif", base, options.side),
        )

        def predict(path: Path) -> float:
            start = time.perf_counter()
            geoseg.predict(
                str(path), model=model, out=folder / "map.tif", precision="fp32", compile=options.compile,
                overwrite=True,
            )  # fmt: skip
            return time.perf_counter() - start

        predict(write_tiff(folder / "small.tif", base, 512))  # imports and compiled loops
        setting, work, batch = fastest(load_model(model)[0], shape, compiled=options.compile)
        ours, limit, usual, own = [], [], [], []
        for _ in range(ROUNDS):
            limit.append(forward(work, shape, batch=batch, tiles=tiles))
            usual.append(forward(work, shape, batch=batch, tiles=tiles, kept=False))
            own.append(forward_as_predict(load_model(model)[0].eval(), shape, tiles=tiles))
            ours.append(predict(scene))
    px, limits = options.side**2 / 1e6, (median(limit), median(own))
    emit(
        "predict_efficiency", ours=round(px / median(ours), 3), reference=round(px / min(limits), 3),
        ratio=round(min(limits) / median(ours), 3), unit="Mpx/s",
        ratio_is="ours/forward pass alone, the fastest of all", ratio_torch=round(median(limit) / median(ours), 3),
        ratio_torch_usual_allocator=round(median(usual) / median(ours), 3),
        better="higher", bar=0.9, side=options.side, bands=BANDS, classes=CLASSES, tiles=tiles, tile=list(shape),
        overlap=OVERLAP_PX, setting=setting, batch=batch, threads=torch.get_num_threads(),
        seconds=[round(item, 2) for item in ours], torch_seconds=[round(item, 2) for item in limit],
        predict_network_seconds=[round(item, 2) for item in own],
    )  # fmt: skip


if __name__ == "__main__":
    main()
