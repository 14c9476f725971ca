"""The folder of a job: what it makes, which blocks are finished, and the step from parts to outputs.

`map.tif.parts` stands beside `map.tif` while the job runs. A block is finished when all its parts are there; the
outputs are finished when the folder `done` is there, and then only have to be moved to their places. Every step is a
rename, so the job can be stopped between any two.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from geoseg.errors import OutputError
from geoseg.io.cog import write_bytes
from geoseg.tiling import Block

FORMAT = 3
JOB = "job.json"
NOTES = "notes.json"
STALE = (".aux.xml", ".ovr")  # what GDAL keeps beside a raster


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where the outputs of a job stand: the class map, and what lies beside it.

    Attributes:
        class_map: The class map.
        layers: Names of all layers, the class map's among them.
    """

    class_map: Path
    layers: tuple[str, ...] = ("class", "confidence")

    def layer(self, name: str) -> Path:
        """The map of a layer."""
        return self.class_map if name == "class" else self.class_map.with_name(f"{self.class_map.stem}.{name}.tif")

    @property
    def style(self) -> Path:
        """The QGIS style."""
        return self.class_map.with_name(f"{self.class_map.stem}.qml")

    @property
    def item(self) -> Path:
        """The STAC Item."""
        return self.class_map.with_name(f"{self.class_map.stem}.stac.json")

    @property
    def paths(self) -> tuple[Path, ...]:
        """All of them, the class map first."""
        return *(self.layer(name) for name in self.layers), self.style, self.item

    def within(self, folder: Path) -> Outputs:
        """The same names in another folder."""
        return Outputs(folder / self.class_map.name, self.layers)


@dataclass(frozen=True, slots=True)
class Plan:
    """How a job's work is cut. Another cut gives the same map; a job that carries on keeps to it.

    Attributes:
        cells: Lattice cells of a block, down and across.
        batch_tiles: Tiles that the network takes at once.
    """

    cells: tuple[int, int]
    batch_tiles: int = 1


@dataclass(frozen=True, slots=True)
class EncodedBlock:
    """A finished block as files: the content of each layer's part, by the layer's name."""

    block: Block
    files: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class JobFolder:
    """The parts of one job.

    Attributes:
        path: The folder.
        plan: How the work is cut.
        layers: Names of all layers.
        created: When the job began, as ISO 8601.
    """

    path: Path
    plan: Plan
    layers: tuple[str, ...]
    created: str

    @classmethod
    def claim(
        cls,
        outputs: Outputs,
        *,
        identity: Mapping[str, Any],
        plan: Callable[[Plan | None], Plan],
        created: str,
        overwrite: bool,
    ) -> JobFolder:
        """The folder for a job with these outputs: a new one, or the one that an earlier run of the same job left.

        Args:
            outputs: What the job makes; their folder is there, and no other run is at work on them.
            identity: What makes it this job, as JSON values: the same again gives the same map.
            plan: Makes the plan of a new job, or holds an earlier run's against what can be had now.
            created: The time, for a new job.
            overwrite: Whether another job's parts may be deleted.

        Raises:
            OutputError: The folder cannot be made, or holds another job's parts.
        """
        folder = folder_of(outputs.class_map)
        wanted = json.loads(json.dumps(dict(identity)))
        found = _read_job(folder)
        if found and found["identity"] == wanted:
            kept = Plan((found["cells"][0], found["cells"][1]), found["batch_tiles"])
            return cls(folder, plan(kept), outputs.layers, found["created"])
        if folder.exists():
            _refuse_other(folder, found, wanted, overwrite=overwrite)
        new = cls(folder, plan(None), outputs.layers, created)
        new.begin({"format": FORMAT, "identity": wanted, **asdict(new.plan), "created": created})
        return new

    def begin(self, job: Mapping[str, Any]) -> None:
        """Make the folder anew, with what says whose it is.

        Raises:
            OutputError: It cannot be made.
        """
        beginning = beside(self.path, "new")  # so that no folder is seen without its job
        try:
            for stale in (beginning, beside(self.path, "old"), self.path):
                shutil.rmtree(stale, ignore_errors=True)
            beginning.mkdir()
            write_text(beginning / JOB, json.dumps(job, indent=2) + "\n")
            beginning.rename(self.path)
        except OSError as error:
            shutil.rmtree(beginning, ignore_errors=True)
            raise OutputError(
                f"{self.path} cannot be made: {error.strerror or error}; choose another folder"
            ) from error

    def part(self, block: Block, layer: str) -> Path:
        """The file of a block's layer."""
        return self.path / f"block-{block.index:06d}.{layer}.tif"

    def keep(self, encoded: EncodedBlock) -> None:
        """Write a finished block, its class map last: with it the block is finished.

        Raises:
            OutputError: A file cannot be written.
        """
        for layer in sorted(encoded.files, key=lambda name: name == "class"):
            write_bytes(self.part(encoded.block, layer), encoded.files[layer])

    def is_finished(self, block: Block) -> bool:
        """Whether all parts of a block are there."""
        return all(self.part(block, layer).exists() for layer in self.layers)

    @property
    def has_parts(self) -> bool:
        """Whether any block is finished."""
        return next(self.path.glob("block-*.class.tif"), None) is not None

    @property
    def staging(self) -> Path:
        """Where outputs are put together."""
        return self.path / "assembling"

    @property
    def done(self) -> Path:
        """Where outputs stand once all of them are complete."""
        return self.path / "done"

    def stage(self) -> Path:
        """An empty folder to put the outputs together in."""
        shutil.rmtree(self.staging, ignore_errors=True)
        self.staging.mkdir()
        return self.staging

    def publish(self, outputs: Outputs, *, stale: Iterable[Path] = ()) -> None:
        """Move the complete outputs to their places, the class map last, and delete the folder.

        Args:
            outputs: Where they go.
            stale: Files of an older map that would be taken for this one's; they are deleted.

        Raises:
            OutputError: A file cannot be moved.
        """
        target = outputs.class_map.parent
        try:
            if self.staging.exists():  # all that is made is still together: what lacks here is an older map's there
                for name in [outputs.layer(layer).name + ending for layer in outputs.layers for ending in STALE]:
                    if not (self.staging / name).exists():
                        (target / name).unlink(missing_ok=True)
                self.staging.rename(self.done)
            for path in stale:
                for ending in ("", *STALE):
                    path.with_name(path.name + ending).unlink(missing_ok=True)
            waiting = sorted(path for path in self.done.iterdir() if path.name != outputs.class_map.name)
            for path in (*waiting, self.done / outputs.class_map.name):
                if path.exists():
                    path.replace(target / path.name)
        except OSError as error:
            raise OutputError(f"{outputs.class_map} cannot be put in place: {error.strerror or error}") from error
        self._clear()

    def _clear(self) -> None:
        """Delete the folder in steps after which a run that comes next still knows that all is done."""
        for path in self.path.glob("*block-*"):
            path.unlink(missing_ok=True)
        old = beside(self.path, "old")
        shutil.rmtree(old, ignore_errors=True)
        self.path.rename(old)
        shutil.rmtree(old, ignore_errors=True)

    def write_notes(self, notes: Mapping[str, Any]) -> None:
        """Keep what is known of the complete outputs, as JSON values.

        Raises:
            OutputError: It cannot be written.
        """
        try:
            write_text(self.path / NOTES, json.dumps(dict(notes)))
        except OSError as error:
            raise OutputError(f"{self.path / NOTES} cannot be written: {error.strerror or error}") from error

    def read_notes(self) -> dict[str, Any]:
        """What `write_notes` kept."""
        found: dict[str, Any] = json.loads((self.path / NOTES).read_text())
        return found

    def discard(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.path, ignore_errors=True)


