"""Scenes decoded: each source pixel is read and warped once, and kept where the set has room."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from odc.geo.geobox import GeoBox

from geoseg.data.arrays import kept_dtype
from geoseg.data.block_cache import BlockPool, Unreadable
from geoseg.data.placing import Placing, SceneInput, ScenePlan, plan_scene
from geoseg.data.scene import SceneArrays
from geoseg.data.store import Job, StoreOptions
from geoseg.errors import InputError
from geoseg.io.protocol import Source
from geoseg.io.regions import Area
from geoseg.legend import Legend
from geoseg.tiling import Window

__all__ = ["DecodedSet", "SceneInput", "Unreadable", "decode_scene", "decode_scenes", "kept_dtype"]

MOST_THREADS = 4

logger = logging.getLogger(__name__)


class DecodedSet:
    """Decoded scenes, and what holds them.

    Attributes:
        scenes: One for each input.
    """

    def __init__(
        self, scenes: Sequence[SceneArrays], unreadable: Sequence[Unreadable], job: Job | None, pool: BlockPool | None
    ) -> None:
        self.scenes = tuple(scenes)
        self._unreadable, self._job, self._pool = list(unreadable), job, pool

    @property
    def unreadable(self) -> list[Unreadable]:
        """What could not be read up to now, by any process: the scene's name, the window of its grid, and why."""
        return self._unreadable + ([] if self._pool is None else self._pool.failures())

    def close(self) -> None:
        """Removes temporary files and lets other jobs have the rest; the scenes are not to be used any more."""
        if self._pool is not None:
            self._unreadable, self._pool = self.unreadable, None
        if self._job is not None:
            self._job.close()
            self._job = None


def decode_scenes(
    inputs: Sequence[SceneInput],
    *,
    legend: Legend,
    options: StoreOptions,
    progress: Callable[[int, int], None] | None = None,
    threads: int | None = None,
) -> DecodedSet:
    """The scenes on their training grids, each pixel read once.

    Sets up to `options.memory_gb` are arrays in memory. Larger ones lie in files, and of those above `options.disk_gb`
    the pixels are decoded when they are needed and some are kept. In a folder that was named, scenes whose sources can
    be told from changed ones are kept for the next run.

    Args:
        inputs: The scenes.
        legend: Gives each class id its channel index.
        options: Where they are kept, and how much room they take.
        progress: Called with the windows that are done and those that there are.
        threads: Threads that read; up to MOST_THREADS by default, one a core.

    Raises:
        InputError: A region is empty, no labelled pixel lies on a valid pixel of a scene that has labels, or `disk_gb`
            is too small.
        ReadError: A scene cannot be read, and `options.on_error` is stop.
        OutputError: The folder cannot be written, or is full.
    """
    plans = [plan_scene(scene, legend, options) for scene in inputs]
    _tell_rounded(inputs)
    workers = threads or min(MOST_THREADS, os.cpu_count() or 1)
    with ExitStack() as stack:
        store = Placing.of(plans, options)
        stack.callback(store.close)
        pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        try:
            scenes = _Decoding(plans, store, pool, progress or _silent, 2 * workers).run()
        finally:
            pool.shutdown(cancel_futures=True)
        stack.pop_all()
    unreadable = [item for plan in plans for item in plan.unreadable]
    return DecodedSet(scenes, unreadable, store.job, store.pool)


def decode_scene(
    image: Source, labels: Source, *, legend: Legend, grid: GeoBox, name: str, area: Area | None = None, **more: Any
) -> SceneArrays:
    """One scene in memory, as `decode_scenes` gives it; `more` are other fields of SceneInput."""
    scene = SceneInput(name=name, image=image, labels=labels, grid=grid, area=area, **more)
    return decode_scenes([scene], legend=legend, options=StoreOptions(memory_gb=float("inf"))).scenes[0]


