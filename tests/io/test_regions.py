"""The part of a scene that is meant: as pixels, as a box, as polygons, on any grid."""

from __future__ import annotations

import json

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from shapely.geometry import mapping, shape

from geoseg.errors import GeosegError, GridError, InputError, MissingInputError
from geoseg.io.grids import crop, to_pixels, transform
from geoseg.io.regions import open_area, region_geojson, region_mask, region_window
from geoseg.tiling import Window

GRID = GeoBox((40, 60), Affine(10, 0, 500_000, 0, -10, 4_200_000), "EPSG:32612")
DEGREES = GeoBox((50, 50), Affine(0.00015, 0, -111.001, 0, -0.00012, 37.949), "EPSG:4326")
UNPLACED = GeoBox((40, 60), GRID.affine, None)
LONLAT = CRS("EPSG:4326")


def triangle():
    return shapely.Polygon([GRID.affine @ corner for corner in [(5, 5), (50, 12), (20, 35)]])


def in_lonlat(geometry):
    return shapely.transform(geometry, lambda x, y: transform(x, y, GRID.crs, LONLAT), interleaved=False)


def centres(geobox):
    row, col = np.indices(tuple(geobox.shape)) + 0.5
    return row.ravel(), col.ravel()


def inside(geometry, geobox):
    row, col = centres(geobox)
    x, y = transform(*(geobox.affine @ (col, row)), geobox.crs, GRID.crs)
    return shapely.contains_xy(geometry, x, y).reshape(tuple(geobox.shape))


def test_nothing_said_is_everything():
    assert region_mask(None, GRID).all()
    assert region_window(None, GRID) == Window(0, 0, 40, 60)


ENDS = st.one_of(st.none(), st.integers(0, 70))


@given(ENDS, ENDS, ENDS, ENDS)
def test_ranges_are_slices(top, bottom, left, right):
    wanted = np.zeros((40, 60), bool)
    wanted[top:bottom, left:right] = True
    spec = {"rows": [top, bottom], "cols": [left, right]}
    if not wanted.any():
        with pytest.raises(InputError, match="the region"):
            region_mask(spec, GRID)
        return
    assert (region_mask(spec, GRID) == wanted).all()
    found = np.zeros((40, 60), bool)
    found[region_window(spec, GRID).slices] = True
    assert (found == wanted).all()


def test_one_axis_may_be_left_out():
    assert region_mask({"cols": [50, None]}, GRID).sum() == 40 * 10
    assert region_mask({"rows": [None, 3]}, GRID).sum() == 3 * 60


@given(st.integers(-20, 60), st.integers(-20, 60), st.integers(1, 40), st.integers(1, 40))
def test_a_piece_of_the_scene_gets_its_piece_of_the_mask(row, col, rows, cols):
    spec, window = {"rows": [4, 30], "cols": [7, None]}, Window(row, col, rows, cols)
    padded = np.pad(region_mask(spec, GRID), 100)
    wanted = padded[row + 100 : row + 100 + rows, col + 100 : col + 100 + cols]
    assert (region_mask(spec, crop(GRID, window), grid=GRID) == wanted).all()
    snug = region_window(spec, crop(GRID, window), grid=GRID)
    assert snug.rows * snug.cols == wanted.sum()


@given(st.integers(0, 30), st.integers(0, 50), st.integers(1, 40), st.integers(1, 40))
def test_a_piece_of_a_polygon_mask_is_the_mask_of_the_piece(row, col, rows, cols):
    """Edges of a kilometre in longitude and latitude bend on the scene; each block must bend them alike."""
    scene = GeoBox((80, 90), GRID.affine, GRID.crs)
    corners = [(-200, 3.1), (300.3, 40.2), (71.7, 140.8), (-90.4, 35.9)]
    area = open_area(mapping(in_lonlat(shapely.Polygon([GRID.affine @ corner for corner in corners]))), scene)
    window = Window(row, col, rows, cols)
    assert (area.mask(scene)[window.slices] == area.mask(crop(scene, window))).all()


def test_ranges_on_another_grid_are_asked_centre_by_centre():
    spec = {"rows": [4, 30], "cols": [7, 41]}
    row, col = to_pixels(*centres(DEGREES), DEGREES, GRID)
    wanted = (row >= 4) & (row < 30) & (col >= 7) & (col < 41)
    found = region_mask(spec, DEGREES, grid=GRID)
    # Pixel coordinates are exact to a thousandth of a pixel.
    assert (found.ravel() != wanted).sum() <= 1
    assert 0 < found.mean() < 1
    window = region_window(spec, DEGREES, grid=GRID)
    outside = found.copy()
    outside[window.slices] = False
    assert not outside.any()


def test_a_finer_grid_of_the_same_crs():
    finer = GeoBox((80, 120), GRID.affine @ Affine.scale(0.5), GRID.crs)
    found = region_mask({"rows": [4, 30], "cols": [7, 41]}, finer, grid=GRID)
    assert found.sum() == 52 * 68
    assert found[8:60, 14:82].all()


def test_large_masks_are_made_in_strips(monkeypatch):
    whole = region_mask({"rows": [4, 30]}, DEGREES, grid=GRID)
    monkeypatch.setattr("geoseg.io.regions.STRIP_PX", 170)
    assert (region_mask({"rows": [4, 30]}, DEGREES, grid=GRID) == whole).all()


