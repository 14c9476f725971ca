"""The network sees what it was trained on, and gives what blending needs."""

from __future__ import annotations

import pickle
import platform
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

from geoseg.errors import InputError, ModelFileError
from geoseg.infer import devices, network
from geoseg.infer import predictor as predicting
from geoseg.infer.devices import find_device, find_precision, has_bf16
from geoseg.infer.network import model_digest, ready, resize, simpler
from geoseg.infer.predictor import TorchPredictor
from geoseg.infer.turns import TURNS
from geoseg.legend import Legend
from geoseg.models.build import create_model
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


def probabilities(used: TorchPredictor, pixels: Any, valid: Any, *, model_shape: tuple[int, int] = (32, 32)) -> Any:
    """Probabilities `(tile, class, row, col)` of what a predictor in memory gives."""
    found = used.scores(pixels, valid, model_shape=model_shape)
    planes = np.moveaxis(found.values, 3, 1)
    if not found.logits:
        return planes
    scores = np.exp(planes.astype(np.float64) - planes.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


def tiles(count: int = 1, *, dtype: str = "uint16", side: int = 32) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 200, (count, 2, side, side)).astype(dtype), rng.random((count, side, side)) > 0.2


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
def test_raw_values_are_normalised_and_invalid_ones_are_zero(dtype: str) -> None:
    (pixels, valid), network = tiles(2, dtype=dtype), Spy()
    predictor(network).scores(pixels, valid, model_shape=(32, 32))
    wanted = (pixels.astype(np.float64) - [[[10]], [[20]]]) / [[[2]], [[4]]]
    (seen,) = network.seen
    assert seen.dtype == torch.float32
    np.testing.assert_allclose(seen.numpy(), np.where(valid[:, None], wanted, 0), rtol=1e-6)


def test_nan_under_an_invalid_pixel_does_not_reach_the_network() -> None:
    (pixels, valid), network = tiles(dtype="float32"), Spy()
    pixels[:, :, ~valid[0]] = np.nan
    predictor(network).scores(pixels, valid, model_shape=(32, 32))
    assert torch.isfinite(network.seen[0]).all()


def test_probabilities_are_the_softmax_over_classes() -> None:
    pixels, valid = tiles(3)
    found = probabilities(predictor(Spy()), pixels, np.ones_like(valid))
    scores = np.exp((pixels.astype(np.float64) - [[[10]], [[20]]]) / [[[2]], [[4]]])
    np.testing.assert_allclose(found, scores / scores.sum(axis=1, keepdims=True), atol=1e-6)


def test_a_tile_is_resampled_for_the_network_and_back() -> None:
    network = Spy()
    row = np.broadcast_to(np.arange(64, dtype=np.float32)[:, None], (64, 64))
    pixels, valid = np.stack([row, -row])[None], np.ones((1, 64, 64), np.bool_)
    found = probabilities(predictor(network), pixels, valid, model_shape=(32, 64))
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
        predictor(lambda image: image[:, :1]).scores(pixels, valid, model_shape=(32, 32))


def test_out_of_memory_halves_the_batch_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    pixels, valid = tiles(5)
    small = predictor(Spy(fail_above=1), batch_tiles=5)
    found = small.scores(pixels, valid, model_shape=(32, 32))
    wanted = predictor(Spy()).scores(pixels, valid, model_shape=(32, 32))
    np.testing.assert_array_equal(found.values, wanted.values)
    assert small.batch_tiles == 1
    assert "out of memory; going on" in caplog.text


@pytest.mark.parametrize("words", ["CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED when calling"])
def test_memory_that_runs_out_in_other_words_halves_the_batch(words: str) -> None:
    pixels, valid = tiles(4)

    def network(image: Tensor) -> Tensor:
        if len(image) > 1:
            raise RuntimeError(words)
        return image[:, :2]

    used = predictor(network, batch_tiles=4)
    found = used.scores(pixels, valid, model_shape=(32, 32))
    assert used.batch_tiles == 1
    assert len(found.values) == 4


