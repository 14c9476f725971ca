"""Workers of a Dask cluster, on this machine or many: each block is a task of its own.

The pickled network is scattered once, and loaded once by each worker process. Finished blocks come back as files in
memory and are kept here, so that workers only have to see the scene. A worker that is lost costs the block at hand.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import geoseg
from geoseg.errors import InputError, MissingInputError, WorkerError
from geoseg.extras import extra_module
from geoseg.infer.cluster_task import Failure, Order, make_block
from geoseg.infer.spawning import device_kind, environments, nameless_script, packed, same_environment, starting
from geoseg.infer.task import SceneTask
from geoseg.tiling import Block

if TYPE_CHECKING:
    from geoseg.infer.executors import Crew, Keep

logger = logging.getLogger(__name__)

CONNECT_S = 8
"""Seconds in which a scheduler must answer."""

UNDER_WAY = 2
"""Blocks under way for each worker process: one at work, and one that waits."""

ATTEMPTS = 3
"""How often a block is begun anew whose network was lost with the workers that held it."""

UNWATCHED = {"DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False"}
"""For workers started here, of which nobody looks at the profile: taking it costs the network 3 % of its time."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def dask(task: SceneTask, blocks: Sequence[Block], *, crew: Crew, keep: Keep, progress: Callable[[int], None]) -> None:
    """Make `blocks` by the workers of a Dask cluster.

    Args:
        task: The scene and the network.
        blocks: Which blocks to make.
        crew: The address of the scheduler; without one, how many workers to start on this machine.
        keep: Takes each finished block, in this process.
        progress: Told the pixels of each finished block.

    Raises:
        InputError: distributed is not installed, or a worker has another geoseg or none.
        MissingInputError: No scheduler answers.
        WorkerError: Workers died again and again, or the scheduler is lost.
        GeosegError: What a worker raised.
    """
    distributed = extra_module("distributed", extra="dask", needed_by="engine dask")
    payload = packed(task, dumps=_dumps)
    local = crew.scheduler is None
    order = Order(
        digest=hashlib.sha256(payload).hexdigest(), version=geoseg.__version__,
        device=device_kind(task.predictor) if local else "", workers=min(crew.devices, len(blocks)),
    )  # fmt: skip
    shares = environments(task.predictor, count=order.workers) if local else []
    with connected(distributed, crew.scheduler, shares=shares) as client:
        for block, encoded in Harvest(distributed, client, payload, order).results(blocks, least=crew.devices):
            keep(encoded)
            progress(block.window.rows * block.window.cols)


def _dumps(content: Any) -> bytes:
    """The content pickled; what is defined in a script or a notebook travels with it."""
    import cloudpickle

    return bytes(cloudpickle.dumps(content))


@contextmanager
def _quiet() -> Iterator[None]:
    """Dask logs only what nobody else says: lost connections are told by an exception, lost workers by a warning."""
    levels = {"": logging.ERROR, ".client": logging.CRITICAL, ".scheduler": logging.CRITICAL}
    loggers = {logging.getLogger(f"distributed{name}"): level for name, level in levels.items()}
    before = {logger: logger.level for logger in loggers}
    try:
        for logger, level in loggers.items():
            logger.setLevel(level)
        yield
    finally:
        for logger, level in before.items():
            logger.setLevel(level)


@contextmanager
def connected(distributed: Any, scheduler: str | None, *, shares: Sequence[Mapping[str, str]]) -> Iterator[Any]:
    """A client of a cluster that has a worker, all with the geoseg that runs here.

    Args:
        distributed: The library.
        scheduler: The address of its scheduler; None starts a cluster on this machine, which ends with the context.
        shares: What each worker started here is to find in its environment.

    Raises:
        InputError: A worker has another geoseg or none.
        MissingInputError: No scheduler answers.
    """
    with _quiet(), ExitStack() as stack:
        if scheduler is None:
            cluster = stack.enter_context(local_cluster(distributed, shares))
            client = distributed.Client(cluster, timeout=CONNECT_S, set_as_default=False)
        else:
            _check_scheduler(distributed, scheduler)
            client = distributed.Client(scheduler, timeout=CONNECT_S, set_as_default=False)
        stack.callback(client.close)
        _await_a_worker(client)
        check_versions(client.get_versions(packages=["geoseg"]))
        client.forward_logging("geoseg", level=logging.WARNING)
        yield client


