"""Names for what is decoded: the same sources, files and options give the same key, a change gives another."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox

from geoseg.io.handles import is_remote
from geoseg.io.stamps import file_stamps, files_in
from geoseg.legend import Legend

MOST_FILES = 100_000
"""A folder of more files is not looked through, so what is read from it is not kept."""

LONGEST_PATH = 4096
SIDECARS = (".dbf", ".shx", ".prj", ".cpg", ".hdr", ".tfw", ".wld", ".jgw", ".pgw", ".j2w", ".ige")
"""Endings of files that GDAL reads beside one of the same stem."""


class NotStableError(Exception):
    """A value cannot be described so that the same description means the same value in another run."""


def stable_key(parts: Mapping[str, Any]) -> str | None:
    """SHA-256, in hexadecimal, of values and of the files that they name.

    Local files count with their size and time of change, folders with those of all files in them; of what is read over
    a net only the address is known.

    Args:
        parts: Plain values, frozen dataclasses (as Sources are), grids, legends and regions, by name.

    Returns:
        None where something in them cannot be described, such as arrays in memory or objects of other kinds.
    """
    try:
        said = describe(parts)
        named = {path for text in _texts(said) for path in _paths_in_text(text)}
        files = _stamps({*files_in(list(parts.values())), *named})
    except NotStableError:
        return None
    return hashlib.sha256(json.dumps([said, files], sort_keys=True).encode()).hexdigest()


def describe(value: Any) -> Any:
    """A value as JSON values that tell it from others.

    Raises:
        NotStableError: It is, or holds, something of an unknown kind.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float | np.generic):
        return repr(value)
    if isinstance(value, list | tuple):
        return [describe(part) for part in value]
    if isinstance(value, Mapping):
        return {"mapping": [[describe(key), describe(part)] for key, part in value.items()]}
    if isinstance(value, set | frozenset):
        return {"set": sorted(json.dumps(describe(part)) for part in value)}
    return {f"{type(value).__module__}.{type(value).__qualname__}": _described_object(value)}


def _described_object(value: Any) -> Any:
    digest = getattr(value, "digest", None)
    if isinstance(digest, str):  # an Area, which holds polygons in memory and has a name for them
        return [digest, describe(getattr(value, "grid", None))]
    if isinstance(value, GeoBox):
        return [list(value.shape), [repr(float(number)) for number in value.affine[:6]], describe(value.crs)]
    if isinstance(value, CRS):
        return value.to_wkt()
    if isinstance(value, Path | np.dtype | Enum):
        return str(value)
    if isinstance(value, Legend):
        return describe(value.to_dict())
    if is_dataclass(value) and not isinstance(value, type) and _is_frozen(value):
        return {item.name: describe(getattr(value, item.name)) for item in fields(value)}
    raise NotStableError(type(value).__qualname__)


def _is_frozen(value: Any) -> bool:
    return bool(value.__dataclass_params__.frozen)


def _texts(said: Any) -> Iterable[str]:
    """Every text in a description."""
    if isinstance(said, str):
        yield said
    elif isinstance(said, list):
        for part in said:
            yield from _texts(part)
    elif isinstance(said, dict):
        for part in said.values():
            yield from _texts(part)


def _paths_in_text(text: str) -> Iterable[str]:
    """What may be local files in a text, whatever its field is called: the text, and the file in a GDAL name.

    >>> sorted(_paths_in_text("netcdf:'cube.nc':ndvi"))[:2]
    ['cube.nc', 'ndvi']
    """
    if is_remote(text) or len(text) > LONGEST_PATH or not {os.sep, "."} & set(text) or text in (".", ".."):
        return
    yield text
    if ":" in text:
        yield from (part.strip("\"'") for part in text.split(":"))
    if text.startswith("/vsi"):
        archive = Path(text.split("/", 2)[-1])
        yield from (str(path) for path in (archive, *archive.parents) if path.is_file())
    if Path(text).suffix:
        yield from (str(Path(text).with_suffix(ending)) for ending in SIDECARS)
        yield f"{text}-wal"  # what SQLite has not yet put into a GeoPackage


def _stamps(paths: set[str]) -> dict[str, Any]:
    """Size and time of change of the files among some texts, and of the files in the folders among them."""
    folders = sorted(path for path in paths if path and os.path.isdir(path))  # noqa: PTH112 (most texts are no path)
    stamps = file_stamps(sorted(paths.difference(folders)))
    found: dict[str, Any] = {path: stamp for path, stamp in stamps.items() if stamp is not None}
    return found | {path: _folder_stamps(path) for path in folders}


def _folder_stamps(folder: str) -> dict[str, Any]:
    """Stamps of all files in a folder, such as those of a Zarr store.

    Raises:
        NotStableError: There are too many of them.
    """
    paths: list[str] = []
    for place, _, names in os.walk(folder):
        paths += [os.path.join(place, name) for name in names]  # noqa: PTH118 (ten times as fast)
        if len(paths) > MOST_FILES:
            raise NotStableError(folder)
    return dict(file_stamps(sorted(paths)))
