"""The places of a layer's files: what stands there, and how new files take them, all or none of a shapefile's."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from geoseg.errors import OutputError, OutputExistsError
from geoseg.vector.formats.shapefile import SIDECARS
from geoseg.vector.formats.styles import is_map_style, may_replace

_log = logging.getLogger(__name__)
_JOURNALS = ("-wal", "-shm", "-journal")  # of SQLite: https://www.sqlite.org/tempfiles.html


def check_place(out: Path, *, overwrite: bool) -> None:
    """That a file may be written, with all that belongs to it.

    Raises:
        OutputError: A folder stands there, or a program has the GeoPackage open.
        OutputExistsError: The file, or one of a shapefile's, exists and was not to be overwritten.
    """
    if out.is_dir():
        raise OutputError(f"the output {out} is a folder; give a file name in it")
    there = [path for path in _members(out) if path.exists()]
    if there and not overwrite:
        raise OutputExistsError(f"the output {there[0]} exists; add --overwrite to replace it, or give another name")
    _check_journals(out)


def publish(folder: Path, outs: Sequence[Path], *, overwrite: bool) -> None:
    """Moves what was written to a folder to where it belongs, the files themselves last.

    Args:
        folder: What was written, by the names it is to have; on the disk of the outputs.
        outs: The files; all are in one folder.
        overwrite: Whether a style that geoseg wrote may be replaced.

    Raises:
        OutputError: A program has opened the GeoPackage that is to be replaced.
        OSError: A file cannot be moved. A shapefile is then what it was.
    """
    for out in outs:
        _check_journals(out)
    written = sorted(folder.iterdir(), key=lambda path: path.name in {out.name for out in outs})
    aside = folder / "replaced"
    aside.mkdir()
    with _undone_on_error() as undo:
        for out in outs:
            for member in _members(out) if _is_shapefile(out) else ():
                if member.exists():
                    _move(member, aside / member.name, undo)
        for path in written:
            target = outs[0].parent / path.name
            if path.suffix != ".qml" or _takes_style(target, path, outs, overwrite=overwrite):
                _move(path, target, undo)


def _is_shapefile(out: Path) -> bool:
    return out.suffix.lower() == ".shp"


def _members(out: Path) -> list[Path]:
    """The files that are one with an output, itself first: without it the others of a shapefile are none."""
    return [out, *(out.with_suffix(suffix) for suffix in SIDECARS)] if _is_shapefile(out) else [out]


def _check_journals(out: Path) -> None:
    """That no journal stands beside a GeoPackage: SQLite would play it into the new file, which would destroy that."""
    if out.suffix.lower() != ".gpkg":
        return
    for journal in (out.with_name(out.name + end) for end in _JOURNALS):
        if journal.exists() and not out.exists():
            raise OutputError(f"{journal} is left of a file that is gone; remove it, or give the output another name")
        if journal.exists():
            raise OutputError(
                f"{journal} shows that {out.name} is open in another program, or was when that ended; close it in QGIS "
                "first (open and close it there where nothing has it open), or give another name"
            )


def _takes_style(target: Path, style: Path, outs: Sequence[Path], *, overwrite: bool) -> bool:
    """Whether a style may take its place; one that stays, a map's or one that was edited, is told."""
    if not target.exists() or (overwrite and may_replace(target, style)):
        return True
    styled_inside = style.stem in {out.stem for out in outs if out.suffix.lower() == ".gpkg"}
    level = logging.DEBUG if styled_inside else logging.WARNING
    if is_map_style(target):
        map_name = target.with_suffix(".tif").name
        _log.log(
            level, "%s is the style of %s and stays; give the polygons another name for their own", target, map_name
        )
    else:
        _log.log(level, "left the style %s as it is: it is not, or no longer, as geoseg writes it", target)
    return False


def _move(source: Path, target: Path, undo: ExitStack) -> None:
    replaces = target.exists()
    os.replace(source, target)  # noqa: PTH105 - the atomic one, by its name
    if not replaces:
        undo.callback(os.replace, target, source)


@contextmanager
def _undone_on_error() -> Iterator[ExitStack]:
    """Moves to empty places, made within, are taken back where it ends in an error."""
    with ExitStack() as undo:
        yield undo
        undo.pop_all()
