"""Polygons that the antimeridian, a pole or the edge of a projection cuts, against their pixels asked one by one."""

from __future__ import annotations

import sqlite3
from functools import cache

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from shapely.geometry import shape

from geoseg.errors import GridError, InputError
from geoseg.io.burning import burn, near
from geoseg.io.grids import crop, transform
from geoseg.io.moving import world_of
from geoseg.io.polygons import PolygonFile, Polygons, from_geometry, onto_crs
from geoseg.io.regions import open_area, region_geojson, region_mask
from geoseg.tiling import Window

LONLAT, FIJI, ARCTIC = CRS("EPSG:4326"), CRS("EPSG:32760"), CRS("EPSG:3413")
MOLLWEIDE = CRS("ESRI:54009")


def degrees(rows, cols, west, north, step):
    return GeoBox((rows, cols), Affine(step, 0, west, 0, -step, north), LONLAT)


def world_in(name, left, top, step):
    rows, cols = round(2 * top / step), round(-2 * left / step)
    return GeoBox((rows, cols), Affine(step, 0, left, 0, -step, top), CRS(name))


GLOBAL = degrees(360, 720, -180, 90, 0.5)
WORLDS = {
    "degrees": GLOBAL,
    "degrees from 0": degrees(180, 360, 0, 90, 1),
    "degrees on another datum": GeoBox((180, 360), Affine(1, 0, -180, 0, -1, 90), CRS("EPSG:4258")),
    "Mercator": world_in("EPSG:3857", -20037508.3428, 20037508.3428, 156543.034),
    "Mercator of the Pacific": world_in("EPSG:3832", -20037508.3428, 15_000_000, 156543.034),
    "equal area": world_in("EPSG:6933", -17_367_530, 7_300_000, 100_000),
    "Robinson": world_in("ESRI:54030", -17_006_000, 8_626_000, 100_000),
    "Mollweide": world_in("ESRI:54009", -18_100_000, 9_100_000, 100_000),
    "sinusoidal": world_in("ESRI:54008", -20_040_000, 10_010_000, 100_000),
    "the Arctic": GeoBox((100, 100), Affine(100_000, 0, -5e6, 0, -100_000, 5e6), ARCTIC),
}
BEYOND = {
    "Mercator beyond 180": GeoBox((60, 60), Affine(1e5, 0, 1.7e7, 0, -1e5, 3e6), CRS("EPSG:3857")),
    "Mercator before -180": GeoBox((60, 60), Affine(1e5, 0, -2.3e7, 0, -1e5, 3e6), CRS("EPSG:3857")),
    "equal area beyond 180": GeoBox((60, 60), Affine(1e5, 0, 1.4e7, 0, -1e5, 3e6), CRS("EPSG:6933")),
    "Mercator of the Pacific beyond Greenwich": GeoBox((60, 60), Affine(1e5, 0, 1.8e7, 0, -1e5, 3e6), CRS("EPSG:3832")),
}
SMALL = {
    "before": degrees(40, 40, 178, -16, 0.05),
    "after": degrees(40, 40, -180, -16, 0.05),
    "across": degrees(40, 80, 178, -16, 0.05),
    "across, from the other side": degrees(40, 80, -182, -16, 0.05),
}


def around(crs, lon, lat, half):
    """A square around a place."""
    x, y = (float(part[0]) for part in transform(np.array([lon]), np.array([lat]), LONLAT, crs))
    return shapely.box(x - half, y - half, x + half, y + half)


SHAPES = {
    "a box across": (FIJI, around(FIJI, 180, -17, 50_000)),
    "a large box across": (FIJI, around(FIJI, 180, -17, 700_000).difference(around(FIJI, 179.5, -17, 200_000))),
    "on either side": (FIJI, shapely.union(around(FIJI, 177, -17, 90_000), around(FIJI, -177, -17, 90_000))),
    "over the north pole": (ARCTIC, shapely.Point(0, 0).buffer(2e6)),
    "around the north pole": (ARCTIC, shapely.Point(0, 0).buffer(2e6).difference(shapely.Point(0, 0).buffer(1e6))),
    "over the north pole, the other way round": (ARCTIC, shapely.Point(0, 0).buffer(2e6).reverse()),
    "beside the north pole": (ARCTIC, shapely.Point(-9e5, 9e5).buffer(7e5)),
    "over the south pole": (CRS("EPSG:3031"), shapely.Point(3e5, 0).buffer(2e6)),
    "counted beyond 180": (LONLAT, shapely.box(160.1, -30.1, 200.1, 10.1)),
    "Mercator counted beyond 180": (CRS("EPSG:3857"), shapely.box(1.6e7, -3e6, 2.4e7, 1e6)),
    "a plain one": (FIJI, around(FIJI, 177, -17, 90_000)),
}


