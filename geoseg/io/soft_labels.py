"""Soft labels: the share of each class in each pixel, from one file a class or one file of many bands."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from glob import glob
from math import ceil
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox

from geoseg.errors import BandError, InputError, LegendError, MissingInputError
from geoseg.io.clouds import by_nearest, pick_bands
from geoseg.io.combine import BandStack
from geoseg.io.grids import grids_meet
from geoseg.io.label_sources import BAND
from geoseg.io.legends import read_legend
from geoseg.io.protocol import Source
from geoseg.io.sources import KINDS, open_source
from geoseg.io.stamps import paths_in
from geoseg.legend import Legend
from geoseg.raster import Raster

if TYPE_CHECKING:
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

OWN_OPTIONS = ("soft", "classes", "scale", "background", "legend")
FILE_OPTIONS = ("nodata", "crs", "resampling")

SCALES = (1.0, 100.0, 255.0)
"""What a whole pixel may be in a file of shares: one, percent, or bytes."""

LOOKED_PX = 1024
"""Pixels along the longer side of the read by which the scale of shares is found."""


@dataclass(frozen=True)
class SoftLabels:
    """Shares of classes in each pixel, float32, adding up to 1 where anything is labelled.

    Attributes:
        members: One source of one band for each class that has one.
        positions: Which class of the legend each of them is.
        legend: The classes; those without a source have no share.
        scale: The value of a whole pixel; it matters where there is a background.
        background: Position of the class that takes what the others leave of a pixel; None: they are scaled up to 1.
    """

    members: tuple[Source, ...]
    positions: tuple[int, ...]
    legend: Legend
    scale: float = 1.0
    background: int | None = None

    @cached_property
    def geobox(self) -> GeoBox:
        """The grid of the file with the smallest pixels, the first at a tie."""
        return BandStack(self.members).geobox

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the classes in the order of the legend."""
        return self.legend.names

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32."""
        return np.dtype(np.float32)

    @property
    def hard(self) -> HardLabels:
        """The class with the largest share as labels, the first in the legend where there are several."""
        return HardLabels(self)

    def read(self, geobox: GeoBox) -> Raster:
        """Shares on `geobox`; invalid and 0 where no file has a value, or all have 0.

        Raises:
            InputError: A share is negative.
            ReadError: A file cannot be read there.
            GridError: One of the grids has no CRS and they are not one grid.
        """
        shares = np.zeros((len(self.legend), *geobox.shape), np.float32)
        known = np.zeros(geobox.shape, np.bool_)
        for member, position in zip(self.members, self.positions, strict=True):
            found = member.read(geobox)
            shares[position] = np.where(found.valid, found.pixels[0], 0)
            known |= found.valid
        if shares.min(initial=0) < 0:
            raise InputError(
                f"soft labels hold {shares.min():g} and shares are not negative; say what stands for nothing, with "
                f"nodata: {shares.min():g}"
            )
        if self.background is not None:
            rest = np.maximum(self.scale - shares.sum(axis=0), 0)
            shares[self.background] += np.where(known, rest, 0)
        total = shares.sum(axis=0)
        shares /= np.where(total > 0, total, 1)
        return Raster(shares, known & (total > 0), geobox, self.bands)


@dataclass(frozen=True)
class HardLabels:
    """Soft labels as class ids: of each pixel the class with the largest share."""

    soft: SoftLabels

    @property
    def legend(self) -> Legend:
        """The classes."""
        return self.soft.legend

    @property
    def geobox(self) -> GeoBox:
        """The shares' grid."""
        return self.soft.geobox

    @property
    def bands(self) -> tuple[str, ...]:
        """`label`."""
        return (BAND,)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The legend's dtype."""
        return self.legend.dtype

    def read(self, geobox: GeoBox) -> Raster:
        """Class ids on `geobox`; of equal shares that of the first class in the legend.

        Raises:
            InputError: A share is negative.
            ReadError: A file cannot be read there.
            GridError: One of the grids has no CRS and they are not one grid.
        """
        found = self.soft.read(geobox)
        ids = self.legend.ids.astype(self.dtype)[found.pixels.argmax(axis=0)]
        ids[~found.valid] = self.legend.ignore
        return Raster(ids[None], found.valid, geobox, self.bands)

    def bounds_overlap(self, geobox: GeoBox) -> bool:
        """Whether the bounds of any file meet those of the grid."""
        return any(grids_meet(member.geobox, geobox) for member in self.soft.members)


def open_soft_labels(spec: Mapping[str, Any], *, legend: Legend | None = None) -> tuple[SoftLabels, Legend]:
    """Soft labels and their legend.

    Args:
        spec: A mapping `{soft: S}` with S one of

            - a list of rasters, or a pattern: one file of one band a class;
            - a mapping of class names to rasters;
            - one raster: one band a class.

            Beside it may stand `classes` (their names, in order; else those of the bands, or of the files), `scale`
            (what a whole pixel is in the files), `background` (the class that takes what the others leave of a pixel),
            `legend` (ids and colours of the classes), and `nodata`, `crs`, `resampling` of the files.

            A pixel's shares are scaled to add up to 1, so that bytes, percent and fractions need no telling apart. Only
            with a `background` the scale counts: unless given it is the smallest of 1, 100 and 255 that no value
            exceeds, as a coarse read shows.
        legend: The classes wanted; those of the files are matched to it by name, or by order where nothing names them
            and there are as many.

    Raises:
        InputError: An option makes no sense.
        MissingInputError: A file is not there.
        ReadError: A file cannot be read.
        BandError: A file of one class has several bands.
        LegendError: A class is not in the legend, or is there twice.
    """
    stray = [str(key) for key in spec if key not in (*OWN_OPTIONS, *FILE_OPTIONS)]
    if stray:
        known = ", ".join((*OWN_OPTIONS, *FILE_OPTIONS))
        raise InputError(f"soft labels have no option {', '.join(stray)}; known are {known}")
    members, found = _members(spec)
    names = _given_names(spec.get("classes"), len(members)) or found
    given = legend or (None if spec.get("legend") is None else read_legend(spec["legend"]))
    background = None if spec.get("background") is None else str(spec["background"])
    wanted = given or _legend_of(names, members, background)
    positions = _positions(names, len(members), wanted)
    empty = None if background is None else _position(background, wanted)
    scale = _scale(spec.get("scale"), members if empty is not None else ())
    return SoftLabels(tuple(members), positions, wanted, scale, empty), wanted


