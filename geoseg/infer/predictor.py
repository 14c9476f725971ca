"""The network at work: raw tiles in, class scores out, on its device.

Torch is known here and in `network`, `fast`, `devices` and `torch_arrays` alone. On a GPU raw numbers
cross the bus, and casting, normalising, resampling, softmax and blending happen there; on a CPU loops of one pass each
do the same.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from geoseg.errors import InputError, ModelFileError
from geoseg.infer.canvas import HOST, Arrays, Scores
from geoseg.infer.devices import HALF, LARGEST_BATCH_PX, Precision, find_device, find_precision
from geoseg.infer.halving import in_halves
from geoseg.infer.kernels import standardize, thread_count
from geoseg.infer.memory import peak_bytes_of
from geoseg.infer.network import model_digest, outruns_bf16, ready, resize, softmax, to_gpu
from geoseg.infer.pauses import few_pauses
from geoseg.infer.torch_arrays import TorchArrays
from geoseg.infer.turns import TURNS, turned
from geoseg.models.card import ModelCard
from geoseg.models.compiling import told_of_compiling
from geoseg.models.file import load_model
from geoseg.models.memory import is_too_large
from geoseg.models.receptive import overlap_for, receptive_radius

if TYPE_CHECKING:
    from geoseg.infer.options import PredictOptions

logger = logging.getLogger(__name__)

TRIAL_SHARE = 0.02
"""Of the work that lies ahead, what looking for the best batch may cost."""

LEAST_TRIAL = 5
"""Tiles that the shortest trial takes: one alone, and two batches of two."""

FREE_SHARE = 0.8
"""Of a GPU's free memory, what a batch may take."""

LEAST_AGREEMENT = 0.999
"""Pixels with the class of fp32, as a share, that arithmetic of fewer bits has to reach where `auto` took it."""

BETTER = 1.03
"""A larger batch is taken when it is faster by this factor: it also takes more memory."""


