"""What a worker needs to make blocks of a scene, and what a finished block is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from geoseg.infer.canvas import Arrays, Scores
from geoseg.infer.layers import Layer, chosen_layers
from geoseg.infer.reading import Unread
from geoseg.io.stamps import paths_in, unsigned
from geoseg.tiling import Block, Tiling, Window

if TYPE_CHECKING:
    from geoseg.io.protocol import Source
    from geoseg.io.regions import Area
    from geoseg.legend import Legend


class Predictor(Protocol):
    """Tiles in, class scores out, on some device. It can be pickled, and is at home wherever it is unpickled.

    Attributes:
        batch_tiles: How many tiles it takes at once.
    """

    batch_tiles: int

    @property
    def classes(self) -> int:
        """How many classes it gives."""

    @property
    def precision(self) -> str:
        """Its arithmetic: `fp32`, `bf16` or `fp16`."""

    @property
    def model_bytes(self) -> int:
        """Memory that the network itself takes on the host."""

    @property
    def arrays(self) -> Arrays:
        """The library of arrays that `scores` returns."""

    @property
    def readers(self) -> int:
        """Threads that read for it side by side; one where it works on the same cores."""

    @property
    def lanes(self) -> int:
        """Threads that may call `scores` side by side; with one, only the caller's own."""

    def fit_batch(self, *, model_shape: tuple[int, int], tiles: int, memory_bytes: int, search: bool = True) -> int:
        """Choose `batch_tiles` by a short trial; returns the bytes of memory that a batch takes on the host.

        Args:
            model_shape: Rows and columns at which the network sees a tile.
            tiles: How many tiles lie ahead.
            memory_bytes: Memory of the host that a batch may take.
            search: Whether to look for a batch, or only measure the one there is.
        """

    def check(
        self, tiles: Sequence[NDArray[Any]], valid: Sequence[NDArray[np.bool_]], *,
        counted: Sequence[NDArray[np.bool_]], model_shape: tuple[int, int],
    ) -> None:  # fmt: skip
        """Look at some tiles of the scene before a job begins: is the arithmetic good enough?

        Args:
            tiles: As for `scores`; none where there is too little to look at.
            valid: As for `scores`.
            counted: `(row, col)` each, True where a pixel gets a class.
            model_shape: As for `scores`.
        """

    def scores(
        self, tiles: Sequence[NDArray[Any]], valid: Sequence[NDArray[np.bool_]], *, model_shape: tuple[int, int]
    ) -> Scores:
        """Class scores of tiles of one size.

        Args:
            tiles: `(band, row, col)` each, as read, any real dtype.
            valid: `(row, col)` each, True where a pixel is usable.
            model_shape: Rows and columns at which the network sees a tile.
        """


@dataclass(frozen=True)
class Member:
    """One of several scenes on a common grid, and the window of the grid outside which it has no pixel."""

    source: Source
    window: Window

    @property
    def name(self) -> str:
        """The files that it is read from."""
        return ", ".join(map(unsigned, paths_in(self.source))) or "a scene in memory"


@dataclass(frozen=True)
class SceneTask:
    """All that a worker needs to make any block of a scene; it can be pickled.

    Attributes:
        source: The scene; its bands are the model's, in the model's order.
        predictor: The network.
        legend: The classes, one a channel.
        tiling: The lattice of tiles.
        model_shape: Rows and columns at which the network sees a tile.
        blend: A name in `BLENDS`.
        layers: What is made of each pixel.
        members: Scenes that are predicted each on its own, on the grid of `source`; none where `source` is predicted.
        rule: How their predictions become one, a name in `EACH_SCENE`.
        area: Where a map is wanted; None is everywhere.
        on_error: A word of `ON_ERROR`.
    """

    source: Source
    predictor: Predictor
    legend: Legend
    tiling: Tiling
    model_shape: tuple[int, int]
    blend: str
    layers: tuple[Layer, ...] = field(default_factory=lambda: chosen_layers(()))
    members: tuple[Member, ...] = ()
    rule: str = "mean"
    area: Area | None = None
    on_error: str = "stop"

    @property
    def scenes(self) -> tuple[Member, ...]:
        """What is read."""
        return self.members or (Member(self.source, self.tiling.scene),)

    @property
    def reach(self) -> Window:
        """The pixels that may matter to the map: a tile more on each side than the area."""
        scene = self.tiling.scene
        if self.area is None:
            return scene
        wanted, (rows, cols) = self.area.window(self.source.geobox), self.tiling.tile_shape
        return Window(
            wanted.row_off - rows, wanted.col_off - cols, wanted.rows + 2 * rows, wanted.cols + 2 * cols
        ).intersect(scene)


@dataclass(frozen=True, slots=True)
class FinishedBlock:
    """A block's layers by name, `(band, row, col)` each, and the pixels of it that could not be read."""

    block: Block
    layers: Mapping[str, NDArray[Any]]
    unread: tuple[Unread, ...] = ()
