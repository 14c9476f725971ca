"""Weights of classes from their labelled pixels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import InputError

EFFECTIVE_BETA = 0.9999


def class_weights(counts: NDArray[np.int64], *, how: str, cap: float = 5.0) -> NDArray[np.float64]:
    """Weight of each class from its labelled pixels, `(class,)`; their mean over all labelled pixels is 1.

    Args:
        counts: Labelled training pixels of each class.
        how: A name in WEIGHTINGS: `none`; `inverse` and `sqrt_inverse` of a class's share; `effective` number of
            samples (Cui et al. 2019, eq. 4, beta 0.9999).
        cap: No class weighs more than this times the most common one.

    Raises:
        InputError: The name is unknown.

    >>> class_weights(np.array([900, 100]), how="inverse", cap=20).round(3).tolist()
    [0.556, 5.0]
    """
    if how not in WEIGHTINGS:
        raise InputError(f"class_weights '{how}' is unknown; known are {', '.join(WEIGHTINGS)}")
    present = counts > 0
    raw = np.where(present, WEIGHTINGS[how](np.maximum(counts, 1).astype(float)), 0.0)
    common = raw[int(np.argmax(counts))]
    capped = np.minimum(raw / common, cap)
    mean = (capped * counts).sum() / max(int(counts.sum()), 1)
    return np.asarray(np.where(present, capped / mean, 1.0))


WEIGHTINGS: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "none": np.ones_like,
    "inverse": lambda counts: 1 / counts,
    "sqrt_inverse": lambda counts: 1 / np.sqrt(counts),
    "effective": lambda counts: (1 - EFFECTIVE_BETA) / (1 - EFFECTIVE_BETA**counts),
}
