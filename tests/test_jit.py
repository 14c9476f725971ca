"""What is compiled is cached, and never outlives what it was compiled of."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from geoseg import jit
from geoseg.infer.fast import loops

KERNEL = """
from geoseg.jit import jit
from package.other import FACTOR, twice

@jit
def kernel(value):
    return FACTOR * twice(value)
"""
OTHER = """
from geoseg.jit import jit

FACTOR = {factor}

@jit
def twice(value):
    return {times} * value
"""


@pytest.fixture
def kernel_of(tmp_path: Path):
    """What the kernel makes of 1, in a process of its own, where the module beside it has these numbers."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "kernels.py").write_text(KERNEL, encoding="utf-8")

    def run(*, factor: int, times: int) -> tuple[int, bool]:
        content = OTHER.format(factor=factor, times=times)
        if not (package / "other.py").exists() or (package / "other.py").read_text(encoding="utf-8") != content:
            (package / "other.py").write_text(content, encoding="utf-8")
        code = "from package.kernels import kernel; print(kernel(1), sum(kernel.stats.cache_hits.values()))"
        env = {**os.environ, "PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        found, hits = done.stdout.split()
        return int(found), int(hits) > 0

    return run


def test_a_change_to_what_a_kernel_calls_or_holds_is_noticed(kernel_of) -> None:
    assert kernel_of(factor=3, times=2) == (6, False)
    assert kernel_of(factor=3, times=2) == (6, True)
    assert kernel_of(factor=3, times=5) == (15, False)
    assert kernel_of(factor=7, times=5) == (35, False)
    assert kernel_of(factor=7, times=5) == (35, True)


def test_the_files_of_the_instructions_that_a_kernel_is_made_of_count() -> None:
    assert jit._written_in(loops.__name__) == {
        "geoseg.infer.fast.loops", "geoseg.infer.fast.products", "geoseg.infer.fast.vectors",
    }  # fmt: skip
