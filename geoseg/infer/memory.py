"""How much memory this process holds, and how much a piece of work takes for a moment."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

resource: Any
try:
    import resource
except ImportError:  # Windows
    resource = None

STATM = Path("/proc/self/statm")
INTERVAL_S = 0.002


def resident_bytes() -> int:
    """Bytes of memory that this process holds now; the most it ever held where the system does not say."""
    try:
        pages = int(STATM.read_text().split()[1])
    except OSError:
        return largest_resident_bytes()
    return int(pages * resource.getpagesize())


def largest_resident_bytes() -> int:
    """The most bytes that this process ever held; 0 where the system does not say."""
    if resource is None:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def peak_bytes_of(work: Callable[[], Any]) -> int:
    """Bytes that `work` takes beyond those held before it, at most at a time.

    A thread looks every two milliseconds, so what is held more briefly may be missed.
    """
    before, peak, done = resident_bytes(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while True:
            peak = max(peak, resident_bytes() - before)
            if done.wait(INTERVAL_S):
                return

    watcher = threading.Thread(target=watch, name="geoseg-memory", daemon=True)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return max(peak, 0)


M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
KEEPING = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 64 * 2**20}
USUAL = {M_MMAP_MAX: 65536, M_TRIM_THRESHOLD: 64 * 2**20, M_TOP_PAD: 0}
"""Options of glibc's `mallopt` inside and outside of `memory_kept`: outside, what its own rules come to."""

_depth = 0
_turn = threading.Lock()


@contextmanager
def memory_kept() -> Iterator[None]:
    """Memory that is freed inside stays with the process, for what is asked for next; at the end it is given back.

    A network frees and asks for the same large arrays at each tile. By default glibc hands each back to the system,
    which clears its pages anew: a fifth of the network's time on a CPU. Nothing happens with other C libraries.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    _enter(libc, step=1)
    try:
        yield
    finally:
        _enter(libc, step=-1)


def give_back() -> None:
    """Hand memory that is free now to the system, inside of `memory_kept` too, so that holes in it do not add up."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _enter(libc: Any, *, step: int) -> None:
    global _depth
    with _turn:
        before, _depth = _depth, _depth + step
        if bool(before) != bool(_depth):
            for option, value in (KEEPING if _depth else USUAL).items():
                libc.mallopt(option, value)
            if not _depth:
                libc.malloc_trim(0)


@lru_cache(maxsize=1)
def _glibc() -> Any:
    """The C library, where it is glibc; else None."""
    if sys.platform != "linux":
        return None
    try:
        libc = ctypes.CDLL(None)
        return libc if hasattr(libc, "gnu_get_libc_version") and hasattr(libc, "mallopt") else None
    except OSError:
        return None