def test_a_compiled_network_sees_batches_of_one_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda network, **_: network)
    network = Spy()
    used, plain = predictor(network, batch_tiles=4, compiled=True), predictor(Spy())
    for count in (4, 3, 1):
        pixels, valid = tiles(count)
        found, wanted = (each.scores(pixels, valid, model_shape=(32, 32)).values for each in (used, plain))
        np.testing.assert_array_equal(found, wanted)
    assert {len(seen) for seen in network.seen} == {4}


def test_a_tile_that_does_not_fit_is_one_line() -> None:
    pixels, valid = tiles(2)
    with pytest.raises(InputError, match="too little memory for one tile of 32 x 32 pixels; choose a smaller"):
        predictor(Spy(fail_above=0)).scores(pixels, valid, model_shape=(32, 32))


def test_bf16_is_close_to_fp32() -> None:
    torch.manual_seed(0)
    network = nn.Conv2d(2, 2, 3, padding=1)
    pixels, valid = tiles(2)
    exact = probabilities(predictor(network, precision="fp32"), pixels, valid)
    rough = probabilities(predictor(network, precision="bf16"), pixels, valid)
    assert 0 < np.abs(exact - rough).max() < 0.2


def test_the_network_is_in_evaluation_mode_and_keeps_no_gradients() -> None:
    network = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Dropout(0.5))
    pixels, valid = tiles()
    used = predictor(network.train())
    first = used.scores(pixels, valid, model_shape=(32, 32))
    assert not network.training
    again = used.scores(pixels, valid, model_shape=(32, 32))
    np.testing.assert_array_equal(first.values, again.values)


@pytest.mark.parametrize("name", ["gpu", "mps", "meta", "cuda:99"])
def test_devices_that_are_not_there_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=rf"device '{name}'"):
        find_device(name)