def asked(geometry, crs, geobox):
    """Which pixels have their centre in `geometry`, asked in its own CRS; none where the grid leaves the globe."""
    row, col = np.indices(tuple(geobox.shape)) + 0.5
    x, y = (part.ravel() for part in geobox.affine @ (col, row))
    lon, lat = transform(x, y, geobox.crs, LONLAT)
    back = transform(lon, lat, LONLAT, geobox.crs)
    there = transform(x, y, geobox.crs, crs)
    turn = world_of(crs).turn if world_of(crs) else 0
    inside = np.logical_or.reduce([shapely.contains_xy(geometry, there[0] + by, there[1]) for by in (-turn, 0, turn)])
    if geobox.crs != crs and not geobox.crs.geographic:
        round_the_globe = world_of(geobox.crs).turn if world_of(geobox.crs) else np.inf
        off = np.abs(back[0] - x)
        inside &= np.hypot(np.minimum(off, np.abs(off - round_the_globe)), back[1] - y) < 1
    return inside.reshape(tuple(geobox.shape))


def burnt(polygons, geobox, **options):
    return burn(polygons, np.ones(len(polygons), int), geobox, fill=0, dtype="uint8", **options) == 1


@pytest.mark.parametrize("grid", [*WORLDS, *BEYOND, *SMALL])
@pytest.mark.parametrize("name", SHAPES)
def test_what_is_cut_by_the_antimeridian_or_holds_a_pole_is_point_in_polygon(name, grid):
    crs, geometry = SHAPES[name]
    geobox = {**WORLDS, **BEYOND, **SMALL}[grid]
    found, wanted = burnt(from_geometry(geometry, crs, name=name), geobox), asked(geometry, crs, geobox)
    assert (found != wanted).sum() <= 1
    if grid == "degrees":
        assert wanted.any()


def test_what_is_cut_takes_the_pixels_it_touches():
    polygons = from_geometry(around(FIJI, 180, -17.1, 52_000), FIJI, name="box")
    found = burnt(polygons, GLOBAL, all_touched=True)
    assert found.sum() == burnt(polygons, GLOBAL).sum() + 2
    assert set(np.nonzero(found)[1]) == {0, 719}
    tiny = from_geometry(around(FIJI, 180, -17.2, 500), FIJI, name="tiny")
    assert set(zip(*np.nonzero(burnt(tiny, GLOBAL, all_touched=True)), strict=True)) == {(214, 0), (214, 719)}


@cache
def burnt_shape(name, grid):
    crs, geometry = SHAPES[name]
    polygons = from_geometry(geometry, crs, name=name)
    return polygons, burnt(polygons, WORLDS[grid])


WINDOWS = st.builds(Window, st.integers(0, 330), st.integers(0, 700), st.integers(1, 40), st.integers(1, 80))


@pytest.mark.parametrize("grid", ["degrees", "degrees from 0", "Mercator", "Robinson", "the Arctic"])
@given(window=WINDOWS, data=st.data())
def test_a_window_of_what_is_cut_is_the_window(grid, window, data):
    polygons, found = burnt_shape(data.draw(st.sampled_from(sorted(SHAPES))), grid)
    geobox = WORLDS[grid]
    rows, cols = geobox.shape
    window = Window(window.row_off % rows, window.col_off % cols, window.rows, window.cols)
    whole = np.pad(found, ((0, 40), (0, 80)))[window.slices]
    part = burnt(polygons, crop(geobox, window))
    inside = window.intersect(Window(0, 0, rows, cols))
    assert (part[: inside.rows, : inside.cols] == whole[: inside.rows, : inside.cols]).all()


@pytest.mark.parametrize("col", [0, 25, 55])
def test_a_fine_window_at_the_antimeridian_is_the_window(col):
    crs, geometry = SHAPES["a box across"]
    polygons, geobox = from_geometry(geometry, crs, name="box"), SMALL["across"]
    whole = burnt(polygons, geobox)
    for window in (Window(0, col, 40, 20), Window(11, col, 9, 25)):
        assert (burnt(polygons, crop(geobox, window)) == whole[window.slices]).all()


def test_the_last_of_those_that_are_cut_still_holds():
    shapes = [around(FIJI, 180, -17, half) for half in (400_000, 200_000)] + [around(FIJI, 177, -17, 100_000)]
    polygons = Polygons(np.array(shapes), FIJI)
    for geobox in (GLOBAL, WORLDS["Mercator"], WORLDS["Robinson"]):
        wanted = np.zeros(tuple(geobox.shape), "uint8")
        for value, geometry in enumerate(shapes, 1):
            wanted[asked(geometry, FIJI, geobox)] = value
        found = burn(polygons, np.array([1, 2, 3]), geobox, fill=0, dtype="uint8")
        assert (found != wanted).sum() <= 1


