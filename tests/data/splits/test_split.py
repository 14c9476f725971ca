"""From options to parts: every pixel has one, the buffer is kept, shares are met, and what cannot train is refused."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from geoseg.data.scene import OUTSIDE, TEST, TRAINING, VALIDATION
from geoseg.data.splits import SplitOptions, split_scenes
from geoseg.errors import GridError, InputError

FUNCTION = [HealthCheck.function_scoped_fixture]


def split(scenes, classes=3, roles=None, names=None, **options):
    return split_scenes(scenes, classes=classes, class_names=names, roles=roles, options=SplitOptions(**options))


def counted(scenes, part, classes=3):
    total = np.zeros(classes, int)
    for scene in scenes:
        told = scene.labels[:, :][scene.part[:, :] == part]
        total += np.bincount(told[told != scene.no_label], minlength=classes)
    return total


def unplaced(decoded, labels, name):
    return decoded(labels, geobox=GeoBox(labels.shape, Affine.identity(), None), name=name)


@settings(max_examples=20, suppress_health_check=FUNCTION)
@given(
    seed=st.integers(0, 10**6),
    buffer_m=st.floats(0, 100),
    block_m=st.sampled_from([150.0, 240.0, None]),
    test_share=st.sampled_from([0.0, 0.15]),
)
def test_the_buffer_is_kept_and_no_pixel_is_lost_that_need_not_be(
    decoded, patchy, nearest_m, *, seed, buffer_m, block_m, test_share
):
    scene = decoded(patchy(seed))
    split([scene], block_m=block_m, buffer_m=buffer_m, seed=seed, test_share=test_share, untrained="warn")
    judges = [VALIDATION, TEST]
    assert nearest_m(scene, [TRAINING], [scene], judges).min() > buffer_m * 0.999
    assert nearest_m(scene, [VALIDATION], [scene], [TEST]).min() > buffer_m * 0.999
    if (scene.part == OUTSIDE).any():
        assert nearest_m(scene, [OUTSIDE], [scene], judges).max() <= buffer_m * 1.001


@pytest.mark.parametrize(
    "options",
    [{}, {"unit": "polygon"}, {"folds": 3, "fold": 1}, {"regions": {"rows": [5, 30]}}, {"buffer_m": "auto"}],
)
def test_stored_layers_are_split_as_arrays_are(decoded, patchy, strict, options):
    labels = patchy(2, (200, 170))
    labels[::9], labels[:, ::11] = 255, 255
    plain, stored = decoded(labels), strict(decoded(labels))
    for scene in (plain, stored):
        split([scene], **{"buffer_m": 20, **options})
    np.testing.assert_array_equal(stored.part[:, :], plain.part)


def test_validation_and_test_have_about_their_share_of_every_class(decoded, patchy):
    for seed in range(4):
        scene = decoded(patchy(seed, (320, 320)))
        plan = split([scene], block_m=300, buffer_m=0, seed=seed, test_share=0.1)
        total = counted([scene], TRAINING) + counted([scene], VALIDATION) + counted([scene], TEST)
        assert np.abs(np.array(plan.pixels["validation"]) / total - 0.2).max() < 0.05
        assert np.abs(np.array(plan.pixels["test"]) / total - 0.1).max() < 0.05
        assert counted([scene], VALIDATION).tolist() == list(plan.pixels["validation"])


def test_the_plan_counts_every_labelled_pixel_in_one_unit(decoded, patchy):
    labels = patchy(1, (150, 130))
    labels[20:50, 10:100] = 255
    for options in ({"block_m": 170.0}, {"unit": "scene"}, {"unit": "polygon"}):
        scenes = [
            decoded(labels, name="a"),
            decoded(labels, name="b", geobox=GeoBox((150, 130), Affine(10, 0, 6e5, 0, -10, 5.2e6), "EPSG:32633")),
        ]
        plan = split(scenes, untrained="warn", buffer_m=0, **options)
        assert (
            np.sum([unit.counts for unit in plan.units], 0).tolist()
            == (2 * np.bincount(labels[labels != 255])).tolist()
        )


@pytest.mark.parametrize("epsg", [32633, 4326, 3857])
def test_blocks_leave_no_pixel_between_them(decoded, epsg):
    """Blocks of a few pixels in any CRS: their shared edges are the same to the last bit."""
    affine = {
        32633: Affine(10, 0, 5e5, 0, -10, 5.2e6),
        4326: Affine(1e-4, 0, 15, 0, -1e-4, 60),
        3857: Affine(9, 2, 1e6, 2, -9, 7e6),
    }
    labels = np.zeros((150, 140), np.uint8)
    scene = decoded(labels, geobox=GeoBox(labels.shape, affine[epsg], f"EPSG:{epsg}"))
    plan = split([scene], classes=1, block_m=33.0, buffer_m=0)
    assert sum(unit.counts[0] for unit in plan.units) == labels.size
    assert (scene.part != OUTSIDE).all()


def test_the_seed_draws_the_split(decoded, patchy):
    parts = []
    for seed in (3, 3, 4):
        scene = decoded(patchy(1, (160, 160)))
        split([scene], seed=seed, buffer_m=10)
        parts.append(scene.part)
    np.testing.assert_array_equal(parts[0], parts[1])
    assert (parts[0] != parts[2]).any()


@settings(max_examples=8, suppress_health_check=FUNCTION)
@given(seed=st.integers(0, 10**6), folds=st.integers(2, 5), unit=st.sampled_from(["block", "polygon", "scene"]))
def test_over_the_folds_every_unit_validates_once(decoded, patchy, nearest_m, *, seed, folds, unit):
    labels = patchy(seed, (160, 160))
    labels[(np.arange(160) // 8 % 3 == 2)] = 255
    labels[:, (np.arange(160) // 8 % 3 == 2)] = 255
    boxes = [GeoBox((160, 160), Affine(10, 0, 5e5 + k * 4000, 0, -10, 5.2e6), "EPSG:32633") for k in range(6)]
    scenes = [
        decoded(labels, geobox=box, name=f"s{k}") for k, box in enumerate(boxes if unit == "scene" else boxes[:2])
    ]
    judged = [np.zeros(labels.shape, int) for _ in scenes]
    for fold in range(folds):
        plan = split(scenes, unit=unit, folds=folds, fold=fold, buffer_m=30, seed=seed)
        assert {u.fold for u in plan.units} == set(range(folds))
        assert all((u.part == "validation") == (u.fold == fold) for u in plan.units)
        assert nearest_m(scenes[0], [TRAINING], scenes, [VALIDATION]).min(initial=np.inf) > 29.9
        judged = [seen + (scene.part == VALIDATION) for seen, scene in zip(judged, scenes, strict=True)]
    assert all((seen[labels != 255] == 1).all() for seen in judged)


def test_folds_beside_a_test_leave_it_alone(decoded, patchy):
    scene = decoded(patchy(4, (200, 200)))
    tests = []
    for fold in range(3):
        split([scene], folds=3, fold=fold, test_share=0.2, buffer_m=0)
        tests.append(scene.part == TEST)
    assert tests[0].any()
    assert (tests[0] == tests[1]).all()
    assert (tests[0] == tests[2]).all()


@pytest.mark.parametrize("seed", range(6))
def test_polygons_stay_whole_and_the_only_one_of_a_class_trains(decoded, sparse, seed):
    scene = decoded(sparse)
    split([scene], seed=seed)
    for row, col in np.argwhere(scene.labels != 255):
        corner = (row // 2 * 2, col // 2 * 2)
        assert scene.part[corner] == scene.part[row, col] or scene.labels[corner] == 255
    assert (scene.part[scene.labels == 2] == TRAINING).all()
    judged = np.unique(scene.labels[(scene.part == VALIDATION) & (scene.labels != 255)])
    assert judged.tolist() == [0, 1]


def test_regions_are_taken_as_given(decoded, patchy):
    scene = decoded(patchy(0))
    split([scene], regions=[{"rows": [0, 20]}, {"rows": [40, 60], "cols": [10, 30]}], buffer_m=0)
    expected = np.zeros((96, 80), bool)
    expected[:20] = expected[40:60, 10:30] = True
    np.testing.assert_array_equal(scene.part == VALIDATION, expected)


@settings(max_examples=15, suppress_health_check=FUNCTION)
@given(
    row=st.integers(0, 60),
    rows=st.integers(1, 36),
    col=st.integers(0, 40),
    cols=st.integers(1, 40),
    epsg=st.sampled_from([32633, 4326, 3035]),
)
def test_regions_in_pixels_are_exact_in_any_crs(decoded, patchy, *, row, rows, col, cols, epsg):
    affine = {
        32633: Affine(0.5, 0, 5e5, 0, -0.5, 5.2e6),
        4326: Affine(1e-3, 0, 15, 0, -1e-3, 60),
        3035: Affine(60, 12, 4e6, -12, 60, 3e6),
    }
    scene = decoded(patchy(1), geobox=GeoBox((96, 80), affine[epsg], f"EPSG:{epsg}"))
    split([scene], regions={"rows": [row, row + rows], "cols": [col, col + cols]}, buffer_m=0, untrained="warn")
    expected = np.zeros((96, 80), bool)
    expected[row : row + rows, col : col + cols] = True
    np.testing.assert_array_equal(scene.part == VALIDATION, expected)


def test_regions_of_a_scene_count_in_the_image_not_in_what_was_cut_from_it(decoded, patchy, grid, shifted):
    image = grid(200, 200)
    scene = replace(decoded(patchy(0), geobox=shifted(image, 50, 60, (96, 80))), image_grid=image)
    split([scene], regions={"rows": [40, 70], "cols": [100, 120]}, buffer_m=0)
    expected = np.zeros((96, 80), bool)
    expected[:20, 40:60] = True
    np.testing.assert_array_equal(scene.part == VALIDATION, expected)


def test_a_region_must_touch_a_scene_but_not_every_scene(decoded, patchy, grid):
    scenes = [decoded(patchy(0)), decoded(patchy(1), geobox=grid(96, 80, west=600_000))]
    box = {"bbox": [600_000, 5_199_800, 600_400, 5_200_000], "crs": "EPSG:32633"}
    split(scenes, regions=box, buffer_m=0)
    assert (scenes[0].part == TRAINING).all()
    assert (scenes[1].part[:20, :40] == VALIDATION).all()
    assert (scenes[1].part[20:] == TRAINING).all()
    with pytest.raises(InputError, match="touch"):
        split(scenes, regions={"bbox": [0, 0, 1, 1], "crs": "EPSG:32633"})


def test_whole_scenes_can_be_one_part(decoded, patchy, grid):
    scenes = [decoded(patchy(k), geobox=grid(96, 80, west=5e5 + 1e5 * k)) for k in range(4)]
    plan = split(scenes, roles=["training", "validation", "test", "split"])
    assert [np.unique(scene.part).tolist() for scene in scenes] == [[TRAINING], [VALIDATION], [TEST], [TRAINING]]
    assert [unit.part for unit in plan.units].count("training") == 2
    with pytest.raises(InputError, match="'judge'"):
        split(scenes, roles=["judge"] * 4)


def test_a_test_scene_leaves_the_others_to_be_split(decoded, patchy, grid):
    scenes = [decoded(patchy(k), geobox=grid(96, 80, west=5e5 + 1e5 * k)) for k in range(2)]
    split(scenes, roles=["test", "split"], buffer_m=20, test_share=0.3)
    assert np.unique(scenes[0].part).tolist() == [TEST]
    assert set(np.unique(scenes[1].part)) == {OUTSIDE, TRAINING, VALIDATION}


def test_roles_stand_above_regions_of_the_same_ground(decoded, patchy, grid):
    box = {"bbox": [500_000, 5_199_800, 500_400, 5_200_000], "crs": "EPSG:32633"}
    scenes = [decoded(patchy(0), name="a"), decoded(patchy(1), name="b")]
    split(scenes, regions=box, roles=["split", "training"], buffer_m=0)
    assert (scenes[0].part[:20, :40] == VALIDATION).all()
    assert (scenes[1].part == VALIDATION).sum() == 0
    assert (scenes[1].part[:20, :40] == OUTSIDE).all()  # the same ground as what validates in the other


def test_scenes_in_two_zones_that_overlap_share_one_split(decoded, patchy, nearest_m, two_zones):
    scenes = [decoded(patchy(k, (120, 120)), geobox=box) for k, box in enumerate(two_zones)]
    split(scenes, block_m=300, buffer_m=50)
    for scene in scenes:
        assert nearest_m(scene, [TRAINING], scenes, [VALIDATION]).min() > 50 - 0.1
        assert (scene.part == TRAINING).any()


def test_chips_are_split_whole_and_dates_of_one_place_together(decoded, patchy, grid):
    boxes = [grid(32, 32, west=5e5 + 1000 * (k // 2), north=5.2e6) for k in range(60)]
    scenes = [decoded(patchy(k, (32, 32)), geobox=box, name=f"chip {k}") for k, box in enumerate(boxes)]
    plan = split(scenes)
    assert "whole scenes" in plan.method
    parts = [np.unique(scene.part[scene.part != OUTSIDE]).tolist() for scene in scenes]
    assert all(len(part) <= 1 for part in parts)
    assert parts[::2] == parts[1::2]
    assert sum(part == [VALIDATION] for part in parts) / 60 == pytest.approx(0.2, abs=0.07)


def test_chips_without_a_crs_are_split_whole(decoded, patchy):
    scenes = [unplaced(decoded, patchy(k, (32, 32)), f"chip {k % 20}") for k in range(40)]
    plan = split(scenes)
    assert all(unit.geometry is None for unit in plan.units)
    parts = [np.unique(scene.part).tolist() for scene in scenes]
    assert parts[:20] == parts[20:]  # the same name, the same place
    assert all(len(part) == 1 for part in parts)
    with pytest.raises(GridError, match="unit: scene"):
        split(scenes, unit="block")
    with pytest.raises(GridError, match="CRS"):
        split(scenes, regions={"rows": [0, 5]})


def test_chips_of_one_image_are_drawn_together_and_those_of_one_name_are_not(decoded, patchy):
    scenes = [
        replace(unplaced(decoded, patchy(k, (32, 32)), f"chip {k}"), origins=frozenset({f"{k % 20}.png"}))
        for k in range(40)
    ]
    split(scenes)
    parts = [np.unique(scene.part).tolist() for scene in scenes]
    assert parts[:20] == parts[20:]
    alike = [replace(scene, name="chip", origins=frozenset({f"{k}.png"})) for k, scene in enumerate(scenes)]
    split(alike)
    assert {int(scene.part.max()) for scene in alike} == {TRAINING, VALIDATION}


def test_scenes_with_and_without_a_crs_are_split_side_by_side(decoded, patchy):
    scenes = [
        decoded(patchy(0, (200, 200))),
        *(unplaced(decoded, patchy(k, (32, 32)), f"chip {k}") for k in range(1, 9)),
    ]
    plan = split(scenes, buffer_m=20)
    assert "blocks" in plan.method
    assert all(len(np.unique(scene.part)) == 1 for scene in scenes[1:])
    assert set(np.unique(scenes[0].part)) == {OUTSIDE, TRAINING, VALIDATION}


def fields_file(folder, grid, values):
    """Squares of 40 pixels over a scene of 160 x 160, with a value each, in UTM."""
    import geopandas as gpd

    box = grid(160, 160)
    squares = [
        shapely.box(5e5 + 400 * c, 5.2e6 - 400 * (r + 1), 5e5 + 400 * (c + 1), 5.2e6 - 400 * r)
        for r in range(4)
        for c in range(4)
    ]
    path = folder / "fields.gpkg"
    gpd.GeoDataFrame({"farm": values}, geometry=squares, crs=box.crs.proj).to_file(path)
    return str(path)


def test_areas_of_one_value_stay_together(decoded, patchy, grid, tmp_path):
    farms = [f"farm {k % 7}" for k in range(16)]
    path = fields_file(tmp_path, grid, farms)
    scene = decoded(patchy(0, (160, 160)))
    plan = split([scene], unit="area", areas=path, attribute="farm", buffer_m=0)
    by_farm = {}
    for k, farm in enumerate(farms):
        square = scene.part[40 * (k // 4) : 40 * (k // 4) + 40, 40 * (k % 4) : 40 * (k % 4) + 40]
        by_farm.setdefault(farm, set()).update(np.unique(square).tolist())
    assert all(len(parts) == 1 for parts in by_farm.values())
    assert {part for parts in by_farm.values() for part in parts} == {TRAINING, VALIDATION}
    assert "by farm" in plan.method
    assert len({u.part for u in plan.units}) == 2
    single = split([scene], unit="area", areas=path, buffer_m=0)
    assert len(single.units) == 16


def test_areas_may_name_the_parts_themselves(decoded, patchy, grid, tmp_path):
    path = fields_file(tmp_path, grid, ["train"] * 10 + ["val"] * 4 + ["test"] * 2)
    scene = decoded(patchy(0, (160, 160)))
    split([scene], unit="area", areas=path, attribute="farm", buffer_m=0)
    parts = scene.part[::40, ::40].ravel().tolist()
    assert parts == [TRAINING] * 10 + [VALIDATION] * 4 + [TEST] * 2


def test_labels_outside_all_areas_are_left_out_and_said(decoded, patchy, grid, tmp_path, caplog):
    path = fields_file(tmp_path, grid, [str(k) for k in range(16)])
    labels = patchy(0, (200, 160))
    labels[180:] = 255
    scene = decoded(labels)
    with caplog.at_level(logging.WARNING):
        split([scene], unit="area", areas=path, buffer_m=0)
    assert (scene.part[160:180] == OUTSIDE).all()
    assert (scene.part[180:] == TRAINING).all()  # no label: context
    assert f"{20 * 160} of {180 * 160} labelled pixels" in caplog.text


def test_by_area_alone_the_classes_do_not_matter(decoded, patchy):
    labels = patchy(0, (320, 320))
    labels[:64] = 2
    scene = decoded(labels)
    plan = split([scene], stratified=False, block_m=320, buffer_m=0)
    assert sum(plan.pixels["validation"]) / labels.size == pytest.approx(0.2, abs=0.02)
    assert "by area" in plan.method


def test_the_buffer_follows_the_labels_where_it_is_auto(decoded, patchy):
    scene = decoded(patchy(0, (400, 400), side=10))
    plan = split([scene], buffer_m="auto")
    assert 60 <= plan.buffer_m <= 160  # fields of 100 m


def test_a_split_that_leaves_nothing_is_refused(decoded, patchy):
    with pytest.raises(InputError, match="train on"):
        split([decoded(patchy(0))], block_m=300, buffer_m=5000)
    single = np.full((100, 100), 255, np.uint8)
    single[5:9, 5:9] = 0
    with pytest.raises(InputError, match="validate on"):
        split([decoded(single)], classes=1)


def test_a_class_that_cannot_train_is_refused_with_its_numbers(decoded, patchy, caplog):
    labels = patchy(0, (96, 80), classes=2)
    labels[10:14, 5:10] = 2
    wanted = {"regions": {"rows": [0, 20]}, "names": ["water", "wood", "road"], "buffer_m": 0}
    with pytest.raises(InputError, match=r"road has 20 labelled pixels \(20 in validation\)"):
        split([decoded(labels)], **wanted)
    with caplog.at_level(logging.WARNING):
        plan = split([decoded(labels)], untrained="warn", **wanted)
    assert "road" in caplog.text
    assert plan.pixels["validation"][2] == 20
    labels[22:24, 40:45] = 2
    with pytest.raises(InputError, match=r"20 in validation, 10 in the buffer"):
        split([decoded(labels)], **{**wanted, "buffer_m": 100})
    split([decoded(labels)], **wanted)


def test_folds_that_cannot_be_are_refused(decoded, patchy, grid):
    scenes = [decoded(patchy(k), geobox=grid(96, 80, west=5e5 + 1e5 * k), name=f"s{k}") for k in range(2)]
    with pytest.raises(InputError, match="2 units with labels cannot make 3 folds"):
        split(scenes, unit="scene", folds=3)
    with pytest.raises(InputError, match="s1 is said to validate"):
        split(scenes, folds=2, roles=["split", "validation"])


@pytest.mark.parametrize(
    "options",
    [
        {"validation_share": 0.9}, {"block_m": 0.0}, {"buffer_m": -1.0}, {"buffer_m": "wide"}, {"unit": "county"},
        {"test_share": -0.1}, {"folds": 1}, {"folds": 3, "fold": 3}, {"fold": 1}, {"unit": "area"}, {"areas": "a.gpkg"},
        {"regions": {"rows": [0, 1]}, "file": "a.geojson"}, {"attribute": "farm"}, {"leakage": "allow"},
        {"regions": {"rows": [0, 1]}, "test_share": 0.1}, {"validation_share": 0.4, "test_share": 0.4},
        {"block_m": float("nan")}, {"untrained": "no"}, {"block_m": float("inf")}, {"buffer_m": float("inf")},
        {"buffer_m": float("nan")}, {"seed": -1},
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(InputError, match="needed is|needs|need each other"):
        SplitOptions(**options)


@pytest.mark.parametrize("west", [-180.05, 179.9, 359.95, 200.0, -0.05])
@pytest.mark.parametrize("options", [{"block_m": 1500.0}, {"regions": {"cols": [30, 70], "rows": [20, 90]}}])
def test_grids_in_degrees_may_count_on_beyond_180(decoded, patchy, tmp_path, west, options):
    """The same ground counted from -180, from 0 or across: units lie from -180 to 180, and hold the same pixels."""
    scene = decoded(patchy(0, (100, 100)), geobox=GeoBox((100, 100), Affine(1e-3, 0, west, 0, -1e-3, 20), "EPSG:4326"))
    plan = split([scene], buffer_m=200, **options)
    assert np.abs([unit.geometry.bounds for unit in plan.units]).max() <= 180
    assert np.sum([unit.counts for unit in plan.units]) == (100 * 100 if "block_m" in options else 70 * 40)
    before = scene.part.copy()
    plan.write(tmp_path / "split.geojson")
    split([scene], file=str(tmp_path / "split.geojson"))
    np.testing.assert_array_equal(scene.part, before)


def test_scenes_across_the_antimeridian_are_split_as_others_are(decoded, patchy, nearest_m):
    box = GeoBox((120, 120), Affine(100, 0, 812_000, 0, -100, 8_000_000), "EPSG:32760")
    scene = decoded(patchy(0, (120, 120)), geobox=box)
    plan = split([scene], block_m=2000, buffer_m=300)
    lon = np.array([unit.geometry.bounds for unit in plan.units])[:, [0, 2]]
    assert (lon > 179).any()
    assert (lon < -179).any()
    assert np.sum([unit.counts for unit in plan.units]) == 120 * 120
    assert nearest_m(scene, [TRAINING], [scene], [VALIDATION]).min() > 299
