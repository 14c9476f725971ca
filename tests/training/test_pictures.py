"""The pictures of a run say what was counted: texts, colours and places are looked up in the drawing itself."""

from __future__ import annotations

import json
from dataclasses import replace

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from geoseg.errors import OutputError
from geoseg.legend import Legend
from geoseg.models.boundary_iou import NOTHING
from geoseg.models.calibration import Reliability
from geoseg.tiling import Window
from geoseg.training.pictures import (
    draw_confusion,
    draw_judgement,
    draw_places,
    draw_reliability,
    place_image,
)
from geoseg.training.validation import Place, judge_scenes


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved, in order."""
    figures: list[Figure] = []
    saved = Figure.savefig

    def save(self, *args, **options):
        figures.append(self)
        saved(self, *args, **options)

    monkeypatch.setattr(Figure, "savefig", save)
    return figures


@pytest.fixture
def place(make_scene):
    scene = make_scene(1, shape=(90, 100), until=70)
    window = Window(10, 30, 64, 64)
    mapped = np.where(np.indices((64, 64))[1] < 40, 1, NOTHING).astype(np.int32)
    return Place(scene, window, mapped)


LEGEND = Legend.from_dict({1: "water", 5: "forest $1", 9: "лес"})


@pytest.mark.parametrize("count", [1, 2, 7, 20, 40])
def test_a_confusion_matrix_of_any_size_says_shares_and_pixels(tmp_path, drawn, count):
    matrix = np.diag(np.full(count, 900)) + 1
    matrix[0] = 0
    names = [f"class {k} of $ and {'long ' * 9}" for k in range(count)]
    draw_confusion(matrix, names, tmp_path / "c.png")
    (axis, *_) = drawn[0].axes
    texts = [text.get_text() for text in axis.texts]
    if count > 32:
        assert texts == []
    else:
        share = f"{901 / (900 + count):.0%}"
        assert texts.count(f"{share}\n901") == count - 1
        assert len(texts) == (count - 1) * count
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert labels[0].endswith("…\n0 px")
    assert matplotlib.image.imread(tmp_path / "c.png").shape[0] > 300


def test_the_matrix_is_that_of_the_rows(tmp_path, drawn):
    draw_confusion(np.array([[30, 10], [0, 50]]), ("a", "b"), tmp_path / "c.png")
    np.testing.assert_array_equal(drawn[0].axes[0].images[0].get_array(), [[0.75, 0.25], [0.0, 1.0]])


def test_reliability_is_drawn_as_it_was_counted(tmp_path, drawn):
    rng = np.random.default_rng(0)
    level = rng.integers(60, 256, 5000).astype(np.uint8)
    found = Reliability.of(level, rng.random(5000) < level / 255)
    draw_reliability(found, tmp_path / "r.png")
    upper, lower = drawn[0].axes
    assert upper.get_title() == f"expected calibration error {found.expected_error():.3f}"
    for axis, column in ((upper, 1), (lower, 2)):
        heights = [bar.get_height() for bar in axis.patches]
        np.testing.assert_allclose(heights, np.nan_to_num(found.bins()[:, column]))
    draw_reliability(Reliability.of(level[:0], np.zeros(0, bool)), tmp_path / "r.png")
    assert drawn[1].axes[0].get_title() == "no labelled pixel"


def test_a_place_shows_labels_map_and_errors_in_the_legends_colours(place, tmp_path, drawn):
    draw_places([place, replace(place, window=Window(0, 0, 64, 64))], LEGEND, tmp_path / "p.png")
    image, labels, mapped, errors = (axis.images[0].get_array() for axis in drawn[0].axes[:4])
    scene = place.scene
    told = np.where(scene.part == 2, scene.labels, 255)[place.window.slices]
    for k, item in enumerate(LEGEND.classes):
        assert (labels[told == k][:, :3] == item.rgb).all()
        assert (mapped[place.mapped == k][:, :3] == item.rgb).all()
    known = told != 255
    wrong = (errors[..., :3] == (0x1F, 0x1F, 0x1F)).all(2)
    np.testing.assert_array_equal(wrong, known & (told != place.mapped))
    assert (labels[~known] == errors[~known]).all()
    np.testing.assert_array_equal(image, place_image(place))
    assert len(drawn[0].axes) == 8
    entries = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert entries == ["water", r"forest \$1", "лес", "wrong", "right"]


def test_an_image_is_stretched_and_absent_bands_are_not_shown(place):
    found = place_image(place)
    valid = place.scene.valid[place.window.slices]
    assert found[valid][:, :3].min() == 0
    assert found[valid][:, :3].max() == 255
    assert len(np.unique(found[~valid], axis=0)) <= 1
    named = replace(place.scene, bands=("blue", "green", "red"))
    np.testing.assert_array_equal(place_image(replace(place, scene=named))[valid], found[valid][:, [2, 1, 0, 3]])
    grey = place_image(replace(place, scene=replace(place.scene, absent=(1,))))[valid]
    assert (grey[:, 0] == grey[:, 1]).all()
    assert (grey[:, 0] == grey[:, 2]).all()
    np.testing.assert_array_equal(grey[:, 0], found[valid][:, 0])


def test_all_pictures_of_a_judgement(make_scene, network, card, tmp_path):
    found = judge_scenes([make_scene(2)], network=network, card=card, device="cpu")
    draw_judgement(found, tmp_path, legend=card.legend)
    assert {path.name for path in tmp_path.iterdir()} == {"confusion.png", "predictions.png", "reliability.png"}
    for path in tmp_path.iterdir():
        assert matplotlib.image.imread(path).std() > 0.02
    assert json.dumps(found.to_dict(card.legend.names))


def test_a_picture_that_cannot_be_written_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match=r"the picture .* cannot be written"):
        draw_confusion(np.eye(2, dtype=int), ("a", "b"), tmp_path / "none" / "c.png")
