"""Splits by place: which pixels train, which validate, and the buffer between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.warp import reproject
from scipy import ndimage

from geoseg.data.grids import ground_gsd_m, lonlat_mesh
from geoseg.data.scene import OUTSIDE, TRAINING, VALIDATION, SceneArrays
from geoseg.data.statistics import class_pixels
from geoseg.errors import InputError
from geoseg.io.grids import crop
from geoseg.io.regions import region_mask
from geoseg.tiling import Window

EARTH_RADIUS_M = 6_371_007.2  # authalic sphere
SPARSE_SHARE = 0.05  # labels on less of the scene than this come as single polygons
DEFAULT_BUFFER_PX = 16


@dataclass(frozen=True, kw_only=True)  # no slots: jsonargparse reads the defaults from __dict__
class SplitOptions:
    """How validation pixels are set apart from training pixels.

    Attributes:
        regions: Where validation pixels lie: a region or a list of them (`{rows: [a, b], cols: [a, b]}` in pixels of
            the image, `{bbox: [...], crs: ...}`, a polygon file). Without, units are drawn.
        unit: What is drawn: `block`, squares on the ground; `polygon`, connected patches of labels; `auto` takes
            polygons where labels cover less than 5 % of the scene.
        block_m: Side of a block in metres; without, a fifth of the scene's side.
        validation_share: Share of each class's labelled pixels to validate on, as nearly as the units allow.
        buffer_m: No training pixel lies this close to a validation pixel, in metres; without, 16 pixels.
        seed: The draw.
    """

    regions: Any = None
    unit: Literal["auto", "block", "polygon"] = "auto"
    block_m: float | None = None
    validation_share: float = 0.2
    buffer_m: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.validation_share <= 0.5:
            raise InputError(f"validation_share is {self.validation_share}: needed is 0 to 0.5")
        if self.block_m is not None and self.block_m <= 0:
            raise InputError(f"block_m is {self.block_m}: needed is a side above 0 m")
        if self.buffer_m is not None and self.buffer_m < 0:
            raise InputError(f"buffer_m is {self.buffer_m}: needed is 0 m or more")


def split_scenes(
    scenes: Sequence[SceneArrays], *, classes: int, options: SplitOptions, roles: Sequence[str] | None = None
) -> list[SceneArrays]:
    """The scenes with their `part` filled in: TRAINING, VALIDATION, or OUTSIDE for the buffer and unusable pixels.

    Args:
        scenes: Decoded scenes; where they overlap on the ground, a validation pixel of one is none to train on in
            another, nor is anything within the buffer around it.
        classes: Number of classes.
        options: How to split.
        roles: One word a scene: `split`, or `training` or `validation` for a scene that is wholly one of them.

    Raises:
        InputError: Nothing is left to train on or to validate on.
    """
    roles = roles or ["split"] * len(scenes)
    drawn = _drawn(scenes, classes, options, roles)
    masks = [_validation_mask(scene, role, own) for scene, role, own in zip(scenes, roles, drawn, strict=True)]
    parts = [replace(scene, part=_part_plane(k, scenes, masks, options.buffer_m)) for k, scene in enumerate(scenes)]
    _check(parts, classes)
    return parts


def _validation_mask(scene: SceneArrays, role: str, drawn: NDArray[np.bool_]) -> NDArray[np.bool_]:
    if role == "split":
        return drawn & scene.valid
    return scene.valid if role == "validation" else np.zeros(scene.shape, np.bool_)


def _drawn(
    scenes: Sequence[SceneArrays], classes: int, options: SplitOptions, roles: Sequence[str]
) -> list[NDArray[np.bool_]]:
    """Where validation pixels are chosen in each scene, before what is unusable is taken out."""
    if options.regions is not None:
        regions = options.regions if isinstance(options.regions, list) else [options.regions]
        return _in_regions(scenes, regions)
    taking_part = [k for k, role in enumerate(roles) if role == "split"]
    none = [np.zeros(scene.shape, np.bool_) for scene in scenes]
    if not taking_part or options.validation_share == 0 or "validation" in roles:
        return none
    chosen = _draw_units([scenes[k] for k in taking_part], classes, options)
    for k, mask in zip(taking_part, chosen, strict=True):
        none[k] = mask
    return none


def _in_regions(scenes: Sequence[SceneArrays], regions: list[Any]) -> list[NDArray[np.bool_]]:
    """Where each scene lies in one of `regions`; a region need not touch every scene, but it must touch one."""
    found = [np.zeros(scene.shape, np.bool_) for scene in scenes]
    for region in regions:
        refused: list[InputError] = []
        for scene, mask in zip(scenes, found, strict=True):
            try:
                mask[region_mask(region, scene.geobox, grid=scene.image_grid)] = True
            except InputError as error:
                refused.append(error)
        if len(refused) == len(scenes):
            raise refused[0]
    return found


def _draw_units(scenes: Sequence[SceneArrays], classes: int, options: SplitOptions) -> list[NDArray[np.bool_]]:
    """Where the units lie that are drawn to validate; only pixels of units with labels are looked at."""
    labelled = [scene.labels != scene.no_label for scene in scenes]
    usable = sum(int(scene.valid.sum()) for scene in scenes)
    sparse = sum(int(told.sum()) for told in labelled) < SPARSE_SHARE * usable
    by_polygon = options.unit == "polygon" or (options.unit == "auto" and sparse)
    units = _polygon_units(scenes) if by_polygon else _block_units(scenes, options.block_m)
    unit = np.concatenate([plane[told] for plane, told in zip(units, labelled, strict=True)])
    label = np.concatenate([scene.labels[told] for scene, told in zip(scenes, labelled, strict=True)])
    found, position = np.unique(unit, return_inverse=True)
    counts = np.bincount(position * classes + label, minlength=len(found) * classes).reshape(len(found), classes)
    chosen = found[choose_units(counts, share=options.validation_share, rng=np.random.default_rng(options.seed))]
    return [np.isin(plane, chosen) for plane in units]


def choose_units(counts: NDArray[np.int64], *, share: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Units whose sums come near to `share` of every class.

    Units are tried in random order, and one is taken where that brings the shares nearer to the goal (squared distance,
    every class alike). No class loses more than half of its pixels: one that lies in a single unit stays in training.

    Args:
        counts: Labelled pixels, `(unit, class)`.
        share: The share wanted.
        rng: The draw.

    Returns:
        Positions of the chosen units, at least one where any can be taken.
    """
    shares = counts[:, counts.sum(0) > 0] / np.maximum(counts.sum(0), 1)[counts.sum(0) > 0]
    taken = np.zeros(shares.shape[1])
    chosen: list[int] = []
    order = rng.permutation(np.flatnonzero(shares.any(1)))
    for unit in order:
        after = taken + shares[unit]
        if after.max(initial=0) <= 0.5 and np.square(after - share).sum() < np.square(taken - share).sum():
            taken = after
            chosen.append(int(unit))
    if not chosen:  # every unit overshoots: the one that does so least, if half of each class still stays
        fitting = [unit for unit in order if shares[unit].max() <= 0.5]
        chosen = sorted(fitting, key=lambda unit: float(shares[unit].max()))[:1]
    return np.array(sorted(chosen), np.int64)


