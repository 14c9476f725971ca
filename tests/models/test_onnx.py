"""An ONNX file gives what its network gives, at any size; what cannot be exported or read is refused in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from safetensors import safe_open
from torch import nn

from geoseg.cli import main
from geoseg.errors import InputError, MissingInputError, ModelFileError, OutputError
from geoseg.models import onnx as exporting
from geoseg.models.build import create_model
from geoseg.models.card import METADATA_KEY
from geoseg.models.file import save_model
from geoseg.models.onnx import WEIGHTS_KEY, export_onnx, weights_digest
from geoseg.models.onnx_card import read_metadata, read_onnx_card
from geoseg.models.spec import ModelSpec

DECODERS = ("unet", "deeplabv3plus", "segformer", "pspnet")  # the last pools to bins of any size


def seeded(spec: ModelSpec) -> nn.Module:
    """A network whose batch norms do something."""
    torch.manual_seed(0)
    network = create_model(spec)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


def run(path: Path, image: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["class scores"], {"scene": image})[0]


def assert_same(path: Path, network: nn.Module, *shapes: tuple[int, int, int]) -> None:
    for batch, rows, cols in shapes:
        image = np.random.default_rng(rows).standard_normal((batch, 2, rows, cols)).astype(np.float32)
        with torch.inference_mode():
            wanted = network(torch.from_numpy(image)).numpy()
        np.testing.assert_allclose(run(path, image), wanted, atol=1e-4 * max(1.0, np.abs(wanted).max()))


@pytest.fixture(scope="module")
def made() -> dict[str, bytes]:
    return {}


@pytest.fixture
def pixel(card, tmp_path, made):
    """The file of a small network, and the network."""
    network, path = seeded(card.spec), tmp_path / "m.onnx"
    if not made:
        made["pixel"] = export_onnx(network, card, path).read_bytes()
    path.write_bytes(made["pixel"])
    return path, network


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_file_gives_what_the_network_gives_at_other_sizes_and_batches(card, tmp_path, decoder):
    spec = ModelSpec(decoder=decoder, encoder="test_resnet", bands=2, classes=3)
    network = seeded(spec)
    path = export_onnx(network, replace(card, spec=spec), tmp_path / "m.onnx")
    assert_same(path, network, (1, 64, 96), (3, 160, 32), (2, 256, 256))
    assert read_onnx_card(path).spec == spec


def test_the_graph_says_its_names_and_its_free_axes(pixel):
    model = onnx.load(pixel[0])
    onnx.checker.check_model(model, full_check=True)
    for value, name, second in ((model.graph.input[0], "scene", 2), (model.graph.output[0], "class scores", 3)):
        axes = [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        assert (value.name, axes) == (name, ["batch", second, "height", "width"])
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT
    assert len(model.graph.input) == len(model.graph.output) == 1
    assert not any(tensor.HasField("data_location") and tensor.data_location for tensor in model.graph.initializer)


def test_the_names_are_those_that_the_card_gives(pixel, card):
    values = card.to_dict()
    assert values["mlm:input"][0]["name"] == exporting.INPUT
    assert values["mlm:input"][0]["input"]["dim_order"] == ["batch", "bands", "height", "width"]
    assert values["mlm:output"][0]["name"] == exporting.OUTPUT


def test_the_metadata_is_the_model_files(pixel, card, tmp_path):
    path, network = pixel
    assert read_onnx_card(path) == card
    save_model(tmp_path / "m.safetensors", model=network, card=card)
    with safe_open(tmp_path / "m.safetensors", "pt") as file:
        header = file.metadata()[METADATA_KEY]
    stored = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    assert stored == {METADATA_KEY: header, WEIGHTS_KEY: weights_digest(network)}
    assert read_metadata(path) == stored


def test_the_weights_digest_follows_each_weight(card):
    network = seeded(card.spec)
    before = weights_digest(network)
    assert weights_digest(seeded(card.spec)) == before
    with torch.no_grad():
        next(network.parameters()).view(-1)[0] += 1e-6
    assert weights_digest(network) != before


def test_one_network_gives_one_file_that_tells_nothing_of_the_machine(pixel, card, tmp_path):
    again = export_onnx(pixel[1], card, tmp_path / "again.onnx").read_bytes()
    assert again == pixel[0].read_bytes()
    assert os.fsencode(Path(torch.__file__).parent) not in again
    assert b"stack_trace" not in again


def test_a_network_in_training_is_exported_for_inference_and_left_in_training(card, tmp_path):
    network = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.Dropout(0.5)).train()
    before = weights_digest(network)
    path = export_onnx(network, card, tmp_path / "m.onnx")
    assert network.training
    assert weights_digest(network) == before
    assert_same(path, network.eval(), (1, 32, 32))


def test_the_exporter_says_nothing_and_leaves_nothing_but_the_file(card, tmp_path, capfd):
    path = export_onnx(seeded(card.spec), card, tmp_path / "m.onnx")
    assert capfd.readouterr() == ("", "")
    assert os.listdir(tmp_path) == ["m.onnx"]  # noqa: PTH208
    assert path.stat().st_mode & 0o777 == 0o644


class Random(nn.Module):
    def forward(self, image):
        return torch.cat([image, image[:, :1]], dim=1) + torch.rand_like(image[:, :1])


class Branching(nn.Module):
    def forward(self, image):
        return image if image.sum() > 0 else -image


class Fixed(nn.Module):
    """Remembers the example's size when it is exported, as a loop over pixels does that is unrolled."""

    def forward(self, image):
        image = torch.cat([image, image[:, :1]], dim=1)
        return image[:, :, : exporting.TRACED[1]] if torch.onnx.is_in_onnx_export() else image


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Random(), "scores differ by"),
        (Branching(), "cannot be exported to ONNX: .*data-dependent"),
        (Fixed(), "exported network gives"),
    ],
)
def test_what_cannot_be_exported_is_one_line_and_the_old_file_stays(card, tmp_path, capfd, network, words):
    (tmp_path / "m.onnx").write_text("old")
    with pytest.raises(ModelFileError, match=words) as caught:
        export_onnx(network, card, tmp_path / "m.onnx")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert (tmp_path / "m.onnx").read_text() == "old"
    assert os.listdir(tmp_path) == ["m.onnx"]  # noqa: PTH208
    assert capfd.readouterr() == ("", "")


