"""How much memory this process holds, and how much a piece of work takes for a moment."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
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
