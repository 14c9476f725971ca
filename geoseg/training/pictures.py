"""What a run leaves to look at: the confusion matrix, how far confidence can be believed, and places of the map."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import OutputError
from geoseg.legend import Legend
from geoseg.models.boundary_iou import NOTHING
from geoseg.models.calibration import Reliability
from geoseg.pictures import picture_bands, stretched
from geoseg.training.scene_source import validation_labels
from geoseg.training.validation import Judgement, Place

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CONFUSION_NAME, RELIABILITY_NAME, PREDICTIONS_NAME = "confusion.png", "reliability.png", "predictions.png"
INK, FAINT, BAR, WRONG, RIGHT, BARE = "#333333", "#8a8a8a", "#3b7fc4", "#1f1f1f", "#d9e2d5", "#f4f3f0"
DPI = 130
CELL_IN, LEAST_IN = 0.62, 2.6  # inches: a cell that holds two lines of text, and the least side of the matrix
MOST_TEXTS = 32  # classes; beyond, cells are too small for text
PLACE_IN = 2.7
LONGEST_NAME = 26


def draw_judgement(found: Judgement, folder: Path, *, legend: Legend) -> None:
    """Writes all pictures (PNG) of a judgement into a folder.

    Raises:
        OutputError: One cannot be written.
    """
    draw_confusion(found.scores.matrix, legend.names, folder / CONFUSION_NAME)
    draw_reliability(found.reliability, folder / RELIABILITY_NAME)
    if found.places:
        draw_places(found.places, legend, folder / PREDICTIONS_NAME)


def draw_confusion(matrix: NDArray[np.int64], names: Sequence[str], path: Path) -> None:
    """A confusion matrix: of each true class the share that is mapped as each class, and the pixels.

    Args:
        matrix: Pixels by true class (row) and mapped class (column).
        names: Of the classes.
        path: The PNG file.

    Raises:
        OutputError: It cannot be written.
    """
    from matplotlib.figure import Figure

    count, total = len(names), matrix.sum(1)
    share = matrix / np.maximum(total, 1)[:, None]
    side = max(LEAST_IN, CELL_IN * min(count, MOST_TEXTS))
    figure = Figure(figsize=(side + 2.6, side + 1.7), layout="constrained")
    axis = figure.subplots()
    drawn = axis.imshow(np.where(total[:, None] > 0, share, np.nan), cmap="Blues", vmin=0, vmax=1)
    axis.set_facecolor(BARE)  # of a class without a label
    shown = [_text(name) for name in names]
    axis.set_xticks(range(count), shown, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    labels = [f"{name}\n{pixels:,} px" for name, pixels in zip(shown, total.tolist(), strict=True)]
    axis.set_yticks(range(count), labels, fontsize=8)
    axis.set_xlabel("class in the map", color=INK)
    axis.set_ylabel("true class", color=INK)
    axis.spines[:].set_visible(False)
    if count <= MOST_TEXTS:
        _write_cells(axis, matrix, share)
    figure.colorbar(drawn, ax=axis, label="share of the true class", shrink=0.8, aspect=40, format="{x:.0%}")
    _save(figure, path)


def _write_cells(axis: Axes, matrix: NDArray[np.int64], share: NDArray[np.float64]) -> None:
    """The share, where it is one in whole percent, and the pixels in each cell that has any."""
    for row, col in np.argwhere(matrix > 0).tolist():
        part = float(share[row, col])
        text, color = short_count(int(matrix[row, col])), FAINT
        if part >= 0.005:
            text, color = f"{part:.0%}\n{text}", "white" if part > 0.55 else INK
        axis.text(col, row, text, ha="center", va="center", fontsize=7, color=color, linespacing=1.3)


def short_count(pixels: int) -> str:
    """A count in at most five characters.

    >>> short_count(9_876), short_count(123_456), short_count(1_234_567), short_count(45_678_901)
    ('9,876', '123 k', '1.2 M', '46 M')
    """
    if pixels < 10_000:
        return f"{pixels:,}"
    if pixels < 999_500:
        return f"{pixels / 1e3:.0f} k"
    return f"{pixels / 1e6:.1f} M" if pixels < 9_950_000 else f"{pixels / 1e6:.0f} M"


def draw_reliability(reliability: Reliability, path: Path) -> None:
    """Accuracy against confidence in bins of equal width, and how many pixels each bin has.

    Args:
        reliability: Pixels by confidence.
        path: The PNG file.

    Raises:
        OutputError: It cannot be written.
    """
    from matplotlib.figure import Figure

    found, error = reliability.bins(), reliability.expected_error()
    width = 1 / len(found)
    middle = (np.arange(len(found)) + 0.5) * width
    figure = Figure(figsize=(4.6, 5.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.bar(middle, np.nan_to_num(found[:, 1]), width * 0.92, color=BAR, label="accuracy of the pixels")
    upper.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle="--", label="as confident as right")
    upper.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    said = "no labelled pixel" if np.isnan(error) else f"expected calibration error {error:.3f}"
    upper.set_title(said, fontsize=10, color=INK)
    upper.legend(frameon=False, fontsize=8, loc="upper left")
    lower.bar(middle, np.nan_to_num(found[:, 2]), width * 0.92, color=FAINT)
    lower.set(xlabel="confidence", ylabel="share of pixels")
    for axis in (upper, lower):
        axis.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def draw_places(places: Sequence[Place], legend: Legend, path: Path) -> None:
    """Places of the validation part, one a row: the image, its labels, the map, and where the two differ.

    Args:
        places: The places.
        legend: Their classes.
        path: The PNG file.

    Raises:
        OutputError: It cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    shown = legend.classes
    columns = min(len(shown) + 2, 6)
    lines = -(-(len(shown) + 2) // columns)
    figure = Figure(figsize=(4 * PLACE_IN, (PLACE_IN + 0.15) * len(places) + 0.22 * lines + 0.3), layout="constrained")
    axes = figure.subplots(len(places), 4, squeeze=False)
    for row, place in zip(axes, places, strict=True):
        _show_place(row, place, legend)
    for axis, title in zip(axes[0], ("image", "labels", "map", "errors"), strict=True):
        axis.set_title(title if title != "errors" else f"errors: {axis.get_title()}", fontsize=10, color=INK)
    handles = [Patch(facecolor=item.color, edgecolor=FAINT, linewidth=0.4, label=_text(item.name)) for item in shown]
    handles += [Patch(facecolor=WRONG, label="wrong"), Patch(facecolor=RIGHT, label="right")]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)
    _save(figure, path)


