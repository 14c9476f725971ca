"""Decoded scenes with validation parts, a small network, and its card."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from affine import Affine
from odc.geo.geobox import GeoBox
from torch import nn

from geoseg.data.scene import OUTSIDE, TRAINING, VALIDATION, SceneArrays
from geoseg.legend import Legend
from geoseg.models.card import BandInfo, ModelCard
from geoseg.models.spec import ModelSpec


@pytest.fixture
def make_scene():
    """A function that makes a scene: three classes, noise, a hole, unlabelled pixels; columns to `until` validate."""

    def make(seed: int = 0, *, shape=(150, 130), crs="EPSG:32633", until: int = 90, absent=()) -> SceneArrays:
        rng = np.random.default_rng(seed)
        fields = [-(-side // 10) for side in shape]
        labels = np.kron(rng.integers(0, 3, fields), np.ones((10, 10)))[: shape[0], : shape[1]].astype(np.uint8)
        pixels = rng.integers(0, 200, (3, *shape)).astype(np.int16)
        np.put_along_axis(pixels, labels[None].astype(int), 250, axis=0)
        pixels[list(absent)] = 0
        valid = np.ones(shape, bool)
        valid[20:30, 5:25] = False
        labels[~valid | (rng.random(shape) < 0.1)] = 255
        part = np.where(np.arange(shape[1]) < until, VALIDATION, TRAINING) + np.zeros((shape[0], 1), int)
        part = np.where(valid, part, OUTSIDE).astype(np.uint8)
        geobox = GeoBox(shape, Affine(10, 0, 500_000, 0, -10, 5_200_000), crs)
        return SceneArrays(
            f"scene {seed}", pixels, valid, labels, part, geobox, ("b1", "b2", "b3"), 255, geobox, absent=tuple(absent)
        )

    return make


@pytest.fixture
def network() -> nn.Module:
    """It sees one pixel around each, and is right more often than not."""
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 3, 3, padding=1)
    with torch.no_grad():
        layer.weight.mul_(0.5)
        layer.weight[range(3), range(3), 1, 1] += 1.0
    return nn.Sequential(layer).eval()


@pytest.fixture
def card() -> ModelCard:
    """Of three bands and three classes, in tiles of 64 pixels, 48 apart."""
    return ModelCard(
        name="test",
        spec=ModelSpec(decoder="pixel", bands=3, classes=3),
        bands=tuple(BandInfo(name=f"b{band}", mean=100.0, std=60.0) for band in (1, 2, 3)),
        legend=Legend.from_dict({1: "water", 5: "wood", 9: "road"}),
        gsd_m=(10.0, 10.0),
        tile_px=64,
        overlap_px=16,
    )
