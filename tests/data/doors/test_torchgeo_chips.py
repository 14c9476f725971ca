"""torchgeo's chip datasets, made of small files in their own folder layouts, read through geoseg pixel by pixel."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from PIL import Image
from torch.utils.data import Subset

from geoseg.data.datamodule import SceneDataModule
from geoseg.data.doors import expand_scenes
from geoseg.data.doors.torchgeo_chips import ChipSet, chip_sources
from geoseg.data.doors.torchgeo_identity import identity
from geoseg.data.keys import stable_key
from geoseg.data.scene import TRAINING, VALIDATION
from geoseg.errors import BandError, GridError, InputError, MissingInputError, ReadError
from geoseg.io import open_labels, open_source
from geoseg.legend import Legend

datasets = pytest.importorskip("torchgeo.datasets")

CLASSES = ("background", "building", "road", "water", "barren", "forest", "agriculture")


def positions(shape, *, seed=0):
    """RGB bytes, each pixel of a chip and of its neighbours another: row, column, chip."""
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    return np.stack([rows, cols, np.full(shape, seed)], axis=-1).astype(np.uint8)


def codes(shape, *, most, seed=0):
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    return ((rows * 3 + cols + seed) % (most + 1)).astype(np.uint8)


def loveda(root, sizes=((16, 16), (16, 24))):
    """LoveDA's layout: SPLIT/Urban|Rural/images_png and masks_png; the test split has no masks."""
    seed = 0
    for split in ("Train", "Val", "Test"):
        for place in ("Rural", "Urban"):
            for number, size in enumerate(sizes):
                seed += 1
                folder = root / split / place
                for kind, pixels in (("images_png", positions(size, seed=seed)),
                                     ("masks_png", codes(size, most=7, seed=seed))):  # fmt: skip
                    if split == "Test" and kind == "masks_png":
                        continue
                    (folder / kind).mkdir(parents=True, exist_ok=True)
                    Image.fromarray(pixels).save(folder / kind / f"{place[0]}{number}.png")
    return root


def opened(scene):
    labels, legend = open_labels(scene["labels"])
    return open_source(scene["image"]), labels, legend


def test_every_pixel_of_loveda_comes_out_with_torchgeos_class_ids(tmp_path):
    scenes = expand_scenes([{"torchgeo": {"dataset": "LoveDA", "root": str(loveda(tmp_path)), "split": "train"}}])

    dataset = datasets.LoveDA(str(tmp_path), split="train")
    assert len(scenes) == len(dataset) == 4
    assert [scene["part"] for scene in scenes] == ["training"] * 4
    for number, scene in enumerate(scenes):
        image, labels, legend = opened(scene)
        file = dataset.files[number]
        raster, ids = image.read(image.geobox), labels.read(image.geobox)
        assert raster.bands == ("red", "green", "blue")
        assert raster.dtype == np.uint8
        np.testing.assert_array_equal(raster.pixels.transpose(1, 2, 0), np.array(Image.open(file["image"])))
        expected = np.array(Image.open(file["mask"]))
        assert legend.names == CLASSES
        assert legend.ids.tolist() == [1, 2, 3, 4, 5, 6, 7]
        np.testing.assert_array_equal(ids.valid, expected != 0)  # 0 is "no data"
        np.testing.assert_array_equal(ids.pixels[0][ids.valid], expected[expected != 0])


def test_a_data_module_gives_its_parts_and_leaves_out_the_one_without_masks(tmp_path):
    loveda(tmp_path)

    scenes = expand_scenes([{"torchgeo": {"datamodule": "LoveDADataModule", "root": str(tmp_path)}, "weight": 2.0}])

    assert [scene["part"] for scene in scenes] == ["training"] * 4 + ["validation"] * 4
    assert {scene["weight"] for scene in scenes} == {2.0}
    assert set(scenes[0]) == {"name", "image", "labels", "part", "weight"}
    first = opened(scenes[4])[0]
    expected = np.array(Image.open(datasets.LoveDA(str(tmp_path), split="val").files[0]["image"]))
    np.testing.assert_array_equal(first.read(first.geobox).pixels.transpose(1, 2, 0), expected)


