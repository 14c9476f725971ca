"""Leaks against brute force, within a scene, across zones and without a place; and what is done about them."""

import logging
from dataclasses import replace

import numpy as np
import pytest
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from geoseg.data.scene import OUTSIDE, TEST, TRAINING, VALIDATION
from geoseg.data.splits import SplitOptions, find_leaks, split_scenes
from geoseg.data.splits.buffer import cut_buffers
from geoseg.errors import InputError

FUNCTION = [HealthCheck.function_scoped_fixture]


def strewn(seed, shape, parts):
    """Blobs of parts on OUTSIDE."""
    rng = np.random.default_rng(seed)
    part = np.full(shape, OUTSIDE, np.uint8)
    for _ in range(8):
        row, col = (rng.integers(0, size) for size in shape)
        part[row : row + rng.integers(1, 40), col : col + rng.integers(1, 40)] = rng.choice(parts)
    return part


@settings(max_examples=25, suppress_health_check=FUNCTION)
@given(st.integers(0, 10**6), st.floats(5, 700))
def test_leaks_inside_a_scene_are_those_of_brute_force(decoded, strict, nearest_m, seed, buffer_m):
    part = strewn(seed, (600, 320), [TRAINING, VALIDATION, TEST])
    scene = decoded(np.zeros(part.shape, np.uint8))
    scene.part[:] = part
    found = {(leak.part, leak.other_part): leak for leak in find_leaks([strict(scene)], buffer_m=buffer_m)}
    for names, codes in {
        ("training", "validation"): (1, 2),
        ("training", "test"): (1, 3),
        ("validation", "test"): (2, 3),
    }.items():
        away = nearest_m(scene, [codes[0]], [scene], [codes[1]])
        near = away <= buffer_m * 0.99
        if near.any():
            assert found[names].pixels == near.sum()
            assert found[names].nearest_m == pytest.approx(away.min(), rel=1e-6)
        else:
            assert names not in found


@settings(max_examples=10, suppress_health_check=FUNCTION)
@given(st.integers(0, 10**6), st.floats(20, 300))
def test_leaks_across_zones_are_those_of_brute_force(decoded, nearest_m, two_zones, seed, buffer_m):
    scenes = [decoded(np.zeros((120, 120), np.uint8), geobox=box, name=f"zone {k}") for k, box in enumerate(two_zones)]
    scenes[0].part[:] = TRAINING
    scenes[1].part[:] = strewn(seed, (120, 120), [VALIDATION])
    away = nearest_m(scenes[0], [TRAINING], scenes[1:], [VALIDATION])
    (leak,) = find_leaks(scenes, buffer_m=buffer_m)
    assert (leak.scene, leak.part, leak.other_scene, leak.other_part) == ("zone 0", "training", "zone 1", "validation")
    assert leak.nearest_m == 0  # one lies on the other
    assert leak.pixels == (away <= buffer_m * 0.99).sum()


@pytest.mark.parametrize("buffer_m", [0.0, 45.0, None])
def test_what_was_cut_does_not_leak(decoded, patchy, two_zones, buffer_m):
    scenes = [decoded(patchy(k, (120, 120)), geobox=box, name=f"zone {k}") for k, box in enumerate(two_zones)]
    for seed, scene in enumerate(scenes):
        scene.part[:] = strewn(seed, (120, 120), [TRAINING, TRAINING, VALIDATION, TEST])
    assert find_leaks(scenes, buffer_m=buffer_m)
    cut_buffers(scenes, buffer_m=buffer_m)
    assert find_leaks(scenes, buffer_m=buffer_m) == []


def test_a_large_validation_area_is_measured_from_its_edge(decoded):
    part = np.full((1200, 1100), VALIDATION, np.uint8)
    part[:, 900:905], part[:, 905:] = OUTSIDE, TRAINING
    scene = decoded(np.zeros(part.shape, np.uint8))
    scene.part[:] = part
    (leak,) = find_leaks([scene], buffer_m=100)
    assert leak.pixels == 1200 * 4  # 60 m to 90 m away; 100 m less a hundredth is too near
    assert leak.nearest_m == pytest.approx(60, rel=1e-3)


def pair(decoded, patchy, grid, west, names=("east", "west")):
    boxes = [grid(96, 80), grid(96, 80, west=west)]
    return [decoded(patchy(k), geobox=box, name=name) for k, (box, name) in enumerate(zip(boxes, names, strict=True))]


def test_parts_given_to_scenes_that_are_too_near_are_refused_with_numbers(decoded, patchy, grid):
    scenes = pair(decoded, patchy, grid, 5e5 + 800 + 50)  # 50 m apart
    given_parts = {"classes": 3, "roles": ["training", "validation"]}
    with pytest.raises(InputError) as caught:
        split_scenes(scenes, options=SplitOptions(), **given_parts)
    words = str(caught.value)
    assert (
        f"{96 * 10:,} training pixels of east lie within 160 m (the nearest 60.0 m) of validation pixels of west"
        in words
    )
    assert "leakage: drop" in words
    split_scenes(scenes, options=SplitOptions(buffer_m=50), **given_parts)
    assert (scenes[0].part == TRAINING).all()


def test_training_pixels_that_leak_are_dropped_where_that_is_asked_for(decoded, patchy, grid, caplog):
    scenes = pair(decoded, patchy, grid, 5e5 + 400)
    with caplog.at_level(logging.WARNING):
        split_scenes(
            scenes, classes=3, options=SplitOptions(leakage="drop", buffer_m=100), roles=["training", "validation"]
        )
    assert "training pixels of east lie on validation pixels of west" in caplog.text
    assert np.flatnonzero((scenes[0].part == TRAINING).all(0)).tolist() == list(range(30))
    assert (scenes[0].part[:, 30:] == OUTSIDE).all()
    assert find_leaks(scenes, buffer_m=100) == []


