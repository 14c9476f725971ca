"""Areas against equal-area projections and published figures, perimeters against geodesics."""

import logging

import numpy as np
import pyproj
import pytest
from affine import Affine
from numpy.polynomial import chebyshev
from odc.geo.geobox import GeoBox

from geoseg.errors import GridError
from geoseg.vector.attributes import arc_measures, region_measures
from geoseg.vector.coverage import Arcs, trace_arcs
from geoseg.vector.metric import fit_metric
from geoseg.vector.regions import label_regions

GRIDS = {
    "UTM": GeoBox((40, 60), Affine(30, 0, 250_000, 0, -30, 6_000_000), "EPSG:32632"),
    "UTM, 100 km": GeoBox((40, 60), Affine(2500, 0, 200_000, 0, -2500, 7_000_000), "EPSG:32632"),
    "rotated": GeoBox((40, 60), Affine(25, 9, 500_000, 8, -26, 4_000_000), "EPSG:32612"),
    "south up": GeoBox((40, 60), Affine(10, 0, 500_000, 0, 10, 4_000_000), "EPSG:32712"),
    "degrees, not square": GeoBox((40, 60), Affine(2e-4, 0, -76.5, 0, -1e-4, 34.7), "EPSG:4326"),
    "Web Mercator": GeoBox((40, 60), Affine(300, 0, 1_000_000, 0, -300, 9_000_000), "EPSG:3857"),
    "over 180°": GeoBox((40, 60), Affine(100, 0, 820_000, 0, -100, 200_000), "EPSG:32660"),
    "on a pole": GeoBox((40, 60), Affine(1000, 0, -30_000, 0, -1000, 20_000), "EPSG:3413"),
    "equal-area": GeoBox((40, 60), Affine(100, 0, 4_000_000, 0, -100, 3_000_000), "EPSG:3035"),
    "feet": GeoBox((40, 60), Affine(50, 0, 1_000_000, 0, -50, 700_000), "EPSG:2264"),
}


