"""Accuracy of a map: what a reference says about each class, from one summed confusion matrix.

Counts are integers and are added block by block; they are divided once, at the end. So the scores are the same for
every block size and every number of workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import InputError, LegendError
from geoseg.legend import Legend

Counts = NDArray[np.int64]
Shares = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Confusion:
    """Counts of pixels by what the reference says and what the map says.

    Attributes:
        legend: The classes, in the order of the rows and columns.
        matrix: int64 `(reference class, map class)`: pixels where both say something.
        unmapped: int64 `(reference class,)`: reference pixels where the map has nodata.

    Raises:
        InputError: The counts do not fit the legend.

    >>> legend = Legend.from_dict({1: "water", 7: "forest"})
    >>> ids, known = np.array([[1, 7, 7]], "uint8"), np.ones((1, 3), bool)
    >>> counts = Confusion.zeros(legend).update(ids, known, np.array([[1, 7, 1]], "uint8"), known)
    >>> counts.matrix.tolist(), round(counts.finish().overall, 3)
    ([[1, 1], [0, 1]], 0.667)
    """

    legend: Legend
    matrix: Counts
    unmapped: Counts

    def __post_init__(self) -> None:
        size = len(self.legend)
        if self.matrix.shape != (size, size) or self.unmapped.shape != (size,):
            raise InputError(
                f"counts of shape {self.matrix.shape} and {self.unmapped.shape} do not fit a legend of {size} classes"
            )

    @classmethod
    def zeros(cls, legend: Legend) -> Confusion:
        """No pixels counted yet."""
        size = len(legend)
        return cls(legend, np.zeros((size, size), np.int64), np.zeros(size, np.int64))

    def update(
        self,
        map_ids: NDArray[Any],
        map_valid: NDArray[np.bool_],
        ref_ids: NDArray[Any],
        ref_valid: NDArray[np.bool_],
    ) -> Confusion:
        """These counts and those of one block; see `accumulate` for the arguments."""
        return self.merge(accumulate(map_ids, map_valid, ref_ids, ref_valid, legend=self.legend))

    def merge(self, other: Confusion) -> Confusion:
        """The counts of both.

        Raises:
            LegendError: The two count other classes.
        """
        if self.legend.ids.tolist() != other.legend.ids.tolist():
            raise LegendError(
                f"counts of classes {self.legend.ids.tolist()} cannot be added to counts of {other.legend.ids.tolist()}"
            )
        return Confusion(self.legend, self.matrix + other.matrix, self.unmapped + other.unmapped)

    def finish(self) -> Accuracy:
        """The scores.

        Raises:
            InputError: No pixel has both a map class and a reference class.
        """
        if not self.matrix.sum():
            raise InputError(
                f"no pixel has both a map class and a reference class ({int(self.unmapped.sum())} reference pixels lie "
                "on nodata of the map); give a reference that overlaps the map"
            )
        return Accuracy(self)


def accumulate(
    map_ids: NDArray[Any],
    map_valid: NDArray[np.bool_],
    ref_ids: NDArray[Any],
    ref_valid: NDArray[np.bool_],
    *,
    legend: Legend,
) -> Confusion:
    """The counts of one block.

    Args:
        map_ids: Class ids `(row, col)` of the map, unsigned integers.
        map_valid: True where the map has a class.
        ref_ids: Class ids of the reference, same shape.
        ref_valid: True where the reference has a class; elsewhere the map is not judged.
        legend: The classes of both.

    Raises:
        InputError: The arrays differ in shape.
        LegendError: A valid id is not in the legend.
    """
    if len({map_ids.shape, map_valid.shape, ref_ids.shape, ref_valid.shape}) != 1:
        raise InputError(f"map {map_ids.shape} and reference {ref_ids.shape} differ in shape; read both on one grid")
    reference = _indexes(ref_ids[ref_valid], legend, "reference")
    mapped = map_valid[ref_valid]
    predicted = _indexes(map_ids[ref_valid][mapped], legend, "map")
    size = len(legend)
    pairs = np.bincount(reference[mapped] * size + predicted, minlength=size * size).reshape(size, size)
    unmapped = np.bincount(reference[~mapped], minlength=size)
    return Confusion(legend, pairs.astype(np.int64), unmapped.astype(np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class Accuracy:
    """The scores of a map against a reference; NaN where a share has no pixels to be a share of.

    With n_ij the pixels of reference class i and map class j (R. G. Congalton, "A review of assessing the accuracy of
    classifications of remotely sensed data", Remote Sensing of Environment 37, 1991): overall accuracy sum n_ii / n,
    user's accuracy n_jj / n_+j, producer's accuracy n_ii / n_i+.
    """

    confusion: Confusion

    @property
    def hits(self) -> Counts:
        """Pixels a class that map and reference agree on, int64 `(class,)`."""
        return np.diagonal(self.confusion.matrix)

    @property
    def reference_px(self) -> Counts:
        """Mapped pixels that the reference gives each class, int64 `(class,)`."""
        return np.asarray(self.confusion.matrix.sum(axis=1))

    @property
    def map_px(self) -> Counts:
        """Judged pixels that the map gives each class, int64 `(class,)`."""
        return np.asarray(self.confusion.matrix.sum(axis=0))

    @property
    def iou(self) -> Shares:
        """Intersection over union of each class (P. Jaccard, 1912), float64 `(class,)`."""
        return _share(self.hits, self.reference_px + self.map_px - self.hits)

    @property
    def f1(self) -> Shares:
        """Harmonic mean of user's and producer's accuracy of each class (L. R. Dice, 1945), float64 `(class,)`."""
        return _share(2 * self.hits, self.reference_px + self.map_px)

    @property
    def users(self) -> Shares:
        """User's accuracy (precision): share of a map class that the reference confirms, float64 `(class,)`."""
        return _share(self.hits, self.map_px)

    @property
    def producers(self) -> Shares:
        """Producer's accuracy (recall): share of a reference class that the map found, float64 `(class,)`."""
        return _share(self.hits, self.reference_px)

    @property
    def overall(self) -> float:
        """Share of judged pixels on which map and reference agree."""
        return float(self.hits.sum() / self.confusion.matrix.sum())

    @property
    def mean_iou(self) -> float:
        """Mean IoU over the classes that occur in the reference or in the map, each counted alike."""
        return float(np.nanmean(self.iou))

    @property
    def mean_f1(self) -> float:
        """Mean F1 over the classes that occur in the reference or in the map, each counted alike."""
        return float(np.nanmean(self.f1))

    @property
    def kappa(self) -> float:
        """Cohen's kappa: agreement beyond that of two maps with the same class shares (J. Cohen, 1960)."""
        total = float(self.confusion.matrix.sum())
        chance = float(self.reference_px.astype(float) @ self.map_px.astype(float)) / total**2
        return (self.overall - chance) / (1 - chance) if chance < 1 else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: counts as integers, shares as floats or None."""
        counts, legend = self.confusion, self.confusion.legend
        return {
            "overall_accuracy": self.overall,
            "mean_iou": self.mean_iou,
            "mean_iou_over": "classes that occur in the reference or in the map",
            "mean_f1": self.mean_f1,
            "kappa": _plain(self.kappa),
            "judged_px": int(counts.matrix.sum()),
            "unmapped_px": int(counts.unmapped.sum()),
            "classes": self._rows(),
            "confusion": {"rows": "reference", "columns": "map", "ids": legend.ids.tolist(),
                          "matrix": counts.matrix.tolist()},
        }  # fmt: skip

    def _rows(self) -> list[dict[str, Any]]:
        """Plain values of each class."""
        shares = {"iou": self.iou, "f1": self.f1, "users_accuracy": self.users, "producers_accuracy": self.producers}
        counts = {
            "reference_px": self.reference_px, "map_px": self.map_px, "unmapped_px": self.confusion.unmapped,
        }  # fmt: skip
        return [
            {
                "id": item.id, "name": item.name,
                **{key: _plain(values[index]) for key, values in shares.items()},
                **{key: int(values[index]) for key, values in counts.items()},
            }
            for index, item in enumerate(self.confusion.legend.classes)
        ]  # fmt: skip

    def table(self) -> str:
        """Plain text: one line a class, the overall scores, and the confusion matrix."""
        heads = ["class", "IoU", "F1", "user's", "producer's", "reference px", "map px"]
        rows = [
            [f"{row['id']} {row['name']}", *(_shown(row[key]) for key in _SHARE_KEYS), _grouped(row["reference_px"]),
             _grouped(row["map_px"])]
            for row in self._rows()
        ]  # fmt: skip
        ids = [str(item) for item in self.confusion.legend.ids]
        matrix = [
            [name, *map(_grouped, counts)] for name, counts in zip(ids, self.confusion.matrix.tolist(), strict=True)
        ]
        return "\n".join(
            [*_aligned([heads, *rows]), "", *self._summary(), "", "Pixels by reference class (rows) and map class:",
             *_aligned([["", *ids], *matrix])]
        )  # fmt: skip

    def _summary(self) -> list[str]:
        counts = self.confusion
        judged, unmapped = int(counts.matrix.sum()), int(counts.unmapped.sum())
        alone = " (undefined: map and reference have one class alone)" if np.isnan(self.kappa) else ""
        return [
            f"Overall accuracy {self.overall:.3f}, kappa {_shown(_plain(self.kappa))}{alone}",
            f"Mean IoU {self.mean_iou:.3f}, mean F1 {self.mean_f1:.3f}, over the classes in the reference or the map",
            f"{_grouped(judged)} pixels judged; {_grouped(unmapped)} reference pixels lie on nodata of the map",
        ]


_SHARE_KEYS = ("iou", "f1", "users_accuracy", "producers_accuracy")


def _indexes(ids: NDArray[Any], legend: Legend, whose: str) -> NDArray[np.int64]:
    index = legend.indexes(ids)
    stray = np.unique(ids[index == legend.no_index]).tolist()
    if stray:
        known = ", ".join(map(str, legend.ids.tolist()))
        raise LegendError(f"the {whose} has class ids {stray[:12]} that are not in the legend, which has {known}")
    return index.astype(np.int64)


def _share(part: Counts, whole: Counts) -> Shares:
    return np.asarray(np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0))


def _plain(share: float | np.float64) -> float | None:
    return None if np.isnan(share) else float(share)


def _shown(share: float | None) -> str:
    return "-" if share is None else f"{share:.3f}"


def _grouped(count: int) -> str:
    return f"{count:,}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of text: the first column to the left, the others to the right."""
    widths = [max(len(row[col]) for row in rows) for col in range(len(rows[0]))]
    lines = []
    for row in rows:
        first = row[0].ljust(widths[0])
        rest = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([first, *rest]).rstrip())
    return lines
