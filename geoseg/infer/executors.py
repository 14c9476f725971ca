"""Executors: ways to make blocks. All are a map over blocks; blocks need nothing of each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

from geoseg.infer.blocks import run_blocks
from geoseg.infer.encode import encode_block
from geoseg.infer.feed import WriteBehind
from geoseg.infer.parts import EncodedBlock
from geoseg.infer.task import FinishedBlock, SceneTask
from geoseg.tiling import Block

Keep = Callable[[EncodedBlock], None]
"""Takes a finished block to where it is kept; it can be pickled."""


@dataclass(frozen=True, slots=True)
class Crew:
    """Who does the work.

    Attributes:
        engine: A name in `EXECUTORS`.
        devices: Processes on this machine, one a GPU where there are GPUs.
        scheduler: Address of a Dask scheduler; None starts a cluster on this machine.
    """

    engine: str = "serial"
    devices: int = 1
    scheduler: str | None = None


class Executor(Protocol):
    """Makes blocks."""

    def __call__(
        self, task: SceneTask, blocks: Sequence[Block], *, crew: Crew, keep: Keep, progress: Callable[[int], None]
    ) -> None:
        """Make the blocks and keep each; what was finished before an exception is kept.

        Args:
            task: The scene and the network.
            blocks: Which blocks to make.
            crew: Who does the work.
            keep: Takes each finished block.
            progress: Told the pixels that have become finished.
        """


def serial(
    task: SceneTask, blocks: Sequence[Block], *, crew: Crew, keep: Keep, progress: Callable[[int], None]
) -> None:
    """Make `blocks` in this process, one after the other; a finished block is written while the next one is made."""
    del crew

    def write(finished: FinishedBlock) -> None:
        keep(encode_block(task, finished))

    with (
        WriteBehind[None](modest=task.predictor.readers == 1) as writer,
        closing(run_blocks(task, blocks, progress=progress)) as made,
    ):
        for block in made:
            writer.submit(write, block)
        writer.drain()


def _later(module: str, name: str) -> Executor:
    """An executor of another module, which is loaded when it is used."""

    def execute(
        task: SceneTask, blocks: Sequence[Block], *, crew: Crew, keep: Keep, progress: Callable[[int], None]
    ) -> None:
        executor: Executor = getattr(import_module(module), name)
        executor(task, blocks, crew=crew, keep=keep, progress=progress)

    return execute


EXECUTORS: Mapping[str, Executor] = {
    "serial": serial,
    "processes": _later("geoseg.infer.processes", "processes"),
    "dask": _later("geoseg.infer.cluster", "dask"),
}
