"""Cubes in memory and in Zarr read as the same pixels written by GDAL, window by window, and touch no other chunk."""

from __future__ import annotations

import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from shutil import make_archive

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from pyproj import CRS
from zarr.storage import LocalStore, WrapperStore

from geoseg.errors import BandError, GridError, InputError, MissingInputError, ReadError
from geoseg.io.clouds import by_nearest
from geoseg.io.dates import acquired
from geoseg.io.grids import crop
from geoseg.io.labels import open_labels
from geoseg.io.sources import open_source
from geoseg.io.xarray_source import to_xarray
from geoseg.raster import Raster
from geoseg.tiling import Window

UTM = GeoBox((30, 41), Affine(10, 0, 500_000, 0, -10, 4_200_000), "EPSG:32612")
# Zarr 3 has no settled type for texts, with which bands are labelled.
pytestmark = pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")

GRIDS = {
    "utm": UTM,
    "oblong": GeoBox((30, 41), Affine(10, 0, 500_000, 0, -20, 4_200_000), "EPSG:32612"),
    "degrees": GeoBox((30, 41), Affine(1 / 3600, 0, -111.5, 0, -1 / 3600, 37.25), "EPSG:4326"),
}
DATES = np.array(["2021-05-01T10:20:30", "2021-05-01T20:00:00", "2021-06-11", "2021-12-01"], "datetime64[ns]")


def coded(shape=(30, 41), *, bands=1, dtype="int32") -> np.ndarray:
    """`(band, row, col)`: `1 + 100_000 * band + row * 1000 + col`, so that no two pixels are the same, 0 is none."""
    row, col = np.indices(shape)
    return np.stack([1 + 100_000 * band + row * 1000 + col for band in range(bands)]).astype(dtype)


def cube(pixels=None, *, grid=UTM, bands=("red", "nir"), **more) -> xr.DataArray:
    pixels = coded(grid.shape.yx, bands=len(bands)) if pixels is None else pixels
    dims = ("band", *grid.dimensions) if grid.crs else ("band", "y", "x")
    return xr.DataArray(pixels, dims=dims, coords={"band": list(bands), **xr_coords(grid)}, **more)


def written(tmp_path, data, name="cube.zarr", **options) -> str:
    path = str(tmp_path / name)
    kept = data.to_dataset(name="image") if isinstance(data, xr.DataArray) else data
    kept.to_zarr(path, consolidated=False, **options)
    return path


def in_dask(data, tmp_path):
    pytest.importorskip("dask")
    return data.chunk({data.dims[-2]: 7, data.dims[-1]: 9})


def in_zarr(data, tmp_path):
    return written(tmp_path, data, encoding={"image": {"chunks": (1, 7, 9)}})


KINDS = {
    "memory": lambda data, _: data,
    "dataset": lambda data, _: data.to_dataset(name="image"),
    "dask": in_dask,
    "zarr": in_zarr,
}


@pytest.fixture(params=KINDS)
def opened(request, tmp_path):
    """Opens a cube: in memory, chunked by dask, from Zarr."""
    return lambda data, **options: open_source({"path": KINDS[request.param](data, tmp_path), **options})


# -- where and what ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_a_cube_has_the_grid_the_bands_and_the_pixels_it_was_made_of(opened, grid):
    source = opened(cube(grid=grid))
    assert source.geobox.shape == grid.shape
    assert source.geobox.crs == grid.crs
    assert np.allclose(source.geobox.affine, grid.affine, rtol=1e-13, atol=0)
    assert source.bands == ("red", "nir")
    assert source.dtype == np.int32
    found = source.read(grid)
    assert (found.pixels == coded(bands=2)).all()
    assert found.valid.all()


