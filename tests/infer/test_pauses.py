"""The interpreter is left as it was, and nothing that became garbage stays."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections.abc import Iterator

import pytest

from geoseg.infer.pauses import SWITCH_S, few_pauses


class Circle:
    """Garbage that counting references does not find."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def _interval() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.003)
    yield
    sys.setswitchinterval(before)


def test_the_last_to_leave_sets_it_back() -> None:
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with few_pauses():
            entered.set()
            leave.wait(20)

    with few_pauses():
        assert sys.getswitchinterval() == pytest.approx(SWITCH_S, abs=2e-6)
        assert gc.get_freeze_count() > 0
        thread = threading.Thread(target=other)
        thread.start()
        assert entered.wait(20)
    assert sys.getswitchinterval() == pytest.approx(SWITCH_S, abs=2e-6)  # the other is still inside
    leave.set()
    thread.join()
    assert sys.getswitchinterval() == pytest.approx(0.003)
    assert gc.get_freeze_count() == 0


def test_an_interval_that_is_shorter_stays() -> None:
    sys.setswitchinterval(SWITCH_S / 4)
    with few_pauses():
        assert sys.getswitchinterval() == pytest.approx(SWITCH_S / 4, abs=2e-6)


def test_garbage_of_inside_is_let_go_when_work_fails_too() -> None:
    kept: list[weakref.ref[Circle]] = []

    def fail() -> None:
        with few_pauses():
            kept.append(weakref.ref(Circle()))
            raise ValueError("inside")

    gc.disable()
    try:
        with pytest.raises(ValueError, match="inside"):
            fail()
        assert kept[0]() is None
    finally:
        gc.enable()
    assert gc.get_freeze_count() == 0
