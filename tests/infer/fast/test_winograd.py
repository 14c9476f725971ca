"""Winograd's filtering is the convolution that torch does, with what stands around it."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from geoseg.infer.fast import winograd
from geoseg.infer.fast.vectors import BUSY_PLANES, PLANES
from geoseg.infer.fast.winograd import FastConv, can_be_fast, transformed_weights

NEAR = 3e-6
"""Of the largest sum of a convolution's absolute products, what F(4, 3) may lose in float32."""


def images(count: int, shapes: list[tuple[int, int, int]], seed: int) -> list[Tensor]:
    drawn = torch.Generator().manual_seed(seed)
    return [torch.randn(count, *shape, generator=drawn) for shape in shapes]


def convolution(deep: int, width: int, *, seed: int, bias: bool = True) -> nn.Conv2d:
    torch.manual_seed(seed)
    return nn.Conv2d(deep, width, 3, padding=1, bias=bias)


def by_definition(layer: nn.Conv2d, image: Tensor) -> tuple[Tensor, float]:
    """The convolution in float64, tap by tap, and the largest sum of absolute products."""
    rows, cols = image.shape[2:]
    ringed = functional.pad(image.double(), (1, 1, 1, 1))
    found = torch.zeros(len(image), layer.out_channels, rows, cols, dtype=torch.float64)
    size = torch.zeros_like(found)
    for i in range(3):
        for j in range(3):
            seen, taps = ringed[:, :, i : i + rows, j : j + cols], layer.weight.detach()[:, :, i, j].double()
            found += torch.einsum("nchw,kc->nkhw", seen, taps)
            size += torch.einsum("nchw,kc->nkhw", seen.abs(), taps.abs())
    if layer.bias is not None:
        found += layer.bias.detach().double()[:, None, None]
    return found, float(size.max())


@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(st.integers(1, 11), st.integers(1, 23)).map(lambda half: (2 * half[0], 2 * half[1])),
    odd=st.booleans(),
    sources=st.lists(st.tuples(st.sampled_from([16, 32, 48]), st.booleans()), min_size=1, max_size=3),
    width=st.integers(1, 40), relu=st.booleans(), plus=st.booleans(), bias=st.booleans(), count=st.integers(1, 2),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_it_is_the_convolution_by_its_definition(  # noqa: PLR0917 - drawn by hypothesis
    size: tuple[int, int], odd: bool, sources: list[tuple[int, bool]], width: int, relu: bool, plus: bool, bias: bool,
    count: int, seed: int,
) -> None:  # fmt: skip
    doubled = [twice for _, twice in sources]
    if odd and not any(doubled):
        size = size[0] - 1, size[1] - 1
    shapes = [(deep, size[0] >> twice, size[1] >> twice) for deep, twice in sources]
    given_images = images(count, shapes, seed)
    layer = convolution(sum(deep for deep, _ in sources), width, seed=seed, bias=bias)
    fast = FastConv(layer, widths=[deep for deep, _ in sources], doubled=doubled, relu=relu)
    more = images(count, [(width, *size)], seed + 1)[0] if plus else None
    with torch.no_grad():
        found = fast(*given_images, size=size, plus=more)
    whole = [
        image.repeat_interleave(2, 2).repeat_interleave(2, 3) if twice else image
        for image, twice in zip(given_images, doubled, strict=True)
    ]
    wanted, largest = by_definition(layer, torch.cat(whole, 1))
    wanted = wanted + more.double() if more is not None else wanted
    wanted = wanted.clamp(min=0) if relu else wanted
    assert found.shape == wanted.shape
    assert float((found - wanted).abs().max()) <= NEAR * largest + 1e-6


def test_an_image_has_the_same_bits_alone_and_beside_others() -> None:
    layer, (many,) = convolution(32, 48, seed=3), images(3, [(32, 37, 41)], 4)
    fast = FastConv(layer, relu=True)
    with torch.no_grad():
        together = fast(many)
        for number in range(3):
            assert torch.equal(fast(many[number : number + 1])[0], together[number])


