"""Where the pixels of an xarray object lie: its CRS and its coordinates as a GeoBox."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyproj
from affine import Affine
from numpy.typing import NDArray
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from pyproj.exceptions import CRSError

from geoseg.errors import GridError
from geoseg.io.facts import crs_from_wkt, crs_named

SPATIAL_DIMS = (("y", "x"), ("latitude", "longitude"), ("lat", "lon"), ("northing", "easting"), ("yc", "xc"))
"""What rows and columns are called; the last two dimensions where they are called otherwise."""

DEGREES = ("latitude", "lat")

CRS_KEYS = ("_CRS", "proj:code", "proj:wkt2", "proj:projjson", "crs_wkt", "crs", "spatial_ref", "proj:epsg", "epsg")
"""Attributes of an object that name its CRS."""

CRS_COORDS = ("proj:code", "proj:epsg", "epsg")
"""Coordinates of a single value that name it, as stackstac's."""

GDAL_CRS = ("wkt", "projjson", "url")
"""What `_CRS` may hold: https://gdal.org/en/stable/drivers/raster/zarr.html."""

TRANSFORM_KEYS = ("spatial:transform", "proj:transform", "transform")
"""Attributes that hold an affine, in the order a, b, c, d, e, f."""

EVEN_PX = 0.01
"""Coordinates are even where none is off by more than this share of a pixel, or by what their dtype rounds away."""

UNEVEN_PX = 0.5
"""However coarse their dtype is, coordinates that are off by more are not even."""

METRES = dict.fromkeys(("m", "metre", "meter", "metres", "meters"), 1.0) | dict.fromkeys(
    ("km", "kilometre", "kilometer", "kilometres", "kilometers"), 1000.0
)
"""Units of length of coordinates."""

RADIANS = dict.fromkeys(("rad", "radian", "radians"), 1.0) | dict.fromkeys(
    ("microradian", "microradians", "urad"), 1e-6
)
"""Units of angles at which a satellite scans."""

STANDARD_ROWS = ("projection_y_coordinate", "projection_y_angular_coordinate", "latitude", "grid_latitude")
STANDARD_COLS = ("projection_x_coordinate", "projection_x_angular_coordinate", "longitude", "grid_longitude")


@dataclass(frozen=True, slots=True)
class Grid:
    """A grid, and what has to be turned to read on it.

    Attributes:
        geobox: Shape, affine and CRS.
        flips: Whether rows, and columns, stand in the object in reverse order.
    """

    geobox: GeoBox
    flips: tuple[bool, bool] = (False, False)


def spatial_dims(array: Any) -> tuple[str, str]:
    """Names of the dimensions of rows and columns."""
    told = array.attrs.get("spatial:dimensions")
    if isinstance(told, list | tuple) and len(told) == 2 and set(told) <= set(array.dims):
        return str(told[0]), str(told[1])
    lowered = {str(dim).lower(): str(dim) for dim in array.dims}
    for rows, cols in SPATIAL_DIMS:
        if rows in lowered and cols in lowered:
            return lowered[rows], lowered[cols]
    axes = {_axis(array.coords[dim].attrs): str(dim) for dim in array.dims if dim in array.coords}
    return (axes["Y"], axes["X"]) if {"X", "Y"} <= set(axes) else (str(array.dims[-2]), str(array.dims[-1]))


def _axis(attributes: Mapping[str, Any]) -> str:
    """X or Y, as the attributes of a coordinate say it; else what they say, or nothing."""
    said, standard = str(attributes.get("axis", "")).upper(), attributes.get("standard_name")
    return said or ("Y" if standard in STANDARD_ROWS else "X" if standard in STANDARD_COLS else "")


