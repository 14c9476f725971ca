"""From a trunk's feature maps to the pyramid that decoders take.

A trunk is a backbone without a pyramid of four levels of its own: a vision transformer, whose maps all have the patch's
stride, or a network that skips the fine levels. `Pyramid` makes an encoder of it as smp's decoders know them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn

from geoseg.models.networks.timm_facts import Sides

LEVELS = (4, 8, 16, 32)
"""Strides that decoders take features at, beside the image itself."""


class Trunk(nn.Module):
    """A backbone that gives feature maps, the finest first.

    Attributes:
        strides: Of each map.
        channels: Of each map.
        prefixed: Whether a class token stands beside each.
        sides: Which images it takes.
    """

    strides: tuple[int, ...]
    channels: tuple[int, ...]
    prefixed: bool = False
    sides: Sides = Sides(LEVELS[-1], None, {})

    def maps(self, image: Tensor) -> tuple[list[Tensor], list[Tensor | None]]:
        """The maps `(n, channel, row / stride, col / stride)`, and the class token `(n, 1, channel)` beside each."""
        raise NotImplementedError

    def forward(self, image: Tensor) -> list[Tensor]:
        """The maps alone."""
        return self.maps(image)[0]

    @property
    def core(self) -> nn.Module:
        """The module whose weights have the names that they are published under."""
        return self

    @property
    def flat(self) -> bool:
        """Whether all maps have one stride, as a vision transformer's have."""
        return len(set(self.strides)) == 1


class Pyramid(nn.Module):
    """An encoder of a trunk: features at 1, 1/2, 1/4, ... of the image, as smp's decoders take them.

    The levels of a vision transformer are made as in ViTDet's simple feature pyramid (Li et al. 2022, Exploring Plain
    Vision Transformer Backbones for Object Detection, section 3): finer ones by transposed convolutions, coarser ones
    by maximum pooling. Each level takes a block of its own, the deepest the coarsest, as BEiT does for UPerNet (Bao et
    al. 2022). At 1/2 the trunk has nothing to give: that level has no channels, which smp's decoders know.

    Args:
        trunk: The backbone.
        bands: Of the image.
        depth: Number of levels, with that at 1/2; 2 to 5.
        output_stride: The coarsest stride; levels beyond stay at it, as with dilated convolutions.

    Raises:
        ValueError: The depth is another.
    """

    def __init__(self, trunk: Trunk, *, bands: int, depth: int = 5, output_stride: int = 32) -> None:
        super().__init__()
        if not 2 <= depth <= 1 + len(LEVELS):
            raise ValueError(f"encoder_depth is {depth}; needed is 2 to {1 + len(LEVELS)}")
        self.trunk = trunk
        levels = [min(level, output_stride) for level in LEVELS[: depth - 1]]
        self.chosen = tuple(_source(trunk, place, levels) for place in range(len(levels)))
        necks = [
            neck(trunk.channels[source], stride=trunk.strides[source], level=level)
            for source, level in zip(self.chosen, levels, strict=True)
        ]
        self.necks = nn.ModuleList(module for module, _ in necks)
        self.out_channels = [bands, 0, *(channels for _, channels in necks)]
        self.output_stride = min(output_stride, 2**depth)
        self.multiple, self.largest = trunk.sides.multiple, trunk.sides.largest

    def set_in_channels(self, bands: int, *, pretrained: bool = True) -> None:
        """Nothing: the trunk was built for its bands; smp asks all encoders."""

    def make_dilated(self, output_stride: int) -> None:
        """Nothing: the levels were built with it; smp asks all encoders."""

    def forward(self, image: Tensor) -> list[Tensor]:
        """Features at 1, 1/2 (without channels), 1/4, 1/8, ... of the image `(n, band, row, col)`."""
        maps = self.trunk(image)
        count, _, rows, cols = image.shape
        nothing = image.new_zeros((count, 0, rows // 2, cols // 2))
        return [image, nothing, *(make(maps[source]) for make, source in zip(self.necks, self.chosen, strict=True))]


def _source(trunk: Trunk, place: int, levels: Sequence[int]) -> int:
    """Which of the trunk's maps a level is made of."""
    count = len(trunk.strides)
    if trunk.flat:
        return max(count - len(levels) + place, 0)
    fitting = [index for index, stride in enumerate(trunk.strides) if stride <= levels[place]]
    return fitting[-1] if fitting else 0


def neck(channels: int, *, stride: int, level: int) -> tuple[nn.Module, int]:
    """What makes a map of one stride one of another, and the channels that it gives.

    Each doubling halves the channels, down to 32.

    Args:
        channels: Of the map.
        stride: Of the map.
        level: The stride wanted.
    """
    layers: list[nn.Module] = []
    while stride > level:
        narrow = channels // 2 if channels >= 64 else channels
        layers += [nn.ConvTranspose2d(channels, narrow, 2, stride=2), LayerNorm2d(narrow), nn.GELU()]
        channels, stride = narrow, stride // 2
    while stride < level:
        layers.append(nn.MaxPool2d(2))
        stride *= 2
    if not layers or isinstance(layers[-1], nn.MaxPool2d):
        layers.append(LayerNorm2d(channels))  # a transformer's last block ends without a norm
    return nn.Sequential(*layers), channels


def spread(count: int, blocks: int) -> tuple[int, ...]:
    """Numbers of `count` blocks, evenly spread over all and the last among them.

    >>> spread(4, 12), spread(4, 2)
    ((2, 5, 8, 11), (0, 0, 1, 1))
    """
    return tuple(max(-(-blocks * (place + 1) // count) - 1, 0) for place in range(count))


def grid_of(image: Tensor, *, patch: int, stride: int) -> Tensor:
    """An image whose patches of `patch` pixels lie at `stride` pixels of the one given.

    A patch of 14 pixels has no pyramid of doublings. So the image is resized to 14/16 of its rows and columns, and each
    patch stands for 16 pixels.
    """
    if patch == stride:
        return image
    rows, cols = image.shape[-2:]
    size = (rows // stride * patch, cols // stride * patch)
    return torch.nn.functional.interpolate(image, size=size, mode="bilinear", align_corners=False)


def stride_of(patch: int) -> int:
    """The stride that patches are laid out at: the next power of two.

    >>> stride_of(14), stride_of(16), stride_of(8)
    (16, 16, 8)
    """
    return 1 << (patch - 1).bit_length()
