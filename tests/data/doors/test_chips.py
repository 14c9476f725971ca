"""Folders of paired chips become scenes whose pixels and classes are those of the files."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from geoseg.data.doors import expand_scenes
from geoseg.data.doors.chip_files import aliases, chip_files, split_lines
from geoseg.errors import BandError, GridError, InputError, LegendError, MissingInputError
from geoseg.io.grids import crop
from geoseg.io.labels import open_labels, read_legend
from geoseg.io.sources import open_source
from geoseg.tiling import Window

LEGEND = {1: "water", 2: "forest", 3: "road"}
POTSDAM = {
    "#ffffff": "impervious",
    "#0000ff": "building",
    "0, 255, 255": "low vegetation",
    "#00ff00": "tree",
    "#ffff00": "car",
    "#ff0000": None,
}


def picture(path: Path, pixels: np.ndarray, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def place(path: Path, pixels: np.ndarray, *, crs="EPSG:32633", west=500_000.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    profile = {"count": len(pixels), "height": pixels.shape[1], "width": pixels.shape[2], "dtype": pixels.dtype}
    with rasterio.open(path, "w", crs=crs, transform=Affine(0.5, 0, west, 0, -0.5, 5_200_000), **profile) as file:
        file.write(pixels)
    return path


def image_of(number: int, rows: int = 6, cols: int = 9) -> np.ndarray:
    """`(row, col, 3)`: the row, the column, and the chip's number."""
    row, col = np.indices((rows, cols))
    return np.stack([row, col, np.full_like(row, number)], axis=-1).astype(np.uint8)


def mask_of(number: int, rows: int = 6, cols: int = 9) -> np.ndarray:
    row, col = np.indices((rows, cols))
    return ((row + 2 * col + number) % 3 + 1).astype(np.uint8)


@pytest.fixture
def chips(tmp_path):
    """Writes chips of numbers, an image and a mask each."""

    def write(numbers, *, images="images/{}.png", labels="masks/{}.png"):
        for number in numbers:
            picture(tmp_path / images.format(number), image_of(number))
            picture(tmp_path / labels.format(number), mask_of(number))
        return {"images": str(tmp_path / "images"), "labels": str(tmp_path / "masks")}

    return write


def read_all(scene, legend=LEGEND):
    image = open_source(scene["image"])
    labels, _ = open_labels(scene["labels"], legend=read_legend(legend))
    return image.read(image.geobox), labels.read(image.geobox)


def check_chip(scene, number):
    image, labels = read_all(scene)
    assert (image.pixels == image_of(number).transpose(2, 0, 1)).all()
    assert (labels.pixels[0] == mask_of(number)).all()
    assert image.valid.all()
    assert labels.valid.all()


# -- pairs -------------------------------------------------------------------------------------------------------------


def test_two_folders_are_paired_by_relative_path_and_stem_and_give_the_pixels_of_the_files(chips, tmp_path):
    spec = chips([3, 5])
    chips([7], images="images/deep/er/{}.jpeg.png", labels="masks/deep/er/{}.jpeg.png")
    (tmp_path / "images" / "notes.txt").write_text("no chip")
    (tmp_path / "images" / ".hidden.png").write_bytes(b"")
    scenes = expand_scenes([{"chips": spec | {"part": "training"}, "weight": 2.0}])
    root = (tmp_path / "images").as_posix()
    assert [scene["name"] for scene in scenes] == [f"{root}/3", f"{root}/5", f"{root}/deep/er/7.jpeg"]
    assert all(scene["part"] == "training" and scene["weight"] == 2.0 for scene in scenes)
    assert set(scenes[0]) == {"image", "labels", "name", "part", "weight"}
    for scene, number in zip(scenes, (3, 5, 7), strict=True):
        check_chip(pickle.loads(pickle.dumps(scene)), number)  # noqa: S301 - our own


