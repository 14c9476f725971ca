"""The picture of a split: parts where they lie, every place on a map, a file that opens."""

from dataclasses import replace

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox
from PIL import Image

from geoseg.data.scene import OUTSIDE, TEST, TRAINING, VALIDATION
from geoseg.data.splits import SplitOptions, draw_split, split_scenes
from geoseg.data.splits.maps import CANVAS_PX, PAINTS, UNLABELLED, maps_of
from geoseg.errors import OutputError


def test_a_map_shows_each_part_where_it_lies(decoded):
    labels = np.zeros((300, 200), np.uint8)
    labels[200:] = 255
    scene = decoded(labels)
    scene.part[:100, :100], scene.part[:100, 100:], scene.part[100:200] = VALIDATION, TEST, OUTSIDE
    (drawn,) = maps_of([scene])
    west, south, _, north = drawn.box
    cell = (north - south) / drawn.paint.shape[0]
    assert max(drawn.paint.shape) == pytest.approx(CANVAS_PX * 1.06, abs=3)
    for row, col, paint in [
        (50, 50, PAINTS[VALIDATION]),
        (50, 150, PAINTS[TEST]),
        (150, 99, PAINTS[OUTSIDE]),
        (250, 50, UNLABELLED),
    ]:
        x, y = scene.geobox.affine @ (col + 0.5, row + 0.5)
        lon, lat = scene.geobox.crs.transformer_to_crs("EPSG:4326")(x, y)
        at = int((north - lat) / cell), int((lon - west) / (cell * drawn.aspect))
        assert drawn.paint[at] == paint
    assert drawn.paint[0, 0] == 0


def test_what_is_rare_is_seen_in_a_large_scene(decoded, strict):
    scene = decoded(np.zeros((4000, 3000), np.uint8))
    scene.part[:] = TRAINING
    scene.part[1234, 567] = TEST
    (drawn,) = maps_of([strict(scene)])
    assert (drawn.paint == PAINTS[TEST]).any()


def test_places_far_apart_have_maps_of_their_own_and_many_have_one(decoded, grid):
    labels = np.zeros((50, 50), np.uint8)
    near = [decoded(labels, geobox=grid(50, 50, west=4e5 + 700 * k)) for k in range(3)]
    far = [decoded(labels, geobox=GeoBox((50, 50), Affine(10, 0, 5e5, 0, -10, 4e6), f"EPSG:326{z}")) for z in (10, 20)]
    none = [decoded(labels, geobox=GeoBox((50, 50), Affine.identity(), None), name=f"c{k}") for k in range(5)]
    titles = [drawn.title for drawn in maps_of([*near, *far, *none])]
    assert titles == ["3 scenes", "scene", "scene", "5 scenes without a CRS"]
    world = [
        decoded(labels, geobox=GeoBox((50, 50), Affine(10, 0, 5e5, 0, -10, 4e6), f"EPSG:326{z:02}"))
        for z in range(1, 61)
    ]
    (drawn,) = maps_of(world)
    for scene, lon in zip(world, np.arange(-177, 180, 6), strict=True):
        col = (
            int((lon % 360 if drawn.box[2] > 180 else lon) - drawn.box[0])
            / (drawn.box[2] - drawn.box[0])
            * drawn.paint.shape[1]
        )
        assert drawn.paint[:, max(0, int(col) - 4) : int(col) + 8].any(), scene.geobox.crs


def test_chips_smaller_than_a_dot_are_seen(decoded, grid):
    labels = np.zeros((8, 8), np.uint8)
    scenes = [
        decoded(labels, geobox=grid(8, 8, west=3e5 + 9000 * (k % 20), north=5.2e6 + 9000 * (k // 20)))
        for k in range(400)
    ]
    for scene in scenes[::7]:
        scene.part[:] = VALIDATION
    (drawn,) = maps_of(scenes)
    assert (drawn.paint == PAINTS[VALIDATION]).sum() >= len(scenes[::7]) * 4


def test_the_picture_is_written_whole_with_all_its_colours(decoded, patchy, tmp_path):
    labels = patchy(0, (160, 160))
    labels[40:60] = 255
    scene = decoded(labels, name="west")
    for options in ({"test_share": 0.1, "buffer_m": 40}, {"unit": "scene", "regions": {"rows": [0, 30]}}):
        plan = split_scenes(
            [scene],
            classes=3,
            class_names=["water", "a class with a rather long name", "wood"],
            options=SplitOptions(**options),
        )
        draw_split([scene], plan, tmp_path / "new" / "split.png")
        picture = np.asarray(Image.open(tmp_path / "new" / "split.png").convert("RGB")).reshape(-1, 3)
        shown = {
            tuple(color)
            for color, count in zip(*np.unique(picture, axis=0, return_counts=True), strict=True)
            if count > 300
        }
        assert {(0x3D, 0x7E, 0xA6), (0xF0, 0xA0, 0x30), (0xEF, 0xED, 0xE8)} <= shown
        assert ((0xA4, 0x30, 0x6B) in shown) == ("test_share" in options)


def test_a_plan_that_was_only_read_is_drawn_from_the_planes(decoded, patchy, tmp_path):
    scene = decoded(patchy(0, (160, 160)))
    plan = split_scenes([scene], classes=3, options=SplitOptions(buffer_m=40))
    draw_split([scene], plan, tmp_path / "a.png")
    draw_split([scene], replace(plan, pixels={}), tmp_path / "b.png")
    one, other = (np.asarray(Image.open(tmp_path / name)) for name in ("a.png", "b.png"))
    np.testing.assert_array_equal(one, other)


def test_a_place_that_cannot_be_written_is_named(decoded, patchy, tmp_path):
    scene = decoded(patchy(0))
    plan = split_scenes([scene], classes=3, options=SplitOptions(buffer_m=0))
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="split.png cannot be written"):
        draw_split([scene], plan, tmp_path / "file" / "split.png")
