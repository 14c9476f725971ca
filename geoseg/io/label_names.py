"""Classes by name: what a label file calls its values, matched to the legend that is wanted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox

from geoseg.errors import LegendError
from geoseg.io.combine import Mosaic
from geoseg.io.legends import raster_legend
from geoseg.io.protocol import Source
from geoseg.io.raster_says import Says, each_says, is_unnamed, name_key, together
from geoseg.io.stamps import paths_in
from geoseg.legend import Legend, LegendClass
from geoseg.raster import Raster


@dataclass(frozen=True, slots=True)
class Wanted:
    """The classes wanted, and whether they are a map's, of which no other may have the number."""

    legend: Legend | None
    like_map: bool


@dataclass(frozen=True, slots=True)
class NamedValues:
    """What a label file calls its values.

    Attributes:
        names: Name of each value that has one.
        ours: Whether they are ids of a map of geoseg.
        where: The file, for messages.
    """

    names: Mapping[int, str]
    ours: bool
    where: str

    def matched(self, legend: Legend, *, ignored: Iterable[int] = (), like_map: bool = False) -> Legend | None:
        """The classes of `legend` with the values that the file gives their names; None where its codes say it.

        A map that geoseg wrote holds ids of its own legend. What other files say counts where the legend gives no codes
        of label files, for then nothing else says what theirs mean.

        Args:
            legend: The classes wanted.
            ignored: Values that are no class.
            like_map: Whether a value must have the name that the legend gives it.

        Raises:
            LegendError: The file gives a value of the legend another of the legend's names, and has more classes; or a
                name of its own, where that is not allowed.
        """
        if has_codes(legend) and not self.ours:
            return None
        known = {name_key(item.name): item for item in legend.classes}
        told = {code: name for code, name in self.names.items() if code not in set(ignored)}
        shared = {code: known[name_key(name)] for code, name in told.items() if name_key(name) in known}
        moved = {code: item for code, item in shared.items() if code not in codes_of(item)}
        if not moved:
            if like_map:
                self._check_same({code: name for code, name in told.items() if code not in shared}, legend)
            return None
        if len(shared) == len(told) and len({item.id for item in shared.values()}) == len(shared):
            return _with_codes(shared, legend)
        code, item = next(iter(moved.items()))
        raise LegendError(
            f"{self.where} calls its value {code} {told[code]}, which is {item.id} in the legend, and its classes are "
            f"not all in the legend ({', '.join(told.values())} against {', '.join(legend.names)}); say what its "
            "values mean with {path: ..., legend: {...}}"
        )

    def _check_same(self, told: Mapping[int, str], legend: Legend) -> None:
        """That no value which the legend names is another class here; values without a name may be any."""
        wanted = {code: item.name for item in legend.classes for code in codes_of(item)}
        for code, name in told.items():
            mine = wanted.get(code)
            if mine is not None and not is_unnamed(code, mine) and not is_unnamed(code, name):
                raise LegendError(
                    f"value {code} is {mine} in the map, and {name} in {self.where}; where they are one class, say "
                    f"what its values mean with {{path: ..., legend: {{{code}: {mine}, ...}}}}"
                )


def own_legend(
    source: Source, each: list[Says], given: Legend | None, wanted: Wanted, ignored: tuple[int, ...]
) -> tuple[Legend | None, Legend | None]:
    """The legend in a map, and what the values of a raster mean by themselves; None where the legend wanted says it.

    Where the legend that is given for it is the one that geoseg wrote into it, its values are ids, and no codes. Files
    may name a value unlike where a legend says what all mean: the one given, or the one wanted as each is matched to.

    Raises:
        LegendError: Files name a value unlike, and no legend says what it means in all of them.
    """
    try:
        said = together(each)
    except LegendError:
        if given is not None:
            return None, given
        if wanted.legend is None:
            raise
        found = [_by_names(source, said, wanted, ignored) for said in each if said.class_names]
        if any(one != found[0] for one in found) or _unlabels(each, found[0], wanted.legend):
            raise
        return None, found[0]
    if given is not None:
        return said.written, given.of_map() if given == said.written else given
    if wanted.legend is None:
        return said.written, raster_legend(source, ignore=ignored, said=said)
    return said.written, _by_names(source, said, wanted, ignored)