def _polygon_units(scenes: Sequence[SceneArrays]) -> list[NDArray[np.int64]]:
    """The number of the connected patch of labels at each pixel, counted on from scene to scene, or -1."""
    units, before = [], 0
    for scene in scenes:
        patches, count = ndimage.label(scene.labels != scene.no_label, structure=np.ones((3, 3)))
        units.append(np.where(patches > 0, patches.astype(np.int64) + before, -1))
        before += count
    return units


def _block_units(scenes: Sequence[SceneArrays], block_m: float | None) -> list[NDArray[np.int64]]:
    """The number of the block on the ground that each pixel lies in, the same in every scene and CRS.

    Blocks are rows of latitude cut into cells of equal width (sinusoidal grid): meridians and parallels bound them.
    """
    if block_m is None:
        extents = [np.multiply(scene.shape, ground_gsd_m(scene.geobox)) for scene in scenes]
        block_m = float(np.sqrt(max(extent.prod() for extent in extents)) / 5)
    return [_ground_blocks(scene, block_m) for scene in scenes]


def _ground_blocks(scene: SceneArrays, block_m: float) -> NDArray[np.int64]:
    lon, lat = np.radians(lonlat_mesh(scene.geobox))
    steps = [np.linspace(0, 64, size) for size in scene.shape]
    at = np.stack(np.meshgrid(*steps, indexing="ij"))
    down = np.floor(ndimage.map_coordinates(lat, at, order=1) * EARTH_RADIUS_M / block_m)
    narrow = np.cos((down + 0.5) * block_m / EARTH_RADIUS_M)
    across = np.floor(ndimage.map_coordinates(lon, at, order=1) * narrow * EARTH_RADIUS_M / block_m)
    per_row = ceil(2 * np.pi * EARTH_RADIUS_M / block_m) + 2
    offset = per_row // 2  # longitudes and latitudes below 0
    return np.asarray((down + offset) * per_row + across + offset, np.int64)


