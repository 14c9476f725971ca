"""A scene whose pixels say where they lie, and predictors whose output can be worked out by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geoseg.infer.canvas import HOST, Arrays, HostArrays, Scores
from geoseg.legend import Legend
from geoseg.raster import Raster

GRID = "EPSG:32633"


@dataclass(frozen=True)
class ArraySource:
    """A scene in memory: pixels `(band, row, col)`."""

    pixels: NDArray[Any] = field(repr=False)
    valid: NDArray[np.bool_] = field(repr=False)
    geobox: GeoBox
    bands: tuple[str, ...]
    path: str = "memory.tif"
    reads: list[tuple[int, int]] = field(default_factory=list, compare=False, repr=False)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.pixels.dtype

    def read(self, geobox: GeoBox) -> Raster:
        own, asked = self.geobox.affine, geobox.affine
        row, col = round((asked.f - own.f) / own.e), round((asked.c - own.c) / own.a)
        part = slice(row, row + geobox.shape[0]), slice(col, col + geobox.shape[1])
        self.reads.append((geobox.shape[0], geobox.shape[1]))
        return Raster(self.pixels[:, part[0], part[1]].copy(), self.valid[part].copy(), geobox, self.bands)


@dataclass
class NumpyPredictor:
    """Probabilities by a function of `(pixels, valid)` of one tile."""

    function: Callable[[NDArray[Any], NDArray[np.bool_]], NDArray[np.float32]]
    classes: int = 3
    batch_tiles: int = 1
    tiles: int = 0
    arrays: Arrays = HOST
    readers: int = 1
    lanes: int = 1
    model_bytes: int = 0
    precision: str = "fp32"

    def fit_batch(self, **_: Any) -> int:
        return 0

    def check(self, *_: Any, **__: Any) -> None:
        """There is no choice."""

    def scores(
        self, tiles: Sequence[NDArray[Any]], valid: Sequence[NDArray[np.bool_]], *, model_shape: tuple[int, int]
    ) -> Scores:
        assert all(tile.shape[1:] == model_shape for tile in tiles)
        assert len(tiles) <= self.batch_tiles
        self.tiles += len(tiles)
        found = np.stack([self.function(*tile) for tile in zip(tiles, valid, strict=True)])
        # In memory classes come last, on a device first.
        ordered = np.moveaxis(found, 1, 3) if isinstance(self.arrays, HostArrays) else found
        return Scores([self.arrays.to_device(np.ascontiguousarray(tile)) for tile in ordered], logits=False)


def of_position(pixels: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Probabilities that hang on a pixel's row and column, and on where in the tile it lies."""
    rows, cols = np.indices(valid.shape)
    row, col = pixels[0].astype(np.float64), pixels[1].astype(np.float64)
    waves = [np.sin(0.37 * k * row + 1.7 * k) + np.cos(0.11 * k * col) + 0.01 * k * (rows - cols) for k in range(3)]
    scores = np.exp(np.stack(waves))
    return (scores / scores.sum(axis=0)).astype(np.float32)


@pytest.fixture
def scene() -> Callable[..., ArraySource]:
    """Makes a scene whose two bands are each pixel's row and column."""

    def make(rows: int, cols: int, *, valid: NDArray[np.bool_] | None = None, dtype: str = "int32") -> ArraySource:
        pixels = np.indices((rows, cols)).astype(dtype)
        usable = np.ones((rows, cols), np.bool_) if valid is None else valid
        geobox = GeoBox((rows, cols), Affine(10.0, 0, 500_000.0, 0, -10.0, 5_000_000.0), GRID)
        return ArraySource(pixels, usable, geobox, ("row", "col"))

    return make


@pytest.fixture
def positions() -> Callable[..., NumpyPredictor]:
    """Makes a predictor whose output says where a pixel lies in the scene and in the tile."""
    return lambda **options: NumpyPredictor(of_position, **options)


@pytest.fixture
def legend() -> Legend:
    return Legend.from_dict({3: "water", 7: "forest", 12: "field"})
