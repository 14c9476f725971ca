"""Are labels shifted against their image: do the borders between classes lie where the image changes.

The image's steps from pixel to pixel are summed along the borders between labels, with the borders moved by whole
pixels each way (cross-correlation, by Fourier transform). Where labels are right, no move finds larger steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from geoseg.data.scene import SceneArrays
from geoseg.data.survey import sample_windows
from geoseg.tiling import Window

Floats = NDArray[np.float64]

SIDE_PX, REACH_PX = 256, 12
MOST_WINDOWS = 48
SMALL_PX = 768
"""Scenes with a shorter side are looked at in windows of half the size."""

FEWEST_EDGES = 100
"""A window with fewer steps between labels says nothing."""

FEWEST_WINDOWS = 6
MOST_SCENES = 256
"""Of more scenes than that, evenly chosen ones are looked at."""

STRONGEST = 4.0
"""Steps count up to so many times the typical one of their band, so that a coast does not drown all else."""

SURE = 4.0
"""A shift is reported where the windows agree on it by that many standard errors."""

GAIN = 1.25
"""And where borders stand out that much more with it than without, over the average of all shifts."""

LEAST_CONTRAST = 0.1
"""And where the image's steps on the borders are larger than elsewhere by that share of a typical step."""

PROMINENT = 5.0
"""And where that shift stands out from all others by so many of their (robust) standard deviations."""


@dataclass(frozen=True, slots=True)
class Shift:
    """By how much labels lie off: they fit best when moved by `rows` down and `cols` to the right.

    `gain` says how much more the borders stand out there than where they are, `sure` by how many standard errors.
    """

    rows: int
    cols: int
    gain: float
    sure: float


def label_shifts(scenes: Sequence[SceneArrays]) -> list[tuple[str, Shift]]:
    """The scenes whose labels do not fit their image, each with the shift that its labels need.

    Looked at are up to 48 windows of 256 x 256 pixels a scene, evenly spread, and moves of up to 12 pixels. Scenes with
    too few windows of their own, such as chips, are judged together; they are named by the first of them.
    """
    found, few = [], []
    step = max(1, len(scenes) // MOST_SCENES)
    for scene in scenes[::step]:
        contrast = [values for window in _windows(scene) if (values := _contrast(*_steps(scene, window))) is not None]
        if len(contrast) >= FEWEST_WINDOWS:
            found.append((scene.name, judge(np.stack(contrast))))
        elif contrast:
            few.append((scene.name, contrast))
    together = [values for _, contrast in few for values in contrast]
    if len(together) >= FEWEST_WINDOWS:
        others = f" and {len(few) - 1} more" if len(few) > 1 else ""
        found.append((few[0][0] + others, judge(np.stack(together))))
    return [(name, shift) for name, shift in found if shift is not None]


def judge(contrast: Floats) -> Shift | None:
    """The shift that contrasts `(window, move down, move right)` agree on, None where they agree on none."""
    mean = contrast.mean(0)
    row, col = (int(at) for at in np.unravel_index(mean.argmax(), mean.shape))
    rows, cols = row - REACH_PX, col - REACH_PX
    best, now, middle = mean[row, col], mean[REACH_PX, REACH_PX], np.median(mean)
    better = contrast[:, row, col] - contrast[:, REACH_PX, REACH_PX]
    sure = float(better.mean() / max(better.std(ddof=1) / np.sqrt(len(better)), 1e-12))
    gain = float(best / max(now, 1e-3))
    spread = 1.4826 * float(np.median(np.abs(mean - middle)))  # of a normal distribution, from its median deviation
    clear = best >= LEAST_CONTRAST and best - middle >= PROMINENT * spread
    inside = max(abs(rows), abs(cols)) < REACH_PX  # at the rim the true shift may lie beyond
    if (rows, cols) == (0, 0) or not inside or not clear or sure < SURE or gain < GAIN:
        return None
    return Shift(rows, cols, gain, sure)


def _windows(scene: SceneArrays) -> Sequence[Window]:
    side = SIDE_PX if min(scene.shape) >= SMALL_PX else SIDE_PX // 2
    found = sample_windows(scene.shape, unit=(side, side), limit_px=MOST_WINDOWS * side**2)
    return [window for window in found if min(window.rows, window.cols) > 2 * REACH_PX]  # a rim has nothing to move


def _steps(scene: SceneArrays, window: Window) -> tuple[Floats, Floats, Floats, Floats]:
    """Steps of the image down and across, and borders between labels down and across, each `(row, col)`."""
    rows, cols = window.slices
    pixels = scene.pixels[slice(0, len(scene.bands)), rows, cols].astype(np.float32)
    valid, labels = scene.valid[rows, cols], scene.labels[rows, cols]
    told = valid & (labels != scene.no_label)
    down = _image_steps(np.abs(np.diff(pixels, axis=1)), valid[1:] & valid[:-1])
    across = _image_steps(np.abs(np.diff(pixels, axis=2)), valid[:, 1:] & valid[:, :-1])
    return (
        down, across,
        ((labels[1:] != labels[:-1]) & told[1:] & told[:-1]).astype(np.float64),
        ((labels[:, 1:] != labels[:, :-1]) & told[:, 1:] & told[:, :-1]).astype(np.float64),
    )  # fmt: skip


def _image_steps(steps: NDArray[np.float32], known: NDArray[np.bool_]) -> Floats:
    """The mean over the bands of their steps, each in units of its band's typical one; their mean where unknown."""
    if not known.any():
        return np.zeros(known.shape)
    typical = np.array([np.median(band[known]) for band in steps])
    scaled = np.minimum(steps / np.maximum(typical, 1e-6)[:, None, None], STRONGEST)
    mean = scaled[typical > 0].mean(0) if (typical > 0).any() else scaled.mean(0)
    return np.asarray(np.where(known, mean, mean[known].mean()), np.float64)


def _contrast(down: Floats, across: Floats, edges_down: Floats, edges_across: Floats) -> Floats | None:
    """How much stronger the image's steps are on the borders than anywhere, for each move `(down, right)`.

    None where there are too few borders.
    """
    total = np.zeros((2 * REACH_PX + 1, 2 * REACH_PX + 1))
    count = 0.0
    for steps, edges in ((down, edges_down), (across, edges_across)):
        inner = np.zeros_like(edges)
        core = slice(REACH_PX, -REACH_PX)
        inner[core, core] = edges[core, core]
        count += float(inner.sum())
        total += _correlated(steps - steps.mean(), inner)
    return None if count < FEWEST_EDGES else total / count


def _correlated(steps: Floats, edges: Floats) -> Floats:
    """Sums of `steps` on `edges` moved by each whole number of pixels up to the reach."""
    shape = [fft.next_fast_len(size + REACH_PX, real=True) for size in steps.shape]
    product = fft.rfft2(steps, shape) * np.conj(fft.rfft2(edges, shape))
    whole = fft.irfft2(product, shape)
    moves = np.arange(-REACH_PX, REACH_PX + 1)
    return np.asarray(whole[np.ix_(moves, moves)])
