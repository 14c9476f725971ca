"""Memory: in what words it runs out, and networks that take none."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from geoseg.errors import InputError

SAID = ("out of memory", "ALLOC_FAILED", "can't allocate memory", "INT_MAX")
"""Of a device, of its libraries, of a CPU, and of layers that count no further."""


def is_too_large(error: BaseException) -> bool:
    """Whether a batch is refused for its size; torch has no error of its own for all the ways in which that is said."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in SAID)


def without_memory(make: Callable[[], nn.Module]) -> nn.Module:
    """A network for the shapes of its weights: without memory, where its constructor looks at no values.

    Raises:
        InputError: It cannot be built.
    """
    try:
        with torch.device("meta"):
            return make()
    except InputError:
        return make()
