"""Simplified boundaries: what each method keeps, against plain versions of them, and what no method may break."""

import time
from fractions import Fraction

import numpy as np
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geoseg.errors import InputError
from geoseg.vector.coverage import Arcs, trace_arcs
from geoseg.vector.lines.simplify import METHODS, simplify_arcs
from geoseg.vector.lines.vertex_index import holds_vertex, index_vertices, remove_vertex
from geoseg.vector.regions import label_regions
from geoseg.vector.rings import build_rings

MAPS = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=14), elements=st.integers(0, 3))
WALKS = st.lists(st.tuples(st.integers(1, 9), st.integers(-9, 9)), min_size=2, max_size=40)


def traced(classes):
    regions, class_of_region = label_regions(classes, classes > 0)
    return trace_arcs(regions), len(class_of_region) - 1


def check_coverage(arcs, count, valid_pixels):
    polygons = build_rings(arcs, count=count).to_polygons()
    assert shapely.is_valid(polygons).all()
    assert shapely.coverage_is_valid(polygons)
    assert shapely.is_empty(shapely.coverage_invalid_edges(polygons)).all()
    assert shapely.area(polygons).sum() == pytest.approx(valid_pixels, rel=1e-9)


def arcs_of(lines, *, closed=False, scale=1):
    """Arcs that meet nowhere, each with junctions of its own or closed, of two regions that are never put together."""
    sizes = [len(line) for line in lines]
    ends = np.full((len(lines), 2), -1) if closed else np.arange(2 * len(lines)).reshape(-1, 2)
    return Arcs(
        np.concatenate(lines).astype(np.int32), np.append(0, np.cumsum(sizes)), np.full(len(lines), 1, np.int32),
        np.full(len(lines), 2, np.int32), ends.astype(np.int32), np.zeros((len(lines), 2), np.uint8),
        0 if closed else 2 * len(lines), scale,
    )  # fmt: skip


def walk(steps, *, y=400):
    """A line that runs to the right: its chords meet it only in its vertices and crossings, never in a loop."""
    return np.cumsum([(0, y), *steps], axis=0)


def squared_distance(start, end, point):
    """Of a point from a segment, as a fraction: what is as far away is equal."""
    (x, y), (chord_x, chord_y) = (map(int, point - start), map(int, end - start))
    length = chord_x**2 + chord_y**2
    along = min(max(Fraction(x * chord_x + y * chord_y, length), 0), 1)
    return (x - along * chord_x) ** 2 + (y - along * chord_y) ** 2


def plain_douglas_peucker(line, tolerance):
    """Of several vertices as far away the one next to the middle of the line splits, of two of those the first."""
    ends = [tuple(line[0]), tuple(line[-1])]
    last = len(line) - 1
    far = [squared_distance(line[0], line[-1], point) for point in line[1:-1]]
    if max(far, default=0) < Fraction(tolerance) ** 2:
        return ends
    at = max(range(1, last), key=lambda vertex: (far[vertex - 1], -abs(2 * vertex - last), -vertex))
    return plain_douglas_peucker(line[: at + 1], tolerance)[:-1] + plain_douglas_peucker(line[at:], tolerance)


def plain_visvalingam(line, limit):
    line = [tuple(point) for point in line.tolist()]
    while len(line) > 2:
        areas = [shapely.Polygon(line[i - 1 : i + 2]).area for i in range(1, len(line) - 1)]
        if min(areas) >= limit:
            break
        del line[1 + int(np.argmin(areas))]
    return line


@settings(max_examples=150)
@given(WALKS, st.sampled_from([0.71, 1.93, 3.31, 8.11]))
@example(steps=[(1, 2), (1, 1), (1, 0), (1, 1)], tolerance=0.71)  # two vertices as far away
def test_douglas_peucker_of_a_free_line_is_the_plain_one(steps, tolerance):
    """Slow slopes, so that no removal has another vertex of the line in its triangle for good."""
    line = walk([(10 * dx, dy) for dx, dy in steps])
    found = simplify_arcs(arcs_of([line]), tolerance=tolerance, method="douglas-peucker")
    assert [tuple(point) for point in found.coords.tolist()] == plain_douglas_peucker(line, tolerance)


