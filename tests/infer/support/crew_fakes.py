"""A scene and a network whose output can be worked out, in a module that worker processes can import.

The network notes in a folder what becomes of it, so that a test sees into other processes.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geoseg.errors import ReadError
from geoseg.infer.canvas import HOST, HostArrays, Scores
from geoseg.infer.layers import LAYERS
from geoseg.infer.parts import EncodedBlock, JobFolder, Plan
from geoseg.infer.scale import lattice_for
from geoseg.infer.task import SceneTask
from geoseg.legend import Legend
from geoseg.raster import Raster

logger = logging.getLogger("geoseg.fakes")

LEGEND = Legend.from_dict({3: "water", 7: "forest", 12: "field"})


@dataclass(frozen=True)
class PositionSource:
    """A scene whose two bands are each pixel's row and column; every seventh diagonal is invalid.

    Attributes:
        geobox: Where it lies.
        path: A file that must be there.
    """

    geobox: GeoBox
    path: str = ""
    bands: tuple[str, ...] = ("row", "col")

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype("int32")

    def read(self, geobox: GeoBox) -> Raster:
        if self.path and not Path(self.path).exists():
            raise ReadError(f"{self.path} cannot be read")
        own, asked = self.geobox.affine, geobox.affine
        offsets = round((asked.f - own.f) / own.e), round((asked.c - own.c) / own.a)
        pixels = np.indices(geobox.shape, dtype=np.int32) + np.array(offsets, np.int32)[:, None, None]
        return Raster(pixels, pixels.sum(axis=0) % 7 != 0, geobox, self.bands)


@dataclass
class PositionNetwork:
    """Probabilities that hang on a pixel's row and column, and on where in the tile it lies.

    Attributes:
        diary: A folder: one file a process that loaded it, and what it made.
        trouble: What happens at a tile that begins at `row` or below: `kill` ends the process, once in all; `always`
            each time; `stop` raises `error`; `odd`
            raises what cannot be unpickled; `warn` logs a warning.
        row: Where.
        error: What is raised.
        pause_s: Seconds that a batch takes longer.
    """

    diary: str
    trouble: str = ""
    row: int = 0
    error: Exception | None = None
    pause_s: float = 0.0
    batch_tiles: int = 2
    classes: int = 3
    readers: int = 1
    lanes: int = 1
    model_bytes: int = 0

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        with (Path(self.diary) / f"{os.getpid()}.loads").open("a") as file:
            file.write(f"{os.environ.get('OMP_NUM_THREADS')} {os.environ.get('CUDA_VISIBLE_DEVICES')}\n")

    @property
    def arrays(self) -> HostArrays:
        return HOST

    def fit_batch(self, **trial: Any) -> int:  # noqa: ARG002 (nothing is tried)
        return 0

    def scores(
        self, tiles: Sequence[NDArray[Any]], valid: Sequence[NDArray[np.bool_]], *, model_shape: tuple[int, int]
    ) -> Scores:
        assert valid[0].shape == model_shape
        top = int(min(tile[0].max() for tile in tiles)) - model_shape[0] + 1
        with (Path(self.diary) / f"{os.getpid()}.tiles").open("a") as file:
            file.write(f"{top}\n")
        if self.trouble and top >= self.row:
            self._suffer()
        time.sleep(self.pause_s)
        return Scores(np.stack([probabilities(tile) for tile in tiles]), logits=False)

    def _suffer(self) -> None:
        if self.trouble == "stop" and self.error is not None:
            raise self.error
        if self.trouble == "odd":
            raise OddError("one", "two")
        if self.trouble == "warn":
            logger.warning("seen by %s", "a worker")
            return
        mark = Path(self.diary) / "killed"
        if self.trouble == "always" or not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def probabilities(tile: NDArray[Any]) -> NDArray[np.float32]:
    """Probabilities `(row, col, class)` of a tile `(band, row, col)`."""
    rows, cols = np.indices(tile.shape[1:])
    row, col = tile.astype(np.float64)
    waves = [np.sin(0.37 * k * row + 1.7 * k) + np.cos(0.11 * k * col) + 0.01 * k * (rows - cols) for k in range(3)]
    scores = np.exp(np.stack(waves, axis=-1))
    return (scores / scores.sum(axis=-1, keepdims=True)).astype(np.float32)


def task_of(
    diary: Path, *, shape: tuple[int, int] = (700, 300), tile: int = 64, path: str = "", **network: Any
) -> SceneTask:
    """A task with every layer there is."""
    diary.mkdir(parents=True, exist_ok=True)
    geobox = GeoBox(shape, Affine(10.0, 0, 500_000.0, 0, -10.0, 5_000_000.0), "EPSG:32633")
    lattice = lattice_for(shape, tile_px=tile, overlap_px=16, scale=(1.0, 1.0))
    return SceneTask(
        PositionSource(geobox, path), PositionNetwork(str(diary), **network), LEGEND, lattice.tiling,
        lattice.model_shape, "hann", tuple(LAYERS.values()),
    )  # fmt: skip


@dataclass(frozen=True)
class Keeper:
    """Keeps blocks in a folder and notes which; or raises `error`."""

    folder: JobFolder
    error: Exception | None = None

    def __call__(self, encoded: EncodedBlock) -> None:
        if self.error is not None:
            raise self.error
        self.folder.keep(encoded)
        with (self.folder.path / "kept").open("a") as file:
            file.write(f"{encoded.block.index}\n")

    @property
    def kept(self) -> list[int]:
        return sorted(map(int, (self.folder.path / "kept").read_text().split()))


class OddError(Exception):
    """An exception that cannot be unpickled."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first + second)


def keeper_in(path: Path, **options: Any) -> Keeper:
    """A keeper with a new folder."""
    path.mkdir(parents=True, exist_ok=True)
    return Keeper(JobFolder(path, Plan((1, 1)), tuple(LAYERS), "2026-01-01T00:00:00Z"), **options)


def parts_in(keeper: Keeper) -> dict[str, bytes]:
    """The content of all parts by name."""
    return {path.name: path.read_bytes() for path in keeper.folder.path.glob("*.tif")}


def processes_in(diary: Path) -> list[int]:
    """The processes that loaded the network."""
    return sorted(int(path.stem) for path in diary.glob("*.loads"))
