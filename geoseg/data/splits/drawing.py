"""The draw: which units validate, test and train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoseg.data.scene import SceneArrays
from geoseg.data.splits.choice import choose_units, deal_folds
from geoseg.data.splits.files import areas_as_parts
from geoseg.data.splits.options import SplitOptions
from geoseg.data.splits.plan import PART_WORDS, Part, SplitUnit, class_counts
from geoseg.data.splits.planes import count_units
from geoseg.data.splits.units import Pieces, cut_units, read_areas
from geoseg.errors import InputError

NO_FOLD = -1


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """Parts and folds of units, `(unit,)`; fold -1 where there is none."""

    part: NDArray[np.object_]
    fold: NDArray[np.int64]


def draw_units(
    scenes: Sequence[SceneArrays], keys: Sequence[str], *, classes: int, options: SplitOptions
) -> tuple[list[SplitUnit], str]:
    """Units with the parts that the draw gives them, and how they were drawn, in words.

    Raises:
        InputError: Units cannot be made or drawn as asked.
        GridError: A scene has no CRS, and the units are places on the ground.
    """
    if options.unit == "area" and options.attribute is not None:
        shapes, values = read_areas(str(options.areas), options.attribute)
        if all(value is not None and value.strip().lower() in PART_WORDS for value in values):
            plan = areas_as_parts(shapes, values, str(options.areas))
            return list(plan.units), plan.method
    pieces = cut_units(scenes, keys, options)
    counts = count_units(scenes, pieces.places, classes=classes)
    if pieces.spare:
        told = np.flatnonzero(counts.any(1) | np.array([scene is not None for scene in pieces.scenes]))
        pieces, counts = pieces.kept(told), counts[told]
    by_unit = np.zeros((int(pieces.groups.max(initial=-1)) + 1, classes), np.int64)
    np.add.at(by_unit, pieces.groups, counts)
    drawn = _draw(by_unit if options.stratified else by_unit.sum(1, keepdims=True), options)
    return _units(pieces, counts, drawn), _words(pieces, len(by_unit), options)


def _draw(counts: NDArray[np.int64], options: SplitOptions) -> Drawn:
    rng = np.random.default_rng(options.seed)
    drawn = Drawn(np.full(len(counts), "training", object), np.full(len(counts), NO_FOLD))
    if options.test_share:
        drawn.part[choose_units(counts, share=options.test_share, rng=rng)] = "test"
    free = np.flatnonzero(drawn.part == "training")
    if options.folds is not None:
        told = free[counts[free].any(1)]
        drawn.fold[told] = _dealt(counts[told], options.folds, rng)
        drawn.part[drawn.fold == options.fold] = "validation"
    elif options.validation_share:
        share = options.validation_share / (1 - options.test_share)
        drawn.part[free[choose_units(counts[free], share=share, rng=rng)]] = "validation"
    return drawn


def _dealt(counts: NDArray[np.int64], folds: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """The fold of each unit.

    Raises:
        InputError: There are fewer units than folds.
    """
    if len(counts) < folds:
        few = f"{len(counts)} units with labels cannot make {folds} folds"
        raise InputError(f"{few}; smaller units (block_m) or fewer folds would work")
    return deal_folds(counts, folds=folds, rng=rng)


def _units(pieces: Pieces, counts: NDArray[np.int64], drawn: Drawn) -> list[SplitUnit]:
    found = []
    for (geometry, scene), group, row in zip(pieces.places, pieces.groups.tolist(), counts, strict=True):
        part: Part = drawn.part[group]
        fold = int(drawn.fold[group])
        found.append(SplitUnit(geometry, part, scene, None if fold == NO_FOLD else fold, class_counts(row)))
    return found


def _words(pieces: Pieces, units: int, options: SplitOptions) -> str:
    if options.folds is not None:
        what = f"in {options.folds} folds, of which {options.fold} validates"
    else:
        what = f"of which {options.validation_share:.0%} validate"
    if options.test_share:
        what += f" and {options.test_share:.0%} test"
    how = "by class" if options.stratified else "by area"
    return f"{units:,} units: {pieces.words}, {what}; drawn {how} with seed {options.seed}"
