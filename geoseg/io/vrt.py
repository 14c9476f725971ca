"""What a VRT is made of: GDAL reads a file that is not there as zeros, so each is looked for before."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

from geoseg.errors import MissingInputError, ReadError
from geoseg.io.handles import is_remote, open_afresh

_SOURCE = re.compile(r"<Source(?:Filename|Dataset)([^>]*)>([^<]*)</")

DEEPEST = 8
"""VRTs of VRTs are followed this far."""


def files_named(path: Path) -> Iterator[Path]:
    """The local files that the VRT at `path` names."""
    for attributes, name in _SOURCE.findall(path.read_text(encoding="utf-8", errors="replace")):
        named = unescape(name).strip()
        if not named or is_remote(named) or ":" in named or named.startswith(("/vsi", "<")):
            continue
        relative = re.search(r"""relativeToVRT\s*=\s*["']1["']""", attributes, re.IGNORECASE)
        yield path.parent / named if relative else Path(named)


def refuse_broken(path: str) -> None:
    """Nothing, where all files that a VRT names can be opened.

    GDAL tells of a file that cannot be opened once in the life of a process, and reads zeros from then on.

    Raises:
        MissingInputError: A file is not there.
        ReadError: A file is there but is no raster.
    """
    for named in files_of_vrt(Path(path)):
        if not named.exists():
            raise MissingInputError(f"{path} names {named}, which is not there; needed are all files of a VRT")
        try:
            open_afresh(str(named)).close()
        except ReadError as error:
            raise ReadError(f"{path} names a file that is no raster: {error}") from error


def files_of_vrt(path: Path, *, depth: int = 0) -> Iterator[Path]:
    """The local files that the VRT at `path` and those within it name; nothing where `path` is no VRT."""
    if depth > DEEPEST or path.suffix.lower() != ".vrt" or not path.is_file():
        return
    for named in dict.fromkeys(files_named(path)):
        yield from files_of_vrt(named, depth=depth + 1)
        yield named