def test_expansion_opens_no_file(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for number in range(300):
            (tmp_path / folder / f"{number:04}.png").write_bytes(b"not a picture")
    spec = {"images": str(tmp_path / "images"), "labels": str(tmp_path / "masks"), "colors": POTSDAM}
    assert len(expand_scenes([{"chips": spec}])) == 300


def test_the_wildcards_of_two_patterns_stand_for_the_same(chips, tmp_path):
    for place_ in ("rural", "urban"):
        chips([1, 2], images=f"{place_}/images_png/sat_{{}}.png", labels=f"{place_}/masks_png/{{}}_mask.png")
    spec = {"images": f"{tmp_path}/*/images_png/sat_*.png", "labels": f"{tmp_path}/*/masks_png/*_mask.png"}
    scenes = expand_scenes([{"chips": spec, "name": "loveda"}])
    assert [scene["name"] for scene in scenes] == [f"loveda/{p}/{n}" for p in ("rural", "urban") for n in (1, 2)]
    for scene, number in zip(scenes, (1, 2, 1, 2), strict=True):
        check_chip(scene, number)


def test_a_pattern_of_folders_alone_is_a_chip_a_folder(chips, tmp_path):
    chips([4, 5], images="{}/image.png", labels="{}/mask.png")
    scenes = expand_scenes([{"chips": {"images": f"{tmp_path}/*/image.*", "labels": f"{tmp_path}/**/mask.png"}}])
    assert len(scenes) == 2
    check_chip(scenes[0], 4)
    check_chip(scenes[1], 5)


def test_a_template_says_how_masks_are_called(chips, tmp_path):
    spec = chips([1], labels="masks/{}_mask.png")
    with pytest.raises(InputError, match=r"image .*1\.png has no label '1', label .*1_mask\.png has no image"):
        expand_scenes([{"chips": spec}])
    check_chip(expand_scenes([{"chips": spec | {"pair": "{stem}_mask"}}])[0], 1)


def test_images_of_several_files_a_band_each(tmp_path):
    for number in (1, 2):
        red, green, near = image_of(number).transpose(2, 0, 1)
        place(tmp_path / f"B04/{number}.tif", red)
        place(tmp_path / f"B03/{number}.tif", green)
        place(tmp_path / f"B08/{number}.tif", near)
        place(tmp_path / f"masks/{number}.tif", mask_of(number))
    bands = {
        "red": f"{tmp_path}/B04/*.tif",
        "green": f"{tmp_path}/B03",
        "nir": {"path": f"{tmp_path}/B08", "nodata": 9},
    }
    scenes = expand_scenes([{"chips": {"images": bands, "labels": f"{tmp_path}/masks"}}])
    for scene, number in zip(scenes, (1, 2), strict=True):
        check_chip(scene, number)
        assert open_source(scene["image"]).bands == ("red", "green", "nir")
    (tmp_path / "B08/2.tif").unlink()
    with pytest.raises(InputError, match=r"1 unpaired beside 1 pairs: image .*2\.tif has no file of band nir"):
        expand_scenes([{"chips": {"images": bands, "labels": f"{tmp_path}/masks"}}])


def test_chips_without_a_partner_are_named_and_counted_or_skipped(chips, tmp_path):
    spec = chips(range(8))
    for number in range(5):
        (tmp_path / f"masks/{number}.png").unlink()
    (tmp_path / "images/7.png").unlink()
    with pytest.raises(InputError) as refused:
        expand_scenes([{"chips": spec}])
    text = str(refused.value)
    assert "6 unpaired beside 2 pairs" in text
    assert "and 3 more" in text
    assert "unpaired: skip" in text
    assert "\n" not in text
    assert len(expand_scenes([{"chips": spec | {"unpaired": "skip"}}])) == 2


# -- lists -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line", ["{}", "{}.png", "images/{}.png", "./images/{}", "{}.png,{}.png", "{}.png masks/{}.png"]
)
def test_a_list_chooses_its_chips_in_its_order(chips, tmp_path, line):
    spec = chips([1, 2, 3])
    listed = tmp_path / "train.txt"
    listed.write_text("# a split\n\n" + "".join(line.replace("{}", str(n)) + "\r\n" for n in (3, 1, 3)))
    scenes = expand_scenes([{"chips": spec | {"list": str(listed)}}])
    assert [Path(scene["name"]).name for scene in scenes] == ["3", "1"]
    check_chip(scenes[0], 3)


