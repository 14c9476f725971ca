"""Short versions of the benchmarks on real imagery: every shipped config for a step, and the way held to its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import yaml

import geoseg
from geoseg import io
from geoseg.vector import PolygonOptions, polygonize

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
BRIEF: dict[str, Any] = {
    "data": {"patch_px": 64, "batch": 4, "epoch_patches": 8},
    "model": {"options": {"encoder_depth": 3, "decoder_channels": [16, 16, 16]}},
    "trainer": {"max_epochs": 1},
}


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # the shipped configs name the data relative to it


def brief_fit(config: str, folder: Path, **more: Any) -> Path:
    """The model of one short epoch with a shipped config."""
    return geoseg.fit(CONFIGS / config, name="run", runs=str(folder), **{**BRIEF, **more}).model


def check_polygons(mapped: Path, *, pixels: int) -> None:
    """The polygons of a map are a coverage of all that was mapped, however they are drawn."""
    whole = geopandas.read_file(geoseg.vectorize(mapped, out=mapped.with_name("polygons.fgb"), tolerance_m=30))
    assert whole.geometry.area.sum() == pytest.approx(pixels * 900, rel=1e-9)
    source = geoseg.open_source(str(mapped))
    part = source.read(source.geobox[600:800, 400:700])  # shapely takes long over large coverages
    for options in ({}, {"min_area_m2": "1ha", "tolerance_m": 30}, {"smooth": True}):
        shapes = polygonize(part, options=PolygonOptions(kind="values", **options)).geometry.to_numpy()
        assert shapely.is_valid(shapes).all()
        assert shapely.is_empty(shapely.coverage_invalid_edges(shapes)).all()
        assert shapely.area(shapes).sum() == pytest.approx(part.valid.sum() * 900, rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zion", "zion_elevation"])
def test_zion_from_labels_in_their_own_crs_to_scores_on_the_east(name: str, shared_data: Path, tmp_path: Path) -> None:
    model = brief_fit(f"{name}.yaml", tmp_path)
    scene: Any = str(shared_data / "zion" / "landsat8_2345.tif")
    if name == "zion_elevation":
        scene = yaml.safe_load((CONFIGS / "zion_elevation_predict.yaml").read_text())["scene"]
    out = tmp_path / "map.tif"
    geoseg.predict(scene, model=model, out=out, bands=["blue", "green", "red", "nir"] if name == "zion" else None)
    with rasterio.open(shared_data / "zion" / "landsat8_2345.tif") as given, rasterio.open(out) as made:
        assert (made.transform, made.shape, made.crs) == (given.transform, given.shape, given.crs)
        ids = made.read(1)
    assert set(np.unique(ids)) <= {*range(1, 9)} | ({255} if name == "zion_elevation" else set())
    check_polygons(out, pixels=int((ids != 255).sum()))
    found = geoseg.assess(out, reference=str(shared_data / "zion" / "nlcd.tif"), region={"cols": [708, None]})
    judged = int(found.accuracy.confusion.matrix.sum() + found.accuracy.confusion.unmapped.sum())
    assert judged == pytest.approx(420 * 1428, rel=0.01)
    assert 0 <= found.accuracy.mean_iou <= 1


@pytest.mark.slow
def test_aber_sixteen_files_map_as_one_file_does(shared_data: Path, tmp_path: Path) -> None:
    tiles = sorted((shared_data / "aber_tiles").glob("*.tif"))
    mosaic = geoseg.open_source([str(tile) for tile in tiles])
    whole = mosaic.read(mosaic.geobox)
    ids = np.where(whole.pixels[6] > 150, 2, 1).astype(np.uint8)[None]
    labels = io.write_raster(
        geoseg.Raster(ids, whole.valid, whole.geobox, ("label",)),
        tmp_path / "labels.tif",
        legend=geoseg.Legend.from_dict({1: "dark", 2: "bright"}),
    )
    scenes = [{"image": [str(tile) for tile in tiles], "labels": str(labels)}]
    model = brief_fit("aber.yaml", tmp_path, data={**BRIEF["data"], "scenes": scenes, "legend": None})
    one_file = io.write_raster(whole, tmp_path / "one.tif", nodata=0)
    geoseg.predict([str(tile) for tile in tiles], model=model, out=tmp_path / "map.tif")
    geoseg.predict(str(one_file), model=model, out=tmp_path / "one_map.tif")
    with rasterio.open(tmp_path / "map.tif") as a, rasterio.open(tmp_path / "one_map.tif") as b:
        assert (a.transform, a.shape) == (b.transform, b.shape)
        np.testing.assert_array_equal(a.read(1), b.read(1))


@pytest.mark.slow
def test_beaufort_from_degrees_to_true_square_metres(shared_data: Path, tmp_path: Path) -> None:
    model = brief_fit("beaufort.yaml", tmp_path)
    scene = str(shared_data / "beaufort" / "beaufort_s2_b01_b08.tif")
    geoseg.predict(scene, model=model, out=tmp_path / "map.tif", nodata=255)
    geoseg.vectorize(tmp_path / "map.tif", out=tmp_path / "map.gpkg", min_area_m2=20_000)
    frame = geopandas.read_file(tmp_path / "map.gpkg", layer="map")
    with rasterio.open(tmp_path / "map.tif") as made, rasterio.open(scene) as given:
        assert made.transform == given.transform
        mapped = made.read(1) != 255
        np.testing.assert_array_equal(mapped, (given.read() != 255).all(0))
        affine = made.transform
    # A degree of latitude at 34.6 N is 110,926 m, of longitude 91,740 m (WGS 84, Snyder 1987, table 4).
    expected = mapped.sum() * (affine.a * 91_740) * (-affine.e * 110_926)
    assert frame["area_m2"].sum() == pytest.approx(expected, rel=2e-3)


@pytest.mark.slow
def test_buildings_of_one_town_mapped_in_the_other(shared_data: Path, tmp_path: Path) -> None:
    model = brief_fit("buildings.yaml", tmp_path)
    scene = shared_data / "buildings" / "23429155_15.tif"
    geoseg.predict(str(scene), model=model, out=tmp_path / "map.tif", bands=["red", "green", "blue"])
    reference = {
        "path": str(shared_data / "buildings" / "massachusetts_buildings.gpkg"),
        "column": "class",
        "background": "background",
    }
    found = geoseg.assess(tmp_path / "map.tif", reference=reference)
    matrix = found.accuracy.confusion.matrix
    assert matrix.sum() == pytest.approx(1046 * 751, rel=1e-4)
    assert 0.05 < matrix[1].sum() / matrix.sum() < 0.4  # a town of 589 buildings
