"""Maps on disk: block parts, and one Cloud-Optimized GeoTIFF put together from them.

A file appears under its name only when it is complete: everything is written in a folder of its own beside the output,
read back, and renamed last.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree as ET

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import DTypeLike, NDArray
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from geoseg.errors import GeosegError, InputError, OutputError, ReadError
from geoseg.io.handles import GDAL_ERRORS, unplaced_is_fine
from geoseg.io.outputs import check_output
from geoseg.io.pam import pam_xml
from geoseg.legend import Legend
from geoseg.tiling import Window

BLOCK_PX = 512

CHECKED_PX = 8 * BLOCK_PX
"""Columns that are read back at a time, so that a wide map takes no more memory than another."""

# In bytes. GDAL fills its cache before it lets go of anything, and copying reads each tile once.
CACHE_BYTES = 32 * 2**20
DEFLATE_LEVEL = 5
"""With GDAL's own 6 a class map takes 1.4 to 1.8 times as long, and is 4 % smaller."""

LEGEND_TAG = "GEOSEG_LEGEND"
# The quickest that there is, for a part is read once and deleted.
PART_COMPRESSIONS: tuple[dict[str, Any], ...] = (
    {"compress": "zstd", "zstd_level": 1},
    {"compress": "deflate", "zlevel": 1},
)
ALIGNED_PX = 1e-3

_GDAL_TYPES = {
    "uint8": "Byte", "int8": "Int8", "uint16": "UInt16", "int16": "Int16", "uint32": "UInt32", "int32": "Int32",
    "float32": "Float32", "float64": "Float64",
}  # fmt: skip


def encode_part(
    pixels: NDArray[Any], *, geobox: GeoBox, nodata: float | None = None, tags: Mapping[str, str] | None = None
) -> bytes:
    """A small GeoTIFF with the pixels of one block.

    It is made in memory, to be written by Python or sent to another machine: Python reports every failed write, GDAL
    does not.

    Args:
        pixels: `(row, col)` or `(band, row, col)`.
        geobox: Where they lie.
        nodata: Declared nodata value.
        tags: Metadata of the file, such as the job it belongs to.

    Raises:
        InputError: The pixels do not fit the geobox.
    """
    planes = pixels[None] if pixels.ndim == 2 else pixels
    count, rows, cols = planes.shape
    if (rows, cols) != tuple(geobox.shape):
        raise InputError(f"pixels are {(rows, cols)} (row, col), the part's geobox is {tuple(geobox.shape)}")
    profile: dict[str, Any] = {
        "driver": "GTiff", "count": count, "height": rows, "width": cols, "dtype": planes.dtype, "nodata": nodata,
        "transform": geobox.affine, "crs": None if geobox.crs is None else geobox.crs.to_wkt(), "tiled": True,
        "blockxsize": BLOCK_PX, "blockysize": BLOCK_PX, "interleave": "band", **_part_compression(),
    }  # fmt: skip
    with unplaced_is_fine(), rasterio.MemoryFile() as memory:
        with memory.open(**profile) as file:
            file.write(planes)
            file.update_tags(**tags or {})
        return bytes(memory.getbuffer())


@lru_cache(maxsize=1)
def _part_compression() -> dict[str, Any]:
    """The first of `PART_COMPRESSIONS` that this GDAL has."""
    for options in PART_COMPRESSIONS:
        try:
            with unplaced_is_fine(), rasterio.MemoryFile() as memory:
                memory.open(driver="GTiff", count=1, height=1, width=1, dtype="uint8", **options).close()
        except GDAL_ERRORS:
            continue
        return options
    return {}


def write_part(
    path: Path,
    pixels: NDArray[Any],
    *,
    geobox: GeoBox,
    nodata: float | None = None,
    tags: Mapping[str, str] | None = None,
) -> Path:
    """The path of a file with what `encode_part` gives; it appears complete or not at all.

    Raises:
        InputError: The pixels do not fit the geobox.
        OutputError: The file cannot be written.
    """
    return write_bytes(path, encode_part(pixels, geobox=geobox, nodata=nodata, tags=tags))