def test_a_list_of_two_columns_needs_no_folders(chips, tmp_path):
    chips([1, 2])
    listed = tmp_path / "val.csv"
    listed.write_text("image,label\nimages/2.png,masks/2.png\n")
    (scene,) = expand_scenes([{"chips": {"list": str(listed), "part": "validation"}}])
    check_chip(scene, 2)
    listed.write_text("images/2.png,masks/2.png\nimages/9.png,masks/2.png\n")
    with pytest.raises(MissingInputError, match=r"1 files of the list .* are not there: images/9\.png"):
        expand_scenes([{"chips": {"list": str(listed)}}])
    assert len(expand_scenes([{"chips": {"list": str(listed), "unpaired": "skip"}}])) == 1


def test_names_in_a_list_that_are_not_there_or_not_clear_are_refused(chips, tmp_path):
    spec = chips([1], images="images/a/{}.png", labels="masks/a/{}.png")
    chips([1], images="images/b/{}.png", labels="masks/b/{}.png")
    with pytest.raises(InputError, match=r"'1' of the list may be any of 2 images: a/1, b/1"):
        expand_scenes([{"chips": spec | {"list": ["1"]}}])
    with pytest.raises(InputError, match="'zzz' of the list is no image"):
        expand_scenes([{"chips": spec | {"list": ["b/1", "zzz"]}}])
    assert len(expand_scenes([{"chips": spec | {"list": ["b/1", "zzz"], "unpaired": "skip"}}])) == 1


