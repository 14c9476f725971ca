"""A split in a file: written, read, edited, drawn by hand; and what is no split is said in a line."""

import json
import logging

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from geoseg.data.scene import OUTSIDE, TEST, TRAINING, VALIDATION
from geoseg.data.splits import SplitOptions, SplitPlan, SplitUnit, split_scenes
from geoseg.errors import GridError, InputError, MissingInputError, OutputError, ReadError

NAMES = ("water", "wood", "bare")


def split(scenes, roles=None, **options):
    return split_scenes(scenes, classes=3, class_names=NAMES, roles=roles, options=SplitOptions(**options))


def parts_of(scenes):
    return [scene.part.copy() for scene in scenes]


@pytest.fixture
def mixed(decoded, patchy, grid):
    """Scenes of two CRSs that overlap in part, and two without one; the first two have one name."""
    lonlat = GeoBox((100, 120), Affine(1.3e-4, 0, 15.002, 0, -0.9e-4, 46.95), "EPSG:4326")
    none = GeoBox((40, 40), Affine.identity(), None)
    given = [("scene", grid(150, 130)), ("scene", lonlat), ("chip a", none), ("chip b", none)]
    return [decoded(patchy(k, tuple(box.shape)), geobox=box, name=name) for k, (name, box) in enumerate(given)]


@pytest.mark.parametrize(
    "options",
    [
        {"buffer_m": 35.0}, {"unit": "scene", "untrained": "warn"}, {"test_share": 0.1, "block_m": 250.0},
        {"folds": 3, "fold": 1, "buffer_m": 12.5}, {"buffer_m": "auto", "block_m": 400.0},
    ],
)  # fmt: skip
def test_the_file_gives_the_same_planes(mixed, tmp_path, options):
    plan = split(mixed, **options)
    before = parts_of(mixed)
    plan.write(tmp_path / "split.geojson")
    for scene in mixed:
        scene.part[:] = 9
    again = split(mixed, file=str(tmp_path / "split.geojson"), untrained="warn")
    for was, scene in zip(before, mixed, strict=True):
        np.testing.assert_array_equal(scene.part, was)
    assert again == plan


@pytest.mark.parametrize(
    "options",
    [
        {"unit": "polygon"},
        {"regions": {"rows": [30, 60]}},
        {"regions": {"bbox": [500_000, 5_199_000, 500_500, 5_199_500]}},
    ],
)
def test_patches_and_regions_come_back_to_the_pixel(decoded, patchy, tmp_path, options):
    labels = patchy(0, (170, 150))
    labels[np.random.default_rng(1).random(labels.shape) < 0.6] = 255
    labels[50:90] = 255
    scene = decoded(labels)
    plan = split([scene], buffer_m=15, **options)
    before = scene.part.copy()
    plan.write(tmp_path / "split.geojson")
    split([scene], file=str(tmp_path / "split.geojson"))
    np.testing.assert_array_equal(scene.part, before)


def test_roles_come_back_too(decoded, patchy, grid, tmp_path):
    scenes = [decoded(patchy(k), geobox=grid(96, 80, west=5e5 + 400 * k), name=f"s{k}") for k in range(3)]
    plan = split(scenes, roles=["split", "validation", "test"], buffer_m=30, leakage="drop")
    before = parts_of(scenes)
    plan.write(tmp_path / "split.geojson")
    split(scenes, file=str(tmp_path / "split.geojson"))
    for was, scene in zip(before, scenes, strict=True):
        np.testing.assert_array_equal(scene.part, was)


def test_one_file_serves_every_fold(decoded, patchy, tmp_path):
    scene = decoded(patchy(0, (160, 160)))
    split([scene], folds=3, fold=0, buffer_m=0).write(tmp_path / "folds.geojson")
    path = str(tmp_path / "folds.geojson")
    seen = np.zeros(scene.part.shape, int)
    for fold in range(3):
        split([scene], file=path, folds=3, fold=fold)
        seen += scene.part == VALIDATION
    assert (seen == 1).all()
    (tmp_path / "plain.geojson").write_text(
        json.dumps(SplitPlan((SplitUnit(shapely.box(14, 46, 16, 47), "training"),), None, NAMES).to_geojson())
    )
    with pytest.raises(InputError, match="folds of .*plain.geojson are none"):
        split([scene], file=str(tmp_path / "plain.geojson"), folds=3)


