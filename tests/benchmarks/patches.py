"""How many patches a second reach the training loop, once the scenes have been read?

256 x 256 pixels of six bands with labels, from the same files: torchgeo's RandomGeoSampler and DataLoader open and warp
the files for each patch; ours cuts them from the decoded store. Labels on the image's grid and in another CRS, in this
process and by two workers; the store in memory and in files. Every epoch counts, also the first of a loader; reading
the scenes is `patches_cold`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from _feeds import BANDS, PATCH_PX, Files, alternating, arguments, middle, ours, rate, torchgeo_loader, write_files
from _run import emit

from geoseg.data import StoreOptions

CASES = {"0 workers": (0, False), "2 workers": (2, False), "other CRS": (0, True)}
BAR = 15.0


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--patches", type=int, default=4096, help="of an epoch of ours")
    parser.add_argument("--torchgeo-patches", type=int, default=160)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="geoseg-bench-") as name:
        files = write_files(Path(name), options.side)
        cases = {case: measure(files, options, *how) for case, how in CASES.items()}
        stored = from_files(files, options)
    worst = min(cases, key=lambda case: cases[case]["ratio"])
    emit(
        "patches", **{key: cases[worst][key] for key in ("ours", "reference", "ratio")}, unit="patches/s",
        ratio_is="ours/torchgeo, the worst case", better="higher", bar=BAR, worst=worst, cases=cases,
        from_files=stored, side_px=options.side, patch_px=PATCH_PX, bands=BANDS, batch=options.batch,
        rounds=options.rounds,
    )  # fmt: skip


def measure(files: Files, options: Any, workers: int, other: bool) -> dict[str, Any]:
    """Both sides in one case, alternating."""
    labels = files.other_labels if other else files.labels
    shared = {"labels": labels, "batch": options.batch, "workers": workers}
    data = ours(files, patches=options.patches, **shared)
    loader = data.train_dataloader()
    sides = {
        "ours": lambda: rate(lambda: loader),
        "torchgeo": lambda: rate(lambda: torchgeo_loader(files, patches=options.torchgeo_patches, **shared)),
    }
    found = alternating(sides, options.rounds)
    data.close()
    mine, theirs = middle(found["ours"]), middle(found["torchgeo"])
    return {"ours": mine, "reference": theirs, "ratio": round(mine / theirs, 1), "all": found}


def from_files(files: Files, options: Any) -> float:
    """Patches a second in this process where the store lies in files that the system has in memory."""
    shared = {"labels": files.labels, "batch": options.batch, "workers": 0}
    data = ours(files, patches=options.patches, store=StoreOptions(memory_gb=0.0), **shared)
    loader = data.train_dataloader()
    found = alternating({"files": lambda: rate(lambda: loader)}, options.rounds)
    data.close()
    return middle(found["files"])


if __name__ == "__main__":
    main()
