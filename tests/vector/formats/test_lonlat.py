"""Maps of the world, across 180° and around a pole, in longitudes and latitudes: what is where stays there."""

from __future__ import annotations

import geopandas
import numpy as np
import pyogrio
import pyproj
import pytest
import rasterio.features
import shapely
from affine import Affine

from geoseg.errors import InputError
from geoseg.vector import write_polygons
from geoseg.vector.formats.frames import layer_of_frame
from geoseg.vector.formats.lonlat import to_lonlat

LONLAT = pyproj.CRS("OGC:CRS84")


def polygons_of(values, transform, crs):
    shapes = list(rasterio.features.shapes(values.astype(np.uint8), transform=transform))
    geometry = [shapely.geometry.shape(each) for each, _ in shapes]
    classes = np.array([value for _, value in shapes], int)
    return geopandas.GeoDataFrame({"class_id": classes}, geometry=geometry, crs=crs)


def speckled(shape, seed=0):
    return np.random.default_rng(seed).integers(1, 4, shape)


def globe(west, *, islands=True):
    """Ten-degree pixels up to 80° north and south; a bottom row of ocean, its northern border straight or not."""
    values = speckled((16, 36)) if islands else np.full((16, 36), 1)
    values[-2:] = 5
    return values, Affine(10, 0, west, 0, -10, 80), "EPSG:4326"


def polar(values, crs, *, shift=0.0):
    """Pixels of 100 km around a pole, which is the corner of four of them, or lies inside one."""
    half = 1e5 * len(values) / 2
    return values, Affine(1e5, 0, shift - half, 0, -1e5, half + shift), crs


ring_around = np.ones((14, 14), int)
ring_around[3:11, 3:11] = 2
ring_around[6:8, 6:8] = 3
half = np.ones((14, 14), int)
half[:, 7:] = 2

MAPS = {
    "globe": globe(-180),
    "globe from Greenwich": globe(0),
    "globe from 180.5 W": globe(-180.5),
    "globe of one class": globe(0, islands=False),
    "to the poles": (speckled((18, 36)), Affine(10, 0, -180, 0, -10, 90), "EPSG:4326"),
    "ocean to the poles": (np.full((18, 36), 1), Affine(10, 0, 0, 0, -10, 90), "EPSG:4326"),
    "world in metres": (speckled((2, 4)), Affine(1.00075e7, 0, -2.0015e7, 0, -1.00075e7, 1.00075e7), "EPSG:4087"),
    "south pole on a corner": polar(speckled((14, 14)), "EPSG:3031"),
    "south pole in a pixel": polar(speckled((14, 14)), "EPSG:3031", shift=3e4),
    "north pole on a corner": polar(speckled((14, 14)), "EPSG:3995"),
    "north pole in a pixel": polar(speckled((14, 14)), "EPSG:3413", shift=3e4),
    "all around the south pole": polar(np.ones((14, 14)), "EPSG:3031"),
    "rings around the south pole": polar(ring_around, "EPSG:3031"),
    "rings around the north pole": polar(ring_around, "EPSG:3995"),
    "a border over the pole": polar(half, "EPSG:3995"),
}


@pytest.fixture(params=MAPS.values(), ids=MAPS, scope="module")
def drawn(request):
    """The pixels of a map, their middles in longitude and latitude, and its polygons."""
    values, transform, crs = request.param
    cols, rows = np.meshgrid(np.arange(values.shape[1]) + 0.5, np.arange(values.shape[0]) + 0.5)
    to_degrees = pyproj.Transformer.from_crs(crs, LONLAT, always_xy=True)
    lon, lat = to_degrees.transform(transform.a * cols.ravel() + transform.c, transform.e * rows.ravel() + transform.f)
    return values.ravel(), (np.asarray(lon) + 180) % 360 - 180, np.asarray(lat), polygons_of(values, transform, crs)


def classes_at(x, y, frame):
    """The class at each point; 0 where there is none, or more than one."""
    points, polygons = shapely.STRtree(frame.geometry.to_numpy()).query(shapely.points(x, y), predicate="within")
    found = np.bincount(points, minlength=len(x))
    classes = np.zeros(len(x), int)
    classes[points] = frame["class_id"].to_numpy()[polygons]
    return np.where(found == 1, classes, 0)


def test_each_pixel_is_in_its_class_and_the_polygons_are_sound(tmp_path, drawn):
    values, lon, lat, frame = drawn
    back = geopandas.read_file(write_polygons(frame, tmp_path / "map.geojson", legend=None))
    assert back.is_valid.all()
    assert set(back.geom_type) <= {"Polygon", "MultiPolygon"}
    assert len(back) == len(frame)
    assert back.total_bounds[0] >= -180
    assert back.total_bounds[2] <= 180
    np.testing.assert_array_equal(classes_at(lon, lat, back), values)


def test_the_ground_is_covered_once(tmp_path, drawn):
    *_, frame = drawn
    back = geopandas.read_file(write_polygons(frame, tmp_path / "map.geojson", legend=None))
    polygons = back.geometry.to_numpy()
    whole = shapely.union_all(polygons, grid_size=1e-7)
    assert whole.area == pytest.approx(shapely.area(polygons).sum(), rel=1e-6)
    assert sum(len(part.interiors) for part in getattr(whole, "geoms", [whole])) == 0


def test_web_tiles_hold_all_of_it_that_web_maps_do(tmp_path, drawn):
    values, lon, lat, frame = drawn
    out = write_polygons(frame, tmp_path / "map.pmtiles", legend=None)
    tiles = pyogrio.read_dataframe(out, ZOOM_LEVEL=out.read_bytes()[101])
    tiles.geometry = tiles.make_valid()
    shown = np.abs(lat) < 85
    x, y = pyproj.Transformer.from_crs(LONLAT, "EPSG:3857", always_xy=True).transform(lon[shown], lat[shown])
    polygons = tiles.geometry.to_numpy()
    points, found = shapely.STRtree(polygons).query(shapely.points(x, y), predicate="intersects")
    matching = tiles["class_id"].to_numpy()[found] == values[shown][points]
    assert set(points[matching]) == set(range(shown.sum()))
    assert set(tiles["class_id"]) >= set(values[shown])


def test_what_does_not_cross_keeps_its_coordinates():
    frame = polygons_of(speckled((10, 10)), Affine(1, 0, 5, 0, -1, 50), "EPSG:4326")
    (batch,) = to_lonlat(layer_of_frame(frame)).batches()
    corners = shapely.get_coordinates(frame.geometry.to_numpy())
    assert np.isin(corners[:, 0], batch.rings.coords[:, 0]).all()
    assert len(batch.parts) == len(frame) + 1


def test_a_web_map_of_nothing_but_a_pole_is_refused(tmp_path):
    frame = polygons_of(np.ones((4, 4)), Affine(1e5, 0, -2e5, 0, -1e5, 2e5), "EPSG:3995")
    with pytest.raises(InputError, match=r"85\.05° north and south; write \.gpkg"):
        write_polygons(frame, tmp_path / "map.pmtiles", legend=None)
