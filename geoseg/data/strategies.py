"""Ways to draw training patches, as a table of functions, and what they need to know."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.data.label_index import ANY, LabelIndex, draw, summed
from geoseg.data.scene import SceneArrays
from geoseg.data.windows import Windows, place_windows
from geoseg.errors import InputError

FLOOR = 0.01  # of the mean loss: a place once mastered is still looked at


class HardExamples:
    """The last loss seen in each cell of an index.

    Losses noted during an epoch count from the next one on, so that an epoch's patches do not change while it runs.

    Args:
        index: Whose cells.
        patch_px: Side of a patch.
    """

    def __init__(self, index: LabelIndex, *, patch_px: int) -> None:
        self.index, self.patch_px = index, patch_px
        self.settled = np.full(len(index.cells), np.nan, np.float32)
        self.noted = self.settled.copy()

    def note(self, windows: Windows, losses: NDArray[np.floating[Any]]) -> None:
        """Keeps the loss of each patch for the cells that its middle (half a side each way) touches.

        A cell that several of the patches touch gets their mean. A loss that is no finite number, such as that of a
        patch without labels, says nothing.

        Args:
            windows: `(n, 3)`.
            losses: `(n,)`.

        Raises:
            InputError: There are not as many losses as windows.
        """
        if windows.shape != (len(losses), 3) or losses.ndim != 1:
            raise InputError(
                f"windows of shape {windows.shape} and losses of shape {losses.shape}: needed are (n, 3), (n,)"
            )
        told = np.isfinite(losses)
        touched = [self._middle(*window) for window in windows[told].tolist()]
        cells = np.concatenate([np.zeros(0, np.int64), *touched])
        values = np.repeat(losses[told].astype(np.float64), [len(own) for own in touched])
        order = np.lexsort((values, cells))  # sums are then the same for any order of the patches
        own, count = np.unique(cells, return_counts=True)
        sums = np.bincount(cells[order], values[order], len(self.noted))[own]
        self.noted[own] = np.maximum(sums / count, 0.0)

    def _middle(self, scene: int, row: int, col: int) -> NDArray[np.int64]:
        edge = self.patch_px // 4
        rows, cols = ((start + edge, start + self.patch_px - edge) for start in (row, col))
        return self.index.within(scene, rows, cols)

    def settle(self) -> None:
        """Makes what was noted count: a new epoch begins."""
        told = ~np.isnan(self.noted)
        self.settled[told] = self.noted[told]
        self.noted[:] = np.nan

    @property
    def factors(self) -> NDArray[np.float64]:
        """How hard each cell is, `(cell,)`: its last loss, the mean of all where none was seen, 1 before any was."""
        seen = self.settled[~np.isnan(self.settled)].astype(np.float64)
        mean = seen.mean() if len(seen) else 0.0
        if mean <= 0:
            return np.ones(len(self.settled))
        return np.maximum(np.where(np.isnan(self.settled), mean, self.settled), FLOOR * mean)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Ground:
    """What patches are drawn from.

    Attributes:
        scenes: Decoded and split.
        index: Their training pixels.
        patch_px: Side of a patch.
        jitter_px: How far a patch's middle may lie from the pixel it was drawn for.
        rates: Share of each class among the balanced patches, `(class,)`.
        lattice: All windows of the grid, `(n, 3)`; empty where it is not used.
        hard: The last losses.
        seed: That of the grid's order.
    """

    scenes: Sequence[SceneArrays]
    index: LabelIndex
    patch_px: int
    jitter_px: int
    rates: NDArray[np.float64]
    lattice: Windows
    hard: HardExamples
    seed: int

    def around(self, cells: NDArray[Any], classes: NDArray[Any], rng: np.random.Generator) -> Windows:
        """Windows laid around a pixel of each class in each cell."""
        pixels = self.index.pixels(self.scenes, cells, classes, rng.random(len(cells)))
        return self.moved(pixels - np.array([0, 1, 1]) * (self.patch_px // 2), self.jitter_px, rng)

    def around_pairs(self, pairs: NDArray[np.int64], rng: np.random.Generator) -> Windows:
        """Windows laid around a pixel of each pair of a cell and a class of the index."""
        return self.around(self.index.pair_cells[pairs].astype(np.int64), self.index.class_of(pairs), rng)

    def moved(self, windows: Windows, reach_px: int, rng: np.random.Generator) -> Windows:
        """The windows moved by up to `reach_px` each way, and then inside their scenes."""
        shift = rng.integers(-reach_px, reach_px + 1, (len(windows), 2))
        corners = place_windows(windows[:, 1:] + shift, self.index.shapes[windows[:, 0]], self.patch_px)
        return np.concatenate([windows[:, :1], corners], 1)


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """A strategy's part of an epoch: it gives `count` patches after the `before` that it gave in all earlier epochs."""

    before: int
    count: int
    rng: np.random.Generator


