"""The eight flips and turns of a square, for test-time augmentation; of any array whose last axes are row and col."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

Turn = tuple[bool, bool, bool]
"""Whether the rows are flipped, whether the columns are, and whether the two are swapped after that."""

TURNS: Mapping[str, tuple[Turn, ...]] = {
    "none": ((False, False, False),),
    "flips": tuple((rows, cols, False) for rows, cols in product((False, True), repeat=2)),
    "all": tuple((rows, cols, swap) for rows, cols, swap in product((False, True), repeat=3)),
}


def turned(planes: Any, turn: Turn, *, back: bool = False) -> Any:
    """A tensor `(..., row, col)` flipped and turned, or with `back` what was turned as it was before."""
    flips = [axis for axis, flip in zip((-2, -1), turn[:2], strict=True) if flip]
    if back and turn[2]:
        planes = planes.transpose(-2, -1)
    if flips:
        planes = planes.flip(flips)
    return planes.transpose(-2, -1) if turn[2] and not back else planes
