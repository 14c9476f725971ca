"""Which block a worker makes next: work is balanced, and a worker that goes on downwards repeats no row of tiles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from geoseg.tiling import Block


class Backlog:
    """Blocks that no worker has begun.

    A worker goes down its strip as long as it can. One that has nothing below it begins a strip that nobody is in, or
    takes the lower half of the longest stretch that another one has before it. Only such a beginning costs a row of
    tiles, which that worker predicts again.
    """

    def __init__(self, blocks: Iterable[Block]) -> None:
        self._blocks = {block.index: block for block in blocks}

    def __bool__(self) -> bool:
        return bool(self._blocks)

    def give_back(self, blocks: Iterable[Block]) -> None:
        """Take blocks in that were begun and not finished."""
        self._blocks |= {block.index: block for block in blocks}

    def take(self, after: Block | None, *, others: Sequence[Block] = ()) -> Block | None:
        """The next block of a worker; None where there is none.

        Args:
            after: The block that it took last.
            others: Those that the other workers took last.
        """
        runs = stretches(self._blocks[index] for index in sorted(self._blocks))
        if not runs:
            return None
        ahead = [run for run in runs if after is not None and follows(after, run[0])]
        free = [run for run in runs if not any(follows(block, run[0]) for block in others)]
        if ahead or free:
            chosen = max(ahead or free, key=len)[0]
        else:
            longest = max(runs, key=len)
            chosen = longest[len(longest) // 2]
        return self._blocks.pop(chosen.index)


def follows(upper: Block, lower: Block) -> bool:
    """Whether `lower` lies right below `upper` in its strip, so that it can take its unfinished rows over."""
    return upper.strip == lower.strip and upper.window.row_stop == lower.window.row_off


def stretches(blocks: Iterable[Block]) -> list[list[Block]]:
    """The blocks, in the order of their index, cut where one does not lie right below the one before."""
    ordered = list(blocks)
    runs = [[block] for block in ordered[:1]]
    for upper, lower in pairwise(ordered):
        if follows(upper, lower):
            runs[-1].append(lower)
        else:
            runs.append([lower])
    return runs
