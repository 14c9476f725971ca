"""A split drawn: where the parts lie, and how each class is shared out among them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import shapely
from numpy.typing import NDArray

from geoseg.data.scene import SceneArrays
from geoseg.data.splits.maps import SHOWN, Map, maps_of
from geoseg.data.splits.plan import PART_CODES, SplitPlan
from geoseg.data.splits.planes import part_counts
from geoseg.errors import OutputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = {
    "unlabelled": "#efede8", "outside": "#b4b4b4", "training": "#3d7ea6", "validation": "#f0a030", "test": "#a4306b",
}  # fmt: skip
WORDS = {"outside": "buffer, or in no part", "unlabelled": "no label"}
PAPER, INK, FAINT = "#ffffff", "#333333", "#8a8a8a"
SHARED_OUT = ("training", "validation", "test", "outside")
MOST_BORDERS = 4_000
MOST_CLASSES = 24
FEWEST_ROWS = 8  # room for fewer bars makes none thicker
METRES_A_DEGREE = 111_195.0  # along a meridian of the authalic sphere
DPI = 130


def draw_split(scenes: Sequence[SceneArrays], plan: SplitPlan, path: str | Path) -> None:
    """Writes a picture (PNG) of a split: maps of the parts, and bars that share out the pixels of each class.

    Scenes of any CRS lie on one map in degrees; places far apart have maps of their own, scenes without a CRS stand in
    rows. Only labelled pixels have the colour of their part.

    Args:
        scenes: Scenes with their parts.
        plan: What `split_scenes` gave for them.
        path: The file.

    Raises:
        OutputError: It cannot be written.
    """
    from matplotlib.figure import Figure

    maps = maps_of(scenes)
    figure = Figure(figsize=(12.5, 6.6), facecolor=PAPER, layout="constrained")
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=[2.1, 1])[0]
    across = int(np.ceil(np.sqrt(len(maps))))
    axes = left.subplots(-(-len(maps) // across), across, squeeze=False).ravel()
    borders = _borders(plan)
    for axis, drawn in zip(axes, maps, strict=False):
        _show_map(axis, drawn, borders)
    for axis in axes[len(maps) :]:
        axis.set_axis_off()
    bare = any(bool((drawn.paint == SHOWN.index("unlabelled") + 1).any()) for drawn in maps)
    _show_shares(right.subplots(), plan, _pixels(scenes, plan), bare=bare)
    figure.suptitle(_title(plan), fontsize=10, color=INK, x=0.01, ha="left")
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=DPI, format="png")
    except OSError as error:
        raise OutputError(f"the picture {path} cannot be written: {error.strerror or error}") from error


def _title(plan: SplitPlan) -> str:
    buffer = "16 pixels" if plan.buffer_m is None else f"{plan.buffer_m:,.0f} m"
    return f"{plan.method}; buffer of {buffer}" if plan.method else f"buffer of {buffer}"


def _pixels(scenes: Sequence[SceneArrays], plan: SplitPlan) -> dict[str, NDArray[np.int64]]:
    """Labelled pixels of each class in each part."""
    if plan.pixels:
        return {part: np.array(plan.pixels.get(part, [0] * len(plan.classes))) for part in SHARED_OUT}
    counts = part_counts(scenes, classes=len(plan.classes))
    return {part: counts[code] for part, code in PART_CODES.items()}


def _borders(plan: SplitPlan) -> list[NDArray[np.float64]]:
    """Rings of the units' borders in degrees; none where units are very many."""
    if len(plan.units) > MOST_BORDERS:
        return []
    shapes = [unit.geometry for unit in plan.units if unit.geometry is not None]
    rings = shapely.get_rings(np.array(shapes, dtype=object))
    return [shapely.get_coordinates(ring) for ring in rings]


def _show_map(axis: Axes, drawn: Map, borders: Sequence[NDArray[np.float64]]) -> None:
    from matplotlib.collections import LineCollection
    from matplotlib.colors import ListedColormap, to_rgba

    colors = ListedColormap([(1.0, 1.0, 1.0, 0.0), *(to_rgba(COLORS[word]) for word in SHOWN)])
    west, south, east, north = drawn.box
    axis.imshow(
        drawn.paint, cmap=colors, vmin=-0.5, vmax=len(SHOWN) + 0.5, extent=(west, east, south, north),
        interpolation="nearest", aspect=drawn.aspect,
    )  # fmt: skip
    axis.set_title(drawn.title, fontsize=8, color=FAINT, loc="left", pad=3)
    axis.tick_params(labelsize=7, colors=FAINT, length=2)
    for spine in axis.spines.values():
        spine.set_color("#d8d8d8")
    if not drawn.placed:
        axis.set(xticks=[], yticks=[])
        return
    turned = [np.column_stack([ring[:, 0] % 360, ring[:, 1]]) if east > 180 else ring for ring in borders]
    axis.add_collection(LineCollection(turned, colors="#222222", linewidths=0.45, alpha=0.55), autolim=False)
    axis.set(xlim=(west, east), ylim=(south, north))
    axis.locator_params(nbins=5)
    axis.ticklabel_format(useOffset=False)
    _show_scale(axis, drawn)


