"""What predict writes is what others define: Cloud-Optimized GeoTIFFs and STAC Items, by validators of theirs.

pystac ships the schemas of STAC itself, none of the extensions, and there is no network in a test. So `schemas/` states
what the extensions publish about the fields that geoseg writes.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from pystac.errors import STACValidationError
from pystac.validation import JsonSchemaSTACValidator, validate_dict
from rio_cogeo import cog_info, cog_validate
from torch import Tensor, nn

from geoseg.infer.layers import LAYERS
from geoseg.infer.predictor import TorchModel
from geoseg.infer.scene import PredictOptions, predict_scene
from geoseg.io.handles import unplaced_is_fine
from geoseg.io.item import EXTENSIONS, _dates
from geoseg.io.sources import open_source
from geoseg.legend import Legend
from geoseg.models.card import BandInfo, ModelCard
from geoseg.models.spec import ModelSpec

SCHEMAS = Path(__file__).parent / "schemas"
LEGEND = Legend.from_dict({0: "water", 7: "crops (arable)", 12: {"name": "лес", "color": "#1F6b35"}})
UTM = Affine(10, 0, 500_000, 0, -10, 5_000_000)

SCENES = {
    "large": GeoBox((700, 1300), UTM, "EPSG:32633"),
    "degrees": GeoBox((700, 1300), Affine(1e-4, 0, 15.2, 0, -1e-4, 47.9), "EPSG:4326"),
    "small, in degrees": GeoBox((120, 90), Affine(1e-4, 0, -70.2, 0, -1e-4, -33.9), "EPSG:4326"),
    "degrees from 0 to 360": GeoBox((60, 60), Affine(1e-3, 0, 289.8, 0, -1e-3, -33.9), "EPSG:4326"),
    "across the antimeridian": GeoBox((60, 60), Affine(1e-3, 0, 179.98, 0, -1e-3, -16.5), "EPSG:4326"),
    "rotated": GeoBox((700, 600), Affine(6, 8, 500_000, 8, -6, 5_000_000), "EPSG:32633"),
    "south up": GeoBox((520, 80), Affine(10, 0, 500_000, 0, 10, 5_000_000), "EPSG:32633"),
    "one pixel": GeoBox((1, 1), UTM, "EPSG:32633"),
    "one row": GeoBox((1, 1300), UTM, "EPSG:32633"),
    "a pixel more than a block": GeoBox((513, 40), UTM, "EPSG:32633"),
    "its own CRS": GeoBox((60, 60), Affine(10, 0, 0, 0, -10, 0), "+proj=laea +lat_0=50 +lon_0=11 +ellps=GRS80"),
    "no CRS": GeoBox((60, 60), Affine(1, 0, 0, 0, -1, 0), None),
}


class Blocks(nn.Module):
    """Classes in squares of 50 pixels, the first band's value a class, with a second one close behind."""

    def forward(self, image: Tensor) -> Tensor:
        wanted = image[:, 0].round().long() % 3
        return nn.functional.one_hot(wanted, 3).permute(0, 3, 1, 2).float() * 2 + image[:, 1:] * 0


@dataclass(frozen=True)
class Made:
    """The outputs for one scene, and what was said meanwhile."""

    rasters: dict[str, Path]
    item_path: Path
    log: list[logging.LogRecord]

    @property
    def item(self) -> dict[str, Any]:
        return json.loads(self.item_path.read_text(encoding="utf-8"))


