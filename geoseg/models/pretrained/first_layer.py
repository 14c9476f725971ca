"""The first layer of a pretrained network, made to fit other bands than it was trained on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

SAME = 0.045  # of its wavelength: more lies between near infrared of Landsat 5 and 8, less between two of red edge
FARTHEST = 1.5
"""A band whose wavelength is more than this times that of every source band, or less than 1/this, has no neighbour."""


BANDS_INNERMOST = ("naflexvit", "tresnet")
"""Encoders whose first layer sees squares of pixels, one pixel after the other, the bands of each side by side."""


def adapt_encoder(
    weight: Tensor,
    source_um: Sequence[float | None],
    target_um: Sequence[float | None],
    *,
    encoder: str,
    source_names: Sequence[str] | None = None,
    target_names: Sequence[str] | None = None,
) -> Tensor:
    """`adapt_first_layer` of the first layer of an encoder of that name, in whatever order its channels are."""
    names = {"source_names": source_names, "target_names": target_names}
    inner = weight.shape[1] // len(source_um)
    if inner == 1 or not encoder.removeprefix("tu-").startswith(BANDS_INNERMOST):
        return adapt_first_layer(weight, source_um, target_um, **names)
    outermost = _swapped(weight, len(source_um))
    return _swapped(adapt_first_layer(outermost, source_um, target_um, **names), inner)


def _swapped(weight: Tensor, last: int) -> Tensor:
    """A weight `(out, a * last, ...)` as `(out, last * a, ...)`."""
    shape = weight.shape
    return weight.reshape(len(weight), -1, last, *shape[2:]).transpose(1, 2).reshape(shape)


def adapt_first_layer(
    weight: Tensor,
    source_um: Sequence[float | None],
    target_um: Sequence[float | None],
    *,
    source_names: Sequence[str] | None = None,
    target_names: Sequence[str] | None = None,
) -> Tensor:
    """The kernels of a first layer for other bands: each made of those of the bands beside it in the spectrum.

    A band between two source bands gets both kernels, weighted by nearness; one beyond the last the last one's; one of
    unknown wavelength, or far from all, the mean of all. Bands of one name are the same. Then all are multiplied by the
    source's count of bands over the target's: an image whose bands are all alike gives on average what it gave, as
    timm does for grey images (Wightman 2019, `adapt_input_conv`).

    Args:
        weight: `(out, band, ...)`, or `(out, band * pixel, ...)` for a layer over squares of pixels, band by band.
        source_um: Wavelengths in micrometres of the bands it was trained on, None where unknown.
        target_um: Those of the bands it is to take.
        source_names: Names of the source bands.
        target_names: Names of the target bands.

    Returns:
        `(out, target band, ...)`, or `(out, target band * pixel, ...)`; the weight itself where the bands are the same.
    """
    mixing, _ = band_mixing(source_um, target_um, source_names=source_names, target_names=target_names)
    shares = mixing.to(weight) * (len(source_um) / len(target_um))
    kernels = weight.reshape(len(weight), len(source_um), -1)
    adapted = torch.einsum("ts,osp->otp", shares, kernels)
    return adapted.reshape(len(weight), -1, *weight.shape[2:])


def band_mixing(
    source_um: Sequence[float | None],
    target_um: Sequence[float | None],
    *,
    source_names: Sequence[str] | None = None,
    target_names: Sequence[str] | None = None,
) -> tuple[Tensor, Tensor]:
    """Of which source bands each target band is made, and which are made of neighbours.

    Returns:
        Shares, float64 `(target, source)`, each row adding up to 1; and bool `(target,)`, False where a row is the mean
        of all for want of a wavelength.
    """
    mixing = torch.full((len(target_um), len(source_um)), 1 / len(source_um), dtype=torch.float64)
    found = torch.zeros(len(target_um), dtype=torch.bool)
    for row, um in enumerate(target_um):
        shares = _named(row, source_names, target_names, source_um=source_um, um=um) or _neighbours(source_um, um)
        if shares:
            mixing[row] = 0
            for column, share in shares.items():
                mixing[row, column] = share
            found[row] = True
    return mixing, found


def is_same_band(one_um: float | None, other_um: float | None) -> bool:
    """Whether bands of one name are one band: B5 is red edge on Sentinel-2, and near infrared on Landsat 8."""
    return one_um is None or other_um is None or abs(one_um - other_um) <= SAME * other_um


def _named(
    row: int, source_names: Sequence[str] | None, target_names: Sequence[str] | None, *,
    source_um: Sequence[float | None], um: float | None,
) -> dict[int, float] | None:  # fmt: skip
    """The source band of the same name, case aside, where wavelengths do not say that it is another one."""
    if source_names is None or target_names is None:
        return None
    names = [name.lower() for name in source_names]
    name = target_names[row].lower()
    if name not in names or not is_same_band(um, source_um[names.index(name)]):
        return None
    return {names.index(name): 1.0}


def _neighbours(source_um: Sequence[float | None], um: float | None) -> dict[int, float] | None:
    """Shares of the source bands beside a wavelength: one, two, or none where it is unknown or far from all."""
    known = sorted((source, column) for column, source in enumerate(source_um) if source is not None)
    if um is None or not any(um / FARTHEST <= source <= um * FARTHEST for source, _ in known):
        return None
    below = [pair for pair in known if pair[0] <= um]
    above = [pair for pair in known if pair[0] > um]
    if not below or not above or below[-1][0] == um:
        return {(below[-1] if below else above[0])[1]: 1.0}
    (low, left), (high, right) = below[-1], above[0]
    share = (high - um) / (high - low)
    return {left: share, right: 1 - share}
