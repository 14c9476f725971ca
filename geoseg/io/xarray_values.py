"""What the raw values of an xarray object mean: dtype, nodata, valid range, scale and offset of each band."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from geoseg.errors import BandError

FILL_KEYS = ("_FillValue", "missing_value", "nodata", "no_data")
"""Attributes that name the values which stand for nothing."""

BAND_KEYS = {"nodatavals": "nodata", "scales": "scale", "offsets": "offset"}
"""Attributes of GDAL's bands, one number each, and the options that are said instead."""

EVERYTHING = (-np.inf, np.inf)


@dataclass(frozen=True, slots=True)
class CubeOptions:
    """What a user says of a cube; None leaves it to the cube.

    Attributes:
        variables: Names of the variables that are read, in order; None takes all that have rows and columns.
        names: Names of all bands, in order.
        chosen: Names or 1-based numbers of the bands that are read; None takes all.
        time: The date that is read: the first characters of it in ISO 8601, as many as tell it apart; or its 1-based
            number. None takes the only one.
        nodata: Value that stands for nothing; then no range of valid values counts.
        scale: Factor on raw values.
        offset: Added to scaled values.
        crs: CRS.
    """

    variables: tuple[str, ...] | None = None
    names: tuple[str, ...] | None = None
    chosen: tuple[str | int, ...] | None = None
    time: str | int | None = None
    nodata: float | None = None
    scale: float | None = None
    offset: float | None = None
    crs: str | None = None


@dataclass(frozen=True, slots=True)
class Meaning:
    """What the raw values of a band mean.

    Attributes:
        dtype: Their dtype in the machine's byte order; unsigned where the object says that signed ones are meant so.
        nodata: Values that stand for nothing.
        scale: Factor on them.
        offset: Added to scaled ones.
        limits: The smallest and the largest that are valid, before they are scaled.
    """

    dtype: np.dtype[Any]
    nodata: tuple[float, ...]
    scale: float
    offset: float
    limits: tuple[float, float] = EVERYTHING


def meanings(array: Any, count: int, options: CubeOptions) -> list[Meaning]:
    """What the values of each of `count` bands mean, by attributes, or by the encoding of what xarray has unpacked.

    `_Unsigned`, `valid_range` and packing are those of the NetCDF conventions:
    https://docs.unidata.ucar.edu/nug/current/attribute_conventions.html.

    Raises:
        BandError: Nodata, scales or offsets are said of another number of bands.
    """
    dtype, attributes = _meant(array), array.attrs
    scale, offset = (first(attributes.get(key), default) for key, default in (("scale_factor", 1), ("add_offset", 0)))
    scales = _of_bands(array, "scales", count, said=options.scale) or [scale] * count
    offsets = _of_bands(array, "offsets", count, said=options.offset) or [offset] * count
    nodata = _nodata(array, count) if options.nodata is None else [(options.nodata,)] * count
    limits = _limits(array) if options.nodata is None else EVERYTHING
    return [Meaning(dtype, *own, limits=limits) for own in zip(nodata, scales, offsets, strict=True)]


def _meant(array: Any) -> np.dtype[Any]:
    """The dtype that the values are to be taken for."""
    dtype: np.dtype[Any] = np.dtype(array.dtype).newbyteorder("=")
    said = _unsigned(array.attrs)
    if dtype.kind in "iu" and said in ("true", "false"):
        return np.dtype(f"{'u' if said == 'true' else 'i'}{dtype.itemsize}")
    return np.dtype({"bool": "uint8", "float16": "float32"}.get(dtype.name, dtype))


def _nodata(array: Any, count: int) -> list[tuple[float, ...]]:
    """The values that stand for nothing in each band."""
    shared, own = _fills(array), _of_bands(array, "nodatavals", count) or [np.nan] * count
    return [_known([*shared, value], array) for value in own]


def _fills(array: Any) -> list[float]:
    """The values that stand for nothing, as attributes say them; or as the encoding of integers says them.

    The encoding of floats speaks of the file, in which NaN was that value. There may be several: xarray writes a
    `_FillValue` of NaN into every array of floats, whatever `nodata` says.
    """
    said: list[Mapping[str, Any]] = [array.attrs, array.encoding if array.dtype.kind in "iu" else {}]
    return [value for attributes in said for key in FILL_KEYS for value in numbers(attributes.get(key))]


