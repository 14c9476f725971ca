"""The door to pixels: what YAML and the command line say becomes a Source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from glob import glob
from numbers import Real
from pathlib import Path
from typing import Any

from geoseg.errors import BandError, InputError, MissingInputError
from geoseg.io.clouds import masked, masked_by_band, pick_bands
from geoseg.io.combine import BandStack, Mosaic, resampled, resamplings
from geoseg.io.cube_places import is_xarray, is_zarr
from geoseg.io.facts import positions
from geoseg.io.gdal import GdalSource, instant
from geoseg.io.handles import is_remote
from geoseg.io.mask_rules import MaskSpec, mask_spec
from geoseg.io.protocol import Source
from geoseg.io.series import DateStack, combined, days_of
from geoseg.io.stac import selection, stac_document, stac_members
from geoseg.io.web_json import Document
from geoseg.io.xarray_source import CUBE_OPTIONS, checked_cube_option, cube_sources

__all__ = ["Source", "SourceSpec", "open_source"]

SourceSpec = str | Path | list[Any] | dict[str, Any]
"""What names a source: a path, pattern or address; a list of them (a mosaic); or a mapping with options."""

KINDS = ("path", "stack", "mosaic", "stac", "dates", "zarr")
"""The keys of a mapping that say where the pixels are; one of them is needed. Beside `stac`, `dates` is an option."""

MEMBER_OPTIONS = ("nodata", "scale", "offset", "crs", "resampling", "date")
"""Options that hold for each file, and are handed down to all members unless a member says otherwise."""

RESULT_OPTIONS = ("bands", "select", "mask")
"""Options that hold for what is read in the end; with a mask that is a band, or with dates, for each member."""

SERIES_OPTIONS = ("combine", "fill")
"""Options that say what becomes of several dates."""

STAC_OPTIONS = ("assets", "dates", "max_cloud_percent")
"""Options that choose among items and their assets."""


def open_source(spec: SourceSpec | Source, *, bands: Sequence[str] | None = None) -> Source:
    """The source that `spec` names; files are opened for what they say of themselves, no pixel is read.

    Args:
        spec: One of

            - a path, a `/vsi...` path or an address: one raster of any format that GDAL opens;
            - a list of specs, or a pattern such as `tiles/*.tif`: a mosaic, the first valid pixel wins;
            - a path or an address of STAC that ends in .json or .geojson: the mosaic of its items;
            - a mapping `{path: P}`, `{stack: [...]}`, `{mosaic: [...]}`, `{dates: [...]}` or `{stac: P}` with options
              beside it: `bands` (names in the order of the file), `select` (names or 1-based numbers), `nodata`,
              `scale`, `offset`, `crs`, `resampling`, `date` (when the pixels were taken, ISO 8601) and `mask`. P of
              `stac` is an Item, an ItemCollection, a Collection or a Catalog; `assets` names assets or bands in order
              (all imagery unless given), `dates` the first and the last day, `max_cloud_percent` the most cloud. What
              an item says of scale, offset and nodata holds where neither the options nor the file says it; scale and
              offset are one saying;
            - a path or an address that ends in .zarr, or `{zarr: P}`: a cube, with `variables` (names, in order; unless
              given all with rows and columns, of Zarr in alphabetical order), `group` and `time` beside it (one date,
              or a list of them for `combine`); or an xarray DataArray or Dataset itself, alone or as P;
            - a source, which is passed on.

            `mask` hides clouds and shadows: a raster on any grid, or `{band: SCL}`, a band of the image (of each file
            of a mosaic, of each item and date), with what its values mean beside it, see `geoseg.io.mask_rules`:
            `kind` (found from names such as SCL, QA_PIXEL, Fmask), `drop` or `keep` (names or numbers), `above`
            (percent), `grow_px`; `mask: false` takes a mask handed down away again.

            `dates` are sources of one place and several dates, to which `combine` does one of `stack` (bands `red@1`,
            `red@2`, ..., the oldest first; with `fill: nearest` gaps take the nearest date's value), `median`,
            `least_cloud` (whole pixels of the clearest date, as `cloud_percent` beside each or a coarse look says) and
            `newest`. `{stac: P, combine: ...}` takes the days of the items, each a mosaic. `bands` and `select` are of
            each date.
        bands: Names of the bands, in order.

    Raises:
        InputError: The spec makes no sense.
        MissingInputError: A file is not there.
        ReadError: A file is there but is no raster that can be read.
        GridError: A file is not placed by a grid, or a mosaic's member has no CRS.
        BandError: Band names do not fit.
    """
    source = _build(spec, {})
    if bands is not None:
        source = _renamed(source, _names("bands", list(bands)))
    _ = source.geobox, source.bands, source.dtype
    return source


def _build(spec: Any, defaults: dict[str, Any]) -> Source:
    """The source of `spec`, its files read with `defaults` where they have no options of their own."""
    if isinstance(spec, str | Path):
        return _from_path(str(spec), defaults)
    if is_xarray(spec):  # a Dataset is a mapping, too
        return _cube(spec, defaults)
    if isinstance(spec, Mapping):
        return _from_mapping(spec, defaults)
    if isinstance(spec, Sequence):
        each, whole = _spread(defaults, "mosaic")
        return _finished(_mosaic([_build(member, each) for member in spec], each), whole, "mosaic")
    if callable(getattr(spec, "read", None)) and hasattr(type(spec), "geobox"):
        way = defaults.get("resampling")
        return _finished(spec if way is None else resampled(spec, way), defaults, "source")
    raise InputError(f"a source cannot be a {type(spec).__name__}; needed is a path, a list of paths, or a mapping")


def _from_path(path: str, options: dict[str, Any]) -> Source:
    """One file, or the mosaic of those that match a pattern."""
    if not path:
        raise InputError(
            "the path of a source is empty; needed is a file, a pattern such as tiles/*.tif, or an address"
        )
    if not is_remote(path) and "://" not in path:
        path = str(Path(path).expanduser()) if path.startswith("~") else path
        if "*" in path:
            each, whole = _spread(options, "files")
            members = [_file_or_stac(match, each) for match in _matches(path)]
            return _finished(_mosaic(members, options), whole, "pattern")
    return _file_or_stac(path, options)


def _matches(pattern: str) -> list[str]:
    found = sorted(glob(pattern, recursive=True))  # noqa: PTH207 (a pattern may be absolute)
    if not found:
        raise MissingInputError(f"no file matches {pattern}; needed is at least one raster")
    return found


def _file_or_stac(path: str, options: dict[str, Any]) -> Source:
    if is_zarr(path):
        return _cube(path, options)
    stray = [key for key in CUBE_OPTIONS if key in options]
    if stray:
        raise InputError(f"{', '.join(stray)} is for Zarr, and {path} does not end in .zarr; say zarr: where it is one")
    document = stac_document(path)
    return _file(path, options) if document is None else _from_stac(path, options, document=document)


def _from_stac(place: str, options: dict[str, Any], *, document: Document | None = None) -> Source:
    """The mosaic of the STAC items at a path, of all files that match a pattern, or at an address; or their series."""
    each, whole = _spread(options, "stac")
    mask = each.get("mask")
    wanted = selection(**{key: options[key] for key in STAC_OPTIONS if key in options})
    if mask is not None and wanted.assets and mask.band.lower() not in (name.lower() for name in wanted.assets):
        wanted = replace(wanted, assets=(*wanted.assets, mask.band))
    shared = {key: options[key] for key in MEMBER_OPTIONS if key in options}
    place = str(Path(place).expanduser()) if place.startswith("~") else place
    places = _matches(place) if "*" in place and "://" not in place else [place]
    items = stac_members(places, wanted, options=shared, document=document)
    members = [_finished(item, each, "item") for item in items]
    if "combine" not in options:
        return _finished(_mosaic(members, options), whole, "stac")
    days = [_mosaic(day, options) for day in days_of(members)]
    return _finished(combined(days, **_series_options(options)), whole, "stac")


def _series_options(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: options[key] for key in SERIES_OPTIONS if key in options}


def _file(path: str, options: dict[str, Any]) -> Source:
    shared = {key: options[key] for key in MEMBER_OPTIONS if key in options}
    names, chosen = options.get("bands"), options.get("select")
    if options.get("mask") is None:
        return GdalSource(path, names=names, chosen=chosen, **shared)
    later: dict[str, Any] = {key: options[key] for key in ("select", "mask") if key in options}
    return _finished(GdalSource(path, names=names, **shared), later, path)


def _cube(given: Any, options: dict[str, Any]) -> Source:
    """A Zarr store or an xarray object, at its one date, at the one chosen, or at several."""
    # A mask may be a band that is not selected.
    later: dict[str, Any] = {key: options[key] for key in ("select", "mask") if key in options and "mask" in options}
    now = {key: value for key, value in options.items() if key not in later}
    members = [_finished(member, later, "cube") for member in cube_sources(given, now)]
    several = isinstance(options.get("time"), tuple) or _series_options(options)
    return combined(members, **_series_options(options)) if several else members[0]


def _mosaic(members: list[Source], options: dict[str, Any]) -> Source:
    if not members:
        raise InputError("a mosaic without members; needed is at least one source")
    if len(members) == 1:
        return members[0]
    way = options.get("resampling")
    return Mosaic(tuple(members), resampling=way if all(resamplings(m) <= {way} for m in members) else None)


def _from_mapping(spec: Mapping[Any, Any], defaults: dict[str, Any]) -> Source:
    given, kind = _options(spec)
    inner, options = spec[kind], {**defaults, **given}
    if kind in ("path", "zarr") and is_xarray(inner):
        return _cube(inner, options)
    if kind == "zarr":
        return _from_zarr(inner, options)
    if kind == "path" and isinstance(inner, str | Path):
        return _from_path(str(inner), options)
    if kind == "stac":
        if not isinstance(inner, str | Path) or not str(inner):
            raise InputError(f"stac must be a path or an address of STAC JSON, got {inner!r}")
        return _from_stac(str(inner), options)
    each, whole = _spread(options, kind)
    if kind == "dates":
        return _finished(_series(_members(kind, inner), each, options), whole, kind)
    members = [_build(member, each) for member in _members(kind, inner)]
    return _finished(BandStack(tuple(members)) if kind == "stack" else _mosaic(members, each), whole, kind)


def _from_zarr(inner: Any, options: dict[str, Any]) -> Source:
    """The cube at a path or an address, whatever its end, or the mosaic of those that match a pattern."""
    if not isinstance(inner, str | Path) or not str(inner):
        raise InputError(f"zarr must be a path, an address or an xarray object, got {inner!r}")
    path = str(inner)
    if "*" in path and "://" not in path:
        return _from_path(path, options)
    return _cube(str(Path(path).expanduser()) if path.startswith("~") else path, options)


def _spread(options: Mapping[str, Any], kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options for each member of a source of that kind, or of the files of a pattern, and those for the whole.

    A mask that is a band lies in each file of a mosaic, in each item and each date, so that what it hides in one can be
    seen in another; names and choice of bands then go with it. In a stack it is a band of the whole.
    """
    each = {key: options[key] for key in MEMBER_OPTIONS if key in options}
    of_result = {key: options[key] for key in RESULT_OPTIONS if key in options}
    mask = of_result.get("mask")
    if kind == "stack":
        return each, of_result
    by_band = mask is not None and mask.band is not None
    if not by_band and kind not in {"files", "dates"} and "combine" not in options:
        return each, of_result
    whole = {} if by_band or mask is None else {"mask": mask}
    return {**each, **{key: value for key, value in of_result.items() if key not in whole}}, whole


def _series(specs: Sequence[Any], each: dict[str, Any], options: Mapping[str, Any]) -> Source:
    """The dates that `specs` name as one source."""
    clouds = [_cloud_percent(spec) for spec in specs]
    bare = [_without(spec, "cloud_percent") for spec in specs]
    return combined([_build(spec, each) for spec in bare], clouds=clouds, **_series_options(options))


def _cloud_percent(spec: Any) -> float | None:
    """What a date's mapping says of its clouds."""
    said = spec.get("cloud_percent") if isinstance(spec, Mapping) else None
    if said is None:
        return None
    if isinstance(said, bool) or not isinstance(said, Real) or not 0 <= float(said) <= 100:
        raise InputError(f"cloud_percent must be a number from 0 to 100, got {said!r}")
    return float(said)


def _without(spec: Any, key: str) -> Any:
    return {name: value for name, value in spec.items() if name != key} if isinstance(spec, Mapping) else spec


def _options(spec: Mapping[Any, Any]) -> tuple[dict[str, Any], str]:
    """The options of a mapping in the form that sources take, and the key that says where the pixels are."""
    groups = (KINDS, RESULT_OPTIONS, MEMBER_OPTIONS, STAC_OPTIONS, SERIES_OPTIONS, CUBE_OPTIONS)
    known = tuple(dict.fromkeys(key for group in groups for key in group))
    unknown = [str(key) for key in spec if key not in known]
    if unknown:
        raise InputError(f"a source has no option {', '.join(unknown)}; known are {', '.join(known)}")
    kinds = [kind for kind in KINDS if spec.get(kind) is not None]
    kinds = [kind for kind in kinds if kind != "dates" or "stac" not in kinds]
    if len(kinds) != 1:
        raise InputError(f"a source needs one of {', '.join(KINDS)}, got {', '.join(kinds) or 'none of them'}")
    given = {key: _checked(key, spec[key]) for key in known if key != kinds[0] and spec.get(key) is not None}
    misplaced = [key for key in STAC_OPTIONS if key in given and kinds[0] != "stac"]
    if misplaced:
        raise InputError(f"{', '.join(misplaced)} chooses among STAC items and goes with stac:, not with {kinds[0]}:")
    of_cube = [key for key in CUBE_OPTIONS if key in given and kinds[0] not in ("zarr", "path")]
    if of_cube:
        raise InputError(f"{', '.join(of_cube)} chooses in a cube and goes with zarr:, not with {kinds[0]}:")
    unasked = [key for key in SERIES_OPTIONS if key in given and kinds[0] not in ("stac", "dates", "zarr")]
    if unasked or ("fill" in given and kinds[0] == "stac" and "combine" not in given):
        raise InputError(f"{', '.join(unasked) or 'fill'} is for several dates: dates: [...], or stac: with combine:")
    return given, kinds[0]


def _finished(whole: Source, given: Mapping[str, Any], kind: str) -> Source:
    """`whole` with its bands renamed, masked and selected as the options say."""
    if "bands" in given:
        whole = _renamed(whole, given["bands"])
    chosen = positions(given["select"], whole.bands, f"the {kind}") if "select" in given else None
    mask: MaskSpec | None = given.get("mask")
    if mask is not None and mask.band is not None:
        return masked_by_band(whole, mask, chosen=chosen)
    if chosen is not None:
        whole = pick_bands(whole, chosen, [whole.bands[i] for i in chosen])
    return whole if mask is None else masked(whole, _build(mask.place, {}), mask)


def _members(kind: str, inner: Any) -> Sequence[Any]:
    """The specs of the members; a pattern stands for the files that match, in the order of their names."""
    if isinstance(inner, str) and "*" in inner:
        return _matches(inner)
    if isinstance(inner, str | Path | Mapping) or not isinstance(inner, Sequence) or not inner:
        raise InputError(f"{kind} must be a list with at least one source, got {inner!r}")
    return inner


def _checked(key: str, value: Any) -> Any:
    """An option's value in the form that sources take.

    Raises:
        InputError: It is of the wrong kind.
    """
    if key in ("nodata", "scale", "offset"):
        if isinstance(value, bool) or not isinstance(value, Real):
            raise InputError(f"{key} must be a number, got {value!r}")
        return value
    if key == "crs":
        return f"EPSG:{value}" if isinstance(value, int) else str(value)
    if key == "date":
        text = value.isoformat() if isinstance(value, date) else str(value)  # YAML reads a plain date as one
        instant(text)
        return text
    checks = {
        "bands": _names,
        "mask": lambda _, given: mask_spec(given),
        **dict.fromkeys(CUBE_OPTIONS, checked_cube_option),
    }
    if key in checks:
        return checks[key](key, value)
    if key == "select":
        chosen = [value] if isinstance(value, str | int) else value
        if not isinstance(chosen, Sequence) or not chosen or not all(isinstance(c, str | int) for c in chosen):
            raise InputError(f"select: needed are band names or numbers counted from 1, got {value!r}")
        return tuple(chosen)
    return value


def _names(key: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(name, str) for name in value):
        raise InputError(f"{key} must be a list of band names, got {value!r}")
    if len({name.lower() for name in value}) < len(value) or not value:
        raise InputError(f"{key} must be names that differ, got [{', '.join(value)}]")
    return tuple(value)


def _renamed(source: Source, names: tuple[str, ...]) -> Source:
    """`source` with its bands called `names`.

    Raises:
        BandError: There are more or fewer names than bands.
    """
    if isinstance(source, GdalSource) and source.chosen is None:
        # The file itself is asked, because a name for the alpha band makes that an image band.
        return replace(source, names=names)
    if isinstance(source, Mosaic) and not source.matches(len(names)):
        return replace(source, members=tuple(_renamed(member, names) for member in source.members), names=None)
    if isinstance(source, BandStack | Mosaic):
        return replace(source, names=names)
    if isinstance(source, DateStack) and len(names) == len(source.members[0].bands):
        return replace(source, members=tuple(_renamed(member, names) for member in source.alike))
    if len(names) != len(source.bands):
        raise BandError(f"{len(names)} names [{', '.join(names)}] for bands [{', '.join(source.bands)}]")
    return pick_bands(source, range(len(names)), names)
