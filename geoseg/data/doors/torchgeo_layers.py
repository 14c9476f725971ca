"""What a torchgeo dataset with a place (GeoDataset) is made of: image pieces and mask pieces, each with its own place.

Where a dataset is a plain list of files these are opened by geoseg: real nodata, each file on its own grid and in its
own CRS, whatever CRS and resolution torchgeo would warp them to. All others are read through their own `__getitem__`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

from geoseg.data.doors.torchgeo_classes import BAND_NAMES, label_options
from geoseg.data.doors.torchgeo_identity import bare
from geoseg.data.doors.torchgeo_named import torchgeo_module
from geoseg.data.doors.torchgeo_pictures import File
from geoseg.data.doors.torchgeo_reads import CORNER_PX, GeoDatasetSource, Held, Recoded, grid_of, query_of
from geoseg.errors import InputError
from geoseg.io.combine import BandStack, Mosaic, Picked
from geoseg.io.gdal import GdalSource
from geoseg.io.labels import open_labels
from geoseg.io.polygons import is_vector
from geoseg.io.protocol import Source


@dataclass(frozen=True)
class Piece:
    """A file or more that were taken as one.

    Attributes:
        name: For messages.
        source: Its pixels.
        place: Footprint, in the CRS of the whole dataset.
        first: First moment, nanoseconds since 1970.
        last: Last moment.
        key: What the dataset's index calls it: a path.
    """

    name: str
    source: Source
    place: BaseGeometry
    first: int
    last: int
    key: str = ""


@dataclass(frozen=True)
class Layers:
    """Pieces that belong together.

    Attributes:
        images: Pieces with image bands.
        masks: Pieces with class codes.
        options: What labels of the masks take: `legend`, `ignore`, `background`.
    """

    images: tuple[Piece, ...] = ()
    masks: tuple[Piece, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether there are images and masks."""
        return bool(self.images and self.masks)


def layers_of(dataset: Any) -> list[Layers]:
    """The layers of a GeoDataset; several where it is the union of whole ones.

    Raises:
        InputError: The pieces cannot be put together.
    """
    datasets = torchgeo_module()
    own = type(dataset).__getitem__
    if own is datasets.IntersectionDataset.__getitem__:
        first, second = map(layers_of, dataset.datasets)
        timeless = "datetime_1" in dataset.index.columns
        return [_joined(one, other, timeless=timeless) for one in first for other in second]
    if own is datasets.UnionDataset.__getitem__:
        found = [layers for member in dataset.datasets for layers in layers_of(member)]
        return found if all(layers.whole for layers in found) else [_merged(found)]
    return [_leaf(dataset, datasets)]


def _leaf(dataset: Any, datasets: ModuleType) -> Layers:
    """The layers of what is no intersection and no union."""
    if type(dataset).__name__ in LAYERED:
        return _layered(dataset)
    if isinstance(dataset, datasets.LandCoverAIGeo):
        return _landcover(dataset)
    if isinstance(dataset, datasets.RasterDataset) and _is_plain(dataset, datasets.RasterDataset):
        return _of_files(dataset)
    if isinstance(dataset, datasets.VectorDataset) and _is_plain_vector(dataset, datasets.VectorDataset):
        return _of_vectors(dataset)
    return _of_samples(dataset)


# -- rasters -----------------------------------------------------------------------------------------------------------


def _is_plain(dataset: Any, base: Any) -> bool:
    """Whether the files are read as the base class does, but for codes that are numbered through."""
    reads = ("_merge_files", "_load_warp_file", "_cached_load_warp_file")
    if any(getattr(type(dataset), name) is not getattr(base, name) for name in reads):
        return False
    if type(dataset).__getitem__ is base.__getitem__:
        return True
    own = type(dataset).__module__.startswith("torchgeo.datasets.")
    return own and hasattr(dataset, "ordinal_map") and not dataset.is_image


