"""The network sees what it was trained on, and gives what blending needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from geoseg.errors import InputError, ModelFileError
from geoseg.infer.predictor import TorchPredictor, find_device, find_precision, model_digest, resize
from geoseg.legend import Legend
from geoseg.models.card import BandInfo, ModelCard
from geoseg.models.spec import ModelSpec

CPU = torch.device("cpu")


class Spy(nn.Module):
    """Gives its first two bands as scores, and keeps what it saw."""

    def __init__(self, *, fail_above: int = 99) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen: list[Tensor] = []
        self.fail_above = fail_above

    def forward(self, image: Tensor) -> Tensor:
        if len(image) > self.fail_above:
            raise torch.OutOfMemoryError("too much")
        self.seen.append(image.clone())
        return image[:, :2]


def predictor(network: Any, **options: Any) -> TorchPredictor:
    return TorchPredictor(network, mean=(10.0, 20.0), std=(2.0, 4.0), classes=2, device="cpu", **options)


def tiles(count: int = 1, *, dtype: str = "uint16", side: int = 32) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 200, (count, 2, side, side)).astype(dtype), rng.random((count, side, side)) > 0.2


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
def test_raw_values_are_normalised_and_invalid_ones_are_zero(dtype: str) -> None:
    (pixels, valid), network = tiles(2, dtype=dtype), Spy()
    predictor(network).probabilities(pixels, valid, model_shape=(32, 32))
    wanted = (pixels.astype(np.float64) - [[[10]], [[20]]]) / [[[2]], [[4]]]
    (seen,) = network.seen
    assert seen.dtype == torch.float32
    np.testing.assert_allclose(seen.numpy(), np.where(valid[:, None], wanted, 0), rtol=1e-6)


def test_nan_under_an_invalid_pixel_does_not_reach_the_network() -> None:
    (pixels, valid), network = tiles(dtype="float32"), Spy()
    pixels[:, :, ~valid[0]] = np.nan
    predictor(network).probabilities(pixels, valid, model_shape=(32, 32))
    assert torch.isfinite(network.seen[0]).all()


def test_probabilities_are_the_softmax_over_classes() -> None:
    pixels, valid = tiles(3)
    found = predictor(Spy()).probabilities(pixels, np.ones_like(valid), model_shape=(32, 32)).numpy()
    scores = np.exp((pixels.astype(np.float64) - [[[10]], [[20]]]) / [[[2]], [[4]]])
    np.testing.assert_allclose(found, scores / scores.sum(axis=1, keepdims=True), atol=1e-6)
    assert found.dtype == np.float32


def test_a_tile_is_resampled_for_the_network_and_back() -> None:
    network = Spy()
    row = np.broadcast_to(np.arange(64, dtype=np.float32)[:, None], (64, 64))
    pixels, valid = np.stack([row, -row])[None], np.ones((1, 64, 64), np.bool_)
    found = predictor(network).probabilities(pixels, valid, model_shape=(32, 64))
    assert network.seen[0].shape == (1, 2, 32, 64)
    assert found.shape == (1, 2, 64, 64)
    # A ramp averaged over two rows lies half a row further down; the filter reaches past its ends.
    middle = network.seen[0][0, 0, 2:-2, 5] * 2 + 10
    np.testing.assert_allclose(middle, np.arange(2, 30) * 2 + 0.5, atol=1e-4)


def test_resizing_keeps_a_constant_and_does_nothing_at_the_same_size() -> None:
    planes = torch.full((1, 2, 32, 48), 0.25)
    assert resize(planes, (32, 48)) is planes
    assert torch.allclose(resize(planes, (64, 31)), torch.tensor(0.25))


def test_an_output_that_does_not_fit_is_an_error() -> None:
    pixels, valid = tiles()
    with pytest.raises(ModelFileError, match=r"gives \(1, 32, 32\).*2 classes"):
        predictor(lambda image: image[:, :1]).probabilities(pixels, valid, model_shape=(32, 32))


def test_out_of_memory_halves_the_batch_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    pixels, valid = tiles(5)
    small = predictor(Spy(fail_above=1), batch_tiles=5)
    found = small.probabilities(pixels, valid, model_shape=(32, 32))
    wanted = predictor(Spy()).probabilities(pixels, valid, model_shape=(32, 32))
    assert torch.equal(found, wanted)
    assert small.batch_tiles == 1
    assert "out of memory; going on" in caplog.text


def test_a_tile_that_does_not_fit_is_one_line() -> None:
    pixels, valid = tiles(2)
    with pytest.raises(InputError, match="too little memory for one tile of 32 x 32 pixels; choose a smaller"):
        predictor(Spy(fail_above=0)).probabilities(pixels, valid, model_shape=(32, 32))


def test_bf16_is_close_to_fp32() -> None:
    torch.manual_seed(0)
    network = nn.Conv2d(2, 2, 3, padding=1)
    pixels, valid = tiles(2)
    exact = predictor(network).probabilities(pixels, valid, model_shape=(32, 32))
    rough = predictor(network, precision="bf16").probabilities(pixels, valid, model_shape=(32, 32))
    assert rough.dtype == torch.float32
    assert 0 < (exact - rough).abs().max() < 0.2


def test_the_network_is_in_evaluation_mode_and_keeps_no_gradients() -> None:
    network = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Dropout(0.5))
    pixels, valid = tiles()
    used = predictor(network.train())
    first = used.probabilities(pixels, valid, model_shape=(32, 32))
    assert not network.training
    assert not first.requires_grad
    assert torch.equal(first, used.probabilities(pixels, valid, model_shape=(32, 32)))


def test_arrays_of_the_device_add_up_outside_inference_mode() -> None:
    pixels, valid = tiles()
    used = predictor(Spy())
    arrays = used.arrays
    total = arrays.zeros((2, 32, 32))
    total += used.probabilities(pixels, valid, model_shape=(32, 32))[0] * arrays.to_device(np.ones((32, 32), "f4"))
    assert arrays.to_host(total.round(), np.uint8).dtype == np.uint8


@pytest.mark.parametrize("name", ["gpu", "mps", "meta", "cuda:99"])
def test_devices_that_are_not_there_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=rf"device '{name}'"):
        find_device(name)


def test_the_cpu_is_fp32_by_default() -> None:
    assert find_precision("auto", CPU) == "fp32"
    assert find_precision("bf16", CPU) == "bf16"
    with pytest.raises(InputError, match="known are auto, fp32, bf16"):
        find_precision("int4", CPU)  # type: ignore[arg-type]


@pytest.fixture
def card() -> Callable[..., ModelCard]:
    legend = Legend.from_dict({1: "a", 2: "b"})

    def make(mean: float = 1.0) -> ModelCard:
        return ModelCard(
            name="spy", spec=ModelSpec(bands=2, classes=2), legend=legend, gsd_m=(10.0, 10.0),
            bands=(BandInfo(name="row", mean=mean, std=2.0), BandInfo(name="col", mean=3.0, std=4.0)),
        )  # fmt: skip

    return make


def test_a_card_says_how_to_normalise_and_how_many_classes(card: Callable[..., ModelCard]) -> None:
    network = Spy()
    used = TorchPredictor.from_card(network, card(), tile_shape=(512, 512), device="cpu")
    pixels, valid = tiles()
    used.probabilities(pixels, np.ones_like(valid), model_shape=(32, 32))
    np.testing.assert_allclose(network.seen[0][0, 1], (pixels[0, 1] - 3.0) / 4.0, rtol=1e-6)
    assert (used.classes, used.batch_tiles) == (2, 4)


def test_batches_follow_the_tiles_size_or_the_user(card: Callable[..., ModelCard]) -> None:
    assert TorchPredictor.from_card(Spy(), card(), tile_shape=(2048, 2048), device="cpu").batch_tiles == 1
    assert TorchPredictor.from_card(Spy(), card(), tile_shape=(512, 512), batch=7, device="cpu").batch_tiles == 7
    with pytest.raises(InputError, match="batch of 0"):
        TorchPredictor.from_card(Spy(), card(), tile_shape=(512, 512), batch=0, device="cpu")


def test_the_digest_follows_weights_and_normalisation(card: Callable[..., ModelCard]) -> None:
    network = Spy()
    digests = {model_digest(network, card()), model_digest(Spy(), card()), model_digest(network, card(mean=9.0))}
    with torch.no_grad():
        network.weight += 1
    assert len(digests | {model_digest(network, card())}) == 3
