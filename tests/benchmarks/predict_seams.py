"""Do tile borders show in a map?

The demo's network maps a landscape that it has not seen, with Hann blending at the default tile and overlap. Compared
are the shares of neighbouring pixels whose classes differ, across tile borders and across all other lines; tiles side
by side without overlap stand beside it.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from _run import emit

import geoseg
from geoseg.demo import config, write_landscape

TRAIN_SEED, TEST_SEED = 0, 7
KINDS = {"hann": {}, "flat": {"blend": "flat"}, "side_by_side": {"overlap_px": 0}}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=3072)
    parser.add_argument("--model", type=Path, help="a model file, instead of training one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="geoseg-bench-") as name:
        folder = Path(name)
        model = (
            options.model
            or geoseg.fit(config(*write_landscape(folder, seed=TRAIN_SEED), out=folder / "run", seed=TRAIN_SEED)).model
        )
        (folder / "unseen").mkdir()
        scene, _ = write_landscape(folder / "unseen", seed=TEST_SEED, shape=(options.side, options.side))
        found = {
            kind: geoseg.predict(str(scene), model=model, out=folder / f"{kind}.tif", check_seams=True, **more).seams
            for kind, more in KINDS.items()
        }
    hann = found["hann"]
    emit(
        "predict_seams", ours=round(hann.border_rate, 5), reference=round(hann.interior_rate, 5),
        ratio=round(1 + hann.excess, 4), unit="share of neighbouring pixels of two classes",
        ratio_is="at tile borders/elsewhere", better="lower", bar=1.1, side=options.side,
        z_score=round(hann.z_score, 2), ratios={kind: round(1 + item.excess, 4) for kind, item in found.items()},
        border_pairs=hann.border_pairs,
    )  # fmt: skip


if __name__ == "__main__":
    main()
