"""Several processes make the same bytes as one, and what befalls one of them ends well."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import rasterio
import torch
from affine import Affine
from torch import nn

from geoseg.errors import InputError, OutputError, ReadError, WorkerError
from geoseg.infer.executors import EXECUTORS, Crew
from geoseg.infer.kernels import thread_count
from geoseg.infer.predictor import TorchModel
from geoseg.infer.processes import Worker
from geoseg.infer.scene import PredictOptions, predict_scene
from geoseg.infer.spawning import check_device, environments, loaded, needs_main, packed
from geoseg.io.sources import open_source
from geoseg.legend import Legend
from geoseg.models.card import BandInfo, ModelCard
from geoseg.models.spec import ModelSpec

SUPPORT = Path(__file__).parent / "support"
if str(SUPPORT) not in sys.path:
    sys.path.append(str(SUPPORT))  # spawned processes import from here too
fakes = import_module("crew_fakes")

CELLS = (2, 4)
PIXELS = 700 * 300


def made(tmp_path: Path, engine: str, *, devices: int = 2, keep: dict[str, Any] | None = None, **network: Any) -> Any:
    """The keeper after a run."""
    task = fakes.task_of(tmp_path / engine / "diary", **network)
    keeper = fakes.keeper_in(tmp_path / engine / "parts", **(keep or {}))
    told: list[int] = []
    EXECUTORS[engine](
        task, task.tiling.blocks(cells=CELLS), crew=Crew(engine, devices), keep=keeper, progress=told.append
    )
    assert min(told) >= 0
    assert sum(told) == PIXELS
    return keeper


def gone(pids: list[int]) -> bool:
    """Whether all processes end within ten seconds."""
    deadline = time.monotonic() + 10
    while any(running(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(running(pid) for pid in pids)


def running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def serial_parts(tmp_path: Path) -> dict[str, bytes]:
    parts = fakes.parts_in(made(tmp_path, "serial"))
    assert len(parts) == 16 * 6
    return parts


@pytest.mark.parametrize("devices", [1, 3])
def test_the_parts_are_those_of_a_serial_run_and_each_process_loads_once(
    tmp_path: Path, serial_parts: dict[str, bytes], devices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    keeper = made(tmp_path, "processes", devices=devices)
    assert fakes.parts_in(keeper) == serial_parts
    assert keeper.kept == list(range(16))
    diary = tmp_path / "processes" / "diary"
    loads = [path.read_text() for path in diary.glob("*.loads")]
    assert loads == [f"{max(1, thread_count() // devices)} None\n"] * devices
    assert "OMP_NUM_THREADS" not in os.environ
    assert os.getpid() not in fakes.processes_in(diary)
    assert gone(fakes.processes_in(diary))


def test_a_process_that_is_killed_costs_the_blocks_at_hand(
    tmp_path: Path, serial_parts: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    keeper = made(tmp_path, "processes", trouble="kill", row=300)
    assert fakes.parts_in(keeper) == serial_parts
    counts = Counter(keeper.kept)
    assert set(counts) == set(range(16))
    assert counts.total() <= 17  # one may have been kept in the very moment
    assert "SIGKILL" in caplog.text
    assert "made by the others" in caplog.text
    assert len(fakes.processes_in(tmp_path / "processes" / "diary")) == 2


def test_processes_that_are_killed_one_after_the_other_end_the_job_with_a_line(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"SIGKILL.*fewer --devices.*no worker is left") as found:
        made(tmp_path, "processes", trouble="always", row=300)
    assert "\n" not in str(found.value)
    assert gone(fakes.processes_in(tmp_path / "processes" / "diary"))


@pytest.mark.parametrize(("trouble", "seen", "message"), [
    ({"trouble": "stop", "error": ReadError("scene.tif is cut off")}, ReadError, "^scene.tif is cut off$"),
    ({"trouble": "stop", "error": ZeroDivisionError("far off")}, ZeroDivisionError, "^far off\nIn a worker process:"),
    ({"trouble": "odd"}, WorkerError, "^a worker failed with OddError: onetwo$"),
])  # fmt: skip
def test_an_error_comes_out_as_what_it_was_and_ends_all(
    tmp_path: Path, trouble: dict[str, Any], seen: type[Exception], message: str
) -> None:
    with pytest.raises(seen, match=message) as found:
        made(tmp_path, "processes", row=300, **trouble)
    assert type(found.value) is seen
    keeper = fakes.keeper_in(tmp_path / "processes" / "parts")
    assert 0 < len(keeper.kept) < 16
    assert gone(fakes.processes_in(tmp_path / "processes" / "diary"))


def test_an_error_of_writing_comes_out(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="^the disk is full$"):
        made(tmp_path, "processes", keep={"error": OutputError("the disk is full")})


def test_what_a_process_logs_reaches_the_log_here(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made(tmp_path, "processes", devices=1, trouble="warn", row=600)
    assert ("geoseg.fakes", logging.WARNING, "seen by a worker") in caplog.record_tuples


def locked() -> Any:
    return multiprocessing.RLock()


class Locked:
    """A network with a library that makes a lock when it is loaded."""

    def __reduce__(self) -> tuple[Callable[[], Any], tuple[()]]:
        return locked, ()


def test_locks_of_libraries_leave_no_name_behind_where_a_process_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    named: list[str] = []
    monkeypatch.setattr(resource_tracker, "register", lambda name, _: named.append(name))
    monkeypatch.setattr(resource_tracker, "unregister", lambda name, _: named.remove(name))
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)  # as in a process that is spawned
    try:
        lock = loaded(packed(Locked()))
        assert multiprocessing.get_start_method() == "spawn"
    finally:
        multiprocessing.set_start_method(before, force=True)
    assert lock.acquire(timeout=1)
    assert not named


def test_what_cannot_be_pickled_is_told_before_any_process_starts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be sent.*--engine serial"):
        made(tmp_path, "processes", error=lambda: None)


SCRIPT = """
import sys, os
from pathlib import Path
sys.path.append({support!r})
import crew_fakes as fakes
from geoseg.infer.executors import EXECUTORS, Crew
{extra}
def main():
    task = fakes.task_of(Path({diary!r}), {network})
    keeper = fakes.keeper_in(Path({parts!r}))
    EXECUTORS["processes"](
        task, task.tiling.blocks(cells=(1, 1)), crew=Crew("processes", {devices}), keep=keeper, progress=lambda _: None
    )
{call}
"""


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts a script that makes blocks in two processes."""

    def start(*, network: str = "", extra: str = "", call: str = "main()", devices: int = 2) -> subprocess.Popen[str]:
        (tmp_path / "script.py").write_text(SCRIPT.format(
            support=str(SUPPORT), diary=str(tmp_path / "diary"), parts=str(tmp_path / "parts"), network=network,
            extra=extra, call=call, devices=devices,
        ))  # fmt: skip
        return subprocess.Popen(
            [sys.executable, tmp_path / "script.py"], stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    return start


def wait_for_parts(tmp_path: Path) -> list[int]:
    """The worker processes, once something is finished."""
    deadline = time.monotonic() + 30
    while not (tmp_path / "parts" / "kept").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    pids: list[int] = fakes.processes_in(tmp_path / "diary")
    assert all(running(pid) for pid in pids)
    return pids


def test_ctrl_c_ends_all_processes_quietly_and_keeps_what_is_finished(
    script: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    # The script lacks a guard around its call, which does no harm.
    with script(network="pause_s=0.05") as process:
        pids = wait_for_parts(tmp_path)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT
    assert said.count("Traceback") == 1
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert gone(pids)
    assert fakes.keeper_in(tmp_path / "parts").kept


def test_no_process_outlives_a_parent_that_is_killed(
    script: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    with script(network="pause_s=0.3") as process:
        pids = wait_for_parts(tmp_path)
        process.kill()
        assert gone(pids)


def test_a_network_that_a_script_defines_itself_is_found(
    script: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    extra = "class Own(ValueError): pass\n"
    with script(network="error=Own()", extra=extra, call='if __name__ == "__main__": main()', devices=1) as process:
        _, said = process.communicate(timeout=30)
    assert process.returncode == 0, said


def test_a_process_that_ends_before_it_begins_says_what_may_be_missing() -> None:
    class Ended:
        exitcode = 1

        def join(self, timeout: float) -> None:
            pass

    ended = Worker(1, Ended(), None)
    assert ended.fate().startswith("ended with exit code 1 before it began")
    assert 'if __name__ == "__main__":' in ended.fate()


@pytest.fixture
def on_gpus() -> Callable[[str], Any]:
    """Makes a predictor on a device."""
    return lambda device: type("OnGpu", (), {"device": device})()


def test_each_process_sees_a_gpu_of_its_own(on_gpus: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert environments(on_gpus("cuda"), count=2) == [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, GPU-7f,2")
    several = type("Several", (), {"members": (on_gpus("cuda"), on_gpus("cuda"))})()
    assert [share["CUDA_VISIBLE_DEVICES"] for share in environments(several, count=2)] == ["4", "GPU-7f"]
    assert environments(on_gpus("cpu"), count=1) == [{}]
    with pytest.raises(InputError, match=r"devices of 4: CUDA_VISIBLE_DEVICES shows 3 GPUs; try --devices 3"):
        environments(on_gpus("cuda"), count=4)
    with pytest.raises(InputError, match="--device cuda"):
        environments(on_gpus("cuda:1"), count=2)
    assert environments(on_gpus("cuda:1"), count=1) == [{}]  # which it goes on to find by its number


def test_a_process_without_a_gpu_says_so(on_gpus: Callable[[str], Any]) -> None:
    check_device(on_gpus("cuda:0"), kind="cuda", workers=2)
    with pytest.raises(InputError, match="devices of 2: a worker finds no GPU"):
        check_device(on_gpus("cpu"), kind="cuda", workers=2)


def test_only_what_the_script_defines_needs_the_script() -> None:
    assert needs_main(b"\x8c\x08__main__\x94")
    assert not needs_main(b"\x8c\x04main\x94")


@pytest.mark.slow
def test_a_scene_and_a_network_of_torch_through_two_processes(tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = nn.Sequential(nn.Conv2d(2, 8, 5, padding=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1))
    bands = tuple(BandInfo(name=name, mean=100.0, std=80.0) for name in ("row", "col"))
    legend = Legend.from_dict({3: "water", 7: "forest", 12: "field"})
    card = ModelCard(
        name="test", spec=ModelSpec(bands=2, classes=3), bands=bands, legend=legend, gsd_m=(10.0, 10.0), tile_px=64,
        overlap_px=16,
    )  # fmt: skip
    profile = {"driver": "GTiff", "count": 2, "height": 300, "width": 200, "dtype": "uint16", "nodata": 65535,
               "crs": "EPSG:32633", "transform": Affine(10, 0, 500_000, 0, -10, 5_000_000)}  # fmt: skip
    with rasterio.open(tmp_path / "scene.tif", "w", **profile) as file:
        file.write(np.random.default_rng(0).integers(0, 250, (2, 300, 200)).astype(np.uint16))
        file.descriptions = ("row", "col")
    source, models = open_source(tmp_path / "scene.tif"), [TorchModel(network, card)]
    maps = []
    for devices in (1, 2):
        options = PredictOptions(crew=Crew("auto", devices), precision="fp32", batch=2, layers=("margin",))
        seen: list[tuple[int, int]] = []
        result = predict_scene(
            source, models=models, out=tmp_path / f"map{devices}.tif", options=options,
            progress=lambda done, total, seen=seen: seen.append((done, total)),
        )  # fmt: skip
        assert seen[-1] == (300 * 200, 300 * 200)
        assert seen == sorted(seen)
        with rasterio.open(result.class_map) as file, rasterio.open(result.layers["margin"]) as margin:
            maps.append((file.read(1), margin.read(1).astype(int)))
    assert len(np.unique(maps[0][0])) > 1
    # Threads may divide a convolution's sums otherwise, so the last bit of a probability may differ.
    assert (maps[0][0] != maps[1][0]).mean() < 1e-4
    assert np.abs(maps[0][1] - maps[1][1]).max() <= 1
