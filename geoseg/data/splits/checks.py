"""What makes a split unfit to train with, said in numbers."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geoseg.data.scene import OUTSIDE, TEST, TRAINING, VALIDATION, SceneArrays, windows_of
from geoseg.data.splits.leaks import Leak, find_leaks
from geoseg.data.splits.options import SplitOptions
from geoseg.errors import InputError

logger = logging.getLogger(__name__)

PLACES = {VALIDATION: "in validation", TEST: "in the test", OUTSIDE: "in the buffer or in no part"}


def settle_leaks(scenes: Sequence[SceneArrays], roles: Sequence[str], *, buffer_m: float | None, leakage: str) -> None:
    """Refuses parts, given for whole scenes, that know of each other; or drops what does.

    Scenes that have a place lose it when the buffer is cut; of those without one, whole scenes go.

    Raises:
        InputError: There is a leak, and `leakage` is `refuse`.
    """
    given = [scene for scene, role in zip(scenes, roles, strict=True) if role != "split"]
    if len({role for role in roles if role != "split"}) < 2:
        return
    leaks = find_leaks(given, buffer_m=buffer_m)
    if not leaks:
        return
    if leakage == "refuse":
        raise InputError(_refusal(leaks))
    logger.warning("dropped: %s", _told(leaks))
    _drop_unplaced(given)


def _told(leaks: Sequence[Leak]) -> str:
    """The largest leak in words, and how much there is besides."""
    if len(leaks) == 1:
        return str(leaks[0])
    return f"{leaks[0]}, and {sum(leak.pixels for leak in leaks[1:]):,} more in {len(leaks) - 1} other pairs of scenes"


def _refusal(leaks: Sequence[Leak]) -> str:
    ways = "leakage: drop leaves these out, buffer_m sets another distance"
    return f"the parts given to scenes leak: {_told(leaks)}; {ways}"


def _drop_unplaced(scenes: Sequence[SceneArrays]) -> None:
    """Leaves out scenes without a CRS that train (or validate) under the name of one that validates or tests."""
    unplaced = [scene for scene in scenes if scene.geobox.crs is None]
    kept = {part: {scene.name for scene in unplaced if _holds(scene, part)} for part in (VALIDATION, TEST)}
    for scene in unplaced:
        trains = _holds(scene, TRAINING) and scene.name in kept[VALIDATION] | kept[TEST]
        if trains or (_holds(scene, VALIDATION) and scene.name in kept[TEST]):
            for window in windows_of(scene.shape):
                scene.part[window.slices] = np.uint8(OUTSIDE)


def _holds(scene: SceneArrays, part: int) -> bool:
    return any(bool((scene.part[window.slices] == part).any()) for window in windows_of(scene.shape))


def check_parts(counts: NDArray[np.int64], options: SplitOptions) -> None:
    """Refuses a split without labelled pixels to train or validate on.

    Args:
        counts: Labelled pixels of each class in each part, `(part, class)`.
        options: What was asked for, for the message.

    Raises:
        InputError: There are none.
    """
    ways = "the regions smaller" if options.regions is not None else "block_m smaller"
    if not counts[TRAINING].any():
        raise InputError(f"the split leaves no labelled pixel to train on; make buffer_m or {ways}")
    if not counts[VALIDATION].any():
        raise InputError(
            "the split leaves no labelled pixel to validate on; make block_m smaller, raise validation_share, or name "
            "regions that hold labels"
        )


def check_classes(counts: NDArray[np.int64], names: Sequence[str], options: SplitOptions) -> None:
    """Refuses a split that leaves a class without training pixels; or warns of it, where that was asked for.

    Args:
        counts: Labelled pixels of each class in each part, `(part, class)`.
        names: Of the classes.
        options: What was asked for.

    Raises:
        InputError: A class has labelled pixels, but none to train on.
    """
    lost = np.flatnonzero((counts[TRAINING] == 0) & counts.any(0)).tolist()
    if not lost:
        return
    told = "; ".join(_places(names[k], counts[:, k]) for k in lost[:3]) + ("; and others" if len(lost) > 3 else "")
    if options.untrained == "warn":
        logger.warning("the split leaves classes without training pixels: %s", told)
        return
    raise InputError(
        f"the split leaves a class without training pixels: {told}; {_ways(options)}, or untrained: warn, would work"
    )


def _places(name: str, counts: NDArray[np.int64]) -> str:
    where = ", ".join(f"{int(counts[part]):,} {place}" for part, place in PLACES.items() if counts[part])
    return f"{name} has {int(counts.sum()):,} labelled pixels ({where})"


def _ways(options: SplitOptions) -> str:
    if options.regions is not None or options.file is not None:
        return "regions or polygons that leave some of it, a smaller buffer_m"
    return "another fold" if options.folds is not None else "smaller units (block_m), a smaller buffer_m, another seed"
