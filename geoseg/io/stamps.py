"""The files behind a source, and what changes when they do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from geoseg.io.vrt import files_of_vrt

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
    """Size and time of change (ns) of each path; None for what is no local file."""
    stamps: dict[str, list[int] | None] = {}
    for path in paths:
        try:
            stat = Path(path).stat()
            stamps[path] = [stat.st_size, stat.st_mtime_ns]
        except (OSError, ValueError):
            stamps[path] = None
    return stamps
