"""Polygons from a file or from memory: repaired and indexed once, and kept in their own CRS."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import lazy_loader as lazy
import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.crs import CRS
from pyproj.exceptions import CRSError
from shapely.geometry.base import BaseGeometry

from geoseg.errors import GridError, InputError, MissingInputError, ReadError
from geoseg.io.facts import crs_named
from geoseg.io.grids import same_crs
from geoseg.io.handles import is_remote, one_line
from geoseg.io.moving import Geometries, areal_part, dense_length, moved, on_globe, world_of

logger = logging.getLogger(__name__)
# It imports geopandas, which takes a second that labels in a raster need not wait for.
pyogrio = lazy.load("pyogrio")

RASTER_SUFFIXES = {".tif", ".tiff", ".vrt", ".img", ".jp2", ".png", ".nc", ".asc"}
PARQUET_SUFFIXES = {".parquet", ".geoparquet"}


@dataclass(frozen=True, eq=False)
class Polygons:
    """Polygons in one CRS, in the order of their file.

    Attributes:
        geometries: Valid polygons and multipolygons, `(polygon,)`.
        crs: Their CRS; None only where they lie on a grid without one.
        columns: Attributes, each `(polygon,)`.
    """

    geometries: Geometries
    crs: CRS | None
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.geometries)

    @cached_property
    def tree(self) -> shapely.STRtree:
        """The index by place."""
        return shapely.STRtree(self.geometries)

    @cached_property
    def dense(self) -> Geometries:
        """The polygons with points along their long edges, so that these bend with the CRS they are moved to."""
        return np.asarray(shapely.segmentize(self.geometries, dense_length(self.crs)))

    @cached_property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right, top of all polygons."""
        left, bottom, right, top = shapely.total_bounds(self.geometries)
        return float(left), float(bottom), float(right), float(top)

    @cached_property
    def off_globe(self) -> NDArray[np.bool_]:
        """Which polygons have points that are no place on the globe, as the corners of a map of the world."""
        found, crs = np.zeros(len(self), np.bool_), self.crs
        if crs is None or world_of(crs) is not None:
            return found
        left, bottom, right, top = self.bounds
        x, y = np.meshgrid(np.linspace(left, right, 17), np.linspace(bottom, top, 17))
        if on_globe(x.ravel(), y.ravel(), crs).all():
            return found
        coordinates, index = shapely.get_coordinates(self.dense, return_index=True)
        found[index[~on_globe(coordinates[:, 0], coordinates[:, 1], crs)]] = True
        return found


@dataclass(frozen=True, slots=True)
class PolygonFile:
    """Polygons of a file that OGR or GeoParquet reads: what to read, no open file.

    Attributes:
        path: A file or an address.
        layer: Name of the layer; the first with polygons where None.
        columns: Attributes to read.
        crs: The CRS where the file has none, or instead of the file's.
    """

    path: str
    layer: str | None = None
    columns: tuple[str, ...] = ()
    crs: str | None = None

    def read(self) -> Polygons:
        """The polygons; read once a process while the file stays the same.

        Raises:
            MissingInputError: The file is not there.
            ReadError: It cannot be read.
            GridError: It has no CRS.
            InputError: It has no polygon, or lacks a column.
        """
        return _read(self, _signature(self.path))

    def fields(self) -> tuple[str, ...]:
        """Names of the attributes that the file has.

        Raises:
            MissingInputError: The file is not there.
            ReadError: It cannot be read.
        """
        if Path(self.path).suffix.lower() in PARQUET_SUFFIXES:
            frame = _parquet(self.path)
            return tuple(name for name in frame.columns if name != frame.geometry.name)
        layer = _layer(self.path, self.layer)
        try:
            return tuple(map(str, pyogrio.read_info(self.path, layer=layer)["fields"]))
        except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
            raise ReadError(f"{self.path} cannot be read: {one_line(error)}") from error


def is_vector(path: str) -> bool:
    """Whether a path names a vector file.

    Raises:
        MissingInputError: There is nothing.
    """
    suffix = Path(path).suffix.lower()
    if suffix in RASTER_SUFFIXES or "*" in path:
        return False
    require_file(path)
    if suffix in PARQUET_SUFFIXES:
        return True
    try:
        return len(pyogrio.list_layers(path)) > 0
    except pyogrio.errors.DataSourceError:
        return False


def require_file(path: str) -> None:
    """Nothing, where the file is there or lies on a net.

    Raises:
        MissingInputError: It is not.
    """
    if not is_remote(path) and not path.startswith("/vsi") and not Path(path).exists():
        raise MissingInputError(f"{path} is not there; needed is a file of polygons or a raster")


def from_geometry(geometry: BaseGeometry, crs: CRS | None, *, name: str) -> Polygons:
    """The polygons of one geometry from memory.

    Raises:
        InputError: It has no area.
    """
    return Polygons(_usable(np.array([geometry], dtype=object), name)[0], crs)


def onto_crs(polygons: Polygons, crs: CRS) -> Geometries:
    """The polygons in another CRS, their long edges bent with it.

    Raises:
        GridError: The polygons have no CRS, or no place there.
    """
    source = polygons.crs
    if source is None:
        raise GridError("polygons without a CRS have no place in another; give it with crs: EPSG:...")
    if same_crs(source, crs):
        return polygons.geometries
    found = moved(polygons.dense, source, crs)
    lost = int((shapely.is_missing(found) | polygons.off_globe).sum())
    if lost:
        raise GridError(
            f"{lost} of {len(polygons)} polygons in {source} have no place in {crs}; "
            "needed are polygons inside the area of both, cut them to that"
        )
    return found


