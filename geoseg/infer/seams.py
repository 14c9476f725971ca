"""Whether tile borders show in a class map: how often classes change across them, and across all other lines.

A line runs between two neighbouring rows or columns of pixels; where a tile of the lattice starts or ends, a border.
Borders recur over the whole scene, so all other lines cross the same landscape, and borders are compared with them all.
Lines close to a border alone would not do: what a tile's edge spoils reaches as far as the network sees and is blended
over the overlap, so that such lines are spoilt too and would hide it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import inf, isfinite, nan, sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window as RasterioWindow

from geoseg.errors import InputError, ReadError
from geoseg.io.handles import GDAL_ERRORS, dataset, forget, gdal, one_line
from geoseg.tiling import Axis, Tiling

BAND_ROWS = 512
"""Rows read at a time: those of one row of the map's own tiles."""

BAND_PX = 1 << 22
"""Pixels read at a time at most, however wide the map."""


@dataclass(frozen=True, slots=True)
class Crossings:
    """Pixel pairs across the lines of one direction.

    A pair is two neighbouring pixels on both sides of a line that both have a class.

    Attributes:
        border_lines: Lines at which a tile starts or ends and that have a pair.
        border_pairs: Pairs across them.
        border_changes: Those of two classes.
        interior_lines: All other lines that have a pair.
        interior_pairs: Pairs across them.
        interior_changes: Those of two classes.
        variance: Variance of border rate minus interior rate, were border lines like any other; NaN where unknown.
    """

    border_lines: int
    border_pairs: int
    border_changes: int
    interior_lines: int
    interior_pairs: int
    interior_changes: int
    variance: float

    @classmethod
    def count(cls, pairs: NDArray[np.int64], changes: NDArray[np.int64], border: NDArray[np.bool_]) -> Crossings:
        """The sums over border lines and over the others.

        Args:
            pairs: Pairs across each line.
            changes: Those of two classes.
            border: Whether a tile starts or ends at the line.
        """
        at, off = border & (pairs > 0), ~border & (pairs > 0)
        border_pairs, interior_pairs = pairs[at], pairs[off]
        return cls(
            border_lines=len(border_pairs),
            border_pairs=int(border_pairs.sum()),
            border_changes=int(changes[at].sum()),
            interior_lines=len(interior_pairs),
            interior_pairs=int(interior_pairs.sum()),
            interior_changes=int(changes[off].sum()),
            variance=_line_variance(interior_pairs, changes[off]) * (_share(border_pairs) + _share(interior_pairs)),
        )

    @property
    def comparable(self) -> bool:
        """Whether there are pairs on both sides of the comparison."""
        return self.border_pairs > 0 and self.interior_pairs > 0

    @property
    def interior_rate(self) -> float:
        """Share of interior pairs whose classes differ."""
        return _rate(self.interior_changes, self.interior_pairs)


