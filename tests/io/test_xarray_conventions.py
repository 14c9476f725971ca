"""What writers of cubes say of places and values in their own ways, against values and places computed apart."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
import zarr
from affine import Affine
from pyproj import CRS, Transformer

from geoseg.errors import BandError, GridError
from geoseg.io.sources import open_source

X, Y = 500_005 + 10 * np.arange(4.0), 4_999_995 - 10 * np.arange(3.0)
TEN_M = Affine(10, 0, 500_000, 0, -10, 5_000_000)
IN_UTM = {"crs": "EPSG:32633"}


def dataset(pixels=None, *, attrs=None, x=X, y=Y, units=(None, None), mapping=None, **about) -> xr.Dataset:
    """One variable `a` of rows `y` and columns `x`."""
    pixels = np.arange(len(y) * len(x), dtype="f4").reshape(len(y), len(x)) if pixels is None else pixels
    words = [{} if unit is None else {"units": unit} for unit in units]
    coords = {"y": ("y", y, words[0]), "x": ("x", x, words[1])}
    if mapping is not None:
        coords["crs"] = ((), 0, mapping.to_cf())
        attrs = {"grid_mapping": "crs", **(attrs or {})}
    return xr.Dataset({"a": (("y", "x"), pixels, attrs or {})}, coords=coords, attrs=about)


def values(*pixels, dtype="int16", **attrs) -> xr.Dataset:
    """One row of values, and what is said of them."""
    return dataset(np.array([pixels], dtype), attrs=attrs, x=X[: len(pixels)], y=Y[:1], **IN_UTM | ONE_ROW)


ONE_ROW = {"spatial:transform": [10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0]}


def read(data):
    source = open_source(data)
    return source.read(source.geobox)


# -- places ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_packed_coordinates_are_unpacked(tmp_path, dtype):
    told = {"scale_factor": np.dtype(dtype).type(-10), "add_offset": 4_999_995.0}
    rows = ("y", np.arange(3, dtype=dtype), told)
    packed = dataset(**IN_UTM).assign_coords(y=rows)
    packed.to_zarr(tmp_path / "packed.zarr", consolidated=False)
    for given in (packed, str(tmp_path / "packed.zarr")):
        assert open_source(given).geobox.affine.almost_equals(TEN_M)


@pytest.mark.parametrize(("unit", "per_rad"), [("rad", 1), ("radians", 1), ("microradian", 1e6), ("1e-6 rad", 1e6)])
def test_scan_angles_of_geostationary_satellites_are_metres_times_their_height(unit, per_rad):
    crs, height, step = CRS("+proj=geos +h=35786023 +lon_0=-75 +sweep=x +ellps=GRS80"), 35_786_023, 5.6e-5
    x, y = np.arange(4) * step * per_rad, (0.1 - np.arange(4) * step) * per_rad
    found = open_source(dataset(x=x, y=y, units=(unit, unit), mapping=crs)).geobox
    want = Affine(step * height, 0, -step / 2 * height, 0, -step * height, (0.1 + step / 2) * height)
    assert found.affine.almost_equals(want, precision=1e-3)


def test_angles_on_a_map_are_refused():
    with pytest.raises(GridError, match="coordinate y.*rad.*geostationary"):
        _ = open_source(dataset(x=np.arange(4.0), y=np.arange(4.0), units=("rad", "rad"), mapping=CRS(32633))).geobox


@pytest.mark.parametrize("unit", ["km", "m", "1000 metre", None])
@pytest.mark.parametrize("name", ["km", "m", "us-ft"])
def test_coordinates_are_given_in_the_unit_of_the_crs(unit, name):
    crs = CRS.from_user_input(f"+proj=laea +lat_0=90 +units={name} +datum=WGS84")
    lengths = {"km": 1000, "m": 1, "us-ft": 1200 / 3937, "1000 metre": 1000}
    metres = np.arange(-2, 2) * 25_000.0
    own = metres / lengths[unit or name]
    found = open_source(dataset(x=own, y=-own, units=(unit, unit), mapping=crs)).geobox
    lon, lat = Transformer.from_crs(found.crs.proj, 4326, always_xy=True).transform(*(found.affine @ (0.5, 0.5)))
    want = Transformer.from_crs("+proj=laea +lat_0=90 +datum=WGS84", 4326, always_xy=True).transform(-50_000, 50_000)
    assert (lon, lat) == pytest.approx(want)


@pytest.mark.parametrize("part", [slice(None), slice(1, None), slice(2, 3)])
@pytest.mark.parametrize("half", [0, 5], ids=["corners", "centres"])
@pytest.mark.parametrize("kind", [tuple, lambda affine: affine], ids=["numbers", "affine"])
def test_coordinates_are_corners_where_the_transform_says_so(part, half, kind):
    stack = dataset(x=500_000 + half + 10 * np.arange(4.0), y=5_000_000 - half - 10 * np.arange(3.0))["a"]
    stack = stack.assign_coords(epsg=32633).assign_attrs(transform=kind(TEN_M), resolution=10.0)
    found = open_source(stack.isel(x=part, y=part)).geobox
    assert found.crs.epsg == 32633
    assert found.affine.almost_equals(TEN_M @ Affine.translation(part.start or 0, part.start or 0))


def test_a_transform_of_nodes_is_of_the_centres_of_pixels():
    centres = {**ONE_ROW, "spatial:transform": [10.0, 0.0, 500_005.0, 0.0, -10.0, 4_999_995.0]}
    said = dataset(**IN_UTM, **centres, **{"spatial:registration": "node"})
    assert open_source(said).geobox == open_source(said.drop_vars(["x", "y"])).geobox
    assert open_source(said).geobox.affine.almost_equals(TEN_M)


@pytest.mark.parametrize(
    "attrs",
    [
        {"standard_name": ("projection_y_coordinate", "projection_x_coordinate")},
        {"axis": ("Y", "X")},
        None,
    ],
)
def test_axes_are_told_by_what_they_say_whatever_their_order(attrs):
    words = [{} if attrs is None else {key: pair[k] for key, pair in attrs.items()} for k in range(2)]
    coords = {"ny": ("ny", Y, words[0]), "nx": ("nx", X, words[1])}
    pixels = np.arange(12.0).reshape(4, 3)
    told = {"spatial:dimensions": ["ny", "nx"]} if attrs is None else {}
    raster = read(xr.Dataset({"a": (("nx", "ny"), pixels)}, coords=coords, attrs=IN_UTM | told))
    assert raster.geobox.affine.almost_equals(TEN_M)
    np.testing.assert_array_equal(raster.pixels[0], pixels.T)


@pytest.mark.parametrize("key", ["wkt", "projjson", "url"])
def test_gdal_names_the_crs_of_an_array(tmp_path, key):
    said = {
        "wkt": CRS(32633).to_wkt(),
        "projjson": CRS(32633).to_json_dict(),
        "url": "http://www.opengis.net/def/crs/EPSG/0/32633",
    }
    dataset(attrs={"_CRS": {key: said[key]}}).to_zarr(tmp_path / "g.zarr", consolidated=False)
    assert open_source(str(tmp_path / "g.zarr")).geobox.crs.epsg == 32633


@pytest.mark.parametrize("at", ["", "measurements"])
def test_a_group_lies_in_the_crs_of_the_group_it_is_in(tmp_path, at):
    path = str(tmp_path / "p.zarr")
    dataset().to_zarr(path, group="measurements/r10m", consolidated=False)
    zarr.open_group(path, path=at or None, mode="a").attrs["proj:code"] = "EPSG:32633"
    found = open_source({"path": path, "group": "measurements/r10m"}).geobox
    assert found.crs is not None
    assert found.crs.epsg == 32633


# -- values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["i1", "i2"])
def test_unsigned_values_in_signed_integers(kind):
    most = 2 ** (8 * np.dtype(kind).itemsize) - 1
    stored = np.array([1, most, most - 1, 3], f"u{kind[1]}").view(kind)
    raster = read(values(*stored, dtype=kind, _Unsigned="true", nodata=-1, valid_range=[0, -2]))
    assert raster.dtype == np.dtype(f"u{kind[1]}")
    assert raster.pixels[0, 0].tolist()[2:] == [most - 1, 3]
    assert raster.valid[0].tolist() == [True, False, True, True]


@pytest.mark.parametrize("said", ["true", "false", None])
def test_a_sign_is_turned_only_where_it_is_said(said):
    words = {} if said is None else {"_Unsigned": said}
    stored = np.array([1, 127, 200, 255], "u1").view("i1" if said == "true" else "u1")
    raster = read(values(*stored, dtype=stored.dtype, missing_value=-1, **words))
    assert raster.pixels[0, 0].tolist()[:3] == ([1, 127, -56] if said == "false" else [1, 127, 200])
    assert raster.valid[0].tolist() == [True, True, True, said is None]
    unpacked = xr.decode_cf(values(*stored, dtype=stored.dtype, valid_range=[0, 127], scale_factor=0.5, **words))
    assert read(unpacked).valid[0].tolist() == [True, True, False, False]
    assert read(values(*stored, dtype="f4", nodata=-7, **words)).valid.all()
    below = values(*stored, dtype=stored.dtype, valid_min=-100, **words)
    assert read(below).valid[0].tolist() == ([False, False, True, True] if said == "true" else [True] * 4)


@pytest.mark.parametrize(
    "said", [{"valid_range": [2, 7]}, {"valid_min": 2, "valid_max": 7}, {"valid_range": np.array([2, 7], "i2")}]
)
@pytest.mark.parametrize("scaled", [{}, {"scale_factor": 0.1, "add_offset": -1.0}, {"scale_factor": -0.1}])
def test_values_beyond_the_valid_range_are_hidden_packed_or_not(said, scaled):
    packed = values(1, 2, 7, 8, **said, **scaled)
    assert read(packed).valid[0].tolist() == [False, True, True, False]
    assert read(xr.decode_cf(packed)).valid[0].tolist() == [False, True, True, False]
    assert read({"path": packed, "nodata": 7}).valid[0].tolist() == [True, True, False, True]


def test_a_valid_range_may_be_of_unpacked_values():
    for scale, ends in ((0.1, [0.2, 0.7]), (-0.1, [-0.7, -0.2])):
        packed = values(1, 2, 7, 8, scale_factor=scale, valid_range=ends)
        assert read(packed).valid[0].tolist() == [False, True, True, False]
        assert read(xr.decode_cf(packed)).valid[0].tolist() == [False, True, True, False]


def test_every_missing_value_is_hidden():
    assert read(values(1, 7, 3, 9, missing_value=np.array([7, 3], "i2"))).valid[0].tolist() == [
        True,
        False,
        False,
        True,
    ]


def bands(**attrs) -> xr.DataArray:
    pixels = np.array([[[1, 2, 7, 4]], [[1, 5, 7, 4]]], "i2")
    coords = {"band": ["red", "nir"], "x": X, "y": Y[:1]}
    return xr.DataArray(pixels, dims=("band", "y", "x"), coords=coords, attrs=IN_UTM | ONE_ROW | attrs)


def test_each_band_has_its_own_nodata_scale_and_offset():
    raster = read(bands(scales=(0.1, 0.01), offsets=(0.0, 5.0), nodatavals=(7, 1)))
    assert raster.valid[0].tolist() == [False, True, False, True]
    np.testing.assert_allclose(raster.pixels[:, 0, 1], [0.2, 5.05], rtol=1e-6)


def test_figures_for_other_bands_than_there_are_stand_for_all_or_are_refused():
    assert read(bands(nodatavals=(4, 4, 4))).valid[0].tolist() == [True, True, True, False]
    assert read(bands(nodatavals=(np.nan,) * 3)).valid.all()
    with pytest.raises(BandError, match="scales has 3 values for 2 bands"):
        _ = open_source(bands(scales=(0.1, 0.2, 0.3))).bands
