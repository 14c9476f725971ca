"""Files of chips: found in folders or by patterns, known by what tells them apart, chosen by a split list."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from glob import glob, has_magic
from pathlib import Path, PurePath
from typing import Any

from geoseg.errors import InputError, MissingInputError, ReadError

SUFFIXES = frozenset({
    ".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2", ".bmp", ".gif", ".webp", ".img", ".vrt", ".dat", ".nc",
})  # fmt: skip
"""Names of rasters, in a folder that holds other files too."""

HEADINGS = frozenset({"image", "images", "img", "file", "filename", "label", "labels", "mask", "masks"})
"""What stands over the columns of a split list."""

NAMED = 3
"""Files that an error names before it counts the rest."""


def chip_files(place: Any, what: str) -> dict[str, str]:
    """Path of each chip by its key.

    Args:
        place: A folder, whose rasters are taken, those of folders below too: the key is the path from the folder on,
            without the suffix. Or a pattern such as `*/images/tile_*.png`: the key is what its wildcards stand for, so
            that `*/masks/tile_*.png` has the same keys.
        what: What they are called in errors.

    Raises:
        InputError: The place is no path, or two files have one key.
        MissingInputError: There is no such folder, or no file in it.
    """
    if not isinstance(place, str | Path) or not str(place):
        raise InputError(f"chips: {what} must be a folder or a pattern such as train/{what}/*.png, got {place!r}")
    text = str(Path(place).expanduser()) if str(place).startswith("~") else str(place)
    found = _matching(text) if has_magic(text) and not Path(text).is_dir() else _inside(text, what)
    keys: dict[str, str] = {}
    for key, path in found:
        if keys.setdefault(key, path) != path:
            raise InputError(f"chips: {what} {keys[key]} and {path} are both called '{key}'; narrow with a pattern")
    if not keys:
        raise MissingInputError(f"chips: no raster in {text}; needed are {what}, one file a chip")
    return keys


def _inside(folder: str, what: str) -> Iterable[tuple[str, str]]:
    """Key and path of the rasters in a folder and below."""
    if not Path(folder).is_dir():
        raise MissingInputError(f"chips: the folder {folder} is not there; needed is one of {what}, or a pattern")
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        for name in sorted(names):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES:  # noqa: PTH122 - speed
                path = f"{where}{os.sep}{name}"
                yield os.path.splitext(os.path.relpath(path, folder))[0].replace(os.sep, "/"), path  # noqa: PTH122


def _matching(pattern: str) -> Iterable[tuple[str, str]]:
    """Key and path of the files that match a pattern."""
    stem, dot, suffix = pattern.rpartition(".")
    whole = bool(dot) and not re.search(r"[/\\]", suffix)
    taken = re.compile(_regex((stem if whole else pattern).replace(os.sep, "/")), re.DOTALL)
    for path in sorted(glob(pattern, recursive=True)):  # noqa: PTH207 (a pattern may be absolute)
        body, ending = os.path.splitext(path)  # noqa: PTH122 - speed
        named = whole and not has_magic(suffix)
        if not named and (ending.lower() not in SUFFIXES or not Path(path).is_file()):
            continue
        match = taken.fullmatch(body.replace(os.sep, "/"))
        if match:
            yield _key(match, pattern), path


def _key(match: re.Match[str], pattern: str) -> str:
    """What the wildcards stand for; parts of a file's name, if there are several, joined."""
    parts = match.groups()
    folders = len(parts) - len(re.findall(r"\*+|\?|\[", PurePath(pattern).stem))
    name = "_".join(part for part in parts[folders:] if part)
    return "/".join(part for part in (*parts[:folders], name) if part) or PurePath(pattern).stem


