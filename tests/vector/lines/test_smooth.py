"""Smoothed boundaries: still the same map, near the exact boundary, and straight or round where the truth is."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasterio.features import rasterize

from geoseg.errors import InputError
from geoseg.vector.coverage import trace_arcs
from geoseg.vector.lines.simplify import METHODS, simplify_arcs
from geoseg.vector.lines.smooth import SUBPIXEL, Crossings, find_crossings, merge_crossings, smooth_arcs
from geoseg.vector.regions import label_regions
from geoseg.vector.rings import build_rings

MAPS = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=14), elements=st.integers(0, 3))
_COL, _ROW = np.meshgrid(np.arange(9), np.arange(9))
NESTED = np.maximum(abs(_COL - 4), abs(_ROW - 4))
TRICKY = {
    "one pixel": np.ones((1, 1)),
    "one row": [[1, 2, 2, 1, 0, 3]],
    "checkerboard": (_COL + _ROW) % 2 + 1,
    "checkerboard with nodata": (_COL + _ROW) % 2,
    "diagonals": np.eye(9) + 2 * np.eye(9)[::-1] + 1,
    "islands in islands": NESTED % 2 + 1,
    "an island of one pixel": (NESTED == 0) + 1,
    "islands that touch at a corner": [[1, 1, 1, 1], [1, 2, 1, 1], [1, 1, 2, 1], [1, 1, 1, 1]],
    "nodata holes": np.where((_COL % 3 == 1) & (_ROW % 3 == 1), 0, (_COL > _ROW) + 1),
    "a spiral": [[1, 1, 1, 1, 1], [2, 2, 2, 2, 1], [1, 1, 1, 2, 1], [1, 2, 2, 2, 1], [1, 1, 1, 1, 1]],
}
SLOPES = [0.0, 0.03, 0.1, 1 / 7, 0.3, 0.5, 0.618, 0.9, 1.0, 1.5, 4.2, 30.0]


def traced(classes):
    regions, class_of_region = label_regions(classes, classes > 0)
    return regions, trace_arcs(regions), len(class_of_region) - 1


def lines_of(arcs):
    coords = arcs.coords / arcs.scale
    return shapely.from_ragged_array(shapely.GeometryType.LINESTRING, coords, (arcs.offsets,))


def inner(arcs):
    return np.flatnonzero((arcs.left > 0) & (arcs.right > 0))


def check_coverage(arcs, count, valid_pixels):
    polygons = build_rings(arcs, count=count).to_polygons()
    assert shapely.is_valid(polygons).all()
    assert shapely.coverage_is_valid(polygons)
    assert shapely.is_empty(shapely.coverage_invalid_edges(polygons)).all()
    assert shapely.area(polygons).sum() == pytest.approx(valid_pixels, rel=1e-9)
    return polygons


def check_smooth(classes):
    regions, arcs, count = traced(classes)
    smooth = smooth_arcs(arcs)
    assert smooth.scale == SUBPIXEL
    polygons = check_coverage(smooth, count, np.count_nonzero(classes))
    if count:
        burnt = rasterize(zip(polygons, range(1, count + 1), strict=True), classes.shape, dtype="int32")
        np.testing.assert_array_equal(burnt, regions)
    check_near(arcs, smooth)
    return smooth, count


def farthest(points, lines):
    return max((shapely.distance(shapely.points(some), line).max() for some, line in zip(points, lines, strict=True)))


def check_near(arcs, smooth):
    """The line half a pixel from the boundary at most; middles of pixel edges so from it, corners half a diagonal."""
    exact, line = lines_of(arcs), lines_of(smooth)
    if len(exact) == 0:
        return
    steps = [shapely.get_coordinates(shapely.segmentize(each, 1.0)) for each in exact]
    assert farthest([shapely.get_coordinates(shapely.segmentize(each, 0.05)) for each in line], exact) <= 0.5
    assert farthest([(each[1:] + each[:-1]) / 2 for each in steps], line) <= 0.5
    assert farthest(steps, line) <= np.sqrt(0.5)


@settings(max_examples=200)
@given(MAPS)
def test_smoothed_maps_are_the_map_and_near_it(classes):
    check_smooth(classes)


@settings(max_examples=60)
@given(MAPS)
def test_larger_patches_too(classes):
    check_smooth(classes.repeat(3, 0).repeat(3, 1))


@pytest.mark.parametrize("name", TRICKY)
def test_maps_that_break_smoothers(name):
    check_smooth(np.array(TRICKY[name], np.uint8))


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=100)
@given(MAPS, st.sampled_from([0.3, 1.0, 5.0]))
def test_smoothed_boundaries_can_be_simplified(method, classes, tolerance):
    _, arcs, count = traced(classes)
    simpler = simplify_arcs(smooth_arcs(arcs), tolerance=tolerance, method=method)
    check_coverage(simpler, count, np.count_nonzero(classes))


@given(MAPS)
def test_junctions_and_borders_with_nodata_stay(classes):
    _, arcs, _ = traced(classes)
    smooth = smooth_arcs(arcs)
    for which, met in enumerate(arcs.junctions[:, 0] >= 0):
        before, after = (each.coords[each.offsets[which] : each.offsets[which + 1]] for each in (arcs, smooth))
        if arcs.left[which] == 0 or arcs.right[which] == 0:
            assert (before * SUBPIXEL).tolist() == after.tolist()
        elif met:
            assert (before[[0, -1]] * SUBPIXEL).tolist() == after[[0, -1]].tolist()


@pytest.mark.parametrize("slope", SLOPES)
def test_a_digitised_line_is_a_few_lines_near_it(slope):
    """Only its ends, which stay at corners, cost a vertex or two each; but for them it is the line itself."""
    size = 200
    col, row = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    classes = np.where(row - 100.13 > slope * (col - 100), 1, 2).astype(np.uint8)
    _, arcs, _ = traced(classes)
    smooth = smooth_arcs(arcs)
    (which,) = inner(smooth)
    line = smooth.coords[smooth.offsets[which] : smooth.offsets[which + 1]] / SUBPIXEL
    assert len(line) <= 8
    apart = abs(line[:, 1] - 100.13 - slope * (line[:, 0] - 100)) / np.hypot(1, slope)
    assert apart.max() <= np.sqrt(0.5)
    middle = shapely.line_interpolate_point(shapely.LineString(line), np.linspace(0.1, 0.9, 50), normalized=True)
    there = shapely.get_coordinates(middle)
    assert (abs(there[:, 1] - 100.13 - slope * (there[:, 0] - 100)) / np.hypot(1, slope)).max() <= 0.51


@pytest.mark.parametrize("radius", [6.0, 12.0, 40.0, 200.0])
def test_a_digitised_circle_is_round(radius):
    size = int(2 * radius + 9)
    col, row = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    far = np.hypot(col - size / 2 - 0.2, row - size / 2 + 0.1)
    classes = np.where(far < radius, 1, 2).astype(np.uint8)
    _, arcs, _ = traced(classes)
    smooth = smooth_arcs(arcs)
    (which,) = inner(smooth)
    ring = smooth.coords[smooth.offsets[which] : smooth.offsets[which + 1]] / SUBPIXEL
    circle = shapely.Polygon(ring)
    radii = np.hypot(*(ring - [size / 2 + 0.2, size / 2 - 0.1]).T)
    assert abs(radii - radius).max() <= 0.5
    assert circle.area == pytest.approx(np.count_nonzero(far < radius), rel=0.01)
    assert circle.length == pytest.approx(2 * np.pi * radius, rel=0.02)  # that of the staircase is 27 % longer
    assert len(ring) < 0.2 * arcs.offsets[which + 1] + 14
    turns = np.diff(np.unwrap(np.arctan2(*np.diff(ring, axis=0).T[::-1])))
    assert abs(turns).max() < 1.1


def test_arcs_that_were_changed_are_refused():
    _, arcs, _ = traced(np.eye(5, dtype=np.uint8).repeat(4, 0).repeat(3, 1) + 1)
    for changed in (smooth_arcs(arcs), simplify_arcs(arcs, tolerance=5.0)):
        with pytest.raises(InputError, match="smooth first"):
            smooth_arcs(changed)


def test_long_arcs_and_many_arcs_are_the_same_in_any_portion(monkeypatch):
    rng = np.random.default_rng(4)
    _, arcs, _ = traced(rng.integers(1, 4, (20, 20)).repeat(4, 0).repeat(5, 1).astype(np.uint8))
    whole = smooth_arcs(arcs)
    monkeypatch.setattr("geoseg.vector.lines.smooth._CHUNK", 60)
    parts = smooth_arcs(arcs)
    np.testing.assert_array_equal(whole.coords, parts.coords)
    np.testing.assert_array_equal(whole.offsets, parts.offsets)


def field(height, size=60):
    """Probabilities of two classes, linear about where `height(col, row)` is 0, and the more probable class."""
    col, row = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    first = np.clip(0.5 + 0.2 * height(col, row), 0, 1)
    probabilities = np.stack([first, 1 - first])
    return probabilities, probabilities.argmax(0)


def crossed(probabilities, classes, **place):
    place = {"row_off": 0, "col_off": 0, "cols": classes.shape[1]} | place
    return find_crossings(probabilities, classes, np.ones(classes.shape, bool), **place)


@pytest.mark.parametrize("slope", [0.0, 0.07, 0.4, 1.0])
def test_a_boundary_between_pixels_is_where_the_probabilities_say(slope):
    probabilities, classes = field(lambda col, row: (row - 30.27) - slope * (col - 30))
    _, arcs, _ = traced((classes + 1).astype(np.uint8))
    smooth = smooth_arcs(arcs, crossed(probabilities, classes))
    (which,) = inner(smooth)
    line = smooth.coords[smooth.offsets[which] + 1 : smooth.offsets[which + 1] - 1] / SUBPIXEL
    apart = abs(line[:, 1] - 30.27 - slope * (line[:, 0] - 30)) / np.hypot(1, slope)
    assert len(line) >= 2
    assert apart.max() < 1 / 16  # a line passes no nearer than that to a pixel's centre
    assert np.median(apart) < 0.01


def test_a_round_boundary_is_recovered_too():
    probabilities, classes = field(lambda col, row: 17.3 - np.hypot(col - 30.1, row - 29.6))
    _, arcs, _ = traced((classes + 1).astype(np.uint8))
    smooth = smooth_arcs(arcs, crossed(np.rint(probabilities * 255).astype(np.uint8), classes))
    (which,) = inner(smooth)
    line = lines_of(smooth)[which]
    radii = np.hypot(*(shapely.get_coordinates(shapely.segmentize(line, 0.1)) - [30.1, 29.6]).T)
    assert abs(radii - 17.3).max() < 1 / 16 + 0.03
    assert abs(radii.mean() - 17.3) < 0.03


@settings(max_examples=100)
@given(MAPS, st.integers(0, 2**32 - 1))
def test_any_crossings_leave_a_coverage_and_the_map(classes, seed):
    regions, arcs, count = traced(classes)
    probabilities = np.random.default_rng(seed).random((4, *classes.shape))
    probabilities[classes, *np.indices(classes.shape)] = 1.0
    crossings = find_crossings(
        probabilities, classes, classes > 0, row_off=0, col_off=0, cols=classes.shape[1]
    )  # fmt: skip
    smooth = smooth_arcs(arcs, crossings)
    polygons = check_coverage(smooth, count, np.count_nonzero(classes))
    if count:
        burnt = rasterize(zip(polygons, range(1, count + 1), strict=True), classes.shape, dtype="int32")
        np.testing.assert_array_equal(burnt, regions)


@given(hnp.arrays(np.uint8, (11, 13), elements=st.integers(0, 2)), st.integers(0, 2**32 - 1), st.integers(3, 8))
def test_windows_that_overlap_by_a_pixel_find_what_the_whole_map_has(classes, seed, step):
    probabilities = np.random.default_rng(seed).integers(0, 256, (3, *classes.shape)).astype(np.uint8)
    valid = classes > 0
    parts = [
        find_crossings(
            probabilities[:, row : row + step + 1, col : col + step + 1],
            classes[row : row + step + 1, col : col + step + 1],
            valid[row : row + step + 1, col : col + step + 1],
            row_off=row, col_off=col, cols=13,
        )
        for row in range(0, 11, step)
        for col in range(0, 13, step)
    ]  # fmt: skip
    whole = find_crossings(probabilities, classes, valid, row_off=0, col_off=0, cols=13)
    for ours, expected in zip(merge_crossings(parts), whole, strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_keys_and_places_are_those_of_the_edges_corner():
    probabilities = np.array([[[0.9, 0.9], [0.4, 0.9]], [[0.1, 0.1], [0.6, 0.1]]])
    found = find_crossings(
        probabilities, probabilities.argmax(0), np.ones((2, 2), bool), row_off=5, col_off=7, cols=20
    )  # fmt: skip
    assert found.keys_x.tolist() == [6 * 21 + 7]  # between the pixels (5, 7) and (6, 7): from corner (6, 7)
    assert found.at_x.tolist() == [round(256 * 0.8 / 1.0)]
    assert found.keys_y.tolist() == [6 * 21 + 8]  # between (6, 7) and (6, 8): from corner (6, 8)
    assert found.at_y.tolist() == [round(256 * 0.2 / 1.0)]


def test_crossings_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"\(2, 4, 4\).*\(3, 4\)"):
        find_crossings(np.zeros((2, 4, 4)), np.zeros((3, 4), int), np.ones((3, 4), bool), row_off=0, col_off=0, cols=4)
    empty = np.empty(0, np.int64), np.empty(0, np.uint8)
    with pytest.raises(InputError, match=r"\[4, 5\] columns"):
        merge_crossings([Crossings(*empty, *empty, 4), Crossings(*empty, *empty, 5)])
