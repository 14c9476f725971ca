"""Lightning with this package's manners: no talk, an interrupt that is one, and refusals in a line."""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.exceptions import SIGTERMException

from geoseg.errors import GeosegError, InputError, Terminated

# What Lightning tells its developers; each line says why it does not matter here.
EXPECTED_WARNINGS = (
    ".*does not have many workers.*",  # patches are cut from memory, faster than a worker could send them
    ".*Checkpoint directory .* exists and is not empty.*",  # checked before
    ".*Experiment logs directory .* exists and is not empty.*",
    ".*number of training batches .* is smaller than the logging interval.*",
    ".*in eval mode at the start of training.*",  # averaged networks, and what is frozen
    ".*GPU available but not used.*",  # the user chose the accelerator
    ".*isinstance\\(treespec, LeafSpec\\).*",  # between torch and Lightning
    ".*when logging on epoch level in distributed setting.*",  # what is logged is of all processes already
    ".*all_gather is deprecated.*",  # between torch and Lightning
    ".*args parameter is intended to run from within Python.*",
)


@contextmanager
def quiet() -> Iterator[None]:
    """Lightning without its talk; what it may warn of and does not matter here is left out."""
    talkers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [talker.level for talker in talkers]
    for talker in talkers:
        talker.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in EXPECTED_WARNINGS:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for talker, level in zip(talkers, levels, strict=True):
            talker.setLevel(level)


@contextmanager
def interruptible() -> Iterator[None]:
    """An interrupt is a KeyboardInterrupt again, where Lightning makes it an exit; what is finished stays.

    So is a SIGTERM, of which Lightning makes an exit as of a run that is done.

    Raises:
        InputError: The trainer refuses how it is configured.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SIGTERMException as stop:
        raise Terminated from stop
    except SystemExit as stop:
        if stop.code != 1:  # that of an interrupt
            raise
        signal.signal(signal.SIGINT, before)
        raise KeyboardInterrupt from stop
    except MisconfigurationException as error:
        raise InputError(_refusal(error)) from error
    except RuntimeError as error:
        if not str(error).startswith("Early stopping conditioned on metric"):
            raise
        raise InputError(_refusal(error)) from error


@contextmanager
def buildable() -> Iterator[None]:
    """What the trainer's constructor says against its options is one line.

    Raises:
        InputError: The options do not go together, or not with this machine.
    """
    try:
        yield
    except GeosegError:
        raise
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise InputError(_refusal(error)) from error


def _refusal(error: Exception) -> str:
    return f"the trainer refuses: {' '.join(str(error).split())[:300]}"
