"""A network of an ONNX file at work, through onnxruntime: raw tiles in, class scores out. Torch is never loaded.

What surrounds the network is done in memory, on the CPU, as `geoseg.infer.predictor` does it there.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import InputError, ModelFileError
from geoseg.infer.bilinear import resize
from geoseg.infer.canvas import HOST, Arrays, Scores
from geoseg.infer.halving import in_halves
from geoseg.infer.kernels import standardize, thread_count
from geoseg.infer.memory import peak_bytes_of
from geoseg.infer.turns import TURNS, turned
from geoseg.models.card import ModelCard
from geoseg.models.onnx_card import LEAST_PX, read_onnx_card
from geoseg.models.onnx_session import device_of, open_session, run_session

if TYPE_CHECKING:
    from geoseg.infer.options import PredictOptions

logger = logging.getLogger(__name__)

BATCH_PX = {"cpu": 4 * 512**2, "cuda": 64 * 512**2}
"""Pixels in one run, where the user does not say."""


class OnnxPredictor:
    """A network of an ONNX file and what its input needs, on one device.

    It can be pickled: the file's content travels along, so that it need not be there where the predictor arrives.

    Attributes:
        classes: How many classes the network gives.
        batch_tiles: Tiles in one run; halved where the device's memory does not hold them.
        device: Where it runs: `cpu`, `cuda` or `cuda:1`.
        precision: `fp32`.
    """

    def __init__(
        self,
        model: Path | bytes,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        classes: int,
        batch_tiles: int = 1,
        device: str = "auto",
        threads: int | None = None,
        turns: str = "none",
        least_px: int = 1,
    ) -> None:
        if turns not in TURNS:
            raise InputError(f"tta '{turns}' is unknown; known are {', '.join(TURNS)}")
        self.classes = classes
        self.batch_tiles = batch_tiles
        self.turns = turns
        self._mean, self._std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
        self._given, self._least_px = (model, device, threads), least_px
        self._settle()

    def _settle(self) -> None:
        """Load the network onto the device."""
        model, device, threads = self._given
        self._session = open_session(model, device=device, threads=thread_count() if threads is None else threads)
        self.device = device_of(self._session, device=device)

    def __getstate__(self) -> dict[str, Any]:
        model, *options = self._given
        content = model.read_bytes() if isinstance(model, Path) else model
        state = {name: value for name, value in self.__dict__.items() if name != "_session"}
        return state | {"_given": (content, *options)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._settle()

    @classmethod
    def from_card(
        cls,
        path: Path,
        card: ModelCard,
        *,
        batch: int | None = None,
        device: str = "auto",
        threads: int | None = None,
        turns: str = "none",
    ) -> OnnxPredictor:
        """A predictor for a file that `geoseg export` wrote.

        Args:
            path: The file.
            card: What it says of itself.
            batch: Tiles in one run; by default one until `fit_batch` finds a better number.
            device: `auto`, `cpu`, `cuda` or `cuda:1`.
            threads: Threads within one operator; None takes those of `kernels.thread_count`.
            turns: A name in `TURNS`: test-time augmentation.

        Raises:
            InputError: onnxruntime or the device is absent, or the batch is below one.
            ModelFileError: onnxruntime cannot load the network.
        """
        if batch is not None and batch < 1:
            raise InputError(f"batch of {batch} tiles: needed is 1 or more")
        return cls(
            Path(path), mean=tuple(band.mean for band in card.bands), std=tuple(band.std for band in card.bands),
            classes=len(card.legend), batch_tiles=batch or 1, device=device, threads=threads, turns=turns,
            least_px=LEAST_PX.get(card.spec.decoder, 1),
        )  # fmt: skip

    @property
    def model_bytes(self) -> int:
        """The size of the file, which is nearly all weights; twice that where its content is kept too."""
        model = self._given[0]
        return model.stat().st_size if isinstance(model, Path) else 2 * len(model)

    @property
    def arrays(self) -> Arrays:
        """Memory of the CPU."""
        return HOST

    @property
    def precision(self) -> str:
        """That of the file."""
        return "fp32"

    def check(
        self, tiles: Sequence[NDArray[Any]], valid: Sequence[NDArray[np.bool_]], *,
        counted: Sequence[NDArray[np.bool_]], model_shape: tuple[int, int],
    ) -> None:  # fmt: skip
        """Nothing: the file says what is computed, and there is no choice."""

    @property
    def readers(self) -> int:
        """One: what surrounds the network works on the same cores."""
        return 1

    @property
    def lanes(self) -> int:
        """One: onnxruntime has threads of its own."""
        return 1

    def fit_batch(self, *, model_shape: tuple[int, int], tiles: int, memory_bytes: int, search: bool = True) -> int:
        """Choose `batch_tiles` by the tiles' size; returns the bytes of memory that a batch takes on the host.

        Args:
            model_shape: Rows and columns at which the network sees a tile.
            tiles: How many tiles lie ahead.
            memory_bytes: Memory of the host that a batch may take.
            search: Whether to choose a batch, or only measure the one there is.
        """
        tile = np.zeros((len(self._mean), *model_shape), np.uint8), np.ones(model_shape, np.bool_)
        self.batch_tiles = max(1, min(self.batch_tiles, tiles))

        def bytes_a_tile(batch: int) -> int:
            spent = peak_bytes_of(lambda: self.scores([tile[0]] * batch, [tile[1]] * batch, model_shape=model_shape))
            return max(1, spent // batch)

        one = bytes_a_tile(1)
        if self.batch_tiles > 1 and one * self.batch_tiles <= memory_bytes:  # else it is refused, and not tried
            one = bytes_a_tile(self.batch_tiles)
        if search:
            largest = BATCH_PX[self.device.partition(":")[0]] // (model_shape[0] * model_shape[1])
            self.batch_tiles = max(1, min(largest, tiles, memory_bytes // one))
        return one * self.batch_tiles

    def probabilities(
        self, pixels: NDArray[Any], valid: NDArray[np.bool_], *, model_shape: tuple[int, int]
    ) -> NDArray[np.float32]:
        """Class probabilities `(tile, class, row, col)`, float32.

        Args:
            pixels: `(tile, band, row, col)` as read, any real dtype.
            valid: `(tile, row, col)`, True where a pixel is usable; the network sees 0 elsewhere.
            model_shape: Rows and columns at which the network sees the tile.

        Raises:
            InputError: The device's memory does not hold a single tile.
            ModelFileError: The network's output does not fit the legend.
        """
        found = self.scores(list(pixels), list(valid), model_shape=model_shape)
        values = np.ascontiguousarray(found.values.transpose(0, 3, 1, 2))
        return softmax(values) if found.logits else values

    def scores(
        self, tiles: Sequence[NDArray[Any]], valid: Sequence[NDArray[np.bool_]], *, model_shape: tuple[int, int]
    ) -> Scores:
        """Class scores `(tile, row, col, class)` of tiles of one size.

        Args:
            tiles: `(band, row, col)` each, as read, any real dtype.
            valid: `(row, col)` each, True where a pixel is usable; the network sees 0 elsewhere.
            model_shape: Rows and columns at which the network sees the tile.

        Raises:
            InputError: The device's memory does not hold a single tile.
            ModelFileError: The network's output does not fit the legend.
        """
        if min(model_shape) < self._least_px:
            rows, cols = model_shape
            raise InputError(
                f"the network takes tiles of {self._least_px} px or more, given are {rows} x {cols}; a scene so small "
                "is mapped with the .safetensors, or beside its neighbours as a mosaic"
            )
        try:
            return self._forward(tiles, valid, model_shape)
        except MemoryError as error:
            why = error.with_traceback(None)
        return in_halves(
            self, tiles, valid, model_shape=model_shape, why=why, join=np.concatenate,
            advice="choose a smaller --tile-px, or --device cpu",
        )  # fmt: skip

    def _forward(
        self, tiles: Sequence[NDArray[Any]], valid: Sequence[NDArray[np.bool_]], model_shape: tuple[int, int]
    ) -> Scores:
        shape = tiles[0].shape[1:]
        image = standardize(tiles, valid, mean=self._mean, std=self._std).transpose(0, 3, 1, 2)
        found, logits = self._of_turns(resize(image, model_shape))
        if shape != tuple(model_shape):
            found, logits = resize(softmax(found) if logits else found, (shape[0], shape[1])), False
        return Scores(np.ascontiguousarray(found.transpose(0, 2, 3, 1)), logits)

    def _of_turns(self, image: NDArray[np.float32]) -> tuple[NDArray[np.float32], bool]:
        """Logits of the image; with turns the mean of the probabilities of all, turned back."""
        if self.turns == "none":
            return self._logits(image), True
        turns = TURNS[self.turns]
        total = np.zeros((len(image), self.classes, *image.shape[2:]), np.float32)
        for turn in turns:
            total += turned(softmax(self._logits(turned(image, turn))), turn, back=True)
        total /= len(turns)
        return total, False

    def _logits(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        logits = run_session(self._session, np.ascontiguousarray(image))
        wanted = (self.classes, *image.shape[2:])
        if logits.shape[1:] != wanted:
            raise ModelFileError(
                f"the network gives {logits.shape[1:]} (class, row, col) for a tile of {image.shape[2:]}, needed are "
                f"{self.classes} classes at the same size"
            )
        return logits


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """A network of an ONNX file with its card, ready to map scenes."""

    path: Path
    card: ModelCard

    @classmethod
    def load(cls, path: Path) -> OnnxModel:
        """The model of a file that `geoseg export` wrote.

        Raises:
            MissingInputError: There is no such file.
            ModelFileError: It is no ONNX file of geoseg.
        """
        return cls(Path(path), read_onnx_card(path))

    @property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return onnx_digest(self.path)

    def predictor(self, options: PredictOptions) -> OnnxPredictor:
        """The network at work.

        Raises:
            InputError: An option is for networks of torch, or the device is absent.
        """
        if options.precision not in ("auto", "fp32"):
            raise InputError(
                f"precision {options.precision} is for .safetensors models, {self.path} computes in fp32; "
                "leave --precision out"
            )
        if options.compiled:
            raise InputError(f"--compile is for .safetensors models, {self.path} is compiled already; leave it out")
        return OnnxPredictor.from_card(
            self.path, self.card, batch=options.batch, device=options.device, turns=options.tta
        )

    def measured_overlap(self, *, tile_px: int) -> int:
        """Nothing: the receptive field is measured by gradients, which an ONNX file has not.

        Raises:
            InputError: Always; the message says what would work.
        """
        del tile_px
        raise InputError(
            f"--overlap-px auto measures .safetensors models, {self.path} cannot be measured; give a number, or leave "
            f"it out for the model's {self.card.overlap_px}"
        )


def onnx_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        ModelFileError: It cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelFileError(f"the model file {path} cannot be read: {error.strerror}") from error


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities of logits `(tile, class, row, col)`; the largest is taken off first, so nothing overflows."""
    with np.errstate(invalid="ignore", over="ignore"):  # infinite logits give NaN, which is told where a map is made
        shares: NDArray[np.float32] = logits - logits.max(axis=1, keepdims=True)
        np.exp(shares, out=shares)
        shares /= shares.sum(axis=1, keepdims=True)
    return shares
