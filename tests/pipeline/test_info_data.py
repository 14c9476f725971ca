"""`geoseg info` of training data: labels by part in pixels and true hectares, shifted labels, and what is wrong."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
import numpy as np
import pyproj
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox
from scipy import ndimage

import geoseg
from geoseg.cli import main
from geoseg.data.scene import OUTSIDE, TEST, TRAINING, VALIDATION, SceneArrays
from geoseg.inspecting import inspect_data
from geoseg.inspecting.alignment import label_shifts
from geoseg.inspecting.training_data import tally
from geoseg.io import open_labels, open_source, write_raster
from geoseg.legend import Legend
from geoseg.raster import Raster
from geoseg.synthetic import landscape

LEGEND = Legend.from_dict({1: "water", 5: "forest", 9: "road"})


def decoded(image, labels, *, geobox=None, valid=None, name="scene", part=None) -> SceneArrays:
    shape = labels.shape
    geobox = geobox or GeoBox(shape, Affine(10, 0, 500_000, 0, -10, 5_300_000), "EPSG:32633")
    valid = np.ones(shape, bool) if valid is None else valid
    told = np.where(valid, labels, 255).astype(np.uint8)
    part = np.where(valid, TRAINING, OUTSIDE).astype(np.uint8) if part is None else part
    bands = tuple(f"b{k}" for k in range(len(image)))
    return SceneArrays(name, image, valid, told, part, geobox, bands, 255, geobox)


def moved(labels, rows: int, cols: int):
    """Labels moved down and to the right; 255 where nothing came."""
    out = np.full_like(labels, 255)
    height, width = labels.shape
    out[max(0, rows) : height + min(0, rows), max(0, cols) : width + min(0, cols)] = labels[
        max(0, -rows) : height - max(0, rows), max(0, -cols) : width - max(0, cols)
    ]
    return out


# -- shifted labels ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place():
    return landscape(5, shape=(520, 560))


def scene_of(place, rows: int = 0, cols: int = 0) -> SceneArrays:
    return decoded(place.image.pixels, moved(place.labels.pixels[0], rows, cols), valid=place.image.valid)


def test_right_labels_are_not_called_shifted(place):
    assert label_shifts([scene_of(place)]) == []
    assert label_shifts([scene_of(landscape(seed, shape=(400, 480))) for seed in (1, 2)]) == []


@pytest.mark.parametrize("shape", [(257, 300), (129, 140), (300, 385), (641, 256)])
def test_a_rim_of_a_pixel_is_looked_over(shape):
    assert label_shifts([scene_of(landscape(1, shape=shape))]) == []


@pytest.mark.parametrize(("rows", "cols"), [(1, 0), (0, -1), (-2, 3), (5, -5), (9, 2)])
def test_shifted_labels_are_found_with_the_way_back(place, rows, cols):
    ((name, shift),) = label_shifts([scene_of(place, rows, cols)])
    assert (name, shift.rows, shift.cols) == ("scene", -rows, -cols)
    assert shift.gain > 2


def test_labels_half_a_pixel_off_or_on_a_coarser_grid_are_fine(place):
    labels = place.labels.pixels[0]
    coarse = np.repeat(np.repeat(labels[1::3, 1::3], 3, 0), 3, 1)[: labels.shape[0], : labels.shape[1]]
    coarse = np.pad(coarse, [(0, labels.shape[0] - coarse.shape[0]), (0, labels.shape[1] - coarse.shape[1])], "edge")
    assert label_shifts([decoded(place.image.pixels, coarse, valid=place.image.valid)]) == []
    blurred = ndimage.shift(place.image.pixels.astype(np.float32), (0, 0.5, 0.4), order=1, mode="nearest")
    assert label_shifts([decoded(blurred, labels, valid=place.image.valid)]) == []


@pytest.mark.parametrize("seed", range(8))
def test_labels_that_have_nothing_to_do_with_the_image_say_nothing(seed):
    rng = np.random.default_rng(seed)
    image = np.stack([ndimage.gaussian_filter(rng.normal(size=(500, 500)), 1 + seed % 4) for _ in "ab"])
    image = (image / image.std() * 500 + 3000).astype(np.uint16)
    if seed % 2:
        image[:, :, :: 7 + seed] += 900  # stripes, which attract any border
    labels = (ndimage.gaussian_filter(rng.normal(size=(500, 500)), 4) > 0).astype(np.uint8)
    assert label_shifts([decoded(image, labels)]) == []


def test_nothing_is_said_of_flat_images_sparse_labels_and_tiny_scenes(place):
    flat = np.full((2, 300, 300), 7, np.uint16)
    labels = np.random.default_rng(0).integers(0, 3, (300, 300)).astype(np.uint8)
    assert label_shifts([decoded(flat, labels)]) == []
    assert label_shifts([decoded(flat[:, :9, :9], labels[:9, :9])]) == []
    sparse = np.full_like(place.labels.pixels[0], 255)
    sparse[100:110, 100:110] = 1
    assert label_shifts([decoded(place.image.pixels, sparse, valid=place.image.valid)]) == []


def test_chips_are_judged_together(place):
    def chips(rows: int):
        whole = scene_of(place, rows, 0)
        for row in range(0, 512, 128):
            for col in range(0, 512, 128):
                at = slice(row, row + 128), slice(col, col + 128)
                yield decoded(whole.pixels[:, *at], whole.labels[at], valid=whole.valid[at], name=f"{row}-{col}")

    assert label_shifts(list(chips(0))) == []
    ((name, shift),) = label_shifts(list(chips(2)))
    assert (name[:8], shift.rows, shift.cols) == ("0-0 and ", -2, 0)


def test_the_real_labels_of_zion_are_right_until_they_are_moved(shared_data: Path):
    source = open_source(shared_data / "zion" / "landsat8_2345.tif")
    image = source.read(source.geobox)
    labels, legend = open_labels(str(shared_data / "zion" / "nlcd.tif"))
    told = labels.read(source.geobox)
    index = np.where(told.valid, legend.indexes(told.pixels[0]), 255).astype(np.uint8)
    assert label_shifts([decoded(image.pixels, index, geobox=source.geobox)]) == []
    ((_, shift),) = label_shifts([decoded(image.pixels, moved(index, 1, 0), geobox=source.geobox)])
    assert (shift.rows, shift.cols) == (-1, 0)


# -- figures -----------------------------------------------------------------------------------------------------------


def flat_scene(shape=(200, 240), *, name="scene", step=0.001, classes=3) -> SceneArrays:
    """Random labels in degrees, of every part, a tenth of the pixels invalid."""
    rng = np.random.default_rng(7)
    image = rng.integers(100, 900, (2, *shape)).astype(np.uint16)
    labels, valid = rng.integers(0, classes, shape).astype(np.uint8), rng.random(shape) > 0.1
    labels[rng.random(shape) < 0.2] = 255
    part = np.where(valid, rng.choice([OUTSIDE, TRAINING, VALIDATION, TEST], shape), OUTSIDE).astype(np.uint8)
    geobox = GeoBox(shape, Affine(step, 0, 11, 0, -step, 48), "EPSG:4326")
    return decoded(image, labels, geobox=geobox, valid=valid, name=name, part=part)


def row_areas(scene: SceneArrays) -> np.ndarray:
    """Area of a pixel in each row as a polygon on the ellipsoid, m²."""
    geod, (a, _, c, _, e, f) = pyproj.Geod(ellps="WGS84"), scene.geobox.affine[:6]
    return np.array(
        [
            abs(
                geod.polygon_area_perimeter(
                    [c, c + a, c + a, c], [f + k * e, f + k * e, f + (k + 1) * e, f + (k + 1) * e]
                )[0]
            )
            for k in range(scene.shape[0])
        ]
    )


def test_classes_are_counted_by_part_in_pixels_and_true_square_metres():
    scenes = [flat_scene(name="one"), flat_scene((150, 100), name="two")]
    values = inspect_data(scenes, legend=LEGEND, name="c.yaml", buffer_m=0.0).to_dict()
    for k, item in enumerate(values["classes"]):
        assert (item["id"], item["name"]) == (int(LEGEND.ids[k]), LEGEND.names[k])
        for name, part in (("outside", OUTSIDE), ("training", TRAINING), ("validation", VALIDATION), ("test", TEST)):
            hits = [(scene.labels == k) & (scene.part == part) for scene in scenes]
            assert item["pixels"][name] == sum(int(plane.sum()) for plane in hits)
            area = sum((plane * row_areas(scene)[:, None]).sum() for plane, scene in zip(hits, scenes, strict=True))
            assert item["area_m2"][name] == pytest.approx(area, rel=1e-6)
    labelled = sum(int((scene.labels != 255).sum()) for scene in scenes)
    assert values["labelled_share"] == pytest.approx(labelled / sum(int(scene.valid.sum()) for scene in scenes))
    assert [scene["valid"] for scene in values["scenes"]] == [int(scene.valid.sum()) for scene in scenes]
    trained = np.concatenate([scene.pixels[:, scene.part == TRAINING] for scene in scenes], 1)
    for band, known in zip(values["bands"], trained, strict=True):
        assert (band["pixels"], band["min"], band["max"]) == (known.size, known.min(), known.max())
        assert (band["mean"], band["p50"]) == (pytest.approx(known.mean()), np.median(known))


def test_areas_of_labels_are_those_of_each_pixel_where_they_change_along_rows_too():
    shape, step, corner = (300, 300), 10_000, (0.5e6, -0.5e6)
    plane = pyproj.Proj("EPSG:3413")
    x = corner[0] + (np.arange(shape[1]) + 0.5) * step
    y = corner[1] - (np.arange(shape[0]) + 0.5) * step
    truth = step**2 / plane.get_factors(*plane(*np.meshgrid(x, y), inverse=True)).areal_scale
    labels = np.zeros(shape, np.uint8)
    labels[:, 150:] = 1
    geobox = GeoBox(shape, Affine(step, 0, corner[0], 0, -step, corner[1]), "EPSG:3413")
    found = tally(decoded(np.ones((1, *shape), np.uint8), labels, geobox=geobox), classes=2)
    wanted = [truth[:, :150].sum(), truth[:, 150:].sum()]
    assert wanted == [pytest.approx(441.13e10, rel=1e-4), pytest.approx(410.04e10, rel=1e-4)]
    np.testing.assert_allclose(found.areas[TRAINING], wanted, rtol=2e-6)


def test_a_constant_band_has_no_deviation_and_is_a_warning():
    scene = blocks(patches())
    scene.pixels[1] = 7
    found = inspect_data([scene], legend=LEGEND, name="c.yaml", buffer_m=250.0)
    assert [band["std"] for band in found.to_dict()["bands"]] == [pytest.approx(231, abs=5), 0]
    assert found.warnings == ("every training pixel has the same value in b1",)


def test_a_band_without_a_training_pixel_has_no_figures():
    part = np.full((160, 200), VALIDATION, np.uint8)
    scene = decoded(np.ones((1, 160, 200), np.uint8), patches(), part=part)
    found = inspect_data([scene], legend=LEGEND, name="c.yaml", buffer_m=250.0)
    (band,) = found.to_dict()["bands"]
    assert [band[key] for key in ("pixels", "mean", "std", "min", "max")] == [0, None, None, None, None]
    assert not any("same value" in said for said in found.warnings)


def test_mixed_parts_leak_and_the_leak_is_a_warning():
    found = inspect_data([flat_scene()], legend=LEGEND, name="c.yaml", buffer_m=200.0)
    assert found.to_dict()["leaks"]
    assert any(said.startswith("leak: ") and "training pixels of scene" in said for said in found.warnings)


def blocks(labels: np.ndarray, *, name="scene", gap: int = 30, **options) -> SceneArrays:
    """A scene whose left half trains and whose right half validates, with a gap between."""
    shape, middle = labels.shape, labels.shape[1] // 2
    part = np.full(shape, TRAINING, np.uint8)
    part[:, middle - gap // 2 :] = OUTSIDE
    part[:, middle + gap // 2 :] = VALIDATION
    image = np.random.default_rng(1).integers(100, 900, (2, *shape)).astype(np.uint16)
    return decoded(image, labels, name=name, part=part, **options)


def patches(rows: int = 160, cols: int = 200) -> np.ndarray:
    return np.kron(np.random.default_rng(2).integers(0, 3, (rows // 10, cols // 10)), np.ones((10, 10))).astype(
        np.uint8
    )


def warnings_of(*scenes: SceneArrays, legend: Legend = LEGEND, **options) -> list[str]:
    return list(inspect_data(scenes, legend=legend, name="c.yaml", **{"buffer_m": 250.0} | options).warnings)


def test_good_data_is_not_warned_of():
    assert warnings_of(blocks(patches())) == []


def test_a_class_of_one_part_and_one_of_none_are_named():
    labels = patches()
    labels[:, 110:][labels[:, 110:] == 2] = 0
    said = warnings_of(blocks(labels), legend=Legend.from_dict({1: "water", 5: "forest", 9: "road", 11: "ice"}))
    assert said == [
        "the legend names ice, of which there is no pixel",
        "class road is in training only: its score stays unknown",
    ]
    labels = patches()
    labels[:, :90][labels[:, :90] == 1] = 0
    assert "class forest is in validation only: the network cannot learn it" in warnings_of(blocks(labels))


def test_few_labels_and_scenes_without_labels_or_pixels_are_named():
    labels = np.full((160, 200), 255, np.uint8)
    labels[:3, :20], labels[:3, 180:] = 1, 1
    bare = blocks(np.full((160, 200), 255, np.uint8), name="bare")
    empty = blocks(labels, name="empty", valid=np.zeros((160, 200), bool))
    said = warnings_of(blocks(labels), bare, empty, legend=Legend.from_dict({1: "a", 2: "b"}))
    assert any(line.startswith("labels cover 0.1") for line in said)
    assert "all is nodata in empty" in said
    assert "no label lies on bare" in said


def test_a_refused_split_what_was_unreadable_and_a_short_buffer_are_said():
    said = warnings_of(blocks(patches()), refused="the split leaves nothing", unreadable=["x.tif at row 5"])
    assert said[:2] == [
        "the split is refused: the split leaves nothing",
        "cannot be read, and is left out: x.tif at row 5",
    ]
    (short,) = warnings_of(blocks(patches()), buffer_m=5.0)
    assert "the buffer of 5 m is less than the distance over which labels are alike" in short


def test_shifted_labels_are_a_warning_that_says_which_way(place):
    (said,) = warnings_of(scene_of(place, 2, -1), legend=place.legend, refused="-")[1:2]
    assert "the labels of scene fit its image best when moved 2 pixels up and 1 pixel to the right" in said


def test_scenes_without_a_place_have_pixels_and_no_hectares():
    scene = blocks(patches(), geobox=GeoBox((160, 200), Affine(1, 0, 0, 0, -1, 0), None))
    found = inspect_data([scene], legend=LEGEND, name="c.yaml")
    assert found.to_dict()["classes"][0]["area_m2"]["training"] is None
    assert found.to_dict()["label_range_m"] is None
    assert "none" in str(found)


# -- the verb ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path, place) -> Path:
    write_raster(place.image, tmp_path / "image.tif", nodata=0)
    write_raster(place.labels, tmp_path / "labels.tif", legend=place.legend)
    path = tmp_path / "fit.yaml"
    path.write_text(
        f"name: x\ndata:\n  scenes:\n    - {{image: {tmp_path}/image.tif, labels: {tmp_path}/labels.tif, name: here}}\n"
        "  patch_px: 64\n  split: {block_m: 800, buffer_m: 40}\nmodel: {encoder: resnet18}\n"
    )
    return path


def test_a_config_shows_what_fit_would_train_on_and_draws_the_split(config: Path, place, capsys):
    picture = config.with_name("split.png")
    assert main(["info", str(config), "--picture", str(picture), "--json", str(config.with_name("o.json"))]) == 0
    text = capsys.readouterr().out
    for word in ("here", "560 x 520", "EPSG:32633", "40 m between the parts", "leaks   none found"):
        assert word in text
    assert "warning: the labels" not in text
    values = geoseg.info(str(config)).to_dict()
    seen = place.labels.pixels[0][place.image.valid]
    for item in values["classes"]:
        assert sum(item["pixels"].values()) == (seen == item["id"]).sum()
        assert item["pixels"]["training"] > 2 * item["pixels"]["validation"] > 0
    assert matplotlib.image.imread(picture).std() > 0.05
    assert not (config.parent / "runs").exists()


def test_scenes_without_labels_are_listed_with_what_of_them_is_shown(config: Path, place):
    far = GeoBox(place.image.geobox.shape, Affine.translation(90_000, 0) @ place.image.geobox.affine, "EPSG:32633")
    moved = Raster(place.image.pixels, place.image.valid, far, place.image.bands)
    write_raster(moved, config.with_name("far.tif"), nodata=0)
    more = f"  unlabelled: [same, {config.parent}/image.tif, {config.parent}/far.tif]\n"
    config.write_text(config.read_text().replace("  patch_px", f"{more}  patch_px"))
    found = geoseg.info(str(config))
    here, there = found.to_dict()["unlabelled"]  # `same` is among the scenes with labels
    pixels = [item["pixels"] for item in found.to_dict()["classes"]]
    assert there["shown"] == there["valid"] == place.image.valid.sum()
    assert here["shown"] < here["valid"] - sum(each["validation"] for each in pixels)
    assert here["shown"] >= sum(each["training"] for each in pixels)
    assert f"{here['shown']:,}" in str(found)
    assert "without labels" in str(found)


def test_labels_that_lie_off_are_told_before_anything_is_trained(config: Path, place):
    shifted = GeoBox(place.labels.geobox.shape, place.labels.geobox.affine @ Affine.translation(3, 0), "EPSG:32633")
    labels = Raster(place.labels.pixels, place.labels.valid, shifted, ("label",))
    write_raster(labels, config.with_name("labels.tif"), legend=place.legend, nodata=255, overwrite=True)
    said = "\n".join(geoseg.info(str(config)).warnings)
    assert "the labels of here fit its image best when moved 3 pixels to the left" in said


def test_a_split_that_is_refused_still_shows_the_data(config: Path):
    config.write_text(config.read_text().replace("buffer_m: 40", "buffer_m: 90000"))
    found = geoseg.info(str(config))
    assert found.warnings[0].startswith("the split is refused: ")
    assert found.to_dict()["labelled_share"] == 1.0


def test_a_config_that_does_not_fit_is_one_line(config: Path, capsys):
    config.write_text(config.read_text().replace("patch_px", "patch_pxx"))
    assert main(["info", str(config)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
