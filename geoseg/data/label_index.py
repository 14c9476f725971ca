"""Where the training pixels of each class lie: counts in cells of 64 x 64 pixels, and no position.

A pixel is drawn in two steps: a cell by how many of the wanted pixels it holds, then one of these by looking into that
cell. So every pixel has the same chance, and the index of a billion pixels takes some megabytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geoseg.data.scene import BLOCK_PX, TRAINING, SceneArrays, windows_of
from geoseg.errors import InputError
from geoseg.io.grids import crop
from geoseg.jit import jit
from geoseg.tiling import Window

CELL_PX = 64  # a block of a stored layer is whole cells, and so is a window of `windows_of`
ANY = -1  # stands for a class where every usable pixel will do, labelled or not


class Mask(Protocol):
    """A region, such as `geoseg.io.regions.Area`."""

    def mask(self, geobox: GeoBox, /) -> NDArray[np.bool_]:
        """Which pixels of the grid lie inside, `(row, col)`."""


class _Nowhere:
    """The region of a scene in which none of its pixels lies."""

    def mask(self, geobox: GeoBox, /) -> NDArray[np.bool_]:
        """False everywhere, `(row, col)`."""
        return np.zeros(tuple(geobox.shape), np.bool_)


NOWHERE: Mask = _Nowhere()


class _Piece(NamedTuple):
    """What a window adds to an index: cells, then pairs of a cell and a class, then cells that the area cuts."""

    cells: NDArray[np.int64]
    usable: NDArray[np.uint16]
    pair_cells: NDArray[np.int64]
    pair_classes: NDArray[np.int32]
    pair_counts: NDArray[np.uint16]
    cut_cells: NDArray[np.int64]
    cut_bits: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class LabelIndex:
    """Counts of usable pixels (of the training part, and inside the area) in the cells of all scenes.

    Cells are numbered through all scenes, row by row; those without a usable pixel are left out.

    Attributes:
        shapes: Rows and columns of each scene, `(scene, 2)`.
        weights: How much the pixels of each scene count when drawn, `(scene,)`.
        starts: Number of each scene's first cell, and of all cells, `(scene + 1,)`.
        cells: Numbers of the cells that hold usable pixels, ascending, `(cell,)`. Elsewhere cells are named by their
            place in here.
        usable: Usable pixels, labelled or not, `(cell,)`.
        pair_cells: The cell of each pair of a cell and a class that it holds; sorted by class, then by cell, `(pair,)`.
        pair_counts: Usable pixels of that class there, `(pair,)`.
        first_pairs: Where the pairs of each class begin, and where the last one's end, `(class + 1,)`.
        cut_cells: Those of `cells` that the area's border runs through.
        cut_bits: Which of their pixels lie inside, packed, `(n, 512)`.
    """

    shapes: NDArray[np.int64]
    weights: NDArray[np.float64]
    starts: NDArray[np.int64]
    cells: NDArray[np.int64]
    usable: NDArray[np.uint16]
    pair_cells: NDArray[np.int32]
    pair_counts: NDArray[np.uint16]
    first_pairs: NDArray[np.int64]
    cut_cells: NDArray[np.int64]
    cut_bits: NDArray[np.uint8]

    @classmethod
    def of(
        cls, scenes: Sequence[SceneArrays], *, classes: int, area: Mask | Sequence[Mask] | None = None
    ) -> LabelIndex:
        """The index of the scenes' training pixels, in one pass over `labels` and `part`, window by window.

        Args:
            scenes: Decoded and split.
            classes: Number of classes.
            area: Only pixels inside count; one for all scenes, or one for each.

        Raises:
            InputError: A scene's weight is negative or no number.
        """
        for scene in scenes:
            if not 0 <= scene.weight < np.inf:
                raise InputError(f"the weight of {scene.name} is {scene.weight}: needed is a number from 0 on")
        shapes = np.array([scene.shape for scene in scenes], np.int64).reshape(-1, 2)
        starts = np.concatenate([[0], np.cumsum((-(-shapes // CELL_PX)).prod(1))]).astype(np.int64)
        areas = area if isinstance(area, Sequence) else [area] * len(scenes)
        pieces = [_empty_piece()]
        for scene, start, own in zip(scenes, starts[:-1].tolist(), areas, strict=True):
            pieces += _pieces(scene, start, classes, own)
        found = _Piece(*(np.concatenate(parts) for parts in zip(*pieces, strict=True)))
        order = np.argsort(found.cells)
        cells = found.cells[order]
        pairs = np.lexsort((found.pair_cells, found.pair_classes))
        cuts = np.argsort(found.cut_cells)
        return cls(
            shapes=shapes,
            weights=np.array([scene.weight for scene in scenes], np.float64),
            starts=starts,
            cells=cells,
            usable=found.usable[order],
            pair_cells=np.searchsorted(cells, found.pair_cells[pairs]).astype(np.int32),
            pair_counts=found.pair_counts[pairs],
            first_pairs=np.searchsorted(found.pair_classes[pairs], np.arange(classes + 1)),
            cut_cells=np.searchsorted(cells, found.cut_cells[cuts]),
            cut_bits=found.cut_bits[cuts],
        )

    @property
    def class_pixels(self) -> NDArray[np.int64]:
        """Usable pixels of each class, `(class,)`, whatever the scenes' weights."""
        before = np.concatenate([[0], np.cumsum(self.pair_counts, dtype=np.int64)])
        return np.diff(before[self.first_pairs])

    @property
    def cell_chances(self) -> NDArray[np.float64]:
        """How much the usable pixels of each cell count, `(cell,)`."""
        return self.usable * self.weights[self.scene_of(np.arange(len(self.cells)))]

    @property
    def pair_chances(self) -> NDArray[np.float64]:
        """How much the pixels of each pair of a cell and a class count, `(pair,)`."""
        return self.pair_counts * self.weights[self.scene_of(self.pair_cells)]

    def scene_of(self, cells: NDArray[Any]) -> NDArray[np.int64]:
        """The scene in which each of the cells lies."""
        return np.asarray(np.searchsorted(self.starts, self.cells[cells], "right") - 1)

    def class_of(self, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
        """The class of each of the pairs."""
        return np.asarray(np.searchsorted(self.first_pairs, pairs, "right") - 1)

    def places(self, cells: NDArray[Any]) -> NDArray[np.int64]:
        """Scene, first row and first column of each of the cells, `(n, 3)`."""
        scene = self.scene_of(cells)
        row, col = np.divmod(self.cells[cells] - self.starts[scene], self._across(scene))
        return np.stack([scene, row * CELL_PX, col * CELL_PX], 1)

    def _across(self, scene: Any) -> Any:
        return -(-self.shapes[scene, 1] // CELL_PX)

    def within(self, scene: int, rows: tuple[int, int], cols: tuple[int, int]) -> NDArray[np.int64]:
        """The cells with usable pixels that touch a rectangle of pixels `[start, stop)` of a scene."""
        (top, bottom), (left, right) = (
            (max(0, start), min(int(size), stop))
            for size, (start, stop) in zip(self.shapes[scene], (rows, cols), strict=True)
        )
        if bottom <= top or right <= left:
            return np.zeros(0, np.int64)
        down, over = (np.arange(first // CELL_PX, -(-end // CELL_PX)) for first, end in ((top, bottom), (left, right)))
        numbers = (down[:, None] * self._across(scene) + over + self.starts[scene]).ravel()
        place = np.searchsorted(self.cells, numbers)
        held = place < len(self.cells)
        held[held] = self.cells[place[held]] == numbers[held]
        return np.asarray(place[held])

    def usable_in(self, scene: SceneArrays, cell: int, window: Window) -> NDArray[np.bool_]:
        """Which pixels of a cell, which is `window` of its scene, are usable, `(row, col)`."""
        usable = np.asarray(scene.part[window.slices] == TRAINING)
        cut = int(np.searchsorted(self.cut_cells, cell))
        if cut < len(self.cut_cells) and self.cut_cells[cut] == cell:
            inside = np.unpackbits(self.cut_bits[cut]).view(np.bool_).reshape(CELL_PX, CELL_PX)
            usable = usable & inside[: window.rows, : window.cols]
        return usable

    def cell_window(self, place: Sequence[int]) -> Window:
        """The window of a cell in its scene, by its scene, first row and first column."""
        scene, row, col = place
        rows, cols = self.shapes[scene].tolist()
        return Window(row, col, min(CELL_PX, rows - row), min(CELL_PX, cols - col))

    def pixels(
        self,
        scenes: Sequence[SceneArrays],
        cells: NDArray[np.int64],
        classes: NDArray[np.int64],
        picks: NDArray[np.float64],
    ) -> NDArray[np.int64]:
        """A pixel out of each cell, `(n, 3)`: scene, row and column.

        Args:
            scenes: Those that were indexed.
            cells: Where to look, `(n,)`.
            classes: What for, `(n,)`: a class that the cell holds, or ANY.
            picks: Which of the pixels to take, as a share of them from 0 to below 1, `(n,)`.
        """
        places = self.places(cells)
        found = np.empty((len(cells), 3), np.int64)
        last, window = -1, Window(0, 0, 0, 0)
        for k in _by_blocks(places).tolist():
            cell, wish, place = int(cells[k]), int(classes[k]), places[k].tolist()
            if cell != last:
                window, scene, last = self.cell_window(place), scenes[place[0]], cell
                usable, labels = self.usable_in(scene, cell, window), scene.labels[window.slices]
            wanted = usable if wish == ANY else usable & (labels == wish)
            there = np.flatnonzero(wanted)
            # Labels that cannot be read any more, where that is let pass, read as none; the cell's middle stands in.
            at = there[int(picks[k] * len(there))] if len(there) else wanted.size // 2
            row, col = divmod(int(at), window.cols)
            found[k] = place[0], window.row_off + row, window.col_off + col
        return found


def summed(chances: NDArray[Any]) -> NDArray[np.float64]:
    """The sum of the chances before each position, and of all, `(n + 1,)`: what `draw` needs."""
    return np.concatenate([[0.0], np.cumsum(chances, dtype=np.float64)])


def draw(before: NDArray[np.float64], picks: NDArray[np.float64], *, first: Any = 0, stop: Any = -1) -> NDArray[Any]:
    """Positions drawn in proportion to their chances, by random numbers `picks` from 0 to below 1.

    A position without a chance is never drawn; some of those drawn from must have one.

    Args:
        before: What `summed` gives.
        picks: One for each draw, `(n,)`.
        first: The first position that may be drawn; one for all or one for each draw.
        stop: One past the last.

    >>> draw(summed(np.array([0, 1, 0, 3])), np.array([0.0, 0.24, 0.26, 0.999]))
    array([1, 1, 3, 3])
    """
    low, high = before[first], before[stop]
    aim = np.minimum(low + picks * (high - low), np.nextafter(high, low))  # rounding may reach the end
    return np.asarray(np.searchsorted(before, aim, "right") - 1)


def _by_blocks(places: NDArray[np.int64]) -> NDArray[np.int64]:
    """An order in which no block of a stored layer is left and come back to."""
    scene, row, col = places.T
    return np.lexsort((col, row, col // BLOCK_PX, row // BLOCK_PX, scene))


def _empty_piece() -> _Piece:
    none = np.zeros(0, np.int64)
    small = none.astype(np.uint16)
    return _Piece(none, small, none, none.astype(np.int32), small, none, np.zeros((0, CELL_PX**2 // 8), np.uint8))


def _pieces(scene: SceneArrays, start: int, classes: int, area: Mask | None) -> Iterator[_Piece]:
    """What the windows of a scene, whose first cell has the number `start`, add to the index."""
    across = -(-scene.shape[1] // CELL_PX)
    for window in windows_of(scene.shape):
        usable = np.ascontiguousarray(scene.part[window.slices] == TRAINING)
        if not usable.any():
            continue
        inside = None if area is None else area.mask(crop(scene.geobox, window))
        if inside is not None:
            usable &= inside
        down, over = -(-window.rows // CELL_PX), -(-window.cols // CELL_PX)
        counts = np.zeros((down, over, classes + 1), np.int32)
        _count(scene.labels[window.slices].astype(np.int32), usable, scene.no_label, counts)
        first = start + window.row_off // CELL_PX * across + window.col_off // CELL_PX
        numbers = first + np.arange(down)[:, None] * across + np.arange(over)
        yield _piece(numbers.ravel(), counts.reshape(-1, classes + 1), inside)


def _piece(numbers: NDArray[np.int64], counts: NDArray[np.int32], inside: NDArray[np.bool_] | None) -> _Piece:
    """The piece of a window whose cells have these numbers and counts of each class and of all usable pixels."""
    held = np.flatnonzero(counts[:, -1])
    of, k = np.nonzero(counts[:, :-1])
    piece = _empty_piece()._replace(
        cells=numbers[held],
        usable=counts[held, -1].astype(np.uint16),
        pair_cells=numbers[of],
        pair_classes=k.astype(np.int32),
        pair_counts=counts[of, k].astype(np.uint16),
    )
    if inside is None:
        return piece
    in_cells = _in_cells(inside)
    cut = held[~in_cells[held].all(1)]
    return piece._replace(cut_cells=numbers[cut], cut_bits=np.packbits(in_cells[cut], axis=1))


def _in_cells(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A plane cell by cell, `(cell, pixel)`; what lies beyond the plane is True."""
    rows, cols = inside.shape
    padded = np.pad(inside, ((0, -rows % CELL_PX), (0, -cols % CELL_PX)), constant_values=True)
    down, over = padded.shape[0] // CELL_PX, padded.shape[1] // CELL_PX
    return padded.reshape(down, CELL_PX, over, CELL_PX).transpose(0, 2, 1, 3).reshape(down * over, CELL_PX**2)


@jit
def _count(labels: Any, usable: Any, no_label: Any, counts: Any) -> None:
    """Adds the usable pixels of each class, and as the last one all, to `counts` `(cell row, cell col, class + 1)`."""
    classes = counts.shape[2] - 1
    for row in range(labels.shape[0]):
        for col in range(labels.shape[1]):
            if usable[row, col]:
                cell_row, cell_col, told = row // CELL_PX, col // CELL_PX, labels[row, col]
                counts[cell_row, cell_col, classes] += 1
                if told != no_label and 0 <= told < classes:
                    counts[cell_row, cell_col, told] += 1
