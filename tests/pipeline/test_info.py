"""`geoseg info` of scenes, class maps, folders and models: the figures are numpy's and the geodesic's own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.transform import from_origin

import geoseg
from geoseg.cli import main
from geoseg.data.survey import survey
from geoseg.errors import GeosegError, InputError, OutputExistsError
from geoseg.inspecting import classes
from geoseg.inspecting.grids import describe_grid, ground_metric, pixel_areas_m2
from geoseg.io import write_raster
from geoseg.models import ModelCard, create_model, read_card, save_model
from geoseg.models.card import QUANTILE_LEVELS, BandInfo
from geoseg.tiling import Window


def write(path: Path, pixels: np.ndarray, *, names: tuple[str, ...] = (), colors=None, **profile) -> Path:
    options = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_300_000, 10, 10)} | profile
    count, height, width = pixels.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=count, dtype=pixels.dtype, **options
    ) as target:
        target.write(pixels)
        target.descriptions = names or (None,) * count
        if colors:
            target.write_colormap(1, colors)
    return path


def reflectance(shape=(2, 90, 140)) -> np.ndarray:
    return np.random.default_rng(3).integers(200, 4000, shape).astype(np.uint16)


# -- scenes ------------------------------------------------------------------------------------------------------------


def test_a_scenes_figures_are_those_of_its_pixels(tmp_path: Path) -> None:
    pixels = reflectance()
    pixels[0, :9], pixels[1, :, :14] = 0, 0
    path = write(tmp_path / "20210527_scene.tif", pixels, names=("red", "nir"), nodata=0, tiled=True, blockxsize=64,
                 blockysize=64)  # fmt: skip
    found = geoseg.info(str(path))
    values = found.to_dict()
    assert values["kind"] == "scene"
    assert values["grid"]["gsd_m"] == [10, 10]
    assert (values["grid"]["rows"], values["grid"]["cols"], values["grid"]["crs"]) == (90, 140, "EPSG:32633")
    assert values["date"].startswith("2021-05-27")
    assert values["storage"]["block"] == [64, 64]
    assert values["valid_share"] == pytest.approx((pixels != 0).all(0).mean())
    for band, plane in zip(values["bands"], pixels, strict=True):
        known = plane[plane != 0].astype(float)
        assert band["valid_share"] == pytest.approx(known.size / plane.size)
        assert (band["min"], band["max"], band["nodata"]) == (known.min(), known.max(), "0")
        assert (band["mean"], band["std"]) == (pytest.approx(known.mean()), pytest.approx(known.std()))
        for level in (1, 50, 99):
            assert band[f"p{level}"] == pytest.approx(np.quantile(known, level / 100))
    assert found.warnings == ()
    text = str(found)
    assert "140 x 90 pixels (columns x rows), uint16" in text
    assert "10 x 10 m on the ground" in text
    assert "sample" not in text


def test_the_text_is_a_table_whose_columns_stand_in_line(write_scene: Callable[..., Path]) -> None:
    lines = str(geoseg.info(str(write_scene()))).splitlines()
    head = next(k for k, line in enumerate(lines) if line.startswith("band "))
    rows = lines[head : head + 3]
    assert len({len(row) for row in rows}) == 1
    assert [row.split()[0] for row in rows] == ["band", "red", "nir"]


def test_degrees_are_metres_on_the_ground(tmp_path: Path) -> None:
    step = 1 / 3600
    path = write(tmp_path / "d.tif", reflectance(), crs="EPSG:4326", transform=from_origin(12, 60, step, step))
    down, across = geoseg.info(str(path)).to_dict()["grid"]["gsd_m"]
    geod, lat = pyproj.Geod(ellps="WGS84"), 60 - 45 * step
    assert across == pytest.approx(geod.inv(12, lat, 12 + step, lat)[2], rel=1e-6)
    assert down == pytest.approx(geod.inv(12, lat - step / 2, 12, lat + step / 2)[2], rel=1e-6)


@pytest.mark.parametrize("value", [0, 65535])
def test_nodata_that_nobody_declared_is_suspected(tmp_path: Path, value: int) -> None:
    pixels = reflectance()
    pixels[:, 30:60, 20:80] = value
    (said,) = geoseg.info(str(write(tmp_path / "s.tif", pixels))).warnings
    share = 100 * 30 * 60 / (90 * 140)
    assert f"{share:.1f} % of the pixels are {value} in every band" in said
    assert f"--nodata {value}" in said
    assert geoseg.info(str(tmp_path / "s.tif"), nodata=value).warnings == ()


def test_a_scene_without_crs_without_data_or_without_contrast_is_warned_of(tmp_path: Path) -> None:
    unplaced = geoseg.info(str(write(tmp_path / "a.tif", reflectance(), crs=None)))
    assert "no CRS" in unplaced.warnings[0]
    assert unplaced.to_dict()["grid"]["gsd_m"] is None
    assert "no place on the ground" in str(unplaced)
    assert geoseg.info(str(tmp_path / "a.tif"), crs="EPSG:32633").warnings == ()
    empty = geoseg.info(str(write(tmp_path / "b.tif", np.full((2, 50, 50), 7, np.uint16), nodata=7)))
    assert "no valid pixel in it" in empty.warnings[0]
    assert empty.to_dict()["bands"][0]["mean"] is None
    flat = reflectance()
    flat[1] = 5
    assert "same value in nir" in geoseg.info(str(write(tmp_path / "c.tif", flat, names=("red", "nir")))).warnings[0]


@pytest.mark.parametrize("value", ["-3.4028234663852886e+38", "-3.4028230607370965e+38"])
def test_the_smallest_float_is_pointed_out_with_all_its_digits(tmp_path: Path, value: str) -> None:
    pixels = reflectance().astype(np.float32)
    pixels[:, :30] = float(value)
    path = str(write(tmp_path / "f.tif", pixels, names=("red", "nir")))
    (warned,) = geoseg.info(path).warnings
    assert warned.endswith(f"say --nodata {value}")
    assert geoseg.info(path, nodata=float(value)).to_dict()["valid_share"] == pytest.approx(2 / 3)


def test_quantiles_beyond_float32_are_not_known(tmp_path: Path) -> None:
    planes = np.stack([reflectance()[0] * 1e300, reflectance()[1]])
    bands = geoseg.info(str(write(tmp_path / "h.tif", planes, names=("red", "nir")))).to_dict()["bands"]
    assert [bands[0][key] for key in ("p1", "p50", "p99")] == [None] * 3
    assert bands[0]["max"] == planes[0].max()
    assert bands[1]["p50"] == pytest.approx(np.median(planes[1]), rel=0.01)


def test_a_large_scene_is_sampled_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = reflectance((2, 1024, 1024))
    path = write(tmp_path / "s.tif", pixels, tiled=True, blockxsize=128, blockysize=128)
    monkeypatch.setitem(survey.__kwdefaults__, "samples", 600_000)
    found = geoseg.info(str(path))
    assert found.to_dict()["sampled_share"] == pytest.approx(0.25)
    assert "from a sample of 25.0 % of the pixels" in str(found)
    assert found.to_dict()["bands"][0]["mean"] == pytest.approx(pixels[0].mean(), rel=0.01)


def test_a_mosaic_and_a_stack_are_scenes(tmp_path: Path) -> None:
    west = write(tmp_path / "w.tif", reflectance(), names=("red", "nir"), nodata=0)
    east = write(tmp_path / "e.tif", reflectance(), names=("red", "nir"), nodata=0,
                 transform=from_origin(501_400, 5_300_000, 10, 10))  # fmt: skip
    both = geoseg.info([str(west), str(east)]).to_dict()
    assert (both["grid"]["cols"], both["storage"]["files"], both["valid_share"]) == (280, 2, 1.0)
    assert geoseg.info(str(tmp_path / "*.tif")).to_dict()["grid"]["cols"] == 280
    stack = geoseg.info({"stack": [{"path": str(west), "select": ["red"]}, {"path": str(west), "select": ["nir"]}]})
    assert [band["name"] for band in stack.to_dict()["bands"]] == ["red", "nir"]


# -- class maps --------------------------------------------------------------------------------------------------------


def geodesic_areas(shape: tuple[int, int], west: float, north: float, step: float) -> np.ndarray:
    """Area of a pixel in each row, m², as a polygon on the ellipsoid."""
    geod = pyproj.Geod(ellps="WGS84")
    areas = []
    for row in range(shape[0]):
        top, bottom = north - row * step, north - (row + 1) * step
        lon, lat = [west, west + step, west + step, west], [top, top, bottom, bottom]
        areas.append(abs(geod.polygon_area_perimeter(lon, lat)[0]))
    return np.array(areas)


def class_ids(shape=(120, 160)) -> np.ndarray:
    rng = np.random.default_rng(4)
    ids = rng.choice([1, 2, 7], shape, p=[0.6, 0.3, 0.1]).astype(np.uint8)
    ids[:20, :20] = 255
    return ids


def test_classes_are_counted_and_their_areas_are_true_areas(tmp_path: Path) -> None:
    ids, step = class_ids(), 0.01
    path = write(tmp_path / "m.tif", ids[None], nodata=255, crs="EPSG:4326", transform=from_origin(10, 60, step, step))
    found = geoseg.info(str(path))
    assert found.to_dict()["kind"] == "class map"
    areas = geodesic_areas(ids.shape, 10, 60, step)
    for item in found.to_dict()["classes"]:
        hits = ids == item["value"]
        assert item["pixels"] == hits.sum()
        assert item["area_m2"] == pytest.approx((hits * areas[:, None]).sum(), rel=1e-5)
    assert [item["value"] for item in found.to_dict()["classes"]] == [1, 2, 7]


def test_every_pixel_of_a_map_of_odd_size_is_counted_once(tmp_path: Path) -> None:
    ids = class_ids((1300, 2111))
    found = geoseg.info(str(write(tmp_path / "m.tif", ids[None], nodata=255))).to_dict()["classes"]
    assert [item["pixels"] for item in found] == [(ids == value).sum() for value in (1, 2, 7)]


def test_a_metric_map_has_its_areas_on_the_ellipsoid_too_and_an_unplaced_one_has_none(tmp_path: Path) -> None:
    ids = class_ids()
    found = geoseg.info(str(write(tmp_path / "m.tif", ids[None], nodata=255))).to_dict()["classes"]
    for item in found:  # the scale factor of UTM is 0.9996 at its middle
        assert item["area_m2"] == pytest.approx((ids == item["value"]).sum() * 100 / 0.9996**2, rel=1e-4)
    unplaced = geoseg.info(str(write(tmp_path / "u.tif", ids[None], nodata=255, crs=None)))
    assert [item["area_m2"] for item in unplaced.to_dict()["classes"]] == [None] * 3


def test_classes_have_the_names_that_the_map_carries(tmp_path: Path) -> None:
    legend = geoseg.Legend.from_dict({1: "water", 2: "forest", 7: "road"})
    ids = class_ids()
    source = geoseg.open_source(str(write(tmp_path / "m.tif", ids[None], nodata=255)))
    out = write_raster(source.read(source.geobox), tmp_path / "named.tif", legend=legend)
    text = str(geoseg.info(str(out)))
    assert "1 water" in text
    assert f"{(ids == 7).sum():,}" in next(line for line in text.splitlines() if line.startswith("7 road"))


PLACES = [
    ("EPSG:3995", 5000, (-1e5, 2.4e6), (480, 900)),
    ("EPSG:3995", 10_000, (-1.5e6, 1.5e6), (300, 300)),  # about the pole: both edges are alike, the middle is not
    ("EPSG:3413", 10_000, (0.5e6, -0.5e6), (300, 300)),
    ("EPSG:32612", 1000, (2e5, 5e6), (480, 900)),
    ("EPSG:2154", 1000, (2e5, 7e6), (480, 900)),
]


def pixel_areas(crs: str, step: float, corner: tuple[float, float], shape: tuple[int, int]) -> np.ndarray:
    """Area of each pixel, m²: that in the plane by the projection's areal scale at the pixel's centre."""
    plane = pyproj.Proj(crs)
    x = corner[0] + (np.arange(shape[1]) + 0.5) * step
    y = corner[1] - (np.arange(shape[0]) + 0.5) * step
    factors = plane.get_factors(*plane(*np.meshgrid(x, y), inverse=True))
    return step**2 / factors.areal_scale


@pytest.mark.parametrize(("crs", "step", "corner", "shape"), PLACES)
def test_areas_are_those_of_each_pixel_where_they_change_along_rows_too(crs, step, corner, shape, tmp_path) -> None:
    truth = pixel_areas(crs, step, corner, shape)
    geobox = GeoBox(shape, Affine(step, 0, corner[0], 0, -step, corner[1]), crs)
    window = Window(7, 130, 200, 150)
    np.testing.assert_allclose(pixel_areas_m2(ground_metric(geobox), window), truth[window.slices], rtol=2e-6)
    ids = np.ones(shape, np.uint8)
    ids[:, shape[1] // 2 :], ids[:, :40], ids[90:150, 100:] = 2, 3, 4
    path = write(tmp_path / "m.tif", ids[None], crs=crs, transform=from_origin(*corner, step, step))
    for item in geoseg.info(str(path)).to_dict()["classes"]:
        assert item["area_m2"] == pytest.approx(truth[ids == item["value"]].sum(), rel=2e-6)


@pytest.mark.parametrize("north", [90, 91])  # pixels that end at the poles, and pixels centred on them
def test_pixels_of_the_whole_globe_have_its_area(north) -> None:
    metric = ground_metric(GeoBox((north, 180), Affine(2, 0, -180, 0, -2, north), "EPSG:4326"))
    areas = pixel_areas_m2(metric, Window(0, 0, north, 180))
    assert areas.sum() == pytest.approx(510_065_621_724_089, rel=1e-9)  # of WGS 84
    rows = geodesic_areas((north, 180), 10, north, 2)[1:-1]  # rows at the poles are no four-cornered polygons
    np.testing.assert_allclose(areas[1:-1], np.tile(rows[:, None], (1, 180)), rtol=1e-3)


def test_a_mosaic_of_class_maps_has_no_class_between_theirs(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    west = rng.choice([1, 3], (1000, 1000)).astype(np.uint8)
    write(tmp_path / "a.tif", west[None])
    off = write(tmp_path / "c.tif", west[None], transform=from_origin(500_005, 5_300_005, 10, 10))
    found = geoseg.info([str(tmp_path / "a.tif"), str(off)], picture=tmp_path / "p.png").to_dict()
    counts = {item["value"]: item["pixels"] for item in found["classes"]}
    assert list(counts) == [1, 3]
    assert counts[1] == pytest.approx((west == 1).sum(), rel=0.01)
    codes = np.tile(np.arange(1, 60, 3, dtype=np.uint8), (400, 20))  # 20 codes, with 59 values between them
    parts = [
        write(tmp_path / f"{k}.tif", codes[None], transform=from_origin(5e5 + 5 * k, 5.3e6, 10, 10)) for k in (0, 1)
    ]
    many = geoseg.info([str(path) for path in parts]).to_dict()
    assert [item["value"] for item in many["classes"]] == np.unique(codes).tolist()


def test_the_picture_of_a_mosaic_has_the_colours_of_its_classes_alone(tmp_path: Path) -> None:
    ids = np.random.default_rng(1).choice([1, 3], (1000, 1000)).astype(np.uint8)
    paths = [write(tmp_path / f"{name}.tif", ids[None], transform=from_origin(west, 5.3e6, 10, 10))
             for name, west in (("a", 500_000), ("b", 510_000))]  # fmt: skip
    colors = []
    for scene in (str(paths[0]), [str(path) for path in paths]):
        geoseg.info(scene, picture=tmp_path / "p.png", overwrite=True)
        shown = matplotlib.image.imread(tmp_path / "p.png").reshape(-1, 4)
        colors.append(np.unique(shown, axis=0).tolist())
    assert colors[0] == colors[1]
    assert len(colors[0]) == 2


def test_a_negative_value_is_no_class_and_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = class_ids((1100, 1300)).astype(np.int16)
    ids[5, 9] = -1
    path = write(tmp_path / "m.tif", ids[None], nodata=255, tiled=True, blockxsize=256, blockysize=256)
    monkeypatch.setitem(survey.__kwdefaults__, "samples", 256**2)
    found = geoseg.info(str(path), exact=True, picture=tmp_path / "p.png").to_dict()["classes"]
    assert {item["value"]: item["pixels"] for item in found} == {k: (ids == k).sum() for k in (1, 2, 7)}
    total = sum(item["area_m2"] for item in found)
    assert total == pytest.approx(np.isin(ids, (1, 2, 7)).sum() * 100 / 0.9996**2, rel=1e-3)


def test_many_values_are_a_picture_and_a_palette_makes_classes_of_them(tmp_path: Path) -> None:
    values = np.arange(120 * 160).reshape(1, 120, 160) % 200
    grey = geoseg.info(str(write(tmp_path / "g.tif", values.astype(np.uint8))))
    assert grey.to_dict()["kind"] == "scene"
    colors = {value: (value, 255 - value, 9) for value in range(200)}
    shown = geoseg.info(str(write(tmp_path / "p.tif", values.astype(np.uint8), colors=colors)))
    assert len(shown.to_dict()["classes"]) == 200
    signed = geoseg.info(str(write(tmp_path / "n.tif", (values % 3 - 1).astype(np.int16))))
    assert signed.to_dict()["kind"] == "scene"


def test_a_large_class_map_is_estimated_unless_it_is_to_be_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = class_ids((2048, 2048))
    path = write(tmp_path / "m.tif", ids[None], nodata=255, tiled=True)
    monkeypatch.setattr(classes, "EXACT_PX", 1_000_000)
    monkeypatch.setattr(classes, "SAMPLE_PX", 1_000_000)
    rough, exact = geoseg.info(str(path)), geoseg.info(str(path), exact=True)
    assert "--exact counts every pixel" in str(rough)
    digits = [line.split()[2].replace(",", "") for line in str(rough).splitlines() if re.match(r"\d+ class", line)]
    assert digits
    assert all(len(count.rstrip("0")) <= 3 for count in digits)
    assert "sample" not in str(exact)
    for about, true in zip(rough.to_dict()["classes"], exact.to_dict()["classes"], strict=True):
        assert true["pixels"] == (ids == true["value"]).sum()
        assert about["pixels"] == pytest.approx(true["pixels"], rel=0.01)
        assert about["area_m2"] == pytest.approx(true["area_m2"], rel=0.01)


# -- against a model ---------------------------------------------------------------------------------------------------


@pytest.fixture
def trained(model: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A scene, and a model file whose card says what numpy says of the scene."""
    pixels = reflectance()
    bands = tuple(
        BandInfo(name=name, mean=float(plane.mean()), std=float(plane.std()), min=float(plane.min()),
                 max=float(plane.max()), quantiles=tuple(np.quantile(plane, QUANTILE_LEVELS)))
        for name, plane in zip(("red", "nir"), pixels, strict=True)
    )  # fmt: skip
    card = replace(read_card(model), bands=bands)
    save_model(model, model=create_model(card.spec), card=card)
    return write(tmp_path / "scene.tif", pixels, names=("red", "nir")), model


