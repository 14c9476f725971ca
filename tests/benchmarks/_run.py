"""What the benchmarks share: running the command line, measuring it, and printing JSON lines."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"


def emit(bench: str, **values: Any) -> None:
    """Print one JSON line, with versions and thread counts beside the figures."""
    about = {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        **{name: version(name) for name in ("geoseg", "torch", "rasterio", "numpy")},
    }
    print(json.dumps({"bench": bench, **values, "about": about}), flush=True)


def need_shared(bench: str) -> Path:
    """The folder of real data; ends the benchmark with a line where it is absent."""
    if not SHARED.is_dir():
        emit(bench, skipped="no ../shared/data beside the checkout")
        sys.exit(0)
    return SHARED


def geoseg(*args: str | Path) -> dict[str, float]:
    """Seconds and peak memory (MB) of one `geoseg` command, run from the project's root; its output goes to stderr."""
    command = [str(Path(sys.executable).with_name("geoseg")), *map(str, args)]
    print("$ geoseg", *args, file=sys.stderr, flush=True)
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"geoseg {args[0]} ended with {process.returncode}")
    return {"seconds": round(time.perf_counter() - start, 2), "peak_mb": round(usage.ru_maxrss / 1024)}


def scores(path: Path) -> dict[str, Any]:
    """The accuracy figures that `geoseg assess` wrote."""
    return json.loads(path.read_text())


__all__ = ["ROOT", "SHARED", "emit", "geoseg", "need_shared", "scores"]
