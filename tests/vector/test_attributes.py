"""Areas against equal-area projections and published figures, perimeters against geodesics."""

import logging

import numpy as np
import pyproj
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from geoseg.errors import GridError
from geoseg.vector.attributes import fit_metric, measure_arcs, measure_regions
from geoseg.vector.coverage import trace_arcs
from geoseg.vector.regions import label_regions
from geoseg.vector.rings import build_rings
from geoseg.vector.simplify import simplify_arcs

LAMBERT = "+proj=laea +lat_0={lat} +lon_0={lon} +ellps=WGS84"
GRIDS = {
    "UTM": GeoBox((40, 60), Affine(30, 0, 250_000, 0, -30, 6_000_000), "EPSG:32632"),
    "UTM, 100 km": GeoBox((40, 60), Affine(2500, 0, 200_000, 0, -2500, 7_000_000), "EPSG:32632"),
    "rotated": GeoBox((40, 60), Affine(25, 9, 500_000, 8, -26, 4_000_000), "EPSG:32612"),
    "south up": GeoBox((40, 60), Affine(10, 0, 500_000, 0, 10, 4_000_000), "EPSG:32712"),
    "degrees, not square": GeoBox((40, 60), Affine(2e-4, 0, -76.5, 0, -1e-4, 34.7), "EPSG:4326"),
    "Web Mercator": GeoBox((40, 60), Affine(300, 0, 1_000_000, 0, -300, 9_000_000), "EPSG:3857"),
    "over 180°": GeoBox((40, 60), Affine(100, 0, 820_000, 0, -100, 200_000), "EPSG:32660"),
    "on a pole": GeoBox((40, 60), Affine(1000, 0, -30_000, 0, -1000, 20_000), "EPSG:3413"),
    "feet": GeoBox((40, 60), Affine(50, 0, 1_000_000, 0, -50, 700_000), "EPSG:2264"),
}


def patches(shape=(40, 60), seed=1):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 4, (shape[0] // 4, shape[1] // 4)).repeat(4, 0).repeat(4, 1)
    classes = np.where(rng.random(shape) < 0.1, 1, coarse).astype(np.uint8)
    return label_regions(classes, classes > 0)


def on_ground(polygons, geobox, pieces):
    """Longitudes and latitudes of the polygons, whose edges are cut into short pieces while they are straight."""
    transform = geobox.affine
    dense = shapely.segmentize(polygons, pieces)
    there = shapely.transform(dense, lambda xy: np.column_stack(transform @ xy.T))
    way = pyproj.Transformer.from_crs(geobox.crs.proj, geobox.crs.proj.geodetic_crs, always_xy=True)
    return shapely.transform(there, lambda xy: np.column_stack(way.transform(*xy.T)))


@pytest.mark.parametrize("name", GRIDS)
def test_area_is_that_in_an_equal_area_projection(name):
    geobox = GRIDS[name]
    regions, class_of_region = patches()
    count = len(class_of_region) - 1
    arcs = simplify_arcs(trace_arcs(regions), min_triangle=1.0)
    metric = fit_metric(geobox)
    areas, _ = measure_arcs(arcs, metric, count=count)
    ground = on_ground(build_rings(arcs, count=count).to_polygons(), geobox, 0.02)
    centre = shapely.get_coordinates(ground)[0]
    ellipsoid = geobox.crs.proj.ellipsoid
    equal_area = pyproj.Proj(
        proj="laea", lon_0=centre[0], lat_0=centre[1], a=ellipsoid.semi_major_metre, b=ellipsoid.semi_minor_metre
    )
    expected = shapely.area(shapely.transform(ground, lambda xy: np.column_stack(equal_area(*xy.T))))
    np.testing.assert_allclose(areas[1:], expected, rtol=1e-6)
    assert metric.unit == "m"


@pytest.mark.parametrize("name", ["UTM", "rotated", "degrees, not square", "Web Mercator", "over 180°"])
def test_perimeter_is_that_of_geodesics_between_close_points(name):
    geobox = GRIDS[name]
    regions, class_of_region = patches()
    count = len(class_of_region) - 1
    arcs = trace_arcs(regions)
    _, perimeters = measure_arcs(arcs, fit_metric(geobox), count=count)
    ground = on_ground(build_rings(arcs, count=count).to_polygons(), geobox, 0.5)
    geod = geobox.crs.proj.get_geod()
    expected = [
        sum(geod.line_length(*ring.xy) for ring in (polygon.exterior, *polygon.interiors)) for polygon in ground
    ]
    np.testing.assert_allclose(perimeters[1:], expected, rtol=1e-7)


@pytest.mark.parametrize("name", GRIDS)
def test_pixels_and_outlines_have_the_same_area(name):
    metric = fit_metric(GRIDS[name])
    regions, class_of_region = patches(seed=2)
    count = len(class_of_region) - 1
    areas, _ = measure_arcs(trace_arcs(regions), metric, count=count)
    np.testing.assert_allclose(measure_regions(regions, metric, count=count)[1:], areas[1:], rtol=1e-11)


def whole(geobox):
    ones = np.ones(geobox.shape, np.int32)
    areas, perimeters = measure_arcs(trace_arcs(ones), fit_metric(geobox), count=1)
    return areas[1], perimeters[1]


def test_the_earth_has_its_published_area():
    """510,065,621.724 km² for WGS 84: Karney, Algorithms for geodesics, J. Geodesy 87 (2013), as in GeographicLib."""
    area, _ = whole(GeoBox((180, 360), Affine(1, 0, -180, 0, -1, 90), "EPSG:4326"))
    assert area == pytest.approx(510_065_621.724e6, rel=1e-9)


def test_a_meridian_has_its_published_length():
    """A quarter of the WGS 84 meridian is 10,001,965.729 m, a degree of its equator 111,319.4908 m."""
    _, perimeter = whole(GeoBox((90, 1), Affine(1, 0, 0, 0, -1, 90), "EPSG:4326"))
    assert perimeter == pytest.approx(2 * 10_001_965.729 + 111_319.4908, abs=0.01)


def test_an_equal_area_crs_keeps_its_own_area():
    area, _ = whole(GeoBox((500, 700), Affine(100, 0, 4_000_000, 0, -100, 3_000_000), "EPSG:3035"))
    assert area == pytest.approx(500 * 700 * 1e4, rel=1e-9)


def test_a_world_map_whose_corners_are_off_the_earth(caplog):
    geobox = GeoBox((180, 360), Affine(111_200, 0, -20_016_000, 0, -111_200, 10_008_000), "ESRI:54009")
    with caplog.at_level(logging.WARNING):
        area, _ = whole(geobox)
    assert area == pytest.approx(180 * 360 * 111_200**2)
    assert "plane" in caplog.text


def test_no_crs_is_measured_in_pixels():
    geobox = GeoBox((3, 5), Affine(10, 0, 0, 0, -10, 0), None)
    assert fit_metric(geobox).unit == "px"
    assert whole(geobox) == pytest.approx((15, 16), rel=1e-14)


def test_latitudes_beyond_the_pole_are_refused():
    geobox = GeoBox((10, 10), Affine(1, 0, 0, 0, -1, 95), "EPSG:4326")
    with pytest.raises(GridError, match="WGS 84"):
        fit_metric(geobox)


def test_edge_weights_follow_the_pixel_shape():
    assert fit_metric(GRIDS["UTM"]).edge_weights() == (1000, 1000)
    across, along = fit_metric(GRIDS["degrees, not square"]).edge_weights()
    assert across / along == pytest.approx(2 * np.cos(np.radians(34.698)), rel=0.01)
