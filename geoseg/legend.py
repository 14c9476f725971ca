"""Legend: what the numbers in a class map mean.

One Legend travels from the labels through the model file into the class map's colour table, the polygons' attributes,
the QGIS style and the report. A class has an `id` (what stands in a geoseg map), and may collect several *codes* (what
stands in a label file). A network's output channel `k` is the class `legend.classes[k]`.
"""

from __future__ import annotations

import colorsys
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast
from xml.etree import ElementTree as ET

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import LegendError

Kind = Literal["stuff", "thing"]

# Colours that a reader of land-cover maps expects, tried in this order on the words of a class name.
NAMED_COLORS: tuple[tuple[str, str], ...] = (
    ("wetland|marsh|mangrove|swamp|bog", "#5f9ea0"),
    ("water|river|lake|sea|ocean", "#3b7fc4"),
    ("forest|tree|wood", "#1f6b35"),
    ("shrub|scrub|heath", "#b8a35a"),
    ("crop|cultivated|arable|agric|field", "#e6c34a"),
    ("grass|herbaceous|pasture|meadow|emergent", "#9ccb62"),
    ("road|street|rail|pavement", "#5a5a5a"),
    ("build|roof|house", "#d0402b"),
    ("develop|built|urban|settle|city", "#c1544a"),
    ("barren|bare|soil|sand|rock|beach", "#c9b79c"),
    ("snow|ice|glacier", "#e8f4fa"),
    ("cloud", "#f2f2f2"),
    ("background|other|unknown", "#bdbdbd"),
)
PALETTE = (
    "#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#76b7b2", "#edc948", "#b07aa1", "#ff9da7", "#9c755f", "#86bcb6",
    "#d37295", "#8cd17d", "#499894", "#f1ce63", "#d4a6c8", "#a0cbe8",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LegendClass:
    """One class.

    Attributes:
        id: The class's value in a geoseg map, 0 to 65534.
        name: What people call it.
        color: `#rrggbb`.
        kind: `stuff` for land that has extent only, `thing` for objects that can be counted.
        codes: Values in label files that mean this class; the id alone when empty.
    """

    id: int
    name: str
    color: str
    kind: Kind = "stuff"
    codes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.id <= 65534:
            raise LegendError(f"class id {self.id} of '{self.name}' is outside 0 to 65534")
        if not self.name:
            raise LegendError(f"class {self.id} has no name")
        if not re.fullmatch(r"#[0-9a-fA-F]{6}", self.color):
            raise LegendError(f"colour '{self.color}' of class {self.id} is not of the form #rrggbb")
        if self.kind not in ("stuff", "thing"):
            raise LegendError(f"kind '{self.kind}' of class {self.id} is neither stuff nor thing")

    @property
    def rgb(self) -> tuple[int, int, int]:
        """The colour as three integers, 0 to 255."""
        return (int(self.color[1:3], 16), int(self.color[3:5], 16), int(self.color[5:7], 16))


def default_color(name: str, position: int, *, taken: Collection[str] = ()) -> str:
    """A colour for a class without one: by the words of its name, else from a palette, else a new hue.

    Where another class has `taken` it, a lighter or darker shade.

    >>> default_color("Open water", 0), default_color("zone", 1), default_color("sea", 2, taken=["#3b7fc4"])
    ('#3b7fc4', '#f28e2b', '#84aeda')
    """
    named = (color for words, color in NAMED_COLORS if re.search(words, name.lower()))
    color = next(named, PALETTE[position] if position < len(PALETTE) else _new_hue(position))
    shades = (_mixed(color, grey, share) for share in (0.37, 0.6, 0.75, 0.85) for grey in (255, 0))
    return color if color not in taken else next((shade for shade in shades if shade not in taken), color)


def _new_hue(position: int) -> str:
    """A hue that lies far from those of the positions before."""
    rgb = colorsys.hsv_to_rgb(position * 0.618034 % 1.0, 0.55, 0.85)
    return "#" + "".join(f"{round(255 * part):02x}" for part in rgb)


def _mixed(color: str, grey: int, share: float) -> str:
    """The colour with a share of grey in it: 255 lightens, 0 darkens."""
    parts = (int(color[k : k + 2], 16) for k in (1, 3, 5))
    return "#" + "".join(f"{round((1 - share) * part + share * grey):02x}" for part in parts)


@dataclass(frozen=True, slots=True)
class Legend:
    """The classes of a map, in order of id.

    Attributes:
        classes: At least one class; ids, names and codes are unique.
        ignore: The value that means "no class": unlabelled in labels, nodata in maps. By default 255, or 65535 where
            an id reaches 255.

    Raises:
        LegendError: Two classes share an id, a name or a code, or a class takes the ignore value.

    >>> legend = Legend.from_dict({1: "water", 7: {"name": "forest", "codes": [41, 42]}})
    >>> legend.names, legend.ignore, legend.dtype.name
    (('water', 'forest'), 255, 'uint8')
    >>> legend.translate(np.array([41, 1, 42, 255]))
    array([  7,   1,   7, 255], dtype=uint8)
    >>> legend.indexes(np.array([7, 1, 255], "uint8"))
    array([  1,   0, 255], dtype=uint8)
    """

    classes: tuple[LegendClass, ...]
    ignore: int = -1  # replaced at birth
    _lut: NDArray[np.uint16] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.classes:
            raise LegendError("a legend needs at least one class")
        ordered = tuple(sorted(self.classes, key=lambda item: item.id))
        object.__setattr__(self, "classes", ordered)
        if self.ignore < 0:
            object.__setattr__(self, "ignore", 255 if ordered[-1].id < 255 else 65535)
        _check_unique(ordered, self.ignore)
        lut = np.full(65536, self.no_index, np.uint16)
        lut[[item.id for item in ordered]] = np.arange(len(ordered))
        object.__setattr__(self, "_lut", lut)

    def __len__(self) -> int:
        return len(self.classes)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Legend, (self.classes, self.ignore))

    @property
    def ids(self) -> NDArray[np.uint16]:
        """Class ids in order, uint16; `ids[channel]` is the id of a network's channel."""
        return np.array([item.id for item in self.classes], np.uint16)

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in order of id."""
        return tuple(item.name for item in self.classes)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest of uint8 and uint16 that holds every id and the ignore value."""
        return np.dtype(np.uint8 if max(self.classes[-1].id, self.ignore) <= 255 else np.uint16)

    @property
    def no_index(self) -> int:
        """The value of `indexes` where there is no class: 255, or 65535 with 255 classes and more."""
        return 255 if len(self.classes) < 255 else 65535

    def by_id(self, class_id: int) -> LegendClass:
        """The class with this id.

        Raises:
            LegendError: There is none.
        """
        for item in self.classes:
            if item.id == class_id:
                return item
        raise LegendError(f"class id {class_id} is not in the legend, which has {_listed(self.ids)}")

    def by_name(self, name: str) -> LegendClass:
        """The class with this name, letter case ignored.

        Raises:
            LegendError: There is none.
        """
        for item in self.classes:
            if item.name.lower() == name.lower():
                return item
        raise LegendError(f"class '{name}' is not in the legend, which has {', '.join(self.names)}")

    def translate(self, codes: NDArray[Any]) -> NDArray[Any]:
        """Class ids of the codes in a label file, as `dtype`, same shape; the ignore value stays.

        Raises:
            LegendError: A code belongs to no class; the message lists the unknown codes.
        """
        table = {code: item.id for item in self.classes for code in (item.codes or (item.id,))} | {
            self.ignore: self.ignore
        }
        present, inverse = _present(codes)
        unknown = [value for value in present.tolist() if value not in table]
        if unknown:
            raise LegendError(
                f"codes {_listed(unknown)} are not in the legend, which knows {_listed(sorted(table))}; "
                "add them to a class's codes, or name them in the labels' ignore list"
            )
        ids = np.array([table[value] for value in present.tolist()], self.dtype)
        return np.asarray(ids[inverse].reshape(codes.shape))

    def indexes(self, ids: NDArray[Any]) -> NDArray[Any]:
        """Channel index of each class id, uint8 (uint16 from 255 classes on); `no_index` where there is none."""
        out: NDArray[Any] = self._lut[ids]
        return out.astype(np.uint8) if self.no_index == 255 else out

    def of_map(self) -> Legend:
        """The same classes without the codes of label files: in a map each id stands for itself.

        >>> Legend.from_dict({7: {"name": "forest", "codes": [41, 42]}}).of_map().translate(np.array([7]))
        array([7], dtype=uint8)
        """
        return replace(self, classes=tuple(replace(item, codes=()) for item in self.classes))

    def merged_ignore(self, ignore: int) -> Legend:
        """The same classes with another ignore value."""
        return replace(self, ignore=ignore)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that `from_dict` reads back: for YAML and for the model file."""
        classes: dict[int, dict[str, Any]] = {}
        for item in self.classes:
            classes[item.id] = {"name": item.name, "color": item.color, "kind": item.kind}
            if item.codes:
                classes[item.id]["codes"] = list(item.codes)
        return {"ignore": self.ignore, "classes": classes}

    @classmethod
    def from_dict(cls, values: Mapping[Any, Any]) -> Legend:
        """A legend from plain values: `{id: name}` or `{id: {name, color, kind, codes}}`.

        The classes may stand under a key `classes`, beside a key `ignore`.

        Raises:
            LegendError: An id is no integer, a key is unknown, or the classes do not fit each other.
        """
        classes = values.get("classes", values)
        if not isinstance(classes, Mapping):
            raise LegendError(f"classes must map ids to names, got {type(classes).__name__}")
        stray = set(values) - {"classes", "ignore"} if "classes" in values else set()
        if stray:
            raise LegendError(f"unknown legend key {_listed(sorted(map(str, stray)))}; known are classes, ignore")
        items: list[LegendClass] = []
        for position, (key, value) in enumerate(classes.items()):
            items.append(_class_from(key, value, position, taken={item.color for item in items}))
        return cls(tuple(items), _integer(values.get("ignore", -1), "ignore value") if "classes" in values else -1)

    @classmethod
    def from_values(cls, values: Iterable[int], *, ignore: int | None = None) -> Legend:
        """A legend of the values found in a label raster, named `class 1`, `class 2`, ...; `ignore` is left out."""
        found = sorted({int(value) for value in values} - {ignore})
        items = [LegendClass(value, f"class {value}", default_color("", k)) for k, value in enumerate(found)]
        return cls(tuple(items), _fitting_ignore(ignore, items))

    @classmethod
    def from_names(cls, names: Iterable[str]) -> Legend:
        """A legend of class names found in a vector's column: ids 1, 2, ... in alphabetical order.

        Names that differ in letter case alone are one class.

        >>> Legend.from_names(["Forest", "water", "forest"]).names
        ('Forest', 'water')
        """
        spelt = {name.lower(): name for name in sorted(set(names), reverse=True)}
        return cls.from_dict({k + 1: name for k, name in enumerate(sorted(spelt.values()))})

    @classmethod
    def from_color_table(
        cls,
        colors: Mapping[int, tuple[int, ...]],
        *,
        names: Mapping[int, str] | None = None,
        ignore: int | None = None,
    ) -> Legend:
        """A legend of a raster's colour table `{value: (red, green, blue, ...)}`; `ignore` is left out."""
        names = names or {}
        items = [
            LegendClass(value, names.get(value) or f"class {value}", "#" + "".join(f"{part:02x}" for part in color[:3]))
            for value, color in sorted(colors.items())
            if value != ignore
        ]
        return cls(tuple(items), _fitting_ignore(ignore, items))

    @classmethod
    def from_qml(cls, text: str) -> Legend:
        """A legend of a QGIS style (QML) with a paletted raster renderer.

        Raises:
            LegendError: The text is no QML, holds no palette, or one whose values are no class ids.
        """
        try:
            root = ET.fromstring(text)  # noqa: S314 - expat 2.4 and later limits entity expansion
        except ET.ParseError as error:
            raise LegendError(f"the style is no QML: {error}") from error
        entries = root.findall(".//rasterrenderer[@type='paletted']//paletteEntry")
        if not entries:
            raise LegendError(
                "the QGIS style has no paletted raster renderer; save the layer's style as paletted values"
            )
        items = [
            LegendClass(_integer(entry.get("value"), "value of the QGIS style"),
                        entry.get("label") or f"class {entry.get('value')}", entry.get("color", "#000000")[:7])
            for entry in entries
        ]  # fmt: skip
        return cls(tuple(items))

    def to_qml(self) -> str:
        """A QGIS style (QML) that shows a class map's band 1 in the legend's colours and names."""
        root = ET.Element("qgis", {"version": "3.28", "styleCategories": "Symbology"})
        pipe = ET.SubElement(root, "pipe")
        renderer = ET.SubElement(
            pipe, "rasterrenderer", {"type": "paletted", "band": "1", "opacity": "1", "alphaBand": "-1"}
        )
        palette = ET.SubElement(renderer, "colorPalette")
        for item in self.classes:
            entry = {"value": str(item.id), "color": item.color, "label": item.name, "alpha": "255"}
            ET.SubElement(palette, "paletteEntry", entry)
        ET.indent(root)
        return "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n" + ET.tostring(root, "unicode")


