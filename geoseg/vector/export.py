"""Tables of polygons to files that a GIS opens at once. A file is written whole beside its place, then renamed."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import tempfile
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from xml.etree import ElementTree as ET

import geopandas
import numpy as np
import pyarrow as pa
import pyogrio
import shapely

from geoseg.errors import InputError, OutputError, OutputExistsError
from geoseg.legend import Legend
from geoseg.vector.rings import Polygons

Writer = Callable[[geopandas.GeoDataFrame, Path, Legend], None]

_log = logging.getLogger(__name__)
_SHAPEFILE_BYTES = 2**31 - 1
_SIDECARS = (".shx", ".dbf", ".prj", ".cpg", ".qix", ".sbn", ".sbx", ".fields.json")


def write_polygons(frame: geopandas.GeoDataFrame, out: str | Path, *, legend: Legend, overwrite: bool = False) -> Path:
    """The file written, in the format of its extension, one of `FORMATS`; with a QGIS style.

    The style stands inside a GeoPackage, and beside any other format as a `.qml` of the same name, unless a style of
    that name is there already (of the class map's raster, say).

    Args:
        frame: As `polygonize` returns it.
        out: The file; its folder is made where it is missing.
        legend: Names and colours for the style.
        overwrite: Whether an existing file may be replaced.

    Raises:
        InputError: The extension is none of `FORMATS`, or the format cannot hold the table.
        OutputExistsError: The output exists and was not to be overwritten.
        OutputError: It cannot be written. Nothing is left behind.
    """
    out = Path(out)
    writer = FORMATS.get(out.suffix.lower())
    if writer is None:
        raise InputError(f"no vector format has the extension '{out.suffix}' of {out}; known are {', '.join(FORMATS)}")
    if out.is_dir():
        raise OutputError(f"the output {out} is a folder; give a file name in it")
    if out.exists() and not overwrite:
        raise OutputExistsError(f"the output {out} exists; add --overwrite to replace it, or give another name")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'crs' was not provided", UserWarning)  # said once, when it was read
            writer(frame, Path(folder) / out.name, legend)
            _publish(Path(folder), out, overwrite=overwrite)
    except (OSError, sqlite3.Error, pa.ArrowException, pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError,
            pyogrio.errors.FieldError, pyogrio.errors.FeatureError, pyogrio.errors.GeometryError) as error:  # fmt: skip
        raise OutputError(f"{out} cannot be written: {error}") from error
    _log.info("wrote %d polygons to %s", len(frame), out)
    return out


def polygon_style(legend: Legend) -> str:
    """A QGIS style (QML) that fills each polygon with its class's colour, by the column `class_id`.

    >>> 'attr="class_id"' in polygon_style(Legend.from_dict({1: "water"}))
    True
    """
    root = ET.Element("qgis", {"version": "3.28", "styleCategories": "Symbology"})
    renderer = ET.SubElement(
        root, "renderer-v2", {"type": "categorizedSymbol", "attr": "class_id", "symbollevels": "0"}
    )
    categories = ET.SubElement(renderer, "categories")
    symbols = ET.SubElement(renderer, "symbols")
    for position, item in enumerate(legend.classes):
        category = {"value": str(item.id), "type": "long", "label": item.name, "render": "true"}
        ET.SubElement(categories, "category", category | {"symbol": str(position)})
        symbol = ET.SubElement(symbols, "symbol", {"type": "fill", "name": str(position), "alpha": "1"})
        layer = ET.SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "pass": "0", "locked": "0"})
        options = ET.SubElement(layer, "Option", {"type": "Map"})
        rgba = ",".join(map(str, (*item.rgb, 255)))
        for name, value in {"color": rgba, "style": "solid", "outline_style": "no"}.items():
            ET.SubElement(options, "Option", {"name": name, "value": value, "type": "QString"})
    ET.indent(root)
    return "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n" + ET.tostring(root, "unicode")


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Each name's stand-in of at most 10 characters, unique whatever the letter case.

    >>> short_names(["class_name", "perimeter_m", "perimeter_px"])
    {'class_name': 'class_name', 'perimeter_m': 'perimeter_', 'perimeter_px': 'perimete_2'}
    """
    short: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        candidate, number = name[:10], 1
        while candidate.lower() in taken:
            number += 1
            candidate = f"{name[: 9 - len(str(number))]}_{number}"
        taken.add(candidate.lower())
        short[name] = candidate
    return short


def _publish(folder: Path, out: Path, *, overwrite: bool) -> None:
    """Moves what was written to where it belongs, the file itself last."""
    if out.suffix.lower() == ".shp":
        for sidecar in _SIDECARS:
            out.with_suffix(sidecar).unlink(missing_ok=True)
    for path in sorted(folder.iterdir(), key=lambda path: path.name == out.name):
        target = out.parent / path.name
        if path.suffix == ".qml" and target.exists() and not (overwrite and _is_polygon_style(target)):
            _log.warning("left the style %s as it is, it is not that of %s", target, out.name)
            continue
        os.replace(path, target)  # noqa: PTH105 - the atomic one, by its name


def _is_polygon_style(path: Path) -> bool:
    return 'attr="class_id"' in path.read_text(encoding="utf-8", errors="replace")


def _write_style(path: Path, legend: Legend) -> None:
    path.with_suffix(".qml").write_text(polygon_style(legend), encoding="utf-8")


def _write(frame: geopandas.GeoDataFrame, path: Path, driver: str, **options: object) -> None:
    """One batch through Arrow."""
    pyogrio.write_dataframe(
        frame, path, layer=path.stem, driver=driver, use_arrow=True, geometry_type="Polygon", **options
    )


def _write_gpkg(frame: geopandas.GeoDataFrame, path: Path, legend: Legend) -> None:
    _write(frame, path, "GPKG")
    with sqlite3.connect(path) as database:
        database.executescript(_LAYER_STYLES)
        database.execute(
            "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, styleName, "
            "styleQML, styleSLD, useAsDefault, description, owner) "
            "VALUES ('', '', ?, 'geom', 'classes', ?, '', 1, '', '')",
            (path.stem, polygon_style(legend)),
        )
    database.close()


def _write_fgb(frame: geopandas.GeoDataFrame, path: Path, legend: Legend) -> None:
    _write(frame, path, "FlatGeobuf")
    _write_style(path, legend)


def _write_geojson(frame: geopandas.GeoDataFrame, path: Path, legend: Legend) -> None:
    """RFC 7946: WGS 84, seven decimals (about 1 cm)."""
    if frame.crs is None:
        raise InputError(f"GeoJSON needs longitudes and latitudes, {path.name}'s map has no CRS; write .gpkg instead")
    if frame.crs.is_projected:
        # What is straight in a projection is not in degrees. A chord of length L leaves the true line by about
        # L² tan(lat) / 8R: 500 m by 5 mm at 45°. Longer edges get vertices, the same on both sides.
        unit = frame.crs.axis_info[0].unit_conversion_factor
        frame = frame.set_geometry(_densify(frame.geometry.to_numpy(), 500 / unit), crs=frame.crs)
    _write(frame.to_crs("OGC:CRS84"), path, "GeoJSON", layer_options={"RFC7946": "YES", "COORDINATE_PRECISION": "7"})
    _write_style(path, legend)


def _write_parquet(frame: geopandas.GeoDataFrame, path: Path, legend: Legend) -> None:
    frame.to_parquet(path, index=False, compression="zstd", write_covering_bbox=True, schema_version="1.1.0")
    _write_style(path, legend)


def _write_shp(frame: geopandas.GeoDataFrame, path: Path, legend: Legend) -> None:
    vertices = int(shapely.get_num_coordinates(frame.geometry.to_numpy()).sum())
    if 16 * vertices + 64 * len(frame) > _SHAPEFILE_BYTES:
        raise InputError(f"{vertices} vertices do not fit the 2 GB of a shapefile; write .gpkg, or raise tolerance_m")
    names = short_names(column for column in frame.columns if column != frame.geometry.name)
    changed = {name: short for name, short in names.items() if name != short}
    _write(frame.rename(columns=names), path, "ESRI Shapefile", layer_options={"ENCODING": "UTF-8"})
    if changed:
        path.with_suffix(".fields.json").write_text(json.dumps(changed, indent=1), encoding="utf-8")
        _log.info("a shapefile's names have 10 characters: %s", ", ".join(f"{a} is {b}" for a, b in changed.items()))
    _write_style(path, legend)


def _densify(polygons: Polygons, max_length: float) -> Polygons:
    """The polygons with edges of at most `max_length`; both polygons of an edge get the same vertices on it."""
    if len(polygons) == 0:
        return polygons
    kind, coords, (rings, parts) = shapely.to_ragged_array(polygons)
    start, end = coords[:-1], coords[1:]
    pieces = np.maximum(1, np.ceil(np.hypot(*(end - start).T) / max_length)).astype(np.int64)
    pieces[rings[1:-1] - 1] = 1  # from one ring's last vertex to the next one's first is no edge
    edge = np.repeat(np.arange(len(pieces)), pieces)
    step = np.arange(len(edge)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    turned = (end < start)[:, 0] | ((end == start)[:, 0] & (end < start)[:, 1])
    low, high = np.where(turned[:, None], end, start), np.where(turned[:, None], start, end)
    share = np.where(turned[edge], pieces[edge] - step, step) / pieces[edge]
    dense = low[edge] + share[:, None] * (high - low)[edge]
    dense[step == 0] = start
    offsets = np.concatenate([[0], np.cumsum(pieces), [len(edge) + 1]])[rings]
    offsets[-1] = len(edge) + 1
    densified: Polygons = shapely.from_ragged_array(kind, np.vstack([dense, coords[-1:]]), (offsets, parts))
    return densified


# The table as QGIS makes it; GDAL and QGIS show the layer in this style.
_LAYER_STYLES = """
CREATE TABLE layer_styles (
    id INTEGER PRIMARY KEY AUTOINCREMENT, f_table_catalog TEXT(256), f_table_schema TEXT(256), f_table_name TEXT(256),
    f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT, styleSLD TEXT, useAsDefault BOOLEAN,
    description TEXT, owner TEXT(30), ui TEXT(30), update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);
INSERT INTO gpkg_contents (table_name, data_type, identifier) VALUES ('layer_styles', 'attributes', 'layer_styles');
"""

FORMATS: dict[str, Writer] = {
    ".gpkg": _write_gpkg,
    ".fgb": _write_fgb,
    ".geojson": _write_geojson,
    ".parquet": _write_parquet,
    ".shp": _write_shp,
}
