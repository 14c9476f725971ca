"""The running sum is the sum, in memory and on a device, and what is read off it is what numpy says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from geoseg.infer import kernels
from geoseg.infer.canvas import EACH_SCENE, HOST, NO_NUMBER, Arrays, HostArrays
from geoseg.infer.torch_arrays import TorchArrays

TORCH = TorchArrays(torch.device("cpu"))
BOTH = pytest.mark.parametrize("arrays", [HOST, TORCH], ids=["host", "torch"])
ALL = ("class", "confidence", "entropy", "margin", "second", "probabilities")


def tile_of(arrays: Arrays, planes: NDArray[Any]) -> Any:
    """A tile `(class, row, col)` in the library's layout."""
    planes = planes.astype(np.float32)
    return np.ascontiguousarray(np.moveaxis(planes, 0, 2)) if isinstance(arrays, HostArrays) else torch.tensor(planes)


def ones(arrays: Arrays, planes: NDArray[Any]) -> tuple[Any, Any]:
    return tuple(arrays.to_device(np.ones(size, np.float32)) for size in planes.shape[1:])  # type: ignore[return-value]


def summed(arrays: Arrays, planes: NDArray[Any], *, logits: bool = False) -> Any:
    """Sums that hold one tile of weight one."""
    sums = arrays.zeros(*planes.shape)
    arrays.add(sums, tile_of(arrays, planes), ones(arrays, planes), col_off=0, logits=logits)
    return sums


def measured(arrays: Arrays, planes: NDArray[Any], *layers: str) -> dict[str, NDArray[Any]]:
    return arrays.measure(arrays.top(summed(arrays, planes), planes.shape[1]), layers)


def shares(classes: int, rows: int, cols: int, seed: int = 0) -> NDArray[np.float32]:
    scores = np.random.default_rng(seed).gamma(0.4, size=(classes, rows, cols))
    return (scores / scores.sum(axis=0)).astype(np.float32)


@BOTH
def test_the_best_class_and_its_percentage(arrays: Arrays) -> None:
    scores = np.array([[[0.2, 0.5, 0.0, 1.0]], [[0.7, 0.5, 0.0, 0.0]], [[0.1, 0.0, 0.0, 0.0]]])
    found = measured(arrays, scores, "class", "confidence")
    assert found["class"].tolist() == [[[1, 0, 0, 0]]]  # the lowest wins a tie
    assert found["confidence"].tolist() == [[[70, 50, 0, 100]]]
    assert (found["class"].dtype, found["confidence"].dtype) == (np.uint8, np.uint8)


@BOTH
def test_the_lowest_class_wins_a_tie_wherever_it_lies(arrays: Arrays) -> None:
    scores = np.random.default_rng(0).integers(0, 3, (12, 130, 64)) / 4
    np.testing.assert_array_equal(measured(arrays, scores, "class")["class"][0], scores.argmax(axis=0))


