"""Threads that read ahead and write behind keep the order, the bounds and the exceptions."""

from __future__ import annotations

import threading

import pytest

from geoseg.infer.feed import WriteBehind, read_ahead


def test_items_come_in_order_with_what_was_loaded() -> None:
    assert list(read_ahead(range(20), lambda item: item * item, ahead=3, threads=3)) == [(i, i * i) for i in range(20)]


def test_nothing_is_loaded_far_ahead() -> None:
    loaded: list[int] = []
    items = read_ahead(range(100), loaded.append, ahead=2)
    next(items)
    items.close()
    assert len(loaded) <= 3


def test_loading_goes_on_while_the_caller_works() -> None:
    second = threading.Event()

    def load(item: int) -> int:
        if item == 1:
            second.set()
        return item

    items = read_ahead(range(3), load)
    next(items)
    assert second.wait(timeout=60)
    items.close()


def test_an_exception_comes_out_at_its_item_and_ends_the_threads() -> None:
    def load(item: int) -> int:
        if item == 2:
            raise OSError("broken at 2")
        return item

    seen: list[int] = []

    def consume() -> None:
        for item, _ in read_ahead(range(5), load):
            seen.append(item)

    with pytest.raises(OSError, match="broken at 2"):
        consume()
    assert seen == [0, 1]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("geoseg-read")]


def test_jobs_are_done_in_order_and_all_are_done_at_the_end() -> None:
    done: list[int] = []
    with WriteBehind[None](behind=2) as writer:
        for number in range(10):
            writer.submit(done.append, number)
    assert done == list(range(10))


def test_results_are_handed_back_once() -> None:
    with WriteBehind[int]() as writer:
        found = [result for number in range(5) for result in writer.submit(lambda number=number: number)]
        found += writer.drain()
        assert writer.drain() == []
    assert found == [0, 1, 2, 3, 4]


def test_few_jobs_wait() -> None:
    gate, started = threading.Event(), []

    def job(number: int) -> None:
        started.append(number)
        gate.wait(timeout=60)

    with WriteBehind[None](behind=2) as writer:
        writer.submit(job, 0)
        writer.submit(job, 1)
        opener = threading.Timer(0.05, gate.set)
        opener.start()
        writer.submit(job, 2)  # waits until the first is done
        assert gate.is_set()
        opener.join()


def test_an_exception_of_a_job_comes_out() -> None:
    def fail() -> None:
        raise OSError("disk full")

    def work() -> None:
        with WriteBehind[None]() as writer:
            writer.submit(fail)
            writer.drain()

    with pytest.raises(OSError, match="disk full"):
        work()


def test_what_was_submitted_is_finished_when_the_caller_fails() -> None:
    done: list[int] = []

    def work() -> None:
        with WriteBehind[None](behind=9) as writer:
            for number in range(5):
                writer.submit(done.append, number)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == [0, 1, 2, 3, 4]