def _unlabels(each: list[Says], named: Legend | None, legend: Legend) -> bool:
    """Whether a file calls unlabelled what is a class by its name in others, or by its id in the legend wanted."""
    if named is None and has_codes(legend):
        return False  # they say it of all files
    classes = {code for item in (named or legend).classes for code in codes_of(item)}
    return any(said.unlabelled & classes for said in each)


@dataclass(frozen=True)
class Unlabelled:
    """Class codes without those that their file calls unlabelled.

    Attributes:
        source: One band of class codes.
        codes: Codes that are no class in it.
    """

    source: Source
    codes: frozenset[int]

    @property
    def geobox(self) -> GeoBox:
        """The source's grid."""
        return self.source.geobox

    @property
    def bands(self) -> tuple[str, ...]:
        """The source's band."""
        return self.source.bands

    @property
    def dtype(self) -> np.dtype[Any]:
        """The source's dtype."""
        return self.source.dtype

    def read(self, geobox: GeoBox) -> Raster:
        """Codes on `geobox`; those that are no class are invalid."""
        found = self.source.read(geobox)
        return replace(found, valid=found.valid & ~np.isin(found.pixels[0], list(self.codes)))


def labelled(source: Source, each: list[Says]) -> Source:
    """The source without pixels that their own file calls unlabelled, where other files call a class by their code.

    Args:
        source: One band of class codes.
        each: What each of its files says.
    """
    classes = {code for said in each for code in said.class_names}
    contested = frozenset(classes & {code for said in each for code in said.unlabelled})
    return _labelled(source, contested) if contested else source


def _labelled(source: Any, contested: frozenset[int]) -> Any:
    """The source, each file of it without those of the codes that it calls unlabelled."""
    inner = getattr(source, "source", None)
    if isinstance(source, Mosaic):
        members = tuple(_labelled(member, contested) for member in source.members)
        return replace(source, members=members, grid=source.geobox)
    if isinstance(inner, Mosaic) and source.bands == inner.bands:
        return replace(source, source=_labelled(inner, contested))
    own = {code for said in each_says(source) for code in said.unlabelled}
    return Unlabelled(source, contested & own) if contested & own else source


def has_codes(legend: Legend | None) -> bool:
    """Whether a legend gives codes of label files."""
    return legend is not None and any(item.codes for item in legend.classes)


def _by_names(source: Source, said: Says, wanted: Wanted, ignored: tuple[int, ...]) -> Legend | None:
    """The classes wanted with the values that files give their names; None where the legend says it itself."""
    if wanted.legend is None:
        return None
    where = said.name or ", ".join(paths_in(source)[:1]) or "the label raster"
    named = NamedValues(said.class_names, said.written is not None, where)
    return named.matched(wanted.legend, ignored=ignored, like_map=wanted.like_map)


def codes_of(item: LegendClass) -> set[int]:
    """What stands for a class in a label file."""
    return set(item.codes or (item.id,))


def free_ignore(ignore: int, codes: Iterable[int]) -> int:
    """The ignore value, where it is no code; else another."""
    taken = set(codes)
    free: int = next(value for value in (ignore, 255, 65535, *range(65534, 0, -1)) if value not in taken)
    return free


def _with_codes(shared: Mapping[int, LegendClass], legend: Legend) -> Legend:
    """The legend with these codes of its classes; values without a name stand for what it says itself."""
    items = [replace(item, codes=(code,)) for code, item in shared.items()]
    named = {item.id for item in items}
    items += [item for item in legend.classes if item.id not in named and not shared.keys() & codes_of(item)]
    taken = {*(item.id for item in items), *(code for item in items for code in codes_of(item))}
    return Legend(tuple(items), free_ignore(legend.ignore, taken))