def test_the_last_holds_on_a_window_where_others_count_beyond_180():
    shapes = [shapely.box(189, 0.1, 191, 2.1), shapely.box(-170.5, 0.1, -169, 1.1), shapely.box(189.7, 0.1, 190.1, 0.6)]
    geobox = GeoBox((30, 40), Affine(10_000, 0, 350_000, 0, -10_000, 300_000), CRS("EPSG:32602"))
    wanted = np.zeros(tuple(geobox.shape), "uint8")
    for value, geometry in enumerate(shapes, 1):
        wanted[asked(geometry, LONLAT, geobox)] = value
    found = burn(Polygons(np.array(shapes), LONLAT), np.array([1, 2, 3]), geobox, fill=0, dtype="uint8")
    assert set(np.unique(wanted)) == {0, 1, 2, 3}
    assert (found != wanted).sum() <= 1


OFF_GLOBE = {
    "Mollweide": (MOLLWEIDE, [-18040096, -9020048, 18040096, 9020048]),
    "Robinson": (CRS("ESRI:54030"), [-17005834, -8625155, 17005834, 8625155]),
    "sinusoidal": (CRS("ESRI:54008"), [-20037509, -10001966, 20037509, 10001966]),
    "a corner of Mollweide": (MOLLWEIDE, [-18040096, 2_010_000, -9_010_000, 9020048]),
    "a corner of sinusoidal": (CRS("ESRI:54008"), [-20037509, 2_010_000, -9_010_000, 9_000_000]),
}


@pytest.mark.parametrize("grid", WORLDS)
@pytest.mark.parametrize("name", OFF_GLOBE)
def test_boxes_beyond_the_globe_hold_what_they_hold_of_it(name, grid):
    crs, box = OFF_GLOBE[name]
    wanted = asked(shapely.box(*box), crs, WORLDS[grid])
    spec = {"bbox": box, "crs": str(crs)}
    assert (region_mask(spec, WORLDS[grid]) != wanted).sum() <= 1
    if grid == "degrees":
        assert wanted.mean() == 1 or "corner" in name
    window = open_area(spec, WORLDS[grid]).window(WORLDS[grid])
    assert wanted[window.slices].sum() == wanted.sum()


def test_a_window_of_what_reaches_beyond_the_globe_is_the_window():
    for crs, box in OFF_GLOBE.values():
        polygons = from_geometry(shapely.box(*box), crs, name="box")
        whole = burnt(polygons, GLOBAL)
        for window in (Window(10, 0, 100, 200), Window(93, 311, 7, 40)):
            assert (burnt(polygons, crop(GLOBAL, window)) == whole[window.slices]).all()


def test_large_grids_are_asked_in_strips(monkeypatch):
    crs, box = OFF_GLOBE["a corner of Mollweide"]
    polygons = from_geometry(shapely.box(*box), crs, name="box")
    whole = burnt(polygons, GLOBAL)
    monkeypatch.setattr("geoseg.io.burning.STRIP_PX", 7_300)
    assert (burnt(polygons, GLOBAL) == whole).all()


def test_what_is_nowhere_on_the_globe_is_nowhere():
    corner = from_geometry(shapely.box(-2e7, 9e6, -1.9e7, 9.9e6), CRS("ESRI:54008"), name="corner")
    assert not burnt(corner, GLOBAL).any()
    assert not len(near(corner, GLOBAL)[0])
    with pytest.raises(InputError, match="does not touch the scene"):
        region_mask({"bbox": [-2e7, 9e6, -1.9e7, 9.9e6], "crs": "ESRI:54008"}, GLOBAL)


@pytest.mark.parametrize("name", OFF_GLOBE)
def test_other_crs_refuse_what_is_beyond_the_globe_and_cards_outline_it(name):
    crs, box = OFF_GLOBE[name]
    with pytest.raises(GridError, match="1 of 1 polygons in .* have no place in EPSG:4326; needed are"):
        onto_crs(from_geometry(shapely.box(*box), crs, name="box"), LONLAT)
    outline = region_geojson({"bbox": box, "crs": str(crs)}, GLOBAL)
    wanted = asked(shapely.box(*box), crs, GLOBAL)
    assert (region_mask(outline, GLOBAL) != wanted).sum() <= 1


def test_cards_outline_scenes_that_reach_beyond_the_globe():
    assert shape(region_geojson(None, WORLDS["Mollweide"])).area == pytest.approx(360 * 180, rel=0.001)


