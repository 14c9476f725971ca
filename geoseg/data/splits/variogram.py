"""How far labels are alike: the variogram of their class indicators, and the buffer that follows from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, log

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from geoseg.data.grids import ground_gsd_m
from geoseg.data.scene import BLOCK_PX, SceneArrays, windows_of
from geoseg.data.splits.ground import Balls, pixels_in_space
from geoseg.errors import InputError
from geoseg.tiling import Window

BLOCKS = 256  # at most so many are read
POINTS = 6_000  # whose pairs are compared, 18 million
PARTNERS = 8  # close by, for each point: for short lags, of which a spread of points has few
LAGS = 24
FEWEST_PAIRS = 50
MOST_WEIGHT = 20_000  # pairs beyond these say nothing new, for they share their points
RANGES = 240
ROUNDS = 8
ALIKE = 0.95

Shape = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def spherical(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spherical model of sill 1 at a `share` of its range (Cressie 1993, "Statistics for Spatial Data", section 2.3).

    >>> spherical(np.array([0.0, 0.5, 1.0, 3.0])).tolist()
    [0.0, 0.6875, 1.0, 1.0]
    """
    inside = np.minimum(share, 1.0)
    return 1.5 * inside - 0.5 * inside**3


def exponential(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Exponential model of sill 1 at a `share` of its scale (Cressie 1993, section 2.3)."""
    return 1 - np.exp(-share)


MODELS: dict[str, tuple[Shape, float]] = {
    "spherical": (spherical, 0.811_4),
    "exponential": (exponential, -log(1 - ALIKE)),
}
"""A model, and the share of its range at which it has reached 95 % of its sill."""


@dataclass(frozen=True, slots=True)
class LabelRange:
    """How far labels are alike.

    Attributes:
        range_m: The distance at which the fitted model has reached 95 % of its sill, in metres: beyond it a label says
            next to nothing about another. At most the largest lag.
        sill: Chance that two labels far apart differ.
        nugget: Chance that two labels side by side differ.
        model: The model that fits best, `spherical` or `exponential`.
        lags_m: Mean distance of the pairs of each lag, in metres, `(lag,)`.
        values: Share of these pairs whose labels differ, `(lag,)`.
        pairs: Their number, `(lag,)`.
        bounded: False where the sill is not reached within the data: the labels are alike farther than that.
    """

    range_m: float
    sill: float
    nugget: float
    model: str
    lags_m: tuple[float, ...]
    values: tuple[float, ...]
    pairs: tuple[int, ...]
    bounded: bool

    @property
    def buffer_m(self) -> float:
        """The buffer that makes validation pixels tell nothing about training pixels: the range to two digits, up."""
        step = 10 ** (np.floor(np.log10(max(self.range_m, 1e-9))) - 1)
        return float(np.round(np.ceil(self.range_m / step - 1e-9) * step, 9))

    def __str__(self) -> str:
        reach = f"over {self.range_m:,.0f} m" if self.bounded else f"farther than the {self.range_m:,.0f} m looked at"
        return (
            f"labels are alike {reach} ({self.model} variogram, sill {self.sill:.2f}, nugget {self.nugget:.2f}); "
            f"a buffer_m of {self.buffer_m:,.0f} keeps validation independent of training"
        )


def label_range_m(scenes: Sequence[SceneArrays], *, seed: int = 0, max_lag_m: float | None = None) -> LabelRange:
    """How far labels are alike, from the variogram of their class indicators.

    The semivariance of a class's indicator at lag h is half the mean of (I(x) - I(x + h))^2 (Journel 1983,
    "Nonparametric estimation of spatial distributions"). Summed over all classes it is the chance that two labels h
    apart differ, for a pair that differs does so in two indicators. A bounded number of pixels is compared, from all
    scenes that have a CRS.

    Args:
        scenes: The scenes.
        seed: Which pixels are compared.
        max_lag_m: The largest distance looked at, in metres; half the diagonal of the largest scene by default.

    Raises:
        InputError: There are too few labels, or all are of one class.
    """
    placed = [scene for scene in scenes if scene.geobox.crs is not None]
    if not placed:
        raise InputError(
            "no scene has a CRS, so labels have no distance in metres; give buffer_m, or crs: EPSG:... for the images"
        )
    rng = np.random.default_rng(seed)
    least_m = min(min(ground_gsd_m(scene.geobox)) for scene in placed)
    if max_lag_m is None:
        max_lag_m = float(Balls.around([(s.geobox, Window(0, 0, *s.shape)) for s in placed]).radius_m.max()) / 1.05
    edges = np.geomspace(least_m * 0.99, max(max_lag_m, 3 * least_m), LAGS + 1)
    tally = _Tally(edges)
    _compare(placed, rng, tally)
    return _fitted(*tally.finish(), max_lag_m)


class _Tally:
    """Pairs of labels by lag, and how many of them differ."""

    def __init__(self, edges: NDArray[np.float64]) -> None:
        self._start, self._step = np.log(edges[0]), np.log(edges[1] / edges[0])
        self._pairs, self._differ, self._metres = np.zeros((3, len(edges) - 1))

    def add(self, metres: NDArray[np.float64], differ: NDArray[np.bool_]) -> None:
        with np.errstate(divide="ignore"):
            lag = np.floor((np.log(metres) - self._start) / self._step)
        inside = (lag >= 0) & (lag < len(self._pairs))
        at = lag[inside].astype(np.int64)
        lags = len(self._pairs)
        self._pairs += np.bincount(at, minlength=lags)
        self._differ += np.bincount(at, differ[inside], minlength=lags)
        self._metres += np.bincount(at, metres[inside], minlength=lags)

    def finish(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Mean distance, share that differs and number of pairs, of the lags that have enough pairs."""
        told = self._pairs >= FEWEST_PAIRS
        pairs = self._pairs[told]
        return self._metres[told] / pairs, self._differ[told] / pairs, pairs


