"""Trained models over a whole scene: the library's side of `geoseg predict`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, is_dataclass, replace
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from geoseg.errors import InputError, LegendError
from geoseg.infer.canvas import EACH_SCENE, RULES
from geoseg.infer.ensemble import Ensemble
from geoseg.infer.executors import EXECUTORS, Crew
from geoseg.infer.job import Job, PredictResult, Progress, check_names, check_outputs, run_job
from geoseg.infer.layers import chosen_layers
from geoseg.infer.looking import looked_at
from geoseg.infer.memory import resident_bytes
from geoseg.infer.options import PredictOptions, TrainedModel
from geoseg.infer.parts import Outputs, Plan, folder_of
from geoseg.infer.plan import FIXED_BYTES, LIBRARIES_BYTES, buffer_bytes, cells_for
from geoseg.infer.scale import SAME_GSD, Lattice, lattice_for, match_scene, scale_for
from geoseg.infer.seams import check_seams
from geoseg.infer.task import Member, Predictor, SceneTask
from geoseg.io.cog import BLOCK_PX
from geoseg.io.combine import Mosaic, pick
from geoseg.io.dates import newest_first
from geoseg.io.regions import open_area
from geoseg.io.stamps import files_in

if TYPE_CHECKING:
    from geoseg.io.protocol import Source
    from geoseg.models.card import ModelCard

logger = logging.getLogger(__name__)

WRITTEN_TILES = 24
"""Tiles of a COG, with all their bands, that GDAL may hold while it puts one together."""


def predict_scene(
    source: Source,
    *,
    models: Sequence[TrainedModel],
    out: Path,
    options: PredictOptions | None = None,
    progress: Progress | None = None,
) -> PredictResult:
    """Map a scene: the class map, its confidence, other layers, a QGIS style and a STAC Item.

    Args:
        source: The scene, with the models' bands among its own.
        models: One trained model, or several of the same classes whose probabilities are averaged.
        out: The class map to write; the other outputs stand beside it.
        options: How to predict.
        progress: Told the pixels done and the pixels in all.

    Raises:
        BandError: The scene lacks a band of a model.
        GridError: The scene's pixels are far from those the model was trained on.
        LegendError: The models have different classes.
        GeosegError: Something else about the input or the output has to be mended.
    """
    chosen = options or PredictOptions()
    if chosen.rule not in RULES:
        raise InputError(f"rule '{chosen.rule}' is unknown; known are {', '.join(RULES)}")
    crew, outputs = _crew(chosen.crew), Outputs(Path(out), tuple(layer.name for layer in chosen_layers(chosen.layers)))
    check_names(outputs, blend=chosen.blend, engine=crew.engine, on_error=chosen.on_error)
    if not folder_of(outputs.class_map).exists():  # else an earlier run may have stopped with some of them in place
        check_outputs(outputs, inputs=[*files_in(source), *chosen.inputs], overwrite=chosen.overwrite)
    cards = [model.card for model in models]
    _check_together(cards)
    names = list(dict.fromkeys(name.lower() for card in cards for name in card.band_names))
    bands = _ruled(_picked(source, cards, names), chosen.rule)
    lattice = _lattice(bands, models, chosen)
    area = None if chosen.area is None else open_area(chosen.area, bands.geobox)
    layers = chosen_layers(chosen.layers)
    with ThreadPoolExecutor(1, "geoseg-digest") as pool:
        digests = pool.map(lambda model: model.digest, models)  # meanwhile
        predictor = _together([model.predictor(chosen) for model in models], cards, names)
    task = SceneTask(
        bands, predictor, cards[0].legend, lattice.tiling, lattice.model_shape, chosen.blend, layers,
        members=_members(bands, chosen.rule), rule=chosen.rule, area=area, on_error=chosen.on_error,
    )  # fmt: skip
    if chosen.precision == "auto" and set(predictor.precision.split()) != {"fp32"}:
        _look(task)
    about = {
        "name": " + ".join(card.name for card in cards), "sha256": " ".join(digests),
        "precision": predictor.precision, "tta": chosen.tta,
    }  # fmt: skip
    job = Job(
        task, out, lambda kept: _plan(task, chosen, crew=crew, kept=kept), crew=crew, model=about,
        inputs=chosen.inputs, overwrite=chosen.overwrite,
    )  # fmt: skip
    result = run_job(job, progress=progress)
    return replace(result, seams=check_seams(result.class_map, lattice.tiling)) if chosen.seams else result


def _look(task: SceneTask) -> None:
    """Let the predictor see some tiles of what is mapped."""
    looks = looked_at(task)
    task.predictor.check(
        [look.piece.pixels for look in looks], [look.piece.valid for look in looks],
        counted=[look.counted for look in looks], model_shape=task.model_shape,
    )  # fmt: skip


def _crew(wanted: Crew) -> Crew:
    """Who does the work, checked, with `auto` made one engine or the other."""
    if wanted.devices < 1:
        raise InputError(f"devices of {wanted.devices}: needed is 1 or more")
    if wanted.engine == "auto":
        engine = "dask" if wanted.scheduler else "processes" if wanted.devices > 1 else "serial"
        return replace(wanted, engine=engine)
    if wanted.engine not in EXECUTORS:
        raise InputError(f"engine '{wanted.engine}' is unknown; known are auto, {', '.join(EXECUTORS)}")
    if wanted.scheduler and wanted.engine != "dask":
        raise InputError(f"a scheduler is for --engine dask, the engine is {wanted.engine}; leave one of them out")
    if wanted.engine == "serial" and wanted.devices > 1:
        raise InputError(f"engine serial is one process, devices are {wanted.devices}; leave one of them out")
    return wanted


def _check_together(cards: Sequence[ModelCard]) -> None:
    """Nothing, where the models' probabilities may be averaged."""
    if not cards:
        raise InputError("no model was given; needed is at least one model file")
    first = cards[0]
    kept = [(item.id, item.name) for item in first.legend.classes]
    for card in cards[1:]:
        if [(item.id, item.name) for item in card.legend.classes] != kept:
            raise LegendError(
                f"{first.name} has the classes {_classes(first)}, {card.name} has {_classes(card)}; "
                "models are averaged only over the same classes"
            )
        if any(abs(a - b) > SAME_GSD * b for a, b in zip(card.gsd_m, first.gsd_m, strict=True)):
            raise InputError(
                f"{first.name} was trained at {first.gsd_m[0]:g} m, {card.name} at {card.gsd_m[0]:g} m; "
                "models are averaged only at one ground sampling distance"
            )


