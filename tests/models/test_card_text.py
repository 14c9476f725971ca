"""What `geoseg info` says of a model: as much as its card tells, of an old card too."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pyproj import Geod
from shapely.geometry import box

from geoseg.inspecting.model_text import card_blocks, region_area_m2

DEGREE = {"type": "Polygon", "coordinates": [[[15, 0], [16, 0], [16, 1], [15, 1], [15, 0]]]}
SCORES = {
    "overall_accuracy": 0.75, "mean_iou": 0.5, "mean_f1": None, "mean_boundary_iou": 0.25, "boundary_px": 3,
    "calibration_error": 0.016, "confusion": [[1]],
    "classes": {"water": {"iou": 0.5, "boundary_iou": 0.125, "f1": None, "pixels": 1200}, "road": {"iou": None}},
}  # fmt: skip


def said(card) -> dict[str, str]:
    facts, _ = card_blocks(card)
    return {line.split()[0]: " ".join(line.split()[1:]) for line in facts.splitlines()}


def test_a_full_card_is_told(card):
    training = {"epochs": 3, "seconds": 90.0, "split": "34 units", "training_pixels": {"water": 5000, "road": 70}}
    full = replace(card, scores=SCORES, training=training, train_region=DEGREE, val_region=DEGREE)
    lines = said(full)
    assert lines["model"] == "field test, pixel"
    assert lines["trained"] == "about 1,230,878 ha, 5,070 labelled pixels, 3 epochs, 1.5 min"
    assert lines["judged"] == "about 1,230,878 ha, 1,200 labelled pixels"
    assert lines["split"] == "34 units"
    assert lines["scores"] == "accuracy 0.750, mean IoU 0.500, boundary IoU 0.250 (3 px), calibration error 0.016"
    assert lines["licence"] == "CC-BY-4.0"
    rows = [line.split() for line in card_blocks(full)[1].splitlines()]
    assert rows[1] == ["1", "water", "5,000", "1,200", "0.500", "0.125", "-", "-", "-"]
    assert rows[2] == ["7", "road", "70", "-", "-", "-", "-", "-", "-"]
    assert rows[3][:4] == ["9", "wood", "-", "-"]


def test_a_card_that_tells_little_is_told_too(card):
    lines = said(replace(card, scores={}, training={}, train_region=None, license=None, created="", versions={}))
    assert [lines[name] for name in ("trained", "judged", "split", "scores", "licence")] == [
        "not said", "not said", "not said", "none", "not said",
    ]  # fmt: skip
    assert lines["made"] == "unknown"


@pytest.mark.parametrize("turned", range(8))
def test_the_area_of_a_region_does_not_depend_on_how_its_rings_are_turned(turned):
    rings = [box(10, 50, 10.2, 50.2), box(10.05, 50.05, 10.1, 50.1), box(11, 50, 11.1, 50.1)]
    areas = [abs(Geod(ellps="WGS84").geometry_area_perimeter(ring)[0]) for ring in rings]
    outline, hole, other = (list(ring.exterior.coords)[:: -1 if turned >> k & 1 else 1] for k, ring in enumerate(rings))
    region = {"type": "MultiPolygon", "coordinates": [[outline, hole], [other]]}
    assert region_area_m2(region) == pytest.approx(areas[0] - areas[1] + areas[2])


@pytest.mark.parametrize("region", [None, {}, {"type": "Circle"}, {"type": "Polygon"}])
def test_what_is_no_region_has_no_area(region):
    assert region_area_m2(region) is None
