"""Networks for images of any size: padded inside to what the network takes, cropped afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from geoseg.errors import InputError


class AnySize:
    """Of a network that takes multiples of its stride, one that takes any rows and columns.

    Below and to the right the image is mirrored up to the next multiple, so that rows and columns that need no padding
    go through unchanged, and an exported graph of such sizes holds none. The names of the weights stay.

    Attributes:
        least: Fewest rows and columns that the network itself takes.
        encoder: The network's.
    """

    least: int
    encoder: Any

    @property
    def multiple(self) -> int:
        """Rows and columns that the network itself takes are multiples of this."""
        encoder = self.encoder
        return int(encoder.multiple if hasattr(encoder, "multiple") else encoder.output_stride)

    @property
    def largest(self) -> int | None:
        """Most rows and columns of an image, None where there is no end, as nearly always."""
        largest: int | None = getattr(self.encoder, "largest", None)
        return largest

    def forward(self, image: Tensor) -> Tensor:
        """Logits `(n, class, row, col)` of an image `(n, band, row, col)`.

        Raises:
            InputError: The encoder takes images of one size, and this one is larger.
        """
        return padded_inside(self.unpadded, image, multiple=self.multiple, least=self.least, largest=self.largest)

    def check_input_shape(self, x: Tensor) -> None:
        """Nothing, for `forward` has padded the image; a graph cannot be drawn of a network that looks at sides."""

    def unpadded(self, image: Tensor) -> Tensor:
        """Logits of an image of rows and columns that the network itself takes."""
        network: Any = super()  # of the class beside this one
        logits: Tensor = network.forward(image)
        return logits


def padded_inside(
    network: Callable[[Tensor], Tensor], image: Tensor, *, multiple: int, least: int, largest: int | None
) -> Tensor:
    """Logits of an image of any rows and columns, from a network that takes multiples.

    Args:
        network: From `(n, band, row, col)` to `(n, class, row, col)`.
        image: `(n, band, row, col)`.
        multiple: As `AnySize.multiple`; `least` and `largest` likewise.
        least: Fewest rows and columns that the network takes.
        largest: Most rows and columns of an image.

    Raises:
        InputError: The image is larger than the largest.
    """
    rows, cols = image.shape[-2:]
    if largest is not None and (rows > largest or cols > largest):
        raise InputError(
            f"the encoder takes images of up to {largest} px, given are {rows} x {cols}; make patches and "
            f"tiles that small, or build it with options: {{encoder_options: {{img_size: {max(rows, cols)}}}}}"
        )
    below, right = (_lacking(side, multiple, least) for side in (rows, cols))
    if below or right:
        image = padded_image(image, below=below, right=right)
    logits = network(image)
    return logits[..., :rows, :cols] if below or right else logits


def _lacking(side: int, multiple: int, least: int) -> int:
    if side < least:
        return -(-least // multiple) * multiple - side
    return -side % multiple


def padded_image(image: Tensor, *, below: int, right: int) -> Tensor:
    """An image mirrored about its last row and column; where it is too small for that, these are repeated.

    Args:
        image: `(n, band, row, col)`.
        below: Rows to add.
        right: Columns to add.
    """
    rows, cols = image.shape[-2:]
    mode = "reflect" if below < rows and right < cols else "replicate"
    return torch.nn.functional.pad(image, (0, right, 0, below), mode=mode)
