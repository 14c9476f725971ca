"""Every odd file: read on its own grid, or refused in one line; quickly, and in little memory."""

from __future__ import annotations

import csv
import resource
from pathlib import Path

import numpy as np
import pytest
import rasterio

from geoseg.errors import GeosegError
from geoseg.io.grids import crop
from geoseg.io.sources import open_source
from geoseg.tiling import Window

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "awkward"
MOST_MB = 900


def index() -> list[dict[str, str]]:
    """What rasterio alone says of each file."""
    if not FOLDER.is_dir():
        return []
    with (FOLDER / "INDEX.tsv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def first_pixels(path: Path):
    """The source and its first 512 x 512 pixels."""
    source = open_source(path)
    rows, cols = source.geobox.shape
    return source, source.read(crop(source.geobox, Window(0, 0, min(512, rows), min(512, cols))))


def attempt(path: Path):
    """The refusal, or the pixels."""
    try:
        return "", first_pixels(path)[1]
    except GeosegError as error:
        return str(error), None


@pytest.mark.skipif(not FOLDER.is_dir(), reason="real imagery is absent: no ../shared/data beside the checkout")
@pytest.mark.parametrize("row", index(), ids=lambda row: row["file"])
@pytest.mark.timeout(20)
def test_each_file_is_read_or_refused_in_one_line(row):
    path = FOLDER / row["file"]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refusal, found = attempt(path)
    if found is None:
        assert "\n" not in refusal
        assert row["file"] in refusal
        assert len(refusal) < 500
    else:
        assert not np.issubdtype(found.dtype, np.complexfloating)
        assert not np.issubdtype(found.dtype, np.floating) or np.isfinite(found.pixels[:, found.valid]).all()
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MOST_MB


REFUSED = {
    "gdal/cfloat32.tif": "complex numbers",
    "gdal/byte_gcp.tif": "ground control points",
    "gdal/byte_rpc.tif": "RPCs",
    "gdal/byte_truncated.tif": "cannot be read at rows 0 to 20",
    "gdal/scanline_more_than_2GB.tif": "blocks of 1 x 2147483647",
    "gdal/hugeblocksize.tif": "cannot be opened",
    "gdal/idontexist.vrt": "is not there",
    "gdal/vrt/pixfun_sum_r.vrt": "is not there",
    "gdal/test_mosaic.vrt": "is not there",
    "rasterio/RGB.byte.gcp.vrt": "ground control points",
    "rioxarray/test_rpcs.tif": "RPCs",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_right_is_refused(shared_data, name):
    with pytest.raises(GeosegError, match=REFUSED[name]):
        first_pixels(shared_data / "awkward" / name)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_what_is_plain_is_read_as_rasterio_reads_it(shared_data):
    compared = 0
    for row in index():
        if not row["status"].startswith("ok") or row["mask_flags"] != "all_valid" or row["file"].endswith(".vrt"):
            continue
        try:
            _, found = first_pixels(shared_data / "awkward" / row["file"])
        except GeosegError:
            continue
        if found.dtype != np.dtype(row["dtype"]):
            continue
        with rasterio.open(shared_data / "awkward" / row["file"]) as file:
            window = rasterio.windows.Window(0, 0, *found.pixels.shape[:0:-1])
            assert np.array_equal(found.pixels, file.read(window=window), equal_nan=found.dtype.kind == "f")
        compared += 1
    assert compared > 120


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("gdal/stefan_full_rgba.tif", 0.515),
        ("gdal/nan32.tif", 0.9),
        ("gdal/test3_with_1mask_1bit.tif", 0.25),
        ("gdal/test3_with_mask_1bit.tif", 0.25),
        ("rasterio/all-nodata.tif", 0.0),
        ("riotiler/cog_rgba.tif", 0.887),
        ("riotiler/cog_nodata_nan.tif", 0.460),
    ],
)
def test_validity_comes_from_alpha_masks_nan_and_nodata(shared_data, name, share):
    _, found = first_pixels(shared_data / "awkward" / name)
    assert found.valid.mean() == pytest.approx(share, abs=0.001)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_validity_is_what_gdal_says_of_the_whole_dataset(shared_data):
    compared = 0
    for row in index():
        if row["mask_flags"] not in ("nodata", "per_dataset") or not row["status"].startswith("ok"):
            continue
        try:
            source, found = first_pixels(shared_data / "awkward" / row["file"])
        except GeosegError:
            continue
        with rasterio.open(shared_data / "awkward" / row["file"]) as file:
            window = rasterio.windows.Window(0, 0, *found.pixels.shape[:0:-1])
            bands = range(1, len(source.bands) + 1)
            masks = np.array([file.read_masks(band, window=window) != 0 for band in bands])
            raw = file.read(list(bands), window=window)
        if raw.dtype.kind == "f":
            masks &= np.isfinite(raw)
        assert np.array_equal(found.valid, masks.all(axis=0)), row["file"]
        compared += 1
    assert compared > 25
