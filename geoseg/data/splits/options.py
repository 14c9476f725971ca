"""What may be said of a split: the options, and the words that parts have in files."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any, Literal

from geoseg.errors import InputError

UNITS = ("auto", "block", "polygon", "scene", "area")
LARGEST_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)  # no slots: jsonargparse reads the defaults from __dict__
class SplitOptions:
    """How validation and test pixels are set apart from training pixels.

    Attributes:
        regions: Where validation pixels lie: a region or a list of them (`{rows: [a, b], cols: [a, b]}` in pixels of
            the image, `{bbox: [...], crs: ...}`, a polygon file). Without, units are drawn.
        file: A split as polygons: one that geoseg wrote, or one drawn or edited in a GIS. Each polygon's property
            `part` (or `attribute`) is training, validation, test or outside; without training polygons all that no
            polygon covers trains.
        unit: What is drawn: `block`, squares on the ground; `polygon`, connected patches of labels; `scene`, whole
            scenes, those of the same ground together; `area`, the polygons of `areas`; `auto` takes scenes where they
            are many and small (and no `block_m` is given) or have no CRS, polygons where labels cover less than 5 % of
            the scenes, else blocks.
        areas: A polygon file, such as fields or regions; each polygon is a unit.
        attribute: A property of the polygons of `areas`: those of one value are one unit, such as the fields of a
            farm, or the value is the part itself. For `file`, the property that holds the part.
        block_m: Side of a block in metres; without, a fifth of the largest scene's side.
        validation_share: Share of each class's labelled pixels to validate on, as nearly as the units allow.
        test_share: Share to set apart for the test, which is looked at once, at the end.
        folds: Cut the units into this many folds, of which one validates and the others train.
        fold: The fold that validates, from 0.
        stratified: Whether every class has its share in each part; else all labelled pixels together.
        buffer_m: No training pixel lies this close to a validation or test pixel, and no validation pixel to a test
            pixel, in metres; without, 16 pixels; `auto` takes the distance over which labels are alike (the range of
            their variogram).
        leakage: What becomes of training pixels too close to validation or test ones (and of such validation pixels)
            where the parts of whole scenes were given, and of scenes without a CRS that show an image that another
            validates or tests on: `refuse` the split, with numbers, or `drop` them.
        untrained: What becomes of a split that leaves a class without training pixels: `refuse` or `warn`.
        seed: The draw.
    """

    regions: Any = None
    file: str | None = None
    unit: Literal["auto", "block", "polygon", "scene", "area"] = "auto"
    areas: str | None = None
    attribute: str | None = None
    block_m: float | None = None
    validation_share: float = 0.2
    test_share: float = 0.0
    folds: int | None = None
    fold: int = 0
    stratified: bool = True
    buffer_m: float | Literal["auto"] | None = None
    leakage: Literal["refuse", "drop"] = "refuse"
    untrained: Literal["refuse", "warn"] = "refuse"
    seed: int = 0

    def __post_init__(self) -> None:
        self._check_words()
        self._check_numbers()
        self._check_ways()

    def _check_words(self) -> None:
        known = {"unit": UNITS, "leakage": ("refuse", "drop"), "untrained": ("refuse", "warn")}
        for name, words in known.items():
            if getattr(self, name) not in words:
                raise InputError(f"{name} is {getattr(self, name)!r}: needed is one of {', '.join(words)}")
        if isinstance(self.buffer_m, str) and self.buffer_m != "auto":
            raise InputError(f"buffer_m is {self.buffer_m!r}: needed is a distance in metres, or auto")

    def _check_numbers(self) -> None:
        for name in ("validation_share", "test_share"):
            if not 0 <= getattr(self, name) <= LARGEST_SHARE:
                raise InputError(f"{name} is {getattr(self, name)}: needed is 0 to {LARGEST_SHARE}")
        if self.validation_share + self.test_share / 2 > LARGEST_SHARE:
            shares = f"validation_share is {self.validation_share} and test_share {self.test_share}"
            raise InputError(f"{shares}: needed is as much to train on as to validate on")
        if self.block_m is not None and not 0 < self.block_m < inf:
            raise InputError(f"block_m is {self.block_m}: needed is a finite side above 0 m")
        if isinstance(self.buffer_m, float | int) and not 0 <= self.buffer_m < inf:
            raise InputError(f"buffer_m is {self.buffer_m}: needed is a finite distance of 0 m or more")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}: needed is a whole number from 0 on")
        if self.folds is not None and self.folds < 2:
            raise InputError(f"folds is {self.folds}: needed is 2 or more")
        if not 0 <= self.fold < (self.folds or 1):
            raise InputError(f"fold is {self.fold}: needed is 0 to {(self.folds or 1) - 1}, below folds")

    def _check_ways(self) -> None:
        if self.regions is not None and self.file is not None:
            raise InputError("regions and file both say what validates: needed is one of the two")
        if self.regions is not None and (self.folds is not None or self.test_share > 0):
            raise InputError("regions say what validates, folds and test_share draw it: needed is one of the two")
        if (self.unit == "area") != (self.areas is not None):
            raise InputError(f"unit is {self.unit} and areas {self.areas}: unit: area and areas: FILE need each other")
        if self.attribute is not None and self.areas is None and self.file is None:
            raise InputError(f"attribute is {self.attribute}: it needs areas: FILE or file: FILE, whose property it is")
