"""The STAC Item says where a map lies and what its numbers mean."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from affine import Affine
from odc.geo.geobox import GeoBox
from shapely.geometry import Point, Polygon

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
    [
        GeoBox((5, 5), Affine(1, 0, 0, 0, -1, 0), None),
        GeoBox((5, 5), Affine(10, 0, 9e9, 0, -10, 9e9), "EPSG:32633"),
        GeoBox((50, 50), Affine(1, 0, 155, 0, -1, 40), "+proj=longlat +lon_wrap=180"),
    ],
    ids=["no CRS", "off the Earth", "antimeridian"],
)
def test_without_a_place_that_one_ring_can_tell_there_is_no_box(files: dict[str, Path], geobox: GeoBox) -> None:
    item = item_of(files, geobox)
    assert item["geometry"] is None
    assert "bbox" not in item


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
