"""The folder of a job: what it makes, which blocks are finished, and the step from parts to outputs.

`map.tif.parts` stands beside `map.tif` while the job runs. A block is finished when its two parts are there; the
outputs are finished when the folder `done` is there, and then only have to be moved to their places. Every step is a
rename, so the job can be stopped between any two.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from geoseg.errors import OutputError
from geoseg.tiling import Block

FORMAT = 1
STALE = (".aux.xml", ".ovr")  # what GDAL keeps beside a raster


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where the outputs of a job stand: the class map, and what lies beside it."""

    class_map: Path

    @property
    def confidence(self) -> Path:
        """The confidence map."""
        return self.class_map.with_name(f"{self.class_map.stem}.confidence.tif")

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
        """All four, the class map first."""
        return self.class_map, self.confidence, self.style, self.item

    def within(self, folder: Path) -> Outputs:
        """The same names in another folder."""
        return Outputs(folder / self.class_map.name)


@dataclass(frozen=True, slots=True)
class JobFolder:
    """The parts of one job.

    Attributes:
        path: The folder.
        cells: Lattice cells of a block, down and across.
        created: When the job began, as ISO 8601.
        made: Folders above it that were made for it.
    """

    path: Path
    cells: tuple[int, int]
    created: str
    made: tuple[Path, ...] = ()

    @classmethod
    def claim(
        cls, out: Path, *, identity: Mapping[str, Any], cells: tuple[int, int], created: str, overwrite: bool
    ) -> JobFolder:
        """The folder for a job with this output: a new one, or the one that an earlier run of the same job left.

        Args:
            out: The class map.
            identity: What makes it this job, as JSON values: the same again gives the same map.
            cells: Lattice cells of a block, for a new job; an earlier run's are kept.
            created: The time, for a new job.
            overwrite: Whether another job's parts may be deleted.

        Raises:
            OutputError: The folder cannot be made, or holds another job's parts.
        """
        folder = folder_of(out)
        wanted = json.loads(json.dumps(dict(identity)))
        found = _read_job(folder)
        if found and found["identity"] == wanted:
            return cls(folder, (found["cells"][0], found["cells"][1]), found["created"])
        if folder.exists():
            _clear(folder, found, wanted, overwrite=overwrite)
        made = tuple(parent for parent in folder.absolute().parents if not parent.exists())
        try:
            folder.mkdir(parents=True)
            job = {"format": FORMAT, "identity": wanted, "cells": cells, "created": created}
            write_text(folder / "job.json", json.dumps(job, indent=2) + "\n")
        except OSError as error:
            cls(folder, cells, created, made).discard()
            raise OutputError(f"{folder} cannot be made: {error.strerror or error}; choose another folder") from error
        return cls(folder, cells, created, made)

    def part(self, block: Block, kind: str) -> Path:
        """The file of a block's `class` or `confidence`."""
        return self.path / f"block-{block.index:06d}.{kind}.tif"

    def is_finished(self, block: Block) -> bool:
        """Whether both parts of a block are there."""
        return self.part(block, "class").exists() and self.part(block, "confidence").exists()

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

    def publish(self, outputs: Outputs) -> None:
        """Move the complete outputs to their places, the class map last, and delete the folder.

        Raises:
            OutputError: A file cannot be moved.
        """
        target = outputs.class_map.parent
        try:
            if self.staging.exists():
                self.staging.rename(self.done)
            waiting = sorted(path for path in self.done.iterdir() if path.name != outputs.class_map.name)
            for raster in (outputs.class_map, outputs.confidence):
                for ending in STALE:
                    if not (self.done / (raster.name + ending)).exists():
                        (target / (raster.name + ending)).unlink(missing_ok=True)
            for path in (*waiting, self.done / outputs.class_map.name):
                if path.exists():
                    path.replace(target / path.name)
        except OSError as error:
            raise OutputError(f"{outputs.class_map} cannot be put in place: {error.strerror or error}") from error
        shutil.rmtree(self.path, ignore_errors=True)

    def discard(self) -> None:
        """Delete the folder, and the folders that were made for it."""
        shutil.rmtree(self.path, ignore_errors=True)
        for parent in self.made:
            if parent.exists() and not any(parent.iterdir()):
                parent.rmdir()


def folder_of(out: Path) -> Path:
    """The folder of the job that makes `out`."""
    return out.with_name(out.name + ".parts")


def is_complete(out: Path, identity: Mapping[str, Any]) -> bool:
    """Whether an earlier run of this very job put all outputs together and was stopped before the last was in place."""
    found = _read_job(folder_of(out))
    same = found is not None and found["identity"] == json.loads(json.dumps(dict(identity)))
    return same and (folder_of(out) / "done").is_dir()


def _read_job(folder: Path) -> dict[str, Any] | None:
    """What `job.json` says; None where there is none that this version understands."""
    try:
        found = json.loads((folder / "job.json").read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("format") == FORMAT else None


def _clear(folder: Path, found: Mapping[str, Any] | None, wanted: Mapping[str, Any], *, overwrite: bool) -> None:
    """Delete another job's parts where that is allowed.

    Raises:
        OutputError: It is not.
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
    shutil.rmtree(folder)


def write_text(path: Path, text: str) -> Path:
    """The path of a text file that appears whole."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    return temporary.replace(path)


def paths_in(source: Any) -> list[str]:
    """Paths and addresses that a source reads, in order: the `path` of it and of all sources within it."""
    if isinstance(source, Sequence) and not isinstance(source, str):
        return _unique(path for member in source for path in paths_in(member))
    if not is_dataclass(source):
        return []
    values = {item.name: getattr(source, item.name) for item in fields(source)}
    own = [str(values["path"])] if isinstance(values.get("path"), str | Path) else []
    return _unique([*own, *(path for value in values.values() for path in paths_in(value))])


def _unique(paths: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(paths))


def file_stamps(paths: Iterable[str]) -> dict[str, list[int] | None]:
    """Size and time of change (ns) of each path; None for what is no local file."""
    stamps: dict[str, list[int] | None] = {}
    for path in paths:
        try:
            stat = Path(path).stat()
            stamps[path] = [stat.st_size, stat.st_mtime_ns]
        except (OSError, ValueError):
            stamps[path] = None
    return stamps