def patches(shape=(40, 60), seed=1):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 4, (shape[0] // 4, shape[1] // 4)).repeat(4, 0).repeat(4, 1)
    classes = np.where(rng.random(shape) < 0.1, 1, coarse).astype(np.uint8)
    return label_regions(classes, classes > 0)


def exact():
    """Arcs as traced, and the number of regions."""
    regions, class_of_region = patches()
    return trace_arcs(regions), len(class_of_region) - 1


def aslant():
    """The same with every turn moved by up to a third of a pixel; junctions and borders with nodata stay."""
    arcs, count = exact()
    fixed = np.isin(np.arange(len(arcs.coords)), np.concatenate([arcs.offsets[:-1], arcs.offsets[1:] - 1]))
    outer = np.repeat((arcs.left == 0) | (arcs.right == 0), np.diff(arcs.offsets))
    shift = np.random.default_rng(3).integers(-85, 86, arcs.coords.shape).astype(np.int32)
    shift[fixed | outer] = 0
    return arcs._replace(coords=arcs.coords * 256 + shift, scale=256), count


def triangles(shape):
    """Two triangles that a rectangle is cut into: long edges."""
    rows, cols = shape
    corners = {"nw": (0, 0), "ne": (cols, 0), "se": (cols, rows), "sw": (0, rows)}
    coords = np.array([corners[at] for at in ("nw", "se", "nw", "ne", "se", "nw", "sw", "se")], np.int32)
    left, right = np.array([1, 0, 2], np.int32), np.array([2, 1, 0], np.int32)
    ends, headings = np.array([[0, 1]] * 3, np.int32), np.zeros((3, 2), np.uint8)
    return Arcs(coords, np.array([0, 2, 5, 8]), left, right, ends, headings, 2), 2


DRAWINGS = {"exact": exact, "aslant": aslant, "long": lambda: triangles((40, 60))}


def edges_of(arcs):
    """Start and end of each edge in pixels, and its arc."""
    arc = np.repeat(np.arange(len(arcs.left)), np.diff(arcs.offsets))
    inner = np.flatnonzero(arc[1:] == arc[:-1])
    coords = arcs.coords / arcs.scale
    return coords[inner], coords[inner + 1], arc[inner]


def lonlat(geobox, xy):
    transform, shape = geobox.affine, xy.shape[:-1]
    east, north = np.stack(transform @ xy.reshape(-1, 2).T)
    way = pyproj.Transformer.from_crs(geobox.crs.proj, geobox.crs.proj.geodetic_crs, always_xy=True)
    return np.stack(way.transform(east, north), axis=-1).reshape(*shape, 2)


def by_region(arcs, count, of_arc, *, signs):
    out = np.zeros(count + 1)
    np.add.at(out, arcs.left, signs[0] * of_arc)
    np.add.at(out, arcs.right, signs[1] * of_arc)
    return out[1:]


def equal_area(geobox, ground):
    """Points in an equal-area projection about the middle of the scene."""
    lon, lat = lonlat(geobox, np.array([geobox.shape[1] / 2, geobox.shape[0] / 2]))
    ellipsoid = geobox.crs.proj.ellipsoid
    plane = pyproj.Proj(proj="laea", lon_0=lon, lat_0=lat, a=ellipsoid.semi_major_metre, b=ellipsoid.semi_minor_metre)
    return np.stack(plane(ground[..., 0], ground[..., 1]), axis=-1)


@pytest.mark.parametrize("drawing", DRAWINGS)
@pytest.mark.parametrize("name", GRIDS)
def test_area_is_that_in_an_equal_area_projection(name, drawing):
    """Each edge there is a polynomial through ten points; the integral of x dy is that of a polynomial.

    PROJ's equal-area projection is good to the root of the rounding error at a pole itself, and no better.
    """
    geobox, (arcs, count) = GRIDS[name], DRAWINGS[drawing]()
    start, end, arc = edges_of(arcs)
    nodes = chebyshev.chebpts2(10)
    points = start[:, None] + (end - start)[:, None] * (nodes[:, None] + 1) / 2
    plane = equal_area(geobox, lonlat(geobox, points))
    series = chebyshev.chebfit(nodes, plane.transpose(1, 2, 0).reshape(10, -1), 9).reshape(10, 2, -1)
    gauss, weights = np.polynomial.legendre.leggauss(12)
    x, dy = chebyshev.chebval(gauss, series[:, 0]), chebyshev.chebval(gauss, chebyshev.chebder(series[:, 1]))
    of_arc = np.bincount(arc, weights=(x * dy) @ weights, minlength=len(arcs.left))
    expected = by_region(arcs, count, of_arc, signs=(1, -1))
    metric = fit_metric(geobox)
    areas, _ = region_measures(arcs, metric, count=count)
    np.testing.assert_allclose(areas[1:], np.abs(expected), rtol=2e-7 if name == "on a pole" else 1e-9)
    assert metric.unit == "m"


@pytest.mark.parametrize("drawing", DRAWINGS)
@pytest.mark.parametrize("name", [name for name in GRIDS if name != "on a pole"])
def test_perimeter_is_that_of_geodesics_between_close_points(name, drawing):
    geobox, (arcs, count) = GRIDS[name], DRAWINGS[drawing]()
    start, end, arc = edges_of(arcs)
    metric = fit_metric(geobox)
    # Pieces of 400 m differ from geodesics by 1e-10, and shorter ones are measured less well.
    pieces = np.ceil(np.linalg.norm(end - start, axis=1) * max(metric.pixel_size()) / 400).astype(int)
    edge = np.repeat(np.arange(len(arc)), pieces)
    at = (np.arange(len(edge)) - (np.cumsum(pieces) - pieces)[edge])[:, None]
    here, there = (
        lonlat(geobox, start[edge] + (end - start)[edge] * step / pieces[edge, None]) for step in (at, at + 1)
    )
    _, _, steps = geobox.crs.proj.get_geod().inv(*here.T, *there.T)
    of_arc = np.bincount(arc[edge], weights=steps, minlength=len(arcs.left))
    _, perimeters = region_measures(arcs, metric, count=count)
    np.testing.assert_allclose(perimeters[1:], by_region(arcs, count, of_arc, signs=(1, 1)), rtol=1e-9)


def whole(geobox):
    ones = np.ones(geobox.shape, np.int32)
    areas, perimeters = region_measures(trace_arcs(ones), fit_metric(geobox), count=1)
    return areas[1], perimeters[1]


def earth_between(south, north):
    """Area of the ellipsoid WGS 84 between two latitudes: Snyder, Map Projections (1987), eq. 3-12."""
    e2 = 0.0066943799901413165
    e, sine = np.sqrt(e2), np.sin(np.radians([south, north]))
    q = (1 - e2) * (sine / (1 - e2 * sine**2) + np.arctanh(e * sine) / e)
    return np.pi * 6_378_137**2 * (q[1] - q[0])


def test_the_earth_has_its_published_area():
    """510,065,621.724 km² for WGS 84: Karney, Algorithms for geodesics, J. Geodesy 87 (2013), as in GeographicLib."""
    area, _ = whole(GeoBox((180, 360), Affine(1, 0, -180, 0, -1, 90), "EPSG:4326"))
    assert area == pytest.approx(510_065_621.724e6, rel=1e-9)


def test_a_world_map_in_web_mercator_has_the_area_of_its_ground(caplog):
    """A zone from the equator to a latitude: Snyder, Map Projections (1987), eq. 3-12, at ±85.0511° by eq. 7-7."""
    side = 20_037_508.342789244
    area, _ = whole(GeoBox((64, 64), Affine(side / 32, 0, -side, 0, -side / 32, side), "EPSG:3857"))
    lat = pyproj.Transformer.from_crs(3857, 4326, always_xy=True).transform(0, side)[1]
    assert area == pytest.approx(earth_between(-lat, lat), rel=1e-8)
    assert not caplog.records


@pytest.mark.parametrize("height", [-1, 1])
@pytest.mark.parametrize("step", [1, 2.5, 20])
def test_pixels_on_the_poles_have_the_area_up_to_them(step, height):
    """Grids of weather models have pixels centred on the poles: half of these lies beyond."""
    rows, cols = round(180 / step) + 1, round(360 / step)
    geobox = GeoBox((rows, cols), Affine(step, 0, -180, 0, height * step, -height * (90 + step / 2)), "EPSG:4326")
    area, _ = whole(geobox)
    assert area == pytest.approx(earth_between(-90, 90), rel=1e-9)
    bands = np.minimum(np.arange(rows, dtype=np.int32) + 1, 3)[:, None].repeat(cols, 1)
    areas, perimeters = region_measures(trace_arcs(bands), fit_metric(geobox), count=3)
    cap = earth_between(90 - step / 2, 90)
    np.testing.assert_allclose(areas[1:3], [cap, earth_between(90 - 1.5 * step, 90) - cap], rtol=1e-5)
    geod = pyproj.Geod(ellps="WGS84")
    upright = 2 * geod.line_length([0, 0], [90, 90 - step / 2])
    parallel = 6_378_137 / np.sqrt(1 - 0.00669437999014 * np.cos(np.radians(step / 2)) ** 2)
    assert perimeters[1] == pytest.approx(upright + 2 * np.pi * parallel * np.sin(np.radians(step / 2)), rel=1e-5)


def test_a_simplified_drawing_on_the_poles_covers_the_earth():
    arcs, count = triangles((181, 360))
    metric = fit_metric(GeoBox((181, 360), Affine(1, 0, -180.5, 0, -1, 90.5), "EPSG:4326"))
    areas, _ = region_measures(arcs._replace(coords=arcs.coords * 256, scale=256), metric, count=count)
    assert areas[1:].sum() == pytest.approx(earth_between(-90, 90), rel=1e-9)


def test_a_line_through_the_middle_of_the_world_halves_it():
    """The halves are turned about the point at longitude 0 and latitude 0."""
    arcs, count = triangles((180, 360))
    areas, _ = region_measures(
        arcs, fit_metric(GeoBox((180, 360), Affine(1, 0, -180, 0, -1, 90), "EPSG:4326")), count=count
    )
    np.testing.assert_allclose(areas[1:], 510_065_621.724e6 / 2, rtol=1e-9)


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


def test_ground_that_no_series_fits_is_refused_and_not_measured_in_a_false_plane():
    side = 60_000_000  # some meters from the poles
    with pytest.raises(GridError, match="Pseudo-Mercator.*equal-area"):
        fit_metric(GeoBox((64, 64), Affine(side / 32, 0, -side, 0, -side / 32, side), "EPSG:3857"))


def test_a_plane_that_keeps_areas_is_taken_where_no_series_fits_the_ground(caplog):
    """EASE-Grid 2.0, global: 1,388 by 584 cells of 25 km, Brodzik et al., ISPRS Int. J. Geo-Inf. 1 (2012)."""
    cell = 25_025.26
    geobox = GeoBox((584, 1388), Affine(cell, 0, -694 * cell, 0, -cell, 292 * cell), "EPSG:6933")
    area, _ = whole(geobox)
    assert area == pytest.approx(584 * 1388 * cell**2)
    assert "plane" in caplog.text


def test_no_crs_is_measured_in_pixels():
    geobox = GeoBox((3, 5), Affine(10, 0, 0, 0, -10, 0), None)
    assert fit_metric(geobox).unit == "px"
    assert whole(geobox) == pytest.approx((15, 16), rel=1e-14)


def test_groups_are_measured_without_the_borders_inside_them():
    regions, class_of_region = patches(seed=2)
    metric = fit_metric(GRIDS["rotated"])
    groups = (class_of_region > 0).astype(np.int32) + (class_of_region == 2)
    found = region_measures(trace_arcs(regions), metric, count=2, groups=groups)
    direct = region_measures(trace_arcs(groups[regions]), metric, count=2)
    np.testing.assert_allclose(np.array(found)[:, 1:], np.array(direct)[:, 1:], rtol=1e-12)


def test_each_arc_is_measured_once():
    regions, class_of_region = patches(seed=2)
    arcs, metric = trace_arcs(regions), fit_metric(GRIDS["UTM"])
    areas, lengths = arc_measures(arcs, metric)
    of_regions = region_measures(arcs, metric, count=len(class_of_region) - 1)
    outline = (arcs.left == 0).astype(int) - (arcs.right == 0)
    assert of_regions[0][1:].sum() == pytest.approx((areas * outline).sum(), rel=1e-12)
    assert of_regions[1].sum() == pytest.approx(2 * lengths.sum(), rel=1e-12)


def test_a_finer_scale_is_no_other_drawing():
    arcs, count = exact()
    metric = fit_metric(GRIDS["rotated"])
    finer = region_measures(arcs._replace(coords=arcs.coords * 256, scale=256), metric, count=count)
    np.testing.assert_array_equal(finer, region_measures(arcs, metric, count=count))


def test_latitudes_beyond_the_pole_are_refused():
    geobox = GeoBox((10, 10), Affine(1, 0, 0, 0, -1, 95), "EPSG:4326")
    with pytest.raises(GridError, match="WGS 84"):
        fit_metric(geobox)


def test_edge_weights_follow_the_pixel_shape():
    assert fit_metric(GRIDS["UTM"]).edge_weights() == (1000, 1000)
    across, along = fit_metric(GRIDS["degrees, not square"]).edge_weights()
    assert across / along == pytest.approx(2 * np.cos(np.radians(34.698)), rel=0.01)
