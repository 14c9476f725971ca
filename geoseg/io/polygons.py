"""Polygons from a file or from memory, burnt onto any grid.

Polygons are repaired and indexed once, and stay in their own CRS; what lies near a grid is transformed to the grid's
pixels when it is burnt. A window of a burnt grid is the burnt window: what is burnt at a pixel depends on the polygons
and on that pixel's place alone.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import lazy_loader as lazy
import numpy as np
import rasterio.features
import shapely
from affine import Affine
from numpy.typing import DTypeLike, NDArray
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from pyproj.exceptions import CRSError
from shapely.geometry.base import BaseGeometry

from geoseg.errors import GridError, InputError, MissingInputError, ReadError
from geoseg.io.facts import crs_named
from geoseg.io.grids import same_crs, transform
from geoseg.io.handles import is_remote, one_line, unplaced_is_fine

logger = logging.getLogger(__name__)
# It imports geopandas, which takes a second that labels in a raster need not wait for.
pyogrio = lazy.load("pyogrio")

RASTER_SUFFIXES = {".tif", ".tiff", ".vrt", ".img", ".jp2", ".png", ".nc", ".asc"}
PARQUET_SUFFIXES = {".parquet", ".geoparquet"}
# A straight edge of this length stays within centimetres of itself in any projection made for the place.
DENSE_M = 1000.0
DENSE_DEGREES = 0.01
# Transformed edges leave the straight line by less than this share of the length above.
BEND = 0.01
# Pixel coordinates are rounded to such steps, so that the rounding of a window's origin does not reach the pixels. The
# odd fraction keeps what polygons are drawn to, whole pixels and simple parts of them, away from where rounding flips.
STEPS_PER_PX = float(1 << 20)
ODD = 0.3819
# Shapes are burnt a hundred-thousandth of a pixel right and down, so that no edge runs exactly through a pixel's centre
# or corner, where GDAL's answer depends on where the raster starts. What GDAL decides for upright edges it still does.
NUDGE_COL, NUDGE_ROW = 7 / STEPS_PER_PX, 11 / STEPS_PER_PX

Geometries = NDArray[np.object_]


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
        return np.asarray(shapely.segmentize(self.geometries, _dense_length(self.crs)))

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right, top of all polygons."""
        left, bottom, right, top = shapely.total_bounds(self.geometries)
        return float(left), float(bottom), float(right), float(top)


def _dense_length(crs: CRS | None) -> float:
    if crs is None:
        return math.inf
    if crs.geographic:
        return DENSE_DEGREES
    return DENSE_M / (crs.proj.axis_info[0].unit_conversion_factor or 1)


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


def burn(
    polygons: Polygons,
    values: NDArray[Any],
    geobox: GeoBox,
    *,
    fill: int,
    dtype: DTypeLike,
    all_touched: bool = False,
) -> NDArray[Any]:
    """The value of the last polygon in the file that holds each pixel's centre, `(row, col)`.

    Edges that pass a centre by less than a hundred-thousandth of a pixel may go either way, the same way in any window.

    Args:
        polygons: What to burn.
        values: One value a polygon.
        geobox: The grid.
        fill: Value outside all polygons.
        dtype: Of the result.
        all_touched: Whether a pixel counts that a polygon touches anywhere.

    Raises:
        GridError: The grid has no CRS and the polygons have one, or the other way round.
    """
    indexes, geometries = _placed(polygons, geobox, slack=1)
    if not len(indexes):
        return np.full(tuple(geobox.shape), fill, dtype)
    # In pixels, for rotated and south-up grids; upside down, for rasterio warns where there is no transform, and, where
    # threads are the first to use it, even where there is one.
    upright = shapely.transform(geometries, lambda col, row: (col + NUDGE_COL, -(row + NUDGE_ROW)), interleaved=False)
    with unplaced_is_fine():
        burnt = rasterio.features.rasterize(
            zip(_geojson(upright), values[indexes].tolist(), strict=True), out_shape=tuple(geobox.shape),
            transform=Affine.scale(1, -1), fill=fill, dtype=np.dtype(dtype).name, all_touched=all_touched,
        )  # fmt: skip
    return np.asarray(burnt)


def _geojson(shapes: Geometries) -> list[dict[str, Any]]:
    """Polygons as GeoJSON: what rasterio makes of shapes itself, a few times faster."""
    kind, coordinates, offsets = shapely.to_ragged_array(shapes)
    nested: list[Any] = coordinates.tolist()
    for ends in offsets:
        nested = [nested[start:stop] for start, stop in pairwise(ends.tolist())]
    name = "Polygon" if kind == shapely.GeometryType.POLYGON else "MultiPolygon"
    return [{"type": name, "coordinates": part} for part in nested]


def near(polygons: Polygons, geobox: GeoBox) -> tuple[NDArray[np.int64], Geometries]:
    """Positions, in order, and shapes in pixels `(col, row)` of the polygons whose bounds meet the grid.

    Raises:
        GridError: The grid has no CRS and the polygons have one, or the other way round.
    """
    return _placed(polygons, geobox, slack=0)


def _placed(polygons: Polygons, geobox: GeoBox, *, slack: int) -> tuple[NDArray[np.int64], Geometries]:
    """As `near`, on the grid with `slack` more pixels around it."""
    crs, target = polygons.crs, geobox.crs
    if (crs is None) != (target is None):
        raise GridError("the scene has no CRS, so polygons cannot be placed on it; give it one with crs: EPSG:...")
    place = _neighbourhood(geobox, crs)
    hits = np.arange(len(polygons)) if place is None else np.sort(polygons.tree.query(shapely.box(*place)))
    if same_crs(crs, target):
        moved = _moved(polygons.geometries[hits], None, geobox)
    else:
        moved = _moved(_cut(polygons.dense[hits], place, _dense_length(crs)), crs, geobox)
    meets = _meets(moved, geobox, slack)
    return hits[meets].astype(np.int64), moved[meets]