def _part_plane(
    k: int, scenes: Sequence[SceneArrays], masks: list[NDArray[np.bool_]], buffer_m: float | None
) -> NDArray[np.uint8]:
    """The part of each pixel of scene `k`."""
    scene = scenes[k]
    gsd = ground_gsd_m(scene.geobox)
    reach_m = DEFAULT_BUFFER_PX * max(gsd) if buffer_m is None else buffer_m
    pad = [ceil(reach_m / size) + 1 for size in gsd]
    seen = _seen_from(k, scenes, masks, pad)
    near = np.zeros(seen.shape, np.bool_)
    if seen.any():
        box = _grown_box(seen, pad)
        near[box] = ndimage.distance_transform_edt(~seen[box], sampling=gsd) <= reach_m
    inner = tuple(slice(size, size + length) for size, length in zip(pad, scene.shape, strict=True))
    part = scene.part
    part[:] = np.where(scene.valid & ~near[inner], TRAINING, OUTSIDE)
    part[masks[k]] = VALIDATION
    return part


def _seen_from(
    k: int, scenes: Sequence[SceneArrays], masks: list[NDArray[np.bool_]], pad: list[int]
) -> NDArray[np.bool_]:
    """Where any scene validates, on the grid of scene `k` padded by `pad` (row, col) pixels."""
    seen = np.pad(masks[k], [(pad[0], pad[0]), (pad[1], pad[1])])
    target = crop(scenes[k].geobox, Window(-pad[0], -pad[1], seen.shape[0], seen.shape[1]))
    for other, mask in enumerate(masks):
        source = scenes[other].geobox
        if other == k or not mask.any() or not _meet(source, target):
            continue
        moved = np.zeros(seen.shape, np.uint8)
        reproject(
            mask.view(np.uint8), moved, src_transform=source.affine, src_crs=str(source.crs),
            dst_transform=target.affine, dst_crs=str(target.crs), resampling=Resampling.max,
        )  # fmt: skip
        # A ring of one pixel more: the two grids' pixels do not coincide, and the buffer is to be kept all the same.
        seen |= ndimage.binary_dilation(moved > 0, np.ones((3, 3)))
    return seen


def _meet(a: GeoBox, b: GeoBox) -> bool:
    """Whether two grids may share ground: their boxes in degrees, widened a little, overlap."""
    meshes = (lonlat_mesh(geobox, nodes=9) for geobox in (a, b))
    boxes = [(mesh.min((1, 2)) - 0.01, mesh.max((1, 2)) + 0.01) for mesh in meshes]
    (low_a, high_a), (low_b, high_b) = boxes
    return bool((np.maximum(low_a, low_b) <= np.minimum(high_a, high_b)).all())


def _grown_box(mask: NDArray[np.bool_], pad: list[int]) -> tuple[slice, slice]:
    """The bounding box of True, grown by `pad`: no pixel outside it can be within the buffer."""
    box = []
    for axis, grow in zip((1, 0), pad, strict=True):
        hits = np.flatnonzero(mask.any(axis))
        box.append(slice(max(0, int(hits[0]) - grow), int(hits[-1]) + grow + 1))
    return box[0], box[1]


def _check(scenes: Sequence[SceneArrays], classes: int) -> None:
    """Refuses a split without anything to train or validate on."""
    counts = {part: class_pixels(scenes, part=part, classes=classes) for part in (TRAINING, VALIDATION)}
    if not counts[TRAINING].any():
        raise InputError(
            "the split leaves no labelled pixel to train on; make buffer_m, block_m or the regions smaller"
        )
    if not counts[VALIDATION].any():
        raise InputError(
            "the split leaves no labelled pixel to validate on; make block_m smaller, raise validation_share, or name "
            "regions that hold labels"
        )
