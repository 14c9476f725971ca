"""`geoseg vectorize`: its options, what it takes beside class maps, and what it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from odc.geo.geobox import GeoBox
from rasterio.features import rasterize
from rasterio.transform import from_origin

import geoseg
from geoseg import io
from geoseg.cli import main
from geoseg.errors import InputError
from geoseg.infer import cluster
from geoseg.legend import Legend

CRS, TRANSFORM = "EPSG:32633", from_origin(500_000, 5_300_000, 10, 10)
LEGEND = {1: "water", 2: "forest", 5: "crop"}


def write_raster(path: Path, pixels: np.ndarray, *, names: tuple[str, ...] = (), **profile) -> Path:
    planes = pixels[None] if pixels.ndim == 2 else pixels
    options = {"driver": "GTiff", "crs": CRS, "transform": TRANSFORM} | profile
    with rasterio.open(
        path, "w", count=len(planes), height=planes.shape[1], width=planes.shape[2],
        dtype=planes.dtype, **options,
    ) as file:  # fmt: skip
        file.write(planes)
        file.descriptions = names or [None] * len(planes)
    return path


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler has a second to answer."""
    monkeypatch.setattr(cluster, "CONNECT_S", 1)


def patchy(shape: tuple[int, int] = (60, 70), seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.choice([1, 2, 5], (shape[0] // 5, shape[1] // 5)).repeat(5, 0).repeat(5, 1)
    return np.where(rng.random(shape) < 0.1, rng.choice([1, 2, 5], shape), coarse).astype(np.uint8)


@pytest.fixture
def legend(tmp_path: Path) -> Path:
    path = tmp_path / "legend.json"
    path.write_text(json.dumps(LEGEND))
    return path


@pytest.fixture
def class_map(tmp_path: Path) -> Path:
    pixels = patchy()
    pixels[:9, :7] = 0
    return write_raster(tmp_path / "map.tif", pixels, nodata=0)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    """Runs a command that must be refused; returns its last line, and sees that no file has come."""

    def run(*args: str | Path) -> str:
        before = sorted(tmp_path.rglob("*"))
        capsys.readouterr()
        assert main(["vectorize", *map(str, args)]) == 2
        assert sorted(tmp_path.rglob("*")) == before
        return capsys.readouterr().err.strip().splitlines()[-1]

    return run


def read(path: Path) -> geopandas.GeoDataFrame:
    return geopandas.read_file(path, layer=path.stem)


def test_polygons_rasterised_again_are_the_map(class_map: Path, tmp_path: Path) -> None:
    frame = read(geoseg.vectorize(class_map, out=tmp_path / "map.gpkg"))
    with rasterio.open(class_map) as file:
        pixels = file.read(1)
    burned = rasterize(zip(frame.geometry, frame["class_id"], strict=True), pixels.shape, transform=TRANSFORM)
    np.testing.assert_array_equal(burned, pixels)
    assert frame["class_name"].isin(["class 1", "class 2", "class 5"]).all()
    assert frame["id"].is_unique


def test_every_option_on_the_command_line(class_map: Path, legend: Path, tmp_path: Path) -> None:
    table = tmp_path / "alike.yaml"
    table.write_text("forest: {crop: 0.9, water: 0.1}\n")
    means = write_raster(tmp_path / "dem.tif", np.arange(4200, dtype=np.float32).reshape(60, 70))
    args = [
        "vectorize", class_map, "--out", tmp_path / "all.gpkg", "--legend", legend, "--min-area-m2",
        "{default: 0.05ha, water: 300}", "--merge-rule", "similar", "--similarity", table, "--tolerance-m", "12",
        "--simplify", "douglas-peucker", "--smooth", "--right-angles", "crop", "--connectivity", "8",
        "--means", f"height={means}", "--confidence", means,
    ]  # fmt: skip
    assert main([str(arg) for arg in args]) == 0
    frame = read(tmp_path / "all.gpkg")
    assert {"height", "confidence", "confidence_min", "class_name"} <= set(frame.columns)
    assert frame.geometry.is_valid.all()
    assert set(frame.geometry.geom_type) == {"MultiPolygon"}
    assert frame.geometry.area.sum() == pytest.approx((60 * 70 - 63) * 100, rel=1e-9)


def test_means_of_a_scene_by_band_on_another_grid(class_map: Path, tmp_path: Path) -> None:
    scene = np.stack([np.full((30, 35), 7, np.uint16), np.full((30, 35), 9, np.uint16)])
    write_raster(tmp_path / "scene.tif", scene, names=("red", "nir"), transform=from_origin(500_000, 5_300_000, 20, 20))
    frame = read(geoseg.vectorize(class_map, out=tmp_path / "m.gpkg", means=[str(tmp_path / "scene.tif")]))
    assert frame["mean_scene_red"].to_numpy() == pytest.approx(7)
    assert frame["mean_scene_nir"].to_numpy() == pytest.approx(9)


def test_means_are_named_by_the_whole_stem_or_as_said(class_map: Path, tmp_path: Path) -> None:
    for year in (2019, 2020):
        write_raster(tmp_path / f"ndvi.{year}.tif", np.full((60, 70), year, np.uint16))
    (tmp_path / "year=2020").mkdir()
    write_raster(tmp_path / "year=2020" / "dem.tif", np.full((60, 70), 7, np.uint16))
    paths = [tmp_path / "ndvi.2019.tif", f"later = {tmp_path / 'ndvi.2020.tif'}", tmp_path / "year=2020" / "dem.tif"]
    frame = read(geoseg.vectorize(class_map, out=tmp_path / "m.gpkg", means=paths))
    for column, value in {"mean_ndvi.2019": 2019, "later": 2020, "mean_dem": 7}.items():
        assert frame[column].to_numpy() == pytest.approx(value)


def test_a_relative_path_may_hold_an_equals_sign(
    class_map: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "year=2020").mkdir()
    write_raster(tmp_path / "year=2020" / "dem.tif", np.full((60, 70), 7, np.uint16))
    monkeypatch.chdir(tmp_path)
    frame = read(geoseg.vectorize(class_map, out=tmp_path / "m.gpkg", means="year=2020/dem.tif"))
    assert frame["mean_dem"].to_numpy() == pytest.approx(7)


def test_an_address_with_a_token_is_a_path_and_its_column_has_no_token(
    class_map: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = write_raster(tmp_path / "dem.tif", np.full((60, 70), 7, np.uint16))
    address, opened = f"https://host/dem.tif?token=a.b/c{'0' * 300}", io.open_source
    monkeypatch.setattr(io, "open_source", lambda spec: opened(local if spec == address else spec))
    frame = read(geoseg.vectorize(class_map, out=tmp_path / "m.gpkg", means=[address]))
    assert "mean_dem" in frame


@pytest.mark.parametrize(
    ("means", "words"),
    [
        ("a/x.tif,b/x.tif", "'mean_x'.*name=path"),
        ("x=a/x.tif,X=b/x.tif", "'X'.*name=path"),
        ("area_m2=a/x.tif", "'area_m2'"),
        ("class_id=a/x.tif", "'class_id'"),
        ("confidence=a/x.tif", "'confidence'"),
        ("=a/x.tif", "no name"),
    ],
)
def test_means_without_a_column_of_their_own_are_refused(
    means: str, words: str, refused: Callable[..., str], class_map: Path, tmp_path: Path
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_raster(tmp_path / folder / "x.tif", patchy())
    means = means.replace("a/x", f"{tmp_path}/a/x").replace("b/x", f"{tmp_path}/b/x")
    assert re.search(words, refused(class_map, "--out", tmp_path / "new.gpkg", "--means", means))


def test_a_finer_confidence_is_averaged(class_map: Path, tmp_path: Path) -> None:
    fine = np.random.default_rng(1).integers(0, 101, (600, 700)).astype(np.float32)
    write_raster(tmp_path / "fine.tif", fine, transform=from_origin(500_000, 5_300_000, 1, 1))
    frame = read(geoseg.vectorize(class_map, out=tmp_path / "m.gpkg", kind="values", confidence=tmp_path / "fine.tif"))
    covered = np.ones((60, 70), bool)
    covered[:9, :7] = False
    expected = fine.reshape(60, 10, 70, 10).mean((1, 3))[covered].mean()
    assert np.average(frame["confidence"], weights=frame["pixels"]) == pytest.approx(expected, rel=1e-3)


def test_probabilities_place_borders_inside_pixels(tmp_path: Path) -> None:
    cols = np.arange(20)
    likely = np.clip(50 + (cols - 9.2) * 10, 0, 100)  # equal 0.3 of a pixel left of the pixel edge
    planes = np.stack([np.tile(100 - likely, (20, 1)), np.tile(likely, (20, 1))]).round().astype(np.uint8)
    write_raster(tmp_path / "p.tif", planes, names=("water", "forest"), nodata=255)
    mapped = write_raster(tmp_path / "map.tif", np.tile(np.where(cols < 9.2, 1, 2), (20, 1)).astype(np.uint8))
    (tmp_path / "l.json").write_text('{"1": "water", "2": "forest"}')
    frame = read(
        geoseg.vectorize(mapped, out=tmp_path / "m.gpkg", probabilities=tmp_path / "p.tif", legend=tmp_path / "l.json")
    )
    inner = shapely.get_coordinates(frame.geometry[0].exterior)
    inner = inner[(inner[:, 0] > 500_050) & (inner[:, 1] < 5_300_000) & (inner[:, 1] > 5_299_800)]
    assert len(inner)
    assert inner[:, 0] == pytest.approx(500_000 + (9.2 + 0.5) * 10, abs=0.5)


def test_what_the_legend_ignores_is_no_polygon(tmp_path: Path, legend: Path) -> None:
    pixels = patchy()
    pixels[3:9, 4:8] = 255  # which the file does not declare
    frame = read(geoseg.vectorize(write_raster(tmp_path / "m.tif", pixels), out=tmp_path / "m.gpkg", legend=legend))
    assert set(frame["class_name"]) == {"water", "forest", "crop"}
    assert frame["pixels"].sum() == pixels.size - 24


AMBIGUOUS = {1: {"name": "water", "codes": [11]}, 2: {"name": "forest", "codes": [1]}}


def test_a_map_of_geoseg_holds_ids_whatever_legend_is_given(tmp_path: Path) -> None:
    (tmp_path / "l.json").write_text(json.dumps(AMBIGUOUS))
    part = write_raster(tmp_path / "part.tif", np.ones((20, 20), np.uint8))
    mapped = io.write_cog(
        [part], tmp_path / "map.tif", geobox=GeoBox((20, 20), TRANSFORM, CRS), dtype=np.uint8, nodata=255,
        legend=Legend.from_dict(AMBIGUOUS), resampling="mode",
    )  # fmt: skip
    for given in (None, tmp_path / "l.json"):
        frame = read(geoseg.vectorize(mapped, out=tmp_path / "m.gpkg", legend=given, overwrite=True))
        assert frame["class_name"].tolist() == ["water"]


def test_values_that_may_be_ids_as_well_as_codes_are_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "l.json").write_text(json.dumps(AMBIGUOUS))
    tile = write_raster(tmp_path / "tile.tif", np.ones((20, 20), np.uint8))
    said = refused(tile, "--out", tmp_path / "m.gpkg", "--legend", tmp_path / "l.json")
    assert "the id of water" in said
    assert "code of forest" in said


def test_a_map_in_an_archive(class_map: Path, tmp_path: Path) -> None:
    with ZipFile(tmp_path / "maps.zip", "w") as archive:
        archive.write(class_map, "in/map.tif")
        archive.write(class_map, "in/conf.tif")
    inside = f"/vsizip/{tmp_path}/maps.zip/in"
    args = [f"{inside}/map.tif", "--out", tmp_path / "m.gpkg", "--confidence", f"{inside}/conf.tif"]
    assert "//" in inside
    assert main(["vectorize", *map(str, args)]) == 0
    assert read(tmp_path / "m.gpkg")["pixels"].sum() == 60 * 70 - 63


@pytest.mark.parametrize("role", ["means", "confidence", "class_map", "pattern"])
@pytest.mark.parametrize("name", ["x.gpkg", "x_water.gpkg"])
def test_no_input_is_replaced(role: str, name: str, class_map: Path, legend: Path, tmp_path: Path) -> None:
    precious = write_raster(tmp_path / name, patchy().astype(np.int16), driver="GPKG")
    before = precious.read_bytes()
    given = {
        "means": {"means": [f"other={precious}"]}, "confidence": {"confidence": precious}, "class_map": {"band": 1},
        "pattern": {"means": f"other={tmp_path / 'x*.gpkg'}"},
    }[role]  # fmt: skip
    mapped = precious if role == "class_map" else class_map
    options = {"legend": legend, "overwrite": True, "per_class": name != "x.gpkg", **given}
    with pytest.raises(InputError, match=f"{name} is also an input"):
        geoseg.vectorize(mapped, out=tmp_path / "x.gpkg", **options)
    assert precious.read_bytes() == before


def test_one_file_a_class(class_map: Path, legend: Path, tmp_path: Path) -> None:
    geoseg.vectorize(class_map, out=tmp_path / "map.shp", legend=legend, per_class=True)
    for name in ("water", "forest", "crop"):
        assert set(read(tmp_path / f"map_{name}.shp")["class_name"]) == {name}


def test_instances_and_a_chosen_band(tmp_path: Path) -> None:
    ids = np.zeros((2, 20, 20), np.uint32)
    ids[1, 2:5, 2:5], ids[1, 9:12, 3:9], ids[1, 3:5, 9:11] = 70_000, 3, 70_000
    scene = write_raster(tmp_path / "ids.tif", ids, names=("other", "objects"))
    for band in ("objects", 2):
        frame = read(geoseg.vectorize(scene, out=tmp_path / f"{band}.gpkg", band=band, kind="instances"))
        assert frame["instance_id"].tolist() == [70_000, 3]
        assert frame["pixels"].tolist() == [13, 18]


def test_a_map_of_very_many_values_has_values_and_no_names(tmp_path: Path) -> None:
    pixels = np.arange(4900, dtype=np.int32).reshape(70, 70) - 10
    frame = read(geoseg.vectorize(write_raster(tmp_path / "m.tif", pixels), out=tmp_path / "m.gpkg"))
    assert len(frame) == 4900
    assert sorted(frame["class_id"]) == list(range(-10, 4890))


def test_a_map_of_nodata_alone_is_an_empty_layer_with_all_columns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    empty = write_raster(tmp_path / "map.tif", np.zeros((20, 20), np.uint8), nodata=0)
    assert main(["vectorize", str(empty), "--out", str(tmp_path / "map.gpkg")]) == 0
    frame = read(tmp_path / "map.gpkg")
    assert len(frame) == 0
    assert {"id", "class_id", "class_name", "area_m2", "perimeter_m", "pixels"} <= set(frame.columns)
    assert "no valid pixel" in caplog.text


def test_a_map_without_a_crs_is_measured_in_pixels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mapped = write_raster(tmp_path / "map.tif", patchy(), crs=None)
    assert main(["vectorize", str(mapped), "--out", str(tmp_path / "map.gpkg"), "--min-area-m2", "5"]) == 0
    assert "in pixels" in caplog.text
    frame = read(tmp_path / "map.gpkg")
    assert frame["area_px"].sum() == pytest.approx(4200)
    assert frame["pixels"].min() >= 5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--tolerance-m", "0.001deg"], "degrees are no length"),
        (["--min-area-m2", "3 parsecs"], "0.5ha"),
        (["--min-area-m2", "{lake: 5}"], "'lake'"),
        (["--merge-rule", "best"], "border"),
        (["--right-angles", "barn"], "barn"),
        (["--kind", "cats"], "classes"),
        (["--band", "9"], "9"),
        (["--similarity", "nowhere.yaml"], "nowhere.yaml"),
        (["--means", "nowhere.tif"], "nowhere.tif"),
        (["--legend", "nowhere.yaml"], "nowhere.yaml"),
        (["--scheduler", "tcp://127.0.0.1:9", "--engine", "dask"], "no Dask scheduler answers"),
        (["--scheduler", "tcp://127.0.0.1:9"], "--engine dask"),
        (["--engine", "dask", "--workers", "0"], "workers must be 1 or more, got 0"),
        (["--workers", "-3"], "workers must be 1 or more, got -3"),
        (["--merge-rule", "similar"], "needs a table"),
        (["--similarity", "{1: {2: 0.5}}"], "merge-rule similar"),
        (["--merge-rule", "similar", "--similarity", "{lake: {1: 0.5}}"], "lake"),
        (["--merge-rule", "similar", "--similarity", "[1, 2]"], "similarity"),
        (["--min-area-m2", "{99: 5}"], "99"),
        (["--right-angles", "99"], "99"),
        (["--tolerance-m", "1e300"], "more than the Earth"),
    ],
)
@pytest.mark.usefixtures("impatient")
def test_bad_options_are_one_line(
    options: list[str], words: str, refused: Callable[..., str], class_map: Path, tmp_path: Path
) -> None:
    assert words in refused(class_map, "--out", tmp_path / "new.gpkg", *options)


def test_means_of_another_place_are_refused(refused: Callable[..., str], class_map: Path, tmp_path: Path) -> None:
    away = write_raster(tmp_path / "away.tif", patchy(), transform=from_origin(900_000, 5_300_000, 10, 10))
    assert "do not overlap" in refused(class_map, "--out", tmp_path / "new.gpkg", "--means", away)


def test_probabilities_of_another_place_are_refused(
    refused: Callable[..., str], class_map: Path, legend: Path, tmp_path: Path
) -> None:
    names, away = ("water", "forest", "crop"), from_origin(900_000, 5_300_000, 10, 10)
    likely = write_raster(tmp_path / "p.tif", np.ones((3, 60, 70), np.uint8), names=names, transform=away)
    args = ("--out", tmp_path / "new.gpkg", "--legend", legend, "--probabilities", likely)
    assert "do not overlap" in refused(class_map, *args)


def test_a_confidence_of_several_bands_is_refused(refused: Callable[..., str], class_map: Path, tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "s.tif", np.ones((2, 60, 70), np.uint8))
    assert "one band" in refused(class_map, "--out", tmp_path / "new.gpkg", "--confidence", scene)


def test_several_bands_need_a_choice(refused: Callable[..., str], tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "s.tif", np.ones((2, 5, 5), np.uint8), names=("a", "b"))
    assert "--band" in refused(scene, "--out", tmp_path / "new.gpkg")


def test_an_existing_file_stays(refused: Callable[..., str], class_map: Path, tmp_path: Path) -> None:
    (tmp_path / "old.gpkg").write_text("mine")
    assert "--overwrite" in refused(class_map, "--out", tmp_path / "old.gpkg")
    assert (tmp_path / "old.gpkg").read_text() == "mine"


@pytest.mark.slow
def test_a_cluster_gives_the_same_bytes(class_map: Path, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    options = {"min_area_m2": 500, "tolerance_m": 12}
    here = geoseg.vectorize(class_map, out=tmp_path / "here.fgb", **options)
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        there = geoseg.vectorize(
            class_map, out=tmp_path / "there.fgb", engine="dask", scheduler=cluster.scheduler_address, **options
        )
    started = geoseg.vectorize(class_map, out=tmp_path / "own.fgb", engine="dask", workers=1, **options)
    frames = [read(path) for path in (here, there, started)]
    assert frames[0].equals(frames[1])
    assert frames[0].equals(frames[2])


@pytest.mark.parametrize(
    ("name", "means", "said"),
    [
        ("unplaced.geojson", None, "has no CRS; write .gpkg instead"),
        ("gpkg_map.gpkg", None, "gpkg_map"),
        ("map.gpkg", "geom=dem.tif", "geom"),
    ],
)
def test_what_cannot_be_written_is_told_before_the_map_is_traced(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refused: Callable[..., str],
    *,
    name: str,
    means: str | None,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    crs = None if name.startswith("unplaced") else CRS
    write_raster(tmp_path / "classes.tif", patchy(), crs=crs)
    write_raster(tmp_path / "dem.tif", patchy(), crs=crs)
    monkeypatch.setattr("geoseg.vectorizing.vector.polygon_layer", lambda *_, **__: pytest.fail("it was traced"))
    more = ["--means", means] if means else []
    assert said in refused("classes.tif", "--out", name, *more)
