"""What an xarray object says of itself: where its pixels lie, its bands, its dates, nodata and scaling.

It may have been opened from Zarr, NetCDF or by GDAL (rioxarray, odc-stac), so every convention that these write is
read: CF grid mappings, GDAL's `spatial_ref` with `GeoTransform`, the STAC and GeoZarr names in attributes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import groupby
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox

from geoseg.errors import BandError, InputError, ReadError
from geoseg.io.facts import positions
from geoseg.io.xarray_grid import grid_of, spatial_dims
from geoseg.io.xarray_values import CubeOptions, Meaning, meanings

TIME_DIMS = ("time", "t", "date", "datetime")

NAMED = 5
"""Names and dates that an error lists before it counts the rest."""


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Bands of one variable that are read together.

    Attributes:
        values: `xarray.Variable` of rows, columns and perhaps bands, in any order, not read yet.
        axes: Where bands (None: there is but one), rows and columns are among its dimensions.
        meaning: What its raw values mean.
    """

    values: Any
    axes: tuple[int | None, int, int]
    meaning: Meaning

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the raw values as they are given out: numbers in the machine's byte order."""
        return self.meaning.dtype

    @property
    def nodata(self) -> tuple[float, ...]:
        """Raw values that stand for nothing."""
        return self.meaning.nodata


@dataclass(frozen=True, slots=True, eq=False)
class Cube:
    """What a source knows of its xarray object.

    Attributes:
        geobox: The grid: where it has a CRS, rows go south and columns east, whatever the object's order.
        bands: Names of the selected bands.
        numbers: Their 1-based numbers among all.
        everything: Names of all bands.
        pieces: What is read for them, in order.
        dtype: The dtype that holds the raw values of all.
        moment: When the pixels were taken, ISO 8601; empty where there is no time.
        flags: What codes of the first band mean, as CF has it in `flag_values` and `flag_meanings`.
    """

    geobox: GeoBox
    bands: tuple[str, ...]
    numbers: tuple[int, ...]
    everything: tuple[str, ...]
    pieces: tuple[Piece, ...]
    dtype: np.dtype[Any]
    moment: str
    flags: dict[int, str]

    @property
    def scaled(self) -> bool:
        """Whether values are scaled on reading."""
        return any((piece.meaning.scale, piece.meaning.offset) != (1, 0) for piece in self.pieces)


@dataclass(frozen=True, slots=True, eq=False)
class _Band:
    """One band: its name, its variable's name, the variable without time, where it is along the band dimension."""

    name: str
    owner: str
    values: Any
    position: int | None
    meaning: Meaning


def describe_cube(data: Any, options: CubeOptions, name: str) -> Cube:
    """What a DataArray or Dataset says, with `options` in place of it.

    Raises:
        InputError: There is no variable of rows and columns, or several dates or dimensions without a choice.
        ReadError: Values are no real numbers.
        GridError: The pixels lie on no even grid, or have a CRS that is not understood.
        BandError: Band names do not fit.
    """
    variables = _variables(data, options.variables, name)
    first = next(iter(variables.values()))
    dims = spatial_dims(first)
    grid = grid_of(data, first, dims, crs=options.crs, name=name)
    moment, bands = "", list[_Band]()
    for key, array in variables.items():
        values, taken = _at_one_time(array, options.time, name)
        moment = moment or taken
        bands += _bands(key, array, values, dims, options, alone=len(variables) == 1)
    bands = _named(bands, options.names, name)
    numbers = _numbers(bands, options.chosen, name)
    taken_bands = [bands[number - 1] for number in numbers]
    pieces = tuple(
        _piece(list(group), (dims[0], dims[1]), grid.flips)
        for _, group in groupby(taken_bands, key=lambda band: (band.owner, band.meaning))
    )
    dtype = np.result_type(*[piece.dtype for piece in pieces])
    return Cube(
        geobox=grid.geobox,
        bands=tuple(band.name for band in taken_bands),
        numbers=numbers,
        everything=tuple(band.name for band in bands),
        pieces=pieces,
        dtype=dtype,
        moment=moment,
        flags=_flags(variables[taken_bands[0].owner]),
    )


def moments_of(
    data: Any, time: Sequence[Any] | str | int | None, variables: tuple[str, ...] | None, name: str
) -> list[int]:
    """1-based numbers of the dates of a cube that are wanted: of all, or of those that each of `time` names.

    Raises:
        InputError: A wanted date is not there, or there is no time at all.
    """
    for array in _variables(data, variables, name).values():
        dim = _time_dim(array)
        if dim is not None:
            texts = _texts(array, dim)
            wanted = [None] if time is None else [time] if isinstance(time, str | int) else time
            return [number for one in wanted for number in _matching(texts, one, name)]
    raise InputError(f"{name} has no dimension of time, so there are no dates to choose from")


