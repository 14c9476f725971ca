"""How a map becomes polygons, checked before any work."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from geoseg.errors import InputError
from geoseg.vector.kinds import kind_of
from geoseg.vector.lines.simplify import METHODS
from geoseg.vector.merging import RULES

AREA_UNITS = {"": 1.0, "m2": 1.0, "m²": 1.0, "ha": 1e4, "km2": 1e6, "km²": 1e6, "a": 100.0, "ac": 4046.8564224}
"""Square metres in a unit; `ac` is the international acre."""

LENGTH_UNITS = {"": 1.0, "m": 1.0, "km": 1e3, "cm": 0.01, "ft": 0.3048}
"""Metres in a unit."""

EARTH_M2, EARTH_M = 5.2e14, 4.1e7
"""A little more than the Earth's surface and circumference: no map has use for larger minima and tolerances."""

Area = float | str
Minima = Area | Mapping[str, Area]
"""An area for all classes, or one for each class by its name or number; `default` is that of the others."""


@dataclass(frozen=True, slots=True)
class PolygonOptions:
    """What to do with regions and boundaries.

    Attributes:
        kind: What the map's values are: `classes`, `instances`, `panoptic` (class * 1000 + instance) or `values`.
        connectivity: 4, or 8 where pixels that touch at a corner are one feature.
        dissolve: Whether there is one feature a class.
        min_area_m2: Smaller regions go, smallest first.
        merge_rule: Where they go: to the neighbour with the longest shared `border`, to the most `similar` class, or to
            `nodata`.
        similarity: How similar two classes are, by their numbers, in any order; 0 for pairs not named.
        tolerance_m: How far boundaries may be simplified; 0 leaves them exact.
        simplify: By which of `METHODS`.
        smooth: Whether staircases become natural lines.
        right_angles: Names of classes whose outlines get right angles.

    Raises:
        InputError: A value makes no sense.
    """

    kind: str = "classes"
    connectivity: int = 4
    dissolve: bool = False
    min_area_m2: Minima = 0.0
    merge_rule: str = "border"
    similarity: Mapping[tuple[int, int], float] = field(default_factory=dict)
    tolerance_m: float | str = 0.0
    simplify: str = "visvalingam"
    smooth: bool = False
    right_angles: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        kind_of(self.kind)
        if self.connectivity not in (4, 8):
            raise InputError(f"connectivity must be 4 or 8, got {self.connectivity}")
        for what, name, table in (("merge-rule", self.merge_rule, RULES), ("simplify", self.simplify, METHODS)):
            if name not in table:
                raise InputError(f"{what} '{name}' is unknown; known are {', '.join(table)}")
        _ = self.minima, self.tolerance
        self._check_similarity()

    def _check_similarity(self) -> None:
        """That there is a table where one is used, and nowhere else."""
        if self.merge_rule == "similar" and not self.similarity:
            raise InputError("merge-rule similar needs a table: give similarity, such as {forest: {shrub: 0.8}}")
        if self.merge_rule != "similar" and self.similarity:
            raise InputError(f"similarity is for merge-rule similar, got {self.merge_rule}; give one or neither")

    @property
    def minima(self) -> dict[str, float]:
        """Smallest areas in m² by class; `default` for all others."""
        given = self.min_area_m2 if isinstance(self.min_area_m2, Mapping) else {"default": self.min_area_m2}
        return {"default": 0.0} | {str(name): square_metres(area) for name, area in given.items()}

    @property
    def tolerance(self) -> float:
        """The tolerance in m."""
        return metres(self.tolerance_m)


def square_metres(area: Area) -> float:
    """An area in m², such as 5000, "0.5 ha" or "2km2".

    Raises:
        InputError: It is no area.

    >>> square_metres("0.5 ha"), square_metres(900)
    (5000.0, 900.0)
    """
    return _quantity(area, AREA_UNITS, most=EARTH_M2, what="min_area_m2", example="5000 (m²), 0.5ha or 2km2")


def metres(length: float | str) -> float:
    """A length in m, such as 15 or "15 m".

    Raises:
        InputError: It is no length on the ground.
    """
    return _quantity(
        length, LENGTH_UNITS, most=EARTH_M, what="tolerance_m", example="15 (m) or 0.1km; degrees are no length"
    )


def _quantity(value: float | str, units: Mapping[str, float], *, most: float, what: str, example: str) -> float:
    found = re.fullmatch(r"\s*([-+]?[\d.]+(?:e[-+]?\d+)?)\s*([^\d\s]*2?)\s*", str(value), re.IGNORECASE)
    try:
        number = float(value) if found is None else float(found[1]) * units[found[2].lower()]
    except (ValueError, KeyError) as error:
        raise InputError(f"{what} '{value}' is not understood; needed is a number such as {example}") from error
    if not 0 <= number < math.inf:
        raise InputError(f"{what} must be 0 or more, got {value}; needed is a number such as {example}")
    if number > most:
        raise InputError(f"{what} {value} is more than the Earth has; needed is a number such as {example}")
    return number
