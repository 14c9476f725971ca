"""What a network is, in plain values: enough to build it again."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from geoseg.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A network by name.

    Attributes:
        decoder: A name in `geoseg.models.DECODERS`.
        encoder: An encoder of segmentation-models-pytorch or timm.
        bands: Number of input bands.
        classes: Number of output channels.
        options: The decoder's own options, plain JSON values.

    Raises:
        InputError: The number of bands or classes is below one.
    """

    decoder: str = "unet"
    encoder: str = "resnet18"
    bands: int
    classes: int
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.bands < 1 or self.classes < 1:
            raise InputError(f"a network with {self.bands} bands and {self.classes} classes: needed is one of each")

    def to_dict(self) -> dict[str, Any]:
        """Plain values that `ModelSpec(**values)` reads back."""
        return asdict(self)
