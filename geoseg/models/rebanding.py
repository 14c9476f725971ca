"""A model that is built from wavelengths, for the bands of another sensor."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
from torch import nn

from geoseg.errors import InputError
from geoseg.models.backbones import OWN_TRUNKS
from geoseg.models.build import create_model
from geoseg.models.card import BandInfo, ModelCard
from geoseg.models.pretrained.first_layer import band_mixing, is_same_band
from geoseg.models.wavelengths import band_wavelengths, bandwidth_um

logger = logging.getLogger(__name__)


def seen_by_wavelength(
    network: nn.Module, card: ModelCard, *, band_names: Sequence[str], sensor: str | None = None
) -> tuple[nn.Module, ModelCard]:
    """The network for bands of other wavelengths, and its card: the same weights, which hang on no band.

    A band is normalised by the mean and deviation of the training bands beside it in the spectrum, so its numbers must
    be in their unit. A scene that has just the model's bands is seen as it always was.

    Args:
        network: As trained.
        card: What its file says.
        band_names: Names of the scene's bands, all of which are seen.
        sensor: What numbered bands are of, as for `band_wavelengths`.

    Raises:
        InputError: The network is not built from wavelengths, or that of a band is unknown or far from all of training.
    """
    names = tuple(band_names)
    wavelengths, trained = band_wavelengths(names, sensor=sensor), {band.name.lower(): band for band in card.bands}
    same = {name.lower(): um for name, um in zip(names, wavelengths, strict=True)}
    if same.keys() == trained.keys() and all(
        is_same_band(um, trained[name].wavelength_um) for name, um in same.items()
    ):
        logger.info("the scene has the very bands that %s was trained on; nothing is changed for it", card.name)
        return network, card
    own = OWN_TRUNKS.get(card.spec.encoder)
    if own is None or not own.by_wavelength:
        able = ", ".join(name for name, trunk in OWN_TRUNKS.items() if trunk.by_wavelength)
        raise InputError(
            f"{card.name} has the encoder {card.spec.encoder}, which sees {', '.join(card.band_names)} and nothing "
            f"else; encoders that see bands by their wavelengths are {able}"
        )
    old, new = [band.wavelength_um for band in card.bands], wavelengths or (None,) * len(names)
    mixing, found = band_mixing(old, new, source_names=card.band_names, target_names=names)
    strange = [name for name, near in zip(names, found.tolist(), strict=True) if not near]
    if strange:
        raise InputError(
            f"the wavelengths of {', '.join(strange)} are unknown or far from those that {card.name} was trained on; "
            "name the bands, such as red or swir1, by --bands, or leave them out of the scene"
        )
    shares = mixing.numpy()
    mean, std = (shares @ np.array([getattr(band, what) for band in card.bands]) for what in ("mean", "std"))
    bands = tuple(
        BandInfo(name=name, mean=float(middle), std=float(spread), wavelength_um=um)
        for name, middle, spread, um in zip(names, mean, std, new, strict=True)
    )
    spec = replace(card.spec, bands=len(names), wavelengths_um=wavelengths, options=_options(card, names, wavelengths))
    adapted = create_model(spec, band_names=names)
    adapted.load_state_dict(network.state_dict())
    logger.info(
        "%s sees %s by their wavelengths; it was trained on %s", card.name, ", ".join(names), ", ".join(card.band_names)
    )
    return adapted.eval(), replace(card, spec=spec, bands=bands)


def _options(card: ModelCard, names: Sequence[str], wavelengths: Sequence[float | None] | None) -> dict[str, Any]:
    """The model's options, where bandwidths are those of the new bands: by name, else as usual at their wavelengths."""
    options = dict(card.spec.options)
    encoder = dict(options.get("encoder_options") or {})
    if not encoder.get("bandwidths_um") or wavelengths is None:
        return options
    trained = zip(card.bands, encoder["bandwidths_um"], strict=True)
    known = {band.name.lower(): (band.wavelength_um, float(width)) for band, width in trained}
    encoder["bandwidths_um"] = [
        _bandwidth(um, known.get(name.lower())) for name, um in zip(names, wavelengths, strict=True)
    ]
    return {**options, "encoder_options": encoder}


def _bandwidth(um: float | None, trained: tuple[float | None, float] | None) -> float:
    """Width of a band at a wavelength; that of the trained band of its name, where they are one band."""
    if trained is not None and is_same_band(um, trained[0]):
        return trained[1]
    return bandwidth_um(cast("float", um))  # all but bands of a known name have one
