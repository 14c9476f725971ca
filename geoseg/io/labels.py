"""Labels: rasters of class codes and polygons with a class, read onto any grid as class ids.

A label source is a Source with the one band `label`. Where nobody labelled anything it is invalid, never background,
unless the user names a background class. Several of them lie on top of each other, the first winning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from odc.geo.geobox import GeoBox

from geoseg.errors import BandError, InputError, LegendError
from geoseg.io.clouds import by_nearest
from geoseg.io.label_colors import read_by_colors
from geoseg.io.label_layers import are_layers, as_mapping, open_layers
from geoseg.io.label_sources import LabelRaster, LabelSource, LabelVector, class_ids, is_text, known, names_in
from geoseg.io.legends import (
    legend_of_codes,
    map_legend,
    raster_legend,
    read_legend,
    said_names,
    unlabelled_codes,
    whole_numbers,
    without,
)
from geoseg.io.polygons import PolygonFile, is_vector
from geoseg.io.protocol import Source
from geoseg.io.soft_labels import open_soft_labels
from geoseg.io.sources import SourceSpec, open_source
from geoseg.io.stamps import paths_in
from geoseg.legend import Legend, LegendClass, default_color

__all__ = ["LabelRaster", "LabelSource", "LabelSpec", "LabelVector", "check_overlap", "open_labels", "read_legend"]

LabelSpec = SourceSpec | Source
"""A raster source, the path of a vector file, or either in a mapping with the options below beside it; or several."""

BOTH = ("path", "legend", "background", "ignore", "crs")
OF_LABELS = ("legend", "background", "ignore", "colors", "tolerance")
VECTOR_ONLY = ("column", "name_column", "value", "layer", "all_touched")


def open_labels(
    spec: LabelSpec,
    *,
    legend: Legend | None = None,
    column: str | None = None,
    background: str | int | None = None,
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
              (codes or names that are no class), `crs`. For vectors: `column` (class names or integer codes),
              `name_column` (names of the codes in `column`), `value` (one class for all polygons), `layer`,
              `all_touched` (also pixels whose centre lies outside). For rasters: what a source takes, and where classes
              are drawn in colours `colors` (`{"#ffffff": road, "#000000": null}`) and `tolerance`, as
              `geoseg.io.label_colors.read_by_colors` has them;
            - a list with a vector, a label source or a mapping with such options in it, or `{layers: [...]}`: of each
              pixel the first that labels it, see `geoseg.io.label_layers.open_layers`. A list of plain rasters is a
              mosaic;
            - a mapping `{soft: ...}`: shares of classes, see `geoseg.io.soft_labels.open_soft_labels`, of which the
              largest counts.
        legend: The classes wanted. A file's own `legend` is then matched to it by name. Without either it is found:
            see `read_legend` for rasters; from the column for vectors; of several the classes of all, by name.
        column: As in the mapping.
        background: As in the mapping. A new name becomes a class of its own where the legend is found in the labels.

    Raises:
        InputError: An option is unknown, a column is missing, or nothing says what the classes are.
        MissingInputError: A file is not there.
        ReadError: A file cannot be read.
        GridError: Polygons have no CRS.
        LegendError: A class is not in the legend.
    """
    if isinstance(spec, LabelSource):
        return _passed_on(spec, legend)
    beside = {key: given for key, given in (("column", column), ("background", background)) if given is not None}
    if are_layers(spec):
        layers = open_layers({**as_mapping(spec), **beside}, legend=legend, open_one=open_labels)
        return layers, layers.legend
    options: dict[str, Any] = (dict(spec) if isinstance(spec, Mapping) else {"path": spec}) | beside
    path = options.get("path")
    if "soft" in options:
        soft, wanted = open_soft_labels(options, legend=legend)
        return soft.hard, wanted
    if isinstance(path, str | Path) and is_vector(str(path)):
        return _open_vector(str(path), options, legend)
    return _open_raster(options, legend)


def _passed_on(labels: LabelSource, legend: Legend | None) -> tuple[LabelSource, Legend]:
    """The labels as they are, or under the legend wanted, whose classes have the same names.

    Raises:
        LegendError: The labels have a class whose name the legend lacks.
    """
    own = labels.legend
    if legend is None or legend == own:
        return labels, own
    coding = Legend(tuple(replace(legend.by_name(item.name), codes=(item.id,)) for item in own.classes), own.ignore)
    return LabelRaster(labels, legend, coding), legend


def check_overlap(labels: LabelSource, geobox: GeoBox, *, name: object = "the labels") -> None:
    """Nothing, where the labels' bounds meet the grid.

    Raises:
        InputError: They lie elsewhere.
    """
    if not labels.bounds_overlap(geobox):
        raise InputError(f"{name} and the image do not overlap; give labels of the same place, or mend their CRS")


# -- rasters -----------------------------------------------------------------------------------------------------------


def _open_raster(options: dict[str, Any], legend: Legend | None) -> tuple[LabelSource, Legend]:
    stray = [key for key in VECTOR_ONLY if options.get(key) is not None]
    if stray:
        raise InputError(f"labels from a raster have no option {', '.join(stray)}; it is for vector files")
    own = None if options.get("legend") is None else read_legend(options["legend"])
    source, own = _codes(options, own, legend)
    ignored = tuple(_integers(options.get("ignore")))
    written = None
    if options.get("colors") is None:
        written = map_legend(source)
        own = _own(source, own, legend, ignored)
    if own is not None:
        ignored = (*ignored, own.ignore)
    wanted, coding = _matched(own, legend)
    if legend is None and written is not None:
        wanted = without(written, ignored)  # for other labels, whose codes it knows
    wanted, background = _background(options.get("background"), wanted, found=own is not None and legend is None)
    known = {code for item in coding.classes for code in item.codes or (item.id,)}
    ignored = (*ignored, *sorted(unlabelled_codes(source) - known))
    labels = LabelRaster(source, wanted, coding, ignored, background)
    return labels, wanted


