"""COCO panoptic sets become scenes whose classes and objects are those of the segments drawn."""

from __future__ import annotations

import json
import pickle
from copy import deepcopy

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from geoseg.data.doors import expand_scenes
from geoseg.data.doors.coco import coco_legend
from geoseg.errors import BandError, GridError, InputError, LegendError, MissingInputError, ReadError
from geoseg.io.grids import crop
from geoseg.io.labels import LabelSource, open_labels, read_legend
from geoseg.io.sources import open_source
from geoseg.tiling import Window

CATEGORIES = [
    {"id": 7, "name": "water", "isthing": 0, "color": [0, 90, 255]},
    {"id": 3, "name": "house", "isthing": 1, "color": [255, 0, 0], "supercategory": "built"},
    {"id": 200, "name": "meadow", "isthing": 0},
]
# id, category, crowd: ids that need one, two and three bytes
SEGMENTS = [(5, 7, 0), (70_000, 3, 0), (16_777_215, 3, 0), (300, 200, 0), (65_536, 3, 1)]
CODES = np.array([0, 5, 70_000, 16_777_215, 300, 65_536])
CLASSES = np.array([255, 7, 3, 3, 200, 255])
OBJECTS = np.array([0, 0, 70_000, 16_777_215, 0, 0])


def drawn(codes: np.ndarray) -> np.ndarray:
    """`(row, col, 3)`, as https://cocodataset.org/#format-data says: id = R + 256 G + 256 ** 2 B."""
    return np.stack([codes % 256, codes // 256 % 256, codes // 65536], axis=-1).astype(np.uint8)


@pytest.fixture
def panoptic(tmp_path):
    """Writes a set of one image or more, and gives its spec, its JSON and the places in `CODES` of each picture."""

    def write(count=1, *, shape=(8, 11), placed=False, categories=CATEGORIES):
        rng = np.random.default_rng(count)
        for folder in ("images", "segments"):
            (tmp_path / folder).mkdir(exist_ok=True)
        document = {"images": [], "annotations": [], "categories": deepcopy(categories)}
        places = []
        for number in range(count):
            where = rng.integers(0, len(CODES), shape)
            pixels = rng.integers(0, 255, (3, *shape), np.uint8)
            Image.fromarray(drawn(CODES[where])).save(tmp_path / f"segments/{number}.png")
            if placed:
                grid = {"crs": "EPSG:32633", "transform": Affine(2, 0, 5e5, 0, -2, 5e6)}
                profile = {"count": 3, "height": shape[0], "width": shape[1], "dtype": "uint8"}
                with rasterio.open(tmp_path / f"images/{number}.tif", "w", **profile, **grid) as file:
                    file.write(pixels)
            else:
                Image.fromarray(pixels.transpose(1, 2, 0)).save(tmp_path / f"images/{number}.png")
            # Numbers of images have nothing to do with their order.
            name = f"{number}.{'tif' if placed else 'png'}"
            document["images"].insert(0, {"id": 90 + number, "file_name": name, "height": shape[0], "width": shape[1]})
            told = [{"id": i, "category_id": k, "iscrowd": crowd, "area": 1} for i, k, crowd in SEGMENTS]
            document["annotations"].append(
                {"image_id": 90 + number, "file_name": f"{number}.png", "segments_info": told}
            )
            places.append(where)
        spec = {
            "json": str(tmp_path / "panoptic.json"),
            "images": f"{tmp_path}/images",
            "segments": f"{tmp_path}/segments",
        }
        (tmp_path / "panoptic.json").write_text(json.dumps(document))
        return spec, document, places

    return write


def test_classes_and_objects_are_those_that_were_drawn(panoptic, tmp_path):
    spec, _, places = panoptic(3)
    scenes = expand_scenes([{"coco": spec, "part": "training", "weight": 3}])
    assert [scene["name"] for scene in scenes] == [f"{tmp_path.as_posix()}/images/{k}" for k in range(3)]
    assert all((scene["part"], scene["weight"]) == ("training", 3) for scene in scenes)
    for number, (scene, where) in enumerate(zip(scenes, places, strict=True)):
        labels = pickle.loads(pickle.dumps(scene["labels"]))  # noqa: S301 - our own
        assert labels == scene["labels"]
        assert isinstance(labels, LabelSource)
        found = labels.read(labels.geobox)
        wanted = np.where(CLASSES[where] == 255, labels.legend.ignore, CLASSES[where])
        assert (found.pixels[0] == wanted).all()
        assert (found.valid == (CLASSES[where] != 255)).all()
        objects = labels.instances().read(labels.geobox)
        assert objects.bands == ("instance",)
        assert objects.pixels.dtype == np.int32
        assert (objects.pixels[0] == OBJECTS[where]).all()
        assert (objects.valid == (OBJECTS[where] > 0)).all()
        image = open_source(scene["image"])
        assert (
            image.read(image.geobox).pixels.transpose(1, 2, 0) == Image.open(f"{tmp_path}/images/{number}.png")
        ).all()


def test_the_legend_says_names_colours_and_what_is_a_thing(panoptic):
    spec, _, _ = panoptic()
    (scene,) = expand_scenes([{"coco": spec}])
    _, legend = open_labels(scene["labels"])
    assert [(item.id, item.name, item.kind, item.codes) for item in legend.classes] == [
        (3, "house", "thing", (3,)),
        (7, "water", "stuff", (7,)),
        (200, "meadow", "stuff", (200,)),
    ]
    assert legend.by_id(7).color == "#005aff"


@pytest.mark.parametrize("odd", [70_000, -1, 65_535, 255])
def test_categories_of_any_number_have_an_id_that_a_map_can_hold(odd):
    legend = coco_legend([{"id": odd, "name": "b"}, {"id": 4, "name": "a"}])
    by_code = {item.codes[0]: item for item in legend.classes}
    assert by_code[odd].name == "b"
    assert by_code[4].name == "a"
    assert (by_code[4].id == 4) == (odd == 255)
    assert legend.ignore not in legend.ids


@pytest.mark.parametrize("codes", [[70_000, 255], [255, 65_535, 70_000], [70_000, *range(250, 260)], [255, -1]])
def test_codes_do_not_matter_where_categories_are_numbered_anew(codes):
    legend = coco_legend([{"id": code, "name": f"class {code}"} for code in codes])
    assert legend.ids.tolist() == list(range(1, len(codes) + 1))
    assert [item.codes for item in legend.classes] == [(code,) for code in sorted(codes)]
    assert legend.ignore not in {*codes, *legend.ids.tolist()}


def test_crowds_are_kept_as_class_but_never_as_an_object(panoptic):
    spec, _, (where,) = panoptic()
    (scene,) = expand_scenes([{"coco": spec | {"crowd": "keep"}}])
    labels = scene["labels"]
    assert ((labels.read(labels.geobox).pixels[0] == 3) == np.isin(where, (2, 3, 5))).all()
    assert (labels.instances().read(labels.geobox).pixels[0] == OBJECTS[where]).all()


def test_another_legend_is_matched_by_name(panoptic):
    spec, _, (where,) = panoptic()
    (scene,) = expand_scenes([{"coco": spec}])
    wanted = read_legend({1: "meadow", 2: "house", 3: "water", 7: "forest"})
    labels, legend = open_labels(scene["labels"], legend=wanted)
    assert legend == wanted
    found = labels.read(labels.geobox)
    assert (found.pixels[0] == np.array([255, 3, 2, 2, 1, 255])[where]).all()
    assert (found.valid == (CLASSES[where] != 255)).all()
    with pytest.raises(LegendError, match="'house' is not in the legend"):
        open_labels(scene["labels"], legend=read_legend({1: "meadow", 3: "water"}))


def test_pictures_lie_where_their_placed_images_lie(panoptic):
    spec, _, (where,) = panoptic(placed=True)
    (scene,) = expand_scenes([{"coco": spec | {"images": {"path": spec["images"], "select": [2]}}}])
    labels, image = scene["labels"], open_source(scene["image"])
    assert labels.geobox == image.geobox
    assert len(image.bands) == 1
    assert labels.bounds_overlap(image.geobox)
    found = labels.read(crop(image.geobox, Window(2, -1, 3, 5)))
    assert (found.pixels[0, :, 1:] == np.where(CLASSES == 255, labels.legend.ignore, CLASSES)[where[2:5, :4]]).all()
    assert not found.valid[:, 0].any()
    halved = labels.read(image.geobox.zoom_out(2))
    known = halved.valid
    assert set(np.unique(halved.pixels[0][known])) <= {3, 7, 200}


@given(codes=st.lists(st.integers(1, 2**24 - 1), min_size=1, max_size=6, unique=True))
def test_any_id_of_three_bytes_is_read_as_it_was_drawn(codes, tmp_path_factory):
    root = tmp_path_factory.mktemp("ids")
    plane = np.array([[0, *codes]])
    Image.fromarray(drawn(plane)).save(root / "a.png")
    told = [{"id": code, "category_id": 1 + k % 2} for k, code in enumerate(codes)]
    document = {
        "images": [{"id": "x", "file_name": "a.png"}],
        "annotations": [{"image_id": "x", "file_name": "a.png", "segments_info": told}],
        "categories": [{"id": 1, "name": "stuff"}, {"id": 2, "name": "thing", "isthing": 1}],
    }
    (root / "a.json").write_text(json.dumps(document))
    (scene,) = expand_scenes([{"coco": {"json": str(root / "a.json"), "images": str(root), "segments": str(root)}}])
    labels = scene["labels"]
    assert labels.read(labels.geobox).pixels[0, 0, 1:].tolist() == [1 + k % 2 for k in range(len(codes))]
    objects = labels.instances().read(labels.geobox).pixels[0, 0, 1:].tolist()
    assert objects == [code if k % 2 else 0 for k, code in enumerate(codes)]


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_files_that_the_json_names_and_are_missing(panoptic, tmp_path):
    spec, _, _ = panoptic(5)
    for number in range(4):
        (tmp_path / f"segments/{number}.png").unlink()
    with pytest.raises(MissingInputError, match=r"4 of 5 segments are not in .*: 0\.png, 1\.png, 2\.png and 1 more"):
        expand_scenes([{"coco": spec}])
    (tmp_path / "images/2.png").unlink()
    with pytest.raises(MissingInputError, match=r"1 of 5 images are not in"):
        expand_scenes([{"coco": spec}])
    with pytest.raises(MissingInputError, match=r"none\.json is not there"):
        expand_scenes([{"coco": spec | {"json": "none.json"}}])


def test_a_segment_that_the_json_does_not_name(panoptic, tmp_path):
    spec, document, (where,) = panoptic()
    del document["annotations"][0]["segments_info"][1]
    (tmp_path / "panoptic.json").write_text(json.dumps(document))
    (scene,) = expand_scenes([{"coco": spec}])
    labels = scene["labels"]
    count = int((where == 2).sum())
    with pytest.raises(ReadError, match=rf"0\.png has segments that its JSON does not name: 70000 \({count} pixels\)"):
        labels.read(labels.geobox)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda d: d["categories"].pop(1), InputError, "segment 65536 of 0.png is of category 3, which is not among"),
        (lambda d: d["images"][0].update(id=1), InputError, "segments of image 90, which is not among its images"),
        (lambda d: d.pop("categories"), ReadError, "has no categories"),
        (lambda d: d["annotations"][0].pop("segments_info"), ReadError, "lack segments_info, .* for instances"),
        (lambda d: d["annotations"][0]["segments_info"].append({"id": 5, "category_id": 7}), InputError, "5 .* twice"),
        (lambda d: d["categories"].append({"id": 1, "name": "house"}), LegendError, "belongs to two classes"),
    ],
)
def test_json_that_does_not_fit_itself(panoptic, tmp_path, change, error, message):
    spec, document, _ = panoptic()
    change(document)
    (tmp_path / "panoptic.json").write_text(json.dumps(document))
    with pytest.raises(error, match=message):
        expand_scenes([{"coco": spec}])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda d: d["categories"][0].update(color="#ff0000"),
            "color '#ff0000', needed is a list of three numbers 0 to 255",
        ),
        (lambda d: d["categories"][0].update(color=[1, 2]), r"color \[1, 2\], needed is a list of three"),
        (lambda d: d["categories"][0].update(color=[1, 2, 256]), "needed is a list of three numbers 0 to 255"),
        (lambda d: d["categories"][0].update(id="w"), "categories of .* have id 'w', needed is a whole number"),
        (lambda d: d["categories"][0].update(id=1.5), "have id 1.5, needed is a whole number"),
        (lambda d: d["categories"][0].update(id=None), "have id None, needed is a whole number"),
        (lambda d: d["categories"][0].update(name=None), "have name None, needed is a number or a text"),
        (lambda d: d["categories"].append(7), "categories of .* have an entry 7, needed is an object"),
        (lambda d: d["images"].append(["x"]), r"images of .* have an entry \['x'\], needed is an object"),
        (lambda d: d["images"][0].update(file_name=7), "have file_name 7, needed is a text"),
        (lambda d: d["images"][0].update(id=[1]), r"have id \[1\], needed is a number or a text"),
        (lambda d: d["annotations"][0].update(image_id={}), "have image_id {}, needed is a number or a text"),
        (lambda d: d["annotations"][0].update(file_name=None), "have file_name None, needed is a text"),
        (lambda d: d["annotations"][0].update(segments_info=None), "have segments_info None, needed is a list"),
        (lambda d: d["annotations"][0]["segments_info"][0].update(id="a"), "segments_info of .* have id 'a'"),
        (lambda d: d["annotations"][0]["segments_info"][0].update(id=2**31), "2147483648, needed is a whole number of"),
        (lambda d: d["annotations"][0]["segments_info"][0].pop("category_id"), "segments_info of .* lack category_id"),
        (lambda d: d["annotations"][0]["segments_info"][0].update(category_id="b"), "have category_id 'b'"),
        (lambda d: d["annotations"][0]["segments_info"].append(None), "segments_info of .* have an entry None"),
    ],
)
def test_json_whose_entries_are_damaged(panoptic, tmp_path, change, message):
    spec, document, _ = panoptic()
    change(document)
    (tmp_path / "panoptic.json").write_text(json.dumps(document))
    with pytest.raises(ReadError, match=message) as caught:
        expand_scenes([{"coco": spec}])
    assert "\n" not in str(caught.value)