@pytest.mark.parametrize("bare", ["full", "no mapping", "no coordinates"])
@pytest.mark.parametrize("axes", ["y", "x", "yx"])
def test_ascending_rows_and_descending_columns_are_turned(opened, axes, bare):
    data = cube().isel({axis: slice(None, None, -1) for axis in axes})
    if bare == "no mapping":
        data = data.drop_vars("spatial_ref")
    if bare == "no coordinates":
        high, wide = 10 if "y" in axes else -10, -10 if "x" in axes else 10
        corner = 4_199_700 if "y" in axes else 4_200_000, 500_410 if "x" in axes else 500_000
        data = data.drop_vars(["x", "y"])
        data.spatial_ref.attrs["GeoTransform"] = f"{corner[1]} {wide} 0 {corner[0]} 0 {high}"
    source = opened(data)
    assert source.geobox == UTM
    assert (source.read(UTM).pixels == coded(bands=2)).all()


windows = st.tuples(st.integers(-5, 32), st.integers(-5, 44), st.integers(1, 20), st.integers(1, 20))


@given(place=windows, turned=st.booleans(), order=st.permutations(["band", "y", "x"]), chunked=st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_window_of_a_read_is_the_read_of_that_window(place, turned, order, chunked):
    data = cube().transpose(*order)
    data = data.isel(y=slice(None, None, -1)) if turned else data
    data = data.chunk({"y": 8, "x": 5}) if chunked else data
    window = Window(*place)
    found = open_source(data).read(crop(UTM, window))
    row, col = np.indices((window.rows, window.cols))
    row, col = row + window.row_off, col + window.col_off
    inside = (row >= 0) & (row < 30) & (col >= 0) & (col < 41)
    assert (found.valid == inside).all()
    for band in range(2):
        assert (found.pixels[band][inside] == (1 + 100_000 * band + row * 1000 + col)[inside]).all()


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "average", "cubic", "mode"])
@pytest.mark.parametrize("target", ["coarse", "fine", "other", "shifted"])
def test_other_grids_are_read_as_from_a_file(opened, write_tif, target, resampling):
    pixels = coded(bands=2, dtype="float32")
    pixels[:, 3:6, 4:9] = -9999
    grids = {
        "coarse": UTM.zoom_out(4),
        "fine": UTM.zoom_out(0.37),
        "other": UTM.to_crs("EPSG:32613"),
        "shifted": crop(UTM, Window(0, 0, 20, 20)).translate_pix(0.3, -0.4),
    }
    path = write_tif("same.tif", pixels, nodata=-9999)
    source = opened(cube(pixels).assign_attrs(nodata=-9999.0), resampling=resampling)
    found, wanted = (one.read(grids[target]) for one in (source, open_source({"path": path, "resampling": resampling})))
    assert (found.valid == wanted.valid).all()
    assert found.valid.any()
    assert (found.pixels == wanted.pixels)[:, found.valid].all()


def test_thinning_is_done_in_strips(monkeypatch):
    source = open_source(cube())
    whole = source.read(UTM.zoom_out(2))
    monkeypatch.setattr("geoseg.io.xarray_source.STRIP_SAMPLES", 200)
    parts = source.read(UTM.zoom_out(2))
    assert (whole.pixels == parts.pixels).all()
    assert (whole.valid == parts.valid).all()


# -- bands, variables, dates -------------------------------------------------------------------------------------------


def test_variables_are_bands_and_may_be_chosen_and_renamed(tmp_path):
    first, second, third = coded(bands=3)
    dims = ("y", "x")
    data = xr.Dataset(
        {"red": (dims, first), "nir": (dims, second), "scl": (dims, third.astype("uint8"))}, coords=xr_coords(UTM)
    ).assign(note=3)
    path = written(tmp_path, data)
    for spec in (data, {"zarr": data}):
        assert open_source(spec).bands == ("red", "nir", "scl")
    assert open_source(path).bands == ("nir", "red", "scl")  # a folder has no order of its own
    chosen = open_source({"zarr": path, "variables": ["nir", "red"], "bands": ["NIR", "R"], "select": ["R"]})
    assert chosen.bands == ("R",)
    assert (chosen.read(UTM).pixels[0] == first).all()
    mixed = open_source({"path": path, "select": [3, "red"]})
    assert mixed.dtype == np.int32
    assert (mixed.read(UTM).pixels == np.stack([third.astype("uint8"), first])).all()
    with pytest.raises(InputError, match="has no variable green; it has"):
        open_source({"zarr": path, "variables": ["green"]})
    with pytest.raises(BandError, match="share a name"):
        open_source(data[["red", "nir"]].rename(nir="RED"))
    with pytest.raises(BandError, match=r"has 3 bands, 2 names were given: \[a, b\]"):
        open_source({"zarr": path, "bands": ["a", "b"]})


