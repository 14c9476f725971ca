"""An ONNX network sees and gives what its torch network does, without torch."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import RuntimeException
from torch import nn
from torch.nn import functional

from geoseg.errors import InputError, MissingInputError, ModelFileError
from geoseg.infer import bilinear
from geoseg.infer import onnx as running
from geoseg.infer.canvas import HOST
from geoseg.infer.onnx import OnnxModel, OnnxPredictor, onnx_digest, softmax
from geoseg.infer.predictor import TorchPredictor
from geoseg.legend import Legend
from geoseg.models import onnx_session
from geoseg.models.card import BandInfo, ModelCard
from geoseg.models.onnx import export_onnx
from geoseg.models.spec import ModelSpec

CARD = ModelCard(
    name="small", spec=ModelSpec(decoder="pixel", bands=2, classes=3), gsd_m=(10.0, 10.0), overlap_px=24,
    bands=(BandInfo(name="red", mean=100.0, std=40.0), BandInfo(name="nir", mean=-3.0, std=250.0)),
    legend=Legend.from_dict({1: "water", 2: "forest", 5: "crop"}),
)  # fmt: skip


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """Sees three pixels each way, not the same in any direction."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 3, 5, padding=2)
    ).eval()


@pytest.fixture(scope="module")
def path(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(network, CARD, tmp_path_factory.mktemp("onnx") / "small.onnx")


@pytest.fixture
def predictor(path: Path) -> Callable[..., OnnxPredictor]:
    return lambda card=CARD, **options: OnnxPredictor.from_card(path, card, device="cpu", **options)


def tiles(count: int, shape: tuple[int, int], *, dtype: str = "uint16") -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Tiles with holes of nodata."""
    rng = np.random.default_rng(0)
    valid = rng.random((count, *shape)) > 0.2
    valid[:, : shape[0] // 2, : shape[1] // 3] = False
    return rng.integers(0, 120, (count, 2, *shape)).astype(dtype), valid


def of_torch(
    network: nn.Module, pixels: NDArray[Any], valid: NDArray[np.bool_], shape: tuple[int, int], **options: Any
) -> NDArray[np.float32]:
    """Class probabilities `(tile, class, row, col)` by the predictor of torch."""
    used = TorchPredictor.from_card(network, CARD, device="cpu", precision="fp32", **options)
    found = used.scores(list(pixels), list(valid), model_shape=shape)
    values = torch.from_numpy(np.ascontiguousarray(found.values)).permute(0, 3, 1, 2)
    return (values.softmax(dim=1) if found.logits else values).numpy()


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
def test_probabilities_are_those_of_torch(predictor: Any, network: nn.Module, dtype: str) -> None:
    pixels, valid = tiles(2, (64, 32), dtype=dtype)
    found = predictor().probabilities(pixels, valid, model_shape=(64, 32))
    assert (found.dtype, found.shape) == (np.float32, (2, 3, 64, 32))
    np.testing.assert_allclose(found, of_torch(network, pixels, valid, (64, 32)), atol=2e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "model_shape"),
    [((64, 64), (32, 32)), ((40, 60), (96, 128)), ((60, 45), (32, 96)), ((100, 32), (32, 32)), ((7, 500), (32, 32))],
)
def test_tiles_are_resampled_for_the_network_and_back_as_torch_does(
    predictor: Any, network: nn.Module, shape: tuple[int, int], model_shape: tuple[int, int]
) -> None:
    pixels, valid = tiles(3, shape)
    found = predictor().probabilities(pixels, valid, model_shape=model_shape)
    assert found.shape == (3, 3, *shape)
    np.testing.assert_allclose(found, of_torch(network, pixels, valid, model_shape), atol=1e-5)


@pytest.mark.parametrize("turns", ["flips", "all"])
def test_turns_are_those_of_torch(predictor: Any, network: nn.Module, turns: str) -> None:
    pixels, valid = tiles(2, (40, 60))
    found = predictor(turns=turns).probabilities(pixels, valid, model_shape=(32, 64))
    np.testing.assert_allclose(found, of_torch(network, pixels, valid, (32, 64), turns=turns), atol=1e-5)
    assert np.abs(found - predictor().probabilities(pixels, valid, model_shape=(32, 64))).max() > 1e-3


def test_scores_are_logits_in_the_order_of_the_canvas(predictor: Any) -> None:
    pixels, valid = tiles(2, (32, 64))
    used = predictor()
    found = used.scores(list(pixels), list(valid), model_shape=(32, 64))
    assert found.logits
    assert (found.values.shape, found.values.flags.c_contiguous) == ((2, 32, 64, 3), True)
    assert used.arrays is HOST
    sums, one = used.arrays.zeros(3, 32, 64), (np.ones(32, np.float32), np.ones(64, np.float32))
    used.arrays.add(sums, found.values[1], one, col_off=0, logits=True)
    wanted = used.probabilities(pixels, valid, model_shape=(32, 64))[1]
    np.testing.assert_allclose(sums.transpose(2, 0, 1), wanted, atol=1e-6)


def test_what_lies_under_an_invalid_pixel_does_not_matter(predictor: Any) -> None:
    pixels, valid = tiles(1, (50, 32), dtype="float32")
    wanted = predictor().probabilities(pixels, valid, model_shape=(32, 32))
    pixels[:, :, ~valid[0]] = np.nan
    np.testing.assert_array_equal(predictor().probabilities(pixels, valid, model_shape=(32, 32)), wanted)


def test_nan_in_a_valid_pixel_stays_where_it_is_seen(predictor: Any) -> None:
    pixels, valid = tiles(1, (64, 64), dtype="float32")
    valid[:] = True
    pixels[0, 0, 32, 32] = np.nan
    found = predictor().probabilities(pixels, valid, model_shape=(32, 32))
    assert np.isnan(found[0, :, 32, 32]).all()
    assert np.isfinite(found[0, :, :20, :20]).all()


# Planes of one channel and one column torch takes for another layout, and repeats their first row.
@given(st.tuples(*[st.integers(2, 90)] * 4))
def test_resizing_is_that_of_torch(sizes: tuple[int, int, int, int]) -> None:
    rows, cols, *shape = sizes
    planes = np.random.default_rng(rows * cols).standard_normal((2, 3, rows, cols)).astype(np.float32)
    shrinks = rows > shape[0] or cols > shape[1]
    wanted = functional.interpolate(
        torch.from_numpy(planes), size=shape, mode="bilinear", antialias=shrinks, align_corners=False
    )
    found = bilinear.resize(planes, (shape[0], shape[1]))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-4)


@pytest.mark.parametrize("shape", [(1500, 2048), (2500, 777), (2048, 1999)])
def test_resizing_a_large_plane_is_that_of_torch(shape: tuple[int, int]) -> None:
    planes = np.random.default_rng(0).standard_normal((1, 1, 2001, 1234)).astype(np.float32)
    shrinks = shape[0] < 2001 or shape[1] < 1234
    wanted = functional.interpolate(torch.from_numpy(planes), size=shape, mode="bilinear", antialias=shrinks)
    np.testing.assert_allclose(bilinear.resize(planes, shape), wanted.numpy(), atol=1e-5)


def test_resizing_does_nothing_at_the_same_size() -> None:
    planes = np.ones((1, 2, 32, 48), np.float32)
    assert bilinear.resize(planes, (32, 48)) is planes


def test_the_softmax_of_large_logits_is_finite() -> None:
    logits = np.array([3e38, -3e38, 3e38], np.float32).reshape(1, 3, 1, 1)
    np.testing.assert_array_equal(softmax(logits).ravel(), [0.5, 0, 0.5])
    assert np.isnan(softmax(np.full((1, 2, 1, 1), np.inf, np.float32))).all()


def test_no_torch_is_needed(predictor: Any, path: Path, tmp_path: Path) -> None:
    pixels, valid = tiles(2, (50, 70))
    np.savez(tmp_path / "in.npz", pixels=pixels, valid=valid)
    code = f"""
import sys
sys.modules["torch"] = None
import numpy as np
from pathlib import Path
from geoseg.infer.onnx import OnnxModel, OnnxPredictor
model, given = OnnxModel.load(Path({str(path)!r})), np.load({str(tmp_path / "in.npz")!r})
used = OnnxPredictor.from_card(model.path, model.card, device="cpu")
found = used.probabilities(given["pixels"], given["valid"], model_shape=(32, 96))
np.save({str(tmp_path / "out.npy")!r}, found)
loaded = {{name for name, module in sys.modules.items() if module is not None}}
print(loaded & {{"torch", "onnx", "onnxscript", "segmentation_models_pytorch", "timm"}})
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("set()\n", "")
    wanted = predictor().probabilities(pixels, valid, model_shape=(32, 96))
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), wanted, atol=1e-6)


