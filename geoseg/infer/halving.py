"""Batches that a device's memory does not hold: they are halved, said, and gone on with."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.infer.canvas import Scores

logger = logging.getLogger(__name__)


class Halving(Protocol):
    """A predictor whose batch may be halved."""

    batch_tiles: int
    device: Any

    def scores(
        self, tiles: Sequence[NDArray[Any]], valid: Sequence[NDArray[np.bool_]], *, model_shape: tuple[int, int]
    ) -> Scores:
        """As `Predictor.scores`."""


def in_halves(
    predictor: Halving,
    tiles: Sequence[NDArray[Any]],
    valid: Sequence[NDArray[np.bool_]],
    *,
    model_shape: tuple[int, int],
    join: Callable[[list[Any]], Any],
    advice: str,
    why: BaseException,
) -> Scores:
    """The scores of a batch that memory did not hold at once, made of two halves; `batch_tiles` is halved for good.

    Args:
        predictor: Whose batch it was.
        tiles: As for `Predictor.scores`.
        valid: As for `Predictor.scores`.
        model_shape: As for `Predictor.scores`.
        join: Puts the values of parts together.
        advice: What would work where a single tile does not fit.
        why: The error that said so.

    Raises:
        InputError: It is a single tile.
    """
    half = len(tiles) // 2
    if not half:
        rows, cols = model_shape
        raise InputError(
            f"{predictor.device} has too little memory for one tile of {rows} x {cols} pixels; {advice}"
        ) from why
    predictor.batch_tiles = max(1, min(predictor.batch_tiles, len(tiles)) // 2)
    logger.warning("%s is out of memory; going on with %d tiles at once", predictor.device, predictor.batch_tiles)
    parts = [
        predictor.scores(tiles[part], valid[part], model_shape=model_shape) for part in (slice(half), slice(half, None))
    ]
    return Scores(join([part.values for part in parts]), parts[0].logits)
