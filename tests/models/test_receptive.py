"""Known fields are found to the pixel, the network stays as it was, and the overlap follows."""

from __future__ import annotations

import copy
import logging
from math import sqrt

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from torch import Tensor, nn

from geoseg.errors import InputError
from geoseg.models.build import create_model
from geoseg.models.receptive import LARGEST_SIDE, overlap_for, receptive_radius
from geoseg.models.spec import ModelSpec
from geoseg.tiling import Tiling


def stack(*layers: nn.Module, bands: int = 2, classes: int = 3) -> nn.Sequential:
    """`layers` of four channels between two 1 x 1 convolutions."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(bands, 4, 1), *layers, nn.Conv2d(4, classes, 1))


def conv(size: int, **options: int) -> nn.Conv2d:
    return nn.Conv2d(4, 4, size, padding=size // 2 * options.get("dilation", 1), **options)


@pytest.mark.parametrize(
    ("layers", "radius"),
    [
        ([], 0),
        ([conv(1), nn.ReLU(), conv(1)], 0),
        ([conv(3)], 1),
        ([conv(3), nn.GELU()] * 5, 5),
        ([conv(7), conv(3)], 4),
        ([conv(3, dilation=4)], 4),
        ([conv(3, dilation=2), conv(3, dilation=5)], 7),
        # A row r sees 2 (r // 2) - 1 to 2 (r // 2) + 1: one to each side if even, two upwards if odd.
        ([conv(3, stride=2), nn.Upsample(scale_factor=2)], 2),
        # Row 7 of eight sees the first row of its stride only.
        ([nn.Conv2d(4, 4, 1, stride=8), nn.Upsample(scale_factor=8)], 7),
        ([nn.MaxPool2d(4), nn.Upsample(scale_factor=4)], 3),
    ],
)
def test_the_whole_field_of_a_stack_is_the_theoretical_one(layers: list[nn.Module], radius: int) -> None:
    found = receptive_radius(stack(*layers), bands=2, side=64, share=1.0, samples=32, multiple=8)
    assert found == radius


def test_a_field_larger_than_the_first_image_is_measured_in_a_larger_one(caplog: pytest.LogCaptureFixture) -> None:
    network = stack(nn.Conv2d(4, 4, (91, 1), padding=(45, 0)), nn.Conv2d(4, 4, (1, 91), padding=(0, 45)))
    with caplog.at_level(logging.WARNING):
        assert receptive_radius(network, bands=2, side=64, share=1.0, samples=1) == 45
    assert not caplog.records


def uniform(count: int, size: int) -> nn.Sequential:
    """`count` layers, each the mean over `size` x `size` pixels."""
    layers = [nn.Conv2d(1, 1, size, padding=size // 2, bias=False) for _ in range(count)]
    for layer in layers:
        nn.init.constant_(layer.weight, 1 / size**2)
    return nn.Sequential(*layers)


@settings(max_examples=15)
@given(st.integers(1, 12), st.sampled_from([3, 5]), st.sampled_from([0.5, 0.9, 0.9545, 0.99]))
def test_uniform_kernels_give_the_radius_of_the_theory(count: int, size: int, share: float) -> None:
    """The field of layers of equal weights is the box, folded with itself as often (Luo et al. 2016, section 2.2)."""
    found = receptive_radius(uniform(count, size), bands=1, side=128, share=share, samples=1, multiple=8)
    line = np.ones(1)
    for _ in range(count):
        line = np.convolve(line, np.full(size, 1 / size))
    middle = len(line) // 2
    within = [line[middle - radius : middle + radius + 1].sum() ** 2 for radius in range(middle + 1)]
    # Single precision adds up to a little less or more.
    assert within[found] >= share - 1e-4
    assert found == 0 or within[found - 1] < share + 1e-4


def test_many_uniform_kernels_give_the_radius_of_the_normal_distribution() -> None:
    """The field tends to a Gaussian of standard deviation sqrt(n (k^2 - 1) / 12) (Luo et al. 2016, section 2.2)."""
    found = receptive_radius(uniform(40, 5), bands=1, side=256, share=0.9545, samples=1)
    sigma = sqrt(40 * (5**2 - 1) / 12)
    # Half a pixel lies between a sum over whole pixels and the integral; a square's share is that of a side, squared.
    assert found + 0.5 == pytest.approx(norm.ppf((1 + sqrt(0.9545)) / 2) * sigma, abs=0.75)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_the_radius_grows_with_the_share_and_stays_below_the_theory(share: float) -> None:
    torch.manual_seed(0)  # narrow layers of some weights are dead behind their ReLU
    network = stack(*[conv(3), nn.ReLU()] * 6)
    radii = [receptive_radius(network, bands=2, side=64, share=value, multiple=8) for value in (share / 2, share, 1.0)]
    assert radii == sorted(radii)
    assert radii[-1] == 6


class Everything(nn.Module):
    """Each pixel, and as much of the mean of all."""

    def forward(self, image: Tensor) -> Tensor:
        return image[:, :1] + image.mean((1, 2, 3), keepdim=True)


def test_a_network_that_sees_everything_gives_the_cap_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = receptive_radius(Everything(), bands=1, samples=2)
    assert 0.9 * LARGEST_SIDE / 2 < found <= LARGEST_SIDE // 2
    assert f"farther than {LARGEST_SIDE} px can show" in caplog.text


def test_a_network_that_sees_nothing_has_no_radius() -> None:
    assert receptive_radius(nn.Conv2d(1, 2, 1).apply(lambda layer: nn.init.zeros_(layer.weight)), bands=1) == 0


def test_competing_classes_do_not_cancel() -> None:
    """Logits that add up to nothing at all, as after a log-softmax about its mean, still have a field."""
    network = nn.Conv2d(1, 2, 5, padding=2)
    with torch.no_grad():
        network.weight[1] = -network.weight[0]
    assert receptive_radius(network, bands=1, share=1.0, side=64) == 2


def snapshot(network: nn.Module) -> tuple[object, ...]:
    return (
        [module.training for module in network.modules()],
        [(value.requires_grad, value.grad, value.dtype, value.device) for value in network.parameters()],
        {name: value.clone() for name, value in network.state_dict().items()},
    )


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_the_network_and_the_global_seed_stay_as_they_were(mode: type) -> None:
    network = stack(conv(3), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    network[1].eval()
    network[0].weight.requires_grad_(requires_grad=False)
    before = snapshot(network)
    torch.manual_seed(7)
    with mode():
        receptive_radius(network, bands=2, side=64)
    assert torch.rand(()) == torch.rand((), generator=torch.Generator().manual_seed(7))
    after = snapshot(network)
    assert after[:2] == before[:2]
    assert all(torch.equal(after[2][name], value) for name, value in before[2].items())  # type: ignore[index, attr-defined]


def test_dropout_and_batch_statistics_are_those_of_prediction() -> None:
    network = stack(conv(3), nn.BatchNorm2d(4), nn.Dropout(0.5))
    still = copy.deepcopy(network).eval()
    assert receptive_radius(network.train(), bands=2, side=64) == receptive_radius(still, bands=2, side=64)


def test_a_seed_gives_one_radius_whatever_the_precision_of_the_weights() -> None:
    network = stack(*[conv(3), nn.ReLU()] * 4)
    found = [receptive_radius(network, bands=2, side=64, share=0.8, seed=3) for _ in range(2)]
    found.append(receptive_radius(copy.deepcopy(network).double(), bands=2, side=64, share=0.8, seed=3))
    assert found == found[:1] * 3


def test_a_shallow_u_net_looks_as_far_as_its_layers_let_it() -> None:
    options = {"encoder_depth": 3, "decoder_channels": [16, 8, 8]}
    torch.manual_seed(0)
    network = create_model(ModelSpec(bands=4, classes=5, options=options))
    effective = receptive_radius(network, bands=4)
    # 49 px by the encoder's 99 (Araujo et al. 2019), 14 by the decoder's convolutions, and up to 7 by its upsampling.
    assert 8 <= effective <= receptive_radius(network, bands=4, share=1.0) <= 70


def test_a_resnet18_u_net_has_a_plausible_radius() -> None:
    torch.manual_seed(0)
    network = create_model(ModelSpec(bands=3, classes=2))
    assert 32 <= receptive_radius(network, bands=3, side=LARGEST_SIDE, samples=1) <= 310


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bands": 0}, "bands=0"),
        ({"samples": 0}, "samples=0"),
        ({"share": 0.0}, "share=0.0: needed is a share above 0"),
        ({"share": 1.1}, "share=1.1"),
        ({"side": 100}, "side=100: needed is a multiple of 32 from 64 to 1024"),
        ({"side": 32}, "side=32"),
        ({"side": 2048}, "side=2048"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        receptive_radius(nn.Conv2d(1, 1, 1), **{"bands": 1, **options})


@pytest.mark.parametrize("network", [nn.Conv2d(1, 3, 3, stride=2), nn.Flatten()])
def test_a_network_without_logits_for_each_pixel_is_refused(network: nn.Module) -> None:
    with pytest.raises(InputError, match=r"gives \(1, .*needed are logits \(n, class, row, col\)"):
        receptive_radius(network, bands=1)


def test_weights_that_are_no_numbers_are_refused() -> None:
    network = nn.Conv2d(1, 1, 1)
    nn.init.constant_(network.weight, float("nan"))
    with pytest.raises(InputError, match="not finite"):
        receptive_radius(network, bands=1)


@given(st.integers(0, 2000), st.integers(1, 64))
def test_an_overlap_is_even_holds_both_radii_where_it_can_and_tiles_take_it(radius: int, units: int) -> None:
    tile = 32 * units
    overlap = overlap_for(radius, tile_px=tile)
    assert overlap % 2 == 0
    assert overlap == 2 * radius or (overlap < 2 * radius and overlap == tile // 2)
    assert Tiling.over((5000, 5000), largest_tile_px=tile, overlap_px=overlap).rows.overlap == overlap


@given(st.integers(0, 200), st.sampled_from([1, 2, 3, 4, 8, 16, 32]), st.integers(1, 40))
def test_an_overlap_is_whole_strides_of_the_network_where_half_a_tile_has_room(
    radius: int, multiple: int, units: int
) -> None:
    overlap = overlap_for(radius, tile_px=16 * units, multiple=multiple)
    assert overlap % 2 == 0
    assert overlap <= 8 * units
    if 2 * (radius + multiple) <= 8 * units:
        assert 2 * radius <= overlap < 2 * radius + 2 * multiple + 1
        assert overlap % multiple == 0 or multiple % 2 == 1


def test_an_odd_half_tile_is_rounded_down_to_an_even_overlap() -> None:
    assert [overlap_for(99, tile_px=tile) for tile in (1, 2, 5, 6, 90)] == [0, 0, 2, 2, 44]


@pytest.mark.parametrize(("radius", "tile"), [(-1, 64), (3, 0)])
def test_a_negative_radius_or_no_tile_is_refused(radius: int, tile: int) -> None:
    with pytest.raises(InputError, match="radius of"):
        overlap_for(radius, tile_px=tile)
