"""Vector tiles read back: nothing of the map is lost at any zoom, nor at 180°."""

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
from geoseg.legend import Legend
from geoseg.vector import write_polygons
from geoseg.vector.formats.cutting import part_large
from geoseg.vector.formats.frames import layer_of_frame
from geoseg.vector.formats.pmtiles import largest_zoom

LEGEND = Legend.from_dict({1: "forest", 2: "water"})


def speckled(side=160, *, pixel=30.0, seed=0):
    """One polygon with a thousand holes, and what fills them."""
    values = (np.random.default_rng(seed).random((side, side)) < 0.06) + np.uint8(1)
    transform = Affine(pixel, 0, 500_000, 0, -pixel, 500_000)
    shapes = [
        (shapely.geometry.shape(each), value) for each, value in rasterio.features.shapes(values, transform=transform)
    ]
    geometries, ids = zip(*shapes, strict=True)
    return geopandas.GeoDataFrame({"class_id": np.array(ids, int)}, geometry=list(geometries), crs="EPSG:32621")


def read(path, zoom):
    return pyogrio.read_dataframe(path, ZOOM_LEVEL=zoom)


def test_no_zoom_loses_a_part_of_the_map(tmp_path):
    frame = speckled()
    out = write_polygons(frame, tmp_path / "map.pmtiles", legend=LEGEND)
    head = out.read_bytes()[:127]  # https://github.com/protomaps/PMTiles/blob/main/spec/v3/spec.md
    assert head[:8] == b"PMTiles\x03"
    assert (head[100], head[101]) == (0, largest_zoom(layer_of_frame(frame)))
    mercator = frame.to_crs(3857)
    for zoom in range(6, head[101] + 1):
        tiles = read(out, zoom)
        unit = 2 * np.pi * 6378137 / 2**zoom / 4096
        covered = shapely.union_all(tiles.geometry.make_valid().to_numpy())
        left = shapely.difference(shapely.union_all(mercator.geometry.to_numpy()), covered)
        assert shapely.is_empty(shapely.buffer(left, -2 * unit))  # no gap is wider than a few units
    assert tiles.dissolve("class_id").area.to_numpy() == pytest.approx(mercator.dissolve("class_id").area, rel=0.01)


def test_the_largest_zoom_keeps_a_quarter_of_an_edge():
    for pixel in (0.5, 10.0, 30.0):
        zoom = largest_zoom(layer_of_frame(speckled(40, pixel=pixel)))
        unit = 2 * np.pi * 6378137 / 2**zoom / 4096  # at the equator the Mercator map is true to scale
        assert pixel / 8 < unit <= pixel / 4 * 1.01


def test_across_the_antimeridian_both_sides_are_there(tmp_path):
    """Vanua Levu, Fiji: squares of 100 m, one column of which lies on 180°."""
    x, y = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32760", always_xy=True).transform(180, -16.6)
    col, row = np.arange(800) % 40, np.arange(800) // 40
    cells = shapely.box(x + 100 * col - 2030, y + 100 * row, x + 100 * col - 1930, y + 100 * row + 100)
    frame = geopandas.GeoDataFrame({"class_id": 1 + col % 2}, geometry=cells, crs="EPSG:32760")
    out = write_polygons(frame, tmp_path / "map.pmtiles", legend=LEGEND)
    world = 2 * np.pi * 6378137
    unwrapped = frame.to_crs(3857).geometry.transform(lambda xy: np.where(xy < [0, -world], np.add(xy, [world, 0]), xy))
    tiles = read(out, largest_zoom(layer_of_frame(frame)))
    for side, west in (("west", world / 2), ("east", 0)):  # west of the Greenwich meridian begins at 180°
        expected = unwrapped.intersection(shapely.box(west, -world, west + world / 2, world)).area
        found = tiles[(tiles.geometry.bounds["minx"] < 0) == (side == "west")]
        assert found.area.sum() == pytest.approx(expected.sum(), rel=0.01)
        assert found.dissolve("class_id").area.to_numpy() == pytest.approx(
            expected.groupby(frame["class_id"]).sum().to_numpy(), rel=0.05
        )


def test_pieces_of_large_polygons_are_the_polygons():
    frame = speckled(60)
    frame = frame.set_crs("EPSG:3857", allow_override=True).assign(id=np.arange(len(frame)))
    (batch, pieces) = part_large(layer_of_frame(frame), half_world=2.0**20, most=100).batches()
    whole = [*batch.rings.to_polygons(), *pieces.rings.to_polygons()]
    owners = batch.table["id"].to_pylist() + pieces.table["id"].to_pylist()
    assert max(shapely.get_num_coordinates(whole)) <= 100
    joined = geopandas.GeoSeries(whole).groupby(np.array(owners)).agg(lambda parts: shapely.union_all(list(parts)))
    assert shapely.equals(shapely.normalize(joined.to_numpy()), frame.geometry.to_numpy()).all()


@pytest.mark.parametrize(
    ("frame", "reason"),
    [(speckled(5).set_crs(None, allow_override=True), "no CRS"), (speckled(5).iloc[:0], "no polygon")],
)
def test_what_has_no_tile_is_refused_with_a_way_out(tmp_path, frame, reason):
    with pytest.raises(InputError, match=rf"{reason}; write \.gpkg"):
        write_polygons(frame, tmp_path / "map.pmtiles", legend=LEGEND)
    assert list(tmp_path.iterdir()) == []
