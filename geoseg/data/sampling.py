"""Which patches a network sees, epoch by epoch, and what cuts them from the store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed
from torch.utils.data import Dataset, Sampler

from geoseg.data.label_index import LabelIndex
from geoseg.data.patches import gather_patches
from geoseg.data.scene import SceneArrays
from geoseg.data.strategies import SAMPLERS, Drawer, Ground, HardExamples, Turn, apportion, class_rates
from geoseg.data.windows import Windows, lattice_windows, share_of, validation_windows
from geoseg.errors import InputError

__all__ = ["PatchBatches", "PatchSampler", "SamplingOptions", "share_of", "validation_windows"]

REDRAWS = 64  # rounds at most in which windows that an epoch has already are drawn anew


@dataclass(frozen=True, kw_only=True)  # no slots: jsonargparse reads the defaults from __dict__
class SamplingOptions:
    """How training patches are drawn.

    Attributes:
        shares: Share of an epoch's patches that each strategy gives. `labelled`: around any labelled pixel; `balanced`:
            around a pixel of a class that is drawn first; `random`: around any valid pixel; `grid`: side by side over
            all training pixels, going on from epoch to epoch; `hard`: around labelled pixels, in proportion to the last
            loss seen there.
        rates: Share of single classes among the balanced patches, by name; the other classes share the rest evenly.
        area: The region that pixels are drawn in: a polygon file, `{bbox: [...], crs: ...}`, or `{rows: [a, b], cols:
            [a, b]}` in pixels of each image; without, everywhere. A patch's middle may lie `jitter_px` outside it, and
            at a scene's edge more; `grid` lays its patches so that they show all of it.
        jitter_px: How far a patch's middle may lie from the pixel it was drawn for; without, a quarter of a patch.
    """

    shares: dict[str, float] = field(default_factory=lambda: {"labelled": 0.5, "balanced": 0.5})
    rates: dict[str, float] | None = None
    area: Any = None
    jitter_px: int | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.shares if name not in SAMPLERS]
        if unknown:
            raise InputError(f"sampling.shares names '{unknown[0]}', which is unknown; known are {', '.join(SAMPLERS)}")
        for key, given in (("shares", self.shares), ("rates", self.rates or {})):
            wrong = [f"{name}: {share}" for name, share in given.items() if not 0 <= share < inf]
            if wrong:
                raise InputError(f"sampling.{key} has {', '.join(wrong)}: needed are numbers from 0 on")
        if not sum(self.shares.values()):
            raise InputError("sampling.shares are all 0: needed is one strategy above it, such as {labelled: 1}")
        if self.jitter_px is not None and self.jitter_px < 0:
            raise InputError(f"sampling.jitter_px is {self.jitter_px}: needed is 0 or more")


class PatchSampler(Sampler[NDArray[np.int64]]):
    """Windows of training patches, a batch at a time: `(batch, 3)` of scene, first row, first column.

    The windows of an epoch depend on the seed and the epoch alone (and with `hard` on the losses noted before it), not
    on workers or devices. None is given twice in an epoch, as long as there are others to draw. Where
    torch.distributed is at work, the epoch is cut in steps of `batch` windows for each process, and each takes every
    `world`-th window of a step: so processes share no window and together have the epoch of a single one. All have the
    same number of batches; what is left at the end and too little for a step of its own (fewer windows than processes)
    joins the step before.

    Args:
        scenes: Decoded and split.
        index: Their training pixels.
        options: How to draw.
        class_names: In channel order.
        patch_px: Side of a patch.
        batch: Windows in a batch; the last one may have fewer.
        epoch_patches: Windows in an epoch, of all processes together.
        seed: The draw.

    Raises:
        InputError: There is nothing to draw from, or options do not fit the scenes.
    """

    def __init__(
        self, scenes: Sequence[SceneArrays], index: LabelIndex, *, options: SamplingOptions, class_names: Sequence[str],
        patch_px: int, batch: int, epoch_patches: int, seed: int,
    ) -> None:  # fmt: skip
        self.shares = np.array([options.shares.get(name, 0.0) for name in SAMPLERS])
        present = np.bincount(index.class_of(np.flatnonzero(index.pair_chances)), minlength=len(class_names)) > 0
        _check_pixels(options.shares, index, labels=bool(present.any()))
        rates = class_rates(options.rates or {}, class_names, present) if options.shares.get("balanced") else _NO_RATES
        self.batch, self.epoch_patches, self.seed, self.epoch = batch, epoch_patches, seed, 0
        self.ground = Ground(
            scenes=scenes, index=index, patch_px=patch_px, jitter_px=_jitter(options, patch_px), rates=rates, seed=seed,
            lattice=lattice_windows(scenes, index, patch_px=patch_px) if options.shares.get("grid") else _NONE,
            hard=HardExamples(index, patch_px=patch_px),
        )  # fmt: skip
        self.wants_losses = options.shares.get("hard", 0.0) > 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch whose patches come next; losses noted during another one now count."""
        if epoch != self.epoch:
            self.ground.hard.settle()
        self.epoch = epoch

    def __len__(self) -> int:
        """Batches of this process in an epoch."""
        return len(self._bounds()) - 1

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        bounds, (rank, world) = self._bounds(), _process()
        windows = self.draw(self.epoch)
        for start, stop in pairwise(bounds):
            yield windows[start:stop][rank::world]

    def _bounds(self) -> list[int]:
        """Where the steps of an epoch begin, and where the last one ends."""
        world = _process()[1]
        if self.epoch_patches < world:
            raise InputError(f"epoch_patches is {self.epoch_patches}: needed is one for each of the {world} processes")
        bounds = [*range(0, self.epoch_patches, self.batch * world), self.epoch_patches]
        if len(bounds) > 2 and bounds[-1] - bounds[-2] < world:
            del bounds[-2]
        return bounds

    def draw(self, epoch: int) -> Windows:
        """All windows of an epoch, of all processes, `(epoch_patches, 3)`."""
        rng = np.random.default_rng([self.seed, 2, epoch])
        drawers = self._drawers(epoch, rng)
        windows = np.zeros((self.epoch_patches, 3), np.int64)
        which, budget = np.arange(self.epoch_patches), 3 * self.epoch_patches + 1000
        single = np.all(self.ground.index.shapes <= self.ground.patch_px, axis=1)  # these have one window each
        spent = np.zeros(len(single), np.bool_)
        for _ in range(REDRAWS):
            for drawer, start, stop in drawers:
                own = which[(which >= start) & (which < stop)]
                if len(own):
                    windows[own] = drawer(own - start, spent)
            budget -= len(which)
            which = self._repeats(windows)
            spent[windows[:, 0]] = single[windows[:, 0]]
            if not len(which) or len(which) > budget:
                break
        return rng.permutation(windows)

    def _drawers(self, epoch: int, rng: np.random.Generator) -> list[tuple[Drawer, int, int]]:
        """What draws the windows from one to another of an epoch."""
        before, after = (apportion(self.shares, count * self.epoch_patches) for count in (epoch, epoch + 1))
        drawers, start = [], 0
        for strategy, given, count in zip(SAMPLERS.values(), before.tolist(), (after - before).tolist(), strict=True):
            if count:
                drawers.append((strategy(self.ground, Turn(given, count, rng)), start, start + count))
            start += count
        return drawers

    def _repeats(self, windows: Windows) -> NDArray[np.int64]:
        """Numbers of the windows that equal an earlier one."""
        span = self.ground.index.shapes.max(0) + 2 * self.ground.patch_px  # padded ones begin before their scene
        rows, cols = (windows[:, 1:] + self.ground.patch_px).T
        keys = (windows[:, 0] * span[0] + rows) * span[1] + cols
        return np.setdiff1d(np.arange(len(keys)), np.unique(keys, return_index=True)[1])

    def note(self, windows: Any, losses: Any) -> None:
        """Keeps the losses `(n,)` of patches, windows `(n, 3)`, of all processes; they count from the next epoch on.

        Arrays or tensors on the CPU. Nothing happens where no patch is drawn by its loss.
        """
        if self.wants_losses:
            self.ground.hard.note(np.asarray(windows, np.int64), np.asarray(losses, np.float64))

    def state_dict(self) -> dict[str, Any]:
        """What an exact resume needs: the epoch, and the losses where patches are drawn by them."""
        hard = self.ground.hard
        losses = {"settled": hard.settled, "noted": hard.noted} if self.wants_losses else {}
        return {"epoch": self.epoch, **{name: torch.from_numpy(kept.copy()) for name, kept in losses.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state_dict`.

        Raises:
            InputError: It is of other scenes.
        """
        hard = self.ground.hard
        for name, own in (("settled", hard.settled), ("noted", hard.noted)):
            kept = np.asarray(state.get(name, own))
            if kept.shape != own.shape:
                raise InputError(
                    f"the sampler's state is of {len(kept)} cells, the scenes have {len(own)}: needed are those "
                    "and the split that it was made with"
                )
            own[:] = kept
        self.epoch = int(state["epoch"])


_NONE, _NO_RATES = np.zeros((0, 3), np.int64), np.zeros(0)


def _process() -> tuple[int, int]:
    """The rank of this process and the number of all."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _jitter(options: SamplingOptions, patch_px: int) -> int:
    most = (patch_px - 1) // 2  # farther off, a patch would miss the pixel it was drawn for
    if options.jitter_px is None:
        return min(patch_px // 4, most)
    if options.jitter_px > most:
        raise InputError(f"sampling.jitter_px is {options.jitter_px}: a patch of {patch_px} px allows {most} at most")
    return options.jitter_px


def _check_pixels(shares: Mapping[str, float], index: LabelIndex, *, labels: bool) -> None:
    if not index.cell_chances.any():
        raise InputError(
            "there is no training pixel to draw: needed are valid pixels in the training part, inside sampling.area if "
            "one is given, in a scene of a weight above 0"
        )
    need = [name for name in ("balanced", "hard", "labelled") if shares.get(name)]
    if need and not labels:
        raise InputError(
            f"sampling.shares names {', '.join(need)}, and no training pixel has a label; random or grid need none"
        )


class PatchBatches(Dataset[dict[str, torch.Tensor]]):
    """Batches by their windows: `batches[windows]` cuts them from the store.

    Args:
        scenes: The store.
        patch_px: Side of a patch.
        part: TRAINING hides every pixel of another part from the network; others hide only labels.
        halo_px: Pixels at each border of a patch whose labels are left out: they serve as context.
    """

    def __init__(self, scenes: Sequence[SceneArrays], *, patch_px: int, part: int, halo_px: int = 0) -> None:
        self.scenes, self.patch_px, self.part, self.halo_px = scenes, patch_px, part, halo_px

    def __getitem__(self, windows: NDArray[np.int64]) -> dict[str, torch.Tensor]:
        """The batch of `windows` `(n, 3)`; its keys are those of `gather_patches`."""
        return gather_patches(self.scenes, windows, patch_px=self.patch_px, part=self.part, halo_px=self.halo_px)
