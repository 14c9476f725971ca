"""The model file comes back as it was; what is foreign, broken or hostile is refused in one line."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from geoseg.errors import MissingInputError, ModelFileError, OutputError
from geoseg.models.average import move_average
from geoseg.models.build import create_model
from geoseg.models.card import METADATA_KEY, ModelCard, read_card
from geoseg.models.file import load_model, save_model


@pytest.fixture
def written(card, tmp_path):
    network = create_model(card.spec)
    with torch.no_grad():
        for value in network.state_dict().values():
            if value.is_floating_point():
                value.normal_()
    path = tmp_path / "m.safetensors"
    save_model(path, model=network, card=card)
    return path, network


def header(path) -> dict:
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()[METADATA_KEY])


def rewritten(path, tmp_path, *, tensors=None, **changes):
    """The file with another header or other weights."""
    values = header(path)
    for key, value in changes.items():
        values[key.replace("__", ":")] = value
    out = tmp_path / "changed.safetensors"
    save_file(load_file(path) if tensors is None else tensors, out, {METADATA_KEY: json.dumps(values)})
    return out


def test_weights_and_card_come_back_exactly(written, card):
    path, network = written
    loaded, read = load_model(path)
    assert read == card
    assert not loaded.training
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


def test_the_header_speaks_the_mlm_extension(written, card):
    values = header(written[0])
    assert values["mlm:name"] == "field test"
    assert values["mlm:tasks"] == ["semantic-segmentation"]
    source = values["mlm:input"][0]
    assert source["bands"] == ["red", "nir"]
    assert source["input"] == {
        "shape": [-1, 2, 256, 256], "dim_order": ["batch", "bands", "height", "width"], "data_type": "float32",
    }  # fmt: skip
    assert source["value_scaling"][0] == {
        "type": "z-score", "mean": 1234.5678901234567, "stddev": 0.1, "minimum": 0.0, "maximum": 65535.0,
    }  # fmt: skip
    result = values["mlm:output"][0]
    assert [item["value"] for item in result["classification:classes"]] == [1, 7, 9]
    assert result["result"]["shape"][1] == 3
    assert values["mlm:total_parameters"] == sum(p.numel() for p in written[1].parameters())


def test_a_card_is_read_without_torch(written):
    code = (
        "import sys; from pathlib import Path; from geoseg.models.card import read_card; "
        f"card = read_card(Path({str(written[0])!r})); print(card.name, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["field", "test", "False"]


def test_nothing_else_is_left_in_the_folder(written):
    assert os.listdir(written[0].parent) == ["m.safetensors"]  # noqa: PTH208
    assert written[0].stat().st_mode & 0o777 == 0o644


def test_a_folder_that_cannot_be_made_is_an_output_error(card, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        save_model(tmp_path / "file" / "m.safetensors", model=create_model(card.spec), card=card)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(MissingInputError, match="not there"):
        read_card(tmp_path / "none.safetensors")
    with pytest.raises(ModelFileError, match="folder"):
        read_card(tmp_path)


@pytest.mark.parametrize("length", [0, 4, 100, -1])
def test_truncated_files_are_refused(written, tmp_path, length):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(written[0].read_bytes()[:length])
    with pytest.raises(ModelFileError, match="no geoseg model") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"GIF89a" * 100, b"\x80\x04\x95" + b"\0" * 200, b"\xff" * 64])
def test_foreign_files_are_refused(tmp_path, content):
    path = tmp_path / "foreign.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match="no geoseg model"):
        load_model(path)


def test_a_pickle_is_not_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))

    torch.save({"model": Trap()}, tmp_path / "trap.safetensors")
    with pytest.raises(ModelFileError):
        load_model(tmp_path / "trap.safetensors")
    assert not (tmp_path / "sprung").exists()


def test_safetensors_of_others_are_refused(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(ModelFileError, match="without geoseg's header"):
        read_card(tmp_path / "a.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", {METADATA_KEY: "{not json"})
    with pytest.raises(ModelFileError, match="damaged"):
        read_card(tmp_path / "a.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", {METADATA_KEY: "[1]"})
    with pytest.raises(ModelFileError, match="no mapping"):
        read_card(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"geoseg__format": 99}, "format 99"),
        ({"geoseg__gsd_m": None}, "cannot be used"),
        ({"geoseg__bands": [{"name": "red", "mean": 0.0, "std": 1.0}]}, "takes 2 bands, the card names 1"),
        ({"geoseg__legend": {"classes": {"1": "one"}}}, "has 3 classes, the legend 1"),
        (
            {"mlm__hyperparameters": {"decoder": "unet", "bands": 2, "classes": 3, "encoder": "hf-hub:a/b"}},
            "is unknown",
        ),
        (
            {
                "mlm__hyperparameters": {
                    "decoder": "unet",
                    "encoder": "tu-resnet18",
                    "bands": 2,
                    "classes": 3,
                    "options": {"encoder_options": {"checkpoint_path": "trap.pth"}},
                }
            },
            "has no checkpoint_path",
        ),
        (
            {
                "mlm__hyperparameters": {
                    "decoder": "pixel",
                    "bands": 2,
                    "classes": 3,
                    "options": {"hidden": [10**7, 10**7]},
                }
            },
            "its weights are no pixel",
        ),
        ({"mlm__hyperparameters": {"decoder": "eval", "bands": 2, "classes": 3}}, "decoder 'eval' is unknown"),
        ({"mlm__hyperparameters": {"bands": 2, "classes": 3, "code": "x"}}, "cannot be used"),
    ],
)
def test_headers_that_do_not_fit_are_refused(written, tmp_path, changes, words):
    with pytest.raises(ModelFileError, match=words) as caught:
        load_model(rewritten(written[0], tmp_path, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["mlm:name", "mlm:hyperparameters", "geoseg:bands", "geoseg:legend", "created"])
def test_a_header_without_a_key_is_refused(card, key):
    values = card.to_dict()
    del values[key]
    with pytest.raises(ModelFileError, match=f"lacks '{key}'"):
        ModelCard.from_dict(values)


def test_weights_that_do_not_fit_are_refused(written, tmp_path):
    path = written[0]
    weights = load_file(path)
    name = next(iter(weights))
    for changed, words in (
        ({k: v for k, v in weights.items() if k != name}, "lacks"),
        ({**weights, "extra": torch.zeros(1)}, "stray extra"),
        ({**weights, name: weights[name].flatten()}, "the network has"),
        ({**weights, name: weights[name].double()}, "float64"),
    ):
        with pytest.raises(ModelFileError, match=words):
            load_model(rewritten(path, tmp_path, tensors={k: v.contiguous() for k, v in changed.items()}))


def test_a_card_must_fit_itself(card):
    with pytest.raises(ModelFileError, match="the card names 1"):
        replace(card, bands=card.bands[:1])


@pytest.mark.parametrize(
    ("decoder", "options"),
    [
        ("pixel", 5), ("pixel", None), ("pixel", {"hidden": 5}), ("pixel", {"hidden": "ab"}),
        ("pixel", {"hidden": None}), ("pixel", {"hidden": [10**6, 10**6]}), ("unet", {"decoder_channels": [10**6] * 5}),
        ("random_forest", {"windows": 5}), ("random_forest", {"trees": "a"}), ("random_forest", {"nodes": 1.5}),
        ("unet", {"dropout": "x"}), ("unet", {"encoder_options": 3}), (5, {}), ("pixel", {"hidden": [10**9, 10**9]}),
    ],
)  # fmt: skip
def test_networks_that_cannot_be_are_one_line(written, tmp_path, decoder, options):
    spec = {**header(written[0])["mlm:hyperparameters"], "decoder": decoder, "options": options}
    with pytest.raises(ModelFileError) as caught:
        load_model(rewritten(written[0], tmp_path, mlm__hyperparameters=spec))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("changes", [{"std": 0.0}, {"std": -1.0}, {"mean": "a"}, {"name": 5}, {"std": None}])
def test_bands_that_nothing_can_be_normalised_by_are_refused(written, tmp_path, changes):
    first, *others = header(written[0])["geoseg:bands"]
    with pytest.raises(ModelFileError, match="no such band is"):
        load_model(rewritten(written[0], tmp_path, geoseg__bands=[{**first, **changes}, *others]))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": ' + "9" * 5000 + "}"])
def test_headers_too_deep_or_too_long_are_damaged(written, tmp_path, text):
    out = tmp_path / "deep.safetensors"
    save_file(load_file(written[0]), out, {METADATA_KEY: text})
    with pytest.raises(ModelFileError, match="is damaged"):
        load_model(out)


def test_weights_that_are_shared_are_saved_and_averaged_once(card, tmp_path):
    spec = replace(card.spec, decoder="pixel", encoder="none", options={"hidden": [card.spec.bands] * 2})
    network = create_model(spec)
    average = create_model(spec)
    for each in (network, average):
        each[3].weight = each[0].weight
    with torch.no_grad():
        average[0].weight.zero_()
        network[0].weight.fill_(1.0)
    move_average(average, network, decay=0.9)
    assert average[0].weight.unique().tolist() == pytest.approx([0.1])
    save_model(tmp_path / "tied.safetensors", model=network, card=replace(card, spec=spec))
    loaded, _ = load_model(tmp_path / "tied.safetensors")
    assert torch.equal(loaded[3].weight, network[0].weight)
