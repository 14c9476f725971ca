"""Writes the model files of past formats that `test_past_files.py` loads; run once a format, then kept as they are.

`python tests/models/support/make_fixtures.py` writes those of the present format, beside each a JSON file with pixels
and what the network gives for them.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from geoseg.legend import Legend
from geoseg.models.build import create_model
from geoseg.models.card import FORMAT, METADATA_KEY, BandInfo, ModelCard
from geoseg.models.file import save_model
from geoseg.models.spec import ModelSpec

FOLDER = Path(__file__).resolve().parents[1] / "fixtures"
NEWER_BAND_KEYS = ("quantiles",)
NEWER_SCORES = ("frequency_weighted_iou", "mean_boundary_iou", "boundary_px", "calibration_error")
NEWER_CLASS_SCORES = ("precision", "recall", "boundary_iou")
NEWER_TRAINING = ("split", "validation_pixels")


def card() -> ModelCard:
    """With a value under every key."""
    quantiles = tuple(float(100 * step) for step in range(9))
    scores = {
        "overall_accuracy": 0.75, "mean_iou": 0.5, "mean_f1": 0.625, "frequency_weighted_iou": 0.6, "score": 0.625,
        "classes": {
            name: {"iou": 0.5, "f1": 0.625, "precision": 0.5, "recall": 0.75, "pixels": 40, "boundary_iou": 0.25}
            for name in ("water", "wood")
        },
        "confusion": [[30, 10], [10, 30]], "mean_boundary_iou": 0.25, "boundary_px": 3, "calibration_error": 0.05,
    }  # fmt: skip
    square = {"type": "Polygon", "coordinates": [[[15, 47], [16, 47], [16, 48], [15, 48], [15, 47]]]}
    return ModelCard(
        name="past",
        spec=ModelSpec(
            decoder="pixel", encoder="none", bands=2, classes=2, options={"hidden": [4]}, wavelengths_um=(0.66, 0.85)
        ),
        bands=(
            BandInfo(name="red", mean=400, std=120, wavelength_um=0.66, min=1, max=2000, quantiles=quantiles),
            BandInfo(name="nir", mean=2500.5, std=600, wavelength_um=0.85, min=3, max=9000, quantiles=quantiles),
        ),
        legend=Legend.from_dict({1: "water", 4: {"name": "wood", "color": "#1f6b35", "codes": [41, 42]}}),
        gsd_m=(10.0, 10.0),
        tile_px=128,
        overlap_px=32,
        train_region=square,
        val_region=square,
        scores=scores,
        versions={"geoseg": "0.1.0", "torch": "2.9.0"},
        created="2026-11-26T00:00:00+00:00",
        license="CC-BY-4.0",
        training={
            "config": {"model": {"decoder": "pixel", "weights": None}}, "epochs": 3, "seconds": 12.5,
            "training_pixels": {"water": 100, "wood": 200}, "validation_pixels": {"water": 40, "wood": 40},
            "split": "4 units",
        },
    )  # fmt: skip


def network() -> nn.Module:
    """A network whose batch norm does something."""
    torch.manual_seed(1)
    made = create_model(card().spec)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return made.eval()


def older(values: dict) -> dict:
    """A header as the first files of the format had it."""
    found = json.loads(json.dumps(values))
    for band in found["geoseg:bands"]:
        for key in NEWER_BAND_KEYS:
            del band[key]
    del found["mlm:hyperparameters"]["wavelengths_um"]
    for key in NEWER_SCORES:
        del found["geoseg:scores"][key]
    for scores in found["geoseg:scores"]["classes"].values():
        for key in NEWER_CLASS_SCORES:
            del scores[key]
    for key in NEWER_TRAINING:
        del found["geoseg:training"][key]
    return found


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    made, path = network(), FOLDER / f"format{FORMAT}.safetensors"
    save_model(path, model=made, card=card())
    weights = {name: tensor.contiguous() for name, tensor in made.state_dict().items()}
    header = json.dumps(older(card().to_dict(parameters=sum(each.numel() for each in made.parameters()))))
    save_file(weights, FOLDER / f"format{FORMAT}_first.safetensors", {METADATA_KEY: header})
    image = torch.tensor([[[[-1.0, 0.0, 0.5]], [[2.0, -0.25, 0.0]]]])
    with torch.inference_mode():
        told = {"image": image.tolist(), "logits": made(image).tolist()}
    (FOLDER / f"format{FORMAT}.json").write_text(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
