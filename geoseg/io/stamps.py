"""The files behind a source, and what changes when they do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from geoseg.io.vrt import files_of_vrt

VIRTUAL = re.compile(r"/vsi[a-z0-9_]+/(?:[\d_]+,)?")
WITHIN = re.compile(r'[:!"{}]')
"""How GDAL and rasterio set a file apart from what is within it."""

SECRET = re.compile(
    r"(sig|token|access_token|api_?key|expires|signature|policy|key-pair-id|"
    r"awsaccesskeyid|googleaccessid|x-(amz|goog)-[\w-]+)=",
    re.IGNORECASE,
)
"""Parts of a query by which stores of Amazon, Google and others know who may read."""

AZURE = re.compile(r"(sig|se|sp|sv|sr|st|spr|sk[a-z]+)=", re.IGNORECASE)
"""Those of Azure, where there is a signature; without one, such short names are somebody else's."""

BESIDE = (".aux.xml", ".ovr", ".msk")  # what GDAL reads beside a raster


def paths_in(source: Any) -> list[str]:
    """Paths and addresses that a source reads, in order: the `path` of it and of all sources within it."""
    if isinstance(source, Sequence) and not isinstance(source, str):
        return _unique(path for member in source for path in paths_in(member))
    if not is_dataclass(source):
        return []
    values = {item.name: getattr(source, item.name) for item in fields(source)}
    own = [str(values["path"])] if isinstance(values.get("path"), str | Path) else []
    return _unique([*own, *(path for value in values.values() for path in paths_in(value))])


def files_in(source: Any) -> list[str]:
    """What `paths_in` finds, the files that VRTs among them name, and what GDAL reads beside a raster."""
    paths = paths_in(source)
    paths += [str(named) for path in paths for named in files_of_vrt(Path(path))]
    beside_them = [path + ending for path in paths for ending in BESIDE]
    return _unique([*paths, *(path for path in beside_them if Path(path).exists())])


def _unique(paths: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(paths))


def file_stamps(paths: Iterable[str]) -> dict[str, list[int] | None]:
    """Size and time of change (ns) of each path; None for what is not on this machine.

    Of a name within a file, such as `/vsizip/a.zip/b.tif` or `NETCDF:a.nc:b`, they are the file's; of a folder the sum
    and the latest of all files in it.
    """
    stamps: dict[str, list[int] | None] = {}
    for path in paths:
        try:
            found = _local(path)
            stamps[path] = None if found is None else _stamp(found)
        except (OSError, ValueError):
            stamps[path] = None
    return stamps


def _local(path: str) -> Path | None:
    """The file or folder that a name of GDAL's is read from, where it is here."""
    if path and Path(path).exists():
        return Path(path)
    for part in (text.removeprefix("//") for text in WITHIN.split(VIRTUAL.sub("", path))):
        for place in [Path(part), *Path(part).parents] if part else []:
            if place.is_file():
                return place
    return None


def _stamp(path: Path) -> list[int]:
    if not path.is_dir():
        stat = path.stat()
        return [stat.st_size, stat.st_mtime_ns]
    stats = [found.stat() for found in path.rglob("*") if found.is_file()]
    return [sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0)]


def unsigned(path: str) -> str:
    """An address without what signs it, which is a secret and another one each time; the rest of its query stays.

    >>> unsigned("https://host/a.tif?id=7&sig=abc&X-Amz-Date=1"), unsigned("a.tif")
    ('https://host/a.tif?id=7', 'a.tif')
    """
    address, mark, query = path.partition("?")
    parts = query.split("&")
    azure = any(part.lower().startswith("sig=") for part in parts)
    kept = [part for part in parts if not (SECRET.match(part) or (azure and AZURE.match(part)))]
    return address + mark * bool(kept) + "&".join(kept)
