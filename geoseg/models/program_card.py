"""The model card of a program of `torch.export`, read from its archive without torch.

A `.pt2` file is a zip archive; what was given as `extra_files` lies under `extra/` in its one folder
(https://docs.pytorch.org/docs/stable/export/pt2_archive.html).
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

from geoseg.errors import ModelFileError
from geoseg.models.card import ModelCard, card_of_header, existing_model

PROGRAM_SUFFIX = ".pt2"
CARD_FILE = "geoseg.json"
UNREADABLE = (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, NotImplementedError, UnicodeDecodeError, EOFError)
LARGEST_CARD = 1 << 26
"""Bytes of a card; what says it unpacks to more is none."""


def read_program_card(path: Path) -> ModelCard:
    """What a program that `geoseg export --torch` wrote says of itself; nothing in it is run.

    Raises:
        MissingInputError: There is no such file.
        ModelFileError: It is a folder, no such archive, or not one of geoseg.
    """
    path = existing_model(path, suffix=PROGRAM_SUFFIX, writer="geoseg export --torch")
    try:
        with zipfile.ZipFile(path) as archive:
            found = [name for name in archive.namelist() if name.endswith(f"/extra/{CARD_FILE}")]
            if len(found) != 1 or archive.getinfo(found[0]).file_size > LARGEST_CARD:
                raise ModelFileError(f"{path} is a program without geoseg's card; needed is one by geoseg export")
            header = archive.read(found[0]).decode("utf-8")
    except UNREADABLE as error:
        raise ModelFileError(f"{path} is no program of torch.export: {error}") from error
    return card_of_header(header, path=path)
