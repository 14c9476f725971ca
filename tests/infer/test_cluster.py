"""Workers of Dask make the same bytes as one process, and what befalls them ends well."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import import_module
from pathlib import Path
from typing import Any

import distributed
import psutil
import pytest

from geoseg.errors import InputError, MissingInputError, ReadError, WorkerError
from geoseg.infer import cluster, cluster_task
from geoseg.infer.cluster import check_versions
from geoseg.infer.cluster_task import Failure, Order, make_block
from geoseg.infer.executors import EXECUTORS, Crew

SUPPORT = Path(__file__).parent / "support"
if str(SUPPORT) not in sys.path:
    sys.path.append(str(SUPPORT))  # spawned processes import from here too
fakes = import_module("crew_fakes")

CELLS = (2, 4)
PIXELS = 700 * 300
QUIET = {"dashboard_address": ":0", "silence_logs": logging.CRITICAL}


def made(tmp_path: Path, crew: Crew, *, name: str = "dask", blocks: int | None = None, **network: Any) -> Any:
    """The keeper after a run."""
    task = fakes.task_of(tmp_path / name / "diary", **network)
    keeper = fakes.keeper_in(tmp_path / name / "parts")
    told: list[int] = []
    EXECUTORS[crew.engine](task, task.tiling.blocks(cells=CELLS)[:blocks], crew=crew, keep=keeper, progress=told.append)
    assert blocks is not None or sum(told) == PIXELS
    return keeper


def loads(tmp_path: Path, name: str = "dask") -> list[str]:
    """What each process that loaded the network found in its environment, a line each time."""
    return [path.read_text() for path in (tmp_path / name / "diary").glob("*.loads")]


@pytest.fixture(scope="module")
def serial_parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return fakes.parts_in(made(tmp_path_factory.mktemp("serial"), Crew("serial")))


@pytest.fixture(scope="module")
def workers() -> Iterator[distributed.LocalCluster]:
    """Two workers of three threads, started as a user would."""
    with distributed.LocalCluster(n_workers=2, threads_per_worker=3, **QUIET) as found:
        yield found


@pytest.fixture
def there(workers: distributed.LocalCluster) -> Crew:
    """A crew of those workers."""
    deadline = time.monotonic() + 20
    while len(workers.scheduler_info["workers"]) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    return Crew("dask", scheduler=workers.scheduler_address)


@pytest.mark.slow
def test_workers_on_this_machine_make_the_parts_of_a_serial_run(
    tmp_path: Path, serial_parts: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geoseg.infer.spawning.thread_count", lambda: 14)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before, script = dict(os.environ), sys.modules["__main__"]
    keeper = made(tmp_path, Crew("dask", 2))
    assert fakes.parts_in(keeper) == serial_parts
    assert loads(tmp_path) == ["7 None\n"] * 2
    assert dict(os.environ) == before
    assert sys.modules["__main__"] is script
    assert not any(psutil.pid_exists(pid) for pid in fakes.processes_in(tmp_path / "dask" / "diary"))


def test_workers_elsewhere_make_them_too_and_each_loads_once_with_all_its_threads(
    tmp_path: Path, serial_parts: dict[str, bytes], there: Crew
) -> None:
    level = logging.getLogger("distributed").level
    assert fakes.parts_in(made(tmp_path, there)) == serial_parts
    assert loads(tmp_path) == ["3 None\n"] * 2
    made(tmp_path, there, name="again", pause_s=0.001)
    assert loads(tmp_path, "again") == ["3 None\n"] * 2
    assert logging.getLogger("distributed").level == level


def test_a_worker_that_is_killed_costs_its_blocks(
    tmp_path: Path, serial_parts: dict[str, bytes], there: Crew, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = made(tmp_path, there, trouble="kill", row=300)
    assert fakes.parts_in(keeper) == serial_parts
    assert keeper.kept == list(range(16))
    assert "is gone; its blocks are made by others" in caplog.text


def test_a_block_that_kills_worker_after_worker_ends_the_job_with_a_line(tmp_path: Path, there: Crew) -> None:
    with pytest.raises(WorkerError, match=r"one after the other over rows \d+ to \d+.*memory") as found:
        made(tmp_path, there, trouble="always", row=300)
    assert "\n" not in str(found.value)


def test_errors_come_out_as_what_they_were(tmp_path: Path, there: Crew) -> None:
    with pytest.raises(ReadError, match=r"^scene.tif is cut off$") as found:
        made(tmp_path, there, trouble="stop", row=200, error=ReadError("scene.tif is cut off"))
    assert type(found.value) is ReadError
    assert 0 < len(fakes.keeper_in(tmp_path / "dask" / "parts").kept) < 16
    with pytest.raises(ZeroDivisionError, match="far off"):
        made(tmp_path, there, name="other", trouble="stop", row=200, error=ZeroDivisionError("far off"))


def test_a_scene_that_only_this_machine_has_is_told(
    tmp_path: Path, there: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("here.tif").touch()  # the workers are in another folder
    with pytest.raises(
        ReadError, match=r"here.tif is there on this machine and not on the Dask worker tcp://.*full paths"
    ):
        made(tmp_path, there, path="here.tif")
    with pytest.raises(ReadError, match=r"^nowhere.tif cannot be read$"):
        made(tmp_path, there, path="nowhere.tif")


def test_what_a_worker_warns_of_reaches_the_log_here(
    tmp_path: Path, there: Crew, caplog: pytest.LogCaptureFixture
) -> None:
    made(tmp_path, there, trouble="warn", row=600)
    assert "seen by a worker" in caplog.text


def test_an_interrupt_takes_back_what_is_under_way(
    tmp_path: Path, there: Crew, workers: distributed.LocalCluster
) -> None:
    task = fakes.task_of(tmp_path / "diary", pause_s=0.05)
    keeper = fakes.keeper_in(tmp_path / "parts")

    def interrupt(pixels: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cluster.dask(task, task.tiling.blocks(cells=CELLS), crew=there, keep=keeper, progress=interrupt)
    assert len(keeper.kept) == 1
    lines = sum(len(path.read_text().split()) for path in (tmp_path / "diary").glob("*.tiles"))
    time.sleep(1)
    later = sum(len(path.read_text().split()) for path in (tmp_path / "diary").glob("*.tiles"))
    assert later - lines <= 8  # a row of tiles for each of two workers, and what was written meanwhile
    assert not workers.scheduler.tasks


@pytest.mark.slow
def test_workers_that_join_later_are_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with distributed.LocalCluster(n_workers=0, threads_per_worker=1, **QUIET) as found:
        timers = [threading.Timer(delay, found.scale, [count]) for delay, count in ((0.3, 1), (2, 2))]
        for timer in timers:
            timer.start()
        made(tmp_path, Crew("dask", scheduler=found.scheduler_address), pause_s=0.08)
        for timer in timers:
            timer.join()
    assert "has no workers; waiting" in caplog.text
    assert len(loads(tmp_path)) == 2


@pytest.mark.slow
def test_a_scheduler_that_ends_is_told(tmp_path: Path) -> None:
    found = distributed.LocalCluster(n_workers=1, threads_per_worker=1, **QUIET)
    timer = threading.Timer(2, found.close)
    timer.start()
    with pytest.raises(WorkerError, match=r"connection to the Dask scheduler at tcp://.* is lost"):
        made(tmp_path, Crew("dask", scheduler=found.scheduler_address), pause_s=0.3)
    timer.join()


SCRIPT = """
import sys
from pathlib import Path
sys.path.append({support!r})
import crew_fakes as fakes
from geoseg.infer.cluster import dask
from geoseg.infer.executors import Crew
task = fakes.task_of(Path({folder!r}) / "diary", pause_s=0.1)
keeper = fakes.keeper_in(Path({folder!r}) / "parts")
dask(task, task.tiling.blocks(cells=(1, 1)), crew=Crew("dask", 2), keep=keeper, progress=lambda pixels: None)
"""


@pytest.mark.slow
def test_ctrl_c_ends_the_workers_on_this_machine_quietly(tmp_path: Path) -> None:
    # The script lacks a guard around its call, which does no harm.
    (tmp_path / "script.py").write_text(SCRIPT.format(support=str(SUPPORT), folder=str(tmp_path)))
    command = [sys.executable, tmp_path / "script.py"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        deadline = time.monotonic() + 40
        while not (tmp_path / "parts" / "kept").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT, said
    assert said.count("Traceback") == 1
    assert said.rstrip().endswith("KeyboardInterrupt")
    pids = fakes.processes_in(tmp_path / "diary")
    assert pids
    assert not any(psutil.pid_exists(pid) for pid in pids)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "127.0.0.1:9", "nowhere", "gopher://127.0.0.1:9"])
def test_an_address_where_nothing_answers_is_told(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "CONNECT_S", 0.5)
    with pytest.raises(MissingInputError, match=rf"no Dask scheduler answers at {address}: .*tcp://host:8786") as found:
        made(tmp_path, Crew("dask", scheduler=address))
    assert "\n" not in str(found.value)


class Silent(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture
def web_server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Silent) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"tcp://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_server_of_another_kind_is_no_scheduler(
    tmp_path: Path, web_server: str, workers: distributed.LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "CONNECT_S", 1)
    with pytest.raises(MissingInputError, match="no Dask scheduler answers"):
        made(tmp_path, Crew("dask", scheduler=web_server))
    with pytest.raises(MissingInputError, match="is a Dask worker, no scheduler"):
        made(tmp_path, Crew("dask", scheduler=next(iter(workers.scheduler_info["workers"]))))


def test_workers_of_another_version_or_none_are_named(
    tmp_path: Path, there: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    def versions(here: str, **workers: str | None) -> dict[str, Any]:
        found = {f"tcp://{name}": {"packages": {"geoseg": version}} for name, version in workers.items()}
        return {"client": {"packages": {"geoseg": here}}, "workers": found}

    check_versions(versions("1.2", a="1.2", b="1.2"))
    with pytest.raises(InputError, match=r"need geoseg 1.2.*tcp://b has 1.1, tcp://c has none; install geoseg==1.2"):
        check_versions(versions("1.2", a="1.2", b="1.1", c=None))
    with pytest.raises(InputError, match="tcp://c has none and 2 more; install"):
        check_versions(versions("1.2", a=None, b=None, c=None, d=None, e=None))
    monkeypatch.setattr(distributed.Client, "get_versions", lambda *_, **__: versions("1.2", a="1.1"))
    with pytest.raises(InputError, match="tcp://a has 1.1"):
        made(tmp_path, there)
    assert not loads(tmp_path)


def test_a_worker_of_another_version_that_joins_later_is_named(
    tmp_path: Path, there: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geoseg.__version__", "9.9")
    monkeypatch.setattr(cluster, "check_versions", lambda _: None)
    with pytest.raises(InputError, match=r"need geoseg 9.9, tcp://.* has 0.*; install geoseg==9.9"):
        made(tmp_path, there)


def test_a_worker_without_geoseg_that_joins_later_is_told() -> None:
    order = Order("", "1.2", "", 1)
    client = type("Client", (), {"loop": None})()
    library = type("Library", (), {"as_completed": staticmethod(lambda **_: None), "KilledWorker": KeyError,
                                   "CancelledError": TimeoutError})  # fmt: skip
    harvest = cluster.Harvest(library, client, b"", order)
    block = fakes.task_of(Path()).tiling.blocks(cells=CELLS)[0]
    error = harvest._explained(ModuleNotFoundError("No module named 'geoseg'", name="geoseg"), block)
    assert isinstance(error, InputError)
    assert "install geoseg==1.2" in str(error)
    other = ModuleNotFoundError("No module named 'other'", name="other")
    assert harvest._explained(other, block) is other


def test_without_distributed_one_line_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"pip install geoseg\[dask\]"):
        made(tmp_path, Crew("dask", 2))


@pytest.fixture
def as_worker(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes this process a worker of some threads."""

    def be(threads: int) -> None:
        state = type("State", (), {"nthreads": threads, "tasks": {}})
        worker = type("FakeWorker", (), {"state": state, "address": "tcp://me", "get_current_task": lambda *_: "key"})
        monkeypatch.setattr(cluster_task, "_worker", worker)
        monkeypatch.setattr(cluster_task, "_LATEST", {})
        cluster_task._take_all_threads.cache_clear()

    return be


def test_only_the_latest_network_is_kept_and_one_that_cannot_be_loaded_is_told(
    tmp_path: Path, as_worker: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    import cloudpickle

    import geoseg

    as_worker(4)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    task = fakes.task_of(tmp_path)
    block, payload = task.tiling.blocks(cells=CELLS)[0], cloudpickle.dumps(task)
    for digest in ("a", "a", "b"):
        found = make_block(payload, Order(digest, geoseg.__version__, "", 1), block)
        assert set(found.files) == {layer.name for layer in task.layers}
    assert list(cluster_task._LATEST) == ["b"]
    assert (tmp_path / f"{os.getpid()}.loads").read_text() == "8 None\n" * 2
    lost = make_block(b"cnowhere\nname\n.", Order("c", geoseg.__version__, "", 1), block)
    assert isinstance(lost, Failure)
    assert isinstance(lost.error, InputError)
    assert "No module named 'nowhere'" in str(lost.explained())