def _show_scale(axis: Axes, drawn: Map) -> None:
    """A bar of a round number of metres, about a fifth of the map wide."""
    west, south, east, north = drawn.box
    metres_a_degree = METRES_A_DEGREE / drawn.aspect
    wanted = (east - west) * metres_a_degree / 5
    power = 10 ** np.floor(np.log10(wanted))
    metres = float(power * max(step for step in (1, 2, 5) if step * power <= wanted))
    left, foot = west + 0.03 * (east - west), south + 0.035 * (north - south)
    axis.plot([left, left + metres / metres_a_degree], [foot, foot], color=INK, linewidth=2.2, solid_capstyle="butt")
    words = f"{metres / 1000:,.0f} km" if metres >= 1000 else f"{metres:,.0f} m"
    axis.text(
        left, foot + 0.012 * (north - south), words, fontsize=7, color=INK, va="bottom",
        bbox={"facecolor": PAPER, "alpha": 0.7, "linewidth": 0, "pad": 1.0},
    )  # fmt: skip


def _show_shares(axis: Axes, plan: SplitPlan, pixels: dict[str, NDArray[np.int64]], *, bare: bool) -> None:
    """A bar for each class, cut into the shares of the parts; the largest classes where they are very many."""
    total = np.sum([pixels[part] for part in SHARED_OUT], axis=0)
    shown = np.sort(np.argsort(-total, kind="stable")[:MOST_CLASSES])
    table = {part: np.append(pixels[part].sum(), pixels[part][shown]) for part in SHARED_OUT}
    sums = np.append(total.sum(), total[shown])
    names = ["all", *(plan.classes[k] for k in shown)]
    place, start = np.arange(len(names), dtype=float), np.zeros(len(names))
    place[1:] += 0.5
    for part in SHARED_OUT:
        share = table[part] / np.maximum(sums, 1)
        label = WORDS.get(part, part)
        axis.barh(place, share, left=start, height=0.68, color=COLORS[part], label=label if share.any() else None)
        _show_percents(axis, place, start, share, dark=part in ("training", "test"))
        start += share
    if bare:
        axis.barh([np.nan], [0], color=COLORS["unlabelled"], label=WORDS["unlabelled"])
    _dress_shares(axis, place, names, sums)


def _show_percents(
    axis: Axes, place: NDArray[np.float64], start: NDArray[np.float64], share: NDArray[np.float64], *, dark: bool
) -> None:
    for row, left, part in zip(place, start, share, strict=True):
        if part >= 0.07:
            color = PAPER if dark else INK
            axis.text(left + part / 2, row, f"{part:.0%}", ha="center", va="center", fontsize=7, color=color)


def _dress_shares(axis: Axes, place: NDArray[np.float64], names: Sequence[str], sums: NDArray[np.int64]) -> None:
    labels = [f"{name if len(name) <= 22 else name[:21] + '…'}" for name in names]
    axis.set_yticks(place, labels, fontsize=8, color=INK)
    for row, count in zip(place, sums.tolist(), strict=True):
        axis.text(1.02, row, short_number(count), va="center", fontsize=7, color=FAINT)
    axis.set(xlim=(0, 1), ylim=(max(place[-1], FEWEST_ROWS) + 0.7, -0.7), xticks=[])
    axis.set_title("labelled pixels of each class", fontsize=8, color=FAINT, loc="left", pad=3)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.legend(
        loc="upper left", bbox_to_anchor=(0, place[-1] + 0.8), bbox_transform=axis.transData, ncols=2, fontsize=8,
        frameon=False, handlelength=1, handleheight=1, labelcolor=INK,
    )  # fmt: skip


def short_number(count: int) -> str:
    """A count in few characters.

    >>> short_number(950), short_number(12_340), short_number(1_234_567)
    ('950', '12.3k', '1.23M')
    """
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return str(count)
