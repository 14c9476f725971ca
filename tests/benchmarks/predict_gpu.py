"""Does a GPU wait for anything when a whole scene is mapped?

End to end, from the scene's file to the finished maps, against three limits measured in the same run: the network
alone on tiles that already lie on the device, decoding the scene alone, and writing the maps alone. A job whose stages
overlap perfectly is as fast as the slowest of them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import rasterio
import torch
from _peer_common import peak_mb
from _run import emit
from _scenes import BANDS, CLASSES, write_base, write_model, write_tiff

import geoseg
from geoseg.infer import PredictOptions, PredictResult, TorchModel, TorchPredictor
from geoseg.infer.layers import Layer, chosen_layers
from geoseg.infer.network import simpler
from geoseg.io.cog import write_cog, write_part
from geoseg.legend import Legend

NETWORKS = {
    "unet resnet18": ("unet", "resnet18"),
    "unet resnet50": ("unet", "resnet50"),
    "segformer mit_b0": ("segformer", "mit_b0"),
}
WARM_PX = 1024
DECODE_ROWS = 256
"""Rows of the scene that a reading thread takes at once: one row of the file's own blocks."""
PART_PX = (1024, 4096)
"""Rows and columns of a part, about those of a job."""
FORWARD_S = 2.0
"""How long the network alone is measured at least."""
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Setup:
    """What is measured: files, the device, and how often."""

    folder: Path
    scene: Path
    warm: Path
    side_px: int
    device: str
    repeats: int

    @property
    def mpx(self) -> float:
        """Millions of pixels of the scene."""
        return self.side_px**2 / 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=8192, help="pixels of the scene each way")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--networks", default=",".join(NETWORKS), help="only these, with commas between")
    parser.add_argument("--cpu", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not (options.cpu or torch.cuda.is_available()):
        emit("predict_gpu", skipped="torch finds no CUDA device on this machine")
        return
    with tempfile.TemporaryDirectory(prefix="geoseg-bench-") as name:
        folder = Path(name)
        base = write_base(folder / "base.tif")
        warm, scene = (
            write_tiff(folder / file, base, side)
            for file, side in (("warm.tif", min(WARM_PX, options.side)), ("scene.tif", options.side))
        )
        setup = Setup(folder, scene, warm, options.side, "cpu" if options.cpu else "cuda", options.repeats)
        table = {network: measure(setup, network, base) for network in options.networks.split(",")}
    worst = min(table, key=lambda network: table[network]["efficiency"])
    emit(
        "predict_gpu", ours=table[worst]["mpx_s"], reference=table[worst]["limit_mpx_s"],
        ratio=table[worst]["efficiency"], unit="Mpx/s", ratio_is="ours/slowest stage alone; the network with the "
        "lowest", better="higher", network=worst, networks=table, side_px=options.side, bands=BANDS, classes=CLASSES,
        repeats=options.repeats, host_peak_mb=peak_mb(), threads=torch.get_num_threads(), **device_facts(setup.device),
    )  # fmt: skip


def device_facts(device: str) -> dict[str, Any]:
    """The device by name, and the libraries that work on it."""
    if device == "cpu":
        return {"device": "cpu"}
    properties = torch.cuda.get_device_properties(0)
    return {
        "device": properties.name, "device_gb": round(properties.total_memory / 1e9, 1), "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }  # fmt: skip


def measure(setup: Setup, network: str, base: Path) -> dict[str, Any]:
    """One network's row of the table: end to end, the three limits, and the share of the slowest that is reached."""
    decoder, encoder = NETWORKS[network]
    # Maps of a trained network compress like maps. A CPU would be long about it, and serves to try the script only.
    model = write_model(
        setup.folder / f"{decoder}_{encoder}.safetensors", decoder=decoder, encoder=encoder,
        like=None if setup.device == "cpu" else base,
    )  # fmt: skip
    result, ours = end_to_end(setup, model)
    trained = TorchModel.load(model)
    predictor = trained.predictor(PredictOptions(device=setup.device))
    tiling = geoseg.Tiling.over(
        (setup.side_px, setup.side_px), largest_tile_px=trained.card.tile_px, overlap_px=trained.card.overlap_px
    )
    limits = {
        "forward": forward_limit(trained, predictor, batch=ours["batch"], tiling=tiling),
        "decode": decode_limit(setup, readers=predictor.readers),
        "write": write_limit(setup, result, trained.card.legend),
    }
    slowest = min(limits, key=lambda stage: limits[stage]["mpx_s"])
    limit = limits[slowest]["mpx_s"]
    row = {
        **ours, "limit_mpx_s": limit, "slowest_stage": slowest, "efficiency": round(ours["mpx_s"] / limit, 3),
        "precision": predictor.precision, "excess": round(tiling.excess, 3),
        "lattice_tiles": tiling.count[0] * tiling.count[1], **limits,
    }  # fmt: skip
    print(network, row, file=sys.stderr, flush=True)
    return row


def end_to_end(setup: Setup, model: Path) -> tuple[PredictResult, dict[str, Any]]:
    """The last result of `geoseg.predict`, and its figures; the first, small scene is not counted."""

    def predict(scene: Path) -> PredictResult:
        out = setup.folder / "map.tif"
        return geoseg.predict(str(scene), model=model, out=out, device=setup.device, overwrite=True)

    predict(setup.warm)
    _forget_peak(setup.device)
    seconds, batches = [], Counter[int]()
    for _ in range(setup.repeats):
        start = time.perf_counter()
        with counted_batches(batches):
            result = predict(setup.scene)
        seconds.append(time.perf_counter() - start)
    # The size by which most tiles went through the network.
    batch = max(batches, key=lambda tiles: tiles * batches[tiles])
    tiles = sum(size * times for size, times in batches.items())
    return result, {
        "mpx_s": round(setup.mpx / median(seconds), 3), "seconds": [round(value, 3) for value in seconds],
        "batch": batch, "batches": dict(sorted(batches.items())), "tiles_a_run": round(tiles / setup.repeats, 1),
        "gpu_peak_mb": _gpu_peak(setup.device),
    }  # fmt: skip


@contextmanager
def counted_batches(batches: Counter[int]) -> Iterator[None]:
    """Count the sizes of all batches of tiles meanwhile."""
    scores = TorchPredictor.scores

    def counting(self: TorchPredictor, tiles: Any, *args: Any, **options: Any) -> Any:
        batches[len(tiles)] += 1
        return scores(self, tiles, *args, **options)

    TorchPredictor.scores = counting
    try:
        yield
    finally:
        TorchPredictor.scores = scores


def forward_limit(
    trained: TorchModel, predictor: TorchPredictor, *, batch: int, tiling: geoseg.Tiling
) -> dict[str, Any]:
    """The network alone, in the fastest way: tiles on the device, channels last, batch norms folded.

    Speeds are of the scene's pixels: the tiles' divided by the excess that overlap and padding cost. Half precision is
    measured with the weights in it, and with autocast, as in a job; the faster is the limit.
    """
    device, half, (rows, cols) = predictor.device, HALF.get(predictor.precision), tiling.tile_shape
    network = simpler(trained.network.eval(), bands=BANDS).to(device, memory_format=torch.channels_last)
    image = torch.randn(batch, BANDS, rows, cols, device=device).contiguous(memory_format=torch.channels_last)

    def autocast() -> None:
        with torch.autocast(device.type, half or torch.bfloat16, enabled=half is not None):
            network(image)

    per_second = {"autocast": _rate(autocast, device)}
    if half is not None:
        network, image = network.to(half), image.to(half)
        per_second["whole"] = _rate(lambda: network(image), device)
    speeds = {name: batch * rows * cols / 1e6 * rate / tiling.excess for name, rate in per_second.items()}
    return {
        "mpx_s": round(max(speeds.values()), 3), **{f"{name}_mpx_s": round(speed, 3) for name, speed in speeds.items()},
        "tiles_mpx_s": round(max(speeds.values()) * tiling.excess, 3), "batch": batch, "tile_px": [rows, cols],
    }  # fmt: skip


@torch.inference_mode()
def _rate(work: Callable[[], Any], device: torch.device) -> float:
    """How often a second the device does it."""
    for _ in range(3 if device.type == "cuda" else 1):
        work()
    _wait_for(device)
    times, start = 0, time.perf_counter()
    while times < 3 or time.perf_counter() - start < FORWARD_S:
        work()
        _wait_for(device)
        times += 1
    return times / (time.perf_counter() - start)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def decode_limit(setup: Setup, *, readers: int) -> dict[str, Any]:
    """Reading the scene alone, by its own rows of blocks, in as many threads as a job reads with."""
    source = geoseg.open_source(str(setup.scene))
    geobox = source.geobox
    bands = [geobox[row : min(row + DECODE_ROWS, setup.side_px), :] for row in range(0, setup.side_px, DECODE_ROWS)]

    def read(part: Any) -> int:
        return source.read(part).pixels.shape[1]

    seconds = []
    with ThreadPoolExecutor(readers) as pool:
        for _ in range(setup.repeats):
            start = time.perf_counter()
            rows = sum(pool.map(read, bands))
            seconds.append(time.perf_counter() - start)
    if rows != setup.side_px:
        raise SystemExit(f"decoded {rows} of {setup.side_px} rows")
    return {"mpx_s": round(setup.mpx / median(seconds), 3), "readers": readers, "page_cache": "warm"}


def write_limit(setup: Setup, result: PredictResult, legend: Legend) -> dict[str, Any]:
    """Writing the maps alone, with the pixels that they have: parts one after the other, then a COG a layer.

    In a job parts are written while the network works; the COGs come after all of it.
    """
    layers = {layer: _pixels(result.layers[layer.name]) for layer in chosen_layers(())}
    parts_s, cogs_s = [], []
    for _ in range(setup.repeats):
        with tempfile.TemporaryDirectory(dir=setup.folder) as name:
            start = time.perf_counter()
            parts = {layer: _write_parts(Path(name), layer, layers[layer], result, legend) for layer in layers}
            written = time.perf_counter()
            for layer, files in parts.items():
                write_cog(
                    files, Path(name) / f"{layer.name}.tif", geobox=result.geobox, dtype=layer.dtype(legend),
                    nodata=layer.nodata(legend), legend=legend if layer.kind == "class" else None,
                    resampling=layer.resampling, band_names=layer.bands(legend),
                )  # fmt: skip
            parts_s.append(written - start)
            cogs_s.append(time.perf_counter() - written)
    total = median(first + second for first, second in zip(parts_s, cogs_s, strict=True))
    return {
        "mpx_s": round(setup.mpx / total, 3), "parts_s": round(median(parts_s), 3), "cogs_s": round(median(cogs_s), 3),
        "maps": [layer.name for layer in layers],
    }  # fmt: skip


def _pixels(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read()


def _write_parts(folder: Path, layer: Layer, pixels: np.ndarray, result: PredictResult, legend: Legend) -> list[Path]:
    (rows, cols), (down, across) = result.geobox.shape, PART_PX
    return [
        write_part(
            folder / f"{layer.name}-{top}-{left}.tif", pixels[:, top : top + down, left : left + across],
            geobox=result.geobox[top : min(top + down, rows), left : min(left + across, cols)],
            nodata=layer.nodata(legend),
        )
        for top, left in product(range(0, rows, down), range(0, cols, across))
    ]  # fmt: skip


def _forget_peak(device: str) -> None:
    if device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _gpu_peak(device: str) -> int | None:
    return None if device == "cpu" else round(torch.cuda.max_memory_allocated() / 1e6)


if __name__ == "__main__":
    main()
