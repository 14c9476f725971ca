"""How fast does geoseg map a scene, and in how much memory, against what others offer for it?

One scene, one resnet18 U-Net, one tile and one overlap go through `geoseg.predict`, geoai's
`semantic_inference_on_geotiff`, terratorch's `tiled_inference` and a plain loop over torchgeo's GridGeoSampler. Each
run is a process of its own, the runs alternate, and each peer lives in an environment of its own under `.bench/peers`.
A peer that cannot be installed or run is in the verdict with the reason.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import rasterio
from _run import ROOT, emit
from _scenes import BANDS, CLASSES, write_base, write_model, write_tiff

FOLDER = ROOT / ".bench" / "peers"
HERE = Path(__file__).parent
WARM_PX = 512
LONGEST_S = 3 * 3600
BARS = {"geoai": 5.0, "terratorch": 3.0}
"""By how much geoseg is to be faster."""


@dataclass
class Side:
    """One of those that are compared.

    Attributes:
        name: What it is called in the verdict.
        runner: The script that runs it.
        packages: What its environment needs; none is geoseg's own environment.
        options: Arguments of its runner that differ from the others'.
        runs: What its runner printed, run after run.
        failed: Why it could not be installed or run.
    """

    name: str
    runner: str
    packages: tuple[str, ...] = ()
    options: dict[str, int] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)
    failed: str = ""

    @property
    def python(self) -> Path:
        """The interpreter of its environment."""
        return FOLDER / self.runner / "bin" / "python" if self.packages else Path(sys.executable)


def sides(*, as_shipped: bool) -> list[Side]:
    """geoseg first, then its peers; with `as_shipped` those that have a tile and an overlap of their own once more."""
    # The same torch and the same GDAL, so that what is compared is what the projects do with them.
    common = tuple(f"{name}=={version(name).split('+')[0]}" for name in ("torch", "rasterio"))
    common += ("segmentation-models-pytorch", "safetensors")
    geoai, terratorch = ("geoai-py", *common), ("terratorch", *common)
    found = [
        Side("geoseg", "geoseg"),
        Side("geoai", "geoai", geoai),
        Side("terratorch", "terratorch", terratorch),
        Side("torchgeo", "torchgeo", ("torchgeo==0.8.1", "requests", *common)),
    ]
    if as_shipped:
        found += [
            Side("geoai as shipped", "geoai", geoai, {"tile": 512, "overlap": 256}),
            Side("terratorch as shipped", "terratorch", terratorch, {"tile": 224, "overlap": 32}),
        ]
    return found


def install(side: Side) -> None:
    """The side's environment, made where it is absent or was made for other packages."""
    if not side.packages:
        return
    folder = FOLDER / side.runner
    stamp, wanted = folder / "installed.json", json.dumps(side.packages)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"installing {side.name} into {folder}", file=sys.stderr, flush=True)
    uv = Path(sys.executable).with_name("uv")
    make = [sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder)]
    fill = [str(uv), "pip", "install", "--quiet", "--python", str(side.python), *side.packages]
    side.failed = _failure(make) or _failure(fill)
    if not side.failed:
        stamp.write_text(wanted)


def run(side: Side, folder: Path, options: argparse.Namespace) -> None:
    """One run of a side; what its runner printed is added to its runs."""
    asked = {"tile": options.tile, "overlap": options.overlap, "batch": options.batch, **side.options}
    files = {"scene": folder / "scene.tif", "warm": folder / "warm.tif", "model": folder / "model.safetensors"}
    out = folder / side.name.replace(" ", "_") / "map.tif"
    out.parent.mkdir(exist_ok=True)
    arguments = {**files, "out": out, **{key: value for key, value in asked.items() if value is not None}}
    command = [str(side.python), str(HERE / f"_peer_{side.runner}.py")]
    command += [text for key, value in arguments.items() for text in (f"--{key}", str(value))]
    process = _process(command)
    if process.returncode:
        side.failed = f"ended with {process.returncode}: {_last_line(process.stderr)}"
        return
    found_run = json.loads(_last_line(process.stdout))
    if "building_s" in found_run:  # which `predict` does by the clock, and the peers before it
        found_run["whole_seconds"] = found_run["seconds"]
        found_run["seconds"] = round(found_run["seconds"] - found_run["building_s"], 3)
    side.runs.append(found_run)
    found = {key: side.runs[-1][key] for key in ("seconds", "peak_mb")}
    print(side.name, found, file=sys.stderr, flush=True)


def _failure(command: list[str]) -> str:
    process = _process(command)
    # The installer explains itself over several lines.
    return f"cannot be installed: {' '.join(process.stderr.split())[:500]}" if process.returncode else ""


