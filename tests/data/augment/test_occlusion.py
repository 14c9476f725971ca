"""Clouds, shadows and cutouts: as much as said is covered, and what is covered is hidden in every plane."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from geoseg.data.augment import CloudOptions, CutoutOptions
from geoseg.data.scene import IGNORE_INDEX

ALL = {"share": 1.0}
MEAN, STD = 50.0, 20.0


def clear_batch(count: int, *, bands: int = 3, side: tuple[int, int] = (96, 80), value: float = 40.0):
    full = torch.ones(count, *side, dtype=torch.bool)
    return {
        "image": torch.full((count, bands, *side), value),
        "valid": full,
        "label": full.long(),
        "soft": torch.full((count, 2, *side), 127, dtype=torch.uint8),
    }


def hidden_in(batch, out):
    """Which pixels have lost their label, once every plane has been found to say the same, and the rest as it was."""
    hidden = batch["label"] != out["label"]
    assert (out["label"][hidden] == IGNORE_INDEX).all()
    wide = hidden.unsqueeze(1).expand_as(out["soft"])
    assert torch.equal(out["soft"], batch["soft"].masked_fill(wide, 0))
    return hidden


@pytest.mark.parametrize("cover", [(0.1, 0.1), (0.35, 0.35), (0.8, 0.8)])
def test_clouds_cover_the_share_they_say(augment, cover):
    batch = clear_batch(6)
    out = augment(batch, clouds=CloudOptions(**ALL, cover=cover, size_px=30))
    hidden = hidden_in(batch, out)
    assert torch.equal(out["valid"], ~hidden)
    assert torch.equal(out["image"], batch["image"])
    assert hidden.float().mean((1, 2)) == pytest.approx(cover[0], abs=0.03)


def test_the_share_is_drawn_anew_for_each_patch(augment):
    out = augment(clear_batch(60, side=(48, 48)), clouds=CloudOptions(**ALL, cover=(0.1, 0.6)))
    drawn = (~out["valid"]).float().mean((1, 2))
    assert drawn.min() > 0.07
    assert drawn.max() < 0.63
    assert drawn.mean().item() == pytest.approx(0.35, abs=0.08)


def test_only_the_share_of_patches_that_is_drawn_gets_clouds(places, augment):
    batch = places.batch(300, side=(12, 12))
    out = augment(batch, clouds=CloudOptions(share=0.3, cover=(0.5, 0.5), size_px=8))
    touched = (out["valid"] != batch["valid"]).flatten(1).any(1)
    assert touched.float().mean().item() == pytest.approx(0.3, abs=0.11)
    kept = {name: plane[~touched] for name, plane in out.items()}
    assert torch.equal(places.code(kept), places.code(batch)[~touched])


def test_clouds_are_blobs_and_no_speckle(augment):
    out = augment(clear_batch(8, side=(128, 128)), clouds=CloudOptions(**ALL, cover=(0.3, 0.3), size_px=64))
    shapes = [ndimage.label(~valid)[1] for valid in out["valid"].numpy()]
    assert 1 <= np.mean(shapes) < 12
    assert len({valid.tobytes() for valid in out["valid"].numpy()}) == 8


def test_haze_whitens_all_bands_and_hides_labels_where_it_is_opaque(augment):
    batch = clear_batch(5)
    options = CloudOptions(
        **ALL, kind="haze", cover=(0.5, 0.5), opacity=(1, 1), brightness=(3, 3), opaque=0.6, size_px=40
    )
    out = augment(batch, clouds=options)
    veil = (out["image"] - 40) / (MEAN + 3 * STD - 40)
    assert torch.allclose(veil[:, :1].expand_as(veil), veil, atol=1e-5)
    veil = veil[:, 0]
    assert veil.min() == 0
    assert veil.max().item() == pytest.approx(1, abs=1e-5)
    assert torch.equal(out["valid"], batch["valid"])
    clear = (veil - 0.6).abs() > 1e-4
    assert torch.equal(hidden_in(batch, out)[clear], (veil > 0.6)[clear])
    assert (veil > 0).float().mean((1, 2)) == pytest.approx(0.5, abs=0.03)
    assert (veil > 0.999).float().mean((1, 2)) == pytest.approx(0.5 * (1 - options.edge), abs=0.03)


def test_the_edge_of_haze_is_soft(augment):
    options = CloudOptions(**ALL, kind="haze", cover=(0.4, 0.4), opacity=(1, 1), edge=1.0, size_px=60)
    out = augment(clear_batch(4), clouds=options)["image"][:, 0]
    step = max(out.diff(dim=1).abs().max(), out.diff(dim=2).abs().max()) / (out.max() - out.min())
    assert 0 < step < 0.2


def test_thin_haze_keeps_every_label(augment):
    batch = clear_batch(4)
    out = augment(batch, clouds=CloudOptions(**ALL, kind="haze", opacity=(0.2, 0.5), opaque=0.6))
    assert not hidden_in(batch, out).any()
    assert (out["image"] > 40).any()


def test_a_shadow_darkens_beside_its_cloud_and_keeps_labels(augment):
    batch = clear_batch(8)
    clouds = {**ALL, "kind": "haze", "cover": (0.3, 0.3), "opacity": (0.0, 0.0), "size_px": 40}
    out = augment(batch, clouds=CloudOptions(**clouds, shadow=1.5))
    depth = (40 - out["image"]) / STD
    assert depth.min() >= 0
    assert 0.3 < depth.max() <= 1.5
    assert (depth[:, 0] > 0).float().mean((1, 2)) == pytest.approx(0.3, abs=0.03)
    assert not hidden_in(batch, out).any()
    hole = augment(batch, clouds=CloudOptions(**{**clouds, "kind": "hole"}, shadow=1.5))
    assert ((hole["image"][:, 0] < 40) & hole["valid"]).any()


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(2, 40), cols=st.integers(2, 40), bands=st.integers(1, 5), seed=st.integers(0, 2**31),
    kind=st.sampled_from(["hole", "haze"]), edge=st.sampled_from([0.0, 0.5, 1.0]),
    cover=st.sampled_from([(0.0, 0.0), (0.2, 0.7), (1.0, 1.0)]), shadow=st.sampled_from([0.0, 2.0]),
)  # fmt: skip
def test_clouds_keep_planes_in_step(places, augment, *, rows, cols, bands, seed, kind, edge, cover, shadow):
    batch = places.batch(3, bands=bands, side=(rows, cols))
    there = torch.rand(3, bands, generator=torch.Generator().manual_seed(seed)) < 0.5
    batch |= {"present": there, "image": batch["image"] * there[..., None, None]}
    options = CloudOptions(share=0.7, kind=kind, edge=edge, cover=cover, shadow=shadow, size_px=10)
    out = augment(batch, clouds=options, seed=seed)
    assert (out["image"][~there] == 0).all()
    assert out["image"].isfinite().all()
    hidden = hidden_in(batch, out)
    assert not (out["valid"] & ~batch["valid"]).any()
    if kind == "hole":
        assert not (out["valid"] & hidden).any()
    else:
        assert torch.equal(out["valid"], batch["valid"])


def test_a_cutout_is_one_rectangle_of_the_size_it_says(augment):
    batch = clear_batch(200, side=(40, 60))
    out = augment(batch, cutout=CutoutOptions(**ALL, size=(0.2, 0.5)))
    hidden = hidden_in(batch, out)
    assert torch.equal(out["valid"], ~hidden)
    assert torch.equal(out["image"], batch["image"])
    firsts = []
    for mask in hidden:
        rows, cols = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        assert mask.sum() == len(rows) * len(cols) == (rows[-1] - rows[0] + 1) * (cols[-1] - cols[0] + 1)
        assert 8 <= len(rows) <= 20
        assert 12 <= len(cols) <= 30
        firsts.append((int(rows[0]), int(cols[0])))
    assert min(row for row, _ in firsts) == 0
    assert max(row for row, _ in firsts) > 25  # as far down as a small one fits
    assert hidden.any(2).any(0).all()  # every row and column is met
    assert hidden.any(1).any(0).all()


def test_many_cutouts_hide_more_and_small_ones_hide_a_pixel(augment):
    batch = clear_batch(50, side=(40, 40))
    one, five = (hidden_in(batch, augment(batch, cutout=CutoutOptions(**ALL, count=n))).sum() for n in (1, 5))
    assert 2 * one < five <= 5 * one
    least = augment(batch, cutout=CutoutOptions(**ALL, size=(0.0, 0.0)))
    assert ((~least["valid"]).sum((1, 2)) == 1).all()
