"""Regions against scikit-image, and merging against a brute-force merger that labels the map anew at every step."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.measure import label as skimage_label

from geoseg.errors import InputError
from geoseg.vector.coverage import find_neighbours, trace_arcs
from geoseg.vector.regions import count_pixels, label_regions, merge_small, sum_over_regions

MAPS = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 3))


def by_first_pixel(labels):
    """The same partition, numbered by first pixel; 0 stays."""
    out, seen = np.zeros(labels.shape, int), {0: 0}
    for at, value in np.ndenumerate(labels):
        out[at] = seen.setdefault(int(value), len(seen))
    return out


def borders_of(regions):
    """Shared border in pixel edges of each pair of regions, by looking at every pair of pixels."""
    found = {}
    for here, there in ((regions[:, :-1], regions[:, 1:]), (regions[:-1], regions[1:])):
        for a, b in zip(here.ravel().tolist(), there.ravel().tolist(), strict=True):
            if a != b and a and b:
                pair = (min(a, b), max(a, b))
                found[pair] = found.get(pair, 0) + 1
    return found


def merge_by_hand(classes, min_pixels):
    """The map after merging, one region a step; 0 is nodata."""
    classes = classes.astype(int)
    while True:
        regions = by_first_pixel(skimage_label(classes, connectivity=1, background=0))
        borders, sizes = borders_of(regions), np.bincount(regions.ravel())
        small = [(sizes[k], k) for k in range(1, len(sizes)) if sizes[k] < min_pixels and any(k in p for p in borders)]
        if not small:
            return classes
        region = min(small)[1]
        length, neighbour = min((-n, a if b == region else b) for (a, b), n in borders.items() if region in (a, b))
        assert length < 0
        classes[regions == region] = classes[regions == neighbour][0]


def merged(classes, min_pixels):
    regions, class_of_region = label_regions(classes, classes > 0)
    pixels = count_pixels(regions, count=len(class_of_region) - 1)
    lut, new_classes = merge_small(
        find_neighbours(trace_arcs(regions)),
        class_of_region=class_of_region,
        pixels=pixels,
        areas=pixels.astype(float),
        min_area=min_pixels,
    )
    return lut[regions], new_classes


@given(MAPS)
def test_regions_are_those_of_scikit_image(classes):
    regions, class_of_region = label_regions(classes, classes > 0)
    expected = by_first_pixel(skimage_label(classes, connectivity=1, background=0))
    np.testing.assert_array_equal(regions, expected)
    np.testing.assert_array_equal(class_of_region[regions], classes)


@pytest.mark.parametrize("dtype", ["uint16", ">i2", "int64"])
def test_regions_of_any_integer_type(dtype):
    classes = np.array([[-1, -1, 300], [300, -1, 300]]).astype(dtype)
    regions, class_of_region = label_regions(classes, np.ones((2, 3), bool))
    np.testing.assert_array_equal(regions, [[1, 1, 2], [3, 1, 2]])
    np.testing.assert_array_equal(class_of_region[1:], classes[[0, 0, 1], [0, 2, 0]])


def test_invalid_pixels_part_regions():
    valid = np.array([[True, False, True]])
    regions, _ = label_regions(np.zeros((1, 3), np.uint8), valid)
    np.testing.assert_array_equal(regions, [[1, 0, 2]])


@pytest.mark.parametrize(
    ("classes", "valid"),
    [(np.zeros((2, 2)), np.ones((2, 2), bool)), (np.zeros((2, 2), int), np.ones((2, 3), bool))],
)
def test_what_cannot_be_labelled(classes, valid):
    with pytest.raises(InputError):
        label_regions(classes, valid)


@given(MAPS)
def test_neighbours_are_all_pairs_with_their_borders(classes):
    regions, _ = label_regions(classes, classes > 0)
    found = find_neighbours(trace_arcs(regions))
    pairs = zip(found.first.tolist(), found.second.tolist(), strict=True)
    assert dict(zip(pairs, found.border.tolist(), strict=True)) == borders_of(regions)


def test_border_weights_along_x_and_y():
    regions = np.array([[1, 1, 2], [1, 1, 2], [3, 3, 3]], np.int32)
    found = find_neighbours(trace_arcs(regions), weights=(10, 1))
    assert found.border.tolist() == [2, 20, 10]  # two upright edges; two flat ones; one flat one


@settings(max_examples=300)
@given(MAPS, st.integers(2, 12))
def test_merging_is_the_brute_force(classes, min_pixels):
    regions, class_of_region = merged(classes, min_pixels)
    expected = merge_by_hand(classes, min_pixels)
    np.testing.assert_array_equal(class_of_region[regions], expected)
    np.testing.assert_array_equal(regions, by_first_pixel(skimage_label(expected, connectivity=1, background=0)))


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        ([[1, 1, 2, 3, 3]], [[1, 1, 1, 3, 3]]),  # a tie: the lower region
        ([[1, 1, 2, 3, 3], [1, 1, 3, 3, 3]], [[1, 1, 3, 3, 3], [1, 1, 3, 3, 3]]),  # the longer border
        ([[1, 1, 2, 1, 1]], [[1, 1, 1, 1, 1]]),  # both sides join
        ([[0, 2, 0, 1, 1]], [[0, 2, 0, 1, 1]]),  # nothing to join
    ],
)
def test_merging_worked_by_hand(classes, expected):
    regions, class_of_region = merged(np.array(classes, np.uint8), 2)
    np.testing.assert_array_equal(class_of_region[regions], expected)


@given(MAPS, st.data())
def test_sums_are_those_of_a_plain_loop(classes, data):
    values = data.draw(hnp.arrays(np.uint8, classes.shape))
    valid = data.draw(hnp.arrays(bool, classes.shape))
    regions, class_of_region = label_regions(classes, classes > 0)
    sums, used = sum_over_regions(regions, values, valid, count=len(class_of_region) - 1)
    expected = [values[(regions == k) & valid].sum(dtype=int) for k in range(len(class_of_region))]
    assert sums.dtype == np.int64
    assert sums.tolist() == expected
    assert used.tolist() == [np.count_nonzero((regions == k) & valid) for k in range(len(class_of_region))]
