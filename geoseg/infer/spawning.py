"""How processes are started on this machine: their share of it, and what they are told."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import ModuleType
from typing import Any

from geoseg.errors import InputError
from geoseg.infer.kernels import thread_count
from geoseg.infer.task import Predictor

UNPICKLABLE = (pickle.PickleError, AttributeError, ImportError, TypeError, ValueError)
"""What pickle raises where something cannot travel."""

THREADS, GPUS = "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"


def device_kind(predictor: Predictor) -> str:
    """`cuda` where the network, or the first of several, runs on a GPU; else `cpu`."""
    return device_of(predictor).partition(":")[0]


def device_of(predictor: Predictor) -> str:
    """The name of a predictor's device; `cpu` where it says none."""
    first = next(iter(getattr(predictor, "members", ())), predictor)
    return str(getattr(first, "device", "cpu"))


def environments(predictor: Predictor, *, count: int) -> list[dict[str, str]]:
    """What each of `count` processes is to find in its environment: its share of the cores, and a GPU of its own.

    A number of threads that the user has set is left alone.

    Raises:
        InputError: There are fewer GPUs than processes, or one was chosen by number.
    """
    threads = {} if os.environ.get(THREADS) else {THREADS: str(max(1, thread_count() // count))}
    device = device_of(predictor)
    if device_kind(predictor) != "cuda":
        return [threads] * count
    if ":" in device and count > 1:
        raise InputError(f"device {device} is one GPU, devices are {count}; give --device cuda, or --devices 1")
    if ":" in device:  # its number is that among all GPUs
        return [threads]
    return [threads | gpu for gpu in _gpus(count)]


def _gpus(count: int) -> list[dict[str, str]]:
    visible = os.environ.get(GPUS)
    # How many there are is not known without a GPU library; `loaded` finds out whether there are enough.
    names = [str(number) for number in range(count)] if visible is None else visible.split(",")
    if len(names) < count:
        raise InputError(f"devices of {count}: {GPUS} shows {len(names)} GPUs; try --devices {len(names)}")
    return [{GPUS: name.strip()} for name in names[:count]]


def packed(content: Any, *, dumps: Callable[[Any], bytes] = pickle.dumps) -> bytes:
    """What a worker needs, as bytes.

    Raises:
        InputError: It cannot be sent.
    """
    try:
        return dumps(content)
    except UNPICKLABLE as error:
        raise InputError(
            f"the network cannot be sent to other processes: {error}; define it by a class at the top of a module, or "
            "use --engine serial"
        ) from error


def loaded(payload: bytes) -> Any:
    """What `packed` was given, in another process.

    Raises:
        InputError: A class or a module is not there.
    """
    try:
        with _own_locks():
            return pickle.loads(payload)  # noqa: S301 (made by the process that started the work)
    except (AttributeError, ImportError) as error:
        raise InputError(
            f"a worker cannot load the network: {error}; define it in a module that the worker can import"
        ) from error


@contextmanager
def _own_locks() -> Iterator[None]:
    """Locks that libraries make when they are imported inside are of this process alone.

    In a spawned process they would be for those that it spawns in turn, by a name that stays behind when it is killed.
    """
    if "fork" not in multiprocessing.get_all_start_methods():  # Windows
        yield
        return
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("fork", force=True)
    try:
        yield
    finally:
        multiprocessing.set_start_method(before, force=True)


def check_device(predictor: Predictor, *, kind: str, workers: int) -> None:
    """Nothing, where a predictor that was sent to a process of its own found the kind of device it had before.

    Raises:
        InputError: It has not.
    """
    if device_kind(predictor) != kind:
        raise InputError(f"devices of {workers}: a worker finds no GPU of its own; try fewer --devices")


def needs_main(payload: bytes) -> bool:
    """Whether something in the payload is defined in the script or notebook that runs."""
    return b"__main__" in payload


@contextmanager
def starting(environment: Mapping[str, str]) -> Iterator[None]:
    """Processes that are spawned inside find `environment` and do not hear Ctrl-C, which is the parent's to answer.

    Threads that are begun inside, and processes that those spawn, do not hear it either.
    """
    with same_environment(), _deaf():
        os.environ.update(environment)
        yield


@contextmanager
def same_environment() -> Iterator[None]:
    """At the end, the environment is what it was."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def _deaf() -> Iterator[None]:
    """Block SIGINT: processes inherit that, and one that arrives meanwhile is delivered afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # it unblocks SIGINT when it is started, so it is started before
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def nameless_script() -> Iterator[None]:
    """Processes that are spawned inside do not run the caller's script again.

    Spawned processes run it for what is defined there, which ends badly where it lacks `if __name__ == "__main__"`. A
    stand-in of the same content that says of no file holds them off it.
    """
    script = sys.modules["__main__"]
    stand_in = ModuleType("__main__")
    vars(stand_in).update({name: value for name, value in vars(script).items() if name not in ("__file__", "__spec__")})
    sys.modules["__main__"] = stand_in
    try:
        yield
    finally:
        sys.modules["__main__"] = script