def _class_from(key: Any, value: Any, position: int, *, taken: Collection[str]) -> LegendClass:
    class_id = _integer(key, "class id")
    entry = {"name": value} if isinstance(value, str) else value
    if not isinstance(entry, Mapping) or "name" not in entry:
        raise LegendError(f"class {class_id} needs a name, got {value!r}")
    stray = set(entry) - {"name", "color", "kind", "codes"}
    if stray:
        raise LegendError(
            f"class {class_id} has unknown keys {_listed(sorted(stray))}; known are name, color, kind, codes"
        )
    name, codes = str(entry["name"]), entry.get("codes") or ()
    if not isinstance(codes, list | tuple):
        raise LegendError(f"codes of class {class_id} must be a list of integers, got {codes!r}")
    return LegendClass(
        class_id,
        name,
        str(entry.get("color") or default_color(name, position, taken=taken)),
        cast("Kind", entry.get("kind", "stuff")),
        tuple(_integer(code, f"code of class {class_id}") for code in codes),
    )


def _present(codes: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The values found, in order, and where in that list each code stands."""
    if codes.dtype not in (np.uint8, np.uint16):
        return np.unique(codes, return_inverse=True)
    # Counting is several times faster than sorting a whole scene.
    present = np.flatnonzero(np.bincount(codes.ravel()))
    positions = np.zeros(65536, np.intp)
    positions[present] = np.arange(len(present))
    return present, positions[codes]


def _integer(value: Any, what: str) -> int:
    """The value as an integer.

    Raises:
        LegendError: It is none.
    """
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise LegendError(f"{what} {value!r} is no integer") from error
    if isinstance(value, bool) or (isinstance(value, float) and number != value):
        raise LegendError(f"{what} {value!r} is no integer")
    return number


def _fitting_ignore(ignore: int | None, items: list[LegendClass]) -> int:
    """`ignore` where a map can hold it, else the default."""
    return ignore if ignore is not None and 0 <= ignore <= 65535 and ignore not in {item.id for item in items} else -1


def _check_unique(classes: tuple[LegendClass, ...], ignore: int) -> None:
    codes = [code for item in classes for code in (item.codes or (item.id,))]
    named: dict[str, list[Any]] = {
        "id": [item.id for item in classes],
        "name": [item.name.lower() for item in classes],
        "code": codes,
    }
    for what, values in named.items():
        twice = sorted({value for value in values if values.count(value) > 1}, key=str)
        if twice:
            raise LegendError(f"{what} {_listed(twice)} belongs to two classes")
    if ignore > 65535 or ignore in {item.id for item in classes} or ignore in codes:
        raise LegendError(f"the ignore value {ignore} is taken by a class, or above 65535; choose a free one")


def _listed(values: Iterable[Any]) -> str:
    shown = [str(value) for value in values]
    return ", ".join(shown[:12]) + (f" and {len(shown) - 12} more" if len(shown) > 12 else "")