def test_what_the_draw_does_beside_a_given_test_is_cut_not_refused(decoded, patchy, grid):
    scenes = pair(decoded, patchy, grid, 5e5 + 400)
    split_scenes(scenes, classes=3, options=SplitOptions(buffer_m=20), roles=["split", "test"])
    assert find_leaks(scenes, buffer_m=20) == []


def test_without_a_place_the_name_tells(decoded, patchy):
    box = GeoBox((40, 40), Affine.identity(), None)
    scenes = [decoded(patchy(k, (40, 40)), geobox=box, name=name) for k, name in enumerate(["a", "b", "a", "c"])]
    given_parts = {"classes": 3, "roles": ["training", "training", "validation", "test"]}
    with pytest.raises(InputError, match="1,600 training pixels of a lie on validation pixels of itself"):
        split_scenes(scenes, options=SplitOptions(), **given_parts)
    split_scenes(scenes, options=SplitOptions(leakage="drop"), **given_parts)
    assert [np.unique(scene.part).tolist() for scene in scenes] == [[OUTSIDE], [TRAINING], [VALIDATION], [TEST]]
    assert find_leaks(scenes) == []


def unplaced(decoded, patchy, *names, origins=(), shape=(40, 40)):
    """Scenes without a CRS; `origins` say which image each is, where that is known."""
    scenes = [
        decoded(patchy(k, shape), geobox=GeoBox(shape, Affine.identity(), None), name=name)
        for k, name in enumerate(names)
    ]
    told = origins or [()] * len(scenes)
    return [replace(scene, origins=frozenset(own)) for scene, own in zip(scenes, told, strict=True)]


@pytest.mark.parametrize("roles", [["split", "split", "validation"], ["split", "training", "validation"]])
def test_without_a_place_what_validates_does_not_train_by_default_either(decoded, patchy, roles):
    scenes = unplaced(decoded, patchy, "a", "b", "a")
    with pytest.raises(InputError, match="1,600 training pixels of a lie on validation pixels of itself"):
        split_scenes(scenes, classes=3, options=SplitOptions(), roles=roles)
    split_scenes(scenes, classes=3, options=SplitOptions(leakage="drop"), roles=roles)
    assert [np.unique(scene.part).tolist() for scene in scenes] == [[OUTSIDE], [TRAINING], [VALIDATION]]


def test_without_a_place_the_image_tells_whatever_the_names(decoded, patchy):
    images = [["/x/1.png"], ["/y/1.png"], ["/x/1.png"], ["/x/1.png", "/x/2.png"]]
    scenes = unplaced(decoded, patchy, "a", "b", "b", "c", origins=images)
    given_parts = {"classes": 3, "roles": ["training", "training", "validation", "split"]}
    with pytest.raises(InputError, match="training pixels of a lie on validation pixels of b"):
        split_scenes(scenes, options=SplitOptions(), **given_parts)
    split_scenes(scenes, options=SplitOptions(leakage="drop"), **given_parts)
    assert [np.unique(scene.part).tolist() for scene in scenes] == [[OUTSIDE], [TRAINING], [VALIDATION], [OUTSIDE]]
    scenes = unplaced(decoded, patchy, "a", "a", origins=images[:2])
    split_scenes(scenes, classes=3, options=SplitOptions(), roles=["training", "validation"])
    assert find_leaks(scenes) == []


@settings(max_examples=25, suppress_health_check=FUNCTION)
@given(st.integers(-30, 30), st.integers(-50, 50), st.integers(0, 10**6))
def test_without_a_place_windows_of_one_image_share_the_pixels_that_they_share(decoded, patchy, down, across, seed):
    whole = GeoBox((400, 400), Affine.translation(7, 3) @ Affine.scale(2, -2), None)
    scenes = [
        replace(
            decoded(patchy(seed, shape), geobox=GeoBox(shape, whole.affine @ Affine.translation(col, row), None)),
            origins=frozenset({"1.png"}), image_grid=whole,
        )
        for shape, row, col in (((40, 30), 100, 100), ((20, 50), 100 + down, 100 + across))
    ]  # fmt: skip
    planes = np.zeros((2, 400, 400), np.uint8)
    for scene, plane, (row, col) in zip(scenes, planes, [(100, 100), (100 + down, 100 + across)], strict=True):
        scene.part[:] = strewn(seed + row, scene.shape, [TRAINING, VALIDATION])
        plane[row : row + scene.shape[0], col : col + scene.shape[1]] = scene.part
    found = sorted(leak.pixels for leak in find_leaks(scenes))
    on = [int(((one == TRAINING) & (other == VALIDATION)).sum()) for one, other in (planes, planes[::-1])]
    assert found == sorted(count for count in on if count)


def test_without_a_place_another_cut_of_an_image_is_the_same_place(decoded, patchy):
    one, other = unplaced(decoded, patchy, "whole", "part", origins=[["1.png"], ["part.vrt", "1.png"]])
    other = replace(other, image_grid=GeoBox((20, 20), Affine.identity(), None))
    with pytest.raises(InputError, match="1,600 training pixels of whole lie on validation pixels of part"):
        split_scenes([one, other], classes=3, options=SplitOptions(), roles=["split", "validation"])
