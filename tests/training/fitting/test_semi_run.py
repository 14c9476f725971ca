"""Runs that learn from scenes without labels: that it helps, that it resumes, and what it refuses."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine

from geoseg.errors import BandError, InputError
from geoseg.models.file import load_model
from geoseg.models.task import SegmentationTask
from geoseg.training.run import run_fit

SEMI = {"data": {"unlabelled": "same", "unlabelled_batch": 6}, "model": {"semi": {"threshold": 0.5, "ramp": 0.5}}}


def with_semi(**more) -> dict:
    return {**{key: {**value, **more.get(key, {})} for key, value in SEMI.items()},
            **{key: value for key, value in more.items() if key not in SEMI}}  # fmt: skip


def history(run) -> list[dict[str, float]]:
    return json.loads((run.folder / "metrics.json").read_text())["history"]


def test_a_stopped_run_goes_on_with_the_same_curve(config, stopped_after):
    kept = with_semi(
        data={"sampling": {"shares": {"hard": 0.5, "labelled": 0.5}}},
        model={"ema_decay": 0.8, "swa": {"start": 0.3}, "bf16": "yes"},
        trainer={"max_epochs": 3, "accumulate_grad_batches": 2},
    )
    whole = run_fit(config(name="whole", **kept))
    with stopped_after(2):
        run_fit(config(**kept))
    torch.manual_seed(12345)
    resumed = run_fit(config(**kept), resume=True)
    for one, other in zip(history(whole), history(resumed), strict=True):
        assert one["train/loss"] == pytest.approx(other["train/loss"], rel=1e-6)
        assert one["val/score"] == pytest.approx(other["val/score"], rel=1e-6)
    for one, other in zip(*(load_model(run.model)[0].state_dict().values() for run in (whole, resumed)), strict=True):
        torch.testing.assert_close(one, other)


def test_the_loss_and_the_share_of_sure_pixels_are_logged(config):
    result = run_fit(config(**with_semi()))
    (log,) = (result.folder / "csv").rglob("metrics.csv")
    rows = [row for row in csv.DictReader(log.read_text().splitlines()) if row["train/semi_loss"]]
    assert len(rows) == 2
    assert all(float(row["train/semi_loss"]) > 0 and 0 < float(row["train/confident"]) <= 1 for row in rows)
    assert [float(row["train/loss"]) for row in rows] == pytest.approx([row["train/loss"] for row in history(result)])
    semi = json.loads(json.dumps(load_model(result.model)[1].training["config"]["model"]["semi"]))
    assert semi == {"method": "pseudo_labels", "weight": 1.0, "threshold": 0.5, "ramp": 0.5}


def test_options_that_are_given_keep_the_other_defaults(config):
    result = run_fit(config(**with_semi(data={"unlabelled_augment": {"noise": 0.3, "cutmix": None}})))
    given = load_model(result.model)[1].training["config"]["data"]["unlabelled_augment"]
    assert (given["noise"], given["gain"], given["blur"], given["cutmix"], given["turns"]) == (
        0.3,
        0.2,
        1.0,
        None,
        True,
    )


def test_a_nan_in_a_patch_without_labels_names_it(config, monkeypatch):
    train, found = SegmentationTask.training_step, {}

    def training_step(self, batch, batch_idx):
        if self.global_step == 5:
            found["window"] = batch["unlabelled_window"][4].tolist()
            batch["student_image"][4, 0, 3, 3] = torch.nan
            batch["student_valid"][4, 3, 3] = True
        return train(self, batch, batch_idx)

    monkeypatch.setattr(SegmentationTask, "training_step", training_step)
    with pytest.raises(InputError, match="loss is nan at step 5") as caught:
        run_fit(config(**with_semi()))
    scene, row, col = found["window"]
    assert scene == 1
    assert f"image.tif rows {row} to {row + 32}, columns {col} to {col + 32}" in str(caught.value)
    assert "more" not in str(caught.value)


def test_one_without_the_other_is_refused_before_anything_is_read(config):
    absent = {"scenes": [{"image": "absent.tif", "labels": "absent.tif"}]}
    for given, words in (
        ({"model": {"semi": {}}}, r"data\.unlabelled names none; name some, or 'same'"),
        ({"data": {"unlabelled": "same"}}, r"give model\.semi, such as"),
        (with_semi(model={"decoder": "random_forest", "options": {}}), "grows on labels alone"),
    ):
        made = config(**given)
        with pytest.raises(InputError, match=words):
            run_fit({**made, "data": {**made["data"], **absent}})


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"semi": {"method": "fixmatch"}}, "known are consistency, pseudo_labels"),
        ({"semi": {"threshold": 2.0}}, "probability from 0 to 1"),
        ({"semi": {}, "ema_decay": 0.0}, "ema_decay above 0"),
        ({"semi": {"treshold": 0.9}}, "treshold"),
    ],
)
def test_options_that_make_no_sense_are_told_in_one_line(config, model, words):
    with pytest.raises(InputError, match=words) as caught:
        run_fit(config(**with_semi(model=model)))
    assert "\n" not in str(caught.value)


def test_a_run_without_an_end_is_refused(config):
    with pytest.raises(InputError, match=r"semi needs to know the run's length.*max_epochs"):
        run_fit(config(**with_semi(trainer={"max_epochs": -1, "max_time": "00:00:00:30"})))


def test_other_bands_are_refused(config):
    save("two.tif", np.ones((2, 64, 64), np.uint16), north=5_900_000)
    with pytest.raises(BandError, match=r"two\.tif of data\.unlabelled: needed bands are"):
        run_fit(config(**with_semi(data={"unlabelled": ["two.tif"]})))


def test_the_batch_and_the_learning_rate_are_found_with_unlabelled_patches(config, monkeypatch):
    monkeypatch.setattr("geoseg.training.search.SWEEP_STEPS", 12)
    result = run_fit(config(**with_semi(trainer={"max_epochs": 1})), find_batch=True, find_lr=True)
    assert math.isfinite(result.scores["overall_accuracy"])


# -- that it helps -----------------------------------------------------------------------------------------------------


def save(name: str, pixels: np.ndarray, *, north: float) -> str:
    with rasterio.open(
        name, "w", driver="GTiff", count=len(pixels), height=pixels.shape[1], width=pixels.shape[2], nodata=0,
        dtype=pixels.dtype, crs="EPSG:32633", transform=Affine(10, 0, 500_000, 0, -10, north),
    ) as file:  # fmt: skip
        file.write(pixels)
    return name


def crescents(seed: int, *, north: float, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Writes fields of two classes whose bands lie on two crescents; gives the classes, and how far along each lies."""
    rng = np.random.default_rng(seed)
    classes = np.kron(rng.integers(0, 2, (16, 16)), np.ones((8, 8))).astype(int)
    along = rng.uniform(0, np.pi, classes.shape)
    one, other = np.stack([np.cos(along), np.sin(along)]), np.stack([1 - np.cos(along), 0.5 - np.sin(along)])
    bands = np.where(classes == 0, one, other) + rng.normal(0, 0.05, (2, *classes.shape))
    save(f"{name}.tif", (500 * bands + 2000).astype(np.uint16), north=north)
    save(f"{name}_labels.tif", (classes + 1).astype(np.uint8)[None], north=north)
    return classes, along


