"""Classes by name: what a label file calls its values, matched to the legend that is wanted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from geoseg.errors import LegendError
from geoseg.io.raster_says import UNNAMED, name_key
from geoseg.legend import Legend, LegendClass


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
        if any(item.codes for item in legend.classes) and not self.ours:
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
            if mine is not None and not UNNAMED.fullmatch(mine) and not UNNAMED.fullmatch(name):
                raise LegendError(
                    f"value {code} is {mine} in the map, and {name} in {self.where}; where they are one class, say "
                    f"what its values mean with {{path: ..., legend: {{{code}: {mine}, ...}}}}"
                )


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