@given(chosen=st.lists(st.integers(1, 5), min_size=1, max_size=6))
@settings(max_examples=30, deadline=None)
def test_bands_are_picked_in_any_order_and_again(chosen):
    names = ("a", "b", "c", "d", "e")
    source = open_source({"path": cube(bands=names), "select": chosen})
    assert (source.read(UTM).pixels == coded(bands=5)[[number - 1 for number in chosen]]).all()
    again = source.picked([len(chosen) - 1], ["z"])
    assert again.bands == ("z",)
    assert (again.read(UTM).pixels[0] == coded(bands=5)[chosen[-1] - 1]).all()


def test_bands_are_called_by_their_labels_descriptions_or_numbers():
    assert open_source(cube(bands=(1, 2))).bands == ("band1", "band2")
    assert open_source(cube(bands=(1, 2), attrs={"long_name": ("red", "nir")})).bands == ("red", "nir")
    assert open_source(cube()[0].drop_vars("band").rename("ndvi")).bands == ("ndvi",)
    assert open_source(cube()[0]).bands == ("band1",)
    two = xr.Dataset({"a": cube(), "b": cube()})
    assert open_source(two).bands == ("a_red", "a_nir", "b_red", "b_nir")


@pytest.fixture
def dated(tmp_path):
    """A cube of four dates, its values `date * 10_000_000` above the code."""
    data = xr.concat([cube() + number * 10_000_000 for number in range(4)], "time").assign_coords(time=DATES)
    return data, written(tmp_path, data)


@pytest.mark.parametrize(
    ("time", "number"),
    [("2021-06", 2), ("2021-05-01T10", 0), ("2021-05-01 20:00:00Z", 1), (4, 3), (date(2021, 6, 11), 2)],
)
def test_one_date_is_chosen_by_as_much_of_it_as_tells_it_apart(dated, time, number):
    for place in dated:
        source = open_source({"zarr": place, "time": time})
        assert (source.read(UTM).pixels == coded(bands=2) + number * 10_000_000).all()
        assert acquired(source) == datetime.fromisoformat(f"{np.datetime_as_string(DATES[number], 's')}+00:00")
        assert acquired(open_source({"zarr": place, "time": time, "date": "2020-01-01"})) == datetime(
            2020, 1, 1, tzinfo=UTC
        )


@pytest.mark.parametrize(
    ("time", "message"),
    [
        (None, r"has 4 dates: 2021-05-01T10:20:30, .*choose one with time"),
        ("2021-05-01", "has 2 dates of 2021-05-01"),
        ("2021-1", "time 2021-1 is not in"),
        (5, "time 5 is not in"),
        ([], "time must be a date"),
    ],
)
def test_dates_that_are_not_clear_are_refused(dated, time, message):
    for place in dated:
        with pytest.raises(InputError, match=message):
            open_source({"zarr": place, "time": time} if time is not None else place)


def test_several_dates_are_a_series(dated):
    for place in dated:
        stack = open_source({"zarr": place, "time": ["2021-06", "2021-05-01T10"], "select": ["nir"]})
        assert stack.bands == ("nir@1", "nir@2")
        assert stack.dates == ("2021-05-01T10:20:30Z", "2021-06-11")
        assert (stack.read(UTM).pixels == coded(bands=2)[[1, 1]] + np.array([0, 20_000_000])[:, None, None]).all()
        newest = open_source({"zarr": place, "time": ["2021-05", "2021-06"], "combine": "newest"})
        assert (newest.read(UTM).pixels == coded(bands=2) + 20_000_000).all()
        assert len(open_source({"zarr": place, "combine": "stack"}).bands) == 8
    with pytest.raises(InputError, match="no dimension of time"):
        open_source({"path": cube(), "time": ["2021"]})
    with pytest.raises(InputError, match="no dimension of time"):
        open_source({"path": cube(), "time": "2021"})


