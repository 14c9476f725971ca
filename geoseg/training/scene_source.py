"""A decoded scene as the infer room wants it: a Source, and the area in which its validation part is to be mapped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geoseg.data.scene import VALIDATION, SceneArrays
from geoseg.errors import GridError
from geoseg.io.grids import aligned
from geoseg.io.regions import Area
from geoseg.models.boundary_iou import NOTHING
from geoseg.raster import Raster
from geoseg.tiling import Window


@dataclass(frozen=True, slots=True, eq=False)
class SceneSource:
    """The pixels of a decoded scene on its own grid, read from its layers window by window.

    Attributes:
        scene: The scene; it may have no CRS.
    """

    scene: SceneArrays

    @property
    def geobox(self) -> GeoBox:
        """The training grid."""
        return self.scene.geobox

    @property
    def bands(self) -> tuple[str, ...]:
        """Band names."""
        return self.scene.bands

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the pixels."""
        return self.scene.pixels.dtype

    def read(self, geobox: GeoBox) -> Raster:
        """The pixels on whole pixels of the scene's grid; what lies outside is invalid.

        Raises:
            GridError: The grid is another.
        """
        window = window_on(self.geobox, geobox)
        inside = window.intersect(Window(0, 0, *self.scene.shape))
        pixels = self.scene.pixels[slice(0, len(self.bands)), *inside.slices]
        valid = self.scene.valid[inside.slices]
        if inside != window:
            row, col = inside.row_off - window.row_off, inside.col_off - window.col_off
            around = ((row, window.rows - row - inside.rows), (col, window.cols - col - inside.cols))
            pixels, valid = np.pad(pixels, ((0, 0), *around)), np.pad(valid, around)
        return Raster(pixels, valid, geobox, self.bands)


@dataclass(frozen=True)
class ValidationArea(Area):
    """Where a map is needed: at labelled validation pixels, and at all validation pixels of places to look at.

    Attributes:
        region: A window outside which nothing is needed.
        grid: The scene's grid.
        scene: The scene.
        shown: The places.
    """

    scene: SceneArrays
    shown: tuple[Window, ...] = ()

    def mask(self, geobox: GeoBox) -> NDArray[np.bool_]:
        """Which pixels of a piece of the scene's grid are needed, `(row, col)`.

        Raises:
            GridError: The grid is another.
        """
        window = window_on(self.grid, geobox)
        needed = np.asarray(validation_labels(self.scene, window) != NOTHING)
        for place in self.shown:
            part = place.intersect(window)
            if part.rows and part.cols:
                needed[within(part, window)] |= self.scene.part[part.slices] == VALIDATION
        return needed


def validation_labels(scene: SceneArrays, window: Window) -> NDArray[np.int32]:
    """Classes of the validation pixels of a window, `(row, col)`; NOTHING at all others."""
    mine = scene.part[window.slices] == VALIDATION
    if not mine.any():
        return np.full(mine.shape, NOTHING, np.int32)
    labels = scene.labels[window.slices]
    return np.where(mine & (labels != scene.no_label), labels.astype(np.int32), NOTHING)


def window_on(grid: GeoBox, geobox: GeoBox) -> Window:
    """`geobox` as a window of whole pixels of `grid`.

    Raises:
        GridError: It is none.
    """
    place = aligned(grid, geobox)
    if place is None or place.factors != (1, 1):
        raise GridError("a decoded scene is read on whole pixels of its own grid; the grid asked for is another")
    return Window(place.row, place.col, *geobox.shape)


def within(part: Window, whole: Window) -> tuple[slice, slice]:
    """Where a part of a window lies in it, as an index into `(row, col)`."""
    return Window(part.row_off - whole.row_off, part.col_off - whole.col_off, part.rows, part.cols).slices
