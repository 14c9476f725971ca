"""The folder of decoded scenes: what is kept between runs, how much of it, and who uses it now.

```
FOLDER/
  KEY/                  a decoded scene: its layers and meta.json; complete as soon as it has this name
  KEY.UNIQUE.part/      one that is being built, under locks/KEY.lock
  job-UNIQUE/           what belongs to one job alone, and claim.json: the entries that it uses or will build
  job-UNIQUE.lock       held while the job lives
  locks/                folder.lock for claims and removals, KEY.lock for builds
```

Locks go with the process that held them. So a folder whose lock is free belongs to nobody, and whoever comes next
removes it.
"""

from __future__ import annotations

import atexit
import errno
import json
import logging
import os
import secrets
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from geoseg.data.arrays import BlockArray
from geoseg.errors import GeosegError, InputError, OutputError, ReadError

GB = 2**30
META, CLAIM, STAMP = "meta.json", "claim.json", "used"
FORMAT = 2
ENDING = ".blocks"
SAMPLES, SAMPLE_BYTES = 64, 4096
POLL_S = 0.1
KEY_LETTERS = 64

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StoreOptions:
    """Where decoded scenes are kept, and how much room they may take.

    Attributes:
        folder: Where they are kept between runs; without, in a temporary folder that goes at the end.
        memory_gb: Sets up to this size, in GiB, stay in memory.
        disk_gb: Of larger sets than this, in GiB, blocks are decoded when they are needed, those used least recently
            go first. Older entries of the folder go, least recently used first, so that it stays below.
        on_error: What becomes of pixels that cannot be read: stop, or skip, which leaves them out and counts them.
    """

    folder: str | None = None
    memory_gb: float = 4.0
    disk_gb: float = 100.0
    on_error: Literal["stop", "skip"] = "stop"

    def __post_init__(self) -> None:
        for name, least in (("memory_gb", 0.0), ("disk_gb", 0.0)):
            given = getattr(self, name)
            if not given >= least:
                raise InputError(f"data.store.{name} is {given}: needed is a size in GiB from {least:g} on")
        if self.on_error not in ("stop", "skip"):
            raise InputError(f"data.store.on_error is '{self.on_error}'; known are stop, skip")


@contextmanager
def writing(folder: Path, need: int = 0) -> Iterator[None]:
    """Whatever cannot be written in the folder becomes one line.

    Raises:
        OutputError: Something could not be written.
    """
    try:
        yield
    except GeosegError:
        raise
    except OSError as error:
        raise OutputError(_why(folder, need, error)) from error


def _why(folder: Path, need: int, error: OSError) -> str:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"the store folder {folder} cannot be written: {error.strerror or error}; "
            "name another with data.store.folder, or change its permissions"
        )
    try:
        free = f"{shutil.disk_usage(folder).free / GB:.2f} GiB are free"
    except OSError:
        free = "the disk is full"
    return (
        f"the store folder {folder} is full: {need / GB:.2f} GiB are needed and {free}; name another with "
        "data.store.folder, lower data.store.disk_gb, or make room"
    )


