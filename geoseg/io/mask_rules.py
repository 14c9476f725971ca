"""What the values of cloud and shadow masks mean, by kind of product, and what a user says of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geoseg.errors import InputError
from geoseg.io.protocol import Source
from geoseg.io.stamps import paths_in

if TYPE_CHECKING:
    from numpy.typing import NDArray

RULE_OPTIONS = ("kind", "drop", "keep", "above", "grow_px")
"""Options of a mask that say what its values mean; all others say where it lies."""

ABOVE_PERCENT = 50.0
"""Cloud probability above which a pixel is not used, where nothing else is said."""


# -- what the values of a mask mean ------------------------------------------------------------------------------------


def _in_classes(codes: NDArray[Any], numbers: Sequence[float]) -> NDArray[np.bool_]:
    """Where the value is one of `numbers`."""
    return np.isin(codes, np.asarray(numbers))


def _with_bits(codes: NDArray[Any], numbers: Sequence[float]) -> NDArray[np.bool_]:
    """Where one of the bits `numbers`, counted from 0, is set."""
    if np.issubdtype(codes.dtype, np.floating):
        codes = np.nan_to_num(codes, nan=0, posinf=0, neginf=0)
    bits = sum(1 << int(bit) for bit in numbers)
    return np.asarray((codes.astype(np.int64) & bits) != 0)


def _above(codes: NDArray[Any], numbers: Sequence[float]) -> NDArray[np.bool_]:
    """Where the value is larger than the one of `numbers`."""
    return np.asarray(codes > numbers[0])


def _never(codes: NDArray[Any]) -> NDArray[np.bool_]:
    return np.zeros(codes.shape, np.bool_)


Hides = Callable[["NDArray[Any]", Sequence[float]], "NDArray[np.bool_]"]


@dataclass(frozen=True, slots=True)
class MaskKind:
    """What the values of one kind of mask mean.

    Attributes:
        hides: Where the codes are what the numbers name: classes, bits, or all above one.
        flags: Class values or bit numbers by name.
        usual: Names that are dropped unless others are given.
        is_fill: Codes that say that nothing is known; always dropped, never grown.
        meant: Codes that mean something, so that a file which calls one of them nodata is not believed.
    """

    hides: Hides
    flags: Mapping[str, tuple[int, ...]]
    usual: tuple[str, ...] = ()
    is_fill: Callable[[NDArray[Any]], NDArray[np.bool_]] = _never
    meant: range = range(0)


MASKS: dict[str, MaskKind] = {
    # ESA, Sentinel-2 MSI Level-2A, scene classification (SCL) of Sen2Cor: Products Specification Document
    # S2-PDGS-TAS-DI-PSD and Level-2A Algorithm Theoretical Basis Document S2-PDGS-MPC-ATBD-L2A.
    "scl": MaskKind(
        _in_classes,
        {
            "no_data": (0,), "saturated": (1,), "dark": (2,), "shadow": (3,), "vegetation": (4,), "bare": (5,),
            "water": (6,), "unclassified": (7,), "cloud_medium": (8,), "cloud_high": (9,), "cloud": (8, 9),
            "cirrus": (10,), "snow": (11,),
        },
        ("saturated", "shadow", "cloud", "cirrus"),
        partial(_in_classes, numbers=(0,)),
        range(1, 12),
    ),
    # USGS, Landsat Collection 2 Level 2 Science Product Guides LSDS-1619 (Landsat 8 and 9) and LSDS-1618 (4 to 7):
    # QA_PIXEL; bits 8 to 15 are confidences. A pixel without any bit was not processed.
    "landsat_qa": MaskKind(
        _with_bits,
        {
            "fill": (0,), "dilated_cloud": (1,), "cirrus": (2,), "cloud": (3,), "shadow": (4,), "snow": (5,),
            "clear": (6,), "water": (7,),
        },
        ("dilated_cloud", "cirrus", "cloud", "shadow"),
        lambda codes: _with_bits(codes, (0,)) | (codes == 0),
    ),
    # Zhu & Woodcock 2012, Remote Sensing of Environment 118, 83-94; Qiu, Zhu & He 2019, Remote Sensing of Environment
    # 231, 111205; values as their program Fmask writes them.
    "fmask": MaskKind(
        _in_classes,
        {"clear": (0,), "water": (1,), "shadow": (2,), "snow": (3,), "cloud": (4,), "fill": (255,)},
        ("shadow", "cloud"),
        partial(_in_classes, numbers=(255,)),
        range(5),
    ),
    # The same algorithm by the program python-fmask (Flood & Gillingham), which numbers the classes otherwise, and so
    # Geoscience Australia's products.
    "python_fmask": MaskKind(
        _in_classes,
        {"fill": (0,), "clear": (1,), "cloud": (2,), "shadow": (3,), "snow": (4,), "water": (5,)},
        ("shadow", "cloud"),
        partial(_in_classes, numbers=(0,)),
        range(1, 6),
    ),
    # NASA, Harmonized Landsat Sentinel-2 Product User Guide, product version 2.0, quality assessment layer (Fmask);
    # bits 6 and 7 are the aerosol level, bit 0 is kept for cirrus and not in use.
    "hls_fmask": MaskKind(
        _with_bits,
        {"cirrus": (0,), "cloud": (1,), "adjacent": (2,), "shadow": (3,), "snow": (4,), "water": (5,)},
        ("cirrus", "cloud", "adjacent", "shadow"),
        partial(_in_classes, numbers=(255,)),
        range(255),
    ),
    # In percent, as MSK_CLDPRB of Sentinel-2 Level-2A and as s2cloudless gives it.
    "probability": MaskKind(_above, {}, meant=range(101)),
    "values": MaskKind(_in_classes, {}),
}  # fmt: skip
"""Kinds of masks by name."""

NAMED_KINDS = (
    (r"(?<![a-z0-9])scl(?![a-z])", "scl"),
    (r"qa[_ -]?pixel", "landsat_qa"),
    (r"^hls\..*fmask", "hls_fmask"),
    (r"^ga_.*fmask", "python_fmask"),
    (r"fmask", "fmask"),
    (r"cld_?prb|cloud[_ -]?prob", "probability"),
)
"""What the names of bands and files say of the kind, the first that fits."""


@dataclass(frozen=True, slots=True)
class MaskRule:
    """Which pixels a mask hides.

    Attributes:
        kind: A key of `MASKS`.
        numbers: Class values or bit numbers that hide; the percentage above which a probability does.
        keep: Whether `numbers` are instead all that does not hide.
        grow_px: How far around what is hidden pixels are hidden too, in pixels of the image's own grid.
    """

    kind: str
    numbers: tuple[float, ...]
    keep: bool = False
    grow_px: int = 0

    def hidden(self, codes: NDArray[Any]) -> NDArray[np.bool_]:
        """Where codes hide the ground, same shape; fill does not, it says nothing."""
        found = MASKS[self.kind].hides(codes, self.numbers)
        return (~found if self.keep else found) & ~self.is_fill(codes)

    def is_fill(self, codes: NDArray[Any]) -> NDArray[np.bool_]:
        """Where codes say that nothing is known, same shape."""
        return MASKS[self.kind].is_fill(codes)


# -- what the user says ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MaskSpec:
    """What `mask` of a source says.

    Attributes:
        place: What names the mask's source; None where it is a band of the image.
        band: Name of the band of the image.
        options: What its values mean: RULE_OPTIONS.
    """

    place: Any
    band: str | None
    options: Mapping[str, Any]


def mask_spec(value: Any) -> MaskSpec | None:
    """The mask that a user's `mask:` names: a source, or a mapping with `band` or a source's keys, and RULE_OPTIONS.

    None where it is false: no mask, although one was handed down.

    Raises:
        InputError: It makes no sense.
    """
    if value is False:
        return None
    if not isinstance(value, Mapping):
        if isinstance(value, int | float):
            raise InputError(f"mask must name a file, or be {{band: NAME}}, got {value!r}")
        return MaskSpec(value, None, {})
    options = {key: value[key] for key in RULE_OPTIONS if value.get(key) is not None}
    place = {key: inner for key, inner in value.items() if key not in RULE_OPTIONS and inner is not None}
    _check_options(options)
    band = place.pop("band", None)
    if band is None:
        if not place:
            raise InputError("mask names no file and no band; needed is mask: {path: SCL.tif} or mask: {band: SCL}")
        return MaskSpec(place, None, options)
    if place or not isinstance(band, str):
        what = f"{band!r}" if not place else f"the options {', '.join(map(str, place))}"
        raise InputError(
            f"mask: a band of the image is named by band: NAME alone with {_listed(RULE_OPTIONS)}; got {what}"
        )
    return MaskSpec(None, band, options)


def _check_options(options: Mapping[str, Any]) -> None:
    kind, grow, above = options.get("kind"), options.get("grow_px", 0), options.get("above", 0)
    if kind is not None and kind not in MASKS:
        raise InputError(f"mask kind {kind!r} is unknown; known are {', '.join(MASKS)}")
    if isinstance(grow, bool) or not isinstance(grow, int) or grow < 0:
        raise InputError(f"grow_px of a mask must be a whole number of pixels from 0 on, got {grow!r}")
    if isinstance(above, bool) or not isinstance(above, Real):
        raise InputError(f"above of a mask must be a number such as {ABOVE_PERCENT:g}, got {above!r}")
    if "drop" in options and "keep" in options:
        raise InputError("a mask has both drop and keep; needed is one of them")


def rule_of(spec: MaskSpec, mask: Source) -> MaskRule:
    """What the values of `mask` mean, by the user's options, else by the names of the band and of the files.

    Raises:
        InputError: Nothing says it, or the options do not fit the kind.
    """
    files = [Path(path).name for path in paths_in(mask)]
    kind = spec.options.get("kind") or _kind_by_options(spec.options) or _kind_by_name(spec.band, files)
    if kind is None:
        name = f"band {spec.band}" if spec.band else _listed(files) or "the mask"
        raise InputError(f"nothing says what the values of {name} mean; give kind: one of {', '.join(MASKS)}")
    given = [key for key in ("drop", "keep", "above") if key in spec.options]
    fitting = (
        ("above",) if kind == "probability" else ("drop",) if MASKS[kind].hides is _with_bits else ("drop", "keep")
    )
    if set(given) - set(fitting) or (kind == "values" and not given):
        raise InputError(f"a mask of kind {kind} takes {' or '.join(fitting)}, got {_listed(given) or 'none of them'}")
    grow_px = int(spec.options.get("grow_px", 0))
    if kind == "probability":
        return MaskRule(kind, (_threshold(spec, mask),), grow_px=grow_px)
    key = given[0] if given else "drop"
    return MaskRule(kind, _numbers(kind, key, spec.options.get(key)), keep=key == "keep", grow_px=grow_px)


def _kind_by_options(options: Mapping[str, Any]) -> str | None:
    """The kind that options imply: a probability has a threshold."""
    return "probability" if "above" in options else None


def _kind_by_name(band: str | None, files: Sequence[str]) -> str | None:
    """The kind that the band's name says, else that of a file; an `Fmask` is that of the product its file is of."""
    names = [name.lower() for name in ([band] if band else [])] + [name.lower() for name in files]
    found = [kind for name in names for pattern, kind in NAMED_KINDS if re.search(pattern, name)]
    if not found or found[0] != "fmask":
        return found[0] if found else None
    return next((kind for kind in found if kind in ("hls_fmask", "python_fmask")), "fmask")


