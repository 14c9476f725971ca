"""A decoded scene: what its image, labels and split say of each pixel of its training grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geoseg.tiling import Window

IGNORE_INDEX = -100  # what torch's losses skip
OUTSIDE, TRAINING, VALIDATION, TEST = 0, 1, 2, 3  # values of SceneArrays.part
PARTS = {"training": TRAINING, "validation": VALIDATION, "test": TEST}
BLOCK_PX = 256  # side of a block of a stored layer; windows that keep to it touch no block twice


class Layer(Protocol):
    """Values of every pixel of a scene, `(row, col)` or `(band, row, col)`: an array, or blocks of it in a file.

    It is sliced by one slice of step 1 an axis, no axis left out, and gives an array; so it is written, too.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Its axes."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the values."""

    def __getitem__(self, key: tuple[slice, ...], /) -> NDArray[Any]:
        """The values there; what is done to them may or may not change the layer."""

    def __setitem__(self, key: tuple[slice, ...], values: Any, /) -> None:
        """Writes the values there."""


@dataclass(frozen=True, slots=True, eq=False)
class SceneArrays:
    """One decoded scene on its training grid.

    Attributes:
        name: For messages.
        pixels: `(band, row, col)`, the source's dtype; 0 in a band that the image lacks.
        valid: Boolean `(row, col)`, True where every band that there is is usable and the pixel lies in the region.
        labels: `(row, col)`, channel index of each pixel's class; `no_label` where there is none or `valid` is False.
        part: uint8 `(row, col)`: TRAINING, VALIDATION, TEST or OUTSIDE (the buffer between them, and what is not
            usable).
        geobox: The training grid, cut to the region.
        bands: Band names.
        no_label: The value in `labels` that means "no class".
        image_grid: The image's own grid, in whose pixels `{rows, cols}` regions count.
        absent: Positions in `bands` of those that the image lacks.
        weight: How often patches are drawn from it, in comparison to its pixels' share.
        soft: Shares of the classes, uint8 `(class, row, col)` that add up to 255 (to within rounding) where `labels`
            has a class, which is then the one of the largest share; None where labels are plain.
        origins: What the image of a scene without a CRS is read from, as `origins_of` names it: scenes that share one
            are of one image. None where that is not known; then the name tells.
    """

    name: str
    pixels: Layer
    valid: Layer
    labels: Layer
    part: Layer
    geobox: GeoBox
    bands: tuple[str, ...]
    no_label: int
    image_grid: GeoBox
    absent: tuple[int, ...] = ()
    weight: float = 1.0
    soft: Layer | None = None
    origins: frozenset[str] = frozenset()

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.valid.shape[0], self.valid.shape[1]


def windows_of(shape: tuple[int, int], *, side_px: int = 4 * BLOCK_PX) -> Iterator[Window]:
    """The plane in windows of at most `side_px` each way, row by row; they keep to the blocks of stored layers."""
    rows, cols = shape
    for top in range(0, rows, side_px):
        for left in range(0, cols, side_px):
            yield Window(top, left, min(side_px, rows - top), min(side_px, cols - left))
