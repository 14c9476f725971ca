"""Layers of polygons to files that a GIS opens at once. A file is written whole beside its place, then renamed."""

from __future__ import annotations

import logging
import os
import re
import shutil
import sqlite3
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyogrio

from geoseg.errors import GeosegError, InputError, OutputError
from geoseg.legend import Legend
from geoseg.vector.formats.flatgeobuf import write_flatgeobuf
from geoseg.vector.formats.frames import layer_of_frame
from geoseg.vector.formats.geojson import write_geojson
from geoseg.vector.formats.geopackage import check_name, write_geopackage
from geoseg.vector.formats.geoparquet import COVERING, write_geoparquet
from geoseg.vector.formats.ogr import GEOMETRY, Progress, check_driver
from geoseg.vector.formats.places import check_place, publish
from geoseg.vector.formats.pmtiles import write_pmtiles
from geoseg.vector.formats.shapefile import write_shapefile
from geoseg.vector.formats.split import file_names, split_by_class
from geoseg.vector.layer import PolygonLayer

if TYPE_CHECKING:
    import geopandas

_log = logging.getLogger(__name__)
_LITTLE_ROOM = 2**26  # bytes


class Format(NamedTuple):
    """A way to write a layer.

    Attributes:
        write: Writes a layer to a path where nothing is, and its sidecars beside it; tells the progress.
        driver: GDAL's name of the format, None where GDAL is not needed.
        needs_crs: Whether it has to know where on the Earth the polygons lie.
        columns: Columns that it has besides those of the layer.
        check_name: Raises an InputError for a file that cannot have the name it is to have.
    """

    write: Callable[[PolygonLayer, Path, Progress], None]
    driver: str | None
    needs_crs: bool = False
    columns: frozenset[str] = frozenset([GEOMETRY])
    check_name: Callable[[Path], None] | None = None


FORMATS: dict[str, Format] = {
    ".gpkg": Format(write_geopackage, "GPKG", columns=frozenset([GEOMETRY, "geom", "fid"]), check_name=check_name),
    ".fgb": Format(write_flatgeobuf, "FlatGeobuf"),
    ".geojson": Format(write_geojson, "GeoJSON", needs_crs=True),
    ".parquet": Format(write_geoparquet, None, columns=frozenset([GEOMETRY, COVERING])),
    ".shp": Format(write_shapefile, "ESRI Shapefile"),
    ".pmtiles": Format(write_pmtiles, "PMTiles", needs_crs=True),
}


def check_format(out: str | Path) -> None:
    """That a file of this extension can be written here, which is good to know before the work.

    Raises:
        InputError: The extension is none of `FORMATS`, or this build of GDAL cannot write it.
    """
    _format_of(Path(out))


def check_target(
    out: str | Path,
    *,
    crs: object | None,
    columns: Sequence[str] = (),
    classes: Mapping[int, str] | None = None,
    overwrite: bool = False,
) -> None:
    """That a layer can be written, as far as that is known before the work; `write_layer` checks it too.

    Args:
        out: The file.
        crs: Where the polygons will lie; None where that is not known.
        columns: The layer's attributes, or those that are known.
        classes: Names of the classes that are to have a file each; None for one file.
        overwrite: Whether existing files may be replaced.

    Raises:
        InputError: The format is not known or cannot be written here, or it needs a CRS, another name of the file, or
            other names of columns.
        OutputExistsError: An output exists and was not to be overwritten.
        OutputError: A folder stands there, or the file is open in another program.
    """
    out = Path(out)
    chosen = _format_of(out)
    if chosen.needs_crs and crs is None:
        raise InputError(f"{out.suffix} needs a place on the Earth, {out.name}'s map has no CRS; write .gpkg instead")
    _check_columns(columns, out, chosen)
    names = None if classes is None else file_names(classes).values()
    for path in [out] if names is None else [_of_class(out, name) for name in names]:
        if chosen.check_name is not None:
            chosen.check_name(path)
        check_place(path, overwrite=overwrite)


