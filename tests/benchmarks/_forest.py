"""The random forest that a careful user would try first on zion: the reference of the benchmark."""

from __future__ import annotations

import time

import numpy as np
import rasterio
from scipy.ndimage import uniform_filter
from sklearn.ensemble import RandomForestClassifier

TRAIN_COLS, TEST_FROM_COL = 676, 708
TRAINING_PIXELS = 150_000


def features(bands: np.ndarray) -> np.ndarray:
    """Bands, NDVI, means and NDVI deviation over 5 and 15 pixel windows: `(pixel, feature)` float32."""
    red, nir = bands[2], bands[3]
    ndvi = (nir - red) / np.maximum(nir + red, 1)
    planes = [*bands, ndvi]
    for size in (5, 15):
        planes += [uniform_filter(plane, size) for plane in (*bands, ndvi)]
        spread = uniform_filter(ndvi**2, size) - uniform_filter(ndvi, size) ** 2
        planes.append(np.sqrt(np.maximum(spread, 0)))
    return np.stack(planes, -1).astype(np.float32)


def forest_scores(image: str, labels: str, *, seed: int = 0, trees: int = 100) -> dict[str, float]:
    """Overall accuracy and mean IoU over the eight classes on the east, trained on the west."""
    with rasterio.open(image) as source:
        planes = features(source.read().astype(np.float32))
    with rasterio.open(labels) as source:
        truth = source.read(1)
    start = time.perf_counter()
    rng = np.random.default_rng(seed)
    west = rng.choice(np.flatnonzero(truth[:, :TRAIN_COLS].ravel() != 255), TRAINING_PIXELS, replace=False)
    forest = RandomForestClassifier(trees, n_jobs=2, random_state=seed, min_samples_leaf=2)
    forest.fit(planes[:, :TRAIN_COLS].reshape(-1, planes.shape[-1])[west], truth[:, :TRAIN_COLS].ravel()[west])
    east, target = planes[:, TEST_FROM_COL:].reshape(-1, planes.shape[-1]), truth[:, TEST_FROM_COL:].ravel()
    known = target != 255
    found = forest.predict(east[known])
    counts = np.zeros((9, 9), np.int64)
    np.add.at(counts, (target[known], found), 1)
    hits = np.diag(counts)[1:]
    iou = hits / np.maximum((counts.sum(0) + counts.sum(1))[1:] - hits, 1)
    return {
        "overall_accuracy": round(float(hits.sum() / counts.sum()), 4),
        "mean_iou": round(float(iou.mean()), 4),
        "seconds": round(time.perf_counter() - start, 1),
    }
