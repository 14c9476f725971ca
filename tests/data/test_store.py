"""The folder of decoded scenes: what gets which name, who may use how much of it, and what the dead leave behind."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shapely.geometry import box

from geoseg.data import store as store_module
from geoseg.data.arrays import BlockArray
from geoseg.data.keys import stable_key
from geoseg.data.store import GB, Job, StoreOptions, writing
from geoseg.errors import InputError, OutputError
from geoseg.io.combine import BandStack
from geoseg.io.gdal import GdalSource
from geoseg.io.regions import open_area
from geoseg.legend import Legend

KEYS = [letter * 64 for letter in "abcdef"]


# -- options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [{"memory_gb": -1}, {"disk_gb": float("nan")}, {"on_error": "nodata"}])
def test_options_that_make_no_sense_are_refused(wrong):
    with pytest.raises(InputError, match=f"data.store.{next(iter(wrong))}"):
        StoreOptions(**wrong)


# -- names -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tuned:
    """A frozen value of another package."""

    file: str
    strength: float = 1.0
    inner: Any = None


def test_the_same_values_have_the_same_key_and_others_another(tmp_path, grid):
    path = tmp_path / "a.tif"
    path.write_bytes(b"a")
    legend = Legend.from_dict({1: "water", 2: "land"})
    square = open_area({"bbox": [500_000, 5_199_500, 500_400, 5_200_000]}, grid(100, 100))
    variants = [
        {"image": GdalSource(str(path))},
        {"image": GdalSource(str(path), nodata=0)},
        {"image": GdalSource(str(path), nodata=0.0, scale=2)},
        {"image": BandStack((GdalSource(str(path)),))},
        {"image": Tuned(str(path))},
        {"image": Tuned(str(path), 1.5)},
        {"image": Tuned(str(path), inner=(np.dtype("uint8"), None))},
        {"grid": grid(100, 100)},
        {"grid": grid(100, 101)},
        {"grid": grid(100, 100, west=500_000.001)},
        {"legend": legend},
        {"legend": legend.merged_ignore(77)},
        {"area": None},
        {"area": square},
        {"area": open_area({"rows": [0, 50]}, grid(100, 100))},
    ]
    keys = [stable_key(parts) for parts in variants]
    assert None not in keys
    assert len(set(keys)) == len(keys)
    assert keys == [stable_key(parts) for parts in variants]
    again = open_area({"bbox": [500_000, 5_199_500, 500_400, 5_200_000]}, grid(100, 100))
    assert stable_key({"area": again}) == stable_key({"area": square})


@pytest.mark.parametrize("change", ["content", "time", "aux", "world file", "vrt"])
def test_a_changed_file_has_another_key(tmp_path, change):
    path = tmp_path / ("a.vrt" if change == "vrt" else "a.tif")
    member = tmp_path / "member.tif"
    member.write_bytes(b"m")
    path.write_text(
        '<VRTDataset rasterXSize="1" rasterYSize="1"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        '<SourceFilename relativeToVRT="1">member.tif</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>'
    )
    source = Tuned("", inner=[GdalSource(str(path))])
    before = stable_key({"image": source})
    if change == "content":
        path.write_bytes(b"ab")
    elif change == "time":
        os.utime(path, ns=(1, 1))
    else:
        {"aux": tmp_path / "a.tif.aux.xml", "world file": tmp_path / "a.tfw", "vrt": member}[change].write_text("new")
    assert stable_key({"image": source}) != before


def test_files_count_whatever_the_field_is_called_and_wherever_they_lie(tmp_path):
    cube, archive = tmp_path / "cube.zarr", tmp_path / "a.zip"
    (cube / "b1").mkdir(parents=True)
    archive.write_bytes(b"zip")
    for name, path, changed in [
        (str(cube), cube / "b1" / "0.0", cube / "b1" / "0.0"),
        (f"/vsizip/{archive}/inner.tif", archive, archive),
        (f'NETCDF:"{tmp_path / "c.nc"}":ndvi', tmp_path / "c.nc", tmp_path / "c.nc"),
        (str(tmp_path / "fields.shp"), tmp_path / "fields.shp", tmp_path / "fields.dbf"),
    ]:
        path.write_bytes(b"x")
        before = stable_key({"labels": Tuned(name)})
        assert before == stable_key({"labels": Tuned(name)})
        changed.write_bytes(b"longer")
        assert stable_key({"labels": Tuned(name)}) != before, name


def test_what_lies_behind_an_address_is_told_by_the_address_alone():
    one, other = (stable_key({"image": GdalSource(f"https://localhost/{name}.tif")}) for name in "ab")
    assert one is not None
    assert one != other


@dataclass
class Thawed:
    """A value that may change after it was named."""

    file: str = "a"


@pytest.mark.parametrize(
    "value", [np.zeros(3), object(), Thawed(), len, Tuned("a", inner=np.zeros(3)), box(0, 0, 1, 1)]
)
def test_what_cannot_be_described_has_no_key(value):
    assert stable_key({"image": value}) is None


def test_a_folder_of_too_many_files_is_not_described(tmp_path, monkeypatch):
    for number in range(4):
        (tmp_path / f"{number}.tif").touch()
    assert stable_key({"image": Tuned(str(tmp_path))}) is not None
    monkeypatch.setattr("geoseg.data.keys.MOST_FILES", 3)
    assert stable_key({"image": Tuned(str(tmp_path))}) is None


# -- entries -----------------------------------------------------------------------------------------------------------


def build(job: Job, key: str, *, side: int = 100) -> Path:
    """A complete entry of one layer."""
    part = job.begin(key, wait=False)
    assert part is not None
    layer = BlockArray.create(part / "pixels.blocks", shape=(side, side), dtype=np.uint8)
    layer[:, :] = np.arange(side)
    return job.finish(key, {"name": "a"})


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def begun(folder):
    """A function that begins a job in the folder; all are closed at the end."""
    jobs = []

    def begin():
        jobs.append(Job(str(folder)))
        return jobs[-1]

    yield begin
    for job in jobs:
        job.close()


def entries(folder):
    return sorted(path.name for path in folder.iterdir() if len(path.name) == 64)


def test_an_entry_is_there_when_it_is_complete_and_stays_for_the_next_job(begun, folder):
    job = begun()
    assert job.find(KEYS[0]) is None
    part = job.begin(KEYS[0], wait=False)
    assert entries(folder) == []
    assert part.name.endswith(".part")
    BlockArray.create(part / "pixels.blocks", shape=(9, 9), dtype=np.uint8)
    place = job.finish(KEYS[0], {"name": "north"})
    assert json.loads((place / "meta.json").read_text())["name"] == "north"
    job.close()
    assert begun().find(KEYS[0]) == place
    assert not list(folder.glob("*.part"))


@pytest.mark.parametrize("damage", ["cut", "zeroed", "lost layer", "no meta", "bad meta", "other format"])
def test_a_damaged_entry_is_noticed_and_built_anew(begun, folder, damage, caplog):
    job = begun()
    place = build(job, KEYS[0])
    layer, meta = place / "pixels.blocks", place / "meta.json"
    data, said = layer.read_bytes(), json.loads(meta.read_text())
    {
        "cut": lambda: layer.write_bytes(data[:-10]),
        "zeroed": lambda: layer.write_bytes(data[:4096] + bytes(len(data) - 4096)),
        "lost layer": layer.unlink,
        "no meta": meta.unlink,
        "bad meta": lambda: meta.write_text(meta.read_text()[:30]),
        "other format": lambda: meta.write_text(json.dumps({**said, "format": 0})),
    }[damage]()
    assert job.find(KEYS[0]) is None
    build(job, KEYS[0])
    assert job.find(KEYS[0]) == place
    assert layer.read_bytes() == data
    assert (damage in ("no meta", "lost layer", "other format")) or "damaged" in caplog.text


def test_while_one_builds_another_waits_and_then_finds_it(begun, folder):
    first, second = begun(), begun()
    part = first.begin(KEYS[0], wait=False)
    assert second.begin(KEYS[0], wait=False) is None
    assert second.find(KEYS[0]) is None
    BlockArray.create(part / "pixels.blocks", shape=(9, 9), dtype=np.uint8)
    first.finish(KEYS[0], {})
    assert second.begin(KEYS[0], wait=True) is None  # it is there now
    assert second.find(KEYS[0]) is not None


def test_a_job_that_closes_leaves_no_build_and_no_lock(begun, folder):
    first = begun()
    part = first.begin(KEYS[0], wait=False)
    (part / "half").touch()
    own = first.own
    first.close()
    first.close()
    assert not part.exists()
    assert not own.exists()
    assert [path.name for path in folder.iterdir()] == ["locks"]
    assert begun().begin(KEYS[0], wait=False) is not None


KILLED = """
import time
from geoseg.data.store import Job
job = Job({folder!r})
job.claim({{"a" * 64: 1000}}, own=5000, limit=10**9)
if job.keeps:
    (job.begin("b" * 64, wait=False) / "half").touch()