def _regex(pattern: str) -> str:
    """A glob pattern as a regular expression that captures what each wildcard stands for."""
    tokens = {"**/": "(?:(.*)/)?", "**": "(.*)", "*": "([^/]*)", "?": "([^/])"}

    def translated(match: re.Match[str]) -> str:
        token = match[0]
        if token in tokens:
            return tokens[token]
        return f"([{token[1:-1].replace('!', '^', 1)}])" if token.startswith("[") else re.escape(token)

    return re.sub(r"\*\*/|\*\*|\*|\?|\[[^\]]+\]|.", translated, pattern)


# -- split lists -------------------------------------------------------------------------------------------------------


def split_lines(given: Any) -> tuple[list[tuple[str, ...]], Path]:
    """The lines of a split list, an image or an image and its label each, and the folder that it stands in.

    Args:
        given: A text file with a line a chip: a name, or an image and a label between which stands a comma, a tab or a
            space; or a list of names.

    Raises:
        InputError: It is neither, is empty, or a line has more than two columns.
        MissingInputError: The file is not there.
        ReadError: It cannot be read.
    """
    if isinstance(given, Sequence) and not isinstance(given, str):
        lines, folder = [str(line) for line in given], Path()
    elif isinstance(given, str | Path) and str(given):
        lines, folder = _lines(Path(given).expanduser()), Path(given).expanduser().parent
    else:
        raise InputError(f"chips: list must be a text file with a name a line, or a list of names, got {given!r}")
    rows = [_columns(line) for line in lines if line.strip() and not line.lstrip().startswith("#")]
    rows = rows[1:] if rows and {cell.lower() for cell in rows[0]} <= HEADINGS else rows
    odd = [row for row in rows if len(row) > 2]
    if odd or not rows:
        problem = f"a line of {len(odd[0])} columns: {', '.join(odd[0])}" if odd else "no line"
        raise InputError(f"chips: the list {given} has {problem}; needed is a name, or an image and a label, a line")
    return rows, folder


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise MissingInputError(f"chips: the list {path} is not there; needed is a text file, a name a line") from error
    except UnicodeDecodeError as error:
        raise ReadError(f"chips: the list {path} is no text in UTF-8") from error
    except OSError as error:
        raise ReadError(f"chips: the list {path} cannot be read: {error.strerror or error}") from error


def _columns(line: str) -> tuple[str, ...]:
    mark = next((mark for mark in (",", "\t") if mark in line), None)
    if mark is not None:
        return tuple(cell.strip().strip("\"'") for cell in line.strip().split(mark))
    words = line.split()
    # A blank divides only where both halves are names of rasters; elsewhere it is part of a name.
    both = len(words) == 2 and all(PurePath(word).suffix.lower() in SUFFIXES for word in words)
    return tuple(words) if both else (line.strip(),)


def aliases(files: Mapping[str, str]) -> dict[str, set[str]]:
    """Keys of the files by all that a list may call them: the key, and the path from any folder on, with suffix or not.

    >>> sorted(aliases({"a": "set/images/a.png"}))
    ['a', 'a.png', 'images/a', 'images/a.png', 'set/images/a', 'set/images/a.png']
    """
    found: dict[str, set[str]] = {}
    for key, path in files.items():
        found.setdefault(key, set()).add(key)
        parts = path.replace(os.sep, "/").split("/")
        for first in range(len(parts)):
            name = "/".join(parts[first:])
            for alias in (name, os.path.splitext(name)[0]):  # noqa: PTH122 - speed
                found.setdefault(alias, set()).add(key)
    return found


def looked_up(names: Iterable[str], files: Mapping[str, str], what: str) -> list[str | None]:
    """The key of each name in a list, None where there is no such file.

    Raises:
        InputError: A name may mean several files.
    """
    known = aliases(files)
    found: list[str | None] = []
    for name in names:
        keys = known.get(name.replace("\\", "/").removeprefix("./"), set())
        if len(keys) > 1 and name not in keys:
            raise InputError(
                f"chips: '{name}' of the list may be any of {len(keys)} {what}: {some(sorted(keys))}; "
                "name them with their folder"
            )
        found.append(name if name in keys else next(iter(keys), None))
    return found


def some(names: Sequence[str]) -> str:
    """The first few of the names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