def test_a_scene_like_the_training_pixels_is_as_trained(trained: tuple[Path, Path]) -> None:
    scene, model = trained
    found = geoseg.info(str(scene), model=model)
    values = found.to_dict()["model"]
    assert [band["verdict"] for band in values["drift"]] == ["as trained"] * 2
    assert (values["bands_missing"], values["gsd_ratio"]) == ([], pytest.approx(1.0))
    assert found.warnings == ()
    assert "2 of the model's 2 are among the scene's 2" in str(found)


def test_another_scaling_is_a_warning_in_plain_words(trained: tuple[Path, Path], capsys) -> None:
    scene, model = trained
    pixels = (reflectance() / 10_000).astype(np.float32)
    write(scene, pixels, names=("red", "nir"))
    assert main(["info", str(scene), "--model", str(model)]) == 0
    text = capsys.readouterr().out
    assert "warning: values are about 10,000 times smaller: another scaling (red, nir)" in text
    assert text.count("out of range") == 2


def test_other_land_is_warned_of(trained: tuple[Path, Path]) -> None:
    scene, model = trained
    dull = 3_070 + 0.05 * reflectance()  # within the range of training
    write(scene, dull.astype("uint16"), names=("red", "nir"))
    (warned,) = geoseg.info(str(scene), model=model).warnings
    assert warned.startswith("the values of most bands are not spread like those of training")


