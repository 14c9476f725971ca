"""Does a new scene look like what a model was trained on: its bands' values against those of the training pixels.

A network trained on one range of values is at a loss in another, and says nothing. Most cases are not the ground's
doing: another scaling, another offset, bands in another order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import floor, log10
from typing import Any, Literal

import numpy as np

from geoseg.data.grids import grid_at, ground_gsd_m
from geoseg.data.statistics import BandStats
from geoseg.data.survey import SAMPLES, survey
from geoseg.io.combine import pick
from geoseg.io.protocol import Source
from geoseg.raster import QUANTILE_LEVELS, match_bands

Verdict = Literal["as trained", "shifted", "out of range", "no data"]

SHIFT_STD = 1.0
"""A band whose mean lies further from the training mean, in training standard deviations, is shifted."""

SPREAD = 2.0
"""A band whose standard deviation is larger or smaller than the training one by this factor is shifted."""

DISTANCE = 0.35
"""A band with a larger Kolmogorov-Smirnov distance is shifted."""

OUTSIDE = 0.2
"""A band with a larger share of pixels outside the 1 % and 99 % quantiles (2 % in training) is shifted."""

FAR_STD = 4.0
"""A band whose mean lies further from the training mean, in training standard deviations, is out of range."""

BEYOND = 0.2
"""A band with a larger share of pixels below the smallest or above the largest training value is out of range."""

SCALED = 5.0
"""Values that are larger or smaller by this factor, mean and spread alike, have another scaling."""

ALIKE = 0.5
"""Bands are in another order where the Kolmogorov-Smirnov distances of those that would move fall to this share, ..."""

CLEARLY = 0.1
"""... and by this much in the mean."""

MOST_ORDERED = 32
"""More bands lie so close that they cannot be told apart."""

COARSER = 1.1
"""Only a model whose pixels are larger than the scene's by this factor sees the scene resampled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedBand:
    """What a model knows of a band: mean and standard deviation of its training pixels, their range and quantiles.

    `quantiles` are the values at `QUANTILE_LEVELS`; none where the model was made before they were kept.
    """

    name: str
    mean: float
    std: float
    min: float | None = None
    max: float | None = None
    quantiles: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BandDrift:
    """A band of a scene against its training pixels.

    Attributes:
        name: The band.
        trained_mean: Mean of the training pixels.
        trained_std: Their standard deviation.
        pixels: Pixels of the scene that were looked at.
        mean: Mean of these.
        std: Their standard deviation.
        shift: Difference of the means in training standard deviations.
        std_ratio: `std / trained_std`.
        below: Share of pixels below the smallest training value; None where that is not known.
        above: Share of pixels above the largest training value.
        outside: Share of pixels outside the 1 % and 99 % quantiles of training.
        distance: Kolmogorov-Smirnov distance, see `band_drift`.
        verdict: `as trained`, `shifted`, `out of range` or `no data`.
        note: What may be the matter, in plain words; mostly empty.
    """

    name: str
    trained_mean: float
    trained_std: float
    pixels: int
    mean: float | None = None
    std: float | None = None
    shift: float | None = None
    std_ratio: float | None = None
    below: float | None = None
    above: float | None = None
    outside: float | None = None
    distance: float | None = None
    verdict: Verdict = "no data"
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def band_drift(
    source: Source,
    expected: Sequence[ExpectedBand],
    *,
    gsd_m: tuple[float, float] | None = None,
    samples: int = SAMPLES,
) -> tuple[BandDrift, ...]:
    """Each expected band of a scene against its training pixels.

    The scene is read once. Of one with more than `samples` values, pixels times bands, evenly spread blocks are read,
    the same each time. Pixels count that are valid in every expected band, as for the network.

    The distance is that of Kolmogorov and Smirnov, the largest difference of two cumulative distributions (Massey 1951,
    "The Kolmogorov-Smirnov test for goodness of fit", Journal of the American Statistical Association 46), taken over
    the quantiles that the model keeps, so a lower bound; where a quantile stands for many equal pixels, the nearer end
    of the step counts.

    Args:
        source: The scene; it has the expected bands by name.
        expected: What the model knows of its bands.
        gsd_m: Ground sampling distance of the model, `(row, col)` in metres: a finer scene is looked at in pixels of
            this size, as the network sees it. Others are looked at in their own.
        samples: The most values to read.

    Raises:
        BandError: The scene lacks a band.
        ReadError: The scene cannot be read.
    """
    names = [band.name for band in expected]
    chosen = pick(source, match_bands(names, source.bands), names)
    geobox = source.geobox
    if gsd_m is not None and geobox.crs is not None:
        own = ground_gsd_m(geobox)
        if sum(gsd_m) > COARSER * sum(own):
            geobox = grid_at(geobox, sum(gsd_m) / 2)
    return compare(survey(chosen, geobox=geobox, samples=samples, each_band=False).stats, expected)


def compare(stats: BandStats, expected: Sequence[ExpectedBand]) -> tuple[BandDrift, ...]:
    """The bands of a scene, whose statistics these are, against their training pixels; see `band_drift`."""
    found = tuple(_compared(stats, band, wanted) for band, wanted in enumerate(expected))
    note = _scaling(found) or _offset(found)
    if not note:
        return _with_order(found, likely_order(stats, expected))
    return tuple(replace(band, note=note, verdict="out of range") if band.pixels else band for band in found)


