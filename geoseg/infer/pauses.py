"""Fewer pauses by the interpreter, while threads do long pieces of compiled work."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SWITCH_S = 0.0002
"""After how long a thread that runs Python lets another one have a turn; it is 5 ms by default."""

_turn = threading.Lock()
_inside: list[float] = []  # the intervals that each who is inside has found


@contextmanager
def few_pauses() -> Iterator[None]:
    """Inside, a thread whose compiled work is done waits less for its turn, and garbage is looked for in new objects.

    With torch and its like loaded a whole collection takes a fifth of a second, in which no thread runs Python. At the
    end what became garbage inside is let go: drawing a graph leaves circles that would keep the network. All this is of
    the whole process: the first to enter sets it, the last to leave resets it.
    """
    with _turn:
        _inside.append(sys.getswitchinterval())
        if len(_inside) == 1:
            sys.setswitchinterval(min(SWITCH_S, _inside[0]))
            gc.freeze()
    try:
        yield
    finally:
        with _turn:
            before = _inside[0]
            _inside.pop()
            if not _inside:
                sys.setswitchinterval(before)
                gc.collect()
                gc.unfreeze()
