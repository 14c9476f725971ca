"""How long does each step of the demo take, and what does the network buy over a per-pixel baseline?"""

from __future__ import annotations

import json

from _run import ROOT, emit, geoseg


def main() -> None:
    folder = ROOT / "runs" / "demo"
    whole = geoseg("demo", "--out", folder, "--overwrite")
    found = json.loads((folder / "demo.json").read_text())
    emit(
        "demo",
        ours=round(found["mean_iou"], 4),
        reference=round(found["baseline_mean_iou"], 4),
        ratio=round(found["mean_iou"] / found["baseline_mean_iou"], 3),
        unit="mean IoU on the held-out east",
        ratio_is="network/random forest on single pixels",
        better="higher",
        seconds=found["seconds"],
        whole=whole,
    )


if __name__ == "__main__":
    main()
