"""What the integers of a map are: classes, instances, both at once, or just values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.legend import Legend

DIVISOR = 1000
"""Instances of a class in a panoptic map, as Cityscapes and COCO's tools write it."""


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


def names_of(values: Iterable[int], legend: Legend) -> dict[int, str]:
    """Name of each value that a map with this legend may hold.

    What stands in a map are the classes' ids; in a label file that was never translated, their codes.

    >>> names_of([11], Legend.from_dict({1: {"name": "water", "codes": [11, 12]}}))
    {11: 'water', 12: 'water'}
    """
    ids = {item.id: item.name for item in legend.classes}
    codes = {code: item.name for item in legend.classes for code in item.codes or (item.id,)}
    found = set(values)
    return codes if not found <= set(ids) and found <= set(codes) else ids


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
        instance=lambda values: values % DIVISOR > 0, class_of=lambda values: values // DIVISOR,
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