def _process(command: list[str]) -> subprocess.CompletedProcess[str]:
    # No runner needs a network; one that asks for it is to fail at once.
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}
    try:
        return subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, env=env, timeout=LONGEST_S, check=False
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"took longer than {LONGEST_S} s")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def read_map(side: Side) -> np.ndarray:
    """Class numbers from 0; geoseg writes class ids, which begin at 1 here."""
    with rasterio.open(side.runs[-1]["map"]) as file:
        return file.read(1).astype(np.int16) - (side.name == "geoseg")


def figures(side: Side, ours: Side, map_of_ours: np.ndarray, *, side_px: int) -> dict[str, Any]:
    """A peer's part of the verdict."""
    if side.failed:
        return {"failed": side.failed}
    last, seconds = side.runs[-1], _seconds(side)
    kept = ("version", "torch", "threads", "batch", "precision", "blends", "writes", "input")
    return {
        "mpx_s": _speed(side, side_px), "peak_mb": _peak(side), "ratio": round(seconds / _seconds(ours), 2),
        "memory_ratio": round(_peak(side) / _peak(ours), 2),
        "same_pixels": round(float((read_map(side) == map_of_ours).mean()), 5),
        **_times(side), **side.options, **{key: last[key] for key in kept},
    }  # fmt: skip


def _seconds(side: Side) -> float:
    return median(item["seconds"] for item in side.runs)


def _speed(side: Side, side_px: int) -> float:
    return round(side_px**2 / 1e6 / _seconds(side), 4)


def _times(side: Side) -> dict[str, list[float]]:
    """Seconds by the clock and of the processors, run by run; the second say more on a busy machine."""
    return {key: [item[key] for item in side.runs] for key in ("seconds", "cpu_seconds")}


def _peak(side: Side) -> int:
    return round(median(item["peak_mb"] for item in side.runs))


def verdict(found: list[Side], options: argparse.Namespace) -> None:
    """The last line: ours against the fastest of the peers that ran as ours did."""
    ours, peers = found[0], found[1:]
    if ours.failed:
        raise SystemExit(f"geoseg {ours.failed}")
    last, map_of_ours = ours.runs[-1], read_map(ours)
    table = {peer.name: figures(peer, ours, map_of_ours, side_px=options.side) for peer in peers}
    alike = {peer.name: table[peer.name]["mpx_s"] for peer in peers if not (peer.failed or peer.options)}
    fastest = max(alike, key=lambda name: alike[name], default=None)
    shares = np.bincount(map_of_ours.ravel(), minlength=CLASSES) / map_of_ours.size
    emit(
        "predict_peers", ours=_speed(ours, options.side), reference=alike.get(fastest),
        ratio=table[fastest]["ratio"] if fastest else None, unit="Mpx/s", ratio_is="ours/fastest peer", better="higher",
        fastest=fastest, peak_mb=_peak(ours), **_times(ours),
        whole_seconds=[item["whole_seconds"] for item in ours.runs],
        **{key: last[key] for key in ("precision", "writes")},
        seconds_are=last["seconds_are"] + "; with building ours take whole_seconds", threads=last["threads"],
        peers=table, bars=BARS,
        bars_met={name: table[name].get("ratio", 0) >= bar for name, bar in BARS.items() if name in table},
        network="unet resnet18", side_px=options.side, bands=BANDS, classes=CLASSES, tile_px=options.tile,
        overlap_px=options.overlap, repeats=options.repeats, class_shares=[round(float(share), 3) for share in shares],
    )  # fmt: skip


def main() -> None:
    """Install, run in turns, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=2048, help="pixels of the scene each way")
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--overlap", type=int, default=64)
    parser.add_argument("--batch", type=int, help="tiles at once, for all; each one's own by default")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peers", help="only these, with commas between")
    parser.add_argument("--as-shipped", action="store_true", help="peers also with their own tile and overlap")
    options = parser.parse_args()
    wanted = None if options.peers is None else {"geoseg", *options.peers.split(",")}
    found = [side for side in sides(as_shipped=options.as_shipped) if wanted is None or side.name in wanted]
    for side in found:
        install(side)
    with tempfile.TemporaryDirectory(prefix="geoseg-bench-") as name:
        folder = Path(name)
        base = write_base(folder / "base.tif")
        write_model(folder / "model.safetensors", decoder="unet", like=base)
        for file, side_px in (("warm.tif", WARM_PX), ("scene.tif", options.side)):
            write_tiff(folder / file, base, side_px)
        for _ in range(options.repeats):
            for side in found:
                if not side.failed:
                    run(side, folder, options)
        verdict(found, options)


if __name__ == "__main__":
    main()
