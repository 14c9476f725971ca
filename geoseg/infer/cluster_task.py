"""What a Dask worker does: load the network once, then make a block at a time."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import geoseg
from geoseg.errors import GeosegError, InputError, MissingInputError, ReadError, WorkerError
from geoseg.infer.blocks import run_blocks
from geoseg.infer.encode import encode_block
from geoseg.infer.parts import EncodedBlock
from geoseg.infer.spawning import check_device, loaded
from geoseg.infer.task import SceneTask
from geoseg.io.stamps import paths_in
from geoseg.tiling import Block

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")

_LATEST: dict[str, SceneTask] = {}
"""The task that this process loaded last, by the digest of its bytes."""

_TURN = threading.Lock()
"""Held while a block is made. A worker of several threads makes one at a time, with all of them: the memory that is
planned is that of one block, and not every network can be used by several threads at once."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is ordered of a worker beside the block.

    Attributes:
        digest: Of the pickled task.
        version: Of geoseg, where the order comes from.
        device: The kind of device that the worker must find; empty where any will do.
        workers: How many were started on this machine.
    """

    digest: str
    version: str
    device: str
    workers: int


@dataclass(frozen=True, slots=True)
class Failure:
    """An error of ours that stopped a worker; as a result it leaves no traceback in the worker's log.

    Attributes:
        error: The error.
        worker: Address of the worker.
        absent: Paths of the scene that are not there.
    """

    error: GeosegError
    worker: str
    absent: tuple[str, ...] = ()

    def explained(self) -> GeosegError:
        """The error; where the scene is here and not there, it says so."""
        here = [path for path in self.absent if Path(path).exists()]
        if not here:
            return self.error
        return type(self.error)(
            f"{self.error}; {here[0]} is there on this machine and not on the Dask worker {self.worker}: workers must "
            "see the same files under the same full paths"
        )


def make_block(payload: bytes, order: Order, block: Block) -> EncodedBlock | Failure:
    """A finished block as files.

    Args:
        payload: The pickled task.
        order: What else is ordered.
        block: Which block.
    """
    absent: tuple[str, ...] = ()
    withdrawn = _withdrawal()
    try:
        check_version(order)
        with _TURN:
            withdrawn(0)
            task = _task(payload, order)
            try:
                (finished,) = run_blocks(task, [block], progress=withdrawn)
            except (ReadError, MissingInputError):
                absent = tuple(path for path in paths_of(task) if not Path(path).exists())
                raise
            return encode_block(task, finished)
    except GeosegError as error:
        return Failure(error, worker_address(), absent)


def paths_of(task: SceneTask) -> list[str]:
    """What the scenes of a task are read from."""
    return paths_in([task.source, *(member.source for member in task.members)])


def check_version(order: Order) -> None:
    """Nothing, where this worker has the geoseg that the order comes from.

    Raises:
        InputError: It has another one.
    """
    if order.version != geoseg.__version__:
        raise InputError(
            f"Dask workers need geoseg {order.version}, {worker_address()} has {geoseg.__version__}; install "
            f"geoseg=={order.version} where the workers run, and start them anew"
        )


def _task(payload: bytes, order: Order) -> SceneTask:
    """The task, loaded once in a process."""
    if order.digest not in _LATEST:
        _LATEST.clear()
        _take_all_threads()
        task: SceneTask = loaded(payload)
        if order.device:
            check_device(task.predictor, kind=order.device, workers=order.workers)
        _LATEST[order.digest] = task
    return _LATEST[order.digest]


@lru_cache(maxsize=1)
def _take_all_threads() -> None:
    """Let a network compute on as many threads as the worker has, for it makes one block at a time.

    Dask gives each thread of a worker one thread to compute on, before the network's library is loaded.
    """
    threads = _worker().state.nthreads
    for name in THREAD_VARIABLES:
        if os.environ.get(name, "").isdigit():
            os.environ[name] = str(int(os.environ[name]) * threads)


def _withdrawal() -> Callable[[int], None]:
    """A function that raises where the client has taken this block back, so that nobody waits for it in vain."""
    worker = _worker()
    key = worker.get_current_task()

    def check(pixels: int) -> None:
        del pixels
        found = worker.state.tasks.get(key)
        if found is not None and found.state == "cancelled":
            raise WorkerError("the block was taken back")

    return check


def _worker() -> Any:
    """The worker that this thread works for."""
    return sys.modules["distributed"].get_worker()


def worker_address() -> str:
    """The address of the worker that this thread works for."""
    return str(_worker().address)
