"""A tiny scene, and a run on it that takes a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

TINY: dict[str, dict[str, Any]] = {
    "data": {"patch_px": 32, "batch": 8, "epoch_patches": 32, "split": {"block_m": 320.0, "buffer_m": 20.0}},
    "model": {"decoder": "pixel", "options": {"hidden": [16]}, "lr": 0.02, "bf16": "no"},
    "trainer": {"max_epochs": 2, "accelerator": "cpu"},
    "validation": {"places": 0},
}
UNET = {
    "decoder": "unet", "encoder": "resnet18",
    "options": {"encoder_depth": 3, "decoder_channels": [16, 16, 16]},
}  # fmt: skip
VIT = {
    "decoder": "upernet", "encoder": "vit_tiny_patch16_224",
    "options": {"encoder_options": {"depth": 2, "embed_dim": 24, "num_heads": 2}, "decoder_channels": 16},
}  # fmt: skip


def write(path: Path, pixels: np.ndarray, *, nodata: int = 0) -> None:
    affine = Affine(10, 0, 500_000, 0, -10, 5_200_000)
    with rasterio.open(
        path, "w", driver="GTiff", count=len(pixels), height=pixels.shape[1], width=pixels.shape[2],
        dtype=pixels.dtype, crs="EPSG:32633", transform=affine, nodata=nodata,
    ) as file:  # fmt: skip
        file.write(pixels)


@pytest.fixture(autouse=True)
def _no_pictures(unrendered) -> None:
    """What is drawn is looked at in the tests beside this folder."""


@pytest.fixture
def scene(tmp_path, monkeypatch) -> dict[str, Any]:
    """Fields of three classes whose bands tell them apart; the tests run beside it."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    labels = np.kron(rng.integers(1, 4, (20, 16)), np.ones((8, 8))).astype(np.uint8)
    means = np.array([[500, 2000, 900], [3000, 1000, 900], [2000, 2000, 4000]])
    image = (means[labels - 1].transpose(2, 0, 1) + rng.normal(0, 100, (3, 160, 128))).astype(np.uint16)
    write(tmp_path / "image.tif", image)
    write(tmp_path / "labels.tif", labels[None])
    return {"image": "image.tif", "labels": {"path": "labels.tif", "legend": {1: "water", 2: "wood", 3: "road"}}}


@pytest.fixture
def config(scene):
    """A function that gives the configuration of a run, with changes to it."""

    def made(**changes: Any) -> dict[str, Any]:
        merged: dict[str, Any] = {key: dict(value) for key, value in TINY.items()}
        for key, value in changes.items():
            merged[key] = {**merged.get(key, {}), **value} if isinstance(value, dict) else value
        merged["data"] = {"scenes": [scene], **merged["data"]}
        return {"name": "tiny", **merged}

    return made


@pytest.fixture
def unet() -> dict[str, Any]:
    """A small convolutional network."""
    return dict(UNET)


@pytest.fixture
def vit() -> dict[str, Any]:
    """A small network with attention."""
    return dict(VIT)