def test_landcover_ai_chips_are_read_after_their_own_split(tmp_path):
    rng = np.random.default_rng(1)
    (tmp_path / "output").mkdir()
    names = [f"M-33-20-D-c-4-2_{number}" for number in range(6)]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(tmp_path / "output" / f"{name}.jpg")
        Image.fromarray(codes((16, 16), most=4)).save(tmp_path / "output" / f"{name}_m.png")
    for split, chosen in (("train", names[:3]), ("val", names[3:5]), ("test", names[5:])):
        (tmp_path / f"{split}.txt").write_text("\n".join(chosen) + "\n")

    scenes = expand_scenes([{"torchgeo": {"datamodule": "LandCoverAIDataModule", "root": str(tmp_path)}}])

    assert [scene["part"] for scene in scenes] == ["training"] * 3 + ["validation"] * 2 + ["test"]
    assert scenes[3]["name"] == "LandCoverAI M-33-20-D-c-4-2_3"
    image, labels, legend = opened(scenes[3])
    expected = np.array(Image.open(tmp_path / "output" / f"{names[3]}.jpg"))
    np.testing.assert_array_equal(image.read(image.geobox).pixels.transpose(1, 2, 0), expected)
    np.testing.assert_array_equal(labels.read(image.geobox).pixels[0], codes((16, 16), most=4))
    assert legend.names == ("Background", "Building", "Woodland", "Water", "Road")
    assert legend.by_id(2).color == "#267300"  # torchgeo's own colour


def test_potsdams_coloured_masks_become_class_ids(tmp_path):
    names = ["top_potsdam_2_10", "top_potsdam_2_11"]
    (tmp_path / "4_Ortho_RGBIR").mkdir()
    colours = np.array(datasets.Potsdam2D.colormap, np.uint8)
    truth = codes((12, 20), most=5)
    for seed, name in enumerate(names):
        pixels = np.concatenate([positions((12, 20), seed=seed), np.full((12, 20, 1), 9, np.uint8)], axis=-1)
        with rasterio.open(tmp_path / "4_Ortho_RGBIR" / f"{name}_RGBIR.tif", "w", driver="GTiff", width=20, height=12,
                           count=4, dtype="uint8", transform=Affine(0.05, 0, 100, 0, -0.05, 200)) as file:  # fmt: skip
            file.write(pixels.transpose(2, 0, 1))
        Image.fromarray(colours[truth]).save(tmp_path / f"{name}_label.tif")

    scenes = expand_scenes([{"torchgeo": datasets.Potsdam2D(str(tmp_path)), "name": "Potsdam"}])

    image, labels, legend = opened(scenes[1])
    assert scenes[1]["name"] == "Potsdam Potsdam2D top_potsdam_2_11_RGBIR"
    assert image.bands == ("red", "green", "blue", "nir")
    np.testing.assert_array_equal(image.read(image.geobox).pixels[:3].transpose(1, 2, 0), positions((12, 20), seed=1))
    np.testing.assert_array_equal(labels.read(image.geobox).pixels[0], truth)
    assert legend.names[5] == "Car"


class Counting(datasets.NonGeoDataset):
    """Ten thousand chips in memory of two sizes, which counts how many are decoded."""

    classes = ("no-data", "grass", "rock")

    def __init__(self, transforms=None, length=10_000):
        self.decoded, self.transforms, self.length = [], transforms, length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        import torch

        self.decoded.append(index)
        size = (8, 8 + index % 2)
        sample = {"image": torch.full((2, *size), index + 0.5), "mask": torch.full(size, index % 3 - int(index == 6))}
        return sample if self.transforms is None else self.transforms(sample)


def test_ten_thousand_chips_expand_after_decoding_one(tmp_path):
    dataset = Counting()

    scenes = expand_scenes([{"torchgeo": dataset}])

    assert len(scenes) == 10_000
    assert dataset.decoded == [0]
    image, labels = open_source(scenes[7]["image"]), open_labels(scenes[7]["labels"])[0]
    assert image.geobox.shape == (8, 9)
    assert (image.read(image.geobox).pixels == 7.5).all()
    assert (labels.read(image.geobox).pixels == 1).all()
    assert dataset.decoded == [0, 7]  # image, mask and size come of one decoding


def test_what_is_no_class_is_unlabelled(tmp_path):
    scenes = expand_scenes([{"torchgeo": Counting(length=9)}])
    labels, legend = open_labels(scenes[3]["labels"])

    assert legend.names == ("grass", "rock")
    assert not labels.read(labels.geobox).valid.any()  # all "no-data"
    negative = open_labels(scenes[6]["labels"])[0]
    assert not negative.read(negative.geobox).valid.any()  # all -1


def test_transforms_are_not_applied():
    dataset = Counting(transforms=lambda sample: {key: value[..., :2, :2] for key, value in sample.items()}, length=4)

    image = expand_scenes([{"torchgeo": dataset}])[2]["image"]

    assert image.geobox.shape == (8, 8)
    assert dataset.transforms is not None


