"""A model card in words: what the model is, what it was trained on, how it scores, class by class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyproj import Geod
from shapely import orient_polygons
from shapely.errors import ShapelyError
from shapely.geometry import shape

from geoseg.inspecting.tables import facts, hectares, table
from geoseg.models.card import ModelCard

SCORES = {
    "overall_accuracy": "accuracy", "mean_iou": "mean IoU", "mean_f1": "mean F1",
    "frequency_weighted_iou": "frequency-weighted IoU", "mean_boundary_iou": "boundary IoU",
    "calibration_error": "calibration error",
}  # fmt: skip
"""Scores of the whole map, and what people call them."""

CLASS_SCORES = {"iou": "IoU", "boundary_iou": "boundary IoU", "f1": "F1", "precision": "precision", "recall": "recall"}


def card_blocks(card: ModelCard) -> tuple[str, ...]:
    """The facts of a card, and a table of its classes."""
    alone = card.spec.encoder == "none" or card.spec.decoder == "pixel"
    network = card.spec.decoder if alone else f"{card.spec.decoder} on {card.spec.encoder}"
    made = [card.created or "unknown", *(f"{name} {version}" for name, version in card.versions.items())]
    pairs = [
        ("model", f"{card.name}, {network}"),
        ("bands", ", ".join(card.band_names)),
        ("pixel", f"{card.gsd_m[0]:g} x {card.gsd_m[1]:g} m"),
        ("classes", ", ".join(f"{item.id} {item.name}" for item in card.legend.classes)),
        ("tiles", f"{card.tile_px} px, {card.overlap_px} px overlap"),
        ("trained", _trained(card)),
        ("judged", _judged(card)),
        ("split", card.training.get("split") or "not said"),
        ("scores", _scores(card.scores)),
        ("made", ", ".join(made)),
        ("licence", card.license or "not said"),
    ]
    return facts(pairs), class_table(card)


def class_table(card: ModelCard) -> str:
    """Each class with its labelled pixels and its scores; `-` where the card does not say."""
    told = card.scores.get("classes", {})
    trained = card.training.get("training_pixels", {})
    heads = ["class", "training px", "validation px", *CLASS_SCORES.values()]
    rows = []
    for item in card.legend.classes:
        scores = told.get(item.name, {})
        counts = [trained.get(item.name), scores.get("pixels")]
        rows.append(
            [f"{item.id} {item.name}", *("-" if count is None else f"{count:,}" for count in counts),
             *(_score(scores.get(name)) for name in CLASS_SCORES)]
        )  # fmt: skip
    return table(heads, rows)


def _trained(card: ModelCard) -> str:
    """Where and for how long it was trained."""
    training = card.training
    found = [_place(card.train_region, training.get("training_pixels"))]
    options = card.spec.options
    if card.spec.decoder == "random_forest":
        found.append(f"{options.get('trees', 0):,} trees grown on up to {options.get('pixels', 0):,} of these pixels")
    elif "epochs" in training:
        found.append(f"{training['epochs']} epochs")
    if "seconds" in training:
        found.append(f"{training['seconds'] / 60:,.1f} min")
    return ", ".join(part for part in found if part) or "not said"


def _judged(card: ModelCard) -> str:
    """Where its scores were counted."""
    classes = card.scores.get("classes", {})
    pixels = {name: scores.get("pixels") or 0 for name, scores in classes.items()}
    return _place(card.val_region, pixels) or "not said"


def _place(region: Mapping[str, Any] | None, pixels: Mapping[str, int] | None) -> str:
    """About how large an outline is, and how many labels it holds."""
    area_m2 = region_area_m2(region)
    parts = [] if not area_m2 else [f"about {hectares(area_m2)} ha"]
    if pixels and sum(pixels.values()):
        parts.append(f"{sum(pixels.values()):,} labelled pixels")
    return ", ".join(parts)


def region_area_m2(region: Mapping[str, Any] | None) -> float | None:
    """Area of a GeoJSON geometry on the WGS 84 ellipsoid; None without one, or where it is none.

    However its rings are turned: outlines add and holes take away.
    """
    if not region:
        return None
    try:
        area, _ = Geod(ellps="WGS84").geometry_area_perimeter(orient_polygons(shape(region)))
    except (ShapelyError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return abs(float(area))


def _scores(scores: Mapping[str, Any]) -> str:
    found = []
    for key, name in SCORES.items():
        value = scores.get(key)
        if isinstance(value, float):
            near = f" ({scores['boundary_px']} px)" if key == "mean_boundary_iou" and "boundary_px" in scores else ""
            found.append(f"{name} {value:.3f}{near}")
    return ", ".join(found) or "none"


def _score(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else "-"
