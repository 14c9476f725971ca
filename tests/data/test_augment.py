"""Image, mask and labels in step; colours jittered as said; any number of bands."""

import pytest
import torch

from geoseg.data.augment import AugmentOptions, augment_batch, turn_batch
from geoseg.errors import InputError

STILL = {"gain": 0.0, "band_gain": 0.0, "noise": 0.0}


def position_batch(count: int, bands: int = 3, side: int = 16) -> dict[str, torch.Tensor]:
    """Every pixel of every plane tells the position it came from."""
    at = torch.arange(side * side).reshape(1, side, side).expand(count, -1, -1)
    return {
        "image": at[:, None].expand(-1, bands, -1, -1).contiguous().to(torch.int32),
        "valid": (at % 3 > 0).contiguous(),
        "label": at.contiguous(),
    }


def augment(batch, *, seed: int = 0, **options):
    bands = batch["image"].shape[1]
    generator = torch.Generator().manual_seed(seed)
    return augment_batch(
        batch, options=AugmentOptions(**options), mean=torch.full((bands,), 50.0), std=torch.full((bands,), 20.0),
        generator=generator,
    )  # fmt: skip


@pytest.mark.parametrize("bands", [1, 3, 6, 13])
def test_turns_keep_all_planes_in_step(bands):
    out = augment(position_batch(32, bands), **STILL)
    for band in range(bands):
        assert torch.equal(out["image"][:, band].long(), out["label"])
    assert torch.equal(out["valid"], out["label"] % 3 > 0)
    corners = {tuple(label[[0, 0, -1, -1], [0, -1, 0, -1]].tolist()) for label in out["label"]}
    assert len(corners) == 8  # all of the square's symmetries occur


def test_each_turn_is_a_symmetry_of_its_own():
    batch = position_batch(8)
    out = turn_batch(batch, torch.arange(8))["label"]
    assert torch.equal(out[0], batch["label"][0])
    assert len({tuple(label.flatten().tolist()) for label in out}) == 8


def test_without_options_nothing_changes_but_the_dtype():
    batch = position_batch(4)
    out = augment(batch, turns=False, **STILL)
    assert out["image"].dtype == torch.float32
    assert torch.equal(out["image"], batch["image"].float())


def test_jitter_is_linear_in_the_normalised_pixels_of_each_band():
    batch = position_batch(6, 3)
    out = augment(batch, turns=False, gain=0.1, band_gain=0.1, noise=0.0)["image"]
    before, after = ((image - 50) / 20 for image in (batch["image"].float(), out))
    for k in range(6):
        for band in range(3):
            x, y = before[k, band].flatten(), after[k, band].flatten()
            factor = (y[-1] - y[0]) / (x[-1] - x[0])
            torch.testing.assert_close(y, factor * (x - x[0]) + y[0], rtol=1e-4, atol=1e-4)
            assert 0.4 < factor < 1.6
    assert not torch.allclose(after[0, 0], after[0, 1])


def test_the_gain_alone_moves_all_bands_alike():
    out = augment(position_batch(2, 4), turns=False, gain=0.3, band_gain=0.0, noise=0.0)["image"]
    assert torch.equal(out[:, :1].expand(-1, 4, -1, -1), out)


def test_noise_has_the_size_it_says():
    batch = {**position_batch(8, 2, 64), "image": torch.full((8, 2, 64, 64), 50, dtype=torch.uint8)}
    out = augment(batch, turns=False, gain=0.0, band_gain=0.0, noise=0.1)["image"]
    assert (out - 50).std().item() == pytest.approx(2.0, rel=0.02)  # a tenth of a standard deviation of 20


def test_the_generator_decides():
    one, same, other = (augment(position_batch(4), seed=seed)["image"] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_sizes_below_zero_are_refused():
    with pytest.raises(InputError, match="noise"):
        AugmentOptions(noise=-1.0)
