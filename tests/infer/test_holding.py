"""One run at a time for an output, whatever it makes, and nothing is left of its lock."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from geoseg.errors import OutputError
from geoseg.infer.holding import held, lock_of


def test_a_second_run_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    out = tmp_path / "map.tif"
    with held(out):
        with pytest.raises(OutputError, match="another run is at work on .*map; wait"), held(tmp_path / "map.tiff"):
            pass
        with held(tmp_path / "other.tif"):
            pass
    with held(out):
        pass
    assert not list(tmp_path.iterdir())


def test_a_run_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    code = (
        "import os; from pathlib import Path; from geoseg.infer.holding import held\n"
        f"with held(Path({str(tmp_path)!r}, 'map.tif')): os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert lock_of(tmp_path / "map.tif").exists()
    with held(tmp_path / "map.tif"):
        pass
    assert not list(tmp_path.iterdir())


def test_folders_that_were_made_go_where_nothing_was_put_in_them(tmp_path: Path) -> None:
    with held(tmp_path / "a" / "b" / "map.tif"):
        assert (tmp_path / "a" / "b").is_dir()
    assert not list(tmp_path.iterdir())
    with held(tmp_path / "a" / "b" / "map.tif"):
        (tmp_path / "a" / "kept").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["kept"]


def test_a_folder_that_cannot_be_made_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be made"), held(tmp_path / "file" / "map.tif"):
        pass
