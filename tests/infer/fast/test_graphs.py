"""A network that was made faster is the same function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from geoseg.infer.fast.graphs import simplified
from geoseg.infer.fast.winograd import FastConv
from geoseg.infer.network import simpler
from geoseg.models.build import create_model
from geoseg.models.spec import ModelSpec

PROBE = torch.randn(1, 4, 64, 96, generator=torch.Generator().manual_seed(0))


def drawn(network: nn.Module, probe: Tensor = PROBE) -> nn.Module:
    with torch.no_grad():
        return simplified(network.eval(), probe=probe)


def norms(network: nn.Module) -> int:
    """Batch norms that are worked out for each image, as layers or as functions in a graph."""
    graphs = [module.graph for module in network.modules() if isinstance(module, fx.GraphModule)]
    called = [node for graph in graphs for node in graph.nodes if node.target is functional.batch_norm]
    return layers(network, nn.BatchNorm2d) + len(called)


def layers(network: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in network.modules())


def shaken(network: nn.Module) -> nn.Module:
    """The network with batch norms that do something."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


def built(decoder: str, encoder: str = "resnet18", **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return shaken(create_model(ModelSpec(bands=4, classes=3, decoder=decoder, encoder=encoder, options=options)))


@pytest.mark.parametrize(
    ("decoder", "left"),
    [
        ("unet", 0), ("unetplusplus", 0), ("manet", 0), ("fpn", 0), ("pspnet", 0), ("pan", 0), ("deeplabv3", 0),
        ("deeplabv3plus", 0), ("upernet", 0), ("fcn", 0),
        ("linknet", 13), ("segformer", 1),  # their decoders ask for sides that no graph knows
    ],
)  # fmt: skip
def test_every_decoder_is_the_same_function(decoder: str, left: int) -> None:
    network = built(decoder)
    found = drawn(network)
    assert norms(found) == left < norms(network)
    assert layers(found, FastConv) >= 5
    for count, *shape in ((2, 128, 160), (1, 131, 75)):
        image = torch.randn(count, 4, *shape, generator=torch.Generator().manual_seed(2))
        with torch.no_grad():
            wanted = network(image)
            torch.testing.assert_close(found(image), wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize(
    ("encoder", "left"),
    [
        ("tf_efficientnet_lite0", 5),  # behind layers that pad by the image's size
        ("mit_b0", 0), ("tu-convnext_atto", 0), ("tu-regnety_002", 0), ("vgg11_bn", 0),
        ("efficientnet-b0", 48),  # whose convolutions are functions
    ],
)  # fmt: skip
def test_encoders_of_all_kinds_are_the_same_function(encoder: str, left: int) -> None:
    network = built("unet", encoder)
    found = drawn(network)
    assert norms(found) == left < norms(network)
    assert layers(found, FastConv) >= 5
    image = torch.randn(1, 4, 96, 130, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        wanted = network(image)
        torch.testing.assert_close(found(image), wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))


def test_nothing_passes_over_the_pixels_of_a_u_net_that_a_convolution_can_take_along() -> None:
    found: Any = drawn(built("unet"))
    kinds = [node.target for node in found.inside.graph.nodes if node.op == "call_function"]
    assert not [kind for kind in kinds if kind in (torch.cat, functional.interpolate)]
    relus = [node for node in found.inside.graph.nodes if node.op == "call_module" and "relu" in str(node.target)]
    assert len(relus) == 4  # behind the convolutions of stride 2
    assert layers(found, FastConv) == 13 + 10 + 1


class Twisted(nn.Module):
    """Everything that a convolution must not swallow."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.first = nn.Conv2d(4, 16, 1)
        self.shared = nn.Conv2d(16, 16, 3, padding=1)
        self.watched = nn.Conv2d(16, 16, 3, padding=1)
        self.both = nn.Conv2d(32, 16, 3, padding=1)
        self.broad = nn.Conv2d(16, 16, 3, padding=1)
        self.last = nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(image)
        x = self.shared(self.shared(x))  # one layer, twice
        y = self.watched(x)
        x = y.relu() + y  # looked at by two
        small = functional.avg_pool2d(x, 2)
        large = functional.interpolate(small, scale_factor=2, mode="nearest")
        joined = torch.cat([large, x], 1)
        z = self.both(joined) + joined[:, :16]  # what was joined is looked at again
        z = self.broad(z) + z.mean(dim=(2, 3), keepdim=True)  # of another shape
        smooth = functional.interpolate(functional.avg_pool2d(z, 2), scale_factor=2, mode="bilinear")
        found: Tensor = self.last(functional.relu(smooth))
        return found


def test_what_is_used_elsewhere_stays() -> None:
    network = Twisted()
    found = drawn(network)
    assert layers(found, FastConv) == 5
    image = torch.randn(1, 4, 48, 80, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(found(image), network(image), rtol=1e-4, atol=1e-4)


class Wavering(nn.Module):
    """A layer that decides by its input."""

    def __init__(self, *, whole: bool = False) -> None:
        super().__init__()
        self.inner = nn.Conv2d(16, 16, 3, padding=1)
        self.whole = whole

    def forward(self, image: Tensor) -> Tensor:
        found: Tensor = self.inner(image)
        return found if found.mean() < 1e9 else image


def test_a_layer_that_decides_stays_one_and_what_is_in_it_becomes_fast() -> None:
    network = nn.Sequential(nn.Conv2d(4, 16, 1, bias=False), nn.BatchNorm2d(16), Wavering(), nn.Conv2d(16, 2, 1))
    shaken(network)
    found = drawn(network)
    assert (norms(found), layers(found, FastConv), layers(found, Wavering)) == (0, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(found(PROBE), network(PROBE), rtol=1e-4, atol=1e-5)


class Cheating(nn.Module):
    """Of the graph that is drawn of it, another function."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(4, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        found: Tensor = self.layer(image)
        return found * 2 if isinstance(image, torch.fx.Proxy) else found


@pytest.mark.parametrize("network", [Wavering, Cheating])
def test_a_network_of_which_no_graph_is_true_runs_as_it_is(network: Callable[[], nn.Module]) -> None:
    used = network().eval()
    bands = 16 if isinstance(used, Wavering) else 4
    assert simpler(used, bands=bands, fast=True) is used


def test_the_network_itself_is_left_alone() -> None:
    network = built("unet")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    drawn(network)
    assert layers(network, FastConv) == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
