"""The model card: everything about a trained model but its weights, read without loading torch.

It stands in the header of the model file, whose metadata holds one key, `geoseg`, with JSON. Its names follow the STAC
machine-learning-model extension (https://github.com/stac-extensions/mlm, v1.4); what that has no name for stands under
`geoseg:`. Only plain values are read, never code.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from geoseg.errors import GeosegError, MissingInputError, ModelFileError
from geoseg.legend import Legend
from geoseg.models.spec import ModelSpec
from geoseg.raster import QUANTILE_LEVELS

FORMAT = 1
METADATA_KEY = "geoseg"
MLM_SCHEMA = "https://stac-extensions.github.io/mlm/v1.4.0/schema.json"
SUFFIX = ".safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class BandInfo:
    """One input band: its name, and its statistics over the training pixels in the units of the file.

    The network sees `(value - mean) / std`; where these are what pretrained weights expect, `training_mean` and
    `training_std` are those of the training pixels. `quantiles` are the values at `QUANTILE_LEVELS`, none in older
    files.

    Raises:
        ModelFileError: Its mean or deviation is no number to normalise by, or there are more or fewer quantiles than
            levels.
    """

    name: str
    mean: float
    std: float
    wavelength_um: float | None = None
    min: float | None = None
    max: float | None = None
    quantiles: tuple[float, ...] = ()
    training_mean: float | None = None
    training_std: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "quantiles", tuple(map(float, self.quantiles)))  # JSON has lists
        numbers = all(isinstance(value, int | float) and math.isfinite(value) for value in (self.mean, self.std))
        if not isinstance(self.name, str) or not numbers or not self.std > 0:
            raise ModelFileError(f"band {self.name!r} has mean {self.mean!r}, deviation {self.std!r}: no such band is")
        if len(self.quantiles) not in (0, len(QUANTILE_LEVELS)):
            raise ModelFileError(f"band {self.name} has {len(self.quantiles)} quantiles, not {len(QUANTILE_LEVELS)}")

    @property
    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation of the training pixels."""
        mean = self.mean if self.training_mean is None else self.training_mean
        return mean, self.std if self.training_std is None else self.training_std

    def to_dict(self) -> dict[str, Any]:
        """Plain values; what differs from the rest only where it does."""
        values = asdict(self)
        return {key: value for key, value in values.items() if value is not None or not key.startswith("training_")}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """Everything about a trained model but its weights.

    Attributes:
        name: What it is called.
        spec: How to build the network.
        bands: Input bands in order.
        legend: The classes; output channel `k` is `legend.classes[k]`.
        gsd_m: Ground sampling distance it was trained at, metres `(row, col)`.
        tile_px: Largest tile to predict, rows and columns.
        overlap_px: Pixels that neighbouring tiles share.
        train_region: Where the training labels lie, GeoJSON geometry in WGS 84.
        val_region: Where the validation labels lie.
        scores: Scores on the validation part.
        versions: Versions of the libraries it was trained with.
        created: When, ISO 8601 in UTC.
        license: The licence of the weights, an SPDX name.
        training: How it was trained: the configuration, epochs, seconds.
    """

    name: str
    spec: ModelSpec
    bands: tuple[BandInfo, ...]
    legend: Legend
    gsd_m: tuple[float, float]
    tile_px: int = 512
    overlap_px: int = 64
    train_region: dict[str, Any] | None = None
    val_region: dict[str, Any] | None = None
    scores: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    created: str = ""
    license: str | None = None
    training: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.bands) != self.spec.bands:
            raise ModelFileError(f"the network takes {self.spec.bands} bands, the card names {len(self.bands)}")
        if len(self.legend) != self.spec.classes:
            raise ModelFileError(f"the network has {self.spec.classes} classes, the legend {len(self.legend)}")

    @property
    def band_names(self) -> tuple[str, ...]:
        """Names of the input bands in order."""
        return tuple(band.name for band in self.bands)

    def to_dict(self, *, parameters: int = 0) -> dict[str, Any]:
        """Plain values under the names of the STAC MLM extension, and `geoseg:` for the rest."""
        return {
            "stac_extensions": [MLM_SCHEMA],
            "mlm:name": self.name,
            "mlm:architecture": self.spec.decoder,
            "mlm:tasks": ["semantic-segmentation"],
            "mlm:framework": "pytorch",
            "mlm:framework_version": self.versions.get("torch", ""),
            "mlm:total_parameters": parameters,
            "mlm:pretrained": _begun_with(self.training) is not None,
            "mlm:pretrained_source": _begun_with(self.training),
            "mlm:input": [_mlm_input(self)],
            "mlm:output": [_mlm_output(self)],
            "mlm:hyperparameters": self.spec.to_dict(),
            "license": self.license,
            "created": self.created,
            "geoseg:format": FORMAT,
            "geoseg:bands": [band.to_dict() for band in self.bands],
            "geoseg:legend": _legend_to_json(self.legend),
            "geoseg:gsd_m": list(self.gsd_m),
            "geoseg:tile_px": self.tile_px,
            "geoseg:overlap_px": self.overlap_px,
            "geoseg:train_region": self.train_region,
            "geoseg:val_region": self.val_region,
            "geoseg:scores": self.scores,
            "geoseg:versions": self.versions,
            "geoseg:training": self.training,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelCard:
        """The card of which `to_dict` made `values`.

        Raises:
            ModelFileError: A key is missing, or a value is not what it should be.
        """
        version = values.get("geoseg:format")
        if version != FORMAT:
            raise ModelFileError(f"the model file has format {version!r}; this version of geoseg reads format {FORMAT}")
        try:
            return cls(
                name=str(values["mlm:name"]),
                spec=ModelSpec(**values["mlm:hyperparameters"]),
                bands=tuple(BandInfo(**band) for band in values["geoseg:bands"]),
                legend=Legend.from_dict(values["geoseg:legend"]),
                gsd_m=(float(values["geoseg:gsd_m"][0]), float(values["geoseg:gsd_m"][1])),
                tile_px=int(values["geoseg:tile_px"]),
                overlap_px=int(values["geoseg:overlap_px"]),
                train_region=values["geoseg:train_region"],
                val_region=values["geoseg:val_region"],
                scores=dict(values["geoseg:scores"]),
                versions=dict(values["geoseg:versions"]),
                created=str(values["created"]),
                license=values["license"],
                training=dict(values["geoseg:training"]),
            )
        except KeyError as error:
            raise ModelFileError(f"the model file's header lacks {error}") from error
        except (TypeError, ValueError, IndexError, AttributeError) as error:
            raise ModelFileError(f"the model file's header cannot be used: {error}") from error


def _mlm_input(card: ModelCard) -> dict[str, Any]:
    scaling = [
        {"type": "z-score", "mean": band.mean, "stddev": band.std, "minimum": band.min, "maximum": band.max}
        for band in card.bands
    ]
    shape = [-1, card.spec.bands, card.tile_px, card.tile_px]
    return {
        "name": "scene",
        "bands": list(card.band_names),
        "input": {"shape": shape, "dim_order": ["batch", "bands", "height", "width"], "data_type": "float32"},
        "value_scaling": [{key: value for key, value in item.items() if value is not None} for item in scaling],
        "resize_type": None,
    }


def _mlm_output(card: ModelCard) -> dict[str, Any]:
    shape = [-1, card.spec.classes, card.tile_px, card.tile_px]
    classes = [
        {"value": item.id, "name": item.name, "color_hint": item.color[1:].upper()} for item in card.legend.classes
    ]
    return {
        "name": "class scores",
        "tasks": ["semantic-segmentation"],
        "result": {"shape": shape, "dim_order": ["batch", "class", "height", "width"], "data_type": "float32"},
        "classification:classes": classes,
    }


def _legend_to_json(legend: Legend) -> dict[str, Any]:
    values = legend.to_dict()
    return {**values, "classes": {str(key): value for key, value in values["classes"].items()}}


def _begun_with(training: Mapping[str, Any]) -> str | None:
    """Weights or the model file that a network began with; None where it began with none, or nothing says so."""
    model = training.get("config", {}).get("model") or {}
    found = model.get("weights") or model.get("init_from")
    return None if found is None else str(found)


OTHER_KINDS = {
    ".ckpt": "it is a checkpoint of a run, whose model is model.safetensors beside it",
    ".pt2": "it is a program of torch.export, for other software",
    ".onnx": "it is an ONNX file, which geoseg predict takes, and no run can begin with",
    ".pth": "it is weights alone, which a run takes as model.weights",
    ".pt": "it is weights alone, which a run takes as model.weights",
}
"""What files of other kinds are, by their suffixes."""


def read_card(path: Path) -> ModelCard:
    """What a model file says of itself; its weights are not read, and torch is not loaded.

    Raises:
        MissingInputError: There is no such file.
        ModelFileError: It is no geoseg model.
    """
    path = existing_model(path)
    try:
        with safe_open(path, framework="numpy") as file:
            header = (file.metadata() or {}).get(METADATA_KEY)
    except (SafetensorError, OSError, ValueError) as error:
        why = OTHER_KINDS.get(path.suffix.lower()) or _line(error)
        raise ModelFileError(f"{path} is no geoseg model: {why}; needed is a .safetensors by geoseg fit") from error
    if header is None:
        raise ModelFileError(f"{path} is a safetensors file without geoseg's header; needed is one by geoseg fit")
    return card_of_header(header, path=path)


def card_of_header(header: str, *, path: Path) -> ModelCard:
    """The card whose JSON a file's metadata holds under `METADATA_KEY`.

    Raises:
        ModelFileError: It is damaged; the message names the file `path`.
    """
    try:
        values = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"the header of {path} is damaged: {error}") from error
    if not isinstance(values, dict):
        raise ModelFileError(f"the header of {path} is damaged: it holds no mapping")
    try:
        return ModelCard.from_dict(values)
    except GeosegError as error:
        raise ModelFileError(f"{path}: {error}") from error


def existing_model(path: Path, *, suffix: str = SUFFIX, writer: str = "geoseg fit") -> Path:
    """The path, where a file is there.

    Args:
        path: The file.
        suffix: How such files end, for the message.
        writer: The command that writes one, for the message.

    Raises:
        MissingInputError: Nothing is there.
        ModelFileError: It is a folder.
    """
    path = Path(path)
    if not path.exists():
        raise MissingInputError(f"the model file {path} is not there; {writer} writes one")
    if path.is_dir():
        raise ModelFileError(f"{path} is a folder; needed is the model file, e.g. {path / ('model' + suffix)}")
    return path


def _line(error: Exception) -> str:
    text = str(error)
    return text.splitlines()[0][:160] if text else type(error).__name__
