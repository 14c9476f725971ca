"""The model file: weights and a card in one safetensors file, written whole and read without running anything in it."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file, save
from torch import nn

from geoseg.errors import InputError, ModelFileError
from geoseg.models.atomic import renamed_when_done
from geoseg.models.build import create_model
from geoseg.models.card import METADATA_KEY, BandInfo, ModelCard, read_card

__all__ = ["BandInfo", "ModelCard", "load_model", "read_card", "save_model"]


def save_model(path: Path, *, model: nn.Module, card: ModelCard) -> None:
    """Writes the model file: under another name first, renamed when it is whole.

    Raises:
        OutputError: It cannot be written.
    """
    parameters = sum(parameter.numel() for parameter in model.parameters())
    header = json.dumps(card.to_dict(parameters=parameters), allow_nan=False)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    payload = save(tensors, {METADATA_KEY: header})
    with renamed_when_done(Path(path), what="model file") as part:
        part.write_bytes(payload)


def load_model(path: Path) -> tuple[nn.Module, ModelCard]:
    """The network in evaluation mode on the CPU, and its card.

    Raises:
        MissingInputError: There is no such file.
        ModelFileError: It is no geoseg model, or its weights do not fit the network that its header describes.
    """
    card = read_card(path)
    try:
        network = create_model(card.spec)
    except InputError as error:
        raise ModelFileError(f"{path}: {error}") from error
    except (RuntimeError, MemoryError, OverflowError) as error:  # a size that no machine has
        raise ModelFileError(
            f"{path}: the network that its header describes cannot be built: {_line(error)}"
        ) from error
    weights = load_file(path)
    expected = network.state_dict()
    lacking, stray = sorted(set(expected) - set(weights)), sorted(set(weights) - set(expected))
    if lacking or stray:
        listed = f"lacks {lacking[0]}" if lacking else f"has a stray {stray[0]}"
        raise ModelFileError(
            f"{path} {listed} ({len(lacking)} lacking, {len(stray)} stray): "
            f"its weights are no {card.spec.decoder} on {card.spec.encoder}"
        )
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape or tensor.dtype != expected[name].dtype:
            raise ModelFileError(
                f"{path}: {name} is {tensor.dtype} {tuple(tensor.shape)}, "
                f"the network has {expected[name].dtype} {tuple(expected[name].shape)}"
            )
    network.load_state_dict(weights)
    return network.eval(), card


def _line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:160] if text else type(error).__name__
