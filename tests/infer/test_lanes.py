"""Work side by side comes back in order, and nothing of it stays behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from geoseg.infer import kernels
from geoseg.infer.blocks import run_blocks
from geoseg.infer.lanes import in_lanes, lane_pool
from geoseg.infer.predictor import TorchPredictor
from geoseg.infer.scale import lattice_for
from geoseg.infer.task import SceneTask
from geoseg.legend import Legend
from geoseg.models.build import create_model
from geoseg.models.spec import ModelSpec


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets how many threads torch computes with."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def slowly(value: int, pause_s: float) -> int:
    time.sleep(pause_s)
    return value


def jobs(count: int) -> list[tuple[int, Callable[[], int] | None]]:
    return [(i, None if i % 4 == 3 else partial(slowly, i * i, 0.01 * (count - i) / count)) for i in range(count)]


@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_results_come_in_order_with_their_keys(lanes: int) -> None:
    found = list(in_lanes(jobs(23), lanes=lanes))
    assert found == [(i, None if i % 4 == 3 else i * i) for i in range(23)]


def test_as_many_are_under_way_as_there_are_lanes() -> None:
    lanes, together = 3, threading.Barrier(3, timeout=20)
    assert [key for key, _ in in_lanes([(i, together.wait) for i in range(6)], lanes=lanes)] == list(range(6))


def test_work_is_asked_for_only_as_far_as_lanes_need_it() -> None:
    asked: list[int] = []

    def endless() -> object:
        for i in range(10**9):
            asked.append(i)
            yield i, partial(slowly, i, 0)

    with closing(in_lanes(endless(), lanes=2)) as results:  # type: ignore[arg-type]
        for key, _ in results:
            assert len(asked) <= key + 5
            if key == 20:
                break


def test_an_exception_comes_out_at_its_place_and_the_rest_ends() -> None:
    running: list[int] = []

    def fail(i: int) -> int:
        running.append(i)
        time.sleep(0.01)
        if i == 3:
            raise ValueError("third")
        running.remove(i)
        return i

    found = []
    with pytest.raises(ValueError, match="third"):  # noqa: PT012 - how far it came is what is asked
        for key, _ in in_lanes([(i, partial(fail, i)) for i in range(30)], lanes=2):
            found.append(key)
    assert found == [0, 1, 2]
    assert running == [3]  # nobody is at work any more


def test_each_lane_has_its_share_of_the_cores_and_the_caller_keeps_its_own(threads: Callable[[int], None]) -> None:
    threads(5)
    before, lanes = 5, 2
    shares = [share for _, share in in_lanes([(i, torch.get_num_threads) for i in range(8)], lanes=lanes)]
    assert set(shares) == {2}
    assert torch.get_num_threads() == before
    seen: list[int] = []
    other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert seen == [before]


def test_loops_over_rows_stay_in_their_lane() -> None:
    def bands() -> set[int]:
        seen: set[int] = set()
        kernels.in_rows(10 * kernels.LEAST_ROWS, lambda _: seen.add(threading.get_ident()))
        return seen

    (found,) = [threads for _, threads in in_lanes([(0, bands)], lanes=2)]
    assert found is not None
    assert len(found) == 1


def test_the_threads_are_the_same_at_each_call() -> None:
    assert lane_pool(2) is lane_pool(2)


@pytest.mark.parametrize("shape", [(150, 230), (40, 400)])
def test_a_network_maps_to_the_same_bits_in_any_number_of_lanes(
    scene: Callable[..., Any], legend: Legend, threads: Callable[[int], None], shape: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    network = create_model(
        ModelSpec(bands=2, classes=3, options={"encoder_depth": 3, "decoder_channels": [32, 16, 16]})
    )
    nn.init.normal_(network.segmentation_head[0].weight)
    valid = np.random.default_rng(0).random(shape) > 0.05
    valid[:, 100:190] = False
    lattice = lattice_for(shape, tile_px=64, overlap_px=16, scale=(1.0, 1.0))
    found: dict[int, list[Any]] = {}
    for lanes in (1, 2, 3):
        threads(lanes)
        used = TorchPredictor(network, mean=(70.0, 110.0), std=(40.0, 60.0), classes=3, device="cpu")
        assert used.lanes == lanes
        task = SceneTask(scene(*shape, valid=valid), used, legend, lattice.tiling, lattice.model_shape, "hann")
        found[lanes] = list(run_blocks(task, lattice.tiling.blocks(cells=(1, 2))))
    assert len(np.unique(np.concatenate([block.layers["class"].ravel() for block in found[1]]))) > 2
    for lanes in (2, 3):
        for block, wanted in zip(found[lanes], found[1], strict=True):
            for name, layer in wanted.layers.items():
                np.testing.assert_array_equal(block.layers[name], layer)