class TorchPredictor:
    """A network and what its input needs, on one device.

    It can be pickled: the network travels in the memory of the CPU, and goes to the device where it arrives.

    Attributes:
        classes: How many classes the network gives.
        batch_tiles: Tiles in one forward pass; halved where the device's memory does not hold them.
        device: Where it runs.
        precision: `fp32`, `bf16` or `fp16`.
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
        compiled: bool = False,
        turns: str = "none",
    ) -> None:
        if turns not in TURNS:
            raise InputError(f"tta '{turns}' is unknown; known are {', '.join(TURNS)}")
        self.classes = classes
        self.batch_tiles = batch_tiles
        self.turns = turns
        self._given = (network, mean, std, device, precision, compiled)
        self._most_lanes: int | None = None
        self._settle()

    def _settle(self) -> None:
        """Put everything on the device."""
        network, mean, std, device, precision, compiled = self._given
        self.device = find_device(device)
        self.precision = find_precision(precision, self.device)
        if precision == "auto" and self.precision == "bf16" and isinstance(network, nn.Module):
            with few_pauses():
                if outruns_bf16(network, self.device, bands=len(mean), compiled=compiled):
                    self.precision = "fp32"
        self._mean, self._std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
        self._moments = [torch.from_numpy(part).to(self.device)[:, None, None] for part in (self._mean, self._std)]
        self._make_ready()
        alone = self.device.type != "cpu" or compiled or not isinstance(network, nn.Module)
        self._lanes = 1 if alone else torch.get_num_threads()

    def _make_ready(self) -> None:
        """Make the network what is fastest for the device and the arithmetic."""
        network, mean, _, _, _, compiled = self._given
        self._work: Callable[[Tensor], Tensor] = network
        if isinstance(network, nn.Module):
            with few_pauses():
                self._work = ready(network, self.device, bands=len(mean), compiled=compiled, precision=self.precision)

    def __getstate__(self) -> dict[str, Any]:
        network, mean, std, device, _, compiled = self._given
        if isinstance(network, nn.Module) and any(part.device.type != "cpu" for part in network.parameters()):
            network = copy.deepcopy(network).cpu()
        # The arithmetic that was settled on, so that whoever takes part in a job computes alike.
        return {"classes": self.classes, "batch_tiles": self.batch_tiles, "turns": self.turns,
                "_most_lanes": self._most_lanes,
                "_given": (network, mean, std, device, self.precision, compiled)}  # fmt: skip

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._settle()

    @classmethod
    def from_card(
        cls,
        network: nn.Module,
        card: ModelCard,
        *,
        batch: int | None = None,
        device: str = "auto",
        precision: Precision = "auto",
        compiled: bool = False,
        turns: str = "none",
    ) -> TorchPredictor:
        """A predictor for a model file's network.

        Args:
            network: The network.
            card: What the model file says of it.
            batch: Tiles in one forward pass; by default one until `fit_batch` finds a better number.
            device: `auto`, `cpu`, `cuda` or `cuda:1`.
            precision: `auto` is bf16 where the device computes with it and is faster so, and fp32 elsewhere.
            compiled: Whether `torch.compile` makes the network faster, which takes a minute first.
            turns: A name in `TURNS`: test-time augmentation.

        Raises:
            InputError: The device is unknown or absent, or the batch is below one.
        """
        if batch is not None and batch < 1:
            raise InputError(f"batch of {batch} tiles: needed is 1 or more")
        return cls(
            network, mean=tuple(band.mean for band in card.bands), std=tuple(band.std for band in card.bands),
            classes=len(card.legend), batch_tiles=batch or 1, device=device, precision=precision, compiled=compiled,
            turns=turns,
        )  # fmt: skip

    @property
    def model_bytes(self) -> int:
        """The network's weights as given, and those that are ready for the device."""
        held = (module for module in (self._given[0], self._work) if isinstance(module, nn.Module))
        tensors = (tensor for module in held for kind in (module.parameters(), module.buffers()) for tensor in kind)
        return sum({tensor.data_ptr(): int(tensor.nbytes) for tensor in tensors}.values())

    @property
    def arrays(self) -> Arrays:
        """Memory of the CPU, or torch on the predictor's device."""
        return HOST if self.device.type == "cpu" else TorchArrays(self.device)

    @property
    def readers(self) -> int:
        """One beside a network on the CPU, else most cores, and several on any machine."""
        return 1 if self.device.type == "cpu" else max(2, min(8, thread_count() - 2))

    @property
    def lanes(self) -> int:
        """One a core of the CPU, as far as the memory goes; one with a GPU, or where the network is compiled."""
        return min(self._lanes, self._most_lanes or self._lanes)

    def fit_batch(self, *, model_shape: tuple[int, int], tiles: int, memory_bytes: int, search: bool = True) -> int:
        """Choose `batch_tiles` by a short trial; returns the bytes of memory that a batch takes on the host.

        Args:
            model_shape: Rows and columns at which the network sees a tile.
            tiles: How many tiles lie ahead: the trial may cost a small share of them.
            memory_bytes: Memory of the host that a batch may take.
            search: Whether to look for a batch, or only measure the one there is.

        Raises:
            InputError: A single tile does not fit; the message says what it takes.
        """
        if self.device.type == "cuda":
            return self._fit_on_gpu(model_shape, search=search)
        self.batch_tiles = max(1, min(self.batch_tiles, tiles))
        first = self.batch_tiles if self._given[5] else 1
        with _on_threads(1 if self._lanes > 1 else torch.get_num_threads()):
            one = self._bytes_a_tile(model_shape, first)
        if one * self._lanes > memory_bytes:  # then there are fewer lanes, of several threads each
            one = self._bytes_a_tile(model_shape, first)
        if self.batch_tiles > 1 and one * self.batch_tiles <= memory_bytes:  # else it is refused, and not tried
            one = self._bytes_a_tile(model_shape, self.batch_tiles)
        self._most_lanes = max(1, memory_bytes // (one * self.batch_tiles))
        if search and TRIAL_SHARE * tiles >= LEAST_TRIAL:
            handy = LARGEST_BATCH_PX["cpu"] // (model_shape[0] * model_shape[1])
            largest = max(1, min(handy, tiles // self.lanes, memory_bytes // (one * self.lanes)))
            self.batch_tiles = self._fastest(model_shape, tiles=tiles, largest=largest)
        return one * self.batch_tiles * min(self.lanes, tiles)

    def check(
        self, tiles: Sequence[NDArray[Any]], valid: Sequence[NDArray[np.bool_]], *,
        counted: Sequence[NDArray[np.bool_]], model_shape: tuple[int, int],
    ) -> None:  # fmt: skip
        """Go back to fp32 where `auto` chose what gives other classes, or no tile can tell; as `Predictor.check`."""
        chosen = self.precision
        if self._given[4] != "auto" or chosen == "fp32":
            return
        if not tiles:
            self._be_exact(f"too few pixels were found to hold {chosen} against fp32")
            return
        other = seen = 0
        allowed = (1 - LEAST_AGREEMENT) * sum(int(mask.sum()) for mask in counted)
        for tile, usable, mask in zip(tiles, valid, counted, strict=True):
            maps = []
            for self.precision in ("fp32", chosen):
                maps.append(self._classes(tile, usable, model_shape))
            other, seen = other + int((maps[0] != maps[1])[mask].sum()), seen + int(mask.sum())
            if other > allowed:  # whatever the other tiles say
                break
        said = f"{chosen} gives the class of fp32 at {100 * (1 - other / seen):.2f} % of the pixels"
        if other > allowed:
            self._be_exact(f"{said} only")
        else:
            logger.info("%s", said)

    def _be_exact(self, why: str) -> None:
        logger.info("%s; fp32 is used", why)
        self.precision = "fp32"
        self._make_ready()

    def _classes(self, tile: NDArray[Any], valid: NDArray[np.bool_], model_shape: tuple[int, int]) -> NDArray[Any]:
        """The channel of the highest score of one tile, `(row, col)`."""
        found = self.scores([tile], [valid], model_shape=model_shape).values
        if self.device.type == "cpu":
            return np.asarray(found[0].argmax(axis=2))
        return np.asarray(found[0].argmax(dim=0).cpu().numpy())

    def _fastest(self, model_shape: tuple[int, int], *, tiles: int, largest: int) -> int:
        """The batch that is fastest, the smaller where there is little between them."""
        if largest == 1:
            return 1
        best, seconds, spent = 1, self._try(model_shape, 1), 0.0
        allowed, batch = TRIAL_SHARE * tiles * seconds, 2
        while batch <= largest and spent + 2 * batch * seconds <= allowed:
            self._try(model_shape, batch)
            found = self._try(model_shape, batch) / batch
            spent += 2 * batch * found
            if seconds < BETTER * found:
                break
            best, seconds, batch = batch, found, 2 * batch
        logger.info("batches of %d tiles: %.3f s a tile", best, seconds)
        return best

    def _bytes_a_tile(self, model_shape: tuple[int, int], batch: int) -> int:
        return max(1, peak_bytes_of(lambda: self._try(model_shape, batch)) // batch)

    def _fit_on_gpu(self, model_shape: tuple[int, int], *, search: bool) -> int:
        """Choose the batch that fills the GPU; returns the bytes of pinned memory."""
        if search:
            self._try(model_shape, 1)
            before = torch.cuda.memory_allocated(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self._try(model_shape, 1)
            one = max(torch.cuda.max_memory_allocated(self.device) - before, 1)
            free = torch.cuda.mem_get_info(self.device)[0]
            largest = max(1, LARGEST_BATCH_PX["cuda"] // (model_shape[0] * model_shape[1]))
            self.batch_tiles = max(1, min(largest, int(FREE_SHARE * free) // one))
        torch.cuda.empty_cache()  # another process may be about to work here
        return self.batch_tiles * model_shape[0] * model_shape[1] * len(self._mean) * 8

    def _try(self, model_shape: tuple[int, int], batch: int) -> float:
        """Seconds of one forward pass over `batch` tiles of a plain colour."""
        tile = np.ones((len(self._mean), *model_shape), np.float32)
        usable = np.ones(model_shape, np.bool_)
        start = time.perf_counter()
        found = self.scores([tile] * batch, [usable] * batch, model_shape=model_shape)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        del found
        return time.perf_counter() - start

    def scores(
        self, tiles: Sequence[NDArray[Any]], valid: Sequence[NDArray[np.bool_]], *, model_shape: tuple[int, int]
    ) -> Scores:
        """Class scores of tiles of one size, on the device.

        Args:
            tiles: `(band, row, col)` each, as read, any real dtype.
            valid: `(row, col)` each, True where a pixel is usable; the network sees 0 elsewhere.
            model_shape: Rows and columns at which the network sees the tile.

        Raises:
            InputError: The device's memory does not hold a single tile.
            ModelFileError: The network's output does not fit the legend.
        """
        try:
            return self._forward(tiles, valid, model_shape)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not is_too_large(error):
                raise
            # Handled below: here the error still holds the arrays that did not fit.
            why = error.with_traceback(None)
        torch.cuda.empty_cache()
        return in_halves(
            self, tiles, valid, model_shape=model_shape, why=why,
            join=np.concatenate if self.device.type == "cpu" else torch.cat,
            advice="choose a smaller --tile-px, --precision bf16, or --device cpu",
        )  # fmt: skip

    @torch.inference_mode()
    def _forward(
        self, tiles: Sequence[NDArray[Any]], valid: Sequence[NDArray[np.bool_]], model_shape: tuple[int, int]
    ) -> Scores:
        shape = tiles[0].shape[1:]
        image = resize(self._input(tiles, valid), model_shape).contiguous(memory_format=torch.channels_last)
        found, logits = self._of_turns(image)
        if shape != tuple(model_shape):
            found, logits = resize(softmax(found) if logits else found, shape), False
        if self.device.type != "cpu":
            return Scores(found, logits)
        ordered = found.permute(0, 2, 3, 1)  # contiguous as most networks give it here
        return Scores((ordered if ordered.stride(3) == 1 else ordered.contiguous()).numpy(), logits)

    def _input(self, tiles: Sequence[NDArray[Any]], valid: Sequence[NDArray[np.bool_]]) -> Tensor:
        """Normalised tiles `(tile, band, row, col)` on the device."""
        if self.device.type == "cpu":
            return torch.from_numpy(standardize(tiles, valid, mean=self._mean, std=self._std)).permute(0, 3, 1, 2)
        image = to_gpu(tiles, self.device).to(torch.float32)
        mean, std = self._moments
        return torch.where(to_gpu(valid, self.device)[:, None], (image - mean) / std, 0.0)

    def _of_turns(self, image: Tensor) -> tuple[Tensor, bool]:
        """Logits of the image; with turns the mean of the probabilities of all, turned back."""
        if self.turns == "none":
            return self._logits(image), True
        total: Tensor | None = None
        for turn in TURNS[self.turns]:
            seen = turned(image, turn).contiguous(memory_format=torch.channels_last)
            found = turned(softmax(self._logits(seen)), turn, back=True)
            total = found if total is None else total + found
        return cast("Tensor", total) / len(TURNS[self.turns]), False

    def _logits(self, image: Tensor) -> Tensor:
        count = len(image)
        if self._given[5] and count < self.batch_tiles:  # each other size would be compiled anew
            image = functional.pad(image, (0, 0, 0, 0, 0, 0, 0, self.batch_tiles - count))
            image = image.contiguous(memory_format=torch.channels_last)
        with told_of_compiling("leave --compile out"), self._autocast():
            logits = self._work(image)[:count]
        wanted = (self.classes, *image.shape[2:])
        if logits.shape[1:] != wanted:
            raise ModelFileError(
                f"the network gives {tuple(logits.shape[1:])} (class, row, col) for a tile of "
                f"{tuple(image.shape[2:])}, needed are {self.classes} classes at the same size"
            )
        return logits.float()

    def _autocast(self) -> AbstractContextManager[Any]:
        half = HALF.get(self.precision)
        return nullcontext() if half is None else torch.autocast(self.device.type, half)


@contextmanager
def _on_threads(count: int) -> Iterator[None]:
    """Torch computes on so many threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True, slots=True)
class TorchModel:
    """A network of torch with its card, ready to map scenes."""

    network: nn.Module
    card: ModelCard

    @classmethod
    def load(cls, path: Path) -> TorchModel:
        """The model of a file that `geoseg fit` wrote.

        Raises:
            MissingInputError: There is no such file.
            ModelFileError: It is no geoseg model.
        """
        return cls(*load_model(path))

    @property
    def digest(self) -> str:
        """SHA-256 of weights and normalisation."""
        return model_digest(self.network, self.card)

    def predictor(self, options: PredictOptions) -> TorchPredictor:
        """The network at work."""
        return TorchPredictor.from_card(
            self.network, self.card, batch=options.batch, device=options.device, precision=options.precision,
            compiled=options.compiled, turns=options.tta,
        )  # fmt: skip

    def measured_overlap(self, *, tile_px: int) -> int:
        """Twice the radius of the effective receptive field, in whole strides of the network, at most half a tile."""
        radius = receptive_radius(self.network, bands=len(self.card.bands))
        logger.info("%s: pixels up to %d away sway a pixel's class", self.card.name, radius)
        return overlap_for(radius, tile_px=tile_px, multiple=getattr(self.network, "multiple", 2))
