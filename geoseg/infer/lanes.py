"""Threads that compute side by side, a share of the cores each.

Networks on a CPU are faster this way than with all cores on one tile: nobody waits for another's part of a layer, and
a core that reads or blends meanwhile is missed by one tile only.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

from geoseg.infer.kernels import stay_in_thread, thread_count

Key = TypeVar("Key")
Result = TypeVar("Result")

LONGEST_START_S = 60
"""Until when the threads of all lanes have begun."""


def in_lanes(
    work: Iterable[tuple[Key, Callable[[], Result] | None]], *, lanes: int
) -> Generator[tuple[Key, Result | None], None, None]:
    """Each key and what its work gives, in order; one piece of work more than there are lanes is under way meanwhile.

    Args:
        work: Keys, and what to compute for each; None is a key that only keeps its place in the order.
        lanes: How many are computed side by side; with one, each is computed by the caller when it is asked for.

    An exception comes out at its key. When the caller stops early, what has not begun is never computed.
    """
    if lanes == 1:
        for key, compute in work:
            yield key, None if compute is None else compute()
        return
    pool = lane_pool(lanes)
    waiting: deque[tuple[Key, Future[Result] | None]] = deque()
    under_way = 0
    try:
        for key, compute in work:
            waiting.append((key, None if compute is None else pool.submit(compute)))
            under_way += compute is not None
            while waiting and (waiting[0][1] is None or under_way > lanes + 1):
                key_first, future = waiting.popleft()
                under_way -= future is not None
                yield key_first, None if future is None else future.result()
        while waiting:
            key_first, future = waiting.popleft()
            yield key_first, None if future is None else future.result()
    finally:
        left = [future for _, future in waiting if future is not None and not future.cancel()]
        for future in left:
            future.exception()  # it ends before the arrays that it reads do


def lane_pool(lanes: int) -> ThreadPoolExecutor:
    """The process's threads for that many lanes; those of the caller's cores are shared among them."""
    return _pool(os.getpid(), lanes, max(1, own_threads() // lanes))


def own_threads() -> int:
    """Threads that the calling thread may compute with."""
    torch = sys.modules.get("torch")
    return thread_count() if torch is None else int(torch.get_num_threads())


@lru_cache(maxsize=2)
def _pool(process: int, lanes: int, threads: int) -> ThreadPoolExecutor:
    """Keyed by process, for a fork leaves the threads behind."""
    del process
    started = threading.Barrier(lanes + 1)
    pool = ThreadPoolExecutor(lanes, "geoseg-lane", initializer=_begin, initargs=(threads, started))
    for _ in range(lanes):
        pool.submit(int)
    torch, before = sys.modules.get("torch"), own_threads()
    started.wait(LONGEST_START_S)
    if torch is not None:
        torch.set_num_threads(before)  # which threads to come go by; each of these has set its own
    return pool


def _begin(threads: int, started: threading.Barrier) -> None:
    stay_in_thread()
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.get_num_threads()  # at the first question torch takes what other threads go by, so ask before setting
        torch.set_num_threads(threads)
    started.wait(LONGEST_START_S)