def test_the_file_is_one_that_others_read(mixed, tmp_path):
    plan = split(mixed, folds=2)
    plan.write(tmp_path / "split.geojson")
    frame = gpd.read_file(tmp_path / "split.geojson")
    assert {"part", "fold", "scene", "pixels_water", "pixels_wood", "pixels_bare"} <= set(frame.columns)
    assert frame.crs.to_epsg() == 4326
    assert frame.geometry.dropna().is_valid.all()
    told = sum(int((scene.labels != 255).sum()) for scene in mixed)
    assert frame[["pixels_water", "pixels_wood", "pixels_bare"]].to_numpy().sum() == told
    document = json.loads((tmp_path / "split.geojson").read_text())
    assert sum(map(sum, document["geoseg_split"]["pixels"].values())) == told
    assert SplitPlan.read(tmp_path / "split.geojson") == plan


def test_a_split_that_a_gis_saved_in_another_format_keeps_scenes_and_folds(decoded, patchy, grid, tmp_path):
    scenes = [decoded(patchy(k), geobox=grid(96, 80, west=5e5 + 400 * k), name=f"s{k}") for k in range(4)]
    split(scenes, unit="scene", folds=2, buffer_m=20).write(tmp_path / "split.geojson")
    before = parts_of(scenes)
    gpd.read_file(tmp_path / "split.geojson").to_crs(32633).to_file(tmp_path / "split.gpkg")
    split(scenes, file=str(tmp_path / "split.gpkg"), folds=2, buffer_m=20)
    for was, scene in zip(before, scenes, strict=True):
        np.testing.assert_array_equal(scene.part, was)


def by_hand(path, squares, crs=32633, **columns):
    """Squares (west, south, east, north) in pixels of 10 m from the north-west corner of the scene, with columns."""
    shapes = [shapely.box(5e5 + 10 * w, 5.2e6 - 10 * s, 5e5 + 10 * e, 5.2e6 - 10 * n) for w, s, e, n in squares]
    gpd.GeoDataFrame(columns, geometry=shapes, crs=32633).to_crs(crs).to_file(path)
    return str(path)


@pytest.mark.parametrize(
    ("name", "crs"), [("hand.gpkg", 32633), ("hand.geojson", 4326), ("hand.geojson", 32633), ("hand.shp", 3035)]
)
def test_polygons_drawn_by_hand_are_the_split(decoded, patchy, tmp_path, name, crs):
    path = by_hand(tmp_path / name, [(0, 96, 30, 0), (60, 96, 80, 0)], crs, part=["val", "Test"])
    scene = decoded(patchy(0))
    split([scene], file=path, buffer_m=0)
    expected = np.full((96, 80), TRAINING)
    expected[:, :30], expected[:, 60:] = VALIDATION, TEST
    np.testing.assert_array_equal(scene.part, expected)


def test_where_training_is_drawn_other_labels_are_left_out(decoded, patchy, tmp_path):
    path = by_hand(
        tmp_path / "h.gpkg",
        [(0, 96, 20, 0), (30, 96, 80, 40), (40, 30, 50, 20)],
        role=["validation", "training", "outside"],
    )
    scene = decoded(patchy(0))
    split([scene], file=path, attribute="role", buffer_m=0)
    expected = np.full((96, 80), OUTSIDE)
    expected[:, :20], expected[40:, 30:] = VALIDATION, TRAINING
    np.testing.assert_array_equal(scene.part, expected)


