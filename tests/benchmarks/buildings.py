"""Trained on one town, how well are the buildings of another town found? Polygons come out."""

from __future__ import annotations

from _run import ROOT, emit, geoseg, need_shared, scores


def main() -> None:
    data = need_shared("buildings") / "buildings"
    folder = ROOT / "runs" / "buildings"
    model, mapped, figures = folder / "model.safetensors", folder / "map.tif", folder / "accuracy.json"
    fit = geoseg("fit", "--config", "configs/buildings.yaml", "--name", "buildings", "--overwrite")
    other_town = data / "23429155_15.tif"
    names = ("--bands", "red,green,blue")  # the file does not name its bands
    predict = geoseg("predict", other_town, "--model", model, "--out", mapped, *names, "--overwrite")
    reference = f"{{path: {data}/massachusetts_buildings.gpkg, column: class, background: background}}"
    geoseg("assess", mapped, "--reference", reference, "--out", figures, "--overwrite")
    polygons = folder / "buildings.gpkg"
    vectorize = geoseg("vectorize", mapped, "--out", polygons, "--min-area-m2", 20, "--tolerance-m", 1, "--overwrite")
    found = scores(figures)
    building = next(row for row in found["classes"] if row["name"] == "building")
    emit(
        "buildings",
        ours=round(building["iou"], 4),
        unit="IoU of buildings in the other town",
        better="higher",
        f1=round(building["f1"], 4),
        overall_accuracy=round(found["overall_accuracy"], 4),
        fit=fit,
        predict=predict,
        vectorize=vectorize,
        polygons=str(polygons.relative_to(ROOT)),
    )


if __name__ == "__main__":
    main()
