"""What is held is measured, and memory that is kept changes nothing but speed."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from geoseg.infer import memory
from geoseg.infer.memory import largest_resident_bytes, memory_kept, peak_bytes_of, resident_bytes

SIZE = 200 * 2**20


def test_the_peak_of_a_piece_of_work_is_seen_after_it_is_gone() -> None:
    found = peak_bytes_of(lambda: np.ones(SIZE, np.uint8).sum())
    assert 0.8 * SIZE < found < 1.5 * SIZE
    assert 0 < resident_bytes() <= largest_resident_bytes()


def test_an_error_in_the_work_comes_out_and_the_watcher_ends() -> None:
    with pytest.raises(ZeroDivisionError):
        peak_bytes_of(lambda: 1 / 0)
    assert not [thread for thread in threading.enumerate() if thread.name == "geoseg-memory"]


def test_kept_memory_is_given_back_at_the_end_of_the_outermost() -> None:
    before = resident_bytes()
    with memory_kept():
        with memory_kept():
            np.ones(SIZE, np.uint8)
        assert memory._depth == 1
        np.testing.assert_array_equal(np.arange(1000).sum(), 499_500)
    assert memory._depth == 0
    assert resident_bytes() - before < SIZE / 2


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_glibc", lambda: None)
    with memory_kept():
        assert memory._depth == 0
