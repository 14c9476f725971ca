"""Fit on the west of zion, map it all, assess on the east, by command line."""

from __future__ import annotations

from _forest import forest_scores
from _run import ROOT, emit, geoseg, need_shared, scores

EAST = "{cols: [708, null]}"


def run(bench: str, scene: tuple[str, ...]) -> None:
    data = need_shared(bench) / "zion"
    folder = ROOT / "runs" / bench
    model, mapped, figures = folder / "model.safetensors", folder / "map.tif", folder / "accuracy.json"
    fit = geoseg("fit", "--config", f"configs/{bench}.yaml", "--name", bench, "--overwrite")
    predict = geoseg("predict", *scene, "--model", model, "--out", mapped, "--overwrite")
    geoseg("assess", mapped, "--reference", data / "nlcd.tif", "--region", EAST, "--out", figures, "--overwrite")
    ours = scores(figures)
    forest = forest_scores(str(data / "landsat8_2345.tif"), str(data / "nlcd_on_landsat_grid.tif"))
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
        fit=fit,
        predict=predict,
        forest_seconds=forest["seconds"],
        map=str(mapped.relative_to(ROOT)),
    )
