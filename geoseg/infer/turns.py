"""The eight flips and turns of a square, for test-time augmentation; of any array whose last axes are row and col."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np

Turn = tuple[bool, bool, bool]
"""Whether the rows are flipped, whether the columns are, and whether the two are swapped after that."""

TURNS: Mapping[str, tuple[Turn, ...]] = {
    "none": ((False, False, False),),
    "flips": tuple((rows, cols, False) for rows, cols in product((False, True), repeat=2)),
    "all": tuple((rows, cols, swap) for rows, cols, swap in product((False, True), repeat=3)),
}


def turned(planes: Any, turn: Turn, *, back: bool = False) -> Any:
    """Planes `(..., row, col)` of numpy or torch flipped and turned, or with `back` as they were before that."""
    flips = tuple(axis for axis, flip in zip((-2, -1), turn[:2], strict=True) if flip)
    flip = np.flip if isinstance(planes, np.ndarray) else type(planes).flip
    if back and turn[2]:
        planes = planes.swapaxes(-2, -1)
    if flips:
        planes = flip(planes, flips)
    return planes.swapaxes(-2, -1) if turn[2] and not back else planes
