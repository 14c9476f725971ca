"""What the pixels of an image come from, so that an image is known again under another name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from geoseg.io.clouds import Masked
from geoseg.io.cube_places import InMemory
from geoseg.io.handles import is_remote
from geoseg.io.stamps import unsigned
from geoseg.io.vrt import files_of_vrt


def origins_of(source: Any) -> frozenset[str]:
    """Names of what an image's pixels are read from: two images that share one are, at least in part, the same.

    Local files are named by their resolved path, those that a VRT names among them, and addresses without what signs
    them. Masks do not count: many images may share one. A source may say an `origin` of its own where it has no file.

    Returns:
        The names; none where a source does not say what it reads.
    """
    return frozenset(_origins(source))


def _origins(source: Any) -> Iterator[str]:
    if isinstance(source, Masked):
        yield from _origins(source.source)
    elif isinstance(source, Sequence) and not isinstance(source, str):
        for member in source:
            yield from _origins(member)
    elif isinstance(source, InMemory):
        yield repr(source)  # has a digest of the values in it
    elif is_dataclass(source) and not isinstance(source, type):
        yield from _of_fields(source)


def _of_fields(source: Any) -> Iterator[str]:
    path = getattr(source, "path", None)
    found = list(_files(path)) if isinstance(path, str | Path) else []
    for item in fields(source):
        found += _origins(getattr(source, item.name))
    own = getattr(source, "origin", None)
    yield from found or ([own] if isinstance(own, str) else [])


def _files(path: str | Path) -> Iterator[str]:
    if is_remote(str(path)):
        yield unsigned(str(path))
        return
    for file in (Path(path), *files_of_vrt(Path(path))):
        yield str(file.resolve()) if file.exists() else str(path)
