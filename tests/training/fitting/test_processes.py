"""Processes that train together: through the command line, on this machine's CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import torch
import yaml
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy

import geoseg
from geoseg.data.datamodule import SceneDataModule
from geoseg.data.scene import VALIDATION
from geoseg.data.splits import SplitOptions
from geoseg.errors import InputError
from geoseg.models.average import SwaOptions
from geoseg.models.build import create_model
from geoseg.models.spec import ModelSpec
from geoseg.models.task import SegmentationTask
from geoseg.training.checks import check_strategy
from geoseg.training.command import parsed
from geoseg.training.manners import quiet
from geoseg.training.run import run_fit

SPY = """
import json
from lightning.pytorch import Callback

class Spy(Callback):
    def on_train_start(self, trainer, module):
        self.file = open(f"rank{trainer.global_rank}.jsonl", "w")

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        found = {"step": trainer.global_step, "image": batch["image"].double().sum().item()}
        for name, key in (("windows", "window"), ("unlabelled", "unlabelled_window")):
            found.update({name: batch[key].tolist()} if key in batch else {})
        print(json.dumps(found), file=self.file, flush=True)
        self.weights = [each.detach().clone() for each in module.network.parameters()]

    def on_train_end(self, trainer, module):
        weights = [each.double().sum().item() for each in self.weights]
        print(json.dumps({"weights": weights}), file=self.file, flush=True)

class Poison(Callback):
    "Of the second process alone, the second batch."
    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_rank == 1 and batch_idx == 1:
            batch["image"] = batch["image"] * float("nan")
