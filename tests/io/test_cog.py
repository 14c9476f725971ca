"""Class and confidence maps on disk: read back by GDAL itself, whole or not there at all."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.enums import ColorInterp, MaskFlags
from rio_cogeo import cog_validate

from geoseg.errors import InputError, OutputError, OutputExistsError, ReadError
from geoseg.io import cog
from geoseg.io.cog import part_tags, write_cog, write_part
from geoseg.io.grids import crop
from geoseg.legend import Legend
from geoseg.tiling import Window

LEGEND = Legend.from_dict({1: "water", 3: {"name": "forêt & <bog>", "color": "#123456"}, 7: "urban"})
AFFINE = Affine(30.1, 0, 300000.3, 0, -30.1, 4100000.7)


def grid(rows=700, cols=900, affine=AFFINE, crs="EPSG:32612"):
    return GeoBox((rows, cols), affine, crs)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def classes_on(geobox, legend=LEGEND):
    """Class ids that tell their place: 64-pixel patches, with some nodata."""
    rows, cols = np.indices(tuple(geobox.shape)) // 64
    choices = np.append(legend.ids, legend.ignore).astype(legend.dtype)
    return choices[(rows * 5 + cols * 3) % len(choices)]


def cut(folder, pixels, geobox, *, side=400, **options):
    """Parts of `pixels`, in an order that is not theirs."""
    rows, cols = geobox.shape
    paths = []
    for row in range(0, rows, side):
        for col in range(0, cols, side):
            window = Window(row, col, min(side, rows - row), min(side, cols - col))
            path = folder / f"part{row}_{col}.tif"
            paths.append(write_part(path, pixels[window.slices], geobox=crop(geobox, window), **options))
    return paths[::-1]


def class_map(folder, geobox=None, legend=LEGEND, **options):
    geobox = grid() if geobox is None else geobox
    pixels = classes_on(geobox, legend)
    parts = cut(folder, pixels, geobox, nodata=legend.ignore)
    given = {"dtype": legend.dtype, "nodata": legend.ignore, "legend": legend, "resampling": "mode"} | options
    return write_cog(parts, folder / "out" / "map.tif", geobox=geobox, **given), pixels


def test_pixels_and_place_survive(tmp_path):
    path, pixels = class_map(tmp_path)
    with rasterio.open(path) as file:
        assert (file.read(1) == pixels).all()
        assert file.transform == AFFINE
        assert file.crs == rasterio.CRS.from_epsg(32612)
        assert (file.dtypes, file.nodata, file.descriptions) == (("uint8",), 255, ("class",))
        assert file.mask_flag_enums == ([MaskFlags.nodata],)


def test_it_is_a_cloud_optimized_geotiff(tmp_path):
    path, _ = class_map(tmp_path)
    with rasterio.open(path) as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.tags(ns="IMAGE_STRUCTURE")["COMPRESSION"] == "DEFLATE"
        assert file.block_shapes == [(512, 512)]
        assert file.overviews(1) == [2]
    head = path.read_bytes()[:300]
    assert b"LAYOUT=IFDS_BEFORE_DATA" in head
    assert b"KNOWN_INCOMPATIBLE_EDITION=NO" in head


def test_overviews_hold_classes_only(tmp_path):
    path, pixels = class_map(tmp_path)
    with rasterio.open(path, overview_level=0) as file:
        small = file.read(1)
    assert set(np.unique(small)) == set(np.unique(pixels))
    # Patches of 64 pixels lie on whole overview pixels, so the most frequent class is the only one.
    assert (small == pixels[::2, ::2]).all()


def test_overviews_of_quantities_are_means(tmp_path):
    geobox = grid()
    pixels = (np.indices((700, 900)).sum(0) % 2 * 40 + 10).astype("uint8")
    pixels[:100] = 255
    parts = cut(tmp_path, pixels, geobox, nodata=255)
    path = write_cog(
        parts, tmp_path / "confidence.tif", geobox=geobox, dtype="uint8", nodata=255, resampling="average",
        band_names=["confidence_percent"],
    )  # fmt: skip
    with rasterio.open(path, overview_level=0) as file:
        assert set(np.unique(file.read(1))) == {30, 255}
    with rasterio.open(path) as file:
        assert file.descriptions == ("confidence_percent",)
        assert file.colorinterp == (ColorInterp.gray,)
    assert not path.with_name("confidence.tif.aux.xml").exists()


def test_colour_table_shows_classes_and_hides_nodata(tmp_path):
    path, _ = class_map(tmp_path)
    with rasterio.open(path) as file:
        table = file.colormap(1)
        assert file.colorinterp == (ColorInterp.palette,)
    assert {value: table[value] for value in (1, 3, 7)} == {item.id: (*item.rgb, 255) for item in LEGEND.classes}
    assert table[3] == (0x12, 0x34, 0x56, 255)
    assert table[255][3] == 0


def gdal() -> ctypes.CDLL:
    """The GDAL that rasterio brings, called directly: rasterio shows no category names and no attribute table."""
    found = sorted(Path(rasterio.__file__).parents[1].glob("rasterio.libs/libgdal*"))
    if not found:
        pytest.skip("this rasterio brings no GDAL library of its own to call")
    library = ctypes.CDLL(str(found[0]))
    for name in ("GDALOpen", "GDALGetRasterBand", "GDALGetDefaultRAT"):
        getattr(library, name).restype = ctypes.c_void_p
    library.GDALGetRasterCategoryNames.restype = ctypes.POINTER(ctypes.c_char_p)
    library.GDALRATGetValueAsString.restype = ctypes.c_char_p
    return library


def test_gdal_reads_the_class_names(tmp_path):
    path, _ = class_map(tmp_path)
    library = gdal()
    dataset = ctypes.c_void_p(library.GDALOpen(os.fsencode(path), 0))
    band = ctypes.c_void_p(library.GDALGetRasterBand(dataset, 1))
    table = ctypes.c_void_p(library.GDALGetDefaultRAT(band))
    rows = [
        [library.GDALRATGetValueAsString(table, row, col).decode() for col in range(6)]
        for row in range(library.GDALRATGetRowCount(table))
    ]
    categories = library.GDALGetRasterCategoryNames(band)
    names_of = [categories[value].decode() for value in range(8)]
    library.GDALClose(dataset)
    assert names_of == ["", "water", "", "forêt & <bog>", "", "", "", "urban"]
    assert rows == [[str(item.id), item.name, *map(str, item.rgb), "255"] for item in LEGEND.classes]


def test_legend_and_provenance_are_tags(tmp_path):
    path, _ = class_map(tmp_path, tags={"GEOSEG_VERSION": "1.2", "GEOSEG_SOURCES": "a.tif & b.tif <c>"})
    with rasterio.open(path) as file:
        tags = file.tags()
    assert tags["GEOSEG_SOURCES"] == "a.tif & b.tif <c>"
    assert tags["GEOSEG_VERSION"] == "1.2"
    assert Legend.from_dict(json.loads(tags["GEOSEG_LEGEND"])) == LEGEND


def test_many_classes_take_uint16(tmp_path):
    legend = Legend.from_dict({2: "a", 300: "b", 22531: {"name": "c", "color": "#010203"}})
    path, pixels = class_map(tmp_path, grid(600, 530), legend)
    with rasterio.open(path) as file:
        assert (file.read(1) == pixels).all()
        assert (file.dtypes, file.nodata) == (("uint16",), 65535)
        assert file.colormap(1)[22531] == (1, 2, 3, 255)
        assert file.colormap(1)[65535][3] == 0
    assert "<Category>" not in path.with_name("map.tif.aux.xml").read_text()
    assert "<F>22531</F>" in path.with_name("map.tif.aux.xml").read_text()


GRIDS = {
    "south-up": grid(70, 90, Affine(0.1, 0, 7.7, 0, 0.1, 1 / 3), "EPSG:4326"),
    "rotated": grid(70, 90, Affine.translation(5e5, 4e6) @ Affine.rotation(33) @ Affine.scale(10, -10)),
    "degrees": grid(70, 90, Affine(1 / 3600, 0, -76.7, 0, -1 / 4000, 34.9), "EPSG:4326"),
    "northing first": grid(70, 90, AFFINE, "EPSG:3035"),
    "no CRS": grid(70, 90, AFFINE, None),
    "no place": grid(70, 90, Affine.identity(), None),
    "custom": grid(70, 90, AFFINE, "+proj=laea +lat_0=10 +lon_0=20 +datum=WGS84 +units=m"),
    "odd method": grid(70, 90, AFFINE, "+proj=isea +datum=WGS84"),
}


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("name", GRIDS)
def test_any_grid_to_the_last_bit(tmp_path, name):
    geobox = GRIDS[name]
    pixels = classes_on(geobox)
    parts = cut(tmp_path, pixels, geobox, side=37, nodata=255)
    out = tmp_path / "map.tif"
    write_cog(parts, out, geobox=geobox, dtype="uint8", nodata=255, legend=LEGEND, resampling="mode")
    with rasterio.open(out) as file:
        assert (file.read(1) == pixels).all()
        assert tuple(file.transform) == tuple(geobox.affine)
        crs = file.crs
    if geobox.crs is None:
        assert crs is None
    else:
        wanted = rasterio.CRS.from_wkt(geobox.crs.to_wkt())
        assert crs == wanted or crs.to_wkt() == wanted.to_wkt()


def test_several_bands(tmp_path):
    geobox = grid(60, 50)
    pixels = np.arange(2 * 60 * 50, dtype="float32").reshape(2, 60, 50)
    part = write_part(tmp_path / "part.tif", pixels, geobox=geobox)
    out = tmp_path / "two.tif"
    write_cog([part], out, geobox=geobox, dtype="float32", nodata=None, resampling="average", band_names=["one", "two"])
    with rasterio.open(out) as file:
        assert (file.read() == pixels).all()
        assert file.descriptions == ("one", "two")
        assert file.nodata is None


def test_only_the_map_and_its_notes_remain(tmp_path):
    path, _ = class_map(tmp_path)
    assert names(path.parent) == ["map.tif", "map.tif.aux.xml"]


def test_existing_output_stays_unless_told(tmp_path):
    path, _ = class_map(tmp_path)
    before = path.read_bytes()
    with pytest.raises(OutputExistsError, match="exists"):
        class_map(tmp_path, legend=Legend.from_dict({1: "other"}))
    assert path.read_bytes() == before


def test_overwriting_leaves_nothing_of_the_older_map(tmp_path):
    path, pixels = class_map(tmp_path)
    path.with_name("map.tif.ovr").write_bytes(b"old")
    class_map(tmp_path, legend=LEGEND, overwrite=True)
    assert names(path.parent) == ["map.tif", "map.tif.aux.xml"]
    parts = sorted(tmp_path.glob("part*.tif"))
    write_cog(parts, path, geobox=grid(), dtype="uint8", nodata=255, resampling="mode", overwrite=True)
    assert names(path.parent) == ["map.tif"]
    with rasterio.open(path) as file:
        assert (file.read(1) == pixels).all()


def test_a_part_cannot_be_the_output(tmp_path):
    part = write_part(tmp_path / "part.tif", np.ones((60, 50), "uint8"), geobox=grid(60, 50))
    with pytest.raises(InputError, match="also an input"):
        write_cog([part], part, geobox=grid(60, 50), dtype="uint8", nodata=255, resampling="mode", overwrite=True)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_interrupted_leaves_nothing(tmp_path, monkeypatch, error):
    def stop(*args, **options):
        raise error

    (tmp_path / "out").mkdir()
    monkeypatch.setattr(cog, "_check_whole", stop)
    with pytest.raises(error):
        class_map(tmp_path)
    assert names(tmp_path / "out") == []


FULL_DISK = """
import logging, resource, signal, sys
from pathlib import Path
from odc.geo.geobox import GeoBox
from affine import Affine
from geoseg.errors import OutputError
from geoseg.io.cog import write_cog
logging.basicConfig(format="logged: %(message)s")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
folder = Path(sys.argv[1])
geobox = GeoBox((700, 900), Affine(30.1, 0, 300000.3, 0, -30.1, 4100000.7), "EPSG:32612")
try:
    write_cog(sorted(folder.glob("part*.tif")), folder / "out" / "map.tif", geobox=geobox, dtype="uint8", nodata=255,
              resampling="mode")
