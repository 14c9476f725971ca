"""torchgeo's pretrained weights by name: their file, their bands and what values they were trained on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from geoseg.errors import InputError
from geoseg.extras import extra_module
from geoseg.models.wavelengths import band_wavelengths

NO_ENCODERS = ("aurora_swin_unet", "earthloc", "unet")  # models of torchgeo that are no backbones
CROMA_RADAR_BLOCKS = {"croma_base": 6, "croma_large": 12}
CROMA_BANDS = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B11", "B12")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Published weights.

    Attributes:
        name: As in ResNet18_Weights.SENTINEL2_ALL_MOCO.
        encoder: The backbone that they are of.
        url: Where their file lies.
        bands: Names of the bands in order, None where it takes any.
        wavelengths_um: Of each band.
        normalization: Steps `(mean, std)` of the input in order, each a number or one a band.
    """

    name: str
    encoder: str
    url: str
    bands: tuple[str, ...] | None
    wavelengths_um: tuple[float | None, ...] | None
    normalization: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]

    @property
    def file(self) -> str:
        """The file's name, which it has in torch's cache too."""
        return self.url.rsplit("/", 1)[-1]


def is_entry_name(weights: str) -> bool:
    """Whether a word has the form of a name of torchgeo's weights.

    >>> is_entry_name("ResNet18_Weights.SENTINEL2_ALL_MOCO"), is_entry_name("imagenet")
    (True, False)
    """
    return re.fullmatch(r"\w+_Weights?\.\w+", weights) is not None


def find_entry(name: str) -> Entry:
    """The weights of a name.

    Raises:
        InputError: There are none; the message gives the nearest names. Or torchgeo is not installed.
    """
    known = _entries()
    if name in known:
        return known[name]
    near = get_close_matches(name, known, n=4, cutoff=0.4)
    raise InputError(f"torchgeo has no weights '{name}'; near it are {', '.join(near) or ', '.join(list(known)[:4])}")


def entry_of_file(file: str) -> Entry | None:
    """The published weights that a file of this name holds, where torchgeo is installed and knows it."""
    if not re.search(r"landsat|sentinel|satlas|dofa|croma|panopticon|copernicus|scalemae|fmow|softcon|decur|closp|rn50|"
                     r"vitb14|vits14|vits16|aerial|B13|B2_", file, re.IGNORECASE):  # fmt: skip
        return None  # torchgeo takes seconds to import
    try:
        entries = _entries()
    except InputError:
        return None
    return next((entry for entry in entries.values() if entry.file == file), None)


def made_with(weights: str, *, names: Sequence[str] | None) -> dict[str, Any]:
    """Options of the encoder that published weights were made with, where they are not its usual ones.

    Args:
        weights: Their name, or a file that has the name of theirs.
        names: Of the bands: CROMA's encoder of radar has half of the blocks.
    """
    entry = find_entry(weights) if is_entry_name(weights) else entry_of_file(Path(weights).name)
    if entry is None:
        return {}
    if entry.encoder.endswith("_dinov2"):  # timm's own are of 518 pixels a side
        return {"img_size": 224}
    if entry.encoder in CROMA_RADAR_BLOCKS and is_radar(names):
        return {"encoder_depth": CROMA_RADAR_BLOCKS[entry.encoder]}
    return {}


def is_radar(names: Sequence[str] | None) -> bool:
    """Whether the bands are those of Sentinel-1."""
    return names is not None and {name.lower() for name in names} <= {"vv", "vh"}


@cache
def _entries() -> Mapping[str, Entry]:
    """All weights of torchgeo's backbones by name."""
    extra_module("torchgeo", extra="torchgeo", needed_by="a name of torchgeo's weights")
    library = extra_module("torchgeo.models", extra="torchgeo", needed_by="a name of torchgeo's weights")
    found = {}
    for encoder in library.list_models():
        if encoder in NO_ENCODERS:
            continue
        try:
            members = library.get_model_weights(encoder)
        except KeyError:  # an architecture without published weights
            continue
        for name, member in members.__members__.items():  # some have two names
            entry = _entry(encoder, name, member)
            found[entry.name] = entry
    return found


def _entry(encoder: str, name: str, member: Any) -> Entry:
    bands = _bands(encoder, member)
    wavelengths = None if bands is None else band_wavelengths(bands, sensor=_sensor(name))
    return Entry(
        name=f"{type(member).__name__}.{name}", encoder=encoder, url=member.url, bands=bands,
        wavelengths_um=wavelengths, normalization=_normalization(member.transforms),
    )  # fmt: skip


def _bands(encoder: str, member: Any) -> tuple[str, ...] | None:
    listed = member.meta.get("bands")
    if listed is not None:
        return tuple(str(band) for band in listed)
    if encoder.startswith("croma"):
        return CROMA_BANDS
    return ("red", "green", "blue") if member.meta.get("in_chans") == 3 else None


def _sensor(name: str) -> str | None:
    """The sensor that the name of weights says, which settles what their numbered bands mean."""
    sensors = {
        "SENTINEL2": "sentinel-2", "LANDSAT_TM": "landsat-5", "LANDSAT_ETM": "landsat-7", "LANDSAT": "landsat-8",
        "NAIP": "naip",
    }  # fmt: skip
    fallback = "sentinel-2" if name.startswith("CROMA") else None
    return next((sensor for start, sensor in sensors.items() if name.startswith(start)), fallback)


def _normalization(transforms: Any) -> tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]:
    """Means and standard deviations of the steps that normalise, in order."""
    parts = transforms if hasattr(transforms, "__iter__") else [transforms]
    return tuple(
        (tuple(map(float, part.mean)), tuple(map(float, part.std)))
        for part in parts
        if type(part).__name__ == "Normalize"
    )
