"""The main job end to end on a synthetic landscape: what was made, where, how long it took, and a picture."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg import explore, io, pipeline, synthetic
from geoseg.accuracy import Confusion
from geoseg.errors import OutputExistsError
from geoseg.synthetic.scene import Landscape

# The west is for training, the east is held out; between them lies a gap of 32 columns.
TRAIN_COLS, TEST_FROM_COL = 640, 672
BASELINE_PIXELS = 20_000


@dataclass(slots=True)
class DemoResult:
    """What the demo made and what came out.

    Attributes:
        rows: What, where and seconds of each step.
        mean_iou: On the held-out part, of the network.
        baseline_mean_iou: The same, of a random forest that sees single pixels.
    """

    rows: list[tuple[str, str, float]] = field(default_factory=list)
    mean_iou: float = 0.0
    baseline_mean_iou: float = 0.0
    table: str = ""

    @contextmanager
    def step(self, what: str, where: Path | str) -> Iterator[None]:
        """Times what happens inside and keeps it as a row."""
        start = time.perf_counter()
        yield
        self.rows.append((what, str(where), time.perf_counter() - start))

    def __str__(self) -> str:
        lines = [f"{what:<22} {where:<44} {seconds:6.1f} s" for what, where, seconds in self.rows]
        total = sum(seconds for _, _, seconds in self.rows)
        verdict = (
            f"mean IoU on the held-out east: {self.mean_iou:.3f} by the network, "
            f"{self.baseline_mean_iou:.3f} by a random forest on single pixels"
        )
        return "\n".join(
            [
                self.table,
                "",
                f"{'step':<22} {'made':<44} {'time':>8}",
                *lines,
                f"{'together':<67} {total:6.1f} s",
                "",
                verdict,
            ]
        )


def run_demo(*, out: Path = Path("runs/demo"), seed: int = 0, overwrite: bool = False) -> DemoResult:
    """Run the main job end to end on a synthetic scene.

    Args:
        out: The folder for everything that is made.
        seed: The landscape and the training are drawn from it.
        overwrite: Whether an existing folder's files may be replaced.

    Returns:
        What was made, how long it took and how good the map is.

    Raises:
        OutputExistsError: The folder holds a demo and was not to be overwritten.
    """
    out = Path(out)
    if (out / "map.tif").exists() and not overwrite:
        raise OutputExistsError(f"{out} holds a demo; add --overwrite to replace it, or give another --out")
    result = DemoResult()
    with result.step("landscape", out / "image.tif"):
        image, labels = write_landscape(out, seed=seed)
    with result.step("fit", out / "model.safetensors"):
        model = pipeline.fit(config(image, labels, out=out, seed=seed)).model
    with result.step("predict", out / "map.tif"):
        pipeline.predict([str(image)], model=model, out=out / "map.tif", overwrite=True)
    with result.step("vectorize", out / "map.gpkg"):
        pipeline.vectorize(out / "map.tif", out=out / "map.gpkg", min_area_m2=1_000, tolerance_m=15, overwrite=True)
    held_out = {"cols": [TEST_FROM_COL, None]}
    with result.step("assess", out / "accuracy.json"):
        found = pipeline.assess(
            out / "map.tif", reference=str(labels), region=held_out, out=out / "accuracy.json", overwrite=True
        )
    with result.step("per-pixel baseline", "random forest, 50 trees"):
        result.baseline_mean_iou = baseline_mean_iou(synthetic.landscape(seed), seed=seed)
    with result.step("picture", out / "demo.png"):
        picture(out)
    result.mean_iou, result.table = found.accuracy.mean_iou, str(found)
    summary = {"mean_iou": result.mean_iou, "baseline_mean_iou": result.baseline_mean_iou,
               "seconds": {what: round(seconds, 1) for what, _, seconds in result.rows}}  # fmt: skip
    (out / "demo.json").write_text(json.dumps(summary, indent=2) + "\n")
    return result


def write_landscape(folder: Path, *, seed: int = 0, shape: tuple[int, int] = (768, 1024)) -> tuple[Path, Path]:
    """The paths of `image.tif` and `labels.tif` of a synthetic landscape, written into `folder`.

    Args:
        folder: Made where it is missing; files of these names are replaced.
        seed: The landscape's.
        shape: Rows and columns.
    """
    land = synthetic.landscape(seed, shape=shape)
    image = io.write_raster(land.image, folder / "image.tif", nodata=0, overwrite=True)
    return image, io.write_raster(land.labels, folder / "labels.tif", legend=land.legend, overwrite=True)


def config(image: Path, labels: Path, *, out: Path, seed: int) -> dict[str, Any]:
    """The training config of the demo, with the keys of `configs/landcover.yaml`."""
    return {
        "name": out.name,
        "runs": str(out.parent),
        "overwrite": True,
        "seed_everything": seed,
        "data": {
            "scenes": [{"image": str(image), "labels": str(labels), "region": {"cols": [0, TRAIN_COLS]}}],
            "patch_px": 128,
            "batch": 8,
            "epoch_patches": 400,
        },
        "model": {
            "encoder": "resnet18",
            "options": {"encoder_depth": 3, "decoder_channels": [64, 32, 32]},
        },
        "trainer": {"max_epochs": 8},
    }


def baseline_mean_iou(land: Landscape, *, seed: int) -> float:
    """Mean IoU on the held-out part of a random forest that sees the six bands of single pixels."""
    from sklearn.ensemble import RandomForestClassifier

    pixels, truth = land.image.pixels, land.labels.pixels[0]
    train, test = land.image.valid.copy(), land.image.valid.copy()
    train[:, TRAIN_COLS:] = False
    test[:, :TEST_FROM_COL] = False
    drawn = np.random.default_rng(seed).choice(np.flatnonzero(train), BASELINE_PIXELS, replace=False)
    forest = RandomForestClassifier(50, n_jobs=-1, random_state=seed, min_samples_leaf=2)
    forest.fit(pixels.reshape(len(pixels), -1)[:, drawn].T, truth.ravel()[drawn])
    found: NDArray[Any] = truth.copy()
    found[test] = forest.predict(pixels[:, test].T)
    return Confusion.zeros(land.legend).update(found, test, truth, test).finish().mean_iou


def picture(out: Path) -> None:
    """Writes `demo.png`: image, truth, map and confidence side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 4.2), layout="constrained")
    image, truth, mapped, trust = figure.subplots(1, 4)
    explore.show(str(out / "image.tif"), axis=image)
    explore.show_map(out / "labels.tif", axis=truth)
    explore.show_map(out / "map.tif", axis=mapped)
    confidence = explore.quicklook(str(out / "map.confidence.tif"))
    shown = np.ma.masked_array(confidence.pixels[0], ~confidence.valid)
    drawn = trust.imshow(shown, vmin=0, vmax=100, cmap="viridis", interpolation="nearest")
    trust.set_axis_off()
    figure.colorbar(drawn, ax=trust, shrink=0.8, label="%")
    for axis, title in ((image, "image"), (truth, "truth"), (mapped, "map"), (trust, "confidence")):
        axis.set_title(title)
    figure.savefig(out / "demo.png", dpi=110)
