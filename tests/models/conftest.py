"""A small card and one thread."""

from __future__ import annotations

import pytest
import torch

from geoseg.legend import Legend
from geoseg.models.card import BandInfo, ModelCard
from geoseg.models.spec import ModelSpec


@pytest.fixture
def card():
    bands = (
        BandInfo(name="red", mean=1234.5678901234567, std=0.1, wavelength_um=0.66, min=0.0, max=65535.0),
        BandInfo(name="nir", mean=-1e-9, std=3e8),
    )
    return ModelCard(
        name="field test",
        spec=ModelSpec(decoder="pixel", bands=2, classes=3, options={"hidden": [8]}),
        bands=bands,
        legend=Legend.from_dict({1: "water", 7: {"name": "road", "kind": "thing", "codes": [70, 71]}, 9: "wood"}),
        gsd_m=(10.0, 12.5),
        tile_px=256,
        overlap_px=32,
        train_region={"type": "Point", "coordinates": [15.0, 47.0]},
        scores={"mean_iou": 0.5, "classes": {"water": {"iou": None}}},
        versions={"torch": torch.__version__},
        created="2026-01-01T00:00:00+00:00",
        license="CC-BY-4.0",
        training={"epochs": 3},
    )
