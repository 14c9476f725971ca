"""Where decoded scenes go: to memory, to files, or block by block to files that hold some of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import rasterio
from odc.geo.geobox import GeoBox

import geoseg
from geoseg.data.arrays import BlockArray, kept_dtype, layer_bytes
from geoseg.data.block_cache import BlockCache, BlockPool, Unreadable, blocks_of
from geoseg.data.keys import stable_key
from geoseg.data.origins import origins_of
from geoseg.data.reading import FileBlocks, Reading, SceneReader, file_blocks, index_dtype, reading_windows
from geoseg.data.scene import BLOCK_PX, OUTSIDE, TRAINING, Layer, SceneArrays, windows_of
from geoseg.data.store import ENDING, FORMAT, GB, Job, StoreOptions, writing
from geoseg.errors import InputError
from geoseg.io.grids import crop
from geoseg.io.protocol import Source
from geoseg.io.regions import Area
from geoseg.legend import Legend
from geoseg.tiling import Window

WORTH_KEEPING_BYTES = 16 << 20  # a smaller scene is decoded as quickly as an entry is looked up
FEWEST_SLOTS = 16
UNIT_BYTES = 16 << 20  # of blocks that are decoded together where a set is larger than the disk may hold
PIXELS, VALID, LABELS, SOFT = "pixels", "valid", "labels", "soft"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SceneInput:
    """A scene to decode.

    Attributes:
        name: For messages.
        image: The pixels; all bands of the set, absent ones read as 0.
        labels: Class ids, one band; None where nothing is labelled.
        grid: The whole training grid.
        area: Only its pixels are used, and only its bounding window is kept; None for all.
        absent: Positions of the bands that the image lacks.
        weight: How often its patches are drawn, in comparison to its pixels' share.
        soft: Shares of the classes, one band a class, in the place of `labels`, which is then the largest share.
    """

    name: str
    image: Source
    labels: Source | None
    grid: GeoBox
    area: Area | None = None
    absent: tuple[int, ...] = ()
    weight: float = 1.0
    soft: Source | None = None


@dataclass(slots=True)
class ScenePlan:
    """A scene, what its layers are, and how far it is.

    Attributes:
        scene: The input.
        reader: What its windows are read from.
        layers: Shape and dtype of each layer.
        blocks: How its file holds the pixels.
        key: The entry's name; None where it is not kept between runs.
        waiting: Windows that are not read yet.
        told: Whether a valid pixel has a label.
        in_area: Whether the region has a pixel.
        unreadable: What could not be read.
        targets: Where what is read goes.
    """

    scene: SceneInput
    reader: SceneReader
    layers: dict[str, tuple[tuple[int, ...], np.dtype[Any]]]
    blocks: FileBlocks | None
    key: str | None = None
    waiting: int = 0
    told: bool = False
    in_area: bool = False
    unreadable: list[Unreadable] = field(default_factory=list)
    targets: dict[str, Layer] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.reader.grid.shape[0], self.reader.grid.shape[1]

    @property
    def pixel_bytes(self) -> int:
        """Bytes of all bands of a pixel."""
        shape, dtype = self.layers[PIXELS]
        return shape[0] * dtype.itemsize

    def bytes_of(self, *, pixels: bool) -> int:
        """Bytes of all layers but `part`, with the pixels or without."""
        return sum(layer_bytes(*layer) for name, layer in self.layers.items() if pixels or name != PIXELS)

    def windows(self) -> list[Window]:
        """What is read at a time."""
        return list(reading_windows(self.shape, pixel_bytes=self.pixel_bytes, blocks=self.blocks))

    def take(self, found: Reading) -> tuple[bool, bool, tuple[Unreadable, ...]]:
        """Puts a window in its place; whether it has a label and a pixel of the region, and what could not be read."""
        rows, cols = found.window.slices
        pixels = self.targets[PIXELS]
        if isinstance(pixels, BlockCache):
            pixels.offer(found.window, found.pixels, unreadable=[item.window for item in found.unreadable])
        else:
            pixels[:, rows, cols] = found.pixels
        self.targets[VALID][rows, cols], self.targets[LABELS][rows, cols] = found.valid, found.labels
        if found.soft is not None:
            self.targets[SOFT][:, rows, cols] = found.soft
        return bool((found.labels != self.reader.legend.no_index).any()), found.in_area, found.unreadable

    def arrays(self, part: Layer) -> SceneArrays:
        """The scene, when its layers are complete."""
        scene, layers = self.scene, self.targets
        return SceneArrays(
            scene.name,
            layers[PIXELS],
            layers[VALID],
            layers[LABELS],
            part,
            self.reader.grid,
            tuple(scene.image.bands),
            self.reader.legend.no_index,
            scene.image.geobox,
            scene.absent,
            scene.weight,
            layers.get(SOFT),
            origins_of(scene.image) if self.reader.grid.crs is None else frozenset(),
        )


def plan_scene(scene: SceneInput, legend: Legend, options: StoreOptions) -> ScenePlan:
    """What there is to read of a scene, and what becomes of it.

    Raises:
        InputError: Its region is empty.
    """
    window = Window(0, 0, *scene.grid.shape) if scene.area is None else scene.area.window(scene.grid)
    if not (window.rows and window.cols):
        raise InputError(f"the region of {scene.name} holds none of its pixels")
    grid = crop(scene.grid, window)
    dtype, plane = kept_dtype(scene.image.dtype), (window.rows, window.cols)
    layers: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {
        PIXELS: ((len(scene.image.bands), *plane), dtype),
        VALID: (plane, np.dtype(np.bool_)),
        LABELS: (plane, index_dtype(legend)),
    }
    if scene.soft is not None:
        layers[SOFT] = ((len(legend), *plane), np.dtype(np.uint8))
    reader = SceneReader(
        scene.name, scene.image, scene.labels, scene.soft, legend, grid, scene.area, dtype, options.on_error
    )
    # Chips are read at once, so that their files need not be opened for it.
    small = prod(plane) * layers[PIXELS][0][0] * dtype.itemsize < WORTH_KEEPING_BYTES
    return ScenePlan(scene, reader, layers, None if small else file_blocks(scene.image, grid))


def entry_key(plan: ScenePlan, *, pixels: bool) -> str | None:
    """The name of an entry: of all that its layers depend on."""
    scene, reader = plan.scene, plan.reader
    parts = {
        "format": FORMAT, "versions": _versions(), "block": BLOCK_PX,
        "layers": sorted(plan.layers) if pixels else "planes",
        "image": scene.image, "labels": scene.labels if scene.soft is None else scene.soft, "own": scene.image.geobox,
        "bands": scene.image.bands, "absent": scene.absent, "dtype": reader.dtype, "legend": reader.legend,
        "grid": reader.grid, "area": scene.area,
    }  # fmt: skip
    return stable_key(parts)


def _versions() -> dict[str, str]:
    """What decides how files are read and warped; another version may give other pixels."""
    return {
        "geoseg": geoseg.__version__,
        "gdal": rasterio.__gdal_version__,
        "proj": f"{pyproj.proj_version_str} {rasterio.__proj_version__}",  # each has one of its own
    }


# -- where it goes -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Placing:
    """Where layers are made.

    Attributes:
        in_memory: Whether the scenes are arrays in memory in the end.
        job: The place on the disk; None where nothing goes there.
        pool: Blocks of pixels, where those of the whole set are too many.
        caches: The pixels of each scene in it.
    """

    in_memory: bool
    job: Job | None = None
    pool: BlockPool | None = None
    caches: list[BlockCache] = field(default_factory=list)

    @classmethod
    def of(cls, plans: Sequence[ScenePlan], options: StoreOptions) -> Placing:
        """Memory, files, or blocks that come and go: by the size of the set.

        Raises:
            InputError: `disk_gb` is too small.
            OutputError: The folder cannot be written.
        """
        parts = sum(prod(plan.shape) for plan in plans)
        in_memory = parts + sum(plan.bytes_of(pixels=True) for plan in plans) <= options.memory_gb * GB
        kept = [plan for plan in plans if not in_memory or plan.bytes_of(pixels=True) >= WORTH_KEEPING_BYTES]
        if in_memory and not (options.folder and kept):
            return cls(in_memory)
        with ExitStack() as stack:
            found = cls(in_memory, Job(options.folder))
            stack.callback(found.close)
            found._find_room(kept, parts, options)
            stack.pop_all()
        return found

    def _find_room(self, plans: Sequence[ScenePlan], parts: int, options: StoreOptions) -> None:
        limit = int(min(options.disk_gb * GB, 2**62))
        entries, own = self._sizes(plans, pixels=True)
        if self.disk.claim(entries, own=0 if self.in_memory else own + parts, limit=limit) >= 0:
            return
        if self.in_memory:  # it need not be kept for the next run
            for plan in plans:
                plan.key = None
            return
        entries, own = self._sizes(plans, pixels=False)
        slot_bytes = max(plan.pixel_bytes for plan in plans) * BLOCK_PX**2
        blocks = sum(blocks_of(plan.shape) for plan in plans)
        fewest = min(FEWEST_SLOTS, blocks)
        left = self.disk.claim(entries, own=own + parts + fewest * slot_bytes, limit=limit)
        if left < 0:
            raise InputError(
                f"data.store.disk_gb is {options.disk_gb:g}: labels, validity and a few blocks of the scenes, with "
                f"what other jobs use of the folder, take {(limit - left) / GB:.3g} GiB; needed is that or more"
            )
        slots = min(blocks, fewest + left // slot_bytes)
        self.disk.claim(entries, own=own + parts + slots * slot_bytes, limit=limit)
        with writing(self.disk.folder, slots * slot_bytes):
            self.pool = BlockPool.create(self.disk.own, slots=slots, slot_bytes=slot_bytes, blocks=blocks)
        self.caches = _caches(self.pool, plans, options)

    def _sizes(self, plans: Sequence[ScenePlan], *, pixels: bool) -> tuple[dict[str, int], int]:
        """Bytes of the scenes that are kept for other runs, by their new keys, and of all others together."""
        entries: dict[str, int] = {}
        own = 0
        for plan in plans:
            plan.key = entry_key(plan, pixels=pixels) if self.disk.keeps else None
            if plan.key is None:
                own += plan.bytes_of(pixels=pixels)
            else:
                entries[plan.key] = plan.bytes_of(pixels=pixels)
        return entries, own

    @property
    def disk(self) -> Job:
        """The place on the disk."""
        if self.job is None:
            raise RuntimeError("nothing of this set goes to the disk")
        return self.job

    def close(self) -> None:
        """Removes what is temporary."""
        if self.job is not None:
            self.job.close()

    # -- one scene -----------------------------------------------------------------------------------------------------

    def open(self, plan: ScenePlan, number: int) -> bool:
        """Whether the scene is there from an earlier run; then its layers are opened."""
        place = self.job.find(plan.key) if self.job is not None and plan.key is not None else None
        if place is None:
            return False
        plan.targets = self._opened(plan, place, number)
        return True

    def begin(self, plan: ScenePlan, number: int, *, wait: bool) -> bool:
        """Makes empty layers; False where another job does, or has done so."""
        if self.job is None or (self.in_memory and plan.key is None):
            plan.targets = {name: np.empty(*layer) for name, layer in plan.layers.items()}
            return True
        if plan.key is not None:
            place = self.disk.begin(plan.key, wait=wait)
            if place is None:
                return False
        else:
            place = self._own_place(number)
            with writing(self.disk.folder):
                place.mkdir()
        with writing(self.disk.folder, plan.bytes_of(pixels=not self.caches)):
            plan.targets = {
                name: BlockArray.create(place / f"{name}{ENDING}", shape=shape, dtype=dtype)
                for name, (shape, dtype) in plan.layers.items()
                if not (name == PIXELS and self.caches)
            }
        if self.caches:
            plan.targets[PIXELS] = self.caches[number]
        return True

    def finish(self, plan: ScenePlan, number: int) -> None:
        """Keeps a scene whose last window was read, where it is fit for other runs."""
        if self.job is None or plan.key is None:
            return
        if plan.unreadable:
            plan.targets = self._opened(plan, self.disk.keep_to_itself(plan.key, self._own_place(number)), number)
            return
        with writing(self.disk.folder):
            for layer in plan.targets.values():
                if isinstance(layer, BlockArray):
                    layer.flush()
        place = self.disk.finish(plan.key, {"name": plan.scene.name})
        plan.targets = self._opened(plan, place, number)

    def part(self, plan: ScenePlan, number: int) -> Layer:
        """The layer `part`, in which everything that is valid is for training."""
        valid = plan.targets[VALID]
        if isinstance(valid, np.ndarray):
            return np.where(valid, np.uint8(TRAINING), np.uint8(OUTSIDE))
        with writing(self.disk.folder, prod(plan.shape)):
            layer = BlockArray.create(self._own_place(number, "part" + ENDING), shape=plan.shape, dtype=np.uint8)
        for window in windows_of(plan.shape):
            layer[window.slices] = np.where(valid[window.slices], np.uint8(TRAINING), np.uint8(OUTSIDE))
        return layer

    def _own_place(self, number: int, ending: str = "scene") -> Path:
        return self.disk.own / f"{number:06d}.{ending}"

    def _opened(self, plan: ScenePlan, place: Path, number: int) -> dict[str, Layer]:
        names = [name for name in plan.layers if not (name == PIXELS and self.caches)]
        layers: dict[str, Layer] = {name: BlockArray.open(place / f"{name}{ENDING}") for name in names}
        if self.in_memory:
            return {name: layer[(slice(None),) * len(layer.shape)] for name, layer in layers.items()}
        return {**layers, PIXELS: self.caches[number]} if self.caches else layers


def _caches(pool: BlockPool, plans: Sequence[ScenePlan], options: StoreOptions) -> list[BlockCache]:
    """The pixels of each scene, in one pool."""
    made: list[BlockCache] = []
    first = 0
    for plan in plans:
        cache = BlockCache(
            pool, first, source=plan.scene.image, grid=plan.reader.grid, dtype=plan.reader.dtype,
            name=plan.scene.name, on_error=options.on_error, unit=_unit(plan, pool.slots),
        )  # fmt: skip
        made.append(cache)
        first += blocks_of(plan.shape)
    return made


def _unit(plan: ScenePlan, slots: int) -> tuple[int, int]:
    """Blocks down and across that the file holds together, as far as they are few."""
    blocks = plan.blocks or FileBlocks(1, 1)
    down, across = (
        -(-min(of, size) // BLOCK_PX) for of, size in zip((blocks.rows, blocks.cols), plan.shape, strict=True)
    )
    most = min(UNIT_BYTES // (plan.pixel_bytes * BLOCK_PX**2), slots // 4)
    return (down, across) if down * across <= most else (1, max(1, min(across, most)))
