"""Single rasters: every pixel is where it says it is, and invalid where it must be."""

from __future__ import annotations

import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.rpc import RPC
from scipy.io import netcdf_file

from geoseg.errors import BandError, GridError, InputError, MissingInputError, ReadError
from geoseg.io import facts, handles
from geoseg.io.gdal import GdalSource
from geoseg.io.grids import crop
from geoseg.tiling import Window

ROWS, COLS = 37, 53
VRT_BAND = (
    '<VRTRasterBand dataType="{}" band="{}"><SimpleSource>'
    '<SourceFilename relativeToVRT="1">{}</SourceFilename></SimpleSource></VRTRasterBand>'
)
UTM = Affine(10, 0, 500_000, 0, -10, 4_200_000)


@pytest.fixture(scope="module")
def module_file(tmp_path_factory):
    """A file of encoded pixels that hypothesis can read many times."""
    path = tmp_path_factory.mktemp("encoded") / "encoded.tif"
    pixels = 1 + np.arange(ROWS)[:, None] * 1000 + np.arange(COLS)[None, :]
    profile = {"driver": "GTiff", "width": COLS, "height": ROWS, "count": 1, "dtype": "int32", "crs": "EPSG:32612"}
    with rasterio.open(path, "w", transform=UTM, **profile) as file:
        file.write(pixels.astype("int32"), 1)
    return GdalSource(str(path))


def brute_window(window, rows=ROWS, cols=COLS):
    """Encoded pixels of a window one by one; 0 outside."""
    found = np.zeros((window.rows, window.cols), dtype=np.int64)
    for row in range(window.rows):
        for col in range(window.cols):
            at = row + window.row_off, col + window.col_off
            if 0 <= at[0] < rows and 0 <= at[1] < cols:
                found[row, col] = 1 + at[0] * 1000 + at[1]
    return found


windows = st.builds(Window, st.integers(-50, 50), st.integers(-70, 70), st.integers(1, 40), st.integers(1, 40))


@given(window=windows)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_window_holds_its_own_pixels(module_file, window):
    found = module_file.read(crop(module_file.geobox, window))
    expected = brute_window(window)
    assert np.array_equal(found.valid, expected > 0)
    assert np.array_equal(np.where(found.valid, found.pixels[0], 0), expected)


