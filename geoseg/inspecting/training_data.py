"""The data of a training config: scenes, bands, labels by part, the split, and what is probably wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.data import splits
from geoseg.data.scene import OUTSIDE, PARTS, TRAINING, SceneArrays, windows_of
from geoseg.data.statistics import BandStats, in_threads, training_statistics
from geoseg.errors import GeosegError, OutputError
from geoseg.inspecting.alignment import Shift, label_shifts
from geoseg.inspecting.grids import crs_name, describe_grid, ground_metric, pixel_areas_m2
from geoseg.inspecting.tables import Info, facts, finite, hectares, number, percent, some, table
from geoseg.jit import jit
from geoseg.legend import Legend
from geoseg.tiling import Window
from geoseg.vector.metric import Metric

FEW_LABELS = 0.01
LEVELS = (0.01, 0.5, 0.99)
MOST_LINES = 100
PLACE_HEADS = ("size", "crs", "pixel", "dtype", "valid px")
PLACES = {"outside": OUTSIDE, **PARTS}


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """Labelled pixels and square metres `(part, class)`, and how many pixels are valid."""

    pixels: NDArray[np.int64]
    areas: NDArray[np.float64]
    valid: int

    def merge(self, other: Tally) -> Tally:
        """Those of both."""
        return Tally(self.pixels + other.pixels, self.areas + other.areas, self.valid + other.valid)


def inspect_data(
    scenes: Sequence[SceneArrays],
    *,
    legend: Legend,
    name: str,
    stats: BandStats | None = None,
    buffer_m: float | None = None,
    refused: str = "",
    unreadable: Sequence[str] = (),
    unlabelled: Sequence[SceneArrays] = (),
) -> Info:
    """What a network would be trained on.

    Args:
        scenes: The decoded scenes with their parts.
        legend: The classes.
        name: What the data are called in the text: the config's path.
        stats: Statistics of the training pixels, where they are known.
        buffer_m: Distance that the parts keep; without, leaks within 16 pixels of each scene are looked for.
        refused: Why the split was refused, if it was.
        unreadable: What could not be read and was left out.
        unlabelled: What a run learns from without labels, `scenes` among them or not.

    Raises:
        ReadError: A stored scene cannot be read.
    """
    tallies = [tally(scene, classes=len(legend)) for scene in scenes]
    total = reduce(Tally.merge, tallies)
    stats = training_statistics(scenes) if stats is None else stats
    shifts = label_shifts(scenes)
    labelled = {id(scene) for scene in scenes}
    bare = [scene for scene in unlabelled if id(scene) not in labelled]
    alike = _label_range(scenes)
    leaks = [] if refused else [str(leak) for leak in splits.find_leaks(scenes, buffer_m=buffer_m)]
    values = {
        "name": name,
        "scenes": [_scene(scene, own) for scene, own in zip(scenes, tallies, strict=True)],
        "unlabelled": [_bare_scene(scene) for scene in bare],
        "bands": _bands(scenes[0].bands, stats),
        "classes": _classes(legend, total),
        "labelled_share": int(total.pixels.sum()) / max(total.valid, 1),
        "label_range_m": None if alike is None else finite(alike.range_m),
        "label_range_bounded": None if alike is None else bool(alike.bounded),
        "buffer_m": buffer_m,
        "buffer_proposed_m": None if alike is None else finite(alike.buffer_m),
        "leaks": leaks,
        "shifts": [{"scene": scene, "rows": found.rows, "cols": found.cols} for scene, found in shifts],
    }
    tables = [_scene_table(values), *([_bare_table(values)] if bare else []), _band_table(values), _class_table(values)]
    found = [
        *([f"the split is refused: {refused}"] if refused else []),
        *(f"cannot be read, and is left out: {what}" for what in unreadable),
        *_shift_warnings(shifts),
        *_flat_warnings(values),
        *_label_warnings(values, legend, total, tallies, scenes),
        *(f"leak: {leak}" for leak in leaks),
        *_buffer_warnings(values),
    ]
    return Info("config", values, (_heading(values, scenes), *tables), tuple(found))


def draw_parts(scenes: Sequence[SceneArrays], plan: splits.SplitPlan, out: Path) -> Path:
    """The PNG file that shows where the parts of a split lie.

    Raises:
        OutputError: The file cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        splits.draw_split(scenes, plan, out)
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror or error}") from error
    return out


def tally(scene: SceneArrays, *, classes: int) -> Tally:
    """Labelled pixels and true areas of each class in each part of a scene; areas are 0 without a CRS."""
    metric = ground_metric(scene.geobox)
    found = in_threads(partial(_window_tally, scene, metric, classes), windows_of(scene.shape))
    return reduce(Tally.merge, found)