def test_a_predictor_travels_with_its_file(path: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.onnx"
    own.write_bytes(path.read_bytes())
    before = OnnxPredictor.from_card(own, CARD, batch=3, device="cpu", threads=1)
    assert before.model_bytes == path.stat().st_size
    sent = pickle.dumps(before)
    own.unlink()
    after = pickle.loads(pickle.dumps(pickle.loads(sent)))  # noqa: S301
    pixels, valid = tiles(1, (32, 32))
    assert (after.classes, after.batch_tiles, after.device) == (3, 3, "cpu")
    assert after.model_bytes == 2 * path.stat().st_size
    np.testing.assert_array_equal(
        after.probabilities(pixels, valid, model_shape=(32, 32)),
        before.probabilities(pixels, valid, model_shape=(32, 32)),
    )


class Small:
    """A session whose memory holds `most` tiles."""

    def __init__(self, session: Any, most: int) -> None:
        self.session, self.most = session, most
        self.get_inputs = session.get_inputs

    def run(self, names: None, feed: dict[str, NDArray[np.float32]]) -> Any:
        if len(feed["scene"]) > self.most:
            raise RuntimeException("BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer")
        return self.session.run(names, feed)


def test_out_of_memory_halves_the_batch_and_goes_on(predictor: Any, caplog: pytest.LogCaptureFixture) -> None:
    pixels, valid = tiles(5, (32, 32))
    used = predictor(batch=5)
    wanted = used.probabilities(pixels, valid, model_shape=(32, 32))
    used._session = Small(used._session, 1)
    np.testing.assert_allclose(used.probabilities(pixels, valid, model_shape=(32, 32)), wanted, atol=1e-6)
    assert used.batch_tiles == 1
    assert "out of memory; going on" in caplog.text
    used._session.most = 0
    with pytest.raises(InputError, match="cpu has too little memory for one tile of 32 x 32 pixels"):
        used.probabilities(pixels, valid, model_shape=(32, 32))


def test_the_batch_follows_the_tiles_the_scene_and_the_memory(predictor: Any) -> None:
    used = predictor()
    assert used.fit_batch(model_shape=(64, 64), tiles=1000, memory_bytes=10**12) > 0
    assert used.batch_tiles == running.BATCH_PX["cpu"] // 64**2
    used.fit_batch(model_shape=(64, 64), tiles=7, memory_bytes=10**12)
    assert used.batch_tiles == 7
    used.fit_batch(model_shape=(64, 64), tiles=7, memory_bytes=10**12, search=False)
    assert used.batch_tiles == 7
    used.fit_batch(model_shape=(64, 64), tiles=7, memory_bytes=0)
    assert used.batch_tiles == 1
    with pytest.raises(InputError, match="batch of 0"):
        predictor(batch=0)


def test_an_output_that_does_not_fit_is_an_error(predictor: Any, path: Path) -> None:
    pixels, valid = tiles(1, (32, 32))
    other = replace(CARD, legend=Legend.from_dict({1: "a", 2: "b"}), spec=replace(CARD.spec, classes=2))
    with pytest.raises(ModelFileError, match=r"gives \(3, 32, 32\).*2 classes"):
        predictor(other).probabilities(pixels, valid, model_shape=(32, 32))
    narrow = OnnxPredictor(path, mean=(0.0,), std=(1.0,), classes=3, device="cpu")
    with pytest.raises(ModelFileError, match=r"refuses an image of \(1, 1, 32, 32\)") as caught:
        narrow.probabilities(pixels[:, :1], valid, model_shape=(32, 32))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "gpu"}, "device 'gpu' is unknown; known are auto, cpu"),
        ({"device": "cpu:1"}, "device 'cpu:1' is unknown"),
        ({"device": "cuda:x"}, "device 'cuda:x' is unknown"),
        ({"device": "cuda"}, "device 'cuda' needs an onnxruntime built for CUDA.*--device cpu"),
        ({"threads": 0}, "threads of 0"),
        ({"turns": "twice"}, "tta 'twice' is unknown; known are none, flips, all"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    path: Path, options: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(InputError, match=words):
        OnnxPredictor.from_card(path, CARD, **options)


def test_a_gpu_is_taken_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def session(model: Any, options: Any, *, providers: Any) -> Any:
        asked.append(providers)
        return SimpleNamespace(get_providers=lambda: [name for name, _ in providers])

    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: [onnx_session.CUDA, onnx_session.CPU])
    monkeypatch.setattr("onnxruntime.InferenceSession", session)
    monkeypatch.setattr("onnxruntime.preload_dlls", lambda: None)
    for device, place, number in (("auto", "cuda", 0), ("cuda", "cuda", 0), ("cuda:1", "cuda:1", 1)):
        opened = onnx_session.open_session(b"", device=device)
        assert asked[-1] == [(onnx_session.CUDA, {"device_id": number}), (onnx_session.CPU, {})]
        assert onnx_session.device_of(opened, device=device) == place
    assert onnx_session.device_of(onnx_session.open_session(b"", device="cpu"), device="cpu") == "cpu"
    lost = lambda *_, **__: SimpleNamespace(get_providers=lambda: [onnx_session.CPU])  # noqa: E731
    monkeypatch.setattr("onnxruntime.InferenceSession", lost)
    with pytest.raises(InputError, match="device 'cuda' cannot be used"):
        onnx_session.open_session(b"", device="cuda")
    assert onnx_session.device_of(onnx_session.open_session(b"", device="auto"), device="auto") == "cpu"