def folder_of(out: Path) -> Path:
    """The folder of the job that makes `out`."""
    return out.with_name(out.name + ".parts")


def beside(folder: Path, ending: str) -> Path:
    """A folder of a job that is not yet, or no longer, the job's."""
    return folder.with_name(f"{folder.name}.{ending}")


def is_complete(out: Path, identity: Mapping[str, Any]) -> bool:
    """Whether an earlier run of this very job put all outputs together and was stopped before the last was in place."""
    found = _read_job(folder_of(out))
    same = found is not None and found["identity"] == json.loads(json.dumps(dict(identity)))
    return same and (folder_of(out) / "done").is_dir()


def _read_job(folder: Path) -> dict[str, Any] | None:
    """What `job.json` says; None where there is none. Of another version's only that it is another job is known."""
    try:
        found = json.loads((folder / JOB).read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict) or "format" not in found or "identity" not in found:
        return None
    return found if found["format"] == FORMAT else {"identity": {"format": found["format"]}}


def refuse_polygons_style(path: Path) -> None:
    """Nothing, where no style stands or one of a raster.

    Raises:
        OutputError: It is the style of a vector layer, which the map's would take away from polygons of that name.
    """
    try:
        found = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    if "<renderer-v2" in found:
        raise OutputError(
            f"{path} is the style of polygons of that name; give the map another name, or move the style away"
        )


def _refuse_other(folder: Path, found: Mapping[str, Any] | None, wanted: Mapping[str, Any], *, overwrite: bool) -> None:
    """Nothing, where a folder may be deleted.

    Raises:
        OutputError: It holds another job's parts that are not to be overwritten, or something else.
    """
    if not folder.is_dir() or (found is None and any(folder.iterdir())):
        raise OutputError(f"{folder} is in the way and no job's folder; move it, or choose another output")
    if found is not None and not overwrite:
        old = found["identity"]
        changed = sorted(key for key in {*old, *wanted} if old.get(key) != wanted.get(key))
        raise OutputError(
            f"{folder} holds the parts of another job (changed: {', '.join(changed)}); run with the former options to "
            "finish it, add --overwrite to start anew, or delete the folder"
        )


def write_text(path: Path, text: str) -> Path:
    """The path of a text file that appears whole."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    return temporary.replace(path)
