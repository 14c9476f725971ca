"""Layers of an encoder, learning rates by layer, and what is frozen."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from geoseg.errors import InputError
from geoseg.models.build import create_model
from geoseg.models.depth import encoder_layers
from geoseg.models.freezing import ever_learns, freeze_parts, idle_parameters
from geoseg.models.optim import layer_rates, parameter_groups, then_constant
from geoseg.models.spec import ModelSpec

SWIN = {"encoder_options": {"depths": [1, 1, 2, 1], "embed_dim": 24, "num_heads": [1, 2, 4, 8]}}


def built(decoder: str, encoder: str, **options) -> nn.Module:
    return create_model(ModelSpec(decoder=decoder, encoder=encoder, bands=4, classes=3, options=options))


def by_part(layers: dict[str, int], parts: list[str]) -> list[set[int]]:
    return [{layer for name, layer in layers.items() if f".{name}".find(f".{part}.") >= 0} for part in parts]


def test_the_layers_of_a_convolutional_encoder_are_its_stages():
    layers, count = encoder_layers(built("unet", "resnet18"), bands=4)
    assert count == 5
    assert by_part(layers, ["conv1", "layer1.0", "layer2", "layer3", "layer4"])[1:] == [{1}, {2}, {3}, {4}]
    assert layers["encoder.conv1.weight"] == layers["encoder.bn1.bias"] == 0


def test_the_layers_of_a_transformer_are_its_blocks_and_what_embeds_patches_is_before_them():
    layers, count = encoder_layers(built("upernet", "vit_tiny_patch16_224", encoder_options={"depth": 4}), bands=4)
    assert count == 5
    assert by_part(layers, [f"blocks.{block}" for block in range(4)]) == [{1}, {2}, {3}, {4}]
    first = [name for name, layer in layers.items() if layer == 0]
    assert {name.split("model.")[1].split(".")[0] for name in first} == {"cls_token", "pos_embed", "patch_embed"}
    assert not any("necks" in name for name in layers)


def test_a_hierarchical_transformer_is_in_order_though_its_parts_are_not_named_so():
    layers, count = encoder_layers(built("segformer", "mit_b0"), bands=4)
    assert count == 9
    assert by_part(layers, ["block1.0", "block2.0", "block4.1"]) == [{1}, {3}, {8}]
    # The embedding of the second stage comes after the blocks of the first, though it is registered before them.
    assert by_part(layers, ["patch_embed1", "encoder.norm1", "patch_embed2", "encoder.norm4"]) == [{0}, {2}, {2}, {8}]


def test_a_swin_of_torchvision_has_blocks_too():
    layers, count = encoder_layers(built("unet", "swin_t", **SWIN), bands=4)
    assert count == 6
    assert by_part(layers, ["features.0.0", "features.1.0", "features.2", "features.5.1"]) == [{0}, {1}, {1}, {4}]


@pytest.mark.parametrize(
    ("decoder", "encoder", "options", "idle"),
    [
        ("unet", "resnet18", {}, ()),
        (
            "unet",
            "resnet18",
            {"encoder_depth": 3, "decoder_channels": [16, 8, 8]},
            ("encoder.layer3", "encoder.layer4"),
        ),
        ("pspnet", "resnet18", {}, ("encoder.layer3", "encoder.layer4")),
        ("unet", "efficientnet-b0", {}, ("encoder._conv_head", "encoder._bn1")),
    ],
)
def test_parameters_without_a_say_are_those_of_parts_that_are_never_run(decoder, encoder, options, idle):
    network = built(decoder, encoder, **options)
    found = idle_parameters(network, bands=4)
    assert found == {
        name for name, _ in network.named_parameters() if name.startswith(tuple(f"{part}." for part in idle))
    }


@pytest.mark.parametrize("look", [encoder_layers, idle_parameters])
def test_looking_at_a_network_changes_nothing(look):
    network = built("unet", "resnet18").train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    drawn = torch.get_rng_state()
    look(network, bands=4)
    assert torch.equal(drawn, torch.get_rng_state())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(module.training for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_network_without_an_encoder_is_refused():
    with pytest.raises(InputError, match="needs a network with an encoder"):
        encoder_layers(create_model(ModelSpec(decoder="pixel", bands=4, classes=3)), bands=4)


def test_rates_are_those_of_beit():
    # BEiT's LayerDecayValueAssigner for 12 blocks: decay ** (13 - layer), layer 0 the patches, 13 what comes after.
    rates = layer_rates({"patch": 0, "block0": 1, "block11": 12}, count=13, decay=0.75)
    assert rates == pytest.approx({"patch": 0.75**13, "block0": 0.75**12, "block11": 0.75})


def test_every_parameter_is_in_one_group_of_its_rate_and_decay():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 3))
    named = list(network.named_parameters())
    decays = {name: parameter.ndim > 1 for name, parameter in named}
    rates = {"0.weight": 0.5, "0.bias": 0.5}
    groups = parameter_groups(named, lr=0.1, weight_decay=0.3, rates=rates, decays=decays)
    found = {id(each): (group["lr"], group["weight_decay"]) for group in groups for each in group["params"]}
    assert len(found) == len(named) == sum(len(group["params"]) for group in groups)
    assert {name: found[id(each)] for name, each in named} == {
        "0.weight": (0.05, 0.3), "0.bias": (0.05, 0.0), "1.weight": (0.1, 0.0), "1.bias": (0.1, 0.0),
        "2.weight": (0.1, 0.3), "2.bias": (0.1, 0.0),
    }  # fmt: skip


def test_a_schedule_may_end_constant():
    shape = then_constant(lambda progress, warmup: progress + warmup, start=0.5, level=9.0)
    assert [shape(progress, 0.125) for progress in (0.25, 0.4375, 0.5, 1.0)] == [0.375, 0.5625, 9.0, 9.0]


def test_the_smaller_part_decides():
    network = built("unet", "resnet18").train()
    names = {name for name, _ in network.named_parameters()}
    freeze = {"encoder.layer4": 2, "encoder": "all"}
    for epoch, learns in ((0, False), (1, False), (2, True)):
        freeze_parts(network, freeze, epoch=epoch, trainable=names)
        assert all(each.requires_grad is learns for each in network.encoder.layer4.parameters())
        assert not any(each.requires_grad for each in network.encoder.layer1.parameters())
        assert network.encoder.layer4[0].bn1.training is learns
        assert not network.encoder.bn1.training
        assert all(each.requires_grad for each in network.decoder.parameters())
    assert not ever_learns("encoder.layer1.0.conv1.weight", freeze)
    assert ever_learns("encoder.layer4.0.conv1.weight", freeze)
    assert ever_learns("encoder2.weight", freeze)


def test_what_must_not_learn_is_not_thawed():
    network = built("unet", "resnet18")
    freeze_parts(network, {"encoder": 1}, epoch=1, trainable={"encoder.conv1.weight"})
    learning = [name for name, each in network.encoder.named_parameters() if each.requires_grad]
    assert learning == ["conv1.weight"]


def test_a_part_that_is_not_there_is_refused_with_those_near_it():
    with pytest.raises(InputError, match=r"freeze names 'encodr'.* has encoder"):
        freeze_parts(built("unet", "resnet18"), {"encodr": 1}, epoch=0, trainable=set())