def _own(source: Source, given: Legend | None, legend: Legend | None, ignored: tuple[int, ...]) -> Legend | None:
    """What the values of a raster mean by themselves; None where the legend wanted says it.

    Where the legend that is given for it is the one that geoseg wrote into it, its values are ids, and no codes.
    """
    if given is not None:
        return given.of_map() if given == map_legend(source) else given
    return raster_legend(source, ignore=ignored) if legend is None else _said(source, legend, ignored)


def _said(source: Source, legend: Legend, ignored: tuple[int, ...]) -> Legend | None:
    """What a raster itself calls its codes, where that is to be matched to the legend by name; else None.

    A map that geoseg wrote holds ids of its own legend. What other files say counts where the legend gives no codes of
    label files, for then nothing else says what theirs mean.

    Raises:
        LegendError: The raster gives a code of the legend another of the legend's names, and has more classes.
    """
    names, ours = said_names(source), map_legend(source) is not None
    known = {item.name.lower(): item for item in legend.classes}
    told = {code: name for code, name in names.items() if code not in ignored}
    shared = {code: known[name.lower()] for code, name in told.items() if name.lower() in known}
    moved = {code: item for code, item in shared.items() if code not in (item.codes or (item.id,))}
    if not moved or (any(item.codes for item in legend.classes) and not ours):
        return None
    if len(shared) == len(told) and len({item.id for item in shared.values()}) == len(shared):
        items = [replace(item, codes=(code,)) for code, item in shared.items()]
        named = {item.id for item in items}
        # Values without a name stand for what the legend says.
        items += [item for item in legend.classes if item.id not in named and not told.keys() & _codes_of(item)]
        taken = {*(item.id for item in items), *(code for item in items for code in _codes_of(item))}
        return Legend(tuple(items), _free(legend.ignore, taken))
    code, item = next(iter(moved.items()))
    raise LegendError(
        f"{', '.join(paths_in(source)) or 'the label raster'} calls its value {code} {told[code]}, which is "
        f"{item.id} in the legend, and its classes are not all in the legend ({', '.join(told.values())} against "
        f"{', '.join(legend.names)}); say what its values mean with {{path: ..., legend: {{...}}}}"
    )


def _codes_of(item: LegendClass) -> set[int]:
    return set(item.codes or (item.id,))


def _free(ignore: int, codes: Iterable[int]) -> int:
    """The ignore value, where it is no code; else another."""
    taken = set(codes)
    free: int = next(value for value in (ignore, 255, 65535, *range(65534, 0, -1)) if value not in taken)
    return free


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


def _open_vector(path: str, options: dict[str, Any], legend: Legend | None) -> tuple[LabelSource, Legend]:
    stray = sorted(set(options) - {*BOTH, *VECTOR_ONLY})
    if stray:
        raise InputError(
            f"labels from a vector file have no option {', '.join(stray)}; known are {', '.join((*BOTH, *VECTOR_ONLY))}"
        )
    own = None if options.get("legend") is None else read_legend(options["legend"])
    value = options.get("value")
    file = PolygonFile(path, options.get("layer"), crs=_crs_text(options.get("crs")))
    column = None if value is not None else _column(file, options, legend or own)
    if column is None and value is None:
        value = _only_class(legend or own, options.get("background"))
    names = tuple(name for name in (column, options.get("name_column")) if column and name)
    file = replace(file, columns=names)
    ignored = tuple(_listed(options.get("ignore")))
    found = own is None and legend is None
    if found:
        own = Legend.from_names([str(value)]) if column is None else _found_legend(file, ignored)
    wanted, coding = _matched(own, legend)
    class_id = None if column is not None else _class_id(value, wanted)
    wanted, background = _background(options.get("background"), wanted, found=found)
    labels = LabelVector(
        file, wanted, coding, class_id, ignored, background, all_touched=bool(options.get("all_touched", False))
    )
    class_ids(labels, file.read())
    return labels, wanted


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


def _found_legend(file: PolygonFile, ignored: tuple[int | str, ...]) -> Legend:
    """The legend of what stands in the class column."""
    columns = [file.read().columns[name] for name in file.columns]
    labelled = known(columns[0], ignored)
    if not labelled.any():
        raise LegendError(f"column {file.columns[0]} of {file.path} names no class")
    values = columns[0][labelled]
    if is_text(values):
        return Legend.from_names(names_in(values))
    codes = whole_numbers(values)
    names: dict[int, str] = {}
    if len(columns) > 1:
        for code, name in zip(codes.tolist(), map(str, columns[1][labelled]), strict=True):
            if names.setdefault(code, name.strip()) != name.strip():
                raise LegendError(f"code {code} of {file.path} is called '{names[code]}' and '{name}'; give a legend")
    return legend_of_codes(set(codes.tolist()), names)


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
    return legend, Legend(tuple(items), _free(own.ignore, taken))


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
    return [given] if isinstance(given, str | int) else list(given)


def _integers(given: Any) -> Iterable[int]:
    """The codes of an `ignore` list.

    Raises:
        InputError: One is no integer.
    """
    values = _listed(given)
    if any(isinstance(value, bool) or not isinstance(value, int) for value in values):
        raise InputError(f"ignore: needed are integer codes of the raster, got {values}")
    return values


def _crs_text(given: Any) -> str | None:
    return None if given is None else f"EPSG:{given}" if isinstance(given, int) else str(given)