def test_missing_bands_and_another_resolution_are_named(trained: tuple[Path, Path], tmp_path: Path) -> None:
    _, model = trained
    other = write(tmp_path / "o.tif", reflectance(), names=("red", "swir"), transform=from_origin(5e5, 5.3e6, 60, 60))
    found = geoseg.info(str(other), model=model)
    assert found.to_dict()["model"]["bands_missing"] == ["nir"]
    assert [band["name"] for band in found.to_dict()["model"]["drift"]] == ["red"]
    assert any("lacks nir" in said and "--bands" in said for said in found.warnings)
    assert any("6 times as large" in said for said in found.warnings)
    named = geoseg.info(str(other), model=model, bands="red,nir")
    assert named.to_dict()["model"]["bands_missing"] == []
    strange = geoseg.info(str(write(tmp_path / "x.tif", reflectance())), model=model)
    assert strange.to_dict()["model"]["drift"] == []


def test_a_card_without_quantiles_still_loads_and_one_with_too_few_does_not(trained: tuple[Path, Path]) -> None:
    card = read_card(trained[1])
    values = json.loads(json.dumps(card.to_dict()))
    assert ModelCard.from_dict(values) == card
    for band in values["geoseg:bands"]:
        del band["quantiles"]
    assert [band.quantiles for band in ModelCard.from_dict(values).bands] == [(), ()]
    values["geoseg:bands"][0]["quantiles"] = [1.0, 2.0]
    with pytest.raises(GeosegError, match="2 quantiles"):
        ModelCard.from_dict(values)