@pytest.mark.parametrize("doubled", [False, True])
@pytest.mark.parametrize(("deep", "width", "side"), [(64, 64, 150), (768, 256, 32), (1024, 64, 24), (2048, 16, 20)])
def test_an_image_has_the_same_bits_on_any_number_of_threads(deep: int, width: int, side: int, doubled: bool) -> None:
    """Threads take squares each; none adds up a part of another's sum, deep and small as it may be."""
    layer, shape = convolution(deep, width, seed=3), (side, side + 10)
    skip = images(1, [(16, *shape)], 5) if doubled else []
    widths, small = (deep - 16, 16) if doubled else (deep,), (shape[0] >> doubled, shape[1] >> doubled)
    image = [*images(1, [(widths[0], *small)], 4), *skip]
    fast = FastConv(layer, widths=widths, doubled=(True, False) if doubled else (False,), relu=True)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            with torch.inference_mode():
                found.append(fast(*image))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_nobody_leaves_while_others_are_at_work_on_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """They go by addresses: what is let go under them ends the process."""
    fast, (image,), done = FastConv(convolution(64, 64, seed=3)), images(1, [(64, 150, 160)], 4), []

    def interrupted(begin: int, *_: Any) -> None:
        if begin == 0:
            raise KeyboardInterrupt
        time.sleep(0.1)
        done.append(begin)

    monkeypatch.setattr(winograd, "convolve", interrupted)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with torch.inference_mode(), pytest.raises(KeyboardInterrupt):
            fast(image)
    finally:
        torch.set_num_threads(before)
    assert len(done) == 2


def test_a_square_hangs_on_its_surroundings_alone() -> None:
    """The chunks that squares are computed in do not show: another part of the image gives the same numbers."""
    fast, (image,) = FastConv(convolution(16, 16, seed=5)), images(1, [(16, 96, 400)], 6)
    with torch.no_grad():
        whole, part = fast(image), fast(image[:, :, 40:72, 80:240])
    assert torch.equal(whole[:, :, 44:68, 84:236], part[:, :, 4:-4, 4:-4])


@pytest.mark.parametrize("shape", [(8, 8), (9, 14)])
def test_images_that_do_not_fit_are_left_to_torch(shape: tuple[int, int]) -> None:
    """Small ones, and such as are enlarged to other sides than twice their own."""
    layer, (image, skip) = convolution(48, 16, seed=1), images(2, [(32, 5, 7), (16, *shape)], 2)
    fast = FastConv(layer, widths=(32, 16), doubled=(True, False), relu=True)
    with torch.no_grad():
        found = fast(image, skip, size=shape)
        wanted = layer(torch.cat([functional.interpolate(image, size=shape, mode="nearest"), skip], 1)).relu()
    torch.testing.assert_close(found, wanted)


def test_other_arithmetic_is_left_to_torch() -> None:
    layer = convolution(16, 16, seed=1)
    fast, (image,) = FastConv(layer), images(1, [(16, 40, 40)], 2)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(fast(image.bfloat16()), layer(image.bfloat16()))


def test_not_a_number_stays_one() -> None:
    fast, (image,) = FastConv(convolution(16, 16, seed=1), relu=True), images(1, [(16, 40, 40)], 2)
    image[0, 3, 20, 20] = torch.nan
    with torch.no_grad():
        found = fast(image)
    assert found[:, :, 19:22, 19:22].isnan().all()
    assert not found[:, :, :12].isnan().any()


def test_weights_are_transformed_by_the_matrix_of_the_paper() -> None:
    rows = [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]  # G of F(4, 3), times 24
    g = torch.tensor(rows, dtype=torch.float64) / 24
    weight = torch.randn(6, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    panels = transformed_weights(weight, columns=2).reshape(36, 3, 3, 2)
    found = panels.transpose(1, 2).reshape(36, 3, 6)  # panels of two of the outputs each, side by side
    for (i, j), plane in PLANES.items():
        wanted = torch.einsum("a,koab,b->ok", g[i], weight.double(), g[j])
        torch.testing.assert_close(found[plane].double(), wanted, rtol=1e-6, atol=1e-7)


def test_the_products_that_are_left_out_are_those_that_vanish() -> None:
    assert sorted(PLANES.values()) == list(range(36))
    assert {place for place, plane in PLANES.items() if plane >= BUSY_PLANES} == {
        place for place in PLANES if 2 in place
    }


class Special(nn.Conv2d):
    """Another layer, for all one knows."""


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2}, {"dilation": 2}, {"groups": 2}, {"padding": 0}, {"padding_mode": "reflect"}, {"kernel_size": 5},
        {"in_channels": 24}, {"dtype": torch.float64},
    ],
)  # fmt: skip
def test_other_convolutions_are_refused(options: dict[str, Any]) -> None:
    plain: dict[str, Any] = {"in_channels": 32, "out_channels": 32, "kernel_size": 3, "padding": 1}
    assert can_be_fast(nn.Conv2d(**plain))
    assert not can_be_fast(nn.Conv2d(**plain | options))
    assert not can_be_fast(Special(**plain))
    assert not can_be_fast(nn.Conv2d(**plain), [8, 24])
    assert not can_be_fast(nn.Linear(3, 3))
