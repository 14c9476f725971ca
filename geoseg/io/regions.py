"""Regions: the part of a scene that a user means, as a mask, a window or an outline."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from shapely.geometry import mapping, shape
from shapely.geometry.base import BaseGeometry

from geoseg.errors import GridError, InputError
from geoseg.io.burning import burn, near
from geoseg.io.facts import crs_named
from geoseg.io.grids import aligned, apply
from geoseg.io.pixel_maps import PixelMap
from geoseg.io.polygons import PolygonFile, Polygons, from_geometry, onto_crs
from geoseg.tiling import Window

RegionSpec = str | Path | Mapping[str, Any] | None
"""Nothing (all of it), the path of a polygon file, or a mapping; see `region_mask`."""

WGS84 = "EPSG:4326"
# What reaches beyond the globe is outlined to a quarter of a degree.
WORLD = GeoBox((720, 1440), Affine(0.25, 0, -180, 0, -0.25, 90), WGS84)
STRIP_PX = 1 << 21
KNOWN = "{rows: [start, stop], cols: [start, stop]}, {bbox: [left, bottom, right, top]}, a polygon file or GeoJSON"


@dataclass(frozen=True)
class Area:
    """A region of a scene, read once; a value that can be pickled.

    Attributes:
        region: Pixels of the scene, or polygons in any CRS.
        grid: The scene.
    """

    region: Window | Polygons
    grid: GeoBox

    def mask(self, geobox: GeoBox) -> NDArray[np.bool_]:
        """Which pixels of `geobox` have their centre inside, `(row, col)`."""
        if isinstance(self.region, Window):
            return _mask_of_window(self.region, self.grid, geobox)
        ones = np.ones(len(self.region), np.uint8)
        return burn(self.region, ones, geobox, fill=0, dtype=np.uint8).astype(bool)

    def window(self, geobox: GeoBox) -> Window:
        """A window of `geobox` outside which the region has no pixel; snug where the region is one of whole pixels."""
        region, whole = self.region, Window(0, 0, *geobox.shape)
        if isinstance(region, Window):
            place = aligned(self.grid, geobox)
            if place is not None and place.factors == (1, 1):
                moved = Window(region.row_off - place.row, region.col_off - place.col, region.rows, region.cols)
                return moved.intersect(whole)
            region = from_geometry(_outline(region, self.grid), self.grid.crs, name="the region")
        shapes = near(region, geobox)[1]
        if not len(shapes):
            return Window(0, 0, 0, 0)
        left, top, right, bottom = shapely.total_bounds(shapes)
        row, col = int(np.floor(top)) - 1, int(np.floor(left)) - 1
        return Window(row, col, int(np.ceil(bottom)) + 1 - row, int(np.ceil(right)) + 1 - col).intersect(whole)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the region, in hexadecimal: the same region again gives the same."""
        if isinstance(self.region, Window):
            return hashlib.sha256(repr(self.region).encode()).hexdigest()
        found = hashlib.sha256(str(self.region.crs).encode())
        found.update(b"".join(shapely.to_wkb(self.region.geometries)))
        return found.hexdigest()


def open_area(spec: RegionSpec, grid: GeoBox) -> Area:
    """The area that a spec, as for `region_mask`, means on a scene.

    Raises:
        InputError: The spec makes no sense, is empty, or does not touch the scene.
        MissingInputError: The polygon file is not there.
        GridError: The scene has no CRS and the region has one.
    """
    return Area(_parsed(spec, grid), grid)


def region_mask(spec: RegionSpec, geobox: GeoBox, *, grid: GeoBox | None = None) -> NDArray[np.bool_]:
    """Which pixels of `geobox` have their centre inside the region, `(row, col)`.

    Args:
        spec: One of

            - None: everywhere;
            - `{rows: [start, stop], cols: [start, stop]}`: half-open ranges of pixels of `grid`, either may be left
              out, and null is an open end;
            - `{bbox: [left, bottom, right, top], crs: "EPSG:..."}`, by default in the CRS of `grid`;
            - the path of a polygon file, or `{path: P, layer: ..., crs: ...}`;
            - a GeoJSON geometry, feature or collection, by default in longitude and latitude (WGS 84).
        geobox: The grid asked about; it may be a piece of `grid`, or any other grid.
        grid: The scene that the region is a part of; `geobox` itself by default.

    Raises:
        InputError: The spec makes no sense, is empty, or does not touch the scene.
        MissingInputError: The polygon file is not there.
        GridError: The scene has no CRS and the region has one.
    """
    mask = open_area(spec, geobox if grid is None else grid).mask(geobox)
    if grid is None and not mask.any():
        raise InputError(f"the region {spec} holds no pixel of the scene; needed is an area of at least one pixel")
    return mask


