"""Low-rank adaptation of attention."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from geoseg.errors import InputError
from geoseg.models.build import create_model
from geoseg.models.lora import LoraOptions, LowRank, add_lora, merge_lora, still_norms
from geoseg.models.spec import ModelSpec

SWIN = {"depths": [1, 1, 1, 1], "embed_dim": 24, "num_heads": [1, 2, 4, 8]}
NETWORKS = {
    "vit": ("upernet", "vit_tiny_patch16_224", {"encoder_options": {"depth": 2}}),
    "mit": ("segformer", "mit_b0", {}),
    "swin": (
        "unet",
        "swin_t",
        {"encoder_options": {"depths": [1, 1, 1, 1], "embed_dim": 24, "num_heads": [1, 2, 4, 8]}},
    ),
}
IMAGE = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def built(name: str) -> nn.Module:
    torch.manual_seed(0)
    decoder, encoder, options = NETWORKS[name]
    return create_model(ModelSpec(decoder=decoder, encoder=encoder, bands=3, classes=3, options=options)).eval()


def logits(network: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return network(IMAGE)


def moved(network: nn.Module) -> None:
    """Gives every second matrix values, as training would."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, LowRank):
                module.B.normal_(std=0.1)


def test_the_weight_is_the_equation():
    rng = np.random.default_rng(0)
    weight = torch.tensor(rng.normal(size=(5, 7)))
    layer = LowRank(weight, LoraOptions(rank=2, alpha=6))
    nn.init.normal_(layer.B)
    x, (A, B) = rng.normal(size=7), (part.detach().numpy() for part in (layer.A, layer.B))
    expected = weight.numpy() @ x + 6 / 2 * B @ (A @ x)
    np.testing.assert_allclose(layer(weight).detach().numpy() @ x, expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_it_changes_nothing_at_first_then_something_and_merging_keeps_that(name):
    network = built(name)
    names, before = list(network.state_dict()), logits(network)
    add_lora(network, LoraOptions(rank=2, alpha=4))
    torch.testing.assert_close(logits(network), before)
    moved(network)
    after = logits(network)
    assert (after - before).abs().max() > 1e-3
    merge_lora(network)
    torch.testing.assert_close(logits(network), after)
    assert set(network.state_dict()) == set(names)
    assert not any(isinstance(module, LowRank) for module in network.modules())


@pytest.mark.parametrize("name", NETWORKS)
def test_of_the_encoder_only_the_matrices_learn(name):
    network = built(name)
    count = add_lora(network, LoraOptions(rank=2, alpha=4))
    core = getattr(network.encoder, "trunk", network.encoder)
    learning = {key: each for key, each in core.named_parameters() if each.requires_grad}
    assert {key.rsplit(".", 1)[1] for key in learning} == {"A", "B"}
    assert count == sum(each.numel() for each in learning.values())
    assert all(each.requires_grad for each in network.decoder.parameters())
    network.train()(IMAGE).square().mean().backward()
    assert all(each.grad is not None for each in learning.values())


def test_norms_of_an_encoder_that_stays_keep_their_statistics():
    network = nn.ModuleDict(
        {"encoder": nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), "head": nn.BatchNorm2d(4)}
    )
    still_norms(network.train())
    assert not network["encoder"][1].training
    assert network["encoder"].training
    assert network["head"].training


def test_a_copy_has_matrices_of_its_own():
    network = built("vit")
    add_lora(network, LoraOptions(rank=2))
    average = copy.deepcopy(network)
    moved(network)
    assert (logits(average) - logits(network)).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("encoder", "options", "words"),
    [
        ("resnet18", LoraOptions(), "lora needs attention"),
        ("mit_b0", LoraOptions(rank=32), "lora.rank is 32: needed is less than 32"),
    ],
)
def test_what_has_no_room_for_it_is_refused(encoder, options, words):
    network = create_model(ModelSpec(decoder="unet", encoder=encoder, bands=3, classes=3))
    with pytest.raises(InputError, match=words):
        add_lora(network, options)