class Job:
    """A job's place in a folder of decoded scenes, its own temporary folder among them.

    Attributes:
        folder: Where entries are.
        own: What only this job uses; it goes when the job closes.
        keeps: Whether entries are kept for other jobs.
    """

    def __init__(self, folder: str | None) -> None:
        """Begins a job, and clears away what dead ones have left.

        Raises:
            OutputError: The folder cannot be written.
        """
        self.keeps = folder is not None
        self.folder = Path(folder).expanduser() if folder is not None else Path(tempfile.gettempdir())
        self._prefix = "job-" if self.keeps else "geoseg-store-"
        self._builds: dict[str, tuple[Path, Any]] = {}
        self._pid = os.getpid()
        with writing(self.folder):
            if self.keeps:
                (self.folder / "locks").mkdir(parents=True, exist_ok=True)
            self._remove_dead()
            self.own = self.folder / f"{self._prefix}{secrets.token_hex(6)}"
            self._lock = _lock(_beside(self.own))
            self._lock.acquire()
        atexit.register(self.close)  # not when it is no longer referred to: the layers may outlive it
        try:
            with writing(self.folder):
                self.own.mkdir()
        except OutputError:
            self.close()
            raise

    # -- room ----------------------------------------------------------------------------------------------------------

    def claim(self, entries: Mapping[str, int], *, own: int, limit: int) -> int:
        """Claims room on the disk, if there is enough, and removes unused entries until the folder is below the limit.

        Args:
            entries: Bytes of the entries that the job uses or will build, by key; shared with jobs that claim the same.
            own: Bytes of what is the job's alone.
            limit: Bytes that the folder may hold.

        Returns:
            Bytes that are left beside what this job and the other living ones claim; where they are below 0 nothing was
            claimed.

        Raises:
            OutputError: The folder cannot be written.
        """
        if not self.keeps:
            return limit - own - sum(entries.values())
        with writing(self.folder), _lock(self.folder / "locks" / "folder.lock").acquire(poll_interval=POLL_S):
            shared, others = self._claims()
            shared |= entries
            left = limit - others - own - sum(shared.values())
            if left >= 0:
                (self.own / CLAIM).write_text(json.dumps({"entries": dict(entries), "own": own}))
                self._make_room(keep=set(shared), room=left)
        return left

    def _claims(self) -> tuple[dict[str, int], int]:
        """Bytes of the entries that other living jobs use, by key, and bytes of what is theirs alone."""
        shared: dict[str, int] = {}
        alone = 0
        for path in self.folder.glob(f"{self._prefix}*/{CLAIM}"):
            if path.parent == self.own:
                continue
            with suppress(OSError, ValueError):  # the job has ended meanwhile, or was killed while it claimed
                said = json.loads(path.read_text())
                if _is_held(_beside(path.parent)):
                    shared |= said["entries"]
                    alone += said["own"]
        return shared, alone

    def _make_room(self, *, keep: set[str], room: int) -> None:
        """Removes entries that nobody uses, least recently used first, until the others take no more than `room`."""
        unused = sorted(
            (_used_at(path), path)
            for path in self.folder.iterdir()
            if len(path.name) == KEY_LETTERS and path.is_dir() and path.name not in keep
        )
        sizes = {path: sum(file.stat().st_size for file in path.iterdir()) for _, path in unused}
        total = sum(sizes.values())
        for _, path in unused:
            if total <= room:
                break
            total -= sizes[path]
            logger.info("%s is removed from the store: data.store.disk_gb is reached", path.name)
            self._remove_entry(path)

    def _remove_entry(self, path: Path) -> None:
        """Removes an entry; if this is interrupted it is no entry any more."""
        gone = path.with_name(f"{path.name}.{secrets.token_hex(6)}.part")
        path.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    # -- entries -------------------------------------------------------------------------------------------------------

    def find(self, key: str) -> Path | None:
        """The folder of a complete entry, which is now the one used last; None where there is none that is sound."""
        path = self.folder / key
        if not _is_sound(path):
            return None
        with writing(self.folder):
            (path / STAMP).touch()
        return path

    def begin(self, key: str, *, wait: bool) -> Path | None:
        """A new folder to build an entry in.

        Args:
            key: The entry.
            wait: Whether to wait for another job that builds it.

        Returns:
            None where another job builds it now, or has built it.

        Raises:
            OutputError: The folder cannot be written.
        """
        lock = _lock(self.folder / "locks" / f"{key}.lock")
        with writing(self.folder):
            try:
                lock.acquire(timeout=-1 if wait else 0, poll_interval=POLL_S)
            except Timeout:
                return None
            if self.find(key) is not None:
                lock.release()
                return None
            for stale in self.folder.glob(f"{key}.*.part"):
                shutil.rmtree(stale, ignore_errors=True)
            part = self.folder / f"{key}.{secrets.token_hex(6)}.part"
            self._builds[key] = part, lock
            part.mkdir()
        return part

    def finish(self, key: str, meta: Mapping[str, Any]) -> Path:
        """Puts a built entry in its place.

        Args:
            key: The entry.
            meta: What is known of it, as JSON values.

        Returns:
            Its folder.

        Raises:
            OutputError: It cannot be written.
        """
        part, lock = self._builds[key]
        place = self.folder / key
        with writing(self.folder):
            layers = {path.name: [path.stat().st_size, _sample(path)] for path in sorted(part.glob(f"*{ENDING}"))}
            (part / META).write_text(json.dumps({**meta, "format": FORMAT, "layers": layers}, indent=2) + "\n")
            (part / STAMP).touch()
            if place.exists():  # it was there and not sound
                self._remove_entry(place)
            part.rename(place)
        del self._builds[key]
        lock.release()
        return place

    def keep_to_itself(self, key: str, place: Path) -> Path:
        """Moves an entry that is not fit for others to a place among the job's own files."""
        part, lock = self._builds.pop(key)
        with writing(self.folder):
            part.rename(place)
        lock.release()
        return place

    # -- the end -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Removes what is the job's alone and lets others have the rest; a second call does nothing."""
        atexit.unregister(self.close)
        if os.getpid() != self._pid:  # a process that was forked must not end its parent's job
            return
        for part, lock in self._builds.values():
            shutil.rmtree(part, ignore_errors=True)
            lock.release()
        self._builds.clear()
        shutil.rmtree(self.own, ignore_errors=True)
        if self._lock.is_locked:
            with suppress(OSError):
                _beside(self.own).unlink()
            self._lock.release()

    def _remove_dead(self) -> None:
        """Removes the folders of jobs and builds whose process is gone."""
        for path in self.folder.glob(f"{self._prefix}*.lock"):
            with suppress(OSError), _free(path):
                shutil.rmtree(path.with_suffix(""), ignore_errors=True)
                path.unlink()
        for part in self.folder.glob("*.part") if self.keeps else ():
            with suppress(OSError), _free(self.folder / "locks" / f"{part.name.split('.')[0]}.lock"):
                shutil.rmtree(part, ignore_errors=True)


