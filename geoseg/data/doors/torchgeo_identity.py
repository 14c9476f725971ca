"""What a torchgeo dataset is, as a text, and copies of it that give plain pixels.

A dataset has no equality of its own. Two that are of one class and hold the same things read the same pixels, so what
they hold is hashed: the text tells sources apart between processes and between runs.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Mapping
from copy import copy
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

PLAIN = (str, bytes, int, float, complex, bool, type(None), Path, slice, Enum, np.generic)
UNTOLD = ("transforms", "cache", "download", "checksum")
"""Attributes that change no pixel here."""


ONCE = ":once-"


class _UntoldError(Exception):
    """Nothing is known of a value, so it equals nothing else."""


def is_torchgeo(value: object) -> bool:
    """Whether a value is a dataset or a data module of torchgeo, or a subset of such a dataset.

    >>> is_torchgeo("torchgeo.datasets.LoveDA")
    False
    """
    origins = {base.__module__.partition(".")[0] for base in type(value).__mro__}
    return "torchgeo" in origins or ("torch" in origins and is_torchgeo(getattr(value, "dataset", None)))


def bare(dataset: Any) -> Any:
    """A copy without transforms, its own or its members', that keeps no file open."""
    found = copy(dataset)
    held = vars(found)
    if "transforms" in held:
        found.transforms = None
    if held.get("cache") is True:
        found.cache = False  # handles of rasterio must not be shared by threads or forked processes
    if isinstance(held.get("datasets"), list):
        found.datasets = [bare(member) for member in found.datasets]
    if is_torchgeo(held.get("dataset")):
        found.dataset = bare(found.dataset)
    return found


def identity(dataset: Any) -> str:
    """Class and hash of all that a dataset holds; unique where something in it cannot be hashed.

    Not hashed are the transforms, which are never applied, and what the files hold.
    """
    digest, name = hashlib.sha256(), type(dataset).__name__
    try:
        for piece in _told(dataset):
            digest.update(piece)
    except _UntoldError:
        return f"{name}{ONCE}{uuid.uuid4().hex}"
    return f"{name}:{digest.hexdigest()[:32]}"


def is_stable(told: str) -> bool:
    """Whether an identity means the same in another run."""
    return ONCE not in told


def _told(value: Any) -> Iterator[bytes]:
    """A value as bytes, piece by piece."""
    if isinstance(value, PLAIN):
        yield f"{type(value).__name__} {value!r};".encode()
    elif isinstance(value, Mapping):
        yield f"mapping {len(value)};".encode()
        for key, inner in value.items():
            yield from _told(key)
            yield from _told(inner)
    elif isinstance(value, list | tuple | range):
        yield f"sequence {len(value)};".encode()
        for inner in value:
            yield from _told(inner)
    elif isinstance(value, set | frozenset):
        yield from _told(sorted(value, key=repr))
    elif type(value).__module__ == "torch" and type(value).__name__ in ("dtype", "device"):
        yield f"{value};".encode()
    elif isinstance(value, type):
        yield f"class {value.__module__}.{value.__qualname__};".encode()
    else:
        yield from _of_object(value)


def _of_object(value: Any) -> Iterator[bytes]:
    if callable(getattr(value, "numpy", None)) and hasattr(value, "dtype") and not isinstance(value, np.ndarray):
        value = value.numpy()  # a tensor
    if isinstance(value, np.ndarray) and value.dtype != object:
        yield f"array {value.dtype} {value.shape};".encode()
        yield np.ascontiguousarray(value).tobytes()
    elif callable(getattr(value, "to_csv", None)):
        yield f"table {getattr(value, 'crs', None)};".encode()
        yield value.to_csv().encode()
    elif callable(getattr(value, "to_wkt", None)):
        yield str(value.to_wkt()).encode()
    elif is_torchgeo(value):
        yield from _told(type(value))
        yield from _told({name: held for name, held in sorted(vars(value).items()) if name not in UNTOLD})
    elif type(value).__module__.partition(".")[0] == "matplotlib":
        yield b"colours for plots;"
    else:
        raise _UntoldError(type(value).__qualname__)
