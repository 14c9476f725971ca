"""Whole batches: seeded, without side effects, the same on every device, and never waiting for it."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonargparse import ArgumentParser

from geoseg.data.augment import (
    STEPS,
    AugmentOptions,
    ClassMixOptions,
    CloudOptions,
    CutMixOptions,
    CutoutOptions,
    WarpOptions,
    augment_batch,
)
from geoseg.errors import InputError

EVERYTHING = {
    "turns": True, "gain": 0.1, "band_gain": 0.1, "noise": 0.05, "gamma": 0.1, "blur": 1.0, "band_dropout": 0.2,
    "warp": WarpOptions(rotate_deg=20, shift=0.1), "clouds": CloudOptions(share=0.7, kind="haze", shadow=1.0),
    "cutout": CutoutOptions(), "cutmix": CutMixOptions(), "classmix": ClassMixOptions(),
}  # fmt: skip
KINDS = {**EVERYTHING, "clouds": CloudOptions(share=1.0, kind="hole")}


def full_batch(places, count, bands, side, dtype=torch.int32, *, soft=True, present=True):
    batch = places.batch(count, bands=bands, side=side, soft=soft)
    batch["image"] = (batch["image"] % 200).to(dtype)
    batch["window"] = torch.arange(3 * count).reshape(count, 3)
    if present:
        batch["present"] = torch.arange(count * bands).reshape(count, bands) % 5 > 0
        batch["image"] = batch["image"] * batch["present"][..., None, None].to(dtype)
    return batch


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 5), bands=st.integers(1, 13), rows=st.integers(4, 40), cols=st.integers(4, 40),
    soft=st.booleans(), present=st.booleans(), seed=st.integers(0, 2**31),
    names=st.sets(st.sampled_from(sorted(EVERYTHING))),
)  # fmt: skip
def test_any_options_keep_types_and_the_batch_that_was_given(
    places, augment, *, count, bands, rows, cols, soft, present, seed, names
):
    batch = full_batch(places, count, bands, (rows, cols), soft=soft, present=present)
    kept = {name: plane.clone() for name, plane in batch.items()}
    out = augment(batch, seed=seed, **{name: EVERYTHING[name] for name in names})
    again = augment(batch, seed=seed, **{name: EVERYTHING[name] for name in names})
    assert set(out) == set(batch) | ({"present"} if "band_dropout" in names else set())
    for name, plane in out.items():
        assert torch.equal(plane, again[name])
        if name in batch:
            assert torch.equal(batch[name], kept[name])
            assert plane.shape == batch[name].shape
            assert plane.dtype == (torch.float32 if name == "image" else batch[name].dtype)
    assert out["image"].isfinite().all()
    assert out["window"] is batch["window"]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.float32, torch.float64])
def test_any_dtype_becomes_float32(places, dtype):
    batch = places.batch(4, bands=2, side=(16, 16))
    batch["image"] = (batch["image"] % 200).to(dtype)
    run = {"mean": torch.full((2,), 50.0), "std": torch.full((2,), 20.0)}
    out = augment_batch(batch, options=AugmentOptions(), generator=torch.Generator().manual_seed(0), **run)
    batch["image"] = batch["image"].float()
    same = augment_batch(batch, options=AugmentOptions(), generator=torch.Generator().manual_seed(0), **run)
    assert torch.equal(out["image"], same["image"])


def test_without_options_nothing_changes_but_the_dtype(places, augment):
    batch = places.batch(4)
    out = augment(batch)
    assert torch.equal(out["image"], batch["image"].float())
    assert all(out[name] is batch[name] for name in ("valid", "label", "soft"))


def test_the_generator_decides(places, augment):
    batch = full_batch(places, 6, 3, (16, 16))
    one, other = (augment(batch, seed=seed, **EVERYTHING) for seed in (1, 2))
    assert all(not torch.equal(one[name], other[name]) for name in ("image", "valid", "label", "soft", "present"))


def test_a_second_batch_of_the_same_generator_is_drawn_anew(places):
    batch, generator = places.batch(8), torch.Generator().manual_seed(0)
    run = {"options": AugmentOptions(), "mean": torch.zeros(3), "std": torch.ones(3), "generator": generator}
    assert not torch.equal(augment_batch(batch, **run)["label"], augment_batch(batch, **run)["label"])


def test_switching_one_step_on_changes_the_draw_of_no_other(places, augment):
    batch = places.batch(20)
    plain = augment(batch, turns=True)
    mixed = augment(batch, turns=True, cutmix=CutMixOptions(share=0.5), noise=0.1)
    untouched = [k for k in range(20) if torch.equal(plain["label"][k], mixed["label"][k])]
    assert 2 < len(untouched) < 18
    noisy = augment(batch, noise=0.1)["image"]
    assert torch.equal(noisy, augment(batch, noise=0.1, cutout=CutoutOptions())["image"])


@pytest.mark.parametrize("options", [EVERYTHING, KINDS], ids=["haze", "hole"])
@pytest.mark.parametrize("side", [(32, 32), (16, 24)])
def test_nothing_is_read_back_from_the_device(places, options, side):
    batch = {
        name: plane.to("meta") for name, plane in full_batch(places, 6, 4, side).items()
    }  # there is nothing to read
    out = augment_batch(
        batch, options=AugmentOptions(**options), mean=torch.zeros(4, device="meta"), std=torch.ones(4, device="meta"),
        rare=torch.ones(5, device="meta"), generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert all(plane.is_meta and plane.shape == batch[name].shape for name, plane in out.items())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("options", [EVERYTHING, KINDS], ids=["haze", "hole"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int16, torch.float32])
def test_a_gpu_makes_the_same_batch(places, options, dtype):
    batch = full_batch(places, 12, 4, (64, 64), dtype=dtype)
    results = []
    for device in ("cpu", "cuda"):
        there = {name: plane.to(device) for name, plane in batch.items()}
        out = augment_batch(
            there, options=AugmentOptions(**options), mean=torch.full((4,), 50.0, device=device),
            std=torch.full((4,), 20.0, device=device), rare=torch.full((5,), 0.4, device=device),
            generator=torch.Generator().manual_seed(3),
        )  # fmt: skip
        results.append({name: plane.cpu() for name, plane in out.items()})
    for name, plane in results[0].items():
        differs = (plane.float() - results[1][name].float()).abs() > 1e-2
        assert differs.float().mean() < 1e-3, name  # rounding decides between neighbours here and there


def test_the_table_has_a_step_for_every_option():
    options = AugmentOptions()
    assert all(hasattr(options, name) for name in STEPS)
    light = {"gain", "band_gain", "noise"}
    assert set(AugmentOptions.__dataclass_fields__) - light == set(STEPS) - {"light"}


def test_the_defaults_do_not_load_kornia():
    code = (
        "import sys, torch; from geoseg.data.augment import AugmentOptions, augment_batch\n"
        "ones = torch.ones(2, 8, 8)\n"
        "batch = {'image': ones[:, None], 'valid': ones > 0, 'label': ones.long()}\n"
        "run = {'mean': torch.zeros(1), 'std': torch.ones(1), 'generator': torch.Generator()}\n"
        "augment_batch(batch, options=AugmentOptions(), **run)\n"
        "print('kornia' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_a_config_names_every_option_by_its_place():
    parser = ArgumentParser()
    parser.add_argument("--augment", type=AugmentOptions, default=AugmentOptions())
    given = parser.parse_object(
        {
            "augment": {
                "gain": 0.1,
                "warp": {"scale": [0.5, 2]},
                "clouds": {"kind": "haze", "cover": [0, 0.2]},
                "cutmix": {},
            }
        }
    )
    options = parser.instantiate(given).augment
    assert options == AugmentOptions(
        gain=0.1, warp=WarpOptions(scale=(0.5, 2.0)), clouds=CloudOptions(kind="haze", cover=(0.0, 0.2)),
        cutmix=CutMixOptions(),
    )  # fmt: skip
    line = parser.parse_args(["--augment.classmix.share=0.2", "--augment.warp", "{rotate_deg: 5}"])
    assert parser.instantiate(line).augment == AugmentOptions(
        classmix=ClassMixOptions(share=0.2), warp=WarpOptions(rotate_deg=5)
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AugmentOptions(noise=-1.0), r"augment.noise is -1.0: needed is 0 or more"),
        (lambda: AugmentOptions(gain=float("nan")), r"augment.gain is nan"),
        (lambda: AugmentOptions(band_dropout=1.5), r"augment.band_dropout is 1.5: needed is 0 to 1"),
        (
            lambda: WarpOptions(scale=(1.5, 0.5)),
            r"augment.warp.scale is \[1.5, 0.5\]: needed are a least and a largest",
        ),
        (lambda: WarpOptions(scale=(0.0, 1.0)), r"between 0.25 and 4"),
        (lambda: CloudOptions(kind="fog"), r"augment.clouds.kind is 'fog'; known are hole, haze"),
        (lambda: CutoutOptions(count=0), r"augment.cutout.count is 0"),
        (lambda: CutMixOptions(area=(0.5, 1.5)), r"augment.cutmix.area"),
        (lambda: ClassMixOptions(share=-0.1), r"augment.classmix.share"),
    ],
)
def test_options_that_make_no_sense_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