# -- variables ---------------------------------------------------------------------------------------------------------


def _variables(data: Any, wanted: tuple[str, ...] | None, name: str) -> dict[str, Any]:
    """The DataArrays that are read, by name.

    Raises:
        InputError: There is none, or they have other rows or columns than the first.
        ReadError: One holds no real numbers.
    """
    if not hasattr(data, "data_vars"):
        found = {str(data.name or ""): data}
    elif wanted is None:
        found = {str(key): _of(data, array) for key, array in data.data_vars.items() if _is_image(array)}
    else:
        missing = [key for key in wanted if key not in data.variables]
        if missing:
            raise InputError(f"{name} has no variable {', '.join(missing)}; it has {_listed(map(str, data.data_vars))}")
        found = {key: _of(data, data[key]) for key in wanted}
    if not found or any(array.ndim < 2 for array in found.values()):
        held = [
            f"{key} ({', '.join(map(str, array.dims))})" for key, array in getattr(data, "variables", found).items()
        ]
        raise InputError(f"{name} has no variable of rows and columns; it has {_listed(held)}")
    first = next(iter(found))
    dims = spatial_dims(found[first])
    for key, array in found.items():
        if array.dtype.kind not in "biuf":
            raise ReadError(f"{key or name} holds {array.dtype}; needed are real numbers")
        if not set(dims) <= set(array.dims) or any(array.sizes[dim] != found[first].sizes[dim] for dim in dims):
            raise InputError(
                f"{key} of {name} has other rows and columns than {first}; choose those of one grid with variables: "
                "[...], and put grids together with stack: [...]"
            )
    return found


def _of(data: Any, array: Any) -> Any:
    """A variable of a Dataset, which may say for all of them which dimensions are rows and columns."""
    key = "spatial:dimensions"
    return array.assign_attrs({key: data.attrs[key]}) if key in data.attrs and key not in array.attrs else array


def _is_image(array: Any) -> bool:
    return array.ndim >= 2 and array.dtype.kind in "biuf" and not str(array.name).endswith(("_bnds", "_bounds"))


def _listed(names: Iterable[str]) -> str:
    shown = list(names)
    more = f" and {len(shown) - NAMED} more" if len(shown) > NAMED else ""
    return (", ".join(shown[:NAMED]) or "none") + more


# -- dates -------------------------------------------------------------------------------------------------------------


def _time_dim(array: Any) -> str | None:
    """The dimension of dates, by what it holds or is called."""
    others = [dim for dim in array.dims if dim not in spatial_dims(array)]
    held = [dim for dim in others if dim in array.coords and array.coords[dim].dtype.kind == "M"]
    called = [dim for dim in others if str(dim).lower() in TIME_DIMS]
    return next(iter([*held, *called]), None)


def _texts(array: Any, dim: str) -> list[str]:
    """The dates of a dimension as ISO 8601, or what else stands there."""
    if dim not in array.coords:
        return [str(number) for number in range(1, array.sizes[dim] + 1)]
    values = array.coords[dim].values
    if values.dtype.kind == "M":
        return [str(text) for text in np.datetime_as_string(values, unit="s")]
    return [value.isoformat() if hasattr(value, "isoformat") else str(value) for value in values.tolist()]


def _matching(texts: list[str], wanted: Any, name: str) -> list[int]:
    """1-based numbers of the dates that begin with the one wanted; all, where None is.

    Raises:
        InputError: None does.
    """
    if wanted is None:
        return list(range(1, len(texts) + 1))
    if isinstance(wanted, int) and not isinstance(wanted, bool) and 1 <= wanted <= len(texts):
        return [wanted]
    text = wanted.isoformat() if isinstance(wanted, date) else str(wanted)
    text = text.strip().replace(" ", "T").removesuffix("Z").removesuffix("+00:00")
    # 2021-05-1 is no beginning of 2021-05-12.
    found = [n for n, known in enumerate(texts, start=1) if re.match(re.escape(text) + r"(?!\d)", known)]
    if not found:
        raise InputError(f"time {wanted} is not in {name}, which has {_listed(texts)}")
    return found


