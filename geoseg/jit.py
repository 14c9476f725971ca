"""The one way functions are compiled: cached on disk, and without the interpreter's lock."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numba

Params = ParamSpec("Params")
Result = TypeVar("Result")


def jit(function: Callable[Params, Result]) -> Callable[Params, Result]:
    """The function compiled by numba; its Python body stays at `.py_func`."""
    return cast("Callable[Params, Result]", numba.njit(cache=True, nogil=True)(function))
