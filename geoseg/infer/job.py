"""A job: plan the blocks of a scene, skip the finished, make the others, and put the outputs together.

Outputs are claimed before any work. Each finished block is a file, so the same job run again carries on; the class map
appears last, under its name only when everything is complete.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odc.geo.geobox import GeoBox

import geoseg
from geoseg.errors import GeosegError, InputError, OutputError
from geoseg.infer.blend import BLENDS
from geoseg.infer.blocks import NO_CONFIDENCE, FinishedBlock, Predictor, SceneTask
from geoseg.infer.executors import EXECUTORS
from geoseg.infer.parts import JobFolder, Outputs, file_stamps, is_complete, paths_in, write_text
from geoseg.infer.scale import Lattice
from geoseg.io.cog import part_tags, write_cog, write_part
from geoseg.io.grids import crop
from geoseg.io.item import map_item, write_item
from geoseg.io.outputs import check_output
from geoseg.legend import Legend
from geoseg.tiling import Block, Tiling

if TYPE_CHECKING:
    from geoseg.io.protocol import Source

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]

DEFAULT_MEMORY_BYTES = 2 * 10**9
BUFFER_SHARE = 0.25
"""Share of the memory for pixels and sums; the rest is for the network and its libraries."""

STRIP_PX = 4096
"""No strip is wider, so that a wider scene takes no more memory."""

BLOCK_PX = 4 * 2**20
"""About how many pixels a block has: what a crash may cost."""

VALID_TAG = "GEOSEG_VALID_PX"


@dataclass(frozen=True, slots=True)
class PredictResult:
    """What a job made.

    Attributes:
        class_map: Class ids, a Cloud-Optimized GeoTIFF.
        confidence: Percent, 0 to 100; 255 is nodata.
        style: The QGIS style of the class map.
        item: The STAC Item.
        geobox: Where the map lies: the scene's own grid.
        blocks: How many blocks the map was made in, and `resumed` of them by an earlier run.
        resumed: Blocks that an earlier run had finished.
        valid_px: Pixels with a class.
        excess: Pixels predicted over pixels of the scene.
        seconds: Time that this run took.
    """

    class_map: Path
    confidence: Path
    style: Path
    item: Path
    geobox: GeoBox
    blocks: int
    resumed: int
    valid_px: int
    excess: float
    seconds: float

    def __str__(self) -> str:
        rows, cols = self.geobox.shape
        return (
            f"{self.class_map}: {cols} x {rows} pixels, {self.valid_px / (rows * cols):.1%} with a class, "
            f"in {self.seconds:.1f} s"
        )


def run_job(
    source: Source,
    *,
    predictor: Predictor,
    legend: Legend,
    lattice: Lattice,
    out: Path,
    blend: str = "hann",
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    executor: str = "serial",
    model: Mapping[str, str] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> PredictResult:
    """Map a scene, block by block; a job that was stopped carries on.

    Args:
        source: The scene; its bands are the model's, in the model's order.
        predictor: The network.
        legend: The classes, one a channel.
        lattice: The tiles, and their size for the network.
        out: The class map to write.
        blend: A name in `BLENDS`.
        memory_bytes: The memory to stay within.
        executor: A name in `EXECUTORS`.
        model: What is known of the model: `name`, `sha256`, ...; part of the job's identity, written in the outputs.
        overwrite: Whether existing outputs and another job's parts may be replaced.
        progress: Told the pixels done and the pixels in all.

    Raises:
        GeosegError: Something about the input or the output has to be mended. Blocks that were finished are kept, and
            nothing where none was.
    """
    began, outputs = time.monotonic(), Outputs(Path(out))
    _check_names(outputs, blend=blend, executor=executor)
    identity = _identity(source, lattice, legend=legend, blend=blend, model=model or {})
    recovered = is_complete(outputs.class_map, identity)
    if not recovered:
        _check_outputs(outputs, source, overwrite=overwrite)
    cells = cells_for(lattice.tiling, bytes_per_col(source, lattice.tiling, legend), memory_bytes=memory_bytes)
    folder = JobFolder.claim(outputs.class_map, identity=identity, cells=cells, created=_now(), overwrite=overwrite)
    blocks = lattice.tiling.blocks(cells=folder.cells)
    missing = [] if recovered else [block for block in blocks if not folder.is_finished(block)]
    task = SceneTask(source, predictor, legend, lattice.tiling, lattice.model_shape, blend)
    with _keeping_parts(folder, blocks):
        if not recovered:
            _make(task, missing, folder, executor=executor, progress=_counted(progress, lattice.tiling, missing))
        valid_px = sum(int(part_tags(folder.part(block, "class"))[VALID_TAG]) for block in blocks)
        if not recovered:
            _assemble(task, blocks, folder, outputs, model=model or {})
        folder.publish(outputs)
    if not valid_px:
        logger.warning("the scene has no valid pixel: %s is nodata throughout", outputs.class_map)
    return PredictResult(
        class_map=outputs.class_map, confidence=outputs.confidence, style=outputs.style, item=outputs.item,
        geobox=source.geobox, blocks=len(blocks), resumed=len(blocks) - len(missing), valid_px=valid_px,
        excess=lattice.tiling.excess, seconds=time.monotonic() - began,
    )  # fmt: skip


def _check_names(outputs: Outputs, *, blend: str, executor: str) -> None:
    if outputs.class_map.suffix.lower() not in (".tif", ".tiff"):
        raise InputError(f"the output {outputs.class_map} must end in .tif: a map is written as GeoTIFF")
    for what, name, table in (("blend", blend, BLENDS), ("executor", executor, EXECUTORS)):
        if name not in table:
            raise InputError(f"{what} '{name}' is unknown; known are {', '.join(table)}")


def _check_outputs(outputs: Outputs, source: Source, *, overwrite: bool) -> None:
    """Nothing, where all outputs may be written; folders that the checks made are gone again."""
    inputs = paths_in(source)
    missing = [folder for folder in outputs.class_map.absolute().parents if not folder.exists()]
    try:
        for path in outputs.paths:
            check_output(path, overwrite=overwrite, inputs=inputs)
    finally:
        for folder in missing:
            if folder.is_dir():
                folder.rmdir()


def _identity(
    source: Source, lattice: Lattice, *, legend: Legend, blend: str, model: Mapping[str, str]
) -> dict[str, Any]:
    """What makes a job this job, as JSON values: the same again gives the same map."""
    tiling = lattice.tiling
    return {
        "version": geoseg.__version__,
        "source": repr(source),
        "files": file_stamps(paths_in(source)),
        "grid": [list(source.geobox.shape), list(source.geobox.affine)[:6], str(source.geobox.crs)],
        "model": dict(model),
        "legend": legend.to_dict(),
        "tile": [*tiling.tile_shape, *lattice.model_shape],
        "overlap": [tiling.rows.overlap, tiling.cols.overlap],
        "blend": blend,
    }


def bytes_per_col(source: Source, tiling: Tiling, legend: Legend) -> int:
    """Bytes that each pixel column of a strip costs: sums, pixels now and read ahead, and finished rows."""
    pixel = len(source.bands) * source.dtype.itemsize + 1
    sums = tiling.rows.tile * (4 * len(legend) + pixel)
    ahead = 2 * tiling.rows.tile * pixel
    finished = tiling.rows.stride * (legend.dtype.itemsize + 1) * 6 + tiling.rows.stride * 16
    return sums + ahead + finished


def cells_for(tiling: Tiling, col_bytes: int, *, memory_bytes: int) -> tuple[int, int]:
    """Lattice cells of a block, down and across, that stay within the memory.

    Raises:
        InputError: The memory does not hold a single tile; the message says how much would.
    """
    affordable = int(memory_bytes * BUFFER_SHARE / col_bytes) - tiling.cols.tile
    if affordable < (tiling.cols.stride if tiling.cols.count > 1 else 0):
        needed = ceil((tiling.cols.tile + tiling.cols.stride) * col_bytes / BUFFER_SHARE / 10**6)
        raise InputError(f"memory of {memory_bytes / 10**6:.0f} MB: one tile of {tiling.tile_shape} needs {needed} MB")
    most = max(1, min(affordable, STRIP_PX) // tiling.cols.stride)
    strips = ceil(tiling.cols.count / most)
    across = ceil(tiling.cols.count / strips)
    down = max(1, BLOCK_PX // (across * tiling.cols.stride * tiling.rows.stride))
    return min(down, tiling.rows.count), across


def _make(
    task: SceneTask, blocks: Sequence[Block], folder: JobFolder, *, executor: str, progress: Callable[[int], None]
) -> None:
    """Make the blocks and write their parts."""
    logger.info(
        "%d blocks to make; tiles of %d x %d pixels overlap by %d x %d, which costs %.0f %% more work",
        len(blocks), *task.tiling.tile_shape, task.tiling.rows.overlap, task.tiling.cols.overlap,
        100 * (task.tiling.excess - 1),
    )  # fmt: skip

    def write(finished: FinishedBlock) -> None:
        _write_parts(task, finished, folder)

    EXECUTORS[executor](task, blocks, write=write, progress=progress)


def _write_parts(task: SceneTask, finished: FinishedBlock, folder: JobFolder) -> None:
    """A block's two files, the class map's last: with it the block is finished."""
    block, geobox = finished.block, crop(task.source.geobox, finished.block.window)
    valid_px = int((finished.confidence != NO_CONFIDENCE).sum())
    write_part(folder.part(block, "confidence"), finished.confidence, geobox=geobox, nodata=NO_CONFIDENCE)
    write_part(
        folder.part(block, "class"),
        finished.classes,
        geobox=geobox,
        nodata=task.legend.ignore,
        tags={VALID_TAG: str(valid_px)},
    )


def _counted(progress: Progress | None, tiling: Tiling, missing: Sequence[Block]) -> Callable[[int], None]:
    """A function that adds pixels up and tells `progress`; finished blocks count from the start."""
    total = tiling.rows.size * tiling.cols.size
    done = total - sum(block.window.rows * block.window.cols for block in missing)

    def add(pixels: int) -> None:
        nonlocal done
        done += pixels
        if progress is not None:
            progress(done, total)

    add(0)
    return add


@contextmanager
def _keeping_parts(folder: JobFolder, blocks: Sequence[Block]) -> Iterator[None]:
    """What is finished is kept when the work stops, and the user is told; where nothing is, nothing is left."""
    complete = False
    try:
        yield
        complete = True
    except GeosegError as error:
        if not folder.has_parts:
            raise
        raise type(error)(f"{error}; {_state(folder, blocks)}") from error
    except KeyboardInterrupt:
        if folder.has_parts:
            logger.warning("interrupted; %s", _state(folder, blocks))
        raise
    finally:
        if not complete and not folder.has_parts:
            folder.discard()


def _state(folder: JobFolder, blocks: Sequence[Block]) -> str:
    finished = sum(folder.is_finished(block) for block in blocks)
    return f"{finished} of {len(blocks)} blocks are kept in {folder.path}: run the same again to go on"


def _assemble(
    task: SceneTask, blocks: Sequence[Block], folder: JobFolder, outputs: Outputs, *, model: Mapping[str, str]
) -> None:
    """Put all outputs together in the job's folder, to be moved from there.

    Raises:
        OutputError: They cannot be written.
    """
    legend, geobox, tags = task.legend, task.source.geobox, _tags(task, model)
    try:
        staged = outputs.within(folder.stage())
        write_cog(
            [folder.part(block, "class") for block in blocks], staged.class_map, geobox=geobox, dtype=legend.dtype,
            nodata=legend.ignore, legend=legend, resampling="mode", tags=tags, band_names=("class",),
        )  # fmt: skip
        write_cog(
            [folder.part(block, "confidence") for block in blocks], staged.confidence, geobox=geobox, dtype="uint8",
            nodata=NO_CONFIDENCE, resampling="average", tags=tags, band_names=("confidence",),
        )  # fmt: skip
        write_text(staged.style, legend.to_qml())
        item = map_item(
            class_map=staged.class_map, confidence=staged.confidence, style=staged.style, geobox=geobox, legend=legend,
            created=folder.created, tags=tags,
        )  # fmt: skip
        write_item(staged.item, item)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{outputs.class_map} cannot be put together: {error.strerror or error}") from error


def _tags(task: SceneTask, model: Mapping[str, str]) -> dict[str, str]:
    """Where the map comes from. No time: the same job gives the same bytes; the STAC Item says when."""
    tiling = task.tiling
    own = {
        "GEOSEG_VERSION": geoseg.__version__,
        "GEOSEG_SOURCES": ", ".join(paths_in(task.source)),
        "GEOSEG_BANDS": ", ".join(task.source.bands),
        "GEOSEG_TILE_PX": f"{tiling.rows.tile} {tiling.cols.tile}",
        "GEOSEG_OVERLAP_PX": f"{tiling.rows.overlap} {tiling.cols.overlap}",
        "GEOSEG_BLEND": task.blend,
    }
    return own | {f"GEOSEG_MODEL_{key.upper()}": value for key, value in model.items()}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