def test_a_single_date_needs_no_choice(opened):
    source = opened(cube().expand_dims(time=DATES[2:3]))
    assert (source.read(UTM).pixels == coded(bands=2)).all()
    assert acquired(source) == datetime(2021, 6, 11, tzinfo=UTC)


def test_a_mask_may_be_a_band_of_the_cube(tmp_path):
    scl = np.full((30, 41), 4, np.uint8)
    scl[2:5, 3:9] = 9
    data = xr.Dataset({"red": (("y", "x"), coded()[0]), "SCL": (("y", "x"), scl)}, coords=xr_coords(UTM))
    source = open_source({"zarr": written(tmp_path, data), "mask": {"band": "SCL"}})
    found = source.read(UTM)
    assert found.bands == ("red",)
    assert (found.valid == (scl == 4)).all()


# -- nodata, scaling ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["_FillValue", "nodata", "missing_value"])
def test_nodata_of_attributes_hides_pixels(opened, key):
    pixels = coded(bands=2)
    pixels[1, 4, 5] = -7
    found = opened(cube(pixels, attrs={key: -7})).read(UTM)
    assert np.argwhere(~found.valid).tolist() == [[4, 5]]


def test_nodata_of_the_encoding_is_that_of_integers_alone():
    whole, decoded = cube(), cube().astype("float32")
    for data in (whole, decoded):
        data.encoding["_FillValue"] = 1
    assert not open_source(whole).read(UTM).valid[0, 0]
    assert open_source(decoded).read(UTM).valid.all()
    decoded[0, 7, 8] = np.nan
    assert np.argwhere(~open_source(decoded).read(UTM).valid).tolist() == [[7, 8]]


def test_the_user_says_nodata_scale_and_offset_instead(opened):
    source = opened(cube(), nodata=2, scale=0.5, offset=-1)
    found = source.read(UTM)
    assert source.dtype == np.float32
    assert np.argwhere(~found.valid).tolist() == [[0, 1]]
    assert (found.pixels == (coded(bands=2) * 0.5 - 1).astype("float32")).all()


def test_packed_values_are_scaled_whether_zarr_or_xarray_unpacks_them(tmp_path):
    values = np.linspace(-1, 1, 30 * 41).reshape(1, 30, 41)
    values[0, 3, 3] = np.nan
    encoding = {"image": {"dtype": "int16", "scale_factor": 0.001, "add_offset": 0.5, "_FillValue": -32768}}
    path = written(tmp_path, cube(values, bands=("ndvi",)), encoding=encoding)
    packed = open_source(path)
    assert packed.dtype == np.float32
    for source in (packed, open_source(xr.open_zarr(path, consolidated=False))):
        found = source.read(UTM)
        assert np.argwhere(~found.valid).tolist() == [[3, 3]]
        assert np.allclose(found.pixels[:, found.valid], values[:, found.valid], atol=0.0006)
    assert by_nearest(packed, codes=range(3)).dtype == np.int16


@pytest.mark.parametrize("dtype", [">i2", "bool", "float16", "uint64", "int8", "float64"])
def test_every_real_dtype_is_read(opened, dtype):
    pixels = (coded(bands=2) % 2).astype(dtype)
    source = opened(cube(pixels))
    found = source.read(UTM)
    assert found.pixels.dtype == source.dtype
    assert source.dtype.isnative
    assert (found.pixels == pixels).all()


@pytest.mark.parametrize("dtype", ["complex64", "datetime64[ns]", "U3"])
def test_values_that_are_no_numbers_are_refused(dtype):
    with pytest.raises(ReadError, match="needed are real numbers"):
        open_source(cube(np.zeros((2, 30, 41)).astype(dtype)))


# -- laziness ----------------------------------------------------------------------------------------------------------


class Counted(WrapperStore):
    """A store that remembers which chunks were asked for."""

    chunks: set[str]

    async def get(self, key, prototype, byte_range=None):
        found = await super().get(key, prototype, byte_range)
        if re.search(r"image/c/", key):
            self.chunks.add(key.partition("image/c/")[2])
        return found


