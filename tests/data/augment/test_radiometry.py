"""Light, noise, tones, sharpness and missing bands: the statistics that the options promise, valid pixels alone."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.data.augment import radiometry

MEAN, STD = 50.0, 20.0


def flat(count: int, bands: int, side: int, value: float = MEAN):
    full = torch.ones(count, side, side, dtype=torch.bool)
    return {"image": torch.full((count, bands, side, side), value), "valid": full, "label": full.long()}


def normal(image):
    return (image - MEAN) / STD


def test_light_is_linear_in_the_normalised_pixels_of_each_band(places, augment):
    batch = places.batch(6, side=(16, 16))
    batch["image"] = batch["image"] % 256
    before, after = normal(batch["image"].float()), normal(augment(batch, gain=0.1, band_gain=0.1)["image"])
    lines = []
    for x, y in zip(before.flatten(0, 1).flatten(1), after.flatten(0, 1).flatten(1), strict=True):
        factor = (y[x.argmax()] - y[x.argmin()]) / (x.max() - x.min())
        torch.testing.assert_close(y, factor * (x - x[0]) + y[0], rtol=1e-4, atol=1e-4)
        lines.append(factor)
    assert len(set(lines)) == 18


def test_factors_and_offsets_have_the_sizes_they_say(augment):
    batch = flat(800, 2, 2)
    batch["image"][..., 0] = MEAN + 10 * STD  # so that its place shows the factor, and the other column the offset
    out = normal(augment(batch, gain=0.03, band_gain=0.04)["image"])
    offset = out[:, :, 0, 1]
    factor = (out[:, :, 0, 0] - offset) / 10
    expected = math.hypot(0.03, 0.04)
    for drawn, middle in ((factor, 1.0), (offset, 0.0)):
        assert drawn.std().item() == pytest.approx(expected, rel=0.1)
        assert drawn.mean().item() == pytest.approx(middle, abs=4 * expected / math.sqrt(1600))
        shared = torch.corrcoef(drawn.T)[0, 1].item()  # the gain is a patch's, the band gain a band's
        assert shared == pytest.approx(0.03**2 / expected**2, abs=0.12)


def test_the_gain_alone_moves_all_bands_alike(augment):
    batch = flat(2, 4, 16, value=80.0)
    out = augment(batch, gain=0.3)["image"]
    assert torch.equal(out[:, :1].expand(-1, 4, -1, -1), out)
    assert not torch.equal(out[0], out[1])


def test_noise_is_white_and_normal_and_of_the_size_it_says(augment):
    noise = (augment(flat(4, 3, 128), noise=0.1)["image"] - MEAN) / (0.1 * STD)
    pixels = noise[0, 0].numel()
    error = 1 / math.sqrt(pixels)
    for plane in noise.flatten(0, 1):
        assert plane.mean().abs() < 5 * error
        assert plane.std().item() == pytest.approx(1, abs=4 * error)
        assert (plane**4).mean().item() == pytest.approx(3, abs=5 * math.sqrt(96) * error)
        for lag in (plane[1:] * plane[:-1], plane[:, 1:] * plane[:, :-1], plane[1:, 1:] * plane[:-1, :-1]):
            assert lag.mean().abs() < 5 * error
    bands = torch.corrcoef(noise.flatten(0, 1).flatten(1))
    assert (bands - torch.eye(12)).abs().max() < 5 * error


def test_noise_differs_from_batch_to_batch(augment):
    one, other = (augment(flat(2, 2, 32), noise=0.1, seed=seed)["image"] for seed in (1, 2))
    assert torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1].abs() < 0.1


def test_noise_is_there_for_patches_larger_than_its_series(augment, monkeypatch):
    monkeypatch.setattr(radiometry, "GRAIN_LENGTH", 100)
    assert augment(flat(1, 2, 32), noise=0.1)["image"].std().item() == pytest.approx(2, rel=0.2)


def test_noise_is_the_same_by_planes_and_by_one_gather():
    series = radiometry.grain(1000, torch.device("cpu"))
    first, size = torch.tensor([[3, 900], [0, 17]]), torch.tensor([[0.5, 0.0], [1.0, 2.0]])
    added = torch.zeros(2, 2, 100)
    radiometry._add_grain(added, series, first, size)
    assert torch.equal(added, series.unfold(0, 100, 1)[first] * size[..., None])


def test_gamma_bends_tones_between_three_deviations(augment):
    values = torch.linspace(-6, 6, 25)
    batch = flat(200, 1, 5)
    batch["image"] = (MEAN + STD * values).reshape(1, 1, 5, 5).expand(200, -1, -1, -1)
    out = normal(augment(batch, gamma=0.2)["image"]).flatten(1)
    dark, bright = values <= -3, values == 3
    assert torch.allclose(out[:, dark], values[dark].expand(200, -1), atol=1e-4)
    assert torch.allclose(out[:, bright], values[bright], atol=1e-4)
    assert (out.diff(dim=1) > 0).all()
    exponents = ((out[:, 12] + 3) / 6).log2() / -1  # the mean is u = 1/2
    assert exponents.log().std().item() == pytest.approx(0.2, rel=0.15)
    assert exponents.log().mean().abs() < 0.06


def test_blur_is_a_gaussian_of_up_to_the_size_it_says(augment):
    batch = flat(60, 1, 33, value=0.0)
    batch["image"][:, 0, 16, 16] = 1.0
    spread = augment(batch, blur=2.0)["image"][:, 0].double()
    assert torch.allclose(spread.sum((1, 2)), torch.ones(60, dtype=torch.float64), atol=1e-5)
    away = torch.arange(33) - 16
    rows, cols = ((spread.sum(axis) * away**2).sum(1).sqrt() for axis in (2, 1))
    assert torch.allclose(rows, cols, atol=1e-4)
    assert 0 <= rows.min() < 0.4
    assert 1.6 < rows.max() < 2.01
    profile = spread[rows.argmax()].sum(0)
    expected = torch.exp(-(away**2) / (2 * rows.max() ** 2))
    assert torch.allclose(profile, expected / expected.sum(), atol=3e-3)


def test_blur_asks_valid_pixels_alone_and_labels_nothing_anew(places, augment):
    batch = places.batch(3, side=(40, 24))
    batch["image"] = torch.where(batch["valid"].unsqueeze(1), 9.0, torch.inf)
    out = augment(batch, blur=1.5)
    assert torch.allclose(out["image"], torch.where(batch["valid"].unsqueeze(1), 9.0, 0.0))
    assert all(torch.equal(out[name], batch[name]) for name in ("valid", "label", "soft"))


def test_bands_are_dropped_as_often_as_said_and_lie_at_their_mean(augment):
    batch = flat(1000, 6, 2, value=99.0)
    out = augment(batch, band_dropout=0.2)
    dropped = ~out["present"]
    assert dropped.float().mean().item() == pytest.approx(0.2, abs=4 * math.sqrt(0.16 / 6000))
    assert torch.equal(out["image"] == MEAN, dropped[..., None, None].expand_as(out["image"]))
    assert torch.equal(out["image"] == 99, ~dropped[..., None, None].expand_as(out["image"]))


@pytest.mark.parametrize("bands", [1, 2, 5])
def test_one_of_the_bands_that_there_are_stays(augment, bands):
    batch = flat(600, bands, 2, value=99.0)
    there = torch.rand(600, bands, generator=torch.Generator().manual_seed(0)) < 0.6
    there[:, 0] |= ~there.any(1)
    batch |= {"present": there, "image": batch["image"] * there[..., None, None]}
    out = augment(batch, band_dropout=1.0)
    assert (out["present"].sum(1) == 1).all()
    assert not (out["present"] & ~there).any()
    if bands > 1:
        full = there.all(1)
        assert len(set(out["present"][full].int().argmax(1).tolist())) == bands  # any of them


@settings(max_examples=30, deadline=None)
@given(
    bands=st.integers(1, 8), seed=st.integers(0, 2**31),
    options=st.fixed_dictionaries({}, optional={
        "gain": st.just(0.3), "band_gain": st.just(0.3), "noise": st.just(0.5), "gamma": st.just(0.3),
        "blur": st.just(1.0), "band_dropout": st.just(0.5)}),
)  # fmt: skip
def test_bands_that_are_absent_stay_0_and_absent(places, augment, bands, seed, options):
    batch = places.batch(4, bands=bands, side=(9, 7))
    there = torch.rand(4, bands, generator=torch.Generator().manual_seed(seed)) < 0.5
    batch |= {"present": there, "image": batch["image"] * there[..., None, None]}
    out = augment(batch, seed=seed, **options)
    assert (out["image"][~there] == 0).all()
    assert not out["present"][~there].any()
    assert out["image"].dtype == torch.float32
    assert torch.equal(out["valid"], batch["valid"])
    assert torch.equal(out["label"], batch["label"])
