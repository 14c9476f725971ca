"""The STAC Item of a map: what it is, where it lies and what made it, for catalogues.

STAC 1.1 with the extensions projection 2.0, classification 2.0, processing 1.2 and file 2.1, as plain dictionaries.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from pyproj.exceptions import ProjError
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from geoseg.errors import GridError, OutputError
from geoseg.io.grids import apply
from geoseg.io.moving import areal_part
from geoseg.io.regions import region_geojson
from geoseg.legend import Legend

EXTENSIONS = (
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
    "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
)
COG_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"
CHUNK_BYTES = 1 << 20
SIDE_POINTS = 8  # a straight side on the map is a curve in longitude and latitude
WORLD = (-180.0, -90.0, 180.0, 90.0)
POLAR_DEG = 80  # from here on a few points a side are too few
ROUNDING_DEG = 1e-7
SIMPLER = 1e-4  # of the outline's size: less than a pixel of most maps


@dataclass(frozen=True, slots=True)
class MapAsset:
    """One raster of a map.

    Attributes:
        path: The file; it exists.
        title: What it shows.
        bands: One name a band.
        classes: Whether it holds class ids, with the legend's nodata; else percent, with nodata 255.
    """

    path: Path
    title: str
    bands: tuple[str, ...]
    classes: bool


def map_item(
    rasters: Mapping[str, MapAsset],
    *,
    style: Path,
    geobox: GeoBox,
    legend: Legend,
    created: str,
    taken: tuple[datetime, datetime] | None = None,
    tags: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The STAC Item of a class map and the layers beside it, as JSON values.

    Args:
        rasters: The rasters by the names of their assets; the class map, named `map`, names the Item.
        style: The QGIS style.
        geobox: Where all of them lie.
        legend: The classes.
        created: When the map was made, ISO 8601 in UTC.
        taken: First and last moment that what it shows was taken; the Item is dated by when it was made where that is
            not known.
        tags: Provenance, kept under `geoseg:` names.
    """
    footprint = _footprint(geobox)
    known = {f"geoseg:{key.lower().removeprefix('geoseg_')}": value for key, value in (tags or {}).items()}
    item: dict[str, Any] = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": list(EXTENSIONS),
        "id": rasters["map"].path.stem,
        "geometry": footprint,
        "properties": {
            **_dates(taken, created),
            "created": created,
            "processing:software": {"geoseg": (tags or {}).get("GEOSEG_VERSION", "unknown")},
            "processing:level": "L4",
            **_projection(geobox),
            **known,
        },
        "links": [],
        "assets": {
            **{name: _cog_asset(raster, legend) for name, raster in rasters.items()},
            "style": {
                "href": f"./{style.name}", "title": "QGIS style", "type": "application/xml", "roles": ["metadata"],
                **_file_facts(style),
            },
        },
    }  # fmt: skip
    if footprint is not None:
        item["bbox"] = _bbox(footprint)
    return item


def write_item(path: Path, item: Mapping[str, Any]) -> Path:
    """The path of the JSON file of a STAC Item; it appears whole.

    Raises:
        OutputError: It cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(json.dumps(item, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error


def _dates(taken: tuple[datetime, datetime] | None, created: str) -> dict[str, str | None]:
    """The time by which the Item is searched: one, or the first and the last (STAC 1.1, Date and Time)."""
    if taken is None:
        return {"datetime": created}
    first, last = (moment.astimezone(UTC).isoformat().replace("+00:00", "Z") for moment in taken)
    return {"datetime": first} if first == last else {"datetime": None, "start_datetime": first, "end_datetime": last}


def _footprint(geobox: GeoBox) -> dict[str, Any] | None:
    """The map's outline as GeoJSON in WGS 84 longitude and latitude, counter-clockwise.

    A map across the antimeridian is cut there (RFC 7946, 3.1.9), and one around a pole has an edge along it. None where
    the map has no place on the Earth.
    """
    if geobox.crs is None:
        return None
    try:
        lon, lat = _around(geobox)
        if not _is_one_ring(lon, lat):
            return _cut_outline(geobox)
    except (ProjError, GridError):
        return None
    lon -= 360 * np.round(lon.mean() / 360)  # grids in degrees may count from 0 to 360, GeoJSON does not
    if np.abs(lon).max() > WORLD[2] + ROUNDING_DEG:
        return _cut_outline(geobox)
    return _geojson(shapely.Polygon(np.column_stack([lon, lat])))


def _around(geobox: GeoBox) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Longitude and latitude of points along the map's four sides, the first one also the last."""
    rows, cols = geobox.shape
    share = np.arange(SIDE_POINTS) / SIDE_POINTS
    col = cols * np.concatenate([0 * share, share, 0 * share + 1, 1 - share, [0]])
    row = rows * np.concatenate([share, 0 * share + 1, 1 - share, 0 * share, [0]])
    to_degrees = Transformer.from_crs(cast("CRS", geobox.crs).proj, "EPSG:4326", always_xy=True)
    lon, lat = to_degrees.transform(*apply(geobox.affine, col, row))
    return np.asarray(lon), np.asarray(lat)


