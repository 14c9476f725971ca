"""Open datasets: few, one a thread and a file, and GDAL's errors in one line."""

from __future__ import annotations

import logging
import os
import re
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from geoseg.errors import MissingInputError, ReadError

log = logging.getLogger(__name__)

OPEN_PER_THREAD = 64
"""Files that a thread keeps open, and as many overviews of files."""

GDAL_ERRORS = (RasterioError, CPLE_BaseError)
"""What rasterio raises when GDAL fails."""

REMOTE = ("http://", "https://", "s3://", "gs://", "az://", "/vsicurl", "/vsis3", "/vsigs", "/vsiaz")

GDAL_OPTIONS: dict[str, Any] = {
    # GDAL's own default is a twentieth of all memory, so that memory would grow with the scene.
    "GDAL_CACHEMAX": 128 << 20,
}

REMOTE_OPTIONS: dict[str, Any] = {
    # Without these GDAL lists the folder and looks for side files, one request each.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_INGESTED_BYTES_AT_OPEN": 32768,
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": True,
    "GDAL_HTTP_MAX_RETRY": 3,
    "GDAL_HTTP_RETRY_DELAY": 0.5,
    "GDAL_HTTP_CONNECTTIMEOUT": 10,
    "GDAL_HTTP_TIMEOUT": 60,
}

_local = threading.local()
_quiet = threading.RLock()


def is_remote(path: str) -> bool:
    """Whether `path` is read over a net."""
    return path.startswith(REMOTE)


@contextmanager
def gdal(path: str) -> Iterator[None]:
    """GDAL set up for `path`, its messages logged instead of printed."""
    with rasterio.Env(**GDAL_OPTIONS, **(REMOTE_OPTIONS if is_remote(path) else {})):
        yield


def one_line(error: BaseException) -> str:
    """What went wrong, from the first cause on, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return re.sub(r"\s+", " ", str(error)).strip() or type(error).__name__


def _signature(path: str) -> tuple[int, int] | None:
    """What changes when a local file is replaced; None where there is no such file."""
    try:
        stat = os.stat(path)  # noqa: PTH116 (a path may be a GDAL name such as netcdf:file:variable)
    except (OSError, ValueError):
        return None
    return stat.st_mtime_ns, stat.st_size


@contextmanager
def unplaced_is_fine() -> Iterator[None]:
    """Silence about rasters without a geotransform; they are legitimate, or refused in words of our own."""
    # The lock keeps threads from restoring each other's warning filters.
    with _quiet, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def _open(path: str, options: dict[str, Any]) -> Any:
    with unplaced_is_fine():
        return rasterio.open(path, **options)


def _cache(*, overviews: bool = False) -> OrderedDict[Any, Any]:
    """This thread's open files, or overviews; none of another process, whose file offsets a fork would share."""
    if getattr(_local, "pid", None) != os.getpid():
        _local.pid, _local.open = os.getpid(), (OrderedDict(), OrderedDict())
    found: OrderedDict[Any, Any] = _local.open[overviews]
    return found


def file_key(path: str) -> tuple[str, tuple[int, int] | None]:
    """The path, and what changes when a local file is replaced."""
    return path, _signature(path)


def open_afresh(path: str, **options: Any) -> Any:
    """A newly opened dataset of `path`, with GDAL's `options`, for the caller to close; to be used within `gdal(path)`.

    Raises:
        MissingInputError: There is nothing at `path`.
        ReadError: GDAL cannot open it.
    """
    try:
        found = _open(path, options)
    except (*GDAL_ERRORS, ValueError, IndexError) as error:
        raise _open_error(path, error) from error
    log.debug("opened %s", path)
    return found


def dataset(path: str, *, overview: int | None = None) -> Any:
    """The open dataset of `path`, or of one of its overviews, for this thread, not to be closed; within `gdal(path)`.

    Raises:
        MissingInputError: There is nothing at `path`.
        ReadError: GDAL cannot open it.
    """
    cache, key = _cache(overviews=overview is not None), (*file_key(path), overview)
    if key not in cache:
        cache[key] = open_afresh(path, **({} if overview is None else {"overview_level": overview}))
    cache.move_to_end(key)
    while len(cache) > OPEN_PER_THREAD:
        cache.popitem(last=False)[1].close()
    return cache[key]


def forget(path: str) -> None:
    """Close this thread's datasets of `path`.

    After a failure a dataset is not to be trusted: a VRT whose file is missing says so once, then reads as zeros.
    """
    file = file_key(path)
    for cache in (_cache(), _cache(overviews=True)):
        for key in [key for key in cache if key[:2] == file]:
            cache.pop(key).close()


def _open_error(path: str, error: Exception) -> MissingInputError | ReadError:
    reason = one_line(error)
    plain = not is_remote(path) and "://" not in path and not path.startswith("/vsi")
    if (plain and _signature(path) is None and not re.match(r"^\w{2,}:", path)) or re.search(
        r"No such file|does not exist|response code: 404", reason
    ):
        return MissingInputError(f"{path} is not there; needed is a raster that GDAL opens")
    if plain and Path(path).is_dir():
        return ReadError(f"{path} is a folder; needed is a raster, or a pattern such as {path.rstrip('/')}/*.tif")
    return ReadError(f"{path} cannot be opened as a raster: {reason}")
