"""Flips, turns and warps: all planes in step, against brute force and against what the pixels say of their place."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.data.augment import WarpOptions, turn_batch, warp_batch
from geoseg.data.scene import IGNORE_INDEX
from geoseg.errors import InputError

sides = st.integers(2, 24)
seeds = st.integers(0, 2**31)


@pytest.mark.parametrize("turn", range(8))
def test_a_turn_is_what_rot90_and_flip_make_of_it(places, turn):
    batch = places.batch(3)
    out = turn_batch(batch, torch.tensor([turn, 0, turn]))
    for name, plane in batch.items():
        expected = torch.rot90(plane, turn % 4, (-2, -1))
        expected = expected.flip(-1) if turn >= 4 else expected
        assert torch.equal(out[name][[0, 2]], expected[[0, 2]])
        assert torch.equal(out[name][1], plane[1])


@pytest.mark.parametrize("turn", range(8))
def test_every_turn_can_be_turned_back(places, turn):
    batch = places.batch(1)
    back = turn if turn >= 4 else -turn % 4  # mirror images undo themselves
    twice = turn_batch(turn_batch(batch, torch.tensor([turn])), torch.tensor([back]))
    assert all(torch.equal(twice[name], batch[name]) for name in batch)


def test_all_eight_symmetries_occur_and_no_other(places, augment):
    batch = places.batch(1, side=(4, 4))
    repeated = {name: plane.expand(64, *plane.shape[1:]) for name, plane in batch.items()}
    found = {tuple(patch.flatten().tolist()) for patch in augment(repeated, turns=True)["image"][:, 0]}
    expected = turn_batch({name: plane[:8] for name, plane in repeated.items()}, torch.arange(8))["image"][:, 0]
    assert found == {tuple(patch.flatten().tolist()) for patch in expected.float()}
    assert len(found) == 8


@settings(max_examples=40, deadline=None)
@given(rows=sides, cols=sides, bands=st.integers(1, 14), count=st.integers(1, 9), seed=seeds)
def test_turns_keep_every_pixel_and_all_planes_in_step(places, augment, *, rows, cols, bands, count, seed):
    batch = places.batch(count, bands=bands, side=(rows, cols))
    code = places.code(augment(batch, turns=True, seed=seed))
    for before, after in zip(places.code(batch), code, strict=True):
        assert torch.equal(before.flatten(), after.flatten().sort().values)


def test_patches_that_are_not_square_keep_their_shape_in_four_symmetries(places, augment):
    batch = places.batch(64, side=(6, 9))
    out = augment(batch, turns=True)["image"]
    corners = (out[:, 0] - batch["image"][:, 0])[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert len({tuple(row.tolist()) for row in corners}) == 4
    with pytest.raises(InputError, match="6 x 9"):
        turn_batch(batch, torch.ones(64, dtype=torch.int64))


def test_what_has_no_rows_and_columns_is_handed_on(places):
    extras = {"window": torch.arange(12).reshape(4, 3), "present": torch.ones(4, 3, dtype=torch.bool)}
    out = turn_batch({**places.batch(4), **extras}, torch.arange(4))
    assert out["window"] is extras["window"]
    assert out["present"] is extras["present"]


def source_places(matrix, side):
    """Row and column that each pixel of a warped patch comes from, float64."""
    inverse = np.linalg.inv(np.vstack([np.asarray(matrix, np.float64), [0, 0, 1]]))
    row, col = np.indices(side)
    x, y, _ = np.tensordot(inverse, np.stack([col, row, np.ones(side)]), 1)
    return y, x


def brute_warp(image, valid, matrix):
    """Image, nearest row and nearest column by a loop over pixels; -1 outside, and where rounding might decide."""
    side = valid.shape
    out, nearest = np.zeros(image.shape), np.full((2, *side), -1)
    clear = np.ones(side, bool)
    ys, xs = source_places(matrix, side)
    for at in np.ndindex(side):
        y, x = ys[at], xs[at]
        clear[at] = min(abs(y % 1 - 0.5), abs(x % 1 - 0.5)) > 1e-3
        near = round(y), round(x)
        if not (0 <= near[0] < side[0] and 0 <= near[1] < side[1]):
            continue
        nearest[:, *at] = near
        if not valid[near]:
            continue
        total = 0.0
        for row in (math.floor(y), math.floor(y) + 1):
            for col in (math.floor(x), math.floor(x) + 1):
                if 0 <= row < side[0] and 0 <= col < side[1] and valid[row, col]:
                    weight = (1 - abs(y - row)) * (1 - abs(x - col))
                    out[:, *at] += weight * image[:, row, col]
                    total += weight
        out[:, *at] /= total
    return out, nearest, clear


@settings(max_examples=40, deadline=None)
@given(
    rows=sides, cols=sides, bands=st.integers(1, 5), scale=st.floats(0.5, 2), angle=st.floats(-3.2, 3.2),
    move=st.tuples(st.floats(-5, 5), st.floats(-5, 5)), seed=seeds,
)  # fmt: skip
def test_a_warp_is_the_mean_of_valid_and_the_nearest_label(places, *, rows, cols, bands, scale, angle, move, seed):
    batch = places.batch(2, bands=bands, side=(rows, cols))
    batch["image"] = torch.rand(batch["image"].shape, generator=torch.Generator().manual_seed(seed))
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    matrix = torch.tensor([[[cos, -sin, move[0]], [sin, cos, move[1]]]]).expand(2, 2, 3)
    out = warp_batch(batch, matrix=matrix)
    image, valid = batch["image"][1].numpy(), batch["valid"][1].numpy()
    expected, (row, col), clear = brute_warp(image, valid, matrix[1])
    inside = row >= 0
    for name, outside in (("valid", False), ("label", IGNORE_INDEX), ("soft", 0)):
        picked = np.where(inside, batch[name][1].numpy()[..., row, col], outside)
        assert np.array_equal(out[name][1].numpy()[..., clear], picked[..., clear]), name
        assert out[name].dtype == batch[name].dtype
    np.testing.assert_allclose(out["image"][1].numpy()[:, clear], expected[:, clear], atol=2e-4)


def test_a_warp_by_nothing_changes_nothing_but_what_is_invalid(places):
    batch = places.batch(2, side=(20, 33))
    batch["image"] = batch["image"].float()
    out = warp_batch(batch, matrix=torch.eye(2, 3).expand(2, 2, 3))
    assert all(torch.equal(out[name], batch[name]) for name in ("valid", "label", "soft"))
    assert torch.allclose(out["image"], batch["image"] * batch["valid"].unsqueeze(1), atol=0.5)  # of 200,000
    moved = warp_batch(batch, matrix=torch.tensor([[[1.0, 0, 3], [0, 1, 2]]]).expand(2, 2, 3))
    assert torch.equal(moved["label"][:, 2:, 3:], batch["label"][:, :-2, :-3])  # x to the right, y down
    assert not moved["valid"][:, :2].any()
    assert not moved["valid"][:, :, :3].any()


WARPS = st.builds(
    WarpOptions, share=st.sampled_from([0.5, 1.0]),
    scale=st.sampled_from([(1.0, 1.0), (0.8, 1.25), (0.5, 0.6), (1.5, 3.0)]),
    rotate_deg=st.sampled_from([0, 20, 180]), shift=st.sampled_from([0, 0.3]),
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(8, 40), cols=st.integers(8, 40), options=WARPS, turns=st.booleans(), seed=seeds)
def test_labels_lie_where_the_image_says_it_comes_from(places, augment, *, rows, cols, options, turns, seed):
    batch = places.batch(3, side=(rows, cols))
    row, col = torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij")
    batch["image"] = torch.stack([row, col]).expand(3, 2, rows, cols)
    batch["valid"] = torch.ones(3, rows, cols, dtype=torch.bool)
    out = augment(batch, warp=options, turns=turns, seed=seed)
    assert torch.equal(out["label"] == IGNORE_INDEX, ~out["valid"] | (out["label"] == IGNORE_INDEX))
    for k in range(3):
        at = out["image"][k]  # a plane is interpolated to itself, but for the outermost half pixel
        border = torch.tensor([rows - 1, cols - 1])[:, None, None]
        clear = out["valid"][k] & (((at % 1) - 0.5).abs() > 1e-3).all(0) & ((at > 0) & (at < border)).all(0)
        near = at[:, clear].round().long()
        for name in ("label", "soft"):
            assert torch.equal(out[name][k][..., clear], batch[name][k][..., near[0], near[1]])
        assert (out["label"][k][~out["valid"][k]] == IGNORE_INDEX).all()
        assert (out["soft"][k][:, ~out["valid"][k]] == 0).all()


def position_steps(augment, options, *, count=400, side=21):
    """How much the place that is seen changes from a pixel to the next, in the middle of many warped patches."""
    ramp = torch.arange(float(side)).expand(count, 1, side, side)
    full = torch.ones(count, side, side, dtype=torch.bool)
    out = augment({"image": ramp, "valid": full, "label": full.long()}, warp=options)
    middle = side // 2
    return out["image"][:, 0, middle, middle + 1] - out["image"][:, 0, middle, middle], out


def test_scales_are_drawn_evenly_in_their_logarithm(augment):
    steps, _ = position_steps(augment, WarpOptions(scale=(0.5, 2.0)))
    drawn = -steps.log2()
    assert drawn.min() > -1.001
    assert drawn.max() < 1.001
    assert abs(drawn.mean()) < 4 * 0.577 / math.sqrt(len(drawn))  # a uniform's deviation is 1 / sqrt(3)
    assert drawn.std().item() == pytest.approx(2 / math.sqrt(12), rel=0.1)


def test_an_enlarged_patch_is_a_crop_from_anywhere_inside(augment):
    _, out = position_steps(augment, WarpOptions(scale=(2.0, 2.0)))
    assert out["valid"].float().mean() > 0.99  # half a pixel may look over the edge
    middles = out["image"][:, 0, 10, 10]
    assert middles.min() < 6
    assert middles.max() > 14


def test_patches_that_are_not_drawn_stay_as_they_are(places, augment):
    batch = places.batch(40)
    out = augment(batch, warp=WarpOptions(share=0.3, scale=(1.5, 2.0)))
    same = (out["label"] == batch["label"]).flatten(1).all(1)
    assert 15 < same.sum() < 38
    assert torch.equal(out["image"][same], batch["image"][same].float())


def test_what_is_invalid_never_bleeds(places, augment):
    batch = places.batch(4, side=(32, 32))
    batch["image"] = torch.where(batch["valid"].unsqueeze(1), 7.0, torch.nan).expand(-1, 3, -1, -1)
    out = augment(batch, warp=WarpOptions(scale=(0.7, 1.5), rotate_deg=90, shift=0.2), blur=2.0)
    shown = out["image"][out["valid"].unsqueeze(1).expand_as(out["image"])]
    assert torch.allclose(shown, torch.tensor(7.0), rtol=1e-4)
    assert out["image"].isfinite().all()