def likely_order(stats: BandStats, expected: Sequence[ExpectedBand]) -> tuple[int, ...]:
    """Of each band, the expected one whose training pixels it is most like; their own where no order is far better."""
    own = tuple(range(len(expected)))
    if not 1 < len(own) <= MOST_ORDERED or not stats.count.all() or not all(band.quantiles for band in expected):
        return own
    apart = np.array([[_against_quantiles(stats, band, wanted)[1] for wanted in expected] for band in own], np.float64)
    if (apart.diagonal() - apart.min(1)).sum() < 2 * CLEARLY:  # no two bands could change places
        return own
    from scipy.optimize import linear_sum_assignment

    order = linear_sum_assignment(apart)[1]
    moved = order != own
    if not moved.any():
        return own
    before, after = apart.diagonal()[moved].mean(), apart[own, order][moved].mean()
    return tuple(order.tolist()) if after <= ALIKE * before and before - after >= CLEARLY else own


def _with_order(bands: tuple[BandDrift, ...], order: tuple[int, ...]) -> tuple[BandDrift, ...]:
    """The bands with a note on those that are like other ones."""
    moved = [band for band, place in enumerate(order) if band != place]
    if not moved:
        return bands
    note = f"values look like those of {', '.join(bands[order[band]].name for band in moved)}: another order of bands"
    return tuple(replace(one, note=note) if band in moved else one for band, one in enumerate(bands))


def _compared(stats: BandStats, band: int, wanted: ExpectedBand) -> BandDrift:
    known = {"name": wanted.name, "trained_mean": wanted.mean, "trained_std": wanted.std}
    pixels = int(stats.count[band])
    if not pixels:
        return BandDrift(**known, pixels=0, note="no valid pixel")  # type: ignore[arg-type] # the three above
    mean, std = float(stats.mean[band]), float(np.sqrt(stats.squares[band] / pixels))
    below, above = _beyond(stats, band, wanted)
    outside, distance = _against_quantiles(stats, band, wanted)
    drift = BandDrift(
        **known, pixels=pixels, mean=mean, std=std, shift=(mean - wanted.mean) / wanted.std,  # type: ignore[arg-type]
        std_ratio=std / wanted.std, below=below, above=above, outside=outside, distance=distance,
    )  # fmt: skip
    return replace(drift, verdict=verdict_of(drift))


def _beyond(stats: BandStats, band: int, wanted: ExpectedBand) -> tuple[float | None, float | None]:
    """Shares of pixels below and above the training range."""
    below = None if wanted.min is None else float(stats.shares(np.array([wanted.min]), band)[0][0])
    above = None if wanted.max is None else 1 - float(stats.shares(np.array([wanted.max]), band)[1][0])
    return below, above


def _against_quantiles(stats: BandStats, band: int, wanted: ExpectedBand) -> tuple[float | None, float | None]:
    """The share of pixels outside the outer quantiles, and the Kolmogorov-Smirnov distance at all of them."""
    if not wanted.quantiles:
        return None, None
    levels, values = np.array(QUANTILE_LEVELS), np.array(wanted.quantiles)
    below, upto = stats.shares(values, band)
    apart = np.maximum(0, np.maximum(below - levels, levels - upto))
    return float(below[0] + 1 - upto[-1]), float(apart.max())


def verdict_of(drift: BandDrift) -> Verdict:
    """The word for a band's figures, by the thresholds at the top of this module."""
    if not drift.pixels or drift.shift is None or drift.std_ratio is None:
        return "no data"
    if abs(drift.shift) > FAR_STD or (drift.below or 0) + (drift.above or 0) > BEYOND:
        return "out of range"
    shifted = (
        abs(drift.shift) > SHIFT_STD
        or not 1 / SPREAD <= drift.std_ratio <= SPREAD
        or (drift.distance or 0) > DISTANCE
        or (drift.outside or 0) > OUTSIDE
    )
    return "shifted" if shifted else "as trained"


def _scaling(bands: Sequence[BandDrift]) -> str:
    """What to say where most bands are larger or smaller by one factor, in mean and spread alike; else nothing."""
    factors = []
    for band in bands:
        if not band.mean or not band.std or not band.std_ratio or band.mean * band.trained_mean <= 0:
            continue
        by_mean, by_spread = log10(band.mean / band.trained_mean), log10(band.std_ratio)
        if abs(by_mean - by_spread) < log10(SCALED):
            factors.append((by_mean + by_spread) / 2)
    counted = [band for band in bands if band.pixels]
    if not factors or 2 * len(factors) <= len(counted):
        return ""
    typical = float(np.median(factors))
    if abs(typical) < log10(SCALED):
        return ""
    way = "larger" if typical > 0 else "smaller"
    return f"values are about {_rounded(10 ** abs(typical))} times {way}: another scaling"


def _rounded(factor: float) -> str:
    """The factor as people say it: a power of ten where it is near to one, else two digits."""
    power = round(log10(factor))
    if abs(log10(factor) - power) < 0.2:
        return f"{10**power:,}"
    step = 10 ** (floor(log10(factor)) - 1)
    return f"{round(factor / step) * step:,.0f}"


def _offset(bands: Sequence[BandDrift]) -> str:
    """What to say where all bands, two at least, are higher by one and the same amount and as wide; else nothing."""
    steps = [(band.mean or 0) - band.trained_mean for band in bands if band.pixels]
    alike = all(0.8 <= band.std_ratio <= 1.25 for band in bands if band.std_ratio is not None)
    if len(steps) < 2 or not alike:
        return ""
    typical = float(np.median(steps))
    near = all(abs(step - typical) <= 0.1 * abs(typical) for step in steps)
    if not near or not all(abs(band.shift) > SHIFT_STD for band in bands if band.shift is not None):
        return ""
    way = "higher" if typical > 0 else "lower"
    one, two = (float(f"{abs(typical):.{digits}g}") for digits in (1, 2))
    amount = one if abs(one - abs(typical)) <= 0.03 * one else two
    return f"values are about {amount:,.10g} {way} in every band: another offset"