def test_whole_numbers_may_have_a_point_and_a_colour_may_be_missing(panoptic, tmp_path):
    spec, document, (where,) = panoptic()
    document["categories"][0].update(id=7.0, color=None)
    document["annotations"][0]["segments_info"][0].update(id=5.0, category_id=7.0)
    (tmp_path / "panoptic.json").write_text(json.dumps(document))
    (scene,) = expand_scenes([{"coco": spec}])
    labels = scene["labels"]
    assert ((labels.read(labels.geobox).pixels[0] == 7) == (where == 1)).all()


def test_json_that_is_none(panoptic, tmp_path):
    spec, _, _ = panoptic()
    (tmp_path / "panoptic.json").write_text("{")
    with pytest.raises(ReadError, match="cannot be read as JSON"):
        expand_scenes([{"coco": spec}])


def test_pictures_of_another_kind(panoptic, tmp_path):
    spec, _, _ = panoptic()
    Image.fromarray(np.zeros((8, 11), np.uint8)).save(tmp_path / "segments/0.png")
    (scene,) = expand_scenes([{"coco": spec}])
    with pytest.raises(BandError, match="has 1 bands; needed are three"):
        scene["labels"].read(scene["labels"].geobox)
    Image.fromarray(np.zeros((9, 11, 3), np.uint8)).save(tmp_path / "segments/0.png")
    (scene,) = expand_scenes([{"coco": spec}])
    with pytest.raises(GridError, match="needed are as many"):
        _ = scene["labels"].geobox


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"json": None}, "must be a mapping with json, images, segments"),
        ({"masks": "x"}, "no option masks"),
        ({"crowd": "drop"}, "known are ignore, keep"),
        ({"images": {"select": [1]}}, "images must be a folder"),
    ],
)
def test_options_that_make_no_sense(panoptic, change, message):
    spec, _, _ = panoptic()
    with pytest.raises(InputError, match=message):
        expand_scenes([{"coco": spec | change}])
