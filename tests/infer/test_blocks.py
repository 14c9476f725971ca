"""The map is the same however the scene is cut, and it is the one that brute force gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from geoseg.errors import ModelFileError
from geoseg.infer.blend import BLENDS, window
from geoseg.infer.blocks import run_blocks
from geoseg.infer.layers import NO_PERCENT
from geoseg.infer.rows import plan_steps
from geoseg.infer.scale import lattice_for
from geoseg.infer.task import FinishedBlock, Predictor, SceneTask
from geoseg.legend import Legend
from geoseg.tiling import Tiling

LEGEND = Legend.from_dict({3: "water", 7: "forest", 12: "field"})
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def shapes(largest: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(1, largest), st.integers(1, largest))


def task_of(source: Any, predictor: Predictor, *, tile: int = 64, overlap: int = 16, blend: str = "hann") -> SceneTask:
    lattice = lattice_for(source.geobox.shape, tile_px=tile, overlap_px=overlap, scale=(1.0, 1.0))
    return SceneTask(source, predictor, LEGEND, lattice.tiling, lattice.model_shape, blend)


def stitched(task: SceneTask, finished: list[FinishedBlock]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The whole map and its confidence; a pixel no block made holds 99."""
    shape = task.source.geobox.shape
    classes, confidence = np.full(shape, 99, np.uint8), np.full(shape, 99, np.uint8)
    for item in finished:
        classes[item.block.window.slices] = item.layers["class"][0]
        confidence[item.block.window.slices] = item.layers["confidence"][0]
    return classes, confidence


def mapped(task: SceneTask, cells: tuple[int, int], *, alone: bool = False) -> tuple[NDArray[Any], NDArray[Any]]:
    blocks = task.tiling.blocks(cells=cells)
    runs = [[block] for block in blocks] if alone else [blocks]
    return stitched(task, [item for run in runs for item in run_blocks(task, run)])


def brute_force(task: SceneTask) -> NDArray[np.float64]:
    """Blended probabilities `(class, row, col)`: every tile over the whole scene, sums and weights in float64."""
    tiling, source = task.tiling, task.source
    rows, cols = tiling.rows.size + tiling.rows.tile, tiling.cols.size + tiling.cols.tile
    pixels, valid = np.zeros((2, rows, cols), source.dtype), np.zeros((rows, cols), np.bool_)
    whole = source.read(source.geobox)
    pixels[:, : tiling.rows.size, : tiling.cols.size] = whole.pixels
    valid[: tiling.rows.size, : tiling.cols.size] = whole.valid
    sums, weights = np.zeros((3, rows, cols)), np.zeros((rows, cols))
    weight = np.outer(
        window(tiling.rows.tile, tiling.rows.overlap, blend=task.blend),
        window(tiling.cols.tile, tiling.cols.overlap, blend=task.blend),
    )
    for row, col in tiling.touching(tiling.scene):
        part = tiling.tile(row, col).slices
        if valid[part].any():
            sums[:, *part] += task.predictor.function(pixels[:, *part], valid[part]) * weight  # type: ignore[attr-defined]
            weights[part] += weight
    return (sums / np.maximum(weights, 1e-30))[:, : tiling.rows.size, : tiling.cols.size]


