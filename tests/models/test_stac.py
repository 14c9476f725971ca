"""The STAC Item of a model is valid by STAC's own schema and by what the extensions ask, and pystac reads it.

There is no network in a test and pystac ships no schema of an extension, so `schemas/` states what they ask of the
fields that geoseg writes; stac-model, by the authors of the machine-learning-model extension, is asked too.
"""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pystac
import pytest
from pystac.errors import STACValidationError
from pystac.extensions.mlm import AssetDetailedMLMExtension, MLMExtension
from pystac.validation import JsonSchemaSTACValidator, validate_dict
from stac_model.schema import MLModelProperties

from geoseg.cli import main
from geoseg.errors import OutputError
from geoseg.legend import Legend
from geoseg.models.build import create_model
from geoseg.models.file import save_model
from geoseg.models.stac import model_item, write_model_item

HERE = Path(__file__).parent
SCHEMAS = (HERE / "schemas" / "mlm.json", HERE / "schemas" / "eo.json", HERE.parent / "infer" / "schemas" / "file.json")
SQUARE = {"type": "Polygon", "coordinates": [[[15, 47], [16, 47], [16, 48], [15, 48], [15, 47]]]}


@pytest.fixture(scope="module")
def validator() -> JsonSchemaSTACValidator:
    """pystac's, which knows these schemas; it fails for any other, for which it would ask the network."""
    found = JsonSchemaSTACValidator()
    for path in SCHEMAS:
        schema = json.loads(path.read_text(encoding="utf-8"))
        found.schema_cache[schema["$id"]] = schema
    return found


@pytest.fixture
def files(card, tmp_path) -> dict[str, Path]:
    save_model(tmp_path / "m.safetensors", model=create_model(card.spec), card=card)
    (tmp_path / "m.onnx").write_bytes(b"graph")
    return {"weights": tmp_path / "m.safetensors", "onnx": tmp_path / "m.onnx"}


@pytest.fixture
def item(card, files, tmp_path) -> dict[str, Any]:
    training = {"config": {"model": {"weights": "imagenet"}}}
    told = replace(card, train_region=SQUARE, training=training, versions={"torch": "2.9.0+cpu"})
    return json.loads(json.dumps(model_item(told, files, out=tmp_path / "stac" / "m.json", parameters=59)))


def test_the_item_is_valid_by_core_and_extensions(item, validator):
    core = "https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/item.json"
    assert validate_dict(item, validator=validator) == [core, *item["stac_extensions"]]
    assert len(item["stac_extensions"]) == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "3"}, {"name": "Земля, 2026!"}, {"name": "ab"}, {"license": None}, {"license": "my own, see below"},
        {"created": ""}, {"versions": {}}, {"versions": {"torch": "nightly"}}, {"train_region": None},
        {"scores": {}}, {"legend": Legend.from_dict({1: "лес", 2: "crops (arable)", 3: "1st"})},
        {"training": {"config": {"model": {"weights": None, "init_from": None}}}},
    ],
    ids=str,
)  # fmt: skip
def test_any_card_makes_a_valid_item(card, files, tmp_path, validator, changes):
    found = json.loads(
        json.dumps(model_item(replace(card, **changes), files, out=tmp_path / "m.json"), allow_nan=False)
    )
    validate_dict(found, validator=validator)
    assert as_its_authors_read_it(found).input


def as_its_authors_read_it(item: dict[str, Any]) -> MLModelProperties:
    return MLModelProperties.model_validate(
        {name: value for name, value in item["properties"].items() if name.startswith("mlm:")}
    )


def test_the_authors_of_the_extension_read_what_the_card_says(item, card):
    told = as_its_authors_read_it(item)
    assert (told.name, told.framework, told.total_parameters) == ("field test", "PyTorch", 59)
    assert [band for each in told.input for band in each.bands] == list(card.band_names)
    assert told.output[0].result.shape[1] == len(card.legend)
    assert [entry.value for entry in told.output[0].classes] == [1, 7, 9]


@pytest.mark.parametrize("name", ["mlm:input", "mlm:architecture", "mlm:tasks"])
def test_the_authors_miss_what_is_not_there(item, name):
    del item["properties"][name]
    with pytest.raises(ValueError, match=name):
        as_its_authors_read_it(item)


def test_pystac_reads_what_the_card_says(item, card, tmp_path):
    path = write_model_item(tmp_path / "stac" / "m.json", item)
    read = pystac.Item.from_file(str(path))
    told = MLMExtension.ext(read)
    assert (told.mlm_name, told.framework, told.framework_version) == ("field test", "PyTorch", "2.9.0+cpu")
    assert (told.architecture, told.total_parameters) == ("pixel", 59)
    assert (told.pretrained, told.pretrained_source) == (True, "imagenet")
    (given,), (result,) = told.input, told.output
    assert given.bands == ["red", "nir"]
    scaling = given.properties["value_scaling"]  # one a band; pystac knows a single one
    assert [(each["mean"], each["stddev"]) for each in scaling] == [(band.mean, band.std) for band in card.bands]
    assert given.input.dim_order == ["batch", "bands", "height", "width"]
    assert [(entry.value, entry.name, entry.description) for entry in result.classes] == [
        (1, "water", "water"), (7, "road", "road"), (9, "wood", "wood"),
    ]  # fmt: skip
    assert read.common_metadata.license == "CC-BY-4.0"
    assert read.bbox == [15, 47, 16, 48]
    assert read.properties["bands"][0]["eo:center_wavelength"] == 0.66
    assert read.properties["geoseg:scores"] == card.scores