def write_bytes(path: Path, content: bytes) -> Path:
    """The path of a file with that content; it appears complete or not at all.

    Raises:
        OutputError: The file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{id(content):x}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def part_tags(path: Path) -> dict[str, str]:
    """The metadata that `write_part` was given.

    Raises:
        ReadError: The file cannot be read.
    """
    try:
        with unplaced_is_fine(), rasterio.open(path) as file:
            return dict(file.tags())
    except RasterioError as error:
        raise ReadError(f"the block part {path} cannot be read: {error}; delete it to have it made again") from error


def write_cog(
    parts: Sequence[Path],
    out: Path,
    *,
    geobox: GeoBox,
    dtype: DTypeLike,
    nodata: float | None,
    legend: Legend | None = None,
    resampling: Literal["mode", "average"],
    tags: Mapping[str, str] | None = None,
    band_names: Sequence[str] = ("class",),
    unit: str = "",
    overwrite: bool = False,
) -> Path:
    """The path of one Cloud-Optimized GeoTIFF with the pixels of all parts.

    It has tiles of 512 pixels, DEFLATE compression, overviews, the declared nodata and the geobox's very geotransform.
    With a legend it carries a colour table in which nodata is transparent, class names (category names and an
    attribute table in `OUT.aux.xml`) and the legend itself as a tag. Memory does not grow with the map.

    Args:
        parts: Rasters that tile the geobox: each pixel lies in exactly one.
        out: The file to write.
        geobox: Where the map lies.
        dtype: Of the parts and of the map.
        nodata: Value of pixels without content.
        legend: The classes, where band 1 is a class map.
        resampling: How overviews are made: `mode` for classes, `average` for quantities.
        tags: Provenance, written into the file's metadata.
        band_names: One description a band.
        unit: Of the values, as `%`; none of classes.
        overwrite: Whether an existing output may be replaced.

    Raises:
        InputError: The parts do not tile the geobox, or have another dtype or band count.
        OutputExistsError: The output exists and was not to be overwritten.
        OutputError: The output cannot be written; nothing is left behind.
    """
    out = check_output(out, overwrite=overwrite, inputs=parts)
    placed = [_place(part, geobox) for part in parts]
    _check_cover(placed, geobox, np.dtype(dtype), len(band_names))
    notes = dict(tags or {}) | ({} if legend is None else {LEGEND_TAG: json.dumps(legend.to_dict())})
    with _scratch(out) as folder:
        vrt, image = folder / "parts.vrt", folder / out.name
        vrt.write_text(
            _vrt(
                placed,
                geobox,
                dtype=np.dtype(dtype),
                nodata=nodata,
                legend=legend,
                tags=notes,
                names=band_names,
                unit=unit,
            )
        )
        with _told_when_done():
            _copy_as_cog(vrt, image, cols=geobox.shape[1], resampling=resampling)
            _check_whole(image, geobox)
        _write_notes(image, geobox, legend=legend, band_names=band_names)
        _publish(image, out)
    return out


@dataclass(frozen=True, slots=True)
class _Placed:
    path: Path
    window: Window
    dtype: str
    count: int
    block: tuple[int, int]


def _place(part: Path, geobox: GeoBox) -> _Placed:
    """A part and its window of the geobox."""
    try:
        with unplaced_is_fine(), rasterio.open(part) as file:
            affine, shape, block = ~geobox.affine @ file.transform, file.shape, file.block_shapes[0]
            dtype, count = file.dtypes[0], file.count
    except RasterioError as error:
        raise ReadError(f"the block part {part} cannot be read: {error}; delete it to have it made again") from error
    col, row = round(affine.c), round(affine.f)
    window = Window(row, col, *shape)
    off = max(abs(affine.c - col), abs(affine.f - row), abs(affine.a - 1), abs(affine.e - 1))
    if off > ALIGNED_PX or window.intersect(Window(0, 0, *geobox.shape)) != window:
        raise InputError(f"the block part {part} does not lie on the pixels of the map's grid; delete it and run again")
    return _Placed(part, window, dtype, count, block)


def _check_cover(parts: Sequence[_Placed], geobox: GeoBox, dtype: np.dtype[Any], count: int) -> None:
    for part in parts:
        if (part.dtype, part.count) != (dtype.name, count):
            raise InputError(f"the block part {part.path} is {part.dtype} x {part.count}, needed is {dtype} x {count}")
    rows, cols = geobox.shape
    covered = sum(part.window.rows * part.window.cols for part in parts)
    if covered != rows * cols or _overlap(parts):
        raise InputError(
            f"{len(parts)} block parts cover {covered:,} of {rows * cols:,} pixels; each must be covered once"
        )


def _overlap(parts: Sequence[_Placed]) -> bool:
    """Whether two parts share a pixel; a sweep downwards, so that many parts stay cheap."""
    live: list[Window] = []
    for part in sorted(parts, key=lambda item: item.window.row_off):
        live = [window for window in live if window.row_stop > part.window.row_off]
        if any(window.intersect(part.window).rows * window.intersect(part.window).cols for window in live):
            return True
        live.append(part.window)
    return False


def _vrt(
    parts: Sequence[_Placed],
    geobox: GeoBox,
    *,
    dtype: np.dtype[Any],
    nodata: float | None,
    legend: Legend | None,
    tags: Mapping[str, str],
    names: Sequence[str],
    unit: str,
) -> str:
    """A GDAL virtual raster of all parts."""
    rows, cols = geobox.shape
    root = ET.Element("VRTDataset", {"rasterXSize": str(cols), "rasterYSize": str(rows)})
    if geobox.crs is not None:
        ET.SubElement(root, "SRS", {"dataAxisToSRSAxisMapping": _axes(geobox.crs)}).text = geobox.crs.to_wkt()
    ET.SubElement(root, "GeoTransform").text = ", ".join(repr(float(part)) for part in geobox.affine.to_gdal())
    metadata = ET.SubElement(root, "Metadata")
    for key, value in tags.items():
        ET.SubElement(metadata, "MDI", {"key": key}).text = value
    for number, name in enumerate(names, start=1):
        band = ET.SubElement(root, "VRTRasterBand", {
            "dataType": _GDAL_TYPES[dtype.name], "band": str(number),
            "blockXSize": str(BLOCK_PX), "blockYSize": str(BLOCK_PX),
        })  # fmt: skip
        ET.SubElement(band, "Description").text = name
        if unit:
            ET.SubElement(band, "UnitType").text = unit
        if nodata is not None:
            ET.SubElement(band, "NoDataValue").text = repr(nodata)
        if legend is not None and number == 1:
            _add_colors(band, legend)
        for part in parts:
            _add_source(band, part, number)
    return ET.tostring(root, "unicode")


def _axes(crs: CRS) -> str:
    """Order of the CRS's axes as GDAL writes it: the data are always x before y."""
    first = crs.proj.axis_info[:1]
    return "2,1" if first and first[0].direction in ("north", "south") else "1,2"