def test_threads_decode_each_chip_once():
    dataset = Counting(length=16)
    chips = ChipSet(dataset)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: chips.chip(n // 8).image[0, 0, 0], range(64)))

    assert found == [number // 8 + 0.5 for number in range(64)]
    assert sorted(dataset.decoded) == list(range(8))


def test_sources_are_values(tmp_path):
    loveda(tmp_path)
    spec = {"torchgeo": {"dataset": "LoveDA", "root": str(tmp_path), "split": "train"}}
    one, again = expand_scenes([spec]), expand_scenes([spec])
    other = expand_scenes([{"torchgeo": {**spec["torchgeo"], "split": "val"}}])

    assert one[1]["image"] == again[1]["image"] == pickle.loads(pickle.dumps(one[1]["image"]))  # noqa: S301
    assert one[1]["labels"]["path"] == again[1]["labels"]["path"]
    assert repr(one[1]["image"]) == repr(again[1]["image"])
    assert one[1]["image"] != one[2]["image"]
    assert one[1]["image"] != other[1]["image"]
    assert hash(one[1]["image"]) == hash(again[1]["image"])


def test_the_stores_key_follows_the_files_of_a_chip(tmp_path):
    loveda(tmp_path)
    spec = {"torchgeo": {"dataset": "LoveDA", "root": str(tmp_path), "split": "train"}}

    def keys():
        return [stable_key({"image": scene["image"], "labels": open_labels(scene["labels"])[0]})
                for scene in expand_scenes([spec])]  # fmt: skip

    before, again = keys(), keys()
    Image.fromarray(codes((16, 16), most=3, seed=99)).save(tmp_path / "Train" / "Rural" / "masks_png" / "R0.png")
    after = keys()

    assert before == again
    assert len(set(before)) == 4
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, True, True, True]
    made = expand_scenes([{"torchgeo": Counting(length=2)}])[0]
    assert stable_key({"image": made["image"]}) is None  # nothing says what it is made of


def test_datasets_that_hold_what_cannot_be_told_are_never_taken_for_equal():
    one, other = Counting(length=3), Counting(length=3)
    assert identity(one) == identity(other)
    one.reader = other.reader = object()
    assert identity(one) != identity(other)


class Splits(datasets.NonGeoDataset):
    """Three chips of each split, named alike in all; in memory, or in files that it lists."""

    classes = ("a", "b")

    def __init__(self, root=None, split="train"):
        self.root, self.split = root, split
        if root is not None:
            self.files = [str(root / split / f"{number}.png") for number in range(3)]
            (root / split).mkdir(exist_ok=True)
            for number, path in enumerate(self.files):
                Image.fromarray(positions((32, 32), seed=number)).save(path)

    def __len__(self):
        return 3

    def __getitem__(self, index):
        import torch

        image = positions((32, 32), seed=index).transpose(2, 0, 1)
        return {"image": torch.from_numpy(image.copy()).float(), "mask": torch.from_numpy(codes((32, 32), most=1))}


def trained_on(*scenes):
    data = SceneDataModule(scenes=list(scenes), gsd_m=1.0, patch_px=32, batch=2, epoch_patches=4)
    data.setup()
    found = [np.unique(scene.part).tolist() for scene in data.scenes]
    data.close()
    return found


@pytest.mark.parametrize("in_files", [True, False])
def test_chips_that_two_splits_call_the_same_are_told_apart_and_one_item_is_known(tmp_path, in_files):
    train, val = (Splits(tmp_path if in_files else None, split) for split in ("train", "val"))

    assert trained_on({"torchgeo": train}, {"torchgeo": val}) == [[TRAINING]] * 3 + [[VALIDATION]] * 3
    with pytest.raises(InputError, match="training pixels of t Splits 2 lie on validation pixels of v Splits [02]"):
        trained_on(
            {"torchgeo": Subset(train, [0, 1, 2]), "part": "training", "name": "t"},
            {"torchgeo": Subset(Subset(train, [1, 2]), [1]), "part": "validation", "name": "v"},
        )


def test_a_subset_keeps_its_order(tmp_path):
    dataset = datasets.LoveDA(str(loveda(tmp_path)), split="train")

    scenes = expand_scenes([{"image": Subset(dataset, [3, 0])}])

    assert [scene["name"] for scene in scenes] == ["LoveDA U1", "LoveDA R0"]
    image = open_source(scenes[0]["image"])
    np.testing.assert_array_equal(
        image.read(image.geobox).pixels.transpose(1, 2, 0), np.array(Image.open(dataset.files[3]["image"]))
    )


def test_a_window_is_that_window_and_outside_is_invalid(tmp_path):
    scene = expand_scenes([{"torchgeo": {"dataset": "LoveDA", "root": str(loveda(tmp_path))}}])[0]
    image, labels, _ = opened(scene)
    whole = image.read(image.geobox)

    window = GeoBox((6, 20), Affine.translation(-2, 5), None)
    raster, ids = image.read(window), labels.read(window)

    np.testing.assert_array_equal(raster.pixels[:, :, 2:18], whole.pixels[:, 5:11])
    assert raster.valid[:, 2:18].all()
    assert not raster.valid[:, :2].any()
    assert not raster.valid[:, 18:].any()
    assert not ids.valid[:, :2].any()
    halved = GeoBox((8, 8), Affine.scale(2), None)
    blocks = whole.pixels.reshape(3, 8, 2, 8, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(image.read(halved).pixels, np.rint(blocks))
    with pytest.raises(GridError, match="has no CRS"):
        image.read(GeoBox((4, 4), Affine.scale(10), "EPSG:32633"))


def test_bands_and_classes_can_be_named_beside_the_dataset(tmp_path):
    loveda(tmp_path)
    legend = {1: "other", 2: {"name": "built", "codes": [2, 3]}, 3: {"name": "green", "codes": [5, 6, 7]}}

    scene = expand_scenes([{
        "torchgeo": {"dataset": "LoveDA", "root": str(tmp_path), "scene": ["rural"]}, "part": "split",
        "image": {"bands": ["r", "g", "b"], "select": ["b", "r"]}, "labels": {"legend": legend, "ignore": [0, 4]},
    }])[0]  # fmt: skip

    image, labels, found = opened(scene)
    assert scene["part"] == "split"
    assert image.bands == ("b", "r")
    np.testing.assert_array_equal(image.read(image.geobox).pixels[1], positions((16, 16))[..., 0])
    assert found.names == ("other", "built", "green")
    truth = codes((16, 16), most=7, seed=1)
    np.testing.assert_array_equal(labels.read(image.geobox).pixels[0] == 3, truth >= 5)


@pytest.mark.parametrize(("select", "channels"), [(["B", "r"], [2, 0]), ("g", [1]), (2, [1]), ([3, "r"], [2, 0])])
def test_bands_are_selected_by_name_or_number(tmp_path, select, channels):
    told = {"dataset": "LoveDA", "root": str(loveda(tmp_path))}

    scene = expand_scenes([{"torchgeo": told, "image": {"bands": ["r", "g", "b"], "select": select}}])[0]

    image = scene["image"]
    assert image.bands == tuple("rgb"[channel] for channel in channels)
    np.testing.assert_array_equal(
        image.read(image.geobox).pixels, positions((16, 16), seed=1).transpose(2, 0, 1)[channels]
    )


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"bands": ["r", "g"]}, InputError, r"has 3 bands \[.*\], 2 names were given: \[r, g\]"),
        ({"bands": ["r", "g", "b", "n"]}, InputError, "has 3 bands .* 4 names were given"),
        ({"bands": "rgb"}, InputError, "bands .* must be a list of names that differ, got 'rgb'"),
        ({"bands": 5}, InputError, "must be a list of names that differ, got 5"),
        ({"bands": [1, 2, 3]}, InputError, "must be a list of names that differ"),
        ({"bands": ["r", "R", "b"]}, InputError, "must be a list of names that differ"),
        ({"bands": {"r": 1, "g": 2, "b": 3}}, InputError, "must be a list of names that differ"),
        ({"select": []}, InputError, r"select .* must be names or numbers of bands, got \[\]"),
        ({"select": {"r": 1}}, InputError, "select .* must be names or numbers of bands"),
        ({"select": [0.5]}, InputError, "select .* must be names or numbers of bands"),
        ({"select": ["nir"]}, BandError, "nir"),
        ({"select": [4]}, BandError, "band 4 was selected, LoveDA has bands 1 to 3"),
    ],
)
def test_names_of_bands_that_do_not_fit_the_image_are_refused_in_one_line(tmp_path, options, error, message):
    loveda(tmp_path)
    with pytest.raises(error, match=message) as caught:
        expand_scenes([{"torchgeo": {"dataset": "LoveDA", "root": str(tmp_path)}, "image": options}])
    assert "\n" not in str(caught.value)


