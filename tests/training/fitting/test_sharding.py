"""FSDP, on processes of the CPU: the same training as without shards, and a run that goes on as if never stopped."""

import json
import os
import subprocess
import sys
from pathlib import Path
from socket import socket

import pytest
import torch
from lightning.pytorch.strategies import FSDPStrategy
from safetensors.torch import load_file
from torch import nn

from geoseg.models.build import create_model
from geoseg.models.lora import LoraOptions, add_lora
from geoseg.models.spec import ModelSpec
from geoseg.training.sharding import shard_by_blocks

# Lightning's strategy puts a network on GPUs alone, and torch hands out one buffer for all states of an optimizer,
# which a GPU's copies to the CPU part.
SHARDED = """
import functools
import json
from pathlib import Path
from unittest.mock import patch

import torch
from lightning.pytorch import Callback
from lightning.pytorch.strategies import FSDPStrategy
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp._flat_param import FlatParamHandle

import geoseg
import geoseg.training.run as run
from geoseg.training.sharding import shard_by_blocks

class Sharded(FSDPStrategy):
    def _setup_model(self, model):
        model = FullyShardedDataParallel(
            model, device_id=torch.device("cpu"), sharding_strategy=self.sharding_strategy,
            mixed_precision=self.mixed_precision_config, **self.kwargs,
        )
        units = sum(isinstance(module, FullyShardedDataParallel) for module in model.modules())
        kept = sum(parameter.numel() for parameter in model.parameters())
        print("shard", units, kept, flush=True)
        return model

    def optimizer_state(self, optimizer):
        views = FlatParamHandle._get_unflat_views_aligned
        copies = lambda handle, flat=None: [view.clone() for view in views(handle, flat)]
        with patch.object(FlatParamHandle, "_get_unflat_views_aligned", copies):
            return super().optimizer_state(optimizer)

def main():
    for number, config in enumerate(json.loads(Path("configs.json").read_text())):
        print("run", number, flush=True)
        geoseg.fit(config)

run.shard_by_blocks = functools.partial(shard_by_blocks, least=5000)

class Halt(Callback):
    def on_validation_end(self, trainer, module):
        trainer.should_stop = True

class Buffers(Callback):
    def on_validation_end(self, trainer, module):
        print("buffers", sum(each.double().sum().item() for each in module.network.buffers()), flush=True)
"""


def train(*configs: dict) -> list[list[str]]:
    """Trains one after the other in the same two processes; gives what each run printed."""
    Path("sharded.py").write_text(SHARDED)
    Path("configs.json").write_text(json.dumps(configs))
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "NODE_RANK": "0",
              "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", "import sharded; sharded.main()"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **shared, "LOCAL_RANK": rank},
        )
        for rank in "01"
    ]  # fmt: skip
    try:
        told = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, told, strict=True):
        assert process.returncode == 0, errors
        assert "Warning" not in errors
    runs = [out.split("run ")[1:] for out, _ in told]
    return [[line for text in texts for line in text.splitlines()] for texts in zip(*runs, strict=True)]


def figures(name: str) -> list[dict]:
    rows = json.loads(Path("runs", name, "metrics.json").read_text())["history"]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_a_run_in_shards_that_was_stopped_is_the_run_without(config, unet):
    """By clipped steps of a network that is cut within; one process has nothing to validate."""
    trainer = {"devices": 2, "max_epochs": 3, "gradient_clip_val": 0.05}
    made = {"model": {**unet, "lr": 1e-3, "ema_decay": 0}, "seed_everything": 3}
    whole = config(**made, trainer={**trainer, "strategy": "ddp"})
    sharded = {
        **trainer,
        "strategy": {"class_path": "sharded.Sharded"},
        "callbacks": [{"class_path": "sharded.Buffers"}],
    }
    stopped = {**sharded, "callbacks": [{"class_path": "sharded.Halt"}, *sharded["callbacks"]]}
    _, _, told = train(
        {**whole, "name": "whole"},
        {**config(**made, trainer=stopped), "name": "shards"},
        {**config(**made, trainer=sharded), "name": "shards", "resume": True},
    )
    units, kept = zip(*(map(int, line.split()[1:]) for line in told if line.startswith("shard ")), strict=True)
    wanted, found = (load_file(Path("runs", name, "model.safetensors")) for name in ("whole", "shards"))
    weights = sum(values.numel() for name, values in found.items() if "running" not in name and "num_b" not in name)
    assert min(units) > 3
    assert max(kept) < 0.51 * weights
    buffers = [line for line in told if line.startswith("buffers")]
    assert len(buffers) == 4
    assert len(set(buffers)) == 2
    assert wanted.keys() == found.keys()
    for name, values in wanted.items():
        torch.testing.assert_close(found[name], values, rtol=0.01, atol=0.01)
    for before, after in zip(figures("whole"), figures("shards"), strict=True):
        assert after == pytest.approx(before, abs=0.01)


@pytest.mark.parametrize(
    ("decoder", "encoder", "options", "least"),
    [
        ("unet", "resnet18", {"decoder_channels": [16, 16, 16, 16, 16]}, 30_000),
        ("upernet", "vit_tiny_patch16_224", {"decoder_channels": 16}, 200_000),
        ("upernet", "tu-swin_tiny_patch4_window7_224", {"decoder_channels": 16}, 500_000),
    ],
)
def test_what_is_cut_is_run_as_one_and_holds_most_of_the_weights(decoder, encoder, options, least):
    """Each has its inputs from a call of it, never a list, and never a part of an adapted weight."""
    network = create_model(ModelSpec(decoder=decoder, encoder=encoder, bands=3, classes=2, options=options))
    if "vit" in encoder:
        add_lora(network, LoraOptions(rank=2))
    strategy = FSDPStrategy()
    shard_by_blocks(strategy, network, least=least)
    policy = strategy.kwargs["auto_wrap_policy"]
    cut: list[nn.Module] = []

    def wrapped(module: nn.Module) -> int:
        """As FSDP goes: the children first, and what they took is gone."""
        assert policy(module, True, 0)
        taken = sum(wrapped(child) for child in module.children())
        left = sum(each.numel() for each in module.parameters()) - taken
        if not policy(module, False, left):
            return taken
        cut.append(module)
        return taken + left

    taken = wrapped(network)
    ran: set[nn.Module] = set()
    for module in cut:
        module.register_forward_hook(lambda hooked, *_: ran.add(hooked))
    network.eval()(torch.zeros(1, 3, 64, 64))
    assert len(cut) > 3
    assert ran == set(cut)
    assert not any(isinstance(module, nn.Sequential | nn.ModuleList) for module in cut)
    assert taken > 0.5 * sum(each.numel() for each in network.parameters())


def test_a_policy_of_the_configuration_stays():
    strategy = FSDPStrategy(auto_wrap_policy={nn.Conv2d})
    given = strategy.kwargs["auto_wrap_policy"]
    shard_by_blocks(strategy, nn.Sequential(nn.Conv2d(1, 1, 1)))
    assert strategy.kwargs["auto_wrap_policy"] is given
