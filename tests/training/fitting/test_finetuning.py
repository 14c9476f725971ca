"""Fine-tuning through a run: what is frozen, adapted, or carried over from another model."""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from safetensors import safe_open

from geoseg.errors import InputError, MissingInputError
from geoseg.legend import Legend
from geoseg.models.build import create_model
from geoseg.models.card import BandInfo, ModelCard, read_card
from geoseg.models.file import load_model, save_model
from geoseg.models.spec import ModelSpec
from geoseg.models.transfer import start_from
from geoseg.training.run import run_fit


def saved(path, *, bands, classes, decoder="unet", encoder="resnet18", **options) -> dict[str, torch.Tensor]:
    """A model file of random weights; gives them."""
    torch.manual_seed(1)
    spec = ModelSpec(decoder=decoder, encoder=encoder, bands=len(bands), classes=len(classes), options=options)
    network = create_model(spec)
    card = ModelCard(
        name="old", spec=spec, gsd_m=(10.0, 10.0),
        bands=tuple(BandInfo(name=name, mean=0.0, std=1.0, wavelength_um=um) for name, um in bands),
        legend=Legend.from_dict(dict(enumerate(classes, 1))),
    )  # fmt: skip
    save_model(path, model=network, card=card)
    return network.state_dict()


def fresh(bands, classes, *, wavelengths=None, decoder="unet", encoder="resnet18", **options):
    torch.manual_seed(2)
    spec = ModelSpec(
        decoder=decoder, encoder=encoder, bands=bands, classes=classes, options=options, wavelengths_um=wavelengths
    )
    return spec, create_model(spec)


SMALL = {"encoder_depth": 3, "decoder_channels": [8, 8, 8]}
OWN, NAMES = [(f"band{band}", None) for band in (1, 2, 3)], ["water", "wood", "road"]  # as the tiny scene has them
RGB = [("red", 0.665), ("green", 0.56), ("blue", 0.49)]


def test_a_frozen_encoder_stays_to_the_last_bit_and_then_learns(config, unet):
    begun = saved("old.safetensors", bands=OWN, classes=NAMES, **unet["options"])
    model = {**unet, "init_from": "old.safetensors", "ema_decay": 0.0, "lr": 0.01}
    runs = {
        until: run_fit(config(name=f"f{until}", model={**model, "freeze": {"encoder": until}}))
        for until in ("all", 2, 1)
    }
    for until, run in runs.items():
        state = torch.load(run.folder / "last.ckpt", weights_only=True)["state_dict"]
        weights = {name: state[f"network.{name}"] for name in begun}
        same = all(torch.equal(weights[name], begun[name]) for name in weights if name.startswith("encoder."))
        assert same is (until != 1), until  # two epochs
        assert not torch.equal(weights["decoder.blocks.0.conv1.0.weight"], begun["decoder.blocks.0.conv1.0.weight"])


@pytest.mark.parametrize(
    ("unit", "training_std", "pretrained"), [(None, 300.0, True), ("none", 300.0, False), (None, 3e5, False)]
)
def test_a_run_that_begins_as_another_sees_bands_as_its_pretrained_weights_did(
    config, unet, caplog, *, unit, training_std, pretrained
):
    """Of the three bands one was normalised by what pretrained weights expect; the others have the data's moments."""
    saved("old.safetensors", bands=OWN, classes=NAMES, **unet["options"])
    network, card = load_model(Path("old.safetensors"))
    seen = replace(card.bands[1], mean=5.0, std=1e4, training_mean=1700.0, training_std=training_std)
    save_model("old.safetensors", model=network, card=replace(card, bands=(card.bands[0], seen, card.bands[2])))
    model = {**unet, "init_from": "old.safetensors", "unit": unit}
    first, second, _ = read_card(run_fit(config(model=model, trainer={"max_epochs": 1})).model).bands
    assert (second.mean, second.std) == ((5.0, 1e4) if pretrained else second.moments)
    assert second.moments[0] > 500
    assert first.moments == (first.mean, first.std)
    assert ("the numbers of band2 are not like those that old.safetensors" in caplog.text) == (training_std > 300)


def test_layer_decay_slows_the_first_layers(config, unet):
    begun = saved("old.safetensors", bands=OWN, classes=NAMES, **unet["options"])
    model = {**unet, "init_from": "old.safetensors", "ema_decay": 0.0, "weight_decay": 0.0, "layer_decay": 0.1}
    weights = load_model(run_fit(config(model=model, trainer={"max_epochs": 1})).model)[0].state_dict()
    names = ["encoder.conv1.weight", "encoder.layer1.0.conv1.weight", "encoder.layer2.0.conv1.weight",
             "decoder.blocks.0.conv1.0.weight"]  # fmt: skip
    moved = [float((weights[name] - begun[name]).abs().max()) for name in names]
    # AdamW's steps are about as large as the learning rate, whatever the gradient.
    assert [10 * one < 3 * other for one, other in pairwise(moved)] == [True] * 3


