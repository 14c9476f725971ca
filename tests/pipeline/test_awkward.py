"""Every awkward raster ends in a map on its own grid or in one clear line: no traceback, no hang, bounded memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_awkward_raster_is_mapped_or_refused_in_one_line(shared_data: Path) -> None:
    folder = shared_data / "awkward"
    files = [line.split("\t")[0] for line in (folder / "INDEX.tsv").read_text().splitlines()[1:]]
    program = Path(__file__).with_name("map_awkward.py")
    run = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        input="\n".join(str(folder / name) for name in files),
        capture_output=True,
        text=True,
        check=False,
        timeout=580,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    *rows, last = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(rows) == len(files) >= 200
    bad = [row for row in rows if not (row["outcome"] == "map" or row["outcome"].startswith("refused: "))]
    assert not bad
    assert not [row for row in rows if "\n" in row["outcome"]]
    assert Counter(row["outcome"] == "map" for row in rows)[True] >= 50
    assert last["peak_mb"] < 2048
