"""Scores from one summed confusion matrix of integers, the same for every batch and patch size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geoseg.models.losses import IGNORE_INDEX


def confusion_counts(predicted: torch.Tensor, label: torch.Tensor, *, classes: int) -> torch.Tensor:
    """Pixels by true class (row) and predicted class (column), int64 `(class, class)`; IGNORE_INDEX is left out."""
    known = label != IGNORE_INDEX
    pairs = label[known].long() * classes + predicted[known]
    return torch.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What a confusion matrix says; NaN for a class that neither the labels nor the map hold.

    Attributes:
        matrix: Pixels by true class (row) and predicted class (column), int64.
    """

    matrix: NDArray[np.int64]

    @property
    def overall_accuracy(self) -> float:
        """Share of pixels whose class is right."""
        return float(_over(np.trace(self.matrix), self.matrix.sum()))

    @property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union of each class (Jaccard index)."""
        hits = np.diag(self.matrix)
        return np.asarray(_over(hits, self.matrix.sum(0) + self.matrix.sum(1) - hits))

    @property
    def precision(self) -> NDArray[np.float64]:
        """Share of the pixels mapped as each class that are it (user's accuracy)."""
        return np.asarray(_over(np.diag(self.matrix), self.matrix.sum(0)))

    @property
    def recall(self) -> NDArray[np.float64]:
        """Share of the pixels of each class that are mapped as it (producer's accuracy)."""
        return np.asarray(_over(np.diag(self.matrix), self.matrix.sum(1)))

    @property
    def f1(self) -> NDArray[np.float64]:
        """Harmonic mean of precision and recall of each class."""
        return np.asarray(_over(2 * np.diag(self.matrix), self.matrix.sum(0) + self.matrix.sum(1)))

    @property
    def mean_iou(self) -> float:
        """Mean IoU of the classes that occur in the labels or in the map."""
        return _mean(self.iou)

    @property
    def mean_f1(self) -> float:
        """Mean F1 of the classes that occur in the labels or in the map."""
        return _mean(self.f1)

    @property
    def frequency_weighted_iou(self) -> float:
        """Mean IoU with each class by its share of the labels (Long et al. 2015, section 5)."""
        return float(_over(np.nansum(self.iou * self.matrix.sum(1)), self.matrix.sum()))

    @property
    def score(self) -> float:
        """Mean of overall accuracy and mean IoU: neither common nor rare classes are forgotten."""
        return (self.overall_accuracy + self.mean_iou) / 2

    def to_dict(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Plain values for JSON; classes by name, None for NaN."""
        by_class = {
            name: {
                "iou": _plain(iou),
                "f1": _plain(f1),
                "precision": _plain(precision),
                "recall": _plain(recall),
                "pixels": int(count),
            }
            for name, iou, f1, precision, recall, count in zip(
                names, self.iou, self.f1, self.precision, self.recall, self.matrix.sum(1), strict=True
            )
        }
        return {
            "overall_accuracy": _plain(self.overall_accuracy),
            "mean_iou": _plain(self.mean_iou),
            "mean_f1": _plain(self.mean_f1),
            "frequency_weighted_iou": _plain(self.frequency_weighted_iou),
            "score": _plain(self.score),
            "classes": by_class,
            "confusion": self.matrix.tolist(),
        }


def _over(part: Any, whole: Any) -> Any:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.asarray(whole) > 0, np.asarray(part) / np.asarray(whole), np.nan)


def _mean(values: NDArray[np.float64]) -> float:
    return float("nan") if np.isnan(values).all() else float(np.nanmean(values))


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
