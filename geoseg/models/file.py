"""The model file: weights and a card in one safetensors file, written whole and read without running anything in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from geoseg.errors import InputError, ModelFileError
from geoseg.models.atomic import renamed_when_done
from geoseg.models.build import create_model, on_nothing
from geoseg.models.card import METADATA_KEY, BandInfo, ModelCard, read_card
from geoseg.models.networks.forest import Forest
from geoseg.models.spec import ModelSpec

__all__ = ["BandInfo", "ModelCard", "load_model", "read_card", "save_model"]


def save_model(path: Path, *, model: nn.Module, card: ModelCard) -> None:
    """Writes the model file: under another name first, renamed when it is whole.

    Raises:
        OutputError: It cannot be written.
    """
    parameters = sum(parameter.numel() for parameter in model.parameters())
    header = json.dumps(card.to_dict(parameters=parameters), allow_nan=False)
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }
    payload = save(tensors, {METADATA_KEY: header})
    with renamed_when_done(Path(path), what="model file") as part:
        part.write_bytes(payload)


UNBUILDABLE = (
    RuntimeError, MemoryError, OverflowError, TypeError, ValueError, AttributeError, LookupError, ArithmeticError,
    AssertionError,
)  # fmt: skip
"""What constructors make of sizes that no machine has, and of options of other kinds than theirs."""


DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
"""What safetensors calls them."""


def load_model(path: Path) -> tuple[nn.Module, ModelCard]:
    """The network in evaluation mode on the CPU, and its card.

    Raises:
        MissingInputError: There is no such file.
        ModelFileError: It is no geoseg model, or its weights do not fit the network that its header describes.
    """
    card = read_card(path)
    _check_tensors(path, _built(path, card, on_nothing).state_dict(), card)  # before any memory is taken for them
    network = _built(path, card, create_model)
    network.load_state_dict(load_file(path))
    if isinstance(network, Forest):
        try:
            network.check()
        except InputError as error:
            raise ModelFileError(f"{path}: {error}") from error
    return network.eval(), card


def _built(path: Path, card: ModelCard, build: Callable[[ModelSpec], nn.Module]) -> nn.Module:
    try:
        return build(card.spec)
    except InputError as error:
        raise ModelFileError(f"{path}: {error}") from error
    except UNBUILDABLE as error:
        raise ModelFileError(
            f"{path}: the network that its header describes cannot be built: {_line(error)}"
        ) from error


def _check_tensors(path: Path, expected: Mapping[str, Tensor], card: ModelCard) -> None:
    """Nothing, where the file's tensors are those of the network, by name, shape and dtype; they are not read."""
    with safe_open(path, framework="pt") as file:
        held = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        lacking, stray = sorted(set(expected) - set(held)), sorted(set(held) - set(expected))
        if lacking or stray:
            listed = f"lacks {lacking[0]}" if lacking else f"has a stray {stray[0]}"
            raise ModelFileError(
                f"{path} {listed} ({len(lacking)} lacking, {len(stray)} stray): "
                f"its weights are no {card.spec.decoder} on {card.spec.encoder}"
            )
        for name, found in held.items():
            dtype, shape = DTYPES.get(found.get_dtype(), found.get_dtype()), tuple(found.get_shape())
            if (dtype, shape) != (expected[name].dtype, tuple(expected[name].shape)):
                raise ModelFileError(
                    f"{path}: {name} is {dtype} {shape}, the network has {expected[name].dtype} "
                    f"{tuple(expected[name].shape)}"
                )


def _line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:160] if text else type(error).__name__
