"""Labels: rasters of class codes and polygons with a class, read onto any grid as class ids.

A label source is a Source with the one band `label`. Where nobody labelled anything it is invalid, never background,
unless the user names a background class. Several of them lie on top of each other, the first winning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox

from geoseg.errors import BandError, InputError, LegendError
from geoseg.io.clouds import by_nearest
from geoseg.io.label_colors import read_by_colors
from geoseg.io.label_layers import are_layers, as_mapping, open_layers
from geoseg.io.label_names import NamedValues, Wanted, codes_of, free_ignore, has_codes, labelled, own_legend
from geoseg.io.label_sources import LabelRaster, LabelSource, LabelVector, class_ids, is_text, known, names_in
from geoseg.io.legends import legend_of_codes, read_legend, whole_numbers, without
from geoseg.io.polygons import PolygonFile, is_vector
from geoseg.io.protocol import Source
from geoseg.io.raster_says import each_says, name_key
from geoseg.io.soft_labels import open_soft_labels
from geoseg.io.sources import SourceSpec, open_source
from geoseg.legend import Legend, LegendClass, default_color

__all__ = ["LabelRaster", "LabelSource", "LabelSpec", "LabelVector", "check_overlap", "open_labels", "read_legend"]

LabelSpec = SourceSpec | Source
"""A raster source, the path of a vector file, or either in a mapping with the options below beside it; or several."""

BOTH = ("path", "legend", "background", "ignore", "crs")
OF_LABELS = ("legend", "background", "ignore", "colors", "tolerance")
MAP_IDS, MAP_NAMES = "class_id", "class_name"
"""Columns of a map's polygons, as `geoseg vectorize` writes them: ids of the map's classes, and their names."""

VECTOR_ONLY = ("column", "name_column", "value", "layer", "all_touched")


def open_labels(
    spec: LabelSpec,
    *,
    legend: Legend | None = None,
    column: str | None = None,
    background: str | int | None = None,
    like_map: bool = False,
) -> tuple[LabelSource, Legend]:
    """A label source and its legend.

    Args:
        spec: One of

            - a raster, as `geoseg.io.sources.open_source` takes it: one band of class codes;
            - the path of a vector file with polygons; where they overlap, the later one in the file wins (FlatGeobuf
              sorts by place when it is written);
            - a label source, which is passed on;
            - a mapping `{path: P}`, or with `stack` or `mosaic` for rasters, with options beside it. For both kinds:
              `legend` (what the codes in this file mean), `background` (class of what nobody labelled), `ignore`
              (codes or names that are no class), `crs`. For vectors: `column` (class names or integer codes; of a map's
              polygons `class_id` goes by the names beside it), `name_column` (names of the codes in `column`), `value`
              (one class for all polygons), `layer`, `all_touched` (also pixels whose centre lies outside). For rasters:
              what a source takes, and where classes are drawn in colours `colors` (`{"#ffffff": road, "#000000":
              null}`) and `tolerance`, as `geoseg.io.label_colors.read_by_colors` has them;
            - a list with a vector, a label source or a mapping with such options in it, or `{layers: [...]}`: of each
              pixel the first that labels it, see `geoseg.io.label_layers.open_layers`. A list of plain rasters is a
              mosaic;
            - a mapping `{soft: ...}`: shares of classes, see `geoseg.io.soft_labels.open_soft_labels`, of which the
              largest counts.
        legend: The classes wanted. A file's own `legend` is then matched to it by name. Without either it is found:
            see `read_legend` for rasters; from the column for vectors; of several the classes of all, by name.
        column: As in the mapping.
        background: As in the mapping. A new name becomes a class of its own where the legend is found in the labels.
        like_map: Whether the legend is that of a map to compare with: values to which a file gives other names are
            refused then.

    Raises:
        InputError: An option is unknown, a column is missing, or nothing says what the classes are.
        MissingInputError: A file is not there.
        ReadError: A file cannot be read.
        GridError: Polygons have no CRS.
        LegendError: A class is not in the legend, or a value has two names.
    """
    if isinstance(spec, LabelSource):
        return _passed_on(spec, legend)
    beside = {key: given for key, given in (("column", column), ("background", background)) if given is not None}
    if are_layers(spec):
        layers = open_layers(
            {**as_mapping(spec), **beside}, legend=legend, open_one=partial(open_labels, like_map=like_map)
        )
        return layers, layers.legend
    options: dict[str, Any] = (dict(spec) if isinstance(spec, Mapping) else {"path": spec}) | beside
    path = options.get("path")
    if "soft" in options:
        soft, wanted = open_soft_labels(options, legend=legend)
        return soft.hard, wanted
    if isinstance(path, str | Path) and is_vector(str(path)):
        return _open_vector(str(path), options, Wanted(legend, like_map))
    return _open_raster(options, Wanted(legend, like_map))


def _passed_on(labels: LabelSource, legend: Legend | None) -> tuple[LabelSource, Legend]:
    """The labels as they are, or under the legend wanted, whose classes have the same names.

    Raises:
        LegendError: The labels have a class whose name the legend lacks.
    """
    own = labels.legend
    if legend is None or legend == own:
        return labels, own
    items = tuple(replace(legend.by_name(item.name), codes=(item.id,)) for item in own.classes)
    taken = {*own.ids.tolist(), *(item.id for item in items)}
    return LabelRaster(labels, legend, Legend(items, free_ignore(own.ignore, taken))), legend


def check_overlap(labels: LabelSource, geobox: GeoBox, *, name: object = "the labels") -> None:
    """Nothing, where the labels' bounds meet the grid.

    Raises:
        InputError: They lie elsewhere.
    """
    if not labels.bounds_overlap(geobox):
        raise InputError(f"{name} and the image do not overlap; give labels of the same place, or mend their CRS")


# -- rasters -----------------------------------------------------------------------------------------------------------


def _open_raster(options: dict[str, Any], wanted: Wanted) -> tuple[LabelSource, Legend]:
    stray = [key for key in VECTOR_ONLY if options.get(key) is not None]
    if stray:
        raise InputError(f"labels from a raster have no option {', '.join(stray)}; it is for vector files")
    own = None if options.get("legend") is None else read_legend(options["legend"])
    source, own = _codes(options, own, wanted.legend)
    ignored = tuple(_integers(options.get("ignore")))
    written, unlabelled = None, frozenset[int]()
    if options.get("colors") is None:
        each = each_says(source, told=own is not None or has_codes(wanted.legend))
        unlabelled = frozenset(code for said in each for code in said.unlabelled)
        given, (written, own) = own, own_legend(source, each, own, wanted, ignored)
        if given is None and (own is not None or not has_codes(wanted.legend)):
            source = labelled(source, each)
    if own is not None:
        ignored = (*ignored, own.ignore)
    legend, coding = _matched(own, wanted.legend)
    if wanted.legend is None and written is not None:
        legend = without(written, ignored)  # for other labels, whose codes it knows
    legend, background = _background(
        options.get("background"), legend, found=own is not None and wanted.legend is None
    )  # fmt: skip
    known = {code for item in coding.classes for code in item.codes or (item.id,)}
    return LabelRaster(source, legend, coding, (*ignored, *sorted(unlabelled - known)), background), legend


def _codes(options: dict[str, Any], own: Legend | None, legend: Legend | None) -> tuple[Source, Legend | None]:
    """The source of codes, and the legend of the file where it has one."""
    table, tolerance = options.get("colors"), options.get("tolerance")
    if table is None:
        if tolerance is not None:
            raise InputError("tolerance says how far colours may be off, and goes with colors: {...}")
        return _one_band(_nearest(options)), own
    # Ids in the table are those of the legend wanted, where the file has none of its own.
    by_id = isinstance(table, Mapping) and any(isinstance(value, int) for value in table.values())
    given = own or (legend if by_id else None)
    return read_by_colors(_nearest(options), table, legend=given, tolerance=0 if tolerance is None else tolerance)


def _nearest(options: dict[str, Any]) -> Source:
    """The raster, read by nearest neighbour, also where it is already open."""
    spec = {key: value for key, value in options.items() if key not in OF_LABELS}
    inner = spec.get("path")
    return by_nearest(inner) if isinstance(inner, Source) else open_source({"resampling": "nearest", **spec})


def _one_band(source: Source) -> Source:
    """`source`, which has one band.

    Raises:
        BandError: It has more.
    """
    if len(source.bands) != 1:
        raise BandError(
            f"labels need one band, the raster has [{', '.join(source.bands)}]; choose with {{path: ..., select: [1]}} "
            "or say what colours mean with colors: {...}"
        )
    return source


# -- vectors -----------------------------------------------------------------------------------------------------------


def _open_vector(path: str, options: dict[str, Any], wanted: Wanted) -> tuple[LabelSource, Legend]:
    stray = sorted(set(options) - {*BOTH, *VECTOR_ONLY})
    if stray:
        raise InputError(
            f"labels from a vector file have no option {', '.join(stray)}; known are {', '.join((*BOTH, *VECTOR_ONLY))}"
        )
    own = None if options.get("legend") is None else read_legend(options["legend"])
    value, legend = options.get("value"), wanted.legend
    file = PolygonFile(path, options.get("layer"), crs=_crs_text(options.get("crs")))
    column = None if value is not None else _column(file, options, legend or own)
    if column is None and value is None:
        value = _only_class(legend or own, options.get("background"))
    if column is not None:
        file = _with_names(replace(file, columns=(column,)), options.get("name_column"), legend, told=own is not None)
    ignored = _ignored(options.get("ignore"))
    found = own is None and legend is None
    if found:
        own = _found_legend(file, ignored) if column is not None else _legend_of(value)
    elif own is None and legend is not None and len(file.columns) > 1:
        said = NamedValues(_names_of_codes(file, ignored), column == MAP_IDS, path)
        own = said.matched(legend, like_map=wanted.like_map)
    legend, coding = _matched(own, legend)
    class_id = None if column is not None else _class_id(value, legend)
    legend, background = _background(options.get("background"), legend, found=found)
    labels = LabelVector(
        file, legend, coding, class_id, ignored, background, all_touched=bool(options.get("all_touched", False))
    )
    class_ids(labels, file.read())
    return labels, legend


def _with_names(file: PolygonFile, given: str | None, legend: Legend | None, *, told: bool) -> PolygonFile:
    """The file with a column of names beside that of codes: the one given, else that of a map's polygons.

    Not the latter where one is `told` what the codes mean.

    Raises:
        LegendError: Polygons of one code have several names, and the legend gives one of them to other codes.
    """
    column = file.columns[0]
    if given:
        return replace(file, columns=(column, str(given)))
    named = replace(file, columns=(column, MAP_NAMES))
    if told or column != MAP_IDS or MAP_NAMES not in file.fields():
        return file
    try:
        _names_of_codes(named, ())
    except LegendError:
        codes = {} if legend is None else {name_key(item.name): codes_of(item) for item in legend.classes}
        if any(code not in codes.get(name_key(name), {code}) for code, name in _codes_and_names(named, ())):
            raise
        return file  # notes, or kinds of a class
    return named


def _column(file: PolygonFile, options: dict[str, Any], legend: Legend | None) -> str | None:
    """The column of classes: the one given, else the only one; None where there can be just one class."""
    if options.get("column") is not None:
        return str(options["column"])
    things = 0 if legend is None else len(legend) - (options.get("background") is not None)
    if things == 1:
        return None
    fields = file.fields()
    if len(fields) == 1:
        return fields[0]
    raise InputError(
        f"which column of {file.path} holds the class? give column: one of {', '.join(fields) or '(it has none)'}; "
        "or value: NAME where all polygons are one class"
    )


def _only_class(legend: Legend | None, background: str | int | None) -> str:
    """The name of the one class that is not the background."""
    if legend is None:
        raise LegendError("nothing says what the polygons are; give value: NAME or a legend")
    empty = None if background is None else _class_id(background, legend)
    return next(item.name for item in legend.classes if item.id != empty)


def _legend_of(value: str | int | None) -> Legend:
    """The legend of the one class that all polygons are: a name, or a number of its own."""
    return legend_of_codes([value], {}) if isinstance(value, int) else Legend.from_names([str(value)])


def _found_legend(file: PolygonFile, ignored: tuple[int | str, ...]) -> Legend:
    """The legend of what stands in the class column."""
    values = file.read().columns[file.columns[0]]
    told = known(values, ignored)
    if not told.any():
        raise LegendError(f"column {file.columns[0]} of {file.path} names no class")
    values = values[told]
    if is_text(values):
        return Legend.from_names(names_in(values))
    return legend_of_codes(set(whole_numbers(values).tolist()), _names_of_codes(file, ignored))


def _names_of_codes(file: PolygonFile, ignored: tuple[int | str, ...]) -> dict[int, str]:
    """Names of the codes in the first column by what stands in the second; none where the first holds texts.

    Raises:
        LegendError: A code has two names.
    """
    names: dict[int, str] = {}
    for code, name in _codes_and_names(file, ignored):
        if name_key(names.setdefault(code, name)) != name_key(name):
            raise LegendError(
                f"code {code} of {file.path} is called '{names[code]}' and '{name}'; give a legend, or take column: "
                f"{file.columns[1]}"
            )
    return names


def _codes_and_names(file: PolygonFile, ignored: tuple[int | str, ...]) -> list[tuple[int, str]]:
    """Each code of the first column with each name that the second gives it; none where the first holds texts."""
    columns = [file.read().columns[name] for name in file.columns]
    if len(columns) == 1 or is_text(columns[0]):
        return []
    told = known(columns[0], ignored)
    # A null is unlike all, so that it is looked for among pairs that are few.
    pairs = dict.fromkeys(zip(whole_numbers(columns[0][told]).tolist(), columns[1][told].tolist(), strict=True))
    there = known(np.fromiter((name for _, name in pairs), object, len(pairs)), ())
    return [(code, str(name).strip()) for (code, name), is_name in zip(pairs, there, strict=True) if is_name]


# -- both --------------------------------------------------------------------------------------------------------------


def _matched(own: Legend | None, legend: Legend | None) -> tuple[Legend, Legend]:
    """The legend wanted, and the same classes with the codes of the file.

    Raises:
        LegendError: The file has a class whose name the legend lacks.
    """
    wanted = legend or own
    if wanted is None:
        raise LegendError("nothing says what the classes are; give a legend")
    if own is None or legend is None or own == legend:
        return wanted, wanted
    items = [replace(legend.by_name(item.name), codes=item.codes or (item.id,)) for item in own.classes]
    taken = {*(code for item in items for code in item.codes), *(item.id for item in items)}
    return legend, Legend(tuple(items), free_ignore(own.ignore, taken))


def _background(given: str | int | None, legend: Legend, *, found: bool) -> tuple[Legend, int | None]:
    """The legend with the background class, and its id.

    Raises:
        LegendError: The legend was given and lacks the class.
    """
    if given is None:
        return legend, None
    names = [name.lower() for name in legend.names]
    if found and isinstance(given, str) and given.lower() not in names:
        taken = {*legend.ids.tolist(), legend.ignore, *(code for item in legend.classes for code in item.codes)}
        class_id = next(value for value in range(65535) if value not in taken)
        added = LegendClass(
            class_id, given, default_color(given, len(legend), taken=[item.color for item in legend.classes])
        )
        return Legend((*legend.classes, added), legend.ignore), class_id
    return legend, _class_id(given, legend)


def _class_id(given: str | int | None, legend: Legend) -> int:
    return legend.by_id(given).id if isinstance(given, int) else legend.by_name(str(given)).id


def _listed(given: Any) -> list[Any]:
    if given is None:
        return []
    return [given] if isinstance(given, str | Real) else list(given)


def _ignored(given: Any) -> tuple[int | str, ...]:
    """The codes and names of an `ignore` list.

    Raises:
        InputError: One is neither a whole number nor a text.
    """
    values = _listed(given)
    if not all(isinstance(value, str) or _is_whole(value) for value in values):
        raise InputError(f"ignore: needed are whole numbers or names of classes, such as [255, unknown], got {values}")
    return tuple(value if isinstance(value, str) else int(value) for value in values)


def _is_whole(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real) and float(value).is_integer()


def _integers(given: Any) -> Iterable[int]:
    """The codes of an `ignore` list.

    Raises:
        InputError: One is no integer.
    """
    values = _listed(given)
    if not all(_is_whole(value) for value in values):
        raise InputError(f"ignore: needed are integer codes of the raster, got {values}")
    return [int(value) for value in values]


def _crs_text(given: Any) -> str | None:
    return None if given is None else f"EPSG:{given}" if isinstance(given, int) else str(given)
