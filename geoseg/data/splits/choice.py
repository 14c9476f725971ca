"""Which units validate, test or make up a fold, so that every class has its share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geoseg.data.splits.options import LARGEST_SHARE

MOST_TRIES = 16
TRIED_UNITS = 20_000  # units tried over all tries


def choose_units(counts: NDArray[np.int64], *, share: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Units whose sums come near to `share` of every class.

    Units are tried in random order, and one is taken where that brings the shares nearer to the goal (squared distance,
    every class alike); of several such draws the nearest is kept. No class loses more than half of its pixels: one that
    lies in a single unit stays in training.

    Args:
        counts: Labelled pixels, `(unit, class)`.
        share: The share wanted.
        rng: The draw.

    Returns:
        Positions of the chosen units, sorted; at least one where any can be taken.
    """
    shares = _shares(counts)
    units = np.flatnonzero(shares.any(1))
    tries = int(np.clip(TRIED_UNITS // max(1, len(units)), 1, MOST_TRIES))
    draws = [_draw(shares, rng.permutation(units), share) for _ in range(tries)]
    _, chosen = min(draws, key=lambda draw: draw[0])
    if not chosen:  # every unit overshoots: the one that does so least, if half of each class still stays
        fitting = [unit for unit in rng.permutation(units) if shares[unit].max() <= LARGEST_SHARE]
        chosen = sorted(fitting, key=lambda unit: float(shares[unit].max()))[:1]
    return np.array(sorted(chosen), np.int64)


def _shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Each unit's share of each class that there is."""
    total = counts.sum(0)
    return np.asarray(counts[:, total > 0] / total[total > 0])


def _draw(shares: NDArray[np.float64], order: NDArray[np.int64], share: float) -> tuple[float, list[int]]:
    """How far from the goal one draw ends, and its units."""
    taken = np.zeros(shares.shape[1])
    missed = float(np.square(taken - share).sum())
    chosen: list[int] = []
    for unit in order.tolist():
        after = taken + shares[unit]
        now = float(np.square(after - share).sum())
        if now < missed and after.max(initial=0) <= LARGEST_SHARE:
            taken, missed = after, now
            chosen.append(unit)
    return missed, chosen


def deal_folds(counts: NDArray[np.int64], *, folds: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """The fold of each unit, `(unit,)`, so that every fold has about the same share of every class.

    Units are dealt from the largest to the smallest, each to the fold that it leaves nearest to an equal share (squared
    distance, every class alike), after Sechidis, Tsoumakas and Vlahavas (2011), "On the stratification of multi-label
    data", with units in place of examples.

    Args:
        counts: Labelled pixels, `(unit, class)`.
        folds: How many.
        rng: Settles the order of equal units.
    """
    shares = _shares(counts)
    held = np.zeros((folds, shares.shape[1]))
    fold = np.zeros(len(counts), np.int64)
    order = rng.permutation(len(counts))
    for unit in order[np.argsort(-shares[order].max(1, initial=0), kind="stable")].tolist():
        # The squared distance to equal shares grows by s * (2 * held + s), up to what is the same for every fold.
        cost = (shares[unit] * (2 * held + shares[unit])).sum(1)
        # Of equal ones the fold that holds least: where classes lie apart, no fold stays empty.
        fold[unit] = int(np.lexsort((held.sum(1), np.round(cost, 12)))[0])
        held[fold[unit]] += shares[unit]
    return fold