def test_lora_leaves_a_plain_model_file(config, vit, caplog):
    given = config(model={**vit, "lora": {"rank": 2, "alpha": 4}, "lr": 0.01}, trainer={"max_epochs": 1})
    with caplog.at_level(logging.INFO, "geoseg"):
        result = run_fit(given)
    assert "LoRA" in caplog.text
    card = read_card(result.model)
    with safe_open(result.model, "pt") as file:
        assert set(file.keys()) == set(create_model(card.spec).state_dict())
    plain = run_fit(
        {**given, "name": "plain", "model": {**given["model"], "lora": None, "freeze": {"encoder.trunk": "all"}}}
    )
    one, other = (load_model(run.model)[0].state_dict() for run in (result, plain))
    changed = {name for name in one if name.startswith("encoder.trunk") and not torch.equal(one[name], other[name])}
    assert {name.rsplit(".", 2)[1] for name in changed} == {"qkv", "proj"}
    assert all(name.endswith("weight") for name in changed)
    difference = one[min(changed)] - other[min(changed)]
    assert torch.linalg.matrix_rank(difference, rtol=1e-3) <= 2


def test_lora_in_an_encoder_that_is_frozen_is_refused(config, vit):
    with pytest.raises(InputError, match="lora learns in the encoder, which model.freeze holds"):
        run_fit(config(model={**vit, "lora": {"rank": 2}, "freeze": {"encoder": "all"}}))


def test_a_unit_is_of_pretrained_weights_alone(config, unet):
    saved("old.safetensors", bands=OWN, classes=NAMES, **unet["options"])
    with pytest.raises(InputError, match=r"model.unit byte is for model.weights.*or give none"):
        run_fit(config(model={**unet, "init_from": "old.safetensors", "unit": "byte"}))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"freeze": {"encoder": "some"}}, r"freeze.encoder is 'some': needed is a number of epochs, or all"),
        ({"freeze": {"encodr": 2}}, "freeze names 'encodr'"),
        ({"freeze": {"encoder": "all", "decoder": "all", "segmentation_head": "all"}}, "leaves nothing to learn"),
        ({"layer_decay": 1.5}, "layer_decay is 1.5"),
        ({"lora": {"rank": 0}}, "rank of 1 or more"),
        ({"lora": {}}, "lora needs attention"),
        ({"swa": {"start": 2}}, "swa.start is 2"),
        ({"init_from": "a.safetensors", "weights": "imagenet"}, "give one"),
        ({"lr": -1.0}, "lr is -1.0"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0: needed is 0 or more"),
        ({"class_weights": "inverse", "class_weight_cap": 0.5}, "class_weight_cap is 0.5: needed is 1 or more"),
        ({"freeze": {"encoder": 1, "decoder": 1, "segmentation_head": 1}}, "nothing to learn, or not at first"),
    ],
)
def test_options_that_do_not_fit_are_one_line(config, unet, model, words):
    with pytest.raises(InputError, match=words) as caught:
        run_fit(config(model={**unet, **model}))
    assert "\n" not in str(caught.value)


def test_classes_of_the_same_name_keep_their_channels_and_others_start_anew(scene, caplog):
    old = saved("old.safetensors", bands=RGB, classes=["water", "wood", "road"], **SMALL)
    spec, network = fresh(3, 4, wavelengths=(0.665, 0.56, 0.49), **SMALL)
    own = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with caplog.at_level(logging.INFO, "geoseg"):
        start_from(
            "old.safetensors", network, spec=spec, band_names=("red", "green", "blue"),
            class_names=("Road", "crop", "water", "snow"),
        )  # fmt: skip
    new = network.state_dict()
    for name in ("segmentation_head.0.weight", "segmentation_head.0.bias"):
        assert torch.equal(new[name][[0, 2]], old[name][[2, 0]])
        assert torch.equal(new[name][[1, 3]], own[name][[1, 3]])
    rest = [name for name in new if not name.startswith("segmentation_head")]
    assert all(torch.equal(new[name], old[name]) for name in rest)
    assert "classes Road, water; crop, snow start anew; bands red, green, blue" in caplog.text


