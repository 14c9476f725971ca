"""What is held is measured, and memory that is kept changes nothing but speed."""

from __future__ import annotations

import subprocess
import sys
import threading
from textwrap import dedent
from typing import ClassVar

import numpy as np
import pytest

from geoseg.infer import memory
from geoseg.infer.memory import (
    KEEPING,
    RETURNING,
    USUAL,
    memory_kept,
    memory_returned,
    peak_bytes_of,
    resident_bytes,
)

SIZE = 200 * 2**20


def test_the_peak_of_a_piece_of_work_is_seen_after_it_is_gone() -> None:
    assert not complaint("""
        found = peak_bytes_of(lambda: np.ones(200 * MB, np.uint8).sum())
        assert 160 * MB < found < 300 * MB, found
        assert 0 < resident_bytes() <= largest_resident_bytes()
    """)


def test_an_error_in_the_work_comes_out_and_the_watcher_ends() -> None:
    with pytest.raises(ZeroDivisionError):
        peak_bytes_of(lambda: 1 / 0)
    assert not [thread for thread in threading.enumerate() if thread.name == "geoseg-memory"]


def test_kept_memory_is_given_back_at_the_end_of_the_outermost() -> None:
    before = resident_bytes()
    with memory_kept():
        with memory_kept():
            np.ones(SIZE, np.uint8)
        assert memory._options() is KEEPING
        np.testing.assert_array_equal(np.arange(1000).sum(), 499_500)
    assert memory._options() is USUAL
    assert resident_bytes() - before < SIZE / 2


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_glibc", lambda: None)
    with memory_kept(), memory_returned():
        assert memory._options() is USUAL
        assert not +memory._inside


def complaint(code: str) -> str:
    """What a process of its own complains of, in which no other memory lies about that would be given back too."""
    command = [sys.executable, "-c", COMMON + dedent(code)]
    run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    return run.stderr if run.returncode else ""


COMMON = """
import threading
import numpy as np
from geoseg.infer.memory import *
MB = 2**20
"""


def test_returned_memory_leaves_no_holes_where_it_was_freed() -> None:
    assert not complaint("""
        def freed_between_kept():
            before = resident_bytes()
            arrays = [np.ones(MB, np.uint8) for _ in range(200)]
            held = arrays[1::2]
            del arrays
            return resident_bytes() - before - sum(array.nbytes for array in held)

        with memory_returned():
            assert freed_between_kept() < 20 * MB
        with memory_kept():
            assert freed_between_kept() > 50 * MB
    """)


def test_the_free_end_of_a_threads_heap_is_given_back_by_the_thread_alone() -> None:
    assert not complaint("""
        size, held = 30 * MB, []

        def look():
            held.append(resident_bytes())

        def work():
            before = resident_bytes()
            np.ones(size, np.uint8)
            for step in (look, give_back, look, give_back_own, look):
                step()
            held[:] = [now - before for now in held]

        with memory_kept():
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        assert held[0] > 0.8 * size, held
        assert held[1] > 0.8 * size, held
        assert held[2] < 0.2 * size, held
    """)


def test_keeping_has_precedence_while_both_go_on_whichever_ends_first(monkeypatch: pytest.MonkeyPatch) -> None:
    class Recorder:
        options: ClassVar[dict[int, int]] = dict(USUAL)
        trims = 0

        def mallopt(self, option: int, value: int) -> None:
            self.options[option] = value

        def malloc_trim(self, pad: int) -> None:
            assert pad == 0
            self.trims += 1

    libc = Recorder()
    monkeypatch.setattr(memory, "_glibc", lambda: libc)
    with memory_returned():
        assert libc.options == RETURNING
        with memory_kept():
            assert libc.options == KEEPING
        assert (libc.options, libc.trims) == (RETURNING, 1)
    assert (libc.options, libc.trims) == (USUAL, 1)
    returned, kept = memory_returned(), memory_kept()
    with kept:
        returned.__enter__()
        assert libc.options == KEEPING
    assert libc.options == RETURNING
    returned.__exit__(None, None, None)
    assert libc.options == USUAL


def test_options_are_reset_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), memory_returned():
        1 / 0  # noqa: B018
    assert memory._options() is USUAL
