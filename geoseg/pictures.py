"""Pictures for the eye: which bands stand for red, green and blue, how their values are stretched, and how small."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import ceil, log2
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

TRUE_COLOR = ("red", "green", "blue")

CUT_PERCENT = 2.0
"""Share of the valid pixels that is cut at each end of a band, in percent."""


def picture_bands(names: Sequence[str]) -> list[int]:
    """Positions of red, green and blue, else of the first three bands, else of the first.

    >>> picture_bands(["B2_blue", "B3_green", "B4_red", "red_edge"]), picture_bands(["Red edge", "nir"])
    ([2, 1, 0], [0])
    """
    found = [_named(color, names) for color in TRUE_COLOR]
    return found if min(found) >= 0 else [0, 1, 2] if len(names) >= 3 else [0]


def _named(color: str, names: Sequence[str]) -> int:
    """The band of that name, else the first with it among its words: B4_red is red, red_edge is not; else -1."""
    lowered = [name.lower() for name in names]
    if color in lowered:
        return lowered.index(color)
    words = [re.split(r"[^a-z]+", name) for name in lowered]
    return next((k for k, own in enumerate(words) if color in own and "edge" not in own), -1)


def stretched(
    bands: NDArray[Any],
    valid: NDArray[np.bool_],
    *,
    percent: float = CUT_PERCENT,
    bare: tuple[int, int, int, int] = (0, 0, 0, 0),
) -> NDArray[np.uint8]:
    """Picture `(row, col, 4)` of three bands, or of one in grey, each stretched between its own percentiles.

    Args:
        bands: Values `(band, row, col)` of any dtype.
        valid: Which pixels are usable, `(row, col)`.
        percent: Share of them that is cut at each end.
        bare: Colour of the others; clear by default.
    """
    out = np.full((*valid.shape, 4), bare, np.uint8)
    if not valid.any():
        return out
    for channel in range(3):
        band = bands[channel % len(bands)][valid].astype(np.float64)
        low, high = np.percentile(band, [percent, 100 - percent])
        out[valid, channel] = np.clip((band - low) / max(high - low, 1e-12) * 255, 0, 255)
    out[valid, 3] = 255
    return out


def shrunk(geobox: GeoBox, *, longest_px: int) -> GeoBox:
    """The same ground in at most `longest_px` pixels on the longer side; the geobox itself where it is small enough.

    Without a CRS only whole pixels can be put together: 2, 4, 8, ... a side, as in overviews.
    """
    rows, cols = geobox.shape
    factor = max(rows, cols) / longest_px
    if factor <= 1:
        return geobox
    if geobox.crs is not None:
        return geobox.zoom_to((max(1, round(rows / factor)), max(1, round(cols / factor))))
    step = 2 ** ceil(log2(factor))
    return GeoBox((-(-rows // step), -(-cols // step)), geobox.affine @ Affine.scale(step), None)