def test_without_onnxruntime_one_line_says_what_to_install(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"pip install geoseg\[onnx\]"):
        OnnxPredictor.from_card(path, CARD)


def test_a_network_that_is_damaged_is_one_line(path: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.onnx").write_bytes(path.read_bytes().replace(b"Relu", b"Rolu"))
    with pytest.raises(ModelFileError, match=r"bad\.onnx cannot be loaded by onnxruntime") as caught:
        OnnxPredictor.from_card(tmp_path / "bad.onnx", CARD)
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelFileError, match="cannot be loaded"):
        OnnxPredictor.from_card(tmp_path / "none.onnx", CARD)
    assert capfd.readouterr() == ("", "")


def options(**changes: Any) -> Any:
    return SimpleNamespace(
        **{"precision": "auto", "compiled": False, "batch": 2, "device": "cpu", "tta": "flips"} | changes
    )


def test_a_model_is_its_file_and_its_card(path: Path, tmp_path: Path) -> None:
    model = OnnxModel.load(path)
    assert model.card == CARD
    assert model.digest == onnx_digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    used = model.predictor(options())
    assert (used.batch_tiles, used.turns, used.device, used.precision, used.readers) == (2, "flips", "cpu", "fp32", 1)
    with pytest.raises(MissingInputError):
        OnnxModel.load(tmp_path / "none.onnx")
    with pytest.raises(ModelFileError, match="cannot be read"):
        onnx_digest(tmp_path / "none.onnx")


def test_what_only_torch_can_do_is_refused(path: Path) -> None:
    model = OnnxModel.load(path)
    with pytest.raises(InputError, match="precision bf16 is for .safetensors models"):
        model.predictor(options(precision="bf16"))
    with pytest.raises(InputError, match="--compile is for .safetensors models"):
        model.predictor(options(compiled=True))
    with pytest.raises(InputError, match="--overlap-px auto.*the model's 24"):
        model.measured_overlap(tile_px=512)


def test_tiles_too_small_for_the_graph_are_refused(predictor: Callable[..., OnnxPredictor]) -> None:
    used = predictor(card=replace(CARD, spec=replace(CARD.spec, decoder="pan")))
    pixels, valid = tiles(1, (96, 160))
    with pytest.raises(InputError, match=r"tiles of 128 px or more, given are 96 x 160.*\.safetensors"):
        used.scores(list(pixels), list(valid), model_shape=(96, 160))
