"""The draw: shares that are met, classes that are not lost, folds that are level."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from geoseg.data.splits import choose_units, deal_folds


def some_counts(units, classes, seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 50, (units, classes)) * (rng.random((units, classes)) > 0.6)


@given(st.integers(1, 30), st.integers(1, 6), st.integers(0, 10**6), st.floats(0.05, 0.5))
def test_units_never_take_more_than_half_of_a_class(units, classes, seed, share):
    counts = some_counts(units, classes, seed)
    chosen = choose_units(counts, share=share, rng=np.random.default_rng(seed))
    assert (counts[chosen].sum(0) <= counts.sum(0) / 2 + 1e-9).all()
    assert len(set(chosen.tolist())) == len(chosen)


@given(st.integers(40, 120), st.integers(1, 5), st.integers(0, 10**6), st.floats(0.1, 0.5))
def test_many_small_units_meet_the_share_of_every_class(units, classes, seed, share):
    counts = np.random.default_rng(seed).integers(1, 50, (units, classes))
    chosen = choose_units(counts, share=share, rng=np.random.default_rng(seed))
    met = counts[chosen].sum(0) / counts.sum(0)
    assert np.abs(met - share).max() < 0.06 + 0.5 * counts.max() / counts.sum(0).min()


def test_the_best_of_two_to_the_n_choices_is_nearly_found():
    counts = some_counts(14, 4, 3) + 1
    shares = counts / counts.sum(0)
    subsets = (np.arange(2**14)[:, None] >> np.arange(14)) & 1
    missed = np.square(subsets @ shares - 0.3).sum(1)
    chosen = choose_units(counts, share=0.3, rng=np.random.default_rng(0))
    found = np.square(shares[chosen].sum(0) - 0.3).sum()
    assert found <= np.partition(missed, 2**14 // 50)[2**14 // 50]  # among the best 2 %


def test_where_every_unit_overshoots_the_smallest_is_taken():
    counts = np.array([[40], [35], [25]])
    assert choose_units(counts, share=0.05, rng=np.random.default_rng(0)).tolist() == [2]
    assert choose_units(np.array([[7]]), share=0.2, rng=np.random.default_rng(0)).size == 0
    assert choose_units(np.zeros((0, 3), int), share=0.2, rng=np.random.default_rng(0)).size == 0


@given(st.integers(2, 60), st.integers(1, 5), st.integers(0, 10**6), st.integers(2, 6))
def test_no_fold_exceeds_another_by_more_than_the_largest_unit(units, classes, seed, folds):
    counts = some_counts(units, 1, seed) + 1
    fold = deal_folds(counts, folds=folds, rng=np.random.default_rng(seed))
    held = np.bincount(fold, counts[:, 0], minlength=folds)
    assert held.max() - held.min() <= counts.max()
    if units >= folds:
        assert (held > 0).all()


@given(st.integers(0, 10**6))
def test_folds_share_every_class_alike(seed):
    counts = np.random.default_rng(seed).integers(1, 50, (120, 4))
    fold = deal_folds(counts, folds=5, rng=np.random.default_rng(seed))
    held = np.stack([counts[fold == k].sum(0) for k in range(5)]) / counts.sum(0)
    assert np.abs(held - 0.2).max() < 0.02


def test_a_class_of_few_units_is_spread_over_the_folds():
    counts = np.zeros((40, 2), int)
    counts[:, 0] = 100
    counts[[3, 8, 20, 31], 1] = 5
    fold = deal_folds(counts, folds=4, rng=np.random.default_rng(1))
    assert sorted(fold[[3, 8, 20, 31]].tolist()) == [0, 1, 2, 3]