def test_a_configs_own_legend_is_matched_by_name(tmp_path):
    scene = expand_scenes([{"torchgeo": {"dataset": "LoveDA", "root": str(loveda(tmp_path))}}])[0]
    legend = Legend.from_dict({number + 11: name for number, name in enumerate(CLASSES)})

    labels, found = open_labels(scene["labels"], legend=legend)

    assert found == legend
    truth = codes((16, 16), most=7, seed=1)
    np.testing.assert_array_equal(labels.read(labels.geobox).pixels[0][truth > 0], truth[truth > 0] + 10)


def test_missing_files_are_said_with_the_call_that_gets_them(tmp_path):
    with pytest.raises(MissingInputError, match=r"LoveDA\(root='.*nowhere', download=True\)") as caught:
        expand_scenes([{"torchgeo": {"dataset": "LoveDA", "root": str(tmp_path / "nowhere")}}])
    assert "\n" not in str(caught.value)
    with pytest.raises(MissingInputError, match="LoveDADataModule are not there"):
        expand_scenes([{"torchgeo": {"datamodule": "LoveDADataModule", "root": str(tmp_path / "nowhere")}}])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("LoveDA", "torchgeo cannot be 'LoveDA'; needed is"),
        ({"root": "data"}, "none of dataset, datamodule"),
        ({"dataset": "LoveDa"}, r"there is no LoveDa in torchgeo.datasets; did you mean LoveDA"),
        ({"dataset": "LoveDA", "split": "training"}, "it asks that assert split in self.splits"),
        ({"dataset": "LoveDA", "place": "x"}, "unexpected keyword argument 'place'"),
        ({"class_path": "nowhere.Set", "init_args": {}}, "nowhere.Set cannot be imported"),
        ({"class_path": "torchgeo.datasets.LoveDA", "root": "x"}, "arguments go into init_args"),
        ({"and": [{"dataset": "LoveDA"}]}, "needed is a list of two datasets or more"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(value, message):
    with pytest.raises(InputError, match=message) as caught:
        expand_scenes([{"torchgeo": value}])
    assert "\n" not in str(caught.value)


def test_a_split_without_masks_is_refused_and_chips_are_no_intersection(tmp_path):
    loveda(tmp_path)
    with pytest.raises(InputError, match="LoveDA has no image with a mask"):
        expand_scenes([{"torchgeo": {"dataset": "LoveDA", "root": str(tmp_path), "split": "test"}}])
    both = [{"dataset": "LoveDA", "root": str(tmp_path)}] * 2
    with pytest.raises(InputError, match="LoveDA, LoveDA has no place on the ground"):
        expand_scenes([{"torchgeo": {"and": both}}])


def test_a_broken_chip_is_named_when_it_is_read(tmp_path):
    dataset = datasets.LoveDA(str(loveda(tmp_path)), split="train")
    scenes = expand_scenes([{"torchgeo": dataset}])
    (tmp_path / "Train" / "Rural" / "images_png" / "R1.png").write_bytes(b"no picture")

    image = scenes[1]["image"]

    with pytest.raises(ReadError, match="item 1 of LoveDA cannot be read"):
        _ = image.geobox
    assert open_source(scenes[0]["image"]).geobox.shape == (16, 16)


def test_times_become_bands_and_unlike_items_are_refused():
    import torch

    class Series(Counting):
        bands = ("B02", "B03")

        def __getitem__(self, index):
            return {"image": torch.arange(3 - (index == 1)).reshape(-1, 1, 1, 1).expand(-1, 2, 8, 8).float(),
                    "mask": torch.ones(8, 8)}  # fmt: skip

    named = chip_sources(Series(length=2))
    image = named[0][1]

    assert image.bands == ("B02_t1", "B03_t1", "B02_t2", "B03_t2", "B02_t3", "B03_t3")
    np.testing.assert_array_equal(image.read(image.geobox).pixels[:, 0, 0], [0, 0, 1, 1, 2, 2])
    with pytest.raises(ReadError, match="item 1 of Series has 4 bands"):
        named[1][1].read(image.geobox)


def test_large_chips_are_not_kept_beyond_a_size(monkeypatch):
    dataset = Counting(length=6)
    chips = ChipSet(dataset)
    monkeypatch.setattr("geoseg.data.doors.torchgeo_chips.KEPT_BYTES", 3 * chips.chip(0).nbytes)

    for index in (0, 2, 4, 0, 2, 4, 0):
        chips.chip(index)
    assert dataset.decoded == [0, 2, 4]
    monkeypatch.setattr("geoseg.data.doors.torchgeo_chips.KEPT_BYTES", 1)
    for index in (1, 3, 3, 1):
        chips.chip(index)
    assert dataset.decoded == [0, 2, 4, 1, 3, 1]
