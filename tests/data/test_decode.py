"""Decoded scenes are their sources, wherever they are kept; each pixel is read once, and failures are told."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from geoseg.data import placing, reading
from geoseg.data.arrays import BlockArray
from geoseg.data.block_cache import BlockCache, Unreadable
from geoseg.data.decode import SceneInput, decode_scene, decode_scenes
from geoseg.data.patches import gather_patches
from geoseg.data.reading import FileBlocks, file_blocks, reading_windows, soft_labels
from geoseg.data.scene import BLOCK_PX, OUTSIDE, TRAINING, VALIDATION
from geoseg.data.store import GB, StoreOptions
from geoseg.errors import InputError, OutputError, ReadError
from geoseg.io.combine import Picked
from geoseg.io.grids import crop
from geoseg.io.labels import open_labels
from geoseg.io.regions import Area, open_area
from geoseg.io.sources import open_source
from geoseg.legend import Legend

SUPPORT = Path(__file__).parent / "support"
LAYERS = ("pixels", "valid", "labels", "part")


def everything(layer):
    return layer[(slice(None),) * len(layer.shape)]


KINDS = {"memory": np.ndarray, "files": BlockArray, "blocks": BlockCache}
WAYS = tuple(KINDS)


def options_for(way, shape, *, bands=2, classes=0, blocks=3, **more):
    """Options with which a set of 16 bits is kept in a way; in blocks that come and go, so many of them."""
    if way == "memory":
        return StoreOptions(**more)
    planes = shape[0] * shape[1] * (3 + classes) + 4096 * 8
    return StoreOptions(
        memory_gb=0, disk_gb=(planes + blocks * bands * 2 * BLOCK_PX**2) / GB if way == "blocks" else 1, **more
    )


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def pair(memory_source, rng):
    """An image with holes and labels with gaps, 1100 x 1300: more blocks than a small share of the disk holds."""
    pixels = rng.integers(0, 60000, (3, 1100, 1300)).astype(np.uint16)
    labels = rng.choice([1, 5, 9], (1, 1100, 1300)).astype(np.uint8)
    return (
        memory_source(pixels, valid=rng.random((1100, 1300)) > 0.2),
        memory_source(labels, valid=rng.random((1100, 1300)) > 0.3, bands=("label",)),
    )


@pytest.fixture(autouse=True)
def _a_place_of_our_own(tmp_path_factory, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("tmp")))
    monkeypatch.setattr(placing, "FEWEST_SLOTS", 1)


@pytest.fixture
def made_up(monkeypatch, tmp_path):
    """The module of made-up sources, whose reads are counted."""
    monkeypatch.syspath_prepend(str(SUPPORT))
    monkeypatch.setenv("GEOSEG_TEST_READS", str(tmp_path / "reads"))
    import made_up

    return made_up


@pytest.fixture
def reads(tmp_path):
    """A function that says what was read: process, row, column, rows, columns."""

    def said():
        path = tmp_path / "reads"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    return said


def scene_of(made_up, rows, cols, *, name="north", **more):
    grid = made_up.grid_of(rows, cols)
    image = made_up.MadeUp(grid, **more)
    return SceneInput(name=name, image=image, labels=made_up.MadeUp(grid, ("label",)), grid=grid)


# -- what is held ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_the_store_is_the_source_bit_for_bit(pair, legend, way, monkeypatch):
    monkeypatch.setattr(reading, "READ_BYTES", 700_000)
    image, labels = pair
    scene = SceneInput(name="a", image=image, labels=labels, grid=image.geobox, weight=2.5)
    found = decode_scenes([scene], legend=legend, options=options_for(way, (1100, 1300), bands=3))
    (arrays,) = found.scenes
    assert type(arrays.pixels) is KINDS[way]
    np.testing.assert_array_equal(everything(arrays.pixels), image.pixels, strict=True)
    np.testing.assert_array_equal(everything(arrays.valid), image.valid)
    expected = np.where(image.valid & labels.valid, np.searchsorted([1, 5, 9], labels.pixels[0]), 255)
    np.testing.assert_array_equal(everything(arrays.labels), expected)
    np.testing.assert_array_equal(everything(arrays.part), np.where(image.valid, TRAINING, OUTSIDE))
    assert (arrays.weight, arrays.bands, arrays.no_label, arrays.absent) == (2.5, image.bands, 255, ())
    found.close()


@given(st.data())
def test_all_ways_hold_the_same(memory_source, legend, data):
    way, count, bands = data.draw(st.sampled_from(WAYS)), data.draw(st.integers(1, 2)), data.draw(st.integers(1, 3))
    shape = data.draw(st.tuples(st.integers(1, 700), st.integers(1, 700)))
    rng = np.random.default_rng(shape)
    scenes = []
    for _ in range(count):
        image = memory_source(rng.integers(0, 9999, (bands, *shape)).astype(np.uint16), valid=rng.random(shape) > 0.1)
        image.valid[0, 0] = True
        labels = memory_source(rng.choice([1, 5, 9], (1, *shape)).astype(np.uint8), bands=("label",))
        scenes.append(SceneInput(name="a", image=image, labels=labels, grid=image.geobox))
    options = options_for(way, (count * shape[0], shape[1]), bands=bands, blocks=data.draw(st.integers(1, 4)))
    found = decode_scenes(scenes, legend=legend, options=options)
    for scene, arrays in zip(scenes, found.scenes, strict=True):
        np.testing.assert_array_equal(everything(arrays.pixels), scene.image.pixels, strict=True)
        np.testing.assert_array_equal(everything(arrays.valid), scene.image.valid)
    found.close()


@pytest.mark.parametrize("way", WAYS)
def test_a_region_cuts_the_store_to_its_window_and_hides_the_rest(pair, legend, way):
    image, labels = pair
    ring = [[502_000, 5_198_000], [509_000, 5_197_000], [504_000, 5_190_000]]
    triangle = {"type": "Polygon", "coordinates": [[*ring, ring[0]]], "crs": "EPSG:32633"}
    area = open_area(triangle, image.geobox)
    scene = SceneInput(name="a", image=image, labels=labels, grid=image.geobox, area=area)
    found = decode_scenes([scene], legend=legend, options=options_for(way, (820, 720), bands=3))
    (arrays,) = found.scenes
    assert type(arrays.pixels) is KINDS[way]
    window = area.window(image.geobox)
    assert arrays.geobox == crop(image.geobox, window)
    assert arrays.shape == (window.rows, window.cols)
    assert (window.rows, window.cols) < (820, 720)
    inside = area.mask(image.geobox)
    assert inside.sum() == (inside[window.slices]).sum()
    np.testing.assert_array_equal(everything(arrays.valid), (image.valid & inside)[window.slices])
    usable = everything(arrays.valid)
    np.testing.assert_array_equal(everything(arrays.pixels)[:, usable], image.pixels[:, *window.slices][:, usable])
    assert (everything(arrays.labels)[~usable] == 255).all()
    assert not everything(arrays.part)[~usable].any()
    found.close()


def test_a_region_is_never_burnt_whole(pair, legend, monkeypatch):
    monkeypatch.setattr(reading, "READ_BYTES", 256 * 256 * 6)
    asked = []
    real = Area.mask
    monkeypatch.setattr(Area, "mask", lambda self, geobox: asked.append(tuple(geobox.shape)) or real(self, geobox))
    image, labels = pair
    area = open_area({"rows": [10, 900]}, image.geobox)
    decode_scene(image, labels, legend=legend, grid=image.geobox, name="a", area=area)
    assert len(asked) > 10
    assert max(rows * cols for rows, cols in asked) <= 256 * 256


def test_bands_keep_the_dtype_that_torch_has(memory_source, legend):
    labels = memory_source(np.ones((1, 20, 20), np.uint8), bands=("label",))
    for dtype, kept in (("float64", "float32"), ("int8", "int16"), ("uint16", "uint16")):
        image = memory_source(np.full((1, 20, 20), 7, dtype))
        arrays = decode_scene(image, labels, legend=legend, grid=image.geobox, name="a", absent=(0,))
        assert arrays.pixels.dtype == kept
        assert (everything(arrays.pixels) == 7).all()
        assert arrays.absent == (0,)


@pytest.mark.parametrize("way", WAYS)
def test_what_float32_cannot_hold_is_not_valid(memory_source, legend, way):
    pixels = np.full((2, 300, 300), 7.0)
    pixels[0, :2, :3], pixels[1, 4, 4], pixels[1, 5, 5] = -np.finfo(np.float64).max, 1e39, 3e38
    image = memory_source(pixels)
    labels = memory_source(np.ones((1, 300, 300), np.uint8), bands=("label",))
    scene = SceneInput(name="a", image=image, labels=labels, grid=image.geobox)
    found = decode_scenes([scene], legend=legend, options=options_for(way, (300, 300), bands=4))
    (arrays,) = found.scenes
    hidden = np.zeros((300, 300), bool)
    hidden[:2, :3], hidden[4, 4] = True, True
    np.testing.assert_array_equal(everything(arrays.valid), ~hidden)
    assert (everything(arrays.labels)[hidden] == arrays.no_label).all()
    assert np.isfinite(everything(arrays.pixels)[:, ~hidden]).all()
    assert image.valid.all()  # the source's own are left alone
    found.close()


@pytest.mark.parametrize(
    ("dtype", "warned"), [("uint32", True), ("int64", True), ("uint16", False), ("float64", False)]
)
def test_integers_that_may_be_rounded_are_told_once(memory_source, legend, caplog, dtype, warned):
    labels = memory_source(np.ones((1, 20, 20), np.uint8), bands=("label",))
    images = [memory_source(np.full((1, 20, 20), 7, dtype)) for _ in range(3)]
    scenes = [SceneInput(name=f"{k}", image=image, labels=labels, grid=image.geobox) for k, image in enumerate(images)]
    decode_scenes(scenes, legend=legend, options=StoreOptions())
    assert caplog.text.count("beyond 16,777,216") == int(warned)


def test_many_classes_take_sixteen_bits(memory_source):
    legend = Legend.from_names([f"class {k}" for k in range(300)])
    ids = (np.arange(400).reshape(1, 20, 20) % 300 + int(legend.ids[0])).astype(np.uint16)
    image, labels = memory_source(np.zeros((1, 20, 20), np.uint8)), memory_source(ids, bands=("label",))
    arrays = decode_scene(image, labels, legend=legend, grid=image.geobox, name="a")
    assert (arrays.labels.dtype, arrays.no_label) == (np.uint16, 65535)
    np.testing.assert_array_equal(everything(arrays.labels), np.arange(400).reshape(20, 20) % 300)


@pytest.mark.parametrize("way", WAYS)
def test_soft_labels_add_up_and_the_largest_share_is_the_label(memory_source, rng, legend, way):
    shares = rng.dirichlet([1, 1, 1], (300, 310)).transpose(2, 0, 1).astype(np.float32)
    shares[:, 5, 5] = 0
    told = rng.random((300, 310)) > 0.2
    image = memory_source(np.zeros((2, 300, 310), np.uint16), valid=rng.random((300, 310)) > 0.1)
    soft = memory_source(shares, valid=told, bands=("water", "forest", "road"))
    scene = SceneInput(name="a", image=image, labels=None, soft=soft, grid=image.geobox)
    found = decode_scenes([scene], legend=legend, options=options_for(way, (300, 310), classes=3, blocks=1))
    (arrays,) = found.scenes
    assert type(arrays.pixels) is KINDS[way]
    labelled = told & image.valid
    labelled[5, 5] = False
    labels, kept = everything(arrays.labels), everything(arrays.soft)
    np.testing.assert_array_equal(labels, np.where(labelled, shares.argmax(0), 255))
    assert (abs(kept.sum(0, dtype=int)[labelled] - 255) <= 1).all()
    assert not kept[:, ~labelled].any()
    assert np.abs(kept[:, labelled] / 255 - shares[:, labelled]).max() <= 0.5 / 255 + 1e-6
    found.close()


def test_shares_that_do_not_add_up_are_scaled_and_nonsense_is_no_label():
    shares = np.array([[[2.0, np.nan, -1.0]], [[6.0, 1.0, 0.0]]], np.float32)
    labels, soft = soft_labels(shares, np.ones((1, 3), bool), no_index=255)
    assert labels.tolist() == [[1, 255, 255]]
    assert soft[:, 0].tolist() == [[64, 0, 0], [191, 0, 0]]


def test_labels_elsewhere_and_empty_regions_are_refused(pair, legend, memory_source, grid):
    image, labels = pair
    far = memory_source(labels.pixels, geobox=grid(1100, 1300, west=900_000), bands=("label",))
    with pytest.raises(InputError, match="do not overlap"):
        decode_scene(image, far, legend=legend, grid=image.geobox, name="a")
    sliver = {"bbox": [500_001, 5_199_000, 500_002, 5_199_001]}  # between pixel centres
    with pytest.raises(InputError, match="none of its pixels"):
        decode_scene(image, labels, legend=legend, grid=image.geobox, name="a", area=open_area(sliver, image.geobox))


# -- how it is read ----------------------------------------------------------------------------------------------------


@given(
    st.tuples(st.integers(1, 3000), st.integers(1, 3000)),
    st.integers(1, 24),
    st.one_of(
        st.none(),
        st.builds(FileBlocks, st.sampled_from([1, 16, 100, 256, 512, 1024]), st.sampled_from([1, 256, 512, 5000])),
    ),
    st.tuples(st.integers(0, 2000), st.integers(0, 2000)),
    st.sampled_from([1 << 18, 1 << 20, 1 << 22]),
)
def test_windows_cut_the_plane_and_no_block_of_the_file_twice(shape, pixel_bytes, blocks, lead, most_bytes):
    if blocks is not None:
        blocks = replace(blocks, row=lead[0] % blocks.rows, col=lead[1] % blocks.cols)
    seen = np.zeros(shape, np.uint8)
    windows = list(reading_windows(shape, pixel_bytes=pixel_bytes, blocks=blocks, most_bytes=most_bytes))
    for window in windows:
        seen[window.slices] += 1
    assert (seen == 1).all()
    blocks = blocks or FileBlocks(1, 1)
    for window in windows:
        for start, stop, size, block, offset in (
            (window.row_off, window.row_stop, shape[0], blocks.rows, blocks.row),
            (window.col_off, window.col_stop, shape[1], blocks.cols, blocks.col),
        ):
            assert start == 0 or (start + offset) % min(block, size) == 0 or (start + offset) % block == 0
            assert stop == size or (stop + offset) % min(block, size) == 0 or (stop + offset) % block == 0
        # One block of the file, or of the store, is read whatever it takes.
        least = max(blocks.rows, BLOCK_PX) * 2 * min(shape[1], max(blocks.cols, 2 * BLOCK_PX)) * pixel_bytes
        assert window.rows * window.cols * pixel_bytes <= max(most_bytes, least)


@pytest.mark.parametrize("way", WAYS)
def test_each_pixel_is_read_once(made_up, reads, monkeypatch, way):
    monkeypatch.setattr(reading, "READ_BYTES", 1 << 19)
    scene = scene_of(made_up, 1100, 900)
    found = decode_scenes([scene], legend=made_up.LEGEND, options=options_for(way, (1100, 900)))
    assert type(found.scenes[0].pixels) is KINDS[way]
    seen = np.zeros((1100, 900), int)
    for _, row, col, rows, cols in reads():
        seen[row : row + rows, col : col + cols] += 1
    assert (seen == 1).all()
    before = len(reads())
    windows = np.array([[0, 0, 0], [0, 400, 300], [0, 0, 0]])
    gather_patches(found.scenes, windows, patch_px=256, part=TRAINING)
    assert way == "blocks" or len(reads()) == before
    found.close()


def test_progress_ends_where_it_should(made_up, monkeypatch):
    monkeypatch.setattr(reading, "READ_BYTES", 1 << 19)
    told = []
    scenes = [scene_of(made_up, 700, 600), scene_of(made_up, 90, 80)]
    decode_scenes(
        scenes, legend=made_up.LEGEND, options=StoreOptions(), progress=lambda done, total: told.append((done, total))
    )
    assert [done for done, _ in told] == list(range(1, len(told) + 1))
    assert {total for _, total in told} == {len(told)}
    assert len(told) > 2


@pytest.fixture
def tiff(tmp_path):
    """A function that writes a GeoTIFF of positions."""

    def write(name="a.tif", *, rows=600, cols=700, **options):
        profile = {"driver": "GTiff", "count": 2, "height": rows, "width": cols, "dtype": "uint16",
                   "crs": "EPSG:32633", "transform": Affine(10, 0, 500_000, 0, -10, 5_200_000), **options}  # fmt: skip
        with rasterio.open(tmp_path / name, "w", **profile) as file:
            file.write(np.indices((rows, cols)).astype(profile["dtype"])[: profile["count"]])
        return tmp_path / name

    return write


def test_the_blocks_of_the_file_behind_a_source_are_known(tiff, shifted, memory_source):
    tiled = open_source(str(tiff(tiled=True, blockxsize=512, blockysize=256)))
    strips = Picked(open_source(str(tiff("b.tif", blockysize=16))), (1,), ("x",))
    assert file_blocks(tiled, tiled.geobox) == FileBlocks(256, 512)
    assert file_blocks(tiled, shifted(tiled.geobox, 300, 520, (99, 99))) == FileBlocks(256, 512, 44, 8)
    assert file_blocks(strips, strips.geobox) == FileBlocks(16, 700)
    halved = file_blocks(tiled, replace_shape(tiled.geobox, 0.5))
    assert (halved.rows, halved.cols) == (128, 256)
    assert file_blocks(memory_source(np.zeros((1, 5, 5), np.uint8)), tiled.geobox) is None


def replace_shape(geobox, factor):
    return geobox.zoom_out(1 / factor)


def test_many_chips_open_no_file_before_they_are_read(made_up, monkeypatch):
    monkeypatch.setattr(placing, "file_blocks", lambda *_: pytest.fail("a chip is read at once"))
    scenes = [scene_of(made_up, 16, 16, name=str(k)) for k in range(500)]
    found = decode_scenes(scenes, legend=made_up.LEGEND, options=StoreOptions(folder="/nowhere/at/all"))
    assert [scene.name for scene in found.scenes] == [str(k) for k in range(500)]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_scene():
    def peak_mb(side, disk_gb):
        command = [sys.executable, str(SUPPORT / "decode_job.py"), "", str(side), str(side), str(disk_gb)]
        return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)

    small, large, lazy = peak_mb(4096, 10), peak_mb(12288, 10), peak_mb(12288, 0.7)
    assert [found["kind"] for found in (small, large, lazy)] == ["BlockArray", "BlockArray", "BlockCache"]
    assert max(large["peak_mb"], lazy["peak_mb"]) < 700  # of 1008 MB, and however many more there are
    assert small["peak_mb"] < 500


# -- what is kept ------------------------------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path, made_up, reads):
    """A function that decodes a scene into a folder and says how many windows were read for it."""

    def decode(scene=None, *, way="files", **more):
        scene = scene or scene_of(made_up, 1100, 900)
        before = len(reads())
        options = options_for(way, scene.grid.shape, folder=str(tmp_path / "store"), **more)
        found = decode_scenes([scene], legend=made_up.LEGEND, options=options)
        (arrays,) = found.scenes
        assert type(arrays.pixels) is KINDS[way]
        expected = scene.image.values(np.arange(1100)[:, None], np.arange(900)[None])
        read = len(reads()) - before  # before blocks are read again
        np.testing.assert_array_equal(everything(arrays.pixels), expected)
        assert everything(arrays.labels)[12, 9] == (12 // 5 + 9 // 7) % 3
        found.close()
        return read

    return decode


@pytest.fixture
def entries(tmp_path):
    return lambda: sorted(path for path in (tmp_path / "store").iterdir() if len(path.name) == 64)


@pytest.mark.parametrize("way", ["files", "blocks"])
def test_the_next_run_reads_nothing_again(kept, entries, way):
    assert kept(way=way) > 0
    before = {path: path.stat().st_mtime_ns for path in entries()}
    assert kept(way=way) == 0
    assert {path: path.stat().st_mtime_ns for path in entries()} == before
    assert len(before) == 1


def test_an_entry_is_loaded_where_the_set_fits_into_memory(kept, monkeypatch):
    monkeypatch.setattr(placing, "WORTH_KEEPING_BYTES", 0)
    assert kept(way="memory") > 0
    assert kept(way="memory") == 0
    assert kept(way="files") == 0


def test_small_sets_in_memory_are_not_kept(kept, tmp_path):
    assert kept(way="memory") > 0
    assert not (tmp_path / "store").exists()


def test_another_option_makes_another_entry(made_up, kept, entries):
    scene = scene_of(made_up, 1100, 900)
    kept(scene)
    for other in (
        replace(scene, image=replace(scene.image, options="resampled")),
        replace(scene, absent=(1,)),
        replace(scene, area=open_area({"rows": [0, 1100]}, scene.grid)),
    ):
        assert kept(other) > 0
        assert kept(other) == 0
    assert len(entries()) == 4


@pytest.mark.parametrize("what", ["geoseg.__version__", "rasterio.__gdal_version__", "pyproj.proj_version_str"])
def test_another_version_of_what_reads_reads_again(kept, entries, monkeypatch, what):
    assert kept() > 0
    monkeypatch.setattr(what, "99.0")
    assert kept() > 0
    assert kept() == 0
    assert len(entries()) == 2


def test_a_changed_file_is_read_again(tiff, tmp_path, legend, entries):
    with rasterio.open(tiff("labels.tif", count=1, dtype="uint8"), "r+") as file:
        file.write(np.full((1, 600, 700), 5, np.uint8))
    labels = open_labels(str(tmp_path / "labels.tif"), legend=legend)[0]
    options = StoreOptions(folder=str(tmp_path / "store"), memory_gb=0)

    def corner():
        image = open_source(str(tmp_path / "a.tif"))
        scene = SceneInput(name="a", image=image, labels=labels, grid=image.geobox)
        found = decode_scenes([scene], legend=legend, options=options)
        value = int(found.scenes[0].pixels[0:1, 0:1, 0:1][0, 0, 0])
        found.close()
        return value

    with rasterio.open(tiff(), "r+") as file:
        assert [corner(), corner(), len(entries())] == [0, 0, 1]
        file.write(np.full((2, 600, 700), 77, np.uint16))
    assert [corner(), corner(), len(entries())] == [77, 77, 2]


def test_sources_without_a_lasting_name_are_not_kept(pair, legend, tmp_path):
    image, labels = pair
    scene = SceneInput(name="a", image=image, labels=labels, grid=image.geobox)
    options = StoreOptions(folder=str(tmp_path / "store"), memory_gb=0)
    found = decode_scenes([scene], legend=legend, options=options)
    np.testing.assert_array_equal(everything(found.scenes[0].pixels), image.pixels)
    found.close()
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["locks"]


def test_the_part_of_one_job_is_not_that_of_another(made_up, tmp_path):
    options = StoreOptions(folder=str(tmp_path / "store"), memory_gb=0)
    one, other = (decode_scenes([scene_of(made_up, 300, 300)], legend=made_up.LEGEND, options=options) for _ in "ab")
    one.scenes[0].part[:, :] = VALIDATION
    assert (everything(one.scenes[0].part) == VALIDATION).all()
    assert (everything(other.scenes[0].part) == TRAINING).all()
    with pytest.raises(ValueError, match="read-only"):
        one.scenes[0].labels[0:1, 0:1] = 0
    one.close()
    np.testing.assert_array_equal(everything(other.scenes[0].valid), True)
    other.close()


def test_a_scene_named_twice_is_read_once(made_up, reads, tmp_path):
    options = StoreOptions(folder=str(tmp_path / "store"), memory_gb=0)
    scenes = [scene_of(made_up, 300, 300, name=name) for name in "ab"]
    found = decode_scenes(scenes, legend=made_up.LEGEND, options=options)
    assert len(reads()) == 1
    assert [scene.name for scene in found.scenes] == ["a", "b"]
    found.close()


def test_a_damaged_entry_is_built_anew(kept, entries):
    kept()
    layer = entries()[0] / "pixels.blocks"
    layer.write_bytes(layer.read_bytes()[:-1])
    assert kept() > 0
    assert kept() == 0


def job(folder, *, side=1500, seconds=0.0, reads=None):
    """A process that decodes the made-up scene."""
    environment = {**os.environ, "GEOSEG_TEST_READ_S": str(seconds), "GEOSEG_TEST_READS": str(reads or "")}
    command = [sys.executable, str(SUPPORT / "decode_job.py"), str(folder), str(side), str(side), "1"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_two_jobs_at_once_decode_once(tmp_path, reads):
    runs = [job(tmp_path / "store", seconds=0.4, reads=tmp_path / "reads") for _ in range(2)]
    for run in runs:
        out, error = run.communicate()
        assert run.returncode == 0, error
        assert json.loads(out)["kind"] == "BlockArray"
    found = reads()
    assert len({read[0] for read in found}) == 1
    assert len({tuple(read[1:]) for read in found}) == len(found)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills")
def test_a_job_killed_while_it_builds_leaves_nothing_to_the_next(tmp_path, reads):
    first = job(tmp_path / "store", seconds=0.5, reads=tmp_path / "reads")
    deadline = time.monotonic() + 60
    while not reads() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    first.kill()
    first.communicate()
    left = {path.name.split("-")[0].rsplit(".", 1)[-1] for path in (tmp_path / "store").iterdir()}
    assert {"part", "job"} <= left
    second = job(tmp_path / "store")
    error = second.communicate()[1]
    assert second.returncode == 0, error
    names = sorted(path.name for path in (tmp_path / "store").iterdir())
    assert [len(name) for name in names] == [64, 5]  # the entry and the locks


# -- too large, full, read-only ----------------------------------------------------------------------------------------


def test_the_folder_stays_below_its_share(kept, entries, made_up):
    scenes = [scene_of(made_up, 1100, 900, options=str(k)) for k in range(4)]
    one = 1100 * 900 * 7 + 40_000
    for scene in scenes:
        kept(scene, way="files")
    assert len(entries()) == 4
    room = 3.5 * one / GB
    grid, options = scenes[0].grid, StoreOptions(folder=str(entries()[0].parent), memory_gb=0, disk_gb=room)
    found = decode_scenes([replace(scenes[3], grid=grid)], legend=made_up.LEGEND, options=options)
    assert len(entries()) == 3
    assert sum(path.stat().st_size for entry in entries() for path in entry.iterdir()) < room * GB
    found.close()


def test_a_share_too_small_for_the_planes_is_refused_with_what_is_needed(made_up):
    scene = scene_of(made_up, 1100, 900)
    with pytest.raises(InputError, match=r"data\.store\.disk_gb is 0\.001: .* GiB; needed is that or more") as caught:
        decode_scenes([scene], legend=made_up.LEGEND, options=StoreOptions(memory_gb=0, disk_gb=0.001))
    needed = float(str(caught.value).split(" GiB")[0].split()[-1])
    options = StoreOptions(memory_gb=0, disk_gb=needed * 1.01)
    found = decode_scenes([scene], legend=made_up.LEGEND, options=options)
    assert isinstance(found.scenes[0].pixels, BlockCache)
    found.close()


@pytest.mark.parametrize("fails_at", range(4))
@pytest.mark.parametrize("kind", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_is_full_or_read_only_is_one_line_and_nothing_is_left(
    made_up, tmp_path, monkeypatch, fails_at, kind
):
    """Pixels, validity, labels and the part of the job: whichever it is that finds no room."""
    real, calls = os.posix_fallocate, []

    def reserve(*args):
        calls.append(args)
        if len(calls) > fails_at:
            raise OSError(kind, os.strerror(kind))
        real(*args)

    monkeypatch.setattr(os, "posix_fallocate", reserve)
    options = StoreOptions(folder=str(tmp_path / "store"), memory_gb=0)
    with pytest.raises(OutputError, match=r"the store folder .* (is full|cannot be written).*data\.store") as caught:
        decode_scenes([scene_of(made_up, 600, 500)], legend=made_up.LEGEND, options=options)
    assert "\n" not in str(caught.value)
    left = [path.name for path in (tmp_path / "store").iterdir() if len(path.name) != 64]
    assert left == ["locks"]


# -- what cannot be read -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_a_scene_that_cannot_be_read_is_named_and_nothing_is_left(made_up, tmp_path, way, monkeypatch):
    monkeypatch.setattr(placing, "WORTH_KEEPING_BYTES", 0)
    scene = scene_of(made_up, 1100, 900, broken=(700, 700, 3))
    options = options_for(way, (1100, 900), folder=str(tmp_path / "store"))
    with pytest.raises(ReadError, match=r"^scene north cannot be read at rows .*no such luck.*on_error: skip"):
        decode_scenes([scene], legend=made_up.LEGEND, options=options)
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["locks"]


@pytest.mark.parametrize("way", WAYS)
def test_what_cannot_be_read_is_left_out_and_counted(made_up, tmp_path, way, caplog, monkeypatch):
    monkeypatch.setattr(placing, "WORTH_KEEPING_BYTES", 0)
    scene = scene_of(made_up, 1100, 900, broken=(300, 300, 3))
    options = options_for(way, (1100, 900), folder=str(tmp_path / "store"), on_error="skip")
    with caplog.at_level(logging.WARNING):
        found = decode_scenes([scene], legend=made_up.LEGEND, options=options)
    (arrays,) = found.scenes
    assert type(arrays.pixels) is KINDS[way]
    hole = np.zeros((1100, 900), bool)
    for item in found.unreadable:
        assert isinstance(item, Unreadable)
        assert item.scene == "north"
        hole[item.window.slices] = True
    assert hole[300:303, 300:303].all()
    assert hole.sum() <= 256 * 256
    np.testing.assert_array_equal(everything(arrays.valid), ~hole)
    assert (everything(arrays.labels)[hole] == 255).all()
    expected = scene.image.values(np.arange(1100)[:, None], np.arange(900)[None])
    np.testing.assert_array_equal(everything(arrays.pixels)[:, ~hole], expected[:, ~hole])
    assert "north" in caplog.text
    count = len(found.unreadable)
    found.close()
    assert len(found.unreadable) == count
    # What has holes is not kept for others: they may find the file whole again.
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["locks"]


def test_a_failure_in_the_middle_of_an_epoch_hides_the_pixels_and_is_counted(made_up, tmp_path, monkeypatch):
    monkeypatch.setenv("GEOSEG_TEST_BROKEN", str(tmp_path / "broken"))
    options = options_for("blocks", (1100, 900), on_error="skip")
    found = decode_scenes([scene_of(made_up, 1100, 900)], legend=made_up.LEGEND, options=options)
    assert found.unreadable == []
    (tmp_path / "broken").touch()
    rows, cols = (axis.ravel() for axis in np.meshgrid([0, 300, 800], [0, 300, 600], indexing="ij"))
    windows = np.stack([np.zeros(9, int), rows, cols], 1)
    batch = gather_patches(found.scenes, windows, patch_px=320, part=TRAINING)
    seen, total = batch["valid"].numpy(), np.zeros(9, int)
    for k, (row, col) in enumerate(zip(rows, cols, strict=True)):
        truth = found.scenes[0].pixels.source.values(np.arange(row, row + 320)[:, None], np.arange(col, col + 320))
        assert (batch["image"][k].numpy()[:, seen[k]] == truth[:, seen[k]]).all()
        assert not batch["image"][k].numpy()[:, ~seen[k]].any()
        total[k] = seen[k].sum()
    assert (batch["label"].numpy()[~seen] == -100).all()
    assert 0 < total.sum() < 9 * 320 * 320
    failures = found.unreadable
    assert failures
    assert {item.scene for item in failures} == {"north"}
    gather_patches(found.scenes, windows, patch_px=320, part=TRAINING)
    assert len(found.unreadable) == len(failures)  # a block counts once
    found.close()
    assert len(found.unreadable) == len(failures)


def test_a_failure_in_the_middle_of_an_epoch_stops_and_names_the_scene(made_up, tmp_path, monkeypatch):
    monkeypatch.setenv("GEOSEG_TEST_BROKEN", str(tmp_path / "broken"))
    found = decode_scenes(
        [scene_of(made_up, 1100, 900)], legend=made_up.LEGEND, options=options_for("blocks", (1100, 900))
    )
    (tmp_path / "broken").touch()
    windows = np.array([[0, row, col] for row in (0, 600) for col in (0, 600)])
    with pytest.raises(ReadError, match="scene north cannot be read"):
        gather_patches(found.scenes, windows, patch_px=512, part=TRAINING)
    found.close()
