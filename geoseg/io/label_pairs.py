"""A class map and its reference: two label sources under one legend."""

from __future__ import annotations

import logging
from typing import Any

from geoseg.errors import LegendError
from geoseg.io.label_names import codes_of, free_ignore
from geoseg.io.label_sources import LabelRaster, LabelSource, LabelVector
from geoseg.io.labels import LabelSpec, open_labels
from geoseg.io.legends import legend_of_codes, said_names, values_of
from geoseg.io.protocol import Source
from geoseg.legend import Legend

logger = logging.getLogger(__name__)

OFTEN_NONE = (255, 65535)
"""Values that stand for nothing in many label files, as negative ones do: they are no class unless somebody says so."""


def open_pair(
    class_map: Source, reference: LabelSpec, *, column: str | None = None
) -> tuple[LabelSource, LabelSource, Legend]:
    """A map and its reference as class ids of one legend.

    It is the map's. Where that has no names, its classes are numbers: those in it, and those that the reference has
    there.

    Args:
        class_map: One band of class ids.
        reference: As `open_labels` takes labels.
        column: The reference's column of classes, where it is a vector.

    Raises:
        InputError: The reference's options do not fit.
        LegendError: A class of the reference is not in the map's legend, or is another one of the same number.
        ReadError: A file cannot be read.
    """
    mapped, legend = open_labels(class_map)
    wide = None if said_names(class_map) else _with_numbers(legend, class_map, reference, column)
    if wide is not None:
        mapped, legend = open_labels(class_map, legend=wide)
    labels, _ = open_labels(reference, legend=legend, column=column, like_map=True)
    return mapped, labels, legend


def _with_numbers(legend: Legend, class_map: Source, reference: Any, column: str | None) -> Legend | None:
    """The classes of a map without names and those that the reference adds by their numbers; None where it has none."""
    try:
        labels, _ = open_labels(reference, legend=legend, column=column)
    except LegendError:  # so it does where a polygon has another number, and where classes are known by name
        labels, _ = open_labels(reference, column=column)
        if not isinstance(labels, LabelVector) or labels.numbers is None:
            return None
        found = labels.numbers
    else:
        if not isinstance(labels, LabelRaster) or labels.coding != legend:
            return None
        found = set(values_of(labels.source, on=class_map.geobox)) - {*labels.ignored, legend.ignore}
    codes = {code for item in legend.classes for code in codes_of(item)}
    added = {code for code in found - codes if 0 <= code < OFTEN_NONE[-1] and code not in OFTEN_NONE}
    if not added or not found & codes:  # nothing to add, or what has no number in common with classes
        return None
    logger.warning(
        "the reference has %s, which the map does not: %s as of classes that the map never found",
        ", ".join(map(str, sorted(added))), "it counts" if len(added) == 1 else "they count",
    )  # fmt: skip
    joined = legend_of_codes(codes | added, {})
    return joined.merged_ignore(free_ignore(legend.ignore, {*joined.ids.tolist(), *codes, *found}))
