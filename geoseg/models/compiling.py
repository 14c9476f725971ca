"""What torch.compile refuses, told without loading it: that takes a second, and most runs never compile."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from geoseg.errors import InputError

LONGEST = 160
"""Characters of its reason that are passed on."""


@contextmanager
def told_of_compiling(way_out: str) -> Iterator[None]:
    """Inside, what torch.compile cannot compile is one line.

    Args:
        way_out: What to do about it, e.g. `leave --compile out`.

    Raises:
        InputError: The network cannot be compiled.
    """
    try:
        yield
    except RuntimeError as error:  # of which kind torch.compile's are
        module = sys.modules.get("torch._dynamo.exc")  # loaded where anything was compiled
        if module is None or not isinstance(error, module.TorchDynamoException):
            raise
        reason = str(error).strip().splitlines()[0][:LONGEST]
        raise InputError(f"the network cannot be compiled here: {reason}; {way_out}") from error
