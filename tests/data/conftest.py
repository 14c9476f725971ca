"""Scenes in memory that obey the Source protocol, and decoded ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geoseg.data.scene import TRAINING, SceneArrays
from geoseg.legend import Legend
from geoseg.raster import Raster


@dataclass(frozen=True)
class MemorySource:
    """Pixels in memory, read nearest neighbour onto grids of the same CRS."""

    geobox: GeoBox
    pixels: NDArray[Any]
    valid: NDArray[np.bool_]
    bands: tuple[str, ...]

    @property
    def dtype(self):
        return self.pixels.dtype

    def read(self, geobox: GeoBox) -> Raster:
        to_own = ~self.geobox.affine @ geobox.affine
        rows, cols = geobox.shape
        row = np.floor(to_own.e * (np.arange(rows) + 0.5) + to_own.f).astype(int)
        col = np.floor(to_own.a * (np.arange(cols) + 0.5) + to_own.c).astype(int)
        inside = np.logical_and.outer(
            (row >= 0) & (row < self.geobox.shape[0]), (col >= 0) & (col < self.geobox.shape[1])
        )
        at = np.ix_(row.clip(0, self.geobox.shape[0] - 1), col.clip(0, self.geobox.shape[1] - 1))
        return Raster(self.pixels[:, *at], self.valid[at] & inside, geobox, self.bands)


def utm(rows: int, cols: int, *, gsd_m: float = 10.0, west: float = 500_000.0, north: float = 5_200_000.0) -> GeoBox:
    return GeoBox((rows, cols), Affine(gsd_m, 0, west, 0, -gsd_m, north), "EPSG:32633")


@pytest.fixture(scope="session")
def grid():
    return utm


@pytest.fixture(scope="session")
def memory_source():
    """A function that makes a source of pixels; by default valid everywhere, bands b1, b2, ..."""

    def make(pixels, *, geobox=None, valid=None, bands=None) -> MemorySource:
        geobox = geobox or utm(*pixels.shape[1:])
        valid = np.ones(pixels.shape[1:], bool) if valid is None else valid
        return MemorySource(geobox, pixels, valid, bands or tuple(f"b{k + 1}" for k in range(len(pixels))))

    return make


@pytest.fixture(scope="session")
def decoded():
    """A function that makes a decoded scene from a plane of labels (255 = none): its pixels tell their position."""

    def make(labels, *, geobox=None, valid=None, bands: int = 2, name: str = "scene") -> SceneArrays:
        rows, cols = labels.shape
        valid = np.ones((rows, cols), bool) if valid is None else valid
        row, col = np.indices((rows, cols))
        pixels = np.stack([row, col, *(row * cols + col for _ in range(bands - 2))][:bands]).astype(np.int32)
        told = np.where(valid, labels, 255).astype(np.uint8)
        part = np.where(valid, TRAINING, 0).astype(np.uint8)
        geobox = geobox or utm(rows, cols)
        return SceneArrays(
            name, pixels, valid, told, part, geobox, tuple(f"b{k + 1}" for k in range(bands)), 255, geobox)  # fmt: skip

    return make


@pytest.fixture(scope="session")
def legend():
    return Legend.from_dict({1: "water", 5: "forest", 9: "road"})


@pytest.fixture(scope="session")
def shifted():
    """A function that moves a grid by whole pixels `(row, col)`."""

    def move(geobox: GeoBox, row: int, col: int, shape: tuple[int, int]) -> GeoBox:
        return GeoBox(shape, geobox.affine @ Affine.translation(col, row), geobox.crs)

    return move