@pytest.mark.parametrize("turned", [False, True])
def test_a_window_touches_its_chunks_alone(tmp_path, monkeypatch, turned):
    data = cube(bands=("a", "b", "c"))
    data = data.isel(y=slice(None, None, -1)) if turned else data
    path = written(tmp_path, data, encoding={"image": {"chunks": (1, 10, 10)}})
    store = Counted(LocalStore(path, read_only=True))
    store.chunks = set()
    source = open_source({"path": xr.open_zarr(store, chunks=None, consolidated=False), "select": ["c", "a"]})
    assert source.bands == ("c", "a")
    assert not store.chunks
    found = source.read(crop(UTM, Window(12, 25, 6, 10)))
    assert (found.pixels == coded(bands=3)[[2, 0], 12:18, 25:35]).all()
    rows = [1]
    assert store.chunks == {f"{band}/{row}/{col}" for band in (0, 2) for row in rows for col in (2, 3)}
    store.chunks.clear()
    source.read(crop(UTM, Window(-40, 0, 20, 20)))
    assert not store.chunks


def test_a_zarr_source_is_a_value_that_opens_in_every_process_and_thread(tmp_path):
    path = in_zarr(cube(), tmp_path)
    source = open_source({"zarr": path, "select": ["nir"]})
    copy = pickle.loads(pickle.dumps(source))  # noqa: S301 - our own
    assert copy == source
    assert hash(copy) == hash(source)
    assert "_opened" not in copy.__dict__
    assert len(pickle.dumps(source)) < 1000
    places = [Window(row, col, 11, 13) for row in range(0, 19, 3) for col in range(0, 28, 4)]
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda window: copy.read(crop(UTM, window)).pixels[0], places))
    for window, part in zip(places, parts, strict=True):
        assert (part == coded(bands=2)[1][window.slices]).all()
    assert (pickle.loads(pickle.dumps(open_source(cube()))).read(UTM).pixels == coded(bands=2)).all()  # noqa: S301


# -- stores ------------------------------------------------------------------------------------------------------------


def test_groups_are_chosen_and_named_where_one_is_needed(tmp_path):
    path = str(tmp_path / "product.zarr")
    for group, grid in (("bands/r10m", UTM), ("bands/r20m", UTM.zoom_out(2))):
        cube(grid=grid).to_dataset(name="image").to_zarr(path, group=group, mode="a", consolidated=False)
    assert open_source({"zarr": path, "group": "bands/r20m"}).geobox.shape == (15, 21)
    stacked = open_source(
        {"stack": [{"path": path, "group": f"bands/{g}", "select": [1], "bands": [g, "x"]} for g in ("r10m", "r20m")]}
    )
    assert stacked.bands == ("r10m", "r20m")
    with pytest.raises(ReadError, match="holds no array .*group: one of bands, bands/r10m, bands/r20m"):
        open_source(path)
    with pytest.raises(MissingInputError, match="r60m is not there; .*bands/r10m"):
        open_source({"zarr": path, "group": "r60m"})


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_both_formats_a_folder_of_another_name_a_pattern_and_a_zip_are_read(tmp_path, zarr_format):
    for name in ("one.zarr", "two.zarr", "plain"):
        written(tmp_path, cube(), name, zarr_format=zarr_format)
    for spec in (
        f"{tmp_path}/one.zarr/",
        {"zarr": f"{tmp_path}/plain"},
        f"{tmp_path}/*.zarr",
        {"zarr": f"{tmp_path}/*.zarr"},
    ):
        assert (open_source(spec).read(UTM).pixels == coded(bands=2)).all()
    make_archive(str(tmp_path / "packed.zarr"), "zip", tmp_path / "one.zarr")
    assert (open_source(tmp_path / "packed.zarr.zip").read(UTM).pixels == coded(bands=2)).all()


def test_zarr_behind_an_address(tmp_path, serve):
    pytest.importorskip("aiohttp")
    cube().to_dataset(name="image").to_zarr(tmp_path / "cube.zarr", zarr_format=2, consolidated=True)
    source = open_source(f"{serve(tmp_path).url}/cube.zarr")
    assert (source.read(crop(UTM, Window(3, 4, 5, 6))).pixels == coded(bands=2)[:, 3:8, 4:10]).all()


