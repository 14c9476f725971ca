"""Executors: ways to make blocks. All are a map over blocks; blocks need nothing of each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any

from geoseg.infer.blocks import FinishedBlock, SceneTask, run_blocks
from geoseg.infer.feed import WriteBehind
from geoseg.tiling import Block

Executor = Callable[..., None]


def serial(
    task: SceneTask,
    blocks: Sequence[Block],
    *,
    write: Callable[[FinishedBlock], Any],
    progress: Callable[[int], None] | None = None,
) -> None:
    """Make `blocks` in this process, one after the other; a finished block is written while the next one is made.

    What was finished before an exception is written.
    """
    with WriteBehind[Any]() as writer, closing(run_blocks(task, blocks, progress=progress)) as finished:
        for block in finished:
            writer.submit(write, block)
        writer.drain()


EXECUTORS: Mapping[str, Executor] = {"serial": serial}
