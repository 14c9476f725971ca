"""A job: plan the blocks of a scene, skip the finished, make the others, and put the outputs together.

Outputs are claimed before any work. Each finished block is a file, so the same job run again carries on; the class map
appears last, under its name only when everything is complete.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odc.geo.geobox import GeoBox

import geoseg
from geoseg.errors import GeosegError, InputError
from geoseg.infer.assemble import assemble
from geoseg.infer.blend import BLENDS
from geoseg.infer.encode import Notes, notes_of
from geoseg.infer.executors import EXECUTORS, Crew
from geoseg.infer.holding import held
from geoseg.infer.layers import LAYERS
from geoseg.infer.parts import JobFolder, Outputs, Plan, is_complete, refuse_polygons_style
from geoseg.infer.reading import ON_ERROR, Unread, merged
from geoseg.infer.seams import SeamReport
from geoseg.infer.task import SceneTask
from geoseg.io.outputs import check_output, is_among
from geoseg.io.stamps import file_stamps, files_in, paths_in, unsigned
from geoseg.tiling import Block, Tiling

if TYPE_CHECKING:
    from geoseg.io.protocol import Source

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]

QUERY = re.compile(r"(?<=\w)\?[^'\"\s]*")
"""That of an address, where a signature may be that is another one each time."""

HOW = ("precision", "tta")
"""What is known of a model's use rather than of the model."""

LISTED = 5
"""Places that could not be read which are listed in the log; the STAC Item lists all."""


@dataclass(frozen=True, slots=True)
class PredictResult:
    """What a job made.

    Attributes:
        class_map: Class ids, a Cloud-Optimized GeoTIFF.
        layers: The map of each layer, the class map's too, by name: `class`, `confidence`, ...
        style: The QGIS style of the class map.
        item: The STAC Item.
        geobox: Where the map lies: the scene's own grid.
        blocks: How many blocks the map was made in, and `resumed` of them by an earlier run.
        resumed: Blocks that an earlier run had finished.
        valid_px: Pixels with a class.
        overlap_px: Pixels of the scene that neighbouring tiles share, down and across.
        excess: Pixels predicted over pixels of the scene.
        unread: Places that could not be read; they are nodata but where another scene gave a class.
        seconds: Time that this run took.
        seams: Whether tile borders show, where that was asked.
    """

    class_map: Path
    layers: Mapping[str, Path]
    style: Path
    item: Path
    geobox: GeoBox
    blocks: int
    resumed: int
    valid_px: int
    overlap_px: tuple[int, int]
    excess: float
    unread: tuple[Unread, ...]
    seconds: float
    seams: SeamReport | None = None

    @property
    def confidence(self) -> Path:
        """Percent, 0 to 100; 255 is nodata."""
        return self.layers["confidence"]

    def __str__(self) -> str:
        rows, cols = self.geobox.shape
        share = math.floor(1000 * self.valid_px / (rows * cols)) / 10  # 100 only where none lacks
        made = f"{self.class_map}: {cols} x {rows} pixels, {share:.1f}% with a class, in {self.seconds:.1f} s"
        return made if self.seams is None else f"{made}\n{self.seams}"


@dataclass(frozen=True)
class Job:
    """What to make, from what, and how.

    Attributes:
        task: The scene and the network.
        out: The class map to write.
        plan: Cuts the work of a new job, or holds the plan of an earlier run against what can be had now.
        crew: Who does the work.
        model: What is known of the model: `name`, `sha256`, ...; part of the job's identity, written in the outputs.
        inputs: Files that no output may replace, beside those of the scene.
        overwrite: Whether existing outputs and another job's parts may be replaced.
    """

    task: SceneTask
    out: Path
    plan: Callable[[Plan | None], Plan]
    crew: Crew = field(default_factory=Crew)
    model: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    overwrite: bool = False

    @property
    def outputs(self) -> Outputs:
        """Where everything will stand."""
        return Outputs(Path(self.out), tuple(layer.name for layer in self.task.layers))


