"""Scenes that overlap: each is predicted on its own, and a rule makes one map of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from geoseg.infer.blocks import run_blocks
from geoseg.infer.canvas import EACH_SCENE, HOST
from geoseg.infer.layers import chosen_layers
from geoseg.infer.scale import lattice_for
from geoseg.infer.task import Member, SceneTask
from geoseg.infer.torch_arrays import TorchArrays
from geoseg.legend import Legend
from geoseg.tiling import Window

torch = pytest.importorskip("torch")
LEGEND = Legend.from_dict({3: "water", 7: "forest", 12: "field"})
SHAPE = (170, 150)
unhurried = settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])


def task_of(source: Any, predictor: Any, members: tuple[Member, ...] = (), rule: str = "mean") -> SceneTask:
    lattice = lattice_for(source.geobox.shape, tile_px=64, overlap_px=16, scale=(1.0, 1.0))
    return SceneTask(
        source, predictor, LEGEND, lattice.tiling, lattice.model_shape, "hann",
        layers=chosen_layers(["probabilities"]), members=members, rule=rule,
    )  # fmt: skip


def mapped(task: SceneTask, cells: tuple[int, int], *, alone: bool = False) -> dict[str, NDArray[Any]]:
    out = {layer.name: np.full((len(layer.bands(LEGEND)), *SHAPE), 99, np.uint8) for layer in task.layers}
    blocks = task.tiling.blocks(cells=cells)
    for run in [[block] for block in blocks] if alone else [blocks]:
        for item in run_blocks(task, run):
            for name, pixels in item.layers.items():
                out[name][:, *item.block.window.slices] = pixels
    return out


def scenes_of(scene: Callable[..., Any], count: int) -> list[Any]:
    """Scenes of one grid with other pixels each, valid in rectangles that overlap."""
    found = []
    for number in range(count):
        valid = np.zeros(SHAPE, np.bool_)
        valid[30 * number : 30 * number + 90, 20 * number : 20 * number + 70] = True
        source = scene(*SHAPE, valid=valid)
        source.pixels[:] = source.pixels + 1000 * number
        found.append(source)
    return found


def bounds(valid: NDArray[np.bool_]) -> Window:
    rows, cols = (np.flatnonzero(valid.any(axis=axis)) for axis in (1, 0))
    return Window(int(rows[0]), int(cols[0]), int(np.ptp(rows)) + 1, int(np.ptp(cols)) + 1)


@unhurried
@given(
    rule=st.sampled_from(EACH_SCENE), cells=st.tuples(st.integers(1, 4), st.integers(1, 4)), alone=st.booleans(),
    device=st.booleans(),
)  # fmt: skip
def test_the_map_is_the_rule_over_each_scenes_own_map_for_any_cut(
    scene: Callable[..., Any], positions: Callable[..., Any], *, rule: str, cells: tuple[int, int], alone: bool,
    device: bool,
) -> None:  # fmt: skip
    arrays = TorchArrays(torch.device("cpu")) if device else HOST
    sources = scenes_of(scene, 3)
    members = tuple(Member(source, bounds(source.valid)) for source in sources)
    found = mapped(task_of(sources[0], positions(arrays=arrays), members, rule), cells, alone=alone)
    single = [mapped(task_of(source, positions(arrays=arrays)), (9, 9)) for source in sources]
    valid = np.array([source.valid for source in sources])
    percent = np.array([item["probabilities"] for item in single], float)
    if rule == "mean":
        weights = valid[:, None].astype(float)
        wanted = (percent * weights).sum(axis=0) / np.maximum(weights.sum(axis=0), 1)
        np.testing.assert_allclose(
            found["probabilities"][:, valid.any(axis=0)], wanted[:, valid.any(axis=0)], atol=1.01
        )
    else:
        high = np.where(valid, [item["confidence"][0].astype(int) for item in single], -1)
        assert (found["confidence"][0] == high.max(axis=0))[valid.any(axis=0)].all()
    once = valid.sum(axis=0) == 1
    for number, item in enumerate(single):
        for name, pixels in item.items():
            np.testing.assert_array_equal(found[name][:, once & valid[number]], pixels[:, once & valid[number]])
    assert (found["class"][0] != LEGEND.ignore).sum() == valid.any(axis=0).sum()


@pytest.mark.parametrize("rule", EACH_SCENE)
def test_cuts_do_not_change_a_bit(scene: Callable[..., Any], positions: Callable[..., Any], rule: str) -> None:
    sources = scenes_of(scene, 3)
    members = tuple(Member(source, bounds(source.valid)) for source in sources)
    task = task_of(sources[0], positions(), members, rule)
    whole = mapped(task, (9, 9))
    for cells, alone in (((1, 1), True), ((2, 3), False), ((1, 2), True)):
        found = mapped(task, cells, alone=alone)
        for name, pixels in whole.items():
            np.testing.assert_array_equal(found[name], pixels)


def test_scenes_are_read_where_they_lie_only(scene: Callable[..., Any], positions: Callable[..., Any]) -> None:
    sources = scenes_of(scene, 2)
    members = tuple(Member(source, bounds(source.valid)) for source in sources)
    mapped(task_of(sources[0], positions(), members), (9, 9))
    for source in sources:
        assert sum(rows * cols for rows, cols in source.reads) == source.valid.sum()
