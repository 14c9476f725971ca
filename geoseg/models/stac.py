"""The STAC Item of a model: what catalogues of models know, in the words of the machine-learning-model extension.

STAC 1.1 with MLM 1.4 (https://github.com/stac-extensions/mlm), file 2.1 and eo 2.0, as plain dictionaries.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import shapely
from shapely.geometry import mapping, shape

from geoseg.models.atomic import renamed_when_done
from geoseg.models.card import MLM_SCHEMA, SUFFIX, BandInfo, ModelCard
from geoseg.models.onnx_card import ONNX_SUFFIX

FILE_SCHEMA = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
EO_SCHEMA = "https://stac-extensions.github.io/eo/v2.0.0/schema.json"
TORCH_SUFFIX = ".pt2"
FRAMEWORK = "PyTorch"
KINDS = {
    SUFFIX: ("application/vnd.safetensors", "safetensors", "Weights, and all that geoseg needs to map with them"),
    TORCH_SUFFIX: ("application/zip; application=pytorch", "torch.export.save", "Program of torch.export"),
    ONNX_SUFFIX: ("application/octet-stream; framework=onnx; profile=onnx", "onnx", "ONNX graph"),
}
"""Media type, `mlm:artifact_type` and title of a model's files, by their ending."""

SAME = ("mlm:architecture", "mlm:tasks", "mlm:input", "mlm:hyperparameters")
OWN = ("geoseg:gsd_m", "geoseg:tile_px", "geoseg:overlap_px", "geoseg:train_region", "geoseg:val_region",
       "geoseg:scores", "geoseg:versions")  # fmt: skip
LICENSE = re.compile(r"[\w.+-]+")  # what STAC takes; any other is "other"
SEMVER = re.compile(r"\d+\.\d+\.\d+([-+].*)?")
CHUNK_BYTES = 1 << 20


def model_item(card: ModelCard, files: Mapping[str, Path], *, out: Path, parameters: int = 0) -> dict[str, Any]:
    """The STAC Item of a model, as JSON values.

    Args:
        card: What the model file says of it.
        files: The model's files by the names of their assets; they exist.
        out: Where the Item will lie; the files are named relative to it.
        parameters: How many the network has.
    """
    footprint = _footprint(card)
    item: dict[str, Any] = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [MLM_SCHEMA, FILE_SCHEMA],
        "id": short_name(card.name, otherwise="model"),
        "geometry": None if footprint is None else dict(mapping(footprint)),
        "properties": {"datetime": _created(card, files), **_properties(card, parameters=parameters)},
        "links": [],
        "assets": {name: _asset(path, out, bands=card.band_names) for name, path in files.items()},
    }
    if footprint is not None:
        item["bbox"] = list(footprint.bounds)
    if any(band.wavelength_um for band in card.bands):
        item["stac_extensions"].append(EO_SCHEMA)
    return item


def write_model_item(out: Path, item: Mapping[str, Any]) -> Path:
    """The JSON file of an Item; it appears whole.

    Raises:
        OutputError: It cannot be written.
    """
    with renamed_when_done(Path(out), what="STAC Item") as part:
        part.write_text(json.dumps(item, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    return Path(out)


def short_name(name: str, *, otherwise: str) -> str:
    """A name of letters, digits, `-` and `_`, beginning with a letter; `otherwise` where none of those is left.

    >>> [short_name(name, otherwise="class_3") for name in ("crops (arable)", "лес", "3D")]
    ['crops_arable', 'class_3', 'D']
    """
    return re.sub(r"[^0-9A-Za-z_-]+", "_", name).strip("_-").lstrip("0123456789_-") or otherwise


def _footprint(card: ModelCard) -> Any:
    """Where the model was trained and validated, WGS 84; None where the card does not say."""
    regions = [shape(region) for region in (card.train_region, card.val_region) if region]
    return shapely.union_all(regions) if regions else None


def _created(card: ModelCard, files: Mapping[str, Path]) -> str:
    """When the model was made; where the card does not say, when the oldest of its files was written."""
    if card.created:
        return card.created
    oldest = min(path.stat().st_mtime for path in files.values())
    return datetime.fromtimestamp(oldest, UTC).isoformat(timespec="seconds")


def _properties(card: ModelCard, *, parameters: int) -> dict[str, Any]:
    values = card.to_dict(parameters=parameters)
    version = card.versions.get("torch", "")
    return {
        "title": card.name,
        **({"created": card.created} if card.created else {}),
        **({"license": card.license if LICENSE.fullmatch(card.license) else "other"} if card.license else {}),
        "bands": [_band(band) for band in card.bands],
        "mlm:name": _model_name(card.name),
        "mlm:framework": FRAMEWORK,
        **({"mlm:framework_version": version} if SEMVER.fullmatch(version) else {}),
        **({"mlm:total_parameters": parameters} if parameters else {}),
        **_pretrained(card),
        **{key: values[key] for key in SAME},
        "mlm:output": [{**output, "classification:classes": _classes(card)} for output in values["mlm:output"]],
        **{key: values[key] for key in OWN if values[key]},
    }


def _model_name(name: str) -> str:
    """A name as the extension wants it: letters, digits, blanks and `_.-`, at least three, from a letter on."""
    cleaned = re.sub(r"[^a-zA-Z0-9_.\-\s]+", "_", name).strip(" _.-").lstrip("0123456789 _.-")
    return cleaned if len(cleaned) > 2 else f"model {cleaned}".strip()


def _pretrained(card: ModelCard) -> dict[str, Any]:
    """Whether the network began with weights of others, and whose; nothing where the card does not say."""
    model = card.training.get("config", {}).get("model", {})
    if "weights" not in model:
        return {}
    source = model["weights"] or model.get("init_from")
    return {"mlm:pretrained": source is not None, "mlm:pretrained_source": source}


def _band(band: BandInfo) -> dict[str, Any]:
    """A band in the words of STAC's common metadata, with its statistics over the training pixels."""
    mean, std = band.moments
    statistics = {"mean": mean, "stddev": std, "minimum": band.min, "maximum": band.max}
    told = {name: value for name, value in statistics.items() if value is not None}
    wavelength = {"eo:center_wavelength": band.wavelength_um} if band.wavelength_um else {}
    return {"name": band.name, "statistics": told, **wavelength}


def _classes(card: ModelCard) -> list[dict[str, Any]]:
    """The output's classes in the words of the classification extension; channel `k` is the `k`-th."""
    return [
        {
            "value": item.id,
            "name": short_name(item.name, otherwise=f"class_{item.id}"),
            "description": item.name,
            "color_hint": item.color[1:].upper(),
        }
        for item in card.legend.classes
    ]


def _asset(path: Path, out: Path, *, bands: Sequence[str]) -> dict[str, Any]:
    media_type, artifact, title = KINDS[path.suffix]
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return {
        "href": Path(os.path.relpath(path.absolute(), out.absolute().parent)).as_posix(),
        "title": title,
        "type": media_type,
        "roles": ["mlm:model"] if artifact != "safetensors" else ["mlm:model", "mlm:weights"],
        "mlm:artifact_type": artifact,
        "bands": [{"name": name} for name in bands],  # STAC has bands in the properties only where an asset has some
        "file:size": path.stat().st_size,
        "file:checksum": f"1220{digest.hexdigest()}",  # a multihash: SHA-256, 32 bytes
    }
