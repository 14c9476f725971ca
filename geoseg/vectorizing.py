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
from geoseg.errors import BandError, GeosegError, GridError, InputError, MissingInputError
from geoseg.io.legends import map_legend
from geoseg.io.outputs import check_kept, check_output
from geoseg.io.stamps import files_in
from geoseg.legend import Legend
from geoseg.progress import progress_bar

if TYPE_CHECKING:
    from geoseg.io import Source
    from geoseg.vector.kinds import ValuesAre

logger = logging.getLogger(__name__)

LARGE_PX = 8192**2
"""Pixels of a map from which memory that is freed is given back at once: a quarter less is held at 32,768² pixels."""

CONFIDENCE = "confidence"

MOST_NAMED = 4096
"""A map of more values holds no classes, but numbers."""


def vectorize(
    class_map: str | Path,
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
    probabilities: str | Path | None = None,
    right_angles: list[str] | str | None = None,
    confidence: str | Path | None = None,
    means: list[str] | str | None = None,
    legend: str | Path | None = None,
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
        means: Rasters whose mean is wanted for each polygon, read onto the map's grid; name=path names the column,
            which is mean_ and the file's name otherwise.
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
    averaged = _named_paths(_listed(means))
    run = _run(engine, scheduler, workers)
    inputs = _local([class_map, confidence, probabilities, legend, *averaged.values()])
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
    others = _others(class_map, confidence=confidence, means=averaged)
    _check_place(source, others if likely is None else {**others, "probabilities": likely})
    _check_kept(out, [*inputs, *_local(files_in([source, likely, *others.values()]))], per_class=per_class)
    reader = vector.GridReader(source, others, likely, values, ignore)
    if not per_class:  # the names of whose files are known when the classes are
        vector.check_target(out, crs=source.geobox.crs, columns=reader.layers, overwrite=overwrite)

    def legend_of(found: list[int]) -> Legend | None:
        return _legend(source, given=legend, ignore=ignore, values=found)

    large = reader.shape[0] * reader.shape[1] > LARGE_PX
    with infer.memory_returned() if large else nullcontext():
        with progress_bar("trace") as progress:
            layer = vector.polygon_layer(
                reader, legend_of=legend_of, values_are=_values_are(source, given=legend), options=options, run=run,
                progress=progress,
            )  # fmt: skip
        with progress_bar("write") as progress:
            return vector.write_layer(layer, out, overwrite=overwrite, per_class=per_class, progress=progress)


def open_class_map(path: str | Path, *, band: str | int | None = None) -> Source:
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


def _ignored(source: Source, kind: str, *, given: str | Path | None) -> frozenset[int]:
    """Values of the map that it or the legend given calls no class, and that are no object."""
    if kind == "instances":
        return frozenset([0])
    if kind != "classes":
        return frozenset()
    return io.unlabelled_codes(source) if given is None else frozenset([io.read_legend(given).ignore])


def _legend(
    source: Source, *, given: str | Path | None, ignore: Iterable[int], values: list[int] | None = None
) -> Legend | None:
    """The classes given, else those written in the map, else the values found in it; None for too many values."""
    if given is not None:
        return io.read_legend(given)
    if values is not None and not 0 < len(values) <= MOST_NAMED:
        if values:
            logger.warning("the map has %d values: they have no names", len(values))
        return None
    return io.raster_legend(source, ignore=ignore, values=values)


def _values_are(source: Source, *, given: str | Path | None) -> ValuesAre | None:
    """What the map's values are in its legend: ids where geoseg wrote it; where the file names them, what it names."""
    if map_legend(source) is not None:
        return "ids"
    return "codes" if given is None else None


def _named_paths(items: Sequence[str]) -> dict[str, str]:
    """Paths of rasters by the names of their columns.

    Raises:
        InputError: A name is empty, or there twice, or that of the confidence.
    """
    found: dict[str, str] = {}
    for name, path in map(_named_path, items):
        if not name:
            raise InputError("a raster of means has no name before its =; needed is name=path, or the path alone")
        if name.lower() in (CONFIDENCE, *map(str.lower, found)):
            raise InputError(f"means has no column '{name}' left for a raster; give it another name: name=path")
        found[name] = path
    return found


def _named_path(item: str | Path) -> tuple[str, str]:
    """Name and path of a raster of means.

    All is path where `/`, `:` or `?` stand before the first =, and where a file, and none without the name, is so
    called.

    >>> _named_path("red=a/b.tif"), _named_path("/y=1/b.tif"), _named_path("https://host/dem.tif?token=a.b")
    (('red', 'a/b.tif'), ('mean_b', '/y=1/b.tif'), ('mean_dem', 'https://host/dem.tif?token=a.b'))
    """
    text = str(item).strip()
    name, equals, path = text.partition("=")
    called = equals and not set(name) & set("/:?")
    if called and not (_local([path]) and Path(text).exists() and not Path(path).exists()):
        return name.strip(), path.strip()
    return f"mean_{Path(text.partition('?')[0]).stem}", text


def _local(paths: Iterable[str | Path | None]) -> list[str | Path]:
    """Those that are no addresses: an address with a token is longer than the name of a file may be."""
    return [path for path in paths if path is not None and "://" not in str(path)]


def _others(
    class_map: str | Path, *, confidence: str | Path | None, means: Mapping[str, str]
) -> dict[str, Source]:  # fmt: skip
    """Rasters to sum over the polygons, by the names of their columns."""
    siblings = [Path(path).with_suffix(".confidence.tif") for path in _local([class_map])]
    if confidence is None:
        confidence = next((path for path in siblings if path.exists() and path != Path(class_map)), None)
    others = {} if confidence is None else {CONFIDENCE: _one_band(confidence)}
    return others | {name: io.open_source(path) for name, path in means.items()}


def _one_band(path: str | Path) -> Source:
    """The source of the confidence, averaged where it is finer than the map."""
    source = io.open_source(str(path))
    if len(source.bands) != 1:
        raise BandError(f"{path} has {len(source.bands)} bands; needed is a confidence of one band")
    return source


def _check_place(source: Source, others: Mapping[str, Source]) -> None:
    """That the other rasters lie where the map does."""
    for name, other in others.items():
        if other.geobox != source.geobox and not io.grids_meet(other.geobox, source.geobox):
            raise GridError(f"{name} and the map do not overlap; give rasters of one place, or mend their CRS")


def _check_kept(out: Path, inputs: Sequence[str | Path], *, per_class: bool) -> None:
    """That no output takes the place of an input; of one file a class, no file that a class might be written to."""
    outs = [out]
    if per_class:
        outs = [path for path in out.parent.iterdir() if path.name.startswith(f"{out.stem}_")]
        outs = [path for path in outs if path.suffix.lower() == out.suffix.lower()]
    for path in outs:
        check_kept(path, inputs)


def _probabilities(path: str | Path | None, legend_of: Any) -> tuple[Source | None, tuple[int, ...]]:
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
    except GeosegError:
        raise
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


def _run(engine: str, scheduler: str | None, workers: int) -> vector.Run:
    """Who traces the map.

    Raises:
        InputError: There is no worker, or a scheduler that nobody asks.
    """
    if workers < 1:
        raise InputError(f"workers must be 1 or more, got {workers}")
    if engine == "threads":
        if scheduler is not None:
            raise InputError(f"the scheduler {scheduler} has nothing to do here; add --engine dask, or leave it out")
        return vector.in_threads
    return partial(infer.map_windows, scheduler=scheduler, workers=workers)
