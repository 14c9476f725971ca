"""Groups against labels of the pixels, and what is known of them against sums over the pixels."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from geoseg.vector.coverage import trace_arcs
from geoseg.vector.grouping import class_groups, diagonal_groups, group_regions, join_groups, value_groups
from geoseg.vector.regions import Regions, Sums, label_regions

MAPS = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=10), elements=st.integers(0, 3))


def by_first_pixel(labels):
    """The same partition, numbered by first pixel; 0 stays."""
    out, seen = np.zeros(labels.shape, int), {0: 0}
    for at, value in np.ndenumerate(labels):
        out[at] = seen.setdefault(int(value), len(seen))
    return out


def eight_connected(classes):
    out = np.zeros(classes.shape, int)
    for value in range(1, 4):
        found, _ = ndimage.label(classes == value, np.ones((3, 3)))
        out += np.where(found > 0, found + out.max(), 0)
    return by_first_pixel(out)


@settings(max_examples=400)
@given(MAPS)
def test_diagonal_groups_are_patches_of_eight_neighbours(classes):
    regions, class_of_region = label_regions(classes, classes > 0)
    groups = diagonal_groups(trace_arcs(regions), class_of_region)
    assert groups.dtype == np.int32
    np.testing.assert_array_equal(groups[regions], eight_connected(classes))


def test_both_diagonals_of_a_checkerboard_join():
    classes = np.indices((4, 5)).sum(0) % 2 + 1
    regions, class_of_region = label_regions(classes, classes > 0)
    assert diagonal_groups(trace_arcs(regions), class_of_region).tolist() == [0, *[1, 2] * 10][:21]


def test_class_zero_is_a_class_and_no_nodata():
    classes, valid = np.array([[0, 1], [1, 0]]), np.array([[True, False], [False, True]])
    regions, class_of_region = label_regions(classes, valid)
    assert diagonal_groups(trace_arcs(regions), class_of_region).tolist() == [0, 1, 1]
    assert class_groups(class_of_region).tolist() == [0, 1, 1]


@given(MAPS)
def test_one_group_a_class(classes):
    regions, class_of_region = label_regions(classes, classes > 0)
    np.testing.assert_array_equal(class_groups(class_of_region)[regions], by_first_pixel(classes))


def test_instances_join_by_value_and_the_rest_stays_as_it_was():
    values = np.array([0, 1005, 2000, 1005, 2000, 2000, 1007])
    instance = values % 1000 > 0
    assert value_groups(values, together=instance).tolist() == [0, 1, 2, 1, 3, 4, 5]
    diagonal = np.array([0, 1, 2, 3, 4, 2, 5], np.int32)
    assert value_groups(values, together=instance, otherwise=diagonal).tolist() == [0, 1, 2, 1, 3, 2, 4]


@settings(max_examples=200)
@given(MAPS, st.data())
def test_joined_groups_are_patches_of_four_neighbours(classes, data):
    regions, class_of_region = label_regions(classes, classes > 0)
    chosen = data.draw(
        st.lists(st.integers(0, 3), min_size=len(class_of_region) - 1, max_size=len(class_of_region) - 1)
    )
    groups = np.array([0, *chosen], np.int32)
    faces, _ = label_regions(groups[regions], groups[regions] > 0)
    np.testing.assert_array_equal(join_groups(trace_arcs(regions), groups)[regions], faces)


@given(MAPS, st.sampled_from([np.uint8, np.float64]), st.data())
def test_what_is_known_of_groups_is_what_all_their_pixels_say(classes, kind, data):
    band = data.draw(hnp.arrays(np.uint8, classes.shape)).astype(kind)
    regions, class_of_region = label_regions(classes, classes > 0)
    found = group_regions(known(regions, class_of_region, band), groups := class_groups(class_of_region))
    expected = known(groups[regions], found.classes, band)
    np.testing.assert_array_equal(found.classes[groups[regions]], classes)
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    np.testing.assert_array_equal(found.first, expected.first)
    for name in ("total", "count", "low"):
        ours, theirs = (getattr(each.values["band"], name) for each in (found, expected))
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype


def known(labels, classes, band):
    """Regions from a plain look at all pixels; odd values are invalid."""
    wide = np.int64 if band.dtype.kind == "u" else np.float64
    highest = np.iinfo(np.int64).max if wide is np.int64 else np.inf
    pixels, first, total, count, low = [0], [-1], [0], [0], [highest]
    for k in range(1, len(classes)):
        inside = labels == k
        used = band[inside & (band % 2 == 0)]
        pixels.append(np.count_nonzero(inside))
        first.append(np.flatnonzero(inside)[0])
        total.append(used.sum(dtype=wide))
        count.append(len(used))
        low.append(used.min(initial=highest) if wide is np.float64 else min(used.tolist(), default=highest))
    sums = Sums(np.array(total, wide), np.array(count), np.array(low, wide))
    return Regions(classes, np.array(pixels), np.array(first), {"band": sums})