@pytest.mark.parametrize(
    ("has", "built", "served"),
    [
        ((8, 9), ["sm_75", "sm_86", "sm_90"], True),
        ((7, 0), ["sm_75", "sm_86", "sm_90"], False),
        ((11, 0), ["sm_100", "sm_120"], False),
        ((11, 0), ["sm_90", "compute_100"], True),
        ((8, 0), ["compute_86"], False),
    ],
)
def test_a_gpu_that_torch_is_not_built_for_is_left_alone(
    has: tuple[int, int], built: list[str], served: bool, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    facts = {"is_available": True, "device_count": 1, "get_device_name": "Old", "get_arch_list": built}
    for name, value in (facts | {"get_device_capability": has}).items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    assert find_device("auto").type == ("cuda" if served else "cpu")
    assert ("generation sm_" in caplog.text) != served
    if not served:
        with pytest.raises(InputError, match=r"Old is of generation sm_\d+, and torch is built for .*--device cpu"):
            find_device("cuda")


def test_the_cpu_takes_bf16_where_it_computes_with_it() -> None:
    assert find_precision("auto", CPU) == ("bf16" if has_bf16(CPU) else "fp32")
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
    used = TorchPredictor.from_card(network, card(), device="cpu")
    pixels, valid = tiles()
    used.scores(pixels, np.ones_like(valid), model_shape=(32, 32))
    np.testing.assert_allclose(network.seen[0][0, 1], (pixels[0, 1] - 3.0) / 4.0, rtol=1e-6)
    assert used.classes == 2


def test_a_batch_is_found_within_memory_and_a_given_one_is_kept(card: Callable[..., ModelCard]) -> None:
    free = TorchPredictor.from_card(nn.Conv2d(2, 2, 3, padding=1), card(), device="cpu")
    taken = free.fit_batch(model_shape=(256, 256), tiles=10_000, memory_bytes=10**9)
    assert 1 <= free.batch_tiles <= 32
    assert taken > 0
    given = TorchPredictor.from_card(Spy(), card(), batch=7, device="cpu")
    given.fit_batch(model_shape=(64, 64), tiles=10_000, memory_bytes=0, search=False)
    assert given.batch_tiles == 7
    tight = TorchPredictor.from_card(nn.Conv2d(2, 64, 3, padding=1), card(), device="cpu")
    tight.classes = 64
    tight.fit_batch(model_shape=(256, 256), tiles=10_000, memory_bytes=1)
    assert tight.batch_tiles == 1
    with pytest.raises(InputError, match="batch of 0"):
        TorchPredictor.from_card(Spy(), card(), batch=0, device="cpu")


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("four_threads")
def test_lanes_follow_cores_and_memory(card: Callable[..., ModelCard], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predicting, "peak_bytes_of", lambda _: 10**7)

    def of(**options: Any) -> TorchPredictor:
        network = nn.Sequential(nn.Conv2d(2, 16, 3, padding=1), nn.Conv2d(16, 2, 3, padding=1))
        return TorchPredictor.from_card(network, card(), device="cpu", **options)

    assert (of().lanes, of(compiled=True).lanes) == (4, 1)
    free, few, tight = of(), of(), of()
    assert free.fit_batch(model_shape=(512, 512), tiles=9, memory_bytes=10**9) == 4 * 10**7
    assert few.fit_batch(model_shape=(512, 512), tiles=3, memory_bytes=10**9) == 3 * 10**7
    assert tight.fit_batch(model_shape=(512, 512), tiles=9, memory_bytes=1) == 10**7
    assert (free.lanes, few.lanes, tight.lanes) == (4, 4, 1)
    again = pickle.loads(pickle.dumps(tight))  # noqa: S301
    assert again.lanes == 1


def test_a_model_takes_the_memory_of_its_weights_as_given_and_as_they_are_used(card: Callable[..., ModelCard]) -> None:
    layer = nn.Conv2d(2, 2, 1)
    assert TorchPredictor.from_card(layer, card(), device="cpu").model_bytes == 4 * (2 * 2 + 2)  # it is used as given
    fast = TorchPredictor.from_card(nn.Conv2d(32, 32, 3, padding=1), card(), device="cpu")
    given, products = 4 * (32 * 32 * 9 + 32), 4 * (32 * 32 * 36 + 32)
    assert fast.model_bytes in (given, given + products)  # as the processor goes


def test_the_digest_follows_weights_and_normalisation(card: Callable[..., ModelCard]) -> None:
    network = Spy()
    digests = {model_digest(network, card()), model_digest(Spy(), card()), model_digest(network, card(mean=9.0))}
    with torch.no_grad():
        network.weight += 1
    assert len(digests | {model_digest(network, card())}) == 3


class Normed(nn.Module):
    """Convolutions with batch norms, one of them behind a decision on the input where `deciding`."""

    def __init__(self, *, deciding: bool = False) -> None:
        super().__init__()
        self.deciding = deciding
        torch.manual_seed(5)
        self.layers = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1))
        for part in (self.layers[1].weight, self.layers[1].bias, self.layers[1].running_mean):
            nn.init.normal_(part)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> Tensor:
        if self.deciding and image.mean() > 1e9:
            return image
        found: Tensor = self.layers(image)
        return found


def test_batch_norms_are_folded_into_the_same_function() -> None:
    network = Normed().eval()
    found = simpler(network, bands=2)
    assert not [module for module in found.modules() if isinstance(module, nn.BatchNorm2d)]
    image = torch.randn(2, 2, 40, 50)
    torch.testing.assert_close(found(image), network(image))


def test_a_network_made_ready_is_the_same_function() -> None:
    torch.manual_seed(0)
    network = create_model(ModelSpec(bands=2, classes=3, options={"decoder_channels": [64, 48, 32, 16, 16]})).eval()
    work = ready(network, torch.device("cpu"), bands=2, compiled=False)
    image = torch.randn(2, 2, 96, 128).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        torch.testing.assert_close(work(image), network(image), rtol=1e-4, atol=1e-4)


def test_a_network_that_decides_by_its_input_runs_as_it_is() -> None:
    network = Normed(deciding=True).eval()
    assert simpler(network, bands=2) is network


