"""A small model that needs no training, and small scenes to map with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import from_origin

from geoseg.legend import Legend
from geoseg.models import BandInfo, ModelCard, ModelSpec, create_model, save_model

LEGEND = Legend.from_dict({1: "water", 2: "forest", 5: "crop"})


def write_model(path: Path, *, bands: Sequence[str], legend: Legend = LEGEND, gsd_m: float = 10.0) -> Path:
    """A per-pixel network with seeded weights, as a model file."""
    torch.manual_seed(0)
    spec = ModelSpec(decoder="pixel", encoder="none", bands=len(bands), classes=len(legend), options={"hidden": [8]})
    card = ModelCard(
        name="dummy",
        spec=spec,
        bands=tuple(BandInfo(name=name, mean=100.0, std=50.0) for name in bands),
        legend=legend,
        gsd_m=(gsd_m, gsd_m),
        tile_px=64,
        overlap_px=16,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    save_model(path, model=create_model(spec), card=card)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model.safetensors", bands=["red", "nir"])


@pytest.fixture
def write_scene(tmp_path: Path) -> Callable[..., Path]:
    def write(
        name: str = "scene.tif",
        *,
        shape: tuple[int, int] = (100, 130),
        bands: Sequence[str] = ("red", "nir"),
        **profile,
    ) -> Path:
        rng = np.random.default_rng(1)
        pixels = rng.integers(1, 255, (len(bands), *shape)).astype(profile.pop("dtype", "uint16"))
        options = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_300_000, 10, 10), "nodata": 0} | profile
        pixels[:, :7, :9] = 0
        path = tmp_path / name
        with rasterio.open(
            path, "w", driver="GTiff", height=shape[0], width=shape[1], count=len(bands), dtype=pixels.dtype, **options
        ) as target:
            target.write(pixels)
            for k, band in enumerate(bands):
                target.set_band_description(k + 1, band)
        return path

    return write
