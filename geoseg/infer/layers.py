"""The layers of a map: what is written for each pixel besides its class, and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.legend import Legend

NO_PERCENT = 255
"""Nodata of the layers in percent."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One output of a map.

    Attributes:
        name: What it is called; all but the class map stand in files `MAP.NAME.tif`.
        title: What it shows, for people.
        kind: `class` holds class ids, `percent` whole percent from 0 to 100 as uint8.
        each_class: Whether it has a band for each class.
    """

    name: str
    title: str
    kind: Literal["class", "percent"]
    each_class: bool = False

    def dtype(self, legend: Legend) -> np.dtype[np.generic]:
        """Dtype of its pixels."""
        return np.dtype(legend.dtype) if self.kind == "class" else np.dtype(np.uint8)

    def nodata(self, legend: Legend) -> int:
        """Value of the pixels without content."""
        return legend.ignore if self.kind == "class" else NO_PERCENT

    def bands(self, legend: Legend) -> tuple[str, ...]:
        """One name a band."""
        return legend.names if self.each_class else (self.name,)

    @property
    def unit(self) -> str:
        """The unit of its values; none of classes."""
        return "%" if self.kind == "percent" else ""

    @property
    def resampling(self) -> Literal["mode", "average"]:
        """How its overviews are made."""
        return "mode" if self.kind == "class" else "average"

    def empty(self, legend: Legend, shape: tuple[int, ...]) -> NDArray[Any]:
        """Nodata throughout, `(band, row, col)`."""
        return np.full((len(self.bands(legend)), *shape), self.nodata(legend), self.dtype(legend))

    def placed(self, found: NDArray[Any], legend: Legend, valid: NDArray[np.bool_]) -> NDArray[Any]:
        """What was measured, `(band, row, col)`, with class ids for channels, and nodata where nothing is valid."""
        if self.kind == "class":
            found = legend.ids.astype(legend.dtype)[found]
        found[:, ~valid] = self.nodata(legend)
        return found


LAYERS: Mapping[str, Layer] = {
    layer.name: layer
    for layer in (
        Layer("class", "Land-cover classes", "class"),
        Layer("confidence", "Probability of the class, percent", "percent"),
        Layer("entropy", "Shannon entropy of the probabilities over its largest, percent", "percent"),
        Layer("margin", "Probability of the class less that of the second, percent", "percent"),
        Layer("second", "The class of the second highest probability", "class"),
        Layer("probabilities", "Probability of each class, percent", "percent", each_class=True),
    )
}
ALWAYS = ("class", "confidence")

LEVEL = Layer("level", "Probability of the class, in steps of 1/255", "percent")
"""For what counts a map instead of writing it: finer than percent."""


def chosen_layers(extra: Sequence[str]) -> tuple[Layer, ...]:
    """The layers always written and those asked for, in the order of `LAYERS`.

    Raises:
        InputError: A name is unknown.

    >>> [layer.name for layer in chosen_layers(["margin"])]
    ['class', 'confidence', 'margin']
    """
    unknown = [name for name in extra if name not in LAYERS]
    if unknown:
        known = ", ".join(name for name in LAYERS if name not in ALWAYS)
        raise InputError(f"layer '{unknown[0]}' is unknown; known are {known}")
    return tuple(layer for name, layer in LAYERS.items() if name in ALWAYS or name in extra)
