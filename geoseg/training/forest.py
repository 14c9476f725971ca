"""Grows a random forest on the same patches, split and classes as a network: what does the network buy?"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geoseg.data.datamodule import SceneDataModule
from geoseg.errors import InputError
from geoseg.models.losses import IGNORE_INDEX
from geoseg.models.networks.forest import Forest, ForestOptions, Trees, features
from geoseg.models.normalizing import normalize
from geoseg.models.spec import ModelSpec

PAIRS = (("nir", "red"), ("green", "nir"), ("nir", "swir1"))  # vegetation, water, moisture
MOST_EPOCHS = 50

logger = logging.getLogger(__name__)


def grow_forest(spec: ModelSpec, data: SceneDataModule, *, seed: int) -> tuple[ModelSpec, Forest]:
    """A forest grown on the labelled training pixels that the data module's sampler draws.

    Args:
        spec: Names the options; where it names no pairs of bands, the usual indices of the bands there are.
        data: Set up.
        seed: The draw of pixels and of the trees.

    Returns:
        The spec with what the forest has become, and the forest.

    Raises:
        InputError: The options do not fit.
    """
    from sklearn.ensemble import RandomForestClassifier

    options = _completed(ForestOptions.of(spec), data, named="pairs" in spec.options)
    table, labels = _drawn(data, options, np.random.default_rng(seed))
    forest = RandomForestClassifier(
        options.trees, min_samples_leaf=options.least_leaf, n_jobs=torch.get_num_threads(), random_state=seed
    )
    forest.fit(table, labels)
    trees = Trees.of_sklearn(forest, classes=spec.classes)
    grown = replace(options, nodes=len(trees.feature), leaves=len(trees.shares))
    full = replace(spec, encoder="none", options=_plain(grown))
    logger.info("grew %d trees on %d pixels: %d nodes", options.trees, len(labels), grown.nodes)
    return full, Forest.grown(full, trees)


def _completed(options: ForestOptions, data: SceneDataModule, *, named: bool) -> ForestOptions:
    names = [band.lower() for band in data.bands]
    pairs = options.pairs
    if not named:
        pairs = [[names.index(a), names.index(b)] for a, b in PAIRS if a in names and b in names]
    return replace(options, pairs=pairs, mean=data.stats.mean.tolist(), std=data.stats.std.tolist())


def _plain(options: ForestOptions) -> dict[str, Any]:
    """Values for JSON."""
    return {
        "trees": options.trees, "nodes": options.nodes, "leaves": options.leaves, "windows": list(options.windows),
        "pairs": [list(pair) for pair in options.pairs], "mean": list(options.mean), "std": list(options.std),
        "least_leaf": options.least_leaf, "pixels": options.pixels,
    }  # fmt: skip


def _drawn(
    data: SceneDataModule, options: ForestOptions, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Features `(pixel, feature)` and channel indexes `(pixel,)` of drawn training pixels."""
    margin = max(options.windows, default=1) // 2
    if 2 * margin >= data.patch_px:
        raise InputError(f"windows of {max(options.windows)} px do not fit a patch of {data.patch_px} px")
    each = -(-options.pixels // data.epoch_patches)
    tables: list[NDArray[np.float32]] = []
    told: list[NDArray[np.int64]] = []
    for batch in _batches(data):
        table, label = _features_of(batch, data, options, margin)
        for seen, known in zip(table, label, strict=True):
            at = np.flatnonzero(known != IGNORE_INDEX)
            chosen = rng.choice(at, min(each, len(at)), replace=False)
            tables.append(seen[chosen])
            told.append(known[chosen].astype(np.int64))
        if sum(map(len, told)) >= options.pixels:
            break
    return np.concatenate(tables)[: options.pixels], np.concatenate(told)[: options.pixels]


def _batches(data: SceneDataModule) -> Iterator[dict[str, torch.Tensor]]:
    """The batches of epoch after epoch."""
    loader: Any = data.train_dataloader()
    for epoch in range(MOST_EPOCHS):
        loader.sampler.set_epoch(epoch)
        yield from loader


def _features_of(
    batch: dict[str, torch.Tensor], data: SceneDataModule, options: ForestOptions, margin: int
) -> tuple[Sequence[NDArray[np.float32]], Sequence[NDArray[np.int16]]]:
    """Of each patch what lies `margin` from its edge: features `(pixel, feature)` and labels `(pixel,)`."""
    mean, std = (torch.as_tensor(values, dtype=torch.float32) for values in (data.stats.mean, data.stats.std))
    image = normalize(batch["image"], batch["valid"], mean=mean, std=std, present=batch.get("present"))
    core = slice(margin, data.patch_px - margin)
    seen = features(image, options)[:, :, core, core].flatten(2).transpose(1, 2)
    return list(seen.numpy()), list(batch["label"][:, core, core].flatten(1).numpy())
