"""GeoJSON as RFC 7946 has it, and reprojecting a coverage batch by batch."""

from __future__ import annotations

import json
import re

import geopandas
import numpy as np
import pyproj
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from geoseg.errors import InputError
from geoseg.vector import write_polygons
from geoseg.vector.formats.frames import flatten, layer_of_frame
from geoseg.vector.formats.reproject import densify, reproject


def frame_of(geometries, *, crs="EPSG:32630", **columns):
    return geopandas.GeoDataFrame({"class_id": np.arange(len(geometries)), **columns}, geometry=geometries, crs=crs)


def boxes(*corners):
    return [shapely.box(500_000 + a, 5_800_000 + b, 500_000 + c, 5_800_000 + d) for a, b, c, d in corners]


def features_of(path):
    return json.loads(path.read_text(encoding="utf-8"))["features"]


def test_it_is_rfc_7946(tmp_path):
    ring = shapely.box(500_000, 5_800_000, 500_010, 5_800_010).reverse()
    out = write_polygons(frame_of([ring]), tmp_path / "map.geojson", legend=None)
    assert "crs" not in json.loads(out.read_text(encoding="utf-8"))
    ring = np.array(features_of(out)[0]["geometry"]["coordinates"][0])
    assert np.abs(ring[0] - [-3, 52.35]).max() < 0.1
    assert shapely.is_ccw(shapely.linearrings(ring))
    assert all(len(str(abs(value)).split(".")[1]) <= 7 for value in ring.ravel())


def test_ids_are_ids_of_features_and_stay_a_column(tmp_path):
    frame = frame_of(boxes((0, 0, 10, 10), (10, 0, 20, 10)), id=np.array([41, 2**52]))
    out = write_polygons(frame, tmp_path / "map.geojson", legend=None)
    assert [(each["id"], each["properties"]["id"]) for each in features_of(out)] == [(41, 41), (2**52, 2**52)]
    assert set(features_of(out)[0]["properties"]) == {"class_id", "id"}
    assert geopandas.read_file(out)["id"].tolist() == [41, 2**52]


def test_the_coverage_is_kept_where_edges_are_long(tmp_path):
    """A straight edge of 100 km at 52° N bends by 250 m in degrees: more than the smallest piece here is wide."""
    low = shapely.Polygon([(0, 0), (100_000, 0), (100_000, 500), (50_500, 500), (50_400, 500), (0, 500)])
    island = shapely.box(50_400, 500, 50_500, 550)
    high = shapely.Polygon(
        [
            (0, 500),
            (50_400, 500),
            (50_400, 550),
            (50_500, 550),
            (50_500, 500),
            (100_000, 500),
            (100_000, 1000),
            (0, 1000),
        ]
    )
    cells = shapely.transform(np.array([low, island, high]), lambda xy: np.add(xy, [500_000, 5_800_000]))
    frame = frame_of(cells)
    assert shapely.coverage_is_valid(cells)
    back = geopandas.read_file(write_polygons(frame, tmp_path / "map.geojson", legend=None))
    assert back.is_valid.all()
    assert shapely.coverage_is_valid(back.geometry.to_numpy())
    np.testing.assert_allclose(back.to_crs(frame.crs).area, frame.area, rtol=1e-3)
    assert shapely.union_all(back.geometry).interiors[:] == []


@given(
    st.lists(st.tuples(*[st.integers(-1000, 1000)] * 2), min_size=3, max_size=8, unique=True),
    st.floats(1, 5000),
)
def test_densify_leaves_the_line_and_is_the_same_backwards(points, longest):
    line = np.array([*points, points[0]], float)
    dense = densify(flatten(np.array([shapely.Polygon(line)]))[0], longest)
    edges = np.hypot(*np.diff(dense.coords, axis=0).T)
    assert edges.max() <= longest * (1 + 1e-12)
    assert np.isin(line.view(complex), dense.coords.view(complex)).all()
    assert edges.sum() == pytest.approx(np.hypot(*np.diff(line, axis=0).T).sum())
    backwards = densify(flatten(np.array([shapely.Polygon(line[::-1])]))[0], longest)
    np.testing.assert_array_equal(backwards.coords[::-1], dense.coords)


def test_reprojected_batches_are_what_pyproj_makes_of_the_vertices():
    frame = frame_of(boxes((0, 0, 10, 10), (10, 0, 20, 10)))
    layer = reproject(layer_of_frame(frame), "EPSG:3857")
    (batch,) = layer.batches()
    expected = shapely.get_coordinates(frame.to_crs(3857).geometry)
    np.testing.assert_allclose(batch.rings.coords, expected, rtol=0, atol=1e-6)
    assert layer.crs == "EPSG:3857"


def test_polygons_across_the_antimeridian_are_parted(tmp_path):
    """Vanua Levu, Fiji: the RFC asks for geometries that do not cross 180°."""
    x, y = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32760", always_xy=True).transform(180, -16.6)
    frame = frame_of([shapely.box(x - 20_000, y, x + 30_000, y + 20_000)], crs="EPSG:32760")
    back = geopandas.read_file(write_polygons(frame, tmp_path / "map.geojson", legend=None))
    west, east = sorted(back.geometry[0].geoms, key=lambda part: part.bounds[0])
    assert (west.bounds[0], east.bounds[2]) == (-180, 180)
    assert max(part.bounds[2] - part.bounds[0] for part in (west, east)) < 0.5


def test_without_crs_it_is_refused_with_a_way_out(tmp_path):
    with pytest.raises(InputError, match=r"no CRS; write \.gpkg"):
        write_polygons(frame_of(boxes((0, 0, 1, 1)), crs=None), tmp_path / "map.geojson", legend=None)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_has_no_longitude_is_an_error(tmp_path):
    frame = frame_of([shapely.box(1e9, 0, 1e9 + 10, 10)])
    with pytest.raises(InputError, match=r"no place.*\.gpkg"):
        write_polygons(frame, tmp_path / "map.geojson", legend=None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("pixel", "digits"), [(0.02, 9), (0.1, 8), (0.5, 7), (10.0, 7)])
def test_a_pixel_has_as_many_decimals_as_keep_its_shape(tmp_path, pixel, digits):
    row, col = np.divmod(np.arange(100), 10)
    x, y = 500_000 + pixel * col, 5_800_000 + pixel * row
    cells = shapely.box(x, y, x + pixel, y + pixel)
    frame = frame_of(cells)
    back = geopandas.read_file(write_polygons(frame, tmp_path / "map.geojson", legend=None))
    corners = shapely.get_coordinates(back.to_crs(frame.crs).geometry.to_numpy())
    off = np.abs(corners / pixel - np.round(corners / pixel))
    assert off.max() < 1 / 50
    decimals = [len(number.split(".")[1]) for number in re.findall(r"\d+\.\d+", (tmp_path / "map.geojson").read_text())]
    assert max(decimals) == digits
    assert shapely.coverage_is_valid(back.geometry.to_numpy())