def _signature(path: str) -> tuple[int, int]:
    """What changes when a local file is replaced."""
    try:
        stat = Path(path).stat()
    except OSError:
        return 0, 0
    return stat.st_mtime_ns, stat.st_size


@lru_cache(maxsize=16)
def _read(file: PolygonFile, _signature: tuple[int, int]) -> Polygons:
    missing = [name for name in file.columns if name not in file.fields()]
    if missing:
        have = ", ".join(file.fields()) or "none"
        raise InputError(f"{file.path} has no column {', '.join(missing)}; its columns are {have}")
    wkt, geometries, columns = (
        _parquet_content(file) if Path(file.path).suffix.lower() in PARQUET_SUFFIXES else _ogr_content(file)
    )
    crs = crs_named(file.crs) if file.crs else _crs(wkt, file.path)
    usable, kept = _usable(geometries, file.path)
    return Polygons(usable, crs, {name: values[kept] for name, values in columns.items()})


def _crs(wkt: str | None, path: str) -> CRS:
    if not wkt:
        raise GridError(f"{path} has no CRS, so its polygons have no place; give it with crs: EPSG:...")
    try:
        return CRS(wkt)
    except (CRSError, ValueError) as error:
        raise GridError(f"{path} has a CRS that is not understood; give it with crs: EPSG:...") from error


_Content = tuple[str | None, Geometries, dict[str, NDArray[Any]]]


def _ogr_content(file: PolygonFile) -> _Content:
    layer = _layer(file.path, file.layer)
    try:
        meta, _, wkb, fields = pyogrio.raw.read(
            os.fspath(file.path), layer=layer, columns=list(file.columns), force_2d=True
        )
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, ValueError) as error:
        raise ReadError(f"{file.path} cannot be read: {one_line(error)}") from error
    if wkb is None:
        raise InputError(f"layer {layer} of {file.path} has no geometries; needed are polygons")
    columns = dict(zip(map(str, meta["fields"]), fields, strict=True))
    with np.errstate(invalid="ignore"):  # coordinates that are no numbers; they are counted later
        geometries = shapely.from_wkb(wkb, on_invalid="fix" if hasattr(shapely, "make_valid") else "ignore")
    return meta["crs"], np.asarray(geometries, dtype=object), columns


def _parquet(path: str) -> Any:
    import geopandas as gpd

    require_file(path)
    try:
        return gpd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise ReadError(f"{path} cannot be read as GeoParquet: {one_line(error)}") from error


def _parquet_content(file: PolygonFile) -> _Content:
    frame = _parquet(file.path)
    columns = {name: frame[name].to_numpy() for name in file.columns}
    wkt = None if frame.crs is None else frame.crs.to_wkt()
    return wkt, np.asarray(shapely.force_2d(frame.geometry.to_numpy()), dtype=object), columns


def _layer(path: str, wanted: str | None) -> str:
    """Name of the layer to read."""
    require_file(path)
    try:
        layers = pyogrio.list_layers(path).tolist()
    except pyogrio.errors.DataSourceError as error:
        raise ReadError(f"{path} cannot be opened as a vector file: {one_line(error)}") from error
    names = [str(name) for name, _ in layers]
    if wanted is not None and wanted not in names:
        raise InputError(f"{path} has no layer {wanted}; its layers are {', '.join(names)}")
    shaped = [str(name) for name, kind in layers if kind is not None]
    areal = [str(name) for name, kind in layers if kind is not None and "Polygon" in kind]
    found = [wanted] if wanted else areal or shaped
    if not found:
        raise InputError(f"{path} has no layer with geometries; needed are polygons")
    if not wanted and len(found) > 1:
        logger.info("%s has layers %s; the first is read, layer: NAME takes another", path, ", ".join(found))
    return found[0]


def _usable(geometries: Geometries, name: str) -> tuple[Geometries, NDArray[np.int64]]:
    """Valid polygons, and where they stood; what is repaired or left out is counted in the log.

    Raises:
        InputError: None is left.
    """
    if not len(geometries):
        raise InputError(f"{name} is empty; needed is at least one polygon")
    whole = geometries.copy()
    unplaced = _unplaced(geometries)
    whole[unplaced] = None
    broken = ~shapely.is_valid(whole) & ~shapely.is_missing(whole)
    whole[broken] = shapely.make_valid(geometries[broken])
    areal = np.array([areal_part(shape) for shape in whole], dtype=object)
    kept = np.flatnonzero(~shapely.is_missing(areal))
    if not len(kept):
        said = f", {len(unplaced)} have coordinates that are no numbers" if len(unplaced) else ""
        raise InputError(
            f"{name} has {len(geometries)} shapes but no polygon with an area{said}; needed is at least one"
        )
    if len(unplaced):
        logger.warning("%s: %d shapes with coordinates that are no numbers are left out", name, len(unplaced))
    if broken.any() or len(kept) + len(unplaced) < len(geometries):
        logger.warning(
            "%s: %d of %d shapes were repaired, %d without an area are left out",
            name, int(broken.sum()), len(geometries), len(geometries) - len(unplaced) - len(kept),
        )  # fmt: skip
    return areal[kept], kept.astype(np.int64)


def _unplaced(geometries: Geometries) -> NDArray[np.int64]:
    """Where shapes stand with coordinates that are no finite numbers, as a failed reprojection leaves them."""
    coordinates, index = shapely.get_coordinates(geometries, return_index=True)
    return np.unique(index[~np.isfinite(coordinates).all(axis=1)])