def test_a_pickled_predictor_gives_the_same_bits() -> None:
    used = predictor(Normed(), batch_tiles=3, turns="flips", precision="fp32")
    again = pickle.loads(pickle.dumps(used))  # noqa: S301
    pixels, valid = tiles(2)
    assert (again.batch_tiles, again.turns, again.precision) == (3, "flips", "fp32")
    found, wanted = (item.scores(pixels, valid, model_shape=(32, 32)).values for item in (again, used))
    np.testing.assert_array_equal(found, wanted)


def test_bf16_maps_like_fp32() -> None:
    torch.manual_seed(0)
    network = create_model(ModelSpec(bands=2, classes=2, options={"decoder_channels": [64, 32, 16, 16, 8]}))
    # Networks as they come out of training are sure of most pixels; one made at random is sure of none.
    nn.init.normal_(network.segmentation_head[0].weight, std=3.0)
    pixels, valid = tiles(2, side=128)
    maps = [
        probabilities(predictor(network, precision=name), pixels, valid, model_shape=(128, 128)).argmax(axis=1)
        for name in ("fp32", "bf16")
    ]
    assert (maps[0] == maps[1]).mean() > 0.95


@pytest.mark.parametrize(("turns", "count"), [("none", 1), ("flips", 4), ("all", 8)])
def test_test_time_augmentation_is_the_mean_over_turns(turns: str, count: int) -> None:
    pixels, valid = tiles(1, side=64)
    pixels, valid = [pixels[0][:, :, :32]], [np.ones((64, 32), np.bool_)]
    used = predictor(Normed(), turns=turns)
    found = probabilities(used, pixels, valid, model_shape=(64, 32))
    plain, wanted = predictor(Normed()), []
    for rows, cols, swap in TURNS[turns]:
        planes = pixels[0][:, :: -1 if rows else 1, :: -1 if cols else 1]
        planes = planes.swapaxes(1, 2) if swap else planes
        seen = probabilities(plain, [np.ascontiguousarray(planes)], [np.ones(planes.shape[1:], np.bool_)],
                             model_shape=planes.shape[1:])[0]  # fmt: skip
        seen = seen.swapaxes(1, 2) if swap else seen
        wanted.append(seen[:, :: -1 if rows else 1, :: -1 if cols else 1])
    assert len(wanted) == len({(part.tobytes()) for part in wanted}) == count
    np.testing.assert_allclose(found[0], np.mean(wanted, axis=0), atol=1e-6)


def test_unknown_turns_are_refused() -> None:
    with pytest.raises(InputError, match="known are none, flips, all"):
        predictor(Spy(), turns="twice")


def test_fp16_is_for_gpus() -> None:
    with pytest.raises(InputError, match="fp16 is for GPUs"):
        find_precision("fp16", CPU)


