"""Ground sizes against the ellipsoid's formulas, grids at another resolution, outlines."""

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from shapely.geometry import Point, shape

from geoseg.data.grids import grid_at, ground_gsd_m, in_cells, lonlat_mesh, outline_of
from geoseg.data.scene import OUTSIDE, TRAINING, VALIDATION
from geoseg.errors import GridError, InputError

A, F = 6378137.0, 1 / 298.257223563  # WGS 84
E2 = F * (2 - F)


def metres_per_degree(lat: float) -> tuple[float, float]:
    """Along the meridian and along the parallel, from the ellipsoid's radii of curvature."""
    s = np.sin(np.radians(lat)) ** 2
    meridian = A * (1 - E2) / (1 - E2 * s) ** 1.5
    normal = A / np.sqrt(1 - E2 * s)
    return np.radians(meridian), np.radians(normal * np.cos(np.radians(lat)))


def test_a_metric_grid_keeps_its_own_pixel_size(grid):
    assert ground_gsd_m(grid(100, 80)) == (10.0, 10.0)


@given(st.floats(-75, 75))
def test_degrees_become_metres_by_latitude(lat):
    geobox = GeoBox((20, 30), Affine(0.002, 0, 10.0, 0, -0.001, lat + 0.01), "EPSG:4326")
    down, across = ground_gsd_m(geobox)
    along_meridian, along_parallel = metres_per_degree(lat)
    assert down == pytest.approx(along_meridian * 0.001, rel=1e-5)
    assert across == pytest.approx(along_parallel * 0.002, rel=1e-5)


def test_web_mercator_at_60_degrees_is_half_as_large_as_it_says():
    geobox = GeoBox((10, 10), Affine(100, 0, 0, 0, -100, 8_399_738 + 500), "EPSG:3857")
    assert ground_gsd_m(geobox) == pytest.approx((50.1, 50.1), abs=0.3)


def test_feet_become_metres():
    geobox = GeoBox((10, 10), Affine(10, 0, 900_000, 0, -10, 900_000), "EPSG:2249")  # Massachusetts, US survey feet
    assert ground_gsd_m(geobox) == pytest.approx((3.048006, 3.048006), rel=1e-6)


@pytest.mark.parametrize("crs", [None, "EPSG:32633"])
def test_a_place_outside_its_crs_is_refused(crs):
    west = 0 if crs is None else 1e12
    with pytest.raises(GridError, match="CRS"):
        ground_gsd_m(GeoBox((10, 10), Affine(10, 0, west, 0, -10, 0), crs))


@given(st.integers(8, 400), st.integers(8, 400), st.floats(3, 40))
def test_another_resolution_keeps_the_extent(rows, cols, gsd_m):
    before = GeoBox((rows, cols), Affine(10, 0, 5e5, 0, -10, 5.2e6), "EPSG:32633")
    after = grid_at(before, gsd_m)
    assert after.extent.boundingbox.bbox == pytest.approx(before.extent.boundingbox.bbox, abs=1e-6)
    assert abs(after.shape[0] * gsd_m - rows * 10) <= gsd_m / 2 + 1e-6 or after.shape[0] == 1


def test_without_a_resolution_the_grid_stays_the_same_object(grid):
    assert grid_at(grid(5, 5), None) == grid(5, 5)
    assert grid_at(grid(5, 5), 10.0) == grid(5, 5)


def test_a_resolution_of_nothing_is_refused(grid):
    with pytest.raises(InputError, match="above 0"):
        grid_at(grid(5, 5), 0.0)


def test_the_mesh_spans_the_pixel_centres(grid):
    lon, lat = lonlat_mesh(grid(1000, 1000), nodes=3)
    assert lon[0, 0] == pytest.approx(15.0, abs=1e-3)  # the zone's central meridian, 5 m east of it
    assert lat[0, 0] > lat[1, 0] > lat[2, 0]


def test_an_outline_holds_the_labelled_pixels_of_the_part_and_no_others(decoded, grid):
    labels = np.full((64, 64), 255, np.uint8)
    labels[10:20, 30:50] = 1
    scene = decoded(labels, geobox=grid(64, 64))
    scene.part[:, 45:] = VALIDATION
    found = shape(outline_of([scene], TRAINING))
    lon, lat = lonlat_mesh(scene.geobox, nodes=64)
    inside = np.array(
        [[found.contains(Point(*at)) for at in zip(*row, strict=True)] for row in zip(lon, lat, strict=True)]
    )
    expected = np.zeros((64, 64), bool)
    expected[10:20, 30:45] = True
    np.testing.assert_array_equal(inside, expected)


def test_an_outline_of_nothing_is_none(decoded):
    scene = decoded(np.zeros((4, 4), np.uint8))
    assert outline_of([scene], VALIDATION) is None
    assert outline_of([], TRAINING) is None
    unplaced = decoded(np.zeros((4, 4), np.uint8), geobox=GeoBox((4, 4), Affine.identity(), None))
    assert outline_of([unplaced], TRAINING) is None


def test_the_outline_of_a_large_scene_covers_every_pixel_on_coarse_cells(decoded):
    labels = np.full((2100, 1500), 255, np.uint8)
    labels[[3, 1023, 1024, 2099], [1499, 1023, 1024, 0]] = 0
    scene = decoded(labels)
    found = shape(outline_of([scene], TRAINING, longest_px=50))
    x, y = scene.geobox.affine @ (np.array([1499, 1023, 1024, 0]) + 0.5, np.array([3, 1023, 1024, 2099]) + 0.5)
    lon, lat = scene.geobox.crs.transformer_to_crs("EPSG:4326")(x, y)
    assert all(found.contains(Point(*at)) for at in zip(lon, lat, strict=True))
    cell = 42 * 10  # metres: 2100 pixels on 50 cells
    assert found.area < 4 * 1.05 * (cell / 111_000) ** 2 / np.cos(np.radians(47))


def test_many_scenes_have_one_outline_of_few_points(decoded, grid):
    rng = np.random.default_rng(0)
    scenes = []
    for k in range(300):
        labels = np.where(rng.random((64, 64)) < 0.5, 0, 255).astype(np.uint8)
        scenes.append(decoded(labels, geobox=grid(64, 64, west=4e5 + 640 * (k % 20), north=5.2e6 + 640 * (k // 20))))
    scenes[7].part[:] = OUTSIDE
    found = shape(outline_of(scenes, TRAINING))
    assert found.area > 0
    assert sum(len(part.exterior.coords) for part in getattr(found, "geoms", [found])) < 2000


@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(0, 20), st.integers(0, 20))
def test_cells_of_a_window_hold_what_those_of_the_whole_do(seed, step, top, left):
    plane = np.random.default_rng(seed).integers(0, 100, (33, 29))
    window = plane[top : top + 12, left : left + 8]
    here, found = in_cells(window, step, at=(top, left), how=np.maximum)
    alone = np.full_like(plane, -1)
    alone[top : top + 12, left : left + 8] = window
    padded = np.pad(alone, [(0, -33 % step), (0, -29 % step)], constant_values=-1)
    cells = padded.reshape(padded.shape[0] // step, step, padded.shape[1] // step, step).max((1, 3))
    np.testing.assert_array_equal(cells[here], found)


@pytest.mark.parametrize("gsd_m", [0.0, -1.0, float("nan"), float("inf")])
def test_a_resolution_that_is_none_is_refused(grid, gsd_m):
    with pytest.raises(InputError, match=f"gsd_m is {gsd_m}: needed is a finite ground sampling distance above 0 m"):
        grid_at(grid(10, 10), gsd_m)
