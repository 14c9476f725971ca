"""No verb writes over what it reads, whatever it is called and however it is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import geopandas
import pytest
import shapely
import yaml

from geoseg.cli import main

EVERYTHING = shapely.box(499_000, 5_298_000, 502_000, 5_301_000)


@pytest.fixture
def place(model: Path, write_scene: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one of each kind of input."""
    monkeypatch.chdir(tmp_path)
    write_scene("scene.tif")
    for name in ("map.tif", "labels.tif"):
        write_scene(name, bands=["class"], dtype="uint8")
    geopandas.GeoDataFrame({"kind": [1]}, geometry=[EVERYTHING], crs="EPSG:32633").to_file("area.gpkg")
    Path("tiles").mkdir()
    shutil.copy("scene.tif", "tiles/a.tif")
    scenes = [{"image": "scene.tif", "labels": "labels.tif"}]
    Path("run.yaml").write_text(
        yaml.safe_dump({"data": {"scenes": scenes, "patch_px": 32, "batch": 4, "epoch_patches": 4}})
    )
    Path("link.tif").symlink_to("labels.tif")
    assert model.exists()
    return tmp_path


@pytest.mark.parametrize(
    ("command", "out"),
    [
        ("assess map.tif --reference labels.tif --out OUT", "map.tif"),
        ("assess map.tif --reference labels.tif --out OUT", "labels.tif"),
        ("assess map.tif --reference labels.tif --out OUT", "link.tif"),
        ("assess map.tif --reference label*.tif --out OUT", "labels.tif"),
        ('assess map.tif --reference {"layers":["labels.tif"]} --out OUT', "labels.tif"),
        ("assess map.tif --reference labels.tif --region area.gpkg --out OUT", "area.gpkg"),
        ("assess map.tif --reference area.gpkg --column kind --out OUT", "area.gpkg"),
        ("info scene.tif --model model.safetensors --json OUT", "model.safetensors"),
        ("info scen*.tif --json OUT", "scene.tif"),
        ("info tiles --json OUT", "tiles/a.tif"),
        ("info model.safetensors --json OUT", "model.safetensors"),
        ("info run.yaml --json OUT", "run.yaml"),
        ("info run.yaml --json OUT", "labels.tif"),
        ("export model.safetensors --stac OUT", "item.json"),
    ],
)
def test_no_verb_replaces_what_it_reads(
    place: Path, capsys: pytest.CaptureFixture[str], command: str, out: str
) -> None:
    if out == "item.json":
        Path(out).symlink_to("model.safetensors")
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main([*command.replace("OUT", out).split(), "--overwrite"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == f"geoseg: error: the output {out} is also an input; give the output another name"
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before
