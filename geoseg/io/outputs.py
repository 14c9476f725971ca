"""Outputs are claimed before any work: nothing is overwritten by accident, and a bad place is said at once."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from geoseg.errors import InputError, OutputError, OutputExistsError


def check_output(out: str | Path, *, overwrite: bool = False, inputs: Iterable[str | Path] = ()) -> Path:
    """The path of an output that may be written; its folder is made where it is missing.

    Args:
        out: The file to write.
        overwrite: Whether an existing file may be replaced.
        inputs: Files that are read for it, and so must not be it.

    Raises:
        InputError: The output is one of the inputs.
        OutputExistsError: The output exists and was not to be overwritten.
        OutputError: The place cannot be written.
    """
    path = Path(out)
    check_kept(path, inputs)
    if path.is_dir():
        raise OutputError(f"the output {path} is a folder; give a file name in it")
    if (path.exists() or path.is_symlink()) and not overwrite:
        raise OutputExistsError(f"the output {path} exists; add --overwrite to replace it, or give another name")
    folder = path.absolute().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {folder} cannot be made: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"the folder {folder} cannot be written; choose another, or change its permissions")
    return path


def check_kept(out: Path, inputs: Iterable[str | Path]) -> None:
    """That an output takes the place of no input.

    Raises:
        InputError: It does.
    """
    if is_among(out, inputs):
        raise InputError(f"the output {out} is also an input; give the output another name")


def is_among(path: Path, inputs: Iterable[str | Path]) -> bool:
    """Whether a file is one of the inputs, whatever it is called there."""
    return path.exists() and any(Path(given).exists() and path.samefile(given) for given in inputs)