@settings(max_examples=150)
@given(WALKS, st.sampled_from([0.8, 2.2, 4.7]))
def test_visvalingam_of_a_free_line_is_the_plain_one(steps, tolerance):
    line = walk([(10 * dx, dy) for dx, dy in steps])
    found = simplify_arcs(arcs_of([line]), tolerance=tolerance)
    assert [tuple(point) for point in found.coords.tolist()] == plain_visvalingam(line, tolerance**2)


@pytest.mark.parametrize("turned", range(0, 12, 5))
def test_douglas_peucker_of_an_island_does_not_depend_on_where_it_begins(turned):
    angle = np.arange(48) * 2 * np.pi / 48
    ring = np.rint(200 + np.column_stack([150 * np.cos(angle), 70 * np.sin(angle)])).astype(int)
    found = []
    for start in (0, turned):
        line = np.roll(ring, -start, axis=0)
        arcs = arcs_of([np.vstack([line, line[:1]])], closed=True)
        found.append({tuple(p) for p in simplify_arcs(arcs, tolerance=6, method="douglas-peucker").coords.tolist()})
    assert found[0] == found[1]
    assert {(350, 200), (50, 200)} <= found[0]
    assert len(found[0]) < 20


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=150)
@given(MAPS, st.sampled_from([0.8, 1.1, 2.3, 30.0]), st.sampled_from([(1.0, 1.0), (0.5, 2.0)]))
def test_simplified_maps_are_coverages(method, classes, tolerance, pixel):
    arcs, count = traced(classes)
    simpler = simplify_arcs(arcs, tolerance=tolerance, pixel=pixel, method=method)
    check_coverage(simpler, count, np.count_nonzero(classes))
    before, after = ({tuple(point) for point in each.coords.tolist()} for each in (arcs, simpler))
    assert after <= before


@pytest.mark.parametrize("method", METHODS)
def test_what_is_in_the_way_keeps_a_vertex_and_lets_it_go_when_it_is_gone_itself(method):
    """Two arcs: the peak of the lower one reaches under the upper one, so the upper waits until the peak is gone."""
    upper, lower = [(0, 100), (50, 60), (100, 100)], [(0, 140), (50, 90), (100, 140)]
    both = arcs_of([upper, lower])
    assert len(simplify_arcs(both, tolerance=60, method=method).coords) == 4
    stays = both._replace(left=np.array([1, 0], np.int32))
    assert simplify_arcs(stays, tolerance=60, method=method).coords.tolist() == both.coords.tolist()


@pytest.mark.parametrize(
    ("method", "pixel", "stays", "goes"),
    [
        ("visvalingam", (1.0, 2.0), 5.47, 5.48),  # a triangle of 30 m by 2 m
        ("visvalingam", (2.0, 1.0), 5.47, 5.48),
        ("douglas-peucker", (1.0, 2.0), 0.99, 1.0),  # half of a step of 2 m
        ("douglas-peucker", (2.0, 1.0), 0.49, 0.5),
    ],
)
def test_a_pixels_sides_count_in_the_unit_of_the_tolerance(method, pixel, stays, goes):
    arcs = arcs_of([[(0, 9), (30, 9), (30, 10), (60, 10)]])
    assert len(simplify_arcs(arcs, tolerance=stays, pixel=pixel, method=method).coords) == 4
    assert len(simplify_arcs(arcs, tolerance=goes, pixel=pixel, method=method).coords) == 2


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=40)
@given(MAPS)
def test_finer_units_change_nothing(method, classes):
    arcs, _ = traced(classes)
    fine = arcs._replace(coords=arcs.coords * np.int32(256), scale=256)
    plain, scaled = (simplify_arcs(each, tolerance=1.7, method=method) for each in (arcs, fine))
    assert (plain.coords * 256).tolist() == scaled.coords.tolist()


