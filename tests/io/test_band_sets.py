"""A given set of bands, from images that lack some of them and from bands of 10, 20 and 60 m."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from geoseg.errors import BandError
from geoseg.io.band_sets import with_bands
from geoseg.io.clouds import Masked
from geoseg.io.gdal import GdalSource
from geoseg.io.grids import crop
from geoseg.io.sources import open_source
from geoseg.io.stamps import paths_in
from geoseg.tiling import Window

UTM = Affine(10, 0, 500_000, 0, -10, 4_200_000)


@pytest.fixture
def scene(write_tif, encoded):
    """Three bands, the third with nodata where the others have none."""
    blue = encoded(6, 8)
    return write_tif("scene.tif", np.concatenate([blue, 2 * blue, np.where(blue > 4000, 0, 3 * blue)]), nodata=0,
                     names=("blue", "Red", "nir"))  # fmt: skip


def test_bands_come_in_the_order_asked_for_under_the_names_asked_for(scene):
    found, absent = with_bands(open_source(scene), ["NIR", "red"])
    assert (found.bands, absent) == (("NIR", "red"), ())
    own = open_source(scene).read(found.geobox)
    raster = found.read(found.geobox)
    assert np.array_equal(raster.pixels, own.pixels[[2, 1]])
    assert np.array_equal(raster.valid, own.valid)
    assert with_bands(open_source(scene), ["blue", "Red", "nir"])[0] == open_source(scene)


def test_bands_that_lack_are_zeros_and_no_question_of_validity(scene):
    found, absent = with_bands(open_source(scene), ["swir", "red", "coastal", "BLUE"])
    assert absent == (0, 2)
    assert found.bands == ("swir", "red", "coastal", "BLUE")
    box = found.geobox.pad(2)
    raster, own = found.read(box), open_source(scene).read(box)
    assert raster.bands == found.bands
    assert raster.dtype == found.dtype == np.int32
    assert np.array_equal(raster.pixels[[1, 3]], own.pixels[[1, 0]])
    assert not raster.pixels[[0, 2]].any()
    # nir, which has nodata, is not asked; the frame around the image is invalid all the same.
    assert np.array_equal(raster.valid, np.pad(np.ones((6, 8), bool), 2))
    assert found.geobox == open_source(scene).geobox


def test_without_any_of_the_bands_what_is_left_is_where_the_image_lies(scene):
    found, absent = with_bands(open_source(scene), ["x", "y"])
    raster = found.read(found.geobox.pad(1))
    assert absent == (0, 1)
    assert not raster.pixels.any()
    assert np.array_equal(raster.valid, np.pad(np.ones((6, 8), bool), 1))


def test_only_what_is_wanted_is_read_below_masks_too(scene, write_tif):
    scl = write_tif("scl.tif", np.full((6, 8), 9, "uint8"))
    found, absent = with_bands(open_source({"path": scene, "mask": scl}), ["swir", "nir"])
    assert absent == (0,)
    assert isinstance(found.source, Masked)
    assert isinstance(found.source.source, GdalSource)
    assert found.source.source.chosen == (3,)
    assert not found.read(found.geobox).valid.any()


def test_a_band_set_is_a_value(scene):
    found, _ = with_bands(open_source(scene), ["red", "swir"])
    again = pickle.loads(pickle.dumps(found))  # noqa: S301
    assert again == found
    assert paths_in(again) == [scene]
    window = crop(found.geobox, Window(2, 3, 3, 4))
    assert np.array_equal(again.read(window).pixels, found.read(found.geobox).pixels[:, 2:5, 3:7])


@pytest.mark.parametrize("names", [[], ["red", "RED"]])
def test_names_that_make_no_sense_are_told(scene, names):
    with pytest.raises(BandError, match="needed is each name once"):
        with_bands(open_source(scene), names)


# -- bands of several resolutions --------------------------------------------------------------------------------------


@pytest.fixture
def sentinel(write_tif):
    """Bands of 10, 20 and 60 m over one square of 240 m, each value saying the pixel of its own grid."""
    planes = {
        size: np.arange(1, (240 // size) ** 2 + 1, dtype="int32").reshape(240 // size, -1) for size in (10, 20, 60)
    }
    for size, plane in planes.items():
        write_tif(f"B_{size}m.tif", plane, affine=UTM @ Affine.scale(size / 10), names=(f"b{size}",))
    return planes


def stack(tmp_path, order=(20, 10, 60), **options):
    return open_source({"stack": [{"path": str(tmp_path / f"B_{size}m.tif")} for size in order], **options})


def test_a_stack_lies_on_the_grid_of_10_m_and_coarser_bands_cover_it(sentinel, tmp_path):
    found = stack(tmp_path, resampling="nearest")
    assert found.geobox == GeoBox((24, 24), UTM, "EPSG:32612")
    raster = found.read(found.geobox)
    for band, size in enumerate((20, 10, 60)):
        assert np.array_equal(raster.pixels[band], np.kron(sentinel[size], np.ones((size // 10, size // 10), int)))
    assert raster.valid.all()


def test_read_at_20_m_bands_of_10_m_are_means_those_of_20_m_as_they_are(sentinel, tmp_path):
    box = GeoBox((12, 12), UTM @ Affine.scale(2), "EPSG:32612")
    found = stack(tmp_path).read(box)
    means = sentinel[10].reshape(12, 2, 12, 2).mean(axis=(1, 3))
    assert np.array_equal(found.pixels[0], sentinel[20])
    assert np.array_equal(found.pixels[1], np.rint(means))
    # A plane is what bilinear interpolation keeps: inside, 60 m read at 20 m lies on it.
    row, col = ((np.arange(12) + 0.5) / 3 - 0.5 for _ in range(2))
    plane = 1 + row[:, None] * 4 + col[None, :]
    assert np.abs(found.pixels[2] - plane)[2:-2, 2:-2].max() <= 0.5


def test_read_at_60_m_all_are_means(sentinel, tmp_path):
    found = stack(tmp_path, resampling="average").read(GeoBox((4, 4), UTM @ Affine.scale(6), "EPSG:32612"))
    for band, size in ((0, 20), (1, 10), (2, 60)):
        step = 60 // size
        means = sentinel[size].reshape(4, step, 4, step).mean(axis=(1, 3))
        assert np.array_equal(found.pixels[band], np.rint(means))