def _cut(shapes: Geometries, place: tuple[float, float, float, float] | None, length: float) -> Geometries:
    """What of `shapes`, whose edges are no longer than `length`, may meet `place`; all where that is None.

    An edge cut in two bends otherwise than the whole one, so the cut runs where no edge that meets the place is cut.
    """
    if place is None:
        return shapes
    rect = place[0] - length, place[1] - length, place[2] + length, place[3] + length
    left, bottom, right, top = shapely.bounds(shapes).reshape(-1, 4).T
    beyond = (left < rect[0]) | (bottom < rect[1]) | (right > rect[2]) | (top > rect[3])
    found = shapes.copy()
    cut = shapely.clip_by_rect(shapes[beyond], *rect)
    short, long = sorted((rect[2] - rect[0], rect[3] - rect[1]))
    # Edges along a long cut get points too, or they would bend into the place; all others are shorter than that.
    found[beyond] = shapely.segmentize(cut, max(short / 16, 2 * length)) if long > 64 * length else cut
    return found


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
    moved = shapely.transform(polygons.dense, lambda x, y: transform(x, y, source, crs), interleaved=False)
    if not np.isfinite(shapely.bounds(moved)).all():
        raise GridError(f"polygons in {source} have no place in {crs}")
    return np.asarray(moved)


def _meets(shapes: Geometries, geobox: GeoBox, slack: int) -> NDArray[np.bool_]:
    """Which shapes in pixels have bounds within `slack` of the grid; shapes without a place there do not."""
    rows, cols = geobox.shape
    left, top, right, bottom = shapely.bounds(shapes).reshape(-1, 4).T
    with np.errstate(invalid="ignore"):
        meets = (left < cols + slack) & (right > -slack) & (top < rows + slack) & (bottom > -slack)
        return np.asarray(meets & np.isfinite(right + bottom))


def _moved(shapes: Geometries, crs: CRS | None, geobox: GeoBox) -> Geometries:
    """Shapes of `crs` (None: the grid's own) in pixels `(col, row)` of the grid."""
    inverse = ~geobox.affine

    def onto(x: NDArray[Any], y: NDArray[Any]) -> tuple[Any, Any]:
        if crs is not None and geobox.crs is not None:
            x, y = transform(x, y, crs, geobox.crs)
        col, row = inverse @ (x, y)
        return _rounded(col), _rounded(row)

    return np.asarray(shapely.transform(shapes, onto, interleaved=False))


def _rounded(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.floor(pixels * STEPS_PER_PX + ODD) / STEPS_PER_PX)


def _neighbourhood(geobox: GeoBox, crs: CRS | None) -> tuple[float, float, float, float] | None:
    """Left, bottom, right, top around the grid in `crs`; None where the grid has no simple place there."""
    rows, cols = geobox.shape
    col, row = np.meshgrid(np.linspace(-1, cols + 1, 17), np.linspace(-1, rows + 1, 17))
    x, y = map(np.ravel, cast("Any", geobox.affine) @ (col, row))
    if crs is not None and geobox.crs is not None:
        x, y = transform(x, y, geobox.crs, crs)
    wide, high = float(np.ptp(x)), float(np.ptp(y))
    if not math.isfinite(wide + high):
        return None
    if crs is not None and crs.geographic and wide > 180:
        # Around a pole or across the antimeridian: all the way round, twice for those who count from 0 to 360.
        x, wide = np.array([-360.0, 360.0]), 0.0
    bend = 0.0 if same_crs(crs, geobox.crs) else _dense_length(crs) * BEND
    across, along = wide / 10 + bend, high / 10 + bend
    return float(x.min()) - across, float(y.min()) - along, float(x.max()) + across, float(y.max()) + along


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
    broken = ~shapely.is_valid(geometries) & ~shapely.is_missing(geometries)
    whole = geometries.copy()
    whole[broken] = shapely.make_valid(geometries[broken])
    areal = np.array([_areal(shape) for shape in whole], dtype=object)
    kept = np.flatnonzero(~shapely.is_missing(areal))
    if not len(kept):
        raise InputError(f"{name} has {len(geometries)} shapes but no polygon with an area; needed is at least one")
    if broken.any() or len(kept) < len(geometries):
        logger.warning(
            "%s: %d of %d shapes were repaired, %d without an area are left out",
            name, int(broken.sum()), len(geometries), len(geometries) - len(kept),
        )  # fmt: skip
    return areal[kept], kept.astype(np.int64)


def _areal(shape: BaseGeometry | None) -> BaseGeometry | None:
    """The polygons of a shape; None where it has none."""
    if shape is None or shape.is_empty or shapely.get_dimensions(shape) < 2:
        return None
    if shape.geom_type in ("Polygon", "MultiPolygon"):
        return shape
    return shapely.MultiPolygon(list(_flat(shape.geoms)))


def _flat(shapes: Iterable[BaseGeometry]) -> Iterable[BaseGeometry]:
    for shape in shapes:
        if hasattr(shape, "geoms"):
            yield from _flat(shape.geoms)
        elif shape.geom_type == "Polygon" and not shape.is_empty:
            yield shape
