"""A network that begins as another one: weights of a geoseg model file for other classes or other bands."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from geoseg.errors import InputError
from geoseg.models.build import on_nothing
from geoseg.models.card import ModelCard, read_card
from geoseg.models.file import load_model
from geoseg.models.pretrained.first_layer import adapt_encoder, band_mixing, is_same_band
from geoseg.models.pretrained.scaling import FAR
from geoseg.models.spec import ModelSpec

WITHOUT_WEIGHTS = ("dropout", "decoder_dropout")
"""Options of a decoder that change no weight."""

MOST_SPREAD = 20.0
"""By how much deviations of one unit may differ between places."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Match:
    """How the classes and bands of a new network stand to those of an old one.

    Attributes:
        classes: Old and new channel of each class that both have, by name.
        spec: Of the new network.
        band_names: Of the new network.
        card: Of the old one.
    """

    classes: tuple[tuple[int, int], ...]
    spec: ModelSpec
    band_names: tuple[str, ...] | None
    card: ModelCard


def start_from(
    path: str, network: nn.Module, *, spec: ModelSpec, band_names: Sequence[str] | None, class_names: Sequence[str]
) -> None:
    """Fills a network with the weights of a model file.

    Classes of the same name keep what the old network knew of them in their new channel, other classes start anew.
    Bands of the same name keep their kernels; others get those of their neighbours in the spectrum, or the mean of all
    (see `adapt_first_layer`). What was carried over is logged.

    Args:
        path: The model file.
        network: As `create_model` makes it of `spec`.
        spec: Of the new network.
        band_names: Of its bands; without, they are taken in order.
        class_names: Of its classes, in channel order.

    Raises:
        MissingInputError: There is no such file.
        ModelFileError: It is no geoseg model.
        InputError: Its decoder, encoder or options are others.
    """
    old, card = load_model(Path(path))
    _check_same(path, card.spec, spec)
    names = {name.lower(): channel for channel, name in enumerate(card.legend.names)}
    kept = tuple((names[name.lower()], new) for new, name in enumerate(class_names) if name.lower() in names)
    match = Match(kept, spec, tuple(band_names) if band_names is not None else None, card)
    tensors, target = list(old.state_dict().values()), network.state_dict()
    by_class, by_band = (_grown(spec, what) for what in ("classes", "bands"))
    if len(tensors) != len(target):
        raise InputError(
            f"{path} has {len(tensors)} tensors, the network {len(target)}: give the options of that model"
        )
    filled = {}
    for (name, wanted), tensor in zip(target.items(), tensors, strict=True):
        fitted = _with_bands(tensor, wanted, match) if name in by_band else tensor
        fitted = _with_classes(fitted, wanted, by_class[name], kept) if name in by_class else fitted
        if fitted.shape != wanted.shape:
            raise InputError(f"{path}: its {name} is {tuple(tensor.shape)}, the network's is {tuple(wanted.shape)}")
        filled[name] = fitted
    network.load_state_dict(filled)
    _report(path, match, class_names)


