"""Masked images on other grids: what is hidden has no share in values, as if it were nodata; and nodata of masks."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from geoseg.io import clouds
from geoseg.io.clouds import Masked, pick_bands, roughly
from geoseg.io.gdal import GdalSource
from geoseg.io.grids import crop
from geoseg.io.resample import RESAMPLINGS
from geoseg.io.sources import open_source
from geoseg.tiling import Window

UTM = Affine(10, 0, 500_000, 0, -10, 4_200_000)
CLEAR, CLOUD = 4, 9
TARGETS = {
    "own": GeoBox((60, 70), UTM, "EPSG:32612"),
    "four times": GeoBox((15, 18), UTM @ Affine.scale(4), "EPSG:32612"),
    "five times, beyond": GeoBox((16, 18), UTM @ Affine.translation(-10, -5) @ Affine.scale(5), "EPSG:32612"),
    "half a pixel off": GeoBox((60, 70), UTM @ Affine.translation(0.5, 0.5), "EPSG:32612"),
    "coarse": GeoBox((20, 22), UTM @ Affine.translation(-3.3, 1.4) @ Affine.scale(3.4), "EPSG:32612"),
    "fine": GeoBox((80, 80), UTM @ Affine.translation(9.7, 5.2) @ Affine.scale(0.4), "EPSG:32612"),
    "degrees": GeoBox((40, 40), Affine(0.00019, 0, -111.0003, 0, -0.00016, 37.9479), "EPSG:4326"),
}


def hidden_and_seen(shape, seed=5, share=0.3):
    """Values, and where they are hidden by pieces of cloud of several pixels; hidden ones are far too bright."""
    rng = np.random.default_rng(seed)
    hidden = np.kron(rng.random((shape[0] // 2, shape[1] // 2)) < share, np.ones((2, 2), bool))
    values = rng.integers(100, 4000, shape)
    return np.where(hidden, 60_000, values).astype("uint16"), hidden


@pytest.fixture
def scene(write_tif):
    """A cloudy image and its mask as two files, and the same image with what is hidden as nodata."""
    values, hidden = hidden_and_seen((60, 70))
    mask = write_tif("scl.tif", np.where(hidden, CLOUD, CLEAR).astype("uint8"))
    clean = write_tif("clean.tif", np.where(hidden, 0, values).astype("uint16"), nodata=0)
    return write_tif("image.tif", values), mask, clean


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("resampling", RESAMPLINGS)
def test_what_a_mask_hides_is_as_nodata_on_any_grid(scene, resampling, target):
    image, mask, clean = scene
    found = open_source({"path": image, "resampling": resampling, "mask": mask}).read(TARGETS[target])
    expected = open_source({"path": clean, "resampling": resampling}).read(TARGETS[target])
    assert expected.valid.mean() > 0.2
    assert np.array_equal(found.valid, expected.valid)
    assert np.array_equal(found.pixels[:, found.valid], expected.pixels[:, found.valid])


def test_a_mean_is_that_of_what_is_seen(write_tif):
    values, codes = np.full((8, 8), 100, "uint16"), np.full((8, 8), CLEAR, "uint8")
    values[:, [0, 4]], codes[:, [0, 4]] = 10_000, CLOUD
    found = open_source({"path": write_tif("i.tif", values), "mask": write_tif("scl.tif", codes)})
    raster = found.read(GeoBox((2, 2), UTM @ Affine.scale(4), "EPSG:32612"))
    assert raster.valid.all()
    assert np.unique(raster.pixels).tolist() == [100]
    raster = found.read(TARGETS["half a pixel off"])
    assert np.unique(raster.pixels[:, raster.valid]).tolist() == [100]
    assert raster.valid[0, :8].tolist() == [True, True, True, False, True, True, True, False]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("by_band", [True, False], ids=["a band each", "one file"])
def test_a_mosaic_is_masked_as_its_whole_is(write_tif, scene, target, by_band):
    image, mask, clean = scene
    paths = []
    for col, cols in ((0, 33), (33, 37)):
        parts = []
        for path in (image, mask):
            with rasterio.open(path) as file:
                parts.append(file.read(1)[:, col : col + cols].astype("uint16"))
        affine = UTM @ Affine.translation(col, 0)
        parts = parts if by_band else parts[:1]
        paths.append(write_tif(f"{col}.tif", np.stack(parts), affine=affine, names=("red", "SCL")[: len(parts)]))
    found = open_source({"mosaic": paths, "mask": {"band": "SCL"} if by_band else mask}).read(TARGETS[target])
    expected = open_source(clean).read(TARGETS[target])
    assert np.array_equal(found.valid, expected.valid)
    assert np.array_equal(found.pixels[:, found.valid], expected.pixels[:, found.valid])


@pytest.mark.parametrize("target", TARGETS)
def test_in_a_stack_each_band_is_masked_on_its_own_pixels(write_tif, target):
    fine, below = hidden_and_seen((60, 70))
    coarse = np.where(below[::2, ::2], 60_000, np.arange(30 * 35).reshape(30, 35)).astype("uint16")
    twice = UTM @ Affine.scale(2)
    bands = [write_tif("B04.tif", fine, names=("red",)),
             write_tif("B03.tif", fine // 2, names=("green",)),
             write_tif("B11.tif", coarse, affine=twice, names=("swir",))]  # fmt: skip
    codes = np.where(below[::2, ::2], CLOUD, CLEAR).astype("uint8")
    mask = write_tif("scl.tif", codes, affine=twice, names=("SCL",))
    found = open_source({"stack": [*bands, mask], "mask": {"band": "SCL"}})
    clean = [write_tif("clean_fine.tif", np.where(below, 65_535, np.stack([fine, fine // 2])), nodata=65_535),
             write_tif("clean_coarse.tif", np.where(below[::2, ::2], 65_535, coarse), affine=twice,
                       nodata=65_535)]  # fmt: skip
    expected = open_source({"stack": clean, "bands": ["red", "green", "swir"]}).read(TARGETS[target])
    raster = found.read(TARGETS[target])
    assert raster.bands == found.bands == ("red", "green", "swir")
    assert np.array_equal(raster.valid, expected.valid)
    assert np.array_equal(raster.pixels[:, raster.valid], expected.pixels[:, raster.valid])


@given(st.sampled_from(["five times, beyond", "coarse", "degrees"]), st.data())
@settings(max_examples=40)
def test_a_window_of_a_masked_read_is_the_read_of_that_window(noisy, target, data):
    box = TARGETS[target]
    whole = noisy.read(box)
    row, col = (data.draw(st.integers(0, size - 1)) for size in box.shape)
    rows, cols = (data.draw(st.integers(1, size - at)) for size, at in zip(box.shape, (row, col), strict=True))
    window = Window(row, col, rows, cols)
    found = noisy.read(crop(box, window))
    assert np.array_equal(found.valid, whole.valid[window.slices])
    assert np.array_equal(found.pixels[:, found.valid], whole.pixels[:, *window.slices][:, found.valid])


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """A cloudy image with overviews, masked by a mask of another grid that grows."""
    folder = tmp_path_factory.mktemp("noisy")
    values, hidden = hidden_and_seen((60, 70), share=0.1)
    codes = np.where(hidden[::2, ::2], CLOUD, CLEAR)
    files = {"image.tif": (values, UTM), "scl.tif": (codes, UTM @ Affine.translation(-4.3, -3.1) @ Affine.scale(2.3))}
    for name, (pixels, affine) in files.items():
        shape = dict(zip(("height", "width"), pixels.shape, strict=True))
        profile = {"driver": "GTiff", "count": 1, "dtype": "uint16", "crs": "EPSG:32612", **shape}
        with rasterio.open(folder / name, "w", transform=affine, **profile) as file:
            file.write(pixels.astype("uint16"), 1)
    with rasterio.open(folder / "image.tif", "r+") as file:
        file.build_overviews([2], rasterio.enums.Resampling.average)
    return open_source({"path": str(folder / "image.tif"), "mask": {"path": str(folder / "scl.tif"), "grow_px": 2}})


def test_sources_that_do_not_say_how_they_are_resampled_are_masked_as_they_are_read(scene):
    image, mask, _ = scene

    class Foreign:
        inner = open_source(image)
        geobox, bands, dtype = inner.geobox, inner.bands, inner.dtype

        def read(self, geobox):
            return self.inner.read(geobox)

    found = Masked(Foreign(), open_source(mask), open_source({"path": image, "mask": mask}).rule)
    raster = found.read(found.geobox)
    assert np.array_equal(raster.valid, open_source({"path": image, "mask": mask}).read(found.geobox).valid)


# -- what is read for it -----------------------------------------------------------------------------------------------


@pytest.fixture
def boxes(monkeypatch):
    """Files and the shapes and steps, in pixels, of what is read of them."""
    seen, read = [], GdalSource.read

    def spied(self, geobox):
        seen.append((self.path.rsplit("/", 1)[-1], tuple(geobox.shape), round(geobox.affine.a / UTM.a)))
        return read(self, geobox)

    monkeypatch.setattr(GdalSource, "read", spied)
    return seen


@pytest.mark.parametrize("kind", ["one", "picked", "mosaic"])
def test_for_a_picture_image_and_mask_are_read_as_coarse_as_it_is(scene, boxes, kind):
    image, mask, _ = scene
    found = open_source(
        {"mosaic" if kind == "mosaic" else "path": [image] if kind == "mosaic" else image, "mask": mask}
    )
    found = pick_bands(found, [0], ["shown"]) if kind == "picked" else found
    raster = roughly(found).read(TARGETS["four times"])
    with rasterio.open(mask) as file:
        clear = file.read(1)[2::4, 2::4] == CLEAR
    assert np.array_equal(raster.valid[:, :17], clear[:, :17])
    assert {step for _, _, step in boxes} == {4}


def test_only_pieces_that_a_mask_hides_a_part_of_are_read_in_full(write_tif, boxes, monkeypatch):
    monkeypatch.setattr(clouds, "RAGGED_PX", 16 * 16)
    values, codes = np.arange(128 * 128).reshape(128, 128).astype("uint16"), np.full((128, 128), CLEAR, "uint8")
    codes[2, 2] = codes[125, 125] = CLOUD
    found = open_source({"path": write_tif("i.tif", values), "mask": write_tif("scl.tif", codes)})
    raster = found.read(GeoBox((32, 32), UTM @ Affine.scale(4), "EPSG:32612"))
    seen = np.where(codes == CLEAR, values.astype(float), np.nan).reshape(32, 4, 32, 4)
    assert raster.valid.all()
    assert np.array_equal(raster.pixels[0], np.rint(np.nanmean(seen, axis=(1, 3))))
    assert [shape for name, shape, step in boxes if name == "i.tif" and step == 1] == [(16, 16), (16, 16)]


# -- nodata of masks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nodata", [255, 7.0, float("nan"), -9999.5])
def test_values_of_a_band_that_a_file_calls_nodata_count_where_the_image_lies_in_that_file_too(write_tif, nodata):
    planes = np.array([[[10, 20, 30, 40]], [[0, 1, 255, 2]]], "float32")
    path = write_tif("one.tif", planes, nodata=nodata, names=("red", "qa"))
    found = open_source({"path": path, "mask": {"band": "qa", "kind": "values", "drop": [1]}})
    assert found.read(found.geobox).valid[0].tolist() == [True, False, True, True]


def test_nodata_of_a_mask_in_a_file_of_its_own_is_not_clear(write_tif):
    image = write_tif("image.tif", np.array([[10, 20, 30, 40]], "uint16"), names=("red",))
    qa = write_tif("qa.tif", np.array([[0, 1, 255, 2]], "uint8"), nodata=255, names=("qa",))
    rule = {"kind": "values", "drop": [1]}
    for spec in ({"stack": [image, qa], "mask": {"band": "qa", **rule}}, {"path": image, "mask": {"path": qa, **rule}}):
        found = open_source(spec)
        assert found.read(found.geobox).valid[0].tolist() == [True, False, False, True]


@pytest.mark.parametrize("spec", ["band", "file"])
@pytest.mark.parametrize(
    ("rule", "valid"), [({"keep": [0]}, [True, False, True]), ({"keep": [2]}, [False, False, False])]
)
def test_a_nodata_value_that_the_rule_names_is_a_code(write_tif, caplog, spec, rule, valid):
    image = write_tif("image.tif", np.array([[10, 20, 30]], "uint16"), names=("red",))
    cloud = write_tif("cloud.tif", np.array([[0, 1, 0]], "uint8"), nodata=0, names=("cloud",))
    rule = {"kind": "values", **rule}
    found = open_source(
        {"stack": [image, cloud], "mask": {"band": "cloud", **rule}}
        if spec == "band"
        else {"path": image, "mask": {"path": cloud, **rule}}
    )
    assert found.read(found.geobox).valid[0].tolist() == valid
    assert not caplog.records


def test_that_zero_is_a_masks_nodata_and_not_clear_is_said(write_tif, caplog):
    image = write_tif("image.tif", np.array([[10, 20, 30]], "uint16"), names=("red",))
    cloud = write_tif("cloud.tif", np.array([[0, 1, 0]], "uint8"), nodata=0, names=("cloud",))
    rule = {"kind": "values", "drop": [1]}
    found = open_source({"stack": [image, cloud], "mask": {"band": "cloud", **rule}})
    assert not found.read(found.geobox).valid.any()
    assert "mask cloud.tif: 0 is its nodata" in caplog.text
    assert "keep: [0]" in caplog.text
    open_source({"path": image, "mask": {"path": cloud, **rule}})
    assert len(caplog.records) == 1
    caplog.clear()
    open_source({"path": image, "mask": {"path": cloud, "nodata": 0, **rule}})
    open_source({"path": image, "mask": {"path": write_tif("q.tif", [[0, 1, 0]], nodata=255), **rule}})
    assert not caplog.records