@dataclass(frozen=True, slots=True)
class SeamReport:
    """How often classes change across tile borders and elsewhere.

    Attributes:
        cols: Pairs side by side, across the lines between columns.
        rows: Pairs one above the other, across the lines between rows.
    """

    cols: Crossings
    rows: Crossings

    @property
    def border_pairs(self) -> int:
        """Pairs of neighbouring pixels across tile borders."""
        return self.cols.border_pairs + self.rows.border_pairs

    @property
    def border_changes(self) -> int:
        """Pairs across tile borders whose classes differ."""
        return self.cols.border_changes + self.rows.border_changes

    @property
    def interior_pairs(self) -> int:
        """Pairs of neighbouring pixels across all other lines."""
        return self.cols.interior_pairs + self.rows.interior_pairs

    @property
    def interior_changes(self) -> int:
        """Pairs across all other lines whose classes differ."""
        return self.cols.interior_changes + self.rows.interior_changes

    @property
    def border_rate(self) -> float:
        """Share of the pairs across tile borders whose classes differ; 0 without a pair."""
        return _rate(self.border_changes, self.border_pairs)

    @property
    def interior_rate(self) -> float:
        """Share of the other pairs whose classes differ, both directions mixed as they are among border pairs.

        Ridges, rows of fields and oblong pixels make classes change more often in one direction; with two tiles down
        and ten across a plain share would take that for a seam. Without a border it is the plain share.
        """
        compared = self._compared
        if not compared:
            return _rate(self.interior_changes, self.interior_pairs)
        total = sum(item.border_pairs for item in compared)
        return sum(item.interior_rate * item.border_pairs for item in compared) / total

    @property
    def excess(self) -> float:
        """`border_rate / interior_rate - 1`.

        0 without a border or without a change anywhere; infinite where classes change at borders only.
        """
        if not self.border_changes:
            return -1.0 if self.border_pairs and self.interior_rate else 0.0
        return self.border_rate / self.interior_rate - 1 if self.interior_rate else inf

    @property
    def standard_error(self) -> float:
        """Standard error of `border_rate - interior_rate`, each line taken as one observation; NaN where unknown.

        The spread of the interior lines' rates says how much lines differ by landscape alone. Borders are few, so their
        own spread says little; were they lines like any other, theirs would be the same. Borders lie far apart, and
        differ independently but for the two of one overlap. Interior lines resemble their neighbours, yet are so many
        that their part of the error is small.
        """
        compared = self._compared
        total = sum(item.border_pairs for item in compared)
        return sqrt(sum((item.border_pairs / total) ** 2 * item.variance for item in compared)) if compared else nan

    @property
    def z_score(self) -> float:
        """Difference of the rates in standard errors between lines; above 2 it is seldom chance. NaN where unknown."""
        error = self.standard_error
        return (self.border_rate - self.interior_rate) / error if error > 0 else nan

    @property
    def z_score_of_pairs(self) -> float:
        """The two-proportion test, with each pair taken as one observation; NaN where nothing changes.

        Source: Fleiss, Levin & Paik 2003, Statistical Methods for Rates and Proportions, 3rd ed., chapter 3, without
        continuity correction. Pairs along a line are not independent, for a class ends at many of them at once: among
        maps of blobs without a seam this score passes 2 in one of four, `z_score` in one of thirty. Go by `z_score`.
        """
        pairs = self.border_pairs, self.interior_pairs
        pooled = _rate(self.border_changes + self.interior_changes, sum(pairs))
        if not all(pairs) or not 0 < pooled < 1:
            return nan
        difference = self.border_rate - _rate(self.interior_changes, self.interior_pairs)
        return difference / sqrt(pooled * (1 - pooled) * (1 / pairs[0] + 1 / pairs[1]))

    @property
    def _compared(self) -> list[Crossings]:
        """Directions in which there are borders and other lines."""
        return [item for item in (self.cols, self.rows) if item.comparable]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; None for what is unknown or infinite."""
        names = ("border_pairs", "border_changes", "interior_pairs", "interior_changes", "border_rate", "interior_rate",
                 "excess", "standard_error", "z_score", "z_score_of_pairs")  # fmt: skip
        directions = {"cols": _plain(asdict(self.cols)), "rows": _plain(asdict(self.rows))}
        return {**_plain({name: getattr(self, name) for name in names}), **directions}

    def __str__(self) -> str:
        border, interior = f"{100 * self.border_rate:.2f} %", f"{100 * self.interior_rate:.2f} %"
        if not self.border_pairs:
            return f"seams: no tile borders; classes change across {interior} of neighbouring pixels"
        excess = f"{100 * self.excess:+.1f} %" if isfinite(self.excess) else "none elsewhere"
        return (
            f"seams: classes change across {border} of neighbouring pixels at tile borders and {interior} elsewhere "
            f"({excess})"
        )


def check_seams(class_map: Path, tiling: Tiling) -> SeamReport:
    """How often classes change across the borders of `tiling` and across all other lines of a class map.

    Counts are integers. Memory grows with neither the rows nor the columns, but for two numbers each.

    Args:
        class_map: The class map; its nodata, where declared, is no class.
        tiling: The tiles it was predicted in, in its own pixels.

    Raises:
        MissingInputError: There is no such map.
        ReadError: The map cannot be read.
        InputError: The tiles are those of a scene of another size.
    """
    path = str(class_map)
    with gdal(path):
        opened = dataset(path)
        shape = tiling.rows.size, tiling.cols.size
        if opened.shape != shape:
            raise InputError(
                f"{path} is {opened.height} x {opened.width} px, the tiles cover {shape[0]} x {shape[1]}; "
                "needed are the tiles that it was predicted in"
            )
        cols, rows = _count(_bands(opened, path), shape, opened.nodata)
    return SeamReport(
        cols=Crossings.count(*cols, border_lines(tiling.cols)), rows=Crossings.count(*rows, border_lines(tiling.rows))
    )


def border_lines(axis: Axis) -> NDArray[np.bool_]:
    """Whether a tile starts or ends between pixels `line` and `line + 1`, for each line inside the scene.

    >>> border_lines(Axis(size=8, tile=4, overlap=1, count=3)).astype(int).tolist()
    [0, 0, 1, 1, 0, 1, 1]
    """
    starts = np.arange(axis.count) * axis.stride
    pixels = np.concatenate([starts, starts + axis.tile])
    found = np.zeros(axis.size - 1, np.bool_)
    found[pixels[(pixels > 0) & (pixels < axis.size)] - 1] = True
    return found


def _bands(opened: Any, path: str) -> Iterator[NDArray[Any]]:
    """The first band's pixels `(row, col)`, a band of rows at a time."""
    step = max(1, min(BAND_ROWS, BAND_PX // opened.width))
    for row in range(0, opened.height, step):
        count = min(step, opened.height - row)
        try:
            yield opened.read(1, window=RasterioWindow(0, row, opened.width, count))
        except GDAL_ERRORS as error:
            forget(path)
            raise ReadError(f"{path} cannot be read at rows {row} to {row + count}: {one_line(error)}") from error


def _count(
    bands: Iterator[NDArray[Any]], shape: tuple[int, int], nodata: float | None
) -> tuple[tuple[NDArray[np.int64], NDArray[np.int64]], tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs and changes across each line between columns, and across each line between rows."""
    cols = np.zeros((2, shape[1] - 1), np.int64)
    rows = np.zeros((2, shape[0] - 1), np.int64)
    above, start = None, 0
    for band in bands:
        # The last row of the band before makes the pairs across the line between the two.
        tall = band if above is None else np.concatenate([above, band])
        first = max(start - 1, 0)
        cols += _across(band[:, :-1], band[:, 1:], nodata, axis=0)
        rows[:, first : first + len(tall) - 1] = _across(tall[:-1], tall[1:], nodata, axis=1)
        above, start = band[-1:], start + len(band)
    return (cols[0], cols[1]), (rows[0], rows[1])


def _across(one: NDArray[Any], other: NDArray[Any], nodata: float | None, *, axis: int) -> NDArray[np.int64]:
    """Pairs, and those of two classes, summed along `axis`: int64 `(2, line)`."""
    differ = one != other
    if nodata is None:
        return np.stack([np.full(differ.shape[1 - axis], differ.shape[axis]), np.count_nonzero(differ, axis=axis)])
    valid = (one != nodata) & (other != nodata)
    return np.stack([np.count_nonzero(valid, axis=axis), np.count_nonzero(differ & valid, axis=axis)])


def _line_variance(pairs: NDArray[np.int64], changes: NDArray[np.int64]) -> float:
    """Variance of the lines' rates about their common one, lines weighted by the square of their pairs.

    For lines of the same length it is the sample variance of their rates. Source: the ratio estimator of Cochran 1977,
    Sampling Techniques, 3rd ed., chapter 6.
    """
    lines = len(pairs)
    if lines < 2:
        return nan
    weight = pairs.astype(np.float64)
    off = changes - weight * (changes.sum() / weight.sum())
    return float((off**2).sum() / (weight**2).sum() * lines / (lines - 1))


def _share(pairs: NDArray[np.int64]) -> float:
    """Variance of the common rate of lines of variance one: one over their number where all are as long."""
    weight = pairs.astype(np.float64)
    return float((weight**2).sum() / weight.sum() ** 2) if len(pairs) else nan


def _rate(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and not isfinite(value) else value for key, value in values.items()}