def _compare(scenes: Sequence[SceneArrays], rng: np.random.Generator, tally: _Tally) -> None:
    """Compares pixels near each other in blocks drawn at random, and one from each with those of all others."""
    blocks = list(_labelled_blocks(scenes, rng))
    total = sum(int(np.count_nonzero(plane != scene.no_label)) for scene, _, plane in blocks)
    points, labels = [np.zeros((0, 3))], [np.zeros(0, np.int64)]
    for scene, window, plane in blocks:
        row, col = np.nonzero(plane != scene.no_label)
        # As many as the block has labels: else those of small blocks, at the edge, would be compared far too often.
        drawn = rng.choice(len(row), min(len(row), ceil(POINTS * len(row) / total)), replace=False)
        place = _Place(scene, window, plane)
        points.append(place.points(row[drawn], col[drawn]))
        labels.append(plane[row[drawn], col[drawn]].astype(np.int64))
        _compare_near(place, np.repeat(row[drawn], PARTNERS), np.repeat(col[drawn], PARTNERS), rng, tally)
    _compare_all(np.concatenate(points), np.concatenate(labels), tally)


def _labelled_blocks(
    scenes: Sequence[SceneArrays], rng: np.random.Generator
) -> Iterator[tuple[SceneArrays, Window, NDArray[np.integer]]]:
    """Blocks with labels, drawn from all scenes, and their labels."""
    every = [(scene, window) for scene in scenes for window in windows_of(scene.shape, side_px=BLOCK_PX)]
    found = 0
    for k in rng.permutation(len(every)).tolist():
        scene, window = every[k]
        plane = scene.labels[window.slices]
        if (plane != scene.no_label).any():
            yield scene, window, plane
            found += 1
        if found == BLOCKS:
            return


@dataclass(frozen=True, slots=True)
class _Place:
    """A block of labels and where it lies."""

    scene: SceneArrays
    window: Window
    plane: NDArray[np.integer]

    def points(self, row: NDArray[np.int64], col: NDArray[np.int64]) -> NDArray[np.float64]:
        return pixels_in_space(self.scene.geobox, row + self.window.row_off, col + self.window.col_off)