def _of_files(dataset: Any) -> Layers:
    options = {} if dataset.is_image else label_options(dataset)
    table = tuple(dataset.ordinal_map.tolist()) if hasattr(dataset, "ordinal_map") and not dataset.is_image else None
    pieces = _pieces(dataset, lambda path: _raster(dataset, path, table))
    return Layers(images=pieces) if dataset.is_image else Layers(masks=pieces, options=options)


def _raster(dataset: Any, path: str, table: tuple[int, ...] | None) -> Source:
    """A file of the dataset, or the files of its bands."""
    resampling, bands = "bilinear" if dataset.is_image else "nearest", tuple(dataset.bands or ())
    if dataset.separate_files and bands:
        members = [(str(dataset._update_filepath(band, path)), band) for band in bands]  # noqa: SLF001 - its own naming
        files = [Picked(GdalSource(file, chosen=(1,), resampling=resampling), (0,), (band,)) for file, band in members]
        return files[0] if len(files) == 1 else BandStack(tuple(files), names=bands)
    if not dataset.is_image:
        source = _codes(path)
        return source if table is None else Recoded(source, table)
    names = tuple(dataset.all_bands) or BAND_NAMES.get(type(dataset).__name__)
    chosen = bands if bands and bands != names else None
    return GdalSource(path, names=names, chosen=chosen, resampling=resampling)


def _codes(path: str) -> Source:
    """The first band of a file, named alike for all."""
    return Picked(GdalSource(path, chosen=(1,), resampling="nearest"), (0,), ("code",))


def _pieces(dataset: Any, source: Callable[[str], Source]) -> tuple[Piece, ...]:
    """One piece a file of the dataset's index, its place the union of the file's rows."""
    rows: dict[str, list[tuple[BaseGeometry, Any]]] = {}
    for when, row in zip(dataset.index.index, dataset.index.to_dict("records"), strict=True):
        path = row.get("filepath") or next(value for value in row.values() if isinstance(value, str))
        rows.setdefault(str(path), []).append((row["geometry"], when))
    return tuple(
        Piece(_stem(path), source(path), shapely.union_all([place for place, _ in found]), *_span(found), key=path)
        for path, found in rows.items()
    )


def _span(rows: Sequence[tuple[BaseGeometry, Any]]) -> tuple[int, int]:
    """First and last moment of some rows of an index."""
    return min(when.left.value for _, when in rows), max(when.right.value for _, when in rows)


def _stem(path: str) -> str:
    return re.sub(r"\.[A-Za-z0-9]+$", "", Path(path).name)


def _landcover(dataset: Any) -> Layers:
    """LandCover.ai: each `images/NAME.tif` with its `masks/NAME.tif`."""
    images = _pieces(dataset, lambda path: GdalSource(path, names=BAND_NAMES["LandCoverAIGeo"]))
    masks = _pieces(dataset, lambda path: _codes(path.replace("images", "masks")))
    return Layers(images, masks, label_options(dataset))


# -- ChesapeakeCVPR and EnviroAtlas: a column of paths a layer ---------------------------------------------------------

LAYERED = {"ChesapeakeCVPR": "", "EnviroAtlas": "enviroatlas_lotp"}
"""Folder below the root that the paths count from."""

IMAGE_LAYERS = ("naip-new", "naip-old", "landsat-leaf-on", "landsat-leaf-off", "naip", "buildings", "roads",
                "waterways", "waterbodies", "water")  # fmt: skip
MASK_LAYERS = {"ChesapeakeCVPR": ("lc", "nlcd", "buildings"), "EnviroAtlas": ("lc",)}


