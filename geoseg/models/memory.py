"""In what words memory runs out."""

from __future__ import annotations

import torch

SAID = ("out of memory", "ALLOC_FAILED", "can't allocate memory", "INT_MAX")
"""Of a device, of its libraries, of a CPU, and of layers that count no further."""


def is_too_large(error: BaseException) -> bool:
    """Whether a batch is refused for its size; torch has no error of its own for all the ways in which that is said."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in SAID)
