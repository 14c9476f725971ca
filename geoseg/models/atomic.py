"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from geoseg.errors import OutputError


@contextlib.contextmanager
def renamed_when_done(path: Path, *, what: str) -> Iterator[Path]:
    """A name beside `path` that becomes it in the end; nothing is left after an error, and an old file stays.

    Args:
        path: The file; its folder is made where it is missing.
        what: What it is, for messages.

    Raises:
        OutputError: The file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix, delete=False
        ) as file:
            part = Path(file.name)
        try:
            yield part
            part.chmod(0o644)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"the {what} {path} cannot be written: {error.strerror or error}") from error
