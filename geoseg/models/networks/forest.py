"""A random forest as a network: the baseline that every user would try first, with the same file and the same maps.

Its trees are plain arrays among the weights, so a model file holds them without any code. What they see of a pixel are
its bands, normalised differences of pairs of bands, and means and deviations of both in windows around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from geoseg.errors import InputError
from geoseg.jit import jit
from geoseg.models.spec import ModelSpec

LEAST = 1e-4  # the least probability of a class, whose logarithm is the logit
PART_PX = 1 << 16  # pixels that one thread takes at once


def _check_lists(windows: Any, pairs: Any) -> None:
    """Nothing, where both are lists of numbers, one flat and one of pairs.

    Raises:
        InputError: They are not.
    """
    if not _are_whole(windows):
        raise InputError(f"windows are {windows!r}: needed is a list of odd numbers of pixels, such as [5, 15]")
    if not isinstance(pairs, Sequence) or isinstance(pairs, str) or not all(map(_are_whole, pairs)):
        raise InputError(
            f"pairs are {pairs!r}: needed is a list of two positions of bands each, counted from 0, such as [[3, 2]]"
        )


def _are_whole(values: Any) -> bool:
    listed = isinstance(values, Sequence) and not isinstance(values, str)
    return listed and all(isinstance(value, int) and not isinstance(value, bool) for value in values)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForestOptions:
    """What a forest is, in plain values: the `options` of its ModelSpec.

    Attributes:
        trees: Number of trees.
        nodes: Nodes of all trees together; 0 for a forest that has not grown.
        leaves: Leaves among them.
        windows: Sides of the windows around a pixel, odd, in pixels.
        pairs: Positions of two bands a pair, whose normalised difference `(a - b) / (a + b)` is a feature.
        mean: Mean of each band, to take normalising back for the pairs.
        std: Standard deviation of each band.
        least_leaf: Training pixels in the smallest leaf.
        pixels: Training pixels to grow on.
    """

    trees: int = 100
    nodes: int = 0
    leaves: int = 0
    windows: Sequence[int] = (5, 15)
    pairs: Sequence[Sequence[int]] = ()
    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    least_leaf: int = 2
    pixels: int = 150_000

    def __post_init__(self) -> None:
        _check_lists(self.windows, self.pairs)
        if self.trees < 1 or self.least_leaf < 1 or self.pixels < 1:
            raise InputError(f"trees is {self.trees}, least_leaf {self.least_leaf}, pixels {self.pixels}: needed is 1")
        if any(side < 3 or side % 2 == 0 for side in self.windows):
            raise InputError(f"windows are {list(self.windows)}: needed are odd numbers of pixels from 3 on")
        if any(len(pair) != 2 or min(pair) < 0 for pair in self.pairs):
            raise InputError(f"pairs are {list(self.pairs)}: needed are two positions of bands each, counted from 0")

    @classmethod
    def of(cls, spec: ModelSpec) -> ForestOptions:
        """The options of a spec.

        Raises:
            InputError: One is unknown or makes no sense.
        """
        known = [item.name for item in fields(cls)]
        stray = sorted(set(spec.options) - set(known))
        if stray:
            raise InputError(f"random_forest has no option {', '.join(stray)}; it has {', '.join(known)}")
        found = cls(**spec.options)
        if any(max(pair) >= spec.bands for pair in found.pairs):
            raise InputError(f"pairs are {list(found.pairs)}: the image has bands 0 to {spec.bands - 1}")
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Trees:
    """All trees of a forest, one after another.

    Attributes:
        roots: First node of each tree, int32.
        feature: Feature that a node looks at, int16; -1 in a leaf.
        threshold: A pixel goes left where the feature is at most this, float32.
        left: Node to the left, int32; in a leaf its row in `shares`.
        right: Node to the right, int32.
        shares: Share of each class in each leaf, float32 `(leaf, class)`.
    """

    roots: NDArray[np.int32]
    feature: NDArray[np.int16]
    threshold: NDArray[np.float32]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    shares: NDArray[np.float32]

    @classmethod
    def of_sklearn(cls, forest: Any, *, classes: int) -> Trees:
        """The trees of a fitted `RandomForestClassifier`, whose class values are channel indexes."""
        parts: dict[str, list[Any]] = {item.name: [] for item in fields(cls)}
        nodes = leaves = 0
        for estimator in forest.estimators_:
            tree = estimator.tree_
            leaf = tree.children_left < 0
            shares = np.zeros((int(leaf.sum()), classes), np.float32)
            counts = tree.value[leaf, 0]
            shares[:, forest.classes_.astype(int)] = counts / counts.sum(1, keepdims=True)
            parts["roots"].append([nodes])
            parts["feature"].append(np.where(leaf, -1, tree.feature))
            near = tree.threshold.astype(np.float32)  # rounded down, for pixels that lie on it go left
            parts["threshold"].append(np.where(near > tree.threshold, np.nextafter(near, np.float32(-np.inf)), near))
            parts["left"].append(np.where(leaf, np.cumsum(leaf) - 1 + leaves, tree.children_left + nodes))
            parts["right"].append(np.where(leaf, 0, tree.children_right + nodes))
            parts["shares"].append(shares)
            nodes, leaves = nodes + len(leaf), leaves + len(shares)
        dtypes = {"roots": "i4", "feature": "i2", "threshold": "f4", "left": "i4", "right": "i4", "shares": "f4"}
        return cls(**{name: np.concatenate(part).astype(dtypes[name]) for name, part in parts.items()})


class Forest(nn.Module):
    """A forest over `(n, band, row, col)` in standard deviations: logits are the logarithms of its class shares.

    Raises:
        InputError: The options do not fit.
    """

    roots: torch.Tensor
    feature: torch.Tensor
    threshold: torch.Tensor
    left: torch.Tensor
    right: torch.Tensor
    shares: torch.Tensor

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.options, self.bands = ForestOptions.of(spec), spec.bands
        nodes, leaves = max(self.options.nodes, 1), max(self.options.leaves, 1)
        empty = Trees(
            roots=np.zeros(self.options.trees, np.int32), feature=np.full(nodes, -1, np.int16),
            threshold=np.zeros(nodes, np.float32), left=np.zeros(nodes, np.int32), right=np.zeros(nodes, np.int32),
            shares=np.full((leaves, spec.classes), 1 / spec.classes, np.float32),
        )  # fmt: skip
        self._plant(empty)

    def _plant(self, trees: Trees) -> None:
        for item in fields(trees):
            self.register_buffer(item.name, torch.from_numpy(getattr(trees, item.name)))

    @classmethod
    def grown(cls, spec: ModelSpec, trees: Trees) -> Forest:
        """A forest with these trees, whose number of nodes and leaves the spec says."""
        forest = cls(spec)
        forest._plant(trees)
        return forest

    def check(self) -> None:
        """Nothing, where every pixel's way through the trees ends in a leaf: they are walked without looking.

        Raises:
            InputError: It may not.
        """
        roots, feature, threshold, left, right, shares = (getattr(self, item.name).numpy() for item in fields(Trees))
        seen = features(torch.zeros(1, self.bands, 1, 1), self.options).shape[1]
        node, leaf = np.arange(len(feature)), feature < 0
        right_way = (
            ((roots >= 0) & (roots < len(feature))).all()
            and ((feature >= -1) & (feature < seen)).all()
            and ((left >= 0) & (left < np.where(leaf, len(shares), len(feature)))).all()
            and (leaf | ((left > node) & (right > node) & (right < len(feature)))).all()
            and np.isfinite(threshold).all()
            and np.isfinite(shares).all()
        )
        if not right_way:
            raise InputError("its trees lead nowhere: they are not those of a forest that geoseg grew")

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits, float32 `(n, class, row, col)`, of `(n, band, row, col)`."""
        seen = features(image.float(), self.options).movedim(1, -1)
        table = seen.reshape(-1, seen.shape[-1])
        votes = self._votes(table).reshape(*seen.shape[:-1], -1)
        return votes.clamp(min=LEAST).log().movedim(-1, 1).contiguous()

    def _votes(self, table: torch.Tensor) -> torch.Tensor:
        """Mean class shares over the trees, `(pixel, class)`; on the CPU, where walking trees is at home."""
        rows = np.ascontiguousarray(table.detach().cpu().numpy(), np.float32)
        names = ("roots", "feature", "threshold", "left", "right", "shares")
        trees = tuple(getattr(self, name).cpu().numpy() for name in names)
        out = np.zeros((len(rows), self.shares.shape[1]), np.float32)
        starts = range(0, len(rows), PART_PX)

        def vote(start: int) -> None:
            part = slice(start, start + PART_PX)
            walk(rows[part], trees, out[part])

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            list(pool.map(vote, starts))
        return torch.from_numpy(out).to(table.device)