"""
TWO = {"devices": 2, "strategy": "ddp", "max_epochs": 1}


def command(config: dict, *args: str) -> subprocess.CompletedProcess:
    Path("spy.py").write_text(SPY)
    Path("config.yaml").write_text(yaml.safe_dump(config))
    clean = {key: value for key, value in os.environ.items() if key not in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE")}
    return subprocess.run(
        [sys.executable, "-m", "geoseg.cli", "fit", "--config", "config.yaml", *args],
        capture_output=True, text=True, timeout=120, check=False,
        env={**clean, "PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def told(rank: int) -> list[dict]:
    return [json.loads(line) for line in Path(f"rank{rank}.jsonl").read_text().splitlines()]


def test_two_processes_share_the_work_and_leave_one_model(config, unet):
    semi = {"method": "consistency", "weight": 5.0, "ramp": 0.0}
    given = config(
        trainer={**TWO, "callbacks": [{"class_path": "spy.Spy"}]},
        data={"unlabelled": "same", "unlabelled_batch": 3},
        model={**unet, "lr": 1e-3, "swa": {"start": 0.5}, "semi": semi},  # two stages of its encoder are never run
    )
    run = command(given, "--data.sampling.shares", "{hard: 0.5, labelled: 0.5}")
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("model.safetensors") == 1
    assert run.stderr.count("trained") == 1
    assert "Warning" not in run.stderr
    assert "recommended" not in run.stderr
    # Each saw its own half of an epoch, and they ended with the same weights.
    first, second = told(0), told(1)
    assert first[-1]["weights"] == second[-1]["weights"]
    assert [row["step"] for row in first[:-1]] == [row["step"] for row in second[:-1]] == [1, 2]
    for name, count in (("windows", 16), ("unlabelled", 6)):
        seen = [{tuple(window) for row in rows[:-1] for window in row[name]} for rows in (first, second)]
        assert len(seen[0]) == len(seen[1]) == count
        assert not seen[0] & seen[1]
    # What two processes counted is what the written map has, where the labels validate.
    figures = json.loads(Path("runs/tiny/metrics.json").read_text())
    assert assessed(given) == pytest.approx(figures["scores"]["overall_accuracy"], abs=1e-9)
    assert figures["scores"]["overall_accuracy"] < 1
    assert sum(figures["validation_pixels"].values()) == sum(
        item["pixels"] for item in figures["scores"]["classes"].values()
    )


def assessed(given: dict) -> float:
    """The accuracy of the map that `predict` writes, in the validation part."""
    geoseg.predict("image.tif", model="runs/tiny/model.safetensors", out="map.tif", precision="fp32", device="cpu")
    options = {**given["data"], "split": SplitOptions(**given["data"]["split"])}
    data = SceneDataModule(**options)
    data.setup()
    part = np.asarray(data.scenes[0].part) == VALIDATION
    data.close()
    with rasterio.open("map.tif") as mapped, rasterio.open("labels.tif") as labels:
        return float((mapped.read(1) == labels.read(1))[part].mean())


def test_a_loss_that_is_no_number_in_one_process_stops_both_in_one_line(config):
    run = command(config(trainer={**TWO, "callbacks": [{"class_path": "spy.Poison"}]}))
    lines = [line for line in run.stderr.splitlines() if "error" in line]
    assert run.returncode == 2, run.stderr
    assert len(lines) == 1
    assert "the loss is nan at step 1" in lines[0]
    assert "image.tif" in lines[0]
    assert "Traceback" not in run.stderr


def with_strategy(
    strategy, *, world: int = 2, precision: str = "32-true", **model
) -> tuple[SimpleNamespace, SegmentationTask]:
    return SimpleNamespace(strategy=strategy, world_size=world, precision=precision), SegmentationTask(**model)


def test_parts_that_thaw_need_a_strategy_that_allows_it():
    with pytest.raises(InputError, match="ddp_find_unused_parameters_true"):
        check_strategy(*with_strategy(DDPStrategy(), freeze={"encoder": 2}), searches=False)
    check_strategy(*with_strategy(DDPStrategy(), freeze={"encoder": "all"}), searches=False)
    loose = DDPStrategy(find_unused_parameters=True)
    check_strategy(*with_strategy(loose, freeze={"encoder": 2}), searches=False)


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed", "bf16-true"])
def test_the_arithmetic_is_the_models_choice(precision):
    with pytest.raises(InputError, match=rf"trainer.precision is {precision}.*give model.bf16"):
        check_strategy(*with_strategy(DDPStrategy(), precision=precision), searches=False)


def test_processes_that_keep_the_history_to_themselves_are_refused(config):
    with pytest.raises(InputError, match=r"trainer.devices 1, or run `geoseg fit` on a command line"):
        run_fit(config(trainer={"devices": 2, "strategy": "ddp_spawn"}))


def test_synchronised_norms_are_the_same_function_and_keep_their_activations(config):
    with quiet():
        cli = parsed(config(trainer={**TWO, "sync_batchnorm": True}), (), {})
    norms = cli.trainer.strategy._layer_sync
    spec = ModelSpec(encoder="tu-efficientnet_b0", bands=3, classes=3)
    network, image = create_model(spec).eval(), torch.randn(2, 3, 64, 64)
    for _ in range(3):  # statistics, so that an activation left out would show
        network.train()(image)
    wanted = network.eval()(image)
    converted = norms.apply(network)
    assert [module for module in converted.modules() if isinstance(module, torch.nn.SyncBatchNorm)]
    torch.testing.assert_close(converted(image), wanted)
    torch.testing.assert_close(norms.revert(converted)(image), wanted)


def test_searches_want_one_device():
    with pytest.raises(InputError, match=r"one device, there are 2.*trainer.devices 1"):
        check_strategy(*with_strategy(DDPStrategy()), searches=True)
    check_strategy(*with_strategy(DDPStrategy(), world=1), searches=True)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({}, "model.ema_decay 0"),
        ({"ema_decay": 0, "swa": SwaOptions()}, "no model.swa"),
        ({"ema_decay": 0, "freeze": {"encoder": 1}}, "model.freeze for some epochs does not go with"),
        ({"ema_decay": 0, "compile": True}, "model.compile does not go with"),
    ],
)
def test_what_shards_cannot_do_is_one_line(model, words):
    with pytest.raises(InputError, match=words):
        check_strategy(*with_strategy(FSDPStrategy(), **model), searches=False)
    sharded = FSDPStrategy(state_dict_type="sharded")
    with pytest.raises(InputError, match="whole weights"):
        check_strategy(*with_strategy(sharded, ema_decay=0), searches=False)


def test_fsdp_without_a_gpu_is_one_line(config):
    with pytest.raises(InputError, match="trainer refuses.*GPU") as caught:
        run_fit(config(trainer={"strategy": "fsdp"}))
    assert "\n" not in str(caught.value)
