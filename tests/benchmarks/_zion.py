"""Fit on the west of zion, map it all, assess on the east, by command line."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from _forest import forest_scores
from _run import ROOT, emit, geoseg, need_shared, scores

EAST = "{cols: [708, null]}"
BANDS = ("--bands", "blue,green,red,nir")  # as in the configs


def fitted(config: str, name: str, seed: int) -> tuple[Path, float]:
    """The model file of a run, and the seconds it took."""
    done = geoseg(
        "fit", "--config", f"configs/{config}.yaml", "--name", name, "--seed_everything", str(seed), "--overwrite"
    )
    return ROOT / "runs" / name / "model.safetensors", done["seconds"]


def judged(models: list[Path], scene: tuple[str, ...], out: Path, *, tta: str = "none") -> tuple[dict[str, Any], float]:
    """Scores on the east of the map by these models together, and the seconds that mapping took."""
    names = ",".join(map(str, models))
    done = geoseg("predict", *scene, "--model", names, "--tta", tta, "--out", out, "--overwrite")
    figures = out.with_suffix(".json")
    reference = need_shared("zion") / "zion" / "nlcd.tif"
    geoseg("assess", out, "--reference", reference, "--region", EAST, "--out", figures, "--overwrite")
    return scores(figures), done["seconds"]


def figures_of(found: dict[str, Any]) -> dict[str, float]:
    return {"overall_accuracy": round(found["overall_accuracy"], 4), "mean_iou": round(found["mean_iou"], 4)}


def careful_users_forest() -> dict[str, float]:
    """Scores on the east of the forest that needs no geoseg."""
    data = need_shared("zion") / "zion"
    return forest_scores(str(data / "landsat8_2345.tif"), str(data / "nlcd_on_landsat_grid.tif"))


def spread(values: list[float]) -> dict[str, float]:
    """Mean and standard deviation over the seeds."""
    return {"mean": round(statistics.mean(values), 4), "std": round(statistics.pstdev(values), 4)}


def run(bench: str, scene: tuple[str, ...]) -> None:
    """One network, one seed."""
    need_shared(bench)
    model, fit = fitted(bench, bench, 0)
    ours, predict = judged([model], scene, ROOT / "runs" / bench / "map.tif")
    forest = careful_users_forest()
    emit(
        bench,
        ours=round(ours["overall_accuracy"], 4),
        reference=forest["overall_accuracy"],
        ratio=round(ours["overall_accuracy"] / forest["overall_accuracy"], 4),
        unit="overall accuracy on the east",
        ratio_is="ours/reference",
        better="higher",
        mean_iou=round(ours["mean_iou"], 4),
        mean_iou_reference=forest["mean_iou"],
        iou={row["name"]: row["iou"] for row in ours["classes"]},
        fit_seconds=fit,
        predict_seconds=predict,
        forest_seconds=forest["seconds"],
    )
