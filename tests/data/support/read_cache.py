"""Reads a cache of blocks at random: `python read_cache.py SEED READS`, the cache pickled on standard input."""

from __future__ import annotations

import json
import pickle
import sys

import numpy as np

from geoseg.tiling import Window


def main(seed: int, reads: int) -> None:
    cache = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the test
    rng = np.random.default_rng(seed)
    _, rows, cols = cache.shape
    wrong, missing = 0, 0
    for _ in range(reads):
        side = int(rng.integers(1, min(300, rows, cols)))
        top, left = (int(rng.integers(0, size - side + 1)) for size in (rows, cols))
        out = np.empty((cache.shape[0], side, side), cache.dtype)
        unread = cache.copy_into(out, Window(top, left, side, side))
        row, col = np.arange(top, top + side)[:, None], np.arange(left, left + side)[None]
        expected = cache.source.values(row, col)
        for place in unread:
            expected[:, place.row_off - top :, place.col_off - left :][:, : place.rows, : place.cols] = 0
            missing += place.rows * place.cols
        wrong += int((out != expected).any())
    print(json.dumps({"wrong": wrong, "missing": missing}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
