"""Stitched scores against a brute-force stitch; the same for any block; the map is the one that predict writes."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from geoseg import infer
from geoseg.data.scene import TRAINING, VALIDATION
from geoseg.errors import GridError, InputError, ModelFileError
from geoseg.infer.blend import axis_weights
from geoseg.io import open_source
from geoseg.models.boundary_iou import NOTHING
from geoseg.models.calibration import Reliability
from geoseg.models.task import normalize
from geoseg.tiling import Tiling, Window
from geoseg.training.scene_source import SceneSource
from geoseg.training.validation import ValidationOptions, judge_scenes

FP32: dict[str, Any] = {"device": "cpu", "precision": "fp32"}


def stitched(scene, network, card):
    """Probabilities `(class, row, col)` of the whole scene, all tiles summed in one array."""
    tiling = Tiling.over(scene.shape, largest_tile_px=card.tile_px, overlap_px=card.overlap_px)
    rows, cols = (axis_weights(axis, blend="hann") for axis in (tiling.rows, tiling.cols))
    whole = [(axis.count - 1) * axis.stride + axis.tile for axis in (tiling.rows, tiling.cols)]
    pixels = np.zeros((len(scene.bands), *whole), np.float32)
    valid = np.zeros(whole, bool)
    pixels[:, : scene.shape[0], : scene.shape[1]], valid[: scene.shape[0], : scene.shape[1]] = scene.pixels, scene.valid
    mean, std = (torch.tensor([getattr(band, name) for band in card.bands]) for name in ("mean", "std"))
    present = torch.tensor([[band not in scene.absent for band in range(len(scene.bands))]])
    total = np.zeros((len(card.legend), *whole))
    for row in range(tiling.count[0]):
        for col in range(tiling.count[1]):
            part = tiling.tile(row, col).slices
            image, usable = torch.from_numpy(pixels[:, *part])[None], torch.from_numpy(valid[part])[None]
            with torch.inference_mode():
                logits = network(normalize(image, usable, mean=mean, std=std, present=present))
            total[:, *part] += logits.softmax(1)[0].numpy() * np.outer(rows[row], cols[col])
    return total[:, : scene.shape[0], : scene.shape[1]]


def near(plane, distance_px: int):
    """Pixels with another class around, looked at one shift after the other."""
    found = np.zeros(plane.shape, bool)
    around = np.pad(plane, distance_px, constant_values=NOTHING)
    for row in range(2 * distance_px + 1):
        for col in range(2 * distance_px + 1):
            other = around[row : row + plane.shape[0], col : col + plane.shape[1]]
            found |= (other != NOTHING) & (other != plane)
    return found & (plane != NOTHING)


def oracle(scene, network, card, *, boundary_px: int):
    """Confusion matrix, boundary counts and confidences of the whole scene at once."""
    shares = stitched(scene, network, card)
    judged = (scene.part == VALIDATION) & (scene.labels != scene.no_label)
    labels = np.where(judged, scene.labels.astype(int), NOTHING)
    mapped = np.where(judged, shares.argmax(0), NOTHING)
    matrix = np.zeros((3, 3), int)
    np.add.at(matrix, (labels[judged], mapped[judged]), 1)
    edges = [np.where(near(plane, boundary_px), plane, NOTHING) for plane in (labels, mapped)]
    pairs = [(edges[0] == k, edges[1] == k) for k in range(3)]
    both, either = [int((a & b).sum()) for a, b in pairs], [int((a | b).sum()) for a, b in pairs]
    level = np.rint(shares.max(0) * 255).astype(np.uint8)
    return matrix, both, either, Reliability.of(level[judged], (labels == mapped)[judged])


@pytest.mark.parametrize("cells", [(1, 1), (2, 3), (1, 9), (9, 1), None])
def test_any_block_gives_what_one_stitched_plane_gives(make_scene, network, card, cells):
    scene = make_scene()
    matrix, both, either, reliability = oracle(scene, network, card, boundary_px=3)
    found = judge_scenes([scene], network=network, card=card, cells=cells, batch=3, **FP32)
    np.testing.assert_array_equal(found.scores.matrix, matrix)
    np.testing.assert_array_equal(found.boundary.intersection, both)
    np.testing.assert_array_equal(found.boundary.union, either)
    assert np.abs(found.reliability.counts - reliability.counts).sum() <= 0.01 * matrix.sum()  # rounding of a level
    assert found.reliability.counts.sum() == matrix.sum()
    assert found.reliability.expected_error() == pytest.approx(reliability.expected_error(), abs=1e-4)


def test_scenes_add_up_whether_they_have_a_crs_and_all_bands_or_not(make_scene, network, card):
    scenes = [make_scene(1), make_scene(2, shape=(70, 50), crs=None, until=30), make_scene(3, absent=(1,))]
    matrices, both, either, _ = zip(*(oracle(scene, network, card, boundary_px=2) for scene in scenes), strict=True)
    options = ValidationOptions(boundary_px=2)
    found = judge_scenes(scenes, network=network, card=card, options=options, cells=(2, 2), **FP32)
    np.testing.assert_array_equal(found.scores.matrix, sum(matrices))
    np.testing.assert_array_equal(found.boundary.intersection, np.sum(both, 0))
    np.testing.assert_array_equal(found.boundary.union, np.sum(either, 0))


def test_a_band_that_is_absent_counts(make_scene, network, card):
    scene = make_scene(3, absent=(1,))
    hidden, seen = (
        judge_scenes([given], network=network, card=card, **FP32).scores.matrix
        for given in (scene, replace(scene, absent=()))
    )
    assert (hidden != seen).any()


def test_the_places_show_the_map_that_predict_writes(make_scene, network, card, tmp_path):
    scene = make_scene(4, shape=(560, 620), until=600)
    found = judge_scenes([scene], network=network, card=card, cells=(1, 2), **FP32)
    options = infer.PredictOptions(device="cpu", precision="fp32")
    written = infer.predict_scene(
        SceneSource(scene), models=[infer.TorchModel(network, card)], out=tmp_path / "map.tif", options=options
    )
    ids = open_source(str(written.class_map)).read(scene.geobox).pixels[0]
    assert len(found.places) == 4
    for place in found.places:
        inside = (scene.part[place.window.slices] == VALIDATION) & scene.valid[place.window.slices]
        assert ((place.mapped != NOTHING) == inside).all()
        np.testing.assert_array_equal(card.legend.ids[place.mapped[inside]], ids[place.window.slices][inside])


def test_only_tiles_with_a_validation_label_are_predicted(make_scene, card):
    class Counting(nn.Module):
        tiles = 0

        def forward(self, image):
            Counting.tiles += len(image)
            return image

    scene = make_scene(5, shape=(1000, 900))
    part = np.where(np.indices(scene.shape).sum(0) < 90, VALIDATION, TRAINING).astype(np.uint8)
    judge_scenes([replace(scene, part=part)], network=Counting(), card=card, cells=(3, 3), **FP32)
    assert Counting.tiles == 3  # of 64 pixels a side, 48 apart: those at the corner


@dataclass
class StrictLayer:
    """A layer that takes one slice an axis, and remembers the largest piece asked for."""

    plane: np.ndarray
    largest: int = 0

    @property
    def shape(self):
        return self.plane.shape

    @property
    def dtype(self):
        return self.plane.dtype

    def __getitem__(self, key):
        assert isinstance(key, tuple)
        assert len(key) == self.plane.ndim
        assert all(isinstance(part, slice) and part.start is not None and part.step in (None, 1) for part in key)
        found = self.plane[key]
        self.largest = max(self.largest, found.shape[-1] * found.shape[-2])
        return found


def test_layers_are_read_in_pieces(make_scene, network, card):
    scene = make_scene(6, shape=(2500, 300))
    layers = {name: StrictLayer(getattr(scene, name)) for name in ("pixels", "valid", "labels", "part")}
    lazy = replace(scene, **layers)
    found, wanted = (judge_scenes([given], network=network, card=card, cells=(4, 4), **FP32) for given in (lazy, scene))
    np.testing.assert_array_equal(found.scores.matrix, wanted.scores.matrix)
    assert max(layer.largest for layer in layers.values()) <= 1024 * 300


def test_the_values_are_those_of_the_scores_with_more(make_scene, network, card):
    found = judge_scenes([make_scene()], network=network, card=card, **FP32)
    values = json.loads(json.dumps(found.to_dict(card.legend.names), allow_nan=False))
    scores = found.scores.to_dict(card.legend.names)
    assert set(scores) <= set(values)
    assert values["mean_boundary_iou"] == pytest.approx(float(found.boundary.iou.mean()))
    assert [item["boundary_iou"] for item in values["classes"].values()] == pytest.approx(found.boundary.iou.tolist())
    assert 0 < values["calibration_error"] < 1
    assert values["boundary_px"] == 3


def test_the_network_is_left_as_it_is_and_progress_ends_at_all(make_scene, network, card):
    told = []
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    judge_scenes([make_scene()], network=network, card=card, progress=lambda *pair: told.append(pair), **FP32)
    assert network.training
    network.eval()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    done, total = told[-1]
    assert done == total
    assert [pair[0] for pair in told] == sorted(pair[0] for pair in told)


def test_without_a_validation_label_nothing_is_scored(make_scene, network, card):
    scene = make_scene()
    found = judge_scenes([replace(scene, part=np.full(scene.shape, TRAINING, np.uint8))], network=network, card=card)
    values = found.to_dict(card.legend.names)
    assert values["overall_accuracy"] is values["calibration_error"] is values["mean_boundary_iou"] is None
    assert found.places == ()
    assert math.isnan(found.scores.score)


def test_a_network_that_gives_nan_is_one_line(make_scene, network, card):
    broken = nn.Sequential(network, nn.Conv2d(3, 3, 1))
    nn.init.constant_(broken[1].bias, torch.nan)
    with pytest.raises(ModelFileError, match="gives NaN"):
        judge_scenes([make_scene()], network=broken, card=card, **FP32)


def test_a_scene_is_read_on_its_own_grid_and_invalid_beyond(make_scene):
    scene = make_scene(shape=(40, 50), until=30)
    source = SceneSource(scene)
    wider = source.geobox.pad(3)
    raster = source.read(wider)
    np.testing.assert_array_equal(raster.pixels, np.pad(scene.pixels, ((0, 0), (3, 3), (3, 3))))
    np.testing.assert_array_equal(raster.valid, np.pad(scene.valid, 3))
    assert raster.bands == scene.bands
    with pytest.raises(GridError, match="whole pixels of its own grid"):
        source.read(source.geobox.zoom_out(2))


@pytest.mark.parametrize("wrong", [{"boundary_px": 0}, {"places": -1}])
def test_options_that_make_no_sense_are_refused(wrong):
    with pytest.raises(InputError, match="1 pixel or more, and 0 places or more"):
        ValidationOptions(**wrong)


def test_no_places_are_shown_where_none_are_wanted(make_scene, network, card):
    found = judge_scenes([make_scene()], network=network, card=card, options=ValidationOptions(places=0), **FP32)
    assert found.places == ()


def test_the_window_of_a_place_lies_in_its_scene(make_scene, network, card):
    scene = make_scene(7, shape=(300, 270), until=260)
    for place in judge_scenes([scene], network=network, card=card, **FP32).places:
        assert place.window.intersect(Window(0, 0, *scene.shape)) == place.window
