"""Simpler boundaries that neighbours still share: each arc is simplified once, and none may touch another.

All is exact: the vertices that are left stand where they stood before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from geoseg.errors import InputError
from geoseg.vector.coverage import Arcs
from geoseg.vector.lines.elimination import Rule, eliminate


def simplify_arcs(
    arcs: Arcs, *, tolerance: float, pixel: tuple[float, float] = (1.0, 1.0), method: str = "visvalingam"
) -> Arcs:
    """The arcs with fewer vertices, all of them vertices they had before; the polygons still are a valid coverage.

    Junctions stay, and so does every border with nodata or the outside, so that the areas sum to what they were. A
    vertex that would let a line touch another stays as well, and an island keeps four corners.

    Args:
        arcs: The boundaries, in pixel corners or smoothed.
        tolerance: What may go. "visvalingam": the side of a square, a vertex goes while its triangle with its two
            neighbours is smaller, smallest first (Visvalingam & Whyatt, Line generalisation by repeated elimination of
            points, Cartographic J. 30, 1993). "douglas-peucker": a distance, what is nearer to the simpler line goes
            (Douglas & Peucker, Algorithms for the reduction of the number of points, Cartographica 10, 1973). 0 leaves
            the arcs as they are.
        pixel: Size of a pixel along x and y, in the unit of the tolerance.
        method: One of `METHODS`.

    Raises:
        InputError: An unknown method, a tolerance below 0, or a pixel without size.
    """
    if method not in METHODS:
        raise InputError(f"no method {method!r} to simplify boundaries; known are {', '.join(METHODS)}")
    if not 0 <= tolerance < np.inf:
        raise InputError(f"the tolerance must be 0 or more, got {tolerance}")
    if not (0 < pixel[0] < np.inf and 0 < pixel[1] < np.inf):
        raise InputError(f"a pixel's size along x and y must be above 0, got {pixel[0]} x {pixel[1]}")
    if tolerance == 0 or len(arcs.left) == 0:
        return arcs
    unit_x, unit_y = pixel[0] / arcs.scale, pixel[1] / arcs.scale
    return eliminate(arcs, METHODS[method](float(tolerance), unit_x, unit_y))


def _by_triangle(tolerance: float, unit_x: float, unit_y: float) -> Rule:
    return Rule(by_distance=False, limit=2 * tolerance**2 / (unit_x * unit_y), unit_x=unit_x, unit_y=unit_y)


def _by_distance(tolerance: float, unit_x: float, unit_y: float) -> Rule:
    return Rule(by_distance=True, limit=tolerance**2, unit_x=unit_x, unit_y=unit_y)


METHODS: Mapping[str, Callable[[float, float, float], Rule]] = {
    "visvalingam": _by_triangle,
    "douglas-peucker": _by_distance,
}