def _add_colors(band: ET.Element, legend: Legend) -> None:
    ET.SubElement(band, "ColorInterp").text = "Palette"
    table = ET.SubElement(band, "ColorTable")
    colors = {item.id: item.rgb for item in legend.classes}
    for value in range(256 if legend.dtype == np.uint8 else 65536):
        color = (*colors.get(value, (0, 0, 0)), 255 if value in colors else 0)
        ET.SubElement(table, "Entry", {f"c{part + 1}": str(color[part]) for part in range(4)})


def _add_source(band: ET.Element, part: _Placed, number: int) -> None:
    source = ET.SubElement(band, "SimpleSource")
    ET.SubElement(source, "SourceFilename", {"relativeToVRT": "0"}).text = str(part.path.absolute())
    ET.SubElement(source, "SourceBand").text = str(number)
    size = {"rows": str(part.window.rows), "cols": str(part.window.cols)}
    # With the properties at hand GDAL opens a part when its pixels are needed, and few at a time.
    ET.SubElement(source, "SourceProperties", {
        "RasterXSize": size["cols"], "RasterYSize": size["rows"], "DataType": _GDAL_TYPES[part.dtype],
        "BlockXSize": str(part.block[1]), "BlockYSize": str(part.block[0]),
    })  # fmt: skip
    extent = {"xSize": size["cols"], "ySize": size["rows"]}
    ET.SubElement(source, "SrcRect", {"xOff": "0", "yOff": "0", **extent})
    ET.SubElement(source, "DstRect", {"xOff": str(part.window.col_off), "yOff": str(part.window.row_off), **extent})


_ALONE = threading.Lock()