def region_window(spec: RegionSpec, geobox: GeoBox, *, grid: GeoBox | None = None) -> Window:
    """A window of `geobox` outside which the region has no pixel; snug where the region is one of whole pixels.

    Args:
        spec: As for `region_mask`.
        geobox: The grid asked about.
        grid: The scene that the region is a part of; `geobox` itself by default.

    Raises:
        InputError: As `region_mask`.
        MissingInputError: The polygon file is not there.
        GridError: The scene has no CRS and the region has one.
    """
    return open_area(spec, geobox if grid is None else grid).window(geobox)


def region_geojson(spec: RegionSpec, grid: GeoBox) -> dict[str, Any] | None:
    """The region's outline inside the scene as a GeoJSON geometry in longitude and latitude (WGS 84).

    None where the scene has no CRS.

    Raises:
        InputError: As `region_mask`.
        MissingInputError: The polygon file is not there.
    """
    region = _parsed(spec, grid)
    if grid.crs is None:
        return None
    if isinstance(region, Window):
        outline = _outline(region, grid)
    else:
        outline = _on_grid(region, grid).intersection(_outline(Window(0, 0, *grid.shape), grid))
    lonlat = _on_grid(from_geometry(outline, grid.crs, name="the region"), WORLD)
    return dict(mapping(shapely.set_precision(shapely.simplify(lonlat, 1e-7), 1e-7)))


def _on_grid(region: Polygons, grid: GeoBox) -> BaseGeometry:
    """A region in the CRS of a grid; to whole pixels of the grid where it has no other place there."""
    try:
        return shapely.union_all(onto_crs(region, cast("CRS", grid.crs)))
    except GridError:
        pixels = shapely.union_all(near(region, grid)[1])
        return shapely.transform(pixels, lambda *xy: apply(grid.affine, *xy), interleaved=False)


def _parsed(spec: RegionSpec, grid: GeoBox) -> Window | Polygons:
    """The region as pixels of `grid`, or as polygons; it touches the grid."""
    if spec is None:
        return Window(0, 0, *grid.shape)
    if isinstance(spec, str | Path):
        return _touching(PolygonFile(str(spec)).read(), grid, spec)
    if not isinstance(spec, Mapping) or not spec:
        raise InputError(f"a region cannot be {spec!r}; needed is {KNOWN}")
    if "type" in spec:
        return _touching(_from_geojson(spec), grid, spec.get("type"))
    for kind, keys in (("bbox", {"bbox", "crs"}), ("path", {"path", "layer", "crs"}), ("", {"rows", "cols"})):
        if kind in spec or not kind:
            stray = sorted(set(map(str, spec)) - keys)
            if stray:
                raise InputError(f"a region has no key {', '.join(stray)}; needed is {KNOWN}")
            break
    if "bbox" in spec:
        return _touching(_from_bbox(spec, grid), grid, spec)
    if "path" in spec:
        file = PolygonFile(str(spec["path"]), spec.get("layer"), crs=_crs_text(spec.get("crs")))
        return _touching(file.read(), grid, spec["path"])
    row, rows = _range("rows", spec.get("rows"), grid.shape[0])
    col, cols = _range("cols", spec.get("cols"), grid.shape[1])
    return Window(row, col, rows, cols)


def _range(axis: str, given: Any, size: int) -> tuple[int, int]:
    """First pixel and number of pixels of a half-open range, inside the scene.

    Raises:
        InputError: It is no range, or holds no pixel of the scene.
    """
    if given is None:
        return 0, size
    if isinstance(given, str) or not isinstance(given, list | tuple) or len(given) != 2:
        raise InputError(f"{axis}: needed is [start, stop] in pixels, null for an open end, got {given!r}")
    if any(end is not None and (isinstance(end, bool) or not isinstance(end, int)) for end in given):
        raise InputError(f"{axis}: needed are whole numbers of pixels or null, got {given!r}")
    start, stop = (0 if given[0] is None else given[0]), (size if given[1] is None else given[1])
    if start < 0 or stop < 0:
        raise InputError(f"{axis}: {given!r} counts pixels below 0; needed are 0 to {size}")
    if stop <= start:
        raise InputError(f"the region is empty: {axis} from {start} to {stop}; needed is a stop above the start")
    if start >= size:
        raise InputError(f"the region lies outside the scene: {axis} from {start} on, the scene has {size}")
    return start, min(stop, size) - start


