"""Neighbours against a look at every pair of pixels."""

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from odc.geo.geobox import GeoBox

from geoseg.vector.coverage import Coverage, trace_arcs
from geoseg.vector.grouping import class_groups
from geoseg.vector.metric import fit_metric
from geoseg.vector.neighbours import corner_pairs, find_borders, find_neighbours
from geoseg.vector.regions import Regions, label_regions

MAPS = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 3))


def borders_of(regions, weights=(1, 1)):
    """Shared border of each pair, by looking at every pair of pixels, sorted."""
    found = {}
    for weight, here, there in ((weights[1], regions[:, :-1], regions[:, 1:]), (weights[0], regions[:-1], regions[1:])):
        for a, b in zip(here.ravel().tolist(), there.ravel().tolist(), strict=True):
            if a != b and a and b:
                pair = (min(a, b), max(a, b))
                found[pair] = found.get(pair, 0) + weight
    return dict(sorted(found.items()))


def table(neighbours):
    pairs = zip(neighbours.first.tolist(), neighbours.second.tolist(), strict=True)
    return dict(zip(pairs, neighbours.border.tolist(), strict=True))


def coverage_of(regions, class_of_region):
    nothing = np.zeros(len(class_of_region), np.int64)
    return Coverage(trace_arcs(regions), Regions(class_of_region, nothing, nothing), regions.shape)


@given(MAPS, st.sampled_from([(1, 1), (1000, 3)]))
def test_neighbours_are_all_pairs_with_their_borders_in_order(classes, weights):
    regions, class_of_region = label_regions(classes, classes > 0)
    arcs = trace_arcs(regions)
    found, expected = table(find_neighbours(arcs, weights=weights)), borders_of(regions, weights)
    assert list(found.items()) == list(expected.items())
    groups = class_groups(class_of_region)
    assert table(find_neighbours(arcs, weights=weights, groups=groups)) == borders_of(groups[regions], weights)


def test_a_region_with_many_neighbours():
    """More than are sorted by hand, and most of them more than once."""
    regions = np.zeros((41, 130), np.int32)
    regions[::2] = 1 + np.random.default_rng(0).permutation(130)
    regions[1::2] = 500
    regions[:, ::7] = 0
    arcs = trace_arcs(regions)
    assert table(find_neighbours(arcs)) == borders_of(regions)


def test_border_weights_along_x_and_y():
    regions = np.array([[1, 1, 2], [1, 1, 2], [3, 3, 3]], np.int32)
    found = find_neighbours(trace_arcs(regions), weights=(10, 1))
    assert found.border.tolist() == [2, 20, 10]  # two upright edges; two flat ones; one flat one


def test_borders_in_metres():
    classes = np.random.default_rng(0).integers(0, 4, (20, 30))
    regions, class_of_region = label_regions(classes, classes > 0)
    geobox = GeoBox((20, 30), Affine(25, 0, 4_000_000, 0, -10, 3_000_000), "EPSG:3035")
    found = find_borders(coverage_of(regions, class_of_region), metric := fit_metric(geobox))
    across, along = metric.pixel_size()
    expected = borders_of(regions, (across, along))
    assert list(table(found)) == list(expected)
    np.testing.assert_allclose(found.border, list(expected.values()), rtol=1e-4)  # a scene of 750 m is nearly flat
    assert (across, along) == pytest.approx((25, 10), rel=0.01)


@given(MAPS)
def test_corner_pairs_lie_across_corners_where_four_boundaries_meet(classes):
    regions, _ = label_regions(classes, classes > 0)
    first, second = corner_pairs(trace_arcs(regions))
    expected = []
    for row, col in np.ndindex(regions.shape[0] - 1, regions.shape[1] - 1):
        (nw, ne), (sw, se) = regions[row : row + 2, col : col + 2].tolist()
        if ne not in (nw, se) and sw not in (nw, se):
            expected += [sorted(pair) for pair in ((ne, sw), (nw, se)) if pair[0] != pair[1] and 0 not in pair]
    assert sorted(sorted(pair) for pair in zip(first.tolist(), second.tolist(), strict=True)) == sorted(expected)
