"""CutMix and ClassMix: each pixel keeps the image, mask, label and shares of the one patch and place it came from."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.data.augment import ClassMixOptions, CutMixOptions
from geoseg.data.scene import IGNORE_INDEX

CUTMIX, CLASSMIX = {"cutmix": CutMixOptions(share=1.0)}, {"classmix": ClassMixOptions(share=1.0)}


def donors_of(code, side):
    """The patch that each pixel came from, once its place in it has been found to be the same."""
    size = side[0] * side[1]
    place = torch.arange(size).reshape(side)
    assert torch.equal(code % size, place.expand_as(code))
    return code // size


def others(donor):
    """For each patch: where it holds another's pixels, and which patch's."""
    for k, patch in enumerate(donor):
        pasted = patch != k
        yield k, pasted, sorted(set(patch[pasted].tolist()))


@settings(max_examples=50, deadline=None)
@given(
    count=st.integers(1, 7), rows=st.integers(2, 24), cols=st.integers(2, 24), bands=st.integers(1, 6),
    soft=st.booleans(), mix=st.sampled_from([CUTMIX, CLASSMIX]), seed=st.integers(0, 2**31),
)  # fmt: skip
def test_every_pixel_keeps_all_that_is_known_of_it(places, augment, *, count, rows, cols, bands, soft, mix, seed):
    batch = places.batch(count, bands=bands, side=(rows, cols), soft=soft)
    donor = donors_of(places.code(augment(batch, **mix, seed=seed)), (rows, cols))
    assert all(len(found) <= 1 for _, _, found in others(donor))


def test_both_after_each_other_still_keep_it(places, augment):
    batch = places.batch(8, side=(20, 20))
    donor = donors_of(places.code(augment(batch, **CUTMIX, **CLASSMIX)), (20, 20))
    assert 2 <= max(len(found) for _, _, found in others(donor)) <= 3  # a pasted piece may hold one itself


def test_a_patch_alone_is_left_as_it_is(places, augment):
    batch = places.batch(1)
    for mix in (CUTMIX, CLASSMIX):
        assert torch.equal(places.code(augment(batch, **mix)), places.code(batch))


def test_cutmix_pastes_one_rectangle_of_the_area_it_says(places, augment):
    side = (40, 50)
    batch = places.batch(60, side=side, soft=False)
    donor = donors_of(places.code(augment(batch, cutmix=CutMixOptions(share=1.0, area=(0.2, 0.6)))), side)
    areas, partners, shapes = [], [], []
    for _, pasted, found in others(donor):
        rows, cols = pasted.any(1).nonzero().flatten(), pasted.any(0).nonzero().flatten()
        assert pasted.sum() == len(rows) * len(cols) == (rows[-1] - rows[0] + 1) * (cols[-1] - cols[0] + 1)
        areas.append(pasted.float().mean().item())
        shapes.append(len(rows) / len(cols))
        partners += found
    assert sorted(partners) == list(range(60))  # each patch is another's, none its own
    assert 0.19 < min(areas) < 0.3
    assert 0.5 < max(areas) < 0.61
    assert sum(areas) / 60 == pytest.approx(0.4, abs=0.06)
    assert min(shapes) < 0.6  # flat ones, and tall ones
    assert max(shapes) > 1.2


@pytest.mark.parametrize("name", ["cutmix", "classmix"])
def test_the_share_of_mixed_patches_is_the_one_it_says(places, augment, name):
    options = {"cutmix": CutMixOptions, "classmix": ClassMixOptions}[name](share=0.25)
    donor = donors_of(places.code(augment(places.batch(400, side=(8, 8)), **{name: options})), (8, 8))
    mixed = sum(bool(found) for _, _, found in others(donor)) / 400
    assert mixed == pytest.approx(0.25, abs=4 * math.sqrt(0.19 / 400))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), rare=st.none() | st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=5, max_size=5))
def test_classmix_pastes_whole_classes_and_no_unlabelled_pixel(places, augment, seed, rare):
    batch = places.batch(5, side=(12, 12))
    chances = None if rare is None else torch.tensor(rare)
    donor = donors_of(places.code(augment(batch, **CLASSMIX, seed=seed, rare=chances)), (12, 12))
    for _, pasted, found in others(donor):
        for partner in found:
            label = batch["label"][partner]
            classes = set(label[pasted].tolist())
            assert IGNORE_INDEX not in classes
            assert torch.equal(pasted, torch.isin(label, torch.tensor(sorted(classes))))
            assert rare is None or all(rare[number] > 0 for number in classes)


def test_rare_classes_come_first(places, augment):
    batch = places.batch(400, side=(10, 10))
    rare = torch.tensor([0.0, 0.1, 0.5, 1.0, 0.0])
    donor = donors_of(places.code(augment(batch, **CLASSMIX, rare=rare)), (10, 10))
    pasted = torch.zeros(5)
    for _, mask, found in others(donor):
        for number in {*batch["label"][found[0]][mask].tolist()} if found else ():
            pasted[number] += 1
    assert pasted[[0, 4]].sum() == 0
    assert pasted[3] == 400
    assert (pasted / 400)[1:3].tolist() == pytest.approx([0.1, 0.5], abs=0.1)


def test_classes_without_chances_are_pasted_by_a_coin_each(places, augment):
    batch = places.batch(300, side=(10, 10))
    donor = donors_of(places.code(augment(batch, **CLASSMIX)), (10, 10))
    shares = [mask.sum() / (batch["label"][0] >= 0).sum() for _, mask, _ in others(donor)]
    assert sum(shares) / 300 == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize("mix", [CUTMIX, CLASSMIX])
def test_patches_with_other_bands_are_not_mixed(places, augment, mix):
    batch = places.batch(40, bands=2, side=(8, 8))
    there = torch.ones(40, 2, dtype=torch.bool)
    there[::2, 1] = False
    out = augment({**batch, "present": there}, **mix)
    donor = donors_of(places.code(out), (8, 8))
    partners = [(k, found[0]) for k, _, found in others(donor) if found]
    assert 5 < len(partners) < 35
    assert all(k % 2 == partner % 2 for k, partner in partners)
    assert torch.equal(out["present"], there)