# -- folders -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "scenes"
    (root / "deep").mkdir(parents=True)
    write(root / "a_20200101.tif", reflectance(), names=("red", "nir"), nodata=0)
    write(root / "deep" / "b.tif", reflectance((3, 50, 50)).astype(np.float32), names=("red", "green", "blue"))
    write(root / "empty.tif", np.zeros((2, 40, 40), np.uint16), names=("red", "nir"), nodata=0)
    write(root / "unplaced.tif", reflectance(), names=("red", "nir"), crs=None)
    (root / "broken.tif").write_bytes(b"II*\0garbage")
    (root / "notes.txt").write_text("no raster")
    return root


def test_a_folder_has_a_line_for_each_raster_and_says_what_is_wrong(folder: Path) -> None:
    found = geoseg.info(str(folder))
    values = found.to_dict()
    assert [item["name"] for item in values["scenes"]] == ["a_20200101.tif", "deep/b.tif", "empty.tif", "unplaced.tif"]
    assert values["groups"]["crs"] == {"EPSG:32633": 3, "none": 1}
    assert values["groups"]["dtype"] == {"uint16": 3, "float32": 1}
    assert values["groups"]["bands"] == {"2: red, nir": 3, "3: red, green, blue": 1}
    text = str(found)
    line = next(line for line in text.splitlines() if line.startswith("a_2020"))
    for word in ("140 x 90", "EPSG:32633", "10 m", "2: red, nir", "uint16", "2020-01-01"):
        assert word in line
    for words in ("cannot be read: broken.tif", "without a valid pixel: empty.tif", "without a CRS: unplaced.tif",
                  "band sets differ: 3 x 2: red, nir; 1 x 3: red, green, blue", "dtypes are mixed"):  # fmt: skip
        assert f"warning: {words}" in text


