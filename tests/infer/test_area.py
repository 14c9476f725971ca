"""Only the tiles that touch an area are predicted, what is outside is nodata, and inside nothing changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from geoseg.infer.blocks import run_blocks
from geoseg.infer.layers import NO_PERCENT, chosen_layers
from geoseg.infer.scale import lattice_for
from geoseg.infer.task import SceneTask
from geoseg.io.regions import Area, open_area
from geoseg.legend import Legend

LEGEND = Legend.from_dict({3: "water", 7: "forest", 12: "field"})
EVERY_LAYER = chosen_layers(["entropy", "margin", "second", "probabilities"])
ORIGIN, PIXEL_M = (500_000.0, 5_000_000.0), 10.0
unhurried = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


def task_of(source: Any, predictor: Any, *, area: Area | None = None) -> SceneTask:
    lattice = lattice_for(source.geobox.shape, tile_px=64, overlap_px=16, scale=(1.0, 1.0))
    return SceneTask(
        source, predictor, LEGEND, lattice.tiling, lattice.model_shape, "hann", layers=EVERY_LAYER, area=area
    )


def mapped(task: SceneTask, cells: tuple[int, int]) -> dict[str, NDArray[Any]]:
    shape = task.source.geobox.shape
    out = {layer.name: np.zeros((len(layer.bands(LEGEND)), *shape), np.uint8) for layer in task.layers}
    for item in run_blocks(task, task.tiling.blocks(cells=cells)):
        for name, pixels in item.layers.items():
            out[name][:, *item.block.window.slices] = pixels
    return out


def triangle(corners: list[tuple[float, float]]) -> dict[str, Any]:
    """A triangle with corners in pixels (col, row), as GeoJSON in the scene's CRS."""
    ring = [[ORIGIN[0] + col * PIXEL_M, ORIGIN[1] - row * PIXEL_M] for col, row in [*corners, corners[0]]]
    return {"type": "Polygon", "coordinates": [ring], "crs": "EPSG:32633"}


@unhurried
@given(
    corners=st.lists(st.tuples(st.floats(0, 230), st.floats(0, 180)), min_size=3, max_size=3, unique=True),
    cells=st.tuples(st.integers(1, 5), st.integers(1, 5)),
)
def test_inside_an_area_the_map_is_the_whole_scenes(
    scene: Callable[..., Any], positions: Callable[..., Any], *, corners: Any, cells: tuple[int, int]
) -> None:
    (c0, r0), (c1, r1), (c2, r2) = corners
    if abs((c1 - c0) * (r2 - r0) - (c2 - c0) * (r1 - r0)) < 500:
        return  # a sliver may hold no pixel's centre
    valid = np.random.default_rng(0).random((180, 230)) > 0.2
    source = scene(180, 230, valid=valid)
    area = open_area(triangle(corners), source.geobox)
    inside = area.mask(source.geobox)
    whole, found = mapped(task_of(source, positions()), (9, 9)), mapped(task_of(source, positions(), area=area), cells)
    for layer in EVERY_LAYER:
        np.testing.assert_array_equal(found[layer.name][:, inside], whole[layer.name][:, inside])
        assert (found[layer.name][:, ~inside] == layer.nodata(LEGEND)).all()


def test_only_tiles_that_touch_the_area_are_predicted_and_read(
    scene: Callable[..., Any], positions: Callable[..., Any]
) -> None:
    source, predictor = scene(1000, 1000), positions()
    area = open_area({"rows": [500, 510], "cols": [500, 510]}, source.geobox)
    task = task_of(source, predictor, area=area)
    found = mapped(task, (3, 99))
    touching = [
        cell for cell in task.tiling.touching(task.tiling.scene)
        if task.tiling.tile(*cell).intersect(area.window(source.geobox)).rows
        and task.tiling.tile(*cell).intersect(area.window(source.geobox)).cols
    ]  # fmt: skip
    assert 1 <= predictor.tiles == len(touching) <= 4
    assert sum(rows * cols for rows, cols in source.reads) < 250 * 250
    assert (found["confidence"][0, 500:510, 500:510] != NO_PERCENT).all()
    assert (found["class"][0] != LEGEND.ignore).sum() == 100


@pytest.mark.parametrize(
    "spec", [{"rows": [10, 40], "cols": [5, 60]}, {"bbox": [500_055, 4_999_600, 500_605, 4_999_900]}]
)
def test_an_area_is_a_value(scene: Callable[..., Any], spec: dict[str, Any]) -> None:
    source = scene(100, 100)
    one, other = open_area(spec, source.geobox), open_area(dict(spec), source.geobox)
    assert one.digest == other.digest
    assert one.digest != open_area({"rows": [11, 40], "cols": [5, 60]}, source.geobox).digest
    window, mask = one.window(source.geobox), one.mask(source.geobox)
    outside = np.ones((100, 100), np.bool_)
    outside[window.slices] = False
    assert mask.any()
    assert not mask[outside].any()
