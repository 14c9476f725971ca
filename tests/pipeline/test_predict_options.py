"""`geoseg predict` with its options, as a user types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.warp import transform_bounds
from shapely.geometry import box, mapping

import geoseg
from geoseg.cli import main
from geoseg.errors import InputError, OutputExistsError
from geoseg.infer import predictor, scene
from geoseg.legend import Legend
from geoseg.models import load_model, save_model

from .conftest import write_model


def pixels(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read()


def test_an_area_from_a_polygon_file_in_degrees(model: Path, write_scene: Callable[..., Path], tmp_path: Path) -> None:
    scene, out = write_scene(), tmp_path / "map.tif"
    with rasterio.open(scene) as file:
        west, south, east, north = transform_bounds(file.crs, "EPSG:4326", *file.bounds)
    half = box(west - 1, south - 1, (west + east) / 2, north + 1)
    (tmp_path / "area.geojson").write_text(
        json.dumps(
            {
                "type": "FeatureCollection",
                "features": [{"type": "Feature", "properties": {}, "geometry": mapping(half)}],
            }
        )
    )
    command = ["predict", str(scene), "--model", str(model), "--out", str(out)]
    assert main([*command, "--area", str(tmp_path / "area.geojson")]) == 0
    found = pixels(out)[0]
    assert (found[:, 70:] == 255).all()
    assert (found[10:, :60] != 255).all()
    assert main([*command, "--overwrite", "--area", "{cols: [20, 30]}"]) == 0
    assert np.flatnonzero((pixels(out)[0] != 255).any(axis=0)).tolist() == list(range(20, 30))


def test_layers_seams_turns_and_two_models(
    write_scene: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = [write_model(tmp_path / name, bands=["red", "nir"]) for name in ("a.safetensors", "b.safetensors")]
    out = tmp_path / "map.tif"
    command = ["predict", str(write_scene(shape=(150, 140))), "--out", str(out), "--tta", "all", "--check-seams",
               "--layers", "entropy,margin,second,probabilities"]  # fmt: skip
    assert main([*command, "--model", ",".join(map(str, models))]) == 0
    assert "seams: classes change across" in capsys.readouterr().out
    layers = {name: pixels(tmp_path / f"map.{name}.tif")
              for name in ("confidence", "entropy", "margin", "second", "probabilities")}  # fmt: skip
    valid = pixels(out)[0] != 255
    shares = layers["probabilities"][:, valid].astype(int)
    ids = np.array([1, 2, 5])
    best, other = np.sort(shares, axis=0)[-1], np.sort(shares, axis=0)[-2]
    np.testing.assert_array_equal(layers["confidence"][0][valid], best)
    np.testing.assert_allclose(layers["margin"][0][valid], best - other, atol=1)
    clear = best - other > 1
    np.testing.assert_array_equal(pixels(out)[0][valid][clear], ids[shares.argmax(axis=0)][clear])
    assert (layers["second"][0][valid] != pixels(out)[0][valid]).all()
    item = json.loads((tmp_path / "map.stac.json").read_text())
    assert set(item["assets"]) == {"map", "style", *layers}
    assert [band["name"] for band in item["assets"]["probabilities"]["bands"]] == ["water", "forest", "crop"]


def test_a_damaged_file_stops_or_is_nodata_and_listed(
    model: Path, write_scene: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    scene = write_scene(shape=(512, 512), tiled=True, blockxsize=128, blockysize=128, compress="deflate")
    with rasterio.open(scene) as file:
        offset = int(file.get_tag_item("BLOCK_OFFSET_1_2", "TIFF", bidx=1))
        size = int(file.get_tag_item("BLOCK_SIZE_1_2", "TIFF", bidx=1))
    content = bytearray(scene.read_bytes())
    content[offset : offset + size] = bytes(size)
    scene.write_bytes(content)
    command = ["predict", str(scene), "--model", str(model), "--out", str(tmp_path / "map.tif")]
    assert main(command) == 2
    assert "scene.tif cannot be read at rows" in capsys.readouterr().err
    assert main([*command, "--on-error", "nodata"]) == 0
    assert "16384 pixels in 1 place could not be read and are nodata" in caplog.text
    lost = np.zeros((512, 512), np.bool_)
    lost[256:384, 128:256] = True
    lost[:7, :9] = True
    np.testing.assert_array_equal(pixels(tmp_path / "map.tif")[0] == 255, lost)
    item = json.loads((tmp_path / "map.stac.json").read_text())
    assert sum(entry[2] * entry[3] for entry in item["properties"]["geoseg:unread"]) == 128 * 128


def test_too_little_memory_says_the_smallest_that_works(
    model: Path, write_scene: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["predict", str(write_scene()), "--model", str(model), "--out", str(tmp_path / "map.tif")]
    assert main([*command, "--memory", "50MB"]) == 2
    said = capsys.readouterr().err
    assert "memory of 50 MB: one tile of 64 x 64 pixels needs" in said
    wanted = said.split("try --memory ")[1].strip()
    assert not (tmp_path / "map.tif.parts").exists()
    assert main([*command, "--memory", f"{int(wanted.removesuffix('MB')) + 100}MB"]) == 0


@pytest.mark.slow
def test_a_model_in_onnx_maps_alike_without_torch(
    model: Path, write_scene: Callable[..., Path], tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    scene, onnx = str(write_scene(shape=(150, 140))), str(tmp_path / "model.onnx")
    assert main(["export", str(model), "--onnx", onnx]) == 0
    assert (
        main(["predict", scene, "--model", str(model), "--out", str(tmp_path / "torch.tif"), "--precision", "fp32"])
        == 0
    )
    code = "import sys; sys.modules['torch'] = None; from geoseg.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "predict", scene, "--model", onnx, "--out", str(tmp_path / "onnx.tif")]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert run.returncode == 0, run.stderr
    assert (pixels(tmp_path / "torch.tif") != pixels(tmp_path / "onnx.tif")).mean() <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda values: values, None),
        (lambda values: values * 100, "values are about 100 times larger: another scaling (red, nir)"),
        (
            lambda values: values + np.array([9000, 0])[:, None, None],
            "the values of red lie far from those of training",
        ),
    ],
)
def test_values_that_the_model_is_not_used_to_are_told(
    model: Path, write_scene: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture, *, change, said
) -> None:
    scene = write_scene()
    with rasterio.open(scene, "r+") as file:
        values = file.read()
        file.write(np.where(values == 0, 0, change(values.astype(np.int64))).astype(np.uint16))
    geoseg.predict(scene, model=model, out=tmp_path / "map.tif")
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warned) == (said is not None)
    assert said is None or warned[0].startswith(said)


def test_two_processes_write_the_same_bytes(model: Path, write_scene: Callable[..., Path], tmp_path: Path) -> None:
    scene = str(write_scene(shape=(400, 200)))
    for name, more in (("one", []), ("two", ["--devices", "2"])):
        command = [
            "predict",
            scene,
            "--model",
            str(model),
            "--out",
            str(tmp_path / name / "map.tif"),
            "--device",
            "cpu",
        ]
        assert main([*command, *more]) == 0
    for path in (tmp_path / "one").glob("*.tif"):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


@pytest.mark.parametrize(("rule", "east"), [("first", "a"), ("newest", "b"), ("mean", None)])
def test_stac_items_that_overlap_are_mapped_by_the_rule(
    model: Path, write_scene: Callable[..., Path], tmp_path: Path, *, rule: str, east: str | None
) -> None:
    pytest.importorskip("pystac")
    features, maps = [], {}
    for name, date, left in (("a", "2021-05-27", 500_000), ("b", "2021-08-01", 500_400)):
        transform = rasterio.Affine(10, 0, left, 0, -10, 5_300_000)
        scene = write_scene(
            f"{name}.tif", shape=(60, 80), transform=transform, dtype="uint8" if name == "a" else "uint16"
        )
        assert main(["predict", str(scene), "--model", str(model), "--out", str(tmp_path / f"{name}.map.tif")]) == 0
        maps[name] = pixels(tmp_path / f"{name}.map.tif")[0]
        asset = {"href": f"./{name}.tif", "type": "image/tiff; application=geotiff", "roles": ["data"],
                 "bands": [{"name": "red"}, {"name": "nir"}]}  # fmt: skip
        features.append({
            "type": "Feature", "stac_version": "1.1.0", "id": name, "geometry": None, "links": [],
            "properties": {"datetime": f"{date}T10:00:00Z"}, "assets": {"image": asset},
        })  # fmt: skip
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    out = tmp_path / "map.tif"
    assert (
        main(["predict", str(tmp_path / "items.json"), "--model", str(model), "--out", str(out), "--rule", rule]) == 0
    )
    found = pixels(out)[0]
    assert found.shape == (60, 120)
    np.testing.assert_array_equal(found[:, :40], maps["a"][:, :40])
    np.testing.assert_array_equal(found[:, 80:], maps["b"][:, 40:])
    if east is not None:
        wanted = maps["a"][8:, 40:] if east == "a" else maps["b"][8:, :40]
        assert (found[8:, 40:80] == wanted).mean() > 0.99


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["-o", "map.tif"], "option -o is unknown; options begin with two dashes"),
        (["--layers", "entropy", "--layers", "margin"], "option --layers is given twice"),
        (["--memory", "1e999"], "memory '1e999' is no size"),
        (["--memory", "4"], "is 4 bytes; needed is a size such as 2GB"),
        (["--nodata", "abc"], "the value of --nodata does not fit; needed is float"),
        (["--tta", "eight"], "the value of --tta does not fit; needed is one of"),
    ],
)
def test_options_that_do_not_fit_are_one_line_of_our_own(
    model: Path, write_scene: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], *,
    more: list[str], said: str,
) -> None:  # fmt: skip
    command = ["predict", str(write_scene()), "--model", str(model), "--out", str(tmp_path / "map.tif"), *more]
    assert main(command) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.count("\n") == 1


def test_a_raster_that_a_vrt_names_is_no_output(
    model: Path, write_scene: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene, vrt = write_scene(), tmp_path / "scene.vrt"
    rasterio.shutil.copy(scene, vrt, driver="VRT")
    before = scene.read_bytes()
    assert main(["predict", str(vrt), "--model", str(model), "--out", str(scene), "--overwrite"]) == 2
    assert "is also an input" in capsys.readouterr().err
    assert scene.read_bytes() == before


def test_scenes_within_a_stack_have_no_rule(model: Path, write_scene: Callable[..., Path], tmp_path: Path) -> None:
    west, east = write_scene("west.tif"), write_scene("east.tif")
    with pytest.raises(InputError, match="they are within a stack"):
        geoseg.predict({"stack": [[str(west), str(east)]]}, model=model, out=tmp_path / "map.tif", rule="mean")


def test_files_that_only_an_argument_names_are_no_output(
    model: Path, write_scene: Callable[..., Path], tmp_path: Path
) -> None:
    scene, area = write_scene(), tmp_path / "map.stac.json"
    shape = mapping(box(500_000, 5_299_000, 500_500, 5_300_000))
    area.write_text(json.dumps({"type": "Feature", "properties": {}, "geometry": shape}))
    before = area.read_bytes()
    with pytest.raises(InputError, match=r"map.stac.json is also an input"):
        geoseg.predict(
            str(scene),
            model=model,
            out=tmp_path / "map.tif",
            area={"path": str(area), "crs": "EPSG:32633"},
            overwrite=True,
        )
    assert area.read_bytes() == before


def test_a_link_that_leads_nowhere_is_not_replaced(
    model: Path, write_scene: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "map.tif"
    out.symlink_to(tmp_path / "elsewhere" / "map.tif")
    with pytest.raises(OutputExistsError, match=r"map.tif exists"):
        geoseg.predict(str(write_scene()), model=model, out=out)
    assert out.is_symlink()


def test_a_nested_mosaic_takes_what_holds_for_all(
    model: Path, write_scene: Callable[..., Path], tmp_path: Path
) -> None:
    scenes = [str(write_scene(name)) for name in ("a.tif", "b.tif", "c.tif")]
    options = {"model": model, "nodata": 3, "crs": "EPSG:32633"}
    geoseg.predict([scenes[:2], scenes[2]], out=tmp_path / "nested.tif", **options)
    geoseg.predict(scenes, out=tmp_path / "flat.tif", **options)
    np.testing.assert_array_equal(pixels(tmp_path / "nested.tif"), pixels(tmp_path / "flat.tif"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"batch": 500, "memory": "700MB", "tile_px": 32, "overlap_px": 0},
            "batches of 20 tiles need about .* smaller --batch",
        ),
        (
            {"layers": "probabilities", "memory": "650MB"},
            "a layer of 60 bands takes .* leave out --layers probabilities",
        ),
        ({"engine": "serial", "devices": 4}, "engine serial is one process, devices are 4"),
    ],
)
def test_what_cannot_be_done_as_asked_is_said(
    write_scene: Callable[..., Path], tmp_path: Path, options: dict, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictor, "peak_bytes_of", lambda work: work() and 10**8)
    monkeypatch.setattr(scene, "resident_bytes", lambda: 4 * 10**8)
    legend = Legend.from_names([f"class {number}" for number in range(60)])
    model = write_model(tmp_path / "model.safetensors", bands=["red", "nir"], legend=legend)
    with pytest.raises(InputError, match=said):
        geoseg.predict(str(write_scene()), model=model, out=tmp_path / "map.tif", device="cpu", **options)


def test_models_of_other_tiles_go_together_without_an_option(write_scene: Callable[..., Path], tmp_path: Path) -> None:
    paths = []
    for tile, overlap in ((128, 64), (64, 16)):
        path = write_model(tmp_path / f"{tile}.safetensors", bands=["red", "nir"])
        network, card = load_model(path)
        save_model(path, model=network, card=replace(card, tile_px=tile, overlap_px=overlap))
        paths.append(path)
    result = geoseg.predict(str(write_scene()), model=paths, out=tmp_path / "map.tif")
    assert result.overlap_px == (32, 32)
