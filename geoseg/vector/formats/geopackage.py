"""GeoPackage: one file with the layer, its spatial index and its style, which also stands beside it."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

from geoseg.errors import InputError
from geoseg.vector.formats.ogr import Progress, not_whole, write_ogr
from geoseg.vector.formats.styles import layer_style, write_style
from geoseg.vector.layer import PolygonLayer

# The table as QGIS makes it; GDAL and QGIS show the layer in this style.
_LAYER_STYLES = """
CREATE TABLE layer_styles (
    id INTEGER PRIMARY KEY AUTOINCREMENT, f_table_catalog TEXT(256), f_table_schema TEXT(256), f_table_name TEXT(256),
    f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT, styleSLD TEXT, useAsDefault BOOLEAN,
    description TEXT, owner TEXT(30), ui TEXT(30), update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);
INSERT INTO gpkg_contents (table_name, data_type, identifier) VALUES ('layer_styles', 'attributes', 'layer_styles');
"""


# Tables of GeoPackage, of SQLite, and of the styles.
_RESERVED = re.compile(r"(gpkg_|sqlite_|rtree_).*|layer_styles", re.IGNORECASE)


def check_name(out: Path) -> None:
    """That a layer may be called what the file is called.

    Raises:
        InputError: A GeoPackage keeps that name for tables of its own.
    """
    if _RESERVED.fullmatch(out.stem):
        raise InputError(
            f"the layer would be called '{out.stem}', which a GeoPackage keeps for itself; "
            "give a name that does not begin with gpkg_, sqlite_ or rtree_, and is not layer_styles"
        )


def write_geopackage(layer: PolygonLayer, path: Path, progress: Progress) -> None:
    """Writes a GeoPackage. A CRS without a code of the EPSG is kept as WKT2, by the extension `gpkg_crs_wkt`.

    The spatial index is built in bulk, in a thread of GDAL's own.
    """
    coded = layer.crs is None or layer.crs.to_epsg(min_confidence=100) is not None
    options = {} if coded else {"CRS_WKT_EXTENSION": "YES"}
    count = write_ogr(layer, path, driver="GPKG", progress=progress, dataset_options=options)
    with closing(sqlite3.connect(path)) as database, database:
        if _indexed(database, path.stem) != count:
            raise not_whole()
        database.executescript(_LAYER_STYLES)
        database.execute(
            "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, styleName, "
            "styleQML, styleSLD, useAsDefault, description, owner) "
            "VALUES ('', '', ?, 'geom', 'classes', ?, '', 1, '', '')",
            (path.stem, layer_style(layer)),
        )
    write_style(layer, path)


def _indexed(database: sqlite3.Connection, table: str) -> int:
    """Number of features in the spatial index, which is written last; -1 without an index."""
    index = f"rtree_{table}_geom_rowid"
    if not database.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (index,)).fetchone():
        return -1
    quoted = index.replace('"', '""')
    return int(database.execute(f'SELECT count(*) FROM "{quoted}"').fetchone()[0])  # noqa: S608 - quoted above