def _at_one_time(array: Any, time: str | int | None, name: str) -> tuple[Any, str]:
    """The values of one date, and that date.

    Raises:
        InputError: There are several, and none or more than one is chosen.
    """
    dim = _time_dim(array)
    if dim is None:
        if time is not None:
            raise InputError(f"time {time} was chosen, and {array.name or name} has no dimension of time")
        return array.variable, ""
    texts = _texts(array, dim)
    found = _matching(texts, time, name)
    if len(found) != 1:
        raise InputError(
            f"{name} has {len(found)} dates{'' if time is None else f' of {time}'}: "
            f"{_listed(texts[number - 1] for number in found)}; choose one with time: {texts[found[0] - 1]}, or "
            "several with time: [...] and combine:"
        )
    text = texts[found[0] - 1]
    is_date = dim in array.coords and not np.issubdtype(array.coords[dim].dtype, np.number)
    return array.variable.isel({dim: found[0] - 1}), text if is_date else ""


# -- bands -------------------------------------------------------------------------------------------------------------


def _bands(
    owner: str, array: Any, values: Any, dims: tuple[str, str], options: CubeOptions, *, alone: bool
) -> list[_Band]:
    """The bands of one variable.

    Raises:
        InputError: It has more than one dimension beside time, rows and columns.
        BandError: Nodata, scales or offsets are said of more or fewer bands.
    """
    values = values.isel(
        {dim: 0 for dim, size in values.sizes.items() if dim not in dims and size == 1 and values.ndim > 3}
    )
    others = [dim for dim in values.dims if dim not in dims]
    if len(others) > 1:
        raise InputError(
            f"{owner or 'the array'} has dimensions {', '.join(map(str, values.dims))}; needed are rows, columns and "
            "at most one of time and one of bands; choose along the others with isel"
        )
    if not others:
        return [_Band(owner or "band1", owner, values, None, meanings(array, 1, options)[0])]
    names = _band_names(array, others[0])
    means = meanings(array, len(names), options)
    return [
        _Band(name if alone else f"{owner}_{name}", owner, values, k, mean)
        for k, (name, mean) in enumerate(zip(names, means, strict=True))
    ]


def _band_names(array: Any, dim: str) -> list[str]:
    """Names along a dimension: its labels, else GDAL's descriptions, else numbers."""
    count = array.sizes[dim]
    told = array.coords[dim].values.tolist() if dim in array.coords else []
    if told and all(isinstance(label, str) for label in told):
        return [str(label) for label in told]
    described = array.attrs.get("long_name")
    if isinstance(described, list | tuple) and len(described) == count and all(described):
        return [str(label) for label in described]
    return [f"band{number}" for number in range(1, count + 1)]


def _named(bands: list[_Band], names: tuple[str, ...] | None, name: str) -> list[_Band]:
    """The bands under the names given.

    Raises:
        BandError: There are more or fewer, or two bands share a name.
    """
    if names is not None and len(names) != len(bands):
        raise BandError(f"{name} has {len(bands)} bands, {len(names)} names were given: [{', '.join(names)}]")
    called = names or [band.name for band in bands]
    if len({one.lower() for one in called}) < len(called):
        raise BandError(f"bands of {name} share a name: [{', '.join(called)}]; name them in order with bands: [...]")
    return [replace(band, name=new) for new, band in zip(called, bands, strict=True)]


def _numbers(bands: list[_Band], chosen: tuple[str | int, ...] | None, name: str) -> tuple[int, ...]:
    if chosen is None:
        return tuple(range(1, len(bands) + 1))
    return tuple(position + 1 for position in positions(chosen, [band.name for band in bands], name))


def _piece(bands: list[_Band], dims: tuple[str, str], flips: tuple[bool, bool]) -> Piece:
    """Bands of one variable whose values mean the same, turned north up."""
    values = bands[0].values.isel({dim: slice(None, None, -1) for dim, flip in zip(dims, flips, strict=True) if flip})
    others = [dim for dim in values.dims if dim not in dims]
    if others:
        at = [band.position for band in bands]
        # A list of places costs more than a slice, and may make Zarr read chunk by chunk.
        whole = at == list(range(at[0] or 0, (at[0] or 0) + len(at)))
        values = values.isel({others[0]: slice(at[0], (at[-1] or 0) + 1) if whole else at})
    places = [values.dims.index(dim) for dim in dims]
    axes = (values.dims.index(others[0]) if others else None, places[0], places[1])
    return Piece(values, axes, bands[0].meaning)


def _flags(array: Any) -> dict[int, str]:
    """Names of codes: https://cfconventions.org/Data/cf-conventions/cf-conventions-1.11/cf-conventions.html#flags."""
    values, names = array.attrs.get("flag_values"), array.attrs.get("flag_meanings")
    if values is None or names is None:
        return {}
    texts = names.split() if isinstance(names, str) else [str(name) for name in names]
    codes = [int(code) for code in np.ravel(values.split(",") if isinstance(values, str) else values)]
    return (
        dict(zip(codes, (text.replace("_", " ") for text in texts), strict=False)) if len(codes) == len(texts) else {}
    )