@pytest.mark.parametrize(
    ("squares", "parts", "words"),
    [
        ([(0, 9, 9, 0)], ["learn"], "part 'learn'; needed is one of training"),
        (
            [(0, 50, 40, 0), (30, 40, 80, 10)],
            ["training", "validation"],
            r"polygon 1 \(training\) and polygon 2 \(validation\) overlap near 15.00",
        ),
        ([(5000, 5050, 5040, 5000)], ["validation"], "holds a labelled pixel: its polygons lie within"),
    ],
)  # fmt: skip
def test_what_is_no_split_is_refused(decoded, patchy, tmp_path, *, squares, parts, words):
    for name in ("hand.gpkg", "hand.geojson"):
        path = by_hand(tmp_path / name, squares, 32633 if name.endswith("gpkg") else 4326, part=parts)
        with pytest.raises(InputError, match=words):
            split([decoded(patchy(0))], file=path)


def test_overlap_within_one_part_and_touching_edges_are_fine(decoded, patchy, tmp_path):
    path = by_hand(
        tmp_path / "h.gpkg", [(0, 50, 40, 0), (30, 50, 50, 0), (50, 50, 80, 0)], part=["test", "test", "validation"]
    )
    scene = decoded(patchy(0))
    split([scene], file=path, buffer_m=0)
    assert (scene.part[:50, :50] == TEST).all()
    assert (scene.part[:50, 50:] == VALIDATION).all()


def test_metres_without_a_crs_are_no_place(decoded, patchy, tmp_path):
    box = shapely.geometry.mapping(shapely.box(5e5, 5.1e6, 5.01e5, 5.2e6))
    feature = {"type": "Feature", "properties": {"part": "validation"}, "geometry": box}
    path = tmp_path / "metres.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    with pytest.raises(GridError, match="500,000 5,100,000, which are no degrees"):
        split([decoded(patchy(0))], file=str(path))


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("{", "cannot be read"), ("[]", "no GeoJSON"), ('{"type": "Feature"}', "FeatureCollection"),
        ('{"type": "FeatureCollection", "features": []}', "no polygon"),
        ('{"type": "FeatureCollection", "features": [{"geometry": null, "properties": {}}]}', "no property part"),
        (
            '{"type": "FeatureCollection", "features": [{"geometry": null, "properties": {"part": "test"}}]}',
            "names no scene",
        ),
        ('{"type": "FeatureCollection", "features": [4]}', "no GeoJSON feature"),
        ('{"type": "FeatureCollection", "features": [], "geoseg_split": {"version": 7}}', "version 7"),
    ],
)  # fmt: skip
def test_broken_files_are_refused_in_a_line(decoded, patchy, tmp_path, document, words):
    (tmp_path / "split.geojson").write_text(document)
    with pytest.raises((InputError, ReadError), match=words) as caught:
        split([decoded(patchy(0))], file=str(tmp_path / "split.geojson"))
    assert "\n" not in str(caught.value)


def test_files_that_are_not_there_or_cannot_be_written_are_named(decoded, patchy, tmp_path):
    with pytest.raises(MissingInputError, match="nowhere"):
        split([decoded(patchy(0))], file=str(tmp_path / "nowhere.geojson"))
    with pytest.raises(MissingInputError, match="nowhere"):
        split([decoded(patchy(0))], file=str(tmp_path / "nowhere.gpkg"))
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        SplitPlan((), None, NAMES).write(tmp_path / "file" / "split.geojson")


def test_a_file_that_is_silent_about_a_scene_says_so(decoded, patchy, grid, tmp_path, caplog):
    scenes = [decoded(patchy(k), geobox=grid(96, 80, west=5e5 + 1e5 * k), name=f"s{k}") for k in range(3)]
    split(scenes[:2], roles=["training", "validation"]).write(tmp_path / "split.geojson")
    with caplog.at_level(logging.WARNING):
        split(scenes, file=str(tmp_path / "split.geojson"))
    assert "nothing of 1 scenes, such as s2" in caplog.text
    assert (scenes[2].part == TRAINING).all()
    with pytest.raises(InputError, match="names the scenes|polygons lie within"):
        split([decoded(patchy(0), geobox=grid(96, 80, west=9e5), name="other")], file=str(tmp_path / "split.geojson"))