def _window_tally(scene: SceneArrays, metric: Metric | None, classes: int, window: Window) -> Tally:
    valid = scene.valid[window.slices]
    pixels, areas = np.zeros((len(PLACES), classes), np.int64), np.zeros((len(PLACES), classes))
    each = np.zeros((window.rows, window.cols)) if metric is None else pixel_areas_m2(metric, window)
    _add(scene.labels[window.slices], scene.part[window.slices], each, pixels, areas)
    return Tally(pixels, areas, int(valid.sum()))


@jit
def _add(
    labels: NDArray[Any],
    parts: NDArray[Any],
    pixel_areas: NDArray[np.float64],
    pixels: NDArray[np.int64],
    areas: NDArray[np.float64],
) -> None:  # pragma: no cover - compiled
    """Adds pixels and their areas to `(part, class)`; labels beyond the classes mean none."""
    rows, cols = labels.shape
    for row in range(rows):
        for col in range(cols):
            label = np.int64(labels[row, col])
            if label < pixels.shape[1]:
                part = np.int64(parts[row, col])
                pixels[part, label] += 1
                areas[part, label] += pixel_areas[row, col]


def _label_range(scenes: Sequence[SceneArrays]) -> splits.LabelRange | None:
    """How far labels are alike; None where that cannot be said."""
    try:
        return splits.label_range_m(scenes)
    except GeosegError:
        return None


def _scene(scene: SceneArrays, own: Tally) -> dict[str, Any]:
    parts = {name: int(own.pixels[part].sum()) for name, part in PLACES.items()}
    lacking = [scene.bands[position] for position in scene.absent]
    return {
        "name": scene.name, "grid": describe_grid(scene.geobox), "dtype": str(scene.pixels.dtype), "valid": own.valid,
        "labelled": int(own.pixels.sum()), "labelled_in": parts, "bands_lacking": lacking, "weight": scene.weight,
    }  # fmt: skip


def _bare_scene(scene: SceneArrays) -> dict[str, Any]:
    """A scene without labels, and how much of it may be shown: nothing of what validates or tests."""
    windows = list(windows_of(scene.shape))
    valid = sum(int(scene.valid[each.slices].sum()) for each in windows)
    shown = sum(int((scene.valid[each.slices] & (scene.part[each.slices] == TRAINING)).sum()) for each in windows)
    return {"name": scene.name, "grid": describe_grid(scene.geobox), "dtype": str(scene.pixels.dtype), "valid": valid,
            "shown": shown, "weight": scene.weight}  # fmt: skip


def _bands(names: Sequence[str], stats: BandStats) -> list[dict[str, Any]]:
    quantiles = stats.quantiles(LEVELS)
    spread = np.sqrt(stats.squares / np.maximum(stats.count, 1))  # stats.std is a divisor, and never 0
    mean, std = (np.where(stats.count > 0, found, np.nan) for found in (stats.mean, spread))
    return [
        {"name": name, "pixels": int(stats.count[k]), "mean": finite(mean[k]), "std": finite(std[k]),
         "min": finite(stats.low[k]), "max": finite(stats.high[k]),
         **{f"p{round(100 * level)}": finite(quantiles[j, k]) for j, level in enumerate(LEVELS)}}
        for k, name in enumerate(names)
    ]  # fmt: skip


def _classes(legend: Legend, total: Tally) -> list[dict[str, Any]]:
    placed = bool(total.areas.any())
    return [
        {"id": item.id, "name": item.name,
         "pixels": {name: int(total.pixels[part, k]) for name, part in PLACES.items()},
         "area_m2": {name: float(total.areas[part, k]) if placed else None for name, part in PLACES.items()}}
        for k, item in enumerate(legend.classes)
    ]  # fmt: skip


def _heading(values: dict[str, Any], scenes: Sequence[SceneArrays]) -> str:
    crs = sorted({crs_name(scene.geobox) for scene in scenes})
    buffer = values["buffer_m"]
    return facts(
        [
            ("data", values["name"]),
            ("scenes", f"{len(scenes):,} in {some(crs)}"),
            ("labels", f"{len(values['classes'])} classes on {percent(values['labelled_share'])} of the valid pixels"),
            ("alike", _range_text(values)),
            ("buffer", "16 pixels between the parts" if buffer is None else f"{buffer:,.0f} m between the parts"),
            ("leaks", "none found" if not values["leaks"] else f"{len(values['leaks'])}, see below"),
        ]
    )


def _range_text(values: dict[str, Any]) -> str:
    """How far labels are alike, in words."""
    reach = values["label_range_m"]
    if reach is None:
        return "unknown: too few labels, or no CRS"
    least = "" if values["label_range_bounded"] else "at least "
    return f"over {least}{reach:,.0f} m (their variogram); a buffer of {values['buffer_proposed_m']:,.0f} m follows"