def _tell_rounded(inputs: Sequence[SceneInput]) -> None:
    """Warns once of images whose integers may not fit into what is kept of them."""
    wide = [scene for scene in inputs if scene.image.dtype.kind in "iu" and kept_dtype(scene.image.dtype).kind == "f"]
    if wide:
        logger.warning(
            "%s has pixels of %s, which are kept as float32: values beyond 16,777,216 are rounded",
            wide[0].name, wide[0].image.dtype,
        )  # fmt: skip


def _silent(done: int, total: int) -> None:
    """Takes the progress and shows nothing."""


# -- doing it ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Decoding:
    """The work: windows of several scenes at once, in a pool of threads, few of them ahead.

    Attributes:
        plans: The scenes.
        store: Where they go.
        pool: The threads.
        progress: Called with the windows that are done and those that there are.
        ahead: Windows that are handed to the pool before the first is done.
    """

    plans: Sequence[ScenePlan]
    store: Placing
    pool: ThreadPoolExecutor
    progress: Callable[[int, int], None]
    ahead: int
    pending: deque[tuple[int, Future[Any]]] = field(default_factory=deque)
    scenes: dict[int, SceneArrays] = field(default_factory=dict)
    done: int = 0
    total: int = 0

    def run(self) -> list[SceneArrays]:
        """All scenes."""
        windows = [plan.windows() for plan in self.plans]
        self.total = sum(map(len, windows))
        later = [number for number in range(len(self.plans)) if not self._start(number, windows[number], wait=False)]
        self._settle(0)
        for number in later:  # nothing is held meanwhile, so that no two jobs can wait for each other
            if not self.store.open(self.plans[number], number):
                logger.info("waits for another job that decodes %s", self.plans[number].scene.name)
            while not self._start(number, windows[number], wait=True):
                pass
            self._settle(0)
        return [self.scenes[number] for number in range(len(self.plans))]

    def _start(self, number: int, windows: Sequence[Window], *, wait: bool) -> bool:
        """Whether the scene is there, or its windows have been handed to the pool."""
        plan = self.plans[number]
        if self.store.open(plan, number):
            self._told(len(windows))
            self.scenes[number] = self._scene(plan, number)
            return True
        if not self.store.begin(plan, number, wait=wait):
            return False
        plan.waiting = len(windows)
        for window in windows:
            self._settle(self.ahead - 1)
            self.pending.append((number, self.pool.submit(_read, plan, window)))
        return True

    def _settle(self, most: int) -> None:
        """Waits until no more than so many windows are under way."""
        while len(self.pending) > most:
            number, future = self.pending.popleft()
            told, in_area, unreadable = future.result()
            plan = self.plans[number]
            plan.told, plan.in_area = plan.told or told, plan.in_area or in_area
            plan.unreadable += unreadable
            plan.waiting -= 1
            self._told(1)
            if not plan.waiting:
                _check(plan)
                self.store.finish(plan, number)
                self.scenes[number] = self._scene(plan, number)

    def _told(self, windows: int) -> None:
        self.done += windows
        self.progress(self.done, self.total)

    def _scene(self, plan: ScenePlan, number: int) -> SceneArrays:
        if plan.unreadable:
            first = plan.unreadable[0]
            more = f", and {len(plan.unreadable) - 1} pieces more" if len(plan.unreadable) > 1 else ""
            logger.warning("%s: %s is left out%s: %s", first.scene, first.window, more, first.reason)
        return plan.arrays(self.store.part(plan, number))


def _read(plan: ScenePlan, window: Window) -> tuple[bool, bool, tuple[Unreadable, ...]]:
    return plan.take(plan.reader.read(window))


def _check(plan: ScenePlan) -> None:
    """Nothing, where a scene can be learnt from.

    Raises:
        InputError: The region is empty, or no labelled pixel lies on a valid pixel.
    """
    name = plan.scene.name
    if not plan.in_area:
        raise InputError(f"the region of {name} holds none of its pixels")
    if plan.scene.labels is not None and not plan.told and not plan.unreadable:
        raise InputError(
            f"no labelled pixel lies on a valid pixel of {name}: the labels do not overlap the image or its region"
        )
