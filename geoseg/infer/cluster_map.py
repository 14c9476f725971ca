"""Any work on windows, not only a network's, by the workers of a Dask cluster."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import geoseg
from geoseg.errors import GeosegError
from geoseg.extras import extra_module
from geoseg.infer.cluster import Harvest, connected
from geoseg.infer.cluster_task import Failure, Order, check_version, worker_address
from geoseg.infer.spawning import loaded, packed
from geoseg.tiling import Block, Window


def map_windows(
    work: Callable[[Window], Any], windows: Sequence[Window], *, scheduler: str | None = None, workers: int = 2
) -> Iterator[Any]:
    """What `work` makes of each window, in the order they are finished; a worker that is lost costs those at hand.

    Args:
        work: Can be pickled; what it reads the workers must see too.
        windows: Its arguments.
        scheduler: The address of the scheduler; without one, workers are started on this machine.
        workers: How many to start, or to expect.

    Raises:
        InputError: distributed is not installed, or a worker has another geoseg or none.
        MissingInputError: No scheduler answers.
        WorkerError: Workers died again and again, or the scheduler is lost.
        GeosegError: What a worker raised.
    """
    distributed = extra_module("distributed", extra="dask", needed_by="engine dask")
    payload = packed(work)
    order = Order(hashlib.sha256(payload).hexdigest(), geoseg.__version__, device="", workers=workers)
    blocks = [Block(index, window, 0) for index, window in enumerate(windows)]
    with connected(distributed, scheduler, shares=[{}] * max(1, min(workers, len(blocks)))) as client:
        for _, found in Harvest(distributed, client, payload, order, make=do_window).results(blocks, least=workers):
            yield found


def do_window(payload: bytes, order: Order, block: Block) -> Any:
    """What the work makes of a block's window; it runs on a worker.

    Args:
        payload: The pickled work.
        order: What else is ordered.
        block: Which block.
    """
    try:
        check_version(order)
        return _work(payload)(block.window)
    except GeosegError as error:
        return Failure(error, worker_address())


@lru_cache(maxsize=1)
def _work(payload: bytes) -> Callable[[Window], Any]:
    """The work, loaded once in a process."""
    work: Callable[[Window], Any] = loaded(payload)
    return work