def _known(values: list[float], array: Any) -> tuple[float, ...]:
    """The values that are numbers, each once, as the values of the array are taken."""
    return tuple(dict.fromkeys(_wrapped(value, array) for value in values if not np.isnan(value)))


def _wrapped(value: float, array: Any) -> float:
    """A number of the other sign as the one of the same bits, where `_Unsigned` says that values are meant so."""
    dtype = _stored(array)
    if dtype.kind not in "iu" or not {"true", "false"} & {_unsigned(array.attrs), _unsigned(array.encoding)}:
        return value
    limits = np.iinfo(dtype)
    turns = 2.0 ** (8 * dtype.itemsize)
    return value + turns if value < limits.min else value - turns if value > limits.max else value


def _unsigned(attributes: Mapping[str, Any]) -> str:
    return str(attributes.get("_Unsigned", "")).lower()


def _of_bands(array: Any, key: str, count: int, *, said: float | None = None) -> list[float] | None:
    """One number a band, or what was said of all; None where nothing says them.

    Raises:
        BandError: There are more or fewer, and they differ.
    """
    found = numbers(array.attrs.get(key)) if said is None else [said] * count
    if not found or len(found) == count:
        return found or None
    if np.array_equal(found, found[:1] * len(found), equal_nan=True):
        return found[:1] * count
    raise BandError(
        f"{key} has {len(found)} values for {count} bands: {', '.join(f'{value:g}' for value in found)}; say which "
        f"holds with {BAND_KEYS[key]}"
    )


def _limits(array: Any) -> tuple[float, float]:
    """The smallest and the largest valid value, in the terms of the values that the object holds.

    Integers speak of packed values, floats beside packed integers of unpacked ones.
    """
    attributes = array.attrs
    pair = numbers(attributes.get("valid_range"))
    ends = pair if len(pair) == 2 else [first(attributes.get(f"valid_{end}"), np.nan) for end in ("min", "max")]
    if np.isnan(ends).all():
        return EVERYTHING
    said = [attributes.get(key) for key in ("valid_range", "valid_min", "valid_max")]
    unpacked = any(np.asarray(value).dtype.kind == "f" for value in said if value is not None)
    here = not {"scale_factor", "add_offset"} & set(array.encoding)
    packing: Mapping[str, Any] = attributes if here else array.encoding
    stored = _stored(array)
    scale, offset = first(packing.get("scale_factor"), 1.0), first(packing.get("add_offset"), 0.0)
    if not unpacked:
        ends = [_wrapped(end, array) for end in ends]
    slack = 0.0
    rescaled = False
    if here and unpacked and stored.kind in "iu" and scale:
        ends, slack, rescaled = [(end - offset) / scale for end in ends], 0.5, True
    elif not here:
        slack, rescaled = 0.5 * abs(scale), not unpacked
        ends = [end * scale + offset for end in ends] if rescaled else ends
    low, high = ends[::-1] if rescaled and scale < 0 else ends
    return (-np.inf if np.isnan(low) else low - slack, np.inf if np.isnan(high) else high + slack)


def _stored(array: Any) -> np.dtype[Any]:
    """The dtype that values have, or had before xarray unpacked them."""
    dtype = np.dtype(array.encoding.get("dtype") or array.dtype)
    said = _unsigned(array.encoding)
    if dtype.kind in "iu" and said in ("true", "false"):
        return np.dtype(f"{'u' if said == 'true' else 'i'}{dtype.itemsize}")
    return _meant(array) if dtype == array.dtype else dtype


def numbers(value: Any) -> list[float]:
    """Numbers that may stand alone or in an array; none where it is no number."""
    try:
        return [] if value is None else [float(one) for one in np.ravel(value)]
    except (TypeError, ValueError):
        return []


def first(value: Any, default: float) -> float:
    """The first of numbers; the default where there is none."""
    return next(iter(numbers(value)), default)
