"""xarray objects and Zarr as sources, and rasters as xarray objects.

A cube is read lazily: a window touches the chunks that it lies on, and no others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from odc.geo.geobox import GeoBox

from geoseg.errors import InputError, ReadError
from geoseg.extras import extra_module
from geoseg.io.cube_places import READ_ERRORS, InMemory, Place, ZarrPlace, is_xarray
from geoseg.io.gdal import equals_nodata, instant, is_code
from geoseg.io.grids import Lattice
from geoseg.io.handles import one_line
from geoseg.io.protocol import Source
from geoseg.io.resample import Patch, read_onto, resampling_named
from geoseg.io.xarray_facts import Cube, Piece, describe_cube, moments_of
from geoseg.io.xarray_values import EVERYTHING, CubeOptions, Meaning
from geoseg.raster import Raster
from geoseg.tiling import Window

if TYPE_CHECKING:
    from numpy.typing import NDArray

STRIP_SAMPLES = 1 << 24
"""Samples that are decoded at once while thinning, at least one row of thinned pixels of them."""

NO_NODATA = 1e30
"""A nodata value that no code has."""

CUBE_OPTIONS = ("variables", "time", "group")
"""Options of a cube beside those that every raster has."""

OF_CUBE = {"bands": "names", "select": "chosen"}
"""What the options of a source are called in `CubeOptions`."""


@dataclass(frozen=True)
class XarraySource:
    """A cube of rows and columns; opened when its grid, bands or pixels are first asked for.

    Attributes:
        place: Where it comes from.
        options: What the user says of it.
        resampling: How values are taken on grids other than its own.
        date: When the pixels were taken, ISO 8601, instead of the cube's time.

    Raises:
        InputError: The resampling is unknown or the date is not ISO 8601.
    """

    place: Place
    options: CubeOptions = CubeOptions()  # noqa: RUF009 - frozen
    resampling: str = "bilinear"
    date: str | None = None

    def __post_init__(self) -> None:
        resampling_named(self.resampling)
        if self.date is not None:
            instant(self.date)

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: not what has been opened."""
        return {name: value for name, value in self.__dict__.items() if name != "_opened"}

    @property
    def cube(self) -> Cube:
        """What the cube says, with what the options say instead; opened once a process.

        Handles of remote stores do not outlive a fork.
        """
        found: Cube | None
        pid, found = self.__dict__.get("_opened", (None, None))
        if found is None or pid != os.getpid():
            found = describe_cube(self.place.open(), self.options, self.place.name)
            self.__dict__["_opened"] = os.getpid(), found
        return found

    @property
    def geobox(self) -> GeoBox:
        """The cube's grid: north up where it has a CRS."""
        return self.cube.geobox

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the selected bands."""
        return self.cube.bands

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype that holds all bands, or float32 where values are scaled."""
        return np.dtype(np.float32) if self.cube.scaled else self.cube.dtype

    @property
    def taken(self) -> str:
        """When the pixels were taken, ISO 8601; empty where nothing says so."""
        return self.date or self.cube.moment

    def picked(self, positions: Sequence[int], names: Sequence[str]) -> XarraySource:
        """The bands at `positions` under `names`; those left out are not read and not asked if valid."""
        called, numbers = list(self.cube.everything), [self.cube.numbers[position] for position in positions]
        for number, name in zip(numbers, names, strict=True):
            called[number - 1] = name
        return replace(self, options=replace(self.options, names=tuple(called), chosen=tuple(numbers)))

    def nearest(self, codes: range | None = None, *, scaled: bool = False) -> XarraySource:
        """The same, read by nearest neighbour; where values are `codes`, no code is nodata, and unless `scaled` raw."""
        if codes is None:
            return replace(self, resampling="nearest")
        meant = any(is_code(value, codes) for piece in self.cube.pieces for value in piece.nodata)
        options = replace(self.options, nodata=NO_NODATA if meant else self.options.nodata)
        if not scaled:
            options = replace(options, scale=1.0, offset=0.0)
        return replace(self, options=options, resampling="nearest")

    def read(self, geobox: GeoBox) -> Raster:
        """The pixels on `geobox`.

        Raises:
            ReadError: The cube cannot be read there.
            GridError: One of the grids has no CRS and they are not one grid.
        """
        found = read_onto(
            self.geobox,
            geobox,
            self._read_lattice,
            resampling=self.resampling,
            count=len(self.bands),
            dtype=self.dtype,
            name=self.place.name,
        )
        return Raster(found.pixels, found.valid, geobox, self.bands)

    def _read_lattice(self, lattice: Lattice) -> Patch:
        """The pixels of `lattice`; those outside the cube are invalid."""
        if lattice.factors == (1, 1):
            return self._decode(lattice.window)
        thin = resampling_named(self.resampling).thin
        out = Patch.empty(len(self.bands), (lattice.rows, lattice.cols), self.dtype)
        for strip in _strips(lattice, len(self.bands)):
            part = thin(self._decode(lattice.part(strip).window), lattice.factors)
            out.pixels[:, *strip.slices], out.valid[strip.slices] = part.pixels, part.valid
        return out

    def _decode(self, window: Window) -> Patch:
        """Scaled pixels and validity of `window`, which may reach beyond the cube."""
        cube = self.cube
        out = Patch.empty(len(cube.bands), (window.rows, window.cols), self.dtype)
        inside = window.intersect(Window(0, 0, *cube.geobox.shape))
        if not (inside.rows and inside.cols):
            return out
        rows, cols = (
            slice(first - origin, first - origin + count)
            for first, origin, count in (
                (inside.row_off, window.row_off, inside.rows),
                (inside.col_off, window.col_off, inside.cols),
            )
        )
        valid, start = np.ones((inside.rows, inside.cols), np.bool_), 0
        for piece in cube.pieces:
            raw = self._raw(piece, inside)
            valid &= _valid(raw, piece.meaning)
            scaled = raw * piece.meaning.scale + piece.meaning.offset if cube.scaled else raw
            out.pixels[start : start + len(raw), rows, cols] = scaled
            start += len(raw)
        out.valid[rows, cols] = valid
        return out

    def _raw(self, piece: Piece, window: Window) -> NDArray[Any]:
        """Raw values `(band, row, col)` of a window inside the cube."""
        dims = piece.values.dims
        band, row, col = piece.axes
        rows, cols = window.slices
        try:
            found = np.asarray(piece.values.isel({dims[row]: rows, dims[col]: cols}).values)
        except READ_ERRORS as error:
            raise ReadError(
                f"{self.place.name} cannot be read at rows {window.row_off} to {window.row_stop}, "
                f"columns {window.col_off} to {window.col_stop}: {one_line(error)}"
            ) from error
        found = found.transpose(row, col)[None] if band is None else found.transpose(band, row, col)
        return found.astype(piece.dtype, copy=False)


