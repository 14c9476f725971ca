"""Products of matrices by blocks are those by numpy, whatever the block."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from geoseg.infer.fast.products import (
    NARROW_ROWS,
    STEPS,
    WIDE_ROWS,
    WIDE_VECTORS,
    block_shape,
    narrow_rows,
    rows_of,
    target_has,
    wide_rows,
)
from geoseg.infer.fast.vectors import LANES


def multiplier(panel_rows: Any, vectors: int) -> Any:
    columns = vectors * LANES

    @numba.njit
    def multiply(a: Any, panels: Any, out: Any, count: int) -> None:
        depth, width = panels.shape[1], out.shape[1]
        for panel in range(len(panels)):
            panel_rows(
                np.uint64(a.ctypes.data), np.uint64(4 * a.shape[1]), np.uint64(panels[panel].ctypes.data),
                np.uint64(out.ctypes.data) + np.uint64(4 * panel * columns), np.uint64(4 * width), np.uint64(depth),
                np.uint64(count),
            )  # fmt: skip

    return multiply


BLOCKS = {
    (WIDE_ROWS, WIDE_VECTORS): multiplier(wide_rows, WIDE_VECTORS),
    (NARROW_ROWS, 1): multiplier(narrow_rows, 1),
    (6, 1): multiplier(rows_of(6, 1), 1),  # that of processors with few registers
}


def numbers(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("block", BLOCKS)
@given(
    count=st.integers(1, 40), depth=st.integers(1, 12).map(lambda steps: STEPS * steps), panels=st.integers(1, 3),
    beside=st.integers(0, 5), seed=st.integers(0, 99),
)  # fmt: skip
def test_a_product_is_the_one_by_numpy(  # noqa: PLR0917 - drawn by hypothesis
    block: tuple[int, int], count: int, depth: int, panels: int, beside: int, seed: int
) -> None:
    rows, vectors = block
    made = -(-count // rows) * rows
    a, b = numbers(seed, made, depth + beside), numbers(seed + 1, panels, depth, vectors * LANES)
    out = np.full((made + 1, panels * vectors * LANES), np.nan, np.float32)
    BLOCKS[block](a, b, out, count)
    wanted = np.concatenate([a[:, :depth].astype(np.float64) @ panel for panel in b], axis=1)
    size = np.concatenate([np.abs(a[:, :depth]).astype(np.float64) @ np.abs(panel) for panel in b], axis=1)
    assert (np.abs(out[:-1] - wanted) <= 1e-6 * size + 1e-12).all()
    assert np.isnan(out[-1]).all(), "nothing is written behind the last block"


@pytest.mark.parametrize(("told", "has"), [("+avx2,+fma", True), ("-fma", False), ("", False)])
def test_what_numba_is_told_of_a_processor_counts(monkeypatch: pytest.MonkeyPatch, told: str, has: bool) -> None:
    monkeypatch.setattr(numba.config, "CPU_FEATURES", told)
    assert target_has("fma") is has


@pytest.mark.parametrize("width", [16, 32, 48, 64, 96, 160])
def test_blocks_fill_a_result(width: int) -> None:
    rows, vectors = block_shape(width)
    assert width % (vectors * LANES) == 0
    assert (rows, vectors) in BLOCKS
