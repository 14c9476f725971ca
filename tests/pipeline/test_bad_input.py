"""Bad input: one line that says what to mend, exit code 2, nothing left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import geopandas
import pytest
import rasterio
import shapely

from geoseg.cli import main

Write = Callable[..., Path]
Refused = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Refused:
    """Runs a command that must be refused; returns its one line, and sees that no file has come or changed."""

    def run(*args: str | Path) -> str:
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        capsys.readouterr()
        assert main([str(arg) for arg in args]) == 2
        shown = capsys.readouterr().err
        assert shown.startswith("geoseg: error: ")
        assert shown.count("\n") == 1
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
        return shown

    return run


def predict(scene: str | Path, model: Path, out: Path, *more: str) -> list[str | Path]:
    return ["predict", scene, "--model", model, "--out", out, *more]


def test_a_missing_file(refused: Refused, model: Path, tmp_path: Path) -> None:
    assert "nowhere.tif" in refused(*predict(tmp_path / "nowhere.tif", model, tmp_path / "map.tif"))


def test_not_a_raster(refused: Refused, model: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.tif").write_text("this is no raster")
    assert "notes.tif" in refused(*predict(tmp_path / "notes.tif", model, tmp_path / "map.tif"))


def test_an_empty_file(refused: Refused, model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.tif").write_bytes(b"")
    assert "empty.tif" in refused(*predict(tmp_path / "empty.tif", model, tmp_path / "map.tif"))


def test_a_truncated_file_that_fails_on_read(refused: Refused, model: Path, write_scene: Write, tmp_path: Path) -> None:
    path = write_scene(shape=(300, 300), compress="deflate", tiled=True, blockxsize=64, blockysize=64)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert "scene.tif" in refused(*predict(path, model, tmp_path / "map.tif"))


def test_no_crs(refused: Refused, model: Path, write_scene: Write, tmp_path: Path) -> None:
    assert "--crs" in refused(*predict(write_scene(crs=None), model, tmp_path / "map.tif"))
    assert (
        main([str(arg) for arg in predict(write_scene(crs=None), model, tmp_path / "m.tif", "--crs", "EPSG:32633")])
        == 0
    )


def test_bands_that_the_scene_lacks(refused: Refused, model: Path, write_scene: Write, tmp_path: Path) -> None:
    shown = refused(*predict(write_scene(bands=["red", "green"]), model, tmp_path / "map.tif"))
    assert "red, nir" in shown
    assert "red, green" in shown


def test_a_wrong_count_of_band_names(refused: Refused, model: Path, write_scene: Write, tmp_path: Path) -> None:
    assert "3" in refused(*predict(write_scene(), model, tmp_path / "map.tif", "--bands", "[red, nir, blue]"))


def test_an_output_that_exists(refused: Refused, model: Path, write_scene: Write, tmp_path: Path) -> None:
    (tmp_path / "map.tif").write_text("precious")
    assert "--overwrite" in refused(*predict(write_scene(), model, tmp_path / "map.tif"))


def test_an_output_that_is_the_input(refused: Refused, model: Path, write_scene: Write) -> None:
    path = write_scene()
    assert "input" in refused(*predict(path, model, path, "--overwrite"))


def test_an_output_that_cannot_be_written(refused: Refused, model: Path, write_scene: Write, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert "file" in refused(*predict(write_scene(), model, tmp_path / "file" / "map.tif"))
    refused(*predict(write_scene(), model, tmp_path))


def test_a_model_that_is_none(refused: Refused, write_scene: Write, tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0nonsense")
    assert "m.safetensors" in refused(*predict(write_scene(), tmp_path / "m.safetensors", tmp_path / "map.tif"))
    assert "none.safetensors" in refused(*predict(write_scene(), tmp_path / "none.safetensors", tmp_path / "map.tif"))


def test_a_memory_that_is_no_size(refused: Refused, model: Path, write_scene: Write, tmp_path: Path) -> None:
    assert "much" in refused(*predict(write_scene(), model, tmp_path / "map.tif", "--memory", "much"))


def test_a_config_with_an_unknown_key(refused: Refused, model: Path, write_scene: Write, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("overlapp: 3\n")
    config = ("--config", str(tmp_path / "c.yaml"))
    assert "overlapp" in refused(*predict(write_scene(), model, tmp_path / "map.tif", *config))


def test_a_reference_elsewhere(refused: Refused, write_scene: Write) -> None:
    ids = write_scene("ids.tif", bands=["class"], dtype="uint8")
    far = write_scene(
        "far.tif", bands=["class"], dtype="uint8", transform=rasterio.Affine(10, 0, 900_000, 0, -10, 5_300_000)
    )
    assert "overlap" in refused("assess", ids, "--reference", far)


def test_a_reference_with_a_class_of_its_own(refused: Refused, model: Path, write_scene: Write, tmp_path: Path) -> None:
    out = tmp_path / "map.tif"
    assert main([str(arg) for arg in predict(write_scene(), model, out)]) == 0
    ids = write_scene("ids.tif", bands=["class"], dtype="uint8")
    assert "legend" in refused("assess", out, "--reference", ids)


@pytest.mark.parametrize("region", ["{cols: [50, 50]}", "{cols: [5000, null]}", "{columns: [0, 5]}", "nowhere.gpkg"])
def test_an_empty_region(region: str, refused: Refused, write_scene: Write) -> None:
    ids = write_scene("ids.tif", bands=["class"], dtype="uint8")
    shown = refused("assess", ids, "--reference", ids, "--region", region)
    assert any(word in shown for word in ("cols", "columns", "nowhere.gpkg"))


def test_an_unknown_polygon_format(refused: Refused, write_scene: Write, tmp_path: Path) -> None:
    ids = write_scene("ids.tif", bands=["class"], dtype="uint8")
    assert "gpkg" in refused("vectorize", ids, "--out", tmp_path / "map.xyz")


def test_a_map_of_many_bands(refused: Refused, write_scene: Write, tmp_path: Path) -> None:
    scene = write_scene()
    assert "red, nir" in refused("vectorize", scene, "--out", tmp_path / "map.gpkg")
    assert "one band" in refused("assess", scene, "--reference", scene)


def test_a_map_of_fractions(refused: Refused, write_scene: Write, tmp_path: Path) -> None:
    shown = refused("vectorize", write_scene(bands=["x"], dtype="float32"), "--out", tmp_path / "map.gpkg")
    assert "integer" in shown or "whole" in shown


def fit_config(tmp_path: Path, image: Path, labels: str) -> Path:
    path = tmp_path / "fit.yaml"
    path.write_text(
        f"name: run\nruns: {tmp_path}/runs\ndata:\n  patch_px: 32\n"
        f"  scenes:\n    - {{image: {image}, labels: {labels}}}\n"
        "  legend: {1: a, 2: b}\nmodel: {decoder: pixel}\ntrainer: {max_epochs: 1}\n"
    )
    return path


def test_labels_that_do_not_overlap_the_image(refused: Refused, write_scene: Write, tmp_path: Path) -> None:
    square = geopandas.GeoDataFrame({"class": [1]}, geometry=[shapely.box(0, 0, 100, 100)], crs="EPSG:32633")
    square.to_file(tmp_path / "far.gpkg")
    labels = f"{{path: {tmp_path}/far.gpkg, column: class}}"
    shown = refused("fit", "--config", fit_config(tmp_path, write_scene(), labels))
    assert "overlap" in shown


def test_a_class_id_that_is_not_in_the_legend(refused: Refused, write_scene: Write, tmp_path: Path) -> None:
    ids = write_scene("ids.tif", bands=["class"], dtype="uint8")
    assert "legend" in refused("fit", "--config", fit_config(tmp_path, write_scene(), str(ids)))


def test_a_training_config_with_an_unknown_key(refused: Refused, write_scene: Write, tmp_path: Path) -> None:
    path = fit_config(tmp_path, write_scene(), "x.tif")
    path.write_text(path.read_text().replace("patch_px", "patch_pixels"))
    assert "patch_pixels" in refused("fit", "--config", path)
