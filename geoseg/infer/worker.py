"""The inside of a worker process: it asks for blocks, makes and keeps them, and tells the parent."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass
from logging.handlers import QueueHandler
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from geoseg.errors import GeosegError, WorkerError
from geoseg.infer.blocks import run_blocks
from geoseg.infer.encode import encode_block
from geoseg.infer.feed import WriteBehind
from geoseg.infer.spawning import UNPICKLABLE, check_device, loaded
from geoseg.infer.task import FinishedBlock, SceneTask

if TYPE_CHECKING:
    from geoseg.infer.parts import EncodedBlock
    from geoseg.tiling import Block

Kind = Literal["next", "pixels", "kept", "log", "error"]


@dataclass(frozen=True, slots=True)
class Terms:
    """What a worker is told at its start.

    Attributes:
        device: The kind of device that it must find.
        workers: How many there are.
        levels: Levels of loggers by name, as in the parent.
    """

    device: str
    workers: int
    levels: dict[str, int]


class Link:
    """The worker's end of the pipe to the parent; any thread may send, one may ask."""

    def __init__(self, connection: Connection[Any, Any]) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def send(self, kind: Kind, content: Any = None) -> None:
        """Tell the parent; nothing where it has hung up, for then it has all that it wanted."""
        with self._lock, suppress(BrokenPipeError):
            self._connection.send((kind, content))

    def ask(self, *, patient: bool) -> Block | None:
        """The next block to make.

        Args:
            patient: Whether to wait until there is one; None then means that all are finished.
        """
        self.send("next", patient)
        try:
            block: Block | None = self._connection.recv()
        except EOFError:
            return None
        return block


class LinkHandler(QueueHandler):
    """Sends records of the log to the parent."""

    def __init__(self, link: Link) -> None:
        super().__init__(link)  # type: ignore[arg-type] # only `enqueue` uses it
        self._link = link

    def enqueue(self, record: logging.LogRecord) -> None:
        """Send a record."""
        self._link.send("log", record)


class Reporting(AbstractContextManager["Reporting"]):
    """Sends an exception to the parent, which raises it there."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Send it."""
        if error is not None:
            self._link.send("error", portable(error))
        return True


def portable(error: BaseException) -> BaseException:
    """The error as it can be sent; one that is not ours says where it came from."""
    if not isinstance(error, GeosegError):
        error.add_note("In a worker process:\n" + "".join(traceback.format_exception(error)).rstrip())
    error = error.with_traceback(None)  # which some libraries let travel
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 (made the line before)
    except UNPICKLABLE:
        return WorkerError(f"a worker failed with {type(error).__name__}: {error}")
    return error


def work(connection: Connection[Any, Any], terms: Terms) -> None:
    """Make blocks until the parent has no more. The first thing to come is the pickled task and `keep`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="geoseg-parent", daemon=True).start()
    link = Link(connection)
    logging.getLogger().addHandler(LinkHandler(link))
    for name, level in terms.levels.items():
        logging.getLogger(name).setLevel(level)
    with Reporting(link):
        task, keep = loaded(connection.recv_bytes())
        check_device(task.predictor, kind=terms.device, workers=terms.workers)
        _make(task, keep, link)


def _end_with_parent() -> None:
    """End this process when the parent is gone, however it went."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _make(task: SceneTask, keep: Callable[[EncodedBlock], None], link: Link) -> None:
    def write(finished: FinishedBlock) -> None:
        keep(encode_block(task, finished))
        link.send("kept", finished.block.index)

    with WriteBehind[None]() as writer:
        while (first := link.ask(patient=True)) is not None:
            for finished in _run(task, first, link):
                writer.submit(write, finished)
            writer.drain()


def _run(task: SceneTask, first: Block, link: Link) -> Iterator[FinishedBlock]:
    """Blocks from `first` on, as long as there are any; each that lies below the one before takes its sums over."""
    given: deque[Block] = deque()

    def blocks() -> Iterator[Block]:
        block: Block | None = first
        while block is not None:
            given.append(block)
            yield block
            block = link.ask(patient=False)

    def progress(pixels: int) -> None:
        link.send("pixels", (given[0].index, pixels))

    with closing(run_blocks(task, blocks(), progress=progress)) as made:
        for finished in made:
            given.popleft()
            yield finished
