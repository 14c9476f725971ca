"""The one way functions are compiled: cached on disk, and without the interpreter's lock."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numba

Params = ParamSpec("Params")
Result = TypeVar("Result")

PLAIN = (bool, int, float, str, tuple)
"""Kinds of constants that are compiled into a function as they are."""


def jit(function: Callable[Params, Result]) -> Callable[Params, Result]:
    """The function compiled by numba; its Python body stays at `.py_func`."""
    compiled: Any = numba.njit(cache=True, nogil=True)(function)
    try:
        # By itself numba sees changes to the function's own file alone, and goes on with what is cached of others.
        compiled._cache._cache_file._source_stamp = stamp_of(function)  # noqa: SLF001
    except (AttributeError, OSError):  # another numba, or no files: rather compiled in each process than outdated
        compiled = numba.njit(nogil=True)(function)
    return cast("Callable[Params, Result]", compiled)


def stamp_of(function: Callable[..., Any]) -> tuple[Any, ...]:
    """What compiled code hangs on: the files it is written in, and the constants that its own has of others."""
    module = sys.modules[function.__module__]
    named = ((name, value) for name, value in vars(module).items() if not name.startswith("__"))
    constants = sorted((name, repr(value)) for name, value in named if isinstance(value, PLAIN))
    files = (Path(str(sys.modules[name].__file__)).stat() for name in sorted(_written_in(module.__name__)))
    return (*((file.st_mtime_ns, file.st_size) for file in files), *constants)


def _written_in(module: str) -> set[str]:
    """A module, and those of its package whose compiled functions or instructions it calls, and so on."""
    found, waiting = set[str](), [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _called(name)
    return found


def _called(module: str) -> Iterator[str]:
    package = module.partition(".")[0]
    for value in vars(sys.modules[module]).values():
        body = getattr(value, "py_func", getattr(value, "_defn", None))
        name = getattr(body, "__module__", None) or ""
        if name.partition(".")[0] == package:
            yield name
