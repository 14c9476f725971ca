"""Tiling: a fixed lattice of overlapping tiles over a scene, and the blocks of work it is cut into.

The lattice depends on the scene's shape, the largest tile and the overlap alone. However the work is cut into blocks, a
tile keeps its place and its neighbours, so the sum of all tiles at a pixel never changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from geoseg.errors import InputError


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of pixels: `row_off, col_off` of its first pixel, and `rows, cols`."""

    row_off: int
    col_off: int
    rows: int
    cols: int

    @property
    def row_stop(self) -> int:
        """One past the last row."""
        return self.row_off + self.rows

    @property
    def col_stop(self) -> int:
        """One past the last column."""
        return self.col_off + self.cols

    @property
    def slices(self) -> tuple[slice, slice]:
        """The window as an index into `(row, col)`."""
        return slice(self.row_off, self.row_stop), slice(self.col_off, self.col_stop)

    def intersect(self, other: Window) -> Window:
        """The pixels in both; zero rows or columns where there are none."""
        row, col = max(self.row_off, other.row_off), max(self.col_off, other.col_off)
        rows, cols = min(self.row_stop, other.row_stop) - row, min(self.col_stop, other.col_stop) - col
        return Window(row, col, max(rows, 0), max(cols, 0))


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of work: a window of whole lattice cells, disjoint from all other blocks.

    Attributes:
        index: Position among the blocks of one cut.
        window: Its pixels in the scene; inside the scene.
        strip: Blocks of one strip share their columns and follow each other downwards.
    """

    index: int
    window: Window
    strip: int


@dataclass(frozen=True, slots=True)
class Axis:
    """The lattice along one axis: `count` tiles of `tile` pixels, `stride` apart, the first at pixel 0."""

    size: int
    tile: int
    overlap: int
    count: int

    @property
    def stride(self) -> int:
        """Pixels from one tile to the next; a whole tile where there is one only, which may be below the overlap."""
        return self.tile - self.overlap if self.count > 1 else self.tile

    def cell(self, index: int) -> tuple[int, int]:
        """Start and stop of the pixels that tile `index` is first to cover and none before it starts."""
        return index * self.stride, self.size if index == self.count - 1 else (index + 1) * self.stride

    def touching(self, start: int, stop: int) -> range:
        """Indexes of the tiles that share a pixel with `start` to `stop`."""
        first = max(0, (start - self.tile) // self.stride + 1)
        return range(first, min(self.count, ceil(stop / self.stride)))

    @classmethod
    def fit(cls, size: int, *, largest_tile: int, overlap: int, multiple: int) -> Axis:
        """The fewest tiles that cover `size`, made as small as they can be, so that little lies outside the scene."""
        if size <= largest_tile:
            return cls(size, min(ceil(size / multiple) * multiple, largest_tile), overlap, 1)
        count = ceil((size - overlap) / (largest_tile - overlap))
        snug = ceil(((size - overlap) / count + overlap) / multiple) * multiple
        return cls(size, min(snug, largest_tile), overlap, count)


@dataclass(frozen=True, slots=True)
class Tiling:
    """Overlapping tiles over a scene.

    Every pixel of the scene lies in at least one tile and, with an overlap of at most half of `tile_shape`, in at most
    four.
    Tiles start inside the scene; the last of a row or column may reach beyond it.
    """

    rows: Axis
    cols: Axis

    @classmethod
    def over(
        cls, shape: tuple[int, int], *, largest_tile_px: int = 512, overlap_px: int = 64, multiple: int = 32
    ) -> Tiling:
        """The lattice over a scene of `shape` (row, col).

        Args:
            shape: Rows and columns of the scene.
            largest_tile_px: The side that no tile exceeds; a multiple of `multiple`.
            overlap_px: Pixels that neighbouring tiles share; at most half the largest tile.
            multiple: The model takes sides that are multiples of this.

        Raises:
            InputError: The scene is empty, or the numbers do not fit each other.

        >>> Tiling.over((1000, 300)).tile_shape, Tiling.over((1000, 300)).count
        ((384, 320), (3, 1))
        """
        if min(shape) < 1:
            raise InputError(f"the scene is empty: {shape[0]} rows, {shape[1]} columns")
        if largest_tile_px < multiple or largest_tile_px % multiple:
            raise InputError(f"tile of {largest_tile_px} px: needed is a multiple of {multiple}")
        if not 0 <= overlap_px <= largest_tile_px // 2:
            raise InputError(f"overlap of {overlap_px} px: needed are 0 to {largest_tile_px // 2}, half a tile")
        fits = [Axis.fit(size, largest_tile=largest_tile_px, overlap=overlap_px, multiple=multiple) for size in shape]
        return cls(*fits)

    @property
    def tile_shape(self) -> tuple[int, int]:
        """Rows and columns of a tile."""
        return self.rows.tile, self.cols.tile

    @property
    def count(self) -> tuple[int, int]:
        """Tiles down and across."""
        return self.rows.count, self.cols.count

    @property
    def scene(self) -> Window:
        """The whole scene."""
        return Window(0, 0, self.rows.size, self.cols.size)

    def tile(self, row: int, col: int) -> Window:
        """Pixels of tile `(row, col)`; may reach beyond the last row and column of the scene."""
        return Window(row * self.rows.stride, col * self.cols.stride, *self.tile_shape)

    def touching(self, window: Window) -> Iterator[tuple[int, int]]:
        """Tiles `(row, col)` that share a pixel with `window`, row by row."""
        for row in self.rows.touching(window.row_off, window.row_stop):
            for col in self.cols.touching(window.col_off, window.col_stop):
                yield row, col

    def blocks(self, *, cells: tuple[int, int]) -> list[Block]:
        """The scene cut into blocks of at most `cells` (down, across) lattice cells, strip by strip, top to bottom.

        Raises:
            InputError: A count of cells is below one.

        >>> [block.window.rows for block in Tiling.over((1000, 300)).blocks(cells=(2, 1))]
        [640, 360]
        """
        if min(cells) < 1:
            raise InputError(f"a block needs at least one cell each way, got {cells}")
        found: list[Block] = []
        for strip, left in enumerate(range(0, self.cols.count, cells[1])):
            col_off = self.cols.cell(left)[0]
            col_stop = self.cols.cell(min(left + cells[1], self.cols.count) - 1)[1]
            for top in range(0, self.rows.count, cells[0]):
                row_off = self.rows.cell(top)[0]
                row_stop = self.rows.cell(min(top + cells[0], self.rows.count) - 1)[1]
                window = Window(row_off, col_off, row_stop - row_off, col_stop - col_off)
                found.append(Block(len(found), window, strip))
        return found

    @property
    def overlap_cost(self) -> float:
        """Pixels predicted twice over pixels predicted at all, without what lies beyond the scene: 0 at one tile."""
        shares = [
            axis.count * axis.tile / ((axis.count - 1) * axis.stride + axis.tile) for axis in (self.rows, self.cols)
        ]
        return shares[0] * shares[1] - 1

    @property
    def excess(self) -> float:
        """Pixels predicted over pixels of the scene: what overlap and padding cost, 1.0 at best."""
        tiles = self.count[0] * self.count[1] * self.tile_shape[0] * self.tile_shape[1]
        return tiles / (self.rows.size * self.cols.size)
