"""A queue that gives the least first, in two arrays: the keys, and the items that they belong to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geoseg.jit import jit


@jit
def push(keys: NDArray[np.float64], queue: NDArray[np.int32], waiting: int, weight: float, vertex: int) -> int:
    """Adds to the heap; of equal weights the lower vertex comes first. Returns how many wait."""
    at = waiting
    while at > 0:
        parent = (at - 1) >> 1
        if keys[parent] < weight or (keys[parent] == weight and queue[parent] <= vertex):
            break
        keys[at], queue[at] = keys[parent], queue[parent]
        at = parent
    keys[at], queue[at] = weight, vertex
    return waiting + 1


@jit
def pop(keys: NDArray[np.float64], queue: NDArray[np.int32], waiting: int) -> int:
    """Takes the first off the heap. Returns how many wait."""
    last = waiting - 1
    weight, vertex = keys[last], queue[last]
    at, child = 0, 1
    while child < last:
        right = child + 1
        if right < last and (keys[right] < keys[child] or (keys[right] == keys[child] and queue[right] < queue[child])):
            child = right
        if weight < keys[child] or (weight == keys[child] and vertex <= queue[child]):
            break
        keys[at], queue[at] = keys[child], queue[child]
        at, child = child, 2 * child + 1
    keys[at], queue[at] = weight, vertex
    return last
