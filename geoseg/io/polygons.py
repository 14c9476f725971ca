"""Polygons from a file or from memory: repaired and indexed once, and kept in their own CRS."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import lazy_loader as lazy
import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.crs import CRS
from pyproj.exceptions import CRSError
from shapely.geometry.base import BaseGeometry

from geoseg.errors import GridError, InputError, MissingInputError, ReadError
from geoseg.io.facts import crs_named
from geoseg.io.grids import same_crs, transform, turn_of
from geoseg.io.handles import is_remote, one_line

logger = logging.getLogger(__name__)
# It imports geopandas, which takes a second that labels in a raster need not wait for.
pyogrio = lazy.load("pyogrio")

RASTER_SUFFIXES = {".tif", ".tiff", ".vrt", ".img", ".jp2", ".png", ".nc", ".asc"}
PARQUET_SUFFIXES = {".parquet", ".geoparquet"}
# A straight edge of this length stays within centimetres of itself in any projection made for the place.
DENSE_M = 1000.0
DENSE_DEGREES = 0.01
# Edges that long, in lengths of the above, are looked at: a projection may be torn between their ends.
LEAP = 100
# A point off the globe comes back from longitude and latitude elsewhere, by more than this.
OFF_M = 10.0
Geometries = NDArray[np.object_]
Floats = NDArray[np.float64]


class World(NamedTuple):
    """The globe in a CRS whose first axis is longitude, evenly and at all latitudes."""

    left: float
    bottom: float
    right: float
    top: float

    @property
    def turn(self) -> float:
        """Once around."""
        return self.right - self.left


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


def dense_length(crs: CRS | None) -> float:
    """Length, in units of a CRS, that the edges of `Polygons.dense` stay within."""
    if crs is None:
        return math.inf
    if crs.geographic:
        return DENSE_DEGREES
    return DENSE_M / (crs.proj.axis_info[0].unit_conversion_factor or 1)


@lru_cache(maxsize=256)
def _longitudes(crs: CRS) -> CRS | None:
    """Longitude and latitude on the datum of a CRS; None where it lies on no globe."""
    base = crs.proj.geodetic_crs
    return None if base is None else CRS(base)


@lru_cache(maxsize=256)
def world_of(crs: CRS) -> World | None:
    """The globe in a geographic or cylindrical CRS, as Mercator; None for all others."""
    turn = turn_of(crs)
    if turn is not None:
        return World(-turn / 2, -turn / 4, turn / 2, turn / 4)
    base, operation = _longitudes(crs), crs.proj.coordinate_operation
    if base is None or operation is None:
        return None
    full = turn_of(base) or 360.0
    lon, lat = np.meshgrid(np.arange(-4, 5) * full / 8, np.array([-1, 0, 1]) * full / 6)
    x, y = transform(lon, lat, base, crs)
    steps = np.diff(x)
    turn = 8 * float(np.median(steps))
    middle = sum(float(each.value) for each in operation.params if each.name == "False easting")
    # Where the world is cut an eighth of a turn leads back to the other side; NaN fails everything here.
    uneven = np.abs(np.mod(steps + turn * 3 / 8, turn) - turn / 2).max() if turn > 0 else math.inf
    if not max(uneven, np.ptp(y, axis=1).max(), np.abs(x - middle).max() - turn / 2) < 1e-6 * turn:
        return None
    _, poles = transform(np.zeros(2), np.array([-1, 1]) * full / 4, base, crs)
    bottom, top = np.where(np.isfinite(poles), poles, np.array([-10, 10]) * turn).tolist()
    return World(middle - turn / 2, bottom, middle + turn / 2, top)


def on_globe(x: Floats, y: Floats, crs: CRS) -> NDArray[np.bool_]:
    """Which points of a CRS are a place on the globe; in a geographic one all are."""
    base = _longitudes(crs)
    if base is None or crs.geographic:
        return np.isfinite(x) & np.isfinite(y)
    back_x, back_y = transform(*transform(x, y, crs, base), base, crs)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.hypot(back_x - x, back_y - y) <= dense_length(crs) * OFF_M / DENSE_M)


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


def moved(
    shapes: Geometries, source: CRS, target: CRS, onto: Callable[[Floats, Floats], tuple[Floats, Floats]] | None = None
) -> Geometries:
    """Shapes of one CRS in another; those that the antimeridian or a pole cuts there in pieces.

    Args:
        shapes: Polygons with points along their long edges.
        source: Their CRS.
        target: Another one.
        onto: What is done to coordinates of `target` at last.

    Returns:
        The shapes; None where one has no place, or is torn otherwise.
    """
    coordinates, index = shapely.get_coordinates(shapes, return_index=True)
    x, y = transform(coordinates[:, 0], coordinates[:, 1], source, target)
    suspects = np.union1d(_suspects(x, y, index, target), _inverted(shapes, (x, y), source))
    x, y = (x, y) if onto is None else onto(x, y)
    found, plain = shapes.copy(), np.ones(len(shapes), np.bool_)
    plain[suspects] = False
    kept = plain[index] if len(suspects) else slice(None)
    found[plain] = shapely.set_coordinates(shapes[plain], np.column_stack([x[kept], y[kept]]))
    for place in suspects.tolist():
        shape = _untorn(shapes[place], source, target)
        found[place] = shape if shape is None or onto is None else shapely.transform(shape, onto, interleaved=False)
    return found


def _suspects(x: Floats, y: Floats, index: NDArray[np.int64], crs: CRS) -> NDArray[np.int64]:
    """Shapes, by their place in `index`, with a point that has no place or an edge that leaps."""
    world = world_of(crs)
    with np.errstate(invalid="ignore"):
        if world is not None:
            leaps = ~(np.abs(np.diff(x)) <= world.turn / 2)
        else:
            leaps = ~(np.abs(np.diff(x)) + np.abs(np.diff(y)) <= LEAP * dense_length(crs))
    return np.unique(index[1:][leaps & (index[1:] == index[:-1])])


def _inverted(shapes: Geometries, there: tuple[Floats, Floats], crs: CRS) -> NDArray[np.int64]:
    """Wide shapes of `crs` with a ring that runs the other way round `there`, for it holds what has no place there."""
    left, bottom, right, top = shapely.bounds(shapes).reshape(-1, 4).T
    wide = np.fmax(right - left, top - bottom) > 10 * LEAP * dense_length(crs)
    if not wide.any():
        return np.zeros(0, np.int64)
    parts, owner = shapely.get_parts(shapes[wide], return_index=True)
    rings, of_part = shapely.get_rings(parts, return_index=True)
    here, index = shapely.get_coordinates(shapes, return_index=True)
    stops, of_wide = np.cumsum(shapely.get_num_coordinates(rings)), wide[index]
    flipped = _areas(here[of_wide], stops) * _areas(np.column_stack(there)[of_wide], stops) < 0
    return np.asarray(np.flatnonzero(wide)[np.unique(owner[of_part[flipped]])], dtype=np.int64)


def _areas(points: Floats, stops: NDArray[np.int64]) -> Floats:
    """Twice the area of each ring, less than nothing where it runs clockwise; rings lie one after the other."""
    x, y = points.T
    cross = np.zeros_like(x)
    with np.errstate(invalid="ignore", over="ignore"):
        cross[:-1] = (x[1:] - x[:-1]) * (y[1:] + y[:-1])
        cross[stops - 1] = 0
        return -np.add.reduceat(cross, np.concatenate([[0], stops[:-1]]))


def _untorn(shape: BaseGeometry, source: CRS, target: CRS) -> BaseGeometry | None:
    """A shape in another CRS where some edges leap; None where it has no place there in pieces that are known."""
    world, found = world_of(target), []
    for ring in map(shapely.get_coordinates, shapely.get_rings(shapely.get_parts(shape))):
        there = np.column_stack(transform(ring[:, 0], ring[:, 1], source, target))
        if not np.isfinite(there).all() or (world is None and _is_torn(ring, there, source, target)):
            return None
        turns = 0 if world is None else _unwind(there, world.turn)
        stop = np.array([len(ring)])
        if not turns and _areas(ring, stop)[0] * _areas(there, stop)[0] < 0:
            return None
        found.append(there)
    if world is not None:
        return _unrolled(shape, found, world)
    return shapely.set_coordinates(shape, np.concatenate(found))


def _is_torn(ring: Floats, there: Floats, source: CRS, target: CRS) -> bool:
    """Whether the middle of a long edge of `ring` is not about the middle of that edge `there`."""
    edges = np.diff(there, axis=0)
    long = np.abs(edges).sum(axis=1) > LEAP * dense_length(target)
    middle = (ring[:-1] + ring[1:])[long] / 2
    off = np.column_stack(transform(middle[:, 0], middle[:, 1], source, target)) - (there[:-1] + there[1:])[long] / 2
    return not bool((np.hypot(off[:, 0], off[:, 1]) <= np.hypot(edges[long, 0], edges[long, 1]) / 4).all())


def _unwind(points: Floats, turn: float) -> int:
    """How often a ring goes around the globe to the east; its longitudes are made ones without leaps, in place."""
    points[1:, 0] -= turn * np.cumsum(np.round(np.diff(points[:, 0]) / turn))
    return round(float(points[-1, 0] - points[0, 0]) / turn)


def _unrolled(shape: BaseGeometry, rings: list[Floats], world: World) -> BaseGeometry | None:
    """A shape whose rings, without leaps, are given in another CRS, cut along the antimeridian of that."""
    unwound, parts = iter(rings), []
    for part in shapely.get_parts(shape):
        outer, *holes = (_inside(next(unwound), world, ccw=bool(ring.is_ccw)) for ring in shapely.get_rings(part))
        parts.append(shapely.difference(outer, shapely.union_all(holes)))
    return _areal(shapely.union_all(parts))


def _inside(points: Floats, world: World, *, ccw: bool) -> BaseGeometry:
    """What a ring on the globe holds; `ccw` where that is on the ring's left."""
    turn, (first, last) = world.turn, points[[0, -1], 0].tolist()
    if turns := round((last - first) / turn):
        # Going east the north is on the left.
        pole = world.top if (turns > 0) == ccw else world.bottom
        points = np.vstack([points, [[last, pole], [first, pole]]])
    whole = shapely.make_valid(shapely.Polygon(points))
    laps = range(
        math.ceil((world.left - points[:, 0].max()) / turn), math.floor((world.right - points[:, 0].min()) / turn) + 1
    )
    copies = [shapely.transform(whole, lambda xy, by=by * turn: xy + np.array([by, 0])) for by in laps]
    return shapely.union_all(shapely.intersection(np.array(copies, dtype=object), shapely.box(*world)))


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
    areal = np.array([_areal(shape) for shape in whole], dtype=object)
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
