"""Does the memory of `geoseg predict` grow with the scene?

The same scene, repeated by a VRT, at growing sizes; each is mapped in a process of its own by a network of 1 x 1
convolutions, so that what is measured is the way of the pixels, not the network. `--unet` takes a U-Net instead.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import rasterio
from _run import emit, geoseg
from affine import Affine

from geoseg.legend import Legend
from geoseg.models.build import create_model
from geoseg.models.card import BandInfo, ModelCard
from geoseg.models.file import save_model
from geoseg.models.spec import ModelSpec

BASE_PX = 1024
BANDS = 6
CLASSES = 10
CRS = "EPSG:32633"


def write_base(path: Path) -> Path:
    """A small scene of smooth noise that compresses like imagery."""
    rng = np.random.default_rng(0)
    rough = rng.integers(200, 3000, (BANDS, BASE_PX // 8, BASE_PX // 8))
    pixels = np.kron(rough, np.ones((1, 8, 8), int)) + rng.integers(0, 60, (BANDS, BASE_PX, BASE_PX))
    profile = {"driver": "GTiff", "width": BASE_PX, "height": BASE_PX, "count": BANDS, "dtype": "uint16", "crs": CRS,
               "transform": Affine(10, 0, 300_000, 0, -10, 5_000_000), "tiled": True, "compress": "deflate",
               "blockxsize": 256, "blockysize": 256}  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        file.write(pixels.astype(np.uint16))
    return path


def write_scene(path: Path, base: Path, side: int) -> Path:
    """A VRT of `side` pixels each way that repeats the base."""
    root = ET.Element("VRTDataset", {"rasterXSize": str(side), "rasterYSize": str(side)})
    ET.SubElement(root, "SRS").text = CRS
    ET.SubElement(root, "GeoTransform").text = "300000, 10, 0, 5000000, 0, -10"
    for number in range(1, BANDS + 1):
        band = ET.SubElement(root, "VRTRasterBand", {"dataType": "UInt16", "band": str(number)})
        ET.SubElement(band, "Description").text = f"b{number}"
        for row in range(0, side, BASE_PX):
            for col in range(0, side, BASE_PX):
                source = ET.SubElement(band, "SimpleSource")
                ET.SubElement(source, "SourceFilename", {"relativeToVRT": "0"}).text = str(base)
                ET.SubElement(source, "SourceBand").text = str(number)
                size = {"xSize": str(min(BASE_PX, side - col)), "ySize": str(min(BASE_PX, side - row))}
                ET.SubElement(source, "SrcRect", {"xOff": "0", "yOff": "0", **size})
                ET.SubElement(source, "DstRect", {"xOff": str(col), "yOff": str(row), **size})
    path.write_text(ET.tostring(root, "unicode"))
    return path


def write_model(path: Path, *, decoder: str) -> Path:
    """A model file with random weights."""
    options = {"hidden": []} if decoder == "pixel" else {}
    spec = ModelSpec(decoder=decoder, encoder="resnet18", bands=BANDS, classes=CLASSES, options=options)
    bands = tuple(BandInfo(name=f"b{number}", mean=1600.0, std=800.0) for number in range(1, BANDS + 1))
    legend = Legend.from_values(range(1, CLASSES + 1))
    card = ModelCard(name="memory", spec=spec, bands=bands, legend=legend, gsd_m=(10.0, 10.0))
    save_model(path, model=create_model(spec), card=card)
    return path


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", type=json.loads, default=[4096, 16384], help="JSON list of pixels")
    parser.add_argument("--unet", action="store_true")
    options = parser.parse_args()
    found: dict[int, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="geoseg-bench-") as name:
        folder = Path(name)
        model = write_model(folder / "model.safetensors", decoder="unet" if options.unet else "pixel")
        base = write_base(folder / "base.tif")
        for side in (64, *options.sides):
            scene = write_scene(folder / f"scene{side}.vrt", base, side)
            found[side] = geoseg("predict", scene, "--model", model, "--out", folder / f"map{side}.tif")
            print(side, found[side], file=sys.stderr)
    idle, peaks = found.pop(64)["peak_mb"], {side: values["peak_mb"] for side, values in found.items()}
    smallest, largest = min(peaks.values()), max(peaks.values())
    emit(
        "predict_memory", ours=largest, reference=smallest, ratio=round(largest / smallest, 3), unit="MB",
        ratio_is="largest/smallest peak", better="lower", network="unet resnet18" if options.unet else "1x1",
        peaks_mb=peaks, baseline_mb=idle, ratio_above_baseline=round((largest - idle) / (smallest - idle), 3),
        seconds={side: values["seconds"] for side, values in found.items()},
    )  # fmt: skip


if __name__ == "__main__":
    main()
