"""Overviews: whether they hold means, where their pixels lie, and windows as the whole."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.errors import RasterioIOError
from rasterio.shutil import copy

from geoseg.errors import ReadError
from geoseg.io import handles, overviews
from geoseg.io.clouds import roughly
from geoseg.io.combine import BandStack, Mosaic
from geoseg.io.gdal import GdalSource
from geoseg.io.grids import crop
from geoseg.io.sources import open_source
from geoseg.tiling import Window

UTM = Affine(10, 0, 500_000, 0, -10, 4_200_000)


def textured(shape, seed=3):
    """Fields of flat values with noise on them."""
    rows, cols = np.indices(shape)
    noise = np.random.default_rng(seed).integers(0, 60, shape)
    return (40 + 90 * ((rows // 37 + cols // 29) % 2) + noise).astype("uint8")


@pytest.fixture
def with_overviews(write_tif):
    """Writes a file with overviews that say, or do not say, how they were made."""

    def write(pixels, levels, method, *, said=True, **profile):
        path = write_tif("o.tif", pixels, tiled=True, blockxsize=128, blockysize=128, **profile)
        with rasterio.open(path, "r+") as file:
            file.build_overviews(levels, method)
        for position in range(0 if said else len(levels)):
            with rasterio.open(path, "r+", overview_level=position) as file:
                for band in file.indexes:
                    file.update_tags(band, RESAMPLING="")
        return path

    return write


@pytest.fixture
def decoded(monkeypatch):
    """Factors of the levels that are read."""
    seen, decode = [], GdalSource._decode_inside
    monkeypatch.setattr(
        GdalSource,
        "_decode_inside",
        lambda self, level, window: (seen.append(level.factor), decode(self, level, window))[1],
    )
    return seen


def coarse(shape, factor):
    return GeoBox(tuple(size // factor for size in shape), UTM @ Affine.scale(factor), "EPSG:32612")


def means(pixels, factor):
    rows, cols = (size // factor for size in pixels.shape)
    return pixels[: rows * factor, : cols * factor].reshape(rows, factor, cols, factor).mean(axis=(1, 3))


@pytest.mark.parametrize("said", [True, False], ids=["it says", "it does not say"])
@pytest.mark.parametrize("method", [Resampling.average, Resampling.cubic, Resampling.nearest, Resampling.mode])
def test_overviews_stand_for_means_where_they_hold_means(with_overviews, decoded, method, said):
    pixels = textured((512, 384))
    path = with_overviews(pixels, [2, 4, 8], method, said=said)
    for resampling in ("bilinear", "cubic", "average"):
        decoded.clear()
        found = GdalSource(path, resampling=resampling).read(coarse(pixels.shape, 8)).pixels[0]
        trusted = method in (Resampling.average, Resampling.cubic)
        assert set(decoded) == ({8} if trusted else {1})
        assert np.abs(found - means(pixels, 8)).mean() < (3 if trusted else 0.51)


def test_what_overviews_hold_is_looked_at_where_the_image_is_roughest(with_overviews, decoded):
    pixels = np.full((1024, 1024), 40, "uint8")
    pixels[900:960, 64:128] = textured((60, 64))
    source = GdalSource(with_overviews(pixels, [4, 16], Resampling.nearest, said=False))
    found = source.read(coarse(pixels.shape, 16)).pixels[0]
    assert set(decoded) == {1}
    assert np.abs(found - means(pixels, 16)).max() <= 0.5


@pytest.mark.parametrize("method", [Resampling.nearest, Resampling.average])
def test_of_several_bands_the_first_that_varies_tells_what_overviews_hold(with_overviews, decoded, method):
    pixels = textured((512, 512))
    few = np.random.default_rng(0).integers(0, 2, pixels.shape).astype("uint8")
    bands = np.stack([np.ones_like(pixels), few, pixels])
    source = GdalSource(with_overviews(bands, [8], method, said=False))
    found = source.read(coarse(pixels.shape, 8)).pixels[2]
    assert set(decoded) == ({1} if method == Resampling.nearest else {8})
    assert np.abs(found - means(pixels, 8)).max() <= 0.51


def test_gaussian_weights_of_a_few_pixels_are_no_means(with_overviews, decoded):
    pixels = textured((256, 256))
    path = with_overviews(pixels, [2, 4], Resampling.average)
    with rasterio.open(path, "r+", overview_level=1) as file:
        file.update_tags(1, RESAMPLING="GAUSS")
    GdalSource(path).read(coarse(pixels.shape, 4))
    assert set(decoded) == {2}


@pytest.fixture
def far(monkeypatch):
    """Files are as if read over a net; windows of the files themselves that are looked at."""
    seen, look = [], overviews._seen

    def spied(opened, index, window, shape=None):
        if opened.shape != (1024, 1024):
            return look(opened, index, window, shape)
        seen.append(window)
        return look(opened, index, window, shape)

    monkeypatch.setattr(overviews, "is_remote", lambda _: True)
    monkeypatch.setattr(overviews, "_seen", spied)
    return seen


@pytest.mark.parametrize("method", [Resampling.average, Resampling.nearest])
def test_over_a_net_one_block_of_the_file_is_looked_at(with_overviews, decoded, far, method):
    pixels = textured((1024, 1024))
    path = with_overviews(pixels, [4, 8], method, said=False)
    GdalSource(path).read(coarse(pixels.shape, 8))
    assert set(decoded) == ({8} if method is Resampling.average else {1})
    blocks = {(w.row_off // 128, (w.row_stop - 1) // 128, w.col_off // 128, (w.col_stop - 1) // 128) for w in far}
    assert blocks == {(4, 4, 4, 4)}


@pytest.mark.parametrize("nodata", [40, None])
def test_over_a_net_more_is_looked_at_where_that_block_tells_nothing(with_overviews, decoded, far, nodata):
    pixels = np.full((1024, 1024), 40, "uint8")
    pixels[900:960, 64:128] = textured((60, 64))
    GdalSource(with_overviews(pixels, [4, 16], Resampling.nearest, said=False, nodata=nodata)).read(
        coarse(pixels.shape, 16)
    )
    assert set(decoded) == {1}
    assert len(far) == 4  # of either overview


def test_a_broken_block_does_not_matter_to_places_beside_it(with_overviews):
    pixels = np.full((512, 512), 40, "uint8")
    pixels[:128, :128] = 60 + np.indices((128, 128)).sum(axis=0) // 4
    pixels[400:500, 400:500] = textured((100, 100))
    path = with_overviews(pixels, [4], Resampling.average, said=False, compress="deflate")
    with rasterio.open(path) as file:
        start, size = (int(file.get_tag_item(f"BLOCK_{what}_3_3", "TIFF", 1)) for what in ("OFFSET", "SIZE"))
    with open(path, "r+b") as file:  # noqa: PTH123
        file.seek(start + 10)
        file.write(b"\xff" * (size - 20))
    box = coarse(pixels.shape, 4)
    found = GdalSource(path).read(crop(box, Window(0, 0, 32, 32)))
    assert found.valid.all()
    assert np.abs(found.pixels[0] - means(pixels, 4)[:32, :32]).max() <= 0.5
    with pytest.raises(ReadError, match="o.tif cannot be read at rows"):
        GdalSource(path).read(box)


def test_what_could_not_be_looked_at_once_is_looked_at_again(with_overviews, decoded, monkeypatch):
    pixels = textured((512, 384))
    path = with_overviews(pixels, [8], Resampling.average, said=False)

    def fails(*_):
        raise RasterioIOError("the server is busy")

    for look, level in ((fails, 1), (overviews._are_means, 8)):
        decoded.clear()
        monkeypatch.setattr(overviews, "_are_means", look)
        GdalSource(path).read(coarse(pixels.shape, 8))
        assert set(decoded) == {level}


def test_overviews_do_not_take_the_places_of_open_files(write_tif, monkeypatch):
    monkeypatch.setattr(handles, "OPEN_PER_THREAD", 3)
    paths = [write_tif(f"{i}.tif", textured((64, 64)), affine=UTM @ Affine.translation(64 * i, 0)) for i in range(3)]
    for path in paths:
        with rasterio.open(path, "r+") as file:
            file.build_overviews([2], Resampling.average)
    source = open_source(paths)
    box = coarse((64, 192), 2)
    opened, open_ = [], handles._open
    monkeypatch.setattr(handles, "_open", lambda path, options: (opened.append(path), open_(path, options))[1])
    first, again = (source.read(box).pixels, len(opened)), (source.read(box).pixels, len(opened))
    assert np.array_equal(first[0], again[0])
    assert first[1] == again[1] >= 3


@pytest.mark.parametrize("value", [10, 0])
def test_where_nothing_differs_an_overview_of_any_kind_will_do(with_overviews, decoded, value):
    pixels = np.full((512, 512), value, "uint8")
    source = GdalSource(with_overviews(pixels, [4, 16], Resampling.nearest, said=False, nodata=0))
    found = source.read(coarse(pixels.shape, 64))
    assert decoded == [16]
    assert np.unique(found.pixels).tolist() == [value]
    assert found.valid.all() == (value != 0)


def test_overviews_with_holes_are_means_of_what_is_there(with_overviews, decoded):
    pixels = textured((512, 512)).astype("float32") / 7
    pixels[np.random.default_rng(4).random(pixels.shape) < 0.2] = -9999
    source = GdalSource(with_overviews(pixels, [4], Resampling.average, said=False, nodata=-9999))
    found = source.read(coarse(pixels.shape, 4))
    assert decoded == [4]
    assert found.valid.mean() > 0.99
    assert found.pixels[0][found.valid].min() > 0


def test_what_a_user_calls_nodata_may_be_mixed_into_overviews_so_they_are_left(with_overviews, decoded):
    source = GdalSource(with_overviews(textured((256, 256)), [2], Resampling.average), nodata=41)
    source.read(coarse((256, 256), 2))
    assert set(decoded) == {1}


@pytest.mark.parametrize("internal", [True, False])
@pytest.mark.parametrize("shape", [(256, 256), (251, 250)])
def test_a_mask_that_was_not_shrunk_with_the_overviews_counts(write_tif, decoded, internal, shape):
    pixels = textured(shape)
    path = write_tif("m.tif", pixels, tiled=True)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2], Resampling.average)
    seen = np.ones(pixels.shape, bool)
    seen[:, :100] = False
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(path, "r+") as file:
        file.write_mask(seen)
    found = GdalSource(path).read(coarse(pixels.shape, 10))
    assert set(decoded) == {2}
    assert np.array_equal(found.valid, seen[::10, ::10][: shape[0] // 10, : shape[1] // 10])


@pytest.mark.parametrize("around", [lambda s: s, lambda s: Mosaic((s,)), lambda s: BandStack((s,), names=("a",))])
def test_for_a_picture_any_overview_will_do(with_overviews, decoded, around):
    pixels = textured((256, 256))
    source = roughly(around(GdalSource(with_overviews(pixels, [2, 8], Resampling.nearest))))
    found = source.read(coarse(pixels.shape, 8))
    assert set(decoded) == {8}
    assert found.valid.all()
    assert np.abs(found.pixels[0] - means(pixels, 8)).max() > 5


def test_a_cog_of_averages_is_read_from_its_overviews(write_tif, decoded, tmp_path):
    plain = write_tif("plain.tif", textured((1000, 900)))
    copy(plain, tmp_path / "cog.tif", driver="COG", BLOCKSIZE=128, OVERVIEW_RESAMPLING="AVERAGE")
    found = open_source(tmp_path / "cog.tif").read(coarse((1000, 900), 32))
    assert set(decoded) == {8}
    assert np.abs(found.pixels[0] - means(textured((1000, 900)), 32)).mean() < 5


# -- where their pixels lie --------------------------------------------------------------------------------------------

SHAPES = ((300, 256), (301, 250), (333, 289))


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """Files whose sides overviews divide or not, without and with holes."""
    folder, found = tmp_path_factory.mktemp("odd"), []
    for shape in SHAPES:
        pixels = textured(shape)
        pixels[50:90, :77] = 0
        path = str(folder / f"{shape[0]}.tif")
        profile = {"width": shape[1], "height": shape[0], "count": 1, "dtype": "uint8", "transform": UTM}
        nodata = 0 if shape[0] % 2 else None
        with rasterio.open(path, "w", driver="GTiff", crs="EPSG:32612", nodata=nodata, **profile) as file:
            file.write(pixels, 1)
        with rasterio.open(path, "r+") as file:
            file.build_overviews([2, 4, 8], Resampling.average)
        found.append((path, pixels))
    return found


@given(st.integers(0, 2), st.sampled_from(["bilinear", "average"]), st.data())
@settings(max_examples=60)
def test_a_window_of_a_shrunk_read_is_the_read_of_that_window(odd, number, resampling, data):
    path, pixels = odd[number]
    scale, off = data.draw(st.sampled_from([8, 16, 12, 9.3, 20.7])), data.draw(st.integers(-3, 9))
    shape = tuple(int(size // scale) + 2 for size in pixels.shape)
    box = GeoBox(shape, UTM @ Affine.translation(off, off) @ Affine.scale(scale), "EPSG:32612")
    source = GdalSource(path, resampling=resampling)
    row, col = (data.draw(st.integers(0, size - 1)) for size in shape)
    rows, cols = (data.draw(st.integers(1, size - at)) for size, at in zip(shape, (row, col), strict=True))
    window = Window(row, col, rows, cols)
    whole, part = source.read(box), source.read(crop(box, window))
    assert np.array_equal(part.valid, whole.valid[window.slices])
    assert np.array_equal(part.pixels, whole.pixels[:, *window.slices])


@pytest.mark.parametrize("number", range(3))
def test_an_overview_of_a_side_that_it_does_not_divide_is_read_by_its_true_pixel_size(odd, decoded, number):
    path, _ = odd[number]
    with rasterio.open(path, "r+") as file:
        rows, cols = np.indices(file.shape)
        file.write((rows // 2 + cols // 4 + 20).astype("uint8"), 1)  # a ramp, on which a shift shows
        file.build_overviews([2, 4, 8], Resampling.average)
        ramp = file.read(1)
    found = GdalSource(path).read(coarse(ramp.shape, 32)).pixels[0]
    assert set(decoded) == {8}
    # A shift by half of an overview's pixel is one of 4 rows and 4 columns.
    assert np.abs(found - means(ramp, 32)).max() <= 4 / 2 + 4 / 4 + 1
