"""Model files of older versions load, and give and tell what they did; `support/make_fixtures.py` made them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from geoseg import infer
from geoseg.cli import main
from geoseg.models.card import FORMAT, METADATA_KEY, ModelCard, read_card
from geoseg.models.file import load_model, save_model

FIXTURES = Path(__file__).parent / "fixtures"
FILES = sorted(FIXTURES.glob("*.safetensors"))
EVERY = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def told(path: Path) -> dict[str, list]:
    return json.loads((FIXTURES / f"{path.stem.split('_')[0]}.json").read_text())


def test_there_are_files_of_every_format():
    stems = {path.stem for path in FILES}
    assert stems >= {f"format{number}" for number in range(1, FORMAT + 1)}
    assert "format1_first" in stems
    assert all(path.stat().st_size < 20_000 for path in FILES)


@EVERY
def test_the_network_gives_what_it_gave(path):
    network, card = load_model(path)
    with torch.inference_mode():
        found = network(torch.tensor(told(path)["image"]))
    torch.testing.assert_close(found, torch.tensor(told(path)["logits"]))
    assert card == read_card(path)


@EVERY
def test_the_card_says_what_it_said(path):
    card = read_card(path)
    assert (card.name, card.license, card.band_names) == ("past", "CC-BY-4.0", ("red", "nir"))
    assert [(item.id, item.name, item.codes) for item in card.legend.classes] == [
        (1, "water", ()),
        (4, "wood", (41, 42)),
    ]
    assert [(band.mean, band.std, band.wavelength_um) for band in card.bands] == [(400, 120, 0.66), (2500.5, 600, 0.85)]
    assert (card.tile_px, card.overlap_px, card.gsd_m) == (128, 32, (10.0, 10.0))
    assert card.scores["mean_iou"] == 0.5
    assert card.spec.options == {"hidden": [4]}


def test_what_a_first_file_lacks_is_empty():
    card = read_card(FIXTURES / "format1_first.safetensors")
    assert [band.quantiles for band in card.bands] == [(), ()]
    assert card.spec.wavelengths_um is None
    with safe_open(FIXTURES / "format1_first.safetensors", "numpy") as file:
        header = file.metadata()[METADATA_KEY]
    assert "quantiles" not in header
    assert "split" not in header


@EVERY
def test_it_is_written_again_as_it_was(path, tmp_path):
    network, card = load_model(path)
    save_model(tmp_path / "m.safetensors", model=network, card=card)
    again, read = load_model(tmp_path / "m.safetensors")
    assert read == card
    assert ModelCard.from_dict(card.to_dict()) == card
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in network.state_dict().items())


@EVERY
def test_it_maps_and_info_describes_it(path, tmp_path, capsys):
    predictor = infer.TorchModel.load(path).predictor(infer.PredictOptions(device="cpu", precision="fp32"))
    tile, valid = np.full((2, 32, 32), 700, np.uint16), np.ones((32, 32), bool)
    assert predictor.scores([tile], [valid], model_shape=(32, 32)).values.shape == (1, 32, 32, 2)
    assert main(["info", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "model    past, pixel" in shown
    assert "accuracy 0.750, mean IoU 0.500" in shown