def _compare_near(
    place: _Place, row: NDArray[np.int64], col: NDArray[np.int64], rng: np.random.Generator, tally: _Tally
) -> None:
    """Compares pixels of a block with others of it, at distances from 1 pixel to half a block, the near ones more."""
    away = np.exp(rng.uniform(0, np.log(BLOCK_PX / 2), len(row)))
    turn = rng.uniform(0, 2 * np.pi, len(row))
    to_row = row + np.rint(away * np.sin(turn)).astype(np.int64)
    to_col = col + np.rint(away * np.cos(turn)).astype(np.int64)
    inside = (to_row >= 0) & (to_row < place.window.rows) & (to_col >= 0) & (to_col < place.window.cols)
    row, col, to_row, to_col = (values[inside] for values in (row, col, to_row, to_col))
    told = place.plane[to_row, to_col] != place.scene.no_label
    row, col, to_row, to_col = (values[told] for values in (row, col, to_row, to_col))
    metres = np.linalg.norm(place.points(row, col) - place.points(to_row, to_col), axis=1)
    tally.add(metres, place.plane[row, col] != place.plane[to_row, to_col])


def _compare_all(points: NDArray[np.float64], labels: NDArray[np.int64], tally: _Tally) -> None:
    """Compares every two of the points."""
    step = 512
    for start in range(0, len(points), step):
        mine = slice(start, start + step)
        metres = cdist(points[mine], points[start:])
        later = np.arange(len(points) - start) > np.arange(len(metres))[:, None]
        tally.add(metres[later], (labels[mine, None] != labels[None, start:])[later])


def _fitted(
    lags: NDArray[np.float64], values: NDArray[np.float64], pairs: NDArray[np.float64], max_lag_m: float
) -> LabelRange:
    """The model that fits best by weighted least squares.

    Each lag weighs its pairs over the squared semivariance of the model (Cressie 1985, "Fitting variogram models by
    weighted least squares", eq. 8).
    """
    if len(lags) < 4:
        raise InputError("too few labels to say how far they are alike; give buffer_m in metres")
    if not values.any():
        raise InputError(
            "the labels looked at are all of one class, so they are alike everywhere; give buffer_m in metres"
        )
    scales = np.geomspace(lags[0] / 2, 4 * lags[-1], RANGES)
    weight = np.minimum(pairs, MOST_WEIGHT)
    best = min((_fit(name, scales, lags, values, weight) for name in MODELS), key=lambda fit: fit[0])
    _, name, scale, nugget, partial = best
    reach = scale * MODELS[name][1]
    longest = float(min(max_lag_m, lags[-1]))
    rounded = [tuple(map(float, series)) for series in (lags, values)]
    return LabelRange(
        min(reach, longest),
        nugget + partial,
        nugget,
        name,
        rounded[0],
        rounded[1],
        tuple(map(int, pairs)),
        reach <= longest,
    )


def _fit(
    name: str,
    scales: NDArray[np.float64],
    lags: NDArray[np.float64],
    values: NDArray[np.float64],
    pairs: NDArray[np.float64],
) -> tuple[float, str, float, float, float]:
    """How badly a model fits at its best, its name, scale, nugget and partial sill."""
    shape = MODELS[name][0](lags / scales[:, None])
    floor = 1e-3 * values.max()
    model = np.broadcast_to(np.maximum(values, floor), shape.shape)
    for _ in range(ROUNDS):
        nugget, partial = _line(shape, values, pairs / model**2)
        model = np.maximum(nugget[:, None] + partial[:, None] * shape, floor)
    missed = (pairs * (values / model - 1) ** 2).sum(1)
    k = int(missed.argmin())
    return float(missed[k]), name, float(scales[k]), float(nugget[k]), float(partial[k])


def _line(
    shape: NDArray[np.float64], values: NDArray[np.float64], weight: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weighted least squares of `values` as `a + b * shape` with `a` and `b` not below 0, for each row of `shape`."""
    mean = weight.sum(1)
    x, y = (weight * shape).sum(1) / mean, (weight * values).sum(1) / mean
    spread = (weight * (shape - x[:, None]) ** 2).sum(1)
    slope = np.maximum((weight * (shape - x[:, None]) * (values - y[:, None])).sum(1) / np.maximum(spread, 1e-300), 0)
    start = y - slope * x
    through = (weight * shape * values).sum(1) / np.maximum((weight * shape**2).sum(1), 1e-300)
    return np.maximum(start, 0), np.where(start < 0, through, slope)
