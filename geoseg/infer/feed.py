"""Reading ahead and writing behind, in threads, so that the network never waits for a file."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Generic, TypeVar

from geoseg.infer.memory import give_back_own

MODEST = 15
"""The niceness of threads that stand back."""

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


def stand_back() -> None:
    """Let this thread have the cores only when nobody else wants them; nothing where the system has no such thing."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), MODEST)


def read_ahead(
    items: Iterable[Item], load: Callable[[Item], Loaded], *, ahead: int = 1, threads: int = 1, modest: bool = False
) -> Generator[tuple[Item, Loaded], None, None]:
    """Each item and what `load` gives for it, in order; up to `ahead` more are loaded meanwhile.

    With `modest` the threads leave the cores to others that want them, such as a network that works there.

    An exception in `load` comes out at its item. When the caller stops early, what has not begun is never loaded.
    """
    waiting: deque[tuple[Item, Future[Loaded]]] = deque()
    pool = ThreadPoolExecutor(threads, "geoseg-read", initializer=stand_back if modest else None)
    try:
        for item in items:
            waiting.append((item, pool.submit(_tidily, load, item)))
            if len(waiting) > ahead:
                yield _first(waiting)
        while waiting:
            yield _first(waiting)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _tidily(work: Callable[..., Loaded], *args: Any) -> Loaded:
    """What `work` gives; the thread then holds no more memory than that."""
    try:
        return work(*args)
    finally:
        give_back_own()


def _first(waiting: deque[tuple[Item, Future[Loaded]]]) -> tuple[Item, Loaded]:
    item, future = waiting.popleft()
    return item, future.result()


class WriteBehind(Generic[Item]):
    """Runs jobs one after the other in a thread, and at most `behind` of them wait.

    With `modest` the thread leaves the cores to others that want them.

    As a context manager it leaves when all is written. An exception of a job comes out of the next call or at the end,
    unless another one is already on its way.
    """

    def __init__(self, *, behind: int = 1, modest: bool = False) -> None:
        self._pool = ThreadPoolExecutor(1, "geoseg-write", initializer=stand_back if modest else None)
        self._waiting: deque[Future[Item]] = deque()
        self._behind = behind

    def submit(self, job: Callable[..., Item], *args: Any) -> list[Item]:
        """Hand a job over; returns what earlier jobs have given since, after waiting where too many are under way."""
        self._waiting.append(self._pool.submit(_tidily, job, *args))
        return self._collect(self._behind)

    def drain(self) -> list[Item]:
        """Wait for all jobs; what those have given that were not returned before."""
        return self._collect(0)

    def _collect(self, behind: int) -> list[Item]:
        done: list[Item] = []
        while self._waiting and (len(self._waiting) > behind or self._waiting[0].done()):
            done.append(self._waiting.popleft().result())
        return done

    def __enter__(self) -> WriteBehind[Item]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True)
