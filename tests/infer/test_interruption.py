"""A job that is killed, interrupted or out of disk keeps its finished blocks, and goes on to the same bytes."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from geoseg.errors import OutputError
from geoseg.infer import parts as parts_module
from geoseg.infer.job import Job, run_job
from geoseg.infer.parts import Plan
from geoseg.infer.scale import lattice_for
from geoseg.infer.task import SceneTask
from geoseg.io import cog
from geoseg.legend import Legend

SUPPORT = Path(__file__).parent / "support"
LEGEND = Legend.from_dict({3: "water", 7: "forest", 12: "field"})


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")
@pytest.mark.parametrize("seed", [0])
def test_a_job_killed_at_any_moment_ends_with_the_same_bytes(tmp_path: Path, seed: int) -> None:
    command = [sys.executable, str(SUPPORT / "killed_jobs.py"), str(tmp_path), "20", str(seed)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["killed"] == 20
    assert found["different"] == []
    assert found["rewritten"] == 0  # finished blocks are not made again
    assert {name for name in found["names"] if not name.startswith("map.tif.parts")} == {
        "map.confidence.tif", "map.margin.tif", "map.qml", "map.stac.json", "map.tif", "map.tif.aux.xml",
    }  # fmt: skip


def job_of(source: Any, predictor: Any, out: Path) -> Job:
    lattice = lattice_for(source.geobox.shape, tile_px=64, overlap_px=16, scale=(1.0, 1.0))
    task = SceneTask(source, predictor, LEGEND, lattice.tiling, lattice.model_shape, "hann")
    return Job(task, out, lambda kept: kept or Plan((1, 9)))


def maps(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.tif")}


@pytest.mark.parametrize("room", range(9))
def test_a_full_disk_stops_with_a_line_and_keeps_what_is_finished(
    scene: Callable[..., Any], positions: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """Room for so many files; what is written after that fails as it does on a full disk."""
    source, out, written = scene(180, 150), tmp_path / "full" / "map.tif", []
    run_job(job_of(source, positions(), tmp_path / "whole" / "map.tif"))
    write, text = cog.write_bytes, parts_module.write_text

    def full(path: Path, content: Any, writer: Any) -> Any:
        written.append(path)
        if len(written) > room:
            error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            if writer is text:
                raise error
            raise OutputError(f"{path} cannot be written: {error.strerror}") from error
        return writer(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(parts_module, "write_bytes", lambda path, content: full(path, content, write))
        patch.setattr(parts_module, "write_text", lambda path, content: full(path, content, text))
        with pytest.raises(OutputError, match="No space left on device"):
            run_job(job_of(source, positions(), out))
    assert not out.exists()
    kept = len(list(out.parent.glob("map.tif.parts/block-*.class.tif"))) if room else 0
    predictor = positions()
    result = run_job(job_of(source, predictor, out))
    assert result.resumed == kept
    assert maps(out.parent) == maps(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_leaves_a_job_that_goes_on_and_says_so(tmp_path: Path) -> None:
    code = (
        "import logging, sys; from pathlib import Path; logging.basicConfig(format='%(message)s')\n"
        f"sys.path.insert(0, {str(SUPPORT)!r}); import killed_jobs\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "scene = folder / 'scene.tif'\n"
        "scene.exists() or killed_jobs.write_scene(scene)\n"
        "killed_jobs.run(scene, folder / 'map.tif')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("map.tif.parts/block-*.class.tif")):
        time.sleep(0.01)
        assert process.poll() is None, process.communicate()[1]
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    assert process.returncode not in (0, None)
    assert "interrupted; " in said
    assert "run the same again to go on" in said
    assert not (tmp_path / "map.tif").exists()
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "map.tif").exists()
    assert not list(tmp_path.glob("map.tif.parts*"))