def test_stores_that_are_not_there_or_broken(tmp_path):
    with pytest.raises(MissingInputError, match=r"none\.zarr is not there"):
        open_source(tmp_path / "none.zarr")
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises((MissingInputError, ReadError), match=r"empty\.zarr"):
        open_source(tmp_path / "empty.zarr")
    path = in_zarr(cube(), tmp_path)
    chunk = tmp_path / "cube.zarr/image/c/0/1/1"
    chunk.write_bytes(b"broken")
    source = open_source(path)
    with pytest.raises(ReadError, match=r"cube\.zarr cannot be read at rows 0 to 30, columns 0 to 41"):
        source.read(UTM)
    assert source.read(crop(UTM, Window(0, 0, 7, 9))).valid.all()


def test_labels_come_from_cubes_with_names_of_their_flags(tmp_path):
    codes = (coded()[0] % 3 + 1).astype(np.uint8)
    flags = {"flag_values": np.array([1, 2, 3], "uint8"), "flag_meanings": "open_water forest no_data"}
    data = xr.DataArray(codes, dims=("y", "x"), coords=xr_coords(UTM), attrs=flags, name="classes")
    for spec in ({"path": data}, {"zarr": written(tmp_path, data.to_dataset())}):
        labels, legend = open_labels(spec)
        assert legend.names == ("open water", "forest")
        found = labels.read(UTM)
        assert (found.valid == (codes != 3)).all()
        assert (found.pixels[0][found.valid] == codes[codes != 3]).all()


# -- CRS ---------------------------------------------------------------------------------------------------------------

WKT = CRS(32612).to_wkt()


@pytest.mark.parametrize(
    ("mapping", "attributes"),
    [
        ({"crs_wkt": WKT}, {}),
        ({"spatial_ref": WKT}, {}),
        (CRS(32612).to_cf(), {}),
        ({k: v for k, v in CRS(32612).to_cf().items() if k != "crs_wkt"}, {}),
        ({}, {"proj:code": "EPSG:32612"}),
        ({}, {"proj:epsg": 32612}),
        ({}, {"crs": "+init=epsg:32612"}),
        ({}, {"crs": "EPSG:32612"}),
        ({}, {"proj:wkt2": CRS(32612).to_wkt("WKT2_2019")}),
        ({}, {"proj:projjson": CRS(32612).to_json_dict()}),
    ],
)
def test_every_way_to_name_a_crs(mapping, attributes):
    bare = cube().drop_vars("spatial_ref")
    bare = bare.assign_coords({dim: bare[dim].values for dim in ("y", "x")})
    data = bare.assign_attrs(attributes)
    if mapping:
        data = data.assign_coords(crs=xr.DataArray(0, attrs=mapping)).assign_attrs(grid_mapping="crs")
    found, corner = open_source(data).geobox.crs, (500_000.0, 4_200_000.0)
    # Not all of them keep the name or the code, so they are told by where they put a point.
    places = [crs.transformer_to_crs("EPSG:4326")(*corner) for crs in (found, UTM.crs)]
    assert np.allclose(*places, rtol=0, atol=1e-9)
    assert open_source({"path": bare, "crs": 32612}).geobox == UTM


def test_latitude_and_longitude_need_no_crs():
    grid = GRIDS["degrees"]
    bare = cube(grid=grid).drop_vars("spatial_ref")
    named = bare.assign_coords({dim: bare[dim].values for dim in grid.dimensions})
    assert open_source(named).geobox.crs == "EPSG:4326"
    units = xr.DataArray(coded(), dims=("band", "j", "i"), coords={
        "j": ("j", bare[grid.dimensions[0]].values, {"units": "degrees_north", "axis": "Y"}),
        "i": ("i", bare[grid.dimensions[1]].values, {"units": "degrees_east", "axis": "X"}),
    })  # fmt: skip
    assert open_source(units).geobox.crs == "EPSG:4326"


