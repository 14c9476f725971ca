"""A COG behind a web server: only the bytes that a window needs travel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.shutil import copy

from geoseg.errors import MissingInputError, ReadError
from geoseg.io.grids import crop
from geoseg.io.sources import open_source
from geoseg.tiling import Window

SIDE = 1536


@pytest.fixture
def served(tmp_path, write_tif, serve) -> Any:
    """A COG of several megabytes behind a loopback server."""
    pixels = np.random.default_rng(0).integers(1, 60_000, (2, SIDE, SIDE)).astype("uint16")
    plain = write_tif("plain.tif", pixels, names=("red", "nir"))
    (tmp_path / "www").mkdir()
    cog = tmp_path / "www" / "scene.tif"
    copy(plain, cog, driver="COG", BLOCKSIZE=256, COMPRESS="DEFLATE", OVERVIEW_RESAMPLING="AVERAGE")
    return serve(tmp_path / "www", size=cog.stat().st_size)


def test_a_small_window_fetches_a_small_part(served, tmp_path):
    source = open_source(f"{served.url}/scene.tif")
    assert served.size > 4_000_000
    assert source.bands == ("red", "nir")
    assert served.bytes_sent <= 100_000
    found = source.read(crop(source.geobox, Window(600, 700, 100, 120)))
    with rasterio.open(tmp_path / "plain.tif") as file:
        expected = file.read(window=rasterio.windows.Window(700, 600, 120, 100))
    assert np.array_equal(found.pixels, expected)
    # One tile row by two tiles of 2 bands hold 0.5 MB uncompressed; random numbers do not get smaller.
    assert 0 < served.bytes_sent < served.size / 4
    assert all(start > 0 or stop < 100_000 for start, stop in served.ranges)


def test_no_side_files_are_asked_for(served):
    source = open_source(f"{served.url}/scene.tif")
    source.read(crop(source.geobox, Window(0, 0, 64, 64)))
    assert {path.split()[1] for path in served.paths} == {"/scene.tif"}
    assert len(served.paths) <= 6


def test_an_overview_is_fetched_where_the_scene_is_shrunk(served):
    source = open_source(f"{served.url}/scene.tif")
    small = GeoBox((SIDE // 8, SIDE // 8), source.geobox.affine @ Affine.scale(8), source.geobox.crs)
    found = source.read(small)
    assert found.valid.all()
    assert served.bytes_sent < served.size / 4
    assert abs(found.pixels.mean() - 30_000) < 300


def test_the_same_bytes_are_not_fetched_twice(served):
    source = open_source(f"{served.url}/scene.tif")
    window = crop(source.geobox, Window(10, 10, 50, 50))
    first = source.read(window)
    count = len(served.ranges)
    again = source.read(window)
    assert np.array_equal(first.pixels, again.pixels)
    assert len(served.ranges) == count


def test_an_address_without_a_file_is_missing(served):
    with pytest.raises(MissingInputError, match=r"none\.tif is not there") as error:
        open_source(f"{served.url}/none.tif")
    assert "\n" not in str(error.value)


def test_an_address_that_is_refused_says_so(served):
    with pytest.raises(ReadError, match="403") as error:
        open_source(f"{served.url}/broken.tif")
    assert "\n" not in str(error.value)


def test_a_mosaic_can_mix_addresses_and_files(served, write_tif):
    beside = write_tif("beside.tif", np.full((2, 8, 8), 7, "uint16"), names=("red", "nir"),
                       affine=Affine(10, 0, 500_000 + SIDE * 10, 0, -10, 4_200_000))  # fmt: skip
    mosaic = open_source([f"{served.url}/scene.tif", beside])
    found = mosaic.read(crop(mosaic.geobox, Window(0, SIDE - 4, 8, 8)))
    assert found.valid.all()
    assert (found.pixels[:, :, 4:] == 7).all()
    assert found.pixels[:, :, :4].std() > 1000
