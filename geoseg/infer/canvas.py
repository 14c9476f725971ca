"""The canvas: the running sum of weighted class probabilities, and what is read off it, in memory or on a device.

Tiles are added in lattice order, row by row; rows that no later tile reaches are finished and rolled out. Every
operation rounds once (no fused multiply-add), so the sum has the same bits wherever and however it is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from geoseg.infer import kernels

NO_NUMBER = 254
"""A percentage that says: the network gave NaN here."""

RULES: Mapping[str, str] = {
    "first": "the first valid scene wins",
    "newest": "the newest valid scene wins",
    "confidence": "the scene whose class is most probable wins",
    "mean": "the mean of the scenes' probabilities",
}
"""What a pixel takes that lies in several scenes. The first two choose pixels, the others blend predictions."""

EACH_SCENE = ("confidence", "mean")
"""The rules for which each scene is predicted on its own."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What a network gives for a batch of tiles.

    Attributes:
        values: float32, `(tile, row, col, class)` in memory, `(tile, class, row, col)` on a device.
        logits: Whether they are logits, of which the softmax is still to be taken, instead of probabilities.
    """

    values: Any
    logits: bool


class Arrays(Protocol):
    """A library of arrays, in memory or on a device, as far as blending needs it.

    Sums are its own arrays, of a layout that only it knows.
    """

    def zeros(self, classes: int, rows: int, cols: int) -> Any:
        """Sums of nothing yet."""

    def to_device(self, array: NDArray[Any]) -> Any:
        """Weights as its own array."""

    def add(self, sums: Any, tile: Any, weights: tuple[Any, Any], *, col_off: int, logits: bool) -> None:
        """Add one tile of `Scores.values`, times weights along its rows and columns, to the sums from row 0 on.

        Its first column lies at `col_off`, and what lies outside is left out.
        """

    def roll(self, sums: Any, rows: int) -> None:
        """Let the first `rows` of the sums go and make as many empty ones below."""

    def top(self, sums: Any, rows: int) -> Any:
        """The first `rows` of the sums: their scores."""

    def combine(self, scores: Sequence[Any], valid: Sequence[NDArray[np.bool_]], *, rule: str) -> Any:
        """One out of several scenes' scores, by a rule in `EACH_SCENE`; `valid` says where a scene has any."""

    def measure(self, scores: Any, layers: Sequence[str]) -> dict[str, NDArray[Any]]:
        """The layers of that name on the host, `(band, row, col)`; layers of classes hold channels.

        Percentages are 0 to 100, or `NO_NUMBER` where a score is NaN; the lowest channel wins a tie. `level` is the
        confidence in steps of 1/255.
        """


def channel_dtype(classes: int) -> type[np.uint8 | np.uint16]:
    """The smallest dtype of a channel's number."""
    return np.uint8 if classes <= 256 else np.uint16


F0, F1, F255 = np.float32(0), np.float32(1), np.float32(255)


class HostArrays:
    """Arrays in memory: sums are float32 `(row, col, class)`."""

    def zeros(self, classes: int, rows: int, cols: int) -> NDArray[np.float32]:
        """Sums of nothing yet."""
        return np.zeros((rows, cols, classes), np.float32)

    def to_device(self, array: NDArray[Any]) -> NDArray[Any]:
        """The array itself."""
        return array

    def add(
        self, sums: NDArray[np.float32], tile: NDArray[np.float32], weights: tuple[Any, Any], *, col_off: int,
        logits: bool,
    ) -> None:  # fmt: skip
        """Add a tile `(row, col, class)`."""
        left, right = max(col_off, 0), min(col_off + tile.shape[1], sums.shape[1])
        if left < right:
            part = slice(left - col_off, right - col_off)
            kernels.add_tile(
                sums[: tile.shape[0], left:right], tile[:, part], (weights[0], weights[1][part]), logits=logits
            )

    def roll(self, sums: NDArray[np.float32], rows: int) -> None:
        """Move the rows up."""
        keep = sums.shape[0] - rows
        sums[:keep] = sums[rows:]  # numpy copies first where the two overlap
        sums[keep:] = 0

    def top(self, sums: NDArray[np.float32], rows: int) -> NDArray[np.float32]:
        """The first rows."""
        return sums[:rows]

    def combine(
        self, scores: Sequence[NDArray[np.float32]], valid: Sequence[NDArray[np.bool_]], *, rule: str
    ) -> NDArray[np.float32]:
        """One out of several."""
        usable = [where[..., None] for where in valid]
        out = np.zeros_like(scores[0])
        if rule == "mean":
            for part, where in zip(scores, usable, strict=True):
                out += np.where(where, part, F0)
            return np.asarray(out / np.maximum(np.sum(usable, axis=0, dtype=np.float32), F1))
        most = np.full(out.shape[:2], -1, np.float32)
        for part, where in zip(scores, valid, strict=True):
            high = np.where(where, part.max(axis=2), np.float32(-1))
            better = (high > most) | np.isnan(high)
            out[better], most = part[better], np.where(better, high, most)
        return out

    def measure(self, scores: NDArray[np.float32], layers: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Layers of scores `(row, col, class)`."""
        shape, classes = scores.shape[:2], scores.shape[2]
        channel, high = np.empty(shape, channel_dtype(classes)), np.empty(shape, np.float32)
        kernels.in_rows(shape[0], lambda part: kernels.best(scores[part], channel[part], high[part]))
        found = {"class": channel, "confidence": as_percent(high)}
        if {"second", "margin"} & set(layers):
            other, low = np.empty_like(channel), np.empty_like(high)
            kernels.in_rows(
                shape[0], lambda part: kernels.runner_up(scores[part], channel[part], other[part], low[part])
            )
            found |= {"second": other, "margin": as_percent(high - low)}
        if "entropy" in layers:
            found["entropy"] = as_percent(_entropy(scores))
        if "probabilities" in layers:
            found["probabilities"] = as_percent(np.moveaxis(scores, 2, 0))
        if "level" in layers:
            found["level"] = np.rint(np.nan_to_num(high) * F255).clip(0, 255).astype(np.uint8)
        return {name: found[name].reshape(-1, *shape) for name in layers}


def _entropy(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    out = np.empty(scores.shape[:2], np.float32)
    kernels.in_rows(len(out), lambda part: kernels.entropy(scores[part], out[part]))
    return out


def as_percent(shares: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Shares of 0 to 1 as whole percent, `NO_NUMBER` for NaN."""
    out = np.empty(shares.shape, np.uint8)
    kernels.percent(np.ascontiguousarray(shares).reshape(-1), out.reshape(-1), np.uint8(NO_NUMBER))
    return out


HOST = HostArrays()