def _members(spec: Mapping[str, Any]) -> tuple[list[Source], list[str] | None]:
    """One source of one band a class, and what they are called; None where they are but numbered."""
    inner, options = spec["soft"], {key: spec[key] for key in FILE_OPTIONS if spec.get(key) is not None}
    if isinstance(inner, Mapping) and not set(inner) & set(KINDS):
        return [_single(value, options) for value in inner.values()], [str(name) for name in inner]
    if isinstance(inner, str) and "*" in inner:
        files = sorted(glob(inner, recursive=True))  # noqa: PTH207 (a pattern may be absolute)
        if not files:
            raise MissingInputError(f"no file matches {inner}; needed is one raster a class")
        inner = files
    if isinstance(inner, Sequence) and not isinstance(inner, str):
        members = [_single(value, options) for value in inner]
        if not members:
            raise InputError("soft labels without a file; needed is one a class, or one with one band a class")
        return members, [Path(paths[0]).stem if (paths := paths_in(member)) else "" for member in members]
    whole = _open(inner, options)
    count = range(len(whole.bands))
    numbered = whole.bands == tuple(f"band{k + 1}" for k in count)
    # Band by band: a class that has nodata at a pixel must not take the others with it.
    return [pick_bands(whole, [k], [whole.bands[k]]) for k in count], None if numbered else list(whole.bands)


def _open(value: Any, options: Mapping[str, Any]) -> Source:
    if isinstance(value, Mapping):
        return open_source({**options, **value})
    return open_source({"path": value, **options} if isinstance(value, str | Path) else value)


def _single(value: Any, options: Mapping[str, Any]) -> Source:
    source = _open(value, options)
    if len(source.bands) != 1:
        raise BandError(
            f"a file of one class needs one band, this has [{', '.join(source.bands)}]; choose with {{path: ..., "
            "select: [1]}, or give the file alone where each of its bands is a class"
        )
    return source


def _given_names(classes: Any, count: int) -> list[str] | None:
    if classes is None:
        return None
    if isinstance(classes, str) or not isinstance(classes, Sequence):
        raise InputError(f"classes of soft labels must be a list of names, got {classes!r}")
    if len(classes) != count:
        raise InputError(f"soft labels have {count} bands, and {len(classes)} classes were named; needed is one each")
    return [str(name) for name in classes]


def _legend_of(names: list[str] | None, members: Sequence[Source], background: str | None) -> Legend:
    """A legend of the names, in order, ids from 1 on, the background after them where it is none of them."""
    if names is None or not all(names):
        raise LegendError(
            f"nothing says which classes the {len(members)} bands of the soft labels are; name them with classes: [...]"
        )
    more = [background] if background and background.lower() not in [name.lower() for name in names] else []
    return Legend.from_dict(dict(enumerate([*names, *more], start=1)))


def _positions(names: list[str] | None, count: int, legend: Legend) -> tuple[int, ...]:
    """Which class of the legend each band is."""
    if names is None:
        if count != len(legend):
            raise LegendError(
                f"the soft labels have {count} bands without names, the legend {len(legend)} classes; name the bands "
                "with classes: [...]"
            )
        return tuple(range(count))
    found = tuple(_position(name, legend) for name in names)
    twice = sorted({legend.names[place] for place in found if found.count(place) > 1})
    if twice:
        raise LegendError(f"soft labels hold class {', '.join(twice)} twice; needed is one band a class")
    return found


def _position(name: str, legend: Legend) -> int:
    try:
        return legend.classes.index(legend.by_name(name))
    except LegendError as error:
        raise LegendError(
            f"{error} (soft labels are named by their bands or files, or in order with classes: [...])"
        ) from error


def _scale(given: Any, members: Sequence[Source]) -> float:
    """The value of a whole pixel; 1 where there is none to look at."""
    if given is not None:
        if isinstance(given, bool) or not isinstance(given, Real) or not float(given) > 0:
            raise InputError(f"scale of soft labels must be the value of a whole pixel, such as 100, got {given!r}")
        return float(given)
    largest = max((_largest(member) for member in members), default=0.0)
    found = next((scale for scale in SCALES if largest <= scale), None)
    if found is None:
        raise InputError(f"soft labels hold {largest:g}; say what a whole pixel is, with scale: 10000 for example")
    if members:
        logger.info(
            "soft labels: values reach %g, so a whole pixel is taken to be %g (scale: says otherwise)", largest, found
        )
    return found


def _largest(source: Source) -> float:
    """The largest value among single pixels, at most LOOKED_PX along a side."""
    grid = source.geobox
    step = ceil(max(grid.shape) / LOOKED_PX)
    shape = ceil(grid.shape[0] / step), ceil(grid.shape[1] / step)
    found = by_nearest(source).read(GeoBox(shape, grid.affine @ Affine.scale(step), grid.crs))
    values: NDArray[Any] = found.pixels[0][found.valid]
    return float(values.max()) if values.size else 0.0