def _layered(dataset: Any) -> Layers:
    """The tiles, each in its own UTM zone, which torchgeo hands out without saying where the pixels lie."""
    kind = type(dataset).__name__
    masks = [layer for layer in dataset.layers if layer in MASK_LAYERS[kind]]
    images = [layer for layer in dataset.layers if layer in IMAGE_LAYERS and layer not in masks]
    stray = [layer for layer in dataset.layers if layer not in (*masks, *images)]
    if stray or len(masks) > 1:
        raise InputError(
            f"{kind}: of layers {', '.join(stray or masks)} {'none' if stray else 'only one'} can be the labels; "
            f"choose images and one of {', '.join(MASK_LAYERS[kind])} with layers: [...]"
        )
    rows = dataset.index.to_dict("records")
    spans = [_span([(row["geometry"], when)]) for row, when in zip(rows, dataset.index.index, strict=True)]
    root = Path(dataset.root) / LAYERED[kind]
    found: dict[str, tuple[Piece, ...]] = {"images": (), "masks": ()}
    for what, layers, source in (("images", images, _layer_stack), ("masks", masks, _layer_codes)):
        for row, span in zip(rows, spans, strict=True) if layers else ():
            paths = [str(root / row[layer]) for layer in layers]
            piece = Piece(_stem(paths[0]), source(dataset, layers, paths), row["geometry"], *span, key=row[layers[0]])
            found[what] += (piece,)
    options = _layer_options(dataset, masks[0]) if masks else {}
    return Layers(found["images"], found["masks"], options)


def _layer_stack(dataset: Any, layers: Sequence[str], paths: Sequence[str]) -> Source:  # noqa: ARG001 - as _layer_codes
    files = [GdalSource(path, names=BAND_NAMES.get(layer)) for layer, path in zip(layers, paths, strict=True)]
    if len(files) == 1:
        return files[0]
    return _stack([_prefixed(file, layer) for layer, file in zip(layers, files, strict=True)])


def _prefixed(source: Source, word: str) -> Source:
    return Picked(source, tuple(range(len(source.bands))), tuple(f"{word} {band}" for band in source.bands))


def _layer_codes(dataset: Any, layers: Sequence[str], paths: Sequence[str]) -> Source:
    source = _codes(paths[0])
    table = getattr(dataset, "raw_enviroatlas_to_idx_map", None) if layers[0] == "lc" else None
    return source if table is None else Recoded(source, tuple(int(code) for code in table))


def _layer_options(dataset: Any, layer: str) -> dict[str, Any]:
    if layer == "nlcd":
        return {}
    if hasattr(dataset, "highres_classes"):
        return label_options(_Classes(dataset.highres_classes))
    return label_options(dataset, name=layer)


@dataclass(frozen=True)
class _Classes:
    """Class names, as a dataset has them."""

    classes: tuple[str, ...]


# -- vectors -----------------------------------------------------------------------------------------------------------


def _is_plain_vector(dataset: Any, base: Any) -> bool:
    own = type(dataset)
    if own.__getitem__ is not base.__getitem__ or own.get_label is not base.get_label:
        return False
    named = dataset.layer is None or isinstance(dataset.layer, str)
    return named and dataset.task == "semantic_segmentation" and all(map(is_vector, _paths(dataset)))


def _paths(dataset: Any) -> Iterable[str]:
    return map(str, dataset.index["filepath"]) if "filepath" in dataset.index.columns else ()


def _of_vectors(dataset: Any) -> Layers:
    """Polygons as class codes: those of `label_name`, else 1 beside a class 0, `background`."""
    common = {} if dataset.layer is None else {"layer": dataset.layer}
    if dataset.label_name is None:
        legend: Any = {0: "background", 1: type(dataset).__name__}
        specs = {path: {"path": path, "value": 1, "legend": legend, **common} for path in _paths(dataset)}
        pieces = _pieces(dataset, lambda path: open_labels(specs[path])[0])
        return Layers(masks=pieces, options={"legend": legend, "background": 0})
    specs = {path: {"path": path, "column": dataset.label_name, **common} for path in _paths(dataset)}
    legends = [open_labels(spec)[1] for spec in specs.values()]
    classes = {item.name: item for legend in reversed(legends) for item in legend.classes}
    legend = replace(legends[0], classes=tuple(classes.values()))
    return Layers(
        masks=_pieces(dataset, lambda path: open_labels(specs[path], legend=legend)[0]), options={"legend": legend}
    )


