"""Several sources of labels for one place: of each pixel the first that labels it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from odc.geo.geobox import GeoBox

from geoseg.errors import InputError, LegendError
from geoseg.io.label_sources import BAND, LabelSource, LabelVector
from geoseg.io.legends import read_legend
from geoseg.io.polygons import is_vector
from geoseg.legend import Legend, LegendClass, default_color
from geoseg.raster import Raster

if TYPE_CHECKING:
    from numpy.typing import NDArray

LAYERED = ("layers", "legend", "background", "column", "ignore")
"""Options of layers; all but the first and `background` are handed down."""

OF_LABELS = {
    "legend", "background", "ignore", "colors", "column", "name_column", "value", "layer", "all_touched", "soft",
    "layers",
}  # fmt: skip
"""Options that make a mapping in a list labels of their own, and not a piece of a mosaic."""

OPENED = "opened"
"""Where a layer's options hold a label source that is open."""

OpenLabels = Callable[..., tuple[LabelSource, Legend]]


@dataclass(frozen=True)
class LabelLayers:
    """Label sources on top of each other.

    Attributes:
        members: The sources, the one that wins first. They may differ in CRS, resolution and extent, and in their
            legends: classes are matched by name.
        legend: The classes.
    """

    members: tuple[LabelSource, ...]
    legend: Legend

    @property
    def geobox(self) -> GeoBox:
        """The grid of the first layer that is a raster, or else the nominal one of the first."""
        grids = [member.geobox for member in self.members if not isinstance(member, LabelVector)]
        return grids[0] if grids else self.members[0].geobox

    @property
    def bands(self) -> tuple[str, ...]:
        """`label`."""
        return (BAND,)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The legend's dtype."""
        return self.legend.dtype

    @cached_property
    def tables(self) -> tuple[NDArray[Any] | None, ...]:
        """Of each member a table from its ids to those of the legend; None where they are the same.

        Raises:
            LegendError: A class is not in the legend.
        """
        return tuple(_table(member.legend, self.legend) for member in self.members)

    def read(self, geobox: GeoBox) -> Raster:
        """Class ids on `geobox`, of each pixel those of the first layer that labels it.

        Raises:
            ReadError: A file cannot be read there.
            GridError: One of the grids has no CRS and they are not one grid.
        """
        ids = np.full(geobox.shape, self.legend.ignore, self.dtype)
        labelled = np.zeros(geobox.shape, np.bool_)
        for member, table in zip(self.members, self.tables, strict=True):
            if labelled.all():
                break
            found = member.read(geobox)
            taken = found.valid & ~labelled
            values = found.pixels[0][taken]
            ids[taken] = values if table is None else table[values]
            labelled |= taken
        return Raster(ids[None], labelled, geobox, self.bands)

    def bounds_overlap(self, geobox: GeoBox) -> bool:
        """Whether the bounds of any layer meet those of the grid."""
        return any(member.bounds_overlap(geobox) for member in self.members)


def _table(own: Legend, wanted: Legend) -> NDArray[Any] | None:
    """Ids of `wanted` by ids of `own`.

    Raises:
        LegendError: The legend lacks a class.
    """
    if [(item.id, item.name) for item in own.classes] == [(item.id, item.name) for item in wanted.classes]:
        return None
    table = np.full(own.classes[-1].id + 1, wanted.ignore, wanted.dtype)
    for item in own.classes:
        table[item.id] = wanted.by_name(item.name).id
    return table


def layered(members: Sequence[LabelSource], legend: Legend | None = None) -> LabelLayers:
    """Label sources on top of each other, the one that wins first.

    Args:
        members: The sources.
        legend: The classes, with all names of the members among theirs; None takes those of all members.

    Raises:
        LegendError: A class of a member is not in the legend.
    """
    found = LabelLayers(tuple(members), legend or union_legend([member.legend for member in members]))
    _ = found.tables
    return found


def union_legend(legends: Sequence[Legend]) -> Legend:
    """The classes of all legends, one a name, letter case ignored.

    The first legend stays as it is, with its codes; what others add keeps its id and colour where they are free, else
    takes an id that no legend has and a colour of its own.

    Raises:
        LegendError: There are more classes than ids.

    >>> one, other = Legend.from_dict({1: "water", 2: "forest"}), Legend.from_dict({1: "Forest", 2: "road"})
    >>> {item.id: item.name for item in union_legend([one, other]).classes}
    {1: 'water', 2: 'forest', 3: 'road'}
    """
    items = list(legends[0].classes)
    names = {item.name.lower() for item in items}
    taken = {number for item in items for number in (item.id, *item.codes)}
    taken.add(legends[0].ignore)
    used = taken | {item.id for legend in legends for item in legend.classes}
    for item in (item for legend in legends[1:] for item in legend.classes):
        if item.name.lower() not in names:
            items.append(_added(item, items, taken, used))
            names.add(item.name.lower())
            taken.add(items[-1].id)
            used.add(items[-1].id)
    return Legend(tuple(items), legends[0].ignore)