def test_a_folder_without_rasters_and_with_broken_ones_only(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="holds no raster"):
        geoseg.info(str(tmp_path / "none"))
    for path in folder.rglob("*.tif"):
        path.write_bytes(b"nothing")
    assert len(geoseg.info(str(folder)).to_dict()["unreadable"]) == 5


# -- the verb ----------------------------------------------------------------------------------------------------------


def test_a_model_file_is_described_as_its_card_says(model: Path) -> None:
    found = geoseg.info(str(model))
    assert json.dumps(found.to_dict()["card"]) == json.dumps(read_card(model).to_dict())
    assert "classes  1 water, 2 forest, 5 crop" in str(found)


def test_everything_goes_into_a_json_file_that_is_not_overwritten_unasked(folder: Path, model: Path) -> None:
    out = folder.parent / "out.json"
    for path in (folder, model, folder / "a_20200101.tif", folder / "unplaced.tif", folder / "empty.tif"):
        found = geoseg.info(str(path), json=out, overwrite=True)
        assert json.loads(out.read_text(), parse_constant=pytest.fail) == json.loads(json.dumps(found.to_dict()))
    with pytest.raises(OutputExistsError):
        geoseg.info(str(model), json=out)


def test_a_picture_shows_the_classes_in_their_colours_and_the_scene_stretched(tmp_path: Path) -> None:
    ids = class_ids()
    colors = {1: (10, 20, 30), 2: (200, 0, 0), 7: (0, 99, 0)}
    path = write(tmp_path / "m.tif", ids[None], nodata=255, colors=colors)
    geoseg.info(str(path), picture=tmp_path / "new" / "m.png")
    shown = np.rint(255 * matplotlib.image.imread(tmp_path / "new" / "m.png"))
    assert shown.shape == (120, 160, 4)
    for value, color in colors.items():
        assert (shown[ids == value] == (*color, 255)).all()
    assert (shown[ids == 255][:, 3] == 0).all()
    rising = np.stack([np.tile(np.arange(1, 2001, dtype=np.uint16), (1200, 1))] * 3)
    geoseg.info(str(write(tmp_path / "s.tif", rising)), picture=tmp_path / "s.png")
    grey = matplotlib.image.imread(tmp_path / "s.png")
    assert grey.shape == (540, 900, 4)
    assert (np.diff(grey[0, :, 0]) >= 0).all()
    assert (grey[..., 3] == 1).all()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["none.tif"], "not there"),
        (["notes.txt"], "cannot be opened as a raster"),
        (["scenes", "--model", "model.safetensors"], "is a folder"),
        (["scenes", "--picture", "p.png"], "has no picture"),
        (["model.safetensors", "--picture", "p.png"], "has no picture"),
        (["scenes/a_20200101.tif", "--picture", "p.jpg"], "does not end in .png"),
        (["scenes/a_20200101.tif", "--model", "none.safetensors"], "not there"),
        (["scenes/a_20200101.tif", "--json", "scenes/a_20200101.tif"], "a_20200101.tif"),
        (["none.yaml"], "not there"),
        (["empty.yaml"], "the config empty.yaml is empty; needed are keys such as data"),
        (["notes.yml"], "the config notes.yml holds str; needed are keys such as data"),
    ],
)
def test_what_cannot_be_described_is_one_line_and_two(
    args: list[str], words: str, *, folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(folder.parent)
    for name, text in (("notes.txt", "plain text"), ("notes.yml", "plain text"), ("empty.yaml", "")):
        Path(name).write_text(text)
    assert main(["info", *args]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert words in said[0]


@pytest.mark.slow
def test_nothing_awkward_traces_back(shared_data: Path, capsys) -> None:
    for path in sorted((shared_data / "awkward").rglob("*.*")):
        if path.is_file():
            assert main(["info", str(path)]) in (0, 2)
    assert main(["info", str(shared_data / "awkward")]) == 0
    text = capsys.readouterr().out
    assert "warning: without a valid pixel" in text
    assert "rasterio/all-nodata.tif" in text


def test_the_real_scenes_are_what_their_readme_says(shared_data: Path) -> None:
    zion = geoseg.info(str(shared_data / "zion" / "nlcd_on_landsat_grid.tif")).to_dict()
    counts = {item["value"]: item["pixels"] for item in zion["classes"]}
    assert counts == {1: 1334, 2: 19473, 3: 117179, 4: 848057, 5: 602583, 6: 5360, 7: 9626, 8: 7172}
    beaufort = geoseg.info(str(shared_data / "beaufort" / "beaufort_s2_b01_b08.tif"))
    assert "are 255 in every band" in beaufort.warnings[0]
    tiles = geoseg.info(str(shared_data / "aber_tiles")).to_dict()
    assert (len(tiles["scenes"]), tiles["warnings"]) == (16, [])


def test_bounds_are_those_of_the_outer_edges():
    degrees = GeoBox((2, 2), Affine(0.5, 0, 11, 0, -0.5, 50), "EPSG:4326")
    assert describe_grid(degrees)["bounds_lonlat"] == [11.0, 49.0, 12.0, 50.0]
    across = GeoBox((400, 400), Affine(100, 0, 818_000, 0, -100, 100_000), "EPSG:32660")  # by the antimeridian
    west, _, east, _ = describe_grid(across)["bounds_lonlat"]
    assert 179 < west < 180 < east < 181


@pytest.mark.parametrize(
    ("crs", "corner", "bounds"),
    [
        ("EPSG:3995", (-1e6, 1e6), [-180, 77.0, 180, 90]),  # the pole in the middle
        ("EPSG:3995", (-60_000, 1.95e6), [-180, 65.1, 180, 90]),  # and by a corner
        ("EPSG:3031", (-1e6, 1e6), [-180, -90, 180, -77.1]),
        ("EPSG:3995", (10_000, 2e6), [90, 64.4, 179.7, 89.9]),  # beside it
        ("EPSG:3995", (0, 2e6), [90, 64.4, 180, 90]),  # a corner on it
        ("EPSG:32662", (-1e6, 10_018_754), [-9, 72, 9, 90]),  # where it is a line
    ],
)
def test_bounds_about_a_pole(crs, corner, bounds):
    grid = GeoBox((200, 200), Affine(10_000, 0, corner[0], 0, -10_000, corner[1]), crs)
    assert describe_grid(grid)["bounds_lonlat"] == pytest.approx(bounds, abs=0.3)


def test_bounds_of_the_whole_world():
    half = 20_037_508.342789
    for crs, top, north in (("EPSG:3857", half, 85.051), ("EPSG:32662", half / 2, 90)):
        grid = GeoBox((200, 400), Affine(half / 200, 0, -half, 0, -top / 100, top), crs)
        assert describe_grid(grid)["bounds_lonlat"] == pytest.approx([-180, -north, 180, north], abs=0.1)


def test_a_map_of_percents_is_no_class_map(tmp_path, capsys):
    path = tmp_path / "map.confidence.tif"
    with rasterio.open(path, "w", driver="GTiff", count=1, height=60, width=60, dtype="uint8", crs="EPSG:32633",
                       transform=Affine(10, 0, 500_000, 0, -10, 5_000_000), nodata=255) as file:  # fmt: skip
        file.write(np.random.default_rng(0).integers(50, 60, (1, 60, 60)).astype("uint8"))
        file.set_band_description(1, "confidence")
    assert main(["info", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "hectares" not in shown
    assert "class 50" not in shown
