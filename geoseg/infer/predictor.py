"""The network at work: raw tiles in, class probabilities out, on its device.

The only module of this room that knows torch. Raw numbers go to the device; casting, normalising, resampling and
softmax happen there.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from geoseg.errors import InputError, ModelFileError
from geoseg.infer.blend import NO_NUMBER, Arrays
from geoseg.models.card import ModelCard

__all__ = [
    "ModelCard",
    "Precision",
    "TorchPredictor",
    "arrays_on",
    "find_device",
    "find_precision",
    "model_digest",
    "resize",
]

logger = logging.getLogger(__name__)

Precision = Literal["auto", "fp32", "bf16"]

BATCH_PX = {"cpu": 4 * 512**2, "cuda": 64 * 512**2}
"""Pixels in one forward pass, where the user does not say."""

_HOST_TYPES = {np.uint8: torch.uint8, np.uint16: torch.uint16}


class TorchPredictor:
    """A network and what its input needs, on one device.

    Attributes:
        classes: How many classes the network gives.
        batch_tiles: Tiles in one forward pass; halved where the device's memory does not hold them.
        device: Where it runs.
        precision: `fp32` or `bf16`.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        classes: int,
        batch_tiles: int = 1,
        device: str = "auto",
        precision: Precision = "auto",
    ) -> None:
        self.classes = classes
        self.batch_tiles = batch_tiles
        self.device = find_device(device)
        self.precision = find_precision(precision, self.device)
        self._network = network
        if isinstance(network, nn.Module):
            self._network = network.eval().to(self.device).to(memory_format=torch.channels_last)
        self._mean = torch.tensor(mean, dtype=torch.float32, device=self.device)[:, None, None]
        self._std = torch.tensor(std, dtype=torch.float32, device=self.device)[:, None, None]

    @classmethod
    def from_card(
        cls,
        network: nn.Module,
        card: ModelCard,
        *,
        tile_shape: tuple[int, int],
        batch: int | None = None,
        device: str = "auto",
        precision: Precision = "auto",
    ) -> TorchPredictor:
        """A predictor for a model file's network.

        Args:
            network: The network.
            card: What the model file says of it.
            tile_shape: Rows and columns that the network sees.
            batch: Tiles in one forward pass; by default as many as make about a megapixel on a CPU, 16 on a GPU.
            device: `auto`, `cpu`, `cuda` or `cuda:1`.
            precision: `auto` is bf16 on a GPU and fp32 elsewhere.

        Raises:
            InputError: The device is unknown or absent, or the batch is below one.
        """
        if batch is not None and batch < 1:
            raise InputError(f"batch of {batch} tiles: needed is 1 or more")
        fitting = max(1, BATCH_PX[find_device(device).type] // (tile_shape[0] * tile_shape[1]))
        return cls(
            network,
            mean=tuple(band.mean for band in card.bands),
            std=tuple(band.std for band in card.bands),
            classes=len(card.legend),
            batch_tiles=batch or fitting,
            device=device,
            precision=precision,
        )

    @property
    def arrays(self) -> Arrays:
        """Torch on the predictor's device."""
        return arrays_on(self.device)

    def probabilities(self, pixels: NDArray[Any], valid: NDArray[np.bool_], *, model_shape: tuple[int, int]) -> Tensor:
        """Class probabilities `(tile, class, row, col)`, float32, on the device.

        Args:
            pixels: `(tile, band, row, col)` as read, any real dtype.
            valid: `(tile, row, col)`, True where a pixel is usable; the network sees 0 elsewhere.
            model_shape: Rows and columns at which the network sees the tile.

        Raises:
            InputError: The device's memory does not hold a single tile.
            ModelFileError: The network's output does not fit the legend.
        """
        try:
            return self._forward(pixels, valid, model_shape)
        except torch.OutOfMemoryError as error:
            half = len(pixels) // 2
            if not half:
                raise InputError(
                    f"{self.device} has too little memory for one tile of {model_shape[0]} x {model_shape[1]} pixels; "
                    "choose a smaller --tile-px, --precision bf16, or --device cpu"
                ) from error
        torch.cuda.empty_cache()
        self.batch_tiles = max(1, self.batch_tiles // 2)
        logger.warning("%s is out of memory; going on with %d tiles at once", self.device, self.batch_tiles)
        parts = [(pixels[:half], valid[:half]), (pixels[half:], valid[half:])]
        return torch.cat([self.probabilities(*part, model_shape=model_shape) for part in parts])

    @torch.inference_mode()
    def _forward(self, pixels: NDArray[Any], valid: NDArray[np.bool_], model_shape: tuple[int, int]) -> Tensor:
        shape = pixels.shape[2:]
        image = torch.from_numpy(pixels).to(self.device).to(torch.float32)
        usable = torch.from_numpy(valid).to(self.device)[:, None]
        image = torch.where(usable, (image - self._mean) / self._std, 0.0)
        image = resize(image, model_shape).contiguous(memory_format=torch.channels_last)
        with self._autocast():
            logits = self._network(image)
        if logits.shape[1:] != (self.classes, *model_shape):
            raise ModelFileError(
                f"the network gives {tuple(logits.shape[1:])} (class, row, col) for a tile of {model_shape}, needed "
                f"are {self.classes} classes at the same size"
            )
        return resize(logits.float().contiguous().softmax(dim=1), shape)

    def _autocast(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.precision == "fp32" else torch.autocast(self.device.type, torch.bfloat16)


def arrays_on(device: torch.device) -> Arrays:
    """Torch's arrays on a device."""
    return Arrays(
        zeros=lambda shape: torch.zeros(shape, dtype=torch.float32, device=device),
        best=lambda scores: scores.max(dim=0),
        percent=lambda scores: torch.where(scores.isnan(), NO_NUMBER, (scores * 100).round()),
        to_device=lambda array: torch.from_numpy(array).to(device),
        to_host=lambda array, dtype: array.to(_HOST_TYPES[dtype]).cpu().numpy(),
    )


def resize(planes: Tensor, shape: tuple[int, ...]) -> Tensor:
    """`planes` (n, band, row, col) at another size, bilinear; averaged over what falls together when it shrinks."""
    if planes.shape[2:] == shape:
        return planes
    shrinks = planes.shape[2] > shape[0] or planes.shape[3] > shape[1]
    return functional.interpolate(planes, size=shape, mode="bilinear", antialias=shrinks, align_corners=False)


def model_digest(network: nn.Module, card: ModelCard) -> str:
    """SHA-256 of a network's weights, their names, and how its input is normalised, in hexadecimal."""
    digest = hashlib.sha256(repr(card.bands).encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def find_device(name: str) -> torch.device:
    """The device of a name; `auto` is the first GPU, else the CPU.

    Raises:
        InputError: The name is unknown, or the device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device '{name}' is unknown; known are auto, cpu, cuda, cuda:0, cuda:1, ...") from error
    if device.type not in BATCH_PX:
        raise InputError(f"device '{name}' is not served; known are auto, cpu, cuda, cuda:0, cuda:1, ...")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device '{name}' is not there: {torch.cuda.device_count()} GPUs found; use --device cpu")
    return device


def find_precision(wanted: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    """The arithmetic to use: `auto` is bf16 on a GPU that has it, and fp32 elsewhere.

    Raises:
        InputError: The name is unknown.
    """
    if wanted not in ("auto", "fp32", "bf16"):
        raise InputError(f"precision '{wanted}' is unknown; known are auto, fp32, bf16")
    if wanted == "auto":
        return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    return wanted
