"""torchgeo's datasets and data modules as scenes.

In a config a mapping with the key `torchgeo` stands for all scenes of a dataset, one an image file or chip:

    - torchgeo: {dataset: LoveDA, root: data/loveda, split: train}       # a name in torchgeo.datasets and its arguments
    - torchgeo: {datamodule: LoveDADataModule, root: data/loveda}        # training, validation and test
    - torchgeo: {class_path: torchgeo.datasets.Landsat8, init_args: {paths: landsat, bands: [B4, B5]}}
      labels: fields.gpkg
    - torchgeo: {and: [{dataset: NAIP, paths: naip}, {dataset: ChesapeakeDE, paths: lulc}]}      # image & mask
    - torchgeo: {or: [{dataset: Landsat7, paths: l7}, {dataset: Landsat8, paths: l8}]}           # a | b

Nothing is downloaded unless the arguments say `download: true`. Transforms of datasets and augmentation of data modules
are not applied: geoseg has its own. `crs` and `res` of a dataset of files do not matter here, for each file keeps its
own grid; `gsd_m` says at which resolution all are trained.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import shapely
from odc.geo.crs import CRS
from shapely.geometry import mapping, shape
from shapely.geometry.base import BaseGeometry

from geoseg.data.doors.torchgeo_chips import chip_sources
from geoseg.data.doors.torchgeo_classes import label_options
from geoseg.data.doors.torchgeo_identity import is_torchgeo
from geoseg.data.doors.torchgeo_layers import Layers, Neighbours, Piece, layers_of
from geoseg.data.doors.torchgeo_named import built, mended, torchgeo_module
from geoseg.data.doors.torchgeo_pictures import base_of
from geoseg.errors import InputError, MissingInputError
from geoseg.io.combine import Mosaic, pick
from geoseg.io.facts import positions
from geoseg.io.labels import LabelSource, open_labels
from geoseg.io.polygons import from_geometry, onto_crs
from geoseg.io.protocol import Source
from geoseg.io.regions import WGS84, region_geojson

logger = logging.getLogger(__name__)

PARTS = {"train": "training", "training": "training", "val": "validation", "valid": "validation",
         "validation": "validation", "test": "test", "testing": "test"}  # fmt: skip
IMAGE_OPTIONS = ("bands", "select")
LABEL_OPTIONS = ("legend", "background", "ignore")
UNTOLD = ""
"""Labels that are given, so that images without a mask are taken too, and never opened."""

EDGE_PX = 2.0
"""What lies this close to an image's edge is its edge: no region is needed."""