def _added(item: LegendClass, items: Sequence[LegendClass], taken: set[int], used: set[int]) -> LegendClass:
    """The class under its id where that is not `taken`, else one that is not `used` at all; and in a free colour."""
    class_id = item.id if item.id not in taken else next((i for i in range(1, 65535) if i not in used), None)
    if class_id is None:
        raise LegendError(f"no id is left for class '{item.name}'; needed are at most 65534 classes")
    colors = [other.color for other in items]
    color = item.color if item.color not in colors else default_color(item.name, len(items), taken=colors)
    return replace(item, id=class_id, color=color, codes=())


# -- what the user says ------------------------------------------------------------------------------------------------


def are_layers(spec: Any) -> bool:
    """Whether labels are several on top of each other: `{layers: ...}`, or a list of more than plain rasters."""
    if isinstance(spec, Mapping):
        return "layers" in spec
    return isinstance(spec, Sequence) and not isinstance(spec, str) and any(_is_layer(member) for member in spec)


def as_mapping(spec: Any) -> dict[str, Any]:
    """Layers as a mapping with the key `layers`."""
    return dict(spec) if isinstance(spec, Mapping) else {"layers": spec}


def open_layers(options: Mapping[str, Any], *, legend: Legend | None, open_one: OpenLabels) -> LabelLayers:
    """Labels in layers.

    Args:
        options: `layers`, a list of what `open_labels` takes, the one that wins first. Beside it `legend` (what codes
            mean), `column` (of vectors) and `ignore` hold for the layers that do not say it themselves; `background` is
            the class of what no layer labels, as far as the last one reaches.
        legend: The classes wanted; None takes the legend beside the layers, else the classes of all, by name.
        open_one: `open_labels`.

    Raises:
        InputError: An option is unknown, or a layer hides those below it.
        LegendError: A class of a layer is not in the legend.
    """
    stray = [str(key) for key in options if key not in LAYERED]
    if stray:
        raise InputError(f"labels in layers have no option {', '.join(stray)}; known are {', '.join(LAYERED)}")
    specs = options["layers"]
    if isinstance(specs, str | Mapping) or not isinstance(specs, Sequence) or not specs:
        raise InputError(f"layers of labels must be a list with at least one, got {specs!r}")
    shared = {key: options[key] for key in ("column", "ignore") if options.get(key) is not None}
    if options.get("legend") is not None:
        shared["legend"] = read_legend(options["legend"])
    layers = [_layer(spec, shared) for spec in specs]
    if options.get("background") is not None:
        layers[-1] = {"background": options["background"]} | layers[-1]
    if any(layer.get("background") is not None for layer in layers[:-1]):
        raise InputError("a layer with a background hides those below it; give background: to the last layer alone")
    wanted = legend or shared.get("legend")
    return layered([_opened(layer, wanted, open_one) for layer in layers], wanted)


def _is_layer(member: Any) -> bool:
    """Whether a list's member is labels of its own rather than a piece of a raster."""
    if isinstance(member, str | Path):
        return is_vector(str(member))
    if isinstance(member, Mapping):
        return bool(OF_LABELS & set(member)) or _vector_path(member) is not None
    return isinstance(member, LabelSource)


def _vector_path(options: Mapping[str, Any]) -> str | None:
    path = options.get("path")
    return str(path) if isinstance(path, str | Path) and is_vector(str(path)) else None


def _layer(spec: Any, shared: Mapping[str, Any]) -> dict[str, Any]:
    """The options of one layer, with the shared ones that it may have and does not say itself."""
    if are_layers(spec):
        return {**shared, **as_mapping(spec)}
    if isinstance(spec, LabelSource):
        return {OPENED: spec}
    options = dict(spec) if isinstance(spec, Mapping) else {"path": spec}
    if "soft" in options:
        return options
    column = _vector_path(options) is not None and options.get("value") is None
    return {**{key: value for key, value in shared.items() if column or key != "column"}, **options}


def _opened(options: dict[str, Any], legend: Legend | None, open_one: OpenLabels) -> LabelSource:
    if OPENED not in options:
        return open_one(options, legend=legend)[0]
    if len(options) > 1:
        raise InputError("labels that are open take no background; give it where they are opened")
    found: LabelSource = options[OPENED]  # its classes are matched where it is laid on the others
    return found
