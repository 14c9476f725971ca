"""What makes a split unfit to train with, said in numbers."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geoseg.data.scene import OUTSIDE, TEST, TRAINING, VALIDATION, SceneArrays, windows_of
from geoseg.data.splits.leaks import Leak, find_leaks
from geoseg.data.splits.options import SplitOptions
from geoseg.data.splits.same_image import shared_pixels
from geoseg.errors import InputError

logger = logging.getLogger(__name__)

PLACES = {VALIDATION: "in validation", TEST: "in the test", OUTSIDE: "in the buffer or in no part"}


def settle_leaks(scenes: Sequence[SceneArrays], roles: Sequence[str], *, buffer_m: float | None, leakage: str) -> None:
    """Refuses parts, given for whole scenes, that know of each other; or drops what does.

    Scenes that have a place lose it when the buffer is cut. Of those without one, whose parts are compared whether they
    were given or drawn, whole scenes go.

    Raises:
        InputError: There is a leak, and `leakage` is `refuse`.
    """
    compared = _compared(scenes, roles)
    leaks = find_leaks(compared, buffer_m=buffer_m)
    if not leaks:
        return
    if leakage == "refuse":
        raise InputError(_refusal(leaks))
    logger.warning("dropped: %s", _told(leaks))
    for number in {shared.scene for shared in shared_pixels(compared, compared)}:
        leave_out(compared[number])


def _compared(scenes: Sequence[SceneArrays], roles: Sequence[str]) -> list[SceneArrays]:
    """Scenes without a CRS, from which no buffer is cut, and of the others those that were given different parts."""
    several = len(set(roles) - {"split"}) > 1
    return [
        scene
        for scene, role in zip(scenes, roles, strict=True)
        if scene.geobox.crs is None or (several and role != "split")
    ]


def _told(leaks: Sequence[Leak]) -> str:
    """The largest leak in words, and how much there is besides."""
    if len(leaks) == 1:
        return str(leaks[0])
    return f"{leaks[0]}, and {sum(leak.pixels for leak in leaks[1:]):,} more in {len(leaks) - 1} other pairs of scenes"


def _refusal(leaks: Sequence[Leak]) -> str:
    ways = "leakage: drop leaves these out, buffer_m sets another distance"
    return f"the parts given to scenes leak: {_told(leaks)}; {ways}"


def leave_out(scene: SceneArrays) -> None:
    """Writes OUTSIDE over a whole scene."""
    for window in windows_of(scene.shape):
        scene.part[window.slices] = np.uint8(OUTSIDE)


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