def inherited_input(
    path: str,
    band_names: Sequence[str],
    *,
    mean: ArrayLike,
    std: ArrayLike,
    unit: str | None = None,
    wavelengths_um: Sequence[float | None] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means and deviations to normalise a scene by, where a run begins as a model file.

    They are the data's own, save for bands that the old network saw as its pretrained weights expect them, and whose
    numbers are like those that it was trained on.

    Args:
        path: The model file.
        band_names: Names of the scene's bands.
        mean: The data's own, of each band.
        std: Likewise.
        unit: As of the task; a model file says nothing of its own.
        wavelengths_um: Of the bands, which tell those of one name apart.

    Raises:
        InputError: A unit is given.
        MissingInputError: There is no such file.
        ModelFileError: It is no geoseg model.
    """
    if unit is not None:
        raise InputError(
            f"model.unit {unit} is for model.weights; a model file does not say what unit its numbers are in: leave it "
            "out for scenes of the same, or give none, which takes the data's own mean and deviation"
        )
    found = {band.name.lower(): band for band in read_card(Path(path)).bands if band.training_mean is not None}
    means, stds, other = np.array(mean, np.float64), np.array(std, np.float64), []
    for place, name in enumerate(band_names):
        band = found.get(name.lower())
        um = None if wavelengths_um is None else wavelengths_um[place]
        if band is None or band.training_mean is None or band.training_std is None:
            continue
        if not is_same_band(um, band.wavelength_um):
            continue
        if _is_alike(means[place], stds[place], mean=band.training_mean, std=band.training_std):
            means[place], stds[place] = band.mean, band.std
        else:
            other.append(name)
    if other:
        logger.warning(
            "the numbers of %s are not like those that %s was trained on, in another unit perhaps; they are normalised "
            "by their own mean and deviation", ", ".join(other), path,
        )  # fmt: skip
    return means, stds


def _is_alike(own_mean: float, own_std: float, *, mean: float, std: float) -> bool:
    """Whether a band's numbers may be in the unit that a network's were."""
    return abs(own_mean - mean) <= FAR * std and std / MOST_SPREAD <= own_std <= std * MOST_SPREAD


def _check_same(path: str, old: ModelSpec, new: ModelSpec) -> None:
    if "random_forest" in (old.decoder, new.decoder):
        raise InputError(
            f"{path}: a random_forest grows from nothing, and nothing begins with one; leave init_from out"
        )
    for what, has, given in (("decoder", old.decoder, new.decoder), ("encoder", old.encoder, new.encoder)):
        if has != given:
            raise InputError(
                f"{path} has the {what} {has}, this run {given}; init_from needs the same: model.{what}: {has}"
            )
    old_options, new_options = (
        {key: _plain(value) for key, value in spec.options.items() if key not in WITHOUT_WEIGHTS} for spec in (old, new)
    )
    if old_options != new_options:
        raise InputError(
            f"{path} was made with model.options {old_options}, this run has {new_options}; init_from needs the same"
        )


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _grown(spec: ModelSpec, what: str) -> dict[str, tuple[int, ...]]:
    """Tensors that depend on the number of classes or bands, and their axes that do."""
    changes = {"classes": spec.classes + 1} if what == "classes" else {
        "bands": spec.bands + 1,
        "wavelengths_um": None if spec.wavelengths_um is None else (*spec.wavelengths_um, spec.wavelengths_um[-1]),
    }  # fmt: skip
    shapes = [on_nothing(made).state_dict() for made in (spec, replace(spec, **changes))]
    pairs = {name: list(zip(one.shape, shapes[1][name].shape, strict=True)) for name, one in shapes[0].items()}
    axes = {name: tuple(axis for axis, (one, more) in enumerate(sides) if one != more) for name, sides in pairs.items()}
    return {name: found for name, found in axes.items() if found}


def _with_bands(tensor: Tensor, wanted: Tensor, match: Match) -> Tensor:
    """A tensor whose second axis is bands, for the new ones."""
    old = [band.wavelength_um for band in match.card.bands]
    new = match.spec.wavelengths_um or (None,) * match.spec.bands
    if tensor.ndim < 2 or tensor.shape[1] % len(old) or wanted.shape[1] % len(new):
        return tensor
    if match.band_names is None and len(old) == len(new):
        return tensor
    return adapt_encoder(
        tensor, old, new, encoder=match.spec.encoder, source_names=match.card.band_names,
        target_names=match.band_names,
    )  # fmt: skip


def _with_classes(tensor: Tensor, wanted: Tensor, axes: tuple[int, ...], kept: tuple[tuple[int, int], ...]) -> Tensor:
    """The new network's own tensor, with the old one's values in the channels of the classes that both have."""
    found = wanted.clone()
    if not kept:
        return found
    old, new = (torch.tensor(channels) for channels in zip(*kept, strict=True))
    for axis in axes:
        tensor = tensor.index_select(axis, old)
    if len(axes) == 1:
        return found.index_copy(axes[0], new, tensor)
    return found  # classes against classes: none of our decoders has such a layer


def _report(path: str, match: Match, class_names: Sequence[str]) -> None:
    kept = [class_names[new] for _, new in match.classes]
    fresh = [name for name in class_names if name not in kept]
    said = [f"classes {', '.join(kept) or 'none'}"]
    if fresh:
        said.append(f"{', '.join(fresh)} {'starts' if len(fresh) == 1 else 'start'} anew")
    said += _report_bands(match)
    logger.info("begins as %s: %s", path, "; ".join(said))


def _report_bands(match: Match) -> list[str]:
    if match.band_names is None:
        return ["bands in order"]
    old = [band.wavelength_um for band in match.card.bands]
    _, known = band_mixing(
        old, match.spec.wavelengths_um or (None,) * match.spec.bands,
        source_names=match.card.band_names, target_names=match.band_names,
    )  # fmt: skip
    names = {name.lower() for name in match.card.band_names}
    groups: list[tuple[str, Callable[[str, bool], bool]]] = [
        ("bands {}", lambda name, _: name.lower() in names),
        ("{} from the bands beside them in the spectrum", lambda name, found: name.lower() not in names and found),
        ("{} from the mean of all bands", lambda name, found: name.lower() not in names and not found),
    ]
    pairs = list(zip(match.band_names, known.tolist(), strict=True))
    listed = [(words, [name for name, found in pairs if fits(name, found)]) for words, fits in groups]
    return [words.format(", ".join(members)) for words, members in listed if members]
