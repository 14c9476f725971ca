"""The STAC Item says where a map lies and what its numbers mean."""

from __future__ import annotations

import hashlib
import json
import math
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from shapely.geometry import Point, Polygon, shape

from geoseg.errors import OutputError
from geoseg.io.item import MapAsset, map_item, write_item
from geoseg.legend import Legend

LEGEND = Legend.from_dict({3: "water", 7: "crops (arable)", 12: {"name": "лес", "color": "#1F6b35"}})
UTM = GeoBox((300, 200), Affine(10, 0, 500_000, 0, -10, 5_000_000), "EPSG:32633")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    found = {"class_map": "map.tif", "confidence": "map.confidence.tif", "style": "map.qml"}
    for name in found.values():
        (tmp_path / name).write_text(f"content of {name}")
    return {key: tmp_path / name for key, name in found.items()}


def item_of(files: dict[str, Path], geobox: GeoBox = UTM, **options: Any) -> dict[str, Any]:
    rasters = {
        "map": MapAsset(files["class_map"], "Land-cover classes", ("class",), classes=True),
        "confidence": MapAsset(files["confidence"], "Confidence in percent", ("confidence",), classes=False),
    }
    options = {"created": "2026-01-02T03:04:05Z", **options}
    return map_item(rasters, style=files["style"], geobox=geobox, legend=LEGEND, **options)


def test_what_stac_asks_of_every_item(files: dict[str, Path]) -> None:
    item = item_of(files)
    assert (item["type"], item["stac_version"], item["id"]) == ("Feature", "1.1.0", "map")
    assert item["properties"]["datetime"] == "2026-01-02T03:04:05Z"
    assert item["links"] == []
    prefixes = {re.search(r"io/([a-z]+)/v", url)[1] for url in item["stac_extensions"]}  # type: ignore[index]
    assert prefixes == {"projection", "classification", "processing", "file"}
    assert json.loads(json.dumps(item)) == item


def test_a_map_is_dated_by_what_it_shows(files: dict[str, Path]) -> None:
    may, june = datetime(2021, 5, 27, 10, tzinfo=UTC), datetime(2021, 6, 3, tzinfo=UTC)
    once = item_of(files, taken=(may, may))["properties"]
    assert (once["datetime"], once["created"]) == ("2021-05-27T10:00:00Z", "2026-01-02T03:04:05Z")
    assert "start_datetime" not in once
    span = item_of(files, taken=(may, june))["properties"]
    wanted = {"datetime": None, "start_datetime": "2021-05-27T10:00:00Z", "end_datetime": "2021-06-03T00:00:00Z"}
    assert span | wanted == span


def test_the_footprint_holds_the_centre_and_goes_counter_clockwise(files: dict[str, Path]) -> None:
    item = item_of(files)
    ring = Polygon(item["geometry"]["coordinates"][0])
    assert ring.is_valid
    assert ring.exterior.is_ccw
    # 1 km east of UTM 33's central meridian (15 degrees), 4 998.5 km north of the equator (45.14 degrees).
    assert ring.contains(Point(15.0127, 45.1394))
    assert item["bbox"] == pytest.approx(ring.bounds)


@pytest.mark.parametrize("affine", [Affine(10, 0, 5e5, 0, 10, 5e6), Affine(6, 8, 5e5, 8, -6, 5e6)])
def test_south_up_and_rotated_grids_have_a_ring_too(files: dict[str, Path], affine: Affine) -> None:
    ring = Polygon(item_of(files, GeoBox((50, 60), affine, "EPSG:32633"))["geometry"]["coordinates"][0])
    assert ring.exterior.is_ccw


@pytest.mark.parametrize(
    "geobox",
    [GeoBox((5, 5), Affine(1, 0, 0, 0, -1, 0), None), GeoBox((5, 5), Affine(10, 0, 9e9, 0, -10, 9e9), "EPSG:32633")],
    ids=["no CRS", "off the Earth"],
)
def test_without_a_place_on_the_earth_there_is_no_box(files: dict[str, Path], geobox: GeoBox) -> None:
    item = item_of(files, geobox)
    assert item["geometry"] is None
    assert "bbox" not in item


def grid(crs: str, left: float, top: float, pixel: float, shape: tuple[int, int] = (40, 50)) -> GeoBox:
    return GeoBox(shape, Affine(pixel, 0, left, 0, -pixel, top), crs)


HALF = math.pi * 6378137
WIDE = {  # each with its box
    "degrees from 0 to 360": (grid("EPSG:4326", 200, 10, 0.1), [-160, 6, -155, 10]),
    "degrees across": (grid("EPSG:4326", 179, -17, 0.1), [179, -21, -176, -17]),
    "degrees across from the east": (grid("EPSG:4326", -182, 20, 0.1), [178, 16, -177, 20]),
    "wrapped degrees": (grid("+proj=longlat +lon_wrap=180", 155, 40, 1), [155, 0, -155, 40]),
    "UTM across": (grid("EPSG:32760", 815_000, 8_115_000, 200), None),
    "Mercator across": (grid("EPSG:3857", HALF - 20_000, 4_000, 1000, (8, 50)), None),
    "wide degrees": (grid("EPSG:4326", -150, 60, 6), [-150, -180 + 90, 150, 60]),
    "the globe": (grid("EPSG:4326", -180, 90, 5, (36, 72)), [-180, -90, 180, 90]),
    "the globe from 0": (grid("EPSG:4326", 0, 90, 5, (36, 72)), [-180, -90, 180, 90]),
    "the globe by its centres": (grid("EPSG:4326", -182.5, 92.5, 5, (37, 73)), [-180, -90, 180, 90]),
    "the globe of Mercator": (grid("EPSG:3857", -HALF, HALF, HALF / 20, (40, 40)), None),
    "north pole inside": (grid("EPSG:3413", -150_000, 150_000, 8000), None),
    "south pole inside": (grid("EPSG:3031", -150_000, 150_000, 8000), None),
    "north pole at a corner": (grid("EPSG:3413", 0, 0, 5000), None),
    "north pole on a side": (grid("EPSG:3995", -100_000, 0, 5000), None),
    "pole nearby": (grid("EPSG:3413", 2_000, 150_000, 5000), None),
}