class Rough(nn.Module):
    """A network whose classes change where arithmetic has few bits, by as much as `gain` says."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.layer = nn.Conv2d(2, 2, 1)
        nn.init.constant_(self.layer.weight, 1.0)
        with torch.no_grad():
            self.layer.weight[1] = torch.tensor([[[1.0]], [[1.0 + gain]]])
            self.layer.bias[:] = 0

    def forward(self, image: Tensor) -> Tensor:
        found: Tensor = self.layer(image)
        return found


@pytest.mark.skipif(platform.machine() not in network.X86, reason="there torch itself has Winograd's filtering")
@pytest.mark.parametrize(
    ("decoder", "encoder", "tiles_of_bf16", "wanted"),
    [("unet", "resnet18", False, "fp32"), ("unet", "resnet18", True, "bf16"), ("segformer", "mit_b0", False, "bf16")],
)  # fmt: skip
def test_auto_is_fp32_where_bf16_gains_less_than_winograd(
    monkeypatch: pytest.MonkeyPatch, decoder: str, encoder: str, tiles_of_bf16: bool, wanted: str
) -> None:
    monkeypatch.setattr(devices, "has_bf16", lambda _: True)
    monkeypatch.setattr(network, "has_bf16_tiles", lambda _: tiles_of_bf16)
    monkeypatch.setattr(network, "target_has", lambda _: True)
    model = create_model(ModelSpec(bands=2, classes=2, decoder=decoder, encoder=encoder)).eval()
    used = predictor(model)
    assert used.precision == wanted
    assert predictor(model, precision="bf16").precision == "bf16"
    assert pickle.loads(pickle.dumps(used)).precision == wanted  # noqa: S301


def test_attention_that_calls_none_of_its_layers_leaves_auto_at_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "has_bf16_tiles", lambda _: False)
    monkeypatch.setattr(network, "target_has", lambda _: True)
    layers = [nn.Conv2d(2, 16, 1), nn.Conv2d(16, 16, 3, padding=1)]
    assert network.outruns_bf16(nn.Sequential(*layers), CPU, bands=2, compiled=False) == (
        platform.machine() in network.X86
    )
    layers[0].beside = nn.MultiheadAttention(16, 2)
    assert not network.outruns_bf16(nn.Sequential(*layers), CPU, bands=2, compiled=False)


@pytest.mark.parametrize(("gain", "wanted"), [(1e-4, "fp32"), (9.0, "bf16")])
def test_bf16_is_given_up_where_it_changes_classes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, gain: float, wanted: str
) -> None:
    caplog.set_level("INFO", "geoseg")
    monkeypatch.setattr(devices, "has_bf16", lambda _: True)
    used = predictor(Rough(gain))
    assert used.precision == "bf16"
    pixels, valid = tiles(2)
    used.check(list(pixels), list(valid), counted=list(valid), model_shape=(32, 32))
    assert used.precision == wanted
    assert "gives the class of fp32 at" in caplog.text
    assert pickle.loads(pickle.dumps(used)).precision == wanted  # noqa: S301 - in a worker too


def test_arithmetic_that_was_asked_for_is_kept() -> None:
    used = predictor(Rough(1e-4), precision="bf16")
    pixels, valid = tiles(1)
    used.check(list(pixels), list(valid), counted=list(valid), model_shape=(32, 32))
    assert used.precision == "bf16"
    used.check([], [], counted=[], model_shape=(32, 32))
    assert used.precision == "bf16"


def test_only_pixels_that_get_a_class_are_held_against_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "has_bf16", lambda _: True)
    (pixels,), (valid,) = tiles(1)
    pixels[:, 16:] = 0  # there both classes have one score in any arithmetic
    for rows, wanted in ((slice(16, 32), "bf16"), (slice(0, 16), "fp32")):
        used, counted = predictor(Rough(1e-4)), np.zeros_like(valid)
        counted[rows] = True
        used.check([pixels], [valid], counted=[counted], model_shape=(32, 32))
        assert used.precision == wanted


def test_without_pixels_to_look_at_fp32_is_taken_and_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "geoseg")
    monkeypatch.setattr(devices, "has_bf16", lambda _: True)
    used = predictor(Rough(9.0))
    used.check([], [], counted=[], model_shape=(32, 32))
    assert used.precision == "fp32"
    assert "too few pixels were found to hold bf16 against fp32; fp32 is used" in caplog.text


def test_memory_that_runs_out_on_a_cpu_is_one_line() -> None:
    def hungry(image: Tensor) -> Tensor:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried")

    with pytest.raises(InputError, match="cpu has too little memory for one tile"):
        predictor(hungry).scores(*tiles(1), model_shape=(32, 32))

    def broken(image: Tensor) -> Tensor:
        raise RuntimeError("another trouble")

    with pytest.raises(RuntimeError, match="another trouble"):
        predictor(broken).scores(*tiles(1), model_shape=(32, 32))


def test_a_network_that_cannot_be_compiled_is_one_line() -> None:
    def stubborn(image: Tensor) -> Tensor:
        raise TorchDynamoException("no compiler found\nand more")

    with pytest.raises(InputError, match=r"cannot be compiled here: no compiler found; leave --compile out"):
        predictor(stubborn).scores(*tiles(1), model_shape=(32, 32))