def holes(rows: int, cols: int, seed: int) -> NDArray[np.bool_]:
    rng = np.random.default_rng(seed)
    valid = rng.random((rows, cols)) > 0.1
    top, left = rng.integers(rows), rng.integers(cols)
    valid[top : top + rows // 2 + 1, left : left + cols // 2 + 1] = False
    return valid


@unhurried
@given(
    shape=shapes(200), sizes=st.sampled_from([(32, 0), (32, 16), (64, 8), (64, 32), (96, 40)]),
    blend=st.sampled_from(sorted(BLENDS)), seed=st.integers(0, 99), data=st.data(),
)  # fmt: skip
def test_any_cut_and_batch_give_the_same_bits(
    scene: Callable[..., Any],
    positions: Callable[..., Any],
    *,
    shape: tuple[int, int],
    sizes: tuple[int, int],
    blend: str,
    seed: int,
    data: st.DataObject,
) -> None:
    source = scene(*shape, valid=holes(*shape, seed))
    whole = mapped(task_of(source, positions(), tile=sizes[0], overlap=sizes[1], blend=blend), (99, 99))
    cells = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    predictor = positions(batch_tiles=data.draw(st.integers(1, 5)))
    predictor.lanes = data.draw(st.integers(1, 3))
    task = task_of(source, predictor, tile=sizes[0], overlap=sizes[1], blend=blend)
    for alone in (False, True):
        for found, wanted in zip(mapped(task, cells, alone=alone), whole, strict=True):
            np.testing.assert_array_equal(found, wanted)


@unhurried
@given(
    shape=shapes(150), sizes=st.sampled_from([(32, 0), (32, 8), (64, 20), (64, 32)]),
    blend=st.sampled_from(sorted(BLENDS)), seed=st.integers(0, 99),
)  # fmt: skip
def test_the_map_is_the_one_of_brute_force(
    scene: Callable[..., Any],
    positions: Callable[..., Any],
    *,
    shape: tuple[int, int],
    sizes: tuple[int, int],
    blend: str,
    seed: int,
) -> None:
    source = scene(*shape, valid=holes(*shape, seed))
    task = task_of(source, positions(), tile=sizes[0], overlap=sizes[1], blend=blend)
    classes, confidence = mapped(task, (2, 2))
    scores = brute_force(task)
    ranked = np.sort(scores, axis=0)
    clear = source.valid & (ranked[-1] - ranked[-2] > 1e-5)
    wanted = np.array([3, 7, 12])[scores.argmax(axis=0)]
    np.testing.assert_array_equal(classes[clear], wanted[clear])
    np.testing.assert_allclose(confidence[source.valid], 100 * ranked[-1][source.valid], atol=0.501)
    assert (classes[~source.valid] == LEGEND.ignore).all()
    assert (confidence[~source.valid] == NO_PERCENT).all()
    assert np.isin(classes[source.valid], [3, 7, 12]).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (33, 31), (64, 64), (65, 129)])
def test_odd_shapes_are_covered(
    scene: Callable[..., Any], positions: Callable[..., Any], shape: tuple[int, int]
) -> None:
    classes, confidence = mapped(task_of(scene(*shape), positions()), (1, 3))
    assert np.isin(classes, [3, 7, 12]).all()
    assert confidence.max() <= 100


