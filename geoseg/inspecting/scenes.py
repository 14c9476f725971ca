"""A scene or a class map in words: grid, bands, values, classes, and what is probably wrong with it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.data.histogram import BUCKET_ERROR, LARGEST
from geoseg.data.statistics import BandStats
from geoseg.data.survey import Survey, survey
from geoseg.inspecting.classes import ClassCount, as_codes, class_counts, class_legend
from geoseg.inspecting.files import BandFile, band_files, storage, storage_text
from geoseg.inspecting.grids import crs_name, describe_grid, pixel_text, place_text
from geoseg.inspecting.tables import Info, facts, finite, hectares, number, percent, table, three_digits
from geoseg.io.dates import acquired
from geoseg.io.protocol import Source

LEVELS = (0.01, 0.5, 0.99)
UNIFORM_SHARE = 0.005
"""One value in every band of more pixels than that is reported."""


def inspect_scene(source: Source, *, name: str, exact: bool = False) -> Info:
    """What a scene or a class map is.

    A scene of many pixels is looked at in evenly spread blocks, and the text says so.

    Args:
        source: The scene.
        name: What it is called in the text.
        exact: Whether the classes of a large class map are counted pixel by pixel.

    Raises:
        ReadError: It cannot be read.
    """
    grid, files = describe_grid(source.geobox), storage(source)
    taken, codes = acquired(source), as_codes(source)
    seen = survey(codes)
    legend = class_legend(codes, seen)
    counts, sampled = ([], False) if legend is None else class_counts(codes, legend, exact=exact)
    bands = [] if legend else _bands(source, seen)
    files_of = zip(source.bands, band_files(source), strict=True)
    values: dict[str, Any] = {
        "name": name,
        "grid": grid,
        "date": None if taken is None else taken.isoformat(),
        "dtype": str(source.dtype),
        "storage": files,
        "valid_share": seen.valid / seen.seen,
        "sampled_share": seen.seen / seen.pixels,
        "bands": bands or [{"name": band, **_file(one)} for band, one in files_of],
        "classes": [item.to_dict() for item in counts],
        "classes_sampled": sampled,
    }
    shown = _class_table(counts, sampled=sampled) if legend else _band_table(bands, seen)
    kind = "class map" if legend else "scene"
    return Info(kind, values, (_heading(values, source), shown), tuple(_warnings(source, seen, class_map=bool(legend))))


def _heading(values: dict[str, Any], source: Source) -> str:
    grid = values["grid"]
    pairs = [
        ("name", values["name"]),
        ("size", f"{grid['cols']:,} x {grid['rows']:,} pixels (columns x rows), {values['dtype']}"),
        ("crs", _crs(source)),
        ("pixel", pixel_text(grid)),
        ("place", place_text(grid)),
        ("date", (values["date"] or "not said")[:10]),
        ("stored", storage_text(values["storage"])),
        ("bands", ", ".join(source.bands)),
        ("valid", f"{percent(values['valid_share'])} of the pixels{_of_sample(values['sampled_share'])}"),
    ]
    if values["classes"] or len(source.bands) == 1:
        pairs.insert(-1, ("nodata", values["bands"][0]["nodata"]))
    return facts(pairs)


def _crs(source: Source) -> str:
    named = crs_name(source.geobox)
    if source.geobox.crs is None:
        return named
    title = str(source.geobox.crs.proj.name)
    return named if named == title else f"{named} ({title})"


def _of_sample(share: float) -> str:
    return "" if share >= 1 else f", of a sample of {percent(share)} of them"


def _exact(value: float) -> str:
    """A value as it may be given back, with all its digits."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def _file(band: BandFile) -> dict[str, Any]:
    return {"dtype": band.dtype, "nodata": band.nodata, "scaling": band.scaling}


def _bands(source: Source, seen: Survey) -> list[dict[str, Any]]:
    stats = seen.stats
    quantiles = _quantiles(stats)
    spread = np.sqrt(stats.squares / np.maximum(stats.count, 1))
    rows = []
    for k, (name, one) in enumerate(zip(source.bands, band_files(source), strict=True)):
        figures = {
            "valid_share": int(stats.count[k]) / seen.seen,
            "min": stats.low[k],
            "mean": stats.mean[k] if stats.count[k] else None,
            "std": spread[k] if stats.count[k] else None,
            **{f"p{round(100 * level)}": quantiles[j, k] for j, level in enumerate(LEVELS)},
            "max": stats.high[k],
        }
        rows.append({"name": name, **_file(one), **{key: finite(value) for key, value in figures.items()}})
    return rows


def _quantiles(stats: BandStats) -> NDArray[np.float64]:
    """Values at `LEVELS`, `(level, band)`; NaN where they lie beyond float32, in which they are counted."""
    found = stats.quantiles(LEVELS)
    beyond = np.maximum(-stats.low, stats.high) > LARGEST
    return np.where(beyond & (np.abs(found) >= LARGEST * (1 - BUCKET_ERROR)), np.nan, found)


def _band_table(bands: list[dict[str, Any]], seen: Survey) -> str:
    figures = ("min", "p1", "mean", "p50", "p99", "max", "std")
    heads = ["band", "dtype", "nodata", "valid", *("median" if key == "p50" else key for key in figures)]
    rows = [
        [band["name"], band["dtype"] + (f" {band['scaling']}" if band["scaling"] else ""), band["nodata"],
         percent(band["valid_share"]), *(number(band[key]) for key in figures)]
        for band in bands
    ]  # fmt: skip
    note = f"\nfrom a sample of {percent(seen.seen / seen.pixels)} of the pixels, in evenly spread blocks"
    return table(heads, rows, left=3) + (note if seen.sampled else "")


def _class_table(counts: list[ClassCount], *, sampled: bool) -> str:
    total = max(1, sum(item.pixels for item in counts))
    shown = three_digits if sampled else float
    rows = [
        [f"{item.value} {item.name or '(no class)'}", f"{shown(item.pixels):,.0f}", percent(item.pixels / total),
         hectares(None if item.area_m2 is None else shown(item.area_m2))]
        for item in counts
    ]  # fmt: skip
    note = "\nestimated from a sample of evenly spread blocks; --exact counts every pixel"
    return table(["class", "pixels", "share", "hectares"], rows) + (note if sampled else "")


def _warnings(source: Source, seen: Survey, *, class_map: bool) -> list[str]:
    found = []
    if source.geobox.crs is None:
        found.append("it has no CRS, so it lies nowhere; say it with --crs EPSG:..., or write it into the file")
    if not seen.valid:
        where = "in the sample" if seen.sampled else "in it"
        found.append(f"there is no valid pixel {where}: all is nodata")
    if class_map:
        return found
    flat = [name for name, low, high in zip(source.bands, seen.stats.low, seen.stats.high, strict=True) if low == high]
    if flat:
        found.append(f"every pixel has the same value in {', '.join(flat)}")
    for value, count in seen.uniform.items():
        alone = len(source.bands) == 1 and value >= 0
        if count > UNIFORM_SHARE * seen.seen and not alone and not flat:
            found.append(
                f"{percent(count / seen.seen)} of the pixels are {_exact(value)} in every band; if that means nothing "
                f"is there, say --nodata {_exact(value)}"
            )
    return found
