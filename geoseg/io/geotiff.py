"""A Raster in memory becomes a file that anybody can open."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from geoseg.errors import InputError
from geoseg.io.cog import write_cog, write_part
from geoseg.io.gdal import equals_nodata
from geoseg.io.outputs import check_output
from geoseg.legend import Legend
from geoseg.raster import Raster


def _holds(dtype: np.dtype[Any], value: float) -> bool:
    """Whether pixels of a dtype can have a value."""
    if dtype.kind not in "iu":
        return True
    limits = np.iinfo(dtype)
    return math.isfinite(value) and value == int(value) and limits.min <= value <= limits.max


def write_raster(
    raster: Raster,
    out: str | Path,
    *,
    nodata: float | None = None,
    legend: Legend | None = None,
    overwrite: bool = False,
) -> Path:
    """The path of a Cloud-Optimized GeoTIFF with all bands, their names and, for class ids, the legend.

    Args:
        raster: What to write.
        out: The file.
        nodata: Value to write, and to declare, at invalid pixels; the legend's ignore value by default.
        legend: The classes, where the raster holds class ids.
        overwrite: Whether an existing file may be replaced.

    Raises:
        InputError: There are invalid pixels and no value to mark them with, or one that the dtype cannot hold.
        OutputExistsError: The file exists and was not to be overwritten.
        OutputError: The file cannot be written; nothing is left behind.
    """
    path = check_output(out, overwrite=overwrite)
    mark = legend.ignore if nodata is None and legend is not None else nodata
    pixels = raster.pixels
    if not raster.valid.all() and (mark is None or not _holds(raster.dtype, mark)):
        raise InputError(f"{path} needs a nodata value that {raster.dtype} can hold, got {mark}")
    if mark is not None and _holds(raster.dtype, mark):
        if (equals_nodata(pixels, mark) & raster.valid).any():
            raise InputError(f"{path} cannot have nodata {mark:g}: valid pixels have that value; choose another nodata")
        pixels = np.where(raster.valid, pixels, raster.dtype.type(mark))
    with tempfile.TemporaryDirectory(prefix=".geoseg-", dir=path.absolute().parent) as folder:
        part = write_part(Path(folder) / "part.tif", pixels, geobox=raster.geobox, nodata=mark)
        return write_cog(
            [part],
            path,
            geobox=raster.geobox,
            dtype=raster.dtype,
            nodata=mark,
            legend=legend,
            resampling="mode" if legend else "average",
            band_names=raster.bands,
            overwrite=overwrite,
        )
