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
from geoseg.io.combine import BandStack, Mosaic, pick
from geoseg.io.facts import positions
from geoseg.io.gdal import GdalSource, instant
from geoseg.io.handles import is_remote
from geoseg.io.protocol import Source
from geoseg.io.stac import selection, stac_document, stac_members

__all__ = ["Source", "SourceSpec", "open_source"]

SourceSpec = str | Path | list[Any] | dict[str, Any]
"""What names a source: a path, pattern or address; a list of them (a mosaic); or a mapping with options."""

KINDS = ("path", "stack", "mosaic", "stac")
"""The keys of a mapping that say where the pixels are; one of them is needed."""

MEMBER_OPTIONS = ("nodata", "scale", "offset", "crs", "resampling", "date")
"""Options that hold for each file, and are handed down to all members unless a member says otherwise."""

RESULT_OPTIONS = ("bands", "select")
"""Options that hold for what is read in the end."""

STAC_OPTIONS = ("assets", "dates", "max_cloud_percent")
"""Options that choose among items and their assets."""


def open_source(spec: SourceSpec | Source, *, bands: Sequence[str] | None = None) -> Source:
    """The source that `spec` names; files are opened for what they say of themselves, no pixel is read.

    Args:
        spec: One of

            - a path, a `/vsi...` path or an address: one raster of any format that GDAL opens;
            - a list of specs, or a pattern such as `tiles/*.tif`: a mosaic, the first valid pixel wins;
            - a path or an address of STAC that ends in .json or .geojson: the mosaic of its items;
            - a mapping `{path: P}`, `{stack: [...]}`, `{mosaic: [...]}` or `{stac: P}` with options beside it: `bands`
              (names in the order of the file), `select` (names or 1-based numbers), `nodata`, `scale`, `offset`, `crs`,
              `resampling` and `date` (when the pixels were taken, ISO 8601). P of `stac` is an Item, an ItemCollection,
              a Collection or a Catalog; `assets` names assets or bands in order (all imagery unless given), `dates` the
              first and the last day, `max_cloud_percent` the most cloud. What an item says of scale, offset and nodata
              holds where neither the options nor the file says it; scale and offset are one saying;
            - a source, which is passed on.
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
    if isinstance(spec, Mapping):
        return _from_mapping(spec, defaults)
    if isinstance(spec, Sequence):
        return _mosaic([_build(member, defaults) for member in spec], defaults)
    if callable(getattr(spec, "read", None)) and hasattr(type(spec), "geobox"):
        found: Source = spec
        return found
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
            return _mosaic([_file_or_stac(match, options) for match in _matches(path)], options)
    return _file_or_stac(path, options)


def _matches(pattern: str) -> list[str]:
    found = sorted(glob(pattern, recursive=True))  # noqa: PTH207 (a pattern may be absolute)
    if not found:
        raise MissingInputError(f"no file matches {pattern}; needed is at least one raster")
    return found


def _file_or_stac(path: str, options: dict[str, Any]) -> Source:
    document = stac_document(path)
    if document is None:
        return _file(path, options)
    return _finished(_mosaic(_items(path, options, document=document), options), options, "stac")


def _items(place: str, options: dict[str, Any], *, document: dict[str, Any] | None = None) -> list[Source]:
    """The sources of the STAC items at a path, of all files that match a pattern, or at an address."""
    wanted = selection(**{key: options[key] for key in STAC_OPTIONS if key in options})
    shared = {key: options[key] for key in MEMBER_OPTIONS if key in options}
    place = str(Path(place).expanduser()) if place.startswith("~") else place
    places = _matches(place) if "*" in place and "://" not in place else [place]
    return stac_members(places, wanted, options=shared, document=document)


def _file(path: str, options: dict[str, Any]) -> GdalSource:
    names, chosen = options.get("bands"), options.get("select")
    shared = {key: options[key] for key in MEMBER_OPTIONS if key in options}
    return GdalSource(path, names=names, chosen=chosen, **shared)


def _mosaic(members: list[Source], options: dict[str, Any]) -> Source:
    if not members:
        raise InputError("a mosaic without members; needed is at least one source")
    if len(members) == 1:
        return members[0]
    return Mosaic(tuple(members), **{key: options[key] for key in ("resampling",) if key in options})


def _from_mapping(spec: Mapping[Any, Any], defaults: dict[str, Any]) -> Source:
    given, kind = _options(spec)
    inner = spec[kind]
    down = {**defaults, **{key: given[key] for key in MEMBER_OPTIONS if key in given}}
    if kind == "path" and isinstance(inner, str | Path):
        return _from_path(str(inner), {**down, **{key: given[key] for key in RESULT_OPTIONS if key in given}})
    if kind == "stac":
        if not isinstance(inner, str | Path) or not str(inner):
            raise InputError(f"stac must be a path or an address of STAC JSON, got {inner!r}")
        chosen = {key: given[key] for key in STAC_OPTIONS if key in given}
        return _finished(_mosaic(_items(str(inner), {**down, **chosen}), down), given, kind)
    members = [_build(member, down) for member in _members(kind, inner)]
    return _finished(BandStack(tuple(members)) if kind == "stack" else _mosaic(members, down), given, kind)


def _options(spec: Mapping[Any, Any]) -> tuple[dict[str, Any], str]:
    """The options of a mapping in the form that sources take, and the key that says where the pixels are."""
    known = (*KINDS, *RESULT_OPTIONS, *MEMBER_OPTIONS, *STAC_OPTIONS)
    unknown = [str(key) for key in spec if key not in known]
    if unknown:
        raise InputError(f"a source has no option {', '.join(unknown)}; known are {', '.join(known)}")
    kinds = [kind for kind in KINDS if spec.get(kind) is not None]
    if len(kinds) != 1:
        raise InputError(f"a source needs one of {', '.join(KINDS)}, got {', '.join(kinds) or 'none of them'}")
    given = {key: _checked(key, spec[key]) for key in known if key not in KINDS and spec.get(key) is not None}
    misplaced = [key for key in STAC_OPTIONS if key in given and kinds[0] != "stac"]
    if misplaced:
        raise InputError(f"{', '.join(misplaced)} chooses among STAC items and goes with stac:, not with {kinds[0]}:")
    return given, kinds[0]


def _finished(whole: Source, given: Mapping[str, Any], kind: str) -> Source:
    """`whole` with its bands renamed and selected as the options say."""
    if "bands" in given:
        whole = _renamed(whole, given["bands"])
    if "select" not in given:
        return whole
    found = positions(given["select"], whole.bands, f"the {kind}")
    return pick(whole, found, [whole.bands[i] for i in found])


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
    if key == "bands":
        return _names(key, value)
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
    if isinstance(source, BandStack | Mosaic):
        return replace(source, names=names)
    if len(names) != len(source.bands):
        raise BandError(f"{len(names)} names [{', '.join(names)}] for bands [{', '.join(source.bands)}]")
    return pick(source, range(len(names)), names)
