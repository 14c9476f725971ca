"""Sources whose pixels say where they lie; reads are told to a file, and may be slow or fail."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox

from geoseg.errors import ReadError
from geoseg.legend import Legend
from geoseg.raster import Raster

LEGEND = Legend.from_dict({1: "water", 5: "forest", 9: "road"})


def grid_of(rows: int, cols: int) -> GeoBox:
    return GeoBox((rows, cols), Affine(10, 0, 500_000, 0, -10, 5_200_000), "EPSG:32633")


@dataclass(frozen=True)
class MadeUp:
    """Bands of `row * 3 + col * 7 + band * 1000`, or class ids where there is the one band `label`.

    What is read is a line in the file that GEOSEG_TEST_READS names; a read takes GEOSEG_TEST_READ_S seconds and fails
    where it meets the pixels `broken`, row, column and side, or where the file GEOSEG_TEST_BROKEN is there.
    """

    geobox: GeoBox
    bands: tuple[str, ...] = ("b1", "b2")
    broken: tuple[int, int, int] | None = None
    options: str = ""

    @property
    def dtype(self):
        return np.dtype(np.uint8 if self.bands == ("label",) else np.uint16)

    def read(self, geobox: GeoBox) -> Raster:
        off = ~self.geobox.affine @ geobox.affine
        top, left, (rows, cols) = round(off.f), round(off.c), geobox.shape
        self._tell(top, left, rows, cols)
        if self._is_broken(top, left, rows, cols):
            raise ReadError("made_up.tif cannot be read: no such luck")
        row, col = np.arange(top, top + rows)[:, None], np.arange(left, left + cols)[None]
        valid = (row >= 0) & (row < self.geobox.shape[0]) & (col >= 0) & (col < self.geobox.shape[1])
        return Raster(self.values(row, col), valid, geobox, self.bands)

    def values(self, row, col):
        if self.bands == ("label",):
            place = (row // 5 % 3).astype(np.uint8) + (col // 7 % 3).astype(np.uint8)
            return np.array([1, 5, 9, 1, 5], np.uint8)[place][None]
        plane = (row * 3).astype(np.uint16) + (col * 7).astype(np.uint16)  # wraps around, as it may
        return np.stack([plane + np.uint16(band * 1000) for band in range(len(self.bands))])

    def _tell(self, *window: int) -> None:
        if self.bands == ("label",):
            return
        if log := os.environ.get("GEOSEG_TEST_READS"):
            with Path(log).open("a") as file:
                file.write(json.dumps([os.getpid(), *window]) + "\n")
        time.sleep(float(os.environ.get("GEOSEG_TEST_READ_S", "0")))

    def _is_broken(self, top: int, left: int, rows: int, cols: int) -> bool:
        if Path(os.environ.get("GEOSEG_TEST_BROKEN", "/nowhere")).exists():
            return True
        if self.broken is None:
            return False
        row, col, side = self.broken
        return row < top + rows and row + side > top and col < left + cols and col + side > left
