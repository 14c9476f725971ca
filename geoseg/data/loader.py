"""Batches from windows, cut ahead by threads.

Cutting patches lets other threads run, and so does decoding. Threads share what is decoded and hand over a batch
without copying it, which processes cannot, and an error arrives as it was raised.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

Batch = dict[str, torch.Tensor]
AHEAD = 2  # batches a thread that are cut before they are asked for


class Windows(Protocol):
    """Windows `(n, 3)` of one batch after another."""

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        """Those of one epoch."""

    def __len__(self) -> int:
        """Batches of an epoch."""


class Batches(Protocol):
    """Gives the batch of windows."""

    def __getitem__(self, windows: NDArray[np.int64], /) -> Batch:
        """The batch."""


class PatchLoader:
    """Batches of `dataset` for the windows of `sampler`, in their order, epoch after epoch.

    Args:
        dataset: Cuts a batch.
        sampler: Says which; a list, or what has `set_epoch`.
        workers: Threads that cut ahead; without, each batch is cut when it is asked for.
        pin: Whether batches go to pinned memory, from where a GPU fetches them while it computes.
    """

    batch_sampler = None  # Lightning looks for it

    def __init__(
        self,
        dataset: Batches,
        sampler: Windows | Sequence[NDArray[np.int64]],
        *,
        workers: int = 0,
        pin: bool = False,
    ) -> None:
        self.dataset, self.sampler, self.workers, self.pin = dataset, sampler, workers, pin

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        if not self.workers:
            yield from map(self._cut, self.sampler)
            return
        waiting: deque[Future[Batch]] = deque()
        windows = iter(self.sampler)
        with ThreadPoolExecutor(self.workers, thread_name_prefix="geoseg-patches") as pool:
            try:
                waiting.extend(pool.submit(self._cut, one) for one in islice(windows, AHEAD * self.workers))
                while waiting:
                    batch = waiting.popleft().result()
                    waiting.extend(pool.submit(self._cut, one) for one in islice(windows, 1))
                    yield batch
            finally:
                for late in waiting:
                    late.cancel()

    def _cut(self, windows: NDArray[np.int64]) -> Batch:
        batch = self.dataset[windows]
        return {name: plane.pin_memory() for name, plane in batch.items()} if self.pin else batch