def test_bands_are_matched_by_name_then_by_wavelength_then_by_the_mean(scene, caplog):
    old = saved("old.safetensors", bands=RGB, classes=["a", "b"], **SMALL)
    names, wavelengths = ("blue", "red", "yellow", "elevation"), (0.49, 0.665, 0.605, None)
    spec, network = fresh(4, 2, wavelengths=wavelengths, **SMALL)
    with caplog.at_level(logging.INFO, "geoseg"):
        start_from("old.safetensors", network, spec=spec, band_names=names, class_names=("a", "b"))
    kernels, new = old["encoder.conv1.weight"], network.state_dict()["encoder.conv1.weight"]
    red, green, blue = kernels.unbind(1)
    share = (0.665 - 0.605) / (0.665 - 0.56)
    expected = [blue, red, share * green + (1 - share) * red, kernels.mean(1)]
    torch.testing.assert_close(new, 3 / 4 * torch.stack(expected, 1))
    said = "bands blue, red; yellow from the bands beside them in the spectrum; elevation from the mean of all bands"
    assert said in caplog.text


def test_another_dropout_is_the_same_network(scene):
    old = saved("old.safetensors", bands=RGB, classes=["a", "b"], **SMALL)
    spec, network = fresh(3, 2, **SMALL, dropout=0.3)
    start_from("old.safetensors", network, spec=spec, band_names=None, class_names=("a", "b"))
    for one, other in zip(network.state_dict().values(), old.values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("decoder", ["unet", "fcn", "fpn", "deeplabv3plus", "segformer", "pixel"])
def test_every_decoder_can_begin_as_another(scene, decoder):
    options = {"hidden": [4]} if decoder == "pixel" else {}
    saved("old.safetensors", bands=RGB, classes=["a", "b"], decoder=decoder, **options)
    spec, network = fresh(4, 3, decoder=decoder, wavelengths=(0.49, 0.56, 0.665, None), **options)
    names = ("blue", "green", "red", "dem")
    start_from("old.safetensors", network, spec=spec, band_names=names, class_names=("b", "c", "a"))
    old, image = load_model("old.safetensors")[0], torch.randn(1, 4, 64, 64)
    image[:, 3] = 0  # the band that the old network did not have
    network.eval()
    with torch.no_grad():
        # In training the scale of the first layer is made up for by its batch norm; here it is put back.
        for name, tensor in network.named_parameters():
            if tensor.ndim == 4 and tensor.shape[1] == 4 and name in FIRST:
                tensor.mul_(4 / 3)
        torch.testing.assert_close(network(image)[:, [2, 0]], old(image[:, [2, 1, 0]]), rtol=1e-4, atol=1e-4)


FIRST = ("encoder.conv1.weight", "0.weight")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"decoder": "fpn"}, "has the decoder unet, this run fpn"),
        ({"encoder": "resnet34"}, "has the encoder resnet18, this run resnet34"),
        ({"decoder_channels": [16, 8, 8]}, r"model.options .*\[8, 8, 8\].*\[16, 8, 8\]"),
    ],
)
def test_another_architecture_is_refused(scene, changes, words):
    saved("old.safetensors", bands=RGB, classes=["a", "b"], **SMALL)
    options = {**({} if "decoder" in changes else SMALL), **changes}
    spec, network = fresh(3, 2, **options)
    with pytest.raises(InputError, match=words) as caught:
        start_from("old.safetensors", network, spec=spec, band_names=None, class_names=("a", "b"))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_said(config, unet):
    with pytest.raises(MissingInputError, match="nowhere"):
        run_fit(config(model={**unet, "init_from": "nowhere.safetensors"}))


def test_a_run_may_begin_as_a_run_of_other_classes(config, scene):
    first = run_fit(config(name="first", trainer={"max_epochs": 6}))
    with rasterio.open("labels.tif") as file:
        profile, labels = file.profile, file.read()
    with rasterio.open("wood.tif", "w", **profile) as file:
        file.write(np.where(labels == 2, 2, 1).astype(np.uint8))
    two = {**scene, "labels": {"path": "wood.tif", "legend": {1: "open", 2: "wood"}}}
    given = config(data={"scenes": [two]}, model={"init_from": str(first.model), "lr": 1e-6, "ema_decay": 0.0})
    weights = load_model(run_fit(given).model)[0].state_dict()
    before = load_model(first.model)[0].state_dict()
    torch.testing.assert_close(weights["3.weight"][1], before["3.weight"][1], atol=1e-4, rtol=0)
    torch.testing.assert_close(weights["0.weight"], before["0.weight"], atol=1e-4, rtol=0)