@given(window=windows, factor=st.integers(2, 5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whole_factors_are_means_of_the_pixels_inside(module_file, window, factor):
    fine = brute_window(Window(window.row_off, window.col_off, window.rows * factor, window.cols * factor))
    blocks = fine.reshape(window.rows, factor, window.cols, factor)
    count = (blocks > 0).sum(axis=(1, 3))
    mean = blocks.sum(axis=(1, 3)) / np.maximum(count, 1)
    affine = crop(module_file.geobox, window).affine @ Affine.scale(factor)
    found = module_file.read(GeoBox((window.rows, window.cols), affine, module_file.geobox.crs))
    assert np.array_equal(found.valid, count > 0)
    assert np.abs(found.pixels[0] - mean)[found.valid].max(initial=0) <= 0.5


def test_thinning_by_nearest_picks_the_pixel_under_the_centre(module_file):
    geobox = GeoBox((5, 7), module_file.geobox.affine @ Affine.scale(5), module_file.geobox.crs)
    found = GdalSource(module_file.path, resampling="nearest").read(geobox)
    expected = 1 + (np.arange(5) * 5 + 2)[:, None] * 1000 + (np.arange(7) * 5 + 2)[None, :]
    assert np.array_equal(found.pixels[0], expected)


def test_thinning_by_mode_counts_valid_pixels_only(write_tif):
    pixels = np.array([[1, 1, 2, 2], [3, 9, 2, 9], [9, 9, 9, 9], [9, 9, 9, 4]], dtype="uint8")
    source = GdalSource(write_tif("m.tif", pixels, nodata=9), resampling="mode")
    found = source.read(GeoBox((2, 2), source.geobox.affine @ Affine.scale(2), source.geobox.crs))
    assert found.valid.tolist() == [[True, True], [False, True]]
    assert found.pixels[0][found.valid].tolist() == [1, 2, 4]


def test_a_window_far_away_is_all_invalid(module_file):
    found = module_file.read(crop(module_file.geobox, Window(10**7, -(10**7), 3, 4)))
    assert found.pixels.shape == (1, 3, 4)
    assert not found.valid.any()


# -- what counts as valid ----------------------------------------------------------------------------------------------


def test_nodata_of_any_band_makes_a_pixel_invalid(write_tif):
    pixels = np.array([[[0, 1, 2]], [[5, 0, 7]]], dtype="uint16")
    source = GdalSource(write_tif("n.tif", pixels, nodata=0))
    assert source.read(source.geobox).valid.tolist() == [[False, False, True]]


def test_bands_that_are_not_read_are_not_asked(write_tif):
    pixels = np.array([[[0, 1, 2]], [[5, 0, 7]]], dtype="uint16")
    source = GdalSource(write_tif("n.tif", pixels, nodata=0), chosen=(2,))
    found = source.read(source.geobox)
    assert found.valid.tolist() == [[True, False, True]]
    assert found.bands == ("band2",)


@pytest.mark.parametrize("nodata", [-9999, 256, 0.5, float("nan"), 1e30])
def test_nodata_that_the_dtype_cannot_hold_matches_nothing(write_tif, nodata):
    source = GdalSource(write_tif("n.tif", np.arange(256, dtype="uint8").reshape(16, 16)), nodata=nodata)
    assert source.read(source.geobox).valid.all()


def test_the_given_nodata_stands_in_for_the_files(write_tif):
    source = GdalSource(write_tif("n.tif", np.array([[1, 2, 3]], dtype="uint8"), nodata=1), nodata=3)
    assert source.read(source.geobox).valid.tolist() == [[True, True, False]]


def test_nan_and_infinity_are_invalid_without_any_nodata(write_tif):
    pixels = np.array([[np.nan, np.inf, -np.inf, 0.0]], dtype="float32")
    source = GdalSource(write_tif("f.tif", pixels))
    assert source.read(source.geobox).valid.tolist() == [[False, False, False, True]]


def test_float_nodata_written_with_few_digits_matches(write_tif):
    lowest = np.finfo("float32").min
    source = GdalSource(write_tif("f.tif", np.array([[lowest, 1.0]], dtype="float32")), nodata=-3.402823e38)
    assert source.read(source.geobox).valid.tolist() == [[False, True]]


def test_int64_nodata_is_exact(write_tif):
    big = 2**62 + 1
    source = GdalSource(write_tif("i.tif", np.array([[big, big - 1]], dtype="int64")), nodata=big)
    found = source.read(source.geobox)
    assert found.valid.tolist() == [[False, True]]
    assert found.pixels[0, 0, 1] == big - 1


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_alpha_is_validity_and_no_band(write_tif, dtype):
    pixels = np.array([[[1, 2, 3]], [[4, 5, 6]], [[0, 1, 255]]], dtype=dtype)
    path = write_tif("a.tif", pixels, photometric="MINISBLACK", alpha="YES")
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [ColorInterp.gray, ColorInterp.undefined, ColorInterp.alpha]
    source = GdalSource(path)
    found = source.read(source.geobox)
    assert found.bands == ("band1", "band2")
    assert found.valid.tolist() == [[False, True, True]]


def test_naming_the_alpha_band_makes_it_a_band(write_tif):
    pixels = np.array([[[1, 2]], [[4, 5]], [[7, 8]], [[0, 9]]], dtype="uint8")
    path = write_tif("rgbn.tif", pixels, photometric="RGB", alpha="YES")
    found = GdalSource(path, names=("r", "g", "b", "nir")).read(GdalSource(path).geobox)
    assert found.bands == ("r", "g", "b", "nir")
    assert found.valid.all()
    assert GdalSource(path).bands == ("band1", "band2", "band3")


@pytest.mark.parametrize("internal", [True, False])
def test_the_masks_of_files_count(write_tif, internal):
    path = write_tif("m.tif", np.arange(6, dtype="uint8").reshape(1, 2, 3))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(path, "r+") as file:
        file.write_mask(np.array([[True, False, True], [False, True, True]]))
    assert Path(path + ".msk").exists() is not internal
    source = GdalSource(path)
    assert source.read(source.geobox).valid.tolist() == [[True, False, True], [False, True, True]]


# -- values ------------------------------------------------------------------------------------------------------------


def test_the_files_scale_and_offset_give_float32(write_tif):
    path = write_tif("s.tif", np.array([[[0, 100]], [[0, 100]]], dtype="int16"), nodata=0)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (0.5, 2.0), (1.0, -1.0)
    source = GdalSource(path)
    found = source.read(source.geobox)
    assert source.dtype == found.dtype == np.float32
    assert found.pixels[:, 0, 1].tolist() == [51.0, 199.0]
    assert found.valid.tolist() == [[False, True]]


def test_given_scale_and_offset_stand_in_for_the_files(write_tif):
    path = write_tif("s.tif", np.array([[7]], dtype="uint8"))
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (0.5,), (1.0,)
    raw = GdalSource(path, scale=1, offset=0)
    assert raw.dtype == np.uint8
    assert raw.read(raw.geobox).pixels[0, 0, 0] == 7


def test_bands_of_different_dtype_share_one_that_holds_both(write_tif, tmp_path):
    write_tif("one.tif", np.array([[200]], dtype="uint8"))
    write_tif("other.tif", np.array([[-300]], dtype="int16"))
    vrt = tmp_path / "both.vrt"
    bands = VRT_BAND.format("Byte", 1, "one.tif") + VRT_BAND.format("Int16", 2, "other.tif")
    vrt.write_text(f'<VRTDataset rasterXSize="1" rasterYSize="1">{bands}</VRTDataset>')
    found = GdalSource(str(vrt)).read(GdalSource(str(vrt)).geobox)
    assert found.dtype == np.int16
    assert found.pixels.ravel().tolist() == [200, -300]


def test_band_names_come_from_the_file_the_user_or_the_count(write_tif):
    pixels = np.zeros((3, 2, 2), dtype="uint8")
    described = write_tif("d.tif", pixels, names=("blue", "", "red"))
    assert GdalSource(described).bands == ("blue", "band2", "red")
    assert GdalSource(described, names=("a", "b", "c"), chosen=("C", 1)).bands == ("c", "a")


def test_bands_come_in_the_order_they_are_chosen(write_tif):
    path = write_tif("o.tif", np.arange(3, dtype="uint8")[:, None, None] * np.ones((1, 2, 2), "uint8"))
    found = GdalSource(path, chosen=(3, 1)).read(GdalSource(path).geobox)
    assert found.pixels[:, 0, 0].tolist() == [2, 0]


# -- refusals ----------------------------------------------------------------------------------------------------------


def one_line_of(error) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_missing_files_are_missing(tmp_path):
    with pytest.raises(MissingInputError, match="not there") as error:
        GdalSource(str(tmp_path / "none.tif")).bands  # noqa: B018
    assert "none.tif" in one_line_of(error)


def test_what_is_no_raster_says_so(tmp_path):
    text = tmp_path / "notes.tif"
    text.write_text("no raster at all")
    with pytest.raises(ReadError, match="cannot be opened as a raster") as error:
        GdalSource(str(text)).geobox  # noqa: B018
    assert "notes.tif" in one_line_of(error)


def test_a_folder_is_no_raster(tmp_path):
    with pytest.raises(ReadError, match="is a folder"):
        GdalSource(str(tmp_path)).geobox  # noqa: B018


def test_a_truncated_file_fails_where_it_is_cut(write_tif):
    rng = np.random.default_rng(1)
    path = write_tif("t.tif", rng.integers(0, 255, (400, 400), dtype="uint8"), blockysize=16)
    whole = Path(path).read_bytes()
    Path(path).write_bytes(whole[: len(whole) // 2])
    source = GdalSource(path)
    assert source.read(crop(source.geobox, Window(0, 0, 16, 400))).valid.all()
    for _ in range(2):
        with pytest.raises(ReadError, match=r"t\.tif cannot be read at rows 380 to 400, columns 0 to 400") as error:
            source.read(crop(source.geobox, Window(380, 0, 20, 400)))
        assert one_line_of(error)


def test_a_vrt_without_its_files_is_refused_every_time(write_tif, tmp_path):
    good = GdalSource(write_tif("good.tif", np.ones((4, 4), dtype="uint8")))
    text = '<VRTDataset rasterXSize="4" rasterYSize="4">{}</VRTDataset>'
    (tmp_path / "good.vrt").write_text(text.format(VRT_BAND.format("Byte", 1, "good.tif")))
    (tmp_path / "bad.vrt").write_text(text.format(VRT_BAND.format("Byte", 1, "gone.tif")))
    (tmp_path / "deep.vrt").write_text(text.format(VRT_BAND.format("Byte", 1, "bad.vrt")))
    (tmp_path / "text.vrt").write_text(text.format(VRT_BAND.format("Byte", 1, "bad.tif")))
    (tmp_path / "bad.tif").write_text("no raster")
    vrt = GdalSource(str(tmp_path / "good.vrt"))
    assert np.array_equal(vrt.read(vrt.geobox).pixels, good.read(good.geobox).pixels)
    for name in ("bad.vrt", "bad.vrt", "deep.vrt"):
        with pytest.raises(MissingInputError, match=r"gone\.tif, which is not there"):
            GdalSource(str(tmp_path / name)).geobox  # noqa: B018
    with pytest.raises(ReadError, match=r"bad\.tif"):
        GdalSource(str(tmp_path / "text.vrt")).geobox  # noqa: B018


def test_complex_numbers_are_refused(write_tif):
    with pytest.raises(ReadError, match=r"complex numbers \(complex64\)"):
        GdalSource(write_tif("c.tif", np.ones((2, 2), dtype="complex64"))).dtype  # noqa: B018


def test_ground_control_points_are_refused(write_tif, tmp_path):
    path = str(tmp_path / "gcp.tif")
    gcps = [GroundControlPoint(row, col, x, y) for row, col, x, y in [(0, 0, 5, 9), (0, 9, 6, 9), (9, 0, 5, 8)]]
    profile = {"driver": "GTiff", "width": 10, "height": 10, "count": 1, "dtype": "uint8"}
    with rasterio.open(path, "w", gcps=gcps, crs="EPSG:4326", **profile) as file:
        file.write(np.ones((1, 10, 10), "uint8"))
    with pytest.raises(GridError, match=r"ground control points.*gdalwarp"):
        GdalSource(path).geobox  # noqa: B018


def test_rpcs_are_refused(tmp_path):
    path = str(tmp_path / "rpc.tif")
    one = [1.0] + [0.0] * 19
    scales = {f"{kind}_{part}": 1.0 for kind in ("height", "lat", "long", "line", "samp") for part in ("off", "scale")}
    coefficients = {f"{kind}_coeff": one for kind in ("line_num", "line_den", "samp_num", "samp_den")}
    profile = {"driver": "GTiff", "width": 10, "height": 10, "count": 1, "dtype": "uint8"}
    with rasterio.open(path, "w", rpcs=RPC(**scales, **coefficients), **profile) as file:
        file.write(np.ones((1, 10, 10), "uint8"))
    with pytest.raises(GridError, match=r"RPCs.*gdalwarp -rpc"):
        GdalSource(path).geobox  # noqa: B018


def test_containers_list_their_rasters(tmp_path):
    path = tmp_path / "two.nc"
    with netcdf_file(path, "w") as file:
        file.createDimension("y", 4)
        file.createDimension("x", 5)
        for name in ("red", "nir"):
            file.createVariable(name, "i2", ("y", "x"))[:] = 7
    with pytest.raises(ReadError, match=r"several rasters.*:red, .*:nir"):
        GdalSource(str(path)).geobox  # noqa: B018
    inner = GdalSource(f"netcdf:{path}:nir")
    assert inner.read(inner.geobox).pixels.max() == 7


def test_wrong_names_and_numbers_are_told(write_tif):
    path = write_tif("b.tif", np.zeros((2, 2, 2), "uint8"), names=("blue", "red"))
    with pytest.raises(BandError, match="2 image bands, 1 names"):
        GdalSource(path, names=("blue",)).bands  # noqa: B018
    with pytest.raises(BandError, match="bands 1 to 2"):
        GdalSource(path, chosen=(0,)).bands  # noqa: B018
    with pytest.raises(BandError, match="nir"):
        GdalSource(path, chosen=("nir",)).bands  # noqa: B018
    with pytest.raises(InputError, match="known are nearest, bilinear, cubic, average, mode"):
        GdalSource(path, resampling="closest")
    with pytest.raises(InputError, match="EPSG:99999999"):
        GdalSource(path, crs="EPSG:99999999").geobox  # noqa: B018


def test_a_file_in_huge_blocks_is_refused_before_it_fills_memory(write_tif, monkeypatch):
    pixels, tiles = np.zeros((3, 200, 300), dtype="uint16"), {"tiled": True, "blockxsize": 128, "blockysize": 128}
    path = write_tif("pixel.tif", pixels, interleave="pixel", **tiles)
    assert GdalSource(path).geobox.shape == (200, 300)
    monkeypatch.setattr(facts, "LARGEST_BLOCK_BYTES", 128 * 128 * 2 * 3 - 1)
    with pytest.raises(ReadError, match=r"blocks of 128 x 128 pixels.*-of COG"):
        GdalSource(path).geobox  # noqa: B018
    # Stored band by band a piece is a third of that.
    assert GdalSource(write_tif("band.tif", pixels, interleave="band", **tiles)).geobox.shape == (200, 300)


# -- without a CRS -----------------------------------------------------------------------------------------------------


def test_without_crs_a_file_reads_on_its_own_grid_only(write_tif, encoded, recwarn):
    source = GdalSource(write_tif("x.tif", encoded(20, 30), crs=None, affine=Affine.identity()))
    recwarn.clear()
    assert source.geobox.crs is None
    found = source.read(crop(source.geobox, Window(-2, 5, 10, 10)))
    assert found.pixels[0, 2, 0] == 6
    shifted = GeoBox((4, 4), Affine.translation(0.5, 0), None)
    for elsewhere in (shifted, GeoBox((4, 4), source.geobox.affine, "EPSG:32612")):
        with pytest.raises(GridError, match="has no CRS"):
            source.read(elsewhere)
    assert not recwarn.list


def test_a_given_crs_places_the_file(write_tif, encoded):
    source = GdalSource(write_tif("x.tif", encoded(20, 30), crs=None), crs="EPSG:32612")
    assert source.geobox.crs.to_epsg() == 32612
    with pytest.raises(GridError, match=r"grid asked of .* has no CRS"):
        source.read(GeoBox((4, 4), source.geobox.affine, None))


# -- values are shared, not files --------------------------------------------------------------------------------------


def read_bytes(source, window):
    found = source.read(crop(source.geobox, window))
    return found.pixels.tobytes(), found.valid.tobytes()


def test_nothing_is_opened_before_it_is_needed(tmp_path):
    source = GdalSource(str(tmp_path / "later.tif"))
    assert pickle.loads(pickle.dumps(source)) == source  # noqa: S301 (our own bytes)


def test_threads_and_processes_read_what_one_reads(module_file):
    asked = [Window(row, col, 9, 11) for row in range(0, 30, 7) for col in range(0, 50, 9)]
    serial = [read_bytes(module_file, window) for window in asked]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read_bytes, [module_file] * len(asked), asked)) == serial
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert list(pool.map(read_bytes, [module_file] * 3, asked[:3])) == serial[:3]


def test_a_forked_process_opens_its_own_files(module_file, monkeypatch):
    window = Window(0, 0, 4, 4)
    before = read_bytes(module_file, window)
    held = dict(handles._cache())
    monkeypatch.setattr(handles.os, "getpid", lambda: -1)
    assert not handles._cache()
    assert read_bytes(module_file, window) == before
    assert not set(map(id, held.values())) & set(map(id, handles._cache().values()))


def test_few_files_stay_open(write_tif, monkeypatch):
    monkeypatch.setattr(handles, "OPEN_PER_THREAD", 3)
    for number in range(6):
        source = GdalSource(write_tif(f"{number}.tif", np.full((2, 2), number, dtype="uint8")))
        assert source.read(source.geobox).pixels.max() == number
    assert len(handles._cache()) == 3
    assert not any(opened.closed for opened in handles._cache().values())


def test_a_file_that_was_replaced_is_opened_anew(write_tif):
    first = GdalSource(write_tif("r.tif", np.full((8, 8), 1, dtype="uint8")))
    assert first.read(first.geobox).pixels.max() == 1
    again = GdalSource(write_tif("r.tif", np.full((9, 8), 2, dtype="uint8")))
    assert again.read(again.geobox).pixels.min() == 2