def test_the_assets_are_the_files(item, files, tmp_path):
    write_model_item(tmp_path / "stac" / "m.json", item)
    read = pystac.Item.from_file(str(tmp_path / "stac" / "m.json"))
    for name, path in files.items():
        asset = read.assets[name]
        assert Path(asset.get_absolute_href() or "").resolve() == path.resolve()
        assert asset.extra_fields["file:size"] == path.stat().st_size
        assert asset.extra_fields["file:checksum"] == f"1220{hashlib.sha256(path.read_bytes()).hexdigest()}"
    kinds = {name: AssetDetailedMLMExtension.ext(asset).artifact_type for name, asset in read.assets.items()}
    assert kinds == {"weights": "safetensors", "onnx": "onnx"}


def test_nothing_of_this_machine_is_told(item, tmp_path):
    assert str(tmp_path) not in json.dumps(item)
    assert "geoseg:training" not in item["properties"]


BROKEN: dict[str, tuple[str, Any]] = {
    "item-spec: no time": ("properties.datetime", None),
    "item-spec: a licence in words": ("properties.license", "as you like"),
    "mlm: no name": ("properties.mlm:name", ...),
    "mlm: a name that begins with a digit": ("properties.mlm:name", "2026 model"),
    "mlm: an unknown field": ("properties.mlm:task", "segmentation"),
    "mlm: an unknown task": ("properties.mlm:tasks", ["mapping"]),
    "mlm: a version in words": ("properties.mlm:framework_version", "nightly"),
    "mlm: from scratch, and yet a source": ("properties.mlm:pretrained", False),
    "mlm: a scaling without a deviation": ("properties.mlm:input.0.value_scaling.0.stddev", ...),
    "mlm: no shape": ("properties.mlm:input.0.input.shape", ...),
    "mlm: an output without a task": ("properties.mlm:output.0.tasks", ...),
    "mlm: a class for people": ("properties.mlm:output.0.classification:classes.0.name", "crops (arable)"),
    "mlm: bands that nobody describes": ("properties.bands", ...),
    "mlm: no kind of artifact": ("assets.onnx.mlm:artifact_type", ...),
    "mlm: the input of one file": ("assets.onnx.mlm:input", []),
    "file: a size as a text": ("assets.weights.file:size", "12 MB"),
    "eo: a wavelength as a text": ("properties.bands.0.eo:center_wavelength", "660 nm"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_the_schemas_find_what_is_wrong(item, validator, case):
    path, value = BROKEN[case]
    broken = copy.deepcopy(item)
    *parents, last = path.split(".")
    place: Any = broken
    for step in parents:
        place = place[int(step) if isinstance(place, list) else step]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    with pytest.raises(STACValidationError, match=f"against schema at .*/{case.split(':', maxsplit=1)[0]}/"):
        validate_dict(broken, validator=validator)


def test_an_item_without_a_model_is_found(item, validator):
    for asset in item["assets"].values():
        asset["roles"] = ["data"]
        del asset["mlm:artifact_type"]
    with pytest.raises(STACValidationError, match="/mlm/"):
        validate_dict(item, validator=validator)


def test_the_item_appears_whole_or_not_at_all(item, tmp_path):
    out = write_model_item(tmp_path / "m.json", item)
    before = out.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        write_model_item(out, {**item, "bad": float("nan")})
    assert out.read_bytes() == before
    assert {path.name for path in tmp_path.glob(".*")} == set()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"STAC Item .* cannot be written"):
        write_model_item(tmp_path / "file" / "m.json", item)


def test_the_verb_writes_all_it_is_asked_for_and_says_what_is_missing(files, tmp_path, validator, capsys):
    model, out = str(files["weights"]), tmp_path / "out"
    assert main(["export", model, "--torch", str(out / "m.pt2"), "--stac", str(out / "m.json")]) == 0
    assert capsys.readouterr().out.splitlines() == [str(out / "m.pt2"), str(out / "m.json")]
    item = json.loads((out / "m.json").read_text(encoding="utf-8"))
    validate_dict(item, validator=validator)
    assert {name: asset["href"] for name, asset in item["assets"].items()} == {
        "weights": "../m.safetensors", "program": "m.pt2",
    }  # fmt: skip
    assert main(["export", model]) == 2
    assert main(["export", model, "--stac", str(out / "m.json")]) == 2
    assert main(["export", model, "--torch", str(out / "m.pth")]) == 2
    assert main(["export", model, "--stac", str(out / "m.json"), "--overwrite"]) == 0
    refused = capsys.readouterr().err.splitlines()
    assert ["--onnx M.onnx" in refused[0], "--overwrite" in refused[1], "m.pt2" in refused[2]] == [True] * 3
