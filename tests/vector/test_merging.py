"""Merging against a merger that works on pixels and labels the map anew at every step."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from geoseg.errors import InputError
from geoseg.vector.coverage import Arcs, Coverage, trace_arcs
from geoseg.vector.grouping import diagonal_groups, value_groups
from geoseg.vector.merging import RULES, Minimum, check_similarity, merge_regions
from geoseg.vector.regions import Regions, Sums, label_regions

MAPS = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 4))
AREAS = st.sampled_from([0, 0, 1.5, 2, 3, 4.5, 6, 9, 14])
MINIMA = st.builds(Minimum, AREAS, st.dictionaries(st.integers(1, 4), AREAS, max_size=4))
SIMILARITY = st.dictionaries(
    st.sampled_from([(a, b) for a, b in product(range(1, 5), repeat=2) if a < b]), st.sampled_from([-1, 0.5, 2])
)


def by_first_pixel(labels):
    """The same partition, numbered by first pixel; 0 stays."""
    out, seen = np.zeros(labels.shape, int), {0: 0}
    for at, value in np.ndenumerate(labels):
        out[at] = seen.setdefault(int(value), len(seen))
    return out


def components(values, connectivity):
    """Connected patches of one value, labelled value by value; with no connectivity each value is one."""
    if connectivity is None:
        return by_first_pixel(values)
    out = np.zeros(values.shape, int)
    structure = np.ones((3, 3)) if connectivity == 8 else None
    for value in np.unique(values[values > 0]):
        found, count = ndimage.label(values == value, structure)
        out += np.where(found > 0, found + out.max(), 0)
        assert count > 0
    return by_first_pixel(out)


def ground(shape):
    """Area of each pixel: 1 and 1.5, row by row."""
    return np.broadcast_to(1 + np.arange(shape[0])[:, None] % 2 / 2, shape)


def borders_of(labels, weights=(1, 1)):
    """Shared border of each pair, by looking at every pair of pixels."""
    found = {}
    for weight, here, there in (
        (weights[1], labels[:, :-1], labels[:, 1:]),
        (weights[0], labels[:-1], labels[1:]),
    ):
        for a, b in zip(here.ravel().tolist(), there.ravel().tolist(), strict=True):
            if a != b and a and b:
                pair = (min(a, b), max(a, b))
                found[pair] = found.get(pair, 0) + weight
    return found


def merge_by_hand(values, minimum, *, rule, similarity, weights, connectivity):
    """The map after merging, one patch a step; 0 is nodata. A value's class is its last digit."""
    values = values.astype(int)
    pixel_areas = ground(values.shape)
    while True:
        labels = components(values, connectivity)
        borders = borders_of(labels, weights)
        small = []
        for k in range(1, labels.max() + 1):
            inside = labels == k
            needed = minimum.classes.get(int(values[inside][0]) % 10, minimum.default)
            alone = not any(k in pair for pair in borders)
            if pixel_areas[inside].sum() < needed and (rule == "nodata" or not alone):
                small.append((np.count_nonzero(inside), k))
        if not small:
            return values
        patch = labels == min(small)[1]
        if rule == "nodata":
            values[patch] = 0
            continue
        choices = []
        for pair, border in borders.items():
            if min(small)[1] in pair:
                (other,) = set(pair) - {min(small)[1]}
                classes = tuple(sorted((int(values[patch][0]) % 10, int(values[labels == other][0]) % 10)))
                score = similarity.get(classes, 0) if rule == "similar" else 0
                choices.append((-score, -border, other))
        values[patch] = values[labels == min(choices)[2]][0]


def covered(values, extra=None):
    """The coverage of a map, its label raster, and the area of each region."""
    labels, classes = label_regions(values, values > 0)
    count = len(classes)
    pixels = np.bincount(labels.ravel(), minlength=count)
    first = np.array([-1, *(np.flatnonzero(labels == k)[0] for k in range(1, count))])
    pixels[0] = 0
    sums = {} if extra is None else {"extra": sums_of(labels, extra, count)}
    areas = np.bincount(labels.ravel(), weights=ground(values.shape).ravel(), minlength=count)
    return Coverage(trace_arcs(labels), Regions(classes, pixels, first, sums), values.shape), labels, areas


def sums_of(labels, extra, count):
    """Sums of the even values, the others being invalid."""
    used = (labels > 0) & (extra % 2 == 0)
    low = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(low, labels[used], extra[used].astype(np.int64))
    total = np.bincount(labels[used], weights=extra[used], minlength=count).astype(np.int64)
    return Sums(total, np.bincount(labels[used], minlength=count), low)


def assert_is_map(coverage, labels, values, extra):
    """Whether a coverage with these labels is what tracing a map and looking at all its pixels gives."""
    expected, expected_labels, _ = covered(values.astype(np.uint8), extra)
    np.testing.assert_array_equal(labels, expected_labels)
    for name, ours, theirs in zip(Arcs._fields, coverage.arcs, expected.arcs, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=name)
    for name in ("classes", "pixels", "first"):
        ours, theirs = getattr(coverage.regions, name), getattr(expected.regions, name)
        np.testing.assert_array_equal(ours, theirs, err_msg=name)
        assert ours.dtype == theirs.dtype
    for name in ("total", "count", "low"):
        ours, theirs = (getattr(each.regions.values["extra"], name) for each in (coverage, expected))
        np.testing.assert_array_equal(ours, theirs, err_msg=name)


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=200)
@given(MAPS, MINIMA, st.data())
def test_merging_is_the_brute_force(rule, connectivity, values, minimum, data):
    extra = data.draw(hnp.arrays(np.uint8, values.shape))
    how = {
        "rule": rule,
        "connectivity": connectivity,
        "similarity": data.draw(SIMILARITY),
        "weights": data.draw(st.sampled_from([(1, 1), (3, 2)])),
    }
    coverage, labels, areas = covered(values, extra)
    merged, lut = merge_regions(coverage, areas=areas, minimum=minimum, **how)
    expected = merge_by_hand(values, minimum, **how)
    np.testing.assert_array_equal(merged.regions.classes[lut[labels]], expected)
    assert_is_map(merged, lut[labels], expected, extra)
    if rule != "nodata":
        assert merged.regions.values["extra"].total.sum() == coverage.regions.values["extra"].total.sum()


