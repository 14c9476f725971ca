"""The verb `vectorize`: a class map in, polygons in a file of any format out."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from geoseg import infer, io, vector
from geoseg.errors import BandError, GridError, InputError, MissingInputError
from geoseg.io.outputs import check_output
from geoseg.legend import Legend
from geoseg.progress import progress_bar

if TYPE_CHECKING:
    from geoseg.io import Source

logger = logging.getLogger(__name__)

LARGE_PX = 8192**2
"""Pixels of a map from which memory that is freed is given back at once: a quarter less is held at 32,768² pixels."""

MOST_NAMED = 4096
"""A map of more values holds no classes, but numbers."""


def vectorize(
    class_map: Path,
    *,
    out: Path,
    band: str | int | None = None,
    kind: Literal["classes", "instances", "panoptic", "values"] = "classes",
    min_area_m2: float | str | dict[str, float | str] = 0.0,
    merge_rule: Literal["border", "similar", "nodata"] = "border",
    similarity: Path | dict[str, dict[str, float]] | None = None,
    connectivity: Literal[4, 8] = 4,
    dissolve: bool = False,
    tolerance_m: float | str = 0.0,
    simplify: Literal["visvalingam", "douglas-peucker"] = "visvalingam",
    smooth: bool = False,
    probabilities: Path | None = None,
    right_angles: list[str] | str | None = None,
    confidence: Path | None = None,
    means: list[str] | str | None = None,
    legend: Path | None = None,
    per_class: bool = False,
    engine: Literal["threads", "dask"] = "threads",
    scheduler: str | None = None,
    workers: int = 2,
    overwrite: bool = False,
) -> Path:
    """Turn a class map into polygons.

    Neighbours share their borders: there is no gap and no overlap, whatever is merged, simplified or smoothed.

    Args:
        class_map: A raster of class ids, of geoseg or not.
        out: The file to write; its ending says the format: gpkg, fgb, parquet, geojson, shp or pmtiles.
        band: The band of classes, by name or number, where the raster has several.
        kind: What the numbers are: classes; instances (objects, 0 is none); panoptic (class * 1000 + instance); values.
        min_area_m2: Smaller regions are merged, smallest first; also 0.5ha, or a mapping of classes to areas.
        merge_rule: Where small regions go: to the neighbour with the longest shared border, to the most similar class,
            or to nodata.
        similarity: For similar: how alike two classes are, a YAML file or a mapping such as {forest: {shrub: 0.8}}.
        connectivity: 4, or 8 where pixels of a class that touch at a corner are one feature.
        dissolve: Whether to write one multi-polygon a class.
        tolerance_m: How far borders may be simplified; 0 keeps them exact. With visvalingam a vertex goes whose
            triangle with its neighbours is smaller than a square of this side.
        simplify: visvalingam (by area) or douglas-peucker (by distance).
        smooth: Whether stairs of pixels become natural lines, within half a pixel.
        probabilities: A raster of each class's probability: it places smooth borders inside pixels.
        right_angles: Classes whose outlines get right angles, such as building.
        confidence: A raster of confidence, read onto the map's grid; the map's own `.confidence.tif` by default.
        means: Rasters whose mean is wanted for each polygon, read onto the map's grid; name=path names the column.
        legend: A file with the classes; those written in the map by default, else the values found.
        per_class: Whether to write a file for each class, such as map_forest.shp.
        engine: Who traces the map: threads of this machine, or dask.
        scheduler: The address of a Dask scheduler, such as tcp://host:8786; without it dask starts workers here.
        workers: Dask workers to start on this machine.
        overwrite: Whether an existing output may be replaced.

    Returns:
        The file written; of several, the folder.

    Raises:
        GeosegError: Something about the input or the output has to be mended; nothing is left behind.
    """
    class_map = Path(class_map)
    inputs = [path for path in (class_map, confidence, probabilities, legend) if path is not None]
    out = check_output(out, overwrite=overwrite or per_class, inputs=inputs)
    vector.check_format(out)
    source = open_class_map(class_map, band=band)
    ignore = _ignored(source, kind, given=legend)
    options = vector.PolygonOptions(
        kind=kind, connectivity=connectivity, dissolve=dissolve, min_area_m2=min_area_m2, merge_rule=merge_rule,
        tolerance_m=tolerance_m, simplify=simplify, smooth=smooth, right_angles=tuple(_listed(right_angles)),
        similarity=_similarity(similarity, lambda: _legend(source, given=legend, ignore=ignore)),
    )  # fmt: skip
    likely, values = _probabilities(probabilities, lambda: _legend(source, given=legend, ignore=ignore))
    reader = vector.GridReader(
        source, _others(class_map, source, confidence=confidence, means=_listed(means)), likely, values, ignore
    )
    run = vector.in_threads if engine == "threads" else _on_dask(scheduler, workers)

    def legend_of(found: list[int]) -> Legend | None:
        return _legend(source, given=legend, ignore=ignore, values=found)

    large = reader.shape[0] * reader.shape[1] > LARGE_PX
    with infer.memory_returned() if large else nullcontext():
        with progress_bar("trace") as progress:
            layer = vector.polygon_layer(reader, legend_of=legend_of, options=options, run=run, progress=progress)
        with progress_bar("write") as progress:
            return vector.write_layer(layer, out, overwrite=overwrite, per_class=per_class, progress=progress)


def open_class_map(path: Path, *, band: str | int | None = None) -> Source:
    """The source of one band of a map, whose values are never mixed.

    Raises:
        BandError: It has several bands and none was chosen.
        GeosegError: It cannot be opened.
    """
    spec: dict[str, Any] = {"path": str(path), "resampling": "nearest"}
    if band is not None:
        spec["select"] = [int(band) if str(band).isdigit() else band]
    source = io.open_source(spec)
    if len(source.bands) != 1:
        raise BandError(
            f"{path} has {len(source.bands)} bands ({', '.join(source.bands)}); needed is a map of one band; "
            "choose one with --band"
        )
    return source


def _ignored(source: Source, kind: str, *, given: Path | None) -> frozenset[int]:
    """Values of the map that it or the legend given calls no class, and that are no object."""
    if kind == "instances":
        return frozenset([0])
    if kind != "classes":
        return frozenset()
    return io.unlabelled_codes(source) if given is None else frozenset([io.read_legend(given).ignore])


def _legend(
    source: Source, *, given: Path | None, ignore: Iterable[int], values: list[int] | None = None
) -> Legend | None:
    """The classes given, else those written in the map, else the values found in it; None for too many values."""
    if given is not None:
        return io.read_legend(given)
    if values is not None and not 0 < len(values) <= MOST_NAMED:
        if values:
            logger.warning("the map has %d values: they have no names", len(values))
        return None
    return io.raster_legend(source, ignore=ignore, values=values)


def _others(class_map: Path, source: Source, *, confidence: Path | None, means: Sequence[str]) -> dict[str, Source]:
    """Rasters to sum over the polygons, by the names of their columns."""
    sibling = class_map.with_suffix(".confidence.tif")
    if confidence is None and sibling.exists() and sibling != class_map:
        confidence = sibling
    others = {} if confidence is None else {"confidence": open_class_map(confidence)}
    for item in means:
        name, equals, path = item.partition("=")
        if not equals:
            name, path = f"mean_{Path(item).name.split('.')[0]}", item
        others[name.strip()] = io.open_source(path.strip())
    for name, other in others.items():
        if other.geobox != source.geobox and not io.grids_meet(other.geobox, source.geobox):
            raise GridError(f"{name} and {class_map} do not overlap; give rasters of one place, or mend their CRS")
    return others


def _probabilities(path: Path | None, legend_of: Any) -> tuple[Source | None, tuple[int, ...]]:
    """The source of probabilities, and the value of the map that each of its bands stands for."""
    if path is None:
        return None, ()
    source, legend = io.open_source(str(path)), legend_of()
    names = {name.lower(): item.id for name, item in zip(legend.names, legend.classes, strict=True)}
    lacking = [band for band in source.bands if band.lower() not in names]
    if lacking and len(source.bands) != len(legend):
        raise BandError(
            f"the bands of {path} ({', '.join(source.bands)}) are not the classes ({', '.join(legend.names)}); "
            "needed is a band a class, as geoseg predict --layers probabilities writes it"
        )
    ids = legend.ids.tolist() if lacking else [names[band.lower()] for band in source.bands]
    order = sorted(range(len(ids)), key=lambda position: ids[position])
    return io.open_source({"path": str(path), "select": [position + 1 for position in order]}), tuple(sorted(ids))


def _similarity(given: Path | Mapping[str, Mapping[str, float]] | None, legend_of: Any) -> dict[tuple[int, int], float]:
    """How alike two classes are, by their numbers."""
    if given is None:
        return {}
    table = _read_table(Path(given)) if isinstance(given, str | Path) else given
    legend = legend_of()

    def number(name: object) -> int:
        text = str(name)
        return int(text) if text.lstrip("-").isdigit() else int(legend.by_name(text).id)

    try:
        return {(number(a), number(b)): float(value) for a, row in table.items() for b, value in row.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(
            "similarity is not understood; needed is a mapping of classes, such as {forest: {shrub: 0.8}}"
        ) from error


def _read_table(path: Path) -> Any:
    """What a YAML file holds."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingInputError(f"the similarity table {path} is not there; needed is a YAML file") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise InputError(f"the similarity table {path} cannot be read as YAML: {why}") from error


def _listed(given: list[str] | str | None) -> list[str]:
    """Names as a list, where the command line gives them with commas between."""
    if isinstance(given, str):
        return [item.strip() for item in given.split(",") if item.strip()]
    return given or []


def _on_dask(scheduler: str | None, workers: int) -> vector.Run:
    """Tracing by the workers of a Dask cluster."""
    return partial(infer.map_windows, scheduler=scheduler, workers=workers)