def lonlat(geobox: GeoBox, row: Any, col: Any) -> tuple[Any, Any]:
    to_degrees = Transformer.from_crs(geobox.crs.proj, "EPSG:4326", always_xy=True)  # type: ignore[union-attr]
    x, y = geobox.affine.c + geobox.affine.a * col, geobox.affine.f + geobox.affine.e * row
    lon, lat = to_degrees.transform(x, y)
    return (lon + 180) % 360 - 180, lat


@pytest.mark.parametrize("name", WIDE)
def test_footprints_hold_all_pixels_and_nothing_around(files: dict[str, Path], name: str) -> None:
    geobox, box = WIDE[name]
    item = item_of(files, geobox)
    outline = shape(item["geometry"])
    assert outline.is_valid
    assert all(part.exterior.is_ccw for part in shapely.get_parts(outline))
    assert outline.within(shapely.box(-180, -90, 180, 90))
    assert len(shapely.get_coordinates(outline)) < 500
    rows, cols = geobox.shape
    row, col = (part.ravel() + 0.5 for part in np.indices((rows + 6, cols + 6)) - 3)
    lon, lat = lonlat(geobox, row, col)
    inside = (row > 0) & (row < rows) & (col > 0) & (col < cols)
    real = np.isfinite(lon) & (np.abs(lat) < 90)
    assert shapely.intersects_xy(outline, lon[inside & real], lat[inside & real]).all()
    if not name.startswith("the globe") and name != "wide degrees":
        assert not shapely.contains_xy(outline, lon[~inside & real], lat[~inside & real]).any()
    west, _, east, _ = item["bbox"]
    assert ((lon[inside & real] - west) % 360 <= (east - west if east > west else east - west + 360)).all()
    if box is not None:
        assert item["bbox"] == pytest.approx(box)


def test_projection(files: dict[str, Path]) -> None:
    found = item_of(files)["properties"]
    assert found["proj:code"] == "EPSG:32633"
    assert found["proj:shape"] == [300, 200]
    assert found["proj:transform"] == [10, 0, 500_000, 0, -10, 5_000_000]


def test_a_crs_without_a_code_is_written_out(files: dict[str, Path]) -> None:
    custom = GeoBox((5, 5), UTM.affine, "+proj=laea +lat_0=50 +lon_0=11 +ellps=GRS80")
    found = item_of(files, custom)["properties"]
    assert found["proj:code"] is None
    assert "Lambert Azimuthal Equal Area" in found["proj:wkt2"]


def test_classes_have_values_machine_names_titles_and_colours(files: dict[str, Path]) -> None:
    (band,) = item_of(files)["assets"]["map"]["bands"]
    classes = band["classification:classes"]
    assert [entry["value"] for entry in classes] == [3, 7, 12, 255]
    assert [entry["name"] for entry in classes] == ["water", "crops_arable", "class_12", "nodata"]
    assert [entry["title"] for entry in classes[:3]] == list(LEGEND.names)
    assert classes[2]["color_hint"] == "1F6B35"
    assert (band["nodata"], band["data_type"]) == (255, "uint8")


def test_files_are_named_relative_and_can_be_checked(files: dict[str, Path]) -> None:
    asset = item_of(files)["assets"]["map"]
    content = files["class_map"].read_bytes()
    assert asset["href"] == "./map.tif"
    assert asset["file:size"] == len(content)
    assert asset["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()


def test_provenance_is_kept(files: dict[str, Path]) -> None:
    found = item_of(files, tags={"GEOSEG_VERSION": "9.9", "GEOSEG_MODEL_NAME": "zion"})["properties"]
    assert found["geoseg:model_name"] == "zion"
    assert found["processing:software"] == {"geoseg": "9.9"}


def test_the_file_is_json_and_appears_whole(tmp_path: Path) -> None:
    path = write_item(tmp_path / "map.stac.json", {"id": "лес"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"id": "лес"}
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written: No such file"):
        write_item(tmp_path / "nowhere" / "map.stac.json", {})


def test_machine_names_of_classes_differ(files: dict[str, Path]) -> None:
    legend = Legend.from_dict({1: "nodata", 2: "a b", 3: "a_b", 4: "a  b"})
    rasters = {"map": MapAsset(files["class_map"], "Classes", ("class",), classes=True)}
    item = map_item(rasters, style=files["style"], geobox=UTM, legend=legend, created="2026-01-02T03:04:05Z")
    names = [entry["name"] for entry in item["assets"]["map"]["bands"][0]["classification:classes"]]
    assert names == ["nodata_1", "a_b", "a_b_3", "a_b_4", "nodata"]
