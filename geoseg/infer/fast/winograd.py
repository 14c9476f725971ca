"""Convolutions of 3 x 3 pixels by Winograd's minimal filtering, for networks on a CPU.

Of each 4 x 4 pixels of the output, F(4 x 4, 3 x 3) makes 36 products for each pair of channels instead of 144 (Lavin
and Gray 2016, Fast Algorithms for Convolutional Neural Networks). What is concatenated or enlarged before the
convolution is read where it lies, and what is added behind it, and the ReLU, are taken on the way out.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from geoseg.infer.fast.loops import PRODUCTS, SQUARE, convolve
from geoseg.infer.fast.products import block_shape
from geoseg.infer.fast.vectors import FLOAT_BYTES, LANES, PLANES

LEAST_SQUARES = 12
"""Of an image with fewer squares, reading the transformed weights takes longer than Winograd's filtering saves."""

CHUNK_BYTES = 700_000
"""What is multiplied at a time, sized to stay in a core's cache."""

LEAST_CHUNK = 32
"""Squares; with fewer, the weights of wide layers, which no cache holds, are read once more for each chunk."""

_FILTER = torch.tensor(
    [[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
     [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]]
)  # fmt: skip
"""The matrix G of F(4, 3)."""

_scratch = threading.local()


def transformed_weights(weight: Tensor, *, columns: int) -> Tensor:
    """`G g G^T` of weights `(out, in, 3, 3)`, float32, in the order of `PLANES`.

    They lie as products read them, `(36, panel, in * column)`, where a panel is `columns` of the outputs. Of three
    dimensions, for a module's tensors of four are laid out anew by `.to(memory_format=torch.channels_last)`.
    """
    width, deep = weight.shape[:2]
    taps = weight.detach().cpu().float().reshape(width // columns, columns, deep, 9).permute(3, 0, 2, 1)
    both = torch.stack([torch.outer(_FILTER[i], _FILTER[j]).reshape(-1) for i, j in PLANES])
    return (both @ taps.reshape(9, -1)).reshape(PRODUCTS, width // columns, deep * columns)


def can_be_fast(layer: nn.Module, sources: Sequence[int] | None = None) -> bool:
    """Whether a layer is a convolution that `FastConv` stands for.

    Args:
        layer: The layer.
        sources: Channels of the images that are concatenated to its input, where they are.
    """
    if type(layer) is not nn.Conv2d or layer.padding_mode != "zeros" or layer.weight.dtype != torch.float32:
        return False
    plain = layer.kernel_size == (3, 3) and layer.padding in ((1, 1), "same")
    single = (layer.stride, layer.dilation, layer.groups) == ((1, 1), (1, 1), 1)
    return plain and single and all(width % LANES == 0 for width in sources or [layer.in_channels])


class FastConv(nn.Module):
    """A convolution of 3 x 3 pixels, stride 1, padded with zeros, and what stands before and after it.

    The input is one image or several, concatenated; of those in `doubled` each pixel is taken four times first, as by
    `interpolate` with the mode nearest. Each image is computed by itself, so it has the same bits whatever is beside
    it in the batch; and each number is one sum in one order, so it has them on any number of threads.
    """

    def __init__(
        self,
        layer: nn.Conv2d,
        *,
        widths: Sequence[int] | None = None,
        doubled: Sequence[bool] = (False,),
        relu: bool = False,
    ) -> None:
        """Of a convolution that `can_be_fast`.

        Args:
            layer: The convolution.
            widths: Channels of each image; by default there is one.
            doubled: Whether each is doubled.
            relu: Whether a ReLU follows.
        """
        super().__init__()
        self.layer = layer
        self.widths = tuple(widths or (layer.in_channels,))
        self.doubled = tuple(doubled)
        self.relu = relu
        # Doubled images come first, for some of the products of these are zero.
        starts = np.cumsum([0, *self.widths])
        order = sorted(range(len(self.widths)), key=lambda source: not self.doubled[source])
        channels = np.concatenate([np.arange(starts[source], starts[source + 1]) for source in order])
        self._order = order
        self._plain_from = sum(self.widths[source] for source in order if self.doubled[source])
        padded = -(-layer.out_channels // LANES) * LANES
        weight = torch.zeros(padded, layer.in_channels, 3, 3)
        weight[: layer.out_channels] = layer.weight.detach()[:, torch.from_numpy(channels)]
        bias = torch.zeros(padded)
        if layer.bias is not None:
            bias[: layer.out_channels] = layer.bias.detach()
        self.register_buffer("bias", bias, persistent=False)
        self._block_rows, vectors = block_shape(padded)
        self._columns = vectors * LANES
        self.register_buffer("panels", transformed_weights(weight, columns=self._columns), persistent=False)

    def forward(self, *sources: Tensor, size: Sequence[int] | None = None, plus: Tensor | None = None) -> Tensor:
        """Float32 `(n, out, row, col)` of images `(n, channel, row, col)`.

        Args:
            sources: The images.
            size: Rows and columns to which a doubled image is enlarged; twice its own by default.
            plus: Added to the result before the ReLU, of the same shape.
        """
        rows, cols = self._size(sources, size)
        if not self._fits(sources, (rows, cols), plus):
            return self._plain(sources, (rows, cols), plus)
        images = [source.permute(0, 2, 3, 1).contiguous().numpy() for source in sources]
        more = None if plus is None else plus.permute(0, 2, 3, 1).contiguous().numpy()
        out = torch.empty(sources[0].shape[0], rows, cols, len(cast("Tensor", self.bias)))
        for number, target in enumerate(out.numpy()):
            pixels = [images[source][number] for source in self._order]
            self._convolve(pixels, target, None if more is None else more[number])
        return out[..., : self.layer.out_channels].permute(0, 3, 1, 2)

    def _size(self, sources: Sequence[Tensor], size: Sequence[int] | None) -> tuple[int, int]:
        if size is not None:
            return int(size[0]), int(size[1])
        rows, cols = sources[0].shape[2:]
        return (2 * rows, 2 * cols) if self.doubled[0] else (rows, cols)

    def _fits(self, sources: Sequence[Tensor], size: tuple[int, int], plus: Tensor | None) -> bool:
        """Whether the images have the sizes that the filtering is written for, and are worth it."""
        squares = -(-size[0] // SQUARE) * -(-size[1] // SQUARE)
        exact = all(
            (source.shape[2] << twice, source.shape[3] << twice) == size
            for source, twice in zip(sources, self.doubled, strict=True)
        )
        given = [*sources] if plus is None else [*sources, plus]
        same = plus is None or plus.shape == (len(sources[0]), len(cast("Tensor", self.bias)), *size)
        return exact and same and squares >= LEAST_SQUARES and all(image.dtype == torch.float32 for image in given)

    def _plain(self, sources: Sequence[Tensor], size: tuple[int, int], plus: Tensor | None) -> Tensor:
        """The same by torch."""
        parts = [
            functional.interpolate(source, size=size, mode="nearest") if twice else source
            for source, twice in zip(sources, self.doubled, strict=True)
        ]
        found: Tensor = self.layer(parts[0] if len(parts) == 1 else torch.cat(parts, dim=1))
        if plus is not None:
            found = found + plus
        return functional.relu(found) if self.relu else found

    def _convolve(
        self, pixels: Sequence[NDArray[np.float32]], out: NDArray[np.float32], plus: NDArray[np.float32] | None
    ) -> None:  # fmt: skip
        """One image, `(row, col, channel)` of each source in the order of the weights, into one of the same kind."""
        rows, cols, width = out.shape
        bias, deep = cast("Tensor", self.bias).numpy(), sum(self.widths)
        panels = cast("Tensor", self.panels).numpy().reshape(PRODUCTS, -1, deep, self._columns)
        squares = -(-rows // SQUARE) * -(-cols // SQUARE)
        chunk = min(squares, max(LEAST_CHUNK, CHUNK_BYTES // (PRODUCTS * FLOAT_BYTES * (deep + width))))
        chunk = -(-chunk // self._block_rows) * self._block_rows
        way_out = (
            bias, np.float32(0 if self.relu else -np.inf),
            np.zeros(LANES, np.float32) if plus is None else plus.reshape(-1), plus is not None, out,
        )  # fmt: skip

        def work(begin: int, end: int) -> None:
            given, made = _planes("given", chunk, deep), _planes("made", chunk, width)
            convolve(begin, end, self._table(pixels), panels, self._plain_from, given, made, *way_out)

        _in_parts(work, squares, chunk)

    def _table(self, pixels: Sequence[NDArray[np.float32]]) -> NDArray[np.int64]:
        """The images as `convolve` takes them; their memory is theirs who hold the pixels."""
        firsts = np.cumsum([0, *(self.widths[source] for source in self._order)])
        return np.array(
            [
                (image.ctypes.data, *image.shape, self.doubled[source], first)
                for source, image, first in zip(self._order, pixels, firsts, strict=False)
            ],
            np.int64,
        )


def _in_parts(work: Callable[[int, int], None], squares: int, chunk: int) -> None:
    """Have squares worked through, in parts of whole chunks, by as many threads as torch has; this one is of them."""
    threads = torch.get_num_threads()
    share = -(-squares // (chunk * threads)) * chunk
    parts = [(begin, min(squares, begin + share)) for begin in range(0, squares, share)]
    others = [_helpers(threads - 1).submit(work, *part) for part in parts[1:]]
    try:
        work(*parts[0])
    finally:
        wait(others)  # whatever happens: they are at work on arrays of the caller
    for other in others:
        other.result()


def _helpers(count: int) -> ThreadPoolExecutor:
    """Threads beside the calling one, which has them for itself; a fork leaves them behind."""
    key, held = (os.getpid(), count), getattr(_scratch, "helpers", None)
    if held is None or held[0] != key:
        held = key, ThreadPoolExecutor(count, "geoseg-convolution")
        _scratch.helpers = held
    return cast("ThreadPoolExecutor", held[1])


def _planes(name: str, count: int, channels: int) -> NDArray[np.float32]:
    """Memory of this thread for planes `(36, square, channel)`, the same at each call.

    Each has a row more than is asked for: planes that lie a power of two apart would share a cache's few places.
    """
    size, held = PRODUCTS * (count + 1) * channels, getattr(_scratch, name, None)
    if held is None or len(held) < size:
        with torch.inference_mode(mode=False):  # for it is written to in any mode
            # Torch's memory begins with a vector. A block of a product may go over the last square: not to garbage.
            held = torch.zeros(size)
        setattr(_scratch, name, held)
    return cast("NDArray[np.float32]", held[:size].view(PRODUCTS, count + 1, channels).numpy())
