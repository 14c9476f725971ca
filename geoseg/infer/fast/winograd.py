"""Convolutions of 3 x 3 pixels by Winograd's minimal filtering, for networks on a CPU.

Of each 4 x 4 pixels of the output, F(4 x 4, 3 x 3) makes 36 products for each pair of channels instead of 144 (Lavin
and Gray 2016, Fast Algorithms for Convolutional Neural Networks). What is concatenated or enlarged before the
convolution is read where it lies, and what is added behind it, and the ReLU, are taken on the way out.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from geoseg.infer.fast.loops import PRODUCTS, SQUARE, convolve, read_squares, write_squares
from geoseg.infer.fast.products import sgemm_address
from geoseg.infer.fast.vectors import BUSY_PLANES, FLOAT_BYTES, LANES, PLANES

LEAST_SQUARES = 12
"""Of an image with fewer squares, reading the transformed weights takes longer than Winograd's filtering saves."""

CHUNK_BYTES = 1_500_000
"""What is multiplied at a time, sized to stay in a core's cache."""

LEAST_CHUNK = 64
"""Squares; with fewer, the weights of wide layers, which no cache holds, are read once more for each chunk."""

_FILTER = torch.tensor(
    [[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
     [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]]
)  # fmt: skip
"""The matrix G of F(4, 3)."""

_scratch = threading.local()


def transformed_weights(weight: Tensor) -> Tensor:
    """`G g G^T` of weights `(out, in, 3, 3)`: float32 `(36, in, out)`, in the order of `PLANES`."""
    taps = weight.detach().cpu().float().permute(2, 3, 1, 0).reshape(9, -1)
    both = torch.stack([torch.outer(_FILTER[i], _FILTER[j]).reshape(-1) for i, j in PLANES])
    return (both @ taps).reshape(PRODUCTS, weight.shape[1], weight.shape[0])


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
    it in the batch; and no sum is divided between threads, so it has them on any number of these.
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
        self.register_buffer("products", transformed_weights(weight), persistent=False)

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
            table, channel = [], 0
            for source in self._order:
                pixels = images[source][number]
                table.append((pixels.ctypes.data, *pixels.shape, self.doubled[source], channel))
                channel += self.widths[source]
            self._convolve(np.array(table, np.int64), target, None if more is None else more[number])
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
        self, images: NDArray[np.int64], out: NDArray[np.float32], plus: NDArray[np.float32] | None
    ) -> None:  # fmt: skip
        """One image into `out (row, col, channel)`; `images` as for `convolve`."""
        rows, cols, width = out.shape
        weights, bias = cast("Tensor", self.products), cast("Tensor", self.bias).numpy()
        deep = weights.shape[1]
        across, squares = -(-cols // SQUARE), -(-rows // SQUARE) * -(-cols // SQUARE)
        chunk = min(squares, max(LEAST_CHUNK, CHUNK_BYTES // (PRODUCTS * FLOAT_BYTES * (deep + width))))
        way_out = (
            bias, np.float32(0 if self.relu else -np.inf),
            np.zeros(LANES, np.float32) if plus is None else plus.reshape(-1), plus is not None, out,
        )  # fmt: skip
        # Several threads would share one product, and its sums would hang on how many they are.
        sgemm = sgemm_address() if torch.get_num_threads() == 1 else 0
        if sgemm:
            given, made = _planes("given", chunk, deep).numpy(), _planes("made", chunk, width).numpy()
            convolve(sgemm, images, weights.numpy(), self._plain_from, given, made, *way_out)
            return
        for first in range(0, squares, chunk):
            count = min(chunk, squares - first)
            seen, found = _planes("given", count, deep), _planes("made", count, width)
            for image in images:
                read_squares(image, seen.numpy(), first, count, across)
            _multiply(seen, weights, found, self._plain_from)
            write_squares(found.numpy(), *way_out, first, count, across)


def _multiply(given: Tensor, weights: Tensor, made: Tensor, plain_from: int) -> None:
    """The products of planes `(36, square, in)` with the weights, by torch; those that are zero are left out.

    What is multiplied is contiguous: of such planes, each thread takes some, and sums each by itself.
    """
    if not plain_from:
        torch.bmm(given, weights, out=made)
        return
    torch.bmm(given[:BUSY_PLANES], weights[:BUSY_PLANES], out=made[:BUSY_PLANES])
    idle = made[BUSY_PLANES:]
    if plain_from == weights.shape[1]:
        idle.zero_()
    else:
        plain, apart = given[BUSY_PLANES:, :, plain_from:], weights[BUSY_PLANES:, plain_from:]
        torch.bmm(plain.contiguous(), apart.contiguous(), out=idle)


def _planes(name: str, count: int, channels: int) -> Tensor:
    """Memory of this thread for planes `(36, square, channel)`."""
    return _buffer(name, PRODUCTS * count * channels).view(PRODUCTS, count, channels)


def _buffer(name: str, size: int) -> Tensor:
    """Memory of this thread for `size` numbers, the same at each call."""
    held: Tensor | None = getattr(_scratch, name, None)
    if held is None or len(held) < size:
        with torch.inference_mode(mode=False):  # for it is written to in any mode
            held = torch.empty(size)
        setattr(_scratch, name, held)
    return held[:size]