@BOTH
@pytest.mark.parametrize("classes", [1, 2, 7])
def test_all_layers_are_what_numpy_says(arrays: Arrays, classes: int) -> None:
    scores = shares(classes, 70, 40)
    found = measured(arrays, scores, *ALL, "level")
    ordered = np.sort(scores, axis=0)[::-1]
    low = ordered[1] if classes > 1 else 0 * ordered[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.where(scores > 0, scores * np.log(scores), 0).sum(axis=0) / np.log(max(classes, 2))
    np.testing.assert_allclose(found["confidence"][0], 100 * ordered[0], atol=0.501)
    np.testing.assert_allclose(found["level"][0], 255 * ordered[0], atol=0.501)
    np.testing.assert_allclose(found["margin"][0], 100 * (ordered[0] - low), atol=0.501)
    np.testing.assert_allclose(found["entropy"][0], 100 * entropy, atol=0.501)
    np.testing.assert_allclose(found["probabilities"], 100 * scores, atol=0.501)
    second = np.argsort(-scores, axis=0, kind="stable")[min(1, classes - 1)]
    np.testing.assert_array_equal(found["second"][0], second)
    assert found["probabilities"].shape == scores.shape


@BOTH
@pytest.mark.parametrize("channel", [0, 1])
def test_nan_is_marked(arrays: Arrays, channel: int) -> None:
    scores = np.full((2, 1, 2), 0.5)
    scores[channel, 0, 1] = np.nan
    assert measured(arrays, scores, "confidence")["confidence"].tolist() == [[[50, NO_NUMBER]]]
    logits = summed(arrays, scores, logits=True)
    assert arrays.measure(arrays.top(logits, 1), ["confidence"])["confidence"].tolist() == [[[50, NO_NUMBER]]]


@BOTH
def test_more_than_256_classes_have_wider_channels(arrays: Arrays) -> None:
    found = measured(arrays, (np.arange(300) == 299)[:, None, None], "class", "second")
    assert found["class"].tolist() == [[[299]]]
    assert found["second"].dtype == np.uint16


@BOTH
def test_what_lies_outside_the_strip_is_left_out(arrays: Arrays) -> None:
    sums, tile = arrays.zeros(1, 1, 4), np.array([[[0.1, 0.2, 0.3]]])
    for col_off in (-2, 3, 9, -7):
        arrays.add(sums, tile_of(arrays, tile), ones(arrays, tile), col_off=col_off, logits=False)
    assert arrays.measure(arrays.top(sums, 1), ["confidence"])["confidence"].tolist() == [[[30, 0, 0, 10]]]


@BOTH
def test_logits_are_added_as_their_softmax(arrays: Arrays) -> None:
    logits = np.random.default_rng(1).normal(scale=9, size=(11, 130, 50)).astype("f4")
    wide = np.exp(logits.astype(np.float64) - logits.max(axis=0))
    found = np.asarray(summed(arrays, logits, logits=True))
    found = np.moveaxis(found, 2, 0) if isinstance(arrays, HostArrays) else found
    np.testing.assert_allclose(found, wide / wide.sum(axis=0), atol=1e-6)


@example([-87.25])
@given(st.lists(st.floats(-200, 0, width=32), min_size=1, max_size=40))
def test_the_exponential_is_within_two_units_in_the_last_place(values: list[float]) -> None:
    found, power = np.array(values, np.float32), np.empty(len(values), np.int32)
    wanted = np.exp(found.astype(np.float64))
    kernels._exp(found, power, power.view(np.float32))
    normal = wanted >= np.finfo(np.float32).tiny
    assert (np.abs(found - wanted)[normal] <= 2 * np.spacing(wanted.astype(np.float32))[normal]).all()
    assert (found[~normal] < 1e-37).all()


@given(st.integers(0, 2**31), st.integers(1, 9))
def test_torch_and_memory_sum_to_the_same_bits_and_roll_alike(seed: int, stride: int) -> None:
    rng, found = np.random.default_rng(seed), []
    tiles = rng.random((5, 4, 10, 12), dtype=np.float32)
    weights = rng.random((2, 12), dtype=np.float32)
    for arrays in (HOST, TORCH):
        sums, rows = arrays.zeros(4, 10, 15), []
        for number, tile in enumerate(tiles):
            pair = arrays.to_device(weights[0, :10]), arrays.to_device(weights[1])
            arrays.add(sums, tile_of(arrays, tile), pair, col_off=number - 1, logits=False)
            rows.append(np.stack(list(arrays.measure(arrays.top(sums, stride), ["class", "confidence"]).values())))
            arrays.roll(sums, stride)
        found.append(np.concatenate(rows, axis=2))
    np.testing.assert_array_equal(found[0], found[1])


@BOTH
def test_rolling_moves_rows_up_and_empties_the_rest(arrays: Arrays) -> None:
    sums = summed(arrays, np.array([[[0.1], [0.2], [0.3], [0.4]]]))
    for rows, wanted in ((1, [20, 30, 40, 0]), (3, [0, 0, 0, 0])):
        arrays.roll(sums, rows)
        assert arrays.measure(arrays.top(sums, 4), ["confidence"])["confidence"].ravel().tolist() == wanted


@BOTH
@pytest.mark.parametrize("rule", EACH_SCENE)
def test_scenes_become_one_by_the_rule(arrays: Arrays, rule: str) -> None:
    rng = np.random.default_rng(3)
    scenes = [shares(4, 30, 20, seed) for seed in range(3)]
    valid = [rng.random((30, 20)) > 0.4 for _ in scenes]
    single = arrays.combine([arrays.top(summed(arrays, scene), 30) for scene in scenes], valid, rule=rule)
    found = np.asarray(single)
    found = np.moveaxis(found, 2, 0) if isinstance(arrays, HostArrays) else found
    weights = np.array(valid, float)[:, None]
    if rule == "mean":
        wanted = (np.array(scenes) * weights).sum(axis=0) / np.maximum(weights.sum(axis=0), 1)
    else:
        high = np.where(valid, [scene.max(axis=0) for scene in scenes], -1)
        wanted = np.take_along_axis(np.array(scenes), high.argmax(axis=0)[None, None], axis=0)[0]
    seen = np.any(valid, axis=0)
    np.testing.assert_allclose(found[:, seen], wanted[:, seen], atol=1e-6)


@BOTH
@pytest.mark.parametrize("rule", EACH_SCENE)
def test_a_scene_alone_at_a_pixel_keeps_its_bits(arrays: Arrays, rule: str) -> None:
    one, other = shares(5, 8, 9), shares(5, 8, 9, 1)
    everywhere, nowhere = np.ones((8, 9), np.bool_), np.zeros((8, 9), np.bool_)
    tops = [arrays.top(summed(arrays, scene), 8) for scene in (one, other)]
    np.testing.assert_array_equal(
        np.asarray(arrays.combine(tops, [nowhere, everywhere], rule=rule)), np.asarray(tops[1])
    )


@given(st.integers(1, 400), st.integers(1, 5))
def test_rows_are_covered_once_in_threads(rows: int, cols: int) -> None:
    seen = np.zeros((rows, cols), int)

    def work(part: slice) -> None:
        seen[part] += 1

    kernels.in_rows(rows, work)
    assert (seen == 1).all()


@pytest.mark.parametrize("text", ["3", "2,1"])
def test_the_environment_limits_the_threads(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert kernels.thread_count() == int(text[0])
    monkeypatch.setenv("OMP_NUM_THREADS", "no number")
    assert kernels.thread_count() >= 1
