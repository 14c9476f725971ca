"""How much memory this process holds, and how much a piece of work takes for a moment."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections import Counter
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


M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4
USUAL = {M_MMAP_MAX: 65536, M_MMAP_THRESHOLD: 32 * 2**20, M_TRIM_THRESHOLD: 64 * 2**20, M_TOP_PAD: 0}
KEEPING = USUAL | {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 64 * 2**20}
RETURNING = USUAL | {M_MMAP_THRESHOLD: 128 * 2**10, M_TRIM_THRESHOLD: 128 * 2**10}
"""Options of glibc's `mallopt`: what its own rules come to, and inside of `memory_kept` and `memory_returned`."""

PROBE_BYTES = 100_000

_inside: Counter[str] = Counter()
_turn = threading.Lock()


@contextmanager
def memory_kept() -> Iterator[None]:
    """Memory that is freed inside stays with the process, for what is asked for next; at the end it is given back.

    A network frees and asks for the same large arrays at each tile. By default glibc hands each back to the system,
    which clears its pages anew: a fifth of the network's time on a CPU. Nothing happens with other C libraries.
    """
    with _allocating("kept"):
        yield


@contextmanager
def memory_returned() -> Iterator[None]:
    """Memory that is freed inside goes back to the system at once, but for small pieces.

    By default glibc comes to keep it, in a heap for each of several threads, and what threads take and free in turn
    leaves holes in all of them. Inside of `memory_kept`, and with other C libraries, nothing happens.
    """
    with _allocating("returned"):
        yield


def give_back() -> None:
    """Hand memory that is free now to the system, inside of `memory_kept` too, so that holes in it do not add up."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def give_back_own() -> None:
    """Hand the free end of this thread's own heap to the system, which `give_back` reaches in the first thread only.

    glibc looks there when the thread itself frees more than 64 KB, and goes by the options of that moment.
    """
    libc = _glibc()
    if libc is None:
        return
    with _turn:
        for option, value in (RETURNING | {M_MMAP_MAX: 0}).items():
            libc.mallopt(option, value)
        libc.free(libc.malloc(PROBE_BYTES))
        for option, value in _options().items():
            libc.mallopt(option, value)


@contextmanager
def _allocating(how: str) -> Iterator[None]:
    libc = _glibc()
    if libc is None:
        yield
        return
    _step(libc, how, 1)
    try:
        yield
    finally:
        _step(libc, how, -1)


def _step(libc: Any, how: str, step: int) -> None:
    """Enter or leave. Options are those of all threads: the first to enter sets them, the last to leave resets them."""
    with _turn:
        before = _options()
        _inside[how] += step
        after = _options()
        if after is not before:
            for option, value in after.items():
                libc.mallopt(option, value)
            if before is KEEPING:
                libc.malloc_trim(0)


def _options() -> dict[int, int]:
    return KEEPING if _inside["kept"] else RETURNING if _inside["returned"] else USUAL


@lru_cache(maxsize=1)
def _glibc() -> Any:
    """The C library, where it is glibc; else None."""
    if sys.platform != "linux":
        return None
    try:
        libc = ctypes.CDLL(None)
    except OSError:
        return None
    if not hasattr(libc, "gnu_get_libc_version") or not hasattr(libc, "mallopt"):
        return None
    libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    libc.free.argtypes, libc.free.restype = [ctypes.c_void_p], None
    return libc