def grid_of(data: Any, array: Any, dims: tuple[str, str], *, crs: str | None, name: str) -> Grid:
    """The grid of a variable; with a CRS its rows go south and its columns east.

    Args:
        data: What the variable is of: a Dataset, or the DataArray itself.
        array: The variable.
        dims: Its dimensions of rows and columns.
        crs: CRS instead of the object's.
        name: For messages.

    Raises:
        GridError: Coordinates are uneven or two-dimensional, or the CRS is not understood, or nothing but it is said.
    """
    shape = array.sizes[dims[0]], array.sizes[dims[1]]
    told = crs_named(crs) if crs is not None else _crs(data, array, dims, name)
    affine = _affine(data, array, dims, told, name)
    if told is None and (affine is None or _is_count(affine)):
        return Grid(GeoBox(shape, Affine.identity(), None))
    if affine is None:
        raise GridError(
            f"{name} has a CRS, but nothing says where its pixels lie; needed are coordinates {dims[0]} and {dims[1]}, "
            "or a GeoTransform"
        )
    straight = told is not None and affine.b == affine.d == 0
    flips = straight and affine.e > 0, straight and affine.a < 0
    if flips[0]:
        affine = affine @ Affine.translation(0, shape[0]) @ Affine.scale(1, -1)
    if flips[1]:
        affine = affine @ Affine.translation(shape[1], 0) @ Affine.scale(-1, 1)
    return Grid(GeoBox(shape, affine, told), flips)


def _is_count(affine: Affine) -> bool:
    """Whether coordinates only count the pixels, from 0 or from half a pixel on."""
    return (affine.a, affine.b, affine.d, affine.e) == (1, 0, 0, 1) and affine.c == affine.f and affine.c in (0, -0.5)


# -- CRS ---------------------------------------------------------------------------------------------------------------


def _crs(data: Any, array: Any, dims: tuple[str, str], name: str) -> CRS | None:
    """The CRS that the object names, in the order of how much it is meant."""
    for attributes in _mappings(data, array):
        text = attributes.get("crs_wkt") or attributes.get("spatial_ref")
        found = text or (dict(attributes) if "grid_mapping_name" in attributes else None)
        if found:
            return _understood(found, name)
    places = [array.coords[dim].attrs for dim in dims if dim in array.coords]
    for attributes in (array.attrs, data.attrs, *places):
        for key in CRS_KEYS:
            if attributes.get(key):
                return _understood(attributes[key], name)
    for key in CRS_COORDS:
        if key in array.coords and array.coords[key].ndim == 0 and array.coords[key].dtype.kind in "iuUO":
            return _understood(array.coords[key].item(), name)
    units = [str(attributes.get("units", "")).lower() for attributes in places]
    degrees = dims[0].lower() in DEGREES or (len(units) == 2 and all(unit.startswith("degree") for unit in units))
    return crs_named("EPSG:4326") if degrees else None


def _mappings(data: Any, array: Any) -> Iterator[Mapping[str, Any]]:
    """Attributes of the grid mapping that the variable names, then of whatever else looks like one."""
    named = str(array.attrs.get("grid_mapping") or array.encoding.get("grid_mapping") or "")
    known = {**getattr(data, "variables", data.coords), **array.coords}
    first = named.partition(":")[0].strip()
    if first in known:
        yield known[first].attrs
    for key, variable in known.items():
        if (
            key != first
            and variable.ndim == 0
            and {"crs_wkt", "spatial_ref", "grid_mapping_name"} & set(variable.attrs)
        ):
            yield variable.attrs


