"""How soon is the first epoch over, from nothing?

Opening the files, reading, splitting, counting and indexing them, band statistics, and the first epoch's patches, on
our side; opening the files and the first epoch's patches on torchgeo's, which keeps no statistics. Speeds are patches
of that epoch over all seconds.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from _feeds import BANDS, PATCH_PX, Files, alternating, arguments, middle, ours, torchgeo_loader, write_files
from _run import emit

CASES = {"same grid": False, "other CRS": True}
BAR = 3.0


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--patches", type=int, default=512, help="of the epoch")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="geoseg-bench-") as name:
        files = write_files(Path(name), options.side)
        warm(files, options)
        cases = {case: measure(files, options, other=other) for case, other in CASES.items()}
    worst = min(cases, key=lambda case: cases[case]["ratio"])
    emit(
        "patches_cold", **{key: cases[worst][key] for key in ("ours", "reference", "ratio")}, unit="patches/s",
        ratio_is="ours/torchgeo in the first epoch, the worst case", better="higher", bar=BAR, worst=worst,
        cases=cases, side_px=options.side, patch_px=PATCH_PX, bands=BANDS, batch=options.batch,
        epoch_patches=options.patches, rounds=options.rounds,
    )  # fmt: skip


def warm(files: Files, options: Any) -> None:
    """Compiles what is compiled once a machine, and imports what both sides import."""
    data = ours(files, labels=files.labels, patches=options.batch, batch=options.batch, workers=0)
    list(data.train_dataloader())
    data.close()
    list(torchgeo_loader(files, labels=files.labels, patches=options.batch, batch=options.batch, workers=0))


def measure(files: Files, options: Any, *, other: bool) -> dict[str, Any]:
    """Both sides, alternating."""
    shared = {
        "labels": files.other_labels if other else files.labels, "patches": options.patches, "batch": options.batch,
        "workers": 0,
    }  # fmt: skip

    def mine() -> float:
        start = time.perf_counter()
        data = ours(files, **shared)
        count = sum(len(batch["image"]) for batch in data.train_dataloader())
        seconds = time.perf_counter() - start
        data.close()
        return count / seconds

    def theirs() -> float:
        start = time.perf_counter()
        count = sum(len(batch["image"]) for batch in torchgeo_loader(files, **shared))
        return count / (time.perf_counter() - start)

    found = alternating({"ours": mine, "torchgeo": theirs}, options.rounds)
    speeds = {side: middle(values) for side, values in found.items()}
    ratio = round(speeds["ours"] / speeds["torchgeo"], 2)
    return {"ours": speeds["ours"], "reference": speeds["torchgeo"], "ratio": ratio, "all": found}


if __name__ == "__main__":
    main()