Drawer = Callable[[NDArray[np.int64], NDArray[np.bool_]], Windows]
"""Windows of some of the turn's patches, by their numbers; asked again, it draws these patches anew.

The second argument says which scenes are spent: their only window is in the epoch, so others are drawn where possible.
"""


class Lot:
    """Positions to be drawn by their chances; those of spent scenes only where there is nothing else to draw.

    Args:
        chances: From 0 on, `(n,)`.
        scene: The scene of each.
    """

    def __init__(self, chances: NDArray[np.float64], scene: NDArray[np.int64]) -> None:
        self.chances, self.scene, self.before = chances, scene, summed(chances)

    def draw(
        self, picks: NDArray[np.float64], spent: NDArray[np.bool_], *, first: Any = 0, stop: Any = -1
    ) -> NDArray[np.int64]:
        """As `label_index.draw`."""
        found = draw(self.before, picks, first=first, stop=stop)
        if not spent.any():
            return found
        left = summed(np.where(spent[self.scene], 0.0, self.chances))
        return np.where(left[stop] > left[first], draw(left, picks, first=first, stop=stop), found)


def random(ground: Ground, turn: Turn) -> Drawer:
    """Around any valid training pixel, labelled or not."""
    index = ground.index
    lot = Lot(index.cell_chances, index.scene_of(np.arange(len(index.cells))))

    def drawn(which: NDArray[np.int64], spent: NDArray[np.bool_]) -> Windows:
        cells = lot.draw(turn.rng.random(len(which)), spent)
        return ground.around(cells, np.full(len(which), ANY), turn.rng)

    return drawn


def labelled(ground: Ground, turn: Turn) -> Drawer:
    """Around any labelled training pixel: where labels are sparse, patches lie where they are."""
    return _by_pairs(ground, turn, ground.index.pair_chances)


def hard(ground: Ground, turn: Turn) -> Drawer:
    """Around a labelled training pixel, whose chance is in proportion to the last loss seen there."""
    return _by_pairs(ground, turn, ground.index.pair_chances * ground.hard.factors[ground.index.pair_cells])


def _by_pairs(ground: Ground, turn: Turn, chances: NDArray[np.float64]) -> Drawer:
    lot = Lot(chances, ground.index.scene_of(ground.index.pair_cells))
    return lambda which, spent: ground.around_pairs(lot.draw(turn.rng.random(len(which)), spent), turn.rng)


def balanced(ground: Ground, turn: Turn) -> Drawer:
    """Around a labelled training pixel of a class that is drawn first, each at its rate.

    The classes are a systematic sample: each gets its share of the patches, to within one.
    """
    spread = (np.arange(turn.count) + turn.rng.random()) / max(turn.count, 1)
    classes = turn.rng.permutation(draw(summed(ground.rates), spread))
    index = ground.index
    lot, first = Lot(index.pair_chances, index.scene_of(index.pair_cells)), index.first_pairs

    def drawn(which: NDArray[np.int64], spent: NDArray[np.bool_]) -> Windows:
        wanted = classes[which]
        pairs = lot.draw(turn.rng.random(len(which)), spent, first=first[wanted], stop=first[wanted + 1])
        return ground.around_pairs(pairs, turn.rng)

    return drawn


