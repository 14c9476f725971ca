"""Batches in their order, whoever cuts them; errors as they were raised; nothing is cut for nobody."""

import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.data.loader import AHEAD, PatchLoader
from geoseg.errors import ReadError


class Numbered:
    """Batches that are their windows; it remembers what was asked for, and by how many threads."""

    def __init__(self, broken: int = -1) -> None:
        self.broken, self.asked, self.threads = broken, [], set()

    def __getitem__(self, windows):
        self.asked.append(int(windows[0, 0]))
        self.threads.add(threading.get_ident())
        if windows[0, 0] == self.broken:
            raise ReadError("scene.tif cannot be read")
        return {"window": torch.from_numpy(windows)}


def windows(count: int) -> list:
    return [np.full((2, 3), number) for number in range(count)]


@settings(max_examples=20, deadline=None)
@given(count=st.integers(0, 40), workers=st.integers(0, 4))
def test_batches_come_in_their_order(count, workers):
    loader = PatchLoader(Numbered(), windows(count), workers=workers)
    assert len(loader) == count
    for _ in range(2):
        assert [int(batch["window"][0, 0]) for batch in loader] == list(range(count))


def test_threads_do_the_work_and_only_a_little_ahead():
    dataset = Numbered()
    batches = iter(PatchLoader(dataset, windows(100), workers=3))
    for _ in range(5):
        next(batches)
    batches.close()
    assert threading.get_ident() not in dataset.threads
    assert len(dataset.asked) <= 5 + AHEAD * 3


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_is_the_one_that_was_raised(workers):
    loader = PatchLoader(Numbered(broken=3), windows(10), workers=workers)
    with pytest.raises(ReadError, match=r"scene\.tif"):
        list(loader)
