"""Which patches a network sees: random and class-balanced ones to train on, a grid of them to validate on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from geoseg.data.patches import gather_patches, row_blocks
from geoseg.data.scene import TRAINING, VALIDATION, SceneArrays
from geoseg.errors import InputError

INDEX_CAP = 200_000  # positions kept a class; more add nothing to the choice of patches


@dataclass(frozen=True, slots=True, eq=False)
class ClassIndex:
    """Where the labelled training pixels are.

    Attributes:
        counts: Labelled training pixels of each class, `(class,)`.
        positions: For each class, scene, row and column of some of its pixels, `(n, 3)`: all of them, or a random
            choice of about `INDEX_CAP`.
    """

    counts: NDArray[np.int64]
    positions: tuple[NDArray[np.int64], ...]

    @classmethod
    def of(cls, scenes: Sequence[SceneArrays], *, counts: NDArray[np.int64], seed: int) -> ClassIndex:
        """The index of the scenes' training pixels, in one pass over the labels."""
        rng = np.random.default_rng([seed, 1])
        keep = INDEX_CAP / np.maximum(counts, INDEX_CAP)
        found: list[list[NDArray[np.int64]]] = [[] for _ in counts]
        for number, scene in enumerate(scenes):
            for start, stop in row_blocks((8, *scene.shape), scene.labels.dtype):
                learnt = (scene.part[start:stop] == TRAINING) & (scene.labels[start:stop] != scene.no_label)
                row, col = np.nonzero(learnt)
                told = scene.labels[start:stop][row, col]
                kept = rng.random(len(told), np.float32) < keep[told]
                at = np.stack([np.full(len(row), number), row + start, col], 1)[kept].astype(np.int32)
                for k in np.unique(told[kept]).tolist():
                    found[k].append(at[told[kept] == k])
        empty = np.zeros((0, 3), np.int32)
        return cls(counts, tuple(np.concatenate([empty, *parts]) for parts in found))


class PatchSampler(Sampler[NDArray[np.int64]]):
    """Windows of training patches, a batch at a time: `(batch, 3)` of scene, first row, first column.

    A class is drawn, then one of its pixels, and the patch is laid around it, moved by up to `jitter_px`. `balance` is
    the share of patches whose class is drawn evenly; the others' classes are drawn by how common they are, which is to
    draw a labelled pixel at random. The windows depend on the seed and the epoch alone.
    """

    def __init__(
        self, shapes: Sequence[tuple[int, int]], index: ClassIndex, *, patch_px: int, batch: int, batches: int,
        balance: float, jitter_px: int, seed: int,
    ) -> None:  # fmt: skip
        if not 0 <= balance <= 1:
            raise InputError(f"balance is {balance}: needed is a share from 0 (random patches) to 1 (all balanced)")
        self.shapes = np.array(shapes)
        self.index, self.patch_px, self.batch, self.batches = index, patch_px, batch, batches
        self.jitter_px, self.seed, self.epoch = jitter_px, seed, 0
        present = np.array([len(at) > 0 for at in index.positions])
        self.rates = balance * present / present.sum() + (1 - balance) * index.counts / index.counts.sum()

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch whose patches come next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        windows = self.draw(self.epoch)
        for start in range(0, len(windows), self.batch):
            yield windows[start : start + self.batch]

    def draw(self, epoch: int) -> NDArray[np.int64]:
        """All windows of an epoch, `(batches * batch, 3)`."""
        rng = np.random.default_rng([self.seed, 2, epoch])
        count = self.batch * self.batches
        classes = rng.choice(len(self.rates), count, p=self.rates / self.rates.sum())
        picks = rng.random(count)
        centers = np.stack([self._pixel(k, pick) for k, pick in zip(classes.tolist(), picks.tolist(), strict=True)])
        centers[:, 1:] += rng.integers(-self.jitter_px, self.jitter_px + 1, (count, 2))
        corners = place_windows(centers[:, 1:] - self.patch_px // 2, self.shapes[centers[:, 0]], self.patch_px)
        return np.concatenate([centers[:, :1], corners], 1)

    def _pixel(self, class_index: int, pick: float) -> NDArray[np.int64]:
        positions = self.index.positions[class_index]
        return np.asarray(positions[int(pick * len(positions))], np.int64)


def place_windows(corners: NDArray[np.int64], shapes: NDArray[np.int64], patch_px: int) -> NDArray[np.int64]:
    """Window corners `(n, 2)` moved inside their scenes; a scene smaller than a patch lies in the patch's middle."""
    room = shapes - patch_px
    return np.where(room >= 0, np.clip(corners, 0, np.maximum(room, 0)), room // 2)


def validation_windows(scenes: Sequence[SceneArrays], *, patch_px: int, halo_px: int) -> NDArray[np.int64]:
    """A grid of windows `(n, 3)` whose cores (without `halo_px` at each border) cover every validation label once."""
    core = patch_px - 2 * halo_px
    if core <= 0:
        raise InputError(f"a halo of {halo_px} px leaves nothing of a patch of {patch_px} px")
    found = []
    for number, scene in enumerate(scenes):
        judged = (scene.part == VALIDATION) & (scene.labels != scene.no_label)
        rows, cols = (-(-size // core) for size in scene.shape)
        padded = np.zeros((rows * core, cols * core), np.bool_)
        padded[: scene.shape[0], : scene.shape[1]] = judged
        row, col = np.nonzero(padded.reshape(rows, core, cols, core).any((1, 3)))
        found.append(np.stack([np.full(len(row), number), row * core - halo_px, col * core - halo_px], 1))
    return np.concatenate(found).astype(np.int64)


class PatchBatches(Dataset[dict[str, torch.Tensor]]):
    """Batches by their windows: `batches[windows]` cuts them from the store."""

    def __init__(self, scenes: Sequence[SceneArrays], *, patch_px: int, part: int, halo_px: int = 0) -> None:
        self.scenes, self.patch_px, self.part, self.halo_px = scenes, patch_px, part, halo_px

    def __getitem__(self, windows: NDArray[np.int64]) -> dict[str, torch.Tensor]:
        """The batch of `windows` `(n, 3)`; its keys are those of `gather_patches`."""
        return gather_patches(self.scenes, windows, patch_px=self.patch_px, part=self.part, halo_px=self.halo_px)