def grid(ground: Ground, turn: Turn) -> Drawer:
    """Side by side over all training pixels, in random order; each epoch goes on where the last one ended.

    Scenes of equal weight are gone through together, those of twice the weight twice as fast. A window that was given
    in this epoch already is moved by up to a quarter of a patch.
    """
    weights = ground.index.weights[ground.lattice[:, 0]]
    levels, level = np.unique(weights, return_inverse=True)
    speeds = levels * np.bincount(level, minlength=len(levels))
    starts, stops = (apportion(speeds, total).tolist() for total in (turn.before, turn.before + turn.count))
    chosen = [np.zeros(0, np.int64)]
    for k, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        if stop > start:
            members = np.flatnonzero(level == k)
            chosen.append(members[_in_rounds(len(members), start, stop, seed=[ground.seed, 3, k])])
    windows = turn.rng.permutation(ground.lattice[np.concatenate(chosen)])
    given = np.zeros((turn.count, 1), np.int64)

    def drawn(which: NDArray[np.int64], _spent: NDArray[np.bool_]) -> Windows:
        again, own = given[which], windows[which]
        given[which] = 1
        moved = ground.moved(own, max(1, ground.patch_px // 4), turn.rng)
        return np.where(again > 0, moved, own)

    return drawn


def _in_rounds(size: int, start: int, stop: int, *, seed: list[int]) -> NDArray[np.int64]:
    """Places `[start, stop)` of an endless sequence: all of `range(size)` in random order, again and again."""
    rounds = range(start // size, -(-stop // size))
    orders = [np.random.default_rng([*seed, number]).permutation(size) for number in rounds]
    return np.concatenate(orders)[start - rounds.start * size : stop - rounds.start * size]


SAMPLERS: Mapping[str, Callable[[Ground, Turn], Drawer]] = {
    "grid": grid,  # first, since of two equal windows the later one is drawn anew
    "balanced": balanced,
    "hard": hard,
    "labelled": labelled,
    "random": random,
}


def apportion(speeds: NDArray[np.float64], total: int) -> NDArray[np.int64]:
    """How many of the first `total` turns fall to each, `(n,)`, if the k-th turn of one comes at (k + 1/2) / speed.

    Each has its share of the turns to within one or so, and never loses a turn as `total` grows.

    Args:
        speeds: From 0 on, one of them above it.
        total: Turns so far.

    >>> [apportion(np.array([2.0, 1.0]), total).tolist() for total in range(5)]
    [[0, 0], [1, 0], [1, 1], [2, 1], [3, 1]]
    """

    def taken(time: float) -> NDArray[np.int64]:
        return np.floor(time * speeds + 0.5).astype(np.int64)

    low, high = 0.0, float((total + len(speeds)) / speeds.sum())
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if taken(middle).sum() <= total else (low, middle)
    counts = taken(low)
    due = np.flatnonzero(taken(high) > counts)  # all at this moment, one after the other
    counts[due[: total - int(counts.sum())]] += 1
    return counts


def class_rates(
    rates: Mapping[str, float], class_names: Sequence[str], present: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """The share of each class among the balanced patches, `(class,)`, sum 1: 0 for classes that are not there.

    Args:
        rates: Shares by class name; the other classes that are there share the rest evenly.
        class_names: In channel order.
        present: Which of the classes have a training pixel to draw.

    Raises:
        InputError: A name is unknown, the rates add up to more than 1, or no class is left to draw.
    """
    for name in rates:
        if name not in class_names:
            near = get_close_matches(name, class_names, n=3, cutoff=0.5)
            known = f"near it are {', '.join(near)}" if near else f"known are {', '.join(class_names)}"
            raise InputError(f"sampling.rates names the class '{name}', which is unknown; {known}")
    named = np.array([name in rates for name in class_names])
    rest = 1 - sum(rates.values())
    if rest < -1e-9:
        raise InputError(f"sampling.rates add up to {1 - rest:g}: needed is 1 at most")
    evenly = max(rest, 0.0) / max(1, int((present & ~named).sum()))
    shares = present * np.array([rates.get(name, evenly) for name in class_names])
    if not shares.sum():
        raise InputError(
            f"sampling.rates leave no class to draw: one of those with training pixels ({_list(class_names, present)}) "
            "needs a rate above 0"
        )
    return np.asarray(shares / shares.sum())


def _list(names: Sequence[str], chosen: NDArray[np.bool_]) -> str:
    return ", ".join(name for name, so in zip(names, chosen, strict=True) if so) or "none"