def _understood(found: Any, name: str) -> CRS:
    """The CRS of WKT, a code, PROJJSON, CF attributes, or several of them by name as GDAL's Zarr has them.

    Raises:
        GridError: It is none of these.
    """
    try:
        if isinstance(found, Mapping) and "grid_mapping_name" in found:
            return crs_from_wkt(pyproj.CRS.from_cf(dict(found)).to_wkt())
        if isinstance(found, Mapping) and not {"type", "$schema"} & set(found):
            found = next(found[key] for key in GDAL_CRS if key in found)
        old = re.fullmatch(r"\+?init=(epsg:\d+)", str(found), re.IGNORECASE)
        return crs_from_wkt(pyproj.CRS.from_user_input(old[1] if old else _plain(found)).to_wkt())
    except (CRSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise GridError(f"{name} has a CRS that is not understood; give it with crs: EPSG:...") from error


def _plain(found: Any) -> Any:
    return int(found) if isinstance(found, np.integer | float) else found


# -- coordinates -------------------------------------------------------------------------------------------------------


def _affine(data: Any, array: Any, dims: tuple[str, str], crs: CRS | None, name: str) -> Affine | None:
    """Pixels to coordinates; None where nothing says them."""
    told = _told(data, array)
    if any(dim not in array.coords for dim in dims):
        if told is None:
            _refuse_swath(array, dims, name)
        return told
    rows, cols = (_values(array.coords[dim], crs, name) for dim in dims)
    if all(array.coords[dim].attrs.get("units") == "pixel" for dim in dims):
        # odc-geo counts the pixels of turned grids from half a pixel on.
        return None if told is None else told @ _from_axes(rows, cols, Affine.identity(), dims, name)
    found = _from_axes(rows, cols, told, dims, name)
    if told is None:
        return found
    rounding = max(_rounding(rows) / abs(found.e), _rounding(cols) / abs(found.a))
    shape = len(rows), len(cols)
    corners = found @ Affine.translation(0.5, 0.5)
    if _on_pixels_of(told, corners, shape, rounding):  # stackstac gives the upper left corner of each pixel
        found = corners
    return told if _agree(found, told, shape, rounding) else found


def _values(coordinate: Any, crs: CRS | None, name: str) -> NDArray[Any]:
    """Coordinates along a dimension, unpacked, in the unit of the CRS.

    Raises:
        GridError: They are no numbers, or angles that a satellite scans, with a CRS of none.
    """
    values, attributes = np.asarray(coordinate.values), coordinate.attrs
    if values.dtype.kind not in "iuf":
        raise GridError(f"{coordinate.name} of {name} holds {values.dtype}; needed are coordinates of pixel centres")
    if "scale_factor" in attributes or "add_offset" in attributes:
        values = values * float(attributes.get("scale_factor", 1)) + float(attributes.get("add_offset", 0))
    factor = _factor(str(attributes.get("units", "")).lower(), crs)
    if factor is None:
        raise GridError(
            f"coordinate {coordinate.name} of {name} is in {attributes['units']}, and its CRS is not that of a "
            "geostationary satellite; needed are coordinates in the unit of the CRS, or another one with crs: EPSG:..."
        )
    return values if factor == 1 else values * factor


def _factor(units: str, crs: CRS | None) -> float | None:
    """From coordinates in `units` to those of the CRS; None where angles meet a CRS that has none.

    Scan angles times the height of the satellite are its coordinates:
    https://cfconventions.org/Data/cf-conventions/cf-conventions-1.11/cf-conventions.html#_geostationary_projection.
    """
    number, _, unit = units.rpartition(" ")
    try:
        count = float(number or 1)
    except ValueError:
        return 1.0
    own = crs.proj.axis_info[0].unit_conversion_factor if crs is not None and crs.proj.is_projected else 1.0
    if unit in METRES:
        return count * METRES[unit] / own
    if unit not in RADIANS:
        return 1.0
    height = None if crs is None else crs.proj.to_cf().get("perspective_point_height")
    geostationary = crs is not None and "geostationary" in str(crs.proj.to_cf().get("grid_mapping_name", ""))
    return count * RADIANS[unit] * float(height) / own if geostationary and height is not None else None


def _told(data: Any, array: Any) -> Affine | None:
    """The affine that stands in attributes, if it has an area."""
    found = _written(data, array)
    return found if found is not None and found.determinant != 0 else None


def _written(data: Any, array: Any) -> Affine | None:
    for attributes in _mappings(data, array):
        text = attributes.get("GeoTransform")
        numbers = text.split() if isinstance(text, str) else text
        if numbers is not None and len(numbers) == 6:
            return Affine.from_gdal(*(float(number) for number in numbers))
    for attributes in (array.attrs, data.attrs):
        for key in TRANSFORM_KEYS:
            numbers = attributes.get(key)
            if isinstance(numbers, list | tuple | np.ndarray | Affine) and len(tuple(numbers)) in (6, 9):
                found = Affine(*(float(number) for number in tuple(numbers)[:6]))
                nodes = key.startswith("spatial:") and attributes.get("spatial:registration") == "node"
                return found @ Affine.translation(-0.5, -0.5) if nodes else found
    return None


def _refuse_swath(array: Any, dims: tuple[str, str], name: str) -> None:
    swath = [str(key) for key, c in array.coords.items() if c.ndim == 2 and set(c.dims) == set(dims)]
    lonlat = [key for key in swath if key.lower().startswith(("lat", "lon"))]
    if lonlat:
        raise GridError(
            f"{name} says where each pixel lies ({', '.join(lonlat)} of two dimensions), not on which grid; warp it "
            "first, for example with pyresample or gdalwarp -geoloc"
        )


def _from_axes(rows: NDArray[Any], cols: NDArray[Any], told: Affine | None, dims: tuple[str, str], name: str) -> Affine:
    """The affine of pixel centres along both axes.

    Raises:
        GridError: They are not even, or one is a single pixel whose size nothing says.
    """
    steps = [_step(values, dim, name) for values, dim in zip((rows, cols), dims, strict=True)]
    high = steps[0] or (told.e if told is not None else 0) or -abs(steps[1] or 0)
    wide = steps[1] or (told.a if told is not None else 0) or abs(steps[0] or 0)
    if not high or not wide:
        raise GridError(f"{name} is a single pixel, and nothing says how large; needed is a GeoTransform")
    return Affine(wide, 0, float(cols[0]) - wide / 2, 0, high, float(rows[0]) - high / 2)


def _step(values: NDArray[Any], dim: str, name: str) -> float | None:
    """From one coordinate to the next; None where there is but one.

    Raises:
        GridError: They are not even.
    """
    wide = values.astype(np.float64)
    if len(wide) < 2:
        return None
    step = (wide[-1] - wide[0]) / (len(wide) - 1)
    off = float(np.abs(wide - (wide[0] + step * np.arange(len(wide)))).max())
    rounding = _rounding(values)
    # What is NaN is not even either.
    if not (step and off <= min(max(EVEN_PX * abs(step), rounding), UNEVEN_PX * abs(step))):
        raise GridError(
            f"coordinates {dim} of {name} are not evenly spaced (off by {off:g} at steps of {step:g}); needed is one "
            "grid: select a part of it, or interpolate to even coordinates"
        )
    return float(step)


def _rounding(values: NDArray[Any]) -> float:
    """What a coordinate may be off by because of its dtype."""
    return 2 * float(np.finfo(values.dtype).eps) * float(np.abs(values).max()) if values.dtype.kind == "f" else 0.0


def _on_pixels_of(told: Affine, found: Affine, shape: tuple[int, int], rounding_px: float) -> bool:
    """Whether a grid is a part of another, in whole pixels."""
    col, row = ~told @ (found.c, found.f)
    shift = Affine.translation(round(col), round(row))
    return _agree(found, told @ shift, shape, min(rounding_px, 0.25))


def _agree(found: Affine, told: Affine, shape: tuple[int, int], rounding_px: float) -> bool:
    """Whether two grids are one, so that the one with all its digits may stand for the other."""
    ends = [(0, 0), (shape[1], shape[0])]
    off = [abs(a - b) for end in ends for a, b in zip(~told @ (found @ end), end, strict=True)]
    return bool(max(off) <= min(max(EVEN_PX, rounding_px), UNEVEN_PX))
