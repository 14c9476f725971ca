"""Right angles for things: true shapes are found again, and whatever is near stays what it was."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasterio.features import rasterize
from shapely import affinity

from geoseg.errors import InputError
from geoseg.vector.coverage import trace_arcs
from geoseg.vector.lines.regularize import regularize_arcs
from geoseg.vector.lines.simplify import simplify_arcs
from geoseg.vector.lines.smooth import smooth_arcs
from geoseg.vector.regions import label_regions
from geoseg.vector.rings import build_rings

SHAPES = {
    "rectangle": shapely.box(0, 0, 22, 11),
    "L": shapely.Polygon([(0, 0), (20, 0), (20, 8), (9, 8), (9, 18), (0, 18)]),
    "U": shapely.Polygon([(0, 0), (24, 0), (24, 20), (16, 20), (16, 8), (8, 8), (8, 20), (0, 20)]),
}
BEFORE = {
    "traced": lambda arcs: arcs,
    "smoothed": smooth_arcs,
    "simplified": lambda arcs: simplify_arcs(arcs, tolerance=1.2, method="douglas-peucker"),
}


def traced(classes):
    regions, class_of_region = label_regions(classes, classes > 0)
    return trace_arcs(regions), class_of_region


def scene(*shapes, size=70, background=1):
    return rasterize([(shape, 2) for shape in shapes], (size, size), dtype="uint8", fill=background)


def things_of(class_of_region):
    return class_of_region == 2


def rings_of(arcs, which):
    return [arcs.coords[arcs.offsets[i] : arcs.offsets[i + 1]] / arcs.scale for i in which]


def inner(arcs):
    return np.flatnonzero((arcs.left > 0) & (arcs.right > 0))


def check_coverage(arcs, count, valid_pixels):
    polygons = build_rings(arcs, count=count).to_polygons()
    assert shapely.is_valid(polygons).all()
    assert shapely.coverage_is_valid(polygons)
    assert shapely.is_empty(shapely.coverage_invalid_edges(polygons)).all()
    assert shapely.area(polygons).sum() == pytest.approx(valid_pixels, rel=1e-9)


def check_right_angles(ring, pixel=(1.0, 1.0)):
    """Each corner is 90° but for the rounding of its ends to 1/256 pixel."""
    edges = np.diff(np.vstack([ring, ring[1:2]]) * pixel, axis=0)
    lengths = np.hypot(*edges.T)
    cosines = (edges[1:] * edges[:-1]).sum(1) / (lengths[1:] * lengths[:-1])
    assert (abs(cosines) <= 2 * max(pixel) / 256 * (1 / lengths[1:] + 1 / lengths[:-1])).all()


def iou(first, second):
    return shapely.area(first & second) / shapely.area(first | second)


def unchanged(before, after):
    return (before.coords * (after.scale // before.scale)).tolist() == after.coords.tolist()


@pytest.mark.parametrize("before", ["traced", "smoothed"])
@pytest.mark.parametrize("angle", [0, 7, 15, 22.5, 33, 45, 61, 80])
@pytest.mark.parametrize("name", SHAPES)
def test_turned_shapes_are_found_again(name, angle, before):
    truth = affinity.translate(affinity.rotate(SHAPES[name], angle, origin=(0, 0)), 30.3, 20.7)
    classes = scene(truth)
    arcs, class_of_region = traced(classes)
    regular = regularize_arcs(BEFORE[before](arcs), things_of(class_of_region), tolerance=2.0)
    (ring,), (stairs,) = (rings_of(each, inner(each)) for each in (regular, arcs))
    assert len(ring) == len(SHAPES[name].exterior.coords)
    check_right_angles(ring)
    assert iou(shapely.Polygon(ring), truth) >= iou(shapely.Polygon(stairs), truth) - 0.005
    check_coverage(regular, len(class_of_region) - 1, classes.size)


def test_right_angles_are_right_on_the_ground():
    """Pixels twice as high as wide: a turned square on the ground is none in pixels."""
    pixel = (0.5, 1.0)
    truth = affinity.translate(affinity.rotate(shapely.box(0, 0, 16, 12), 28, origin=(0, 0)), 16, 8)
    classes = scene(affinity.scale(truth, 2, 1, origin=(0, 0)))
    arcs, class_of_region = traced(classes)
    regular = regularize_arcs(arcs, things_of(class_of_region), pixel=pixel, tolerance=2.0)
    (ring,) = rings_of(regular, inner(regular))
    check_right_angles(ring, pixel)
    assert iou(shapely.Polygon(ring * pixel), truth) > 0.96


def test_a_courtyard_gets_right_angles_too():
    walls = affinity.rotate(shapely.box(10, 10, 55, 50) - shapely.box(24, 22, 42, 36), 12)
    arcs, class_of_region = traced(scene(walls))
    regular = regularize_arcs(arcs, things_of(class_of_region), tolerance=2.0)
    rings = rings_of(regular, inner(regular))
    assert [len(ring) for ring in rings] == [5, 5]
    for ring in rings:
        check_right_angles(ring)
    check_coverage(regular, len(class_of_region) - 1, 4900)


def test_what_is_no_thing_is_left():
    arcs, class_of_region = traced(scene(affinity.rotate(shapely.box(10, 10, 40, 30), 20)))
    assert unchanged(arcs, regularize_arcs(arcs, np.zeros(len(class_of_region), bool), tolerance=2.0))


def test_a_thing_in_nodata_or_between_two_regions_is_left():
    shape = affinity.rotate(shapely.box(10, 10, 40, 30), 20)
    alone, between = scene(shape, background=0), scene(shape)
    between[:20][between[:20] == 1] = 3
    for classes in (alone, between):
        arcs, class_of_region = traced(classes)
        assert unchanged(arcs, regularize_arcs(arcs, things_of(class_of_region), tolerance=2.0))


def test_a_round_thing_is_left():
    col, row = np.meshgrid(np.arange(70), np.arange(70))
    ring = (abs(np.hypot(col - 35, row - 35) - 25) < 3) & ~((abs(row - 35) < 6) & (col > 35))
    arcs, class_of_region = traced(np.where(ring, 2, 1).astype(np.uint8))
    regular = regularize_arcs(arcs, things_of(class_of_region), tolerance=40.0)
    assert unchanged(arcs, regular)


def test_what_a_new_edge_would_swallow_keeps_the_old_one():
    """A pixel of another class in a notch that a straight edge would pass over, without touching it."""
    shape = shapely.box(10, 10, 50, 40) - shapely.box(28, 10, 31, 13)
    classes = scene(shape)
    arcs, class_of_region = traced(classes)
    regular = regularize_arcs(arcs, things_of(class_of_region), tolerance=4.0)
    assert len(rings_of(regular, inner(regular))[0]) == 5
    classes[11, 29] = 3
    arcs, class_of_region = traced(classes)
    regular = regularize_arcs(arcs, things_of(class_of_region), tolerance=4.0)
    assert unchanged(arcs, regular)
    check_coverage(regular, len(class_of_region) - 1, classes.size)


@pytest.mark.parametrize("before", BEFORE)
@settings(max_examples=60)
@given(
    hnp.arrays(np.uint8, (7, 8), elements=st.integers(1, 3)),
    hnp.arrays(np.uint8, (21, 24), elements=st.sampled_from([9] * 12 + [0, 1, 2, 3])),
    st.sampled_from([0.0, 1.0, 3.0]),
)
def test_random_maps_stay_coverages(before, coarse, noise, tolerance):
    classes = np.where(noise == 9, coarse.repeat(3, 0).repeat(3, 1), noise)
    arcs, class_of_region = traced(classes)
    regular = regularize_arcs(BEFORE[before](arcs), things_of(class_of_region), tolerance=tolerance)
    check_coverage(regular, len(class_of_region) - 1, np.count_nonzero(classes))


@pytest.mark.parametrize("seed", range(6))
def test_crowded_things_stay_a_coverage(seed):
    """Turned boxes a pixel or two apart, some with courtyards: new edges of neighbours compete for the room."""
    rng = np.random.default_rng(seed)
    boxes = [
        affinity.rotate(shapely.box(x + 1, y + 1, x + rng.uniform(6, 13), y + rng.uniform(6, 13)), rng.uniform(0, 90))
        for x in range(0, 126, 14)
        for y in range(0, 126, 14)
    ]
    classes = scene(*boxes, size=128)
    classes[rng.random(classes.shape) < 0.02] = 3
    arcs, class_of_region = traced(classes)
    once, again = (regularize_arcs(arcs, things_of(class_of_region), tolerance=2.0) for _ in range(2))
    assert len(once.coords) < len(arcs.coords)
    np.testing.assert_array_equal(once.coords, again.coords)
    check_coverage(once, len(class_of_region) - 1, classes.size)


def test_real_buildings_get_few_corners(shared_data):
    geopandas = pytest.importorskip("geopandas")
    buildings = geopandas.read_file(shared_data / "buildings" / "massachusetts_buildings.gpkg").geometry
    x, y = (low - 200 for low in buildings.iloc[0].bounds[:2])
    near = [
        affinity.affine_transform(each, [1, 0, 0, -1, -x, y + 420]) for each in buildings.cx[x : x + 420, y : y + 420]
    ]
    classes = scene(*near, size=420)
    arcs, class_of_region = traced(classes)
    regular = regularize_arcs(arcs, things_of(class_of_region), tolerance=2.0)
    check_coverage(regular, len(class_of_region) - 1, classes.size)
    assert len(near) > 50
    assert len(regular.coords) < 0.4 * len(arcs.coords)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"tolerance": -2.0}, "0 or more, got -2.0"), ({"tolerance": 1.0, "pixel": (1.0, 0.0)}, "above 0, got 1.0 x 0.0")],
)
def test_options_that_make_no_sense_are_refused(options, said):
    arcs, class_of_region = traced(scene(shapely.box(10, 10, 30, 30)))
    with pytest.raises(InputError, match=said):
        regularize_arcs(arcs, things_of(class_of_region), **options)