def test_outlines_across_the_antimeridian_are_cut_there():
    crs, geometry = SHAPES["a box across"]
    moved = onto_crs(from_geometry(geometry, crs, name="box"), LONLAT)[0]
    west, east = sorted(moved.geoms, key=lambda part: part.bounds[0])
    assert west.bounds[0] == -180
    assert east.bounds[2] == 180
    assert east.bounds[0] > 179
    assert moved.area == pytest.approx(0.85, rel=0.1)


BROKEN = {
    "infinite": [(0, 0), (1, 0), (np.inf, 1), (0, 1)],
    "no number": [(0, 0), (1, 0), (np.nan, np.nan), (0, 1)],
    "infinite all over": [(np.inf, np.inf)] * 4,
}


@pytest.mark.parametrize("name", BROKEN)
def test_shapes_with_coordinates_that_are_no_numbers_are_left_out(tmp_path, caplog, name):
    path = tmp_path / "a.gpkg"
    with np.errstate(invalid="ignore"):
        broken = shapely.Polygon(BROKEN[name])
    geometry = [broken, shapely.box(0, 0, 1, 1)]
    gpd.GeoDataFrame({"code": [1, 2]}, geometry=geometry, crs="EPSG:4326").to_file(path)
    polygons = PolygonFile(str(path), columns=("code",)).read()
    assert polygons.columns["code"].tolist() == [2]
    assert "1 shapes with coordinates that are no numbers are left out" in caplog.text


def test_nothing_but_shapes_with_coordinates_that_are_no_numbers_is_refused(tmp_path):
    path = tmp_path / "a.gpkg"
    gpd.GeoDataFrame(geometry=[shapely.Polygon(BROKEN["infinite"])], crs="EPSG:4326").to_file(path)
    with pytest.raises(InputError, match="1 shapes but no polygon with an area, 1 have coordinates that are no num"):
        PolygonFile(str(path)).read()


@pytest.mark.parametrize("name", BROKEN)
def test_regions_with_coordinates_that_are_no_numbers_are_refused(name):
    with pytest.raises(InputError) as caught:
        region_mask({"type": "Polygon", "coordinates": [[*BROKEN[name], BROKEN[name][0]]]}, GLOBAL)
    assert len(str(caught.value).splitlines()) == 1


def test_a_ring_that_starts_where_there_is_no_number_is_left_out(tmp_path):
    ring = np.array([[np.nan, np.nan], [1, 0], [1, 1], [0, 1], [np.nan, np.nan]])
    head = np.array([1], "u1").tobytes() + np.array([3, 1, 5], "<u4").tobytes()
    path = tmp_path / "a.gpkg"
    gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1), shapely.box(2, 0, 3, 1)], crs="EPSG:4326").to_file(path)
    with sqlite3.connect(path) as file:
        for trigger in file.execute("select name from sqlite_master where type = 'trigger'").fetchall():
            file.execute(f'drop trigger "{trigger[0]}"')
        blob = b"GP\x00\x01" + np.array([4326], "<i4").tobytes() + head + ring.astype("<f8").tobytes()
        file.execute("update a set geom = ? where fid = 1", (blob,))
    assert len(PolygonFile(str(path)).read()) == 1


@pytest.mark.parametrize("name", ["EPSG:3857", "EPSG:3395", "EPSG:3832", "EPSG:4087", "EPSG:6933", "EPSG:4326"])
def test_the_globe_is_a_rectangle_in_cylindrical_crs(name):
    world, crs = world_of(CRS(name)), CRS(name)
    lon, lat = np.linspace(-179, 179, 50), np.linspace(-80, 80, 50)
    x, y = transform(lon, lat, LONLAT, crs)
    assert (x.min(), x.max()) == pytest.approx((world.left, world.right), rel=0.05)
    assert world.bottom < y.min() < y.max() < world.top


@pytest.mark.parametrize("name", ["EPSG:32612", "EPSG:3413", "ESRI:54030", "ESRI:54008", "EPSG:3035"])
def test_the_globe_is_no_rectangle_in_others(name):
    assert world_of(CRS(name)) is None


def test_parts_that_lie_far_apart_are_no_torn_shape(monkeypatch):
    """From one ring to the next there is no edge, however far it is."""
    parts = [shapely.box(lon, lat, lon + 0.01, lat + 0.01) for lon in range(10, 20, 2) for lat in range(40, 50, 3)]
    whole = np.array([shapely.MultiPolygon(parts)], dtype=object)
    monkeypatch.setattr("geoseg.io.moving._untorn", lambda *_: pytest.fail("it was taken for torn"))
    found = onto_crs(Polygons(whole, CRS("EPSG:4326")), CRS("EPSG:32633"))
    assert len(shapely.get_parts(found)) == len(parts)
