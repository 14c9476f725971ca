"""What the integers of a map are: classes, instances, both at once, or just values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import InputError, LegendError
from geoseg.legend import Legend

DIVISOR = 1000
"""Instances of a class in a panoptic map, as Cityscapes and COCO's tools write it."""


ValuesAre = Literal["ids", "codes"]
"""What a map's values are in its legend: the classes' ids, or the codes of label files."""


def _none(values: NDArray[Any]) -> NDArray[np.bool_]:
    return np.zeros(values.shape, np.bool_)


def _all(values: NDArray[Any]) -> NDArray[np.bool_]:
    return np.ones(values.shape, np.bool_)


def _as_they_are(values: NDArray[Any]) -> NDArray[Any]:
    return values


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of map.

    Attributes:
        name: Its name.
        columns: Columns of a table from the map's values `(feature,)`.
        has_classes: Whether there is a class in each value.
        instance: Which values are of one instance, whose parts are one feature, bool `(region,)`.
        class_of: The class of each value.
    """

    name: str
    columns: Callable[[NDArray[Any]], dict[str, NDArray[Any]]]
    has_classes: bool
    instance: Callable[[NDArray[Any]], NDArray[np.bool_]] = _none
    class_of: Callable[[NDArray[Any]], NDArray[Any]] = _as_they_are


def names_of(values: Iterable[int], legend: Legend, *, values_are: ValuesAre | None = None) -> dict[int, str]:
    """Name of each value that a map with this legend may hold.

    What stands in a map are the classes' ids; in a label file that was never translated, their codes.

    Args:
        values: Those found.
        legend: The classes.
        values_are: Which of both they are, where the map says so; else it is what the legend has all of.

    Raises:
        LegendError: They may be both, with different names.

    >>> names_of([11], Legend.from_dict({1: {"name": "water", "codes": [11, 12]}}))
    {11: 'water', 12: 'water'}
    """
    ids = {item.id: item.name for item in legend.classes}
    codes = {code: item.name for item in legend.classes for code in item.codes or (item.id,)}
    found = set(values)
    differ = sorted(value for value in found if value not in ids or ids[value] != codes.get(value))
    if values_are == "ids" or not differ:
        return ids
    if values_are == "codes":
        return codes
    if found <= set(ids) and found <= set(codes):
        value = differ[0]
        raise LegendError(
            f"the map's value {value} is the id of {ids[value]} and the code of {codes[value]}, and nothing says which "
            "it holds; give a legend whose ids are the values of this map, and no codes"
        )
    return codes if found <= set(codes) else ids


def _fitting(values: NDArray[Any]) -> NDArray[Any]:
    """The values as int32 where they fit, else int64."""
    fits = values.size == 0 or (values.min() >= -(2**31) and values.max() < 2**31)
    return values.astype(np.int32 if fits else np.int64)


def _panoptic(values: NDArray[Any]) -> dict[str, NDArray[Any]]:
    classes, instances = np.divmod(values.astype(np.int64), DIVISOR)
    return {"class_id": _fitting(classes), "instance_id": _fitting(instances)}


KINDS: dict[str, Kind] = {
    "classes": Kind("classes", lambda values: {"class_id": _fitting(values)}, has_classes=True),
    "instances": Kind("instances", lambda values: {"instance_id": _fitting(values)}, has_classes=False, instance=_all),
    "panoptic": Kind(
        "panoptic", _panoptic, has_classes=True,
        instance=lambda values: values.astype(np.int64) % DIVISOR > 0,
        class_of=lambda values: values.astype(np.int64) // DIVISOR,
    ),
    "values": Kind("values", lambda values: {"value": _fitting(values)}, has_classes=False),
}  # fmt: skip
"""`classes`: each value is a class. `instances`: each value is an object. `panoptic`: class * 1000 + instance, where
instance 0 is stuff. `values`: each value is itself."""


def kind_of(name: str) -> Kind:
    """The kind of that name.

    Raises:
        InputError: There is none.
    """
    if name not in KINDS:
        raise InputError(f"kind '{name}' is unknown; known are {', '.join(KINDS)}")
    return KINDS[name]