@contextmanager
def local_cluster(distributed: Any, shares: Sequence[Mapping[str, str]]) -> Iterator[Any]:
    """A cluster on this machine: a process of one thread for each share of it, on which the network computes."""
    # The memory is planned for; a limit beside that would end workers while they load a large network.
    common = {"host": "127.0.0.1", "dashboard": False, "dashboard_address": ":0"}
    options = {**common, "nthreads": 1, "memory_limit": 0, "silence_logs": logging.CRITICAL}
    specs = {
        number: {"cls": distributed.Nanny, "options": {**options, "env": {**share, **UNWATCHED}}}
        for number, share in enumerate(shares)
    }
    scheduler = {"cls": distributed.Scheduler, "options": {**common, "port": 0}}
    threads = shares[0].get(THREAD_VARIABLES[0])
    wanted = {} if threads is None else {name: threads for name in THREAD_VARIABLES if not os.environ.get(name)}
    # Dask changes the environment of whoever starts workers. And a worker that dies is started anew at any time, so the
    # script is hidden for as long as the cluster is there.
    with same_environment(), nameless_script():
        with starting(wanted):
            cluster = distributed.SpecCluster(workers=specs, scheduler=scheduler)
        with cluster:
            yield cluster


def _check_scheduler(distributed: Any, address: str) -> None:
    """Nothing, where a scheduler answers.

    A client by itself would wait without end for a server of another kind.

    Raises:
        MissingInputError: None does.
    """

    async def ask() -> str:
        arguments = distributed.Security().get_connection_args("client")
        async with distributed.rpc(address, timeout=CONNECT_S, connection_args=arguments) as server:
            return str((await server.identity())["type"])

    hint = "needed is the address that `dask scheduler` prints, such as tcp://host:8786"
    try:
        with ThreadPoolExecutor(1, "geoseg-scheduler") as pool:  # where this thread may have a loop of its own
            kind = pool.submit(lambda: asyncio.run(asyncio.wait_for(ask(), CONNECT_S))).result()
    except (OSError, ValueError, MemoryError) as error:  # the last: what is no message is taken for a huge one
        why = str(error).partition("\n")[0] or f"silence for {CONNECT_S} s"
        raise MissingInputError(f"no Dask scheduler answers at {address}: {why}; {hint}") from error
    if kind != "Scheduler":
        raise MissingInputError(f"at {address} is a Dask {kind.lower()}, no scheduler; {hint}")


def _await_a_worker(client: Any) -> None:
    """Return when there is a worker; a cluster that grows with its work is given some."""
    if not client.nthreads():
        logger.warning("%s has no workers; waiting for them", client.scheduler.address)
        client.submit(int, pure=False).result()


def check_versions(found: Mapping[str, Any]) -> None:
    """Nothing, where all workers have the version of geoseg that runs here.

    Args:
        found: What `Client.get_versions` gives for the package.

    Raises:
        InputError: A worker has another one, or none.
    """
    here = found["client"]["packages"]["geoseg"]
    there = {address: about["packages"]["geoseg"] for address, about in found["workers"].items()}
    wrong = [f"{address} has {version or 'none'}" for address, version in sorted(there.items()) if version != here]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise InputError(
            f"Dask workers need geoseg {here}, which runs here: {', '.join(wrong[:3])}{more}; "
            f"install geoseg=={here} where the workers run, and start them anew"
        )