def features(image: torch.Tensor, options: ForestOptions) -> torch.Tensor:
    """What the trees see, `(n, feature, row, col)`: bands, pairs, and their means and the pairs' deviations in windows.

    At the edge of the image a window is the part of it that lies inside.
    """
    planes = [image, *_differences(image, options)]
    base = torch.cat(planes, 1)
    found = [base]
    bands = image.shape[1]
    for side in options.windows:
        mean = _mean(base, side)
        if base.shape[1] == bands:
            found.append(mean)
            continue
        # About the plane's own mean, so that small deviations are not lost in the digits.
        middle = base[:, bands:].mean((2, 3), keepdim=True)
        spread = _mean((base[:, bands:] - middle) ** 2, side) - (mean[:, bands:] - middle) ** 2
        found += [mean, spread.clamp(min=0).sqrt()]
    return torch.cat(found, 1)


def _differences(image: torch.Tensor, options: ForestOptions) -> list[torch.Tensor]:
    """The normalised difference of each pair of bands, in the bands' own units."""
    if not options.pairs:
        return []
    mean, std = (
        torch.as_tensor(values, dtype=torch.float32, device=image.device) for values in (options.mean, options.std)
    )
    raw = image * std[:, None, None] + mean[:, None, None]
    found = []
    for a, b in options.pairs:
        one, other = raw[:, a : a + 1], raw[:, b : b + 1]
        whole = one + other
        found.append(torch.where(whole.abs() > 1e-6, (one - other) / whole, torch.zeros_like(whole)).clamp(-1, 1))
    return found


def _mean(planes: torch.Tensor, side: int) -> torch.Tensor:
    return functional.avg_pool2d(planes, side, stride=1, padding=side // 2, count_include_pad=False)


@jit
def walk(rows: NDArray[np.float32], trees: tuple[NDArray[Any], ...], out: NDArray[np.float32]) -> None:
    """Writes the mean over the trees of the shares of the leaf that each pixel falls into.

    `trees` are the arrays of `Trees` in their order.
    """
    roots, feature, threshold, left, right, shares = trees
    for root in roots:
        for k in range(len(rows)):
            node = root
            while feature[node] >= 0:
                node = left[node] if rows[k, feature[node]] <= threshold[node] else right[node]
            leaf = left[node]
            for j in range(shares.shape[1]):
                out[k, j] += shares[leaf, j]
    out /= len(roots)
