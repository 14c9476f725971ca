"""How good is a map of zion's east, trained on its west, beside the random forest of a careful user? Three seeds.

The recipe is two networks of `configs/zion.yaml` and the forest of `configs/zion_forest.yaml`, whose probabilities are
averaged over the eight flips and turns. It was chosen on parts of the west.
"""

import argparse

from _run import ROOT, emit, need_shared
from _zion import BANDS, careful_users_forest, figures_of, fitted, judged, spread

BAR = {"overall_accuracy": 0.733, "mean_iou": 0.289}


def one_seed(seed: int) -> dict[str, object]:
    """Scores of the recipe, and of what it is made of, from one seed."""
    scene = (str(need_shared("zion") / "zion" / "landsat8_2345.tif"), *BANDS)
    networks = [fitted("zion", f"zion_{seed}_{number}", 2 * seed + number) for number in (0, 1)]
    forest = fitted("zion_forest", f"zion_{seed}_forest", seed)
    models = [model for model, _ in (*networks, forest)]
    out = ROOT / "runs" / f"zion_{seed}_0"
    together, predict = judged(models, scene, out / "together.tif", tta="all")
    alone = [judged([model], scene, out / f"{model.parent.name}.tif")[0] for model in models]
    return {
        "recipe": figures_of(together),
        "iou": {row["name"]: row["iou"] for row in together["classes"]},
        "networks": [figures_of(each) for each in alone[:2]],
        "forest": figures_of(alone[2]),
        "seconds": {"networks": [spent for _, spent in networks], "forest": forest[1], "predict": predict},
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    need_shared("zion")
    found = [one_seed(seed) for seed in range(parser.parse_args().seeds)]
    reference = careful_users_forest()
    worst = {key: min(each["recipe"][key] for each in found) for key in BAR}
    emit(
        "zion",
        ours=worst["overall_accuracy"],
        reference=BAR["overall_accuracy"],
        ratio=round(worst["overall_accuracy"] / BAR["overall_accuracy"], 4),
        unit="overall accuracy on the east, the worst of all seeds",
        ratio_is="ours/reference",
        better="higher",
        mean_iou=worst["mean_iou"],
        mean_iou_reference=BAR["mean_iou"],
        over_seeds={key: spread([each["recipe"][key] for each in found]) for key in BAR},
        seeds=found,
        careful_users_forest=reference,
    )


if __name__ == "__main__":
    main()
