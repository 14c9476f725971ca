"""What the files behind a source say of themselves: dtype, nodata, masks, blocks, overviews."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rasterio.enums import ColorInterp

from geoseg.io.combine import BandStack, Mosaic, Picked
from geoseg.io.gdal import GdalSource
from geoseg.io.handles import dataset, gdal
from geoseg.io.protocol import Source


@dataclass(frozen=True, slots=True)
class BandFile:
    """A band as its file holds it: dtype, how nodata is declared, and scaling where there is one."""

    dtype: str
    nodata: str
    scaling: str = ""


def band_files(source: Source) -> list[BandFile]:
    """Each band of a source as its file holds it; of a mosaic, as its first file does."""
    if isinstance(source, GdalSource):
        return _of_file(source)
    if isinstance(source, Picked):
        inner = band_files(source.source)
        return [inner[position] for position in source.positions]
    if isinstance(source, BandStack):
        return [band for member in source.members for band in band_files(member)]
    if isinstance(source, Mosaic):
        return band_files(source.members[0])
    return [BandFile(str(source.dtype), "?") for _ in source.bands]


def _of_file(source: GdalSource) -> list[BandFile]:
    facts = source.facts
    shared = [word for word, found in (("mask band", facts.masks), ("alpha band", facts.alphas)) if found]
    out = []
    for band in facts.bands:
        given = " (given)" if source.nodata is not None else ""
        said = [] if band.nodata is None else [f"{band.nodata:.10g}{given}"]
        scaling = "" if (band.scale, band.offset) == (1, 0) else f"x {band.scale:g} + {band.offset:g}"
        out.append(BandFile(str(facts.raw_dtype), ", ".join([*said, *shared]) or "none", scaling))
    return out


def storage(source: Source) -> dict[str, Any]:
    """How the pixels are stored: files, and of the first of them format, compression, blocks and overviews."""
    files = paths(source)
    found: dict[str, Any] = {"files": len(files)}
    if files:
        with gdal(files[0]):
            opened = dataset(files[0])
            found |= {
                "format": opened.driver,
                "compression": _word(opened.compression),
                "block": [int(side) for side in opened.block_shapes[0]],
                "overviews": [int(level) for level in opened.overviews(1)],
            }
    return found


def _word(compression: Any) -> str | None:
    """A compression's name; rasterio has an enumeration of the usual ones, and texts for others."""
    return str(getattr(compression, "value", compression)).lower() if compression else None


def storage_text(found: dict[str, Any]) -> str:
    """The storage in words."""
    if "format" not in found:
        return "not in files of its own"
    count = "" if found["files"] == 1 else f"{found['files']:,} files, the first: "
    rows, cols = found["block"]
    levels = ", ".join(map(str, found["overviews"])) or "none"
    packed = f", {found['compression']}" if found["compression"] else ""
    return f"{count}{found['format']}{packed}, blocks of {rows} x {cols}, overviews {levels}"


def paths(source: Source) -> list[str]:
    """The files of a source, in order."""
    if isinstance(source, GdalSource):
        return [source.path]
    if isinstance(source, Picked):
        return paths(source.source)
    if isinstance(source, BandStack | Mosaic):
        return [path for member in source.members for path in paths(member)]
    return []


def has_palette(source: Source) -> bool:
    """Whether the source is one band of a file that shows it in the colours of a table."""
    if not isinstance(source, GdalSource):
        return False
    with gdal(source.path):
        index = source.facts.bands[0].index
        return bool(dataset(source.path).colorinterp[index - 1] == ColorInterp.palette)
