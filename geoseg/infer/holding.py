"""One run at a time for an output: others are kept out from before the first file is touched until the last is."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from geoseg.errors import OutputError

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

logger = logging.getLogger(__name__)


def lock_of(out: Path) -> Path:
    """The file that is locked for an output; one for `map.tif` and `map.tiff`, which share what lies beside them."""
    return out.with_name(f".{out.stem}.lock")


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Keeps other runs with this output out; the system lets go of it when the process ends, however it ends.

    Folders that were made for it are gone again where nothing was put in them.

    Raises:
        OutputError: Another run is at work, or the folder cannot be written.
    """
    folder = out.absolute().parent
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _locked(lock_of(out))
    except OSError as error:
        _remove_empty(made)
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{folder} cannot be made: {error.strerror or error}; choose another folder") from error
    try:
        yield
    finally:
        with suppress(OSError):
            lock_of(out).unlink()
        file.close()
        _remove_empty(made)


def _locked(path: Path) -> IO[str]:
    """The lock's file, open and locked.

    Raises:
        OutputError: Another run has it.
        OSError: It cannot be written.
    """
    while True:
        file = path.open("w")
        if fcntl is None or _lock(file, path):
            return file
        file.close()


def _lock(file: IO[str], path: Path) -> bool:
    """Whether the file is locked and still the one at `path`: a run that ends deletes it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise OutputError(
            f"another run is at work on {path.parent / path.name[1:].removesuffix('.lock')}; wait until it ends, or "
            "choose another output"
        ) from error
    except OSError as error:  # some network file systems know no locks
        logger.debug("%s cannot be locked: %s", path, error)
        return True
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False


def _remove_empty(folders: list[Path]) -> None:
    """Delete the folders, the deepest first, until one holds something."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return