def test_coordinates_in_kilometres_and_in_single_precision():
    data = cube()
    far = data.assign_coords({dim: (dim, data[dim].values / 1000, {"units": "km"}) for dim in ("y", "x")})
    assert np.allclose(open_source(far).geobox.affine, UTM.affine)
    grid = GRIDS["degrees"]
    rough = cube(grid=grid)
    rough = rough.assign_coords({dim: rough[dim].astype("float32") for dim in grid.dimensions})
    assert open_source(rough).geobox == grid  # the GeoTransform has all digits
    rough = rough.drop_vars("spatial_ref")
    assert np.allclose(open_source(rough).geobox.affine, grid.affine, rtol=1e-3)


def test_a_part_of_a_cube_lies_where_it_is_though_its_geotransform_is_of_the_whole():
    part = cube().isel(y=slice(4, 20), x=slice(3, 30, 2))
    source = open_source(part)
    assert source.geobox.affine == Affine(20, 0, 500_025, 0, -10, 4_199_960)
    assert (source.read(source.geobox).pixels == coded(bands=2)[:, 4:20, 3:30:2]).all()
    row = open_source(cube().isel(y=[5]))
    assert row.geobox.affine == Affine(10, 0, 500_000, 0, -10, 4_199_950)


def test_turned_grids_are_read_from_their_geotransform():
    grid = GeoBox((6, 8), UTM.affine @ Affine.rotation(20), UTM.crs)
    data = cube(grid=grid)
    source = open_source(data)
    assert np.allclose(source.geobox.affine, grid.affine)
    part = open_source(data.isel(y=slice(2, 5), x=slice(1, 7)))
    assert np.allclose(part.geobox.affine, crop(grid, Window(2, 1, 3, 6)).affine)
    assert (part.read(part.geobox).pixels == coded((6, 8), bands=2)[:, 2:5, 1:7]).all()


def test_arrays_without_a_place_lie_on_a_grid_without_crs():
    for data in (
        xr.DataArray(coded(), dims=("band", "y", "x")),
        xr.DataArray(coded(), dims=("band", "y", "x"), coords={"y": range(30), "x": range(41)}),
    ):
        source = open_source(data)
        assert source.geobox == GeoBox((30, 41), Affine.identity(), None)
        assert (source.read(source.geobox).pixels == coded()).all()


def uneven(data):
    y = data.y.values.copy()
    y[3] += 4
    return data.assign_coords(y=y)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (uneven, r"coordinates y of .* are not evenly spaced \(off by 4 at steps of -10\)"),
        (lambda d: d.assign_coords(x=[str(x) for x in range(41)]), "needed are coordinates of pixel centres"),
        (
            lambda d: d.drop_vars(["x", "y"]).assign_coords(spatial_ref=xr.DataArray(0, attrs={"crs_wkt": WKT})),
            "nothing says where",
        ),
        (
            lambda d: d.assign_coords(spatial_ref=xr.DataArray(0, attrs={"crs_wkt": "PROJCS[oops"})),
            "CRS that is not understood",
        ),
        (
            lambda d: d.drop_vars(["x", "y", "spatial_ref"]).assign_coords(
                lat=(("y", "x"), np.zeros((30, 41))), lon=(("y", "x"), np.zeros((30, 41)))
            ),
            "says where each pixel lies",
        ),
        (lambda d: d.isel(y=[1], x=[1]).drop_vars("spatial_ref"), "a single pixel"),
    ],
)
def test_grids_that_are_none_are_refused(change, message):
    with pytest.raises(GridError, match=message):
        open_source(change(cube()))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"path": cube(), "group": "a"}, "group chooses in a Zarr store"),
        ({"stack": [cube()], "variables": ["a"]}, "goes with zarr:, not with stack:"),
        ({"path": "x.tif", "group": "a"}, "group is for Zarr, and x.tif"),
        ({"zarr": 3}, "zarr must be a path"),
        ({"zarr": "x", "variables": [3]}, "variables must be names"),
        ({"zarr": "x", "group": 3}, "group must be the name"),
        (xr.Dataset({"a": 3}), "no variable of rows and columns"),
        (xr.DataArray(np.zeros(4)), "no variable of rows and columns"),
        (xr.DataArray(np.zeros((2, 2, 2, 2)), dims=("a", "b", "y", "x")), "at most one of time and one of bands"),
        (
            xr.Dataset({"a": (("y", "x"), np.zeros((2, 2))), "b": (("v", "u"), np.zeros((2, 2)))}),
            "b of .* has other rows",
        ),
    ],
)
def test_what_makes_no_sense(given, message):
    with pytest.raises(InputError, match=message):
        open_source(given)


