"""Several processes on this machine, one a GPU where there are GPUs.

Each loads the network once, then goes down a strip block by block, and writes what it finishes itself. Only the places
of blocks, counts of pixels and messages cross between the processes, each over a pipe of its own, so that one that is
killed leaves no lock behind.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import TYPE_CHECKING, Any

from geoseg.errors import WorkerError
from geoseg.infer.backlog import Backlog
from geoseg.infer.spawning import device_kind, environments, nameless_script, needs_main, packed, starting
from geoseg.infer.task import SceneTask
from geoseg.infer.worker import Terms, work
from geoseg.tiling import Block

if TYPE_CHECKING:
    from geoseg.infer.executors import Crew, Keep

logger = logging.getLogger(__name__)

TERMINATE_S = 5
"""Seconds that a process has to end when it is told to; then it is killed."""


def processes(
    task: SceneTask, blocks: Sequence[Block], *, crew: Crew, keep: Keep, progress: Callable[[int], None]
) -> None:
    """Make `blocks` in `crew.devices` processes.

    An error in one of them ends all. The blocks of one that dies are made by the others.

    Args:
        task: The scene and the network.
        blocks: Which blocks to make.
        crew: Who does the work.
        keep: Takes each finished block, in the process that made it.
        progress: Told the pixels that have become finished.

    Raises:
        InputError: The network cannot be sent to other processes, or there are fewer GPUs than processes.
        WorkerError: Processes died, and none is left that can go on.
        GeosegError: What a process raised.
    """
    count = min(crew.devices, len(blocks))
    shares = environments(task.predictor, count=count)
    with _started(packed((task, keep)), shares, device=device_kind(task.predictor)) as workers:
        _Site(workers, blocks, progress).run()


@dataclass(eq=False)
class Worker:
    """A process, as the parent sees it.

    Attributes:
        number: Its place among all, from 1.
        process: The process.
        connection: The pipe to it.
        given: The blocks that it took and has not finished, by index.
        last: The block that it took last.
        made: Pixels of blocks that it said to be finished.
        waiting: Whether it waits for a block.
    """

    number: int
    process: SpawnProcess
    connection: Connection[Any, Any]
    given: dict[int, Block] = field(default_factory=dict)
    last: Block | None = None
    made: Counter[int] = field(default_factory=Counter)
    waiting: bool = False

    def send(self, block: Block | None) -> None:
        """Answer it; where it has died meanwhile, the pipe's end says so later."""
        if block is not None:
            self.given[block.index] = self.last = block
        with suppress(BrokenPipeError):
            self.connection.send(block)

    def fate(self) -> str:
        """How it ended, and what may help."""
        self.process.join(TERMINATE_S)
        code = self.process.exitcode
        if code is None:
            return "hung up; try --engine serial to see what is wrong"
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        if how.endswith("SIGKILL"):
            return f"{how}, as happens when memory runs out; try fewer --devices, or a lower --memory"
        if self.last is None:
            return (
                f'{how} before it began; a script that defines its network calls it under `if __name__ == "__main__":`'
            )
        return f"{how}; try fewer --devices, or --engine serial to see what is wrong"


class _Site:
    """Who makes which block, and what is finished."""

    def __init__(self, workers: Sequence[Worker], blocks: Sequence[Block], progress: Callable[[int], None]) -> None:
        self._workers = list(workers)
        self._backlog = Backlog(blocks)
        self._left = {block.index for block in blocks}
        self._told: Counter[int] = Counter()
        self._orphaned: set[int] = set()
        self._progress = progress
        self._answers: Mapping[str, Callable[[Worker, Any], None]] = {
            "next": self._next, "pixels": self._pixels, "kept": self._kept, "log": _log, "error": _raise,
        }  # fmt: skip

    def run(self) -> None:
        """Answer the workers until all blocks are kept."""
        while self._left:
            ready = wait([worker.connection for worker in self._workers])
            for worker in [worker for worker in self._workers if worker.connection in ready]:
                try:
                    kind, content = worker.connection.recv()
                except (EOFError, OSError):  # its end of the pipe is closed: it has died
                    self._bury(worker)
                else:
                    self._answers[kind](worker, content)

    def _next(self, worker: Worker, patient: bool) -> None:  # noqa: FBT001 (a message's content)
        others = [other.last for other in self._workers if other is not worker and other.last is not None]
        block = self._backlog.take(worker.last, others=others)
        worker.waiting = patient and block is None
        if not worker.waiting:
            worker.send(block)

    def _pixels(self, worker: Worker, made: tuple[int, int]) -> None:
        """A block that is made anew counts from where the first to make it got."""
        index, pixels = made
        worker.made[index] += pixels
        more = worker.made[index] - self._told[index]
        if more > 0:
            self._told[index] += more
            self._progress(more)

    def _kept(self, worker: Worker, index: int) -> None:
        worker.given.pop(index, None)
        self._left.discard(index)

    def _bury(self, dead: Worker) -> None:
        """Let the others make the blocks of one that died.

        Raises:
            WorkerError: One of them has cost a worker before, or none is left.
        """
        self._workers.remove(dead)
        lost = set(dead.given) & self._left
        said = f"worker {dead.number} {dead.fate()}"
        if not self._workers:
            raise WorkerError(f"{said}; no worker is left")
        if lost & self._orphaned:
            raise WorkerError(f"{said}; another one ended at the same block")
        self._orphaned |= lost
        logger.warning("%s; its %d blocks are made by the others", said, len(lost))
        self._backlog.give_back(dead.given[index] for index in lost)
        for worker in self._workers:
            if worker.waiting:
                self._next(worker, patient=True)


def _log(worker: Worker, record: logging.LogRecord) -> None:
    del worker
    target = logging.getLogger(record.name)
    if target.isEnabledFor(record.levelno):
        target.handle(record)


def _raise(worker: Worker, error: BaseException) -> None:
    del worker
    raise error


@contextmanager
def _started(payload: bytes, shares: Sequence[Mapping[str, str]], *, device: str) -> Iterator[list[Worker]]:
    """Processes with the payload, one a share; they end with the work, and what they kept is complete."""
    levels = {name: logging.getLogger(name or None).getEffectiveLevel() for name in ("", "geoseg")}
    terms = Terms(device, len(shares), levels)
    workers: list[Worker] = []
    try:
        with nullcontext() if needs_main(payload) else nameless_script():
            for number, share in enumerate(shares, start=1):
                with starting(share):
                    workers.append(_start(number, terms))
        for worker in workers:
            with suppress(BrokenPipeError):
                worker.connection.send_bytes(payload)
        yield workers
        for worker in workers:  # whose work is done end by themselves, and leave nothing behind
            worker.connection.close()
        for worker in workers:
            worker.process.join(TERMINATE_S)
    finally:
        for worker in workers:
            worker.connection.close()
            worker.process.terminate()
        for worker in workers:
            _end(worker.process)


def _start(number: int, terms: Terms) -> Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs, terms), name=f"geoseg-{number}", daemon=True)
    process.start()
    theirs.close()  # so that only the process holds it, and its end is noticed
    return Worker(number, process, ours)


def _end(process: SpawnProcess) -> None:
    process.join(TERMINATE_S)
    if process.exitcode is None:
        process.kill()
        process.join()
    process.close()