def torchgeo_scenes(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One scene an image file or chip of the dataset, or of each dataset of the data module, under the key `torchgeo`.

    Beside that key may stand `labels` (a label spec instead of the dataset's masks, or its options `legend`,
    `background` and `ignore` alone), `image` (its options `bands` and `select` alone), and whatever a scene has.

    Raises:
        InputError: The spec makes no sense, or there are no masks and no labels.
        MissingInputError: The dataset's files are not there.
        ReadError: An item or a file cannot be read.
    """
    given = built(spec["torchgeo"])
    datasets = _of_module(given) if _is_module(given) else [(_part_of(given), given, None)]
    scenes: list[dict[str, Any]] = []
    for part, dataset, area in datasets:
        own = _scenes_of(dataset, area, spec, optional=len(datasets) > 1)
        for scene in own:
            scene.update({"part": part} if part else {})
        scenes += own
    if not scenes:
        raise InputError(
            f"{type(given).__name__} has no image with a mask; give labels: beside torchgeo:, or another split"
        )
    rest = {key: value for key, value in spec.items() if key not in ("torchgeo", "image", "labels", "name")}
    names = _names_of(scenes, spec.get("name"))
    found = [{**scene, **rest, "name": name} for scene, name in zip(scenes, names, strict=True)]
    for told, scene in zip(found, scenes, strict=True):
        told.update({"region": scene["region"]} if "region" in scene else {})
    return found


def torchgeo_images(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One scene without labels for each image file or chip, with a mask or not, of whatever part.

    Raises:
        InputError: The spec makes no sense.
        MissingInputError: The dataset's files are not there.
        ReadError: An item or a file cannot be read.
    """
    told = torchgeo_scenes({**spec, "labels": UNTOLD})
    return [{key: value for key, value in scene.items() if key not in ("labels", "part")} for scene in told]


def _names_of(scenes: Sequence[Mapping[str, Any]], given: Any) -> list[str]:
    """A name of its own for each scene, what is given before it."""
    seen: Counter[str] = Counter()
    names = []
    for scene in scenes:
        name = f"{given} {scene['name']}" if given else str(scene["name"])
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return names


def torchgeo_source(dataset: Any) -> Source:
    """The images of a GeoDataset as one source: its file, or the mosaic of its files.

    Raises:
        InputError: The dataset has no place on the ground, or no image.
    """
    pieces = [piece.source for layers in _placed_layers(built(dataset)) for piece in layers.images]
    if not pieces:
        raise InputError("the dataset has no images; torchgeo_labels gives its masks")
    return pieces[0] if len(pieces) == 1 else Mosaic(tuple(pieces))


def torchgeo_labels(dataset: Any) -> LabelSource:
    """The masks of a GeoDataset as one label source, with the classes that the dataset names.

    Raises:
        InputError: The dataset has no place on the ground, or no mask.
        LegendError: It does not name its classes, and its masks hold none.
    """
    return open_labels(label_spec(built(dataset)))[0]


def label_spec(dataset: Any) -> dict[str, Any]:
    """The masks of a GeoDataset as a spec for `geoseg.io.open_labels`.

    Raises:
        InputError: The dataset has no place on the ground, or no mask.
    """
    layers = [found for found in _placed_layers(dataset) if found.masks]
    pieces = [piece.source for found in layers for piece in found.masks]
    if not pieces:
        raise InputError(f"{type(dataset).__name__} has no masks; needed is a dataset of masks or of polygons")
    source = pieces[0] if len(pieces) == 1 else Mosaic(tuple(pieces), resampling="nearest")
    return {"path": source, **layers[0].options}


def _placed_layers(dataset: Any) -> list[Layers]:
    if not isinstance(dataset, torchgeo_module().GeoDataset):
        raise InputError(f"{type(dataset).__name__} has no place on the ground; needed is a GeoDataset")
    with mended(type(dataset).__name__, fault="cannot be used"):
        return layers_of(dataset)


# -- data modules ------------------------------------------------------------------------------------------------------


def _is_module(value: Any) -> bool:
    return callable(getattr(value, "setup", None))


def _of_module(module: Any) -> list[tuple[str, Any, BaseGeometry | None]]:
    """Part, dataset and area of each part that a data module has; its `prepare_data`, which downloads, is not called.

    Raises:
        InputError: It has no datasets.
        MissingInputError: Its files are not there.
    """
    name = type(module).__name__
    with mended(name):
        module.setup("fit")
    found = [*_split(module, "train", "training"), *_split(module, "val", "validation")]
    try:
        with mended(name):
            module.setup("test")
        found += _split(module, "test", "test")
    except (InputError, MissingInputError) as error:
        logger.info("%s has no test part: %s", name, error)
    if not found:
        raise InputError(f"{name} has no datasets after setup; needed is one with train, val or test")
    return found


def _split(module: Any, name: str, part: str) -> Iterator[tuple[str, Any, BaseGeometry | None]]:
    """The dataset of a part, and the area that its sampler is held to."""
    samplers = (getattr(module, f"{name}_{kind}", None) for kind in ("batch_sampler", "sampler"))
    sampler = next((sampler for sampler in samplers if sampler is not None), None)
    dataset = getattr(module, f"{name}_dataset", None)
    if dataset is None and sampler is not None:
        dataset = getattr(module, "dataset", None)
    if dataset is not None:
        yield part, dataset, getattr(sampler, "roi", None)


def _part_of(dataset: Any) -> str | None:
    """The part that a dataset's own split is."""
    split, index = getattr(dataset, "split", None), getattr(dataset, "index", None)
    if split is None and "split" in getattr(index, "columns", ()):
        words = {str(word).rpartition("-")[2] for word in dataset.index["split"]}
        split = words.pop() if len(words) == 1 else None
    return PARTS.get(str(split).lower())


# -- scenes ------------------------------------------------------------------------------------------------------------


def _scenes_of(
    dataset: Any, area: BaseGeometry | None, spec: Mapping[str, Any], *, optional: bool
) -> list[dict[str, Any]]:
    """The scenes of one dataset, whose masks may be missing where `optional`."""
    labels, options = _labels(spec.get("labels"))
    if isinstance(dataset, torchgeo_module().GeoDataset):
        found = _of_ground(dataset, area, labels, spec.get("region"))
    else:
        found = _of_chips(dataset, labels)
    if not found and not optional:
        raise InputError(
            f"{type(dataset).__name__} has no image with a mask; give labels: beside torchgeo:, or another split"
        )
    for scene in found:
        scene["image"] = _chosen(scene["image"], spec.get("image"), name=type(dataset).__name__)
        if labels is None:
            scene["labels"] = {**scene["labels"], **options}
    return found


def _labels(given: Any) -> tuple[Any, dict[str, Any]]:
    """The labels given instead of the dataset's masks, and options for these masks."""
    if isinstance(given, Mapping) and given and set(given) <= set(LABEL_OPTIONS):
        return None, dict(given)
    if _names(given):
        if not isinstance(given, Mapping):
            return label_spec(given), {}
        beside = {key: value for key, value in given.items() if key != "torchgeo"}
        return {**label_spec(built(given["torchgeo"])), **beside}, {}
    return given, {}


def with_torchgeo(scene: Mapping[str, Any]) -> dict[str, Any]:
    """The scene, where its image or its labels are a dataset of torchgeo or name one, in the form that others take.

    Raises:
        InputError: The labels' dataset makes no sense or has no masks.
        MissingInputError: Its files are not there.
    """
    if not isinstance(scene, Mapping):
        raise InputError(
            f"data.scenes holds {scene!r}; needed is a mapping such as {{image: scene.tif, labels: labels.tif}}"
        )
    image, labels = scene.get("image"), scene.get("labels")
    if _names(image):
        within = image["torchgeo"] if isinstance(image, Mapping) else image
        beside = {key: value for key, value in image.items() if key != "torchgeo"} if isinstance(image, Mapping) else {}
        rest = {key: value for key, value in scene.items() if key != "image"}
        return {**rest, "torchgeo": within, **({"image": beside} if beside else {})}
    return {**scene, "labels": _labels(labels)[0]} if _names(labels) and "torchgeo" not in scene else dict(scene)


def _names(value: Any) -> bool:
    return is_torchgeo(value) or (isinstance(value, Mapping) and "torchgeo" in value)


def _chosen(image: Source, options: Any, *, name: str) -> Source:
    """The image with its bands renamed and chosen.

    Raises:
        InputError: An option makes no sense, or there are more or fewer names than bands.
        BandError: A band that is selected is not there.
    """
    if options is None:
        return image
    if not isinstance(options, Mapping) or not set(options) <= set(IMAGE_OPTIONS):
        raise InputError(f"image beside torchgeo: takes the options {', '.join(IMAGE_OPTIONS)} alone, got {options!r}")
    if "bands" in options:
        names = _band_names(options["bands"])
        if len(names) != len(image.bands):
            raise InputError(
                f"{name} has {len(image.bands)} bands [{', '.join(image.bands)}], {len(names)} names were given: "
                f"[{', '.join(names)}]"
            )
        image = pick(image, range(len(names)), names)
    if "select" in options:
        found = positions(_selected(options["select"]), image.bands, name)
        image = pick(image, found, [image.bands[position] for position in found])
    return image


def _band_names(given: Any) -> list[str]:
    listed = isinstance(given, list | tuple) and bool(given) and all(isinstance(name, str) for name in given)
    if not listed or len({name.lower() for name in given}) < len(given):
        raise InputError(f"bands of image beside torchgeo: must be a list of names that differ, got {given!r}")
    return list(given)


def _selected(given: Any) -> list[str | int]:
    chosen = [given] if isinstance(given, str | int) else given
    if not isinstance(chosen, list | tuple) or not chosen or not all(isinstance(one, str | int) for one in chosen):
        raise InputError(f"select of image beside torchgeo: must be names or numbers of bands, got {given!r}")
    return list(chosen)


def _of_chips(dataset: Any, labels: Any) -> list[dict[str, Any]]:
    with mended(type(dataset).__name__, fault="cannot be used"):
        chips = chip_sources(dataset)
    own = label_options(base_of(dataset))
    told = [(name, image, {"path": codes, **own} if labels is None else labels) for name, image, codes in chips
            if codes is not None or labels is not None]  # fmt: skip
    return [{"name": name, "image": image, "labels": found} for name, image, found in told]


def _of_ground(dataset: Any, area: BaseGeometry | None, labels: Any, region: Any) -> list[dict[str, Any]]:
    """One scene an image piece that lies in the dataset's index, with the masks of its place and time."""
    timeless, listed = "datetime_1" in dataset.index.columns, _Listed(dataset)
    scenes = []
    for layers in _placed_layers(dataset):
        masks = Neighbours(layers.masks, timeless=timeless)
        for piece in layers.images:
            place = listed.allowed(piece, area)
            if place.is_empty or not place.area:
                continue
            codes = masks.under(piece, resampling="nearest") if labels is None else None
            if labels is None and codes is None:
                continue
            told = {"path": codes, **layers.options} if labels is None else labels
            scene = {"name": piece.name, "image": piece.source, "labels": told}
            scenes.append({**scene, **_region(piece, place, dataset, region)})
    return scenes


class _Listed:
    """Where the index of a dataset lists what, which tells what of its files a split has kept."""

    def __init__(self, dataset: Any) -> None:
        self._named: dict[str, list[BaseGeometry]] = {}
        self._all = shapely.union_all(dataset.index.geometry.to_list())
        for row in dataset.index.to_dict("records"):
            for value in {value for value in row.values() if isinstance(value, str)}:
                self._named.setdefault(value, []).append(row["geometry"])

    def allowed(self, piece: Piece, area: BaseGeometry | None) -> BaseGeometry:
        """Where a piece may be used: the rows that name it, or all where they name nothing; inside `area`."""
        whole = not (piece.key and self._named)
        listed = self._all if whole else shapely.union_all(self._named.get(piece.key, []))
        place = shapely.intersection(listed, piece.place)
        return place if area is None else shapely.intersection(place, area)


def _region(piece: Piece, place: BaseGeometry, dataset: Any, given: Any) -> dict[str, Any]:
    """The key `region` where the place does not reach the edges of the image: what of it lies in the region given."""
    grid = piece.source.geobox
    crs = grid.crs if dataset.crs is None else CRS(str(dataset.crs.to_wkt()))
    if crs is None or grid.crs is None:
        return {}
    outline = onto_crs(from_geometry(grid.extent.geom, grid.crs, name=piece.name), crs)[0]
    left, bottom, right, top = outline.bounds
    pixel = max((right - left) / grid.shape[1], (top - bottom) / grid.shape[0])
    if shapely.covers(shapely.buffer(place, EDGE_PX * pixel, join_style="mitre"), outline):
        return {}
    if given is not None:
        wanted = shape(region_geojson(given, grid) or {})
        place = shapely.intersection(place, onto_crs(from_geometry(wanted, CRS(WGS84), name="the region"), crs)[0])
    parts = [part for part in shapely.get_parts(place) if part.geom_type == "Polygon" and part.area]
    if not parts:
        raise InputError(
            f"the region {given} holds nothing of {piece.name} that the dataset lists; leave one of them out"
        )
    code = crs.to_epsg()
    return {"region": {**mapping(shapely.MultiPolygon(parts)), "crs": f"EPSG:{code}" if code else crs.to_wkt()}}
