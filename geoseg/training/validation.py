"""The stitched validation: the best weights map the validation part as `geoseg predict` would, and that is counted.

Tiles overlap and are blended, and what lies around the validation part is seen as context; only tiles with a labelled
validation pixel are predicted. Blocks are counted as they are finished and then forgotten, so memory depends on the
block, not on the scene, and the counts are the same for any cut.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from geoseg.data.scene import SceneArrays
from geoseg.errors import InputError
from geoseg.infer.blocks import run_blocks
from geoseg.infer.devices import Precision
from geoseg.infer.layers import ALWAYS, LAYERS, LEVEL
from geoseg.infer.options import DEFAULT_MEMORY_BYTES
from geoseg.infer.plan import cells_for
from geoseg.infer.predictor import TorchPredictor
from geoseg.infer.scale import lattice_for
from geoseg.infer.task import SceneTask
from geoseg.legend import Legend
from geoseg.models.boundary_iou import NOTHING, BoundaryCounter, BoundaryCounts
from geoseg.models.calibration import Reliability
from geoseg.models.card import ModelCard
from geoseg.models.metrics import Scores
from geoseg.tiling import Block, Window
from geoseg.training.places import Survey, choose_places
from geoseg.training.scene_source import SceneSource, ValidationArea, validation_labels, within

BLEND = "hann"  # what `geoseg predict` does unless it is told otherwise


@dataclass(frozen=True, kw_only=True)  # no slots: the command line reads defaults from __dict__
class ValidationOptions:
    """How the model is judged at the end of a run, on the stitched map of the validation part.

    Attributes:
        boundary_px: Pixels on both sides of a border that count for the boundary IoU.
        places: Places shown in predictions.png; 0 draws none.
    """

    boundary_px: int = 3
    places: int = 4

    def __post_init__(self) -> None:
        if self.boundary_px < 1 or self.places < 0:
            raise InputError(
                f"validation.boundary_px is {self.boundary_px} and validation.places {self.places}: "
                "needed are 1 pixel or more, and 0 places or more"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A piece of a scene to look at.

    Attributes:
        scene: The scene.
        window: Which pixels of it.
        mapped: Classes that the map has there, int32 `(row, col)`; NOTHING outside the validation part.
    """

    scene: SceneArrays
    window: Window
    mapped: NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """What was counted on the stitched validation part.

    Attributes:
        scores: From one confusion matrix.
        boundary: Pixels near borders.
        boundary_px: How near.
        reliability: Pixels by confidence.
        places: Pieces of the map, to look at.
    """

    scores: Scores
    boundary: BoundaryCounts
    boundary_px: int
    reliability: Reliability
    places: tuple[Place, ...] = ()

    @classmethod
    def none(cls, classes: int, *, boundary_px: int) -> Judgement:
        """Nothing counted yet."""
        nobody = Reliability.of(np.zeros(0, np.uint8), np.zeros(0, np.bool_))
        return cls(Scores(np.zeros((classes, classes), np.int64)), BoundaryCounts.none(classes), boundary_px, nobody)

    def plus(self, label: NDArray[np.int32], mapped: NDArray[np.int32], level: NDArray[np.uint8]) -> Judgement:
        """With more labelled pixels counted: their classes, those of the map, and its confidence in 255ths."""
        classes = len(self.scores.matrix)
        pairs = np.bincount(label.astype(np.int64) * classes + mapped, minlength=classes**2)
        return replace(
            self,
            scores=Scores(self.scores.matrix + pairs.reshape(classes, classes)),
            reliability=self.reliability + Reliability.of(level, label == mapped),
        )

    def to_dict(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Plain values for JSON: those of `Scores.to_dict`, with boundary IoU and calibration error; None for NaN."""
        values = self.scores.to_dict(names)
        for name, iou in zip(names, self.boundary.iou.tolist(), strict=True):
            values["classes"][name]["boundary_iou"] = _plain(iou)
        return {
            **values,
            "mean_boundary_iou": _plain(self.boundary.mean),
            "boundary_px": self.boundary_px,
            "calibration_error": _plain(self.reliability.expected_error()),
        }


def judge_scenes(
    scenes: Sequence[SceneArrays],
    *,
    network: nn.Module,
    card: ModelCard,
    options: ValidationOptions | None = None,
    device: str = "auto",
    precision: Precision = "fp32",
    batch: int = 1,
    cells: tuple[int, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Judgement:
    """How a network maps the validation part of scenes, stitched.

    Args:
        scenes: Decoded scenes on the grid that the network was trained on.
        network: The network; it is left as it is.
        card: Its bands, classes, tile and overlap.
        options: How to judge.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        precision: `fp32`, `bf16`, `fp16` or `auto`.
        batch: Tiles in one forward pass.
        cells: Lattice cells of a block, down and across; by default what fits the memory. The counts are the same.
        progress: Told the pixels done and the pixels in all.

    Raises:
        ModelFileError: The network gives NaN.
        InputError: The device is not there, or its memory does not hold a tile.
    """
    chosen = options or ValidationOptions()
    predictors = Predictors(network, card, device=device, precision=precision, batch=batch)
    works = _works(scenes, classes=len(card.legend), places=chosen.places)
    found = Judgement.none(len(card.legend), boundary_px=chosen.boundary_px)
    tell = _adding(progress, sum(work.region.rows * work.region.cols for work in works))
    for work in works:
        task = _task(work, predictors.for_scene(work.scene), card)
        found = _judged(found, task, work, cut=cells, tell=tell)
    return replace(found, places=tuple(place for work in works for place in work.places))


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """What there is to do for one scene.

    Attributes:
        scene: The scene.
        survey: Where it has validation labels.
        places: Pieces of it to look at.
        region: A window outside which no map is needed.
    """

    scene: SceneArrays
    survey: Survey
    places: tuple[Place, ...]
    region: Window

    def needs(self, window: Window) -> bool:
        """Whether a map may be needed somewhere in a window."""
        return self.survey.holds(window) or any(_meet(window, place.window) for place in self.places)


def _works(scenes: Sequence[SceneArrays], *, classes: int, places: int) -> list[Work]:
    """The scenes that have a validation label, and the places of each."""
    surveys = [Survey.of(scene, classes=classes) for scene in scenes]
    shown: list[list[Place]] = [[] for _ in scenes]
    for number, window in choose_places(surveys, count=places):
        mapped = np.full((window.rows, window.cols), NOTHING, np.int32)
        shown[number].append(Place(scenes[number], window, mapped))
    return [
        Work(scene, survey, tuple(own), _around([labelled, *(place.window for place in own)]))
        for scene, survey, own in zip(scenes, surveys, shown, strict=True)
        if (labelled := survey.window) is not None
    ]


class Predictors:
    """The network at work, for scenes that have all bands and for those that lack some."""

    def __init__(self, network: nn.Module, card: ModelCard, *, device: str, precision: Precision, batch: int) -> None:
        self._network, self._card = copy.deepcopy(network), card
        self._options: dict[str, Any] = {"device": device, "precision": precision, "batch_tiles": max(1, batch)}
        self._made: dict[tuple[int, ...], TorchPredictor] = {}

    def for_scene(self, scene: SceneArrays) -> TorchPredictor:
        """A predictor that shows the network 0 in the bands that the scene lacks, as training did.

        Such a band holds 0, and a mean of 0 leaves it so.
        """
        if scene.absent not in self._made:
            moments = [(band.mean, band.std) for band in self._card.bands]
            for band in scene.absent:
                moments[band] = (0.0, 1.0)
            mean, std = zip(*moments, strict=True)
            self._made[scene.absent] = TorchPredictor(
                self._network, mean=mean, std=std, classes=len(self._card.legend), **self._options
            )
        return self._made[scene.absent]


def _task(work: Work, predictor: TorchPredictor, card: ModelCard) -> SceneTask:
    """The map of a scene where one is needed, with the tiles of `geoseg predict`."""
    scene = work.scene
    area = ValidationArea(work.region, scene.geobox, scene, tuple(place.window for place in work.places))
    lattice = lattice_for(scene.shape, tile_px=card.tile_px, overlap_px=card.overlap_px, scale=(1.0, 1.0))
    layers = (*(LAYERS[name] for name in ALWAYS), LEVEL)
    return SceneTask(
        SceneSource(scene), predictor, card.legend, lattice.tiling, lattice.model_shape, BLEND, layers, area=area
    )


def _judged(
    before: Judgement,
    task: SceneTask,
    work: Work,
    *,
    cut: tuple[int, int] | None,
    tell: Callable[[int], None],
) -> Judgement:
    """What was counted before, and a scene; its map is filled into the places."""
    cells = cut or cells_for(task, memory_bytes=DEFAULT_MEMORY_BYTES)
    blocks = [block for block in task.tiling.blocks(cells=cells) if _meet(block.window, work.region)]
    whole = _around([block.window for block in blocks])
    counter = BoundaryCounter(whole, classes=len(before.scores.matrix), distance_px=before.boundary_px)
    found = before
    for block, mapped, level in _mapped(task, blocks, [work.needs(block.window) for block in blocks]):
        labels = validation_labels(work.scene, block.window)
        known = labels != NOTHING
        found = found.plus(labels[known], mapped[known], level[known])
        counter.add(block.window, labels, mapped)
        for place in work.places:
            if _meet(place.window, block.window):
                part = place.window.intersect(block.window)
                place.mapped[within(part, place.window)] = mapped[within(part, block.window)]
        part = block.window.intersect(work.region)
        tell(part.rows * part.cols)
    return replace(found, boundary=found.boundary + counter.counts)


def _mapped(
    task: SceneTask, blocks: Sequence[Block], needed: Sequence[bool]
) -> Iterator[tuple[Block, NDArray[np.int32], NDArray[np.uint8]]]:
    """Each block with the classes mapped, NOTHING where no map is needed, and its confidence in 255ths."""
    channels = _channels(task.legend)
    with closing(run_blocks(task, [block for block, so in zip(blocks, needed, strict=True) if so])) as made:
        for block, so in zip(blocks, needed, strict=True):
            if so:
                layers = next(made).layers
                yield block, channels[layers["class"][0]], layers[LEVEL.name][0]
            else:
                shape = block.window.rows, block.window.cols
                yield block, np.full(shape, NOTHING, np.int32), np.zeros(shape, np.uint8)


def _channels(legend: Legend) -> NDArray[np.int32]:
    """The channel of each class id; NOTHING for ids of no class."""
    found = np.full(int(np.iinfo(legend.dtype).max) + 1, NOTHING, np.int32)
    found[legend.ids] = np.arange(len(legend))
    return found


def _meet(one: Window, other: Window) -> bool:
    part = one.intersect(other)
    return bool(part.rows and part.cols)


def _around(windows: Sequence[Window]) -> Window:
    """The smallest window around all."""
    top, left = (min(getattr(window, name) for window in windows) for name in ("row_off", "col_off"))
    below, right = (max(getattr(window, name) for window in windows) for name in ("row_stop", "col_stop"))
    return Window(top, left, below - top, right - left)


def _adding(progress: Callable[[int, int], None] | None, total: int) -> Callable[[int], None]:
    """A function that adds pixels to those done, and tells both sums."""
    done = 0

    def tell(pixels: int) -> None:
        nonlocal done
        done += pixels
        if progress is not None:
            progress(done, total)

    return tell


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else value