def one_hot(pixels: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """A class that hangs on the absolute position alone."""
    return ((pixels[0] * 7 + pixels[1] * 3) % 3 == np.arange(3)[:, None, None]).astype(np.float32)


@pytest.mark.parametrize(("tile", "overlap"), [(32, 0), (32, 16), (64, 8), (96, 33), (512, 64)])
@pytest.mark.parametrize("blend", BLENDS)
def test_what_hangs_on_the_position_alone_is_untouched_by_tiles(
    scene: Callable[..., Any], positions: Callable[..., Any], tile: int, overlap: int, blend: str
) -> None:
    source, predictor = scene(171, 143), positions()
    predictor.function = one_hot
    classes, confidence = mapped(task_of(source, predictor, tile=tile, overlap=overlap, blend=blend), (2, 2))
    row, col = np.indices((171, 143))
    np.testing.assert_array_equal(classes, np.array([3, 7, 12])[(row * 7 + col * 3) % 3])
    assert (confidence == 100).all()


def tile_mean(pixels: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """One probability for the whole tile, by its mean column: as different at borders as tiles can be."""
    share = np.full(valid.shape, pixels[1].mean() / 600, np.float32)
    return np.stack([share, 1 - share])


def test_hann_leaves_no_jump_at_the_tiles_borders(scene: Callable[..., Any], positions: Callable[..., Any]) -> None:
    source = scene(64, 600)
    steps = {}
    for blend in ("hann", "flat"):
        predictor = positions(classes=2)
        predictor.function = tile_mean
        tiling = Tiling.over((64, 600), largest_tile_px=128, overlap_px=48)
        task = SceneTask(source, predictor, Legend.from_dict({1: "a", 2: "b"}), tiling, tiling.tile_shape, blend)
        confidence = mapped(task, (1, 9))[1].astype(int)
        steps[blend] = np.abs(np.diff(confidence[20])).max()
    # Neighbouring tiles differ by 13 percent: the ramp spreads that over the overlap, the plain mean makes two jumps.
    assert steps["hann"] <= 1
    assert steps["flat"] >= 6


def test_tiles_without_a_valid_pixel_are_not_predicted(
    scene: Callable[..., Any], positions: Callable[..., Any]
) -> None:
    valid = np.zeros((200, 200), np.bool_)
    valid[70:75, 70:75] = True
    predictor = positions()
    task = task_of(scene(200, 200, valid=valid), predictor)
    classes, _ = mapped(task, (9, 9))
    assert predictor.tiles == 1
    assert ((classes != LEGEND.ignore) == valid).all()


def test_a_scene_without_a_valid_pixel_is_nodata(scene: Callable[..., Any], positions: Callable[..., Any]) -> None:
    predictor = positions()
    classes, confidence = mapped(task_of(scene(90, 70, valid=np.zeros((90, 70), np.bool_)), predictor), (1, 1))
    assert predictor.tiles == 0
    assert (classes == LEGEND.ignore).all()
    assert (confidence == NO_PERCENT).all()


def test_down_a_strip_each_tile_is_predicted_and_each_row_read_once(
    scene: Callable[..., Any], positions: Callable[..., Any]
) -> None:
    source, predictor = scene(400, 120), positions()
    task = task_of(source, predictor)
    mapped(task, (1, 99))
    assert predictor.tiles == task.tiling.count[0] * task.tiling.count[1]
    assert sum(rows for rows, _ in source.reads) == 400


def test_a_block_that_starts_alone_predicts_the_tiles_above_again(
    scene: Callable[..., Any], positions: Callable[..., Any]
) -> None:
    predictor = positions()
    task = task_of(scene(400, 64), predictor)
    mapped(task, (1, 99), alone=True)
    assert predictor.tiles == 2 * task.tiling.count[0] - 1


@given(
    st.tuples(st.integers(1, 900), st.integers(1, 400)), st.integers(0, 32),
    st.tuples(st.integers(1, 5), st.integers(1, 5)), st.data(),
)  # fmt: skip
def test_steps_emit_each_row_of_each_block_once_and_read_without_gaps(
    shape: tuple[int, int], overlap: int, cells: tuple[int, int], data: st.DataObject
) -> None:
    tiling = lattice_for(shape, tile_px=64, overlap_px=overlap, scale=(1.0, 1.0)).tiling
    blocks = [block for block in tiling.blocks(cells=cells) if data.draw(st.booleans())]
    emitted: dict[int, list[int]] = {block.index: [] for block in blocks}
    read_to = 0
    for step in plan_steps(tiling, blocks):
        top = step.tile_row * tiling.rows.stride
        emitted[step.block.index] += range(top, top + step.emit)
        assert step.read[0] == (top if step.fresh else read_to)
        read_to = step.read[1]
        assert read_to == min(top + tiling.rows.tile, shape[0])
        assert step.last == (len(emitted[step.block.index]) == step.block.window.rows)
    for block in blocks:
        assert emitted[block.index] == list(range(block.window.row_off, block.window.row_stop))


def test_nan_from_the_network_is_an_error(scene: Callable[..., Any], positions: Callable[..., Any]) -> None:
    def broken(pixels: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        found = one_hot(pixels, valid)
        found[:, (pixels[0] == 50) & (pixels[1] == 20)] = np.nan
        return found

    predictor = positions()
    predictor.function = broken
    with pytest.raises(ModelFileError, match="gives NaN"):
        mapped(task_of(scene(100, 100), predictor), (1, 1))


def test_nan_under_nodata_does_not_matter(scene: Callable[..., Any], positions: Callable[..., Any]) -> None:
    def broken(pixels: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        return np.where(valid, one_hot(pixels, valid), np.nan).astype(np.float32)

    valid = holes(100, 100, 1)
    predictor = positions()
    predictor.function = broken
    classes, _ = mapped(task_of(scene(100, 100, valid=valid), predictor), (1, 1))
    assert ((classes != LEGEND.ignore) == valid).all()


def test_progress_counts_every_pixel_once(scene: Callable[..., Any], positions: Callable[..., Any]) -> None:
    seen: list[int] = []
    task = task_of(scene(300, 200), positions())
    list(run_blocks(task, task.tiling.blocks(cells=(2, 2)), progress=seen.append))
    assert sum(seen) == 300 * 200


def test_ids_above_255_make_a_wider_map(scene: Callable[..., Any], positions: Callable[..., Any]) -> None:
    legend = Legend.from_dict({1: "a", 300: "b", 4000: "c"})
    task = task_of(scene(50, 50), positions())
    wide = SceneTask(task.source, task.predictor, legend, task.tiling, task.model_shape, "hann")
    (block,) = run_blocks(wide, wide.tiling.blocks(cells=(1, 1)))
    assert block.layers["class"].dtype == np.uint16
    assert set(np.unique(block.layers["class"])) <= {1, 300, 4000}
