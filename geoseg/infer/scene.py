"""A model file's network over a whole scene: the library's side of `geoseg predict`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from geoseg.infer.job import DEFAULT_MEMORY_BYTES, PredictResult, Progress, run_job
from geoseg.infer.predictor import ModelCard, Precision, TorchPredictor, model_digest
from geoseg.infer.scale import lattice_for, match_scene, scale_for
from geoseg.io.combine import pick

if TYPE_CHECKING:
    from torch import nn

    from geoseg.io.protocol import Source


@dataclass(frozen=True, slots=True)
class PredictOptions:
    """How to predict.

    Attributes:
        tile_px: The largest tile's side, in the model's pixels; None takes the model's.
        overlap_px: Pixels that neighbouring tiles share, in the model's pixels; None takes the model's.
        blend: A name in `BLENDS`.
        batch: Tiles in one forward pass; None fits it to the device.
        memory_bytes: The memory to stay within.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        precision: `auto`, `fp32` or `bf16`.
        native: Whether to keep the scene's own pixels where the model was trained on larger or smaller ones.
        executor: A name in `EXECUTORS`.
        overwrite: Whether existing outputs and another job's parts may be replaced.
    """

    tile_px: int | None = None
    overlap_px: int | None = None
    blend: str = "hann"
    batch: int | None = None
    memory_bytes: int = DEFAULT_MEMORY_BYTES
    device: str = "auto"
    precision: Precision = "auto"
    native: bool = False
    executor: str = "serial"
    overwrite: bool = False


def predict_scene(
    source: Source,
    *,
    network: nn.Module,
    card: ModelCard,
    out: Path,
    options: PredictOptions | None = None,
    progress: Progress | None = None,
) -> PredictResult:
    """Map a scene with a model: the class map, its confidence, a QGIS style and a STAC Item.

    Args:
        source: The scene, with the model's bands among its own.
        network: The model's network.
        card: What the model file says of it.
        out: The class map to write; the other outputs stand beside it.
        options: How to predict.
        progress: Told the pixels done and the pixels in all.

    Raises:
        BandError: The scene lacks a band of the model.
        GridError: The scene's pixels are far from those the model was trained on.
        GeosegError: Something else about the input or the output has to be mended.
    """
    chosen = options or PredictOptions()
    order = match_scene(source, card.band_names)
    bands = pick(source, order, [source.bands[position] for position in order])
    lattice = lattice_for(
        (source.geobox.shape[0], source.geobox.shape[1]),
        tile_px=card.tile_px if chosen.tile_px is None else chosen.tile_px,
        overlap_px=card.overlap_px if chosen.overlap_px is None else chosen.overlap_px,
        scale=(1.0, 1.0) if chosen.native else scale_for(source.geobox, card.gsd_m),
    )
    digest = model_digest(network, card)
    predictor = TorchPredictor.from_card(
        network, card, tile_shape=lattice.model_shape, batch=chosen.batch, device=chosen.device,
        precision=chosen.precision,
    )  # fmt: skip
    return run_job(
        bands, predictor=predictor, legend=card.legend, lattice=lattice, out=out, blend=chosen.blend,
        memory_bytes=chosen.memory_bytes, executor=chosen.executor, overwrite=chosen.overwrite, progress=progress,
        model={"name": card.name, "sha256": digest, "precision": predictor.precision},
    )  # fmt: skip
