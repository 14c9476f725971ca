"""Libraries of the optional extras: loaded when they are first needed, and asked for where they are not there."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from geoseg.errors import InputError


def extra_module(name: str, *, extra: str, needed_by: str) -> ModuleType:
    """The module of an optional extra.

    Args:
        name: The module, which is also what it is installed as.
        extra: The extra of geoseg that brings it.
        needed_by: What cannot be done without it, as the subject of a sentence.

    Raises:
        InputError: It is not installed; the message says how it would be.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(f"{needed_by} needs {name}, which is not installed; pip install geoseg[{extra}]") from error
