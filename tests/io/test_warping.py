"""Reads onto other grids, held against functions of the ground that need no raster to be known."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import example, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from geoseg.errors import GridError
from geoseg.io import resample
from geoseg.io.gdal import GdalSource
from geoseg.io.grids import aligned, crop, same_crs, shrink
from geoseg.io.pixel_maps import NODE_PX, PixelMap
from geoseg.io.resample import RESAMPLINGS, Patch, thin_mean, to_dtype
from geoseg.tiling import Window

UTM = "EPSG:32612"
NORTH_UP = Affine(30, 0, 300_000, 0, -30, 4_150_000)


def ground(x, y):
    """A smooth function of UTM coordinates, a few hundred metres to a wave."""
    return 1000 + 300 * np.sin(x / 900) + 300 * np.cos(y / 700)


def centres(geobox, crs=UTM):
    """Coordinates in `crs` of the pixel centres, by pyproj alone."""
    rows, cols = np.meshgrid(np.arange(geobox.shape[0]) + 0.5, np.arange(geobox.shape[1]) + 0.5, indexing="ij")
    x, y = geobox.affine @ (cols, rows)
    return Transformer.from_crs(str(geobox.crs), crs, always_xy=True).transform(x, y)


def sampled(geobox):
    """The function at the pixel centres of `geobox`."""
    return ground(*centres(geobox))


SOURCES = {
    "north-up": (NORTH_UP, UTM, (300, 340)),
    "south-up": (Affine(30, 0, 300_000, 0, 30, 4_141_000), UTM, (300, 340)),
    "east-left": (Affine(-30, 0, 310_200, 0, -30, 4_150_000), UTM, (300, 340)),
    "rotated": (NORTH_UP @ Affine.translation(150, -80) @ Affine.rotation(31), UTM, (380, 380)),
    "degrees": (Affine(0.0003, 0, -113.27, 0, -0.0003, 37.485), "EPSG:4326", (320, 400)),
    "other zone": (Affine(30, 0, 830_000, 0, -30, 4_157_000), "EPSG:32611", (420, 480)),
}
TARGETS = {
    "utm": GeoBox((120, 140), Affine(31.7, 0, 302_811, 0, -29.3, 4_148_000), UTM),
    "degrees": GeoBox((130, 110), Affine(0.00031, 0, -113.22, 0, -0.00029, 37.459), "EPSG:4326"),
    "tilted": GeoBox(
        (100, 100), Affine.translation(304_000, 4_147_000) @ Affine.rotation(-17) @ Affine.scale(25, -25), UTM
    ),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize(("resampling", "tolerance"), [("bilinear", 0.6), ("cubic", 0.05)])
def test_interpolated_reads_are_the_function_at_the_pixel_centres(write_tif, kind, target, resampling, tolerance):
    affine, crs, shape = SOURCES[kind]
    path = write_tif("s.tif", sampled(GeoBox(shape, affine, crs)).astype("float64"), affine=affine, crs=crs)
    found = GdalSource(path, resampling=resampling).read(TARGETS[target])
    assert found.valid.all()
    # A wave of 700 m bends by (30 m)^2 / 8 * 300 / (700 m)^2 = 0.07 over a pixel, each way; half a pixel is 6.
    assert np.abs(found.pixels[0] - sampled(TARGETS[target])).max() < tolerance


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", SOURCES)
def test_nearest_reads_are_the_pixel_under_the_centre(write_tif, encoded, kind, target):
    affine, crs, shape = SOURCES[kind]
    path = write_tif("s.tif", encoded(*shape), affine=affine, crs=crs)
    found = GdalSource(path, resampling="nearest").read(TARGETS[target])
    col, row = ~affine @ centres(TARGETS[target], crs)
    expected = 1 + np.floor(row).astype(int) * 1000 + np.floor(col).astype(int)
    # Centres within a thousandth of a pixel of an edge may fall to either side.
    clear = np.minimum(np.abs(row - np.round(row)), np.abs(col - np.round(col))) > 2e-2
    assert np.array_equal(found.pixels[0][clear], expected[clear])
    assert clear.mean() > 0.85
    assert found.valid.all()


def test_a_grid_of_another_name_for_the_same_crs_is_one_grid(write_tif, encoded):
    source = GdalSource(write_tif("s.tif", encoded(20, 20), affine=NORTH_UP))
    wkt = source.geobox.crs.proj.to_wkt("WKT1_ESRI")
    other = GeoBox((20, 20), NORTH_UP, wkt)
    assert np.array_equal(source.read(other).pixels, encoded(20, 20))


windows = st.builds(Window, st.integers(0, 70), st.integers(0, 60), st.integers(1, 60), st.integers(1, 50))


@given(window=windows, resampling=st.sampled_from(list(RESAMPLINGS)), scale=st.sampled_from([0.31, 1.7, 2.5, 9.3]))
@settings(max_examples=60)
@example(window=Window(38, 30, 60, 39), resampling="average", scale=0.31)  # a mean halfway between two integers
def test_a_window_of_a_read_is_the_read_of_the_window(noisy_file, window, resampling, scale):
    affine = Affine.translation(-113.25, 37.48) @ Affine.rotation(4) @ Affine.scale(0.0003 * scale, -0.00029 * scale)
    whole = GeoBox((130, 110), affine, "EPSG:4326")
    source = GdalSource(noisy_file, resampling=resampling)
    everything = source.read(whole)
    part = source.read(crop(whole, window))
    assert np.array_equal(part.valid, everything.valid[window.slices])
    expected = everything.pixels[:, *window.slices]
    assert np.array_equal(part.pixels[:, part.valid], expected[:, part.valid])


@pytest.fixture(scope="module")
def noisy_file(tmp_path_factory):
    """Random pixels with random holes, where every shift and every lost pixel shows."""
    path = str(tmp_path_factory.mktemp("noisy") / "noisy.tif")
    rng = np.random.default_rng(7)
    pixels = rng.integers(1, 60_000, (2, 300, 340)).astype("uint16")
    pixels[:, rng.random((300, 340)) < 0.2] = 0
    profile = {"driver": "GTiff", "width": 340, "height": 300, "count": 2, "dtype": "uint16", "nodata": 0}
    with rasterio.open(path, "w", crs=UTM, transform=NORTH_UP, **profile) as file:
        file.write(pixels)
    return path


def test_nodata_neither_grows_nor_shrinks(noisy_file):
    target = GeoBox((150, 160), Affine(29, 0, 302_003, 0, -31, 4_148_007), UTM)
    found = GdalSource(noisy_file).read(target)
    with rasterio.open(noisy_file) as file:
        usable = (file.read() != 0).all(axis=0)
    col, row = ~NORTH_UP @ centres(target)
    assert np.array_equal(found.valid, usable[np.floor(row).astype(int), np.floor(col).astype(int)])


@pytest.mark.parametrize("resampling", ["bilinear", "cubic", "average"])
def test_nodata_values_never_leak_into_their_neighbours(write_tif, resampling):
    pixels = np.full((60, 60), 100, dtype="uint16")
    pixels[::3, ::2] = 65_535
    source = GdalSource(write_tif("n.tif", pixels, nodata=65_535, affine=NORTH_UP), resampling=resampling)
    for scale in (0.37, 1.3, 2.7, 5.5):
        found = source.read(GeoBox((20, 20), NORTH_UP @ Affine.translation(3.3, 2.1) @ Affine.scale(scale), UTM))
        assert set(found.pixels[0][found.valid].tolist()) == {100}


def test_nan_never_leaks_into_its_neighbours(write_tif):
    pixels = np.full((60, 60), 5.0, dtype="float32")
    pixels[::3, ::2] = np.nan
    source = GdalSource(write_tif("n.tif", pixels, affine=NORTH_UP))
    for scale in (0.37, 2.7):
        found = source.read(GeoBox((20, 20), NORTH_UP @ Affine.translation(3.3, 2.1) @ Affine.scale(scale), UTM))
        assert set(found.pixels[0][found.valid].tolist()) == {5.0}


@pytest.mark.parametrize("factor", [2.0, 3.3, 8.0, 21.0])
def test_shrinking_keeps_the_mean(write_tif, factor):
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 1000, (420, 420)).astype("float32")
    source = GdalSource(write_tif("m.tif", pixels, affine=NORTH_UP))
    size = int(420 / factor) - 2
    found = source.read(GeoBox((size, size), NORTH_UP @ Affine.translation(1.4, 1.4) @ Affine.scale(factor), UTM))
    assert found.valid.all()
    # The deviation of a mean over n pixels is that of one over the root of n, were they all used.
    assert found.pixels.std() < 1.5 * pixels.std() / 2 ** np.floor(np.log2(factor))
    assert abs(found.pixels.mean() - pixels.mean()) < 8


def shares(centres, width, size):
    """Lengths `(box, pixel)` of the pixels along one axis that lie in boxes around `centres`."""
    low, high = centres[:, None] - width / 2, centres[:, None] + width / 2
    first = np.arange(size)
    return np.clip(np.minimum(high, first + 1) - np.maximum(low, first), 0, None)


def averaged(pixels, valid, target):
    """Means of the valid pixels in the boxes that the pixels of `target` are, by area; of `NORTH_UP` pixels."""
    col, row = ~NORTH_UP @ centres(target)
    to_pixels = ~NORTH_UP @ target.affine
    down, across = shares(row[:, 0], to_pixels.e, pixels.shape[0]), shares(col[0], to_pixels.a, pixels.shape[1])
    with np.errstate(invalid="ignore"):
        return (down @ np.where(valid, pixels, 0) @ across.T) / (down @ valid.astype(float) @ across.T)


@pytest.mark.parametrize(("down", "across"), [(0.4, 0.7), (1.3, 1.5), (2.4, 3.3), (3.9, 1.0), (6.7, 7.9)])
def test_an_average_is_that_of_what_the_pixel_holds(write_tif, down, across):
    rng = np.random.default_rng(11)
    pixels, valid = rng.integers(0, 1000, (230, 250)).astype("float64"), rng.random((230, 250)) < 0.7
    path = write_tif("a.tif", np.where(valid, pixels, np.nan), affine=NORTH_UP)
    target = GeoBox((25, 28), NORTH_UP @ Affine.translation(-1.37, 2.21) @ Affine.scale(across, down), UTM)
    found = GdalSource(path, resampling="average").read(target)
    col, row = ~NORTH_UP @ centres(target)
    row, col = np.floor(row).astype(int), np.floor(col).astype(int)
    assert np.array_equal(found.valid, np.where((row >= 0) & (col >= 0), valid[row, col], False))
    # Coordinates are rounded to a 1024th, so each edge of a box may move by half of that, over a step of up to 1000.
    off = np.abs(found.pixels[0] - averaged(pixels, valid, target))[found.valid]
    assert off.max() < 4 * 1000 / 2048 / 0.3 / min(down, across, 1)
    assert np.median(off) < 0.5


@pytest.mark.parametrize("step", [8.6, 15.5, 21.0, 33.3])
def test_an_average_of_many_pixels_is_nearly_that_of_what_the_pixel_holds(write_tif, step):
    pixels = np.random.default_rng(12).integers(0, 1000, (700, 700)).astype("float32")
    source = GdalSource(write_tif("a.tif", pixels, affine=NORTH_UP), resampling="average")
    size = int(690 / step)
    target = GeoBox((size, size), NORTH_UP @ Affine.translation(3.3, 4.4) @ Affine.scale(step), UTM)
    found, expected = source.read(target).pixels[0], averaged(pixels, np.ones(pixels.shape, bool), target)
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.9


@pytest.mark.parametrize("factor", [2, 3, 5, 8])
def test_an_average_of_whole_pixels_is_the_mean_of_the_block(write_tif, factor):
    pixels = np.random.default_rng(13).integers(0, 60_000, (120, 120)).astype("uint16")
    source = GdalSource(write_tif("a.tif", pixels, affine=NORTH_UP), resampling="average")
    size = 120 // factor
    expected = pixels.reshape(size, factor, size, factor).mean(axis=(1, 3))
    aligned_box = GeoBox((size, size), NORTH_UP @ Affine.scale(factor), UTM)
    assert np.array_equal(source.read(aligned_box).pixels[0], np.rint(expected))
    # One that misses the source's pixels by little goes the other way, and comes to the same.
    beside = GeoBox((size, size), NORTH_UP @ Affine.translation(0.002, 0) @ Affine.scale(factor), UTM)
    assert np.abs(source.read(beside).pixels[0] - expected).max() < 60_000 * 0.003 / factor + 1


def test_labels_never_come_from_overviews(write_tif):
    pixels = np.zeros((512, 512), dtype="uint8")
    pixels[:, 1::2] = 200
    path = write_tif("l.tif", pixels, affine=NORTH_UP, tiled=True)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4, 8], rasterio.enums.Resampling.average)
    coarse = GeoBox((60, 60), NORTH_UP @ Affine.translation(0.3, 0.3) @ Affine.scale(8), UTM)
    for resampling in ("nearest", "mode"):
        values = GdalSource(path, resampling=resampling).read(coarse).pixels
        assert set(np.unique(values)) <= {0, 200}


def test_a_wide_view_of_a_huge_file_stays_small(tmp_path, monkeypatch):
    path = str(tmp_path / "huge.tif")
    profile = {"driver": "GTiff", "width": 60_000, "height": 60_000, "count": 1, "dtype": "uint8"}
    with rasterio.open(
        path, "w", crs=UTM, transform=Affine(10, 0, 300_000, 0, -10, 4_400_000), tiled=True, sparse_ok=True, **profile
    ) as file:
        file.build_overviews([16, 64])
    largest = []
    empty = Patch.empty.__func__

    def recorded(cls, count, shape, dtype):
        largest.append(count * shape[0] * shape[1])
        return empty(cls, count, shape, dtype)

    monkeypatch.setattr(Patch, "empty", classmethod(recorded))
    found = GdalSource(path, rough=True).read(GeoBox((50, 50), Affine(0.12, 0, -113.9, 0, -0.12, 39), "EPSG:4326"))
    assert found.valid.any()
    assert max(largest) < 2**22


@pytest.mark.parametrize("resampling", RESAMPLINGS)
@pytest.mark.parametrize(("shape", "scale"), [((8, 5), 4.0), ((33, 37), 4.0), ((33, 37), 3.3), ((50, 41), 17.0)])
def test_a_raster_without_holes_ends_where_its_last_pixels_do(write_tif, encoded, resampling, shape, scale):
    source = GdalSource(write_tif("e.tif", encoded(*shape), affine=NORTH_UP), resampling=resampling)
    inner = NORTH_UP @ Affine.translation(0.4 - 2 * scale, 0.4 - 2 * scale) @ Affine.scale(scale)
    target = GeoBox(tuple(int(size / scale) + 6 for size in shape), inner, UTM)
    col, row = ~NORTH_UP @ centres(target)
    whole = source.read(target)
    assert np.array_equal(whole.valid, (row >= 0) & (row < shape[0]) & (col >= 0) & (col < shape[1]))
    for off in np.ndindex(target.shape[0] - 1, target.shape[1] - 1):
        window = Window(*off, 2, 2)
        part = source.read(crop(target, window))
        assert np.array_equal(part.valid, whole.valid[window.slices])
        assert np.array_equal(part.pixels, whole.pixels[:, *window.slices])


def test_what_needs_much_of_the_source_is_cut_up(noisy_file, monkeypatch):
    target = GeoBox((90, 80), Affine(0.0011, 0, -113.25, 0, -0.001, 37.48), "EPSG:4326")
    source = GdalSource(noisy_file, resampling="nearest")
    at_once = source.read(target)
    monkeypatch.setattr(resample, "SOURCE_PX", 500)
    monkeypatch.setattr(resample, "STRIP_PX", 1000)
    in_pieces = source.read(target)
    assert np.array_equal(at_once.valid, in_pieces.valid)
    assert np.array_equal(at_once.pixels, in_pieces.pixels)


def test_across_the_antimeridian_nothing_is_lost(write_tif):
    affine = Affine(0.5, 0, -180, 0, -0.5, 90)
    lon = np.broadcast_to(-180 + (np.arange(720) + 0.5) / 2, (360, 720))
    source = GdalSource(write_tif("g.tif", lon.astype("float64"), affine=affine, crs="EPSG:4326"), resampling="nearest")
    fiji = GeoBox((60, 60), Affine(20_000, 0, 0, 0, -20_000, 8_600_000), "EPSG:32701")
    found = source.read(fiji)
    x, _ = centres(fiji, "EPSG:4326")
    assert found.valid.all()
    off = np.abs(found.pixels[0] - x)
    assert np.minimum(off, 360 - off).max() <= 0.26
    assert {-1, 1} <= set(np.sign(found.pixels[0]).ravel().astype(int).tolist())


@pytest.mark.parametrize("cols", [1, 2, 5])
@pytest.mark.parametrize("west", [9.973403913005518, 12.3, -37.3, -180.0, 179.9])
def test_a_strip_in_degrees_that_is_narrower_than_a_pixel_is_found(write_tif, encoded, cols, west):
    grid = GeoBox((41, cols), Affine(0.07188667561070008, 0, west, 0, -0.07828641934079895, 86.7696), "EPSG:4326")
    source = GdalSource(
        write_tif("s.tif", encoded(*grid.shape), affine=grid.affine, crs="EPSG:4326"), resampling="nearest"
    )
    x, y = Transformer.from_crs("EPSG:4326", "EPSG:3413", always_xy=True).transform(*grid.affine @ (cols / 2, 20.5))
    corner = Affine.translation(round(x) - 180_000, round(y) + 180_000)
    target = GeoBox((133, 133), corner @ Affine.scale(2730.34, -2730.34), "EPSG:3413")
    lon, lat = centres(target, "EPSG:4326")
    col, row = ~grid.affine @ (west + np.mod(lon - west, 360), lat)
    clear = np.minimum(np.abs(row - np.round(row)), np.abs(col - np.round(col))) > 2e-2
    inside = (row >= 0) & (row < 41) & (col >= 0) & (col < cols)
    found = source.read(target)
    assert (inside & clear).sum() > 5
    assert np.array_equal(found.valid[clear], inside[clear])
    expected = 1 + np.floor(row).astype(int) * 1000 + np.floor(col).astype(int)
    assert np.array_equal(found.pixels[0][inside & clear], expected[inside & clear])


@pytest.mark.parametrize("lon", [-180.0, -111.0, -0.05, 9.97, 179.95])
def test_the_step_of_a_pixel_is_the_same_on_either_side_of_a_rasters_edge(lon):
    grid = GeoBox((40, 1), Affine(0.1, 0, lon, 0, -0.1, 60), "EPSG:4326")
    target = GeoBox((1, 1), Affine(5000, 0, 0, 0, -5000, 0), f"+proj=laea +lat_0=58 +lon_0={lon + 0.05}")
    rows, cols = shrink(grid, target)
    # 5 km are about 0.045 degrees of latitude, and 0.085 of longitude at 58 degrees north.
    assert 0.4 < rows < 0.5
    assert 0.8 < cols < 0.9


@pytest.mark.parametrize("crs", ["EPSG:6933", "EPSG:3857", "EPSG:4326"])
def test_the_step_of_a_pixel_is_the_same_on_either_side_of_the_antimeridian(crs):
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(179.9999, -30)
    step = 0.03 if crs == "EPSG:4326" else 3000
    target = GeoBox((1, 1), Affine(3000, 0, 0, 0, -3000, 0), "EPSG:32660")
    spans = [
        shrink(GeoBox((1, 1), Affine(step, 0, x - step * (share + 0.5), 0, -step, y), crs), target)
        for share in (-0.5, -0.01, 0.01, 0.4)
    ]
    assert np.ptp(spans, axis=0).max() < 0.01
    assert np.min(spans) > 0.6
    assert np.max(spans) < 1.4


def test_a_globe_that_starts_at_greenwich_is_read_in_the_west(write_tif):
    affine = Affine(1, 0, 0, 0, -1, 90)
    lon = np.broadcast_to(np.arange(360) + 0.5, (180, 360)).astype("float32")
    source = GdalSource(write_tif("g.tif", lon, affine=affine, crs="EPSG:4326"), resampling="nearest")
    found = source.read(GeoBox((4, 40), Affine(1, 0, -20, 0, -1, 45), "EPSG:4326"))
    assert found.valid.all()
    assert found.pixels[0, 0, [0, 19, 20, 39]].tolist() == [340.5, 359.5, 0.5, 19.5]


def test_where_a_projection_ends_pixels_are_invalid_and_nothing_breaks(write_tif, encoded):
    source = GdalSource(write_tif("e.tif", encoded(18, 36), affine=Affine(10, 0, -180, 0, -10, 90), crs="EPSG:4326"))
    globe = GeoBox((90, 90), Affine(150_000, 0, -6_750_000, 0, -150_000, 6_750_000), "+proj=ortho +lat_0=40 +lon_0=10")
    found = source.read(globe)
    row, col = np.indices((90, 90)) - 44.5
    radius = np.hypot(row, col) * 150_000
    assert found.valid[radius < 6_300_000].all()
    assert not found.valid[radius > 6_450_000].any()


def test_large_integers_are_exact_by_nearest_and_clipped_by_interpolation(write_tif):
    pixels = np.full((40, 40), 2**63 - 1, dtype="int64")
    pixels[::2] = 2**53 + 1
    path = write_tif("i.tif", pixels, affine=NORTH_UP)
    target = GeoBox((20, 20), NORTH_UP @ Affine.translation(4.3, 4.2), UTM)
    assert set(np.unique(GdalSource(path, resampling="nearest").read(target).pixels)) == {2**53 + 1, 2**63 - 1}
    assert GdalSource(path).read(target).pixels.min() > 2**52


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        ("uint8", [-3.0, 1.5, 2.5, 300.0], [0, 2, 2, 255]),
        ("int64", [-1e30, 0.4, 1e30], [-(2**63), 0, 2**63 - 1024]),
        ("float32", [0.25], [0.25]),
    ],
)
def test_rounding_stays_in_range(dtype, values, expected):
    assert to_dtype(np.array(values), np.dtype(dtype)).tolist() == expected


def test_means_of_partly_valid_blocks_are_of_what_is_valid():
    pixels = np.array([[[1, 3, 50], [5, 99, 70], [7, 8, 90]]], dtype="uint8")
    valid = np.array([[True, True, True], [True, False, True], [False, False, False]])
    found = thin_mean(Patch(pixels, valid), (2, 2))
    assert found.pixels[0].tolist() == [[3, 60], [0, 0]]
    assert found.valid.tolist() == [[True, True], [False, False]]


def test_lattice_coordinates_stay_within_a_fiftieth_of_a_pixel():
    target = GeoBox((200, 300), Affine(0.0003, 0, -113.2, 0, -0.0003, 37.4), "EPSG:4326")
    grid = GeoBox((3000, 3000), NORTH_UP, UTM)
    row, col = PixelMap.between(target, grid).coordinates(Window(13, 17, 150, 250))
    x, y = centres(crop(target, Window(13, 17, 150, 250)))
    exact_col, exact_row = ~NORTH_UP @ (x, y)
    assert NODE_PX == 32
    assert max(np.abs(row - exact_row).max(), np.abs(col - exact_col).max()) < 0.02


@pytest.mark.parametrize(
    ("target", "crs", "step"),
    [
        (GeoBox((130, 130), Affine(1000, 0, 4.0e5, 0, -1000, 5.2e6), "EPSG:32633"), "EPSG:3857", 10.0),
        (GeoBox((130, 130), Affine(1000, 0, 2.0e5, 0, -1000, -8.0e5), "EPSG:3413"), "EPSG:3857", 1000.0),
        (GeoBox((130, 130), Affine(1000, 0, 1.4e6, 0, -1000, -8.0e5), "EPSG:3413"), "EPSG:32633", 10.0),
    ],
    ids=["Mercator", "Mercator, near the pole", "another zone"],
)
def test_lattice_coordinates_hold_for_conformal_maps_whose_bends_cancel_in_the_middle_of_a_cell(target, crs, step):
    grid = GeoBox((9, 9), Affine(step, 0, 0, 0, -step, 0), crs)
    row, col = PixelMap.between(target, grid).coordinates(Window(0, 0, *target.shape))
    x, y = centres(target, crs)
    assert np.abs(row + y / step).max() < 0.02
    assert np.abs(col - x / step).max() < 0.02


def test_shrink_is_one_number_for_all_windows():
    grid = GeoBox((3000, 3000), NORTH_UP, UTM)
    target = GeoBox((4000, 4000), Affine(0.001, 0, -114, 0, -0.001, 38), "EPSG:4326")
    assert len({shrink(grid, crop(target, Window(row, 7, 9, 9))) for row in (0, 900, 3900)}) == 1
    rows, cols = shrink(grid, target)
    assert 3.6 < rows < 3.8
    assert 2.8 < cols < 3.1


def test_alignment_wants_whole_pixels_and_one_crs():
    grid = GeoBox((50, 50), NORTH_UP, UTM)
    assert aligned(grid, crop(grid, Window(-3, 4, 5, 6))).window == Window(-3, 4, 5, 6)
    assert aligned(grid, GeoBox((5, 5), NORTH_UP @ Affine.translation(0.01, 0), UTM)) is None
    assert aligned(grid, GeoBox((5, 5), NORTH_UP @ Affine.scale(2.01), UTM)) is None
    assert aligned(grid, GeoBox((5, 5), NORTH_UP @ Affine.scale(-1, 1), UTM)) is None
    assert aligned(grid, GeoBox((5, 5), NORTH_UP, "EPSG:32611")) is None
    assert same_crs(None, None)
    assert not same_crs(grid.crs, None)


def test_a_crs_without_a_way_to_the_other_is_told(write_tif, encoded):
    local = 'ENGCRS["site",EDATUM["site"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["metre",1]]'
    source = GdalSource(write_tif("l.tif", encoded(5, 5)), crs=local)
    with pytest.raises(GridError, match="no way from"):
        source.read(TARGETS["utm"])