def _copy_as_cog(vrt: Path, image: Path, *, cols: int, resampling: str) -> None:
    """GDAL's COG of a virtual raster of so many columns.

    GDAL has one pool of threads for all it does. Jobs of it that wait for others, as those that read a virtual raster
    may, or two writers that wait for theirs at a time, can end in waiting for each other without end. So the pool
    compresses, and does nothing else, for one file after the other.
    """
    overviews = "IGNORE_EXISTING" if cols > 1 else "NONE"  # readers know an overview by how much narrower it is
    try:
        with _ALONE, rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES, VRT_NUM_THREADS=1):
            rasterio.shutil.copy(
                vrt, image, driver="COG", COMPRESS="DEFLATE", LEVEL=DEFLATE_LEVEL, BLOCKSIZE=BLOCK_PX,
                NUM_THREADS="ALL_CPUS", BIGTIFF="IF_SAFER", OVERVIEWS=overviews,
                OVERVIEW_RESAMPLING=resampling.upper(), RESAMPLING=resampling.upper(),
            )  # fmt: skip
    except (RasterioError, CPLE_BaseError) as error:
        raise _unfinished(error) from error


@contextmanager
def _told_when_done() -> Iterator[None]:
    """What GDAL warns of is logged at the end; where there is an error, that says all."""
    talker, held = logging.getLogger("rasterio._env"), list[logging.LogRecord]()

    def hold(record: logging.LogRecord) -> bool:
        held.append(record)
        return False

    talker.addFilter(hold)
    try:
        yield
    finally:
        talker.removeFilter(hold)
    for record in held:
        talker.handle(record)


def _check_whole(image: Path, geobox: GeoBox) -> None:
    """Nothing, where every tile can be read back: GDAL may lose a failed write of the last tiles, as on a full disk."""
    rows, cols = geobox.shape
    try:
        with unplaced_is_fine(), rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES), rasterio.open(image) as file:
            if file.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") != "COG" or file.shape != (rows, cols):
                raise _unfinished("the file is no COG of the map's size")
            for row, col in product(range(0, rows, BLOCK_PX), range(0, cols, CHECKED_PX)):
                for band in file.indexes:
                    file.read(band, window=((row, min(row + BLOCK_PX, rows)), (col, min(col + CHECKED_PX, cols))))
    except (RasterioError, CPLE_BaseError) as error:
        raise _unfinished(error) from error


def _unfinished(reason: object) -> OutputError:
    text = " ".join(str(reason).split())
    return OutputError(f"the map could not be written whole ({text}); is the disk full? free some space and run again")


def _write_notes(image: Path, geobox: GeoBox, *, legend: Legend | None, band_names: Sequence[str]) -> None:
    """The `.aux.xml` beside the image, where the image alone cannot hold all that is known."""
    notes = _aux(image)
    notes.unlink(missing_ok=True)
    with unplaced_is_fine(), rasterio.open(image) as file:
        wanted = None if geobox.crs is None else geobox.crs.to_wkt()
        kept = wanted is None or _one_crs(file.crs, rasterio.CRS.from_wkt(wanted))
    if legend is not None or not kept:
        bands = [(name, legend if number == 0 else None) for number, name in enumerate(band_names)]
        notes.write_text(pam_xml(bands, srs=None if kept else wanted), encoding="utf-8")


def _one_crs(found: rasterio.CRS | None, wanted: rasterio.CRS) -> bool:
    # GDAL calls two equal descriptions of a method it does not know unequal.
    return found is not None and bool(found == wanted or found.to_wkt() == wanted.to_wkt())


def _publish(image: Path, out: Path) -> None:
    """Rename the finished files to their places, the image last."""
    for path in (_aux(image), image):
        if path.exists():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    # What a GIS kept beside an older map would be taken for this one's.
    out.with_name(out.name + ".ovr").unlink(missing_ok=True)
    if _aux(image).exists():
        _aux(image).replace(_aux(out))
    else:
        _aux(out).unlink(missing_ok=True)
    image.replace(out)


def _aux(image: Path) -> Path:
    return image.with_name(image.name + ".aux.xml")


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """A folder beside the output that is gone afterwards, whatever happens."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.absolute().parent))
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror or error}") from error
    try:
        yield folder
    except GeosegError:
        raise
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
