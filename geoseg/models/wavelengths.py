"""Centre wavelengths of bands by name: Sentinel-2, Landsat, and the names that people give bands of any sensor.

A name such as B5 means red edge on Sentinel-2 and near infrared on Landsat 8. Where the other names of a file do not
settle it, the wavelength counts as unknown, and the sensor has to be said.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

from geoseg.errors import InputError

# Micrometres: centre, and width. ESA, Sentinel-2 User Handbook, table of spectral bands (nominal values).
SENTINEL2 = {
    "B1": (0.443, 0.020), "B2": (0.490, 0.065), "B3": (0.560, 0.035), "B4": (0.665, 0.030), "B5": (0.705, 0.015),
    "B6": (0.740, 0.015), "B7": (0.783, 0.020), "B8": (0.842, 0.115), "B8A": (0.865, 0.020), "B9": (0.945, 0.020),
    "B10": (1.375, 0.030), "B11": (1.610, 0.090), "B12": (2.190, 0.180),
}  # fmt: skip
# The middle and the width of the ranges in USGS, "What are the band designations for the Landsat satellites?"
LANDSAT_TM = {
    "B1": (0.485, 0.07), "B2": (0.560, 0.08), "B3": (0.660, 0.06), "B4": (0.830, 0.14), "B5": (1.650, 0.20),
    "B6": (11.45, 2.10), "B7": (2.215, 0.27),
}  # fmt: skip
LANDSAT_ETM = {
    **LANDSAT_TM, "B4": (0.835, 0.13), "B8": (0.710, 0.38), "B6_VCID_1": (11.45, 2.10), "B6_VCID_2": (11.45, 2.10),
}  # fmt: skip
LANDSAT_OLI = {
    "B1": (0.440, 0.02), "B2": (0.480, 0.06), "B3": (0.560, 0.06), "B4": (0.655, 0.03), "B5": (0.865, 0.03),
    "B6": (1.610, 0.08), "B7": (2.200, 0.18), "B8": (0.590, 0.18), "B9": (1.370, 0.02), "B10": (10.895, 0.59),
    "B11": (12.005, 1.01),
}  # fmt: skip
SENSORS: dict[str, Mapping[str, tuple[float, float]]] = {
    "sentinel-2": SENTINEL2,
    "landsat-5": LANDSAT_TM,
    "landsat-7": LANDSAT_ETM,
    "landsat-8": LANDSAT_OLI,
    "landsat-9": LANDSAT_OLI,
    "naip": {"R": (0.665, 0.06), "G": (0.560, 0.06), "B": (0.490, 0.06), "N": (0.842, 0.06)},
}
"""Bands of each sensor by the name its provider gives them: centre wavelength and width in micrometres."""

COMMON = {
    "coastal": 0.443, "aerosol": 0.443, "coastalaerosol": 0.443, "blue": 0.490, "b": 0.490, "green": 0.560, "g": 0.560,
    "yellow": 0.605, "red": 0.665, "r": 0.665, "rededge": 0.705, "rededge1": 0.705, "rededge2": 0.740,
    "rededge3": 0.783, "rededge4": 0.865, "rededge071": 0.705, "rededge075": 0.740, "rededge078": 0.783, "nir": 0.842,
    "n": 0.842, "ir": 0.842, "nearinfrared": 0.842, "nirbroad": 0.842, "nir1": 0.842, "nirnarrow": 0.865,
    "narrownir": 0.865, "nir08": 0.865, "nir09": 0.945, "watervapour": 0.945, "watervapor": 0.945, "cirrus": 1.375,
    "swir1": 1.610, "swir16": 1.610, "swir2": 2.190, "swir22": 2.190, "thermal": 11.0, "tir": 11.0, "lwir": 11.0,
    "lwir11": 10.895, "lwir12": 12.005, "thermal1": 10.895, "thermal2": 12.005,
}  # fmt: skip
"""Micrometres by common name (those of STAC's electro-optical extension among them), in lower case without marks."""

GUESSED = ("sentinel-2", "landsat-8")  # sensors that numbered names may mean when none is said
AGREEMENT_UM = 0.02  # sensors that differ by less give one answer


def band_wavelengths(
    names: Sequence[str], *, given: Mapping[str, float] | None = None, sensor: str | None = None
) -> tuple[float | None, ...]:
    """The centre wavelength of each band in micrometres, None where it is not known.

    Args:
        names: Names of the bands in order.
        given: Wavelengths by name; they win over the tables.
        sensor: A name in `SENSORS`, which says what B5 means. Without it, numbered bands are those of the sensors that
            have all of them, as far as these agree; two digits (B05) are Sentinel-2's.

    Raises:
        InputError: The sensor is unknown, or `given` names no band or has no wavelength.

    >>> band_wavelengths(["red", "Red Edge 1", "B8A", "elevation"])
    (0.665, 0.705, 0.865, None)
    >>> band_wavelengths(["B4", "B5"]), band_wavelengths(["B4", "B5"], sensor="landsat-8")
    ((0.665, None), (0.655, 0.865))
    """
    said = _checked(given or {}, names)
    tables = [SENSORS[name] for name in _candidates(names, sensor)]
    return tuple(said[name] if name in said else _wavelength(name, tables) for name in names)


def bandwidth_um(wavelength_um: float) -> float:
    """Width in micrometres of the Sentinel-2 band nearest to a wavelength.

    >>> bandwidth_um(0.83)
    0.115
    """
    return min(SENTINEL2.values(), key=lambda band: abs(band[0] - wavelength_um))[1]


def unknown_bands(wavelengths_um: Sequence[float | None] | None, names: Sequence[str] | None, *, bands: int) -> str:
    """The bands without a wavelength as words for a message, empty where there is none.

    >>> unknown_bands((0.665, None), ("red", "dem"), bands=2), unknown_bands(None, None, bands=2)
    ('dem', 'band 1, band 2')
    """
    named = list(names) if names is not None else [f"band {number + 1}" for number in range(bands)]
    known = wavelengths_um or (None,) * bands
    return ", ".join(name for name, um in zip(named, known, strict=True) if um is None)


def _candidates(names: Iterable[str], sensor: str | None) -> list[str]:
    """The sensors that numbered bands of these names may be of."""
    if sensor is not None:
        if sensor.lower() not in SENSORS:
            raise InputError(f"sensor '{sensor}' is unknown; known are {', '.join(SENSORS)}")
        return [sensor.lower()]
    names = list(names)
    if any(re.fullmatch(r"B0\d", name.strip(), re.IGNORECASE) for name in names):
        return ["sentinel-2"]
    numbered = {key for name in names if (key := _numbered(name))}
    if any("VCID" in key for key in numbered):
        return ["landsat-7"]
    prefixed = {name.strip().upper() for name in names}
    if any(name.startswith(("SR_B", "ST_B")) for name in prefixed):  # as Landsat's Collection 2 names them
        if "ST_B6" in prefixed or ("SR_B7" in prefixed and "SR_B6" not in prefixed):
            return ["landsat-7"]
        return ["landsat-8"] if {"ST_B10", "SR_B6"} & prefixed else ["landsat-7", "landsat-8"]
    return [name for name in GUESSED if numbered <= set(SENSORS[name])]


def _numbered(name: str) -> str | None:
    """A provider's band as the tables have it: `SR_B4`, `b04` and `B4` are B4; None for other names."""
    found = re.fullmatch(r"(?:SR_|TOA_|ST_)?B0*(\d{1,2}A?(?:_VCID_\d)?)", name.strip().upper())
    return f"B{found[1]}" if found else None


def _wavelength(name: str, tables: Sequence[Mapping[str, tuple[float, float]]]) -> float | None:
    own = [table[name.strip()][0] for table in tables if name.strip() in table]
    key = _numbered(name)
    found = own or [table[key][0] for table in tables if key is not None and key in table]
    if found:
        return found[0] if max(found) - min(found) <= AGREEMENT_UM else None
    return COMMON.get(re.sub(r"[\W_]", "", name).lower())


def _checked(given: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    for name, um in given.items():
        if name not in names:
            near = get_close_matches(name, names, n=3, cutoff=0.5) or list(names)
            raise InputError(f"wavelengths_um names '{name}', which is no band; bands are {', '.join(near)}")
        if not 0 < um < 100:
            raise InputError(f"wavelengths_um of {name} is {um}: needed are micrometres, such as 0.665 for red")
    return {name: float(um) for name, um in given.items()}
