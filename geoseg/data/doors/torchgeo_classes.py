"""What torchgeo's datasets say of their classes and bands, and what they leave to their documentation."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from geoseg.legend import Legend, default_color

NOTHING = re.compile(
    r"(no[ _-]?(data|information|label)|fill|unclassified|unlabell?ed|unknown|void([ _-]label)?|invalid|ignored?)",
    re.IGNORECASE,
)
"""Names of what is no class."""

RGB = ("red", "green", "blue")
BAND_NAMES: dict[str, tuple[str, ...]] = {
    "DeepGlobeLandCover": RGB,
    "InriaAerialImageLabeling": RGB,
    "LandCoverAI": RGB,
    "LandCoverAI100": RGB,
    "LandCoverAIGeo": RGB,
    "LoveDA": RGB,
    "Potsdam2D": (*RGB, "nir"),
    "Vaihingen2D": ("nir", "red", "green"),
    "naip": (*RGB, "nir"),  # layers of ChesapeakeCVPR and EnviroAtlas
    "naip-new": (*RGB, "nir"),
    "naip-old": (*RGB, "nir"),
}
"""Bands of pictures whose dataset does not name them, in the order of the file."""

# Codes that do not count through the dataset's `classes`, from its documentation.
CODES: dict[str, dict[int, str]] = {
    "LoveDA": {1: "background", 2: "building", 3: "road", 4: "water", 5: "barren", 6: "forest", 7: "agriculture"},
    "lc": {1: "water", 2: "tree canopy", 3: "low vegetation", 4: "barren land", 5: "impervious surfaces",
           6: "impervious roads"},  # layers of ChesapeakeCVPR
    "buildings": {0: "background", 1: "building"},
}  # fmt: skip
NO_CLASS: dict[str, tuple[int, ...]] = {"LoveDA": (0,), "lc": (0, 15)}


def band_names(dataset: Any, *, count: int) -> tuple[str, ...]:
    """Names of `count` bands: what the dataset says, what is known of it, else band1, ...; times are numbered."""
    said = [getattr(dataset, name, None) for name in ("bands", "all_bands")]
    known = [*said, BAND_NAMES.get(type(dataset).__name__)]
    lists = [tuple(map(str, names)) for names in known if isinstance(names, Sequence) and not isinstance(names, str)]
    lists = [names for names in lists if names and len({name.lower() for name in names}) == len(names)]
    whole = next((names for names in lists if len(names) == count), None)
    if whole is not None:
        return whole
    part = next((names for names in lists if count % len(names) == 0), None)
    if part is not None:
        return tuple(f"{name}_t{time + 1}" for time in range(count // len(part)) for name in part)
    return tuple(f"band{number + 1}" for number in range(count))


def label_options(dataset: Any, *, name: str | None = None) -> dict[str, Any]:
    """The options `legend` and `ignore` of labels that hold a dataset's mask; none where it does not name its classes.

    The ids are the codes in torchgeo's masks. A class called no data, fill, unknown or the like is none.

    Args:
        dataset: A dataset with masks.
        name: What is looked up of codes that are documented only; the dataset's class unless given.
    """
    key = name or type(dataset).__name__
    if key in CODES:
        return _options(CODES[key], {}, NO_CLASS.get(key, ()))
    colors = _colors(dataset)
    classes = getattr(dataset, "classes", None)
    if isinstance(classes, list | tuple) and classes and all(isinstance(name, str) for name in classes):
        names: dict[int, str] = dict(enumerate(classes))
        return _options(names, colors if set(names) <= set(colors) else {})
    own = type(dataset).__dict__.get("cmap") or getattr(type(dataset), "cmap", None)
    if isinstance(own, Mapping) and own:
        # Where codes are numbered through, the name keeps the code of the file.
        codes: list[int] = list(classes) if isinstance(classes, Sequence) else list(own)
        numbers = range(len(codes)) if hasattr(dataset, "ordinal_map") else codes
        seen = {number: code for number, code in zip(numbers, codes, strict=True) if not _is_empty(code, own)}
        empty = [number for number in numbers if number not in seen]
        named = {number: f"class {code}" for number, code in seen.items()}
        return _options(named, {number: colors[code] for number, code in seen.items() if code in colors}, empty)
    return {}


def _options(names: Mapping[int, str], colors: Mapping[int, str], nothing: Sequence[int] = ()) -> dict[str, Any]:
    legend: dict[int, dict[str, Any]] = {}
    ignore = list(nothing)
    twice = {name for name in names.values() if list(names.values()).count(name) > 1}
    for position, (code, name) in enumerate(names.items()):
        if NOTHING.fullmatch(name.strip()):
            ignore.append(code)
            continue
        taken = [item["color"] for item in legend.values()]
        color = colors.get(code)
        unused = color is not None and color not in taken
        legend[code] = {
            "name": f"{name} {code}" if name in twice else name,
            "color": color if unused else default_color(name, position, taken=taken),
        }
    return {"legend": Legend.from_dict(legend), **({"ignore": ignore} if ignore else {})}


def _is_empty(code: int, colors: Mapping[int, Sequence[int]]) -> bool:
    """Whether a code without a name is no class: 0, painted transparent."""
    return code == 0 and len(colors[code]) > 3 and colors[code][3] == 0


def _colors(dataset: Any) -> dict[int, str]:
    """Colours of codes, where the dataset has them as numbers from 0 to 255."""
    for name in ("cmap", "colormap"):
        given = getattr(dataset, name, None)
        pairs = given.items() if isinstance(given, Mapping) else enumerate(given) if isinstance(given, tuple) else ()
        found = {int(code): _hex(color) for code, color in pairs if isinstance(code, int)}
        if found and all(found.values()):
            return {code: str(color) for code, color in found.items()}
    return {}


def _hex(color: Any) -> str | None:
    if isinstance(color, str):
        return color.lower() if re.fullmatch(r"#[0-9a-fA-F]{6}", color) else None
    parts = list(color)[:3]
    return "#" + "".join(f"{int(part):02x}" for part in parts) if all(float(p).is_integer() for p in parts) else None
