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

from geoseg.errors import GeosegError, InputError, OutputError, OutputExistsError
from geoseg.legend import Legend
from geoseg.vector.formats.flatgeobuf import write_flatgeobuf
from geoseg.vector.formats.frames import layer_of_frame
from geoseg.vector.formats.geojson import write_geojson
from geoseg.vector.formats.geopackage import write_geopackage
from geoseg.vector.formats.geoparquet import write_geoparquet
from geoseg.vector.formats.ogr import GEOMETRY, Progress, check_driver
from geoseg.vector.formats.pmtiles import write_pmtiles
from geoseg.vector.formats.shapefile import SIDECARS, write_shapefile
from geoseg.vector.formats.split import split_by_class
from geoseg.vector.formats.styles import is_polygon_style
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
    """

    write: Callable[[PolygonLayer, Path, Progress], None]
    driver: str | None


FORMATS: dict[str, Format] = {
    ".gpkg": Format(write_geopackage, "GPKG"),
    ".fgb": Format(write_flatgeobuf, "FlatGeobuf"),
    ".geojson": Format(write_geojson, "GeoJSON"),
    ".parquet": Format(write_geoparquet, None),
    ".shp": Format(write_shapefile, "ESRI Shapefile"),
    ".pmtiles": Format(write_pmtiles, "PMTiles"),
}


def check_format(out: str | Path) -> None:
    """That a file of this extension can be written here, which is good to know before the work.

    Raises:
        InputError: The extension is none of `FORMATS`, or this build of GDAL cannot write it.
    """
    _format_of(Path(out))


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
        InputError: The extension is none of `FORMATS`, this build of GDAL cannot write it, or the format cannot hold
            the layer; or `per_class` of a layer without classes.
        OutputExistsError: The output exists and was not to be overwritten.
        OutputError: It cannot be written. Nothing is left behind.
    """
    out = Path(out)
    check_format(out)
    layers = {out: layer}
    if per_class:
        layers = {out.with_stem(f"{out.stem}_{name}"): part for name, part in split_by_class(layer).items()}
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
        _check_place(path, overwrite=overwrite)
        _check_names(layer, path)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'crs' was not provided", UserWarning)  # said once, when it was read
            _write_to(Path(folder), layers, chosen, progress)
            _publish(Path(folder), list(layers), overwrite=overwrite)
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


def _check_place(out: Path, *, overwrite: bool) -> None:
    if out.is_dir():
        raise OutputError(f"the output {out} is a folder; give a file name in it")
    if out.exists() and not overwrite:
        raise OutputExistsError(f"the output {out} exists; add --overwrite to replace it, or give another name")


def _check_names(layer: PolygonLayer, out: Path) -> None:
    names = [name.lower() for name in layer.schema.names]
    taken = sorted({name for name in names if names.count(name) > 1 or name == GEOMETRY})
    if taken:
        raise InputError(f"{out.name} would have more than one column called {', '.join(taken)}; rename them")


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


def _publish(folder: Path, outs: Sequence[Path], *, overwrite: bool) -> None:
    """Moves what was written to where it belongs, the files themselves last."""
    for out in outs:
        if out.suffix.lower() == ".shp":
            for sidecar in SIDECARS:
                out.with_suffix(sidecar).unlink(missing_ok=True)
    targets = {out.name: out for out in outs}
    styled_inside = {out.stem for out in outs if out.suffix.lower() == ".gpkg"}
    for path in sorted(folder.iterdir(), key=lambda path: path.name in targets):
        target = outs[0].parent / path.name
        if path.suffix == ".qml" and target.exists() and not (overwrite and is_polygon_style(target)):
            level = logging.DEBUG if path.stem in styled_inside else logging.WARNING
            _log.log(level, "left the style %s as it is, it is not that of %s", target, path.stem)
            continue
        os.replace(path, target)  # noqa: PTH105 - the atomic one, by its name