def test_weights_that_are_no_numbers_are_refused(card, tmp_path):
    network = seeded(card.spec)
    with torch.no_grad():
        next(network.parameters()).fill_(torch.nan)
    with pytest.raises(ModelFileError, match="differ by nan"):
        export_onnx(network, card, tmp_path / "m.onnx")


def test_an_opset_is_kept_or_refused(card, tmp_path):
    network = seeded(card.spec)
    path = export_onnx(network, card, tmp_path / "m.onnx", opset=18)
    assert [entry.version for entry in onnx.load(path).opset_import if not entry.domain] == [18]
    with pytest.raises(ModelFileError, match="opset 99; opset 1[0-9] would work"):
        export_onnx(network, card, tmp_path / "m.onnx", opset=99)


def test_weights_beyond_one_file_are_refused_before_the_work(card, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "LARGEST_BYTES", 10)
    with pytest.raises(ModelFileError, match="holds 2 GB"):
        export_onnx(seeded(card.spec), card, tmp_path / "m.onnx")


def test_without_the_exporter_one_line_says_what_to_install(card, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"pip install geoseg\[onnx\]"):
        export_onnx(seeded(card.spec), card, tmp_path / "m.onnx")


def test_without_onnxruntime_the_file_is_written_and_the_log_says_it_was_not_compared(
    card, tmp_path, monkeypatch, caplog
):
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "onnxruntime", None)
        path = export_onnx(seeded(card.spec), card, tmp_path / "m.onnx")
    assert "not compared" in caplog.text
    assert_same(path, seeded(card.spec), (1, 32, 32))


