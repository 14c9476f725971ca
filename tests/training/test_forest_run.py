"""The baselines go the way of a network: one config, one model file, one map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from affine import Affine

import geoseg
from geoseg.cli import main
from geoseg.errors import InputError
from geoseg.models.card import read_card
from geoseg.training.command import parsed
from geoseg.training.manners import quiet
from geoseg.training.run import run_fit

pytestmark = pytest.mark.usefixtures("unrendered")


@pytest.fixture
def config(tmp_path, monkeypatch) -> dict:
    """Fields of three classes that two bands tell apart."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    labels = np.kron(rng.integers(1, 4, (20, 20)), np.ones((8, 8))).astype(np.uint8)
    means = np.array([[500, 2000], [3000, 1000], [2000, 4000]])
    image = (means[labels - 1].transpose(2, 0, 1) + rng.normal(0, 200, (2, 160, 160))).astype(np.uint16)
    for name, pixels in (("image.tif", image), ("labels.tif", labels[None])):
        with rasterio.open(
            name, "w", driver="GTiff", count=len(pixels), height=160, width=160, dtype=pixels.dtype, crs="EPSG:32633",
            transform=Affine(10, 0, 500_000, 0, -10, 5_200_000), nodata=0,
        ) as file:  # fmt: skip
            file.write(pixels)
            file.descriptions = ["red", "nir"][: len(pixels)]
    labels_spec = {"path": "labels.tif", "legend": {1: "water", 2: "wood", 3: "road"}}
    return {
        "name": "baseline",
        "data": {
            "scenes": [{"image": "image.tif", "labels": labels_spec}], "patch_px": 64, "batch": 4, "epoch_patches": 32,
            "split": {"block_m": 320.0, "buffer_m": 20.0},
        },
        "trainer": {"accelerator": "cpu", "max_epochs": 1},
    }  # fmt: skip


def test_a_forest_is_fitted_saved_and_mapped_like_a_network(config):
    options = {"trees": 10, "windows": [3], "pixels": 2000}
    result = run_fit({**config, "model": {"decoder": "random_forest", "options": options}})
    assert result.scores["mean_iou"] > 0.9
    card = read_card(result.model)
    assert card.spec.options["pairs"] == [[1, 0]]
    geoseg.predict("image.tif", model=result.model, out=Path("map.tif"), device="cpu")
    found = geoseg.assess(Path("map.tif"), reference="labels.tif")
    assert found.accuracy.to_dict()["overall_accuracy"] > 0.9
    again = run_fit({**config, "name": "again", "model": {"decoder": "random_forest", "options": options}})
    assert again.scores == result.scores


@pytest.mark.parametrize("name", ["random_forest", "pixel_mlp"])
def test_a_baseline_is_named_in_one_word(config, name):
    Path("baseline.yaml").write_text(yaml.safe_dump({**config, "model": name}))
    result = run_fit("baseline.yaml", name=name)
    assert read_card(result.model).spec.decoder == name


@pytest.mark.parametrize(
    "args", [["--config", "one.yaml"], ["--config=one.yaml"], ["--config", "none.yaml", "--model", "pixel_mlp"]]
)
def test_a_baseline_is_named_in_one_word_on_the_command_line(config, args):
    Path("one.yaml").write_text(yaml.safe_dump({**config, "model": "pixel_mlp"}))
    Path("none.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", *args, "--name", "word"]) == 0
    assert read_card(Path("runs/word/model.safetensors")).spec.decoder == "pixel_mlp"


def test_a_forest_grows_in_one_process(config):
    with pytest.raises(InputError, match="random_forest has no option depth"):
        run_fit({**config, "model": {"decoder": "random_forest", "options": {"depth": 3}}})


def test_a_model_is_named_in_one_word_wherever_it_stands(config):
    with pytest.raises(InputError, match="trainer does not accept|Group 'trainer'"):
        run_fit({**config, "trainer": {"no_such_key": 1}}, model="random_forest")
    with quiet():
        assert parsed(config, [], {"model": "random_forest"}).model.decoder == "random_forest"


def test_a_run_never_replaces_the_model_that_it_begins_from(config):
    (model := Path("runs/baseline/model.safetensors")).parent.mkdir(parents=True)
    model.write_bytes(b"precious")
    with pytest.raises(InputError, match=r"the output runs/baseline/model.safetensors is also an input"):
        run_fit(config, model={"init_from": str(model.absolute())}, overwrite=True)
    assert model.read_bytes() == b"precious"