def _beside(own: Path) -> Path:
    """The lock of a job's folder."""
    return own.with_name(f"{own.name}.lock")


def _lock(path: Path) -> FileLock:
    return FileLock(path, thread_local=False)


@contextmanager
def _free(path: Path) -> Iterator[None]:
    """Holds a lock that nobody holds.

    Raises:
        OSError: Somebody holds it, or it cannot be opened; Timeout is one.
    """
    with _lock(path).acquire(timeout=0):
        yield


def _is_held(path: Path) -> bool:
    try:
        with _free(path):
            return False
    except OSError:
        return True


def _used_at(entry: Path) -> int:
    try:
        return (entry / STAMP).stat().st_mtime_ns
    except OSError:
        return 0


def _sample(path: Path) -> int:
    """A checksum of pieces of a file, spread evenly: all of it would have to be read for more."""
    found = 0
    size = path.stat().st_size
    with path.open("rb") as file:
        for number in range(SAMPLES):
            file.seek(max(0, size - SAMPLE_BYTES) * number // (SAMPLES - 1))
            found = zlib.crc32(file.read(SAMPLE_BYTES), found)
    return found


def _is_sound(entry: Path) -> bool:
    """Whether an entry is there, with all its layers whole and, as far as a sample shows, as they were written."""
    try:
        meta = json.loads((entry / META).read_text())
        for name, (size, sample) in meta["layers"].items():
            BlockArray.open(entry / name)
            if (entry / name).stat().st_size != size or _sample(entry / name) != sample:
                raise ReadError(f"{entry / name} is not what was written")
        return bool(meta["format"] == FORMAT)
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("the entry %s of the store is damaged and built anew: %s", entry.name, error)
        return False


def entry_meta(entry: Path) -> dict[str, Any]:
    """What an entry says of itself."""
    found: dict[str, Any] = json.loads((entry / META).read_text())
    return found
