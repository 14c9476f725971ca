"""What stops a run, and what it says: losses that are no numbers, batches that are too small, labels that lack."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import torch
from torch import nn

from geoseg.data.sampling import PatchSampler
from geoseg.errors import InputError
from geoseg.models.build import create_model
from geoseg.models.spec import ModelSpec
from geoseg.models.task import SegmentationTask
from geoseg.models.trouble import Seen, described, is_finite, seen_of
from geoseg.training.checks import check_batches, check_labels, smallest_batch
from geoseg.training.run import run_fit

SCENES = [SimpleNamespace(name="a.tif"), SimpleNamespace(name="b.tif")]


def test_patches_are_named_by_scene_and_place():
    seen = seen_of({"image": torch.zeros(3, 2, 32, 48), "window": torch.tensor([[0, 5, 7], [1, -8, 0], [0, 1, 2]])})
    assert described(seen, SCENES, bad=torch.tensor([False, True, False])) == "b.tif rows -8 to 24, columns 0 to 48"
    assert described(seen, SCENES, bad=torch.zeros(3, dtype=torch.bool)).startswith(
        "a.tif rows 5 to 37, columns 7 to 55;"
    )
    many = Seen(torch.zeros(10, 3, dtype=torch.int64), (32, 32))
    assert described(many, SCENES).endswith("; and 7 more")
    assert described(None, SCENES) == "unknown"


def test_a_step_that_memory_does_not_hold_is_one_line(config, monkeypatch):
    def training_step(self, batch, batch_idx):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(SegmentationTask, "training_step", training_step)
    with pytest.raises(InputError, match=r"a step of 8 patches of 32 px; give a lower data.batch"):
        run_fit(config())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trainer": {"max_steps": 3}}, "max_steps is 3, and an epoch has 4 steps: nothing would be validated"),
        ({"trainer": {"limit_val_batches": 0}}, "limit_val_batches is 0"),
        ({"trainer": {"overfit_batches": 1}}, "give trainer.limit_train_batches"),
        ({"early_stopping": {"monitor": "val/iou"}, "trainer": {"max_epochs": 1}}, "metric `val/iou` which is not"),
    ],
)
def test_runs_in_which_nothing_is_judged_are_one_line(config, changes, words):
    with pytest.raises(InputError, match=words) as caught:
        run_fit(config(**changes))
    assert "\n" not in str(caught.value)


def test_weights_and_statistics_are_looked_at():
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    assert is_finite(network)
    network[1].running_var.fill_(torch.inf)
    assert not is_finite(network)


def poisoned(monkeypatch, step: int, *, where: str):
    """Makes the image, or the gradients, of one step NaN; gives the windows of the patch."""
    found = {}
    train = SegmentationTask.training_step

    def training_step(self, batch, batch_idx):
        if self.global_step == step:
            found["window"] = batch["window"][2].tolist()
            if where == "image":
                batch["image"] = batch["image"].float()
                batch["image"][2, 0, 3, 3] = torch.nan
                batch["valid"][2, 3, 3] = True
        output = train(self, batch, batch_idx)
        if self.global_step == step and where == "gradient":
            output["loss"] = output["loss"] + (self.network[-1].bias * torch.nan).sum().nan_to_num(0.0) * 0
            output["loss"].register_hook(lambda slope: slope * torch.nan)
        return output

    monkeypatch.setattr(SegmentationTask, "training_step", training_step)
    return found


def test_a_nan_names_its_patch_and_the_last_good_checkpoint_stays(config, monkeypatch):
    expected = r"loss is nan at step 5; lower model.lr \(now 0.02\)"  # in the second epoch of four steps
    with monkeypatch.context() as patch:
        found = poisoned(patch, 5, where="image")
        with pytest.raises(InputError, match=expected) as caught:
            run_fit(config(trainer={"max_epochs": 3}))
    _, row, col = found["window"]
    assert f"image.tif rows {row} to {row + 32}, columns {col} to {col + 32}" in str(caught.value)
    assert "more" not in str(caught.value)
    assert str(caught.value).endswith("the last good checkpoint is " + str(Path.cwd() / "runs/tiny/last.ckpt"))
    assert "\n" not in str(caught.value)
    kept = torch.load("runs/tiny/last.ckpt", weights_only=True)
    assert kept["global_step"] == 4
    assert all(torch.isfinite(value).all() for value in kept["state_dict"].values())
    assert not Path("runs/tiny/model.safetensors").exists()
    assert run_fit(config(trainer={"max_epochs": 3}), resume=True).model.exists()


@pytest.mark.parametrize(("step", "said"), [(5, "loss is nan at step 6"), (7, "weights are no numbers at step 8")])
def test_gradients_that_are_no_numbers_are_laid_at_the_step_that_made_them(config, monkeypatch, step, said):
    found = poisoned(monkeypatch, step, where="gradient")
    with pytest.raises(InputError, match=said) as caught:
        run_fit(config(trainer={"max_epochs": 3}, data={"batch": 8}))
    assert "step before" in str(caught.value) or "last batch" in str(caught.value)
    assert "image.tif rows" in str(caught.value)
    assert found
    kept = torch.load("runs/tiny/last.ckpt", weights_only=True)
    assert kept["global_step"] == 4
    assert all(torch.isfinite(value).all() for value in kept["state_dict"].values())


@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_smallest_batch_is_the_samplers(monkeypatch, world):
    for patches in range(world, 40):
        for batch in (1, 2, 5, 8):
            sampler = object.__new__(PatchSampler)
            sampler.batch, sampler.epoch_patches = batch, patches
            monkeypatch.setattr("geoseg.data.sampling._process", lambda: (0, world))
            bounds = sampler._bounds()
            least = min(
                len(range(rank, stop - start, world)) for start, stop in pairwise(bounds) for rank in range(world)
            )
            assert smallest_batch(patches, batch=batch, world=world) == least, (patches, batch)


@pytest.mark.parametrize("decoder", ["unet", "fpn", "deeplabv3plus", "pspnet", "upernet"])
def test_a_batch_of_one_is_refused_where_the_network_cannot_train_on_it(decoder):
    spec = ModelSpec(decoder=decoder, encoder="resnet18", bands=2, classes=2)
    data = SimpleNamespace(epoch_patches=9, batch=8, patch_px=64)
    try:
        create_model(spec).train()(torch.randn(1, 2, 64, 64))
        works = True
    except ValueError:
        works = False
    if works:
        check_batches(data, spec, world=1)
        return
    with pytest.raises(InputError, match=r"batch of one: needed are .*a multiple of 8") as caught:
        check_batches(data, spec, world=1)
    assert decoder in str(caught.value)
    data.epoch_patches = 16
    check_batches(data, spec, world=1)


def test_some_networks_cannot_train_on_one_patch():
    spec = ModelSpec(decoder="deeplabv3plus", encoder="resnet18", bands=2, classes=2)
    with pytest.raises(InputError, match="on 2 devices leaves a batch of one"):
        check_batches(SimpleNamespace(epoch_patches=18, batch=8, patch_px=64), spec, world=2)


def test_too_few_patches_for_the_processes_are_refused():
    spec = ModelSpec(decoder="pixel", bands=2, classes=2)
    with pytest.raises(InputError, match="epoch_patches is 3: needed is at least one for each of the 4 processes"):
        check_batches(SimpleNamespace(epoch_patches=3, batch=8, patch_px=64), spec, world=4)


@pytest.mark.parametrize("part", ["training", "validation"])
def test_a_part_without_labels_is_refused(part):
    pixels = {"training_pixels": np.array([3, 1]), "validation_pixels": np.array([3, 1])}
    check_labels(SimpleNamespace(**pixels))
    with pytest.raises(InputError, match=f"the {part} part holds no labelled pixel"):
        check_labels(SimpleNamespace(**pixels | {f"{part}_pixels": np.zeros(2, int)}))


def test_a_validation_scene_without_labels_is_one_line_and_leaves_nothing(config, scene):
    with rasterio.open("labels.tif") as file:
        profile = file.profile
    with rasterio.open("none.tif", "w", **profile) as file:
        file.write(np.zeros((1, 160, 128), np.uint8))
    blank = {"image": "image.tif", "part": "validation", "labels": {**scene["labels"], "path": "none.tif"}}
    given = config(data={"scenes": [{**scene, "part": "training"}, blank]})
    with pytest.raises(InputError, match=r"no labelled pixel") as caught:
        run_fit(given)
    assert "\n" not in str(caught.value)
    assert not Path("runs").exists()
