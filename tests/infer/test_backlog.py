"""Blocks are handed out once each, and few rows of tiles are predicted twice for it."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from geoseg.infer.backlog import Backlog, follows, stretches
from geoseg.tiling import Block, Tiling


def blocks_of(rows: int, strips: int) -> list[Block]:
    tiling = Tiling.over((rows * 32, strips * 32), largest_tile_px=32, overlap_px=0)
    return tiling.blocks(cells=(1, 1))


@given(
    rows=st.integers(1, 30), strips=st.integers(1, 5), workers=st.integers(1, 6), data=st.data(),
    missing=st.sets(st.integers(0, 149)),
)  # fmt: skip
def test_each_block_is_taken_once_whoever_asks(
    rows: int, strips: int, workers: int, data: st.DataObject, missing: set[int]
) -> None:
    blocks = [block for block in blocks_of(rows, strips) if block.index not in missing]
    backlog, last = Backlog(blocks), dict.fromkeys(range(workers))
    taken = []
    while backlog:
        who = data.draw(st.integers(0, workers - 1))
        others = [block for number, block in last.items() if number != who and block is not None]
        block = backlog.take(last[who], others=others)
        assert block is not None
        below = [item for item in blocks if last[who] and follows(last[who], item) and item not in taken]
        assert not below or block == below[0]
        taken.append(block)
        last[who] = block
    assert sorted(taken, key=lambda block: block.index) == blocks
    assert backlog.take(None) is None


@given(rows=st.integers(1, 60), strips=st.integers(1, 5), workers=st.integers(1, 6))
def test_equal_workers_begin_anew_seldom(rows: int, strips: int, workers: int) -> None:
    backlog, last, begun = Backlog(blocks_of(rows, strips)), dict.fromkeys(range(workers)), 0
    while backlog:
        for who in range(workers):
            others = [block for number, block in last.items() if number != who and block is not None]
            block = backlog.take(last[who], others=others)
            if block is not None:
                begun += last[who] is None or not follows(last[who], block)
                last[who] = block
    assert begun <= strips + workers * (1 + math.log2(rows))


def test_what_is_given_back_is_taken_again() -> None:
    blocks = blocks_of(6, 1)
    backlog = Backlog(blocks)
    first = backlog.take(None)
    second = backlog.take(first)
    assert [first, second] == blocks[:2]
    assert backlog.take(None, others=[second]) == blocks[4]
    backlog.give_back([first, second])
    assert backlog.take(None) == first


def test_stretches_end_at_gaps_and_at_strips() -> None:
    blocks = blocks_of(4, 2)
    runs = stretches(block for block in blocks if block.index != 1)
    assert [[block.index for block in run] for run in runs] == [[0], [2, 3], [4, 5, 6, 7]]