def run_job(job: Job, *, progress: Progress | None = None) -> PredictResult:
    """Map a scene, block by block; a job that was stopped carries on.

    Args:
        job: What to make.
        progress: Told the pixels done and the pixels in all.

    Raises:
        GeosegError: Something about the input or the output has to be mended. Blocks that were finished are kept, and
            nothing where none was.
    """
    began, task, outputs = time.monotonic(), job.task, job.outputs
    check_names(outputs, blend=task.blend, engine=job.crew.engine, on_error=task.on_error)
    with held(outputs.class_map):
        identity = _identity(task, model=job.model)
        recovered = is_complete(outputs.class_map, identity)
        if not recovered:
            check_outputs(outputs, inputs=[*files_in(task.source), *job.inputs], overwrite=job.overwrite)
        folder = JobFolder.claim(outputs, identity=identity, plan=job.plan, created=_now(), overwrite=job.overwrite)
        blocks, task.predictor.batch_tiles = task.tiling.blocks(cells=folder.plan.cells), folder.plan.batch_tiles
        missing = [] if recovered else _missing(task, blocks, folder)
        with _keeping_parts(folder, blocks):
            if not recovered:
                _make(job, missing, folder, blocks=len(blocks), progress=_counted(progress, task.tiling, missing))
                _assemble(job, blocks, folder)
            known = folder.read_notes()
            folder.publish(outputs, stale=_stale(outputs) if job.overwrite else ())
    valid_px, unread = known["valid_px"], [Unread.from_list(values) for values in known["unread"]]
    _say_what_lacks(job, Notes(valid_px, known["lost_px"], unread))
    return PredictResult(
        class_map=outputs.class_map, layers={name: outputs.layer(name) for name in outputs.layers},
        style=outputs.style, item=outputs.item, geobox=task.source.geobox, blocks=len(blocks),
        resumed=len(blocks) - len(missing), valid_px=valid_px, excess=task.tiling.excess, unread=tuple(unread),
        overlap_px=(task.tiling.rows.overlap, task.tiling.cols.overlap), seconds=time.monotonic() - began,
    )  # fmt: skip


def _missing(task: SceneTask, blocks: Sequence[Block], folder: JobFolder) -> list[Block]:
    """Blocks that are not finished; those with pixels that could not be read are not, where that is to stop the job."""

    def is_missing(block: Block) -> bool:
        if not folder.is_finished(block):
            return True
        return task.on_error == "stop" and bool(notes_of(folder.part(block, "class")).unread)

    return [block for block in blocks if is_missing(block)]


def _assemble(job: Job, blocks: Sequence[Block], folder: JobFolder) -> None:
    """Put the outputs together, and keep what is known of them."""
    notes = [notes_of(folder.part(block, "class")) for block in blocks]
    unread = merged(item for note in notes for item in note.unread)
    assemble(job.task, blocks, folder, job.outputs, model=job.model, unread=unread)
    valid_px, lost_px = sum(note.valid_px for note in notes), sum(note.lost_px for note in notes)
    folder.write_notes({"valid_px": valid_px, "lost_px": lost_px, "unread": [item.to_list() for item in unread]})


def _stale(outputs: Outputs) -> list[Path]:
    """Layers that this job does not make, which an older map may have left."""
    return [outputs.layer(name) for name in LAYERS if name not in outputs.layers]


def check_names(outputs: Outputs, *, blend: str, engine: str, on_error: str) -> None:
    """Nothing, where the names are known.

    Raises:
        InputError: One is not, or the output is no GeoTIFF.
    """
    out = outputs.class_map
    if out.suffix.lower() not in (".tif", ".tiff"):
        raise InputError(f"the output {out} must end in .tif: a map is written as GeoTIFF")
    tables = (("blend", blend, BLENDS), ("engine", engine, EXECUTORS), ("on-error", on_error, ON_ERROR))
    for what, name, table in tables:
        if name not in table:
            raise InputError(f"{what} '{name}' is unknown; known are {', '.join(table)}")


