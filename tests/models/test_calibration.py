"""Calibration error against torchmetrics, and sums of counts."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_calibration_error

from geoseg.models.calibration import LEVELS, Reliability


def drawn(seed: int):
    rng = np.random.default_rng(seed)
    level = rng.integers(0, LEVELS, 5000).astype(np.uint8)
    return level, rng.random(5000) < (level / 255) ** 2


@pytest.mark.parametrize("bins", [5, 15])
def test_the_error_is_that_of_torchmetrics(bins):
    level, right = drawn(0)
    level = level[level % 17 != 0]  # on the edge of a bin the two may differ
    right = right[: len(level)]
    expected = binary_calibration_error(torch.from_numpy(level / 255), torch.from_numpy(right).int(), n_bins=bins)
    assert Reliability.of(level, right).expected_error(bins=bins) == pytest.approx(expected.item(), abs=1e-6)


def test_counts_of_parts_add_up():
    level, right = drawn(1)
    parts = [Reliability.of(level[rows], right[rows]) for rows in (slice(0, 1234), slice(1234, None))]
    np.testing.assert_array_equal((parts[0] + parts[1]).counts, Reliability.of(level, right).counts)


def test_a_map_that_knows_what_it_knows_has_no_error():
    level = np.repeat(np.uint8([0, 255]), 100)
    assert Reliability.of(level, level == 255).expected_error() == 0
    assert np.isnan(Reliability.of(level[:0], level[:0] == 1).expected_error())
