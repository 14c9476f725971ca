"""What values pretrained weights expect, in the units of the file.

torchgeo says by which means and deviations its weights' input is normalised, in the unit that they were trained on:
Sentinel-2 as reflectance times 10000, Landsat as bytes of a range of reflectance, and so on. Said in what unit a scene
is, the same normalisation follows for the scene's own numbers.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import reduce
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geoseg.errors import InputError
from geoseg.models.pretrained.catalog import Entry, entry_of_file, find_entry, is_entry_name
from geoseg.models.pretrained.first_layer import band_mixing
from geoseg.models.pretrained.sources import is_file_name
from geoseg.models.wavelengths import band_wavelengths

logger = logging.getLogger(__name__)

UNITS = {
    "reflectance": "as it is, 0 to 1",
    "reflectance*10000": "Sentinel-2's numbers",
    "reflectance*10000+1000": "those of Sentinel-2 products since January 2022, before their offset is taken off",
    "reflectance*36363.6+7272.7": "Landsat Collection 2, level 2",
    "reflectance*50000+5000": "Landsat level 1",
    "byte": "0 to 255 of a picture",
    "decibel": "backscatter of radar",
}
"""Units that a scene may be in; any `reflectance*A+B` will do."""

# Of torchgeo's weights, by the beginning and end of their names: the unit of the numbers that they were trained on.
# SSL4EO-L: bytes of 0 to 0.4 (top of atmosphere) and 0 to 0.3 (surface reflectance), by torchgeo's experiments/ssl4eo/
# landsat/compress_*.sh. Satlas: allenai/satlas, Normalization.md; Sentinel-2's true-colour image has 255 at a
# reflectance of 0.3558 (ESA, Sentinel-2 user guide, definitions); Landsat's level 1 is 2e-5 * number - 0.1 (USGS).
TRUE_COLOUR = f"reflectance*{255 / 0.3558:.6g}"
TRAINED_ON: tuple[tuple[str, str | None], ...] = (
    (r"SENTINEL1_\w+_SATLAS", None),  # numbers of ground-range products, cut at 255 (allenai/satlas, issue 49)
    (r"SENTINEL1_", "decibel"),
    (r"SENTINEL2_RGB_SECO$", "byte"),
    (r"SENTINEL2_\w+_SATLAS$", "reflectance*10000"),
    (r"SENTINEL2_", "reflectance*10000"),
    (r"LANDSAT_\w+_SATLAS$|LANDSAT_[MS]I_SATLAS$", "reflectance*50000+5000"),
    (r"LANDSAT_\w+_TOA_", "reflectance*640"),
    (r"LANDSAT_\w+_SR_", f"reflectance*{256 / 0.3:.6g}"),
    (r"NAIP_|FMOW_", "byte"),
)
FAR = 5.0  # deviations from the mean that weights were trained on: beyond it the unit is another one
THERMAL_UM = 3.0  # beyond it a band is a temperature, no reflectance


@dataclass(frozen=True, slots=True)
class InputScaling:
    """What a network's bands are normalised by, in the units of the file: `(value - mean) / std`.

    Attributes:
        mean: Of each band, None where the data's own is to be taken.
        std: Of each band, None where `mean` is.
    """

    mean: tuple[float | None, ...]
    std: tuple[float | None, ...]

    def over(self, mean: ArrayLike, std: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Means and deviations of all bands: these, and the data's own where there are none.

        Args:
            mean: The data's own, of each band.
            std: Likewise.
        """
        pairs = ((self.mean, mean), (self.std, std))
        own, other = (
            np.where([value is None for value in ours], data, np.array(ours, dtype=np.float64)) for ours, data in pairs
        )
        return own, other


def pretrained_input(
    weights: str | None,
    bands: Sequence[str],
    *,
    unit: str | None = None,
    wavelengths_um: Sequence[float | None] | None = None,
) -> InputScaling | None:
    """The normalisation that pretrained weights expect, for the bands of a scene in the scene's unit.

    A band between two that the weights know gets what lies between theirs; one that they do not know, and temperatures,
    are left to the data's own statistics.

    Args:
        weights: As for `create_model`: a name of torchgeo's, or a file that has the name of one of its files.
        bands: Names of the scene's bands.
        unit: Of the scene's numbers: one of `UNITS` or any `reflectance*A+B`; None where it is not known.
        wavelengths_um: Of the bands; from their names by default.

    Returns:
        None where the weights say nothing, or the unit is not known: then the data's own statistics will do.

    Raises:
        InputError: The unit is none, or the weights were trained on one that it cannot be turned into.
    """
    scale = None if unit is None else unit_scale(unit)
    entry = _entry(weights)
    if entry is None or unit is None or not entry.normalization or entry.bands is None:
        return None
    source = [_in_unit(entry, place, unit, scale) for place in range(len(entry.bands))]
    target = tuple(wavelengths_um) if wavelengths_um is not None else band_wavelengths(bands)
    mixing, found = band_mixing(
        entry.wavelengths_um or (None,) * len(entry.bands), target, source_names=entry.bands, target_names=bands
    )
    means: list[float | None] = []
    stds: list[float | None] = []
    for shares, known in zip(mixing.tolist(), found.tolist(), strict=True):
        parts = [(share, pair) for share, pair in zip(shares, source, strict=True) if share]
        usable = known and all(pair is not None for _, pair in parts)
        means.append(sum(share * pair[0] for share, pair in parts if pair) if usable else None)
        stds.append(sum(share * pair[1] for share, pair in parts if pair) if usable else None)
    return InputScaling(tuple(means), tuple(stds))