def _classes(card: ModelCard) -> str:
    return ", ".join(f"{item.id} {item.name}" for item in card.legend.classes)


def _picked(source: Source, cards: Sequence[ModelCard], names: Sequence[str]) -> Source:
    """The scene with the bands that any model takes."""
    for card in cards:
        match_scene(source, card.band_names)
    order = match_scene(source, names)
    return pick(source, order, [source.bands[position] for position in order])


def _ruled(source: Source, rule: str) -> Source:
    """The scene with its members in the order in which they win.

    Raises:
        InputError: The rule has no scenes to choose from, for they lie side by side within a stack.
    """
    if rule != "first" and not isinstance(source, Mosaic) and _holds_mosaic(source):
        raise InputError(
            f"rule '{rule}' is for scenes side by side, here they are within a stack; give the scenes as a list, each "
            "with its bands, or leave --rule out"
        )
    if rule != "newest" or not isinstance(source, Mosaic):
        return source
    return replace(source, members=tuple(newest_first(source.alike)), names=source.bands, grid=source.geobox)


def _holds_mosaic(source: object) -> bool:
    """Whether a mosaic is anywhere in the source."""
    if isinstance(source, Mosaic):
        return True
    if isinstance(source, tuple):
        return any(_holds_mosaic(item) for item in source)
    return is_dataclass(source) and any(_holds_mosaic(getattr(source, item.name)) for item in fields(source))


def _members(source: Source, rule: str) -> tuple[Member, ...]:
    """The scenes that are predicted each on its own."""
    if rule not in EACH_SCENE or not isinstance(source, Mosaic):
        return ()
    return tuple(Member(member, window) for member, window in source.placed)