def _threshold(spec: MaskSpec, mask: Source) -> float:
    """The probability above which a pixel is hidden, in the mask's own units."""
    if "above" in spec.options:
        return float(spec.options["above"])
    if np.issubdtype(mask.dtype, np.floating):
        raise InputError(
            "cloud probabilities with fractions may be percent or shares; say from where on a pixel is dropped, with "
            "above: 50 or above: 0.5"
        )
    return ABOVE_PERCENT


def _numbers(kind: str, key: str, given: Any) -> tuple[float, ...]:
    """Class values or bits of the names and numbers given; the usual ones where nothing is.

    Raises:
        InputError: A name is unknown, or a number cannot be.
    """
    flags = MASKS[kind].flags
    listed = [given] if isinstance(given, str | int) else MASKS[kind].usual if given is None else given
    if not isinstance(listed, Sequence) or not listed:
        raise InputError(f"{key} of a mask must be a list of names or numbers, got {given!r}")
    found: list[float] = []
    for item in listed:
        name = re.sub(r"[\s-]+", "_", item.strip().lower()) if isinstance(item, str) else None
        if name is not None and name in flags:
            found += flags[name]
        elif not isinstance(item, str) and _is_number(kind, item):
            found.append(float(item))
        else:
            names = f"one of {', '.join(flags)}, or " if flags else ""
            what = "a bit number from 0 to 15" if MASKS[kind].hides is _with_bits else "a number"
            raise InputError(f"{key} of a {kind} mask has {item!r}; needed is {names}{what}")
    return tuple(sorted(set(found)))


def _is_number(kind: str, item: Any) -> bool:
    if isinstance(item, bool) or not isinstance(item, Real):
        return False
    return MASKS[kind].hides is not _with_bits or item in range(16)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