# -- and back ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [*GRIDS.values(), GeoBox((30, 41), UTM.affine @ Affine.rotation(10), UTM.crs)])
@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32"])
def test_a_raster_goes_there_and_back(grid, dtype):
    pixels = (coded(bands=2) % (200 if dtype == "uint8" else 1_000_000)).astype(dtype)
    valid = np.ones((30, 41), np.bool_)
    valid[2:7, 5:9] = False
    data = to_xarray(Raster(pixels, valid, grid, ("red", "nir")), name="image")
    assert data.dtype == dtype
    assert data.dims[0] == "band"
    assert data.odc.geobox == grid
    source = open_source(data)
    found = source.read(grid)
    assert (found.valid == valid).all()
    assert (found.pixels[:, valid] == pixels[:, valid]).all()
    assert source.bands == ("red", "nir")


def test_a_raster_without_crs_and_a_source_on_another_grid(write_tif):
    bare = GeoBox((30, 41), Affine.identity(), None)
    data = to_xarray(Raster(coded(), np.ones((30, 41), np.bool_), bare, ("a",)))
    assert data.dims == ("band", "y", "x")
    assert "nodata" not in data.attrs
    assert open_source(data).geobox == bare
    source = open_source(write_tif("a.tif", coded()))
    window = crop(source.geobox, Window(3, 4, 5, 6))
    assert (to_xarray(source, geobox=window).values == coded()[:, 3:8, 4:10]).all()
    assert to_xarray(source).shape == (1, 30, 41)


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_rioxarray_reads_what_is_written_for_it():
    pytest.importorskip("rioxarray")
    valid = np.ones((30, 41), np.bool_)
    valid[1, 1] = False
    found = to_xarray(Raster(coded(), valid, UTM, ("a",))).rio
    assert found.crs == rasterio.crs.CRS.from_epsg(32612)
    assert found.transform() == UTM.affine
    assert found.nodata == 0


def test_zarr_written_from_a_raster_is_the_raster(tmp_path):
    valid = np.ones((30, 41), np.bool_)
    valid[0, :3] = False
    raster = Raster(coded(bands=2), valid, UTM, ("red", "nir"))
    source = open_source(written(tmp_path, to_xarray(raster, name="image", nodata=-1)))
    found = source.read(UTM)
    assert source.geobox == UTM
    assert (found.valid == valid).all()
    assert (found.pixels[:, valid] == raster.pixels[:, valid]).all()


@pytest.mark.parametrize(
    ("nodata", "message"),
    [
        (256, "does not fit uint8"),
        (0.5, "does not fit uint8"),
        (7, "also the value of valid pixels"),
        (None, "say what"),
    ],
)
def test_nodata_that_cannot_be(nodata, message):
    pixels = np.array([[[0, 7, 255, 3]]], np.uint8)
    raster = Raster(pixels, np.array([[True, True, True, False]]), UTM[:1, :4], ("a",))
    with pytest.raises(InputError, match=message):
        to_xarray(raster, nodata=nodata)
    with pytest.raises(InputError, match="a raster lies on its own grid"):
        to_xarray(raster, geobox=UTM)


@pytest.mark.parametrize("lazy", [False, True])
def test_a_cube_in_memory_is_told_apart_by_its_values(lazy):
    pixels = np.arange(2 * 300 * 400, dtype="int32").reshape(2, 300, 400)
    changed = pixels.copy()
    changed[1, 150, 200] += 1  # in the middle, which xarray's own text leaves out
    grid = GeoBox((300, 400), UTM.affine, UTM.crs)
    one, same, other = (cube(values, grid=grid) for values in (pixels, pixels.copy(), changed))
    if lazy:
        one, same, other = (data.chunk({"y": 100}) for data in (one, one, other))
    said = [repr(open_source(data)) for data in (one, same, other)]
    assert said[0] == said[1] != said[2]