def _lattice(source: Source, models: Sequence[TrainedModel], options: PredictOptions) -> Lattice:
    """The tiles over the scene; the log says which overlap was taken and why."""
    cards = [model.card for model in models]
    tile_px = min(card.tile_px for card in cards) if options.tile_px is None else options.tile_px
    if options.overlap_px == "auto":
        overlap_px = max(model.measured_overlap(tile_px=tile_px) for model in models)
        logger.info("overlap of %d px, from the measured receptive field", overlap_px)
    elif options.overlap_px is None:
        overlap_px = min(max(card.overlap_px for card in cards), tile_px // 2)
    else:
        overlap_px = options.overlap_px
    scale = (1.0, 1.0) if options.native else scale_for(source.geobox, cards[0].gsd_m)
    shape = source.geobox.shape[0], source.geobox.shape[1]
    return lattice_for(shape, tile_px=tile_px, overlap_px=overlap_px, scale=scale)


def _together(predictors: Sequence[Predictor], cards: Sequence[ModelCard], names: Sequence[str]) -> Predictor:
    """One predictor of the bands `names`."""
    picks = tuple(tuple(names.index(name.lower()) for name in card.band_names) for card in cards)
    if len(predictors) == 1:
        return predictors[0]
    if len({type(predictor.arrays) for predictor in predictors}) > 1:
        raise InputError("models in ONNX work in the CPU's memory, those of torch on the GPU; give --device cpu")
    return Ensemble(tuple(predictors), picks, min(predictor.batch_tiles for predictor in predictors))


def _plan(task: SceneTask, options: PredictOptions, *, crew: Crew, kept: Plan | None) -> Plan:
    """The batch and the blocks that stay within the memory, which workers on this machine share.

    Args:
        task: The scene and the network.
        options: The memory, and the batch where it is given.
        crew: Who does the work.
        kept: The plan of an earlier run, whose blocks are kept to.

    Raises:
        InputError: The memory does not hold a single tile, or not the blocks of the earlier run.
    """
    predictor, sharing = task.predictor, 1 if crew.scheduler else crew.devices
    spent = min(resident_bytes(), LIBRARIES_BYTES + predictor.model_bytes) + FIXED_BYTES
    if kept is not None and options.batch is None:
        predictor.batch_tiles = kept.batch_tiles
    batch_bytes = predictor.fit_batch(
        model_shape=task.model_shape, tiles=task.tiling.count[0] * task.tiling.count[1],
        memory_bytes=max(options.memory_bytes // sharing - spent, 0) // 2,
        search=options.batch is None and kept is None,
    )  # fmt: skip
    if kept is None:
        _check_batch(options, predictor.batch_tiles, sharing * (spent + batch_bytes))
        _check_writing(options, task, spent)
        cells = cells_for(
            task, memory_bytes=options.memory_bytes, spent_bytes=spent + batch_bytes, workers=crew.devices,
            sharing=sharing, alone=crew.engine == "dask",
        )  # fmt: skip
        return Plan(cells, predictor.batch_tiles)
    needed = sharing * (spent + batch_bytes + buffer_bytes(task, kept.cells))
    if needed > options.memory_bytes and predictor.batch_tiles > 1:
        needed -= sharing * (batch_bytes - batch_bytes // predictor.batch_tiles)
        predictor.batch_tiles = 1
    if needed > options.memory_bytes:
        raise InputError(
            f"memory of {options.memory_bytes / 10**6:.0f} MB: the blocks that an earlier run began with need "
            f"{ceil(needed / 10**6)} MB; try --memory {ceil(needed / 10**6)}MB, or add --overwrite to start anew"
        )
    return Plan(kept.cells, predictor.batch_tiles)


def _check_batch(options: PredictOptions, tiles: int, needed_bytes: int) -> None:
    """Nothing, where the memory holds a batch that was asked for.

    Raises:
        InputError: It does not.
    """
    if options.batch is not None and tiles > 1 and needed_bytes > options.memory_bytes:
        raise InputError(
            f"memory of {options.memory_bytes / 10**6:.0f} MB: batches of {tiles} tiles need about "
            f"{ceil(needed_bytes / 10**6)} MB; give a smaller --batch, or leave it out"
        )


def _check_writing(options: PredictOptions, task: SceneTask, spent_bytes: int) -> None:
    """Nothing, where the memory holds what GDAL takes to write the layer of most bands: some tiles of all of them.

    Raises:
        InputError: It does not.
    """
    bands = max(len(layer.bands(task.legend)) for layer in task.layers)
    needed = ceil((spent_bytes + WRITTEN_TILES * bands * BLOCK_PX**2) / 10**6)
    if needed * 10**6 > options.memory_bytes and bands > 1:
        raise InputError(
            f"memory of {options.memory_bytes / 10**6:.0f} MB: a layer of {bands} bands takes {needed} MB to write; "
            f"try --memory {needed}MB, or leave out --layers probabilities"
        )
