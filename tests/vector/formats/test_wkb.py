"""Rings as well-known binary, against what shapely writes, measures and orients."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from geoseg.vector.formats.frames import flatten
from geoseg.vector.formats.wkb import are_counter_clockwise, feature_bounds, to_wkb
from geoseg.vector.layer import FeatureBatch
from geoseg.vector.rings import Rings

coordinates = st.floats(-1e7, 1e7, allow_nan=False)


def batch_of(geometries):
    table = pa.RecordBatch.from_pydict({"id": list(range(len(geometries)))})
    return FeatureBatch(table, *flatten(np.array(geometries, object)))


@st.composite
def polygons(draw):
    """A square with up to four square holes, each in a quarter of its own; corners of any size and sign."""
    x, y, side = draw(coordinates), draw(coordinates), draw(st.floats(1, 1e5))
    quarters = draw(st.sets(st.sampled_from([(0, 0), (0, 1), (1, 0), (1, 1)])))
    holes = [
        shapely.box(
            x + side * (0.1 + 0.5 * a),
            y + side * (0.1 + 0.5 * b),
            x + side * (0.4 + 0.5 * a),
            y + side * 0.5 * (b + 0.9),
        )
        for a, b in sorted(quarters)
    ]
    shell = shapely.box(x, y, x + side, y + side).exterior.segmentize(side / draw(st.integers(1, 5)))
    return shapely.Polygon(shell, [hole.exterior for hole in holes])


@given(st.lists(polygons(), min_size=1, max_size=6))
def test_polygons_are_written_as_shapely_writes_them(geometries):
    written = to_wkb(batch_of(geometries), multi=False)
    assert written.to_pylist() == [shapely.to_wkb(each, byte_order=1, flavor="iso") for each in geometries]
    written.validate(full=True)


@given(st.lists(st.lists(polygons(), min_size=1, max_size=4), min_size=1, max_size=4))
def test_multi_polygons_are_written_as_shapely_writes_them(parts):
    geometries = [shapely.MultiPolygon(each) for each in parts]
    written = to_wkb(batch_of(geometries), multi=True)
    assert written.to_pylist() == [shapely.to_wkb(each, byte_order=1, flavor="iso") for each in geometries]


@given(st.lists(st.lists(polygons(), min_size=1, max_size=3), min_size=1, max_size=4))
def test_bounds_are_those_of_the_whole_feature(parts):
    geometries = [shapely.MultiPolygon(each) for each in parts]
    np.testing.assert_array_equal(feature_bounds(batch_of(geometries)), shapely.bounds(geometries))


@given(st.lists(polygons(), min_size=1, max_size=4), st.data())
def test_orientation_is_told_of_all_rings(geometries, data):
    turned = list(shapely.orient_polygons(geometries))
    assert are_counter_clockwise(batch_of(turned))
    position = data.draw(st.integers(0, len(turned) - 1))
    rings = [turned[position].exterior, *turned[position].interiors]
    which = data.draw(st.integers(0, len(rings) - 1))
    rings[which] = rings[which].reverse()
    turned[position] = shapely.Polygon(rings[0], rings[1:])
    assert not are_counter_clockwise(batch_of(turned))


@pytest.mark.parametrize("multi", [False, True])
def test_a_batch_without_features_is_an_empty_array(multi):
    nothing = np.zeros(1, np.int64)
    table = pa.RecordBatch.from_pydict({"id": pa.array([], pa.int64())})
    batch = FeatureBatch(table, Rings(np.empty((0, 2)), nothing, nothing), nothing)
    assert len(to_wkb(batch, multi=multi)) == 0
    assert feature_bounds(batch).shape == (0, 4)
    assert are_counter_clockwise(batch)