# -- all others --------------------------------------------------------------------------------------------------------


def _of_samples(dataset: Any) -> Layers:
    """A piece a row of the index, read through `__getitem__`."""
    plain = bare(dataset)
    held = Held(plain)
    found: dict[str, list[Piece]] = {"image": [], "mask": []}
    keys: list[str] = []
    for number, (when, row) in enumerate(zip(plain.index.index, plain.index.to_dict("records"), strict=True)):
        place = row["geometry"]
        grid, span = grid_of(plain, place.bounds), _span([(place, when)])
        if not keys:
            sample = plain[query_of(grid[:CORNER_PX, :CORNER_PX], *span)]
            keys = [key for key in ("image", "mask") if key in sample]
        paths = [value for value in row.values() if isinstance(value, str)]
        files = tuple(File(path) for path in paths if Path(path).exists())
        for key in keys:
            source = GeoDatasetSource(held, grid, key, *span, files=files)
            found[key].append(Piece(f"{held.name} {number}", source, place, *span, key=paths[0] if paths else ""))
    return Layers(tuple(found["image"]), tuple(found["mask"]), label_options(dataset) if found["mask"] else {})


# -- together ----------------------------------------------------------------------------------------------------------


class Neighbours:
    """Pieces by place and time.

    Args:
        pieces: The pieces.
        timeless: Whether their time does not matter.
    """

    def __init__(self, pieces: Sequence[Piece], *, timeless: bool = False) -> None:
        self._pieces, self._timeless = pieces, timeless
        self._tree = shapely.STRtree([piece.place for piece in pieces])

    def under(self, piece: Piece, *, resampling: str) -> Source | None:
        """Those that share ground and a moment with a piece, as one source; None where there is none."""
        near = [self._pieces[number] for number in sorted(self._tree.query(piece.place, predicate="intersects"))]
        found = tuple(other.source for other in near if self._meet(piece, other))
        if len(found) < 2:
            return found[0] if found else None
        return Mosaic(found, resampling=resampling)

    def _meet(self, one: Piece, other: Piece) -> bool:
        in_time = self._timeless or (one.first <= other.last and other.first <= one.last)
        return in_time and bool(shapely.area(shapely.intersection(one.place, other.place)) > 0)


def _joined(one: Layers, other: Layers, *, timeless: bool) -> Layers:
    """`one & other`: images of both as bands, the masks of one of them."""
    if one.masks and other.masks:
        raise InputError("both sides of an intersection have masks; needed is one: name the other one's labels instead")
    masks, options = (one.masks, one.options) if one.masks else (other.masks, other.options)
    if not (one.images and other.images):
        return Layers(one.images or other.images, masks, options)
    images, others = [], Neighbours(other.images, timeless=timeless)
    for piece in one.images:
        beside = others.under(piece, resampling="bilinear")
        if beside is not None:
            images.append(replace(piece, source=_stack([piece.source, beside])))
    return Layers(tuple(images), masks, options)


def _stack(members: Sequence[Source]) -> Source:
    """The bands of all members; a name that is met again gets a number."""
    names: list[str] = []
    for band in (band for member in members for band in member.bands):
        lowered = [name.lower() for name in names]
        taken = sum(name == band.lower() or name.startswith(f"{band.lower()}_") for name in lowered)
        names.append(band if band.lower() not in lowered else f"{band}_{taken + 1}")
    return BandStack(tuple(members), names=tuple(names))


def _merged(parts: Sequence[Layers]) -> Layers:
    """`one | other`: all pieces."""
    options = [part.options for part in parts if part.masks]
    if any(one != options[0] for one in options):
        raise InputError("the masks of a union have different classes; needed are masks of one legend")
    return Layers(
        tuple(piece for part in parts for piece in part.images),
        tuple(piece for part in parts for piece in part.masks),
        options[0] if options else {},
    )
