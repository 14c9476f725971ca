"""A folder of rasters: one line each, what they have in common, and which cannot be used."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from geoseg.data.survey import survey
from geoseg.errors import GeosegError, InputError
from geoseg.inspecting.files import band_files
from geoseg.inspecting.grids import describe_grid
from geoseg.inspecting.tables import Info, facts, some, table
from geoseg.io.dates import acquired
from geoseg.io.sources import open_source

SUFFIXES = (
    ".tif", ".tiff", ".vrt", ".jp2", ".img", ".png", ".jpg", ".jpeg", ".asc", ".bil", ".nc", ".hgt", ".ntf", ".webp",
)  # fmt: skip
SAMPLES = 1 << 20
"""Values of each raster that are looked at, for nodata."""

MOST_LINES = 200


def inspect_folder(folder: Path, *, progress: Callable[[int, int], None] | None = None) -> Info:
    """Every raster in a folder and the folders in it.

    Args:
        folder: The folder.
        progress: Told how many rasters are done, and of how many.

    Raises:
        InputError: There is no raster in it.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise InputError(f"{folder} holds no raster; needed are files such as {', '.join(SUFFIXES[:4])}")
    found: list[dict[str, Any]] = []
    refused: list[dict[str, str]] = []
    with _gdal_silent():
        for done, path in enumerate(files):
            name = str(path.relative_to(folder))
            try:
                found.append({"name": name, **_line(path)})
            except GeosegError as error:
                refused.append({"name": name, "error": " ".join(str(error).split())})
            if progress is not None:
                progress(done + 1, len(files))
    groups = {key: _groups(found, key) for key in ("crs", "bands", "dtype", "pixel", "nodata")}
    values = {"name": str(folder), "scenes": found, "unreadable": refused, "groups": groups}
    heading = facts([("folder", str(folder)), ("rasters", f"{len(found):,} read, {len(refused):,} cannot be")])
    blocks = (heading, _table(found), _group_text(groups)) if found else (heading,)
    return Info("folder", values, blocks, tuple(_warnings(found, refused, groups)))


@contextmanager
def _gdal_silent() -> Iterator[None]:
    """Nothing of what GDAL logs: files that cannot be read are named at the end."""
    talker = logging.getLogger("rasterio")
    before = talker.level
    talker.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        talker.setLevel(before)


def _line(path: Path) -> dict[str, Any]:
    """What is said of one raster; its pixels are looked at, a few where it is large."""
    source = open_source(path)
    grid, taken = describe_grid(source.geobox), acquired(source)
    seen = survey(source, samples=SAMPLES, each_band=False)
    return {
        "grid": grid,
        "crs": grid["crs"],
        "pixel": _pixel(grid),
        "bands": f"{len(source.bands)}: {', '.join(source.bands)}",
        "dtype": str(source.dtype),
        "nodata": some(list(dict.fromkeys(band.nodata for band in band_files(source)))),
        "date": None if taken is None else taken.date().isoformat(),
        "valid_share": seen.valid / seen.seen,
        "sampled": seen.sampled,
    }


def _pixel(grid: dict[str, Any]) -> str:
    if grid["gsd_m"] is None:
        return f"{grid['pixel'][0]:.4g} units"
    down, across = grid["gsd_m"]
    alike = abs(down - across) <= 0.005 * across
    return f"{across:.4g} m" if alike else f"{across:.4g} x {down:.4g} m"


def _groups(found: Sequence[dict[str, Any]], key: str) -> dict[str, int]:
    """How many rasters say what under a key, the most common first."""
    return dict(Counter(str(item[key]) for item in found).most_common())


def _table(found: Sequence[dict[str, Any]]) -> str:
    heads = ["raster", "size", "crs", "pixel", "bands", "dtype", "nodata", "date"]
    rows = [
        [item["name"], f"{item['grid']['cols']:,} x {item['grid']['rows']:,}", _short(item["crs"]), item["pixel"],
         _short(item["bands"]), item["dtype"], item["nodata"], item["date"] or "-"]
        for item in found[:MOST_LINES]
    ]  # fmt: skip
    more = f"\nand {len(found) - MOST_LINES:,} more" if len(found) > MOST_LINES else ""
    return table(heads, rows, left=len(heads)) + more


def _short(text: str, *, most: int = 40) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def _group_text(groups: dict[str, dict[str, int]]) -> str:
    names = {"crs": "CRSs", "bands": "band sets", "dtype": "dtypes", "pixel": "pixel sizes", "nodata": "nodata"}
    return facts(
        [
            (
                name,
                f"{len(groups[key])}: "
                + some([f"{count} x {_short(what)}" for what, count in groups[key].items()], between="; "),
            )
            for key, name in names.items()
        ]
    )


def _warnings(
    found: Sequence[dict[str, Any]], refused: Sequence[dict[str, str]], groups: dict[str, dict[str, int]]
) -> list[str]:
    said = [f"cannot be read: {item['name']}: {item['error']}" for item in refused[:MOST_LINES]]
    if len(refused) > MOST_LINES:
        said.append(f"and {len(refused) - MOST_LINES:,} more cannot be read")
    empty = [
        item["name"] + (" (in the sample)" if item["sampled"] else "") for item in found if not item["valid_share"]
    ]
    unplaced = [item["name"] for item in found if item["crs"] == "none"]
    if empty:
        said.append(f"without a valid pixel: {some(empty)}")
    if unplaced:
        said.append(f"without a CRS: {some(unplaced)}")
    for key, what in (("bands", "band sets differ"), ("dtype", "dtypes are mixed")):
        if len(groups[key]) > 1:
            sets = [f"{count} x {_short(name)}" for name, count in groups[key].items()]
            said.append(f"{what}: {some(sets, most=3, between='; ')}")
    return said