@settings(max_examples=200)
@given(MAPS, MINIMA, st.sampled_from([4, 8]))
def test_what_stays_small_touches_nothing_but_nodata(values, minimum, connectivity):
    coverage, labels, areas = covered(values)
    merged, lut = merge_regions(coverage, areas=areas, minimum=minimum, connectivity=connectivity)
    after = merged.regions.classes[lut[labels]]
    patches = components(after, connectivity)
    sizes = np.bincount(patches.ravel(), weights=ground(values.shape).ravel())
    touching = {k for pair in borders_of(patches) for k in pair}
    for k in range(1, len(sizes)):
        needed = minimum.of(after[patches == k][:1])[0]
        assert sizes[k] >= needed or k not in touching
    assert np.count_nonzero(after) == np.count_nonzero(values)


@settings(max_examples=200)
@given(MAPS, st.integers(1, 9), SIMILARITY)
def test_parts_of_an_instance_are_weighed_together(values, least, similarity):
    """Values are ten times an instance, plus its class."""
    values = np.where(values == 0, 0, values * 10 + values % 2 + 1).astype(np.uint8)
    coverage, labels, areas = covered(values, values)
    minimum = Minimum(0, {2: least})
    merged, lut = merge_regions(
        coverage, areas=areas, minimum=minimum, rule="similar", similarity=similarity,
        groups=value_groups(coverage.regions.classes), classes=coverage.regions.classes % 10,
    )  # fmt: skip
    expected = merge_by_hand(values, minimum, rule="similar", similarity=similarity, weights=(1, 1), connectivity=None)
    assert_is_map(merged, lut[labels], expected, values)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[1, 1, 2, 3, 3]], [[1, 1, 1, 3, 3]]),  # a tie: the lower region
        ([[1, 1, 2, 3, 3], [1, 1, 3, 3, 3]], [[1, 1, 3, 3, 3], [1, 1, 3, 3, 3]]),  # the longer border
        ([[1, 1, 2, 1, 1]], [[1, 1, 1, 1, 1]]),  # both sides join
        ([[0, 2, 0, 1, 1]], [[0, 2, 0, 1, 1]]),  # nothing to join
    ],
)
def test_merging_worked_by_hand(values, expected):
    coverage, labels, _ = covered(np.array(values, np.uint8))
    merged, lut = merge_regions(coverage, areas=coverage.regions.pixels * 1.0, minimum=Minimum(2))
    np.testing.assert_array_equal(merged.regions.classes[lut[labels]], expected)


def test_a_diagonal_is_one_region_of_eight_neighbours():
    values = np.eye(4, dtype=np.uint8) + 1
    coverage, labels, areas = covered(values)
    for connectivity, expected in ((4, np.ones((4, 4))), (8, values)):
        merged, lut = merge_regions(coverage, areas=areas, minimum=Minimum(3), connectivity=connectivity)
        np.testing.assert_array_equal(merged.regions.classes[lut[labels]], expected)
    assert diagonal_groups(merged.arcs, merged.regions.classes).max() == 2


def test_the_most_similar_class_is_taken_before_the_longest_border():
    values = np.array([[1, 1, 1, 1], [1, 3, 2, 2], [1, 1, 2, 2]], np.uint8)
    coverage, labels, areas = covered(values)
    for rule, expected in (("border", 1), ("similar", 2), ("nodata", 0)):
        merged, lut = merge_regions(coverage, areas=areas, minimum=Minimum(2), rule=rule, similarity={(3, 2): 0.5})
        assert merged.regions.classes[lut[labels]][1, 1] == expected


def test_all_nodata_is_left_alone():
    coverage, _, areas = covered(np.zeros((3, 4), np.uint8))
    merged, lut = merge_regions(coverage, areas=areas, minimum=Minimum(9), connectivity=8)
    assert merged.regions.count == 0
    assert lut.tolist() == [0]


@pytest.mark.parametrize("area", [-1, float("nan"), float("inf")])
def test_what_is_no_minimum(area):
    with pytest.raises(InputError, match="0 or more"):
        Minimum(area)
    with pytest.raises(InputError, match="0 or more"):
        Minimum(1, {3: area})


def test_an_unknown_rule_is_told_those_known():
    coverage, _, areas = covered(np.ones((2, 2), np.uint8))
    with pytest.raises(InputError, match="border, similar, nodata"):
        merge_regions(coverage, areas=areas, minimum=Minimum(9), rule="biggest")


@pytest.mark.parametrize(
    ("similarity", "said"),
    [
        ({(1, 9): 1}, "no class 9; the classes are 1, 2"),
        ({(1, 2): float("nan")}, "must be a number"),
        ({(1, 2): 1, (2, 1): 2}, "given as 1 and as 2"),
    ],
)
def test_a_table_of_similarity_that_makes_no_sense(similarity, said):
    with pytest.raises(InputError, match=said):
        check_similarity(similarity, known=[1, 2])
    check_similarity({(1, 2): 1, (2, 1): 1}, known=[1, 2])
