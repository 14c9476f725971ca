"""Scenes and models that the benchmarks of prediction share: smooth noise of any size, seeded weights."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import rasterio
import torch
from affine import Affine
from torch import nn

from geoseg.legend import Legend
from geoseg.models.build import create_model
from geoseg.models.card import BandInfo, ModelCard
from geoseg.models.file import save_model
from geoseg.models.spec import ModelSpec

BASE_PX = 1024
BANDS = 6
CLASSES = 10
CRS = "EPSG:32633"
MEAN, STD = 1600.0, 800.0
STEPS, CROPS, CROP_PX, LEARNING_RATE = 60, 4, 128, 2e-3


def write_base(path: Path) -> Path:
    """A small scene of smooth noise that compresses like imagery."""
    rng = np.random.default_rng(0)
    rough = rng.integers(200, 3000, (BANDS, BASE_PX // 8, BASE_PX // 8))
    pixels = np.kron(rough, np.ones((1, 8, 8), int)) + rng.integers(0, 60, (BANDS, BASE_PX, BASE_PX))
    with rasterio.open(path, "w", **_profile(BASE_PX)) as file:
        file.write(pixels.astype(np.uint16))
    return path


def write_tiff(path: Path, base: Path, side: int) -> Path:
    """A tiled DEFLATE GeoTIFF of `side` pixels each way that repeats the base; memory grows with its width alone."""
    with rasterio.open(base) as file:
        pixels = file.read()
    repeated = np.tile(pixels, (1, 1, -(-side // BASE_PX)))[:, :, :side]
    with rasterio.open(path, "w", **_profile(side), num_threads="all_cpus", bigtiff="if_safer") as file:
        for row in range(0, side, BASE_PX):
            rows = min(BASE_PX, side - row)
            file.write(repeated[:, :rows], window=((row, row + rows), (0, side)))
        file.descriptions = [f"b{number}" for number in range(1, BANDS + 1)]
    return path


def write_vrt(path: Path, base: Path, rows: int, cols: int, *, base_px: int = BASE_PX) -> Path:
    """A VRT of `rows` and `cols` that repeats the base, which has `base_px` each way."""
    root = ET.Element("VRTDataset", {"rasterXSize": str(cols), "rasterYSize": str(rows)})
    ET.SubElement(root, "SRS").text = CRS
    ET.SubElement(root, "GeoTransform").text = "300000, 10, 0, 5000000, 0, -10"
    for number in range(1, BANDS + 1):
        band = ET.SubElement(root, "VRTRasterBand", {"dataType": "UInt16", "band": str(number)})
        ET.SubElement(band, "Description").text = f"b{number}"
        for row in range(0, rows, base_px):
            for col in range(0, cols, base_px):
                source = ET.SubElement(band, "SimpleSource")
                ET.SubElement(source, "SourceFilename", {"relativeToVRT": "0"}).text = str(base)
                ET.SubElement(source, "SourceBand").text = str(number)
                size = {"xSize": str(min(base_px, cols - col)), "ySize": str(min(base_px, rows - row))}
                ET.SubElement(source, "SrcRect", {"xOff": "0", "yOff": "0", **size})
                ET.SubElement(source, "DstRect", {"xOff": str(col), "yOff": str(row), **size})
    path.write_text(ET.tostring(root, "unicode"))
    return path


def write_model(path: Path, *, decoder: str, encoder: str = "resnet18", like: Path | None = None) -> Path:
    """A model file with seeded weights.

    Args:
        path: The file to write.
        decoder: A name in `geoseg.models.DECODERS`.
        encoder: The encoder's name.
        like: A scene on which the network is trained for a few steps, so that its map has many classes and a pixel's
            class follows from what lies near it, as with any trained network; without one the weights are random.
    """
    torch.manual_seed(0)
    options = {"hidden": []} if decoder == "pixel" else {}
    spec = ModelSpec(decoder=decoder, encoder=encoder, bands=BANDS, classes=CLASSES, options=options)
    bands = tuple(BandInfo(name=f"b{number}", mean=MEAN, std=STD) for number in range(1, BANDS + 1))
    legend = Legend.from_values(range(1, CLASSES + 1))
    card = ModelCard(name="benchmark", spec=spec, bands=bands, legend=legend, gsd_m=(10.0, 10.0))
    network = create_model(spec)
    if like is not None:
        _train(network, like)
    save_model(path, model=network, card=card)
    return path


def _profile(side: int) -> dict[str, object]:
    return {
        "driver": "GTiff", "width": side, "height": side, "count": BANDS, "dtype": "uint16", "crs": CRS,
        "transform": Affine(10, 0, 300_000, 0, -10, 5_000_000), "tiled": True, "compress": "deflate",
        "blockxsize": 256, "blockysize": 256,
    }  # fmt: skip


def _train(network: nn.Module, scene: Path) -> None:
    """Teach the network the tenths of the first band's brightness, in a few seeded steps."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with rasterio.open(scene) as file:
        pixels = torch.from_numpy(file.read().astype(np.float32))
    labels = torch.bucketize(pixels[0], torch.linspace(200, 3060, CLASSES + 1)[1:-1])
    image, labels = ((pixels - MEAN) / STD).to(device), labels.to(device)
    rng = np.random.default_rng(0)
    network.to(device).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    for _ in range(STEPS):
        corners = rng.integers(0, BASE_PX - CROP_PX, (CROPS, 2))
        parts = [(slice(row, row + CROP_PX), slice(col, col + CROP_PX)) for row, col in corners]
        found = network(torch.stack([image[:, *part] for part in parts]))
        loss = nn.functional.cross_entropy(found, torch.stack([labels[part] for part in parts]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.cpu().eval()


__all__ = ["BANDS", "BASE_PX", "CLASSES", "write_base", "write_model", "write_tiff", "write_vrt"]