def _from_bbox(spec: Mapping[str, Any], grid: GeoBox) -> Polygons:
    given = spec["bbox"]
    if not isinstance(given, list | tuple) or len(given) != 4 or not all(_is_number(part) for part in given):
        raise InputError(f"bbox: needed is [left, bottom, right, top], got {given!r}")
    left, bottom, right, top = map(float, given)
    if left >= right or bottom >= top:
        raise InputError(f"the region is empty: bbox {list(given)}; needed is left below right and bottom below top")
    crs = _crs_text(spec.get("crs"))
    return from_geometry(shapely.box(left, bottom, right, top), crs_named(crs) if crs else grid.crs, name="the bbox")


def _from_geojson(spec: Mapping[str, Any]) -> Polygons:
    try:
        with np.errstate(invalid="ignore"):  # coordinates that are no numbers; they are told of below
            geometry = _geometry(spec)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, shapely.errors.ShapelyError) as error:
        raise InputError(f"the region is no GeoJSON geometry: {error}; needed is a polygon with coordinates") from error
    crs = spec.get("crs")
    return from_geometry(
        geometry, crs_named(_crs_text(crs) or WGS84 if isinstance(crs, str | int) else WGS84), name="the region"
    )


def _geometry(spec: Mapping[str, Any]) -> BaseGeometry:
    if spec["type"] == "FeatureCollection":
        return shapely.union_all([_geometry(feature) for feature in spec["features"]])
    if spec["type"] == "Feature":
        return _geometry(spec["geometry"])
    return shape({key: value for key, value in spec.items() if key != "crs"})


def _touching(region: Polygons, grid: GeoBox, name: object) -> Polygons:
    """The region, where its bounds meet the scene.

    Raises:
        InputError: They do not.
    """
    if (region.crs is None) != (grid.crs is None):
        raise GridError("the scene has no CRS, so the region cannot be placed on it; use {rows: [...], cols: [...]}")
    if not len(near(region, grid)[0]):
        raise InputError(f"the region {name} does not touch the scene; give one of the same place, or mend its CRS")
    return region


def _mask_of_window(region: Window, scene: GeoBox, geobox: GeoBox) -> NDArray[np.bool_]:
    """Pixels of `geobox` whose centre lies in a window of `scene`."""
    mask = np.zeros(tuple(geobox.shape), np.bool_)
    place = aligned(scene, geobox)
    if place is not None and place.factors == (1, 1):
        inside = Window(region.row_off - place.row, region.col_off - place.col, region.rows, region.cols)
        mask[inside.intersect(Window(0, 0, *geobox.shape)).slices] = True
        return mask
    if (scene.crs is None) != (geobox.crs is None):
        raise GridError(
            "of the scene and the grid asked about only one has a CRS; give the other one with crs: EPSG:..."
        )
    pixels = PixelMap.between(geobox, scene)
    rows, cols = geobox.shape
    step = max(1, STRIP_PX // cols)
    for start in range(0, rows, step):
        strip = Window(start, 0, min(step, rows - start), cols)
        row, col = pixels.coordinates(strip)
        with np.errstate(invalid="ignore"):
            inside_rows = (row >= region.row_off) & (row < region.row_stop)
            mask[strip.slices] = inside_rows & (col >= region.col_off) & (col < region.col_stop)
    return mask


def _outline(window: Window, grid: GeoBox) -> BaseGeometry:
    """The border of a window in the grid's CRS."""
    box = shapely.box(window.col_off, window.row_off, window.col_stop, window.row_stop)
    affine = grid.affine

    def onto(col: NDArray[Any], row: NDArray[Any]) -> tuple[Any, Any]:
        x, y = affine @ cast("Any", (col, row))
        return x, y

    return shapely.transform(box, onto, interleaved=False)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def _crs_text(given: Any) -> str | None:
    return None if given is None else f"EPSG:{given}" if isinstance(given, int) else str(given)
