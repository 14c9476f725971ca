"""Blocks that tile the ground, patches traced through windows, what is the same ground."""

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Geod
from scipy import ndimage

from geoseg.data.scene import windows_of
from geoseg.data.splits import SplitOptions, patchwork, split_scenes
from geoseg.data.splits.blocks import ground_blocks
from geoseg.data.splits.ground import Balls, footprint, in_space, scene_keys
from geoseg.data.splits.patchwork import label_patches
from geoseg.data.splits.units import same_ground
from geoseg.errors import InputError
from geoseg.tiling import Window

FUNCTION = [HealthCheck.function_scoped_fixture]


@settings(max_examples=25)
@given(st.floats(-179.9, 179.9), st.floats(-85, 85), st.floats(300, 30_000))
def test_blocks_tile_the_ground_in_squares_of_their_side(west, north, block_m):
    geobox = GeoBox((40, 50), Affine(0.003, 0, west, 0, -0.003, north), "EPSG:4326")
    found = np.array(ground_blocks([geobox], block_m), dtype=object)
    assert shapely.coverage_is_valid(found)
    outline = shapely.clip_by_rect(footprint(geobox), -180, -90, 180, 90)
    assert shapely.union_all(found).buffer(1e-9).covers(outline)
    inside = [shape for shape in found if max(map(abs, shape.bounds)) < 180]
    areas = [
        abs(Geod(ellps="sphere", a=6_371_007.2, b=6_371_007.2).geometry_area_perimeter(shapely.segmentize(s, 1e-3))[0])
        for s in inside[:3]
    ]
    assert all(area == pytest.approx(block_m**2, rel=0.02 + block_m / 6e5) for area in areas)


def test_blocks_are_the_same_for_every_scene_and_across_the_antimeridian():
    fiji = [
        GeoBox((100, 100), Affine(100, 0, x, 0, -100, 8_000_000), epsg)
        for x, epsg in ((810_000, "EPSG:32760"), (180_000, "EPSG:32701"))
    ]
    one, other = (set(map(shapely.to_wkt, ground_blocks([box], 2_000))) for box in fiji)
    both = ground_blocks(fiji, 2_000)
    assert set(map(shapely.to_wkt, both)) == one | other
    assert one & other
    assert shapely.coverage_is_valid(np.array(both, dtype=object))
    west, _, east, _ = shapely.total_bounds(both)
    assert west >= -180
    assert east <= 180


def test_too_many_blocks_are_refused(grid):
    with pytest.raises(InputError, match="block_m of 1 m makes about"):
        ground_blocks([grid(5000, 5000)], 1.0)


@settings(max_examples=25, suppress_health_check=FUNCTION)
@given(seed=st.integers(0, 10**6), share=st.floats(0.05, 0.7), side_px=st.integers(1, 13))
def test_patches_traced_in_windows_are_those_of_the_whole(decoded, strict, monkeypatch, *, seed, share, side_px):
    labels = np.where(np.random.default_rng(seed).random((25, 31)) < share, 1, 255).astype(np.uint8)
    monkeypatch.setattr(patchwork, "windows_of", lambda shape: windows_of(shape, side_px=side_px))
    found = label_patches(strict(decoded(labels)))
    numbers, count = ndimage.label(labels == 1, structure=np.ones((3, 3)))
    assert len(found) == count
    assert all(shape.is_valid for shape in found)
    for shape in found:
        x, y = np.array(shape.representative_point().coords[0])
        mine = numbers == numbers[int(y), int(x)]
        assert shape.area == mine.sum()
        row, col = np.nonzero(mine)
        assert shapely.contains_xy(shape, col + 0.5, row + 0.5).all()


def test_too_many_patches_are_refused_and_auto_takes_blocks(decoded, monkeypatch, sparse):
    monkeypatch.setattr(patchwork, "MOST_PATCHES", 3)
    with pytest.raises(InputError, match="unit: block"):
        split_scenes([decoded(sparse)], classes=3, options=SplitOptions(unit="polygon"))
    plan = split_scenes([decoded(sparse)], classes=3, options=SplitOptions(buffer_m=0))
    assert "blocks" in plan.method


def test_shapes_of_the_same_ground_are_one_and_neighbours_are_not():
    box = shapely.box
    shapes = [box(0, 0, 1, 1), box(1, 0, 2, 1), box(0.1, 0, 1.1, 1), None, box(0.5, 0, 1.5, 1), box(5, 5, 6, 6)]
    groups = same_ground(shapes, list("abcdef")).tolist()
    assert groups[0] == groups[2]
    assert len({groups[0], groups[1], groups[3], groups[5]}) == 4
    assert same_ground([box(0, 0, 1, 1), box(0, 0, 1, 1)], ["a", "a"]).tolist() == [0, 1]
    assert same_ground([], []).tolist() == []


@settings(max_examples=30)
@given(st.floats(-180, 180), st.floats(-89, 89), st.floats(-0.2, 0.2), st.floats(-0.2, 0.2))
def test_straight_lines_in_space_are_as_long_as_the_way_on_the_ground(lon, lat, east, north):
    ends = np.array([lon, lon + east]), np.array([lat, np.clip(lat + north, -90, 90)])
    one, other = in_space(*ends)
    assert np.linalg.norm(one - other) == pytest.approx(
        Geod(ellps="WGS84").inv(ends[0][0], ends[1][0], ends[0][1], ends[1][1])[2], rel=1e-5, abs=1e-6
    )


@given(st.integers(0, 10**6))
def test_nothing_near_is_missed_by_spheres(seed):
    rng = np.random.default_rng(seed)
    boxes = [
        GeoBox((100, 100), Affine(10, 0, 5e5 + x, 0, -10, 5.2e6 + y), "EPSG:32633")
        for x, y in rng.uniform(0, 9000, (6, 2))
    ]
    balls = Balls.around([(box, Window(0, 0, 100, 100)) for box in boxes])
    reach_m = float(rng.uniform(0, 3000))
    extents = [shapely.box(*box.extent.boundingbox.bbox) for box in boxes]
    near = balls.near(balls, reach_m)
    for k, extent in enumerate(extents):
        missed = set(range(6)) - set(near[k].tolist())
        assert all(extent.distance(extents[other]) > reach_m * 0.99 for other in missed)


def test_scenes_of_one_name_are_told_apart(decoded):
    labels = np.zeros((4, 4), np.uint8)
    scenes = [decoded(labels, name=name) for name in ("a", "b", "a", "a")]
    assert scene_keys(scenes) == ["a", "b", "a #2", "a #3"]
