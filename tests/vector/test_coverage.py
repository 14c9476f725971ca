"""Polygons of random maps: exact, valid, a coverage; and of each map that is known to break tracers."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasterio.features import rasterize

from geoseg.vector.coverage import Coverage, trace_arcs
from geoseg.vector.lines.simplify import simplify_arcs
from geoseg.vector.merging import Minimum, merge_regions
from geoseg.vector.regions import Regions, label_regions
from geoseg.vector.rings import build_rings

MAPS = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 3))
_COL, _ROW = np.meshgrid(np.arange(8), np.arange(8))
NESTED = np.maximum(abs(_COL - 3), abs(_ROW - 3))
TRICKY = {
    "one pixel": np.ones((1, 1)),
    "one row": [[1, 2, 2, 1, 0, 3]],
    "one column": [[1], [1], [2], [0], [2]],
    "one class": np.ones((5, 4)),
    "checkerboard": (_COL + _ROW) % 2 + 1,
    "checkerboard with nodata": (_COL + _ROW) % 2,
    "diagonal": np.eye(6) + 1,
    "diagonal in nodata": np.eye(6),
    "islands in islands": NESTED % 2 + 1,
    "islands in nodata": NESTED % 2,
    "hole at a corner": [[1, 1, 1, 1], [1, 2, 1, 1], [1, 1, 2, 1], [1, 1, 1, 1]],
    "nodata holes that touch": [[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1]],
    "hole that touches the outside": [[0, 1, 1], [1, 0, 1], [1, 1, 1]],
    "a region around a corner": [[1, 1, 1], [1, 2, 1], [1, 1, 2]],
    "three at a point": [[1, 1], [2, 3]],
    "four at a point": [[1, 2], [3, 4]],
}


def polygons_of(arcs, count):
    return build_rings(arcs, count=count).to_polygons()


def traced(classes):
    regions, class_of_region = label_regions(classes, classes > 0)
    return regions, trace_arcs(regions), class_of_region


def check_coverage(polygons, valid_pixels):
    assert shapely.is_valid(polygons).all()
    assert not shapely.is_empty(polygons).any()
    assert shapely.coverage_is_valid(polygons)
    assert shapely.is_empty(shapely.coverage_invalid_edges(polygons)).all()
    assert shapely.area(polygons).sum() == pytest.approx(valid_pixels, rel=1e-12)
    assert shapely.is_ccw(shapely.get_exterior_ring(polygons)).sum() == 0  # y runs down here


def burn(polygons, shape):
    if len(polygons) == 0:
        return np.zeros(shape, np.int32)
    return rasterize(zip(polygons, range(1, len(polygons) + 1), strict=True), shape, dtype="int32")


@settings(max_examples=300)
@given(MAPS)
def test_rasterised_polygons_are_the_map(classes):
    regions, arcs, class_of_region = traced(classes)
    polygons = polygons_of(arcs, len(class_of_region) - 1)
    check_coverage(polygons, np.count_nonzero(classes))
    np.testing.assert_array_equal(burn(polygons, classes.shape), regions)


@pytest.mark.parametrize("name", TRICKY)
def test_maps_that_break_tracers(name):
    classes = np.array(TRICKY[name], np.uint8)
    regions, arcs, class_of_region = traced(classes)
    polygons = polygons_of(arcs, len(class_of_region) - 1)
    check_coverage(polygons, np.count_nonzero(classes))
    np.testing.assert_array_equal(burn(polygons, classes.shape), regions)
    simpler = polygons_of(simplify_arcs(arcs, tolerance=2.0), len(class_of_region) - 1)
    check_coverage(simpler, np.count_nonzero(classes))


def test_all_nodata_is_no_polygon():
    _, arcs, class_of_region = traced(np.zeros((4, 5), np.uint8))
    assert len(arcs.left) == 0
    assert len(polygons_of(arcs, len(class_of_region) - 1)) == 0
    assert simplify_arcs(arcs, tolerance=3.0) is arcs


@given(MAPS)
def test_each_boundary_edge_is_traced_once(classes):
    regions, arcs, _ = traced(classes)
    padded = np.pad(regions, 1)
    edges = np.count_nonzero(padded[1:] != padded[:-1]) + np.count_nonzero(padded[:, 1:] != padded[:, :-1])
    inner = np.ones(len(arcs.coords), bool)
    inner[arcs.offsets[:-1]] = False
    steps = np.abs(np.diff(arcs.coords, axis=0, prepend=0)).sum(1)[inner]
    assert steps.sum() == edges
    assert (arcs.left != arcs.right).all()


@given(MAPS)
def test_no_vertex_but_turns_and_junctions(classes):
    _, arcs, _ = traced(classes)
    for begin, end in zip(arcs.offsets[:-1], arcs.offsets[1:], strict=True):
        steps = np.sign(np.diff(arcs.coords[begin:end], axis=0))
        assert (np.abs(np.diff(steps, axis=0)).sum(1) == 2).all()


def merged(classes, min_pixels):
    regions, arcs, class_of_region = traced(classes)
    pixels = np.bincount(regions.ravel(), minlength=len(class_of_region))
    coverage = Coverage(arcs, Regions(class_of_region, pixels, np.arange(len(pixels)) - 1), classes.shape)
    return merge_regions(coverage, areas=pixels * 1.0, minimum=Minimum(min_pixels))[0]


@settings(max_examples=200)
@given(MAPS, st.integers(2, 12))
def test_merged_polygons_are_a_coverage(classes, min_pixels):
    coverage = merged(classes, min_pixels)
    check_coverage(polygons_of(coverage.arcs, coverage.regions.count), np.count_nonzero(classes))


@settings(max_examples=400)
@given(MAPS, st.sampled_from([0.6, 1.1, 2.0, 5.0, 1000.0]))
def test_simplified_polygons_are_a_coverage(classes, min_triangle):
    _, arcs, class_of_region = traced(classes)
    simpler = simplify_arcs(arcs, tolerance=min_triangle**0.5)
    check_coverage(polygons_of(simpler, len(class_of_region) - 1), np.count_nonzero(classes))
    before, after = ({tuple(point) for point in each.coords.tolist()} for each in (arcs, simpler))
    assert after <= before


@settings(max_examples=100)
@given(MAPS, st.integers(2, 9), st.sampled_from([0.6, 2.0, 50.0]))
def test_merged_then_simplified_polygons_are_a_coverage(classes, min_pixels, min_triangle):
    coverage = merged(classes, min_pixels)
    simpler = simplify_arcs(coverage.arcs, tolerance=min_triangle**0.5)
    check_coverage(polygons_of(simpler, coverage.regions.count), np.count_nonzero(classes))


def test_two_arcs_between_two_junctions_stay_apart():
    """A sliver two regions share: straight chords of both its sides would be one line."""
    classes = np.ones((6, 6), np.uint8)
    classes[:3] = 2
    classes[2:4, 2:4] = 3
    _, arcs, class_of_region = traced(classes)
    simpler = polygons_of(simplify_arcs(arcs, tolerance=32.0), len(class_of_region) - 1)
    check_coverage(simpler, 36)
    assert (shapely.area(simpler) > 0).all()


def test_stairs_become_a_line_and_the_border_with_nodata_stays():
    classes = np.tril(np.ones((8, 8), np.uint8)) + 1
    classes[0, 0] = 0
    _, arcs, class_of_region = traced(classes)
    simpler = simplify_arcs(arcs, tolerance=0.71)
    assert len(simpler.coords) < len(arcs.coords) - 10
    outer = (simpler.left == 0) | (simpler.right == 0)
    assert np.diff(simpler.offsets)[outer].tolist() == np.diff(arcs.offsets)[outer].tolist()
    check_coverage(polygons_of(simpler, len(class_of_region) - 1), 63)
    assert np.diff(simplify_arcs(arcs, tolerance=0.7).offsets).tolist() == np.diff(arcs.offsets).tolist()


def test_an_island_keeps_four_corners():
    classes = np.ones((5, 5), np.uint8)
    classes[2, 2] = 2
    _, arcs, _ = traced(classes)
    assert simplify_arcs(arcs, tolerance=10.0).coords.tolist() == arcs.coords.tolist()


@pytest.mark.parametrize("seed", range(3))
def test_large_patchy_maps_stay_valid(seed):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 4, (12, 12)).repeat(8, 0).repeat(8, 1)
    classes = np.where(rng.random((96, 96)) < 0.15, rng.integers(0, 4, (96, 96)), coarse).astype(np.uint8)
    regions, arcs, class_of_region = traced(classes)
    exact = polygons_of(arcs, len(class_of_region) - 1)
    np.testing.assert_array_equal(burn(exact, classes.shape), regions)
    for min_triangle in (0.6, 4.0, 100.0):
        simpler = polygons_of(simplify_arcs(arcs, tolerance=min_triangle**0.5), len(class_of_region) - 1)
        check_coverage(simpler, np.count_nonzero(classes))
