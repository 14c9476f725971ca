"""Trained on one town, how well are the buildings of another town found? Three seeds; polygons come out.

The recipe is three small networks of `configs/buildings.yaml`, whose probabilities are averaged over the eight flips
and turns; each of them alone stands beside it.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from _run import ROOT, emit, geoseg, need_shared, scores

BAR = 0.60
NETWORKS = 3
POLYGONS = ("--min-area-m2", "20", "--tolerance-m", "1", "--right-angles", "building")


def one_seed(seed: int, data: Path) -> dict[str, Any]:
    """IoU and F1 of buildings in the other town, and what it took."""
    runs = [f"buildings_{seed}_{number}" for number in range(NETWORKS)]
    fits = [
        geoseg(
            "fit", "--config", "configs/buildings.yaml", "--name", name, "--seed_everything",
            str(NETWORKS * seed + number), "--overwrite",
        )
        for number, name in enumerate(runs)
    ]  # fmt: skip
    models = [ROOT / "runs" / name / "model.safetensors" for name in runs]
    out = models[0].parent
    together, predict = judged(models, out / "together.tif", data)
    alone = [judged([model], out / f"alone_{number}.tif", data)[0] for number, model in enumerate(models)]
    mapped = out / "together.tif"
    vectorize = geoseg("vectorize", mapped, "--out", out / "buildings.gpkg", *POLYGONS, "--overwrite")
    return {
        **together,
        "alone": [each["iou"] for each in alone],
        "fit": fits,
        "predict": predict,
        "vectorize": vectorize,
    }


def judged(models: list[Path], out: Path, data: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Scores in the other town of the map by these networks together, and what mapping took."""
    names = ("--bands", "red,green,blue", "--tta", "all")  # the file does not name its bands
    together = ",".join(map(str, models))
    done = geoseg("predict", data / "23429155_15.tif", "--model", together, "--out", out, *names, "--overwrite")
    figures = out.with_suffix(".json")
    reference = f"{{path: {data}/massachusetts_buildings.gpkg, column: class, background: background}}"
    geoseg("assess", out, "--reference", reference, "--out", figures, "--overwrite")
    found = scores(figures)
    building = next(row for row in found["classes"] if row["name"] == "building")
    kept = {"iou": building["iou"], "f1": building["f1"], "overall_accuracy": found["overall_accuracy"]}
    return {name: round(value, 4) for name, value in kept.items()}, done


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    data = need_shared("buildings") / "buildings"
    found = [one_seed(seed, data) for seed in range(parser.parse_args().seeds)]
    iou = [each["iou"] for each in found]
    alone = [value for each in found for value in each["alone"]]
    emit(
        "buildings",
        ours=min(iou),
        reference=BAR,
        ratio=round(min(iou) / BAR, 4),
        unit="IoU of buildings in the other town, the worst of all seeds",
        ratio_is="ours/reference",
        better="higher",
        mean=round(statistics.mean(iou), 4),
        std=round(statistics.pstdev(iou), 4),
        alone={"worst": min(alone), "mean": round(statistics.mean(alone), 4)},
        seeds=found,
    )


if __name__ == "__main__":
    main()