except OutputError as error:
    sys.exit(f"refused: {error}" if len(str(error).splitlines()) == 1 else "more than one line")
"""


def run_on_full_disk(tmp_path, limit):
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path), str(limit)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 200, (700, 900)).astype("uint8")
    cut(tmp_path, pixels, grid(), nodata=255)
    (tmp_path / "out").mkdir()
    assert run_on_full_disk(tmp_path, 2**30).returncode == 0
    size = (tmp_path / "out" / "map.tif").stat().st_size
    (tmp_path / "out" / "map.tif").unlink()
    # The last limit lets all but the last bytes through, which GDAL alone does not notice.
    for limit in (3000, size // 2, size - 200):
        done = run_on_full_disk(tmp_path, limit)
        assert done.returncode == 1
        assert "refused:" in done.stderr
        assert "logged:" not in done.stderr
        assert names(tmp_path / "out") == []


def test_unwritable_folder_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    part = write_part(tmp_path / "part.tif", np.ones((60, 50), "uint8"), geobox=grid(60, 50))
    with pytest.raises(OutputError):
        write_cog(
            [part], tmp_path / "file" / "map.tif", geobox=grid(60, 50), dtype="uint8", nodata=255, resampling="mode"
        )


def refusal(tmp_path, parts, **options):
    given = {"geobox": grid(60, 50), "dtype": "uint8", "nodata": 255, "resampling": "mode"} | options
    out = tmp_path / "map.tif"
    with pytest.raises((InputError, ReadError)) as caught:
        write_cog(parts, out, **given)
    assert not out.exists()
    return str(caught.value)


def test_parts_must_tile_the_map(tmp_path):
    geobox = grid(60, 50)
    whole = write_part(tmp_path / "whole.tif", np.ones((60, 50), "uint8"), geobox=geobox)
    half = write_part(tmp_path / "half.tif", np.ones((30, 50), "uint8"), geobox=crop(geobox, Window(0, 0, 30, 50)))
    assert "cover 1,500 of 3,000 pixels" in refusal(tmp_path, [half])
    assert "cover 4,500 of 3,000 pixels" in refusal(tmp_path, [whole, half])
    assert "each must be covered once" in refusal(tmp_path, [half, half])
    assert "cover 0 of" in refusal(tmp_path, [])


def test_parts_must_lie_on_the_grid(tmp_path):
    geobox = grid(60, 50)
    beside = GeoBox((60, 50), AFFINE @ Affine.translation(0.4, 0), geobox.crs)
    part = write_part(tmp_path / "beside.tif", np.ones((60, 50), "uint8"), geobox=beside)
    assert "does not lie on the pixels" in refusal(tmp_path, [part])
    beyond = write_part(
        tmp_path / "beyond.tif", np.ones((60, 50), "uint8"), geobox=crop(geobox, Window(-5, -5, 60, 50))
    )
    assert "does not lie on the pixels" in refusal(tmp_path, [beyond])


def test_parts_must_have_the_dtype_and_be_readable(tmp_path):
    part = write_part(tmp_path / "wide.tif", np.ones((60, 50), "uint16"), geobox=grid(60, 50))
    assert "needed is uint8 x 1" in refusal(tmp_path, [part])
    part.write_bytes(b"no raster")
    assert "delete it to have it made again" in refusal(tmp_path, [part])
    with pytest.raises(ReadError, match="cannot be read"):
        part_tags(part)


def test_part_carries_its_tags_and_leaves_no_temporary(tmp_path):
    path = write_part(tmp_path / "p.tif", np.ones((6, 5), "uint8"), geobox=grid(6, 5), nodata=255, tags={"JOB": "a1"})
    assert part_tags(path)["JOB"] == "a1"
    assert names(tmp_path) == ["p.tif"]


def test_part_is_replaced_whole(tmp_path):
    path = tmp_path / "p.tif"
    for value in (1, 2):
        write_part(path, np.full((6, 5), value, "uint8"), geobox=grid(6, 5))
    with rasterio.open(path) as file:
        assert (file.read(1) == 2).all()


def test_part_that_cannot_be_written_is_said(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        write_part(tmp_path / "absent" / "p.tif", np.ones((6, 5), "uint8"), geobox=grid(6, 5))
    with pytest.raises(InputError, match=r"\(6, 5\)"):
        write_part(tmp_path / "p.tif", np.ones((6, 5), "uint8"), geobox=grid(6, 6))
    assert names(tmp_path) == []


def test_part_on_full_disk(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 200, (70, 90)).astype("uint8")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            write_part(tmp_path / "p.tif", pixels, geobox=grid(70, 90))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert names(tmp_path) == []


def test_gdal_writes_one_map_at_a_time_and_reads_its_parts_without_its_pool(tmp_path, monkeypatch):
    """Two writers, or a writer and readers, that share GDAL's pool of threads can wait for each other without end."""
    inside, most, options = 0, 0, []
    copy = rasterio.shutil.copy

    def watched(*args, **kwargs):
        nonlocal inside, most
        inside, most = inside + 1, max(most, inside + 1)
        options.append(rasterio.env.getenv().get("VRT_NUM_THREADS"))
        time.sleep(0.05)
        copy(*args, **kwargs)
        inside -= 1

    monkeypatch.setattr(rasterio.shutil, "copy", watched)
    grid = GeoBox((8, 8), Affine(10, 0, 0, 0, -10, 0), "EPSG:32633")
    part = write_part(tmp_path / "part.tif", np.ones((8, 8), np.uint8), geobox=grid)

    def write(number):
        write_cog([part], tmp_path / f"{number}.tif", geobox=grid, dtype="uint8", nodata=None, resampling="mode")

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(write, range(3)))
    assert most == 1
    assert [int(value) for value in options] == [1, 1, 1]


@pytest.mark.parametrize("shape", [(1, 1), (700, 1), (1, 700), (2600, 2), (3, 2600), (2, 513), (5, 1100)])
def test_maps_of_a_few_rows_or_columns_are_valid(tmp_path, shape):
    path, pixels = class_map(tmp_path, grid(*shape))
    assert cog_validate(path, strict=shape[1] > 1, quiet=True)[:2] == (True, [])
    with rasterio.open(path) as file:
        assert (file.read(1) == pixels).all()
        levels = file.overviews(1)
    assert all(level > 1 for level in levels)
    assert bool(levels) == (shape[1] > 1 and max(shape) > 512)