def test_without_a_crs_ranges_still_count():
    assert region_mask({"cols": [0, 10]}, UNPLACED).sum() == 400
    assert region_mask({"cols": [0, 10]}, crop(UNPLACED, Window(0, 5, 40, 10)), grid=UNPLACED).sum() == 200
    assert region_geojson({"cols": [0, 10]}, UNPLACED) is None
    left, top = GRID.affine @ (0, 0)
    assert region_mask({"bbox": [left, top - 50, left + 100, top]}, UNPLACED).sum() == 50


def test_boxes():
    left, top = GRID.affine @ (10, 5)
    right, bottom = GRID.affine @ (30, 25)
    wanted = np.zeros((40, 60), bool)
    wanted[5:25, 10:30] = True
    assert (region_mask({"bbox": [left, bottom, right, top]}, GRID) == wanted).all()
    assert (region_mask({"bbox": [left, bottom, right, top], "crs": "EPSG:32612"}, GRID) == wanted).all()
    lonlat = in_lonlat(shapely.box(left, bottom, right, top)).bounds
    found = region_mask({"bbox": list(lonlat), "crs": 4326}, GRID)
    assert (found != wanted).sum() < 40


@pytest.mark.parametrize("name", ["r.gpkg", "r.geojson", "r.shp"])
def test_polygon_files(tmp_path, name):
    path = tmp_path / name
    frame = gpd.GeoDataFrame({"a": [1]}, geometry=[triangle()], crs=GRID.crs.to_wkt())
    frame.to_crs(4326).to_file(path)
    wanted = inside(triangle(), GRID)
    assert (region_mask(str(path), GRID) != wanted).sum() <= 1
    assert (region_mask({"path": str(path)}, GRID) != wanted).sum() <= 1
    assert (region_mask(path, DEGREES, grid=GRID) != inside(triangle(), DEGREES)).sum() <= 1
    window = region_window(path, GRID)
    assert wanted[window.slices].sum() == wanted.sum()
    assert window.rows * window.cols < 35 * 50


GEOMETRY = mapping(in_lonlat(triangle()))
FEATURE = {"type": "Feature", "geometry": GEOMETRY, "properties": {}}


@pytest.mark.parametrize(
    "spec",
    [
        GEOMETRY,
        FEATURE,
        {"type": "FeatureCollection", "features": [FEATURE]},
        {**mapping(triangle()), "crs": "EPSG:32612"},
    ],
)
def test_geojson(spec):
    assert (region_mask(spec, GRID) != inside(triangle(), GRID)).sum() <= 1


def test_outline_for_the_model_card():
    for spec in ({"rows": [4, 30], "cols": [7, None]}, GEOMETRY, None):
        geometry = region_geojson(spec, GRID)
        assert json.loads(json.dumps(geometry))["type"] == "Polygon"
        assert -112 < shape(geometry).centroid.x < -110
        assert (region_mask(geometry, GRID) != region_mask(spec, GRID)).sum() <= 2


def test_outline_stays_inside_the_scene():
    beyond = in_lonlat(shapely.box(499_000, 4_199_800, 500_300, 4_201_000))
    geometry = shape(region_geojson(mapping(beyond), GRID))
    scene = shape(region_geojson(None, GRID))
    assert scene.buffer(1e-6).contains(geometry)
    assert geometry.area == pytest.approx(scene.area * (20 * 30) / (40 * 60), rel=1e-3)


WRONG = {
    "a region has no key columns": {"columns": [1, 2]},
    "a region has no key rows": {"bbox": [0, 0, 1, 1], "rows": [1, 2]},
    "a region cannot be {}": {},
    "a region cannot be 5": 5,
    "rows: needed is [start, stop]": {"rows": 5},
    "cols: needed is [start, stop]": {"cols": [1]},
    "rows: needed are whole numbers": {"rows": [0.5, 3]},
    "counts pixels below 0": {"rows": [-3, 5]},
    "the region is empty: rows from 5 to 5": {"rows": [5, 5]},
    "the region is empty: cols from 60 to 60": {"cols": [60, None]},
    "the region lies outside the scene: cols from 70 on, the scene has 60": {"cols": [70, 80]},
    "the region is empty: bbox": {"bbox": [3, 0, 1, 1]},
    "bbox: needed is [left": {"bbox": [1, 2, 3]},
    "does not touch the scene": {"bbox": [0, 0, 10, 10]},
    "crs 'EPSG:1' is not known": {"bbox": [0, 0, 10, 10], "crs": "EPSG:1"},
    "the region is no GeoJSON": {"type": "Polygon"},
    "no polygon with an area": {"type": "Point", "coordinates": [-111, 37.94]},
    "holds no pixel of the scene": {"bbox": [500_001, 4_199_996, 500_002, 4_199_997]},
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_regions_are_refused_in_one_line(message):
    with pytest.raises(GeosegError) as caught:
        region_mask(WRONG[message], GRID)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_missing_files_and_places(tmp_path):
    with pytest.raises(MissingInputError, match="is not there"):
        region_mask(str(tmp_path / "none.gpkg"), GRID)
    with pytest.raises(GridError, match=r"the scene has no CRS"):
        region_mask(GEOMETRY, UNPLACED)
    with pytest.raises(GridError, match=r"only one has a CRS"):
        region_mask({"rows": [0, 3]}, GeoBox((4, 4), DEGREES.affine, None), grid=GRID)


def test_a_piece_outside_the_region_is_no_error():
    piece = crop(GRID, Window(36, 0, 4, 4))
    assert not region_mask(GEOMETRY, piece, grid=GRID).any()
    assert region_window(GEOMETRY, piece, grid=GRID).rows == 0
