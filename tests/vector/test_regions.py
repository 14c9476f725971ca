"""Regions against scikit-image, and sums over them against plain loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.measure import label as skimage_label

from geoseg.errors import InputError
from geoseg.vector.regions import label_regions

MAPS = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 3))


def by_first_pixel(labels):
    """The same partition, numbered by first pixel; 0 stays."""
    out, seen = np.zeros(labels.shape, int), {0: 0}
    for at, value in np.ndenumerate(labels):
        out[at] = seen.setdefault(int(value), len(seen))
    return out


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