@pytest.mark.parametrize(("beside", "stays"), [((25_600_000, 25_600_100), True), ((25_600_001, 25_600_101), False)])
def test_coordinates_far_out_are_exact(beside, stays):
    """A map of 200,000 pixels, in 1/256: what lies on a chord of all its width is in the way, one unit beside is not.

    The chord is y = x + 100, so the second place is put one unit below it.
    """
    if not stays:
        beside = (beside[0], beside[1] - 1)
    line = [(0, 100), (1_000, 51_000_000), (51_200_000, 51_200_100)]
    arcs = arcs_of([line, [beside, (51_200_000, 0)]], scale=256)._replace(left=np.array([1, 0], np.int32))
    assert holds(arcs, *line) is stays
    assert len(simplify_arcs(arcs, tolerance=1e6).coords) == (5 if stays else 4)


def holds(arcs, a, b, c):
    index = index_vertices(arcs)
    return bool(holds_vertex(index.starts, index.entries, (index.shift, index.cols), a, b, c))


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=5, max_size=60, unique=True), st.data())
def test_the_index_finds_what_a_look_at_all_finds(places, data):
    arcs = arcs_of([places])
    index = index_vertices(arcs)
    grid = (index.shift, index.cols)
    for gone in places[3 : data.draw(st.integers(3, len(places)))]:
        remove_vertex(index.starts, index.entries, grid, gone)
        places = [place for place in places if place != gone]
    a, b, c = places[:3]
    triangle = shapely.convex_hull(shapely.MultiPoint([a, b, c]))
    expected = bool(shapely.intersects(triangle, shapely.points(places[3:])).any()) if places[3:] else False
    assert bool(holds_vertex(index.starts, index.entries, grid, a, b, c)) is expected


@pytest.mark.parametrize("method", METHODS)
def test_islands_keep_four_corners(method):
    classes = np.ones((9, 9), np.uint8)
    classes[2, 2] = 2
    classes[4:8, 4:8] = 3
    classes[5:7, 7] = 1
    arcs, count = traced(classes)
    simpler = simplify_arcs(arcs, tolerance=50, method=method)
    check_coverage(simpler, count, 81)
    assert (np.diff(simpler.offsets)[simpler.junctions[:, 0] < 0] == 5).sum() >= 2


def test_nothing_to_do_is_done_at_once():
    arcs, _ = traced(np.ones((4, 5), np.uint8))
    assert simplify_arcs(arcs, tolerance=2.0) is arcs
    assert simplify_arcs(arcs, tolerance=0) is arcs


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tolerance": 1.0, "method": "reumann"}, "'reumann'.*visvalingam, douglas-peucker"),
        ({"tolerance": -1.0}, "0 or more, got -1.0"),
        ({"tolerance": float("nan")}, "got nan"),
        ({"tolerance": 1.0, "pixel": (0.0, 1.0)}, "above 0, got 0.0 x 1.0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, said):
    arcs, _ = traced(np.eye(3, dtype=np.uint8) + 1)
    with pytest.raises(InputError, match=said):
        simplify_arcs(arcs, **options)


@pytest.mark.parametrize("tolerance", [0.5, 2.0], ids=["every step stays", "none does"])
def test_a_long_staircase_takes_no_longer_than_its_length(tolerance):
    """All its corners are as far from the line: whichever splits it should leave two halves."""
    steps = np.arange(200_001)
    stairs = arcs_of([np.column_stack([(steps + 1) // 2, steps // 2])])
    simplify_arcs(arcs_of([walk([(1, 1), (1, -1)])]), tolerance=1, method="douglas-peucker")  # compiles
    start = time.perf_counter()
    thin = simplify_arcs(stairs, tolerance=tolerance, method="douglas-peucker")
    assert time.perf_counter() - start < 5
    assert (len(thin.coords) == 2) is (tolerance == 2.0)