def check_outputs(outputs: Outputs, *, inputs: Sequence[str], overwrite: bool) -> None:
    """Nothing, where all outputs may be written.

    Raises:
        InputError: An output is also an input.
        OutputExistsError: An output exists and was not to be overwritten.
        OutputError: The place cannot be written.
    """
    folder = outputs.class_map.absolute().parent
    refuse_polygons_style(outputs.style)
    for path in outputs.paths:
        if folder.exists():
            check_output(path, overwrite=overwrite, inputs=inputs)
    for path in _stale(outputs) if overwrite else ():
        if is_among(path, inputs):
            raise InputError(
                f"the input {path} has the name of a layer of {outputs.class_map}, and --overwrite deletes those of an "
                "older map; give the output another name"
            )


def _identity(task: SceneTask, *, model: Mapping[str, str]) -> dict[str, Any]:
    """What makes a job this job, as JSON values: the same again gives the same map.

    What becomes of pixels that cannot be read is left out: a job that stopped at one may go on without it.
    """
    tiling, grid = task.tiling, task.source.geobox
    return {
        "version": geoseg.__version__,
        "source": _said(task.source),
        "files": {_absolute(unsigned(path)): stamp for path, stamp in file_stamps(files_in(task.source)).items()},
        "grid": [list(grid.shape), list(grid.affine)[:6], str(grid.crs)],
        "model": {name: value for name, value in model.items() if name not in HOW},
        **{name: model[name] for name in HOW if name in model},
        "legend": task.legend.to_dict(),
        "tile": [*tiling.tile_shape, *task.model_shape],
        "overlap": [tiling.rows.overlap, tiling.cols.overlap],
        "blend": task.blend,
        "layers": [layer.name for layer in task.layers],
        "rule": task.rule if task.members else "",
        "area": "" if task.area is None else task.area.digest,
    }


def _said(source: Source) -> str:
    """A source in words that are the same from any folder, and whatever signs its addresses."""
    text = repr(source)
    for path in paths_in(source):
        text = text.replace(repr(path), repr(_absolute(path)))
    return QUERY.sub(lambda query: unsigned(query[0]), text)


def _absolute(path: str) -> str:
    """A path that is here, from the root; any other name as it is."""
    try:
        return str(Path(path).resolve()) if Path(path).exists() else path
    except (OSError, ValueError):  # it is no name of a file
        return path


def _make(
    job: Job, missing: Sequence[Block], folder: JobFolder, *, blocks: int, progress: Callable[[int], None]
) -> None:
    """Make the missing blocks and keep their parts."""
    tiling = job.task.tiling
    if len(missing) < blocks:
        logger.info("%d of %d blocks are there from an earlier run", blocks - len(missing), blocks)
    logger.info(
        "%d %s to make; tiles of %d x %d pixels overlap by %d x %d, which costs %.0f %% more work",
        len(missing), "block" if len(missing) == 1 else "blocks", *tiling.tile_shape, tiling.rows.overlap,
        tiling.cols.overlap, 100 * tiling.overlap_cost,
    )  # fmt: skip
    if missing:
        EXECUTORS[job.crew.engine](job.task, missing, crew=job.crew, keep=folder.keep, progress=progress)


def _say_what_lacks(job: Job, notes: Notes) -> None:
    outputs, unread = job.outputs, notes.unread
    if not notes.valid_px:
        where = "the scene" if job.task.area is None else "the area"
        logger.warning("%s has no valid pixel: %s is nodata throughout", where, outputs.class_map)
    if unread:
        pixels, places = sum(item.window.rows * item.window.cols for item in unread), len(unread)
        lost = "and are nodata" if notes.lost_px == pixels else f"of some scene, {notes.lost_px} of the map are nodata"
        logger.warning(
            "%d pixels in %d %s could not be read %s:", pixels, places, "place" if places == 1 else "places", lost
        )
        for item in unread[:LISTED]:
            logger.warning("  %s: %s", item, item.reason)
        if places > LISTED:
            logger.warning("  and %d more; %s lists all", places - LISTED, outputs.item)


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


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
