"""Blocks put together: the same coverage as that of the whole map, array for array, for any cut."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geoseg.errors import InputError
from geoseg.tiling import Window
from geoseg.vector.coverage import Coverage, trace_arcs
from geoseg.vector.regions import label_regions
from geoseg.vector.stitching import stitch
from geoseg.vector.tracing import Layer, trace_block

MAPS = hnp.arrays(np.int16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=14), elements=st.integers(0, 3))


def cut(size, marks):
    """Edges of blocks along one axis."""
    return sorted({0, size, *(mark % size for mark in marks)})


def traced(classes, rows, cols, others=None):
    """Each block by itself."""
    for top, bottom in pairwise(rows):
        for left, right in pairwise(cols):
            window = Window(top, left, bottom - top, right - left)
            part = classes[window.slices]
            inside = {name: Layer(*(each[window.slices] for each in layer)) for name, layer in (others or {}).items()}
            yield trace_block(Layer(part, part != 0), window=window, cols=classes.shape[1], others=inside)


def whole(classes):
    """The coverage traced in one piece."""
    regions, class_of_region = label_regions(classes, classes != 0)
    return regions, class_of_region, trace_arcs(regions)


def same_arcs(one, other):
    for name in ("coords", "offsets", "left", "right", "junctions", "leaving"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert one.junction_count == other.junction_count


@settings(max_examples=400)
@given(MAPS, st.lists(st.integers(1, 13), max_size=4), st.lists(st.integers(1, 13), max_size=4), st.randoms())
def test_any_cut_gives_the_arcs_of_the_whole_map(classes, rows, cols, rng):
    blocks = list(traced(classes, cut(classes.shape[0], rows), cut(classes.shape[1], cols)))
    rng.shuffle(blocks)
    coverage = stitch(blocks, shape=classes.shape)
    labels, class_of_region, arcs = whole(classes)
    same_arcs(coverage.arcs, arcs)
    np.testing.assert_array_equal(coverage.regions.classes, class_of_region)
    pixels = np.bincount(labels.ravel(), minlength=len(class_of_region))
    np.testing.assert_array_equal(coverage.regions.pixels[1:], pixels[1:])
    firsts = [np.flatnonzero(labels.ravel() == region)[0] for region in range(1, len(class_of_region))]
    np.testing.assert_array_equal(coverage.regions.first, [-1, *firsts])


@settings(max_examples=60)
@given(MAPS, st.lists(st.integers(1, 13), max_size=3), st.integers(0, 2**32 - 1))
def test_sums_of_other_rasters_are_those_over_each_whole_region(classes, marks, seed):
    rng = np.random.default_rng(seed)
    values = {"whole": rng.integers(-9, 9, classes.shape, np.int16), "real": rng.standard_normal(classes.shape)}
    seen = rng.random(classes.shape) < 0.7
    others = {name: Layer(pixels, seen) for name, pixels in values.items()}
    blocks = traced(classes, cut(classes.shape[0], marks), cut(classes.shape[1], marks), others)
    regions = stitch(blocks, shape=classes.shape).regions
    labels, class_of_region, _ = whole(classes)
    for region in range(1, len(class_of_region)):
        inside = (labels == region) & seen
        for name, pixels in values.items():
            found = regions.values[name]
            assert found.count[region] == inside.sum()
            assert found.total[region] == pytest.approx(pixels[inside].sum(), abs=1e-9)
            if inside.any():
                assert found.low[region] == pixels[inside].min()
    assert regions.values["whole"].total.dtype == np.int64


def test_a_region_through_many_blocks_is_one():
    classes = np.zeros((9, 9), np.uint8)
    classes[::2], classes[1::4, 8], classes[3::4, 0] = 1, 1, 1  # a snake
    coverage = stitch(traced(classes, range(10), range(10)), shape=classes.shape)
    assert isinstance(coverage, Coverage)
    assert coverage.regions.pixels.tolist() == [0, int(classes.sum())]


def test_classes_of_wide_integers_stay_apart():
    classes = np.array([[2**40, 2**40 + 1]])
    assert stitch(traced(classes, [0, 1], [0, 1, 2]), shape=(1, 2)).regions.classes.tolist() == [0, 2**40, 2**40 + 1]


@pytest.mark.parametrize(("rows", "cols"), [([0, 2], [0, 3]), ([1, 3], [0, 3]), ([0, 3], [0, 2])])
def test_blocks_that_do_not_tile_the_map_are_refused(rows, cols):
    with pytest.raises(InputError, match="tile a map"):
        stitch(traced(np.ones((3, 3), int), rows, cols), shape=(3, 3))