def write_layer(
    layer: PolygonLayer,
    out: str | Path,
    *,
    overwrite: bool = False,
    per_class: bool = False,
    progress: Progress | None = None,
) -> Path:
    """The file written, in the format of its extension, one of `FORMATS`; with a QGIS style.

    The style stands inside a GeoPackage, and beside any file as a `.qml` of the same name, unless a style of that name
    is there already (of the class map's raster, say).

    Args:
        layer: What to write; it is taken batch by batch.
        out: The file; its folder is made where it is missing.
        overwrite: Whether an existing file may be replaced.
        per_class: Whether to write a file for each class that has a feature: `map_forest.shp` beside `map_water.shp`
            for `map.shp`. All are written before the first takes its place.
        progress: Told how many features are written, and how many there are.

    Returns:
        The file; of a file a class, their folder.

    Raises:
        InputError: As `check_target`; or the format cannot hold the layer, or `per_class` of a layer without classes.
        OutputExistsError: The output exists and was not to be overwritten.
        OutputError: It cannot be written. Nothing is left behind.
    """
    out = Path(out)
    check_format(out)
    layers = {out: layer}
    if per_class:
        layers = {_of_class(out, name): part for name, part in split_by_class(layer).items()}
    _write_all(layers, out, overwrite=overwrite, progress=progress)
    _log.info("wrote %d polygons to %s", layer.count, ", ".join(map(str, layers)) or "no file, as no class has any")
    return out.parent if per_class else out


def write_polygons(
    frame: geopandas.GeoDataFrame, out: str | Path, *, legend: Legend | None, overwrite: bool = False
) -> Path:
    """The file written of a table of polygons; as `write_layer` in all else.

    Args:
        frame: As `polygonize` returns it.
        out: The file.
        legend: Names and colours for the style; None where the table has no classes.
        overwrite: Whether an existing file may be replaced.
    """
    return write_layer(layer_of_frame(frame, legend=legend), out, overwrite=overwrite)


def _write_all(layers: Mapping[Path, PolygonLayer], out: Path, *, overwrite: bool, progress: Progress | None) -> None:
    """Writes each layer to its path; all paths are in the folder of `out` and have its extension."""
    chosen = _format_of(out)
    for path, layer in layers.items():
        check_target(path, crs=layer.crs, columns=layer.schema.names, overwrite=overwrite)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'crs' was not provided", UserWarning)  # said once, when it was read
            _write_to(Path(folder), layers, chosen, progress)
            publish(Path(folder), list(layers), overwrite=overwrite)
    except GeosegError:
        raise
    except _FAILURES as error:
        raise OutputError(f"{out} cannot be written: {_reason(error, out)}") from error


# What writing may end in; errors of pyogrio are RuntimeErrors of these two kinds.
_FAILURES = (
    OSError,
    sqlite3.Error,
    pa.ArrowException,
    pyogrio.errors.DataSourceError,
    pyogrio.errors.DataLayerError,
)


def _format_of(out: Path) -> Format:
    chosen = FORMATS.get(out.suffix.lower())
    if chosen is None:
        raise InputError(f"no vector format has the extension '{out.suffix}' of {out}; known are {', '.join(FORMATS)}")
    if chosen.driver is not None:
        check_driver(chosen.driver, others={extension: each.driver for extension, each in FORMATS.items()})
    return chosen


def _of_class(out: Path, name: str) -> Path:
    return out.with_stem(f"{out.stem}_{name}")


def _check_columns(columns: Sequence[str], out: Path, chosen: Format) -> None:
    names = [name.lower() for name in columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{out.name} would have more than one column called {', '.join(twice)}; rename them")
    for name in names:
        if name in chosen.columns:
            raise InputError(
                f"{out.name} would have a column '{name}' besides the one that {out.suffix} has; rename it"
            )


def _write_to(folder: Path, layers: Mapping[Path, PolygonLayer], chosen: Format, progress: Progress | None) -> None:
    total, before = sum(layer.count for layer in layers.values()), 0
    for path, layer in layers.items():

        def told(done: int, _: int, before: int = before) -> None:
            if progress is not None:
                progress(before + done, total)

        chosen.write(layer, folder / path.name, told)
        before += layer.count


def _reason(error: BaseException, out: Path) -> str:
    """What went wrong on one line, without the scratch folder; with the room on the disk where there is little."""
    scratch = re.escape(str(out.parent / f".{out.name}.")) + r"\w+" + re.escape(os.sep)
    reason = " ".join(re.sub(scratch, "", str(error)).split())
    free = shutil.disk_usage(out.parent).free if out.parent.is_dir() else _LITTLE_ROOM
    return f"{reason}; its disk has {free / 1e6:.0f} MB left" if free < _LITTLE_ROOM else reason