def test_lists_are_read_as_they_come(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbfmy tile 1\nb.png\tb_mask.png\n")
    assert split_lines(path) == ([("my tile 1",), ("b.png", "b_mask.png")], tmp_path)
    path.write_text("a,b,c\n")
    with pytest.raises(InputError, match="a line of 3 columns"):
        split_lines(path)
    with pytest.raises(MissingInputError, match=r"none\.txt is not there"):
        split_lines(tmp_path / "none.txt")


words = st.lists(st.text("ab1_", min_size=1, max_size=3), min_size=1, max_size=3)


@given(files=st.sets(words.map("/".join), min_size=1, max_size=6))
def test_every_file_is_found_by_its_whole_path_and_every_alias_ends_it(files):
    known = aliases({name: f"root/{name}.png" for name in files})
    for name in files:
        assert known[f"root/{name}.png"] == {name}
        assert name in known[name.rpartition("/")[2]]
    for alias, keys in known.items():
        assert all(f"/root/{key}.png".endswith((f"/{alias}", f"/{alias}.png")) for key in keys)


@given(folder=st.text("ab", min_size=1, max_size=2), stem=st.text("ab1-", min_size=1, max_size=3))
@settings(max_examples=25)
def test_a_pattern_and_a_folder_agree_on_keys(tmp_path_factory, folder, stem):
    root = tmp_path_factory.mktemp("keys")
    (root / folder).mkdir()
    (root / folder / f"{stem}.tif").write_bytes(b"")
    assert chip_files(root, "images") == chip_files(f"{root}/**/*.tif", "images") == chip_files(f"{root}/*/*", "images")


def test_two_files_of_one_name_are_refused(chips, tmp_path):
    spec = chips([1])
    picture(tmp_path / "images/1.jpg", image_of(1))
    with pytest.raises(InputError, match=r"images .*1\.jpg and .*1\.png are both called '1'"):
        expand_scenes([{"chips": spec}])


# -- masks -------------------------------------------------------------------------------------------------------------


def potsdam(numbers: np.ndarray) -> np.ndarray:
    colors = [(255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0)]
    return np.array(colors, np.uint8)[numbers]


@pytest.mark.parametrize("where", ["beside", "inside", "tif"])
def test_masks_in_colours_are_read_as_classes(tmp_path, where):
    numbers = np.random.default_rng(1).integers(0, 6, (7, 5))
    picture(tmp_path / "images/a.png", image_of(0, 7, 5))
    if where == "tif":
        place(tmp_path / "images/a.png".replace("png", "tif"), image_of(0, 7, 5).transpose(2, 0, 1))
        (tmp_path / "images/a.png").unlink()
        place(tmp_path / "masks/a.tif", potsdam(numbers).transpose(2, 0, 1))
    else:
        picture(tmp_path / "masks/a.png", potsdam(numbers))
    masks = str(tmp_path / "masks")
    inside = {"labels": {"path": masks, "colors": POTSDAM}}
    beside = {"labels": masks, "colors": POTSDAM}
    (scene,) = expand_scenes(
        [{"chips": {"images": str(tmp_path / "images"), **(beside if where == "beside" else inside)}}]
    )
    labels, legend = open_labels(scene["labels"])
    assert legend.names == ("impervious", "building", "low vegetation", "tree", "car")
    assert legend.by_name("low vegetation").color == "#00ffff"
    found = labels.read(labels.geobox)
    assert (found.valid == (numbers != 5)).all()
    assert (found.pixels[0] == np.where(numbers == 5, legend.ignore, numbers + 1)).all()
    wanted = read_legend({4: "car", 9: "tree", 11: "building", 12: "impervious", 13: "low vegetation"})
    other, _ = open_labels(scene["labels"], legend=wanted)
    assert (other.read(labels.geobox).pixels[0] == np.array([12, 11, 13, 9, 4, 255])[numbers]).all()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")  # the test writes such files
@pytest.mark.parametrize(("suffix", "where"), [("png", "file"), ("png", "option"), ("tif", "file"), ("tif", "option")])
def test_of_masks_in_colours_a_colour_is_nodata_and_no_channel(tmp_path, suffix, where):
    colors = np.array([[255, 0, 0], [0, 255, 0], [9, 0, 0], [0, 0, 0]], np.uint8)[np.arange(12).reshape(3, 4) % 4]
    picture(tmp_path / "images/a.png", image_of(0, 3, 4))
    (tmp_path / "masks").mkdir()
    profile = {"driver": {"png": "PNG", "tif": "GTiff"}[suffix], "count": 3, "height": 3, "width": 4, "dtype": "uint8"}
    with rasterio.open(tmp_path / f"masks/a.{suffix}", "w", nodata=0 if where == "file" else None, **profile) as file:
        file.write(colors.transpose(2, 0, 1))
    told = {"path": str(tmp_path / "masks"), "colors": {"#ff0000": "roof", "#00ff00": "tree", "other": "rest"}}
    told |= {"nodata": 0} if where == "option" else {}
    (scene,) = expand_scenes([{"chips": {"images": str(tmp_path / "images"), "labels": told}}])
    labels, legend = open_labels(scene["labels"])
    found = labels.read(labels.geobox)
    assert found.pixels[0].tolist() == [[1, 2, 3, legend.ignore]] * 3
    assert found.valid.tolist() == [[True, True, True, False]] * 3


def test_an_unknown_colour_is_refused_with_its_count_unless_the_others_are_named(tmp_path):
    pixels = potsdam(np.zeros((4, 5), int))
    pixels[0, :3] = (1, 2, 3)
    pixels[1, 0] = (9, 9, 9)
    path = str(picture(tmp_path / "mask.png", pixels))
    labels, _ = open_labels({"path": path, "colors": POTSDAM})
    with pytest.raises(LegendError, match=r"no class: #010203 \(3 pixels\), #090909 \(1 pixels\); known are #0000ff"):
        labels.read(labels.geobox)
    labels, legend = open_labels({"path": path, "colors": {"#ffffff": "road", "other": "rest"}})
    assert (labels.read(labels.geobox).pixels == legend.by_name("rest").id).sum() == 4
    labels, _ = open_labels({"path": path, "colors": {"#ffffff": "road", "other": None}})
    assert labels.read(labels.geobox).valid.sum() == 16
    labels, _ = open_labels({"path": path, "colors": {"#ffffff": "road", "other": None}, "background": "land"})
    assert labels.read(labels.geobox).valid.all()


@given(
    noise=st.lists(st.integers(-20, 20), min_size=3, max_size=3),
    tolerance=st.integers(0, 20),
)
@settings(max_examples=40)
def test_a_colour_within_the_tolerance_is_the_nearest_one(tmp_path_factory, noise, tolerance):
    base = np.array([120, 130, 140])
    folder = tmp_path_factory.mktemp("noise")
    path = str(picture(folder / "mask.png", np.broadcast_to((base + noise).astype(np.uint8), (2, 2, 3)).copy()))
    table = {"120, 130, 140": 1, "#000000": 2}
    labels, _ = open_labels({"path": path, "colors": table, "tolerance": tolerance})
    if np.abs(noise).max() <= tolerance:
        assert (labels.read(labels.geobox).pixels == 1).all()
    else:
        with pytest.raises(LegendError, match="no class"):
            labels.read(labels.geobox)


def test_a_jpeg_mask_is_read_with_a_tolerance(tmp_path):
    numbers = np.kron(np.array([[0, 1], [3, 4]]), np.ones((16, 16), int))
    path = str(picture(tmp_path / "mask.jpg", potsdam(numbers), quality=95, subsampling=0))
    labels, _ = open_labels({"path": path, "colors": POTSDAM, "tolerance": 12})
    assert (labels.read(labels.geobox).pixels[0] == numbers + 1).all()


def test_palettes_and_greys_are_read_by_colour_or_by_value(tmp_path):
    numbers = np.random.default_rng(2).integers(0, 3, (6, 9)).astype(np.uint8)
    mask = Image.new("P", (9, 6))
    mask.putdata(numbers.ravel().tolist())
    mask.putpalette([10, 20, 30, 0, 0, 255, 0, 255, 0])
    (tmp_path / "masks").mkdir()
    mask.save(tmp_path / "masks/a.png")
    picture(tmp_path / "images/a.png", image_of(0))
    spec = {"images": str(tmp_path / "images"), "labels": str(tmp_path / "masks")}
    (scene,) = expand_scenes([{"chips": spec}])
    labels, legend = open_labels(scene["labels"])
    assert [item.color for item in legend.classes] == ["#0a141e", "#0000ff", "#00ff00"]
    assert (labels.read(labels.geobox).pixels[0] == numbers).all()
    colors = {"#0a141e": "land", "#0000ff": "water", "#00ff00": None}
    (scene,) = expand_scenes([{"chips": spec | {"colors": colors}}])
    labels, _ = open_labels(scene["labels"])
    found = labels.read(labels.geobox)
    assert (found.pixels[0] == np.array([1, 2, 255])[numbers]).all()
    picture(tmp_path / "masks/a.png", (numbers > 0).astype(np.uint8) * 255)
    (scene,) = expand_scenes([{"chips": spec | {"colors": {"#000000": "land", "#ffffff": "house"}}}])
    labels, legend = open_labels(scene["labels"])
    assert (labels.read(labels.geobox).pixels[0] == 1 + (numbers > 0)).all()


def test_options_of_labels_reach_them(chips):
    spec = chips([2]) | {"legend": {1: "sea", 2: "wood"}, "ignore": [3]}
    (scene,) = expand_scenes([{"chips": spec}])
    labels, legend = open_labels(scene["labels"])
    assert legend.names == ("sea", "wood")
    assert (labels.read(labels.geobox).valid == (mask_of(2) != 3)).all()


@pytest.mark.parametrize(
    ("colors", "error", "message"),
    [
        ({"#fff": "a"}, InputError, "'#fff' is no colour"),
        ({"0, 0, 256": "a"}, InputError, "is no colour"),
        ({"#000000": "a", "0,0,0": "b"}, InputError, "one colour twice"),
        ({"other": "a"}, InputError, "must map colours"),
        (["#000000"], InputError, "must map colours"),
        ({"#000000": None}, LegendError, "names no class"),
        ({"#000000": 1.5}, InputError, "a name, an id or null"),
    ],
)
def test_tables_of_colours_that_make_no_sense(tmp_path, colors, error, message):
    path = str(picture(tmp_path / "mask.png", image_of(0)))
    with pytest.raises(error, match=message):
        open_labels({"path": path, "colors": colors})


def test_colours_need_three_bands_of_eight_bits(tmp_path):
    two = str(place(tmp_path / "two.tif", np.zeros((2, 4, 4), np.uint8)))
    deep = str(place(tmp_path / "deep.tif", np.zeros((3, 4, 4), np.uint16)))
    for path, message in ((two, "has 2 bands"), (deep, "is uint16; needed is uint8")):
        labels, _ = open_labels({"path": path, "colors": POTSDAM})
        with pytest.raises(BandError, match=message):
            labels.read(labels.geobox)
    with pytest.raises(InputError, match="goes with colors"):
        open_labels({"path": two, "tolerance": 3, "select": [1]})


# -- where chips lie ---------------------------------------------------------------------------------------------------


def test_a_picture_lies_where_its_placed_image_lies_and_is_read_in_windows_and_on_other_grids(tmp_path):
    place(tmp_path / "images/a.tif", image_of(1, 12, 16).transpose(2, 0, 1))
    place(tmp_path / "placed/a.tif", mask_of(1, 12, 16))
    picture(tmp_path / "masks/a.png", mask_of(1, 12, 16))
    (scene,) = expand_scenes([{"chips": {"images": f"{tmp_path}/images", "labels": f"{tmp_path}/masks"}}])
    image = open_source(scene["image"])
    told, _ = open_labels(scene["labels"], legend=read_legend(LEGEND))
    same, _ = open_labels(str(tmp_path / "placed/a.tif"), legend=read_legend(LEGEND))
    assert told.geobox == image.geobox
    grids = [
        crop(image.geobox, Window(-3, 5, 9, 20)),
        image.geobox.zoom_out(2),
        image.geobox.zoom_out(0.3),
        image.geobox.to_crs("EPSG:4326"),
    ]
    for grid in grids:
        found, wanted = told.read(grid), same.read(grid)
        assert (found.pixels == wanted.pixels).all()
        assert (found.valid == wanted.valid).all()
    assert found.valid.any()


def test_chips_without_a_place_lie_on_a_grid_without_crs_and_nothing_warns(chips, tmp_path):
    spec = chips([1], images="images/{}.jpg")
    (scene,) = expand_scenes([{"chips": spec}])
    image = open_source(scene["image"])
    assert image.geobox.crs is None
    assert image.geobox.shape == (6, 9)
    _, labels = read_all(scene)
    assert (labels.pixels[0] == mask_of(1)).all()


def test_a_tif_mask_without_a_place_lies_on_its_image_whatever_is_known_of_that(tmp_path):
    """As the labels of Potsdam, whose images alone have world files."""
    world = Affine(0.05, 0, 366_000, 0, -0.05, 5_807_000)
    with rasterio.open(place(tmp_path / "images/1.tif", image_of(1).transpose(2, 0, 1), crs=None), "r+") as file:
        file.transform = world
    picture(tmp_path / "masks/1.tif", mask_of(1))
    for crs in (None, 32633):
        images = {"path": f"{tmp_path}/images", **({"crs": crs} if crs else {})}
        (scene,) = expand_scenes([{"chips": {"images": images, "labels": f"{tmp_path}/masks"}}])
        image, labels = read_all(scene)
        assert image.geobox.affine == world
        assert (image.geobox.crs is None) == (crs is None)
        assert (labels.pixels[0] == mask_of(1)).all()
    # A mask that has a place keeps it: this one lies three pixels to the east.
    place(tmp_path / "placed/a.tif", image_of(1).transpose(2, 0, 1))
    place(tmp_path / "moved/a.tif", mask_of(1), west=500_001.5)
    (scene,) = expand_scenes([{"chips": {"images": f"{tmp_path}/placed", "labels": f"{tmp_path}/moved"}}])
    _, labels = read_all(scene)
    assert (labels.pixels[0, :, 3:] == mask_of(1)[:, :-3]).all()
    assert labels.valid[:, 3:].all()
    assert not labels.valid[:, :3].any()


@pytest.mark.parametrize(
    "options", [{"nodata": 3}, {"select": 1}, {"select": ["band1"], "nodata": 3}, {"resampling": "nearest"}]
)
@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_a_mask_without_a_place_lies_on_its_image_with_options_too(tmp_path, options, suffix):
    place(tmp_path / "images/1.tif", image_of(1).transpose(2, 0, 1))
    picture(tmp_path / f"masks/1.{suffix}", mask_of(1))
    labels = {"path": f"{tmp_path}/masks", **options}
    (scene,) = expand_scenes([{"chips": {"images": f"{tmp_path}/images", "labels": labels}}])
    _, found = read_all(pickle.loads(pickle.dumps(scene)))  # noqa: S301 - our own
    assert (found.valid == (mask_of(1) != options.get("nodata"))).all()
    assert (found.pixels[0][found.valid] == mask_of(1)[found.valid]).all()


@pytest.mark.parametrize(
    "options", [{"select": 2, "nodata": 3}, {"nodata": 3}, {"resampling": "mode"}, {"resampling": "mode", "nodata": 3}]
)
def test_a_tif_mask_with_a_place_is_read_with_options_as_any_other_raster(tmp_path, options):
    """Its legend, too: the names are those of the band chosen, and nodata is no class."""
    place(tmp_path / "images/a.tif", image_of(1, 12, 16).transpose(2, 0, 1))
    both = np.stack([mask_of(1, 12, 16), mask_of(2, 12, 16)])
    path = place(tmp_path / "masks/a.tif", both if "select" in options else both[0], west=500_001.5)
    category = "<Category/><Category>{0} a</Category><Category>{0} b</Category><Category>{0} c</Category>"
    bands = "".join(
        f'<PAMRasterBand band="{band}"><CategoryNames>{category.format(word)}</CategoryNames></PAMRasterBand>'
        for band, word in ((1, "one"), (2, "two"))
    )
    path.with_name("a.tif.aux.xml").write_text(f"<PAMDataset>{bands}</PAMDataset>")
    labels = {"path": f"{tmp_path}/masks", **options}
    (scene,) = expand_scenes([{"chips": {"images": f"{tmp_path}/images", "labels": labels}}])
    told, legend = open_labels(scene["labels"])
    same, wanted = open_labels({"path": str(path), **options})
    assert legend == wanted
    image = open_source(scene["image"])
    for grid in (image.geobox, image.geobox.zoom_out(4), image.geobox.to_crs("EPSG:4326")):
        found, truth = told.read(grid), same.read(grid)
        assert (found.pixels == truth.pixels).all()
        assert (found.valid == truth.valid).all()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"nodata": "none"}, "nodata must be a number, got 'none'"),
        ({"select": 1.5}, "select: needed are band names or numbers counted from 1, got 1.5"),
        ({"select": []}, "select: needed are band names"),
    ],
)
@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_options_of_masks_are_of_the_right_kind(chips, tmp_path, suffix, option, message):
    spec = chips([1], labels="masks/{}." + suffix)
    with pytest.raises(InputError, match=message):
        expand_scenes([{"chips": spec | {"labels": {"path": f"{tmp_path}/masks", **option}}}])


