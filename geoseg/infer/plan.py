"""How a job is cut so that it stays within the memory: the batch, the width of a strip, the rows of a block."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil

from geoseg.errors import InputError
from geoseg.infer.task import Member, SceneTask
from geoseg.tiling import Tiling

STRIP_PX = 4096
"""No strip is wider, so that a wider scene takes no more memory."""

DEVICE_STRIP_PX = 16384
"""The same where a device does the work: a row of tiles has to fill its batch."""

BLOCK_PX = 4 * 2**20
"""About how many pixels a block has where one process makes all: what a crash may cost."""

LONG_ROWS = 20
"""Rows of tiles in a block that is made by itself: it predicts one row more, 5 % of the work."""

FIXED_BYTES = 300 * 10**6
"""What GDAL's cache, threads and the assembly of the outputs take in any job."""

LIBRARIES_BYTES = 1200 * 10**6
"""What the libraries take at most; what else this process holds is not the job's to count."""

BLOCKS_A_WORKER = 4
"""Blocks that each process gets, at least, so that the last ones end together."""

BLOCKS_HELD = 4
"""Finished blocks in memory: being filled, put together, waiting and being encoded."""


def bytes_per_col(task: SceneTask, *, block_rows: int, lanes: int = 1) -> int:
    """Bytes that each pixel column of a strip costs: sums, pixels now and read ahead, and finished rows.

    Args:
        task: The scene and the network.
        block_rows: Lattice rows of a block.
        lanes: How many scenes lie under one row of tiles of the strip at a time, each as wide as the strip in memory.
    """
    legend, rows = task.legend, task.tiling.rows
    pixel = len(task.source.bands) * task.source.dtype.itemsize + 2
    carried = rows.tile * (4 * len(legend) + 2 * pixel) * lanes  # tiles of the row before may still be at work
    ahead = 3 * rows.tile * pixel * lanes  # the rows just read, the next, and the reader's own copy
    layers = sum(len(layer.bands(legend)) * layer.dtype(legend).itemsize for layer in task.layers)
    finished = block_rows * rows.stride * layers * BLOCKS_HELD
    measuring = rows.stride * (4 * len(legend) * (lanes > 1) + 16 + 2 * layers)
    return carried + ahead + finished + measuring


def buffer_bytes(task: SceneTask, cells: tuple[int, int], *, lanes: int | None = None) -> int:
    """Bytes for pixels, sums and finished blocks of `cells` (down, across) lattice cells.

    Args:
        task: The scene and the network.
        cells: Of a block.
        lanes: What `lanes_of` gives for strips of so many cells, where that is known.
    """
    cols = task.tiling.cols
    lanes = lanes_of(task, across=cells[1]) if lanes is None else lanes
    return bytes_per_col(task, block_rows=cells[0], lanes=lanes) * (cells[1] * cols.stride + cols.tile)


def lanes_of(task: SceneTask, *, across: int) -> int:
    """How many scenes may lie under one row of tiles of any strip of `across` lattice cells at a time, at most."""
    rows, cols = task.tiling.rows, task.tiling.cols
    more = ceil(cols.tile / cols.stride) - 1  # cells that a tile reaches over beside its own
    under: dict[int, list[Member]] = {}
    for member in task.members:
        tiles = cols.touching(member.window.col_off, member.window.col_stop)
        last = min(tiles.stop - 1 + more, cols.count - 1)
        for strip in range(tiles.start // across, last // across + 1):
            under.setdefault(strip, []).append(member)
    return max((largest_overlap(members, slack_px=rows.tile) for members in under.values()), default=1)


def largest_overlap(members: Iterable[Member], *, slack_px: int) -> int:
    """How many scenes may lie under one row of tiles at a time, at most."""
    edges = []
    for member in members:
        edges += [(member.window.row_off - slack_px, 1), (member.window.row_stop + slack_px, -1)]
    most = now = 0
    for _, change in sorted(edges):
        now += change
        most = max(most, now)
    return max(most, 1)


def block_rows_for(tiling: Tiling, *, across: int, workers: int, alone: bool) -> int:
    """Lattice rows of a block of `across` cells.

    Workers that go on downwards take over what is unfinished, so they get blocks of `BLOCK_PX`. Where each block is
    made alone, they are as long as `LONG_ROWS`. Blocks are shorter where there would be too few for the workers.
    """
    strips, rows = ceil(tiling.cols.count / across), tiling.rows.count
    if alone:
        pieces = max(ceil(rows / LONG_ROWS), ceil(workers / strips))
        return ceil(rows / min(pieces, rows))
    fitting = max(1, BLOCK_PX // (across * tiling.cols.stride * tiling.rows.stride))
    if workers == 1:
        return min(rows, fitting)
    return min(fitting, ceil(rows / min(ceil(BLOCKS_A_WORKER * workers / strips), rows)))


def cells_for(
    task: SceneTask, *, memory_bytes: int, spent_bytes: int = 0, workers: int = 1, sharing: int = 1, alone: bool = False
) -> tuple[int, int]:
    """Lattice cells of a block, down and across, whose buffers stay within the memory.

    Args:
        task: The scene and the network.
        memory_bytes: The memory to stay within.
        spent_bytes: What a worker takes for other things than pixels, sums and finished blocks.
        workers: How many make blocks at the same time.
        sharing: How many of them share the memory.
        alone: Whether they make each block by itself, and never go on downwards.

    Raises:
        InputError: The memory does not hold a single tile; the message says how much would.
    """
    cols = task.tiling.cols
    widest = STRIP_PX if task.predictor.readers == 1 else DEVICE_STRIP_PX
    most = min(cols.count, max(1, widest // cols.stride))
    for across in dict.fromkeys(ceil(cols.count / strips) for strips in range(ceil(cols.count / most), cols.count + 1)):
        down = block_rows_for(task.tiling, across=across, workers=workers, alone=alone)
        lanes = lanes_of(task, across=across)
        while True:
            cost = buffer_bytes(task, (down, across), lanes=lanes)
            if sharing * (spent_bytes + cost) <= memory_bytes:
                return down, across
            if down == 1:
                break
            down = ceil(down / 2)
    needed = ceil(sharing * (spent_bytes + cost) / 10**6)
    raise InputError(
        f"memory of {memory_bytes / 10**6:.0f} MB: one tile of {task.tiling.tile_shape[0]} x "
        f"{task.tiling.tile_shape[1]} pixels needs {needed} MB; try --memory {needed}MB"
        + (", or a smaller --tile-px" if cost > spent_bytes else "")
    )
