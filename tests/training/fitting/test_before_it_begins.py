"""What would make a run worthless is told before it begins, or while it runs; nobody else works in its folder."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest
import rasterio

from geoseg.cli import main
from geoseg.data.datamodule import SceneDataModule
from geoseg.errors import InputError, MissingInputError, ModelFileError, OutputError
from geoseg.infer.holding import held
from geoseg.models.card import read_card
from geoseg.models.history import History
from geoseg.training.checks import _no_measurement
from geoseg.training.run import run_fit


def test_two_runs_of_one_name_do_not_mix(config):
    with held(Path("runs/tiny/model.safetensors")), pytest.raises(OutputError, match="another run is at work"):
        run_fit(config())
    assert run_fit(config()).model.is_file()
    assert not list(Path("runs/tiny").glob(".*lock"))


@pytest.mark.parametrize(
    ("trainer", "words"),
    [
        ({"max_epochs": 0}, "with a 0 nothing is learnt"),
        ({"limit_train_batches": 0}, "with a 0 nothing is learnt"),
        ({"fast_dev_run": True}, "fast_dev_run leaves no model"),
        ({"accumulate_grad_batches": 0}, "accumulate_grad_batches is 0"),
        ({"val_check_interval": 1000}, "val_check_interval is 1000, and an epoch has 4 batches"),
        ({"val_check_interval": 0}, "val_check_interval is 0"),
        ({"val_check_interval": 0.0}, r"val_check_interval is 0\.0"),
        ({"check_val_every_n_epoch": 5}, "check_val_every_n_epoch is 5, and the run has 2 epochs"),
    ],
)
def test_trainers_that_learn_or_judge_nothing_are_one_line(config, trainer, words):
    with pytest.raises(InputError, match=words) as caught:
        run_fit(config(trainer=trainer))
    assert "\n" not in str(caught.value)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            {"decoder": "unet", "encoder": "resnet81", "options": {}},
            "encoder 'resnet81' is unknown; near it are resnet",
        ),
        ({"decoder": "unett", "options": {}}, "decoder 'unett' is unknown; known are unet"),
        ({"decoder": "unet", "options": {"dropout": 2}}, "dropout is 2: needed is a share"),
        ({"decoder": "pixel_mlp", "options": {"hidden": 8}}, "hidden is 8: needed is a list"),
        ({"decoder": "pixel_mlp", "options": {"hidden": [0]}}, r"hidden is \[0\]: needed is a list"),
        ({"decoder": "unet", "options": {}, "weights": "ResNet50_Weights.SENTINEL2_ALL_MOCO"}, "weights of resnet50"),
    ],
)
def test_networks_that_cannot_be_built_are_told_before_scenes_are_read(config, monkeypatch, model, words):
    monkeypatch.setattr(SceneDataModule, "setup", lambda *_: pytest.fail("scenes were read"))
    with pytest.raises(InputError, match=words):
        run_fit(config(model=model))


@pytest.mark.parametrize("key", ["weights", "init_from"])
def test_files_that_are_not_there_are_told_before_scenes_are_read(config, monkeypatch, key):
    monkeypatch.setattr(SceneDataModule, "setup", lambda *_: pytest.fail("scenes were read"))
    with pytest.raises(MissingInputError, match=r"gone\.\w+ (is|are) not there"):
        run_fit(config(model={"decoder": "unet", "options": {}, key: "gone.safetensors"}))


@pytest.mark.parametrize(
    ("options", "words"), [({"windows": 5}, "windows are 5"), ({"pairs": [["nir", "red"]]}, "two positions of bands")]
)
def test_forests_with_options_of_another_kind_are_one_line(config, options, words):
    with pytest.raises(InputError, match=words):
        run_fit(config(model={"decoder": "random_forest", "options": options}))


@pytest.mark.parametrize(("loss", "parts"), [("focal", {"focal": 1.0}), (["ce", "dice"], {"ce": 1.0, "dice": 1.0})])
def test_a_loss_may_be_named_alone(config, loss, parts):
    found = run_fit(config(model={"loss": loss}, trainer={"max_epochs": 1}))
    assert read_card(found.model).training["config"]["model"]["loss"] in (loss, parts)


def test_changed_labels_are_not_resumed(config, stopped_after):
    with stopped_after(2):
        run_fit(config())
    with rasterio.open("labels.tif", "r+") as file:
        labels = file.read()
        file.write(np.where(labels == 3, 2, labels))
    with pytest.raises(InputError, match=r"the data are others than the run began with: training pixels of \w+"):
        run_fit(config(), resume=True)
    with rasterio.open("labels.tif", "r+") as file:
        file.write(labels)
    assert len(json.loads((run_fit(config(), resume=True).folder / "metrics.json").read_text())["history"]) == 2


def test_undeclared_nodata_and_pixels_of_many_sizes_are_told(config, scene, caplog):
    with rasterio.open("image.tif", "r+") as file:
        pixels = file.read()
        profile = {**file.profile, "dtype": "float32", "nodata": None}
    filled = pixels.astype("float32") / 1e4
    filled[:, :20] = -9999
    with rasterio.open("filled.tif", "w", **profile) as file:
        file.write(filled)
    coarse = {**profile, "transform": profile["transform"] @ profile["transform"].scale(2), "width": 64, "height": 80}
    with rasterio.open("coarse.tif", "w", **coarse) as file:
        file.write(filled[:, ::2, ::2])
    run_fit(config(data={"scenes": [{**scene, "image": name} for name in ("filled.tif", "coarse.tif")]}))
    assert "is -9999 no measurement? Then say nodata: -9999" in caplog.text
    assert "scenes have pixels of 10 to 20 m" in caplog.text


@pytest.mark.parametrize(
    ("low", "high", "std", "values", "wanted"),
    [
        (-9999, 1, 3600, (-9999, -9999, 0.1, 0.2, 0.3), -9999),
        (-3.4e38, 1, math.inf, (-3.4e38, 0.1, 0.2, 0.3, 0.4), -3.4e38),
        (-1000, 1, 400, (-1000, -1000, 0.1, 0.2, 0.3), -1000),
        (0, 65535, 20000, (100, 110, 120, 130, 65535), 65535),
        (0, 12000, 900, (200, 400, 800, 2500, 6000), None),  # clouds above dark land
        (-30, 5, 6, (-25, -20, -12, -8, -1), None),
        (7, 7, 0, (7, 7, 7, 7, 7), None),
    ],
)
def test_values_that_are_no_measurements(low, high, std, values, wanted):
    assert _no_measurement(low, high, std, values) == wanted


def test_a_run_tells_how_it_goes_and_why_it_ends(config, caplog):
    caplog.set_level(logging.INFO, "geoseg")
    run_fit(config(trainer={"max_epochs": 9}, early_stopping={"patience": 1, "min_delta": 0.9}))
    assert "epoch 1 of 9: loss" in caplog.text
    assert "stopped after epoch 2" in caplog.text


def test_an_interrupt_says_how_to_go_on(config, monkeypatch, caplog):
    def interrupt(self, trainer, task):
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt

    caplog.set_level(logging.INFO, "geoseg")
    monkeypatch.setattr(History, "on_validation_end", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_fit(config())
    assert "last.ckpt holds the last whole epoch; the same command with --resume goes on from it" in caplog.text


def test_names_of_runs(config):
    assert run_fit(config(name="2024_05", trainer={"max_epochs": 1})).folder == Path("runs/2024_05")
    with pytest.raises(InputError, match="name is the number 202405; put it in quotes"):
        run_fit(config(name=2024_05))
    with pytest.raises(InputError, match="names no folder"):
        run_fit(config(name=""))


@pytest.mark.parametrize("suffix", [".ckpt", ".pt2", ".onnx", ".pth"])
def test_files_of_other_kinds_are_called_what_they_are(tmp_path, suffix):
    (tmp_path / f"m{suffix}").write_bytes(b"PK and more of it")
    with pytest.raises(ModelFileError, match=r"is no geoseg model: it is (a checkpoint|a program|an ONNX|weights)"):
        read_card(tmp_path / f"m{suffix}")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["fit", "none.yaml"], "the config none.yaml is not there"),
        (["fit", "--model.encodr", "resnet18"], "near it are encoder"),
        (["preict", "a.tif"], "near it is predict"),
        (
            ["predict", "a.tif", "--model", "m.safetensors", "--out", "o.tif", "--layer", "entropy"],
            "near it are --layers",
        ),
    ],
)
def test_slips_on_the_command_line_get_the_nearest_names(capsys, args, said):
    assert main(args) == 2
    assert said in capsys.readouterr().err
