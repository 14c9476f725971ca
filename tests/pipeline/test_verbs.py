"""The verbs on small scenes: what comes out, and what a GIS reads of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio

import geoseg
from geoseg.cli import main


@pytest.fixture
def mapped(model: Path, write_scene: Callable[..., Path], tmp_path: Path) -> Path:
    geoseg.predict(str(write_scene()), model=model, out=tmp_path / "map.tif")
    return tmp_path / "map.tif"


def test_predict_writes_map_confidence_style_and_item_on_the_scenes_grid(mapped: Path) -> None:
    with rasterio.open(mapped.with_name("scene.tif")) as scene, rasterio.open(mapped) as found:
        assert found.transform == scene.transform
        assert found.crs == scene.crs
        assert found.shape == scene.shape
        assert (found.dtypes, found.nodata) == (("uint8",), 255)
        ids, valid = found.read(1), scene.read(1) != 0
        assert found.colormap(1)[1][:3] == geoseg.Legend.from_dict({1: "water"}).classes[0].rgb
        assert found.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    assert set(np.unique(ids[valid])) <= {1, 2, 5}
    assert (ids[~valid] == 255).all()
    with rasterio.open(mapped.with_name("map.confidence.tif")) as trust:
        percent = trust.read(1)
    assert (percent[~valid] == 255).all()
    assert percent[valid].min() >= 33
    assert percent[valid].max() <= 100
    assert "water" in mapped.with_suffix(".qml").read_text()
    assert json.loads(mapped.with_name("map.stac.json").read_text())["type"] == "Feature"
    assert not mapped.with_name("map.tif.parts").exists()


def test_vectorize_takes_names_and_confidence_from_beside_the_map(mapped: Path) -> None:
    out = geoseg.vectorize(mapped, out=mapped.with_name("map.gpkg"))
    frame = geopandas.read_file(out, layer="map")
    assert {"class_id", "class_name", "area_m2", "perimeter_m", "confidence"} <= set(frame.columns)
    assert set(frame["class_name"]) <= {"water", "forest", "crop"}
    with rasterio.open(mapped) as source:
        pixels = int((source.read(1) != 255).sum())
    assert frame["area_m2"].sum() == pytest.approx(pixels * 100, rel=2e-3)  # UTM is 0.9996 at its middle


def test_assess_against_itself_is_perfect_and_against_half_a_region_counts_half(mapped: Path) -> None:
    whole = geoseg.assess(mapped, reference=str(mapped), out=mapped.with_name("a.json"))
    assert whole.accuracy.overall == 1.0
    east = geoseg.assess(mapped, reference=str(mapped), region={"cols": [65, None]})
    assert int(east.accuracy.confusion.matrix.sum()) == 100 * 65
    assert json.loads(mapped.with_name("a.json").read_text())["overall_accuracy"] == 1.0
    assert "Overall accuracy 1.000" in str(whole)


def test_info_describes_scenes_and_models(mapped: Path, model: Path) -> None:
    assert "red, nir" in str(geoseg.info(str(mapped.with_name("scene.tif")), model=model))
    assert "1 water" in str(geoseg.info(str(mapped)))
    assert "red" in str(geoseg.info(str(model)))


def test_the_command_line_goes_the_same_way(
    model: Path, write_scene: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene, out = str(write_scene()), str(tmp_path / "map.tif")
    assert main(["predict", scene, "--model", str(model), "--out", out, "--memory", "3GB"]) == 0
    assert main(["vectorize", out, "--out", str(tmp_path / "map.shp"), "--min-area-m2", "500"]) == 0
    assert main(["assess", out, "--reference", out]) == 0
    assert "Overall accuracy 1.000" in capsys.readouterr().out


def test_a_mosaic_on_the_command_line_is_one_map(model: Path, write_scene: Callable[..., Path], tmp_path: Path) -> None:
    west = write_scene("west.tif", shape=(60, 80))
    east = write_scene("east.tif", shape=(60, 80), transform=rasterio.Affine(10, 0, 500_800, 0, -10, 5_300_000))
    assert main(["predict", str(west), str(east), "--model", str(model), "--out", str(tmp_path / "m.tif")]) == 0
    with rasterio.open(tmp_path / "m.tif") as found:
        assert found.shape == (60, 160)


@pytest.mark.parametrize("names", ["RED, nir", "[red, nir]"])
def test_bands_are_named_on_the_command_line(
    names: str, model: Path, write_scene: Callable[..., Path], tmp_path: Path
) -> None:
    scene, out = str(write_scene(bands=["band_a", "band_b"])), str(tmp_path / "map.tif")
    assert main(["predict", scene, "--model", str(model), "--out", out]) == 2
    assert main(["predict", scene, "--model", str(model), "--out", out, "--bands", names]) == 0


def test_borders_by_the_probabilities_that_predict_writes(
    model: Path, write_scene: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "map.tif"
    geoseg.predict(str(write_scene()), model=model, out=out, layers=["probabilities"])
    smooth = geoseg.vectorize(out, out=tmp_path / "smooth.parquet", probabilities=tmp_path / "map.probabilities.tif")
    frame = geopandas.read_parquet(smooth)
    exact = geopandas.read_parquet(geoseg.vectorize(out, out=tmp_path / "exact.parquet"))
    assert frame["class_name"].tolist() == exact["class_name"].tolist()
    assert frame.geometry.is_valid.all()
    assert frame.geometry.area.sum() == pytest.approx(exact.geometry.area.sum(), rel=1e-9)
    assert not frame.geometry.geom_equals(exact.geometry).all()