def test_a_folder_that_cannot_be_made_is_an_output_error(card, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        export_onnx(seeded(card.spec), card, tmp_path / "file" / "m.onnx")


def test_a_card_is_read_without_torch_and_onnxruntime(pixel):
    code = (
        "import sys; from pathlib import Path; from geoseg.models.onnx_card import read_onnx_card; "
        f"card = read_onnx_card(Path({str(pixel[0])!r})); "
        "print(card.name, {'torch', 'onnx', 'onnxruntime'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["field", "test", "set()"]


def foreign(path: Path, metadata: dict[str, str]) -> Path:
    """Somebody else's ONNX file: y = -x."""
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy"]
    model = helper.make_model(helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", value[:1], value[1:]))
    helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


@given(metadata=st.dictionaries(st.text(), st.text(max_size=300), max_size=5))
def test_metadata_is_read_as_onnx_wrote_it(tmp_path_factory, metadata):
    assert read_metadata(foreign(tmp_path_factory.getbasetemp() / "foreign.onnx", metadata)) == metadata


@given(content=st.binary(max_size=200))
def test_any_bytes_are_a_model_or_one_line(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "bytes.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"bytes.onnx is (no ONNX model|an ONNX file without)") as caught:
        read_onnx_card(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_cut_is_refused_wherever_that_is(pixel, tmp_path):
    content = pixel[0].read_bytes()
    path = tmp_path / "cut.onnx"
    for length in [*range(0, len(content) - 1, 97), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(ModelFileError, match="no ONNX model|without geoseg's header"):
            read_onnx_card(path)


def test_missing_files_folders_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(MissingInputError, match="not there; geoseg export"):
        read_onnx_card(tmp_path / "none.onnx")
    with pytest.raises(ModelFileError, match=r"folder.*model\.onnx"):
        read_onnx_card(tmp_path)
    for header, words in (("{not json", "damaged"), ("[1]", "no mapping"), ('{"geoseg:format": 9}', "format 9")):
        with pytest.raises(ModelFileError, match=words):
            read_onnx_card(foreign(tmp_path / "x.onnx", {METADATA_KEY: header}))
    with pytest.raises(ModelFileError, match="an ONNX file without geoseg's header"):
        read_onnx_card(foreign(tmp_path / "x.onnx", {"made by": "somebody else"}))
    (tmp_path / "x.onnx").write_bytes(b"\x08\x07\x3a\x02\xff")
    with pytest.raises(ModelFileError, match="ends in the middle, after 5 bytes"):
        read_onnx_card(tmp_path / "x.onnx")


def test_the_verb_exports_and_info_prints_the_card(card, tmp_path, capsys):
    model, out = tmp_path / "m.safetensors", tmp_path / "out" / "m.onnx"
    save_model(model, model=seeded(card.spec), card=card)
    assert main(["export", str(model), "--onnx", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert_same(out, seeded(card.spec), (1, 32, 64))
    assert main(["info", str(out)]) == main(["info", str(model)]) == 0
    shown = capsys.readouterr().out
    assert shown[: len(shown) // 2] == shown[len(shown) // 2 :]
    assert "model    field test" in shown
    assert main(["export", str(model), "--onnx", str(out)]) == 2
    assert main(["export", str(model), "--onnx", str(out), "--overwrite"]) == 0
    assert main(["export", str(model), "--onnx", str(tmp_path / "m.pb")]) == 2
    assert main(["export", str(out), "--onnx", str(tmp_path / "n.onnx")]) == 2
    refused = capsys.readouterr().err.splitlines()
    assert [line.startswith("geoseg: error: ") for line in refused] == [True] * 3
    assert "--overwrite" in refused[0]
    assert "m.onnx" in refused[1]
    assert json.loads(read_metadata(out)[METADATA_KEY])["mlm:name"] == "field test"