(job.own / "file").touch()
print(job.own.name, flush=True)
time.sleep(60)
"""


def killed_job(folder: Path | None) -> str:
    """The name of the folder of a job that was killed at its work."""
    code = KILLED.format(folder=None if folder is None else str(folder))
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    name = child.stdout.readline().strip()
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    return name


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills")
def test_what_a_killed_job_leaves_is_removed_by_the_next_one(begun, folder):
    living = begun()
    name = killed_job(folder)
    living.begin(KEYS[2], wait=False)
    assert (folder / name / "file").exists()
    assert len(list(folder.glob("*.part"))) == 2
    begun()
    assert not (folder / name).exists()
    assert [path.name[:1] for path in folder.glob("*.part")] == ["c"]  # what the living one builds
    assert living.own.exists()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills")
def test_temporary_folders_of_killed_jobs_are_removed_too(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    name = killed_job(None)
    assert (tmp_path / name / "file").exists()
    job = Job(None)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [job.own.name]
    job.close()
    assert not list(tmp_path.iterdir())


# -- room --------------------------------------------------------------------------------------------------------------


def used_at(folder, key, seconds):
    os.utime(folder / key / "used", (seconds, seconds))


def test_entries_used_least_recently_go_first_and_none_that_is_used_now(begun, folder):
    old = begun()
    for number, key in enumerate(KEYS[:4]):
        build(old, key, side=300)
        used_at(folder, key, 1000 - number)  # the first was used last
    old.close()
    size = sum(path.stat().st_size for path in (folder / KEYS[0]).iterdir())
    user, job = begun(), begun()
    assert user.claim({KEYS[3]: size}, own=0, limit=100 * size) > 0
    left = job.claim({KEYS[4]: size}, own=size, limit=5 * size)
    assert left == 2 * size
    assert entries(folder) == [KEYS[0], KEYS[1], KEYS[3]]  # 3, the oldest, is in use
    assert job.claim({KEYS[4]: size, KEYS[5]: size}, own=size, limit=4 * size) == 0
    assert entries(folder) == [KEYS[3]]


def test_finding_an_entry_is_using_it(begun, folder):
    old = begun()
    for key in KEYS[:2]:
        build(old, key)
        used_at(folder, key, 1000)
    used_at(folder, KEYS[1], 2000)
    assert old.find(KEYS[0])
    old.close()
    size = sum(path.stat().st_size for path in (folder / KEYS[0]).iterdir())
    begun().claim({}, own=0, limit=size + 10)
    assert entries(folder) == [KEYS[0]]


def test_what_other_jobs_claim_is_not_there_and_what_they_share_counts_once(begun, folder):
    one, other = begun(), begun()
    assert one.claim({KEYS[0]: 600}, own=100, limit=1000) == 300
    assert other.claim({KEYS[0]: 600}, own=100, limit=1000) == 200
    other.claim({}, own=0, limit=1000)
    assert other.claim({KEYS[1]: 600}, own=100, limit=1000) == -400  # nothing was claimed
    assert one.claim({KEYS[0]: 600}, own=300, limit=1000) == 100
    one.close()
    assert other.claim({KEYS[1]: 600}, own=100, limit=1000) == 300


# -- folders that cannot be written ------------------------------------------------------------------------------------


def test_a_file_in_the_place_of_the_folder_is_an_output_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"the store folder .*file cannot be written: .*data\.store\.folder"):
        Job(str(tmp_path / "file"))


@pytest.mark.parametrize("what", ["mkdir", "lock"])
def test_a_read_only_folder_is_an_output_error(tmp_path, monkeypatch, what):
    (tmp_path / "locks").mkdir()

    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    if what == "mkdir":
        monkeypatch.setattr(Path, "mkdir", refuse)
    else:
        monkeypatch.setattr(store_module, "_lock", refuse)
    with pytest.raises(OutputError, match="Read-only file system"):
        Job(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["locks"]


def test_a_full_folder_says_what_is_needed_and_what_is_free(tmp_path):
    with (
        pytest.raises(OutputError, match=r"is full: 3\.00 GiB are needed and .* GiB are free; .*disk_gb"),
        writing(tmp_path, 3 * GB),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(InputError), writing(tmp_path):  # what has its own line keeps it
        raise InputError("x")


def test_a_forked_process_does_not_end_the_job(begun, folder):
    if not hasattr(os, "fork"):
        pytest.skip("forks")
    job = begun()
    child = os.fork()
    if not child:
        job.close()
        os._exit(0)
    os.waitpid(child, 0)
    time.sleep(0.01)
    assert job.own.exists()
    begun()
    assert job.own.exists()  # its lock is still held
