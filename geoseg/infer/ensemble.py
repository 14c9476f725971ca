"""Several networks as one: the mean of their probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.infer.canvas import Arrays, Scores
from geoseg.infer.task import Predictor


@dataclass
class Ensemble:
    """Networks of the same classes on one device, each with its own bands of the scene.

    Attributes:
        members: The networks.
        picks: For each the positions of its bands among those of the tiles.
        batch_tiles: Tiles at once.
    """

    members: tuple[Predictor, ...]
    picks: tuple[tuple[int, ...], ...]
    batch_tiles: int = 1

    @property
    def classes(self) -> int:
        """Those of all members."""
        return self.members[0].classes

    @property
    def model_bytes(self) -> int:
        """Those of all members together."""
        return sum(member.model_bytes for member in self.members)

    @property
    def precision(self) -> str:
        """That of each member."""
        return " ".join(member.precision for member in self.members)

    @property
    def arrays(self) -> Arrays:
        """Those of all members."""
        return self.members[0].arrays

    @property
    def readers(self) -> int:
        """Those of all members."""
        return self.members[0].readers

    @property
    def lanes(self) -> int:
        """As many as each member serves."""
        return min(member.lanes for member in self.members)

    def fit_batch(self, *, model_shape: tuple[int, int], tiles: int, memory_bytes: int, search: bool = True) -> int:
        """Let the members find their batches, and take the smallest; returns the bytes that a batch takes."""
        if not search:
            for member in self.members:
                member.batch_tiles = self.batch_tiles
        spent = [
            member.fit_batch(model_shape=model_shape, tiles=tiles, memory_bytes=memory_bytes, search=search)
            for member in self.members
        ]
        self.batch_tiles = min(member.batch_tiles for member in self.members)
        for member in self.members:
            member.batch_tiles = self.batch_tiles
        return max(spent) + self.batch_tiles * model_shape[0] * model_shape[1] * self.classes * 4

    def check(
        self, tiles: Sequence[NDArray[Any]], valid: Sequence[NDArray[np.bool_]], *,
        counted: Sequence[NDArray[np.bool_]], model_shape: tuple[int, int],
    ) -> None:  # fmt: skip
        """Let each member look at its bands."""
        for member, pick in zip(self.members, self.picks, strict=True):
            member.check([tile[list(pick)] for tile in tiles], valid, counted=counted, model_shape=model_shape)

    def scores(
        self, tiles: Sequence[NDArray[Any]], valid: Sequence[NDArray[np.bool_]], *, model_shape: tuple[int, int]
    ) -> Scores:
        """The mean of the members' probabilities, as `Predictor.scores`."""
        rows, cols = valid[0].shape
        share = np.full(rows, 1 / len(self.members), np.float32)
        weights = self.arrays.to_device(share), self.arrays.to_device(np.ones(cols, np.float32))
        totals = [self.arrays.zeros(self.classes, rows, cols) for _ in tiles]
        for member, pick in zip(self.members, self.picks, strict=True):
            found = member.scores([tile[list(pick)] for tile in tiles], valid, model_shape=model_shape)
            for total, tile in zip(totals, found.values, strict=True):
                self.arrays.add(total, tile, weights, col_off=0, logits=found.logits)
        # A member that ran out of memory halved its batch.
        self.batch_tiles = min(self.batch_tiles, *(member.batch_tiles for member in self.members))
        return Scores(totals, logits=False)