def _is_one_ring(lon: NDArray[np.float64], lat: NDArray[np.float64]) -> bool:
    """Whether points around a map are its outline as they are: it is no wide one, and none by a pole."""
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        return False
    return bool(np.ptp(lon) <= WORLD[2] and np.abs(lat).max() < POLAR_DEG)


def _cut_outline(geobox: GeoBox) -> dict[str, Any] | None:
    """The outline of a map of which one ring cannot tell: cut at the antimeridian, and along a pole."""
    found = region_geojson(None, geobox)
    outline = shape(found)
    if outline.is_empty:
        return None
    outline = shapely.simplify(outline, SIMPLER * math.sqrt(outline.area))
    left, _, right, _ = outline.bounds
    turns = range(math.floor((left + 180) / 360), math.ceil((right - 180) / 360) + 1)
    moved = [shapely.transform(outline, lambda xy, by=360 * turn: xy - np.array([by, 0])) for turn in turns]
    inside = shapely.union_all([shapely.intersection(lap, shapely.box(*WORLD)) for lap in moved])
    areal = areal_part(shapely.set_precision(inside, ROUNDING_DEG))
    return None if areal is None else _geojson(areal)


def _geojson(outline: BaseGeometry) -> dict[str, Any]:
    """Polygons as GeoJSON, counter-clockwise."""
    rounded = shapely.transform(shapely.orient_polygons(outline), lambda xy: np.round(xy, 7))
    return dict(json.loads(shapely.to_geojson(rounded)))


def _bbox(footprint: Mapping[str, Any]) -> list[float]:
    """West, south, east, north; west of a map across the antimeridian is above east (RFC 7946, 5.2)."""
    parts = sorted(part.bounds for part in shapely.get_parts(shape(footprint)))
    south, north = min(part[1] for part in parts), max(part[3] for part in parts)
    west, east = parts[0][0], max(part[2] for part in parts)
    # Of the gaps between the parts, once around the globe, the widest one is left out.
    widest, reached = west + 360 - east, parts[0][2]
    for left, _, right, _ in parts[1:]:
        if left - reached > widest:
            widest, west, east = left - reached, left, reached
        reached = max(reached, right)
    return [west, south, east, north]


def _projection(geobox: GeoBox) -> dict[str, Any]:
    """The fields of the projection extension."""
    found: dict[str, Any] = {"proj:shape": list(geobox.shape), "proj:transform": list(geobox.affine)[:6]}
    if geobox.crs is None:
        return {"proj:code": None, **found}
    code = geobox.crs.proj.to_authority(min_confidence=100)
    if code is not None:
        return {"proj:code": ":".join(code), **found}
    return {"proj:code": None, "proj:wkt2": geobox.crs.to_wkt(), **found}


def _cog_asset(raster: MapAsset, legend: Legend) -> dict[str, Any]:
    bands = _class_bands(legend, raster.bands[0]) if raster.classes else _percent_bands(raster.bands)
    return {"href": f"./{raster.path.name}", "title": raster.title, "type": COG_TYPE, "roles": ["data"],
            "bands": bands, **_file_facts(raster.path)}  # fmt: skip


def _class_bands(legend: Legend, name: str) -> list[dict[str, Any]]:
    """Band 1 of a class map, with the fields of the classification extension."""
    taken, classes = {"nodata"}, []
    for item in legend.classes:
        short = _short_name(item.name, item.id)
        short = f"{short}_{item.id}" if short in taken else short
        taken.add(short)
        color = item.color[1:].upper()
        classes.append({"value": item.id, "name": short, "title": item.name, "color_hint": color})
    classes.append({"value": legend.ignore, "name": "nodata", "title": "nodata", "nodata": True})
    return [{"name": name, "data_type": legend.dtype.name, "nodata": legend.ignore, "classification:classes": classes}]


def _short_name(name: str, class_id: int) -> str:
    """A name of letters, digits, `-` and `_`, as the extension wants it; of its own where none of those is left."""
    return re.sub(r"[^0-9A-Za-z_-]+", "_", name).strip("_") or f"class_{class_id}"


def _percent_bands(names: tuple[str, ...]) -> list[dict[str, Any]]:
    return [{"name": name, "data_type": "uint8", "nodata": 255, "unit": "%"} for name in names]


def _file_facts(path: Path) -> dict[str, Any]:
    """Size and SHA-256 as the file extension writes them: a multihash, 0x12 0x20 and the digest."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return {"file:size": path.stat().st_size, "file:checksum": f"1220{digest.hexdigest()}"}