class Harvest:
    """Blocks that are under way on a cluster, and the payload that lies there.

    Args:
        distributed: The library.
        client: Of the cluster.
        payload: What a worker needs, pickled.
        order: What else it is told.
        make: What a worker does with the payload, the order and a block.
    """

    def __init__(
        self, distributed: Any, client: Any, payload: bytes, order: Order, *,
        make: Callable[[bytes, Order, Block], Any] = make_block,
    ) -> None:  # fmt: skip
        self._make = make
        self._client = client
        self._payload = payload
        self._order = order
        self._under_way: dict[Any, Block] = {}
        self._tries: Counter[int] = Counter()
        self._done = distributed.as_completed(loop=client.loop)
        self._killed, self._cancelled = distributed.KilledWorker, distributed.CancelledError
        self._scattered: Any = None
        self._present: set[str] = set()

    def results(self, blocks: Sequence[Block], *, least: int) -> Iterator[tuple[Block, Any]]:
        """Have all blocks made, a few at a time; each with what was made of it, in the order they are finished."""
        waiting = deque(blocks)
        try:
            while waiting or self._under_way:
                most = UNDER_WAY * max(least, self._count_workers())
                while waiting and len(self._under_way) < most:
                    self._begin(waiting.popleft())
                future = next(self._done)
                block = self._under_way.pop(future)
                encoded = self._outcome(future, block)
                if encoded is None:
                    waiting.appendleft(block)
                    continue
                yield block, encoded
        finally:
            self._withdraw()

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """What the scheduler is asked inside is answered.

        Raises:
            WorkerError: It is lost.
        """
        try:
            yield
        except (OSError, self._cancelled) as error:
            if isinstance(error, self._cancelled) and self._client.status == "running":
                raise
            address = self._client.scheduler.address
            raise WorkerError(f"the connection to the Dask scheduler at {address} is lost; see that it runs") from error

    def _count_workers(self) -> int:
        """How many there are; those that have gone are told of."""
        with self._asking():
            present = set(self._client.nthreads())
        for address in sorted(self._present - present):
            logger.warning("the Dask worker %s is gone; its blocks are made by others", address)
        self._present = present
        return len(present)

    def _begin(self, block: Block) -> None:
        self._tries[block.index] += 1
        with self._asking():
            if self._scattered is None or self._scattered.status != "finished":
                _await_a_worker(self._client)
                # The bytes go to all workers that are there; to those that join later Dask takes them when needed.
                self._scattered = self._client.scatter(self._payload, broadcast=True, hash=False)
            future = self._client.submit(self._make, self._scattered, self._order, block, pure=False)
        self._under_way[future] = block
        self._done.add(future)

    def _outcome(self, future: Any, block: Block) -> Any:
        """What a worker made; None where it has to be begun anew.

        Raises:
            GeosegError: The worker could not make it.
            WorkerError: Workers died over it, or the scheduler is lost.
        """
        if future.status == "error":
            raise self._explained(future.exception(), block)
        try:
            with self._asking():
                found = future.result()
        except self._cancelled:  # with the workers that held the network or the block
            if self._tries[block.index] >= ATTEMPTS:
                raise _deadly(block) from None
            return None
        if isinstance(found, Failure):
            raise found.explained()
        return found

    def _explained(self, error: BaseException, block: Block) -> BaseException:
        """An error that is not one of ours, in our words where they are known."""
        if isinstance(error, self._killed):
            return _deadly(block)
        if isinstance(error, ImportError) and (error.name or "").partition(".")[0] == "geoseg":
            return InputError(
                f"a Dask worker cannot load geoseg: {error}; install geoseg=={self._order.version} where workers run"
            )
        return error

    def _withdraw(self) -> None:
        """Take back what is under way, which is nothing unless something failed."""
        if self._under_way and self._client.status == "running":
            self._client.cancel(list(self._under_way), force=True)
        self._under_way.clear()


def _deadly(block: Block) -> WorkerError:
    """What is said of a block that ends worker after worker."""
    window = block.window
    place = f"rows {window.row_off} to {window.row_stop}, columns {window.col_off} to {window.col_stop}"
    return WorkerError(
        f"Dask workers ended one after the other over {place}, as happens when memory runs out; give them more "
        "memory, or try a lower --memory"
    )