def _show_place(axes: Sequence[Axes], place: Place, legend: Legend) -> None:
    labels = validation_labels(place.scene, place.window)
    known = labels != NOTHING
    wrong = known & (labels != place.mapped)
    errors = np.full((*labels.shape, 4), _rgba(BARE), np.uint8)
    errors[known], errors[wrong] = _rgba(RIGHT), _rgba(WRONG)
    pictures = (place_image(place), _painted(labels, legend), _painted(place.mapped, legend), errors)
    for axis, picture in zip(axes, pictures, strict=True):
        axis.imshow(picture, interpolation="nearest")
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_edgecolor(FAINT)
    window = place.window
    where = f"rows {window.row_off} to {window.row_stop}\ncolumns {window.col_off} to {window.col_stop}"
    axes[0].set_ylabel(f"{_text(PurePath(place.scene.name).name)}\n{where}", fontsize=7, color=INK)
    share = wrong.sum() / max(int(known.sum()), 1)
    axes[3].set_title(f"{share:.0%} of the labels", fontsize=8, color=INK)


def place_image(place: Place) -> NDArray[np.uint8]:
    """The image of a place, `(row, col, 4)`: three bands between their 2 % and 98 % quantiles, pale where invalid."""
    scene, window = place.scene, place.window
    there = [k for k in range(len(scene.bands)) if k not in scene.absent]
    chosen = [there[k] for k in picture_bands([scene.bands[k] for k in there])]
    pixels = scene.pixels[slice(0, len(scene.bands)), *window.slices]
    return stretched(pixels[chosen], np.asarray(scene.valid[window.slices]), bare=_rgba(BARE))


def _painted(classes: NDArray[np.int32], legend: Legend) -> NDArray[np.uint8]:
    """Classes in their colours, `(row, col, 4)`; pale where there is none."""
    colors = np.array([*((*item.rgb, 255) for item in legend.classes), _rgba(BARE)], np.uint8)
    return colors[classes]  # NOTHING is the last


def _rgba(color: str) -> tuple[int, int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16), 255


def _text(name: str) -> str:
    """A name as matplotlib shows it: no formula, and not too long."""
    short = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
    return short.replace("$", r"\$")


def _save(figure: Figure, path: Path) -> None:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")  # a script that the font has not
            figure.savefig(path, dpi=DPI, format="png")
    except OSError as error:
        raise OutputError(f"the picture {path} cannot be written: {error.strerror or error}") from error
