"""Sets of regions that were joined: `parent[k]` is a lower member of the same set, or `k` itself, the set's lowest.

Tarjan, Efficiency of a good but not linear set union algorithm, J. ACM 22 (1975), with halved paths.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geoseg.jit import jit


@jit
def find_root(parent: NDArray[np.int32], member: int) -> int:
    """The lowest member of a member's set; the way to it gets shorter."""
    while parent[member] != member:
        parent[member] = parent[parent[member]]
        member = parent[member]
    return int(np.int64(member))


@jit
def unite_pairs(parent: NDArray[np.int32], first: NDArray[np.int32], second: NDArray[np.int32]) -> None:
    """Joins the sets of each pair."""
    for pair in range(first.shape[0]):
        one, other = find_root(parent, first[pair]), find_root(parent, second[pair])
        parent[max(one, other)] = min(one, other)


def number_sets(parent: NDArray[np.int32]) -> NDArray[np.int32]:
    """Number of each member's set, from 0 in the order of the lowest members, int32 `(member,)`.

    >>> number_sets(np.array([0, 1, 1, 3, 2], np.int32)).tolist()
    [0, 1, 1, 2, 1]
    """
    number = np.empty_like(parent)
    _number(parent, number)
    return number


@jit
def _number(parent: NDArray[np.int32], number: NDArray[np.int32]) -> None:
    count = 0
    for member in range(parent.shape[0]):
        if parent[member] == member:
            number[member] = count
            count += 1
        else:  # a parent is lower than its child, so it has its number already
            number[member] = number[parent[member]]