def expected_input(
    weights: str,
    bands: Sequence[str],
    *,
    mean: ArrayLike,
    std: ArrayLike,
    limits: tuple[ArrayLike, ArrayLike] | None = None,
    unit: str | None = None,
    wavelengths_um: Sequence[float | None] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means and deviations to normalise a scene by: those that weights expect, and the data's own where they say none.

    A unit that is guessed and does not fit the data leaves the data's own, with a warning.

    Args:
        weights: As for `create_model`.
        bands: Names of the scene's bands.
        mean: The data's own, of each band.
        std: Likewise.
        limits: Least and largest value of each band, by which the unit is guessed where it is not given.
        unit: As for `pretrained_input`, or none, which leaves the data's own.
        wavelengths_um: Of the bands; from their names by default.

    Raises:
        InputError: The unit is none, or cannot be turned into that of the weights.
    """
    own = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    if unit == "none":
        return own
    guessed = unit is None and limits is not None
    taken = guess_unit(*limits) if limits is not None and unit is None else unit
    try:
        scaling = pretrained_input(weights, bands, unit=taken, wavelengths_um=wavelengths_um)
    except InputError as error:
        if not guessed:
            raise
        logger.warning("%s", error)
        return own
    if scaling is None:
        return own
    means, stds = scaling.over(*own)
    far = np.abs(own[0] - means) / stds > FAR
    if far.any():
        names = ", ".join(name for name, so in zip(bands, far.tolist(), strict=True) if so)
        what = f"model.unit is {taken}" if not guessed else f"the scenes' numbers look like {taken}"
        logger.warning("%s, but the means of %s are not what %s were trained on", what, names, weights)
        return own if guessed else (means, stds)
    note = "; model.unit says so if they are in another unit" if guessed else ""
    logger.info("bands are normalised as %s expect, their numbers being %s%s", weights, taken, note)
    return means, stds


def unit_scale(unit: str) -> tuple[float, float] | None:
    """Factor and offset of a unit of reflectance, None for units that are of something else.

    Raises:
        InputError: It is no unit.

    >>> unit_scale("reflectance*10000"), unit_scale("reflectance*36363.6+7272.7"), unit_scale("byte")
    ((10000.0, 0.0), (36363.6, 7272.7), None)
    """
    if unit in ("byte", "decibel"):
        return None
    number = r"\d+(?:\.\d+)?(?:e-?\d+)?"
    found = re.fullmatch(rf"reflectance(?:\*({number}))?([+-]{number})?", unit.replace(" ", "").lower())
    if found is None or float(found[1] or 1) == 0:
        near = get_close_matches(unit, UNITS, n=2, cutoff=0.4) or list(UNITS)
        raise InputError(f"unit '{unit}' is unknown; needed is one such as {', '.join(near)}, or any reflectance*A+B")
    return float(found[1] or 1), float(found[2] or 0)


def guess_unit(low: ArrayLike, high: ArrayLike) -> str | None:
    """The unit that numbers of a scene are likely in, by their least and largest; None where that tells nothing.

    Args:
        low: Least number of each band over many pixels.
        high: Largest number of each band.

    >>> guess_unit([0, 0], [0.6, 1.1]), guess_unit([20, 90], [3000, 11000]), guess_unit([0], [255])
    ('reflectance', 'reflectance*10000', 'byte')
    >>> guess_unit([7301, 7100], [30000, 43000]), guess_unit([-22], [1.5])
    ('reflectance*36363.6+7272.7', 'decibel')
    """
    least, most = float(np.min(low)), float(np.max(high))
    if least < -3 and most < 40:
        return "decibel"
    if least > -1 and most <= 2:
        return "reflectance"
    if least >= 0 and 2 < most <= 255:
        return "byte"
    if least >= 6000 and most <= 65535:
        return "reflectance*36363.6+7272.7"
    return "reflectance*10000" if least > -2000 and 1000 < most <= 28000 else None


def _entry(weights: str | None) -> Entry | None:
    if weights is None:
        return None
    if is_file_name(weights):
        return entry_of_file(Path(weights).name)
    return find_entry(weights) if is_entry_name(weights) else None


def _in_unit(entry: Entry, place: int, unit: str, scale: tuple[float, float] | None) -> tuple[float, float] | None:
    """Mean and deviation of one of the weights' bands in a scene's unit; None for a temperature, or a band of no unit.

    Raises:
        InputError: The one cannot be turned into the other.
    """
    own = _own_unit(entry, place)
    um = (entry.wavelengths_um or (None,) * (place + 1))[place]
    if own is None or (um is not None and um > THERMAL_UM):
        return None
    mean, std = _composed(entry, place)
    if own == unit:
        return mean, std
    trained = unit_scale(own)
    if trained is None or scale is None:
        raise InputError(
            f"{entry.name} were trained on {own}, and the scene's unit is {unit}: give "
            "bands in that unit, or leave the unit out, and the data's own statistics are taken"
        )
    factor = scale[0] / trained[0]
    return (mean - trained[1]) * factor + scale[1], std * factor


def _own_unit(entry: Entry, place: int) -> str | None:
    name = entry.name.split(".", 1)[1]
    if name.startswith("SENTINEL2_") and name.endswith("_SATLAS") and place < 3:
        return TRUE_COLOUR
    return next((unit for pattern, unit in TRAINED_ON if re.match(pattern, name)), None)


def _composed(entry: Entry, place: int) -> tuple[float, float]:
    """One mean and deviation that do what all steps of normalising do, of one band."""

    def then(so_far: tuple[float, float], step: tuple[tuple[float, ...], tuple[float, ...]]) -> tuple[float, float]:
        mean, std = (values[place] if len(values) > 1 else values[0] for values in step)
        return so_far[0] + so_far[1] * mean, so_far[1] * std

    return reduce(then, entry.normalization, (0.0, 1.0))