def test_unlabelled_scenes_make_up_for_few_labels(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    classes, along = crescents(0, north=5_200_000, name="few")
    crescents(100, north=5_300_000, name="judged")
    crescents(200, north=5_400_000, name="more")
    # Of each class four pixels are labelled, all in the middle of its crescent.
    labels, rng = np.zeros((1, *classes.shape), np.uint8), np.random.default_rng(50)
    for k in (0, 1):
        middle = np.argwhere((classes == k) & (np.abs(along - np.pi / 2) < 0.3))
        labels[0][tuple(rng.permutation(middle)[:4].T)] = k + 1
    save("few_labels.tif", labels, north=5_200_000)
    legend = {1: "a", 2: "b"}
    given = {
        "data": {
            "patch_px": 32, "batch": 4, "epoch_patches": 64, "augment": {"noise": 0.2},
            "scenes": [
                {"image": f"{name}.tif", "labels": {"path": f"{name}_labels.tif", "legend": legend}, "part": part}
                for name, part in (("few", "training"), ("judged", "validation"))
            ],
        },
        "model": {"decoder": "pixel", "options": {"hidden": [32, 32]}, "lr": 0.01, "bf16": "no"},
        "trainer": {"max_epochs": 8, "accelerator": "cpu"}, "validation": {"places": 0}, "logs": ["csv"],
    }  # fmt: skip
    strong = {"unlabelled": ["more.tif"], "unlabelled_augment": {"noise": 0.2, "blur": 0.0, "cutmix": None}}
    scores = {}
    for name, semi in (
        ("labels alone", None),
        ("pseudo_labels", {"method": "pseudo_labels", "threshold": 0.9}),
        ("consistency", {"method": "consistency", "weight": 10.0}),
    ):
        data = given["data"] if semi is None else {**given["data"], **strong}
        run = run_fit({**given, "name": name, "data": data, "model": {**given["model"], "semi": semi}})
        scores[name] = run.scores["overall_accuracy"]
    assert 0.7 < scores["labels alone"] < 0.84
    assert scores["pseudo_labels"] > scores["labels alone"] + 0.03
    assert scores["consistency"] > scores["labels alone"] + 0.05
