"""What a network is, in plain values: enough to build it again."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from geoseg.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A network by name.

    Attributes:
        decoder: A name in `geoseg.models.DECODERS`.
        encoder: An encoder of segmentation-models-pytorch, timm, torchvision or torchgeo.
        bands: Number of input bands.
        classes: Number of output channels.
        options: The decoder's own options, plain JSON values; those of the encoder stand under `encoder_options`.
        wavelengths_um: Centre wavelength of each band in micrometres, None where it is not known; None where none is.
            Networks that are built from wavelengths (DOFA, Copernicus-FM, Panopticon) need all of them, and take their
            weights along to bands of another sensor: to those, only this and `bands` change.

    Raises:
        InputError: The number of bands or classes is below one, or the wavelengths are not one positive number a band.
    """

    decoder: str = "unet"
    encoder: str = "resnet18"
    bands: int
    classes: int
    options: dict[str, Any] = field(default_factory=dict)
    wavelengths_um: tuple[float | None, ...] | None = None

    def __post_init__(self) -> None:
        whole = all(isinstance(count, int) and not isinstance(count, bool) for count in (self.bands, self.classes))
        named = isinstance(self.decoder, str) and isinstance(self.encoder, str)
        if not whole or not named or not isinstance(self.options, dict):
            raise InputError(
                f"a network of decoder {self.decoder!r}, encoder {self.encoder!r}, {self.bands!r} bands and "
                f"{self.classes!r} classes with options {self.options!r}: needed are names, whole numbers and a mapping"
            )
        if self.bands < 1 or self.classes < 1:
            raise InputError(f"a network with {self.bands} bands and {self.classes} classes: needed is one of each")
        if self.wavelengths_um is None:
            return
        given = tuple(self.wavelengths_um)  # JSON has lists
        if len(given) != self.bands:
            raise InputError(
                f"{len(given)} wavelengths for {self.bands} bands: needed is one a band, None where unknown"
            )
        if not all(um is None or (math.isfinite(um) and um > 0) for um in given):
            raise InputError(f"wavelengths_um is {list(given)}: needed are positive micrometres, such as 0.665 for red")
        known = any(um is not None for um in given)
        object.__setattr__(self, "wavelengths_um", given if known else None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that `ModelSpec(**values)` reads back; wavelengths are left out where none is known."""
        values = asdict(self)
        if values["wavelengths_um"] is None:
            del values["wavelengths_um"]
        return values