def test_a_mask_of_another_shape_is_refused(chips, tmp_path):
    spec = chips([1])
    picture(tmp_path / "masks/1.png", mask_of(1, 5, 9))
    (scene,) = expand_scenes([{"chips": spec}])
    with pytest.raises(GridError, match=r"1\.png has 5 x 9 pixels .* 6 x 9; needed are as many"):
        open_labels(scene["labels"], legend=read_legend(LEGEND))[0].geobox.shape  # noqa: B018 - asked for its grid


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lables": "x"}, "no option lables"),
        ({"labels": None}, "needs images and labels"),
        ({"pair": "mask"}, "pair must be the stem"),
        ({"unpaired": "maybe"}, "known are refuse, skip"),
        ({"images": 3}, "must be a folder or a pattern"),
        ({"images": {}}, "needs path"),
        ({"images": {"nodata": 3}}, "needs path: beside its options"),
        ({"labels": {"path": "{}/masks", "colours": {}}}, "have no option colours"),
        ({"list": []}, "has no line"),
        ({"images": None, "labels": None, "list": ["a"], "pair": "{stem}_m"}, "pair goes with images"),
    ],
)
def test_options_that_make_no_sense(chips, tmp_path, change, message):
    change = yaml.safe_load(yaml.safe_dump(change).replace("{}/", f"{tmp_path}/"))
    with pytest.raises(InputError, match=message):
        expand_scenes([{"chips": chips([1]) | change}])


def test_folders_that_are_not_there_or_empty(tmp_path):
    (tmp_path / "empty").mkdir()
    for images, message in (("none", "is not there"), ("empty", "no raster in"), ("empty/*.tif", "no raster in")):
        with pytest.raises(MissingInputError, match=message):
            expand_scenes([{"chips": {"images": f"{tmp_path}/{images}", "labels": f"{tmp_path}/empty"}}])
