"""Progress on long work: a bar on a terminal, silence elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

RANKS = ("SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "JSM_NAMESPACE_RANK", "NODE_RANK", "LOCAL_RANK")
"""Variables by which srun, mpirun, jsrun and Lightning number processes, from 0 on."""


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A function `(done, total)` that moves a bar named `title` on standard error; it does nothing off a terminal.

    Of several processes that train together the first shows it.
    """
    if not sys.stderr.isatty() or not is_first_process():
        yield _silent
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TextColumn("left"), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def is_first_process() -> bool:
    """Whether this is the first of the processes that train together, or the only one; their launchers say it so."""
    if "RANK" in os.environ:  # of torchrun, which may count otherwise than what started it
        return os.environ["RANK"] == "0"
    return all(os.environ.get(name, "0") == "0" for name in RANKS)


def _silent(done: int, total: int) -> None:
    """Takes the progress and shows nothing."""