def write_scene(path: Path, geobox: GeoBox) -> Path:
    rows, cols = geobox.shape
    row, col = np.indices((rows, cols))
    pixels = np.stack([row // 50 + col // 50, row]).astype(np.uint16)
    pixels[:, rows // 2 :, : cols // 5] = 65535
    profile = {"driver": "GTiff", "count": 2, "height": rows, "width": cols, "dtype": "uint16", "nodata": 65535,
               "crs": None if geobox.crs is None else geobox.crs.to_wkt(), "transform": geobox.affine}  # fmt: skip
    with unplaced_is_fine(), rasterio.open(path, "w", **profile) as file:
        file.write(pixels)
        file.descriptions = ("red", "nir")
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """Predicts a scene of `SCENES` with all layers, once."""
    bands = tuple(BandInfo(name=name, mean=0.0, std=1.0) for name in ("red", "nir"))
    card = ModelCard(
        name="test", spec=ModelSpec(bands=2, classes=3), bands=bands, legend=LEGEND, gsd_m=(10.0, 10.0), tile_px=256,
        overlap_px=32,
    )  # fmt: skip
    options = PredictOptions(native=True, layers=tuple(name for name in LAYERS if name not in ("class", "confidence")))
    kept: dict[str, Made] = {}

    def make(name: str) -> Made:
        if name not in kept:
            folder, log = tmp_path_factory.mktemp("made"), Listener()
            logging.getLogger().addHandler(log)
            result = predict_scene(
                open_source(write_scene(folder / "scene.tif", SCENES[name])), models=[TorchModel(Blocks(), card)],
                out=folder / "map of 2026.tif", options=options,
            )  # fmt: skip
            logging.getLogger().removeHandler(log)
            kept[name] = Made(dict(result.layers), result.item, log.records)
        return kept[name]

    return make


class Listener(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("name", SCENES)
def test_every_map_is_a_cog_without_an_error_or_a_warning(made: Callable[[str], Made], name: str, layer: str) -> None:
    path = made(name).rasters[layer]
    with unplaced_is_fine():
        assert cog_validate(path, strict=True, quiet=True) == (True, [], [])


@pytest.mark.parametrize("name", SCENES)
def test_a_map_has_overviews_down_to_one_block_and_the_scenes_grid(made: Callable[[str], Made], name: str) -> None:
    geobox, path = SCENES[name], made(name).rasters["class"]
    with unplaced_is_fine(), rasterio.open(path) as file:
        assert file.shape == geobox.shape
        assert file.transform == geobox.affine
        factors = file.overviews(1)
        assert factors == [2**level for level in range(1, len(factors) + 1)]
        smallest = max(geobox.shape) / (factors[-1] if factors else 1)
    assert smallest <= 512


def test_the_layout_is_that_of_a_tiled_compressed_file(made: Callable[[str], Made]) -> None:
    info = cog_info(made("large").rasters["class"])
    assert (info.COG, info.COG_errors, info.COG_warnings) == (True, None, None)
    assert (info.Compression, tuple(info.Profile.ColorInterp)) == ("DEFLATE", ("palette",))
    assert [level.Blocksize for level in info.IFD] == [(512, 512)] * len(info.IFD)


@pytest.mark.parametrize("name", SCENES)
def test_nothing_is_said_while_a_map_is_written(made: Callable[[str], Made], name: str) -> None:
    """GDAL warns of a creation option that it does not know, such as a misspelt NUM_THREADS, in rasterio's log."""
    said = [record for record in made(name).log if record.name.startswith(("rasterio", "geoseg.io"))]
    assert [record.getMessage() for record in said] == []


@pytest.fixture(scope="module")
def validator() -> JsonSchemaSTACValidator:
    """pystac's, which knows the extensions' schemas; it fails for any other, for which it would ask the network."""
    found = JsonSchemaSTACValidator()
    for path in SCHEMAS.glob("*.json"):
        schema = json.loads(path.read_text(encoding="utf-8"))
        found.schema_cache[schema["$id"]] = schema
    return found


@pytest.mark.parametrize("name", SCENES)
def test_the_item_is_valid_stac_by_core_and_extensions(
    made: Callable[[str], Made], validator: JsonSchemaSTACValidator, name: str
) -> None:
    checked = validate_dict(made(name).item, validator=validator)
    core = "https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/item.json"
    assert checked == [core, *EXTENSIONS]


@pytest.mark.parametrize("name", SCENES)
def test_every_field_with_a_prefix_is_of_an_extension_that_the_item_names(
    made: Callable[[str], Made], name: str
) -> None:
    prefixes = {"projection": "proj"}
    names = {url.split("/")[3] for url in made(name).item["stac_extensions"]}
    known = {prefixes.get(name, name) for name in names} | {"geoseg"}
    assert {key.split(":")[0] for key in keys_of(made(name).item) if ":" in key} <= known


def keys_of(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [*value, *(key for item in value.values() for key in keys_of(item))]
    return [key for item in value for key in keys_of(item)] if isinstance(value, list) else []


@pytest.mark.parametrize("name", SCENES)
def test_pystac_reads_the_item_and_finds_the_files(made: Callable[[str], Made], name: str) -> None:
    outputs = made(name)
    item = pystac.Item.from_file(str(outputs.item_path))
    found = {Path(asset.get_absolute_href() or "") for asset in item.assets.values()}
    assert found == {*outputs.rasters.values(), outputs.item_path.with_name("map of 2026.qml")}
    for asset in item.get_assets(media_type=pystac.MediaType.COG).values():
        with unplaced_is_fine(), rasterio.open(asset.get_absolute_href()) as file:
            bands = asset.extra_fields["bands"]
            assert [band["data_type"] for band in bands] == list(file.dtypes)
            assert [band["nodata"] for band in bands] == list(file.nodatavals)
            assert [band["name"] for band in bands] == list(file.descriptions)


@pytest.mark.parametrize("name", SCENES)
def test_the_place_is_told_as_geojson_and_the_projection_extension_ask(made: Callable[[str], Made], name: str) -> None:
    item, geobox = made(name).item, SCENES[name]
    found = item["properties"]
    assert found["proj:shape"] == list(geobox.shape)
    assert Affine(*found["proj:transform"]) == geobox.affine
    if geobox.crs is None:
        assert found["proj:code"] is None
    else:
        crs = rasterio.CRS.from_user_input(found["proj:code"] or found["proj:wkt2"])
        assert crs == rasterio.CRS.from_wkt(geobox.crs.to_wkt())
    if name == "no CRS":
        assert item["geometry"] is None
    else:
        west, south, east, north = item["bbox"]
        assert (west > east) == (name == "across the antimeridian")
        assert -180 <= min(west, east) < max(west, east) <= 180
        east += 360 * (west > east)
        assert -90 <= south < north <= 90
        # A scene lies within some 20 km of its centre, on any side of the globe.
        lon, lat = geobox.geographic_extent.centroid.coords[0]
        assert abs((lon - (west + east) / 2 + 180) % 360 - 180) < 0.2
        assert abs(lat - (south + north) / 2) < 0.2


BROKEN: dict[str, tuple[str, Any]] = {
    "core: no time": ("properties.datetime", None),
    "core: a time without a zone": ("properties.created", "2026-01-02T03:04:05"),
    "core: a place without a box": ("bbox", ...),
    "core: an unknown kind of number": ("assets.map.bands.0.data_type", "byte"),
    "core: no address": ("assets.style.href", ...),
    "projection: a number for a code": ("properties.proj:code", 32633),
    "projection: three sides": ("properties.proj:shape", [1, 2, 3]),
    "projection: five coefficients": ("properties.proj:transform", [1, 2, 3, 4, 5]),
    "projection: the field of version 1": ("properties.proj:epsg", 32633),
    "classification: a name for people": ("assets.map.bands.0.classification:classes.1.name", "crops (arable)"),
    "classification: no name": ("assets.map.bands.0.classification:classes.1.name", ...),
    "classification: no value": ("assets.map.bands.0.classification:classes.0.value", ...),
    "classification: a colour with a hash": ("assets.map.bands.0.classification:classes.0.color_hint", "#1F6B35"),
    "classification: no classes": ("assets.map.bands.0.classification:classes", []),
    "processing: software as a text": ("properties.processing:software", "geoseg 1"),
    "processing: a version as a number": ("properties.processing:software.geoseg", 1),
    "processing: an unknown field": ("properties.processing:date", "2026-01-02"),
    "file: a size as a text": ("assets.map.file:size", "12 MB"),
    "file: a checksum in capitals": ("assets.confidence.file:checksum", "1220ABCD"),
    "file: the hash's name as a field": ("assets.map.file:sha256", "abcd"),
}


def test_an_item_of_several_dates_is_valid(made: Callable[[str], Made], validator: JsonSchemaSTACValidator) -> None:
    days = [datetime(2021, 5, day, tzinfo=UTC) for day in (1, 27)]
    item = copy.deepcopy(made("large").item)
    item["properties"] |= _dates((days[0], days[1]), item["properties"]["created"])
    validate_dict(item, validator=validator)
    del item["properties"]["end_datetime"]
    with pytest.raises(STACValidationError):
        validate_dict(item, validator=validator)


@pytest.mark.parametrize("case", BROKEN)
def test_the_schemas_find_what_is_wrong(
    made: Callable[[str], Made], validator: JsonSchemaSTACValidator, case: str
) -> None:
    path, value = BROKEN[case]
    item = copy.deepcopy(made("small, in degrees").item)
    *parents, last = path.split(".")
    place: Any = item
    for step in parents:
        place = place[int(step) if isinstance(place, list) else step]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    wanted = "item-spec" if case.startswith("core") else case.split(":", maxsplit=1)[0]
    with pytest.raises(STACValidationError, match=f"against schema at .*/{wanted}/"):
        validate_dict(item, validator=validator)


def test_each_extension_has_a_schema_here_and_each_is_one(validator: JsonSchemaSTACValidator) -> None:
    assert {json.loads(path.read_text(encoding="utf-8"))["$id"] for path in SCHEMAS.glob("*.json")} == set(EXTENSIONS)
    for url in EXTENSIONS:
        assert validator.schema_cache[url]["properties"]["stac_extensions"] == {"contains": {"const": url}}
