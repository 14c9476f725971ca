"""A scene against a model: are its bands there, is its resolution near, do its values look like the training pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

from geoseg.data.drift import BandDrift, ExpectedBand, band_drift
from geoseg.data.survey import native_block
from geoseg.errors import GeosegError
from geoseg.inspecting.grids import ground_size
from geoseg.inspecting.model_text import card_blocks
from geoseg.inspecting.tables import Info, facts, number, percent, some, table
from geoseg.io.protocol import Source
from geoseg.models.card import ModelCard, read_card
from geoseg.models.onnx_card import ONNX_SUFFIX, read_onnx_card
from geoseg.models.program_card import PROGRAM_SUFFIX, read_program_card

READERS = {ONNX_SUFFIX: read_onnx_card, PROGRAM_SUFFIX: read_program_card}
"""Of files other than the model file itself."""

QUICK = 1 << 21
"""Values of a scene, bands times pixels, that are looked at before it is mapped."""

FAR_FACTOR = 2.0
"""A scene whose pixels are larger or smaller than the model's by more than that is warned of."""


UNLIKE = 0.5
"""A scene whose bands lie further from the training pixels, by the median of their Kolmogorov-Smirnov distances, is
warned of. Parts of a scene that show but one kind of land stay below."""


def model_card(path: Path) -> ModelCard:
    """What a model file, .safetensors, .onnx or .pt2, says of itself.

    Raises:
        MissingInputError: There is no such file.
        ModelFileError: It is no geoseg model.
    """
    return READERS.get(path.suffix.lower(), read_card)(path)


def describe_model(path: Path) -> Info:
    """A model file in words.

    Raises:
        MissingInputError: There is no such file.
        ModelFileError: It is no geoseg model.
    """
    card = model_card(path)
    return Info("model", {"name": str(path), "card": card.to_dict()}, card_blocks(card))


def compare_scene(info: Info, source: Source, card: ModelCard) -> Info:
    """What was found of a scene, and how it stands to a model.

    Raises:
        ReadError: The scene cannot be read.
    """
    offered = [band.lower() for band in source.bands]
    matched = [band for band in card.bands if offered.count(band.name.lower()) == 1]
    missing = [band.name for band in card.bands if band not in matched]
    drift = band_drift(source, [_expected(band) for band in matched], gsd_m=card.gsd_m) if matched else ()
    own = ground_size(source.geobox)
    ratio = None if own is None else sum(own) / sum(card.gsd_m)
    values = {
        "model": {
            "name": card.name,
            "bands_matched": [band.name for band in matched],
            "bands_missing": missing,
            "gsd_m": list(card.gsd_m),
            "gsd_ratio": ratio,
            "drift": [band.to_dict() for band in drift],
        }
    }
    blocks = [_heading(card, source, missing, own=own)]
    if drift:
        blocks.append(drift_table(drift))
    found = (*info.warnings, *_warnings(missing, source, ratio, drift))
    return replace(info, values={**info.values, **values}, blocks=(*info.blocks, *blocks), warnings=found)


def drift_lines(source: Source, card: ModelCard) -> list[str]:
    """What a model is not used to in a scene that has its bands, in plain words, by a quick look at a few blocks.

    Nothing is said of a scene that cannot be looked at quickly: blocks that cannot be read, or are huge as stored.
    """
    try:
        if prod(native_block(source) or (1, 1)) * len(card.bands) > QUICK:
            return []
        drift = band_drift(source, [_expected(band) for band in card.bands], gsd_m=card.gsd_m, samples=QUICK)
    except GeosegError:
        return []
    return _drift_warnings([band for band in drift if band.pixels])


def _expected(band: Any) -> ExpectedBand:
    """What the card says of a band, as the drift asks it."""
    mean, std = band.moments
    return ExpectedBand(name=band.name, mean=mean, std=std, min=band.min, max=band.max, quantiles=band.quantiles)


def _heading(card: ModelCard, source: Source, missing: Sequence[str], *, own: tuple[float, float] | None) -> str:
    there = len(card.bands) - len(missing)
    lacking = f"; it lacks {', '.join(missing)}" if missing else ""
    size = f"{card.gsd_m[1]:.4g} x {card.gsd_m[0]:.4g} m"
    scene = "unknown" if own is None else f"{own[1]:.4g} x {own[0]:.4g} m"
    return facts(
        [
            ("against", card.name),
            ("bands", f"{there} of the model's {len(card.bands)} are among the scene's {len(source.bands)}{lacking}"),
            ("pixel", f"{size} in training, {scene} here"),
        ]
    )


def drift_table(drift: Sequence[BandDrift]) -> str:
    """The bands against their training pixels, and what the columns mean."""
    rows = [
        [band.name, number(band.trained_mean), number(band.trained_std), number(band.mean), number(band.std),
         "-" if band.shift is None else f"{band.shift:+.2f}",
         "-" if band.std_ratio is None else f"{band.std_ratio:.3g}",
         percent(band.below), percent(band.above), percent(band.outside),
         "-" if band.distance is None else f"{band.distance:.2f}", band.verdict]
        for band in drift
    ]  # fmt: skip
    heads = ["band", "trained mean", "std", "mean here", "std", "shift", "ratio", "below", "above", "outside", "KS",
             "verdict"]  # fmt: skip
    legend = (
        "shift: of the mean, in training standard deviations; ratio: of the standard deviations; below, above: pixels\n"
        "beyond the training range; outside: its 1 % and 99 % quantiles; KS: Kolmogorov-Smirnov distance"
    )
    return f"{table(heads, rows)}\n{legend}"


def _warnings(missing: Sequence[str], source: Source, ratio: float | None, drift: Sequence[BandDrift]) -> list[str]:
    found = []
    if missing:
        found.append(
            f"the scene has [{', '.join(source.bands)}] and lacks {', '.join(missing)}; if they are there under other "
            "names, name the scene's bands in their order with --bands"
        )
    if ratio is not None and not 1 / FAR_FACTOR <= ratio <= FAR_FACTOR:
        way = f"{ratio:.3g} times as large as" if ratio > 1 else f"{1 / ratio:.3g} times smaller than"
        found.append(f"the scene's pixels are {way} those of training; predict resamples, but cannot add detail")
    return found + _drift_warnings(drift)


def _drift_warnings(drift: Sequence[BandDrift]) -> list[str]:
    notes = dict.fromkeys(band.note for band in drift if band.note)
    found = [f"{note} ({some([band.name for band in drift if band.note == note])})" for note in notes]
    far = [band.name for band in drift if band.verdict == "out of range" and not band.note]
    if far:
        found.append(f"the values of {some(far)} lie far from those of training: the map is not to be trusted there")
    known = [band.distance for band in drift if band.distance is not None]
    if not found and known and median(known) > UNLIKE:
        found.append(
            "the values of most bands are not spread like those of training (Kolmogorov-Smirnov distance "
            f"{median(known):.2f} in the median): other land, another season or another sensor; trust the map less"
        )
    return found
