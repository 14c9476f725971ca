"""A program gives what its network gives, at other sizes and batches; what cannot be exported is one line."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from geoseg.errors import MissingInputError, ModelFileError, OutputError
from geoseg.inspecting.models import describe_model
from geoseg.models import torch_export as exporting
from geoseg.models.build import create_model
from geoseg.models.card import ModelCard
from geoseg.models.onnx import export_onnx
from geoseg.models.program_card import CARD_FILE, read_program_card
from geoseg.models.spec import ModelSpec
from geoseg.models.torch_export import export_torch


def seeded(spec: ModelSpec) -> nn.Module:
    """A network whose batch norms do something."""
    torch.manual_seed(0)
    network = create_model(spec)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


def assert_same(path, network, *shapes) -> None:
    program = torch.export.load(path).module()
    for batch, rows, cols in shapes:
        image = torch.randn(batch, 2, rows, cols, generator=torch.Generator().manual_seed(rows))
        with torch.inference_mode():
            torch.testing.assert_close(program(image), network(image), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("decoder", ["unet", "deeplabv3plus"])
def test_the_program_gives_what_the_network_gives_at_other_sizes_and_batches(card, tmp_path, decoder):
    spec = ModelSpec(decoder=decoder, encoder="resnet18", bands=2, classes=3)
    network = seeded(spec)
    path = export_torch(network, replace(card, spec=spec), tmp_path / "m.pt2")
    assert_same(path, network, (1, 64, 96), (3, 160, 64), (2, 256, 256))


@pytest.mark.parametrize("encoder", ["swin_t", "swin_v2_t"])
def test_torchvisions_swin_is_a_program_of_fixed_sides_and_no_onnx_file(card, tmp_path, encoder):
    """The program itself takes half a minute to make, so it is not made here."""
    tiny = {"embed_dim": 24, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 2]}
    options = {"encoder_options": tiny, "decoder_channels": 8}
    network = create_model(ModelSpec(decoder="upernet", encoder=encoder, bands=2, classes=3, options=options))
    names = {f"{type(module).__module__}.{type(module).__name__}" for module in network.modules()}
    assert names & set(exporting.FIXED_SIDES)
    with pytest.raises(ModelFileError, match=r"torchvision's Swin is no ONNX file.*--torch M\.pt2"):
        export_onnx(network, card, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_the_card_travels_inside(card, tmp_path):
    path = export_torch(seeded(card.spec), card, tmp_path / "m.pt2")
    extra = {CARD_FILE: ""}
    torch.export.load(path, extra_files=extra)
    assert ModelCard.from_dict(json.loads(extra[CARD_FILE])) == card
    assert json.loads(extra[CARD_FILE])["mlm:total_parameters"] == 59


def test_its_card_is_read_without_torch(card, tmp_path):
    path = export_torch(seeded(card.spec), card, tmp_path / "m.pt2")
    assert read_program_card(path) == card
    assert describe_model(path).values["card"]["mlm:name"] == card.name
    code = (
        "import sys; from geoseg.models.program_card import read_program_card; "
        "read_program_card(sys.argv[1]); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("content", [b"no archive", b"", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_program_has_no_card(tmp_path, content):
    path = tmp_path / "m.pt2"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"m.pt2 is (no program|a program without)"):
        read_program_card(path)
    with pytest.raises(MissingInputError, match="other.pt2 is not there"):
        read_program_card(tmp_path / "other.pt2")


def test_torch_runs_it_without_geoseg(card, tmp_path):
    network = seeded(card.spec)
    path = export_torch(network, card, tmp_path / "m.pt2")
    code = (
        "import sys, torch; program = torch.export.load(sys.argv[1]).module(); "
        "print(program(torch.ones(1, 2, 64, 64))[0, :, 0, 0].tolist(), 'geoseg' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    with torch.inference_mode():
        wanted = network(torch.ones(1, 2, 64, 64))[0, :, 0, 0].tolist()
    values, _, loaded = done.stdout.strip().rpartition(" ")
    assert json.loads(values) == pytest.approx(wanted, rel=1e-5)
    assert loaded == "False"


def test_a_network_in_training_is_left_in_training(card, tmp_path):
    network = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.Dropout(0.5)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    path = export_torch(network, card, tmp_path / "m.pt2")
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert_same(path, network.eval(), (1, 64, 64))


def test_it_says_nothing_and_leaves_nothing_but_the_file(card, tmp_path, capfd):
    path = export_torch(seeded(card.spec), card, tmp_path / "m.pt2")
    assert capfd.readouterr() == ("", "")
    assert os.listdir(tmp_path) == ["m.pt2"]  # noqa: PTH208
    assert path.stat().st_mode & 0o777 == 0o644


class Random(nn.Module):
    def forward(self, image):
        return torch.cat([image, image[:, :1]], dim=1) + torch.rand_like(image[:, :1])


class Branching(nn.Module):
    def forward(self, image):
        return image if image.sum() > 0 else -image


@pytest.mark.parametrize(
    ("network", "words"), [(Random(), "scores differ by"), (Branching(), "cannot be exported as a torch program")]
)
def test_what_cannot_be_exported_is_one_line_and_the_old_file_stays(card, tmp_path, capfd, network, words):
    (tmp_path / "m.pt2").write_text("old")
    with pytest.raises(ModelFileError, match=words) as caught:
        export_torch(network, card, tmp_path / "m.pt2")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert (tmp_path / "m.pt2").read_text() == "old"
    assert os.listdir(tmp_path) == ["m.pt2"]  # noqa: PTH208
    assert capfd.readouterr() == ("", "")


def test_weights_that_are_no_numbers_are_refused(card, tmp_path):
    network = seeded(card.spec)
    with torch.no_grad():
        next(network.parameters()).fill_(torch.nan)
    with pytest.raises(ModelFileError, match="differ by nan"):
        export_torch(network, card, tmp_path / "m.pt2")


def test_a_program_for_other_sides_is_refused(card):
    network, content = seeded(card.spec), io.BytesIO()
    example = torch.zeros(1, 2, 64, 64)
    torch.export.save(torch.export.export(network, (example,)), content)
    with pytest.raises(ModelFileError, match=r"does not take \(1, 2, 512, 320\)"):
        exporting.check_program(content, network, shape=(1, 2, 512, 320))


def test_an_encoder_whose_sides_cannot_be_free_has_those_of_the_card(card, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(exporting, "FIXED_SIDES", ("torch.nn.modules.conv.Conv2d",))
    network = seeded(card.spec)
    path = export_torch(network, card, tmp_path / "m.pt2")
    assert "rows and columns of the program are 256" in caplog.text
    assert_same(path, network, (1, 256, 256), (3, 256, 256))


def test_a_folder_that_cannot_be_made_is_an_output_error(card, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"torch program .* cannot be written"):
        export_torch(seeded(card.spec), card, tmp_path / "file" / "m.pt2")