def _scene_table(values: dict[str, Any]) -> str:
    rows = [
        [*_place(item), *(f"{item['labelled_in'][part]:,}" for part in PARTS)] for item in values["scenes"][:MOST_LINES]
    ]
    return table(["scene", *PLACE_HEADS, *(f"{part} px" for part in PARTS)], rows) + _more(values["scenes"])


def _place(item: dict[str, Any]) -> list[str]:
    """What stands in the columns of a scene and of PLACE_HEADS."""
    grid = item["grid"]
    gsd = "-" if grid["gsd_m"] is None else f"{grid['gsd_m'][1]:.4g} m"
    size = f"{grid['cols']:,} x {grid['rows']:,}"
    return [item["name"], size, grid["crs"], gsd, item["dtype"], f"{item['valid']:,}"]


def _more(items: Sequence[Any]) -> str:
    return f"\nand {len(items) - MOST_LINES:,} more" if len(items) > MOST_LINES else ""


def _bare_table(values: dict[str, Any]) -> str:
    rows = [[*_place(item), f"{item['shown']:,}"] for item in values["unlabelled"][:MOST_LINES]]
    return table(["without labels", *PLACE_HEADS, "shown px"], rows) + _more(values["unlabelled"])


def _band_table(values: dict[str, Any]) -> str:
    keys = ("min", "p1", "mean", "p50", "p99", "max", "std")
    rows = [[band["name"], f"{band['pixels']:,}", *(number(band[key]) for key in keys)] for band in values["bands"]]
    return table(["band", "training px", *("median" if key == "p50" else key for key in keys)], rows)


def _class_table(values: dict[str, Any]) -> str:
    heads = ["class", *(word for part in PARTS for word in (f"{part} px", "ha")), "outside px"]
    rows = [
        [f"{item['id']} {item['name']}",
         *(word for part in PARTS for word in (f"{item['pixels'][part]:,}", hectares(item["area_m2"][part]))),
         f"{item['pixels']['outside']:,}"]
        for item in values["classes"]
    ]  # fmt: skip
    return table(heads, rows)


def _shift_warnings(shifts: Sequence[tuple[str, Shift]]) -> list[str]:
    said = []
    for name, shift in shifts:
        moves = [
            f"{abs(step)} {'pixel' if abs(step) == 1 else 'pixels'} {way}"
            for step, way in ((shift.rows, "down" if shift.rows > 0 else "up"),
                              (shift.cols, "to the right" if shift.cols > 0 else "to the left")) if step
        ]  # fmt: skip
        said.append(
            f"the labels of {name} fit its image best when moved {' and '.join(moves)} (borders stand out "
            f"{min(shift.gain, 99):.1f} times more): check their CRS and origin"
        )
    return said


def _flat_warnings(values: dict[str, Any]) -> list[str]:
    flat = [band["name"] for band in values["bands"] if band["min"] is not None and band["min"] == band["max"]]
    return [f"every training pixel has the same value in {some(flat)}"] if flat else []


def _label_warnings(
    values: dict[str, Any], legend: Legend, total: Tally, tallies: Sequence[Tally], scenes: Sequence[SceneArrays]
) -> list[str]:
    said = []
    if values["labelled_share"] < FEW_LABELS:
        said.append(f"labels cover {percent(values['labelled_share'])} of the valid pixels; see data.sampling")
    empty = [scene.name for scene, own in zip(scenes, tallies, strict=True) if not own.valid]
    bare = [scene.name for scene, own in zip(scenes, tallies, strict=True) if own.valid and not own.pixels.any()]
    if empty:
        said.append(f"all is nodata in {some(empty)}")
    if bare:
        said.append(f"no label lies on {some(bare)}")
    absent = [item.name for k, item in enumerate(legend.classes) if not total.pixels[:, k].any()]
    if absent:
        said.append(f"the legend names {some(absent)}, of which there is no pixel")
    used = [part for part in PARTS.values() if total.pixels[part].any()]
    for k, item in enumerate(legend.classes):
        there = [name for name, part in PARTS.items() if total.pixels[part, k]]
        if len(there) == 1 and len(used) > 1:
            said.append(f"class {item.name} is in {there[0]} only: {_so(there[0])}")
    return said


def _so(part: str) -> str:
    return "its score stays unknown" if part == "training" else "the network cannot learn it"


def _buffer_warnings(values: dict[str, Any]) -> list[str]:
    proposed, buffer = values["buffer_proposed_m"], values["buffer_m"]
    if proposed is None or buffer is None or buffer >= values["label_range_m"]:
        return []
    said = f"the buffer of {buffer:,.0f} m is less than the distance over which labels are alike"
    return [f"{said}, so scores may be too good; data.split.buffer_m: {proposed:.0f} keeps the parts apart"]