def _valid(raw: NDArray[Any], meaning: Meaning) -> NDArray[np.bool_]:
    """Where all bands are finite and within their limits, and none is nodata, `(row, col)`."""
    valid = np.isfinite(raw).all(axis=0)
    for value in meaning.nodata:
        valid &= ~equals_nodata(raw, value).any(axis=0)
    if meaning.limits != EVERYTHING:
        valid &= ((raw >= meaning.limits[0]) & (raw <= meaning.limits[1])).all(axis=0)
    return np.asarray(valid)


def _strips(lattice: Lattice, bands: int) -> Iterator[Window]:
    """Windows of thinned pixels, whole rows of them, whose decoded pixels fit in memory."""
    row_samples = bands * lattice.factors[0] * lattice.cols * lattice.factors[1]
    high = max(1, STRIP_SAMPLES // row_samples)
    for row in range(0, lattice.rows, high):
        yield Window(row, 0, min(high, lattice.rows - row), lattice.cols)


# -- from what a user says ---------------------------------------------------------------------------------------------


def cube_sources(given: Any, options: Mapping[str, Any]) -> list[Source]:
    """A source of a Zarr path or an xarray object; one a date where `time` is a list, or dates are to be combined.

    Args:
        given: A path, an address or an object.
        options: Options of a source, as `geoseg.io.sources.open_source` has checked them: `bands`, `select`, `nodata`,
            `scale`, `offset`, `crs`, `resampling`, `date`; and `variables`, `time` and `group`.

    Raises:
        InputError: A date is not there, or `group` is said of an object.
        MissingInputError: There is no Zarr.
        ReadError: It cannot be read.
    """
    group = options.get("group")
    if group is not None and is_xarray(given):
        raise InputError("group chooses in a Zarr store, and the xarray object is already of one")
    place: Place = InMemory(given) if is_xarray(given) else ZarrPlace(str(given), group)
    known = ("variables", "nodata", "scale", "offset", "crs", "bands", "select")
    said = {OF_CUBE.get(key, key): options[key] for key in known if key in options}
    shared = {key: options[key] for key in ("resampling", "date") if key in options}
    time = options.get("time")
    if not {"combine", "fill"} & set(options) and not isinstance(time, tuple):
        return [XarraySource(place, CubeOptions(**said, time=time), **shared)]
    numbers = moments_of(place.open(), time, options.get("variables"), place.name)
    return [XarraySource(place, CubeOptions(**said, time=number), **shared) for number in dict.fromkeys(numbers)]


def checked_cube_option(key: str, value: Any) -> Any:
    """An option of `CUBE_OPTIONS` in the form that `cube_sources` takes.

    Raises:
        InputError: It is of the wrong kind.
    """
    if key == "group":
        if not isinstance(value, str):
            raise InputError(f"group must be the name of a group, such as measurements/r10m, got {value!r}")
        return value.strip("/") or None
    listed = list(value) if isinstance(value, list | tuple) else [value]
    if key == "variables" and (not listed or not all(isinstance(name, str) for name in listed)):
        raise InputError(f"variables must be names of variables, got {value!r}")
    if key == "variables":
        return tuple(listed)
    times = tuple(
        one if isinstance(one, int) else one.isoformat() if hasattr(one, "isoformat") else str(one) for one in listed
    )
    if not times or any(isinstance(one, bool) for one in listed):
        raise InputError(f"time must be a date, its number, or a list of them, got {value!r}")
    return times if isinstance(value, list | tuple) else times[0]


# -- and back ----------------------------------------------------------------------------------------------------------


def to_xarray(
    pixels: Raster | Source, *, geobox: GeoBox | None = None, nodata: float | None = None, name: str | None = None
) -> Any:
    """A DataArray `(band, y, x)` with band names, coordinates of pixel centres and CRS, as odc-geo and rioxarray read.

    Args:
        pixels: A raster; or a source, which is read into memory.
        geobox: Where a source is read; without, its own grid.
        nodata: What stands at invalid pixels. Without, NaN in floats; in integers, where there are invalid pixels, a
            value that no valid pixel has: 0, else the largest or the smallest of the dtype. It is written into the
            attributes `nodata` and `_FillValue`.
        name: The array's name.

    Raises:
        InputError: xarray is not installed, a raster is asked for on another grid, `nodata` does not fit the dtype or
            is the value of valid pixels, or no value is free.
    """
    if isinstance(pixels, Raster):
        if geobox is not None and geobox != pixels.geobox:
            raise InputError("a raster lies on its own grid; geobox is for sources, which are read onto it")
        raster = pixels
    else:
        raster = pixels.read(pixels.geobox if geobox is None else geobox)
    xarray = extra_module("xarray", extra="zarr", needed_by="to_xarray")
    from odc.geo.xr import xr_coords

    fill = _fill_value(raster, nodata)
    values = raster.pixels if fill is None else np.where(raster.valid, raster.pixels, np.asarray(fill, raster.dtype))
    dims = raster.geobox.dimensions if raster.geobox.crs is not None else ("y", "x")
    coords = {"band": list(raster.bands), **xr_coords(raster.geobox)}
    attrs = {} if fill is None else {"nodata": fill, "_FillValue": fill}
    found = xarray.DataArray(values, coords=coords, dims=("band", *dims), attrs=attrs, name=name)
    if "spatial_ref" in found.coords:
        found.encoding["grid_mapping"] = "spatial_ref"
    return found


def _fill_value(raster: Raster, nodata: float | None) -> Any:
    """What is to stand at invalid pixels, of the raster's dtype; None where there are none and nothing was said."""
    dtype = raster.dtype
    whole = np.issubdtype(dtype, np.integer)
    if nodata is None and not whole:
        return dtype.type(np.nan) if np.issubdtype(dtype, np.floating) else None
    if nodata is None and raster.valid.all():
        return None
    limits = np.iinfo(dtype) if whole else np.finfo(dtype)
    valid = raster.pixels[:, raster.valid]
    if nodata is not None:
        if (np.isfinite(nodata) and not limits.min <= nodata <= limits.max) or (whole and nodata != np.rint(nodata)):
            raise InputError(f"nodata {nodata} does not fit {dtype}, which goes from {limits.min} to {limits.max}")
        if (valid == nodata).any():
            raise InputError(f"nodata {nodata} is also the value of valid pixels; choose another")
        return dtype.type(nodata)
    free = (value for value in (0, limits.max, limits.min) if not (valid == value).any())
    found = next(free, None)
    if found is None:
        raise InputError(
            f"the valid pixels take 0 and both ends of {dtype}; say what is to stand at others with nodata"
        )
    return dtype.type(found)
